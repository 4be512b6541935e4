package vault_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The real values. They look like the service's own.
const (
	githubToken = "ghp_REALrealREALrealREALrealREAL00aaaa"
	slackToken  = "xoxb-1111111111-REALrealREALreal"
	stripeKey   = "sk_live_REALrealREALrealREALreal"
)

// echo answers with what arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s\n", r.Method, r.RequestURI)
	for name, values := range r.Header {
		fmt.Fprintf(w, "%s: %s\n", name, strings.Join(values, "|"))
	}
	fmt.Fprintf(w, "\n%s", body)
}

// arrived has the host keep what it got.
func (w *world) arrived() func() (r *http.Request, body string) {
	var last *http.Request
	var body string
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve = func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		defer w.mu.Unlock()
		last, body = r, string(b)
	}
	return func() (*http.Request, string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return last, body
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// Every way in which a credential travels, as programs send it, and what the
// host gets.
func TestUse(t *testing.T) {
	w := newWorld(t,
		"{name: github}", "{name: stripe}", "{name: slack}", "{name: query, hosts: [api.query.example]}", "{name: gitlab}",
		"{name: zendesk, account: acme}", "{name: login, hosts: [shop.example]}", "{name: basic, hosts: [basic.example]}",
	)
	const odd = `p&s= w/o"rd%\é1`
	w.connect("github", "token", "token", githubToken)
	w.connect("stripe", "", "key", stripeKey)
	w.connect("slack", "token", "token", slackToken)
	w.connect("query", "", "key", odd)
	w.connect("gitlab", "token", "token", "glpat-REALrealREALreal00")
	w.connect("zendesk", "token", "email", "owner@acme.example", "api_token", "REALrealREALrealREALreal")
	w.connect("basic", "", "user", "real-user", "password", odd)
	ref := func(name string) string { return w.env(name) }
	arrived := w.arrived()
	json := "application/json"
	form := "application/x-www-form-urlencoded"
	for name, c := range map[string]struct {
		call call
		want func(r *http.Request, body string) (got, want string)
	}{
		"bearer": {get("https://api.github.com/user", "Authorization", "Bearer "+ref("GITHUB_TOKEN")), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), "Bearer " + githubToken
		}},
		"bearer in another case": {get("https://api.github.com/user", "Authorization", "bearer "+ref("GITHUB_TOKEN")), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), "Bearer " + githubToken
		}},
		"token": {get("https://api.github.com/user", "Authorization", "token "+ref("GITHUB_TOKEN")), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), "token " + githubToken
		}},
		"git": {get("https://github.com/acme/shop.git/info/refs?service=git-upload-pack", "Authorization", basic("anybody", ref("GITHUB_TOKEN"))), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), basic("x-access-token", githubToken)
		}},
		"basic user": {get("https://api.stripe.com/v1/charges", "Authorization", basic(ref("STRIPE_API_KEY"), "")), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), basic(stripeKey, "")
		}},
		"basic with text": {get("https://acme.zendesk.com/api/v2/tickets", "Authorization", basic(ref("ZENDESK_EMAIL")+"/token", ref("ZENDESK_API_TOKEN"))), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), basic("owner@acme.example/token", "REALrealREALrealREALreal")
		}},
		"basic pair": {get("https://basic.example/", "Authorization", basic(ref("BASIC_USER"), ref("BASIC_PASSWORD"))), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Authorization"), basic("real-user", odd)
		}},
		"header": {get("https://gitlab.com/api/v4/user", "Private-Token", ref("GITLAB_TOKEN")), func(r *http.Request, _ string) (string, string) {
			return r.Header.Get("Private-Token"), "glpat-REALrealREALreal00"
		}},
		"query": {get("https://api.query.example/a/b?x=%20&api_key=" + ref("QUERY_API_KEY") + "&y=+"), func(r *http.Request, _ string) (string, string) {
			return r.URL.RawQuery, "x=%20&api_key=" + strings.ReplaceAll(url.QueryEscape(odd), "+", "%20") + "&y=+"
		}},
		"form": {post("https://slack.com/api/chat.postMessage", form, "channel=C01234567&token="+ref("SLACK_BOT_TOKEN")+"&text=a+b"), func(r *http.Request, body string) (string, string) {
			return fmt.Sprint(body, r.ContentLength), fmt.Sprint("channel=C01234567&token="+slackToken+"&text=a+b", len("channel=C01234567&token="+slackToken+"&text=a+b"))
		}},
		"multipart": {post("https://slack.com/api/files.upload", "multipart/form-data; boundary=xx",
			"--xx\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n"+ref("SLACK_BOT_TOKEN")+"\r\n--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--xx--\r\n"),
			func(r *http.Request, _ string) (string, string) {
				_ = r.ParseMultipartForm(1 << 20)
				return "", ""
			}},
		"unused": {post("https://api.github.com/repos/a/b/issues", json, `{"title":"x"}`), func(r *http.Request, body string) (string, string) {
			return r.Header.Get("Authorization") + body, `{"title":"x"}`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if r := w.do(c.call); r.denied != nil {
				t.Fatal(r.denied)
			}
			r, body := arrived()
			if got, want := c.want(r, body); got != want {
				t.Errorf("the host got\n%q, want\n%q", got, want)
			}
			if name == "multipart" && !strings.Contains(body, "\r\n\r\n"+slackToken+"\r\n--xx") {
				t.Errorf("the host got %q", body)
			}
			if strings.Contains(fmt.Sprint(r.RequestURI, r.Header, body), strings.TrimPrefix(ref("GITHUB_TOKEN"), "ghp_")) {
				t.Error("the reference is still there")
			}
		})
	}
}

