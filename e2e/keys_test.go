//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambit/internal/transit"
)

// reported is the process id of an agent's worker, as it says itself.
func (h *home) reported(agent string) int {
	h.t.Helper()
	var s struct{ Reported struct{ PID int } }
	if err := json.Unmarshal([]byte(h.run("status", agent, "--json")), &s); err != nil || s.Reported.PID == 0 {
		h.t.Fatalf("status of %s: %v", agent, err)
	}
	return s.Reported.PID
}

// refused runs a command that must fail, and returns what it said.
func (h *home) refused(args ...string) string {
	h.t.Helper()
	r, err := h.try(args...)
	if err == nil {
		h.t.Fatalf("ambit %s succeeded:\n%s", strings.Join(args, " "), r.stdout)
	}
	return r.stderr
}

// TestKeysInAKMS follows a home whose root key is in a KMS: it goes on without
// the service, changes nothing without it, does not start without it, and its
// worker lives through all of it.
func TestKeysInAKMS(t *testing.T) {
	s := transit.New()
	defer s.Close()
	if err := s.Rotate("ambit"); err != nil {
		t.Fatal(err)
	}
	h := makeHome(t, ordinary())
	h.env = []string{"VAULT_ADDR=" + s.URL, "VAULT_TOKEN=" + s.Token, "VAULT_MAX_RETRIES=0"}
	h.serve()
	h.deploy(manifest("a", ""))
	worker := h.reported("a")
	if out := h.run("keys", "protect", "kms", "hashivault://ambit"); !strings.Contains(out, "the KMS key hashivault://ambit") {
		t.Errorf("protect: %s", out)
	}
	h.run("keys", "rotate", "root")
	h.run("keys", "rotate", "a")
	raw, err := os.ReadFile(filepath.Join(h.dir, "root.key"))
	if err != nil || !strings.Contains(string(raw), "\nurl: hashivault://ambit\n") {
		t.Errorf("root.key: %q, %v", raw, err)
	}

	s.Seal(true)
	if r := h.sh("a", "echo goes on"); r.stdout != "goes on\n" {
		t.Errorf("without the KMS: %+v", r)
	}
	h.deploy(manifest("b", "")) // gets keys
	for _, args := range [][]string{{"keys", "rotate", "root"}, {"keys", "protect", "kms", "hashivault://ambit"}} {
		if said := h.refused(args...); !strings.Contains(said, "nothing was changed") || !strings.Contains(said, "Vault is sealed") {
			t.Errorf("%v: %s", args, said)
		}
	}
	h.kill() // the worker goes on
	out, err := h.serveCommand().CombinedOutput()
	if said := string(out); err == nil || !strings.Contains(said, "Vault is sealed") || !strings.Contains(said, "VAULT_TOKEN_FILE") || strings.Contains(said, s.Token) {
		t.Errorf("serve without the KMS: %v\n%s", err, said)
	}
	if !alive(worker) {
		t.Fatal("the worker died")
	}
	s.Seal(false)
	h.serve()
	if now := h.reported("a"); now != worker {
		t.Errorf("worker %d was not taken up again: now it is %d", worker, now)
	}
	if out := h.run("keys", "protect", "file"); !strings.Contains(out, "the mode of its file") {
		t.Errorf("protect: %s", out)
	}
	h.env = nil
	h.kill()
	h.serve()
	if now := h.reported("a"); now != worker {
		t.Errorf("worker %d was not taken up again: now it is %d", worker, now)
	}
	h.run("audit", "verify", "a")
	h.run("audit", "verify", "b")
}

// TestRotationCutShort kills the control plane in the middle of rotations of
// the root key and of an agent's key: no worker is lost, and no log.
func TestRotationCutShort(t *testing.T) {
	h := newHome(t)
	h.deploy(manifest("a", ""))
	worker := h.reported("a")
	for i := range 8 {
		what := []string{"root", "a"}[i%2]
		rotate := h.command("keys", "rotate", what)
		if err := rotate.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i*10) * time.Millisecond) // any moment will do: before, within or after
		h.kill()
		_ = rotate.Wait()
		h.serve()
		if now := h.reported("a"); now != worker {
			t.Fatalf("after rotating %s: worker %d was not taken up again: now it is %d", what, worker, now)
		}
		if status := h.run("keys", "status", "--json"); !strings.Contains(status, `"old":[]`) {
			t.Errorf("after rotating %s: %s", what, status)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "root.key.new")); err == nil {
			t.Errorf("after rotating %s there is a root.key.new", what)
		}
	}
	h.stop()
	h.serve()
	h.run("audit", "verify", "a")
}

// TestK6TheControlPlanesMemory (row K6): nobody of the same user reads the
// memory or the environment of the process that has the root key.
func TestK6TheControlPlanesMemory(t *testing.T) {
	h := newHome(t)
	h.closed(h.cmd.Process.Pid)
}

// closed expects of a process that nobody of the same user can read its memory
// or its environment, and that it leaves no core behind.
func (h *home) closed(pid int) {
	h.t.Helper()
	proc := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		h.t.Fatal(err)
	}
	var uid uint32
	if _, of, _ := strings.Cut(string(status), "\nUid:"); of != "" {
		if _, err := fmt.Sscan(of, &uid); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, file := range []string{"mem", "maps", "environ"} {
		cmd := exec.Command("dd", "if="+proc+"/"+file, "of=/dev/null", "count=1")
		if os.Geteuid() == 0 {
			if uid == 0 {
				break // nothing is closed to root
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "ermission denied") {
			h.t.Errorf("%s of process %d: %v\n%s", file, pid, err, out)
		}
	}
	limits, err := os.ReadFile(proc + "/limits")
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes") {
		h.t.Errorf("core dumps of process %d: %v\n%s", pid, err, limits)
	}
}
