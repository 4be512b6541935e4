//go:build linux

// Command bench measures Ambit's figures, and beside each the reference that it
// is compared with, in the same run and on the same machine: bare gVisor for
// the computer, a minimal proxy without rules or log for the gate. It prints
// one table. docs/performance.md explains the figures.
//
// Everything it starts runs on loopback, in a folder of its own below the
// temporary directory, and is ended and removed when it is done, also after
// Ctrl-C. As root it runs ambit as an ordinary user.
//
// Trust: it measures the binary that AMBIT_BINARY names, or builds one, and runs
// it; it takes no input from anywhere else. Its roles serve only those who reach
// loopback and the folder, hold nothing of value, and end with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// figure is something that is measured.
type figure struct {
	name    string
	about   string
	measure func(context.Context, *lab) ([]row, error)
}

func figures() []figure {
	return []figure{
		{"cold-start", "a stopped agent's start until its program runs", coldStart},
		{"exec", "ambit exec AGENT -- true", execTrue},
		{"request", "a request through the gate, kept alive and on fresh connections", requests},
		{"download", "100 MiB from inside the computer", downloads},
		{"vault", "credentials put in and taken out, in this process", credentials},
		{"account", "requests with an account against those without; revoke to cut", accounts},
		{"tools", "tool calls through the gate; their decision, tracing and waiting approvals", toolFigures},
		{"rules", "requests through the gate with more and more rules", rules},
		{"idle", "memory and processor time of an idle agent", idle},
		{"log", "durable appends, verification and export of a log", durables},
		{"search", "a log of ten million events, searched and traced", searches},
		{"agents", "the first agent beside more and more idle ones", crowd},
	}
}

// Limits on the time that a run may take.
const (
	runLimit   = 60 * time.Minute
	quickLimit = 15 * time.Minute
)

func main() {
	if len(os.Args) > 1 {
		if role, ok := roles()[os.Args[1]]; ok {
			os.Exit(runRole(role, os.Args[2:]))
		}
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	var only string
	var quick, asJSON, asMarkdown bool
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&only, "only", "", "measure only this figure, or these: exec,request")
	fs.BoolVar(&quick, "quick", false, "a short run: shows that all works, and no figure to rely on")
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&asMarkdown, "markdown", false, "print the table for docs/performance.md")
	fs.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./internal/bench [flags]\n\nfigures:")
		for _, f := range figures() {
			fmt.Fprintf(stderr, "  %-11s %s\n", f.name, f.about)
		}
		fmt.Fprintln(stderr, "\nflags:")
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	chosen, err := choose(only)
	if err != nil || fs.NArg() > 0 {
		fmt.Fprintln(stderr, "bench:", errors.Join(err, noArguments(fs.Args())))
		return 2
	}
	limit := runLimit
	if quick {
		limit = quickLimit
	}
	// Further signals change nothing: the cleaning up is short, and must be done.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the run took more than %v", limit))
	defer cancel()

	rep, err := measure(ctx, chosen, quick, stderr)
	if rep != nil {
		switch {
		case asJSON:
			err = errors.Join(err, rep.json(stdout))
		case asMarkdown:
			rep.markdown(stdout)
		default:
			rep.text(stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func noArguments(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

func choose(only string) ([]figure, error) {
	all := figures()
	if only == "" {
		return all, nil
	}
	var chosen []figure
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, f := range all {
			if f.name == name {
				chosen, found = append(chosen, f), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no figure %q; see --help", name)
		}
	}
	return chosen, nil
}

// measure runs the figures one after the other. One that fails is told in the
// table and does not keep the others from running; the error says which did.
func measure(ctx context.Context, chosen []figure, quick bool, progress io.Writer) (*report, error) {
	began := time.Now()
	l, err := newLab(ctx, quick, func(format string, args ...any) {
		fmt.Fprintf(progress, "%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	})
	if err != nil {
		return nil, err
	}
	defer l.close()
	rep := newReport(l)
	if rep.Warning != "" {
		l.say("%s", rep.Warning)
	}
	var failures []error
	for _, f := range chosen {
		l.say("%s: %s", f.name, f.about)
		rows, err := f.measure(ctx, l)
		rep.Rows = append(rep.Rows, rows...)
		if ctx.Err() != nil {
			l.say("stopped; cleaning up")
			return rep, context.Cause(ctx)
		}
		if err != nil {
			rep.Rows = append(rep.Rows, row{Figure: f.name, Verdict: "not measured", Note: err.Error()})
			failures = append(failures, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	rep.Seconds = time.Since(began).Seconds()
	return rep, errors.Join(failures...)
}
