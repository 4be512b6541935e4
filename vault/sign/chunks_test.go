package sign

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

func chunkedUpload(trailer bool) (*http.Request, string) {
	body := "10000;chunk-signature=%1\r\n" + strings.Repeat("a", 65536) + "\r\n400;chunk-signature=%2\r\n" + strings.Repeat("a", 1024) + "\r\n0;chunk-signature=%3\r\n%T\r\n"
	names := "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
	seed, length, payload := "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", int64(66824), streaming
	signatures := []string{
		"%1", "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
		"%2", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
		"%3", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", "%T", "",
	}
	if trailer {
		names = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer"
		seed, payload = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e", streamTrailer
		signatures = []string{
			"%1", "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
			"%2", "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
			"%3", "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
			"%T", "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n",
		}
	}
	body = strings.NewReplacer(signatures...).Replace(body)
	r := documented("PUT", "https://s3.amazonaws.com/examplebucket/chunkObject.txt", names, seed,
		"Content-Encoding", "aws-chunked", "X-Amz-Content-Sha256", payload, "X-Amz-Decoded-Content-Length", "66560", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	if trailer {
		r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32c")
		length = int64(len(body))
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), length
	return r, body
}

func TestChunkedUpload(t *testing.T) {
	for _, trailer := range []bool{false, true} {
		for name, slow := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			s, now := exampleOfS3()
			r, sent := chunkedUpload(trailer)
			r.Body = io.NopCloser(slow(strings.NewReader(sent)))
			v, err := s.Verify(r, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Sign(r, v, now); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatalf("%s, trailer %v: %v", name, trailer, err)
			}
			if int64(len(got)) != r.ContentLength {
				t.Errorf("%d bytes go out, Content-Length says %d", len(got), r.ContentLength)
			}
			if string(got) == sent {
				t.Error("the agent's signatures went out")
			}
			// The upstream reads what went out, with the real key.
			r.Body = io.NopCloser(bytes.NewReader(got))
			seen := upstream(t, s, r, now)
			check := &SigV4{Region: s.Region, Service: s.Service, Reference: s.Real, Real: s.Reference}
			if err := check.Sign(r, seen, now); err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatalf("the upstream refuses the chunks: %v", err)
			}
			// Signed back with the reference at the same time, it is what was sent.
			if string(back) != sent {
				t.Errorf("%d bytes, sent %d, and they differ", len(back), len(sent))
			}
		}
	}
}

func TestK4ChunksOfAnotherBody(t *testing.T) {
	cut := func(n int) func(string) string { return func(b string) string { return b[:len(b)-n] } }
	replace := func(old, by string) func(string) string {
		return func(b string) string { return strings.Replace(b, old, by, 1) }
	}
	for name, c := range map[string]struct {
		trailer bool
		change  func(string) string
		want    error
	}{
		"another letter":            {false, replace("aaaa\r\n400", "aaab\r\n400"), ErrMismatch},
		"another signature":         {false, replace("signature=ad80", "signature=ad81"), ErrMismatch},
		"a chunk left out":          {false, replace("400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n"+strings.Repeat("a", 1024)+"\r\n", ""), ErrBody},
		"no signature":              {false, replace(";chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", ""), ErrMalformed},
		"another extension":         {false, replace("10000;chunk", "10000;x=1;chunk"), ErrMalformed},
		"signed size":               {false, replace("10000;", "+10000;"), ErrMalformed},
		"huge chunk":                {false, replace("10000;", "ffffffff;"), ErrBody},
		"ends before the last":      {false, cut(90), ErrBody},
		"ends in the last":          {false, cut(2), ErrBody},
		"goes on":                   {false, func(b string) string { return b + "0" }, ErrMalformed},
		"bare LF":                   {false, replace("288648\r\n", "288648\n"), ErrMalformed},
		"long line":                 {false, func(b string) string { return strings.Repeat("0", 5000) + b }, ErrMalformed},
		"another trailer's value":   {true, replace("sOO8/Q==", "sOO8/R=="), ErrMismatch},
		"a trailer not named":       {true, replace("x-amz-checksum-crc32c:", "x-amz-checksum-crc32x:"), ErrMalformed},
		"without the signature":     {true, replace("x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n", ""), ErrMalformed},
		"a trailer where none is":   {false, func(b string) string { return strings.TrimSuffix(b, "\r\n") + "x-amz-a:b\r\n\r\n" }, ErrMalformed},
		"the trailers of the other": {true, replace("x-amz-trailer-signature:d81f82", "x-amz-trailer-signature:d81f83"), ErrMismatch},
		"very many trailers":        {true, replace("x-amz-checksum-crc32c:sOO8/Q==\r\n", strings.Repeat("x-amz-checksum-crc32c:a\r\n", 20)), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			s, now := exampleOfS3()
			r, sent := chunkedUpload(c.trailer)
			changed := c.change(sent)
			if changed == sent {
				t.Fatal("the test changes nothing")
			}
			r.Body = io.NopCloser(strings.NewReader(changed))
			v, err := s.Verify(r, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Sign(r, v, now); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r.Body)
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if _, again := r.Body.Read(make([]byte, 1)); again != err {
				t.Errorf("after the error: %v", again)
			}
			if len(got) >= len(sent) {
				t.Error("the upstream got a whole body")
			}
		})
	}
}

func TestK4Body(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		length int64
		want   error
	}{
		"right":               {"Welcome to Amazon S3.", 21, nil},
		"right, no length":    {"Welcome to Amazon S3.", -1, nil},
		"another":             {"Welcome to Amazon S4.", 21, ErrMismatch},
		"another, no length":  {"Welcome to Amazon S4.", -1, ErrMismatch},
		"longer than its end": {"Welcome to Amazon S3. And more.", 31, ErrMismatch},
		"shorter":             {"Welcome", 7, ErrMismatch},
	} {
		s, now := exampleOfS3()
		r := documented("PUT", "https://examplebucket.s3.amazonaws.com/test$file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", "Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
		r.Body, r.ContentLength = io.NopCloser(iotest.OneByteReader(strings.NewReader(c.body))), c.length
		v, err := s.Verify(r, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sign(r, v, now); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		if !errors.Is(err, c.want) || c.want == nil && string(got) != c.body {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want != nil && c.length >= 0 && int64(len(got)) >= c.length {
			t.Errorf("%s: the upstream got a whole body", name)
		}
	}
	s, now := exampleOfS3()
	r := documented("PUT", "https://examplebucket.s3.amazonaws.com/test$file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", "Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072")
	v, err := s.Verify(r, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sign(r, v, now); !errors.Is(err, ErrMismatch) {
		t.Errorf("no body at all: %v", err)
	}
}

func FuzzChunks(f *testing.F) {
	_, plain := chunkedUpload(false)
	_, trailing := chunkedUpload(true)
	f.Add(plain, false)
	f.Add(trailing, true)
	f.Fuzz(func(t *testing.T, body string, trailing bool) {
		s, now := exampleOfS3()
		of := func(k AWSKey) rolling { return rolling{newSigner(k.Secret, now, s.Region, s.Service), emptyHash} }
		got, err := io.ReadAll(newChunks(io.NopCloser(strings.NewReader(body)), of(s.Reference), of(s.Real), 66560, trailing, "x-amz-checksum-crc32c"))
		if err == nil && len(got) != len(body) {
			t.Errorf("%d bytes became %d", len(body), len(got))
		}
	})
}
