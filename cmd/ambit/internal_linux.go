package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"ambit/control"
	"ambit/internal/inert"
	"ambit/internal/inside"
	"ambit/sandbox"
	"ambit/sandbox/gvisor"
	"ambit/worker"

	"github.com/spf13/cobra"
)

// internalCommands are the roles of this binary that no person starts: they
// are hidden from help.
func internalCommands() []*cobra.Command {
	return []*cobra.Command{workerCommand(), launchCommand(), pullCommand(), insideCommand("init"), insideCommand("intent")}
}

// File descriptors that a worker inherits.
const (
	startFD = 3 // a control.Start, then end of file
	readyFD = 4 // takes "ready\n", or one line that says what is wrong
)

func workerCommand() *cobra.Command {
	var probe bool
	cmd := &cobra.Command{
		Use: "worker", Short: "One agent's gate (started by serve)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if probe {
				return worker.Confinable()
			}
			return runWorker(cmd)
		},
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "only say whether this machine can confine a worker")
	return cmd
}

func runWorker(cmd *cobra.Command) error {
	ready := os.NewFile(readyFD, "ready")
	pipe := os.NewFile(startFD, "start")
	if ready == nil || pipe == nil {
		return errors.New("a worker is started by `ambit serve`, not by hand")
	}
	start, err := control.ReadStart(pipe)
	_ = pipe.Close()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	return worker.Run(ctx, start, log, func(err error) {
		text := "ready"
		if err != nil {
			text = strings.ReplaceAll(inert.Text(err.Error()), "\n", " ")
		}
		_, _ = io.WriteString(ready, text+"\n")
		_ = ready.Close()
	})
}

func readSpec(r io.Reader) (*sandbox.Spec, error) {
	var s sandbox.Spec
	dec := json.NewDecoder(io.LimitReader(r, 8<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading what computer to make: %w; a computer is started by `ambit serve`, not by hand", err)
	}
	return &s, nil
}

func launchCommand() *cobra.Command {
	var probe, probeChild bool
	cmd := &cobra.Command{
		Use: "launch", Short: "Start one agent's computer (started by serve)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case probeChild:
				return nil
			case probe:
				return gvisor.Supported(cmd.Context())
			}
			s, err := readSpec(cmd.InOrStdin())
			if err != nil {
				return err
			}
			if err := gvisor.Prepare(cmd.Context(), s); err != nil {
				return err
			}
			// From here on this process is gVisor's `runsc run --detach`.
			return fmt.Errorf("becoming gVisor: %w", syscall.Exec("/proc/self/exe", gvisor.RunArgs(s.Dir), os.Environ()))
		},
	}
	cmd.Flags().BoolVar(&probe, "probe", false, "only say whether this machine can run a computer")
	cmd.Flags().BoolVar(&probeChild, "probe-child", false, "what --probe tries to start")
	return cmd
}

func pullCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pull", Short: "Fetch one agent's image (started by serve)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readSpec(cmd.InOrStdin())
			if err != nil {
				return err
			}
			return gvisor.Pull(cmd.Context(), s)
		},
	}
}

// insideCommand is a command of the computer's side, for builds whose computers
// run this whole binary as init.
func insideCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			os.Exit(inside.Main(append([]string{name}, args...)))
			return nil
		},
	}
}
