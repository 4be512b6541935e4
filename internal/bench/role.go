//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// role is what this program does as a process of its own, so that its
// processor time is its own: it is given a setup, says that it is up, and ends
// when its standard input does.
type role func(setup) (announcement, io.Closer, error)

// setup is what a role is told, as its one argument.
type setup struct {
	Socket   string `json:"socket"`             // Unix socket to listen on
	Upstream string `json:"upstream,omitempty"` // of the reference: address to connect to
	CA       string `json:"ca,omitempty"`       // of the reference: PEM of the upstream's authority
}

// announcement is the line that a role prints once it listens.
type announcement struct {
	Port int    `json:"port,omitempty"` // on loopback
	CA   string `json:"ca"`             // PEM of the authority to trust
}

func roles() map[string]role {
	return map[string]role{"role-upstream": upstreamRole, "role-reference": referenceRole, "role-mcp": mcpRole}
}

func runRole(r role, args []string) int {
	var s setup
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &s) != nil {
		fmt.Fprintln(os.Stderr, "bench: a role is started by the benchmark itself")
		return 2
	}
	a, running, err := r(s)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = running.Close()
	return 0
}

// helper is a role that runs.
type helper struct {
	announcement
	cmd   *exec.Cmd
	stdin io.Closer
}

// startRole starts this program again in another role.
func startRole(ctx context.Context, name string, s setup) (*helper, error) {
	arg, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, name, string(arg))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &helper{cmd: cmd, stdin: in}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &h.announcement)
	}
	if err != nil {
		h.stop()
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), context.Cause(ctx))
	}
	return h, nil
}

// stop ends the role.
func (h *helper) stop() {
	_ = h.stdin.Close()
	late := time.AfterFunc(5*time.Second, func() { _ = h.cmd.Process.Kill() })
	_ = h.cmd.Wait()
	late.Stop()
}
