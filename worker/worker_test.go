package worker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/connector"
	"ambit/control"
	"ambit/gate"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
)

// newWorker is a worker with a real log, book of alerts and policy, without the
// confinement, which would hold the test itself.
func newWorker(t testing.TB, source string, files ...connector.Source) *Worker {
	t.Helper()
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	key := func() secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{7}, 32)) }
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: "support", Keys: audit.Keys{Body: key(), Sign: key()}, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := alert.Open(t.Context(), alert.Config{DB: db, Log: log, Agent: "support", Key: key()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := compile(control.Policy{Source: source, Connectors: files})
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{
		config: control.Start{Agent: "support", Token: "right", Caller: os.Geteuid()}, db: db, audit: log, alerts: alerts,
		log: slog.New(slog.DiscardHandler), conns: make(chan struct{}, maxConns),
	}
	w.adopt(c)
	if err := w.watch(c); err != nil {
		t.Fatal(err)
	}
	if err := w.openApprovals(t.Context(), key()); err != nil {
		t.Fatal(err)
	}
	w.gate = gate.New(gate.Config{Agent: "support", Policy: c.policy, Log: w.events, Alerts: w.rules})
	w.config.Data = bytes.Repeat([]byte{7}, 32)
	w.config.Vault = []control.VaultKey{{Version: 1, Key: bytes.Repeat([]byte{8}, 32)}}
	if err := w.openVault(t.Context(), nil, c.bindings); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(w.approvals.Close(), w.vault.Close()); err != nil {
			t.Error(err)
		}
		if err := alerts.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := log.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

const oneRule = "ambit: v1\nname: support\negress:\n  allow:\n    - {host: api.example, ports: [443, 8443]}\n"

// ask opens a connection as init does and returns what the worker answers.
func ask(t *testing.T, w *Worker, line string) string {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.serveConn(t.Context(), there)
		_ = there.Close()
	}()
	if _, err := io.WriteString(here, line); err != nil {
		t.Fatal(err)
	}
	answer, _ := bufio.NewReader(here).ReadString('\n')
	_ = here.Close()
	<-done
	return answer
}

func TestNames(t *testing.T) {
	w := newWorker(t, oneRule)
	for line, want := range map[string]string{
		"AMBIT/1 name api.example\n":           "ok 443 8443\n",
		"AMBIT/1 name API.Example.\n":          "ok 443 8443\n", // N3: the same name
		"AMBIT/1 name ambit.internal\n":        "ok 80\n",
		"AMBIT/1 name AMBIT.Internal.\n":       "ok 80\n",
		"AMBIT/1 name mcp.ambit.internal\n":    "no\n",
		"AMBIT/1 name internal\n":              "no\n",
		"AMBIT/1 name evil.example\n":          "no\n",
		"AMBIT/1 name api.example.evil.test\n": "no\n", // N7
		"AMBIT/1 name 127.0.0.1\n":             "no\n",
		"AMBIT/1 name 2130706433\n":            "no\n",
	} {
		if got := ask(t, w, line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	calls, err := w.audit.Calls(t.Context(), audit.CallQuery{Denied: true})
	if err != nil || len(calls) != 6 {
		t.Errorf("the log has %d refused names, want 6: %v", len(calls), err)
	}
}

// TestForgedForward: what does not speak the grammar gets nothing, and a person
// is told.
func TestForgedForward(t *testing.T) {
	w := newWorker(t, oneRule)
	if got := ask(t, w, "GET /status HTTP/1.1\n"); got != "" {
		t.Errorf("it was answered %q", got)
	}
	list, err := w.alerts.List(t.Context(), alert.Query{})
	if err != nil || len(list) != 1 || list[0].Severity != ambit.High {
		t.Errorf("alerts: %+v, %v", list, err)
	}
}

// TestC2ControlNeedsTheToken: without the token of this agent nothing is
// answered, whoever asks, and a person is told.
func TestC2ControlNeedsTheToken(t *testing.T) {
	w := newWorker(t, oneRule)
	dir, err := os.MkdirTemp("", "w")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "c.sock")
	l, err := listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := openCA(filepath.Join(dir, "ca"), "support", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	w.ca = ca
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.serveControl(ctx, l) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for _, token := range []string{"", "wrong", "righ", "rightt"} {
		c := control.NewClient(socket, token)
		_, err := c.Status(ctx)
		if e, ok := err.(*control.Error); !ok || e.Status != http.StatusForbidden {
			t.Errorf("with token %q: %v", token, err)
		}
		if _, err := c.Record(ctx, ambit.Event{Kind: ambit.KindAgentStart}); err == nil {
			t.Errorf("with token %q an event was written", token)
		}
		c.Close()
	}
	c := control.NewClient(socket, "right")
	defer c.Close()
	if s, err := c.Status(ctx); err != nil || s.Agent != "support" {
		t.Errorf("with the token: %+v, %v", s, err)
	}
	if _, err := c.Record(ctx, ambit.Event{Kind: ambit.KindEgressRequest, Decision: ambit.Allow}); err == nil {
		t.Error("the control plane could write an event of the gate's")
	}
	if list, err := c.Alerts(ctx, alert.Query{}); err != nil || len(list) != 1 || list[0].Severity != ambit.Critical {
		t.Errorf("alerts: %+v, %v", list, err)
	}
}

func TestFollow(t *testing.T) {
	w := newWorker(t, oneRule)
	request := func() *ambit.Request {
		return &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: "api.example", Port: 443, Path: "/"}
	}
	first, err := w.gate.Check(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := make(chan audit.Call)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.follow(ctx, audit.CallQuery{}, func(c audit.Call) error { seen <- c; return nil })
	}()
	if c := <-seen; c.Seq != first.Event() || c.Done {
		t.Errorf("first the stored one, which runs: %+v", c)
	}
	first.Finish(ambit.Outcome{Status: 204})
	if c := <-seen; c.Seq != first.Event() || !c.Done || c.Status != 204 {
		t.Errorf("then its end: %+v", c)
	}
	r := request()
	r.Host = "evil.example"
	if _, err := w.gate.Check(t.Context(), r); err == nil {
		t.Fatal("it was allowed")
	}
	if c := <-seen; c.Host != "evil.example" || c.Decision == ambit.Allow || !c.Done {
		t.Errorf("then the refused one: %+v", c)
	}
	cancel()
	<-ended
}

func TestCA(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.sealed")
	data := bytes.Repeat([]byte{1}, 32)
	made, err := openCA(path, "support", data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openCA(path, "support", data)
	if err != nil || !bytes.Equal(made.CertificatePEM(), again.CertificatePEM()) {
		t.Errorf("it is another one after a restart: %v", err)
	}
	if _, err := openCA(path, "finance", data); err == nil {
		t.Error("another agent's authority was opened")
	}
	if _, err := openCA(path, "support", bytes.Repeat([]byte{2}, 32)); err == nil {
		t.Error("it was opened with another key")
	}
	plain, err := made.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, plain[len(plain)/2:len(plain)/2+40]) {
		t.Errorf("the private key is on the disk in plain: %v", err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	o, err := openOutput(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 * maxOutput / len(line) {
		if _, err := io.WriteString(o.stream("stdout"), line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(o.stream("stderr"), "the last\n"); err != nil {
		t.Fatal(err)
	}
	var all, tail bytes.Buffer
	if err := o.copyTo(t.Context(), &all, 0, false); err != nil {
		t.Fatal(err)
	}
	if all.Len() < maxOutput || all.Len() > 2*maxOutput+len(line) {
		t.Errorf("%d bytes are kept", all.Len())
	}
	if err := o.copyTo(t.Context(), &tail, 1500, false); err != nil || tail.String() != line+"the last\n" {
		t.Errorf("the tail is %q, %v", tail.String(), err)
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.copyTo(ctx, w, 9, true) }()
	br := bufio.NewReader(r)
	for _, want := range []string{"the last\n", "more\n"} {
		if got, err := br.ReadString('\n'); err != nil || got != want {
			t.Errorf("following gave %q, %v, want %q", got, err, want)
		}
		if want == "the last\n" {
			if _, err := io.WriteString(o.stream("stdout"), "more\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// TestExamplesCompile: what the manifest accepts, the policy accepts too.
func TestExamplesCompile(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := manifest.Parse(f, b); err != nil {
			t.Fatal(err)
		}
		if _, err := compile(control.Policy{Source: string(b)}); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	if _, err := compile(control.Policy{Source: "ambit: v1\nname: x\n"}); err != nil {
		t.Error(err)
	}
	if _, err := compile(control.Policy{}); err == nil {
		t.Error("an empty manifest was compiled")
	}
}

// A worker proves that its log grew, also to a head that it signed before, and
// says with its head that it is shorter than what it is asked about.
func TestConsistency(t *testing.T) {
	w := newWorker(t, oneRule)
	old, err := w.audit.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.audit.Record(ambit.Event{Kind: ambit.KindWorkerStart})
	}
	c, err := w.consistency(t.Context(), control.ConsistencyQuery{Old: old.Size})
	if err != nil || c.Check(old) != nil || c.Head.Size != old.Size+2 {
		t.Fatalf("grown: %+v, %v", c, err)
	}
	w.audit.Record(ambit.Event{Kind: ambit.KindWorkerStart})
	if again, err := w.consistency(t.Context(), control.ConsistencyQuery{Old: 1, To: c.Head.Note}); err != nil || again.Head.Root != c.Head.Root {
		t.Errorf("to an earlier head: %+v, %v", again, err)
	}
	if c, err := w.consistency(t.Context(), control.ConsistencyQuery{Old: 99}); err != nil || c.Head.Size != old.Size+3 || len(c.Hashes) != 0 {
		t.Errorf("shorter: %+v, %v", c, err)
	}
	if _, err := w.consistency(t.Context(), control.ConsistencyQuery{Old: 1, To: []byte("x")}); err == nil {
		t.Error("to what is no head: proved")
	}
}
