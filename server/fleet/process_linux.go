package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambit"
	"ambit/internal/inert"
	"ambit/sandbox"
	"ambit/sandbox/gvisor"

	"golang.org/x/sys/unix"
)

// process is a running process of an agent: a child, or one that an earlier
// control plane started.
type process struct {
	pid    int
	pidfd  *os.File
	exited chan struct{} // closed when it has ended
}

// watchProcess follows a process that this one did not start, or whose parent
// has gone.
func watchProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("following process %d: %w", pid, err)
	}
	p := &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), exited: make(chan struct{})}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		_ = p.pidfd.Close()
		return nil, fmt.Errorf("following process %d: %w", pid, err)
	}
	go func() { // ends with the process
		_ = raw.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
		close(p.exited)
	}()
	return p, nil
}

// kill ends the process at once. The pidfd names it and no later process that
// gets its number.
func (p *process) kill() { p.signal(unix.SIGKILL) }

func (p *process) signal(s unix.Signal) {
	_ = unix.PidfdSendSignal(int(p.pidfd.Fd()), s, nil, 0)
}

// command is one of this program's own roles, as a user of the host. It gets
// no environment.
func (f *Fleet) command(uid, gid int, args ...string) *exec.Cmd {
	cmd := exec.Command(f.binary, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential(uid, gid)}
	return cmd
}

func credential(uid, gid int) *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}
}

// probe checks that this machine can confine a worker and run a computer as an
// agent's user.
func probe(ctx context.Context, binary string) error {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = firstUID, firstUID
	}
	f := &Fleet{binary: binary}
	for _, role := range []string{"worker", "launch"} {
		cmd := f.command(uid, gid, "ambit", role, "--probe")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("agents' users cannot reach %s: every folder above it must allow passing through (mode 0711). Use a home like /var/lib/ambit", filepath.Dir(binary))
			}
			return fmt.Errorf("checking this machine: %w", err)
		}
		if err := cmd.Wait(); err != nil {
			return errors.New(strings.TrimPrefix(strings.TrimSpace(inert.Lines(out.String())), "ambit: "))
		}
	}
	return ctx.Err()
}

// maxLaunchOutput bounds what is kept of what a launcher says.
const maxLaunchOutput = 16 << 10

// bounded keeps the last bytes written to it.
type bounded struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if over := len(w.b) - maxLaunchOutput; over > 0 {
		w.b = append(w.b[:0], w.b[over:]...)
	}
	return len(p), nil
}

func (w *bounded) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimPrefix(strings.TrimSpace(inert.Lines(string(w.b))), "ambit: ")
}

// launch starts a computer and returns its kernel's process.
func (f *Fleet) launch(ctx context.Context, s *sandbox.Spec, o owner, id ambit.AgentID) (*process, error) {
	// Init launches too: it starts in a tenth of the time of the whole program.
	role := []string{"ambit", "launch"}
	if f.launcher != "" {
		role = []string{f.launcher, "launch", f.binary}
	}
	said, err := f.runLauncher(ctx, s, o, id, role...)
	if err != nil {
		return nil, fmt.Errorf("starting the computer: %w", err)
	}
	pid, err := gvisor.PID(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("starting the computer: %w%s", err, quoted(said))
	}
	if !isComputer(pid, s.Dir, o.computer) {
		return nil, fmt.Errorf("starting the computer: process %d is not the one that was started", pid)
	}
	return watchProcess(pid)
}

// pull fetches the image of s, which a process of its own does as the agent's
// user: the launcher reads nothing from the network.
func (f *Fleet) pull(ctx context.Context, s *sandbox.Spec, o owner, id ambit.AgentID) error {
	_, err := f.runLauncher(ctx, s, o, id, "ambit", "pull")
	return err
}

func needsPull(s *sandbox.Spec) bool {
	remote, here := s.Pulled()
	return remote && !here
}

func (f *Fleet) runLauncher(ctx context.Context, s *sandbox.Spec, o owner, id ambit.AgentID, role ...string) (string, error) {
	cmd := f.command(o.computer, o.group, role...)
	if role[0] == f.launcher {
		cmd.Path = f.launcher
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	// The computer inherits this pipe as its standard error, so the reading end
	// stays open as long as anything holds the writing end.
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return "", err
	}
	var said bounded
	read := make(chan struct{})
	f.wg.Go(func() {
		defer close(read)
		stop := context.AfterFunc(f.ctx, func() { _ = r.Close() })
		defer stop()
		_, _ = io.Copy(&said, r)
		_ = r.Close()
	})
	f.limiter.add(id, cmd.Process.Pid, s.Limits) // it waits for its spec until it is in there
	_, _ = in.Write(spec)
	_ = in.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		select { // what it said last
		case <-read:
		case <-time.After(time.Second):
		}
		if text := said.text(); text != "" {
			return text, errors.New(text)
		}
		return "", err
	}
	return said.text(), nil
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// signal sends a signal to init, with gVisor's own command.
func (f *Fleet) signal(c *computer, name string) {
	args := gvisor.KillArgs(c.spec.Dir, name)
	cmd := f.command(c.owner.computer, c.owner.group, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		f.log.Debug("signalling a computer", slog.String("signal", name), slog.Any("error", err), slog.String("said", inert.Text(string(out))))
	}
}

// isComputer says whether pid is a process of the computer in dir, of uid.
func isComputer(pid int, dir string, uid int) bool {
	st, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	if err != nil || int(st.Sys().(*syscall.Stat_t).Uid) != uid && !ownsStatus(pid, uid) {
		return false
	}
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && bytes.Contains(args, []byte("--root="+gvisor.StateDir(dir)+"\x00"))
}

// ownsStatus compares the user id in /proc/PID/status; the folder of a process
// that may not be dumped belongs to root.
func ownsStatus(pid, uid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), "\nUid:")
	f := strings.Fields(rest)
	return len(f) > 0 && f[0] == strconv.Itoa(uid)
}

// killStrays ends what is left of a computer: every process of its user that
// has its state folder in its arguments.
func killStrays(dir string, uid int) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !isComputer(pid, dir, uid) {
			continue
		}
		if p, err := watchProcess(pid); err == nil {
			if isComputer(pid, dir, uid) { // still the same one
				p.kill()
				<-p.exited
			}
			_ = p.pidfd.Close()
		}
	}
}
