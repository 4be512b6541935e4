package standin_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// The signer of the AWS SDK is accepted, in the header and presigned, so that
// what is checked is what AWS means and not only what this package does twice.
func TestAWSSigner(t *testing.T) {
	have := account()
	have["session_token"] = "canary-session-token"
	key := aws.Credentials{AccessKeyID: have["access_key_id"], SecretAccessKey: have["secret_access_key"], SessionToken: have["session_token"]}
	ctx := context.Background()
	for _, c := range []struct{ service, sends, method, url, body string }{
		{"s3", "s3", "GET", "https://acme-data.s3.eu-central-1.amazonaws.com/a%20b/c%2Bd%3De.txt?x-id=GetObject&list-type=2", ""},
		{"s3", "s3", "PUT", "https://s3.eu-central-1.amazonaws.com/acme-data/x", "hello"},
		{"sigv4", "execute-api", "POST", "https://api.example.com/prod/a%20b?q=1&a=x%2Fy", "{}"},
	} {
		server, client := start(t, c.service, have)
		sum := sha256.Sum256([]byte(c.body))
		payload := hex.EncodeToString(sum[:])
		for _, presigned := range []bool{false, true} {
			r, err := http.NewRequest(c.method, c.url, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = c.sends == "s3" })
			switch {
			case presigned:
				if c.sends == "s3" {
					payload = "UNSIGNED-PAYLOAD"
				}
				q := r.URL.Query()
				q.Set("X-Amz-Expires", "60")
				r.URL.RawQuery = q.Encode()
				uri, header, err := signer.PresignHTTP(ctx, key, r, payload, c.sends, "eu-central-1", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if r, err = http.NewRequest(c.method, uri, strings.NewReader(c.body)); err != nil {
					t.Fatal(err)
				}
				for name := range header {
					if name != "Host" {
						r.Header[name] = header[name]
					}
				}
			default:
				if c.sends == "s3" {
					r.Header.Set("X-Amz-Content-Sha256", payload)
				}
				if err := signer.SignHTTP(ctx, key, r, payload, c.sends, "eu-central-1", time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s %s, presigned %v: %s", c.method, c.url, presigned, resp.Status)
			}
		}
		if server.Accepted() != 2 {
			t.Errorf("%d accepted", server.Accepted())
		}
	}
}

// A body that is signed in chunks is accepted as the SDK's stream signer signs
// it, and not with a byte changed.
func TestAWSChunks(t *testing.T) {
	have := account()
	key := aws.Credentials{AccessKeyID: have["access_key_id"], SecretAccessKey: have["secret_access_key"]}
	ctx, at := context.Background(), time.Now().UTC()
	for _, spoil := range []bool{false, true} {
		server, client := start(t, "s3", have)
		r, err := http.NewRequest("PUT", "https://acme-data.s3.eu-central-1.amazonaws.com/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
		r.Header.Set("X-Amz-Decoded-Content-Length", "10")
		r.Header.Set("Content-Encoding", "aws-chunked")
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
		if err := signer.SignHTTP(ctx, key, r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "s3", "eu-central-1", at); err != nil {
			t.Fatal(err)
		}
		_, seed, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		raw, err := hex.DecodeString(seed)
		if err != nil {
			t.Fatal(err)
		}
		stream := v4.NewStreamSigner(key, "s3", "eu-central-1", raw)
		var body strings.Builder
		for _, chunk := range []string{"hello", "world", ""} {
			signature, err := stream.GetSignature(ctx, nil, []byte(chunk), at)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&body, "%x;chunk-signature=%x\r\n%s\r\n", len(chunk), signature, chunk)
		}
		text := body.String()
		if spoil {
			text = strings.Replace(text, "world", "World", 1)
		}
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if (resp.StatusCode == http.StatusOK) == spoil || (server.Accepted() == 1) == spoil {
			t.Errorf("spoilt %v: %s", spoil, resp.Status)
		}
	}
}
