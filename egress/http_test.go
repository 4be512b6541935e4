package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"ambit"
	"ambit/egress"
	"ambit/policy"
)

// H1: what two readers could read in two ways is answered with 400, and the
// connection is over. Nothing reaches the upstream.
func TestH1(t *testing.T) {
	s := newShop(t, func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			t.Errorf("%s with %q reached the upstream whole", r.URL, b)
		}
	})
	d := newDoor(t, egress.Config{}, s.rule())
	host := "Host: " + s.host() + "\r\n"
	for name, request := range map[string]string{
		"CL and TE":          "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two CL":             "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
		"chunkedx":           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
		"bare LF":            "GET / HTTP/1.1\n" + host + "\r\n",
		"obs-fold":           "GET / HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n",
		"space before colon": "GET / HTTP/1.1\r\n" + host + "X : a\r\n\r\n",
		"two hosts":          "GET / HTTP/1.1\r\n" + host + host + "\r\n",
		"pipelined":          "GET / HTTP/1.1\r\n" + host + "\r\nGET /admin HTTP/1.1\r\n" + host + "\r\n",
		"surplus":            "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\n\r\nabc",
		"surplus of chunks":  "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /",
		"bad chunk":          "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
	} {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		all := raw(t, c, request) // returns only when the connection is closed
		resp := parse(t, all)
		if resp.StatusCode != 400 || !resp.Close || strings.Count(all, "HTTP/1.1 ") != 1 {
			t.Errorf("%s: %s", name, all)
		}
		d.wantProblem(resp, 400, "bad-request")
	}
}

// H2: forged headers are stripped before judging and before leaving, or refused.
func TestH2(t *testing.T) {
	seen := make(chan http.Header, 1)
	s := newShop(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	r := s.rule()
	r.Headers = map[string][]string{"X-Api-Version": {"1"}}
	d := newDoor(t, egress.Config{}, r)
	forged := []string{
		"Proxy-Authorization: Basic eDp5", "Proxy-Connection: keep-alive", "Forwarded: for=10.0.0.1", "Via: 1.1 gate", "X-Forwarded-For: 10.0.0.1",
		"X-Forwarded-Host: evil", "X-Real-IP: 10.0.0.1", "X_Forwarded_For: 10.0.0.1", "Keep-Alive: 5", "TE: gzip", "Trailer: X", "X-Secret: named",
	}
	ask := func(fields ...string) *http.Response {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, raw(t, c, "GET / HTTP/1.1\r\nHost: "+s.host()+"\r\n"+strings.Join(fields, "\r\n")+"\r\nConnection: close, X-Secret\r\n\r\n"))
	}
	if resp := ask(append(forged, "X-Api-Version: 1", "X-Kept: yes")...); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	h := <-seen
	for _, f := range forged {
		name, _, _ := strings.Cut(f, ":")
		if h.Get(name) != "" {
			t.Errorf("%s left", f)
		}
	}
	if h.Get("X-Kept") != "yes" || h.Get("User-Agent") != "" || h.Get("Connection") == "close" {
		t.Errorf("upstream got %v", h)
	}
	// A condition of the rule is not met by a field that will not leave.
	resp := ask("X-Api-Version: 1", "Connection: X-Api-Version")
	d.wantProblem(resp, 403, "header-not-allowed")
	for _, f := range []string{"Ambit-Decision: allow", "ambit-event: 1", "Ambit_Intent: x", "Ambit-Intent: a\r\nAmbit-Intent: b"} {
		d.wantProblem(ask(f, "X-Api-Version: 1"), 400, "forged-header")
	}
	// HTTP/2 is the same door.
	q, _ := http.NewRequest("GET", s.url("/"), nil)
	q.Header = http.Header{"Ambit-Audit": {"off"}}
	resp, err := d.client(true).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	d.wantProblem(resp, 400, "forged-header")
}

// H2, the other direction: an upstream cannot speak in the gate's name.
func TestH2Response(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Ambit-Decision", "deny")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Kept", "yes")
	})
	d := newDoor(t, egress.Config{}, s.rule())
	for _, h2 := range []bool{false, true} {
		resp, err := d.client(h2).Get(s.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if h := resp.Header; h.Get("Ambit-Decision")+h.Get("Alt-Svc")+h.Get("Proxy-Authenticate") != "" || h.Get("X-Kept") != "yes" {
			t.Errorf("h2 %v: %v", h2, h)
		}
	}
}

