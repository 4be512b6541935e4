package vault_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"ambit"
)

// refer has the vault put references into a request of Ambit's own, and returns
// it as the door has it.
func (w *world) refer(connection string, c call) call {
	w.t.Helper()
	q, err := http.NewRequestWithContext(w.t.Context(), c.method, c.url, c.body)
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range c.header {
		q.Header[name] = values
	}
	if err := w.vault.Refer(connection, q); err != nil {
		w.t.Fatalf("%s: %v", c.url, err)
	}
	out := call{method: q.Method, url: q.URL.String(), header: q.Header}
	if q.Body != nil {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		out.body = strings.NewReader(string(b))
	}
	return out
}

// What Refer puts into a request is what the vault fills: for each way in which
// a credential travels, the host gets the real one.
func TestRefer(t *testing.T) {
	w := newWorld(t,
		"{name: github}", "{name: stripe}", "{name: slack}", "{name: query, hosts: [api.query.example]}", "{name: gitlab}",
		"{name: zendesk, account: acme}", "{name: hmac, hosts: [hmac.example]}", "{name: s3, pin: {region: eu-central-1, bucket: reports}}",
	)
	w.connect("github", "token", "token", githubToken)
	w.connect("stripe", "", "key", stripeKey)
	w.connect("slack", "token", "token", slackToken)
	w.connect("query", "", "key", "a long key=")
	w.connect("gitlab", "token", "token", "glpat-REALrealREALreal00")
	w.connect("zendesk", "token", "email", "owner@acme.example", "api_token", "REALrealREALrealREALreal")
	w.connect("hmac", "", "key", "who-signs-REAL", "secret", "REALrealREALrealREALreal")
	w.connect("s3", "", "access_key_id", "AKIAREALREALREALREAL", "secret_access_key", "REALrealREALrealREALrealREALrealREALreal")
	arrived := w.arrived()
	for name, c := range map[string]struct {
		connection string
		call       call
		want       string // in the host's request
	}{
		"bearer":     {"github", get("https://api.github.com/user"), githubToken},
		"basic":      {"github", get("https://github.com/acme/shop.git/info/refs?service=git-upload-pack"), basic("x-access-token", githubToken)},
		"first way":  {"slack", post("https://slack.com/api/chat.postMessage", "application/json", `{"channel":"C1"}`), "Bearer " + slackToken},
		"text":       {"zendesk", get("https://acme.zendesk.com/api/v2/tickets"), basic("owner@acme.example/token", "REALrealREALrealREALreal")},
		"header":     {"gitlab", get("https://gitlab.com/api/v4/user"), "glpat-REALrealREALreal00"},
		"query":      {"query", get("https://api.query.example/a?b=c%20d"), "b=c%20d&api_key=a%20long%20key%3D"},
		"query only": {"query", get("https://api.query.example/a"), "/a?api_key=a%20long%20key%3D"},
		"HMAC":       {"hmac", post("https://hmac.example/a?b", "application/json", `{"a":1}`), "X-Api-Key:[who-signs-REAL]"},
		"SigV4":      {"s3", get("https://reports.s3.eu-central-1.amazonaws.com/2026/a.csv?versionId=1"), "Credential=AKIAREALREALREALREAL/"},
		"SigV4, put": {"s3", with("PUT", "https://reports.s3.eu-central-1.amazonaws.com/b", strings.NewReader("body")), "Credential=AKIAREALREALREALREAL/"},
	} {
		t.Run(name, func(t *testing.T) {
			sent := w.refer(c.connection, c.call)
			if all := fmt.Sprint(sent.url, sent.header); strings.Contains(strings.ToLower(all), "real") {
				t.Errorf("Refer gave away a real value: %s", all)
			}
			if r := w.do(sent); r.denied != nil {
				t.Fatal(r.denied)
			}
			r, body := arrived()
			if got := fmt.Sprint(r.RequestURI, r.Header, body); !strings.Contains(got, c.want) {
				t.Errorf("the host got\n%s, want %s in it", got, c.want)
			}
		})
	}
}

// A connection's references go to its own hosts only.
func TestReferElsewhere(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: stripe}")
	for _, c := range [][2]string{{"github", "https://api.stripe.com/v1/charges"}, {"github", "https://other.example/"}, {"github", "https://api.github.com:8443/"}, {"nothing", "https://api.github.com/"}} {
		q, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c[1], http.NoBody)
		err := w.vault.Refer(c[0], q)
		var d *ambit.DenyError
		if !errors.As(err, &d) || d.Verdict.Reason.Code != "other-connection" || len(q.Header) > 0 {
			t.Errorf("%v: %v, %v", c, err, q.Header)
		}
	}
	if r, ok := w.vault.Reference("github", "token"); !ok || r != w.env("GITHUB_TOKEN") {
		t.Errorf("%q, %v", r, ok)
	}
	if r, ok := w.vault.Reference("github", "nothing"); ok {
		t.Errorf("%q", r)
	}
}
