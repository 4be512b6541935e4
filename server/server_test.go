package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

	"ambit"
	"ambit/agent"
	"ambit/api"
	"ambit/approval"
	"ambit/audit"
	"ambit/client"
	"ambit/control"
)

// fleet runs nothing. It has a worker's control API that records events, and
// says of everything that it did.
type fleet struct {
	mu       sync.Mutex
	did      []string
	events   []ambit.Event
	past     []audit.Touch // what a search of the log finds
	broken   bool          // the log cannot be written
	given    []control.VaultKey
	asked    *approval.Store // questions of the agent support
	sealless bool            // the worker cannot seal
	socket   string
	prove    http.HandlerFunc                  // the worker's answer to a question for a proof
	running  map[ambit.AgentID]*control.Client // workers that prove their logs
	enter    chan struct{}                     // a caller of Apply says so here, if not nil,
	leave    chan struct{}                     // and waits here
	exec     func(ctx context.Context, s ExecSpec, io ExecIO) (int, error)
}

func (f *fleet) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, s)
}

func (f *fleet) Apply(_ context.Context, id ambit.AgentID) error {
	if f.enter != nil {
		f.enter <- struct{}{}
		<-f.leave
	}
	f.note("apply " + string(id))
	return nil
}

func (f *fleet) Remove(_ context.Context, id ambit.AgentID) error {
	f.note("remove " + string(id))
	return nil
}
func (f *fleet) Status(ambit.AgentID) AgentStatus { return AgentStatus{Computer: ComputerRunning} }

func (f *fleet) Exec(ctx context.Context, _ ambit.AgentID, s ExecSpec, io ExecIO) (int, error) {
	return f.exec(ctx, s, io)
}

func (f *fleet) Worker(_ context.Context, id ambit.AgentID) (*control.Client, error) {
	return control.NewClient(f.socket, "token of "+string(id)), nil
}

func (f *fleet) Running(id ambit.AgentID) *control.Client {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[id]
}

func (f *fleet) Halt(_ context.Context, id ambit.AgentID, why string) error {
	f.note("halt " + string(id) + ": " + why)
	return nil
}

func (f *fleet) record(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken {
		http.Error(w, "the disk is full", http.StatusInternalServerError)
		return
	}
	var e ambit.Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.events = append(f.events, e)
	f.did = append(f.did, "log "+string(e.Kind))
	_ = json.NewEncoder(w).Encode(len(f.events) - 1)
}

func (f *fleet) history() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := strings.Join(f.did, ", ")
	f.did = nil
	return out
}

type fixture struct {
	*fleet
	home      string
	client    *client.Client
	server    *Server
	listeners *Listeners
	end       func() // ends the server; may be called again
}

// serve runs a server in a home of its own.
func serve(t *testing.T, listen string) *fixture {
	t.Helper()
	return serveWith(t, listen, func(*Config) {})
}

func serveWith(t *testing.T, listen string, configure func(*Config)) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit") // short: a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home, err := OpenHome(filepath.Join(dir, "h"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := agent.Open(t.Context(), agent.Config{Home: home.Dir})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{socket: filepath.Join(dir, "w.sock")}
	worker(t, f)
	controlLog, err := OpenControlLog(t.Context(), home.Dir, store, "v0")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Store: store, Runner: f, Workers: f, Version: "v0", ControlLog: controlLog, Log: slog.New(slog.DiscardHandler)}
	configure(&c)
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(home, listen)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	cl, err := client.New(client.Config{Socket: SocketPath(home.Dir)})
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		cl.Close()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := controlLog.Close(context.Background()); err != nil && !errors.Is(err, audit.ErrClosed) { // a test may have closed it
			t.Errorf("closing the log of the control plane: %v", err)
		}
		_ = store.Close()
		_ = home.Close()
	})
	t.Cleanup(end)
	return &fixture{fleet: f, home: home.Dir, client: cl, server: s, listeners: l, end: end}
}

