//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestProgramsThatDoNotRun: a program that is not there, cannot be executed or
// ends at once makes a deploy that says so, and a status that says so.
func TestProgramsThatDoNotRun(t *testing.T) {
	h := newHome(t)
	for _, c := range []struct{ command, says string }{
		{"[no-such-program]", "command not found"},
		{"[/no/such/program]", "command not found"},
		{"[/etc/passwd]", "not executable"},
		{"[/usr]", "is a directory"},
		{"[sh, -c, 'echo out of work >&2; exit 3']", "exit code 3"},
		{"[sh, -c, 'kill -SEGV $$']", "exit code 139"},
	} {
		r, err := h.tryWith([]byte(manifest("a", "", "computer: {restart: never, command: "+c.command+"}\n")), "deploy", "-")
		if err == nil || r.code != 1 || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: %+v", c.command, r)
		}
		if s := h.run("status", "a"); !strings.Contains(s, "failed") || !strings.Contains(s, c.says) {
			t.Errorf("%s: %s", c.command, s)
		}
		if r, _ := h.try("exec", "a", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "does not run") {
			t.Errorf("%s: exec: %+v", c.command, r)
		}
	}
	if out := h.run("output", "a"); !strings.Contains(out, "out of work") {
		t.Errorf("output: %q", out)
	}
	// One that ends well is no failure.
	h.deploy(manifest("a", "", "computer: {restart: never, command: [sh, -c, 'sleep 0.3; echo all done']}\n"))
	h.await(func() bool { return strings.Contains(h.run("status", "a"), "stopped") }, 20*time.Second, "the program to end")
	// And one that is told to is started again, with a pause that grows.
	r, _ := h.tryWith([]byte(manifest("a", "", "computer: {restart: always, command: [sh, -c, 'echo again; exit 0']}\n")), "deploy", "-")
	h.await(func() bool { return strings.Count(h.run("output", "a"), "again") >= 3 }, 30*time.Second, "restarts: "+r.stderr)
	if s := h.run("status", "a"); !strings.Contains(s, "restarts") || strings.Contains(s, "restarts     0") {
		t.Errorf("status: %s", s)
	}
	h.run("stop", "a")
	if s := h.run("status", "a"); !strings.Contains(s, "stopped") {
		t.Errorf("status: %s", s)
	}
}

// TestWhatStaysAndWhatGoes: /home/agent and /workspace outlive the computer, and
// nothing else does; redeploy brings back an old manifest; wipe takes all.
func TestWhatStaysAndWhatGoes(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		h.deploy(manifest("a", "", "computer: {env: {WHICH: one}}\n"))
		h.sh("a", "echo kept >/home/agent/file; echo kept >/workspace/file; echo gone >/tmp/file; echo gone >/var/tmp/file; echo gone >/dev/shm/file")
		look := "cat /home/agent/file /workspace/file; cat /tmp/file /var/tmp/file /dev/shm/file 2>/dev/null; echo $WHICH"
		for _, step := range []struct {
			do    func()
			which string
		}{
			{func() { h.run("stop", "a"); h.run("start", "a") }, "one"},
			{func() { h.deploy(manifest("a", "", "computer: {env: {WHICH: two}}\n")) }, "two"},
			{func() { h.run("redeploy", "a", "1") }, "one"},
			{func() { h.stop(); h.serve(); h.awaitRunning("a") }, "one"},
		} {
			step.do()
			if r := h.sh("a", look); r.stdout != "kept\nkept\n"+step.which+"\n" {
				t.Errorf("%+v, want %s", r, step.which)
			}
		}
		// The control plane's own death changes nothing in the computer.
		h.sh("a", "echo stays >/tmp/file")
		h.kill()
		h.serve()
		h.awaitRunning("a")
		if r := h.sh("a", "cat /tmp/file"); r.stdout != "stays\n" {
			t.Errorf("after a crash of the control plane: %+v", r)
		}
		h.run("wipe", "a", "--yes")
		if r, err := h.try("status", "a"); err == nil {
			t.Errorf("status after a wipe: %+v", r)
		}
		h.deploy(manifest("a", ""))
		if r := h.sh("a", "ls -A /home/agent /workspace"); r.stdout != "/home/agent:\n\n/workspace:\n" {
			t.Errorf("what a new agent of the same name finds: %+v", r)
		}
	})
}

// awaitRunning waits until an agent's computer takes commands.
func (h *home) awaitRunning(agent string) {
	h.t.Helper()
	h.await(func() bool { r, err := h.try("exec", agent, "--", "true"); return err == nil && r.code == 0 }, 30*time.Second, agent+" to run")
}

