package worker

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ambit/connector"
	"ambit/egress"
	"ambit/internal/forward"
	"ambit/internal/secretbytes"
	"ambit/vault"
)

// BenchmarkRequest sends requests through the whole gate: the socket, TLS on
// both sides, the rules, the log on the disk. The processor time that it shows
// includes the client and the upstream; `make bench` compares.
func BenchmarkRequest(b *testing.B) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) }))
	up.StartTLS()
	defer up.Close()
	root := strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw})), "\n", "\n        ")
	port := up.Listener.Addr().(*net.TCPAddr).Port
	host := fmt.Sprintf("      ports: [%d]\n      private: true\n      resolve: [127.0.0.1]\n      ca: |\n        %s\n", port, strings.TrimSpace(root))
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("rule/%d", n), func(b *testing.B) {
			benchmarkRequests(b, "ambit: v1\nname: support\negress:\n  allow:\n    - host: example.com\n"+host, port, n)
		})
		b.Run(fmt.Sprintf("account/%d", n), func(b *testing.B) {
			benchmarkRequests(b, "ambit: v1\nname: support\nconnectors:\n    - name: bearer\n      hosts: [example.com]\n"+host, port, n)
		})
	}
}

func benchmarkRequests(b *testing.B, source string, port, clients int) {
	w := newWorker(b, source)
	field := ""
	if ref := w.vault.Placement().Env["BEARER_TOKEN"]; ref != "" {
		q := vault.ConnectRequest{Name: "bearer", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte("real-token-0123456789-0123456789"))}}
		if _, err := w.vault.Connect(b.Context(), q, "uid:0"); err != nil {
			b.Fatal(err)
		}
		field = "Authorization: Bearer " + ref + "\r\n"
	}
	var err error
	if w.ca, err = egress.NewCA("support"); err != nil {
		b.Fatal(err)
	}
	w.proxy, err = egress.New(egress.Config{Gate: w.gate, Endpoints: func() egress.Endpoints { return w.policy.Load() }, CA: w.ca, Vault: w.vault})
	if err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(b.TempDir(), "gate.sock")
	l, err := listen(socket, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { w.serveGate(ctx, l); close(served) }()
	defer func() {
		cancel()
		_ = l.Close()
		if err := w.proxy.Close(); err != nil {
			b.Error(err)
		}
		<-served
	}()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.ca.CertificatePEM())
	work := make(chan struct{}, clients)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			c, err := net.Dial("unix", socket)
			if err != nil {
				b.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, forward.Header{Kind: forward.TCP, Host: "example.com", Port: uint16(port)}.String())
			t := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS13})
			br := bufio.NewReader(t)
			for range work {
				_, _ = fmt.Fprintf(t, "GET /v1/x HTTP/1.1\r\nHost: example.com:%d\r\n%s\r\n", port, field)
				res, err := http.ReadResponse(br, nil)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Error(res, err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	b.ResetTimer()
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
}

// BenchmarkToolCall makes a call of a tool through the whole worker but the
// socket: the decision, the tracing, the request with the account, the log on the
// disk. `make bench` compares.
func BenchmarkToolCall(b *testing.B) {
	w, _ := openedDoorTo(b, new(shop).ServeHTTP, "name: demoshop\n    as: shop\n    tools: [\"*\"]", "",
		connector.Source{Name: "demoshop.yaml", Text: []byte(shopConnector)})
	if _, err := w.vault.Connect(b.Context(), vault.ConnectRequest{Name: "shop", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(canary))}}, "uid:0"); err != nil {
		b.Fatal(err)
	}
	inside := w.inside()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://ambit.internal/mcp", strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"shop.tickets.get","arguments":{"ticket":17,"intent":"look"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`))
		for name, value := range map[string]string{"Content-Type": "application/json", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "shop.tickets.get"} {
			r.Header.Set(name, value)
		}
		answer := httptest.NewRecorder()
		inside.ServeHTTP(answer, r)
		if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), `"order":1001`) {
			b.Fatal(answer.Code, answer.Body)
		}
	}
}