func reopenStore(t *testing.T, home string) *agent.Store {
	t.Helper()
	store, err := agent.Open(t.Context(), agent.Config{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func worker(t *testing.T, f *fleet) {
	t.Helper()
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(control.PathRecord, f.record)
	mux.HandleFunc("POST "+control.PathKeys, f.rekey)
	mux.HandleFunc("POST "+control.PathConsistency, f.consistency)
	mux.HandleFunc("POST "+control.PathSearch, func(rw http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(rw).Encode(f.past) })
	f.serveApprovals(mux)
	serveTools(mux)
	w := httptest.NewUnstartedServer(mux)
	w.Listener = l
	w.Start()
	t.Cleanup(w.Close)
}

const support = "ambit: v1\nname: support\negress:\n  allow:\n    - {host: api.example.com, methods: [GET]}\n"

func (f *fixture) deploy(t *testing.T, source string) api.Deployed {
	t.Helper()
	d, err := f.client.Deploy(t.Context(), api.Deploy{File: "a.yaml", Manifest: source})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDeployIsLoggedBeforeItHappens(t *testing.T) {
	f := serve(t, "")
	d := f.deploy(t, support)
	if !d.Created || !d.Changed || d.Version.N != 1 || d.Agent.Desired != "running" || len(d.Reach) != 1 || d.Reach[0] != "GET https://api.example.com:443" {
		t.Errorf("first deploy: %+v", d)
	}
	if got, want := f.history(), "log agent.deploy, apply support"; got != want {
		t.Errorf("it did %q, want %q", got, want)
	}
	if e := f.events[0]; e.Detail != "version 1, sha256 "+agent.Sum([]byte(support)) || e.Principal != principalOf(os.Geteuid()) {
		t.Errorf("logged %+v", e)
	}
	if d := f.deploy(t, support); d.Created || d.Changed || d.Version.N != 1 {
		t.Errorf("the same again: %+v", d)
	}
	if got := f.history(); got != "apply support" {
		t.Errorf("the same again did %q", got)
	}
	if d := f.deploy(t, support+"description: two\n"); d.Version.N != 2 || f.events[1].Detail[:10] != "version 2," {
		t.Errorf("second version: %+v", d)
	}
	if d, err := f.client.Redeploy(t.Context(), "support", 1, false); err != nil || d.Version.N != 3 {
		t.Errorf("Redeploy: %+v, %v", d, err)
	}
	versions, err := f.client.Versions(t.Context(), "support")
	if err != nil || len(versions) != 3 || !versions[0].Current || versions[0].Note != "version 1 again" {
		t.Errorf("Versions: %+v, %v", versions, err)
	}
	if v, err := f.client.VersionSource(t.Context(), "support", 3); err != nil || v.Source != support {
		t.Errorf("VersionSource: %+v, %v", v, err)
	}
}

func TestWhatCannotBeLoggedDoesNotHappen(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	f.broken = true
	f.exec = func(context.Context, ExecSpec, ExecIO) (int, error) {
		f.note("exec")
		return 0, nil
	}
	for name, do := range map[string]func() error{
		"deploy": func() error { _, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: support + "\n"}); return err },
		"new": func() error {
			_, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: "ambit: v1\nname: other\n"})
			return err
		},
		"redeploy": func() error { _, err := f.client.Redeploy(t.Context(), "support", 1, false); return err },
		"start":    func() error { _, err := f.client.Start(t.Context(), "support"); return err },
		"exec": func() error {
			_, err := f.client.Exec(t.Context(), "support", api.Exec{Argv: []string{"true"}}, client.Streams{})
			return err
		},
	} {
		err := do()
		if err == nil || !strings.Contains(err.Error(), "nothing was done") || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := f.history(); got != "remove other" {
		t.Errorf("it did %q", got)
	}
	if agents, err := f.client.Agents(t.Context()); err != nil || len(agents) != 1 || agents[0].Version != 1 {
		t.Errorf("agents: %+v, %v", agents, err)
	}
	// What only takes away happens all the same.
	if a, err := f.client.Stop(t.Context(), "support"); err != nil || a.Desired != "stopped" {
		t.Errorf("stop: %+v, %v", a, err)
	}
	if _, err := f.client.Wipe(t.Context(), "support"); err != nil {
		t.Errorf("wipe: %v", err)
	}
	if got := f.history(); got != "apply support, remove support" {
		t.Errorf("stop and wipe did %q", got)
	}
}

func TestStartAndStopAreLogged(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	if a, err := f.client.Stop(t.Context(), "support"); err != nil || a.Desired != "stopped" {
		t.Errorf("stop: %+v, %v", a, err)
	}
	if d := f.deploy(t, support+"description: x\n"); d.Agent.Desired != "stopped" {
		t.Errorf("a deploy started what a person stopped: %+v", d)
	}
	if a, err := f.client.Start(t.Context(), "support"); err != nil || a.Desired != "running" {
		t.Errorf("start: %+v, %v", a, err)
	}
	if _, err := f.client.Wipe(t.Context(), "support"); err != nil {
		t.Error(err)
	}
	want := "log agent.stop, apply support, log agent.deploy, apply support, log agent.start, apply support, log agent.wipe, remove support"
	if got := f.history(); got != want {
		t.Errorf("it did %q\nwant   %q", got, want)
	}
	for _, err := range []error{second(f.client.Wipe(t.Context(), "support")), second(f.client.Start(t.Context(), "support")), second(f.client.Status(t.Context(), "nobody"))} {
		if p := problemFrom(err); p == nil || p.Status != http.StatusNotFound {
			t.Errorf("after the wipe: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestDeploysOfOneAgentTakeTurns(t *testing.T) {
	f := serve(t, "")
	f.enter, f.leave = make(chan struct{}), make(chan struct{})
	f.server.turns.wait = 0
	first := make(chan error, 1)
	go func() { _, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: support}); first <- err }()
	<-f.enter
	_, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: support})
	if p := problemFrom(err); p == nil || p.Status != http.StatusConflict || !strings.Contains(p.Detail, "another deploy of support is running") {
		t.Errorf("a second deploy: %v", err)
	}
	other := make(chan error, 1)
	go func() {
		_, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: "ambit: v1\nname: other\n"})
		other <- err
	}()
	<-f.enter // at the same time
	close(f.leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-other; err != nil {
		t.Error(err)
	}
	if len(f.server.turns.m) != 0 {
		t.Errorf("turns that nobody has: %v", f.server.turns.m)
	}
}

