package vault

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit"
)

const (
	googleClient   = "1234567890-abc.apps.googleusercontent.com"
	googleSecret   = "GOCSPX-CANARY-secret"
	googleToken    = "POST oauth2.googleapis.com/token"
	googleRevoke   = "POST oauth2.googleapis.com/revoke"
	redirect       = "http://127.0.0.1:4711/callback"
	comesBackLater = time.Minute
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// google stands in for Google's token endpoint: each code and each refresh token
// is taken once, and a new refresh token comes with each answer.
type google struct {
	*service
	mu     sync.Mutex
	takes  string // the code or refresh token that is good
	n      int
	answer func(w http.ResponseWriter) bool // says something else instead
}

func newGoogle(d *desk) *google {
	g := &google{service: d.service, takes: "the code"}
	d.service.on(googleToken, func(w http.ResponseWriter, r *http.Request, body string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		form, err := url.ParseQuery(body)
		if err != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || form.Get("client_id") != googleClient || form.Get("client_secret") != googleSecret {
			d.t.Errorf("the token endpoint was sent %s, %v", body, err)
		}
		got, life := form.Get("code"), 3600
		if form.Get("grant_type") == "refresh_token" {
			got = form.Get("refresh_token")
		} else if form.Get("redirect_uri") != redirect || len(form.Get("code_verifier")) != 43 {
			d.t.Errorf("the token endpoint was sent %s", body)
		}
		if g.answer != nil && g.answer(w) {
			return
		}
		if got != g.takes {
			say(w, 400, `{"error":"invalid_grant","error_description":"`+got+` was used"}`)
			return
		}
		g.n++
		access := g.issue("ya29.CANARY-access-%d", g.n)
		g.takes = g.issue("1//CANARY-refresh-%d", g.n)
		say(w, 200, fmt.Sprintf(`{"access_token":%q,"refresh_token":%q,"expires_in":%d,"token_type":"Bearer"}`, access, g.takes, life))
	})
	return g
}

func (g *google) says(answer func(w http.ResponseWriter) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = answer
}

// login connects gmail in the person's browser.
func (d *desk) login() Connection {
	d.t.Helper()
	state := d.startLogin()
	c, err := d.v.FinishOAuth(d.t.Context(), "gmail", url.Values{"state": {state}, "code": {"the code"}, "iss": {"https://accounts.google.com"}}, person)
	if err != nil {
		d.t.Fatal(err)
	}
	d.silent(c)
	return c
}

func (d *desk) startLogin() (state string) {
	d.t.Helper()
	q := d.request("gmail", "oauth", "client_id", googleClient, "client_secret", googleSecret)
	q.RedirectURL = redirect
	started, err := d.v.StartOAuth(d.t.Context(), q, person)
	if err != nil {
		d.t.Fatal(err)
	}
	u, err := url.Parse(started.URL)
	if err != nil || u.Host != "accounts.google.com" || u.Query().Get("access_type") != "offline" || u.Query().Get("code_challenge_method") != "S256" {
		d.t.Fatalf("the person goes to %s: %v", started.URL, err)
	}
	return u.Query().Get("state")
}

func TestTokenIsRefreshed(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	d.now = now.time
	newGoogle(d)
	if c := d.login(); c.Status != StatusConnected || !c.Expires.Equal(now.time().Add(time.Hour)) {
		t.Errorf("%+v", c)
	}
	d.want("gmail", "access_token", "ya29.CANARY-access-1")
	d.want("gmail", "client_secret", googleSecret)
	d.reopen()
	d.want("gmail", "access_token", "ya29.CANARY-access-1")
	if n := d.service.times(googleToken); n != 1 {
		t.Errorf("asked %d times for one token", n)
	}
	for i := 2; i < 5; i++ { // each refresh token is good once, so each was stored
		now.pass(2 * time.Hour)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { d.want("gmail", "access_token", fmt.Sprintf("ya29.CANARY-access-%d", i)) })
		}
		all.Wait()
		if n := d.service.times(googleToken); n != i {
			t.Errorf("asked %d times, want %d", n, i)
		}
		d.reopen()
	}
	const request = "vault.refresh gmail POST https://oauth2.googleapis.com/token a token is asked for"
	want := []string{request, "  vault.refresh gmail the token came", "vault.connect gmail connected: connector gmail, way oauth", "  vault.connect gmail stored"}
	for range 3 {
		want = append(want, request, "  vault.refresh gmail the token came")
	}
	if diff := cmp.Diff(want, d.log.all()); diff != "" {
		t.Error(diff)
	}
	for _, e := range d.log.events {
		if asked := e.Kind == ambit.KindVaultRefresh && e.Of == nil; asked != (e.Host == "oauth2.googleapis.com") {
			t.Errorf("%+v", e)
		}
	}
}

