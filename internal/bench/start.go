//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ambit/control"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// stamping is a program that writes down when it began.
var stamping = []string{"sh", "-c", "date +%s%N > /workspace/started; exec sleep 1000000"}

// stamped waits for the program's stamp and returns the time from began to it.
func stamped(ctx context.Context, l control.Layout, began time.Time) (time.Duration, error) {
	var at int64
	err := await(ctx, 30*time.Second, "the program to run", func() bool {
		b, err := os.ReadFile(filepath.Join(l.Workspace(), "started"))
		if err != nil || !strings.HasSuffix(string(b), "\n") {
			return false
		}
		at, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return err == nil
	})
	if err != nil {
		return 0, err
	}
	return time.Unix(0, at).Sub(began), os.Remove(filepath.Join(l.Workspace(), "started"))
}

// coldStart alternates starts of an agent and of bare gVisor.
func coldStart(ctx context.Context, l *lab) ([]row, error) {
	h, err := l.newHome(ctx, "start")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	began := time.Now()
	if err := h.deploy(ctx, agentManifest("bench", stamping, "")); err != nil {
		return nil, err
	}
	layout := h.layout("bench")
	if _, err := stamped(ctx, layout, began); err != nil {
		return nil, err
	}
	b, err := l.newBare(ctx, "start-bare", layout, stamping, layout.Gate())
	if err != nil {
		return nil, err
	}
	var ours, reference, answered []float64
	for range pick(l, 15, 3) {
		if _, err := h.client.Stop(ctx, "bench"); err != nil {
			return nil, fmt.Errorf("stopping: %w", err)
		}
		began := time.Now()
		if _, err := h.client.Start(ctx, "bench"); err != nil {
			return nil, fmt.Errorf("starting: %w", err)
		}
		answered = append(answered, millis(time.Since(began)))
		d, err := stamped(ctx, layout, began)
		if err != nil {
			return nil, err
		}
		ours = append(ours, millis(d))
		if d, err = b.startOnce(ctx); err != nil {
			return nil, err
		}
		reference = append(reference, millis(d))
	}
	note := fmt.Sprintf("medians of %d; the API answered after %.0f ms", len(ours), median(answered))
	return []row{compare("cold start", "ms", median(ours), median(reference)).ratioAtMost(1.5).noted("%s", note)}, nil
}

func (b *bare) startOnce(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := b.start(ctx); err != nil {
		return 0, err
	}
	d, err := stamped(ctx, b.layout, began)
	if err != nil {
		return 0, err
	}
	return d, b.end()
}

// execTrue alternates `ambit exec` and gVisor's own exec in the same computer.
func execTrue(ctx context.Context, l *lab) ([]row, error) {
	h, err := l.newHome(ctx, "exec")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	if err := h.deploy(ctx, agentManifest("bench", idleProgram, "")); err != nil {
		return nil, err
	}
	ours, reference, err := h.execTimes(ctx, pick(l, 20, 5))
	if err != nil {
		return nil, err
	}
	return []row{compare("exec", "ms", ours, reference).ratioAtMost(2).noted("medians")}, nil
}

// execTimes are the medians, in milliseconds, of n runs of true in the
// computer of agent bench, through the command line and with bare `runsc exec`.
func (h *home) execTimes(ctx context.Context, n int) (ours, reference float64, err error) {
	layout := h.layout("bench")
	text, err := os.ReadFile(filepath.Join(layout.Computer(), "bundle", "config.json"))
	if err != nil {
		return 0, 0, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return 0, 0, fmt.Errorf("reading the bundle: %w", err)
	}
	var cli, runsc []float64
	for i := range n + 1 {
		began := time.Now()
		if err := h.cli(ctx, "exec", "bench", "--", "true").Run(); err != nil {
			return 0, 0, fmt.Errorf("ambit exec: %w", err)
		}
		mine := time.Since(began)
		args, err := execArgs(h.lab.dir, layout, program(spec.Process, []string{"true"}), i)
		if err != nil {
			return 0, 0, err
		}
		began = time.Now()
		if err := h.lab.command(ctx, args[0], args[1:]...).Run(); err != nil {
			return 0, 0, fmt.Errorf("runsc exec: %w", err)
		}
		if i > 0 { // the first one warms up
			cli, runsc = append(cli, millis(mine)), append(runsc, millis(time.Since(began)))
		}
	}
	return median(cli), median(runsc), nil
}