func TestExec(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	f.exec = func(_ context.Context, s ExecSpec, e ExecIO) (int, error) {
		f.note("exec")
		if s.Intent != "greet" || s.By != principalOf(os.Geteuid()) || !s.TTY || s.Rows != 24 {
			t.Errorf("spec %+v", s)
		}
		in, err := io.ReadAll(e.Stdin)
		if err != nil {
			return 0, err
		}
		if size := <-e.Resize; size != (Size{50, 132}) {
			t.Errorf("size %+v", size)
		}
		_, _ = e.Stdout.Write(bytes.ToUpper(in))
		_, _ = e.Stderr.Write([]byte("warned"))
		return 7, nil
	}
	sizes := make(chan [2]uint16, 1)
	sizes <- [2]uint16{50, 132}
	var stdout, stderr bytes.Buffer
	code, err := f.client.Exec(t.Context(), "support", api.Exec{Argv: []string{"sh", "-c", "echo \x1b[1m"}, Intent: "greet", TTY: true, Rows: 24, Cols: 80},
		client.Streams{Stdin: strings.NewReader(strings.Repeat("hello ", 50000)), Stdout: &stdout, Stderr: &stderr, Resize: sizes})
	if err != nil || code != 7 || stdout.Len() != 300000 || stderr.String() != "warned" {
		t.Errorf("exec: %d, %v, %d bytes, %q", code, err, stdout.Len(), stderr.String())
	}
	if got := f.history(); got != "log agent.exec, exec, log agent.exec.end" {
		t.Errorf("it did %q", got)
	}
	begin, end := f.events[1], f.events[2]
	if begin.Detail != `sh -c $'echo \x1b[1m'` || begin.Intent != "greet" || *end.Of != 1 || end.Status != 7 {
		t.Errorf("logged %+v and %+v", begin, end)
	}
}

func TestExecEndsWithItsCaller(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	running, ended := make(chan struct{}), make(chan error, 1)
	f.exec = func(ctx context.Context, _ ExecSpec, _ ExecIO) (int, error) {
		close(running)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-running; cancel() }()
	stdin, w := io.Pipe()
	defer func() { _ = w.Close() }()
	if _, err := f.client.Exec(ctx, "support", api.Exec{Argv: []string{"sleep"}}, client.Streams{Stdin: stdin, Stdout: io.Discard, Stderr: io.Discard}); err != context.Canceled {
		t.Errorf("exec: %v", err)
	}
	if err := <-ended; err != context.Canceled {
		t.Errorf("the program: %v", err)
	}
}

func TestExecRefused(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	f.history()
	for name, e := range map[string]api.Exec{
		"no program":      {},
		"a zero byte":     {Argv: []string{"a\x00b"}},
		"too long":        {Argv: []string{"a", strings.Repeat("x", maxArgs)}},
		"no environment":  {Argv: []string{"a"}, Env: []string{"=x"}},
		"relative folder": {Argv: []string{"a"}, Dir: "x"},
		"long intent":     {Argv: []string{"a"}, Intent: strings.Repeat("x", ambit.MaxIntent+1)},
	} {
		_, err := f.client.Exec(t.Context(), "support", e, client.Streams{})
		if p := problemFrom(err); p == nil || p.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.client.Exec(t.Context(), "nobody", api.Exec{Argv: []string{"a"}}, client.Streams{}); problemFrom(err) == nil || problemFrom(err).Status != http.StatusNotFound {
		t.Errorf("of nobody: %v", err)
	}
	if got := f.history(); got != "" {
		t.Errorf("it did %q", got)
	}
}

// FuzzPump feeds an exec connection with what a hostile caller sends.
func FuzzPump(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 'h', 'i', 5, 0, 0, 0, 0})
	f.Add([]byte{3, 0, 0, 0, 4, 0, 24, 0, 80, 3, 0, 0, 0, 4, 0, 1, 0, 1})
	f.Add([]byte{7, 0, 0, 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, in []byte) {
		stdin, w := io.Pipe()
		go func() { _, _ = io.Copy(io.Discard, stdin) }()
		if err := pump(bytes.NewReader(in), w, make(chan Size, 1)); err == nil {
			t.Fatal("it ended without a reason")
		}
		_ = w.Close()
		_, _ = readSpec(bytes.NewReader(in))
	})
}

func TestServeEndsWithStreamsOpen(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	started := make(chan struct{})
	f.exec = func(ctx context.Context, _ ExecSpec, _ ExecIO) (int, error) {
		close(started)
		<-ctx.Done()
		return 0, ctx.Err()
	}
	result := make(chan error, 1)
	go func() {
		_, err := f.client.Exec(context.Background(), "support", api.Exec{Argv: []string{"sleep"}}, client.Streams{Stdout: io.Discard, Stderr: io.Discard})
		result <- err
	}()
	<-started
	f.end()
	if err := <-result; err == nil {
		t.Error("the exec was not told")
	}
}
