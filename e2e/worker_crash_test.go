//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/control"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// kills is how often workers of TestWorkerKilled500Times are killed.
const kills = 500

// bareWorker is one agent's worker without computer and control plane, started
// as the control plane starts it.
type bareWorker struct {
	t      *testing.T
	binary string
	start  control.Start
	cmd    *exec.Cmd
	err    *bytes.Buffer
}

func newBareWorker(t *testing.T, source string) *bareWorker {
	t.Helper()
	b, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ambit") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := control.Layout(dir)
	for _, d := range []string{l.State(), l.Output(), l.Run(), l.Gate()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	key := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	return &bareWorker{t: t, binary: b, start: control.Start{
		Agent: "a", Dir: dir, Policy: control.Policy{Version: 1, Source: source}, Data: key(1), Sign: key(2),
		Vault: []control.VaultKey{{Version: 1, Key: key(3)}}, Token: "token", Caller: os.Geteuid(), Version: "test", Create: true,
	}}
}

// run starts the worker and returns when it decides.
func (w *bareWorker) run() {
	w.t.Helper()
	startR, startW, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	readyR, readyW, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	defer readyR.Close()
	w.err = new(bytes.Buffer)
	w.cmd = exec.CommandContext(context.Background(), w.binary, "worker")
	w.cmd.ExtraFiles, w.cmd.Stderr = []*os.File{startR, readyW}, w.err
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	_, _ = startR.Close(), readyW.Close()
	if err := json.NewEncoder(startW).Encode(w.start); err != nil {
		w.t.Fatal(err)
	}
	_ = startW.Close()
	_ = readyR.SetReadDeadline(time.Now().Add(30 * time.Second))
	if line, err := bufio.NewReader(readyR).ReadString('\n'); line != "ready\n" {
		w.t.Fatalf("the worker says %q, %v\n%s", line, err, w.err)
	}
	w.start.Create = false
}

// kill is kill -9.
func (w *bareWorker) kill() {
	w.t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	_ = w.cmd.Wait()
}

// asks makes requests one after the other on one connection through the gate,
// each with a number of its own, until the worker is gone, and returns those
// that were answered.
func (w *bareWorker) asks(to *url.URL, next *atomic.Int64, answered func(id string)) {
	c, err := net.Dial("unix", control.Layout(w.start.Dir).GateSock())
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	if _, err := fmt.Fprintf(c, "AMBIT/1 tcp %s %s\n", to.Hostname(), to.Port()); err != nil {
		return
	}
	for {
		id := fmt.Sprint(next.Add(1))
		if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\n\r\n", id, to.Host); err != nil {
			return
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || string(body) != id {
			if err == nil {
				w.t.Errorf("request %s was answered %s %q", id, res.Status, body)
			}
			return
		}
		answered(id)
	}
}

// TestWorkerKilled500Times: workers are killed at random moments under load, 500
// times. Every request that was answered, and every one that arrived outside, is
// in the log, once; and the log is whole.
func TestWorkerKilled500Times(t *testing.T) {
	const workers = 4
	for i := range workers {
		t.Run(fmt.Sprint("worker ", i+1), func(t *testing.T) {
			t.Parallel()
			killOften(t, kills/workers)
		})
	}
}

// traffic is what arrived outside, and what was answered.
type traffic struct {
	mu       sync.Mutex
	arrived  map[string]int
	answered []string
}

func (f *traffic) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/")
	f.mu.Lock()
	f.arrived[id]++
	f.mu.Unlock()
	_, _ = io.WriteString(rw, id)
}

func killOften(t *testing.T, rounds int) {
	f := &traffic{arrived: map[string]int{}}
	outside := httptest.NewServer(f)
	defer outside.Close()
	to, err := url.Parse(outside.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := newBareWorker(t, fmt.Sprintf("ambit: v1\nname: a\negress:\n  allow:\n    - {host: %s, ports: [%s], private: true, tls: none}\n", to.Hostname(), to.Port()))
	var next atomic.Int64
	for round := range rounds {
		w.run()
		var clients sync.WaitGroup
		first := make(chan struct{}, 1)
		for range 6 {
			clients.Go(func() {
				w.asks(to, &next, func(id string) {
					f.mu.Lock()
					f.answered = append(f.answered, id)
					f.mu.Unlock()
					select {
					case first <- struct{}{}:
					default:
					}
				})
			})
		}
		select {
		case <-first:
		case <-time.After(60 * time.Second):
			t.Fatalf("round %d: nothing was answered\n%s", round, w.err)
		}
		time.Sleep(time.Duration(rand.IntN(12_000)) * time.Microsecond) // the moment is random
		w.kill()
		clients.Wait()
	}
	outside.Close()
	logged := w.logged()
	for _, id := range f.answered {
		if logged[id] != 1 {
			t.Errorf("request %s was answered and is in the log %d times", id, logged[id])
		}
	}
	for id, n := range f.arrived {
		if logged[id] != 1 || n != 1 {
			t.Errorf("request %s arrived outside %d times and is in the log %d times", id, n, logged[id])
		}
	}
	t.Logf("%d kills, %d requests answered, %d arrived outside, %d in the log", rounds, len(f.answered), len(f.arrived), len(logged))
}

// logged counts the requests in the log by their number, and verifies it.
func (w *bareWorker) logged() map[string]int {
	t := w.t
	t.Helper()
	db, err := sqldb.Open(t.Context(), filepath.Join(control.Layout(w.start.Dir).State(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: "a", Keys: audit.Keys{Body: secretbytes.New(w.start.Data), Sign: secretbytes.New(w.start.Sign)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(log.Close(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
	}()
	if r, err := log.Verify(t.Context()); err != nil || !r.OK {
		t.Errorf("the log is not whole: %+v, %v", r, err)
	}
	counts := map[string]int{}
	for after := (*uint64)(nil); ; {
		events, err := log.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{ambit.KindEgressRequest}, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			_, id, _ := strings.Cut(strings.TrimPrefix(e.URL, "http://"), "/")
			counts[id]++
		}
		if len(events) == 0 {
			return counts
		}
		last := slices.MaxFunc(events, func(a, b ambit.Event) int { return int(a.Seq) - int(b.Seq) }).Seq
		after = &last
	}
}