// TestTokenIsStoredBeforeItIsUsed: if the new token cannot be stored nobody gets
// it, and it is stored later without asking the service again, which would
// refuse the old refresh token.
func TestTokenIsStoredBeforeItIsUsed(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	newGoogle(d)
	d.login()
	d.breakDisk(true)
	now.pass(2 * time.Hour)
	if got := d.value("gmail", "access_token"); !strings.Contains(got, "storing the new token before it is used") {
		t.Errorf("got %q", got)
	}
	if s := d.status("gmail"); s.Status != StatusFailing || !strings.Contains(s.Reason, "storing") {
		t.Errorf("%+v", s)
	}
	d.breakDisk(false)
	now.pass(comesBackLater)
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
	if n := d.service.times(googleToken); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	d.reopen()
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
}

// TestRefreshIsLoggedBefore: without the log no request leaves.
func TestRefreshIsLoggedBefore(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	newGoogle(d)
	d.login()
	d.log.fail(errors.New("no space left"))
	now.pass(2 * time.Hour)
	if got := d.value("gmail", "access_token"); !strings.Contains(got, "logging the request for a token before it leaves: no space left") {
		t.Errorf("got %q", got)
	}
	if n := d.service.times(googleToken); n != 1 {
		t.Errorf("a request left that is not in the log")
	}
	d.log.fail(nil)
	now.pass(comesBackLater)
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
}

// TestRefreshRefused: the person must connect again, which holds after a
// restart, and is an alert once. Then everything is as before.
func TestRefreshRefused(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	g := newGoogle(d)
	d.login()
	g.says(func(w http.ResponseWriter) bool {
		say(w, 400, `{"error":"invalid_grant","error_description":"1//CANARY-refresh-1 was revoked"}`)
		return true
	})
	now.pass(2 * time.Hour)
	for range 3 {
		if got := d.value("gmail", "access_token"); !strings.HasPrefix(got, "error: "+ErrReconnect.Error()) {
			t.Errorf("got %q", got)
		}
		if s := d.status("gmail"); s.Status != StatusReconnect || !strings.Contains(s.Reason, "connect again") {
			t.Errorf("%+v", s)
		}
		d.reopen()
	}
	if n := d.service.times(googleToken); n != 2 {
		t.Errorf("the service was asked %d times, want 2", n)
	}
	if raised := d.alerts.all(); len(raised) != 1 || !strings.Contains(raised[0], "reconnect-needed gmail") || d.alerts.events[0].Severity != ambit.High {
		t.Errorf("alerts: %q", raised)
	}
	g.says(nil)
	g.mu.Lock()
	g.takes = "the code"
	g.mu.Unlock()
	d.login()
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
	if s := d.status("gmail"); s.Status != StatusConnected {
		t.Errorf("%+v", s)
	}
}

