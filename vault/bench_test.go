package vault_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"ambit"
	"ambit/vault"
)

func twenty() (all []string) {
	all = []string{"{name: github}", "{name: stripe}", "{name: slack}", "{name: gitlab}", "{name: openai}", "{name: anthropic}", "{name: notion}", "{name: linear}", "{name: hubspot}"}
	for i := len(all); i < 20; i++ {
		all = append(all, fmt.Sprintf("{name: header, as: api%d, hosts: [api%d.example.com]}", i, i))
	}
	return all
}

// usual is what an HTTP library sends.
func usual(to string) call {
	return get(to, "Accept", "application/json", "Accept-Language", "en", "User-Agent", "python-requests/2.32.3",
		"Content-Type", "application/json", "X-Request-Id", "0190f3a2-7e5e-7b7a-9d2b-0f6f6a9d2b0f", "Cache-Control", "no-cache", "Accept-Encoding", "gzip, deflate")
}

func BenchmarkExamine(b *testing.B) {
	for name, c := range map[string]struct {
		connections []string
		url         string
		auth        bool
	}{
		"without connections":   {nil, "https://other.example/v1/things/1234?limit=10&after=abc", false},
		"20, another host":      {twenty(), "https://other.example/v1/things/1234?limit=10&after=abc", false},
		"20, a host, no header": {twenty(), "https://api.github.com/repos/acme/shop/issues?per_page=100", false},
		"20, bearer":            {twenty(), "https://api.github.com/repos/acme/shop/issues?per_page=100", true},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, c.connections...)
			q := usual(c.url)
			if c.auth {
				w.connect("github", "token", "token", githubToken)
				q.header.Set("Authorization", "Bearer "+w.env("GITHUB_TOKEN"))
			}
			r, _ := w.request(q)
			b.ReportAllocs()
			for b.Loop() {
				if _, verdict := w.vault.Examine(r); verdict != nil {
					b.Fatal(verdict)
				}
			}
		})
	}
}

// BenchmarkUseAndAnswer is what the vault adds to a request with a credential
// and an answer of 10 KiB.
func BenchmarkUseAndAnswer(b *testing.B) {
	w := newWorld(b, twenty()...)
	w.connect("github", "token", "token", githubToken)
	c := usual("https://api.github.com/repos/acme/shop/issues?per_page=100")
	c.header.Set("Authorization", "Bearer "+w.env("GITHUB_TOKEN"))
	answer := strings.Repeat(`{"id": 4711, "title": "a thing", "state": "open"},`+"\n", 10<<10/51)
	r, q := w.request(c)
	plan, verdict := w.vault.Examine(r)
	grant, err := w.gate.CheckWith(b.Context(), r, verdict)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(answer)))
	for b.Loop() {
		out := *q
		lease, err := w.vault.Use(b.Context(), grant, plan, &out, func() {})
		if err != nil {
			b.Fatal(err)
		}
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}, "Etag": {`W/"0190f3a27e5e7b7a"`}}, Body: io.NopCloser(strings.NewReader(answer)), ContentLength: int64(len(answer))}
		if err := lease.Answer(resp); err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(answer)) {
			b.Fatal(n, err)
		}
		lease.Done()
	}
}

// BenchmarkRequest is all that the vault does for a request with a short answer,
// in a vault of twenty connections: with a credential, and to another host.
func BenchmarkRequest(b *testing.B) {
	answer := []byte(`{"id": 4711, "title": "a thing", "state": "open", "url": "https://api.github.com/repos/acme/shop/issues/4711"}`)
	for name, to := range map[string]string{"with": "https://api.github.com/repos/acme/shop/issues/4711", "without": "https://other.example/repos/acme/shop/issues/4711"} {
		b.Run("account="+name, func(b *testing.B) {
			w := newWorld(b, twenty()...)
			w.connect("github", "token", "token", githubToken)
			c := usual(to)
			if name == "with" {
				c.header.Set("Authorization", "Bearer "+w.env("GITHUB_TOKEN"))
			}
			r, q := w.request(c)
			grant, err := w.gate.CheckWith(b.Context(), r, nil)
			if err != nil {
				b.Fatal(err)
			}
			fields := http.Header{"Content-Type": {"application/json"}, "Content-Length": {"112"}, "Date": {"Fri, 27 Nov 2026 03:27:30 GMT"}, "Etag": {`W/"0190f3a27e5e7b7a"`}}
			var resp http.Response
			body := bytes.NewReader(answer)
			buffer := make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				plan, verdict := w.vault.Examine(r)
				if verdict != nil {
					b.Fatal(verdict)
				}
				out := *q
				lease, err := w.vault.Use(b.Context(), grant, plan, &out, func() {})
				if err != nil {
					b.Fatal(err)
				}
				body.Reset(answer)
				resp = http.Response{StatusCode: 200, Header: fields, Body: struct {
					io.Reader
					io.Closer
				}{body, io.NopCloser(nil)}, ContentLength: int64(len(answer))}
				if err := lease.Answer(&resp); err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = resp.Body.Read(buffer)
				}
				lease.Done()
			}
		})
	}
}

// BenchmarkBody is a body of 1 MiB on its way to a host without a connection.
func BenchmarkBody(b *testing.B) {
	w := newWorld(b, twenty()...)
	body := strings.Repeat(`{"id": 4711, "title": "a thing", "state": "open"},`+"\n", 1<<20/51)
	for name, to := range map[string]string{"another host": "https://other.example/", "a connection's": "https://api.openai.com/v1/files"} {
		b.Run(name, func(b *testing.B) {
			r, q := w.request(post(to, "application/json", body))
			var plan *vault.Plan
			var verdict *ambit.Verdict
			if plan, verdict = w.vault.Examine(r); verdict != nil {
				b.Fatal(verdict)
			}
			grant, err := w.gate.CheckWith(b.Context(), r, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				out := *q
				out.Body = io.NopCloser(strings.NewReader(body))
				lease, err := w.vault.Use(b.Context(), grant, plan, &out, nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, out.Body); err != nil {
					b.Fatal(err)
				}
				lease.Done()
			}
		})
	}
}
