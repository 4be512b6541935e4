package vault_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/connector"
	"ambit/gate"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
	"ambit/policy"
	"ambit/vault"
)

// world is a vault with the agent's gate, its log, and a host for all names.
type world struct {
	t        testing.TB
	vault    *vault.Vault
	db       *sqldb.DB
	keys     []byte // the first byte of each key of the vault, by version
	gate     *gate.Gate
	log      *audit.Log
	alerts   *alerts
	bindings []*connector.Binding
	host     *httptest.Server
	send     *http.Transport
	ask      http.RoundTripper // what the vault asks services through
	now      func() time.Time

	mu     sync.Mutex
	serve  http.HandlerFunc
	seen   int // requests that reached the host whole
	broken int // that reached it and broke off
}

type alerts struct {
	mu   sync.Mutex
	keys []string
}

func (a *alerts) Raise(_ ambit.Severity, key, _ string, _ uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = append(a.keys, key)
}

func (a *alerts) raised(prefix string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keys {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

func key(b byte) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{b}, 32)) }

// newWorld has the connections of a manifest, one a line, and other.example,
// which no connection is for.
func newWorld(t testing.TB, connections ...string) *world {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newWorldAt(t, l, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, connections...)
}

// newWorldAt is newWorld with a network of the caller's.
func newWorldAt(t testing.TB, l net.Listener, dial func(context.Context) (net.Conn, error), connections ...string) *world {
	t.Helper()
	w := &world{t: t, alerts: &alerts{}, now: time.Now}
	w.bind(connections)
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	w.log, err = audit.Open(t.Context(), audit.Config{DB: db, Agent: "support", Keys: audit.Keys{Body: key(1), Sign: key(2)}, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	w.host = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(w.upstream)}}
	w.host.Start()
	w.send = &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	w.ask = plain{w.send}
	w.db, w.keys = db, []byte{3}
	w.openVault()
	rules := []policy.Rule{{Host: "other.example", WebSocket: true}}
	for _, b := range w.bindings {
		rules = append(rules, b.Rules...)
	}
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	w.gate = gate.New(gate.Config{Agent: "support", Policy: set, Log: w.log, Alerts: w.alerts})
	t.Cleanup(func() {
		w.send.CloseIdleConnections()
		w.host.Close()
		if err := errors.Join(w.vault.Close(), w.log.Close(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
		if n := w.vault.Live(); n > 0 {
			t.Errorf("%d values were not wiped", n)
		}
	})
	return w
}

// plain sends without TLS what is for https: the hosts of a world have none.
type plain struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return p.RoundTripper.RoundTrip(r)
}

func (w *world) openVault() {
	w.t.Helper()
	var err error
	w.vault, err = vault.Open(w.t.Context(), vault.Config{
		DB: w.db, Agent: "support", Keys: w.ring(), Ref: key(4), Log: w.log, Alerts: w.alerts,
		Transport: w.ask, Now: func() time.Time { return w.now() },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.vault.Bind(w.bindings); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ring() []vault.Key {
	var keys []vault.Key
	for i, b := range w.keys {
		keys = append(keys, vault.Key{Version: i + 1, Bytes: key(b)})
	}
	return keys
}

// reopen is a restart of the worker.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.vault.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.openVault()
}

func (w *world) bind(connections []string) {
	w.t.Helper()
	text := "ambit: v1\nname: support\nconnectors:\n"
	if len(connections) == 0 {
		return
	}
	for _, c := range connections {
		text += "  - " + c + "\n"
	}
	m, err := manifest.Parse("m.yaml", []byte(text))
	if err != nil {
		w.t.Fatal(err)
	}
	catalog, err := connector.Builtin()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.bindings, err = catalog.Bind(m); err != nil {
		w.t.Fatal(err)
	}
}

// connect connects an account with "field", "value", ...
func (w *world) connect(name, way string, fields ...string) {
	w.t.Helper()
	given := map[string]secretbytes.Bytes{}
	for i := 0; i < len(fields); i += 2 {
		given[fields[i]] = secretbytes.New([]byte(fields[i+1]))
	}
	if _, err := w.vault.Connect(w.t.Context(), vault.ConnectRequest{Name: name, Way: way, Fields: given}, "uid:1000"); err != nil {
		w.t.Fatal(err)
	}
}

// env is a variable of the agent's computer.
func (w *world) env(name string) string {
	w.t.Helper()
	v := w.vault.Placement().Env[name]
	if v == "" {
		w.t.Fatalf("there is no variable %s: %v", name, w.vault.Placement().Env)
	}
	return v
}

// upstream is what stands for every host.
func (w *world) upstream(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.mu.Lock()
	if err != nil {
		w.broken++
		w.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	w.seen++
	serve := w.serve
	w.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	if serve != nil {
		serve(rw, r)
	}
}

func (w *world) reached() (whole, broken int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen, w.broken
}

// call is a request of the agent, as the door has it.
type call struct {
	method, url string // https://host/path?query
	header      http.Header
	body        io.Reader
	length      int64 // of body; 0 is unknown, unless body says so itself
	socket      bool
}

// result is what the agent gets.
type result struct {
	denied *ambit.DenyError // by whichever side
	resp   *http.Response
	lease  *vault.Lease
	body   string
	err    error // of reading the body
}

func (r result) code() string {
	if r.denied == nil {
		return ""
	}
	return r.denied.Verdict.Reason.Code
}

func get(url string, header ...string) call { return with("GET", url, nil, header...) }

func post(url, media, body string, header ...string) call {
	c := with("POST", url, strings.NewReader(body), header...)
	if media != "" {
		c.header.Set("Content-Type", media)
	}
	return c
}

func with(method, url string, body io.Reader, header ...string) call {
	c := call{method: method, url: url, header: http.Header{}, body: body}
	for i := 0; i < len(header); i += 2 {
		c.header.Add(header[i], header[i+1])
	}
	return c
}

// open sends a call the way a door does, up to the answer's head.
func (w *world) open(c call) (r result) {
	w.t.Helper()
	request, q := w.request(c)
	plan, verdict := w.vault.Examine(request)
	grant, err := w.gate.CheckWith(w.t.Context(), request, verdict)
	if err == nil {
		err = grant.Use()
	}
	if errors.As(err, &r.denied) {
		return r
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer grant.Finish(ambit.Outcome{})
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	r.lease, err = w.vault.Use(ctx, grant, plan, q, cancel)
	if errors.As(err, &r.denied) {
		return r
	}
	if err != nil {
		w.t.Fatalf("not a *ambit.DenyError: %v", err)
	}
	r.resp, err = w.send.RoundTrip(q.WithContext(ctx))
	if err != nil {
		r.denied = r.lease.Refusal(err)
		if r.denied == nil {
			w.t.Fatal(err)
		}
		r.lease.Done()
		return r
	}
	if err = r.lease.Answer(r.resp); errors.As(err, &r.denied) {
		r.resp.Body.Close()
		r.lease.Done()
		return r
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// do sends a call and reads the answer.
func (w *world) do(c call) result {
	w.t.Helper()
	r := w.open(c)
	if r.denied != nil {
		return r
	}
	var b []byte
	b, r.err = io.ReadAll(r.resp.Body)
	r.body = string(b)
	r.resp.Body.Close()
	r.lease.Done()
	return r
}

func (w *world) request(c call) (*ambit.Request, *http.Request) {
	w.t.Helper()
	u, err := url.Parse(c.url)
	if err != nil {
		w.t.Fatal(err)
	}
	port := 443
	if u.Port() != "" {
		port, _ = strconv.Atoi(u.Port())
	}
	header := maps.Clone(c.header)
	r := &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: c.method, Host: u.Hostname(), Port: uint16(port), Path: u.EscapedPath(), RawQuery: u.RawQuery, Header: header}
	if c.socket {
		r.Action = ambit.ActionWebSocket
	}
	q := &http.Request{
		Method: c.method, URL: &url.URL{Scheme: "http", Host: net.JoinHostPort(u.Hostname(), strconv.Itoa(port)), Opaque: u.EscapedPath(), RawQuery: u.RawQuery},
		Host: u.Hostname(), Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if c.body != nil {
		q.Body, q.ContentLength = io.NopCloser(c.body), -1
		if s, ok := c.body.(interface{ Len() int }); ok && c.length == 0 {
			q.ContentLength = int64(s.Len())
		}
	}
	return r, q
}

// wantDenied fails the test unless the call was refused with the code and
// nothing whole left.
func (w *world) wantDenied(c call, code string) result {
	w.t.Helper()
	before, _ := w.reached()
	r := w.do(c)
	if r.code() != code {
		w.t.Errorf("%s %s: %q, want %q: %v", c.method, c.url, r.code(), code, r.denied)
	}
	if after, _ := w.reached(); after != before {
		w.t.Errorf("%s %s: was refused, and left", c.method, c.url)
	}
	if r.denied != nil && (r.denied.Verdict.Reason.Text == "" || r.denied.Verdict.Reason.Remedy == "") {
		w.t.Errorf("%s %s: the refusal is not readable: %+v", c.method, c.url, r.denied.Verdict)
	}
	return r
}
