package vault_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const form = "application/x-www-form-urlencoded"

// K1: a reference sent to a host that it is not bound to, or into a place where
// none may stand, is refused before it leaves, and alerted.
func TestK1MisplacedReference(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: stripe}", "{name: zendesk, account: acme}")
	w.connect("github", "token", "token", githubToken)
	ref := w.env("GITHUB_TOKEN")
	email := w.env("ZENDESK_EMAIL")
	percent := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			fmt.Fprintf(&b, "%%%02x", c)
		}
		return b.String()
	}
	for name, c := range map[string]call{
		"bearer":                       get("https://other.example/", "Authorization", "Bearer "+ref),
		"another connection's host":    get("https://api.stripe.com/v1/charges", "Authorization", "Bearer "+ref),
		"a host of it without a place": get("https://codeload.github.com/a", "Authorization", "Bearer "+ref),
		"basic user":                   get("https://other.example/", "Authorization", basic(ref, "x")),
		"basic password":               get("https://other.example/", "Authorization", basic("some-user", ref)),
		"basic password, aligned":      get("https://other.example/", "Authorization", basic("some-user1", ref)),
		"basic password, aligned 2":    get("https://other.example/", "Authorization", basic("some-user12", ref)),
		"any header":                   get("https://other.example/", "X-Note", "it is "+ref+", you know"),
		"cookie":                       get("https://other.example/", "Cookie", "a="+url.QueryEscape(email)),
		"query":                        get("https://other.example/?a=b&c=" + ref),
		"query, encoded":               get("https://other.example/?" + percent(ref)),
		"path":                         get("https://other.example/a/" + ref + "/b"),
		"wrong field":                  get("https://api.github.com/user", "X-Github-Token", ref),
		"wrong place":                  get("https://api.github.com/user?access_token=" + ref),
		"wrong scheme":                 get("https://api.github.com/user", "Authorization", "Digest "+ref),
		"right place and another":      get("https://api.github.com/user?q="+ref, "Authorization", "Bearer "+ref),
		"Bearer where Basic is":        get("https://github.com/a/b/info/refs", "Authorization", "Bearer "+ref),
		"twice":                        get("https://api.github.com/user", "Authorization", "Bearer "+ref, "Authorization", "Bearer "+ref),
		"text around":                  get("https://api.github.com/user", "Authorization", "Bearer "+ref+"x"),
	} {
		t.Run(name, func(t *testing.T) {
			r := w.wantDenied(c, "reference-misplaced")
			if r.denied != nil && strings.Contains(fmt.Sprint(r.denied.Verdict), ref) {
				t.Errorf("the refusal shows the reference: %v", r.denied.Verdict)
			}
			if name == "bearer" {
				v := r.denied.Verdict.Reason
				if !strings.Contains(v.Text, `"github"`) || !strings.Contains(v.Text, "api.github.com") || r.denied.Event == nil {
					t.Errorf("%+v, logged as %v", v, r.denied.Event)
				}
			}
		})
	}
	if !w.alerts.raised("reference-misplaced other.example") {
		t.Error("no alert was raised")
	}
}

