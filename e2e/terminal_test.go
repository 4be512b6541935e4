//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/creack/pty"
)

// onTerminal is a command of ours that runs on a terminal of the test's.
type onTerminal struct {
	h    *home
	file *os.File
	pid  int
	done chan struct{}
	code int

	mu  sync.Mutex
	out bytes.Buffer
}

// terminal starts a command on a terminal of the given size.
func (h *home) terminal(rows, cols uint16, args ...string) *onTerminal {
	h.t.Helper()
	return h.onTerminal(h.command(args...), rows, cols)
}

func (h *home) onTerminal(cmd *exec.Cmd, rows, cols uint16) *onTerminal {
	h.t.Helper()
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: cols})
	if err != nil {
		h.t.Fatal(err)
	}
	o := &onTerminal{h: h, file: file, pid: cmd.Process.Pid, done: make(chan struct{})}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := file.Read(b)
			o.mu.Lock()
			o.out.Write(b[:n])
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_ = cmd.Wait()
		<-read
		o.code = cmd.ProcessState.ExitCode()
		close(o.done)
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-o.done
		_ = file.Close()
	})
	return o
}

func (o *onTerminal) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.String()
}

// expect waits until the terminal shows text.
func (o *onTerminal) expect(text string) {
	o.h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(o.text(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.h.t.Fatalf("the terminal does not show %q: %q", text, o.text())
		}
	}
}

func (o *onTerminal) write(s string) {
	o.h.t.Helper()
	if _, err := o.file.WriteString(s); err != nil {
		o.h.t.Fatal(err)
	}
}

// end waits until the command has ended and returns its exit code.
func (o *onTerminal) end() int {
	o.h.t.Helper()
	select {
	case <-o.done:
	case <-time.After(20 * time.Second):
		o.h.t.Fatalf("the command does not end: %q", o.text())
	}
	return o.code
}

// TestExecWithATerminal: a program in the computer has a terminal of the right
// size, Ctrl-C is for it, and its exit code comes out.
func TestExecWithATerminal(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		h.deploy(manifest("a", ""))
		o := h.terminal(33, 101, "exec", "-t", "a", "--", "sh")
		o.write("stty size; test -t 0 && test -t 1 && echo is a terminal; id -u\n")
		o.expect("33 101\r\nis a terminal\r\n1000\r\n")
		if err := pty.Setsize(o.file, &pty.Winsize{Rows: 44, Cols: 122}); err != nil {
			t.Fatal(err)
		}
		o.h.await(func() bool { o.write("stty size\n"); return strings.Contains(o.text(), "44 122") }, 20*time.Second, "the new size: "+o.text())
		o.write("sh -c 'trap \"exit 130\" INT; echo begin; while :; do sleep 1; done'\n")
		o.expect("begin\r\n")
		o.write("\x03")
		o.expect("^C")
		o.write("echo code $?\n")
		o.expect("code 130")
		o.write("exit 7\n")
		if code := o.end(); code != 7 {
			t.Errorf("exit code %d: %q", code, o.text())
		}
		for line, want := range map[string]int{"exit 0": 0, "exit 3": 3, "kill -9 $$": 137, "kill -15 $$": 143, "exit 128": 128, "exit 255": 255, "exit 126": 126} {
			if r := h.sh("a", line); r.code != want {
				t.Errorf("%s: %+v, want %d", line, r, want)
			}
		}
		for _, c := range []struct {
			program string
			code    int
			says    string
		}{{"no-such-program", 127, "not found"}, {"/etc/passwd", 126, "cannot be executed"}, {"/tmp", 126, ""}, {"/no/such", 127, "not found"}} {
			// The code of a program that could not be run is 125, as with docker.
			if r, _ := h.try("exec", "a", "--", c.program); r.code != 125 && r.code != c.code || !strings.Contains(r.stderr, c.says) {
				t.Errorf("%s: %+v", c.program, r)
			}
		}
		in := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		if r, err := h.tryWith(in, "exec", "a", "--", "sh", "-c", "cat; echo end >&2"); err != nil || r.stdout != string(in) || r.stderr != "end\n" {
			t.Errorf("a megabyte through cat: %v, %d bytes, %q", err, len(r.stdout), r.stderr)
		}
		if r, err := h.try("exec", "a", "--dir", "/tmp", "-e", "WHO=me you", "--", "sh", "-c", "pwd; echo $WHO"); err != nil || r.stdout != "/tmp\nme you\n" {
			t.Errorf("folder and environment: %+v", r)
		}
	})
}

// TestCtrlC: every command that goes on ends on Ctrl-C, at once and with 130,
// and what it started inside ends with it.
func TestCtrlC(t *testing.T) {
	h := newHome(t)
	u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "a.example")
	h.deploy(manifest("a", u.rule("a.example"), "computer:\n  command: [sh, -c, 'echo the program runs; exec sleep 1000']\n"))
	h.sh("a", "curl -sS "+u.url("a.example", "/first"))
	for _, c := range []struct {
		args  []string
		shows string
	}{
		{[]string{"exec", "a", "--", "sh", "-c", "echo started; exec sleep 987"}, "started"},
		{[]string{"exec", "a", "--", "sh", "-c", "trap '' INT TERM; echo started; while :; do sleep 987; done"}, "started"},
		{[]string{"egress", "a", "--follow"}, "/first"},
		{[]string{"egress", "a", "--follow", "--json"}, "/first"},
		{[]string{"output", "a", "-f"}, "the program runs"},
	} {
		cmd := h.command(c.args...)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		got := ""
		for b := make([]byte, 4096); !strings.Contains(got, c.shows); {
			_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, err := r.Read(b)
			got += string(b[:n])
			if err != nil {
				t.Fatalf("%v shows %q: %v", c.args, got, err)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGINT)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("%v goes on after Ctrl-C", c.args)
		}
		_ = r.Close()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%v ended with %d", c.args, code)
		}
	}
	h.await(func() bool {
		return !strings.Contains(h.sh("a", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout, "sleep 987")
	}, 20*time.Second, "the programs inside to end")
}

