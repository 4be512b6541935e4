//go:build linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// counted keeps the number in the query of each request that arrived.
type counted struct {
	mu  sync.Mutex
	ids []string
}

// ServeHTTP implements http.Handler.
func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.ids = append(c.ids, r.FormValue("n"))
	c.mu.Unlock()
	_, _ = fmt.Fprint(w, "hello")
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

// crashed is an agent whose program makes requests without end while its
// processes are killed.
type crashed struct {
	*home
	seen *counted
}

// pid is the one process of the agent that has all the words in its arguments;
// 0 if there is none.
func (c *crashed) pid(words ...string) int {
	for _, p := range agentProcesses(c.dir, "a") {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		all := alive(p)
		for _, w := range words {
			all = all && bytes.Contains(args, []byte(w))
		}
		if all {
			return p
		}
	}
	return 0
}

// agentProcesses are the worker and the computer's processes of an agent.
func agentProcesses(dir, agent string) (pids []int) {
	list, _ := os.ReadDir("/proc")
	folder := filepath.Join(dir, "agents", agent) + "/"
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		// A worker shows its program to root alone. An ordinary user's tests run one
		// after the other, so that there is one such worker of theirs.
		hidden := errors.Is(err, fs.ErrPermission) && isOurs(e.Name())
		if (strings.HasPrefix(exe, dir+"/bin/") || hidden) && bytes.HasSuffix(args, []byte("\x00worker\x00")) || bytes.Contains(args, []byte("--root="+folder)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isOurs says whether a process is of the user who runs the tests.
func isOurs(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	return err == nil && bytes.Contains(b, []byte(fmt.Sprintf("\nUid:\t%d\t", os.Geteuid())))
}

func (c *crashed) worker() int { return c.pid("worker\x00") }
func (c *crashed) kernel() int { return c.pid("--root=", "\x00boot\x00") }
func (c *crashed) gofer() int  { return c.pid("--root=", "\x00gofer\x00") }

// more waits until so many more requests have arrived.
func (c *crashed) more(n int) {
	c.t.Helper()
	want := c.seen.count() + n
	c.await(func() bool { return c.seen.count() >= want }, 60*time.Second, "requests to arrive")
}

// answers are the numbers of the requests that the program saw answered, and
// how many it saw fail. The last line may be cut short by a kill.
func (c *crashed) answers() (ids []string, failures int) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "agents", "a", "workspace", "answers"))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var id string
		switch {
		case !strings.HasSuffix(line, "}\n"):
		case strings.Contains(line, `"worked":true`):
			_, id, _ = strings.Cut(line, `{"try":"`)
			id, _, _ = strings.Cut(id, `"`)
			ids = append(ids, id)
		default:
			failures++
		}
	}
	return ids, failures
}

func (c *crashed) kill9(what string, pid int) {
	c.t.Helper()
	if pid == 0 {
		c.t.Fatalf("there is no %s", what)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatalf("killing the %s: %v", what, err)
	}
	c.await(func() bool { return !alive(pid) }, 20*time.Second, "the "+what+" to die")
}

