package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambit"
	"ambit/internal/inert"
	"ambit/internal/inside"
	"ambit/sandbox/gvisor"
	"ambit/server"

	"github.com/creack/pty"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec implements server.Runner: gVisor's own exec command, as the agent's
// user, runs the program in the computer and carries its standard streams.
func (f *Fleet) Exec(ctx context.Context, id ambit.AgentID, s server.ExecSpec, std server.ExecIO) (int, error) {
	f.mu.Lock()
	k := f.keepers[id]
	f.mu.Unlock()
	if k == nil {
		return 0, errors.New("the agent does not run; start it with `ambit start " + string(id) + "`")
	}
	c := k.live.Load()
	if c == nil {
		return 0, errors.New("the agent's computer does not run; start it with `ambit start " + string(id) + "`, or see why with `ambit status " + string(id) + "`")
	}
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return 0, errors.New("there is no command to run")
	}
	e := &execution{fleet: f, computer: c, spec: s, std: std}
	return e.run(ctx)
}

// execution is one program that a person runs in a computer.
type execution struct {
	fleet    *Fleet
	computer *computer
	spec     server.ExecSpec
	std      server.ExecIO
	pidFile  string
	cmd      *exec.Cmd
}

func (e *execution) run(ctx context.Context) (int, error) {
	env := inside.Merge(e.computer.spec.Environ(), e.spec.Env...)
	if e.spec.Intent != "" {
		env = inside.WithIntent(env, e.spec.Intent)
	}
	if e.spec.TTY {
		env = inside.Merge(env, "TERM=xterm-256color")
	}
	e.pidFile = filepath.Join(e.computer.spec.Dir, "exec-"+strconv.FormatInt(time.Now().UnixNano(), 36)+".pid")
	defer func() { _ = os.Remove(e.pidFile) }()
	var err error
	process := gvisor.Process(&e.computer.spec, e.spec.Argv, env, e.spec.Dir, e.spec.TTY)
	if e.cmd, err = e.fleet.execCommand(e.computer, process, e.pidFile); err != nil {
		return 0, err
	}
	if e.spec.TTY {
		return e.withTerminal(ctx)
	}
	return e.withPipes(ctx)
}

// execCommand is gVisor's exec of a process, which it reads from a pipe. The
// caller starts it with startExec.
func (f *Fleet) execCommand(c *computer, p *specs.Process, pidFile string) (*exec.Cmd, error) {
	process, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 { // it is opened again by its name in /proc
		if err := r.Chown(c.owner.computer, c.owner.group); err != nil {
			return nil, errors.Join(err, r.Close(), w.Close())
		}
	}
	cmd := f.command(c.owner.computer, c.owner.group, gvisor.ExecArgs(c.spec.Dir, "/proc/self/fd/3", pidFile)...)
	cmd.ExtraFiles = []*os.File{r}
	f.wg.Go(func() { // ends when the child has read it or is gone
		_, _ = w.Write(process)
		_ = w.Close()
	})
	return cmd, nil
}

// startExec starts what execCommand made, and lets go of what only the child
// needs.
func startExec(cmd *exec.Cmd, more ...*os.File) error {
	err := cmd.Start()
	for _, file := range append(more, cmd.ExtraFiles...) {
		_ = file.Close()
	}
	if err != nil {
		return fmt.Errorf("running gVisor's exec: %w", err)
	}
	return nil
}

func (e *execution) withPipes(ctx context.Context) (int, error) {
	stdin, err := e.cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, outEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = stdout.Close() }()
	stderr, errEnd, err := os.Pipe()
	if err != nil {
		return 0, errors.Join(err, outEnd.Close())
	}
	defer func() { _ = stderr.Close() }()
	e.cmd.Stdout, e.cmd.Stderr = outEnd, errEnd
	if err := startExec(e.cmd, outEnd, errEnd); err != nil {
		return 0, err
	}
	defer e.endWith(ctx)()
	go func() { // ends with the asker's stream, which the server closes
		if e.std.Stdin != nil {
			_, _ = io.Copy(stdin, e.std.Stdin)
		}
		_ = stdin.Close()
	}()
	said := &startupText{e: e, to: e.std.Stderr}
	err = e.await(func(ended context.Context) { carry(ended, e.std.Stdout, stdout) }, func(ended context.Context) { carry(ended, said, stderr) })
	return e.result(ctx, said, err)
}

// await waits for gVisor's exec, which ends with the program, and for those who
// carry what the program has written.
func (e *execution) await(carriers ...func(ended context.Context)) error {
	ended, end := context.WithCancel(context.Background())
	defer end()
	var out sync.WaitGroup
	for _, f := range carriers {
		out.Go(func() { f(ended) })
	}
	err := e.cmd.Wait()
	end()
	out.Wait()
	return err
}

// quiet is how long nothing more must come from a program that has ended.
const quiet = 100 * time.Millisecond

// carry copies r to w until its end, or until the program has ended and nothing
// more is there: what it left running may keep its end of r open for ever.
func carry(ended context.Context, w io.Writer, r *os.File) {
	stop := context.AfterFunc(ended, func() { _ = r.SetReadDeadline(time.Now()) })
	defer stop()
	buf := make([]byte, 32<<10)
	for over := false; ; {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil && (over || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return
		}
		if over = over || err != nil; over {
			_ = r.SetReadDeadline(time.Now().Add(quiet))
		}
	}
}

