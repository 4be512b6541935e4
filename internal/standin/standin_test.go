package standin_test

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit/internal/standin"
)

// account is the credentials that all tests use, by any service's names.
func account() standin.Credentials {
	return standin.Credentials{
		"token": "canary-token-4f1b7a9d0e", "app_token": "xapp-canary-77b1c2d3e4", "key": "canary-key-9a8b7c6d5e4f3a", "access_token": "canary-access-1a2b3c4d",
		"api_key": "lin_api_canary1a2b3c4d5e", "email": "ops@acme.example", "api_token": "canary-apitoken-5e6f7a", "user": "ops", "password": "canary-password-&?=+",
		"access_key_id": "AKIACANARY0000000001", "secret_access_key": "canary/secret+access/key0123456789abcdef", "secret": "canary-signing-secret",
		"username": "ops@acme.example", "client_id": "client-1", "client_secret": "canary-client-secret",
	}
}

func service(t *testing.T, name string) standin.Service {
	t.Helper()
	for _, s := range standin.All() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no %s", name)
	return standin.Service{}
}

// client reaches a server whatever host it asks for, and follows no redirect.
func client(t *testing.T, s *httptest.Server) *http.Client {
	t.Helper()
	transport := s.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "example.com"
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func start(t *testing.T, name string, have standin.Credentials) (*standin.Server, *http.Client) {
	t.Helper()
	s := service(t, name).New(have, time.Now)
	server := httptest.NewUnstartedServer(s)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	return s, client(t, server)
}

func do(t *testing.T, c *http.Client, q standin.Request, have standin.Credentials, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := q.New(have, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// Every client of every service is accepted with the account's credential, and
// refused with one that differs in its last character, with none, when it is
// over, when there are too many, and at another host.
func TestServices(t *testing.T) {
	for _, s := range standin.All() {
		if s.Name == "mtls" || s.Name == "login" { // have tests of their own
			continue
		}
		for _, q := range s.Requests {
			t.Run(s.Name+" "+q.Client, func(t *testing.T) {
				server, c := start(t, s.Name, account())
				refused := func(what string, resp *http.Response, body string) {
					t.Helper()
					if resp.StatusCode < 400 && !strings.Contains(body, `"ok":false`) || server.Accepted() != 0 {
						t.Errorf("%s: %s %s, accepted %d", what, resp.Status, body, server.Accepted())
					}
				}
				for _, name := range q.Uses {
					other := maps.Clone(account())
					other[name] = other[name][:len(other[name])-1] + "~"
					resp, body := do(t, c, q, other, nil)
					refused("another "+name, resp, body)
					other[name] = ""
					resp, body = do(t, c, q, other, nil)
					refused("no "+name, resp, body)
				}
				resp, body := do(t, c, q, account(), func(r *http.Request) { r.URL.Host, r.Host = "other.example.com", "other.example.com" })
				refused("another host", resp, body)
				if resp, body = do(t, c, q, account(), nil); resp.StatusCode != http.StatusOK || server.Accepted() != 1 {
					t.Fatalf("with the credential: %s %s", resp.Status, body)
				}
				server.Set(standin.Expired)
				if resp, body = do(t, c, q, account(), nil); resp.StatusCode < 400 && !strings.Contains(body, "token_expired") {
					t.Errorf("expired: %s %s", resp.Status, body)
				}
				server.Set(standin.Limited)
				resp, body = do(t, c, q, account(), nil)
				if want := map[string]int{"linear": 400, "s3": 503}[s.Name]; resp.StatusCode != want && (want != 0 || resp.StatusCode != http.StatusTooManyRequests) {
					t.Errorf("limited: %s %s", resp.Status, body)
				}
			})
		}
	}
}

// The services' own words, as their clients look for them.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		service, client string
		change          func(*http.Request)
		status          int
		header, value   string
		body            string
	}{
		{"github", "go-github", func(r *http.Request) { r.Header.Set("User-Agent", "") }, 403, "", "", "Please make sure your request has a User-Agent header"},
		{"github", "go-github", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401, "", "", `"message":"Bad credentials"`},
		{"github", "go-github", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "", "", `"message":"Requires authentication"`},
		{"github", "git ls-remote", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "Www-Authenticate", `Basic realm="GitHub"`, "Invalid username or token."},
		{"github", "git ls-remote", func(r *http.Request) { r.Header.Set("Authorization", "Bearer canary-token-4f1b7a9d0e") }, 401, "Www-Authenticate", `Basic realm="GitHub"`, "Invalid username or token."},
		{"gitlab", "client-go", func(r *http.Request) { r.Header.Del("Private-Token") }, 401, "", "", `{"message":"401 Unauthorized"}`},
		{"stripe", "stripe-go", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "Www-Authenticate", `Basic realm="Stripe"`, "You did not provide an API key."},
		{"stripe", "stripe-go", func(r *http.Request) { r.Header.Set("Authorization", "Bearer sk_live_0123456789abcdef") }, 401, "", "", "Invalid API Key provided: sk_live_************cdef"},
		{"shopify", "go-shopify", func(r *http.Request) { r.Header.Del("X-Shopify-Access-Token") }, 401, "", "", "[API] Invalid API key or access token"},
		{"slack", "slack-go JSON", func(r *http.Request) { r.Header.Del("Authorization") }, 200, "", "", `"not_authed"`},
		{"slack", "slack-go socketmode", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+account()["token"]) }, 200, "", "", `"not_allowed_token_type"`},
		{"zendesk", "zenpy OAuth", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401, "", "", `"error":"invalid_token"`},
		{"zendesk", "node-zendesk", func(r *http.Request) { r.SetBasicAuth("ops@acme.example", account()["api_token"]) }, 401, "", "", "Couldn't authenticate you"},
		{"gmail", "googleapis", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "", "", "Request is missing required authentication credential."},
		{"google-drive", "googleapis", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ya29.x") }, 401, "Www-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`, "Invalid Credentials"},
		{"notion", "notion-sdk-py", func(r *http.Request) { r.Header.Del("Notion-Version") }, 400, "", "", "missing_version"},
		{"notion", "notion-sdk-py", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "", "", "API token is invalid."},
		{"linear", "@linear/sdk", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+account()["api_key"]) }, 400, "", "", "trying to use an API key as a Bearer token"},
		{"linear", "@linear/sdk", func(r *http.Request) { r.Header.Del("Content-Type") }, 400, "", "", "Cross-Site Request Forgery"},
		{"hubspot", "hubspot-api-nodejs", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "", "", "INVALID_AUTHENTICATION"},
		{"anthropic", "anthropic-sdk-go", func(r *http.Request) { r.Header.Del("X-Api-Key") }, 401, "", "", "x-api-key header is required"},
		{"anthropic", "anthropic-sdk-go", func(r *http.Request) { r.Header.Del("Anthropic-Version") }, 400, "", "", "anthropic-version: header is required"},
		{"openai", "openai-go", func(r *http.Request) { r.Header.Set("Authorization", "Bearer sk-proj-0123456789abcdef") }, 401, "", "", "Incorrect API key provided: sk-proj-************cdef."},
		{"openrouter", "openai-go", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "", "", `{"error":{"message":"No auth credentials found","code":401}}`},
		{"s3", "boto3, path style", func(r *http.Request) { r.Header.Del("Authorization") }, 403, "", "", "<Code>AccessDenied</Code>"},
		{"s3", "boto3, path style", func(r *http.Request) { r.URL.RawQuery = "list-type=2&prefix=other" }, 403, "", "", "<Code>SignatureDoesNotMatch</Code>"},
		{"s3", "boto3, path style", func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") }, 400, "", "", "Missing required header for this request: x-amz-content-sha256"},
		{"s3", "aws-sdk-go-v2 PutObject", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("HELLO")) }, 400, "", "", "XAmzContentSHA256Mismatch"},
		{"s3", "boto3, path style", func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }, 403, "", "", "were not signed: x-amz-acl"},
		{"sigv4", "aws4fetch", func(r *http.Request) { r.Header.Del("Authorization") }, 403, "X-Amzn-Errortype", "MissingAuthenticationTokenException", "Missing Authentication Token"},
		{"sigv4", "aws4fetch", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"item":2}`)) }, 403, "X-Amzn-Errortype", "InvalidSignatureException", "signature"},
		{"hmac", "POST", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"amount":6}`)) }, 401, "", "", "Unauthorized"},
		{"hmac", "POST", func(r *http.Request) { r.Header.Set("X-Timestamp", "1700000000") }, 401, "", "", "Unauthorized"},
		{"oauth2", "curl", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "Www-Authenticate", `Bearer realm="api"`, "Unauthorized"},
	} {
		t.Run(c.service+" "+c.body, func(t *testing.T) {
			server, hc := start(t, c.service, account())
			i := slices.IndexFunc(server.Requests, func(q standin.Request) bool { return q.Client == c.client })
			resp, body := do(t, hc, server.Requests[i], account(), c.change)
			if resp.StatusCode != c.status || !strings.Contains(body, c.body) || c.header != "" && resp.Header.Get(c.header) != c.value || server.Accepted() != 0 {
				t.Errorf("%s %v\n%s", resp.Status, resp.Header, body)
			}
		})
	}
}

// An echo has everything that came, and every form of the credential.
func TestEcho(t *testing.T) {
	_, c := start(t, "bearer", account())
	q := service(t, "bearer").Requests[0]
	resp, body := do(t, c, q, account(), func(r *http.Request) { r.URL.RawQuery = "X-Echo=1" })
	if resp.Header.Get("X-Received-Authorization") != "Bearer "+account()["token"] {
		t.Errorf("the header has not what came: %v", resp.Header)
	}
	for _, form := range standin.Forms(account()["token"]) {
		if !strings.Contains(strings.ReplaceAll(body, `\\`, `\`), form) {
			t.Errorf("%q is missing", form)
		}
	}
}

// The real git reads what a repository is played with, if it is given the
// token, and is told why if it is not.
func TestGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("there is no git")
	}
	s := service(t, "github").New(account(), time.Now)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Host = "github.com" // as behind a proxy that undoes TLS
		s.ServeHTTP(w, r)
	}))
	defer server.Close()
	list := func(token string) (string, error) {
		c := exec.Command(git, "-c", "credential.helper=", "ls-remote", strings.Replace(server.URL, "http://", "http://x-access-token:"+token+"@", 1)+"/acme/shop.git")
		c.Env = []string{"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir()}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := list(account()["token"]); err != nil || !strings.Contains(out, "refs/heads/main") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := list("wrong"); err == nil || !strings.Contains(out, "Authentication failed") {
		t.Errorf("%v: %s", err, out)
	}
}