// K1: in a body, whole or in pieces, for every kind of body.
func TestK1MisplacedInBody(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: slack}")
	w.connect("github", "token", "token", githubToken)
	w.connect("slack", "token", "token", slackToken)
	ref, slack := w.env("GITHUB_TOKEN"), w.env("SLACK_BOT_TOKEN")
	long := strings.Repeat("some text that is not short; ", 10000)
	for name, c := range map[string]call{
		"text":                  post("https://other.example/", "text/plain", "x "+ref),
		"no type":               post("https://other.example/", "", ref),
		"json":                  post("https://other.example/", "application/json", `{"a":"`+ref+`"}`),
		"base64":                post("https://other.example/", "application/json", `{"content":"`+base64.StdEncoding.EncodeToString([]byte("token: "+ref+"\n"))+`"}`),
		"base64url":             post("https://other.example/", "application/json", `{"content":"`+base64.RawURLEncoding.EncodeToString([]byte("a?>"+ref))+`"}`),
		"deep in a long one":    post("https://other.example/", "text/plain", long+ref+long),
		"at its end":            post("https://other.example/", "text/plain", long+ref),
		"its own host":          post("https://api.github.com/repos/a/b/issues", "application/json", `{"body":"`+ref+`"}`),
		"its own host, in JSON": post("https://slack.com/api/chat.postMessage", "application/json", `{"token":"`+slack+`"}`),
		"another form field":    post("https://slack.com/api/chat.postMessage", form, "text="+slack),
		"a form field's name":   post("https://slack.com/api/chat.postMessage", form, slack+"=1"),
		"another's form field":  post("https://slack.com/api/chat.postMessage", form, "token="+ref),
		"with text around":      post("https://slack.com/api/chat.postMessage", form, "token=x"+slack),
	} {
		t.Run(name, func(t *testing.T) {
			w.wantDenied(c, "reference-misplaced")
		})
	}
	// One byte at a time, of unknown length: nothing of the reference gets through.
	c := with("POST", "https://other.example/", nil, "Content-Type", "text/plain")
	c.body = io.MultiReader(strings.NewReader("before "), iotest.OneByteReader(strings.NewReader(ref)), strings.NewReader(" after"))
	request, q := w.request(c)
	plan, _ := w.vault.Examine(request)
	grant, err := w.gate.Check(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := w.vault.Use(t.Context(), grant, plan, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Done()
	b, err := io.ReadAll(q.Body)
	if s := string(b); s != "before " || err == nil || lease.Refusal(err) == nil {
		t.Errorf("%q left, %v", s, err)
	}
}

func squeeze(t *testing.T, coding, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zlib":
		w = zlib.NewWriter(&b)
	default:
		w, _ = flate.NewWriter(&b, 5)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// K2: where the gate cannot look, nothing passes; where it can, a reference is
// found.
func TestK2CompressedBody(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: slack}", "{name: login, hosts: [shop.example]}")
	w.connect("github", "token", "token", githubToken)
	w.connect("slack", "token", "token", slackToken)
	ref := w.env("GITHUB_TOKEN")
	const other = "https://other.example/"
	for name, c := range map[string]struct {
		call call
		code string
	}{
		"gzip":                 {post(other, "text/plain", squeeze(t, "gzip", "x"+ref), "Content-Encoding", "gzip"), "reference-misplaced"},
		"x-gzip":               {post(other, "text/plain", squeeze(t, "gzip", ref), "Content-Encoding", "X-GZIP"), "reference-misplaced"},
		"deflate":              {post(other, "text/plain", squeeze(t, "zlib", ref), "Content-Encoding", "deflate"), "reference-misplaced"},
		"bare deflate":         {post(other, "text/plain", squeeze(t, "flate", ref), "Content-Encoding", "deflate"), "reference-misplaced"},
		"brotli":               {post(other, "text/plain", "whatever", "Content-Encoding", "br"), "body-opaque"},
		"zstd":                 {post(other, "text/plain", "whatever", "Content-Encoding", "zstd"), "body-opaque"},
		"twice":                {post(other, "text/plain", "whatever", "Content-Encoding", "gzip, gzip"), "body-opaque"},
		"twice, two fields":    {post(other, "text/plain", "whatever", "Content-Encoding", "gzip", "Content-Encoding", "gzip"), "body-opaque"},
		"gRPC":                 {post(other, "application/grpc", "whatever", "Grpc-Encoding", "gzip"), "body-opaque"},
		"not what it says":     {post(other, "text/plain", "whatever", "Content-Encoding", "gzip"), "body-unreadable"},
		"a bomb":               {post(other, "text/plain", squeeze(t, "gzip", strings.Repeat("a", 20<<20)), "Content-Encoding", "gzip"), "body-too-long"},
		"long":                 {post(other, "text/plain", strings.Repeat("a", 1<<20+1), "Content-Encoding", "gzip"), "body-too-long"},
		"a second member":      {post(other, "text/plain", squeeze(t, "gzip", "x")+squeeze(t, "gzip", ref), "Content-Encoding", "gzip"), "reference-misplaced"},
		"what is to be filled": {post("https://slack.com/api/auth.test", form, squeeze(t, "gzip", "token="+w.env("SLACK_BOT_TOKEN")), "Content-Encoding", "gzip"), "body-opaque"},
		"over-long form":       {post("https://slack.com/api/auth.test", form, "text="+strings.Repeat("a", 1<<20)+"&token="+w.env("SLACK_BOT_TOKEN")), "body-too-long"},
		"over-long upload":     {post("https://shop.example/x", "multipart/form-data; boundary=xx", "--xx\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n"+strings.Repeat("a", 1<<20)+ref+"\r\n--xx--\r\n"), "reference-misplaced"},
		"login in an upload":   {post("https://shop.example/x", "multipart/form-data; boundary=xx", "--xx\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n"+strings.Repeat("a", 1<<20)+"\r\n--xx\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nevilevil\r\n--xx--\r\n"), "foreign-credential"},
		"foreign field":        {post("https://api.github.com/graphql", "application/json", squeeze(t, "gzip", `{"access_token":"evil"}`), "Content-Encoding", "gzip"), "foreign-credential"},
	} {
		t.Run(name, func(t *testing.T) { w.wantDenied(c.call, c.code) })
	}
	arrived := w.arrived()
	upload := "--xx\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n" + strings.Repeat("a", 2<<20) + "\r\n--xx--\r\n"
	for _, length := range []int64{0, -1} { // told, and not
		c := post("https://shop.example/x", "multipart/form-data; boundary=xx", upload)
		if c.length = length; length < 0 {
			c.body = io.MultiReader(c.body)
		}
		if r := w.do(c); r.denied != nil {
			t.Fatal(r.denied)
		}
		if _, got := arrived(); got != upload {
			t.Error("an upload was changed on its way")
		}
	}
	for _, coding := range []string{"gzip", "zlib", "flate"} {
		body := squeeze(t, coding, "something else")
		said := map[string]string{"gzip": "gzip"}[coding]
		if said == "" {
			said = "deflate"
		}
		if r := w.do(post(other, "text/plain", body, "Content-Encoding", said)); r.denied != nil {
			t.Fatal(r.denied)
		}
		if _, got := arrived(); got != body {
			t.Errorf("%s: changed on its way", coding)
		}
	}
}

// N10: on a connection's host nobody else's credential passes, wherever it
// stands.
func TestN10ForeignCredential(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: stripe}", "{name: slack}", "{name: s3, hosts: [s3.example.com], pin: {region: eu-central-1, bucket: files}}",
		"{name: openai}", "{name: login, hosts: [shop.example]}")
	w.connect("github", "token", "token", githubToken)
	w.connect("slack", "token", "token", slackToken)
	const evil = "ghp_evilEVILevilEVILevilEVILevil00aaaa"
	part := func(name string) string {
		return "--xx\r\nContent-Disposition: form-data; " + name + "\r\n\r\nevil\r\n--xx--\r\n"
	}
	for name, c := range map[string]call{
		"bearer":              get("https://api.github.com/user", "Authorization", "Bearer "+evil),
		"no scheme":           get("https://api.github.com/user", "Authorization", evil),
		"basic":               get("https://github.com/a/b/info/refs", "Authorization", basic("x", evil)),
		"host without place":  get("https://codeload.github.com/a", "Authorization", "Bearer "+evil),
		"beside ours":         get("https://api.github.com/user", "Authorization", "Bearer "+w.env("GITHUB_TOKEN"), "X-Api-Key", "evil"),
		"usual header":        get("https://api.github.com/user", "Private-Token", "evil"),
		"as CGI has it":       get("https://api.github.com/user", "X_api-Key", "evil"),
		"query":               get("https://api.github.com/user?access_token=" + evil),
		"query, in PHP's way": get("https://api.github.com/user?a=b&%41ccess.Token[]=" + evil),
		"query, with ;":       get("https://api.github.com/user?a=b;access_token=" + evil),
		"presigned":           get("https://s3.example.com/files/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEVIL%2F20260101%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Signature=00"),
		"aws version 2":       get("https://s3.example.com/files/a?AWSAccessKeyId=AKIAEVIL&Signature=x"),
		"aws, own key":        get("https://s3.example.com/files/a", "Authorization", "AWS4-HMAC-SHA256 Credential=AKIAEVIL/20260101/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature="+strings.Repeat("0", 64), "X-Amz-Date", "20260101T000000Z"),
		"form":                post("https://slack.com/api/chat.postMessage", form, "channel=x&token=xoxb-evil"),
		"form, encoded":       post("https://slack.com/api/chat.postMessage", form, "channel=x&%74oken=xoxb-evil"),
		"form, twice":         post("https://slack.com/api/chat.postMessage", form, "token="+w.env("SLACK_BOT_TOKEN")+"&token=xoxb-evil"),
		"form, unspoken":      post("https://api.github.com/user", form, "a=b&client_secret=evil"),
		"form, without type":  post("https://api.github.com/user", "", "a=b&client_secret=evil"),
		"json":                post("https://api.github.com/graphql", "application/json", `{"a": {"b": [{"access_token" : "evil"}]}}`),
		"json, escaped":       post("https://api.github.com/graphql", "application/json", `{"acc\u0065ss_token":"evil"}`),
		"json, another case":  post("https://api.github.com/graphql", "application/vnd.github+json", `{"Access_Token":"evil"}`),
		"json, as text":       post("https://api.github.com/graphql", "text/plain", "\n {\"access_token\":1}"),
		"json, list":          post("https://api.github.com/graphql", "application/json", `{"access_token":["evil"]}`),
		"multipart":           post("https://slack.com/api/files.upload", "multipart/form-data; boundary=xx", part(`name="token"`)),
		"multipart, unspoken": post("https://api.github.com/x", "multipart/form-data; boundary=xx", part(`name="access_token"`)),
		"multipart, bare":     post("https://api.github.com/x", "multipart/form-data; boundary=xx", part(`name=access_token`)),
		"multipart, folded":   post("https://api.github.com/x", "multipart/form-data; boundary=xx", part("x=y;\r\n name=\"access_token\"")),
		"multipart, escaped":  post("https://api.github.com/x", "multipart/form-data; boundary=xx", part(`name="access\_token"`)),
		"multipart, extended": post("https://api.github.com/x", "multipart/form-data; boundary=xx", part(`name*=utf-8''access_token`)),
		"login, own account":  post("https://shop.example/login", form, "username=evil@evil.example&password=evilevil"),
		"login, JSON":         post("https://shop.example/login", "application/json", `{"Password":"evilevil"}`),
		"login, token":        get("https://shop.example/", "Authorization", "Bearer evilEVILevil"),
	} {
		t.Run(name, func(t *testing.T) {
			r := w.wantDenied(c, "foreign-credential")
			if r.denied != nil && strings.Contains(fmt.Sprint(r.denied.Verdict), "evilEVIL") {
				t.Errorf("the refusal shows the credential: %v", r.denied)
			}
		})
	}
	for name, c := range map[string]call{
		"a schema":       post("https://api.openai.com/v1/responses", "application/json", `{"tools":[{"parameters":{"properties":{"api_key":{"type":"string"}}}}]}`),
		"a value":        post("https://api.github.com/graphql", "application/json", `{"a":"access_token","b":["access_token"]}`),
		"an empty one":   post("https://api.github.com/graphql", "application/json", `{"access_token":"","api_key":null}`),
		"an empty field": get("https://api.github.com/user?access_token=", "Authorization", ""),
		"a file":         post("https://api.github.com/x", "multipart/form-data; boundary=xx", part(`name="file"; filename="access_token"`)),
	} {
		t.Run(name, func(t *testing.T) {
			if r := w.do(c); r.denied != nil {
				t.Error(r.denied)
			}
		})
	}
}

