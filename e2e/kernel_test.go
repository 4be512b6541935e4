//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestB4KernelWithoutWhatIsNeeded (row B4): where the kernel gives no user
// namespaces or no Landlock, serve does not start, says what is missing and how
// to get it. It never runs weaker.
func TestB4KernelWithoutWhatIsNeeded(t *testing.T) {
	denied := buildTool(t, "denied")
	for _, c := range []struct {
		name string
		wrap []string
		says []string
	}{
		{"no user namespaces", []string{denied, "unshare"}, []string{"user namespace", "every computer needs"}},
		{"no Landlock", []string{denied, "landlock"}, []string{"no Landlock", "Linux 5.13", "lsm="}},
		{"a limit of zero user namespaces", nil, []string{"user namespace", "sysctl -w user.max_user_namespaces="}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := makeHome(t, ordinary())
			h.wrap = c.wrap
			if c.wrap == nil {
				h.inOwnMounts("echo 0 >/proc/sys/user/max_user_namespaces")
			}
			cmd := h.serveCommand()
			cmd.SysProcAttr = h.command().SysProcAttr
			if c.wrap == nil {
				if os.Geteuid() != 0 {
					t.Skip("setting a limit on user namespaces needs root")
				}
				// The limit is that of a user namespace of the test's own.
				all := []syscall.SysProcIDMap{{Size: 1 << 17}}
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true}
			}
			var out lockedBuffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			overdue := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
			defer overdue.Stop()
			err := cmd.Wait()
			if err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("serve: %v\n%s", err, out.String())
			}
			for _, s := range c.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("serve does not say %q:\n%s", s, out.String())
				}
			}
			if strings.Contains(out.String(), "answers at") {
				t.Errorf("serve says that it answers:\n%s", out.String())
			}
			if _, err := os.Stat(filepath.Join(h.dir, "agents", "a")); err == nil {
				t.Error("an agent was made")
			}
		})
	}
}

// buildTool builds one of the programs beside this package, for everyone to run.
func buildTool(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit-e2e-tool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, out)
	}
	return path
}
