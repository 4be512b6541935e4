package oauth_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
)

// provider is a stand-in of an authorization server. It refuses whatever is
// not as the RFCs say, and lets a test say how it answers what is.
type provider struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	forms  []url.Values
	basic  string // what the last request's Basic said
	answer func(w http.ResponseWriter, r *http.Request)
}

func newProvider(t *testing.T, answer func(http.ResponseWriter, *http.Request)) *provider {
	p := &provider{t: t, answer: answer}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	form, formErr := url.ParseQuery(string(body))
	for name, values := range form {
		if len(values) != 1 || values[0] == "" { // RFC 6749 section 3.2
			p.t.Errorf("%s is there %d times or empty", name, len(values))
		}
	}
	if err != nil || formErr != nil || r.Method != "POST" || r.URL.RawQuery != "" || r.Header.Get("Cookie") != "" ||
		r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Accept") != "application/json" {
		p.t.Errorf("not what an OAuth client sends: %s %s %v, %v, %v", r.Method, r.URL, r.Header, err, formErr)
	}
	user, password, ok := r.BasicAuth()
	if ok && (form.Has("client_id") || form.Has("client_secret")) {
		p.t.Error("two methods of authentication in one request")
	}
	p.mu.Lock()
	p.forms = append(p.forms, form)
	if p.basic = ""; ok {
		p.basic = user + " " + password
	}
	p.mu.Unlock()
	p.answer(w, r)
}

// sent is the form of the last request.
func (p *provider) sent() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.forms) == 0 {
		p.t.Fatal("nothing was sent")
	}
	return p.forms[len(p.forms)-1]
}

func (p *provider) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.forms)
}

// config is a public client of p.
func (p *provider) config() oauth.Config {
	return oauth.Config{
		Transport: p.Client().Transport, AllowLoopback: true, ClientID: "client one", Method: oauth.None, Scopes: []string{"read", "write"},
		AuthURL: p.URL + "/authorize?tenant=acme", TokenURL: p.URL + "/token", DeviceURL: p.URL + "/device", RevokeURL: p.URL + "/revoke",
		RedirectURL: "http://127.0.0.1:4711/callback", Issuer: "https://issuer.example",
	}
}

func client(t *testing.T, c oauth.Config) *oauth.Client {
	t.Helper()
	got, err := oauth.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func secret(s string) secretbytes.Bytes { return secretbytes.New([]byte(s)) }

// says answers with JSON.
func says(status int, body string, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json;charset=UTF-8")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const good = `{"access_token":"at-1","token_type":"bearer","expires_in":3600,"refresh_token":"rt-1","scope":"read"}`

func reveal(t *oauth.Token) string {
	return fmt.Sprintf("%s %s", t.Access.Reveal(), t.Refresh.Reveal())
}

func TestAuthorizationCode(t *testing.T) {
	p := newProvider(t, says(200, good))
	c := p.config()
	c.AuthParams = map[string]string{"access_type": "offline", "state": "not this", "code_challenge_method": "plain"}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	c.Now = func() time.Time { return now }
	flow, err := client(t, c).Begin()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(flow.URL())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{"response_type": "code", "client_id": "client one", "redirect_uri": "http://127.0.0.1:4711/callback",
		"scope": "read write", "code_challenge_method": "S256", "access_type": "offline", "tenant": "acme"} {
		if got := q[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	state := q.Get("state")
	if len(state) != 43 || len(q.Get("code_challenge")) != 43 {
		t.Errorf("state %q, challenge %q", state, q.Get("code_challenge"))
	}
	for name, callback := range map[string]url.Values{
		"another": {"state": {"x" + state[1:]}, "code": {"c"}}, "none": {"code": {"c"}}, "empty": {"state": {""}, "code": {"c"}},
		"two": {"state": {state, state}, "code": {"c"}}, "prefix": {"state": {state[:42]}, "code": {"c"}},
	} {
		if _, err := flow.Exchange(t.Context(), callback); err != oauth.ErrState {
			t.Errorf("state %s: %v", name, err)
		}
	}
	if p.requests() != 0 {
		t.Fatal("a wrong state reached the provider")
	}
	token, err := flow.Exchange(t.Context(), url.Values{"state": {state}, "code": {"the code"}, "iss": {"https://issuer.example"}})
	if err != nil {
		t.Fatal(err)
	}
	form := p.sent()
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if base64.RawURLEncoding.EncodeToString(sum[:]) != q.Get("code_challenge") {
		t.Error("the verifier does not belong to the challenge")
	}
	form.Del("code_verifier")
	if got, want := form.Encode(), "client_id=client+one&code=the+code&grant_type=authorization_code&redirect_uri=http%3A%2F%2F127.0.0.1%3A4711%2Fcallback"; got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
	if reveal(token) != "at-1 rt-1" || !token.Expires.Equal(now.Add(time.Hour)) || fmt.Sprint(token.Missing) != "[write]" {
		t.Errorf("token %s until %s, without %v", reveal(token), token.Expires, token.Missing)
	}
	if _, err := flow.Exchange(t.Context(), url.Values{"state": {state}, "code": {"the code"}}); err != oauth.ErrSpent {
		t.Errorf("the second time: %v", err)
	}
}

func TestAuthorizationCodeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		later    time.Duration
		callback url.Values
		want     string
	}{
		"too late":       {oauth.CodeLife, url.Values{"code": {"c"}}, "took longer than ten minutes"},
		"other issuer":   {0, url.Values{"code": {"c"}, "iss": {"https://evil.example"}}, "another provider"},
		"two issuers":    {0, url.Values{"code": {"c"}, "iss": {"https://issuer.example", "https://issuer.example"}}, "another provider"},
		"person says no": {0, url.Values{"error": {"access_denied"}, "error_description": {"canary"}}, "the person said no (access_denied)"},
		"unknown error":  {0, url.Values{"error": {"canary"}}, "not known"},
		"both":           {0, url.Values{"error": {"server_error"}, "code": {"c"}}, "server_error"},
		"no code":        {0, url.Values{}, "without a code"},
		"two codes":      {0, url.Values{"code": {"c", "d"}}, "without a code"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, says(200, good))
			conf := p.config()
			now := time.Now()
			conf.Now = func() time.Time { return now }
			flow, err := client(t, conf).Begin()
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(flow.URL())
			if err != nil {
				t.Fatal(err)
			}
			c.callback.Set("state", u.Query().Get("state"))
			now = now.Add(c.later)
			if _, err = flow.Exchange(t.Context(), c.callback); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if _, err = flow.Exchange(t.Context(), url.Values{"state": c.callback["state"], "code": {"c"}}); err != oauth.ErrSpent {
				t.Errorf("again: %v", err)
			}
			if p.requests() != 0 {
				t.Error("the provider was asked")
			}
		})
	}
}

