package sign

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"ambit/internal/secretbytes"
)

const exampleSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY" // of the documentation of S3

// TestSuite has AWS's own aws-sig-v4-test-suite.
func TestSuite(t *testing.T) {
	key := own([]byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"))
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	form := "application/x-www-form-urlencoded"
	for _, v := range []struct {
		name, method, path, query string
		header                    http.Header
		body, want                string
	}{
		{"get-vanilla", "GET", "/", "", nil, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-relative", "GET", "/example/..", "", nil, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-slash-dot-slash", "GET", "/./", "", nil, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-slashes", "GET", "//example//", "", nil, "", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
		{"get-space", "GET", "/example space/", "", nil, "", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
		{"get-utf8", "GET", "/\u1234", "", nil, "", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
		{"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "", nil, "", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"get-vanilla-query", "GET", "/", "Param1=value1", nil, "", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
		{"get-vanilla-query-order-key-case", "GET", "/", "Param2=value2&Param1=value1", nil, "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-vanilla-utf8-query", "GET", "/", "\u1234=bar", nil, "", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		{"get-header-key-duplicate", "GET", "/", "", http.Header{"My-Header1": {"value2", "value2", "value1"}}, "", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{"get-header-value-trim", "GET", "/", "", http.Header{"My-Header1": {" value1"}, "My-Header2": {` "a   b   c"`}}, "", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"post-vanilla", "POST", "/", "", nil, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-x-www-form-urlencoded", "POST", "/", "", http.Header{"Content-Type": {form}}, "Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	} {
		t.Run(v.name, func(t *testing.T) {
			names := []string{"host"}
			h := http.Header{"X-Amz-Date": {"20150830T123600Z"}}
			for name, values := range v.header {
				h[name] = values
				names = append(names, strings.ToLower(name))
			}
			names = append(names, "x-amz-date")
			slices.Sort(names)
			query, err := canonicalQuery(v.query)
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{Method: v.method, Host: "example.amazonaws.com", Header: h, URL: &url.URL{}}
			canonical := canonicalRequest(r, query, "service", names, digest([]byte(v.body)))
			// the suite has paths on the wire that no URL can hold
			canonical = strings.Replace(canonical, "\n/\n", "\n"+canonicalURI(v.path, "service")+"\n", 1)
			if got := newSigner(key, at, "us-east-1", "service").request(canonical); got != v.want {
				t.Errorf("signature %s, want %s of\n%s", got, v.want, canonical)
			}
		})
	}
}

// exampleOfS3 is a signer whose reference is the key of S3's documentation, so
// that its examples are what an agent sends.
func exampleOfS3() (*SigV4, time.Time) {
	return &SigV4{
		Region: "us-east-1", Service: "s3",
		Reference: AWSKey{ID: "AKIAIOSFODNN7EXAMPLE", Secret: own([]byte(exampleSecret))},
		Real:      AWSKey{ID: "AKIAREALREALREALREAL", Secret: own([]byte("real-secret-real-secret-real-secret-real"))},
	}, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
}

func documented(method, target, names, signature string, header ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if names != "" {
		r.Header.Set("Authorization", algorithm+" Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="+names+",Signature="+signature)
	}
	return r
}

// TestDocumentedRequests has the examples of S3's documentation.
func TestDocumentedRequests(t *testing.T) {
	s, now := exampleOfS3()
	const at = "https://examplebucket.s3.amazonaws.com"
	const put = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
	presigned := documented("GET", at+"/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", "", "")
	presigned.Header.Del("X-Amz-Date")
	for name, r := range map[string]*http.Request{
		"get":       documented("GET", at+"/test.txt", "host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", "Range", "bytes=0-9", "X-Amz-Content-Sha256", emptyHash),
		"put":       documented("PUT", at+"/test$file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", "Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256", put),
		"lifecycle": documented("GET", at+"/?lifecycle", "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", "X-Amz-Content-Sha256", emptyHash),
		"list":      documented("GET", at+"/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", "X-Amz-Content-Sha256", emptyHash),
		"presigned": presigned,
	} {
		t.Run(name, func(t *testing.T) {
			if name == "put" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("Welcome to Amazon S3.")), 21
			}
			v, err := s.Verify(r, now)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Sign(r, v, now); err != nil {
				t.Fatal(err)
			}
			if name == "put" {
				if body, err := io.ReadAll(r.Body); err != nil || string(body) != "Welcome to Amazon S3." {
					t.Errorf("body %q, %v", body, err)
				}
			}
			upstream(t, s, r, now)
		})
	}
}

// upstream checks r as the service would: with the real key.
func upstream(t interface {
	Helper()
	Fatal(...any)
}, s *SigV4, r *http.Request, now time.Time) *Verified {
	t.Helper()
	service := &SigV4{Region: s.Region, Service: s.Service, Reference: s.Real}
	v, err := service.Verify(r, now)
	if err != nil {
		t.Fatal("the upstream refuses what was signed: ", err)
	}
	return v
}

// chunked is the documented upload of 66560 letters in chunks.
// TestK4ChunksOfAnotherBody changes the body, the framing and the chain.
// TestK4Refused has signatures replayed for something else, each of which AWS
// would refuse too, and foreign keys.
func TestK4Refused(t *testing.T) {
	s, now := exampleOfS3()
	get := func() *http.Request {
		return documented("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", "X-Amz-Content-Sha256", emptyHash)
	}
	auth := func(old, by string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, by, 1))
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   error
	}{
		"region":              {auth("us-east-1", "eu-west-1"), ErrScope},
		"service":             {auth("/s3/", "/sts/"), ErrScope},
		"key":                 {auth("AKIAIOSFODNN7EXAMPLE", "AKIAATTACKERSACCOUNT"), ErrForeign},
		"signature":           {auth("34b4", "34b5"), ErrMismatch},
		"method":              {func(r *http.Request) { r.Method = "DELETE" }, ErrMismatch},
		"path":                {func(r *http.Request) { r.URL.Path = "/other" }, ErrMismatch},
		"query":               {func(r *http.Request) { r.URL.RawQuery = "max-keys=2&prefix=K" }, ErrMismatch},
		"added query":         {func(r *http.Request) { r.URL.RawQuery += "&acl" }, ErrMismatch},
		"host":                {func(r *http.Request) { r.Host = "other.s3.amazonaws.com" }, ErrMismatch},
		"body hash":           {func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", unsignedPayload) }, ErrMismatch},
		"header not covered":  {func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }, ErrMalformed},
		"host not covered":    {auth("=host;", "="), ErrMalformed},
		"session":             {func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "attacker") }, ErrForeign},
		"date":                {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20130525T000000Z") }, ErrMalformed},
		"no date":             {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, ErrMalformed},
		"two":                 {func(r *http.Request) { r.Header.Add("Authorization", "Bearer x") }, ErrMalformed},
		"two in two places":   {func(r *http.Request) { r.URL.RawQuery += "&X-Amz-Signature=00" }, ErrMalformed},
		"none":                {func(r *http.Request) { r.Header.Del("Authorization") }, ErrUnsigned},
		"bearer":              {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, ErrForeign},
		"version 2":           {func(r *http.Request) { r.Header.Set("Authorization", "AWS AKIAIOSFODNN7EXAMPLE:x=") }, ErrUnsupported},
		"version 2 presigned": {func(r *http.Request) { r.URL.RawQuery += "&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE" }, ErrUnsupported},
		"version 4A":          {auth(algorithm, "AWS4-ECDSA-P256-SHA256"), ErrUnsupported},
		"event stream":        {func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS") }, ErrUnsupported},
		"bad query":           {func(r *http.Request) { r.URL.RawQuery += "&a=%zz" }, ErrMalformed},
		"unsorted":            {auth("host;x-amz-content-sha256", "x-amz-content-sha256;host"), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			r := get()
			c.change(r)
			if _, err := s.Verify(r, now); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
	for offset, want := range map[time.Duration]error{-16 * time.Minute: ErrTime, 16 * time.Minute: ErrTime, 14 * time.Minute: nil, -14 * time.Minute: nil} {
		if _, err := s.Verify(get(), now.Add(offset)); !errors.Is(err, want) {
			t.Errorf("%s later: %v, want %v", offset, err, want)
		}
	}
	if _, err := new(SigV4).Verify(get(), now); !errors.Is(err, ErrForeign) {
		t.Errorf("zero value: %v", err)
	}
}

// TestK4ChangedAfterwards has a request that was checked and then changed, and
// checks used for something else.
func TestK4ChangedAfterwards(t *testing.T) {
	for name, change := range map[string]func(*http.Request, *SigV4){
		"method":  func(r *http.Request, _ *SigV4) { r.Method = "DELETE" },
		"path":    func(r *http.Request, _ *SigV4) { r.URL.Path = "/other" },
		"query":   func(r *http.Request, _ *SigV4) { r.URL.RawQuery = "acl" },
		"host":    func(r *http.Request, _ *SigV4) { r.Host = "other.s3.amazonaws.com" },
		"region":  func(_ *http.Request, s *SigV4) { s.Region = "eu-west-1" },
		"service": func(_ *http.Request, s *SigV4) { s.Service = "sts" },
		"no key":  func(_ *http.Request, s *SigV4) { s.Real = AWSKey{} },
	} {
		s, now := exampleOfS3()
		r := documented("GET", "https://examplebucket.s3.amazonaws.com/?lifecycle", "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", "X-Amz-Content-Sha256", emptyHash)
		v, err := s.Verify(r, now)
		if err != nil {
			t.Fatal(err)
		}
		change(r, s)
		before := r.Header.Get("Authorization")
		if err := s.Sign(r, v, now); err == nil || r.Header.Get("Authorization") != before {
			t.Errorf("%s: signed", name)
		}
		if err := s.Sign(r, nil, now); err == nil {
			t.Error("signed without a check")
		}
		if err := s.Sign(r, new(Verified), now); err == nil {
			t.Error("signed with a check that Verify did not make")
		}
	}
}

// TestK4Body sends another body than the one that was hashed.
// TestAgainstAWSSigner has AWS's own signer sign as the agent, and compares
// what goes upstream with what AWS's signer makes with the real key.
func TestAgainstAWSSigner(t *testing.T) {
	ctx, now := context.Background(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		service := rapid.SampledFrom([]string{"s3", "sts", "dynamodb", "execute-api"}).Draw(t, "service")
		session := rapid.SampledFrom([]string{"", "token/with+signs=="}).Draw(t, "session")
		realSession := rapid.SampledFrom([]string{"", "the+real/token=="}).Draw(t, "realSession")
		s := &SigV4{Region: "eu-central-1", Service: service,
			Reference: AWSKey{"AKIAREFERENCE", own([]byte("reference-secret")), own([]byte(session))},
			Real:      AWSKey{"AKIAREAL", own([]byte("real-secret")), own([]byte(realSession))}}
		segment := rapid.StringMatching(`[a-zA-Z0-9 ~._$+:@=&,;%äé-]{1,8}x`)
		u := &url.URL{Scheme: "https", Host: "api.example.com", Path: "/" + strings.Join(rapid.SliceOfN(segment, 0, 3).Draw(t, "path"), "/")}
		if service == "s3" { // AWS's SDK writes the paths of S3 in this way, and its signer takes them as they are
			u.RawPath = samePath(u.EscapedPath())
		}
		q := url.Values{}
		for _, name := range rapid.SliceOfN(segment, 0, 4).Draw(t, "query") {
			q.Add(name, segment.Draw(t, "value"))
		}
		u.RawQuery = q.Encode()
		body := rapid.StringN(0, 30, 60).Draw(t, "body")
		request := func() *http.Request {
			r := httptest.NewRequest("POST", u.String(), strings.NewReader(body))
			r.Header.Set("Content-Type", "application/x-amz-json-1.0")
			r.Header.Set("X-Amz-Target", "Some.Action")
			if service == "s3" {
				r.Header.Set("X-Amz-Content-Sha256", digest([]byte(body)))
			}
			return r
		}
		plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" }
		signed := func(k AWSKey, at time.Time) *http.Request {
			r := request()
			creds := aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: string(k.Secret.Reveal()), SessionToken: string(k.Session.Reveal())}
			if err := v4.NewSigner().SignHTTP(ctx, creds, r, digest([]byte(body)), service, s.Region, at, plain); err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := signed(s.Reference, now.Add(-time.Minute))
		v, err := s.Verify(r, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sign(r, v, now); err != nil {
			t.Fatal(err)
		}
		if got, want := r.Header.Get("Authorization"), signed(s.Real, now).Header.Get("Authorization"); got != want {
			t.Fatalf("%s\n got %s\nwant %s", r.URL, got, want)
		}
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
			t.Fatalf("body %q, %v", got, err)
		}
		if r.Header.Get("X-Amz-Security-Token") != realSession {
			t.Fatal("the session token is not the real one")
		}
	})
}

func TestPresigned(t *testing.T) {
	ctx, now := context.Background(), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := &SigV4{Region: "eu-central-1", Service: "s3",
		Reference: AWSKey{"AKIAREFERENCE", own([]byte("reference-secret")), own([]byte("reference-session"))},
		Real:      AWSKey{"AKIAREAL", own([]byte("real-secret")), own([]byte("real-session"))}}
	r := httptest.NewRequest("GET", "https://b.s3.eu-central-1.amazonaws.com/a%20b?versionId=1&X-Amz-Expires=600", nil)
	creds := aws.Credentials{AccessKeyID: "AKIAREFERENCE", SecretAccessKey: "reference-secret", SessionToken: "reference-session"}
	link, _, err := v4.NewSigner().PresignHTTP(ctx, creds, r, unsignedPayload, "s3", s.Region, now, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at      time.Duration
		old, by string
		want    error
		expires int
	}{
		"at once":      {0, "", "", nil, 300},
		"near its end": {9 * time.Minute, "", "", nil, 60},
		"expired":      {10 * time.Minute, "", "", ErrTime, 0},
		"too early":    {-16 * time.Minute, "", "", ErrTime, 0},
		"prolonged":    {0, "X-Amz-Expires=600", "X-Amz-Expires=6000", ErrMismatch, 0},
		"for ever":     {0, "X-Amz-Expires=600", "X-Amz-Expires=604801", ErrMalformed, 0},
		"version":      {0, "versionId=1", "versionId=2", ErrMismatch, 0},
		"object":       {0, "/a%20b", "/a%20c", ErrMismatch, 0},
		"session":      {0, "reference-session", "another-session", ErrForeign, 0},
		"twice":        {0, "X-Amz-Expires=600", "X-Amz-Expires=600&X-Amz-Expires=600", ErrMalformed, 0},
		"no signature": {0, "X-Amz-Signature=", "x=", ErrMalformed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(link, c.old, c.by, 1)
			if changed == link && c.old != "" {
				t.Fatal("the test changes nothing")
			}
			r := httptest.NewRequest("GET", changed, nil)
			at := now.Add(c.at)
			v, err := s.Verify(r, at)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			if err := s.Sign(r, v, at); err != nil {
				t.Fatal(err)
			}
			for _, of := range []string{"AKIAREFERENCE", "reference-session"} {
				if strings.Contains(r.URL.RawQuery, of) {
					t.Errorf("%s goes upstream: %s", of, r.URL.RawQuery)
				}
			}
			q := r.URL.Query()
			if q.Get("X-Amz-Expires") != strconv.Itoa(c.expires) || q.Get("versionId") != "1" {
				t.Errorf("query %s, want %d seconds", r.URL.RawQuery, c.expires)
			}
			upstream(t, s, r, at)
		})
	}
}

func TestUnsignedTrailerPasses(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := &SigV4{Region: "eu-central-1", Service: "s3",
		Reference: AWSKey{"AKIAREFERENCE", own([]byte("reference-secret")), secretbytes.Bytes{}},
		Real:      AWSKey{"AKIAREAL", own([]byte("real-secret")), secretbytes.Bytes{}}}
	const body = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
	r := httptest.NewRequest("PUT", "https://b.s3.eu-central-1.amazonaws.com/o", strings.NewReader(body))
	r.Header.Set("X-Amz-Content-Sha256", unsignedTrailer)
	r.Header.Set("X-Amz-Decoded-Content-Length", "5")
	r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
	creds := aws.Credentials{AccessKeyID: "AKIAREFERENCE", SecretAccessKey: "reference-secret"}
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, unsignedTrailer, "s3", s.Region, now); err != nil {
		t.Fatal(err)
	}
	v, err := s.Verify(r, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sign(r, v, now); err != nil {
		t.Fatal(err)
	}
	upstream(t, s, r, now)
	if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
		t.Errorf("body %q, %v", got, err)
	}
}

func TestLongBodyIsRefused(t *testing.T) {
	s, now := exampleOfS3()
	r := documented("PUT", "https://b.s3.amazonaws.com/o", "host;x-amz-date", strings.Repeat("0", 64))
	r.Body = io.NopCloser(io.LimitReader(zeros{}, MaxBody+1))
	if _, err := s.Verify(r, now); !errors.Is(err, ErrBody) {
		t.Errorf("error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzParseClaim(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=A/20130524/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature="+emptyHash, "20130524T000000Z", "")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20130524%2Fr%2Fs%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Signature="+emptyHash)
	f.Fuzz(func(t *testing.T, auth, date, query string) {
		h := http.Header{}
		if auth != "" {
			h.Set("Authorization", auth)
		}
		if date != "" {
			h.Set("X-Amz-Date", date)
		}
		c, err := ParseClaim(h, query)
		if err != nil {
			return
		}
		if c.KeyID == "" || c.Region == "" || c.Service == "" || !isHash(c.Signature) || c.Time.UTC().Format("20060102") != c.Date || c.Presigned != (c.Expires > 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}

// BenchmarkSigV4 is the whole cost of a signed request: checked with the
// reference and signed again.
func BenchmarkSigV4(b *testing.B) {
	s, now := exampleOfS3()
	for b.Loop() {
		r := documented("GET", "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", "X-Amz-Content-Sha256", emptyHash)
		v, err := s.Verify(r, now)
		if err == nil {
			err = s.Sign(r, v, now)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