// TestRefreshFails: what is wrong for now is tried again, and becomes an alert
// when it lasts. Each answer is one that the issue names.
func TestRefreshFails(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter) bool{
		"HTML": func(w http.ResponseWriter) bool { _, _ = w.Write([]byte("<h1>1//CANARY-refresh-1</h1>")); return true },
		"redirect": func(w http.ResponseWriter) bool {
			w.Header().Set("Location", "https://evil.example/")
			w.WriteHeader(307)
			return true
		},
		"too often": func(w http.ResponseWriter) bool {
			w.Header().Set("Retry-After", "5")
			say(w, 429, `{"error":"slow"}`)
			return true
		},
		"fault": func(w http.ResponseWriter) bool { say(w, 503, `{}`); return true },
		"half a token": func(w http.ResponseWriter) bool {
			say(w, 200, `{"access_token":"ya29.CANARY-x","token_type":"Bea`)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, "gmail")
			now := &clock{now: time.Now()}
			d.now = now.time
			g := newGoogle(d)
			d.login()
			g.says(answer)
			now.pass(2 * time.Hour)
			for range 3 {
				if got := d.value("gmail", "access_token"); !strings.HasPrefix(got, "error: oauth: the provider did not give") || strings.Contains(got, ErrReconnect.Error()) {
					t.Errorf("got %q", got)
				}
				if s := d.status("gmail"); s.Status != StatusFailing || s.Reason == "" {
					t.Errorf("%+v", s)
				}
				now.pass(failingLong)
			}
			if raised := d.alerts.all(); len(raised) != 2 || !strings.Contains(raised[0], "refresh-failing gmail: gmail: no new token since") || d.alerts.events[0].Severity != ambit.Medium {
				t.Errorf("alerts: %q", raised)
			}
			g.says(nil)
			d.want("gmail", "access_token", "ya29.CANARY-access-2")
			if s := d.status("gmail"); s.Status != StatusConnected {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRefused: a 401 of the host makes the next request get another token.
func TestRefused(t *testing.T) {
	d := newDesk(t, "gmail", "{name: bearer, as: one, hosts: [one.example]}")
	newGoogle(d)
	d.login()
	d.connect("one", "", "token", tokenA)
	d.v.refused(d.v.state.Load().named("gmail"))
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
	d.v.refused(d.v.state.Load().named("gmail")) // too soon: an agent must not make us flood the service
	d.want("gmail", "access_token", "ya29.CANARY-access-2")
	d.v.refused(d.v.state.Load().named("one"))
	d.want("one", "token", tokenA)
}

// jwt checks an assertion the way who it is for does, and returns its claims.
func jwt(t testing.TB, token string, public *rsa.PublicKey) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", token)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature); err != nil {
		t.Fatal(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestGoogleServiceAccount(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	file, public := googleKey(t)
	n := 0
	d.service.on(googleToken, func(w http.ResponseWriter, _ *http.Request, body string) {
		form, err := url.ParseQuery(body)
		if err != nil || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			t.Errorf("sent %s", body)
		}
		claims := jwt(t, form.Get("assertion"), public)
		if claims["iss"] != "bot@acme.iam.gserviceaccount.com" || claims["sub"] != "boss@acme.example" ||
			claims["aud"] != "https://oauth2.googleapis.com/token" || claims["scope"] != "https://www.googleapis.com/auth/gmail.modify" {
			t.Errorf("claims %v", claims)
		}
		n++
		say(w, 200, fmt.Sprintf(`{"access_token":%q,"expires_in":3599,"token_type":"Bearer"}`, d.service.issue("ya29.c.CANARY-%d", n)))
	})
	d.connect("gmail", "service-account", "key", file, "subject", "boss@acme.example")
	d.want("gmail", "access_token", "ya29.c.CANARY-1")
	now.pass(time.Hour)
	d.want("gmail", "access_token", "ya29.c.CANARY-2")
	d.want("gmail", "key", file)
}

func TestGitHubApp(t *testing.T) {
	d := newDesk(t, "github")
	now := &clock{now: time.Now()}
	d.now = now.time
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
	n := 0
	d.service.on("POST api.github.com/app/installations/42/access_tokens", func(w http.ResponseWriter, r *http.Request, _ string) {
		claims := jwt(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), &private.PublicKey)
		if claims["iss"] != "Iv1.abc" {
			t.Errorf("claims %v", claims)
		}
		n++
		say(w, 201, fmt.Sprintf(`{"token":%q,"expires_at":%q}`, d.service.issue("ghs_CANARY%030d", n), now.time().Add(time.Hour).UTC().Format(time.RFC3339)))
	})
	d.connect("github", "app", "app_id", "Iv1.abc", "installation_id", "42", "private_key", key)
	d.want("github", "token", fmt.Sprintf("ghs_CANARY%030d", 1))
	now.pass(time.Hour)
	d.want("github", "token", fmt.Sprintf("ghs_CANARY%030d", 2))
}

// TestConnectAsksForTheToken: what gets no token is not stored.
func TestConnectAsksForTheToken(t *testing.T) {
	d := newDesk(t, "{name: shopify, account: acme}")
	says := `{"error":"invalid_client"}`
	d.service.on("POST acme.myshopify.com/admin/oauth/access_token", func(w http.ResponseWriter, _ *http.Request, body string) {
		if form, err := url.ParseQuery(body); err != nil || form.Get("grant_type") != "client_credentials" || form.Get("client_id") != "app" || form.Get("client_secret") != "shpss_CANARY" {
			t.Errorf("sent %s", body)
		}
		status := 200
		if strings.Contains(says, "error") {
			status = 401
		}
		say(w, status, says)
	})
	ask := func() error {
		_, err := d.v.Connect(t.Context(), d.request("shopify", "app", "client_id", "app", "client_secret", "shpss_CANARY"), person)
		return err
	}
	if err := ask(); err == nil || !strings.Contains(err.Error(), "connecting shopify: ") || !strings.Contains(err.Error(), "its secret is wrong (invalid_client)") {
		t.Error(err)
	}
	if s := d.status("shopify"); s.Status != StatusNotConnected {
		t.Errorf("%+v", s)
	}
	says = `{"access_token":"` + d.service.issue("shpat_CANARY-1") + `","scope":"read_orders","expires_in":86399}` // without token_type
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	d.want("shopify", "token", "shpat_CANARY-1")
}

// TestRevokedWhileTheTokenComes: a token that comes after the revocation is
// neither stored nor used.
func TestRevokedWhileTheTokenComes(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	g := newGoogle(d)
	d.login()
	d.service.on(googleRevoke, func(w http.ResponseWriter, _ *http.Request, _ string) { say(w, 200, "{}") })
	asked, answer := make(chan struct{}), make(chan struct{})
	g.says(func(http.ResponseWriter) bool {
		close(asked)
		<-answer
		return false
	})
	now.pass(2 * time.Hour)
	got := make(chan string)
	go func() { got <- d.value("gmail", "access_token") }()
	<-asked
	if _, err := d.v.Revoke(t.Context(), "gmail", person); err != nil {
		t.Error(err)
	}
	close(answer)
	if v := <-got; !strings.HasPrefix(v, "error: ") {
		t.Errorf("got %q", v)
	}
	d.want("gmail", "access_token", "error: the account is not connected")
	d.reopen()
	d.want("gmail", "access_token", "error: the account is not connected")
}

// TestReplacedWhileTheTokenComes: a token of the account before does not become
// one of the account after.
func TestReplacedWhileTheTokenComes(t *testing.T) {
	d := newDesk(t, "gmail")
	now := &clock{now: time.Now()}
	d.now = now.time
	g := newGoogle(d)
	d.login()
	now.pass(2 * time.Hour)
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	g.says(func(http.ResponseWriter) bool {
		once.Do(func() {
			close(asked)
			<-answer
		})
		return false
	})
	got := make(chan string)
	go func() { got <- d.value("gmail", "access_token") }()
	<-asked
	file, _ := googleKey(t)
	d.service.on(googleToken, func(w http.ResponseWriter, _ *http.Request, _ string) {
		say(w, 200, fmt.Sprintf(`{"access_token":%q,"expires_in":3599,"token_type":"Bearer"}`, d.service.issue("ya29.c.CANARY-other")))
	})
	d.connect("gmail", "service-account", "key", file)
	close(answer)
	if v := <-got; !strings.HasPrefix(v, "error: ") {
		t.Errorf("got %q", v)
	}
	d.want("gmail", "access_token", "ya29.c.CANARY-other")
	d.reopen()
	d.want("gmail", "access_token", "ya29.c.CANARY-other")
}

func TestNotConnectedHasNoValue(t *testing.T) {
	d := newDesk(t, "gmail")
	b := d.v.state.Load().named("gmail")
	s, err := d.v.value(t.Context(), b, "access_token")
	if !errors.Is(err, ErrNotConnected) || s.Len() != 0 {
		t.Errorf("%v, %v", s, err)
	}
	d.v.refused(b) // nothing happens
}
