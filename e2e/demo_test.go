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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo runs the demonstration as an ordinary user and as root: it works, six
// ways out are refused, refunds pass, wait and are denied, and nothing of it is
// left.
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
				"no rule allows paste.demo.example", "SHOP_TOKEN=", "the shop's key is in none of them", "a person revokes the account", "is not connected", "The data was read 6 times, written 3 times, part of 2 payments and kept back 2 times", "A person was asked 2 times", "one byte is changed; ambit audit verify: event ", "was changed: it does not decrypt", "no rule names", "no rule allows the path /v1/customers",
				"passed   refunds 30 EUR", "asks     refunds 80 EUR", "80 EUR is more than 50 EUR", "the demo answers for you: ambit approvals approve support-1", "a person agreed, and it ran once",
				"asks     refunds 20 EUR", `account "DE89370400440532013000" comes from the result of desk.tickets.get`, "the demo answers for you: ambit approvals deny support-2", "a person said no",
				"refused  goes round the tool", "the shop paid what the rules and a person let through, and nothing else: 30 EUR, 80 EUR",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("it does not say %q:\n%s", want, text)
				}
			}
			if n := strings.Count(text, "\n  refused  "); n != 11 {
				t.Errorf("%d tries were refused, want 11:\n%s", n, text)
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
	type payment struct {
		Account string
		Amount  int
	}
	var result struct {
		Ways, Refused int
		Refunds       struct {
			Allowed, Paid []payment
			Questions     []struct {
				State, Tool string
				Provenance  []struct {
					Value, Text string
					Doubt       bool
				}
			}
		}
		Attacks []struct {
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
	const customer, thief = "GB29NWBK60161331926819", "DE89370400440532013000"
	r := result.Refunds
	if want := []payment{{customer, 30}, {customer, 80}}; !slices.Equal(r.Paid, want) || !slices.Equal(r.Allowed, want) {
		t.Errorf("paid %v, allowed %v", r.Paid, r.Allowed)
	}
	if q := r.Questions; len(q) != 2 || q[0].State != "done" || q[1].State != "denied" || !q[1].Provenance[0].Doubt || q[1].Provenance[0].Value != thief ||
		!strings.Contains(q[1].Provenance[0].Text, "the result of desk.tickets.get, event ") {
		t.Errorf("asked %+v", q)
	}
	left()
}

// TestDemoAsks: on a terminal the person is asked, shown the exact call, and what
// they say is what happens.
func TestDemoAsks(t *testing.T) {
	for _, c := range []struct{ name, first, second, paid string }{
		{"Enter", "\n", "\n", "30 EUR, 80 EUR\r\n"},
		{"no", "what?\nn\n", "n\n", "30 EUR\r\n"},
		{"yes to the thief", "y\n", "y\n", "30 EUR, 80 EUR, 20 EUR\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, left := demoCommand(t, notRoot(), "demo")
			cmd.Env = append(cmd.Env, "NO_COLOR=1")
			o := (&home{t: t}).onTerminal(cmd, 60, 120)
			o.expect("support-1: desk.refunds.create (moves money, a customer notices it); amount 80 EUR")
			o.expect("Let this call run? [Y/n] ")
			for _, want := range []string{"Digest    ", `"account": "GB29NWBK60161331926819"`, "80 EUR is more than 50 EUR", "what you wrote"} {
				if !strings.Contains(o.text(), want) {
					t.Errorf("it does not show %q:\n%s", want, o.text())
				}
			}
			o.write(c.first)
			o.expect("support-2: desk.refunds.create")
			o.expect("Let this call run? [y/N] ")
			if !strings.Contains(o.text(), "the result of desk.tickets.get, event ") {
				t.Errorf("it does not show the source:\n%s", o.text())
			}
			o.write(c.second)
			o.expect("and nothing else: " + c.paid)
			o.expect("Look for yourself")
			if n := strings.Count(o.text(), "you answer: ambit approvals "); n != 2 {
				t.Errorf("%d answers:\n%s", n, o.text())
			}
			o.write("\x03")
			if code := o.end(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, o.text())
			}
			left()
		})
	}
}

// TestDemoAskedAndInterrupted: Ctrl-C at the question is no answer, and ends it all.
func TestDemoAskedAndInterrupted(t *testing.T) {
	cmd, left := demoCommand(t, notRoot(), "demo")
	o := (&home{t: t}).onTerminal(cmd, 60, 120)
	o.expect("Let this call run? [Y/n] ")
	o.write("\x03")
	if code := o.end(); code != 130 || strings.Contains(o.text(), "you answer:") {
		t.Errorf("exit code %d:\n%s", code, o.text())
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
	if home == "" || len(commands) != 7 {
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
	for _, at := range []string{"control plane", "one account", "At work", "raw IP", "Its account", "refunds 80 EUR"} {
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