// "require: false" lets other credentials through, and references nowhere else.
func TestRequireFalse(t *testing.T) {
	w := newWorld(t, "{name: github, require: false}")
	w.connect("github", "token", "token", githubToken)
	arrived := w.arrived()
	if r := w.do(get("https://api.github.com/user", "Authorization", "Bearer somebody's", "Cookie", "a=b")); r.denied != nil {
		t.Fatal(r.denied)
	}
	if r, _ := arrived(); r.Header.Get("Authorization") != "Bearer somebody's" || r.Header.Get("Cookie") != "a=b" {
		t.Errorf("%v", r.Header)
	}
	w.wantDenied(get("https://api.github.com/user", "X-Api-Key", w.env("GITHUB_TOKEN")), "reference-misplaced")
}

// N10: a pin that stands in the body.
func TestN10BodyPin(t *testing.T) {
	w := newWorld(t, "{name: slack, pin: {channel: C01234567}}")
	w.connect("slack", "token", "token", slackToken)
	bearer := "Bearer " + w.env("SLACK_BOT_TOKEN")
	const to = "https://slack.com/api/chat.postMessage"
	json := "application/json; charset=utf-8"
	for name, c := range map[string]call{
		"json":           post(to, json, `{"channel":"C01234567","text":"x"}`, "Authorization", bearer),
		"form":           post(to, form, "channel=C01234567&text=x", "Authorization", bearer),
		"form and token": post(to, form, "channel=C01234567&token="+w.env("SLACK_BOT_TOKEN")),
		"compressed":     post(to, json, squeeze(t, "gzip", `{"channel":"C01234567"}`), "Content-Encoding", "gzip"),
		"multipart":      post(to, "multipart/form-data; boundary=xx", "--xx\r\nContent-Disposition: form-data; name=channel\r\n\r\nC01234567\r\n--xx--"),
	} {
		t.Run(name, func(t *testing.T) {
			if r := w.do(c); r.denied != nil {
				t.Error(r.denied)
			}
		})
	}
	for name, c := range map[string]call{
		"another":           post(to, json, `{"channel":"C99999999"}`),
		"none":              post(to, json, `{"text":"x"}`),
		"no body":           with("POST", to, nil),
		"twice":             post(to, json, `{"channel":"C01234567","channel":"C99999999"}`),
		"twice, other case": post(to, json, `{"channel":"C01234567","Channel":"C99999999"}`),
		"twice, escaped":    post(to, json, `{"channel":"C01234567","\u0063hannel":"C99999999"}`),
		"deeper":            post(to, json, `{"a":{"channel":"C01234567"}}`),
		"list":              post(to, json, `{"channel":["C01234567"]}`),
		"form twice":        post(to, form, "channel=C01234567&channel=C99999999"),
		"form with ;":       post(to, form, "channel=C01234567;channel=C99999999"),
		"form, PHP":         post(to, form, "channel=C01234567&channel[]=C99999999"),
		"query too":         post(to+"?channel=C99999999", json, `{"channel":"C01234567"}`),
		"text":              post(to, "text/plain", `{"channel":"C01234567"}`),
		"no type":           post(to, "", `{"channel":"C01234567"}`),
	} {
		t.Run(name, func(t *testing.T) { w.wantDenied(c, "pin-not-met") })
	}
	for name, c := range map[string]call{
		"no JSON":     post(to, json, `{"channel":"C01234567"`),
		"two":         post(to, json, `{"channel":"C01234567"}{"channel":"C99999999"}`),
		"UTF-16":      post(to, "application/json; charset=utf-16", `{"channel":"C01234567"}`),
		"two types":   post(to, json, `{"channel":"C01234567"}`, "Content-Type", "text/plain"),
		"no boundary": post(to, "multipart/form-data", `x`),
		"no end":      post(to, "multipart/form-data; boundary=xx", "--xx\r\nContent-Disposition: form-data; name=channel\r\n\r\nC01234567"),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "two types" {
				c.header["Content-Type"] = []string{json, "text/plain"}
			}
			w.wantDenied(c, "body-unreadable")
		})
	}
}

