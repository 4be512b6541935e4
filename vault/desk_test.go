package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
)

// desk is where a person connects the accounts of one agent: a vault with its
// database and everything that it writes. When the test ends, none of that may
// have a value in it that was a secret.
type desk struct {
	t       testing.TB
	path    string
	db      *sqldb.DB
	v       *Vault
	keys    []byte // the first byte of each key, by version
	agent   ambit.AgentID
	log     *record
	alerts  *record
	lines   *record
	service *service
	bound   []*connector.Binding
	now     func() time.Time
	canary  []secretbytes.Bytes
	send    http.RoundTripper
}

// record is everything that was written somewhere.
type record struct {
	mu     sync.Mutex
	events []ambit.Event
	text   bytes.Buffer
	fails  error
}

func (r *record) Append(_ context.Context, e ambit.Event) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails != nil {
		return 0, r.fails
	}
	e.Seq = uint64(len(r.events))
	r.events = append(r.events, e)
	return e.Seq, json.NewEncoder(&r.text).Encode(e)
}

func (r *record) Record(e ambit.Event) { _, _ = r.Append(context.Background(), e) }

func (r *record) Raise(severity ambit.Severity, key, title string, event uint64) {
	_, _ = r.Append(context.Background(), ambit.Event{Severity: severity, Detail: key + ": " + title, Of: &event})
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// all are the events, in words.
func (r *record) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events {
		s := strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Kind, e.Connection, e.Detail))
		if e.URL != "" {
			s = strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", e.Kind, e.Connection, e.Method, e.URL, e.Detail))
		}
		if e.Of != nil && e.Kind != "" {
			s = "  " + s
		}
		all = append(all, s)
	}
	return all
}

func (r *record) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = err
}

// newDesk has the connections of a manifest: a connector's name, or a line.
func newDesk(t testing.TB, connections ...string) *desk {
	t.Helper()
	service := newService(t)
	return newDeskAt(t, service, service.transport(), connections...)
}

// newDeskAt is newDesk with a service of before, and another way to it.
func newDeskAt(t testing.TB, s *service, send http.RoundTripper, connections ...string) *desk {
	t.Helper()
	d := &desk{
		t: t, path: filepath.Join(t.TempDir(), "agent.db"), agent: "support", keys: []byte{1}, now: time.Now,
		log: &record{}, alerts: &record{}, lines: &record{}, service: s, send: send, bound: bindings(t, connections...),
	}
	d.open()
	t.Cleanup(func() {
		d.close()
		d.noCanary()
	})
	return d
}

