package egress_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ambit"
	"ambit/egress"
	"ambit/gate"
	"ambit/policy"
)

// record is a log in memory, as strict as the real one: positions without
// gaps, order kept, an outcome only for what was allowed and only once.
type record struct {
	t      testing.TB
	fail   atomic.Bool
	mu     sync.Mutex
	events []ambit.Event
	ended  map[uint64]bool
	change chan struct{} // closed and replaced with each event
}

func newRecord(t testing.TB) *record {
	return &record{t: t, ended: make(map[uint64]bool), change: make(chan struct{})}
}

func (r *record) Append(ctx context.Context, e ambit.Event) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if r.fail.Load() {
		return 0, errors.New("no space left on device")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.add(e), nil
}

func (r *record) Record(e ambit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case strings.HasPrefix(string(e.Kind), "vault."):
		r.add(e)
		return
	case e.Kind != ambit.KindEgressOutcome || e.Of == nil || *e.Of >= uint64(len(r.events)):
		r.t.Errorf("an outcome of nothing: %+v", e)
	case r.events[*e.Of].Decision != ambit.Allow:
		r.t.Errorf("an outcome of what was denied: %+v", e)
	case r.ended[*e.Of]:
		r.t.Errorf("a second outcome: %+v", e)
	default:
		r.ended[*e.Of] = true
	}
	r.add(e)
}

func (r *record) add(e ambit.Event) uint64 {
	e.Seq, e.Time = uint64(len(r.events)), time.Now().UTC()
	r.events = append(r.events, e)
	close(r.change)
	r.change = make(chan struct{})
	return e.Seq
}

// await returns the first event that fits, and fails the test if none comes.
func (r *record) await(fits func(ambit.Event) bool) ambit.Event {
	r.t.Helper()
	late := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		change := r.change
		for _, e := range r.events {
			if fits(e) {
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-change:
		case <-late:
			r.t.Fatalf("no such event was logged; there are:\n%s", r)
		}
	}
}

func (r *record) denied(code string) ambit.Event {
	r.t.Helper()
	return r.await(func(e ambit.Event) bool {
		return e.Kind == ambit.KindEgressRequest && e.Decision == ambit.Deny && e.Reason != nil && e.Reason.Code == code
	})
}

func (r *record) outcome() ambit.Event {
	r.t.Helper()
	return r.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressOutcome })
}

func (r *record) allowed() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == ambit.KindEgressRequest && e.Decision == ambit.Allow {
			n++
		}
	}
	return n
}

