package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"ambit/audit/sink/outputs"
	"ambit/internal/secretbytes"
)

// bucket puts each batch into an object of an S3-compatible store: JSON Lines in
// gzip under prefix/log/first-last.jsonl.gz. The same batch makes the same object,
// so one that is delivered again overwrites itself.
type bucket struct {
	encoder
	*web
	url, bucket, prefix, region string
	id                          string
	secret                      secretbytes.Bytes
	signer                      *v4.Signer
	now                         func() time.Time
}

func newBucket(c *outputs.Sink, version string) (*bucket, error) {
	secret, err := outputs.ReadSecret(c.SecretFile)
	if err != nil {
		return nil, err
	}
	w, err := newWeb(c.TLS, secret)
	if err != nil {
		return nil, err
	}
	return &bucket{
		encoder: encoder{c.OCSF, version}, web: w, url: strings.TrimSuffix(c.URL, "/"), bucket: c.Bucket, prefix: c.Prefix, region: c.Region, id: c.AccessKeyID, secret: secret, now: time.Now,
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }), // S3 signs the path as it is
	}, nil
}

// key names the object of a batch. Numbers are padded, so that names are in order.
func (s *bucket) key(b Batch) string {
	key := fmt.Sprintf("%s/%020d-%020d.jsonl.gz", b.Log.Name, b.First(), b.Last())
	if s.prefix != "" {
		key = s.prefix + "/" + key
	}
	return key
}

// Deliver implements Receiver.
func (s *bucket) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	body, err := s.object(b)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url+"/"+s.bucket+"/"+s.key(b), bytes.NewReader(body))
	if err != nil {
		return nil, s.quiet(err)
	}
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	req.Header.Set("Content-Type", "application/gzip")
	req.Header.Set("User-Agent", "ambit")
	req.Header.Set("X-Amz-Content-Sha256", payload)
	req.Header.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(sum[:])) // a bucket with Object Lock wants one
	who := aws.Credentials{AccessKeyID: s.id, SecretAccessKey: string(s.secret.Reveal())}
	if err := s.signer.SignHTTP(ctx, who, req, payload, "s3", s.region, s.now()); err != nil {
		return nil, s.quiet(err)
	}
	a, err := s.do(req)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, s.refused(a)
	}
	return nil, nil
}

// object is the batch in gzip, without a time of its own.
func (s *bucket) object(b Batch) ([]byte, error) {
	lines, err := s.lines(b)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(lines); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Close implements Receiver.
func (s *bucket) Close() error { return s.close() }
