package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/egress"
	"ambit/gate"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
	"ambit/policy"
	"ambit/vault"
)

// counter is a log in memory that keeps nothing.
type counter struct{ n atomic.Uint64 }

func (c *counter) Append(context.Context, ambit.Event) (uint64, error) { return c.n.Add(1), nil }
func (c *counter) Record(ambit.Event)                                  { c.n.Add(1) }

// BenchmarkRequest is one request of a kept-alive connection, TLS on both
// sides: through this proxy, and through the least that net/http makes of one
// (httputil.ReverseProxy behind http.Server), which judges and logs nothing.
// Both are reached over a Unix socket and use the same upstream.
func BenchmarkRequest(b *testing.B) {
	for _, size := range []int{100, 64 << 10} {
		s := newShop(b, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page[:size]) })
		for _, at := range []int{1, 16, 64} {
			name := fmt.Sprintf("bytes=%d/at=%d/", size, at)
			b.Run(name+"proxy=reverse", func(b *testing.B) {
				dial, roots := reference(b, s)
				load(b, at, size, s, "shpat_reference", dial, roots)
			})
			b.Run(name+"proxy=egress", func(b *testing.B) {
				dial, roots := ours(b, s, nil)
				load(b, at, size, s, "shpat_reference", dial, roots)
			})
		}
	}
}

// BenchmarkAccount is a request of an agent that has an account: to its host, with
// a credential to be put in and to be looked for in the answer, and what the same
// request costs the same agent at a host that it has a rule for.
func BenchmarkAccount(b *testing.B) {
	const size = 100
	s := newShop(b, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page[:size]) })
	for _, c := range []struct{ name, host string }{{"with", "shop.example"}, {"without", "another.example"}} {
		b.Run("at=16/account="+c.name, func(b *testing.B) {
			v, reference := walletOf(b, s, c.host)
			dial, roots := ours(b, s, v)
			load(b, 16, size, s, reference, dial, roots)
		})
	}
}

// walletOf is a vault with an account at the host. It returns what the agent sends to
// the shop.
func walletOf(b *testing.B, s *shop, host string) (*vault.Vault, string) {
	db, err := sqldb.Open(b.Context(), filepath.Join(b.TempDir(), "agent.db"))
	if err != nil {
		b.Fatal(err)
	}
	v, err := vault.Open(b.Context(), vault.Config{
		DB: db, Agent: "bench", Keys: []vault.Key{{Version: 1, Bytes: secretbytes.New(make([]byte, 32))}},
		Ref: secretbytes.New(make([]byte, 32)), Log: &counter{}, Alerts: &alerts{}, Transport: http.DefaultTransport,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { v.Close(); db.Close() })
	if err := v.Bind(bearerFor(b, s, host)); err != nil {
		b.Fatal(err)
	}
	fields := map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(realToken))}
	if _, err := v.Connect(b.Context(), vault.ConnectRequest{Name: "shop", Fields: fields}, "uid:1"); err != nil {
		b.Fatal(err)
	}
	if host != "shop.example" {
		return v, "shpat_reference0123456789"
	}
	return v, v.Placement().Env["SHOP_TOKEN"]
}

func bearerFor(b *testing.B, s *shop, host string) []*connector.Binding {
	catalog, err := connector.Builtin()
	if err != nil {
		b.Fatal(err)
	}
	text := "ambit: v1\nname: bench\nconnectors:\n  - {name: bearer, as: shop, hosts: [%s], ports: [%d], private: true, resolve: [127.0.0.1]}\n"
	m, err := manifest.Parse("m.yaml", fmt.Appendf(nil, text, host, s.port))
	if err != nil {
		b.Fatal(err)
	}
	bindings, err := catalog.Bind(m)
	if err != nil {
		b.Fatal(err)
	}
	return bindings
}

var page = make([]byte, 1<<20)