func (e *execution) withTerminal(ctx context.Context) (int, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return 0, fmt.Errorf("opening a terminal: %w", err)
	}
	defer func() { _ = master.Close() }()
	if os.Geteuid() == 0 {
		_ = slave.Chown(e.computer.owner.computer, e.computer.owner.group)
	}
	if e.spec.Rows > 0 && e.spec.Cols > 0 {
		_ = pty.Setsize(master, &pty.Winsize{Rows: e.spec.Rows, Cols: e.spec.Cols})
	}
	e.cmd.Stdin, e.cmd.Stdout, e.cmd.Stderr = slave, slave, slave
	e.cmd.SysProcAttr.Setctty = true
	if err := startExec(e.cmd, slave); err != nil {
		return 0, err
	}
	defer e.endWith(ctx)()
	go func() { _, _ = io.Copy(master, e.std.Stdin) }() // ends when master is closed
	if e.std.Resize != nil {
		go func() {
			for size := range e.std.Resize {
				_ = pty.Setsize(master, &pty.Winsize{Rows: size.Rows, Cols: size.Cols})
			}
		}()
	}
	said := &startupText{e: e, to: e.std.Stdout}
	err = e.await(func(ended context.Context) { carry(ended, said, master) }) // EIO at its end
	return e.result(ctx, said, err)
}

// endWith ends the program, and what it has started in its process group, when
// ctx ends.
func (e *execution) endWith(ctx context.Context) (release func()) {
	stop := context.AfterFunc(ctx, func() {
		if pid, ok := e.pid(); ok {
			e.endGroup(pid)
			args := gvisor.KillProcessArgs(e.computer.spec.Dir, pid, "KILL")
			_ = e.fleet.command(e.computer.owner.computer, e.computer.owner.group, args...).Run()
		}
		_ = e.cmd.Process.Kill()
	})
	return func() { stop() }
}

// endGroup lets a program of ours inside end the process group, which gVisor's
// own command cannot.
func (e *execution) endGroup(pid int) {
	argv := []string{inside.BinDir + "/ambit", "end", strconv.Itoa(pid)}
	cmd, err := e.fleet.execCommand(e.computer, gvisor.Process(&e.computer.spec, argv, e.computer.spec.Environ(), "/", false), "")
	if err != nil {
		return
	}
	if err := startExec(cmd); err == nil {
		_ = cmd.Wait()
	}
}

// pid is the program's process id inside; !ok until it runs.
func (e *execution) pid() (int, bool) {
	pid, err := gvisor.ReadPID(e.pidFile)
	return pid, err == nil
}

// gvisorFailure is what gVisor's exec ends with when the program did not run.
const gvisorFailure = 128

// result is how the program ended; err is what waiting for it returned.
func (e *execution) result(ctx context.Context, said *startupText, err error) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	code := e.cmd.ProcessState.ExitCode()
	if ws, ok := e.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	if code == gvisorFailure && !said.passed() {
		return e.notRun(said.held())
	}
	if flushErr := said.flush(); flushErr != nil {
		return 0, flushErr
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("running gVisor's exec: %w", err)
	}
	return code, nil
}

// notRun turns gVisor's words about a program that did not start into ours.
func (e *execution) notRun(text string) (int, error) {
	name := inert.Text(e.spec.Argv[0])
	switch {
	case strings.Contains(text, "no such file or directory"), strings.Contains(text, "not found"):
		return 127, fmt.Errorf("command not found in the computer: %s", name)
	case strings.Contains(text, "permission denied"):
		return 126, fmt.Errorf("command cannot be executed in the computer: %s", name)
	}
	return 0, fmt.Errorf("%s did not start in the computer: %s", name, inert.Text(strings.TrimSpace(text)))
}

// startupText holds back what comes on standard error until the program runs:
// before that it is gVisor that speaks.
type startupText struct {
	e  *execution
	to io.Writer

	mu   sync.Mutex
	open bool
	text []byte
}

// Write implements io.Writer.
func (s *startupText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.text = append(s.text, p...)
		if _, ok := s.e.pid(); !ok && len(s.text) < 64<<10 {
			return len(p), nil
		}
		return len(p), s.release()
	}
	return s.to.Write(p)
}

func (s *startupText) release() error {
	s.open = true
	_, err := s.to.Write(s.text)
	s.text = nil
	return err
}

func (s *startupText) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		return nil
	}
	return s.release()
}

func (s *startupText) passed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, runs := s.e.pid()
	return s.open || runs
}

func (s *startupText) held() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// hashFile keeps, beside a computer, the hash of what it was made of.
func hashFile(dir string) string { return filepath.Join(filepath.Dir(dir), "computer.hash") }

func writeHash(dir, hash string, _ owner) {
	if err := os.WriteFile(hashFile(dir), []byte(hash), 0o600); err != nil {
		_ = os.Remove(hashFile(dir)) // without it the computer is started anew after a crash
	}
}

func readHash(dir string) string {
	b, err := os.ReadFile(hashFile(dir))
	if err != nil {
		return ""
	}
	return string(b)
}