func TestClientAuthentication(t *testing.T) {
	p := newProvider(t, says(200, good))
	assertion := func(audience string, _ time.Time) (secretbytes.Bytes, error) {
		return secret("assertion for " + audience), nil
	}
	for _, c := range []struct {
		method      oauth.Method
		secret      string
		assertion   func(string, time.Time) (secretbytes.Bytes, error)
		basic, form string
	}{
		{oauth.Basic, "s:e c%", nil, "client+one s%3Ae+c%25", "grant_type=refresh_token&refresh_token=rt"},
		{oauth.Post, "s:e c%", nil, "", "client_id=client+one&client_secret=s%3Ae+c%25&grant_type=refresh_token&refresh_token=rt"},
		{oauth.None, "", nil, "", "client_id=client+one&grant_type=refresh_token&refresh_token=rt"},
		{oauth.PrivateKeyJWT, "", assertion, "", "client_assertion=" + url.QueryEscape("assertion for "+p.URL+"/token") +
			"&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_id=client+one&grant_type=refresh_token&refresh_token=rt"},
	} {
		conf := p.config()
		conf.Method, conf.Assertion = c.method, c.assertion
		if c.secret != "" {
			conf.ClientSecret = secret(c.secret)
		}
		if _, err := client(t, conf).Refresh(t.Context(), secret("rt")); err != nil {
			t.Fatal(err)
		}
		if got := p.sent().Encode(); got != c.form || p.basic != c.basic {
			t.Errorf("%s: sent %s with Basic %q\nwant %s with %q", c.method, got, p.basic, c.form, c.basic)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	base := oauth.Config{Transport: http.DefaultTransport, ClientID: "c", Method: oauth.None, TokenURL: "https://as.example/token"}
	if _, err := oauth.New(base); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*oauth.Config){
		"no transport":       func(c *oauth.Config) { c.Transport = nil },
		"no method":          func(c *oauth.Config) { c.Method = "" },
		"no secret":          func(c *oauth.Config) { c.Method = oauth.Basic },
		"a secret too many":  func(c *oauth.Config) { c.ClientSecret = secret("s") },
		"no assertion":       func(c *oauth.Config) { c.Method = oauth.PrivateKeyJWT },
		"no token endpoint":  func(c *oauth.Config) { c.TokenURL = "" },
		"http":               func(c *oauth.Config) { c.TokenURL = "http://as.example/token" },
		"loopback":           func(c *oauth.Config) { c.TokenURL = "https://127.0.0.1/token" },
		"localhost":          func(c *oauth.Config) { c.RevokeURL = "http://localhost/" },
		"mapped loopback":    func(c *oauth.Config) { c.TokenURL = "https://[::ffff:127.0.0.1]/" },
		"http with loopback": func(c *oauth.Config) { c.AllowLoopback = true; c.TokenURL = "http://as.example/token" },
		"file":               func(c *oauth.Config) { c.DeviceURL = "file:///etc/passwd" },
		"user":               func(c *oauth.Config) { c.AuthURL = "https://a:b@as.example/" },
		"fragment":           func(c *oauth.Config) { c.AuthURL = "https://as.example/#x" },
		"redirect over http": func(c *oauth.Config) { c.RedirectURL = "http://app.example/" },
	} {
		c := base
		change(&c)
		if _, err := oauth.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOtherGrants(t *testing.T) {
	p := newProvider(t, says(200, good))
	conf := p.config()
	conf.Method, conf.ClientSecret = oauth.Post, secret("s")
	c := client(t, conf)
	if _, err := c.ClientCredentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := p.sent().Encode(), "client_id=client+one&client_secret=s&grant_type=client_credentials&scope=read+write"; got != want {
		t.Errorf("sent %s", got)
	}
	if _, err := c.JWTBearer(t.Context(), secret("a.b.c")); err != nil {
		t.Fatal(err)
	}
	if got, want := p.sent().Encode(), "assertion=a.b.c&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"; got != want {
		t.Errorf("sent %s", got)
	}
	if _, err := client(t, p.config()).ClientCredentials(t.Context()); err == nil {
		t.Error("client credentials of a public client")
	}
}

func TestInstallation(t *testing.T) {
	answers := map[string]func(http.ResponseWriter, *http.Request){
		"good":     says(201, `{"token":"ghs_1","expires_at":"2026-11-22T13:00:00Z","permissions":{"contents":"read"}}`),
		"no token": says(201, `{"expires_at":"2026-11-22T13:00:00Z"}`),
		"no end":   says(201, `{"token":"ghs_1"}`),
		"gone":     says(404, `{"message":"canary"}`),
		"limited":  says(403, `{"message":"canary"}`, "X-RateLimit-Remaining", "0"),
	}
	for name, want := range map[string]string{"good": "", "no token": "no token", "no end": "no token", "gone": "not known", "limited": "too often"} {
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var body struct{ Repositories []string }
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Authorization") != "Bearer a.b.c" || r.URL.Path != "/app/installations/7/access_tokens" || fmt.Sprint(body.Repositories) != "[one]" {
				t.Errorf("%s %s %v %v %v", r.Method, r.URL, r.Header, body, err)
			}
			answers[name](w, r)
		}))
		c := client(t, oauth.Config{Transport: s.Client().Transport, AllowLoopback: true, Method: oauth.None, TokenURL: s.URL + "/app/installations/7/access_tokens"})
		token, err := c.Installation(t.Context(), secret("a.b.c"), []string{"one"})
		switch {
		case want == "" && (err != nil || reveal(token) != "ghs_1 " || token.Expires.Format(time.RFC3339) != "2026-11-22T13:00:00Z"):
			t.Errorf("%v, %v", token, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary")):
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

func TestRevoke(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		"done":            {func(http.ResponseWriter, *http.Request) {}, ""},
		"over already":    {says(400, `{"error":"invalid_token"}`), ""},
		"not its client":  {says(401, `{"error":"invalid_client"}`), "invalid_client"},
		"not supported":   {says(400, `{"error":"unsupported_token_type"}`), "unsupported_token_type"},
		"not now":         {says(503, ``, "Retry-After", "7"), "try again in 7s"},
		"a redirect":      {says(307, ``, "Location", "https://canary.example/"), "redirect"},
		"another success": {says(202, `{}`), "means nothing"},
	} {
		p := newProvider(t, c.answer)
		err := client(t, p.config()).Revoke(t.Context(), secret("rt"), true)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v", name, err)
		}
		if got := p.sent().Encode(); got != "client_id=client+one&token=rt&token_type_hint=refresh_token" {
			t.Errorf("sent %s", got)
		}
	}
}

// clock is a time that passes only when somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.slept = c.now.Add(d), append(c.slept, d)
	return ctx.Err()
}