// TestB5KilledAtAnyMoment (row B5): under load, worker, gVisor, init and control
// plane are killed. Meanwhile nothing leaves that is not decided; the same rules
// hold afterwards; what arrived outside, and what the program saw answered, is
// in the log, once; and the log is whole.
func TestB5KilledAtAnyMoment(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		c := &crashed{h, &counted{}}
		u := newUpstream(t, c.seen, "a.example")
		rules := u.rule("a.example", "      paths: [/load]")
		h.deploy(manifest("a", rules))
		h.plant("a")
		h.deploy(manifest("a", rules, "computer:\n  restart: always\n  command: [sh, -c, 'exec /workspace/attacker get 0 "+u.url("a.example", "/load")+" >>/workspace/answers']\n"))
		soon := func() { c.more(5 + rand.IntN(20)) }
		sameRules := func(after string) {
			h.await(func() bool {
				r := h.sh("a", "curl -sS "+u.url("a.example", "/other"))
				return strings.Contains(r.stdout, "urn:ambit:problem:path-not-allowed")
			}, 60*time.Second, "the same rules after the "+after+" was killed")
		}

		soon()
		noWayOutWithoutWorker(c)
		soon()
		sameRules("worker")
		kernel := c.kernel()
		c.kill9("worker", c.worker())
		soon()
		if c.kernel() != kernel {
			t.Error("the computer did not outlive its worker")
		}
		for what, pid := range map[string]func() int{"gVisor": c.kernel, "gofer": c.gofer} {
			worker := c.worker()
			c.kill9(what, pid())
			soon()
			sameRules(what)
			if c.worker() != worker {
				t.Errorf("the worker did not outlive the %s", what)
			}
		}
		killInit(c)
		soon()
		sameRules("init")

		worker := c.worker()
		kernel = c.kernel()
		for range 2 {
			h.kill()
			soon() // agents go on
			h.serve()
			soon()
			sameRules("control plane")
		}
		if c.worker() != worker || c.kernel() != kernel {
			t.Errorf("the next control plane did not take up the worker %d (now %d) and the computer %d (now %d)", worker, c.worker(), kernel, c.kernel())
		}
		h.run("stop", "a")
		checkLogged(c)
	})
}

// noWayOutWithoutWorker stops the control plane, so that it cannot start another
// worker, and kills the one there is.
func noWayOutWithoutWorker(c *crashed) {
	c.t.Helper()
	serve := c.cmd.Process
	if err := serve.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	c.kill9("worker", c.worker())
	arrived := c.seen.count()
	_, failed := c.answers()
	c.await(func() bool { _, now := c.answers(); return now >= failed+3 }, 60*time.Second, "requests to fail")
	if now := c.seen.count(); now != arrived {
		c.t.Errorf("%d requests left the computer while there was no worker", now-arrived)
	}
	if err := serve.Signal(syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
}

// killInit kills process 1 of the computer, with gVisor's own command.
func killInit(c *crashed) {
	c.t.Helper()
	kernel := c.kernel()
	uid, gid := ownerOf(c.t, filepath.Join(c.dir, "agents", "a", "home"))
	program, err := filepath.Glob(filepath.Join(c.dir, "bin", "ambit-[0-9a-f]*"))
	if err != nil || len(program) != 1 {
		c.t.Fatalf("%v %v", program, err)
	}
	cmd := c.command("--root="+filepath.Join(c.dir, "agents", "a", "computer", "runsc"), "kill", "computer", "KILL")
	cmd.Path, cmd.Args[0] = program[0], "runsc"
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("killing init: %v\n%s", err, out)
	}
	c.await(func() bool { return !alive(kernel) }, 20*time.Second, "the computer to end with its init")
}

// checkLogged holds what arrived and what was answered against the log.
func checkLogged(c *crashed) {
	c.t.Helper()
	logged := map[string]int{}
	for _, call := range c.calls("a") {
		to, err := url.Parse(call.URL)
		if err != nil {
			c.t.Fatal(err)
		}
		if call.Decision == "allow" {
			logged[to.Query().Get("n")]++
		}
	}
	answered, _ := c.answers()
	if len(answered) < 50 || len(c.seen.ids) < len(answered) {
		c.t.Errorf("%d answered, %d arrived", len(answered), len(c.seen.ids))
	}
	for _, id := range answered {
		if logged[id] != 1 {
			c.t.Errorf("request %s was answered and is %d times in the log", id, logged[id])
		}
	}
	for _, id := range c.seen.ids {
		if logged[id] != 1 {
			c.t.Errorf("request %s arrived outside and is %d times in the log", id, logged[id])
		}
	}
	if out := c.run("audit", "verify", "a"); !strings.Contains(out, "is whole") {
		c.t.Errorf("verify: %s", out)
	}
}
