//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ambit"
	"ambit/agent"
)

// as runs the attacker on the host, as another user of the host.
func (h *home) as(uid, gid uint32, stdin string, args ...string) result {
	h.t.Helper()
	path := filepath.Join(filepath.Dir(h.dir), "attacker")
	if _, err := os.Stat(path); err != nil {
		program, err := attacker()
		if err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, program, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	var out, errOut bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", strings.NewReader(stdin), &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	_ = cmd.Run()
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// shellAs runs shell lines in a folder of the host, as another user of the host.
func (h *home) shellAs(uid, gid uint32, dir, lines string) result {
	h.t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.Command("sh", "-c", "cd "+dir+" || exit 1\n"+lines)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	_ = cmd.Run()
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// ownerOf is who owns a path on the host.
func ownerOf(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return sys.Uid, sys.Gid
}

// TestC1OtherAgentsOnTheHost (rows C1 and B1): whoever broke out of agent A's
// computer, or took its worker over, has A's user id on the host. With it,
// nothing of the control plane and of agent B can be read or connected to.
func TestC1OtherAgentsOnTheHost(t *testing.T) {
	h := newRootHome(t)
	h.deploy(manifest("a", ""))
	h.deploy(manifest("b", ""))
	if r := h.sh("b", "echo "+secret+" >/home/agent/secret; chmod 777 /home/agent /workspace; chmod 666 /home/agent/secret"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	agents := filepath.Join(h.dir, "agents")
	computerA, group := ownerOf(t, filepath.Join(agents, "a", "home"))
	workerA, _ := ownerOf(t, filepath.Join(agents, "a", "state"))
	computerB, groupB := ownerOf(t, filepath.Join(agents, "b", "home"))
	if computerA == 0 || workerA == 0 || computerA == workerA || computerA == computerB || group == groupB {
		t.Fatalf("user ids: %d %d %d, groups %d %d", computerA, workerA, computerB, group, groupB)
	}
	if r := h.as(computerB, groupB, "", "files", filepath.Join(agents, "b", "home", "secret")); !strings.Contains(r.stdout, secret) {
		t.Fatalf("the test cannot even see b's file as b: %+v", r)
	}
	for who, uid := range map[string]uint32{"computer": computerA, "worker": workerA} {
		var paths []string
		err := filepath.WalkDir(h.dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if p == filepath.Join(agents, "a") || p == filepath.Join(h.dir, "bin") {
				return filepath.SkipDir // its own, and the program
			}
			if e.Type()&fs.ModeSocket != 0 {
				if r := h.as(uid, group, "GET / HTTP/1.0\r\n\r\n", "raw", "unix:"+p); r.code == 0 || !strings.Contains(r.stderr, "permission denied") {
					t.Errorf("a's %s connects to %s: %+v", who, p, r)
				}
				return nil
			}
			paths = append(paths, p)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range attempts(t, h.as(uid, group, "", append([]string{"files"}, paths...)...).stdout) {
			if got.Worked {
				t.Errorf("a's %s reads %s: %s", who, got.Try, got.Detail)
			}
		}
	}
	// The computer's user must not read what the worker of the same agent has.
	for _, dir := range []string{"state", "output", "run"} {
		for _, got := range attempts(t, h.as(computerA, group, "", "files", filepath.Join(agents, "a", dir), filepath.Join(agents, "a", dir, "agent.db"), filepath.Join(agents, "a", dir, "control.sock")).stdout) {
			if got.Worked {
				t.Errorf("a's computer reads its worker's %s: %s", got.Try, got.Detail)
			}
		}
	}
	// Nor the memory, the descriptors or the environment of any process of ours.
	var files []string
	for _, pid := range ambitProcesses(t, h.dir) {
		if uid, _ := ownerOf(t, fmt.Sprintf("/proc/%d", pid)); uid == computerA {
			continue
		}
		for _, file := range []string{"mem", "environ", "maps", "fd"} {
			files = append(files, fmt.Sprintf("/proc/%d/%s", pid, file))
		}
	}
	for _, got := range attempts(t, h.as(computerA, group, "", append([]string{"files"}, files...)...).stdout) {
		if got.Worked {
			t.Errorf("a's computer reads %s: %s", got.Try, got.Detail)
		}
	}
}

// ambitProcesses are the processes that run a home's own program, which is every
// one of its agents', and its serve.
func ambitProcesses(t *testing.T, dir string) (pids []int) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		to, err := os.Readlink(p)
		environ, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "environ"))
		if err == nil && (strings.HasPrefix(to, dir+"/") || bytes.Contains(environ, []byte("AMBIT_HOME="+dir+"\x00"))) {
			var pid int
			if _, err := fmt.Sscanf(p, "/proc/%d/exe", &pid); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if len(pids) == 0 {
		t.Fatal("no process of the home was found")
	}
	return pids
}

// TestC2TheWorkersControlSocket (row C2): a worker obeys its own token, shown by
// the control plane's user, and nothing else; what else is tried is alerted.
func TestC2TheWorkersControlSocket(t *testing.T) {
	h := newRootHome(t)
	h.deploy(manifest("a", ""))
	h.deploy(manifest("b", ""))
	h.kill() // workers go on; the store is nobody's meanwhile
	store, err := agent.Open(t.Context(), agent.Config{Home: h.dir, OwnUID: true})
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[ambit.AgentID]string{}
	for _, id := range []ambit.AgentID{"a", "b"} {
		if tokens[id], err = store.WorkerToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(h.dir, "agents", "a", "run", "control.sock")
	workerA, group := ownerOf(t, socket)
	ask := func(uid uint32, token, method, path, body string) string {
		auth := ""
		if token != "" {
			auth = "Authorization: Bearer " + token + "\r\n"
		}
		r := h.as(uid, group, fmt.Sprintf("%s %s HTTP/1.0\r\nHost: worker\r\n%sContent-Length: %d\r\n\r\n%s", method, path, auth, len(body), body), "raw", "unix:"+socket)
		status, _, _ := strings.Cut(r.stdout, "\r\n")
		return status + r.stderr
	}
	if got := ask(0, tokens["a"], "GET", "/status", ""); !strings.Contains(got, "200") {
		t.Fatalf("the control plane's own question: %s", got)
	}
	for what, got := range map[string]string{
		"b's token":                     ask(0, tokens["b"], "GET", "/status", ""),
		"no token":                      ask(0, "", "GET", "/head", ""),
		"an empty token":                ask(0, " ", "GET", "/head", ""),
		"a token with more":             ask(0, tokens["a"]+"x", "GET", "/head", ""),
		"b's token, a policy":           ask(0, tokens["b"], "POST", "/apply", `{"version":99,"source":"ambit: v1\nname: a\n"}`),
		"b's token, a log entry":        ask(0, tokens["b"], "POST", "/record", `{"kind":"agent.stop","detail":"forged"}`),
		"b's token, stop":               ask(0, tokens["b"], "POST", "/stop", ""),
		"a's token, but a user of a's":  ask(workerA, tokens["a"], "GET", "/status", ""),
		"a's token, a user of a's, log": ask(workerA, tokens["a"], "POST", "/record", `{"kind":"agent.stop","detail":"forged"}`),
	} {
		if !strings.Contains(got, "403") {
			t.Errorf("%s: %s", what, got)
		}
	}
	if got := ask(ordinaryUser, tokens["a"], "GET", "/status", ""); !strings.Contains(got, "permission denied") {
		t.Errorf("another user of the host: %s", got)
	}
	h.serve()
	found := false
	for _, a := range h.alerts("a") {
		found = found || a.Severity == "critical" && strings.HasPrefix(a.Key, "control-refused") && a.Count >= 9
	}
	if !found {
		t.Errorf("alerts: %+v", h.alerts("a"))
	}
	if out := h.run("audit", "verify", "a"); !strings.Contains(out, "is whole") {
		t.Errorf("verify: %s", out)
	}
	if s := h.run("status", "a"); !strings.Contains(s, "running") || strings.Contains(s, "99") {
		t.Errorf("status: %s", s)
	}
}
