//go:build linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// victim is a folder of root's that nothing of an agent's may change.
type victim struct {
	dir    string
	before map[string]string
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit-e2e-victim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"folder", "folder/below"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "folder/file", "folder/below/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(secret), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	v := &victim{dir: dir}
	v.before = v.look(t)
	return v
}

// look notes the content, owner, mode and links of everything in the folder, and
// of files of the system that links like to point to.
func (v *victim) look(t *testing.T) map[string]string {
	t.Helper()
	seen := map[string]string{}
	note := func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		content := ""
		if st.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		seen[p] = fmt.Sprintf("%v %d:%d %d links %s", st.Mode(), sys.Uid, sys.Gid, sys.Nlink, content)
		return nil
	}
	if err := filepath.WalkDir(v.dir, note); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/etc/passwd", "/etc/group", "/etc/hosts"} {
		if err := note(p, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	return seen
}

func (v *victim) unchanged(t *testing.T, after string) {
	t.Helper()
	now := v.look(t)
	for p, was := range v.before {
		if now[p] != was {
			t.Errorf("after %s: %s was %s and is %s", after, p, was, now[p])
		}
	}
	for p := range now {
		if v.before[p] == "" {
			t.Errorf("after %s: %s is new", after, p)
		}
	}
}

// TestB2PlantedFiles (row B2, inside and by whoever got out): what an agent
// leaves in its folders is not followed, executed or believed when its computer
// is stopped, started, deployed again and wiped, by root above all.
func TestB2PlantedFiles(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		v := newVictim(t)
		h.deploy(manifest("a", ""))
		r := h.sh("a", strings.Join([]string{
			"cd /home/agent", "ln -s " + v.dir + "/file .bashrc", "ln -s " + v.dir + " folder", "ln -s /etc/passwd passwd", "ln -s / slash", "ln -s /proc/1/root proc",
			"cp /bin/sh sh && chmod 6777 sh", "mkfifo pipe", "mkdir -p deep/er && echo x >deep/er/x && chmod 0 deep/er/x && chmod 500 deep/er && chmod 0 deep",
			"cp sh /workspace/ambit", "ln -s " + v.dir + "/folder /workspace/x", "ln sh again", "echo x >\"$(printf 'a\\nb\\033[31m')\"",
			"touch /workspace/.profile; ln -s ../../../../../.." + v.dir + "/folder /workspace/up",
			"mknod disk b 8 0 2>/dev/null; mknod null c 1 3 2>/dev/null; ln /etc/passwd hard 2>/dev/null; ln /ambit/init.json hard 2>/dev/null; ls -l disk null hard 2>/dev/null; echo done",
		}, "\n"))
		if r.stdout != "done\n" {
			t.Errorf("planting: %+v", r)
		}
		h.plant("a")
		agent := filepath.Join(h.dir, "agents", "a")
		err := filepath.WalkDir(filepath.Join(agent, "home"), func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir
			}
			if e.Type()&(fs.ModeDevice|fs.ModeSocket) != 0 {
				t.Errorf("there is a device at %s", p)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if uid, _ := ownerOf(t, filepath.Join(agent, "home", "sh")); uid == 0 {
			t.Error("a set-user-id file of the agent's belongs to root of the host")
		}
		// The set-user-id program gives nothing inside either.
		if r := h.sh("a", "/home/agent/sh -p -c 'id -u; id -ru'"); r.stdout != "1000\n1000\n" {
			t.Errorf("a set-user-id program: %+v", r)
		}
		for i, step := range [][]string{{"stop", "a"}, {"start", "a"}, {"redeploy", "a", "1"}, {"stop", "a"}} {
			h.run(step...)
			v.unchanged(t, fmt.Sprint(i, step))
		}
		plantOutside(t, h, v, agent)
		for i, step := range [][]string{{"start", "a"}, {"exec", "a", "--", "true"}, {"redeploy", "a", "1"}, {"status", "a"}, {"output", "a"}, {"stop", "a"}, {"start", "a"}} {
			_, _ = h.try(step...) // it may refuse
			v.unchanged(t, fmt.Sprint("broken out, ", i, step))
		}
		h.run("wipe", "a", "--yes")
		v.unchanged(t, "wipe")
		if _, err := os.Lstat(agent); err == nil {
			t.Error("wipe left the agent's folder")
		}
		h.deploy(manifest("b", "")) // the control plane goes on
		if r := h.sh("b", "id -u"); r.stdout != "1000\n" {
			t.Errorf("another agent afterwards: %+v", r)
		}
	})
}

// plantOutside does on the host what the user id of a stopped computer, and of
// its worker, lets one do.
func plantOutside(t *testing.T, h *home, v *victim, agent string) {
	t.Helper()
	if os.Geteuid() != 0 || h.uid != 0 {
		return // all agents share one user, who owns the victim as well
	}
	computer, group := ownerOf(t, filepath.Join(agent, "home"))
	worker, _ := ownerOf(t, filepath.Join(agent, "state"))
	lines := []string{"cd computer || exit 1"}
	for _, name := range []string{"bundle", "rootfs", "etc", "ambit", "runsc", "images"} {
		lines = append(lines, "rm -rf "+name, "ln -s "+v.dir+"/folder "+name)
	}
	lines = append(lines, "rm -f pid gvisor.log", "ln -s /dev/zero pid", "ln -s "+v.dir+"/file gvisor.log", "cd ..")
	for _, name := range []string{"home", "workspace", "computer", "state", "gate"} {
		lines = append(lines, "mv "+name+" moved 2>/dev/null && ln -s "+v.dir+"/folder "+name+" && echo replaced "+name)
	}
	asUser := func(uid uint32, lines []string) {
		r := h.shellAs(uid, group, agent, strings.Join(lines, "\n"))
		if strings.Contains(r.stdout, "replaced") {
			t.Errorf("user %d: %+v", uid, r)
		}
	}
	asUser(computer, append(lines, "chmod 777 home; ln -s "+v.dir+"/folder home/link"))
	asUser(worker, []string{
		"mkdir state/old; mv state/* state/old 2>/dev/null; for f in agent.db agent.db-wal ca.sealed; do ln -s " + v.dir + "/file state/$f; done",
		"rm -f output/*; ln -s " + v.dir + "/file output/output.log; ln -s " + v.dir + "/file output/output.1.log",
		"mv state moved 2>/dev/null && echo replaced state", "rm -f run/control.sock gate/gate.sock; ln -s " + v.dir + "/file run/control.sock; ln -s " + v.dir + "/file gate/gate.sock",
	})
}
