package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit/internal/secretbytes"
)

// TestTOTPVectors has RFC 6238 appendix B.
func TestTOTPVectors(t *testing.T) {
	seeds := map[string]string{
		"SHA1":   "12345678901234567890",
		"SHA256": "12345678901234567890123456789012",
		"SHA512": "1234567890123456789012345678901234567890123456789012345678901234",
	}
	for _, v := range []struct {
		at                   int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for algorithm, want := range map[string]string{"SHA1": v.sha1, "SHA256": v.sha256, "SHA512": v.sha512} {
			seed := base32.StdEncoding.EncodeToString([]byte(seeds[algorithm]))
			for _, digits := range []int{6, 7, 8} {
				uri := "otpauth://totp/Acme:bob?secret=" + strings.TrimRight(seed, "=") + "&issuer=Acme&algorithm=" + algorithm + "&digits=" + string(rune('0'+digits)) + "&period=30"
				if got := code(t, uri, v.at); got != want[8-digits:] {
					t.Errorf("%s at %d: %s, want %s", algorithm, v.at, got, want[8-digits:])
				}
			}
		}
		spaced := " gezd gnbv gy3t qojq-GEZDGNBVGY3TQOJQ==== "
		if got := code(t, spaced, v.at); got != v.sha1[2:] {
			t.Errorf("base32 at %d: %s, want %s", v.at, got, v.sha1[2:])
		}
	}
}

func code(t *testing.T, seed string, at int64) string {
	t.Helper()
	totp, err := ParseTOTP(own([]byte(seed)))
	if err != nil {
		t.Fatalf("%s: %v", seed, err)
	}
	c, err := totp.Code(time.Unix(at, 0))
	if err != nil {
		t.Fatal(err)
	}
	return string(c.Reveal())
}

func TestTOTPRefused(t *testing.T) {
	const seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	for _, s := range []string{"", "0189", "GEZDGNBV", strings.Repeat("A", 400), "otpauth://hotp/x?secret=" + seed,
		"https://totp/x?secret=" + seed, "otpauth://totp/x", "otpauth://totp/x?secret=" + seed + "&secret=" + seed,
		"otpauth://totp/x?secret=" + seed + "&digits=5", "otpauth://totp/x?secret=" + seed + "&digits=9", "otpauth://totp/x?secret=" + seed + "&digits=x",
		"otpauth://totp/x?secret=" + seed + "&algorithm=MD5", "otpauth://totp/x?secret=" + seed + "&period=0", "otpauth://totp/x?secret=" + seed + "&period=-30"} {
		if _, err := ParseTOTP(own([]byte(s))); !errors.Is(err, ErrKey) || strings.Contains(err.Error(), seed) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := (TOTP{}).Code(time.Unix(0, 0)); !errors.Is(err, ErrKey) {
		t.Errorf("zero value: %v", err)
	}
}

func TestBasic(t *testing.T) {
	for _, c := range [][3]string{ // RFC 7617 sections 2 and 2.1
		{"Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		{"test", "123£", "Basic dGVzdDoxMjPCow=="},
		{"", "", "Basic Og=="},
		{"a", "b:c", "Basic YTpiOmM="},
	} {
		got, err := EncodeBasic(own([]byte(c[0])), own([]byte(c[1])))
		if err != nil || string(got.Reveal()) != c[2] {
			t.Errorf("%q: %q, %v", c, got.Reveal(), err)
		}
		u, p, err := DecodeBasic(strings.Replace(c[2], "Basic", "bAsIC", 1))
		if u != c[0] || p != c[1] || err != nil {
			t.Errorf("%q: %q %q %v", c, u, p, err)
		}
	}
	for value, want := range map[string]error{
		"": ErrUnsigned, "Bearer x": ErrUnsigned, "Basic": ErrMalformed, "Basic ": ErrMalformed, "Basic  Og==": ErrMalformed,
		"Basic Og": ErrMalformed, "Basic Oh==": ErrMalformed, "Basic Og== ": ErrMalformed, "Basic Og==\n": ErrMalformed,
		"Basic YWI=": ErrMalformed, "Basic YToK": ErrMalformed, "Basic /zo=": ErrMalformed,
	} {
		if _, _, err := DecodeBasic(value); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", value, err, want)
		}
	}
	for _, c := range [][2]string{{"a:b", "c"}, {"a\n", "c"}, {"a", "\x00"}, {"\xff", ""}} {
		if _, err := EncodeBasic(own([]byte(c[0])), own([]byte(c[1]))); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", c, err)
		}
	}
}

