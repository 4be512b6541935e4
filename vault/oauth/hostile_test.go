package oauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"ambit/internal/dialguard"
	"ambit/vault/oauth"
)

const canary = "canary-refresh-token-5f1d"

// TestHostileAnswers has the provider echo the refresh token in every place
// that an error could quote.
func TestHostileAnswers(t *testing.T) {
	page := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset="+canary)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>"+canary)
		}
	}
	raw := func(text string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = buf.WriteString(text)
			_ = buf.Flush()
			_ = conn.Close()
		}
	}
	description := `,"error_description":"` + canary + `","error_uri":"https://` + canary + `"}`
	for name, c := range map[string]struct {
		answer    func(http.ResponseWriter, *http.Request)
		permanent bool
		code      string
		after     time.Duration
		want      string
	}{
		"invalid grant":         {says(400, `{"error":"invalid_grant"`+description), true, "invalid_grant", 0, "connect again"},
		"invalid grant, 200":    {says(200, `{"error":"bad_refresh_token"`+description), true, "bad_refresh_token", 0, "connect again"},
		"invalid client":        {says(401, `{"error":"invalid_client"`+description), true, "invalid_client", 0, "secret is wrong"},
		"the code is a canary":  {says(400, `{"error":"`+canary+`"}`), true, "", 0, "not known"},
		"the error is an array": {says(200, `{"error":["`+canary+`"],"access_token":"a","token_type":"Bearer"}`), true, "", 0, "not known"},
		"too often":             {says(429, `{"error":"invalid_grant"`+description, "Retry-After", "120"), false, "", 2 * time.Minute, "too often"},
		"too often, for days":   {says(429, ``, "Retry-After", "864000"), false, "", time.Hour, "too often"},
		"too often, odd":        {says(429, ``, "Retry-After", canary), false, "", 0, "too often"},
		"a fault":               {says(503, `{"error":"invalid_grant"}`, "Retry-After", "1"), false, "", time.Second, "fault"},
		"temporarily":           {says(400, `{"error":"temporarily_unavailable"`+description), false, "temporarily_unavailable", 0, "at the moment"},
		"a page":                {page(200), false, "", 0, "not JSON"},
		"a page with 403":       {page(403), false, "", 0, "not JSON"},
		"a page with 500":       {page(500), false, "", 0, "fault"},
		"no content type":       {says(200, good, "Content-Type", ""), false, "", 0, "not JSON"},
		"text":                  {says(200, good, "Content-Type", "text/plain"), false, "", 0, "not JSON"},
		"no JSON":               {says(200, canary), false, "", 0, "not one JSON object"},
		"an array":              {says(200, `["`+canary+`"]`), false, "", 0, "not one JSON object"},
		"two objects":           {says(200, good+good), false, "", 0, "not one JSON object"},
		"cut":                   {says(200, good[:len(good)-1]), false, "", 0, "not one JSON object"},
		"empty":                 {says(200, ``), false, "", 0, "not one JSON object"},
		"duplicate keys":        {says(200, `{"access_token":"a","token_type":"Bearer","access_token":"`+canary+`"}`), false, "", 0, "twice"},
		"duplicate, escaped":    {says(200, `{"access_token":"a","token_type":"Bearer","access\u005ftoken":"`+canary+`"}`), false, "", 0, "twice"},
		"another type":          {says(200, `{"access_token":"`+canary+`","token_type":"mac"}`), true, "", 0, "type Bearer"},
		"no type":               {says(200, `{"access_token":"`+canary+`"}`), true, "", 0, "type Bearer"},
		"the type is a number":  {says(200, `{"access_token":"`+canary+`","token_type":1}`), true, "", 0, "type Bearer"},
		"no token":              {says(200, `{"token_type":"Bearer"}`), false, "", 0, "no access_token"},
		"the token is a number": {says(200, `{"access_token":1,"token_type":"Bearer"}`), false, "", 0, "no access_token"},
		"the token splits":      {says(200, `{"access_token":"`+canary+`\r\nX: y","token_type":"Bearer"}`), false, "", 0, "no access_token"},
		"the refresh splits":    {says(200, `{"access_token":"a","refresh_token":"`+canary+`\n","token_type":"Bearer"}`), false, "", 0, "refresh_token"},
		"a token over 64 KiB":   {says(200, `{"access_token":"`+strings.Repeat("a", 64<<10+1)+`","token_type":"Bearer"}`), false, "", 0, "no access_token"},
		"longer than 1 MiB":     {says(200, `{"x":"`+strings.Repeat(canary, 1<<20/len(canary)+1)+`"}`), false, "", 0, "longer than 1 MiB"},
		"very deep":             {says(200, `{"x":`+strings.Repeat("[", 100_000)), false, "", 0, "not one JSON object"},
		"no HTTP":               {raw(canary + "\r\n\r\n"), false, "", 0, "connection failed"},
		"a bad header":          {raw("HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n"), false, "", 0, "connection failed"},
		"cut short":             {raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"" + canary), false, "", 0, "connection failed"},
		"created, no object":    {says(201, `null`), false, "", 0, "not one JSON object"},
		"another success":       {says(203, good), false, "", 0, "means nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, c.answer)
			p.Config.ErrorLog = nil
			token, err := client(t, p.config()).Refresh(t.Context(), secret(canary))
			var e *oauth.Error
			if token != nil || !errors.As(err, &e) {
				t.Fatalf("token %v, error %v", token, err)
			}
			if e.Permanent != c.permanent || e.Code != c.code || e.RetryAfter != c.after || !strings.Contains(e.Error(), c.want) {
				t.Errorf("%#v: %v\nwant permanent %v, code %q, after %s, %q", e, e, c.permanent, c.code, c.after, c.want)
			}
			noCanary(t, err)
		})
	}
}

