//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestB3Floods (row B3, inside): an agent that takes all it can get of
// processes, memory, descriptors, connections, output, log and disk is held to
// its limits or ended, and says so; another agent and the control plane go on.
func TestB3Floods(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "a.example")
		h.deploy(manifest("a", u.rule("a.example"), "computer: {memory: 256MiB, processes: 64, disk: 64MiB, cpus: 1, restart: never}\n")) // what ended stays to be seen
		h.deploy(manifest("b", u.rule("a.example")))
		h.plant("a")
		for _, c := range []struct {
			kind string
			want string // what the attacker must say, or status if ended
			ends string // what status must say if the computer is ended
		}{
			{kind: "fork", want: "resource temporarily unavailable"},
			{kind: "files", want: "too many open files"},
			{kind: "connections", want: "after"},
			{kind: "names", want: "400"},
			{kind: "output"},
			{kind: "memory", ends: "memory limit of 256MiB"},
			{kind: "disk", ends: "disk limit of 64MiB"},
		} {
			f := h.flood(c.kind)
			if c.want != "" { // it then holds what it has
				h.await(func() bool { return strings.Contains(f.out.String(), c.want) }, 60*time.Second, c.kind+": the attacker to say "+c.want+": "+f.out.String())
			}
			othersGoOn(h, u, c.kind)
			if c.kind == "output" {
				f.wait(h)
			}
			if c.ends != "" {
				h.await(func() bool { return strings.Contains(h.run("status", "a"), c.ends) }, 60*time.Second, c.kind+": the status to say "+c.ends)
				if s := h.run("status", "a"); strings.Contains(s, "computer     running") {
					t.Errorf("%s: %s", c.kind, s)
				}
			}
			f.end()
			if c.kind == "disk" {
				break // its files are in the way of another start
			}
			if c.kind == "fork" || c.ends != "" {
				h.run("stop", "a")
				h.run("start", "a")
			}
			if r := h.sh("a", "curl -sS "+u.url("a.example", "/")); r.stdout != "hello" {
				t.Errorf("after %s: %+v", c.kind, r)
			}
		}
		if out := h.run("audit", "verify", "a"); !strings.Contains(out, "is whole") {
			t.Errorf("verify: %s", out)
		}
		var alerts uint64
		for _, a := range h.alerts("a") {
			alerts += a.Count
		}
		if alerts < 400 {
			t.Errorf("400 refused names are %d alerts", alerts)
		}
	})
}

// TestB3OutputIsBounded (row B3): a program that writes without end fills no
// disk of the host's.
func TestB3OutputIsBounded(t *testing.T) {
	h := newHome(t)
	h.deploy(manifest("a", ""))
	h.plant("a")
	h.deploy(manifest("a", "", "computer:\n  restart: never\n  command: [sh, -c, '/workspace/attacker flood output; echo the end']\n"))
	h.await(func() bool { return strings.HasSuffix(h.run("output", "a", "--tail", "100"), "the end\n") }, 60*time.Second, "32 MiB of output")
	var size int64
	err := filepath.WalkDir(filepath.Join(h.dir, "agents", "a", "output"), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && e.Type().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil || size > 10<<20 || size < 4<<20 {
		t.Errorf("32 MiB of output take %d bytes: %v", size, err)
	}
}

// flooding is the attacker at work inside.
type flooding struct {
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
}

func (h *home) flood(kind string) *flooding {
	h.t.Helper()
	f := &flooding{done: make(chan struct{})}
	f.cmd = h.command("exec", "a", "--", "/workspace/attacker", "flood", kind)
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.out
	if kind == "output" { // counted, and not kept
		f.cmd.Stdout = nil
	}
	if err := f.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = f.cmd.Wait(); close(f.done) }()
	h.t.Cleanup(f.end)
	return f
}

func (f *flooding) wait(h *home) {
	select {
	case <-f.done:
	case <-time.After(60 * time.Second):
		h.t.Error("the flood does not end")
	}
}

func (f *flooding) end() {
	_ = f.cmd.Process.Signal(os.Interrupt)
	select {
	case <-f.done:
	case <-time.After(10 * time.Second):
		_ = f.cmd.Process.Kill()
		<-f.done
	}
}

// othersGoOn expects that agent b and the control plane do what they are asked
// to; the bound is far above what it takes.
func othersGoOn(h *home, u *upstream, during string) {
	h.t.Helper()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"exec", "b", "--", "curl", "-sS", u.url("a.example", "/")}, "hello"},
		{[]string{"exec", "b", "--", "sh", "-c", "echo $((6 * 7))"}, "42"},
		{[]string{"status", "b"}, "running"}, {[]string{"agents"}, "a "}, {[]string{"egress", "a", "--limit", "5"}, ""}, {[]string{"audit", "head", "b"}, "b"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		cmd := h.command(c.args...)
		timed := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
		timed.Env, timed.Dir, timed.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
		out, err := timed.CombinedOutput()
		cancel()
		if err != nil || !bytes.Contains(out, []byte(c.says)) {
			h.t.Errorf("during %s, ambit %s: %v\n%s", during, strings.Join(c.args, " "), err, out)
		}
	}
}
