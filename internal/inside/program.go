package inside

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"ambit/internal/forward"
)

// grace is how long the program may take to end after SIGTERM.
const grace = 5 * time.Second

// runProgram starts the agent's program, reaps every orphan, and returns the
// program's exit code; without a program it waits until it is told to stop.
func runProgram(ctx context.Context, c Config, g *gateway) int {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	if len(c.Command) == 0 {
		for {
			select {
			case <-ctx.Done():
				return 0
			case <-children:
				reap(0)
			}
		}
	}
	var out sync.WaitGroup
	pid, code, err := start(c, g, &out)
	if err != nil {
		g.report(forward.ProgramEvent{Event: "exited", Code: code, Text: err.Error()})
		return code
	}
	g.report(forward.ProgramEvent{Event: "started"})
	code, killed := await(ctx, pid, children)
	waitFor(&out, grace)
	text := ""
	if killed {
		text = "stopped"
	}
	g.report(forward.ProgramEvent{Event: "exited", Code: code, Text: text})
	return code
}

// await waits for pid, and passes on a request to stop.
func await(ctx context.Context, pid int, children <-chan os.Signal) (code int, stopped bool) {
	done := ctx.Done()
	var kill <-chan time.Time
	for {
		if code, ok := reap(pid); ok {
			return code, stopped
		}
		select {
		case <-children:
		case <-done:
			stopped, done, kill = true, nil, time.After(grace)
			_ = syscall.Kill(-pid, syscall.SIGTERM)
		case <-kill:
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	}
}

// reap collects every child that has ended; ok if pid was among them.
func reap(pid int) (code int, ok bool) {
	for {
		var ws syscall.WaitStatus
		p, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || p <= 0 {
			return code, ok
		}
		if p == pid {
			code, ok = ws.ExitStatus(), true
			if ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
		}
	}
}

func start(c Config, g *gateway, out *sync.WaitGroup) (pid, code int, err error) {
	path, err := lookPath(c.Command[0], pathOf(c.Env))
	if err != nil {
		return 0, 127, err
	}
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return 0, 125, err
	}
	defer func() { _ = stdin.Close() }()
	files := []uintptr{stdin.Fd()}
	var ends []*os.File
	defer func() {
		for _, f := range ends {
			_ = f.Close()
		}
	}()
	for _, stream := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, 125, err
		}
		ends = append(ends, w)
		files = append(files, w.Fd())
		out.Go(func() { g.carryOutput(r, stream) })
	}
	pid, err = syscall.ForkExec(path, c.Command, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: UID, Gid: GID}},
	})
	if err != nil {
		return 0, 126, fmt.Errorf("starting %q: %w", c.Command[0], err)
	}
	return pid, 0, nil
}

func pathOf(env []string) string {
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			return kv[5:]
		}
	}
	return DefaultPath
}

func waitFor(wg *sync.WaitGroup, d time.Duration) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(d):
	}
}

// carryOutput brings what the program writes to the worker. While the worker
// is away the program's writes block, so nothing is lost that was not already
// on its way.
func (g *gateway) carryOutput(r *os.File, stream string) {
	defer func() { _ = r.Close() }()
	buf := make([]byte, 32<<10)
	var c net.Conn
	for {
		n, err := r.Read(buf)
		for n > 0 {
			if c == nil {
				c = g.dialPatiently(forward.Header{Kind: forward.Output, Stream: stream})
			}
			if _, werr := c.Write(buf[:n]); werr == nil {
				break
			}
			_ = c.Close()
			c = nil
		}
		if err != nil {
			if c != nil {
				closeAndDrain(c)
			}
			return
		}
	}
}

// report tells the worker how the program fares; it gives up after a while,
// since the worker also sees the computer end.
func (g *gateway) report(e forward.ProgramEvent) {
	c, err := g.dial(context.Background(), forward.Header{Kind: forward.Program})
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(grace))
	if json.NewEncoder(c).Encode(e) == nil {
		closeAndDrain(c)
	}
}

// closeAndDrain ends the sending side and waits until the other side has read
// all of it.
func closeAndDrain(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(grace))
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.CloseWrite()
		_, _ = io.Copy(io.Discard, u)
	}
	_ = c.Close()
}
