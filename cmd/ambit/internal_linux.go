package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"ambit/control"
	"ambit/internal/inert"
	"ambit/internal/inside"
	"ambit/sandbox/gvisor"
	"ambit/sandbox/registry"
	"ambit/worker"

	"github.com/spf13/cobra"
)

// internalCommands are the roles of this binary that no person starts: they
// are hidden from help.
func internalCommands() []*cobra.Command {
	return []*cobra.Command{workerCommand(), launchCommand(), pullCommand(), insideCommand("init"), insideCommand("intent"), insideCommand("end")}
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
	// Threads that wake each other up cost more than they carry: on two cores a
	// request through a worker takes half the processor time with one.
	runtime.GOMAXPROCS(min(max(runtime.NumCPU()/2, 1), 4))
	// The live heap of a worker is a few MB, and the usual 100 would collect it many
	// times a second under load.
	debug.SetGCPercent(400)
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
			return gvisor.Launch(cmd.Context(), cmd.InOrStdin(), "/proc/self/exe")
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
			s, err := gvisor.ReadSpec(cmd.InOrStdin())
			if err != nil {
				return err
			}
			return registry.Pull(cmd.Context(), s)
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