// H4: slow and endless heads, idle connections, connections without number.
func TestH4Heads(t *testing.T) {
	s, rule := plainShop(t, hello)
	port := portOf(s.Listener)
	d := newDoor(t, egress.Config{Limits: egress.Limits{HeadTime: 50 * time.Millisecond, IdleTime: 50 * time.Millisecond, Conns: 3}}, rule)
	host := fmt.Sprintf("Host: plain.example:%d\r\n", port)
	if resp := parse(t, raw(t, d.dial("plain.example", port), "GET / HTTP/1.1\r\n"+host+"X-Slow: ")); resp.StatusCode != 408 {
		t.Errorf("slow head: %d", resp.StatusCode)
	}
	if resp := parse(t, raw(t, d.dial("plain.example", port), "GET / HTTP/1.1\r\n"+host+"X: "+strings.Repeat("a", 64<<10)+"\r\n\r\n")); resp.StatusCode != 431 {
		t.Errorf("endless head: %d", resp.StatusCode)
	}
	for _, start := range []string{"", "\x16\x03\x01\x02\x00\x01", "PRI * HT"} { // silence, half a hello, half a preface
		raw(t, d.dial("plain.example", port), start) // returns because the gate ends it
	}
	all := raw(t, d.dial("plain.example", port), "GET / HTTP/1.1\r\n"+host+"\r\n") // kept alive, then idle: closed
	if parse(t, all).StatusCode != 200 {
		t.Errorf("%s", all)
	}
}

func TestH4Conns(t *testing.T) {
	s, rule := plainShop(t, hello)
	d := newDoor(t, egress.Config{Limits: egress.Limits{Conns: 3}}, rule)
	for range 3 {
		c := d.dial("plain.example", portOf(s.Listener))
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: plain.example:%d\r\n\r\n", portOf(s.Listener))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := io.ReadAll(d.dial("plain.example", portOf(s.Listener))); len(b) > 0 || err != nil {
		t.Errorf("the fourth: %q, %v", b, err)
	}
}

// H4: requests in flight are bounded over all connections, streams per
// connection, and a flood of resets ends the connection.
func TestH4Streams(t *testing.T) {
	release := make(chan struct{})
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	d := newDoor(t, egress.Config{Limits: egress.Limits{Requests: 2, Streams: 10}}, s.rule())
	defer close(release)
	c, err := d.tls("shop.example", s.port, "shop.example", "h2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := newFrames(t, c)
	get := func(id uint32) {
		h.get(id, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", s.host())
	}
	for id := uint32(1); id <= 5; id += 2 {
		get(id)
	}
	for {
		f, err := h.f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*http2.SettingsFrame); ok && !f.IsAck() {
			if n, _ := f.Value(http2.SettingMaxConcurrentStreams); n != 10 {
				t.Errorf("%d streams offered", n)
			}
		}
		if f, ok := f.(*http2.MetaHeadersFrame); ok {
			if f.PseudoValue("status") != "503" {
				t.Errorf("status %s", f.PseudoValue("status"))
			}
			break
		}
	}
	d.log.denied("too-busy")
	// Rapid reset (CVE-2023-44487).
	go func() {
		for id := uint32(7); id < 100_000; id += 2 {
			h.buf.Reset()
			get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", s.host()}
			for i := 0; i < len(get); i += 2 {
				_ = h.enc.WriteField(field(get[i], get[i+1]))
			}
			if h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(h.buf.String()), EndStream: true, EndHeaders: true}) != nil ||
				h.f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}()
	for {
		f, err := h.f.ReadFrame()
		if err != nil {
			break // cut without a word is as good
		}
		if f, ok := f.(*http2.GoAwayFrame); ok {
			if f.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("GOAWAY %v", f.ErrCode)
			}
			break
		}
	}
}

