package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
)

// Parts of an upload have 5 MiB or more, so that large is two of them.
const (
	part  = 5 << 20
	large = 9 << 20
)

// useS3 writes, reads, lists and deletes objects: with a body whose hash is
// signed, with one that is not and has its checksum in a trailer, as a stream,
// in parts, and with a URL that carries the signature. Key, secret and region
// are where the SDK looks for them.
func useS3(ctx context.Context, a account) error {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(1))
	if err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	c := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if !a.own() {
			o.BaseEndpoint = aws.String(a.base("s3." + cfg.Region + ".amazonaws.com"))
		}
	})
	for _, step := range []func(context.Context, *s3.Client, string) error{small, trailer, stream, parts, presigned, tidy} {
		if err := step(ctx, c, a.bucket); err != nil {
			return err
		}
	}
	return nil
}

// sum names content so that it can be compared.
func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// content is n bytes that do not repeat with any power of two.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 % 251)
	}
	return b
}

func put(ctx context.Context, c *s3.Client, what, bucket, key string, body io.Reader, n int, options ...func(*s3.Options)) error {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: body, ContentLength: aws.Int64(int64(n)), ContentType: aws.String("text/plain"),
		Metadata: map[string]string{"order": "42"},
	}, options...)
	if err != nil {
		return fmt.Errorf("writing %s: %w", what, err)
	}
	return get(ctx, c, what, bucket, key)
}

func get(ctx context.Context, c *s3.Client, what, bucket, key string) error {
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	defer func() { _ = out.Body.Close() }()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	fmt.Println(what, len(b), sum(b))
	return nil
}

// small signs the hash of the body, which the SDK leaves out over TLS unless it
// is told so. The name needs escaping in the canonical request.
func small(ctx context.Context, c *s3.Client, bucket string) error {
	signed := func(stack *middleware.Stack) error {
		return errors.Join(v4.RemoveComputePayloadSHA256Middleware(stack), v4.AddComputePayloadSHA256Middleware(stack))
	}
	return put(ctx, c, "signed", bucket, "reports/year 2026+ü&=.txt", bytes.NewReader(content(10_000)), 10_000, s3.WithAPIOptions(signed), func(o *s3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
}

// trailer is what the SDK does by itself.
func trailer(ctx context.Context, c *s3.Client, bucket string) error {
	return put(ctx, c, "trailer", bucket, "reports/trailer", bytes.NewReader(content(200_000)), 200_000)
}

// stream uploads what cannot be read twice.
func stream(ctx context.Context, c *s3.Client, bucket string) error {
	r, w := io.Pipe()
	go func() {
		_, err := w.Write(content(1 << 20))
		_ = w.CloseWithError(err)
	}()
	defer func() { _ = r.Close() }()
	return put(ctx, c, "stream", bucket, "reports/stream", r, 1<<20)
}

// parts uploads several parts at once.
func parts(ctx context.Context, c *s3.Client, bucket string) error {
	m := transfermanager.New(c, func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = part, part })
	_, err := m.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: &bucket, Key: aws.String("reports/parts"), Body: io.LimitReader(bytes.NewReader(content(large)), large),
	})
	if err != nil {
		return fmt.Errorf("writing in parts: %w", err)
	}
	return get(ctx, c, "parts", bucket, "reports/parts")
}

// presigned reads and writes with plain HTTP and URLs that are signed.
func presigned(ctx context.Context, c *s3.Client, bucket string) error {
	signer := s3.NewPresignClient(c)
	key := aws.String("reports/presigned")
	up, err := signer.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: key}, s3.WithPresignExpires(time.Minute))
	if err != nil {
		return fmt.Errorf("signing a URL: %w", err)
	}
	if _, err := ask(ctx, up, string(content(5000))); err != nil {
		return fmt.Errorf("writing to a signed URL: %w", err)
	}
	down, err := signer.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: key}, s3.WithPresignExpires(time.Minute))
	if err != nil {
		return fmt.Errorf("signing a URL: %w", err)
	}
	b, err := ask(ctx, down, "")
	if err != nil {
		return fmt.Errorf("reading a signed URL: %w", err)
	}
	fmt.Println("presigned", len(b), sum(b))
	return nil
}

func ask(ctx context.Context, signed *v4.PresignedHTTPRequest, body string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, signed.Method, signed.URL, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range signed.SignedHeader {
		if name != "Host" && name != "Content-Length" {
			r.Header[name] = values
		}
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, b)
	}
	return b, err
}

// tidy lists what is there and deletes one object.
func tidy(ctx context.Context, c *s3.Client, bucket string) error {
	prefix := aws.String("reports/")
	list := func() error {
		out, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: prefix})
		if err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		fmt.Println("listed", len(out.Contents))
		return nil
	}
	if err := list(); err != nil {
		return err
	}
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("reports/stream")}); err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	return list()
}
