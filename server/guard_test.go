package server

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
)

func principalOf(uid int) ambit.Principal { return ambit.Principal("uid:" + strconv.Itoa(uid)) }

func problemFrom(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// over makes one request on a new connection to the socket, raw.
func (f *fixture) over(t *testing.T, method, path, body string) (*http.Response, api.Problem) {
	t.Helper()
	tr := &http.Transport{DialContext: f.dialer(), DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://ambit"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var p api.Problem
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 400 {
		if ct := res.Header.Get("Content-Type"); ct != api.ProblemType {
			t.Errorf("%s %s: Content-Type %q", method, path, ct)
		}
		if err := json.Unmarshal(b, &p); err != nil || p.Status != res.StatusCode || p.Title == "" || p.Detail == "" {
			t.Errorf("%s %s: not a whole problem: %s", method, path, b)
		}
	}
	return res, p
}

func TestProblems(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/", "", 404, "openapi.json"},
		{"GET", "/docs", "", 404, ""},
		{"GET", "/v1/agents/nobody", "", 404, "ambit agents"},
		{"GET", "/v1/agents/support/versions/9", "", 404, "no such version"},
		{"PUT", "/v1/agents", "", 405, "only GET, HEAD, POST"},
		{"POST", "/v1/agents", "", 400, ""},
		{"POST", "/v1/agents", "{", 400, ""},
		{"POST", "/v1/agents", `{"manifest":"x","unknown":1}`, 422, "unexpected property"},
		{"POST", "/v1/agents", `{"manifest":1}`, 422, "string"},
		{"POST", "/v1/agents", `{}`, 422, "manifest"},
		{"GET", "/v1/agents/Bad..Name", "", 422, "pattern"},
		{"GET", "/v1/agents/support/egress?nope=1", "", 422, "unknown"},
		{"GET", "/v1/agents/support/egress?limit=-1", "", 422, ""},
		{"GET", "/v1/alerts?min=loud", "", 422, "one of"},
		{"GET", "/v1/approvals?state=maybe", "", 422, "one of"},
		{"GET", "/v1/approvals?agent=nobody", "", 404, "ambit agents"},
		{"POST", "/v1/agents/support/tasks", `{"words":""}`, 422, "length"},
		{"POST", "/v1/agents/nobody/tasks", `{"words":"x"}`, 404, "ambit agents"},
		{"GET", "/v1/approvals/nobody-1", "", 404, "ambit agents"},
		{"GET", "/v1/approvals/support", "", 422, "pattern"},
		{"POST", "/v1/approvals/support-1/answer", `{"yes":true}`, 422, "digest"},
		{"POST", "/v1/approvals/support-1/answer", `{"yes":true,"digest":"ab"}`, 422, "pattern"},
		{"POST", "/v1/approvals/support-1/answer", `{"yes":true,"digest":"` + strings.Repeat("0", 64) + `","by":"uid:0"}`, 422, "unexpected property"},
		{"POST", "/v1/approvals/support-1/answer", `{"yes":true,"digest":"` + strings.Repeat("0", 64) + `","cover":"all"}`, 422, "one of"},
		{"GET", "/v1/agents/nobody/tools", "", 404, "ambit agents"},
		{"POST", "/v1/agents/support/tools/judge", `{"name":"crm.x","accept":true}`, 422, "hash"},
		{"POST", "/v1/agents/support/tools/judge", `{"name":"crm.x","hash":"` + strings.Repeat("0", 64) + `"}`, 422, "accept"},
		{"POST", "/v1/agents/support/tools/judge", `{"name":"crm.x","accept":true,"hash":"` + strings.Repeat("0", 64) + `","by":"uid:0"}`, 422, "unexpected property"},
		{"POST", "/v1/agents/support/exec", "", 426, "ambit exec"},
		{"POST", "/v1/agents/support/audit/verify", `{"heads":["!"]}`, 422, ""},
		{"POST", "/v1/agents/support/audit/verify", `{"heads":"` + strings.Repeat("x", headsBody) + `"}`, 413, ""},
	} {
		res, p := f.over(t, c.method, c.path, c.body)
		if text := p.Error(); res.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %.40s: %d %q, want %d %q", c.method, c.path, c.body, res.StatusCode, text, c.status, c.says)
		}
	}
}

func TestManifestProblemsHaveLines(t *testing.T) {
	f := serve(t, "")
	_, err := f.client.Deploy(t.Context(), api.Deploy{File: "a.yaml", Manifest: "ambit: v1\nname: support\negres: {}\n"})
	p := problemFrom(err)
	if p == nil || p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Line != 3 || p.Errors[0].Column != 1 || p.Errors[0].File != "a.yaml" || p.Errors[0].Hint == "" {
		t.Errorf("got %+v", p)
	}
	if agents, err := f.client.Agents(t.Context()); err != nil || len(agents) != 0 {
		t.Errorf("agents: %v, %v", agents, err)
	}
}