func bindings(t testing.TB, connections ...string) []*connector.Binding {
	t.Helper()
	text := "ambit: v1\nname: support\nconnectors:\n"
	for _, c := range connections {
		if !strings.HasPrefix(c, "{") {
			c = "{name: " + c + "}"
		}
		text += "  - " + c + "\n"
	}
	m, err := manifest.Parse("m.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := connector.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	bound, err := catalog.Bind(m)
	if err != nil {
		t.Fatal(err)
	}
	return bound
}

func (d *desk) open() {
	d.t.Helper()
	if err := d.tryOpen(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) ring() []Key {
	var keys []Key
	for i, b := range d.keys {
		keys = append(keys, Key{i + 1, secretbytes.New(bytes.Repeat([]byte{b}, 32))})
	}
	return keys
}

func (d *desk) tryOpen() error {
	db, err := sqldb.Open(context.Background(), d.path)
	if err != nil {
		return err
	}
	d.db = db
	d.v, err = Open(context.Background(), Config{
		DB: db, Agent: d.agent, Keys: d.ring(), Ref: secretbytes.New(bytes.Repeat([]byte{9}, 32)), Log: d.log, Alerts: d.alerts,
		Transport: d.send, Now: func() time.Time { return d.now() }, Logger: slog.New(slog.NewTextHandler(d.lines, nil)),
	})
	if err == nil {
		err = d.v.Bind(d.bound)
	}
	return err
}

func (d *desk) close() {
	d.t.Helper()
	var err error
	if d.v != nil {
		err = d.v.Close()
		if n := d.v.Live(); n > 0 {
			d.t.Errorf("%d values were not wiped", n)
		}
	}
	if err := errors.Join(err, d.db.Close()); err != nil {
		d.t.Error(err)
	}
}

func (d *desk) reopen() {
	d.t.Helper()
	d.close()
	d.open()
}

// secret is a value that must not be seen anywhere.
func (d *desk) secret(s string) secretbytes.Bytes {
	d.canary = append(d.canary, secretbytes.New([]byte(s)))
	return secretbytes.New([]byte(s))
}

// noCanary looks for the secrets, in every encoding, in all that was written.
func (d *desk) noCanary() {
	d.t.Helper()
	s, err := scrub.New(append(d.canary, d.service.canaries()...))
	if err != nil {
		d.t.Fatal(err)
	}
	for where, text := range map[string][]byte{"log": d.log.text.Bytes(), "alerts": d.alerts.text.Bytes(), "logger": d.lines.text.Bytes()} {
		if before := bytes.Clone(text); s.Bytes(text) > 0 {
			d.t.Errorf("the %s has a secret:\n%s", where, before)
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if b, err := os.ReadFile(d.path + suffix); err == nil && s.Bytes(b) > 0 {
			d.t.Errorf("a secret is in the database file %s", suffix)
		}
	}
}

// silent fails the test if an error, or what else is printed, has a secret in it.
func (d *desk) silent(what any) {
	d.t.Helper()
	s, err := scrub.New(append(d.canary, d.service.canaries()...))
	if err != nil {
		d.t.Fatal(err)
	}
	b, _ := json.Marshal(what)
	if text := fmt.Sprintf("%v %+v %#v %s", what, what, what, b); s.Bytes([]byte(text)) > 0 {
		d.t.Errorf("has a secret: %s", text)
	}
}

// request has the fields "name", "value", ...
func (d *desk) request(name, way string, fields ...string) ConnectRequest {
	q := ConnectRequest{Name: name, Way: way, Fields: map[string]secretbytes.Bytes{}}
	for i := 0; i < len(fields); i += 2 {
		q.Fields[fields[i]] = d.secret(fields[i+1])
		if fields[i] == "client_id" || len(fields[i+1]) < scrub.MinLen {
			d.canary = d.canary[:len(d.canary)-1]
		}
	}
	return q
}

const person = ambit.Principal("uid:1000")

func (d *desk) connect(name, way string, fields ...string) Connection {
	d.t.Helper()
	c, err := d.v.Connect(d.t.Context(), d.request(name, way, fields...), person)
	if err != nil {
		d.t.Fatal(err)
	}
	d.silent(c)
	return c
}

// value is what is used for a request; "error: ..." if there is nothing to use.
func (d *desk) value(name, secret string) string {
	d.t.Helper()
	s, err := d.v.value(d.t.Context(), d.v.state.Load().named(name), secret)
	if err != nil {
		d.silent(err)
		return "error: " + err.Error()
	}
	defer s.Wipe()
	return string(s.Reveal())
}

func (d *desk) want(name, secret, value string) {
	d.t.Helper()
	if got := d.value(name, secret); got != value {
		d.t.Errorf("%s of %s is %q, want %q", secret, name, got, value)
	}
}

// status is how a connection fares.
func (d *desk) status(name string) Connection {
	d.t.Helper()
	for _, c := range d.v.Connections() {
		if c.Name == name {
			d.silent(c)
			return c
		}
	}
	d.t.Fatalf("no connection %s", name)
	return Connection{}
}

// sql changes the database behind the vault's back.
func (d *desk) sql(query string, args ...any) {
	d.t.Helper()
	err := d.db.Write(context.Background(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(context.Background(), query, args...)
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) blob(query string, args ...any) []byte {
	d.t.Helper()
	var b []byte
	if err := d.db.QueryRow(context.Background(), query, args, &b); err != nil {
		d.t.Fatal(err)
	}
	return b
}

// service stands for all hosts of the services. It answers what a test says it
// does, and nothing else is asked of it.
type service struct {
	*httptest.Server
	t      testing.TB
	mu     sync.Mutex
	routes map[string]func(w http.ResponseWriter, r *http.Request, body string)
	asked  []string
	issued []string // tokens
}

func newService(t testing.TB) *service {
	s := &service{t: t, routes: map[string]func(http.ResponseWriter, *http.Request, string){}}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

// transport reaches the service under every name.
func (s *service) transport() http.RoundTripper {
	known, ok := s.Client().Transport.(*http.Transport)
	if !ok {
		s.t.Fatal("the client of a test server has another transport")
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: known.TLSClientConfig.RootCAs, ServerName: "example.com"},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
		},
	}
	s.t.Cleanup(t.CloseIdleConnections)
	return t
}

func (s *service) on(route string, answer func(w http.ResponseWriter, r *http.Request, body string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[route] = answer
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	route := r.Method + " " + r.Host + r.URL.EscapedPath()
	s.mu.Lock()
	s.asked = append(s.asked, route)
	answer := s.routes[route]
	s.mu.Unlock()
	if err != nil || answer == nil || r.Header.Get("Cookie") != "" || r.URL.RawQuery != "" {
		s.t.Errorf("the service was asked what it does not know: %s?%s %v", route, r.URL.RawQuery, err)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	answer(w, r, string(body))
}

func (s *service) times(route string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.asked {
		if a == route {
			n++
		}
	}
	return n
}

func (s *service) canaries() []secretbytes.Bytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []secretbytes.Bytes
	for _, v := range s.issued {
		all = append(all, secretbytes.New([]byte(v)))
	}
	return all
}

// issue is a new token.
func (s *service) issue(format string, args ...any) string {
	token := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued = append(s.issued, token)
	return token
}

func say(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// recorder is an answer that is made without a network.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// response is what was recorded.
func (r *recorder) response(q *http.Request) *http.Response {
	return &http.Response{StatusCode: r.status, Header: r.header, Body: io.NopCloser(&r.body), Request: q}
}