// A request without a credential, to a host with or without a connection,
// arrives as it was sent.
func TestUntouched(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: stripe}", "{name: slack}")
	w.connect("github", "token", "token", githubToken)
	arrived := w.arrived()
	hosts := []string{"other.example", "api.github.com", "api.stripe.com"}
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.StringMatching(`[A-Za-z0-9._~-]{1,20}`)
		body := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "body")
		query := "q" + word.Draw(rt, "name") + "=" + url.QueryEscape(rapid.String().Draw(rt, "value"))
		path := "/p" + word.Draw(rt, "path") + "/" + url.PathEscape("v"+word.Draw(rt, "segment"))
		c := with("POST", "https://"+rapid.SampledFrom(hosts).Draw(rt, "host")+path+"?"+query, nil, "X-Other", word.Draw(rt, "header"), "Content-Type", "application/octet-stream")
		c.body, c.length = io.MultiReader(strings.NewReader(string(body))), 1
		r := w.do(c)
		if r.denied != nil {
			rt.Fatal(r.denied)
		}
		got, gotBody := arrived()
		if gotBody != string(body) || got.RequestURI != path+"?"+query || got.Header.Get("X-Other") != c.header.Get("X-Other") || got.Header.Get("Authorization") != "" {
			rt.Errorf("%s %q %v", got.RequestURI, gotBody, got.Header)
		}
	})
}

func TestNotConnected(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: slack}")
	r := w.wantDenied(get("https://api.github.com/user", "Authorization", "Bearer "+w.env("GITHUB_TOKEN")), "not-connected")
	if got, want := r.denied.Verdict.Reason.Remedy, "run: ambit connect support github"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.wantDenied(post("https://slack.com/api/auth.test", "application/x-www-form-urlencoded", "token="+w.env("SLACK_BOT_TOKEN")), "not-connected")
	w.connect("slack", "token", "token", slackToken) // without the optional one
	w.wantDenied(get("https://slack.com/api/apps.connections.open", "Authorization", "Bearer "+w.env("SLACK_APP_TOKEN")), "not-connected")
	if r := w.do(get("https://api.github.com/zen")); r.denied != nil {
		t.Errorf("without a credential: %v", r.denied)
	}
}

// What no header field, user name or path can hold is refused, and is not sent
// in another form.
func TestUnusable(t *testing.T) {
	w := newWorld(t, "{name: header, hosts: [api.example.com]}", "{name: basic, hosts: [basic.example]}")
	w.connect("basic", "", "user", "with:colon", "password", "longenough")
	w.wantDenied(get("https://basic.example/", "Authorization", basic(w.env("BASIC_USER"), w.env("BASIC_PASSWORD"))), "credential-unusable")
}

