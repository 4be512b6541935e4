package oauth_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDeviations is against a provider that wants JSON, commas, another name
// for the scopes and no PKCE, and refuses what it does not know.
func TestDeviations(t *testing.T) {
	var got []map[string]string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var members map[string]string
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &members) != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v %s", r.Header, body)
		}
		got = append(got, members)
		says(200, good)(w, r)
	}))
	defer server.Close()
	p := &provider{Server: server, t: t}
	c := p.config()
	c.JSON, c.NoPKCE, c.ScopeSep, c.ScopeParam = true, true, ",", "user_scope"
	c.Method, c.ClientSecret = "client_secret_post", secret("s")
	flow, err := client(t, c).Begin()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(flow.URL())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("user_scope") != "read,write" || q.Has("scope") || q.Has("code_challenge") || q.Has("code_challenge_method") {
		t.Errorf("the person goes to %s", u)
	}
	if _, err := flow.Exchange(t.Context(), url.Values{"state": q["state"], "code": {"c"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, c).ClientCredentials(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"client_id": "client one", "client_secret": "s", "grant_type": "authorization_code", "code": "c", "redirect_uri": c.RedirectURL},
		{"client_id": "client one", "client_secret": "s", "grant_type": "client_credentials", "user_scope": "read,write"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
