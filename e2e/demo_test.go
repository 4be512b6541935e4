//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo runs the demonstration as an ordinary user and as root: it works, six
// ways out are refused, and nothing of it is left.
func TestDemo(t *testing.T) {
	for name, uid := range map[string]int{"ordinary user": notRoot(), "root": 0} {
		t.Run(name, func(t *testing.T) {
			if uid == 0 && os.Geteuid() != 0 {
				t.Skip("this test runs ambit demo as root, and the tests do not run as root")
			}
			cmd, left := demoCommand(t, uid, "demo", "--once")
			var out, errOut bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errOut
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s%s", err, &out, &errOut)
			}
			text := out.String()
			for _, want := range []string{
				"control plane in " + strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "TMPDIR="), "passed   answers", "6 of 6 ways out refused", "the log is whole", "connectors[0] \"shop\" (line 5)",
				"no rule allows paste.demo.example", "SHOP_TOKEN=", "the shop's key is in none of them", "a person revokes the account", "is not connected", "The data was read 3 times and written once", "one byte is changed; ambit audit verify: event ", "was changed: it does not decrypt", "no rule names", "no rule allows the path /v1/customers",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if n := strings.Count(text, "\n  refused  "); n != 9 {
				t.Errorf("%d tries were refused, want 9:\n%s", n, text)
			}
			if strings.ContainsRune(text, '\x1b') || errOut.Len() > 0 {
				t.Errorf("it is not plain without a terminal:\n%q\n%s", text, &errOut)
			}
			left()
		})
	}
}

// TestDemoJSON: each attack as the log has it.
func TestDemoJSON(t *testing.T) {
	cmd, left := demoCommand(t, notRoot(), "demo", "--once", "--json")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var result struct {
		Ways, Refused int
		Attacks       []struct {
			Name, Why string
			Passed    bool
			Calls     []call
		}
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if result.Ways != 6 || result.Refused != 6 || len(result.Attacks) != 8 {
		t.Errorf("%+v", result)
	}
	logged := 0
	for _, a := range result.Attacks {
		for _, c := range a.Calls {
			logged++
			if c.Decision != "deny" || c.Reason == nil || !strings.Contains(a.Why, c.Reason.Text) {
				t.Errorf("%s: %+v", a.Name, c)
			}
		}
	}
	if logged != 5 { // a file, and what goes past the proxy to an address, never become a call
		t.Errorf("the log has %d of the attacks, want 5: %+v", logged, result.Attacks)
	}
	left()
}

// TestDemoStaysAndEnds: without --once the commands that it names work until
// Ctrl-C, and a second Ctrl-C does not keep it from cleaning up.
func TestDemoStaysAndEnds(t *testing.T) {
	cmd, left := demoCommand(t, notRoot(), "demo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var home string
	var commands [][]string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) > 1 && words[0] == "export" {
			home = strings.TrimPrefix(words[1], "AMBIT_HOME=")
		}
		if len(words) > 1 && words[0] == cmd.Path {
			line, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), "  ")
			commands = append(commands, strings.Fields(line)[1:])
		}
		if len(words) > 1 && words[1] == "audit" { // the last
			break
		}
	}
	if home == "" || len(commands) != 6 {
		t.Errorf("home %q, commands %q", home, commands)
	}
	for _, args := range commands {
		look := exec.Command(cmd.Path, args...)
		look.Env = append(cmd.Env, "AMBIT_HOME="+home)
		look.SysProcAttr = cmd.SysProcAttr
		if said, err := look.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", look.Args, err, said)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	left()
}

// TestDemoInterrupted ends the demonstration while it is being set up, at
// moments that its own output tells.
func TestDemoInterrupted(t *testing.T) {
	for _, at := range []string{"control plane", "one account", "At work", "raw IP", "Its account"} {
		t.Run(at, func(t *testing.T) {
			cmd, left := demoCommand(t, notRoot(), "demo", "--once")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), at) {
			}
			_ = cmd.Process.Signal(syscall.SIGINT)
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit code %d, want 130", code)
			}
			left()
		})
	}
}

func notRoot() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return ordinaryUser
}

// demoCommand prepares the demonstration with a folder of its own for temporary
// files. left finds what it left behind.
func demoCommand(t *testing.T, uid int, args ...string) (cmd *exec.Cmd, left func()) {
	t.Helper()
	h := makeHome(t, uid)
	tmp := filepath.Join(filepath.Dir(h.dir), "t")
	if err := os.Mkdir(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(tmp, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	cmd = h.command(args...)
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	return cmd, func() {
		t.Helper()
		if list, err := os.ReadDir(tmp); err != nil || len(list) > 0 {
			t.Errorf("it left %v (%v)", list, err)
		}
		h.await(func() bool { return len(demoProcesses(tmp)) == 0 }, 10*time.Second, "all its processes to be gone")
	}
}

// demoProcesses lists the processes that run a program below dir or have it in
// their arguments.
func demoProcesses(dir string) (found []string) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range list {
		exe, _ := os.Readlink(filepath.Join(p, "exe"))
		args, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if strings.HasPrefix(exe, dir) || bytes.Contains(args, []byte(dir)) {
			found = append(found, p+" "+exe)
		}
	}
	return found
}