func TestDeviceFlow(t *testing.T) {
	const start = `{"device_code":"dc","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device","verification_uri_complete":"https://as.example/device?c=WDJB-MJHT","expires_in":900,"interval":5}`
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<h1>down</h1>")
	}
	pending := says(400, `{"error":"authorization_pending"}`)
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter, *http.Request)
		slept   string
		want    string
	}{
		"at once":        {[]func(http.ResponseWriter, *http.Request){says(200, good)}, "[5s]", ""},
		"pending":        {[]func(http.ResponseWriter, *http.Request){pending, pending, says(200, good)}, "[5s 5s 5s]", ""},
		"slow down":      {[]func(http.ResponseWriter, *http.Request){says(400, `{"error":"slow_down"}`), pending, says(200, good)}, "[5s 10s 10s]", ""},
		"slow down, 429": {[]func(http.ResponseWriter, *http.Request){says(429, `{}`, "Retry-After", "60"), says(200, good)}, "[5s 1m0s]", ""},
		"away":           {[]func(http.ResponseWriter, *http.Request){html, says(502, ``), pending, says(200, good)}, "[5s 10s 20s 5s]", ""},
		"denied":         {[]func(http.ResponseWriter, *http.Request){says(400, `{"error":"access_denied"}`)}, "[5s]", "the person said no"},
		"expired":        {[]func(http.ResponseWriter, *http.Request){pending, says(400, `{"error":"expired_token"}`)}, "[5s 5s]", "in time"},
	} {
		t.Run(name, func(t *testing.T) {
			clk := &clock{now: time.Unix(1_800_000_000, 0)}
			turn := 0
			p := newProvider(t, nil)
			p.answer = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/device" {
					says(200, start)(w, r)
					return
				}
				turn++
				c.answers[turn-1](w, r)
			}
			conf := p.config()
			conf.Now, conf.Sleep = clk.Now, clk.Sleep
			d, err := client(t, conf).Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := p.sent().Encode(); got != "client_id=client+one&scope=read+write" || d.UserCode != "WDJB-MJHT" || d.VerificationURL != "https://as.example/device" {
				t.Errorf("sent %s, got %+v", got, d)
			}
			token, err := d.Wait(t.Context())
			if c.want == "" && (err != nil || reveal(token) != "at-1 rt-1") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, %v, want %q", token, err, c.want)
			}
			if got := fmt.Sprint(clk.slept); got != c.slept {
				t.Errorf("slept %s, want %s", got, c.slept)
			}
			if got := p.sent().Encode(); got != "client_id=client+one&device_code=dc&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code" {
				t.Errorf("sent %s", got)
			}
		})
	}
	clk := &clock{now: time.Unix(1_800_000_000, 0)}
	p := newProvider(t, pending)
	p.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/device" {
			says(200, start)(w, r)
			return
		}
		pending(w, r)
	}
	conf := p.config()
	conf.Now, conf.Sleep = clk.Now, clk.Sleep
	d, err := client(t, conf).Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "expired_token") || len(clk.slept) != 179 {
		t.Errorf("nobody answers: %v after %d questions", err, len(clk.slept))
	}
}

