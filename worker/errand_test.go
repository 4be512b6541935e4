package worker

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"ambit"
	"ambit/audit"
	"ambit/connector"
	"ambit/control"
	"ambit/egress"
	"ambit/internal/secretbytes"
	"ambit/vault"
)

const canary = "canary-0123456789-real-token"

// openedDoor is a worker with its door, whose connection "shop" leads to the
// handler, over TLS.
func openedDoor(t *testing.T, h http.HandlerFunc, allow string) (w *Worker, url string) {
	t.Helper()
	return openedDoorTo(t, h, "name: bearer\n    as: shop\n    hosts: [example.com]\n    paths: [/v1/**]", allow)
}

// openedDoorTo is openedDoor with another connector. PORT in allow is that of the
// handler.
func openedDoorTo(t testing.TB, h http.HandlerFunc, connection, allow string, files ...connector.Source) (w *Worker, url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS() // for example.com
	t.Cleanup(s.Close)
	port := s.Listener.Addr().(*net.TCPAddr).Port
	ca := strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))), "\n", "\n      ")
	source := fmt.Sprintf("ambit: v1\nname: support\nconnectors:\n  - %s\n    ports: [%d]\n    private: true\n    resolve: [127.0.0.1]\n    ca: |\n      %s\n%s", connection, port, ca, strings.ReplaceAll(allow, "PORT", strconv.Itoa(port)))
	w = newWorker(t, source, files...)
	var err error
	if w.ca, err = egress.NewCA("support"); err != nil {
		t.Fatal(err)
	}
	c, err := compile(control.Policy{Source: source, Connectors: files})
	if err != nil {
		t.Fatal(err)
	}
	w.delivery.Log, w.delivery.size = w.events, w.audit.Size
	if err := w.openDoor(nil, c); err != nil {
		t.Fatal(err)
	}
	if err := w.openTools(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.life = context.Background()
	t.Cleanup(func() {
		if err := w.proxy.Close(); err != nil {
			t.Error(err)
		}
		w.closeTools()
	})
	return w, fmt.Sprintf("https://example.com:%d", port)
}

func (w *Worker) errand(t *testing.T, url string) egress.Errand {
	t.Helper()
	cause, err := w.events.Append(t.Context(), ambit.Event{Kind: ambit.KindToolCall, Agent: "support", Principal: ambit.PrincipalAgent, Decision: ambit.Allow, Tool: "shop.orders.get"})
	if err != nil {
		t.Fatal(err)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return egress.Errand{Request: q, Cause: cause, Connection: "shop", Task: "t1"}
}

// A tool asks with the agent's connection: the host gets the credential, whoever
// asked gets neither it nor its echo, and the log has the call as the cause. What
// the manifest allows the agent beside its connections is not the tool's.
func TestErrand(t *testing.T) {
	w, url := openedDoor(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+canary {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(rw, "order 7 for %s", r.Header.Get("Authorization"))
	}, "egress:\n  intent: required\n  allow:\n    - {host: api.example}\n")
	denied := func(e egress.Errand, code string) {
		t.Helper()
		resp, err := w.proxy.Do(t.Context(), e)
		var d *ambit.DenyError
		if !errors.As(err, &d) || d.Verdict.Reason.Code != code {
			t.Errorf("got %v, %v, want %s", resp, err, code)
		}
	}
	denied(w.errand(t, url+"/v1/orders/7"), "not-connected")
	if _, err := w.vault.Connect(t.Context(), vault.ConnectRequest{Name: "shop", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(canary))}}, "uid:0"); err != nil {
		t.Fatal(err)
	}
	e := w.errand(t, url+"/v1/orders/7")
	resp, err := w.proxy.Do(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(b), "order 7 for Bearer ") || strings.Contains(string(b), "canary") {
		t.Errorf("%d %q, %v", resp.StatusCode, b, err)
	}
	denied(w.errand(t, url+"/admin"), "path-not-allowed")
	other := w.errand(t, "https://api.example/")
	other.Connection = ""
	denied(other, "host-not-allowed")

	events, _, err := w.audit.Events(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for i := range events {
		l := &events[i]
		if l.Kind != ambit.KindEgressRequest || l.Decision != ambit.Allow {
			continue
		}
		found = true
		if l.Principal != ambit.PrincipalAmbit || l.Connection != "shop" || l.Task != "t1" || len(l.Links) != 1 || l.Links[0] != (ambit.Link{Rel: "cause", Seq: e.Cause}) {
			t.Errorf("the log has %+v", l)
		}
	}
	if calls, err := w.audit.Calls(t.Context(), audit.CallQuery{}); err != nil || !found || len(calls) != 4 {
		t.Errorf("the log has %+v, %v", calls, err)
	}
	if _, err := w.vault.Revoke(t.Context(), "shop", "uid:0"); err != nil {
		t.Fatal(err)
	}
	denied(w.errand(t, url+"/v1/orders/7"), "not-connected")
	// A manifest without the connection takes it away from the tools, too.
	if err := w.apply(t.Context(), control.Policy{Source: oneRule}); err != nil {
		t.Fatal(err)
	}
	denied(w.errand(t, url+"/v1/orders/7"), "other-connection")
}

// Inside, Ambit answers with the agent's name; nothing else is there yet.
func TestInside(t *testing.T) {
	w, _ := openedDoor(t, func(http.ResponseWriter, *http.Request) { t.Error("something left") }, "")
	ask := func(path string) *http.Response {
		here, there := net.Pipe()
		go func() { w.serveConn(context.Background(), there); _ = there.Close() }()
		defer func() { _ = here.Close() }()
		if _, err := fmt.Fprintf(here, "AMBIT/1 tcp ambit.internal 80\nGET %s HTTP/1.1\r\nHost: ambit.internal\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(here), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body = io.NopCloser(strings.NewReader(string(b)))
		return resp
	}
	resp := ask("/")
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !strings.Contains(string(b), "the agent support.") {
		t.Errorf("%d %q", resp.StatusCode, b)
	}
	for _, path := range []string{"/mcp", "/status", "/control", "//"} {
		resp := ask(path)
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode < 300 || strings.Contains(string(b), "the agent support.") {
			t.Errorf("%s: %d %q", path, resp.StatusCode, b)
		}
	}
}