// H4: an agent that does not read its answer holds one connection for a
// bounded time; a host that falls silent does too.
func TestH4Blocked(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "ab")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		b := make([]byte, 1<<20)
		for {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	})
	d := newDoor(t, egress.Config{Limits: egress.Limits{StreamTime: 200 * time.Millisecond}}, s.rule())
	c, err := d.tls("shop.example", s.port, "shop.example")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /endless HTTP/1.1\r\nHost: %s\r\n\r\n", s.host())
	if o := d.log.outcome(); o.Detail == "" || o.BytesIn == 0 { // it ended although nobody read
		t.Errorf("%+v", o)
	}
	resp, err := d.client(true).Get(s.url("/endless"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressOutcome && e.Seq > 2 && e.Detail != "" })
	for _, h2 := range []bool{false, true} {
		resp, err := d.client(h2).Get(s.url("/silent"))
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q looks whole", b)
		}
		resp.Body.Close()
	}
}

// newHealth is a gRPC upstream.
func newHealth(t *testing.T, opts ...grpc.ServerOption) (*health.Server, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := health.NewServer()
	h.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	g := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(g, h)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	return h, portOf(l)
}

func ptr[T any](v T) *T { return &v }

func field(name, value string) hpack.HeaderField { return hpack.HeaderField{Name: name, Value: value} }

func rootsOf(ca *egress.CA) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertificatePEM())
	return pool
}

func TestGRPC(t *testing.T) {
	ca, err := egress.NewCA("upstreams")
	if err != nil {
		t.Fatal(err)
	}
	roots := rootsOf(ca)
	overTLS, port := newHealth(t, grpc.Creds(credentials.NewServerTLSFromCert(ptr(egress.SignFor(t, ca, "grpc.example")))))
	inClear, plain := newHealth(t)
	d := newDoor(t, egress.Config{},
		policy.Rule{Host: "grpc.example", Ports: []uint16{uint16(port)}, Private: true, Resolve: loopback, Roots: roots, Paths: []string{"/grpc.health.v1.Health/**"}},
		policy.Rule{Host: "grpc.example", Ports: []uint16{uint16(plain)}, Private: true, Resolve: loopback, TLS: policy.None, Paths: []string{"/grpc.health.v1.Health/**"}})
	for _, c := range []struct {
		h    *health.Server
		port int
		cred credentials.TransportCredentials
	}{
		{overTLS, port, credentials.NewTLS(&tls.Config{RootCAs: d.roots})},
		{inClear, plain, insecure.NewCredentials()},
	} {
		target := fmt.Sprintf("passthrough:///grpc.example:%d", c.port)
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(c.cred),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return d.dialAddr(ctx, "tcp", addr) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		client := healthpb.NewHealthClient(conn)
		r, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
		if err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Fatalf("%v, %v", r, err)
		}
		// An error comes in a response of trailers only.
		if _, err = client.Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
			t.Errorf("%v", err)
		}
		// A stream, message by message.
		w, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
			if m, err := w.Recv(); err != nil || m.Status != want {
				t.Fatalf("%v, %v", m, err)
			}
			c.h.SetServingStatus("shop", healthpb.HealthCheckResponse_NOT_SERVING)
		}
		// A refusal is a status that the program can read.
		err = conn.Invoke(ctx, "/other.Service/Do", &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "no rule allows") {
			t.Errorf("%v", err)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "ambit-audit", "off")
		if _, err = client.Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v", err)
		}
	}
}

func TestCloseCutsEverything(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	pass, _ := plainShop(t, hello)
	d := newDoor(t, egress.Config{}, s.rule())
	var open []io.Reader
	for _, h2 := range []bool{false, true} {
		resp, err := d.client(h2).Get(s.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		open = append(open, resp.Body)
	}
	idle := d.dial("shop.example", portOf(pass.Listener))
	defer idle.Close()
	proxied := d.dialProxy()
	defer proxied.Close()
	open = append(open, bufio.NewReader(idle), proxied)
	d.proxy.Close()
	for i, r := range open {
		if _, err := io.ReadAll(r); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%d was not cut: %v", i, err)
		}
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, g := range strings.Split(string(stacks), "\n\n") {
		if strings.Contains(g, "ambit/egress.") && !strings.Contains(g, "egress_test.") {
			t.Errorf("left running:\n%s", g)
		}
	}
	if left := d.log.unfinished(); len(left) > 0 {
		t.Errorf("without an outcome: %+v", left)
	}
	late := d.dial("shop.example", s.port)
	if _, err := late.Read(make([]byte, 1)); err == nil {
		t.Error("served after Close")
	}
}