func TestDeviceAnswersRefused(t *testing.T) {
	for name, body := range map[string]string{
		"no device code": `{"user_code":"A","verification_uri":"https://a.example/","expires_in":900}`,
		"no end":         `{"device_code":"d","user_code":"A","verification_uri":"https://a.example/"}`,
		"http":           `{"device_code":"d","user_code":"A","verification_uri":"http://a.example/","expires_in":900}`,
		"script":         `{"device_code":"d","user_code":"A","verification_uri":"javascript:alert(1)","expires_in":900}`,
		"escape":         `{"device_code":"d","user_code":"\u001b[2J","verification_uri":"https://a.example/","expires_in":900}`,
		"long":           `{"device_code":"d","user_code":"` + strings.Repeat("A", 65) + `","verification_uri":"https://a.example/","expires_in":900}`,
		"complete":       `{"device_code":"d","user_code":"A","verification_uri":"https://a.example/","verification_uri_complete":"x","expires_in":900}`,
		"an error":       `{"error":"unauthorized_client"}`,
		"twice":          `{"device_code":"d","device_code":"e","user_code":"A","verification_uri":"https://a.example/","expires_in":900}`,
	} {
		p := newProvider(t, says(200, body))
		if d, err := client(t, p.config()).Device(t.Context()); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// logged is what a log has of err.
func logged(err error) string {
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", slog.Any("err", err))
	return b.String()
}