func (r *record) String() string {
	var b strings.Builder
	for _, e := range r.events {
		fmt.Fprintf(&b, "%d %s %s %s %s %s", e.Seq, e.Kind, e.Decision, e.Method, e.URL, e.Detail)
		if e.Reason != nil {
			fmt.Fprintf(&b, " %s: %s", e.Reason.Code, e.Reason.Text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// unfinished are the allowed requests without an outcome.
func (r *record) unfinished() (left []ambit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == ambit.KindEgressRequest && e.Decision == ambit.Allow && !r.ended[e.Seq] {
			left = append(left, e)
		}
	}
	return left
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

// door is a proxy with all that stands around it.
type door struct {
	t      testing.TB
	proxy  *egress.Proxy
	gate   *gate.Gate
	log    *record
	alerts *alerts
	roots  *x509.CertPool // trusts the agent's authority
	socket net.Listener
	set    atomic.Pointer[policy.Set]
	intent string

	ownGate *gate.Gate // of errands
	own     atomic.Pointer[policy.Set]
}

func newDoor(t testing.TB, c egress.Config, rules ...policy.Rule) *door {
	t.Helper()
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	d := &door{t: t, log: newRecord(t), alerts: &alerts{}, roots: x509.NewCertPool()}
	d.gate = gate.New(gate.Config{Agent: "tester", Policy: set, Log: d.log, Alerts: d.alerts})
	d.set.Store(set)
	ca, err := egress.NewCA("tester")
	if err != nil {
		t.Fatal(err)
	}
	d.roots.AppendCertsFromPEM(ca.CertificatePEM())
	c.Gate, c.CA = d.gate, ca
	if c.Endpoints == nil {
		c.Endpoints = func() egress.Endpoints { return d.set.Load() }
	}
	if c.Roots == nil {
		c.Roots = x509.NewCertPool()
	}
	d.ownGate = gate.New(gate.Config{Agent: "tester", Log: d.log, Alerts: d.alerts})
	c.Errands = egress.Judge{Gate: d.ownGate, Endpoints: func() egress.Endpoints { return d.own.Load() }}
	if d.proxy, err = egress.New(c); err != nil {
		t.Fatal(err)
	}
	if d.socket, err = net.Listen("unix", filepath.Join(t.TempDir(), "door")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.socket.Close()
		d.proxy.Close()
		if left := d.log.unfinished(); len(left) > 0 {
			t.Errorf("allowed without an outcome: %+v", left)
		}
	})
	return d
}

// use puts another policy in force.
func (d *door) use(rules ...policy.Rule) {
	d.t.Helper()
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		d.t.Fatal(err)
	}
	d.set.Store(set)
	d.gate.SetPolicy(set)
}

// allowErrands says what Ambit itself may ask.
func (d *door) allowErrands(rules ...policy.Rule) {
	d.t.Helper()
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		d.t.Fatal(err)
	}
	d.own.Store(set)
	d.ownGate.SetPolicy(set)
	d.proxy.Refresh()
}

// pair is the two ends of a Unix socket, as between the computer and the gate.
func (d *door) pair() (agent, gate net.Conn) {
	accepted := make(chan net.Conn, 1)
	d.t.Helper()
	pairing.Lock()
	defer pairing.Unlock()
	go func() {
		c, err := d.socket.Accept()
		if err != nil {
			c = nil
		}
		accepted <- c
	}()
	agent, err := net.Dial("unix", d.socket.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	if gate = <-accepted; gate == nil {
		d.t.Fatal("the socket was closed")
	}
	return agent, gate
}

var pairing sync.Mutex // one dial and its accept at a time

// dial is a program's connection to what it believes is host:port.
func (d *door) dial(host string, port int) net.Conn {
	agent, gate := d.pair()
	go d.proxy.ServeTCP(context.Background(), gate, host, uint16(port), d.intent)
	return agent
}

func (d *door) dialProxy() net.Conn {
	agent, gate := d.pair()
	go d.proxy.ServeProxy(context.Background(), gate)
	return agent
}

func (d *door) dialAddr(_ context.Context, _, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	return d.dial(host, n), nil
}

// tls is a program's TLS connection, with an SNI of its own choice.
func (d *door) tls(host string, port int, sni string, alpn ...string) (*tls.Conn, error) {
	c := tls.Client(d.dial(host, port), &tls.Config{ServerName: sni, RootCAs: d.roots, NextProtos: alpn})
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, c.Handshake()
}

// client is an ordinary HTTP client inside the computer.
func (d *door) client(h2 bool) *http.Client {
	t := &http.Transport{DialContext: d.dialAddr, TLSClientConfig: &tls.Config{RootCAs: d.roots}, ForceAttemptHTTP2: h2, DisableCompression: true}
	d.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// shop is an upstream with TLS on loopback that is called shop.example.
type shop struct {
	*httptest.Server
	port  int
	roots *x509.CertPool
}

func newShop(t testing.TB, h http.HandlerFunc) *shop {
	t.Helper()
	return newShopWith(t, h, func(*httptest.Server) {})
}

// newShopWith has the server changed before it starts.
func newShopWith(t testing.TB, h http.HandlerFunc, change func(*httptest.Server)) *shop {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail on purpose
	ca, err := egress.NewCA("upstreams")
	if err != nil {
		t.Fatal(err)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{egress.SignFor(t, ca, "shop.example")}}
	change(s)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertificatePEM())
	return &shop{Server: s, port: portOf(s.Listener), roots: roots}
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// rule allows everything of the shop.
func (s *shop) rule() policy.Rule {
	return policy.Rule{Host: "shop.example", Ports: []uint16{uint16(s.port)}, Private: true, Resolve: loopback, Roots: s.roots}
}

func (s *shop) url(path string) string { return fmt.Sprintf("https://shop.example:%d%s", s.port, path) }

func (s *shop) host() string { return fmt.Sprintf("shop.example:%d", s.port) }

// plainShop is an upstream without TLS.
func plainShop(t testing.TB, h http.HandlerFunc) (*httptest.Server, policy.Rule) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, policy.Rule{Host: "plain.example", Ports: []uint16{uint16(portOf(s.Listener))}, TLS: policy.None, Private: true, Resolve: loopback}
}

// raw sends bytes on c and returns all that comes back until it ends.
func raw(t testing.TB, c net.Conn, request string) string {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		t.Fatal(err)
	}
	return string(b)
}

// problem is the body of a refusal.
type problem struct {
	Type, Title, Detail, Rule, Remedy string
	Status                            int
	Event                             *uint64
}

func readProblem(t testing.TB, resp *http.Response) problem {
	t.Helper()
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("status %d, content type %q, not a problem: %s", resp.StatusCode, ct, b)
	}
	var p problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != resp.StatusCode {
		t.Errorf("status %d in a problem with %d", p.Status, resp.StatusCode)
	}
	return p
}

// parse reads one response out of what raw returned.
func parse(t testing.TB, s string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(s)), nil)
	if err != nil {
		t.Fatalf("%v in %q", err, s)
	}
	return resp
}

// ask sends one request and returns its answer with the whole body.
func ask(t testing.TB, c net.Conn, request string) *http.Response {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%v for %q", err, request)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp
}

// wantProblem checks a refusal in an answer, in the log and as an alert.
func (d *door) wantProblem(resp *http.Response, status int, code string) problem {
	d.t.Helper()
	p := readProblem(d.t, resp)
	if resp.StatusCode != status || p.Type != "urn:ambit:problem:"+code || resp.Header.Get("Ambit-Decision") != "deny" {
		d.t.Errorf("got %d %+v, want %d %s", resp.StatusCode, p, status, code)
	}
	d.log.denied(code)
	if p.Event == nil {
		d.t.Errorf("the problem does not name its event: %+v", p)
	}
	if !d.alerts.raised(code) {
		d.t.Errorf("%s raised no alert", code)
	}
	return p
}