// load keeps at connections busy.
func load(b *testing.B, at, size int, s *shop, token string, dial func() net.Conn, roots *x509.CertPool) {
	request := []byte("GET /v1/orders/1042?expand=lines HTTP/1.1\r\nHost: " + s.host() + "\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nAuthorization: Bearer " + token + "\r\nAccept-Encoding: gzip\r\n\r\n")
	conns := make([]*tls.Conn, at)
	for i := range conns {
		conns[i] = tls.Client(dial(), &tls.Config{ServerName: "shop.example", RootCAs: roots, NextProtos: []string{"http/1.1"}})
		if err := conns[i].Handshake(); err != nil {
			b.Fatal(err)
		}
		defer conns[i].Close()
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	ended := make(chan error, at)
	before := cpu(b)
	b.ResetTimer()
	for _, c := range conns {
		go func() {
			br := bufio.NewReaderSize(c, 16<<10)
			for left.Add(-1) >= 0 {
				if _, err := c.Write(request); err != nil {
					ended <- err
					return
				}
				if err := readAnswer(br, size); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range conns {
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpu is the processor time that this process has used: client, proxy and
// upstream together. It says more than the wall clock on a machine that has
// other things to do.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readAnswer reads an answer with as little work as possible.
func readAnswer(br *bufio.Reader, size int) error {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return err
	}
	if string(line) != "HTTP/1.1 200 OK\r\n" {
		return errors.New(string(line))
	}
	chunked := false
	for len(line) > 2 {
		if line, err = br.ReadSlice('\n'); err != nil {
			return err
		}
		chunked = chunked || string(line) == "Transfer-Encoding: chunked\r\n"
	}
	if !chunked {
		_, err = br.Discard(size)
		return err
	}
	_, err = io.Copy(io.Discard, httputil.NewChunkedReader(br))
	if err == nil {
		_, err = br.Discard(2)
	}
	return err
}

func ours(b *testing.B, s *shop, v *vault.Vault) (func() net.Conn, *x509.CertPool) {
	rule := s.rule()
	rule.Methods, rule.Paths = []string{"GET"}, []string{"/v1/orders/*"}
	set, err := policy.Compile(policy.Egress{Rules: []policy.Rule{rule}})
	if err != nil {
		b.Fatal(err)
	}
	ca, err := egress.NewCA("bench")
	if err != nil {
		b.Fatal(err)
	}
	p, err := egress.New(egress.Config{
		Gate: gate.New(gate.Config{Agent: "bench", Policy: set, Log: &counter{}, Alerts: &alerts{}}),
		CA:   ca, Endpoints: func() egress.Endpoints { return set }, Roots: x509.NewCertPool(), Vault: v,
	})
	if err != nil {
		b.Fatal(err)
	}
	l := listen(b)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.ServeTCP(context.Background(), c, "shop.example", uint16(s.port), "")
		}
	}()
	b.Cleanup(func() { p.Close() })
	return dialer(b, l), rootsOf(ca)
}

func reference(b *testing.B, s *shop) (func() net.Conn, *x509.CertPool) {
	ca, err := egress.NewCA("bench")
	if err != nil {
		b.Fatal(err)
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
		},
		TLSClientConfig:     &tls.Config{RootCAs: s.roots},
		MaxIdleConnsPerHost: 512, DisableCompression: true,
	}
	target, err := url.Parse("https://" + s.host())
	if err != nil {
		b.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: t, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	server := httptest.NewUnstartedServer(proxy)
	server.Listener.Close()
	server.Listener = listen(b)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{egress.SignFor(b, ca, "shop.example")}}
	server.StartTLS()
	b.Cleanup(server.Close)
	b.Cleanup(t.CloseIdleConnections)
	return dialer(b, server.Listener), rootsOf(ca)
}

func listen(b *testing.B) net.Listener {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func dialer(b *testing.B, l net.Listener) func() net.Conn {
	return func() net.Conn {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
}