func TestPanicIsAProblem(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.exec = nil // called all the same
	if _, p := f.over(t, "GET", "/v1/agents/support", ""); p.Status != 0 {
		t.Fatal(p)
	}
	w := &recorder{header: http.Header{}}
	f.server.recoverer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(w, mustRequest(t))
	if w.status != 500 || !strings.Contains(w.body.String(), "please report") || strings.Contains(w.body.String(), "boom") {
		t.Errorf("got %d %s", w.status, w.body.String())
	}
}

type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func mustRequest(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ambit/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOpenAPI holds that the document is whole: every reference resolves, and
// every operation says how it fails.
func TestOpenAPI(t *testing.T) {
	f := serve(t, "")
	tr := &http.Transport{DialContext: f.dialer(), DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Get("http://ambit/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var doc map[string]any
	if err := json.NewDecoder(res.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if v, _ := doc["openapi"].(string); !strings.HasPrefix(v, "3.1") {
		t.Errorf("openapi: %v", doc["openapi"])
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok && resolve(doc, ref) == nil {
				t.Errorf("%s leads nowhere", ref)
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(doc)
	n := 0
	paths, _ := doc["paths"].(map[string]any)
	for path, item := range paths {
		operations, _ := item.(map[string]any)
		for method, op := range operations {
			n++
			o, _ := op.(map[string]any)
			if resolve(doc, "#/paths/"+strings.ReplaceAll(path, "/", "~1")+"/"+method+"/responses/default/content/application~1problem+json/schema/$ref") != "#/components/schemas/Problem" || o["operationId"] == nil || o["summary"] == nil {
				t.Errorf("%s %s is not described", method, path)
			}
		}
	}
	if n != 49 {
		t.Errorf("%d operations, want 49", n)
	}
	if resolve(doc, "#/components/schemas/Deploy/additionalProperties") != false {
		t.Error("the schema of a deploy is not strict")
	}
}

// resolve follows a JSON pointer (RFC 6901).
func resolve(doc any, ref string) any {
	at := doc
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		m, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = m[strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")]
	}
	return at
}

// TestC1Port is row C1 for the port: no token, another site's page, and a name
// that was made to lead here are refused.
func TestC1Port(t *testing.T) {
	f := serve(t, "127.0.0.1:0")
	b, err := os.ReadFile(TokenPath(f.home))
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(TokenPath(f.home)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", fi.Mode(), err)
	}
	token := "Bearer " + strings.TrimSpace(string(b))
	addr := f.listeners.port.Addr().String()
	for name, c := range map[string]struct {
		host, auth, origin, site string
		method                   string
		status                   int
	}{
		"right":                  {"127.0.0.1:1", token, "", "", "GET", 200},
		"localhost":              {"localhost:7400", token, "", "", "GET", 200},
		"IPv6":                   {"[::1]:7400", token, "", "", "GET", 200},
		"no token":               {"127.0.0.1", "", "", "", "GET", 401},
		"wrong token":            {"127.0.0.1", token + "0", "", "", "GET", 401},
		"not a bearer":           {"127.0.0.1", strings.TrimPrefix(token, "Bearer "), "", "", "GET", 401},
		"rebound name":           {"evil.example", token, "", "", "GET", 421},
		"rebound with our name":  {"127.0.0.1.evil.example", token, "", "", "GET", 421},
		"no host":                {"", token, "", "", "GET", 400},
		"another site":           {"127.0.0.1", token, "https://evil.example", "cross-site", "POST", 403},
		"another site reads":     {"127.0.0.1", token, "https://evil.example", "", "GET", 403},
		"another site, no token": {"127.0.0.1", "", "null", "cross-site", "POST", 403},
		"openapi needs it too":   {"127.0.0.1", "", "", "", "OPTIONS", 401},
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		req := c.method + " /v1/agents HTTP/1.1\r\nConnection: close\r\n"
		for k, v := range map[string]string{"Host": c.host, "Authorization": c.auth, "Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if v != "" {
				req += k + ": " + v + "\r\n"
			}
		}
		if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 "+strconv.Itoa(c.status)) {
			t.Errorf("%s: %.60q, want %d", name, answer, c.status)
		}
	}
}

// TestC1Socket is row C1 for the socket: its folder and itself are closed to
// others, and a caller without the right user id is refused.
func TestC1Socket(t *testing.T) {
	f := serve(t, "")
	for path, mode := range map[string]os.FileMode{SocketPath(f.home): 0o600, filepath.Dir(SocketPath(f.home)): 0o700} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
	}
	if res, _ := f.over(t, "GET", "/v1/version", ""); res.StatusCode != 200 {
		t.Errorf("the owner gets %d", res.StatusCode)
	}
	reached := false
	guard := guardSocket(f.server.logins, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	w := &recorder{header: http.Header{}}
	guard.ServeHTTP(w, mustRequest(t)) // on a connection that has no peer
	if w.status != http.StatusForbidden || reached {
		t.Errorf("without a peer: %d, reached %v", w.status, reached)
	}
}