// A grant for something else is no permission.
func TestGrantMustFit(t *testing.T) {
	w := newWorld(t, "{name: github}")
	w.connect("github", "token", "token", githubToken)
	granted, _ := w.request(get("https://api.github.com/user"))
	grant, err := w.gate.Check(t.Context(), granted)
	if err != nil {
		t.Fatal(err)
	}
	auth := []string{"Authorization", "Bearer " + w.env("GITHUB_TOKEN")}
	for _, c := range []call{get("https://api.github.com/users", auth...), get("https://uploads.github.com/user", auth...), get("https://api.github.com/user?a=b", auth...), with("DELETE", "https://api.github.com/user", nil, auth...)} {
		r, q := w.request(c)
		plan, verdict := w.vault.Examine(r)
		if verdict != nil {
			t.Fatal(verdict)
		}
		if _, err := w.vault.Use(t.Context(), grant, plan, q, nil); err == nil || strings.Contains(fmt.Sprint(q.Header), githubToken) {
			t.Errorf("%s %s: used with a grant for GET /user: %v", c.method, c.url, err)
		}
	}
	r, q := w.request(get("https://api.github.com/user", auth...))
	plan, _ := w.vault.Examine(r)
	if _, err := w.vault.Use(t.Context(), nil, plan, q, nil); err == nil {
		t.Error("used without a grant")
	}
}

// The header that the gate saw never has a real value.
func TestGrantHeaderStaysAsItWas(t *testing.T) {
	w := newWorld(t, "{name: github}")
	w.connect("github", "token", "token", githubToken)
	r, q := w.request(get("https://api.github.com/user", "Authorization", "Bearer "+w.env("GITHUB_TOKEN"), "Cookie", "a=b"))
	plan, verdict := w.vault.Examine(r)
	grant, err := w.gate.CheckWith(t.Context(), r, verdict)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := w.vault.Use(t.Context(), grant, plan, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Done()
	if got := fmt.Sprint(grant.Request().Header, r.Header); strings.Contains(got, githubToken) {
		t.Error(got)
	}
	if got := q.Header.Get("Authorization"); got != "Bearer "+githubToken {
		t.Errorf("%q", got)
	}
	if got := q.Header.Get("Cookie"); got != "" {
		t.Errorf("the cookie %q left", got)
	}
	if r.Connection != "github" {
		t.Errorf("the connection in the log is %q", r.Connection)
	}
}

// A one-time code is the code of now, and only in its place.
func TestOneTimeCode(t *testing.T) {
	w := newWorld(t, "{name: login, as: shop, hosts: [shop.example]}")
	w.now = func() time.Time { return time.Unix(59, 0) } // RFC 6238, appendix B
	w.connect("shop", "", "username", "owner@shop.example", "password", "correct horse battery", "totp", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
	arrived := w.arrived()
	r := w.do(post("https://shop.example/login", "application/json",
		fmt.Sprintf(`{"username": %q, "remember":true, "password":%q,"otp":%q}`, w.env("SHOP_USERNAME"), w.env("SHOP_PASSWORD"), w.env("SHOP_CODE"))))
	if r.denied != nil {
		t.Fatal(r.denied)
	}
	if _, body := arrived(); body != `{"username": "owner@shop.example", "remember":true, "password":"correct horse battery","otp":"287082"}` {
		t.Errorf("%s", body)
	}
	// Six digits by themselves are a number like any other.
	if r := w.do(post("https://other.example/", "text/plain", w.env("SHOP_CODE"))); r.denied != nil {
		t.Error(r.denied)
	}
}

// The host of a connection is found by its name, by a name above it with a
// wildcard, and by its port; among as many as an agent may have.
func TestHostsAreFound(t *testing.T) {
	w := newWorld(t, "{name: bearer, as: a, hosts: [a.example]}", `{name: bearer, as: b, hosts: ["*.b.example"]}`, "{name: bearer, as: c, hosts: [a.example], ports: [8443]}", "{name: bearer, as: d, hosts: [x.y.b2.example]}")
	for _, name := range []string{"a", "b", "c", "d"} {
		w.connect(name, "", "token", "real-token-of-"+name)
	}
	arrived := w.arrived()
	for url, name := range map[string]string{
		"https://a.example/": "a", "https://a.example:8443/": "c", "https://x.b.example/": "b", "https://x.y.b.example/": "b", "https://x.y.b2.example/": "d",
	} {
		if r := w.do(get(url, "Authorization", "Bearer "+w.env(strings.ToUpper(name)+"_TOKEN"))); r.denied != nil {
			t.Fatal(url, r.denied)
		}
		if r, _ := arrived(); r.Header.Get("Authorization") != "Bearer real-token-of-"+name {
			t.Errorf("%s: %s", url, r.Header.Get("Authorization"))
		}
	}
}
