package egress_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"ambit"
	"ambit/connector"
	"ambit/egress"
	"ambit/internal/secretbytes"
	"ambit/policy"
	"ambit/vault"
)

// clientPair is a certificate for a name, and its key.
func clientPair(t testing.TB, name string) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// club is an upstream that asks for a client certificate, and knows which of its
// connections are open.
type club struct {
	*shop
	mu     sync.Mutex
	open   map[net.Conn]bool
	change chan struct{} // closed and replaced with each change
}

func newClub(t *testing.T, asks tls.ClientAuthType, h http.HandlerFunc) *club {
	c := &club{open: map[net.Conn]bool{}, change: make(chan struct{})}
	c.shop = newShopWith(t, h, func(s *httptest.Server) {
		s.TLS.ClientAuth = asks
		s.Config.ConnState = func(n net.Conn, state http.ConnState) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if state == http.StateClosed {
				delete(c.open, n)
			} else {
				c.open[n] = true
			}
			close(c.change)
			c.change = make(chan struct{})
		}
	})
	return c
}

// await waits until so many connections are open.
func (c *club) await(t *testing.T, want int) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		n, change := len(c.open), c.change
		c.mu.Unlock()
		if n == want {
			return
		}
		select {
		case <-change:
		case <-late:
			t.Fatalf("%d connections are open, want %d", n, want)
		}
	}
}

// who answers with the name in the certificate, and the connection it came on.
func who(w http.ResponseWriter, r *http.Request) {
	name := "nobody"
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s %s %s", name, r.RemoteAddr, r.Proto)
}

// ticking is who, and then a stream until the request ends.
func ticking(w http.ResponseWriter, r *http.Request) {
	who(w, r)
	if r.URL.Path != "/stream" {
		return
	}
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, "\ntick"); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
}

func newMember(t *testing.T, c *club, others ...policy.Rule) *wallet {
	t.Helper()
	return openWallet(t, nil, c.roots, fmt.Sprintf("{name: mtls, as: partner, hosts: [shop.example], ports: [%d], private: true, resolve: [127.0.0.1]}", c.port), others...)
}

// join connects the partner with a certificate for the name.
func (w *wallet) join(name string) (key string) {
	w.t.Helper()
	certificate, key := clientPair(w.t, name)
	fields := map[string]secretbytes.Bytes{"certificate": secretbytes.New([]byte(certificate)), "private_key": secretbytes.New([]byte(key))}
	if _, err := w.vault.Connect(context.Background(), vault.ConnectRequest{Name: "partner", Fields: fields}, "uid:1"); err != nil {
		w.t.Fatal(err)
	}
	return key
}

// saw is the name that the host saw, and the connection it came on.
func saw(t testing.TB, resp *http.Response) (name, conn, proto string) {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%d %q, %v", resp.StatusCode, b, err)
	}
	fields := strings.Fields(string(b))
	return fields[0], fields[1], fields[2]
}

// Every request is made with the certificate, over a connection that is kept for
// it, in both protocols. Without one it is refused.
func TestClientCertificate(t *testing.T) {
	c := newClub(t, tls.RequireAnyClientCert, who)
	w := newMember(t, c)
	w.wantProblem(w.get(false, c.url("/"), ""), 403, "not-connected")
	key := w.join("agent")
	for _, h2 := range []bool{false, true} {
		want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		before := ""
		for range 3 {
			name, conn, proto := saw(t, w.get(h2, c.url("/"), ""))
			if name != "agent" || proto != want || before != "" && conn != before {
				t.Errorf("h2 %v: %s on %s, before on %q, in %s", h2, name, conn, before, proto)
			}
			before = conn
		}
	}
	c.await(t, 2)
	w.log.await(func(e ambit.Event) bool { return e.Connection == "partner" && e.Decision == ambit.Allow })
	for line := range strings.Lines(key) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-") && strings.Contains(fmt.Sprint(w.log.events), line) {
			t.Error("the key is in the log")
		}
	}
}

// K5: revoked in the middle of a stream: it is cut, what was idle beside it is
// closed, and the next request is refused.
func TestK5ClientCertificateRevokedInAStream(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		c := newClub(t, tls.RequireAnyClientCert, ticking)
		w := newMember(t, c)
		w.join("agent")
		stream := w.get(h2, c.url("/stream"), "")
		if _, err := io.ReadFull(stream.Body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		saw(t, w.get(h2, c.url("/"), ""))
		c.await(t, map[bool]int{false: 2, true: 1}[h2])
		if _, err := w.vault.Revoke(t.Context(), "partner", "uid:1"); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(10*time.Second, func() { t.Error("the stream was not cut"); stream.Body.Close() })
		if _, err := io.Copy(io.Discard, stream.Body); err == nil {
			t.Errorf("h2 %v: the stream ended as if it was whole", h2)
		}
		late.Stop()
		stream.Body.Close()
		c.await(t, 0)
		w.wantProblem(w.get(h2, c.url("/"), ""), 403, "not-connected")
		c.await(t, 0)
	}
}

// K5: a connection on which nothing is under way is closed when its certificate
// is revoked, or when the policy changes, without another request.
func TestK5IdleConnectionOfACertificateIsClosed(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		c := newClub(t, tls.RequireAnyClientCert, who)
		w := newMember(t, c)
		w.join("agent")
		_, first, _ := saw(t, w.get(h2, c.url("/"), ""))
		c.await(t, 1)
		w.use(append(w.rules, policy.Rule{Host: "another.example"})...)
		w.proxy.Refresh()
		c.await(t, 0)
		if name, second, _ := saw(t, w.get(h2, c.url("/"), "")); name != "agent" || first == second {
			t.Errorf("h2 %v: %s on %s, before on %s", h2, name, second, first)
		}
		c.await(t, 1)
		if _, err := w.vault.Revoke(t.Context(), "partner", "uid:1"); err != nil {
			t.Fatal(err)
		}
		c.await(t, 0)
	}
}

