//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/control"
	"ambit/sandbox/gvisor"
)

// How long a control plane may take to stop its agents before all are killed,
// in the course of a run and when it is cut off.
const (
	stopLimit  = 3 * time.Minute
	hurryLimit = 10 * time.Second
)

// home is a control plane with agents of its own.
type home struct {
	lab    *lab
	dir    string
	cmd    *exec.Cmd
	died   chan struct{} // closed when serve has ended
	client *client.Client
}

// newHome starts a control plane and waits until it answers.
func (l *lab) newHome(ctx context.Context, name string) (*home, error) {
	dir, err := l.folder(name, 0o700)
	if err != nil {
		return nil, err
	}
	return l.homeIn(ctx, name, dir)
}

func (l *lab) homeIn(ctx context.Context, name, dir string) (*home, error) {
	var err error
	h := &home{lab: l, dir: dir, died: make(chan struct{})}
	if h.client, err = client.New(client.Config{Socket: filepath.Join(dir, "run", "ambit.sock")}); err != nil {
		return nil, err
	}
	words, err := os.Create(filepath.Join(l.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = words.Close() }()
	h.cmd = h.cli(context.WithoutCancel(ctx), "serve")
	h.cmd.Stdout, h.cmd.Stderr = words, words
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting ambit serve: %w", err)
	}
	go func() { _ = h.cmd.Wait(); close(h.died) }()
	err = await(ctx, 30*time.Second, "ambit serve to answer", func() bool {
		_, err := h.client.Version(ctx)
		return err == nil || h.ended()
	})
	if err == nil && h.ended() {
		err = errors.New("it ended at once")
	}
	if err != nil {
		h.stop()
		said, _ := os.ReadFile(words.Name())
		return nil, fmt.Errorf("starting ambit serve: %w\n%s", err, said)
	}
	return h, nil
}

func (h *home) ended() bool {
	select {
	case <-h.died:
		return true
	default:
		return false
	}
}

// cli is a command of ambit's own for this home.
func (h *home) cli(ctx context.Context, args ...string) *exec.Cmd {
	cmd := h.lab.command(ctx, "ambit", args...)
	cmd.Env = append(cmd.Env, "AMBIT_HOME="+h.dir)
	return cmd
}

// stop ends the control plane with its agents, in good order if it can.
func (h *home) stop() {
	h.client.Close()
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	late, cutOff := time.After(stopLimit), h.lab.hurry
	for waiting := true; waiting; {
		select {
		case <-h.died:
			waiting = false
		case <-cutOff:
			late, cutOff = time.After(hurryLimit), nil
		case <-late:
			h.lab.say("ambit serve does not stop; it is killed")
			_ = h.cmd.Process.Kill()
			late = nil
		}
	}
	endBelow(h.dir)
}

func (h *home) layout(id ambit.AgentID) control.Layout {
	return control.Layout(filepath.Join(h.dir, "agents", string(id)))
}

func (h *home) deploy(ctx context.Context, manifest string) error {
	d, err := h.client.Deploy(ctx, api.Deploy{File: "bench.yaml", Manifest: manifest})
	if err != nil {
		return fmt.Errorf("deploying: %w", err)
	}
	if d.Failure != "" {
		return fmt.Errorf("deploying: %s", d.Failure)
	}
	return nil
}

// deployIdle deploys agents n to m-1 that sleep, a few at a time.
func (h *home) deployIdle(ctx context.Context, n, m int) error {
	const atOnce = 4
	var wg sync.WaitGroup
	errs := make([]error, m)
	slots := make(chan struct{}, atOnce)
	for i := n; i < m; i++ {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = h.deploy(ctx, agentManifest(idleName(i), idleProgram, ""))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func idleName(i int) ambit.AgentID { return ambit.AgentID(fmt.Sprintf("idle-%d", i)) }

// idleProgram is a program that does nothing.
var idleProgram = []string{"sleep", "1000000"}

// agentManifest writes a manifest; rules are lines of egress.allow.
func agentManifest(name ambit.AgentID, command []string, rules string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ambit: v1\nname: %s\n", name)
	if len(command) > 0 {
		b.WriteString("computer:\n  command:\n")
		for _, arg := range command {
			fmt.Fprintf(&b, "    - %q\n", arg)
		}
	}
	if rules != "" {
		b.WriteString("egress:\n  allow:\n" + rules)
	}
	return b.String()
}

// worker is the process id of an agent's worker.
func (h *home) worker(ctx context.Context, id ambit.AgentID) (int, error) {
	s, err := h.client.Status(ctx, id)
	if err != nil {
		return 0, err
	}
	if s.Reported == nil {
		return 0, fmt.Errorf("the worker of %s says nothing: %s", id, s.Missing)
	}
	return s.Reported.PID, nil
}

// computer are all processes of an agent's computer.
func (h *home) computer(id ambit.AgentID) []int { return computerAt(h.layout(id).Computer()) }

func computerAt(dir string) []int {
	return families(withArgument("--root=" + gvisor.StateDir(dir))...)
}

// exec runs a program in an agent's computer through the command line, and
// returns its standard output.
func (h *home) exec(ctx context.Context, id ambit.AgentID, argv ...string) (string, error) {
	return output(h.cli(ctx, append([]string{"exec", string(id), "--"}, argv...)...))
}

// output runs cmd for its standard output. Standard error goes to a file: a
// computer may keep it open.
func output(cmd *exec.Cmd) (string, error) {
	words, err := os.CreateTemp("", "ambit-bench-said-")
	if err != nil {
		return "", err
	}
	defer func() { _ = words.Close(); _ = os.Remove(words.Name()) }()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, words
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(words.Name())
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[:min(len(cmd.Args), 3)], " "), err, bytes.TrimSpace(said))
	}
	return out.String(), nil
}
