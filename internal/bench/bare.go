//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ambit/control"
	"ambit/internal/inside"
	"ambit/sandbox/gvisor"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// bare is a reference: the embedded gVisor by itself, with the same flags and
// a copy of the same bundle as an agent's computer, whose process is the
// program itself instead of Ambit's init.
type bare struct {
	lab    *lab
	layout control.Layout // of a folder like an agent's
	spec   specs.Spec
}

// newBare copies the bundle of the computer in like. gate is the folder that is
// mounted where an agent's socket is.
func (l *lab) newBare(ctx context.Context, name string, like control.Layout, argv []string, gate string) (*bare, error) {
	dir, err := l.folder(name, 0o755)
	if err != nil {
		return nil, err
	}
	b := &bare{lab: l, layout: control.Layout(dir)}
	for _, d := range []string{b.layout.Computer(), b.layout.Home(), b.layout.Workspace()} {
		if _, err := l.folder(filepath.Join(name, filepath.Base(d)), 0o755); err != nil {
			return nil, err
		}
	}
	from := like.Computer()
	cp := exec.CommandContext(ctx, "cp", "-a", filepath.Join(from, "bundle"), filepath.Join(from, "rootfs"),
		filepath.Join(from, "etc"), filepath.Join(from, "ambit"), b.layout.Computer())
	if out, err := cp.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying the bundle: %w: %s", err, out)
	}
	config := filepath.Join(b.layout.Computer(), "bundle", "config.json")
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), string(like), dir)), &b.spec); err != nil {
		return nil, fmt.Errorf("reading the bundle: %w", err)
	}
	for i := range b.spec.Mounts {
		if m := &b.spec.Mounts[i]; m.Destination == inside.Dir+"/gate" {
			m.Source = gate
		}
	}
	b.spec.Process = program(b.spec.Process, argv)
	return b, writeJSON(config, b.spec)
}

// program is a process like p that runs argv as Ambit runs an agent's program.
func program(p *specs.Process, argv []string) *specs.Process {
	q := *p
	q.Args, q.Env, q.Cwd = argv, inside.Environ("bench"), inside.Workspace
	q.Capabilities = &specs.LinuxCapabilities{}
	return &q
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// start runs the computer and returns once gVisor says that it does.
func (b *bare) start(ctx context.Context) error {
	argv := gvisor.RunArgs(b.layout.Computer())
	words, err := os.Create(filepath.Join(string(b.layout), "said"))
	if err != nil {
		return err
	}
	defer func() { _ = words.Close() }()
	cmd := b.lab.command(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = words, words // not a pipe: the computer keeps it
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(words.Name())
		return fmt.Errorf("starting bare gVisor: %w: %s", err, said)
	}
	return nil
}

// end kills the computer and removes what it left, so that it can start again.
func (b *bare) end() error {
	endBelow(string(b.layout))
	return os.RemoveAll(gvisor.StateDir(b.layout.Computer()))
}

// execArgs is the argument vector that runs argv in the computer of l, which
// need not be a bare one. The names of its files end with n.
func execArgs(dir string, l control.Layout, p *specs.Process, n int) ([]string, error) {
	process := filepath.Join(dir, "process-"+strconv.Itoa(n)+".json")
	if err := writeJSON(process, p); err != nil {
		return nil, err
	}
	return gvisor.ExecArgs(l.Computer(), process, filepath.Join(l.Computer(), "bench-"+strconv.Itoa(n)+".pid")), nil
}

// exec runs a program in the computer and returns its standard output.
func (b *bare) exec(ctx context.Context, argv ...string) (string, error) {
	args, err := execArgs(string(b.layout), b.layout, program(b.spec.Process, argv), int(time.Now().UnixNano()))
	if err != nil {
		return "", err
	}
	return output(b.lab.command(ctx, args[0], args[1:]...))
}