// A new certificate is shown from the next request on, on a connection of its
// own; what is under way with the old one ends as it began, and then its
// connection is closed.
func TestClientCertificateReplaced(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		c := newClub(t, tls.RequireAnyClientCert, ticking)
		w := newMember(t, c)
		w.join("old")
		_, idle, _ := saw(t, w.get(h2, c.url("/"), ""))
		stream := w.get(h2, c.url("/stream"), "")
		head := make([]byte, 100)
		if _, err := io.ReadFull(stream.Body, head); err != nil || !bytes.HasPrefix(head, []byte("old ")) {
			t.Fatalf("%q, %v", head, err)
		}
		w.join("new")
		for range 2 {
			if name, conn, _ := saw(t, w.get(h2, c.url("/"), "")); name != "new" || conn == idle {
				t.Errorf("h2 %v: %s on %s, and the old one was on %s", h2, name, conn, idle)
			}
		}
		if _, err := io.ReadFull(stream.Body, head); err != nil || bytes.Contains(head, []byte("new")) {
			t.Errorf("h2 %v: what was under way: %q, %v", h2, head, err)
		}
		stream.Body.Close()
		c.await(t, 1)
	}
}

// Whoever asks after the certificate was replaced is never known by the old one,
// whatever goes on beside.
func TestClientCertificateReplacedUnderLoad(t *testing.T) {
	c := newClub(t, tls.RequireAnyClientCert, who)
	w := newMember(t, c)
	w.join("0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		client := w.client(i%2 == 0)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Get(c.url("/"))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if (err != nil || resp.StatusCode != 200) && !strings.Contains(string(b), "policy-changed") {
					t.Errorf("%d %s, %v", resp.StatusCode, b, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		name := fmt.Sprint(i + 1)
		w.join(name)
		if got, _, _ := saw(t, w.get(i%2 == 0, c.url("/"), "")); got != name {
			t.Errorf("%s, want %s", got, name)
		}
	}
	close(stop)
	wg.Wait()
	if _, err := w.vault.Revoke(t.Context(), "partner", "uid:1"); err != nil {
		t.Fatal(err)
	}
	c.await(t, 0)
}

// K1: a host that the certificate is not for does not get to see it although it
// asks, and neither does the host itself on a path that it is not for.
func TestK1CertificateIsShownToItsHostOnly(t *testing.T) {
	c := newClub(t, tls.RequestClientCert, who)
	other := newClub(t, tls.RequestClientCert, who)
	acme := connector.Source{Name: "acme.yaml", Text: []byte(`connector: v1
name: acme
title: Acme
docs: https://acme.example/
secrets:
  certificate: {title: Certificate, kind: certificate, public: true}
  private_key: {title: Key, kind: private-key}
auth:
  - mtls: {certificate: certificate, key: private_key}
    paths: [/v1/**]
`)}
	w := openWallet(t, []connector.Source{acme}, c.roots, fmt.Sprintf("{name: acme, as: partner, hosts: [shop.example], ports: [%d], private: true, resolve: [127.0.0.1]}", c.port), other.rule())
	w.join("agent")
	type call struct{ url, want string }
	calls := []call{{c.url("/v1/things"), "agent"}, {c.url("/"), "nobody"}, {other.url("/v1/things"), "nobody"}}
	for _, h2 := range []bool{false, true} {
		for range 2 {
			conns := map[string]string{}
			for _, call := range slices.Concat(calls, calls) {
				name, conn, _ := saw(t, w.get(h2, call.url, ""))
				if name != call.want {
					t.Errorf("h2 %v: %s sees %s, want %s", h2, call.url, name, call.want)
				}
				if was, ok := conns[conn]; ok && was != call.want {
					t.Errorf("h2 %v: %s goes over a connection of %s", h2, call.url, was)
				}
				conns[conn] = call.want
			}
			// Again, on new connections and in the other order: no TLS session may be
			// taken up by somebody else.
			slices.Reverse(calls)
			w.use(append(w.rules, policy.Rule{Host: "another.example"})...)
		}
	}
}

// gRPC with a client certificate.
func TestGRPCWithClientCertificate(t *testing.T) {
	ca, err := egress.NewCA("upstreams")
	if err != nil {
		t.Fatal(err)
	}
	_, port := newHealth(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{egress.SignFor(t, ca, "grpc.example")}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
	})))
	w := openWallet(t, nil, rootsOf(ca), fmt.Sprintf("{name: mtls, as: partner, hosts: [grpc.example], ports: [%d], private: true, resolve: [127.0.0.1]}", port))
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///grpc.example:%d", port), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS13})),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return w.dialAddr(ctx, "tcp", addr) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := healthpb.NewHealthClient(conn)
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"}); err == nil || !strings.Contains(err.Error(), "is not connected") {
		t.Errorf("without a certificate: %v", err)
	}
	w.join("agent")
	if r, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", r, err)
	}
	watch, err := client.Watch(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", m, err)
	}
	if _, err := w.vault.Revoke(ctx, "partner", "uid:1"); err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err == nil || ctx.Err() != nil {
		t.Errorf("after the revocation: %v, %v", m, err)
	}
}
