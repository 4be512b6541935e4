package standin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The example of an upload with trailers in the documentation of S3 is right
// down to its last signature:
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
func TestAWSDocumentedTrailer(t *testing.T) {
	const seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
	body := "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + strings.Repeat("a", 65536) +
		"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + strings.Repeat("a", 1024) +
		"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	server := s3().New(Credentials{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, func() time.Time { return now })
	check := func(body string) error {
		r := httptest.NewRequest("PUT", "https://s3.amazonaws.com/examplebucket/chunkObject.txt", nil)
		for name, value := range map[string]string{
			"Content-Encoding": "aws-chunked", "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "X-Amz-Date": "20130524T000000Z",
			"X-Amz-Decoded-Content-Length": "66560", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY", "X-Amz-Trailer": "x-amz-checksum-crc32c",
			"Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer,Signature=" + seed,
		} {
			r.Header.Set(name, value)
		}
		return aws{"us-east-1", "s3"}.verify(server, r, []byte(body))
	}
	if err := check(body); err != nil {
		t.Error(err)
	}
	for _, spoilt := range []string{
		strings.Replace(body, "sOO8", "sOO9", 1),                                      // the trailer
		body[:strings.Index(body, "x-amz-trailer-signature")] + "\r\n",                // no signature of it
		strings.Replace(body, "\r\n400;", "\r\n3ff;", 1),                              // the length of a chunk
		body[:strings.Index(body, "\r\n400;")] + body[strings.Index(body, "\r\n0;"):], // a chunk left out
	} {
		if err := check(spoilt); err == nil {
			t.Errorf("accepted: %.20q...%q", spoilt, spoilt[len(spoilt)-80:])
		}
	}
}

// RFC 6238 appendix B, shortened to six digits.
func TestCode(t *testing.T) {
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := Code("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", time.Unix(at, 0)); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
	if got := Code("not base32!", time.Unix(59, 0)); got != "" {
		t.Errorf("a code for no key: %s", got)
	}
}

// A server answers only for its hosts: a "*." stands for names below.
func TestHosts(t *testing.T) {
	s := &Server{Service: Service{Hosts: []string{"a.example.com", "*.b.example.com"}}}
	for host, want := range map[string]bool{"a.example.com": true, "x.b.example.com": true, "b.example.com": false, "xa.example.com": false} {
		if got := s.hasHost(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
	if got := hostOf(&http.Request{Host: "A.example.com:8443"}); got != "a.example.com" {
		t.Error(got)
	}
}