// hostile is text that takes hold of terminals, spreadsheets, shells, browsers
// and line-based logs.
const hostile = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\u202egpj.exe\u200b\u009b5n\r\nFORGED allow GET https://evil.example/ \b\b=cmd|'/C calc'!A0 <script>alert(1)</script> $(touch /tmp/owned) `id` '; drop table"

// TestC5HostileTextIsInert (row C5, inside): whatever an agent writes into names,
// paths, headers, intents and output, a person who looks at it is safe.
func TestC5HostileTextIsInert(t *testing.T) {
	u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "a.example")
	h := newHome(t)
	h.deploy(manifest("a", u.rule("a.example"), "computer:\n  command: [sh, -c, 'printf \"%b\" \"$HOSTILE\"; exec sleep 1000']\n  env:\n    HOSTILE: "+yamlQuote(hostile)+"\n"))
	h.plant("a")
	a := fmt.Sprintf("a.example:%d", u.port)
	h.attackEach("a", map[string][]string{
		"path":   {"-connect", a, "-sni", "a.example", "-header", a, "-path", "/" + percent(hostile)},
		"query":  {"-connect", a, "-sni", "a.example", "-header", a, "-path", "/?q=" + percent(hostile) + "&<script>=$(id)"},
		"method": {"-connect", a, "-sni", "a.example", "-header", a, "-method", "=CMD|`id`"},
		"host":   {"-connect", a, "-sni", "a.example", "-header", hostile},
		"target": {"-connect", hostile + ":443"},
		"sni":    {"-connect", a, "-sni", "<script>.$(id).example", "-header", a},
		"gate":   {"-gate", hostile + " 443"},
		"name":   {"-dial", "=cmd.<script>.evil.example:443"},
	})
	for _, intent := range []string{hostile, "=HYPERLINK(\"https://evil.example\")", "\u202egpj.exe"} {
		h.sh("a", "curl -sS -H \"$(printf 'Ambit-Intent: %s' '"+strings.NewReplacer("'", "", "\r", "", "\n", "", "\x1b", "").Replace(intent)+"')\" "+u.url("a.example", "/intent"))
	}
	h.attackRaw("a", "127.0.0.1:3128", "GET http://"+a+"/ HTTP/1.1\r\nHost: "+a+"\r\nAmbit-Intent: x\x1b[31m\r\nX-\x1b: y\r\n\r\n")
	h.attackRaw("a", "unix:/ambit/gate/gate.sock", "AMBIT/1 name "+hostile+"\n")
	h.attackRaw("a", "unix:/ambit/gate/gate.sock", "AMBIT/1 name <script>alert(1)</script>\n")
	h.attackRaw("a", "unix:/ambit/gate/gate.sock", "AMBIT/1 program\n"+`{"event":"exited","code":3,"text":"\u001b[31mFORGED\r\nFORGED allow\u202e"}`+"\n")
	r, _ := h.try("exec", "a", "--intent", hostile, "--", "/no/such/"+hostile)
	inertText(t, "exec's error", r.stderr)
	if len(h.calls("a")) < 8 {
		t.Errorf("calls: %s", h.run("egress", "a"))
	}
	h.await(func() bool { return len(h.alerts("a")) > 2 }, 20*time.Second, "alerts")
	for _, args := range [][]string{{"egress", "a"}, {"egress", "a", "--json"}, {"alerts"}, {"alerts", "--json"}, {"status", "a"}, {"status", "a", "--json"}, {"agents"}, {"output", "a"}} {
		o := h.terminal(50, 400, args...)
		if code := o.end(); code != 0 {
			t.Errorf("%v: exit code %d", args, code)
		}
		shown := strings.ReplaceAll(o.text(), "\r\n", "\n")
		if args[0] == "output" { // its lines are the program's own
			inertText(t, "output on a terminal", strings.ReplaceAll(shown, "FORGED", ""))
		} else {
			inertText(t, strings.Join(args, " ")+" on a terminal", shown)
			inertText(t, strings.Join(args, " "), h.run(args...))
		}
		if strings.Contains(args[len(args)-1], "json") && strings.Contains(o.text(), "<script>") {
			t.Errorf("%v has HTML: %s", args, o.text())
		}
	}
	if out := h.run("output", "a"); !strings.Contains(out, "\x1b[31mred") {
		t.Errorf("the program's output is not what it wrote: %q", out)
	}
	if out := h.run("audit", "verify", "a"); !strings.Contains(out, "is whole") {
		t.Errorf("verify: %s", out)
	}
}

// inertText fails if s does anything but show graphic characters in lines, or
// has a line that the agent made up.
func inertText(t *testing.T, what, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && r != '\t' && (!unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r)) {
			t.Errorf("%s has %U: %q", what, r, s)
			return
		}
	}
	for line := range strings.Lines(s) {
		if strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
			t.Errorf("%s has a line that the agent made up: %q", what, line)
		}
	}
}

func yamlQuote(s string) string {
	return strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(fmt.Sprintf("%q", s))
}

// percent encodes every byte.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