// H2: a claim in a header that another name could stand for is seen as well.
func TestH2LookalikeHeader(t *testing.T) {
	w := newWorld(t, "{name: shopify, account: demo}")
	for _, name := range []string{"X_Shopify_Access_Token", "X-Shopify_Access-Token", "X_SHOPIFY-Access-token"} {
		c := get("https://demo.myshopify.com/admin/api/2026-01/shop.json")
		c.header[http.CanonicalHeaderKey(name)] = []string{"shpat_evil"}
		w.wantDenied(c, "foreign-credential")
	}
}

// K3: what the host echoes comes back without the secret, in whatever pieces.
func TestK3Echo(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: login, hosts: [shop.example]}")
	w.connect("github", "token", "token", githubToken)
	secret := []byte(githubToken)
	forms := []string{githubToken, url.QueryEscape(githubToken), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(append([]byte("a"), secret...)), fmt.Sprintf("%x", secret)}
	text := strings.Join(forms, " and ")
	auth := []string{"Authorization", "Bearer " + w.env("GITHUB_TOKEN")}
	clean := func(t *testing.T, s string) {
		t.Helper()
		for _, f := range forms {
			if strings.Contains(s, f[4:len(f)-4]) {
				t.Errorf("the agent got %q", s)
			}
		}
	}
	for name, serve := range map[string]http.HandlerFunc{
		"whole": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(len(text)))
			_, _ = io.WriteString(rw, text)
		},
		"echo": echo,
		"pieces": func(rw http.ResponseWriter, _ *http.Request) {
			for i := range text {
				_, _ = io.WriteString(rw, text[i:i+1])
				_ = http.NewResponseController(rw).Flush()
			}
		},
		"header and trailer": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Was", r.Header.Get("Authorization"))
			rw.Header().Set("Location", "https://other.example/?t="+githubToken)
			rw.Header().Set("Trailer", "X-After")
			_, _ = io.WriteString(rw, "text")
			rw.Header().Set("X-After", githubToken)
		},
		"error": func(rw http.ResponseWriter, r *http.Request) {
			http.Error(rw, "bad token: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		},
		"compressed all the same": func(rw http.ResponseWriter, r *http.Request) {
			if got := r.Header["Accept-Encoding"]; len(got) != 1 || got[0] != "identity" {
				t.Errorf("asked for %q", got)
			}
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(rw, squeeze(t, "gzip", text))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.mu.Lock()
			w.serve = serve
			w.mu.Unlock()
			r := w.do(get("https://api.github.com/user", append(auth, "Accept-Encoding", "br, gzip")...))
			if r.denied != nil || r.err != nil {
				t.Fatal(r.denied, r.err)
			}
			clean(t, fmt.Sprint(r.resp.Header, r.resp.Trailer, r.body))
			if name == "whole" && (len(r.body) != len(text) || r.resp.ContentLength != int64(len(text))) {
				t.Errorf("%d bytes came, %d were announced, %d were sent", len(r.body), r.resp.ContentLength, len(text))
			}
			if strings.HasPrefix(name, "compressed") && (r.resp.Header.Get("Content-Encoding") != "" || r.resp.ContentLength != -1 || len(r.body) != len(text)) {
				t.Errorf("%v %d %d", r.resp.Header, r.resp.ContentLength, len(r.body))
			}
			if name == "header and trailer" && r.resp.Trailer.Get("X-After") != strings.Repeat("X", len(githubToken)) {
				t.Errorf("trailer %v", r.resp.Trailer)
			}
			// A host of the connection may know the secret from the request before.
			if r := w.do(get("https://api.github.com/user")); r.denied == nil {
				clean(t, r.body)
			}
		})
	}
	for _, coding := range []string{"br", "zstd", "gzip, gzip"} {
		w.mu.Lock()
		w.serve = func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", coding)
			_, _ = io.WriteString(rw, "x")
		}
		w.mu.Unlock()
		if r := w.do(get("https://api.github.com/user", auth...)); r.code() != "answer-opaque" {
			t.Errorf("%s: %v", coding, r.denied)
		}
	}
	if !w.alerts.raised("credential-echoed github") {
		t.Error("nobody was told that the host sends the credential back")
	}
}