// TestServeRefuses: a second serve of one home, a port that is taken, a home of
// a newer version.
func TestServeRefuses(t *testing.T) {
	h := newHome(t)
	if r, err := h.try("serve"); err == nil || !strings.Contains(r.stderr, "is serving") || !strings.Contains(r.stderr, "--home") {
		t.Errorf("a second serve: %+v", r)
	}
	h.stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if r, err := h.try("serve", "--listen", l.Addr().String()); err == nil || !strings.Contains(r.stderr, "is taken") || !strings.Contains(r.stderr, "--listen") {
		t.Errorf("a port that is taken: %+v", r)
	}
	if r, err := h.try("serve", "--listen", "0.0.0.0:0"); err == nil || !strings.Contains(r.stderr, "not a loopback address") {
		t.Errorf("a port for everyone: %+v", r)
	}
	version := filepath.Join(h.dir, "version")
	old, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(version, []byte("999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := h.try("serve"); err == nil || !strings.Contains(r.stderr, "newer") {
		t.Errorf("a home of a newer version: %+v", r)
	}
	if err := os.WriteFile(version, old, 0o600); err != nil {
		t.Fatal(err)
	}
	h.serve() // all of that has left it as it was
}

// TestDeploysAtTheSameTime: deploys of one agent come one after the other, or are
// told that another is under way; the last version is whole and enforced.
func TestDeploysAtTheSameTime(t *testing.T) {
	h := newHome(t)
	u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "a.example")
	results := make([]result, 6)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			results[i], _ = h.tryWith([]byte(manifest("a", u.rule("a.example", fmt.Sprintf("      paths: [/%d]", i)))), "deploy", "-")
		})
	}
	wg.Wait()
	done := 0
	for i, r := range results {
		if r.code == 0 {
			done++
		} else if !strings.Contains(r.stderr, "deploy") {
			t.Errorf("deploy %d: %+v", i, r)
		}
	}
	if done == 0 {
		t.Fatal("no deploy passed")
	}
	open := ""
	for i := range results {
		if r := h.sh("a", "curl -sS "+u.url("a.example", fmt.Sprintf("/%d", i))); r.stdout == "hello" {
			open += fmt.Sprint(i)
		}
	}
	if len(open) != 1 {
		t.Errorf("paths that are open: %q", open)
	}
	if n := strings.Count(h.run("versions", "a"), "\n") - 1; n != done {
		t.Errorf("%d deploys passed and there are %d versions", done, n)
	}
}

// TestFullDisk: with no room for the log nothing leaves, the program reads why,
// and all goes on once there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this test gives serve a small disk of its own, which needs root")
	}
	h := makeHome(t, ordinaryUser)
	seen := &asked{}
	u := newUpstream(t, seen, "a.example")
	owner := fmt.Sprint(ordinaryUser)
	if err := unix.Mount("tmpfs", h.dir, "tmpfs", unix.MS_NODEV, "size=300m,mode=0700,uid="+owner+",gid="+owner); err != nil {
		t.Skipf("this machine does not let root mount: %v", err)
	}
	t.Cleanup(func() { h.stop(); _ = unix.Unmount(h.dir, unix.MNT_DETACH) })
	h.serve()
	h.deploy(manifest("a", u.rule("a.example")))
	if r := h.sh("a", "curl -sS "+u.url("a.example", "/before")); r.stdout != "hello" {
		t.Fatalf("before: %+v", r)
	}
	var out lockedBuffer
	loop := h.command("exec", "a", "--", "sh", "-c", "echo begin; until curl -sS "+u.url("a.example", "/during")+" | grep log-unavailable; do :; done")
	loop.Stdout, loop.Stderr = &out, &out
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = loop.Wait(); close(ended) }()
	h.await(func() bool { return strings.Contains(out.String(), "begin") }, 20*time.Second, "the program to begin")
	fill(t, filepath.Join(h.dir, "filler"))
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Errorf("with a full disk: %s", out.String())
	}
	if !strings.Contains(out.String(), "see that the disk has room") {
		t.Errorf("the refusal: %s", out.String())
	}
	arrived := len(seen.take())
	if arrived == 0 {
		t.Error("no request arrived before the disk was full")
	}
	if r, err := h.try("exec", "a", "--", "curl", "-sS", u.url("a.example", "/full")); err == nil && strings.Contains(r.stdout, "hello") || err != nil && !strings.Contains(r.stderr, "log") {
		t.Errorf("a program on a full disk: %+v", r)
	}
	if list := seen.take(); len(list) > 0 {
		t.Errorf("arrived without a place in the log: %v", list)
	}
	if err := os.Remove(filepath.Join(h.dir, "filler")); err != nil {
		t.Fatal(err)
	}
	h.awaitRunning("a")
	if r := h.sh("a", "curl -sS "+u.url("a.example", "/after")); r.stdout != "hello" {
		t.Errorf("after: %+v", r)
	}
	if out := h.run("audit", "verify", "a"); !strings.Contains(out, "is whole") {
		t.Errorf("verify: %s", out)
	}
	logged := 0
	for _, c := range h.calls("a") {
		if c.Decision == "allow" && c.Status == 200 && c.URL != u.url("a.example", "/after") {
			logged++
		}
	}
	if logged > arrived {
		t.Errorf("%d requests arrived and %d are in the log as answered", arrived, logged)
	}
}

// fill takes all the room that a disk has.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
