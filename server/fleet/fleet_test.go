//go:build linux

package fleet

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambit/agent"
	"ambit/sandbox"
	"ambit/sandbox/gvisor"
)

func TestBackoff(t *testing.T) {
	var b backoff
	var sum time.Duration
	for range 12 {
		sum += b.after(0)
	}
	if b.next != backoffMost || sum < time.Minute {
		t.Errorf("twelve quick deaths are spread over %v, next after %v", sum, b.next)
	}
	if d := b.after(backoffCalm); d != backoffFirst {
		t.Errorf("after a long life it waits %v", d)
	}
}

func TestOwners(t *testing.T) {
	a, b := ownerOf(agent.Agent{UID: 200000}), ownerOf(agent.Agent{UID: 200001})
	if os.Geteuid() != 0 {
		if a.worker != os.Geteuid() || a.computer != os.Geteuid() {
			t.Errorf("not root, and yet %+v", a)
		}
		return
	}
	ids := map[int]bool{a.worker: true, a.computer: true, b.worker: true, b.computer: true}
	if len(ids) != 4 || ids[0] || a.group == b.group {
		t.Errorf("agents share users: %+v %+v", a, b)
	}
}

// TestB2FoldersReplaced: a link where an agent's folder should be is not
// followed; nothing is started.
func TestB2FoldersReplaced(t *testing.T) {
	home, victim := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(agentsDir(home), 0o711); err != nil {
		t.Fatal(err)
	}
	own := ownerOf(agent.Agent{UID: 200000})
	l, err := makeFolders(home, "support", own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := makeFolders(home, "support", own); err != nil {
		t.Errorf("a second time: %v", err)
	}
	before, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.Home()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, l.Home()); err != nil {
		t.Fatal(err)
	}
	if _, err := makeFolders(home, "support", own); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("it went on: %v", err)
	}
	after, err := os.Stat(victim)
	if err != nil || after.Mode() != before.Mode() || after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("the folder that the link leads to was changed: %v", err)
	}
	if err := os.WriteFile(filepath.Join(victim, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeAgentDir(home, "support"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(victim, "keep")); err != nil {
		t.Error("deleting the agent deleted what a link of its leads to")
	}
}

// TestKillStrays ends what carries the state folder of this computer in its
// arguments, and nothing else.
func TestKillStrays(t *testing.T) {
	dir := t.TempDir()
	start := func(dir string) (*exec.Cmd, chan struct{}) {
		cmd := exec.Command("/bin/sh", "-c", "read x", "runsc-sandbox", "--root="+gvisor.StateDir(dir), "boot")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close() })
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		return cmd, done
	}
	_, mine := start(dir)
	other, others := start(dir + "-other")
	for !isComputer(other.Process.Pid, dir+"-other", os.Geteuid()) {
		time.Sleep(time.Millisecond) // until it is the shell
	}
	killStrays(dir, os.Geteuid()+1) // of another user: not ours to end
	select {
	case <-mine:
		t.Fatal("a process of another user's computer was ended")
	default:
	}
	killStrays(dir, os.Geteuid())
	<-mine
	select {
	case <-others:
		t.Error("another computer's process was ended")
	default:
		_ = other.Process.Kill()
		<-others
	}
}

// TestCgroups runs where the tests may make control groups: a process under a
// limit is ended by the kernel when it takes more.
func TestCgroups(t *testing.T) {
	l := newLimiter("/ambit-test-"+filepath.Base(t.TempDir()), slog.New(slog.DiscardHandler))
	if !l.enforced() {
		t.Skip("no control group is delegated to this process")
	}
	t.Cleanup(l.close)
	cmd := exec.Command("/bin/sh", "-c", `read go; x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.add("hog", cmd.Process.Pid, limits(1<<20))
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", cmd.ProcessState)
	}
	if !l.outOfMemory("hog") {
		t.Error("nobody says that memory was the reason")
	}
	l.remove("hog")
	l.close()
	for c, root := range l.roots {
		if _, err := os.Stat(root); err == nil {
			t.Errorf("the %s group is still there", c)
		}
	}
}

func TestDiskUse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	if n := diskUse(t.Context(), []string{dir}); n < 1<<20 || n > 2<<20 {
		t.Errorf("a folder with 1 MiB and a link to / takes %d bytes", n)
	}
}

func limits(memory int64) sandbox.Limits {
	return sandbox.Limits{Memory: memory, CPUs: 1, Processes: 16, Disk: 1 << 20}
}