// signed is a request that an AWS SDK signed with the references.
func signed(t *testing.T, w *world, method, to, region, body string) call {
	t.Helper()
	q, err := http.NewRequest(method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	hash := fmt.Sprintf("%x", sum(body))
	q.Header.Set("X-Amz-Content-Sha256", hash)
	keys := aws.Credentials{AccessKeyID: w.env("AWS_ACCESS_KEY_ID"), SecretAccessKey: w.env("AWS_SECRET_ACCESS_KEY")}
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), keys, q, hash, "s3", region, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return call{method: method, url: to, header: q.Header, body: strings.NewReader(body)}
}

// K4: what was signed for another region, path, body, header or time is refused,
// and what was signed for this is signed again with the real key.
func TestK4SigV4(t *testing.T) {
	w := newWorld(t, "{name: s3, hosts: [s3.example.com], pin: {region: eu-central-1, bucket: files}}")
	w.connect("s3", "", "access_key_id", "AKIAREALREALREALREAL", "secret_access_key", "REALrealREALrealREALrealREALrealREALreal")
	const to = "https://s3.example.com/files/a%20b/c?x=1"
	arrived := w.arrived()
	if r := w.do(signed(t, w, "PUT", to, "eu-central-1", "hello")); r.denied != nil {
		t.Fatal(r.denied)
	}
	got, body := arrived()
	auth := got.Header.Get("Authorization")
	if !strings.Contains(auth, "Credential=AKIAREALREALREALREAL/") || body != "hello" || got.RequestURI != "/files/a%20b/c?x=1" {
		t.Fatalf("%s %q %q", got.RequestURI, body, auth)
	}
	// The host comes to the same signature.
	check, _ := http.NewRequest("PUT", to, strings.NewReader(body))
	at, err := time.Parse("20060102T150405Z", got.Header.Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	hash := got.Header.Get("X-Amz-Content-Sha256")
	check.Header.Set("X-Amz-Content-Sha256", hash)
	_ = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(),
		aws.Credentials{AccessKeyID: "AKIAREALREALREALREAL", SecretAccessKey: "REALrealREALrealREALrealREALrealREALreal"}, check, hash, "s3", "eu-central-1", at)
	if want := check.Header.Get("Authorization"); auth != want {
		t.Errorf("%s, want\n%s", auth, want)
	}

	for name, change := range map[string]func() call{
		"region": func() call { return signed(t, w, "PUT", to, "us-east-1", "hello") },
		"path": func() call {
			c := signed(t, w, "PUT", to, "eu-central-1", "hello")
			c.url = "https://s3.example.com/files/other?x=1"
			return c
		},
		"query":  func() call { c := signed(t, w, "PUT", to, "eu-central-1", "hello"); c.url += "&acl"; return c },
		"method": func() call { c := signed(t, w, "PUT", to, "eu-central-1", ""); c.method = "DELETE"; return c },
		"body": func() call {
			c := signed(t, w, "PUT", to, "eu-central-1", "hello")
			c.body = strings.NewReader("jello")
			return c
		},
		"header": func() call {
			c := signed(t, w, "PUT", to, "eu-central-1", "hello")
			c.header.Set("X-Amz-Acl", "public-read")
			return c
		},
		"signature": func() call {
			c := signed(t, w, "PUT", to, "eu-central-1", "hello")
			a := c.header.Get("Authorization")
			c.header.Set("Authorization", a[:len(a)-4]+"0000")
			return c
		},
		"key id alone": func() call {
			return get("https://s3.example.com/files/a", "Authorization", "AWS4-HMAC-SHA256 Credential="+w.env("AWS_ACCESS_KEY_ID")+time.Now().UTC().Format("/20060102")+"/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64), "X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
		},
	} {
		t.Run(name, func(t *testing.T) { w.wantDenied(change(), "signature-refused") })
	}
	old := signed(t, w, "PUT", to, "eu-central-1", "hello")
	w.now = func() time.Time { return time.Now().Add(time.Hour) }
	w.wantDenied(old, "signature-refused")
	w.now = time.Now
	w.wantDenied(get("https://other.example/?k="+w.env("AWS_SECRET_ACCESS_KEY")), "reference-misplaced")
	w.wantDenied(get("https://s3.example.com/files/a?k="+w.env("AWS_ACCESS_KEY_ID")), "reference-misplaced")
}

// K5: from when a connection is revoked, nothing more comes through.
func TestK5RevokedInTheMiddle(t *testing.T) {
	w := newWorld(t, "{name: github}", "{name: slack}")
	w.connect("github", "token", "token", githubToken)
	w.connect("slack", "token", "token", slackToken)
	w.mu.Lock()
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "first")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	}
	w.mu.Unlock()
	auth := []string{"Authorization", "Bearer " + w.env("GITHUB_TOKEN")}
	running := w.open(get("https://api.github.com/events", auth...))
	other := w.open(get("https://slack.com/api/rtm", "Authorization", "Bearer "+w.env("SLACK_BOT_TOKEN")))
	if running.denied != nil || other.denied != nil {
		t.Fatal(running.denied, other.denied)
	}
	defer running.lease.Done()
	defer other.lease.Done()
	b := make([]byte, 5)
	for _, r := range []result{running, other} {
		if _, err := io.ReadFull(r.resp.Body, b); err != nil || string(b) != "first" {
			t.Fatalf("%q %v", b, err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		n, err := running.resp.Body.Read(b)
		if n > 0 {
			err = nil
		}
		ended <- err
	}()
	if _, err := w.vault.Revoke(t.Context(), "github", "uid:1000"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after it was revoked: %v", err)
	}
	w.wantDenied(get("https://api.github.com/user", auth...), "not-connected")
	select {
	case <-other.resp.Request.Context().Done():
		t.Error("another connection was cut")
	default:
	}
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// K4: HMAC, in the same way.
func TestK4HMAC(t *testing.T) {
	w := newWorld(t, "{name: hmac, hosts: [api.example.com]}")
	w.connect("hmac", "", "key", "real-key-id", "secret", "the real signing secret")
	sign := func(secret, stamp, method, target, body string) string {
		m := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(m, "%s\n%s\n%s\n%s", stamp, method, target, body)
		return fmt.Sprintf("%x", m.Sum(nil))
	}
	now := func() string { return fmt.Sprint(time.Now().Unix()) }
	request := func(stamp, target, body, secret string) call {
		return with("POST", "https://api.example.com"+target, strings.NewReader(body), "X-Api-Key", w.env("HMAC_API_KEY"),
			"X-Timestamp", stamp, "X-Signature", sign(secret, stamp, "POST", "/v1/pay?a=b", "amount=1"))
	}
	secret := w.env("HMAC_SIGNING_SECRET")
	arrived := w.arrived()
	if r := w.do(request(now(), "/v1/pay?a=b", "amount=1", secret)); r.denied != nil {
		t.Fatal(r.denied)
	}
	r, body := arrived()
	if want := sign("the real signing secret", r.Header.Get("X-Timestamp"), "POST", "/v1/pay?a=b", body); body != "amount=1" || r.Header.Get("X-Signature") != want || r.Header.Get("X-Api-Key") != "real-key-id" {
		t.Errorf("%q %v, want %s", body, r.Header, want)
	}
	w.wantDenied(request(now(), "/v1/pay?a=c", "amount=1", secret), "signature-refused")
	w.wantDenied(request(now(), "/v1/pay?a=b", "amount=2", secret), "signature-refused")
	w.wantDenied(request("1700000000", "/v1/pay?a=b", "amount=1", secret), "signature-refused")
	w.wantDenied(request(now(), "/v1/pay?a=b", "amount=1", "somebody else's"), "signature-refused")
	w.wantDenied(get("https://api.example.com/", "X-Api-Key", "evil"), "foreign-credential")
}