func pemOf(t *testing.T, key any) secretbytes.Bytes {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return secretbytes.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// parts takes a JWT apart.
func parts(t *testing.T, token secretbytes.Bytes) (header, claims map[string]any, signed, signature []byte) {
	t.Helper()
	p := strings.Split(string(token.Reveal()), ".")
	if len(p) != 3 {
		t.Fatalf("%d parts", len(p))
	}
	for i, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(p[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(p[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(p[0] + "." + p[1]))
	return header, claims, sum[:], signature
}

func TestGoogleAndGitHubAssertions(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := pemOf(t, key)
	file, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "a@b.iam.gserviceaccount.com", "private_key_id": "k1",
		"private_key": string(pkcs8.Reveal()), "token_uri": GoogleTokenURL, "project_id": "b"})
	if err != nil {
		t.Fatal(err)
	}
	google, err := ParseGoogleKey(secretbytes.New(file))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	pkcs1 := secretbytes.New(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	for _, c := range []struct {
		a              Assertion
		key            secretbytes.Bytes
		header, claims map[string]any
	}{
		{google.Assertion([]string{"https://www.googleapis.com/auth/drive.readonly", "https://mail.google.com/"}, "ann@acme.example"), google.Key,
			map[string]any{"alg": "RS256", "typ": "JWT", "kid": "k1"},
			map[string]any{"iss": "a@b.iam.gserviceaccount.com", "sub": "ann@acme.example", "aud": "https://oauth2.googleapis.com/token",
				"scope": "https://www.googleapis.com/auth/drive.readonly https://mail.google.com/", "iat": 1.8e9, "exp": 1.8e9 + 600}},
		{GitHubApp("Iv1.abc"), pkcs1, map[string]any{"alg": "RS256", "typ": "JWT"},
			map[string]any{"iss": "Iv1.abc", "iat": 1.8e9 - 60, "exp": 1.8e9 + 540}},
	} {
		token, err := c.a.Sign(c.key, now)
		if err != nil {
			t.Fatal(err)
		}
		header, claims, sum, signature := parts(t, token)
		if d := cmp.Diff(c.header, header) + cmp.Diff(c.claims, claims); d != "" {
			t.Error(d)
		}
		if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum, signature); err != nil {
			t.Error(err)
		}
	}
}

func TestECDSAAssertion(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token, err := Assertion{Issuer: "c", Subject: "c", Audience: "https://as.example/token", ID: "once", Lifetime: time.Minute}.Sign(pemOf(t, key), time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	header, claims, sum, s := parts(t, token)
	if header["alg"] != "ES256" || claims["jti"] != "once" || len(s) != 64 {
		t.Errorf("header %v, claims %v", header, claims)
	}
	if !ecdsa.Verify(&key.PublicKey, sum, new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:])) {
		t.Error("the signature is wrong")
	}
}

func TestKeysRefused(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pemOf(t, p256).Reveal())
	for name, key := range map[string]string{
		"empty": "", "no PEM": "canary-key", "two": good + good, "another curve": string(pemOf(t, p384).Reveal()),
		"damaged":   "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5LWtleQ==\n-----END PRIVATE KEY-----\n",
		"a public":  strings.ReplaceAll(good, "PRIVATE", "PUBLIC"),
		"encrypted": strings.ReplaceAll(good, "PRIVATE", "ENCRYPTED PRIVATE"),
	} {
		if _, err := GitHubApp("1").Sign(own([]byte(key)), time.Unix(0, 0)); !errors.Is(err, ErrKey) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, a := range []Assertion{{}, {Issuer: "x"}, {Lifetime: time.Minute}, {Issuer: "x", Lifetime: 2 * time.Hour}} {
		if _, err := a.Sign(own([]byte(good)), time.Unix(0, 0)); !errors.Is(err, ErrKey) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	for _, file := range []string{"", "canary", `{"type":"authorized_user"}`, `{"type":"service_account"}`,
		`{"type":"service_account","client_email":"a","private_key":"canary"}`,
		`{"type":"service_account","client_email":"a","private_key":"canary","token_uri":"https://evil.example/token"}`} {
		if _, err := ParseGoogleKey(own([]byte(file))); !errors.Is(err, ErrKey) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestHMACVectors has RFC 4231 test case 2, RFC 2202's of SHA-1, and GitHub's
// documented webhook.
func TestHMACVectors(t *testing.T) {
	for _, v := range []struct{ algorithm, key, body, value, want string }{
		{"sha256", "Jefe", "what do ya want for nothing?", "", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"sha512", "Jefe", "what do ya want for nothing?", "", "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		{"sha1", "Jefe", "what do ya want for nothing?", "", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{"sha256", "It's a Secret to Everybody", "Hello, World!", "sha256={signature}", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
	} {
		h := HMAC{Algorithm: v.algorithm, Message: "{body}", Header: "X-Signature", Value: v.value}
		r := httptest.NewRequest("POST", "https://api.example/hook", strings.NewReader(v.body))
		if err := h.Sign(r, own([]byte(v.key)), time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get("X-Signature"); got != v.want {
			t.Errorf("%s: %s, want %s", v.algorithm, got, v.want)
		}
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != v.body {
			t.Errorf("body afterwards %q, %v", body, err)
		}
	}
}

// TestK4HMAC has the agent sign with the reference, and something changed.
func TestK4HMAC(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	reference, secret := own([]byte("reference")), own([]byte("real"))
	for _, h := range []HMAC{
		{Algorithm: "sha256", Message: "{timestamp}.{method}{host}{target}{body}", Header: "X-Signature", Value: "t={timestamp},v1={signature}"},
		{Algorithm: "sha512", Encoding: "base64", Message: "{method}\n{host}\n{path}\n{query}\n{timestamp}\n{body-sha256}", Header: "X-Signature", TimestampHeader: "X-Time", Milliseconds: true},
		{Algorithm: "sha1", Encoding: "base64url", Message: "{timestamp}{method}{host}{target}{body}", Header: "X-Signature", Value: "HMAC {signature}", TimestampHeader: "X-Time"},
	} {
		for name, c := range map[string]struct {
			method, target, body string
			at                   time.Duration
			header, value        string
			want                 error
		}{
			"same":        {"POST", "https://api.example/a%20b?c=d", "body", time.Minute, "", "", nil},
			"late":        {"POST", "https://api.example/a%20b?c=d", "body", 6 * time.Minute, "", "", ErrTime},
			"early":       {"POST", "https://api.example/a%20b?c=d", "body", -6 * time.Minute, "", "", ErrTime},
			"method":      {"PUT", "https://api.example/a%20b?c=d", "body", 0, "", "", ErrMismatch},
			"host":        {"POST", "https://other.example/a%20b?c=d", "body", 0, "", "", ErrMismatch},
			"path":        {"POST", "https://api.example/a%20c?c=d", "body", 0, "", "", ErrMismatch},
			"query":       {"POST", "https://api.example/a%20b?c=e", "body", 0, "", "", ErrMismatch},
			"body":        {"POST", "https://api.example/a%20b?c=d", "Body", 0, "", "", ErrMismatch},
			"other value": {"POST", "https://api.example/a%20b?c=d", "body", 0, "X-Signature", "", ErrMalformed},
			"twice":       {"POST", "https://api.example/a%20b?c=d", "body", 0, "X-Signature", "again", ErrMalformed},
		} {
			sent := httptest.NewRequest("POST", "https://api.example/a%20b?c=d", strings.NewReader("body"))
			if err := h.Sign(sent, reference, now); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			r.Header = sent.Header
			switch {
			case c.header != "" && c.value == "" && h.Value != "":
				r.Header.Set(c.header, "something else")
			case c.header != "":
				r.Header.Add(c.header, "again")
			}
			if err := h.Verify(r, reference, now.Add(c.at)); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v, want %v", h.Algorithm, name, err, c.want)
			}
			if c.want != nil {
				continue
			}
			if err := h.Sign(r, secret, now); err != nil {
				t.Fatal(err)
			}
			if err := h.Verify(r, secret, now); err != nil {
				t.Errorf("the upstream refuses it: %v", err)
			}
			if err := h.Verify(r, reference, now); !errors.Is(err, ErrMismatch) {
				t.Errorf("still signed with the reference: %v", err)
			}
		}
	}
	h := HMAC{Algorithm: "sha256", Message: "{body}", Header: "X-Signature"}
	if err := h.Verify(httptest.NewRequest("GET", "/", nil), reference, now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no signature: %v", err)
	}
	if err := h.Sign(httptest.NewRequest("POST", "/", io.LimitReader(zeros{}, MaxBody+1)), secret, now); !errors.Is(err, ErrBody) {
		t.Errorf("long body: %v", err)
	}
	if err := h.Sign(httptest.NewRequest("POST", "/", nil), secretbytes.Bytes{}, now); !errors.Is(err, ErrKey) {
		t.Errorf("no secret: %v", err)
	}
}

func TestHMACRefused(t *testing.T) {
	good := HMAC{Algorithm: "sha256", Message: "{body}", Header: "X"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*HMAC){
		"zero":              func(h *HMAC) { *h = HMAC{} },
		"algorithm":         func(h *HMAC) { h.Algorithm = "md5" },
		"encoding":          func(h *HMAC) { h.Encoding = "rot13" },
		"constant message":  func(h *HMAC) { h.Message = "hello" },
		"placeholder":       func(h *HMAC) { h.Message = "{body}{nonce}" },
		"open brace":        func(h *HMAC) { h.Message = "{body" },
		"no header":         func(h *HMAC) { h.Header = "" },
		"no signature":      func(h *HMAC) { h.Value = "v1" },
		"two signatures":    func(h *HMAC) { h.Value = "{signature},{signature}" },
		"nothing between":   func(h *HMAC) { h.Value = "{timestamp}{signature}" },
		"unknown in value":  func(h *HMAC) { h.Value = "{signature},{body}" },
		"time said nowhere": func(h *HMAC) { h.Message = "{timestamp}{body}" },
	} {
		h := good
		change(&h)
		if h.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
		r := httptest.NewRequest("POST", "/", nil)
		if err := h.Sign(r, own([]byte("k")), time.Unix(0, 0)); !errors.Is(err, ErrUnsupported) || len(r.Header) != 0 {
			t.Errorf("%s: signed, %v", name, err)
		}
	}
}
