//go:build linux

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ambit/client"
)

// How long the control plane has to answer, and to let go of its agents.
const (
	startPatience = 60 * time.Second
	stopPatience  = 45 * time.Second
)

// plane is a control plane of the demonstration's own: `ambit serve` of this
// same binary, in a temporary home.
type plane struct {
	parent string // the temporary folder
	home   string
	log    string // what serve says
	client *client.Client
	cmd    *exec.Cmd
	ended  chan struct{} // closed when serve has ended
}

// newPlane makes the home. Whoever calls it calls close, also after an error
// of start.
func newPlane() (*plane, error) {
	dir, err := place()
	if err != nil {
		return nil, err
	}
	parent, err := os.MkdirTemp(dir, "ambit-demo-")
	if err != nil {
		return nil, fmt.Errorf("making a temporary home: %w", err)
	}
	p := &plane{parent: parent, home: filepath.Join(parent, "home"), log: filepath.Join(parent, "serve.log")}
	// Started by root, each agent has a user id of its own that passes through.
	if err := os.Chmod(parent, 0o711); err != nil {
		return nil, errors.Join(fmt.Errorf("making a temporary home: %w", err), os.RemoveAll(parent))
	}
	p.client, err = client.New(client.Config{Socket: filepath.Join(p.home, "run", "ambit.sock")})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(parent))
	}
	return p, nil
}

// place finds a folder for temporary homes: short enough for a socket's path,
// not mounted noexec, and, for root, one that other users can pass through.
func place() (string, error) {
	tried := []string{os.TempDir(), "/tmp", "/var/tmp"}
	for _, dir := range tried {
		dir, err := filepath.EvalSymlinks(dir)
		if err != nil || len(dir) > 40 || !filepath.IsAbs(dir) {
			continue
		}
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil || st.Flags&unix.ST_NOEXEC != 0 || unix.Access(dir, unix.W_OK) != nil {
			continue
		}
		if os.Geteuid() == 0 && !passable(dir) {
			continue
		}
		return dir, nil
	}
	return "", fmt.Errorf("no folder is fit for a temporary home: %s are missing, not writable, mounted noexec, or closed to other users: set TMPDIR to one that is not", strings.Join(slices.Compact(tried), ", "))
}

func passable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// start starts serve and waits until it answers. It would outlive a
// demonstration that is killed (SIGKILL), in good order: were it told to end by
// a parent-death signal, it would get one for each thread of the dead parent,
// and the second ends it before its agents.
func (p *plane) start(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", "serve", "--home", p.home) //nolint:noctx // its end is ordered: see stop
	cmd.Args[0] = "ambit"
	cmd.Stdout, cmd.Stderr = log, log
	// In a group of its own, a terminal's Ctrl-C is for this process only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // serve.log has the reason
		close(ended)
	}()
	p.cmd, p.ended = cmd, ended
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if _, err := p.client.Version(ctx); err == nil {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return fmt.Errorf("the control plane did not start:\n%s", p.said())
		case <-ctx.Done():
			return fmt.Errorf("waiting for the control plane: %w", ctx.Err())
		}
	}
}

// addConnector writes an operator's connector file.
func (p *plane) addConnector(name, text string) error {
	dir := filepath.Join(p.home, "connectors")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("writing the connector file: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the connector file: %w", err)
	}
	return nil
}

// said is the end of what serve wrote.
func (p *plane) said() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	text := string(bytes.Join(lines[max(0, len(lines)-5):], []byte("\n")))
	return strings.TrimPrefix(text, "ambit: ")
}

// running says whether serve runs.
func (p *plane) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// close ends serve, with it every agent, and removes the home.
func (p *plane) close() error {
	p.client.Close()
	if p.cmd != nil && !p.running() && p.cmd.ProcessState.ExitCode() == -1 {
		// Killed: its workers and computers live. The next serve takes them up.
		_ = p.start(context.Background())
	}
	if p.running() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		select {
		case <-p.ended:
		case <-time.After(stopPatience):
			return fmt.Errorf("the control plane does not end: see %s, then kill process %d and remove %s", p.log, p.cmd.Process.Pid, p.parent)
		}
	}
	if err := os.RemoveAll(p.parent); err != nil {
		return fmt.Errorf("removing the temporary home: %w", err)
	}
	return nil
}