// noCanary looks for the secret in every printed form of an error and of all
// that it wraps.
func noCanary(t *testing.T, err error) {
	t.Helper()
	for ; err != nil; err = errors.Unwrap(err) {
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), logged(err)} {
			for _, form := range []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte(canary))} {
				if strings.Contains(text, form) {
					t.Errorf("the error holds the secret: %s", text)
				}
			}
		}
	}
}

// TestS3RedirectIsNotFollowed sends the client elsewhere with each status.
func TestS3RedirectIsNotFollowed(t *testing.T) {
	hit := make(chan string, 100)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hit <- r.URL.String() }))
	defer elsewhere.Close()
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		for _, location := range []string{elsewhere.URL + "/" + canary, "http://169.254.169.254/" + canary, "%zz" + canary, ""} {
			p := newProvider(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", location)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, good)
			})
			_, err := client(t, p.config()).Refresh(t.Context(), secret(canary))
			var e *oauth.Error
			if !errors.As(err, &e) || e.Permanent || e.Status != status || !strings.Contains(e.Error(), "redirect") {
				t.Errorf("%d to %q: %v", status, location, err)
			}
			noCanary(t, err)
			if p.requests() != 1 {
				t.Errorf("%d requests", p.requests())
			}
		}
	}
	select {
	case u := <-hit:
		t.Errorf("followed to %s", u)
	default:
	}
}

func TestExpiry(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const year = 365 * 24 * time.Hour
	for expires, want := range map[string]time.Duration{
		`60`: time.Minute, `"60"`: time.Minute, `60.9`: time.Minute, `6e1`: time.Minute, `1e400`: 10 * year, `99999999999999999999`: 10 * year,
		`-5`: time.Hour, `0`: time.Hour, `null`: time.Hour, `"soon"`: time.Hour, `"NaN"`: time.Hour, `"Inf"`: 10 * year, `true`: time.Hour, `{}`: time.Hour, `-1e400`: time.Hour,
	} {
		p := newProvider(t, says(200, `{"access_token":"a","token_type":"BEARER","refresh_token":"r2","expires_in":`+expires+`}`))
		conf := p.config()
		conf.Now = func() time.Time { return now }
		token, err := client(t, conf).Refresh(t.Context(), secret("r1"))
		if err != nil {
			t.Errorf("%s: %v", expires, err)
			continue
		}
		if got := token.Expires.Sub(now); got != want {
			t.Errorf("%s: %s, want %s", expires, got, want)
		}
	}
	p := newProvider(t, says(200, `{"access_token":"a","token_type":"Bearer"}`))
	conf := p.config()
	conf.Method, conf.ClientSecret, conf.DefaultExpiry, conf.Now = oauth.Post, secret("s"), 7*time.Minute, func() time.Time { return now }
	c := client(t, conf)
	if token, err := c.ClientCredentials(t.Context()); err != nil || !token.Expires.IsZero() {
		t.Errorf("no refresh token, no expires_in: %v, %v", token, err)
	}
	if token, err := c.Refresh(t.Context(), secret("r1")); err != nil || !token.Expires.Equal(now.Add(7*time.Minute)) || token.Refresh.Len() != 0 {
		t.Errorf("refreshed without expires_in: %v, %v", token, err)
	}
}

func TestLongAnswersAndTokenTypes(t *testing.T) {
	long := strings.Repeat("a", 64<<10)
	p := newProvider(t, says(200, `{"access_token":"`+long+`","token_type":"Bearer","refresh_token":"r1","id_token":"`+long+`","deep":{"error":"x"},"error":null}`))
	token, err := client(t, p.config()).Refresh(t.Context(), secret("r1"))
	if err != nil || string(token.Access.Reveal()) != long {
		t.Fatalf("an answer of 128 KiB: %v", err)
	}
	if token.Refresh.Len() != 0 {
		t.Error("a refresh token that is repeated counts as rotated")
	}
	for kind, want := range map[string]bool{`,"token_type":"bot"`: true, ``: true, `,"token_type":"mac"`: false, `,"token_type":7`: false, `,"token_type":""`: false} {
		p := newProvider(t, says(200, `{"access_token":"a"`+kind+`}`))
		conf := p.config()
		conf.TokenTypes = []string{"bot", ""}
		if _, err := client(t, conf).Refresh(t.Context(), secret("r1")); (err == nil) != want {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	release := make(chan struct{})
	p := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token":"`+canary)
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	defer close(release)
	for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if cause == context.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		} else {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		_, err := client(t, p.config()).Refresh(ctx, secret(canary))
		cancel()
		var e *oauth.Error
		if !errors.As(err, &e) || e.Permanent || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
		noCanary(t, err)
	}
	guarded := p.config()
	transport := p.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Control: dialguard.Control(false)}).DialContext
	guarded.Transport = transport
	_, err := client(t, guarded).Refresh(t.Context(), secret(canary))
	var refused *dialguard.Error
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "may not be dialled") {
		t.Errorf("an address that is not vetted: %v", err)
	}
	other := p.config()
	other.Transport = &http.Transport{}
	if _, err := client(t, other).Refresh(t.Context(), secret(canary)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
}
