package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"charm.land/fang/v2"
	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit/api"
	"ambit/client"
	"ambit/internal/inert"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDenied      = 3
	exitWaiting     = 4 // for a person
	exitExecFailed  = 125
	exitInterrupted = 130
)

// version is set by the build.
var version string //nolint:gochecknoglobals // -ldflags -X needs a variable

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	home           string
	address        string
	json           bool
	err            error // what the command came to
}

// usageError is the caller's mistake in how a command was written.
type usageError struct{ error }

// exitError ends the program with a code; its text may be "".
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := fang.Execute(ctx, root, fang.WithVersion(programVersion()), fang.WithoutManpage(),
		fang.WithErrorHandler(func(io.Writer, fang.Styles, error) {}))
	if err == nil {
		err = a.err
	}
	code := exitCode(ctx, err)
	a.report(err, code)
	return code
}

func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var exit *exitError
	var problem *api.Problem
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &problem) && problem.Status == http.StatusForbidden:
		return exitDenied
	}
	return exitFailed
}

// report says on standard error what went wrong. The text may quote an agent.
func (a *app) report(err error, code int) {
	if err == nil || err.Error() == "" {
		return
	}
	if code == exitInterrupted {
		_, _ = fmt.Fprintln(a.stderr, "ambit: interrupted")
		return
	}
	mark := "ambit:"
	if a.colorErr() {
		mark = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red).Render(mark)
	}
	_, _ = fmt.Fprintln(a.stderr, mark, inert.Lines(explain(err)))
	if code == exitUsage {
		_, _ = fmt.Fprintln(a.stderr, "Run the command with --help to see how it is used.")
	}
}

// explain writes an error for people; a manifest's with its lines.
func explain(err error) string {
	var p *api.Problem
	if !errors.As(err, &p) {
		return err.Error()
	}
	lines := []string{p.Detail}
	if p.Detail == "" {
		lines[0] = p.Title
	}
	for _, e := range p.Errors {
		lines = append(lines, e.String())
		if e.Excerpt != "" {
			lines = append(lines, e.Excerpt)
		}
	}
	return strings.Join(lines, "\n")
}

func (a *app) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "ambit",
		Short: "Run AI agents inside an operating boundary",
		Long: "Ambit gives every agent a computer of its own without a network device, decides every call that leaves it by your rules, and writes everything down.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 usage, 3 denied by policy, 4 waiting for a person; exec has the program's own, and 125 if that could not be run.",
		Example: "ambit serve\nambit deploy agent.yaml\nambit exec support -- curl https://api.example.com/\nambit egress support --denied",
	})
	root.PersistentFlags().StringVar(&a.home, "home", defaultHome(), "folder of the control plane; default $AMBIT_HOME")
	root.PersistentFlags().StringVar(&a.address, "address", os.Getenv("AMBIT_ADDRESS"), "loopback address of the control plane, instead of the socket in its home; default $AMBIT_ADDRESS")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.serveCommands()...)
	root.AddCommand(a.deployCommand(), a.agentsCommand(), a.statusCommand(), a.versionsCommand(), a.redeployCommand(),
		a.taskCommand(), a.execCommand(), a.startCommand(), a.stopCommand(), a.wipeCommand(),
		a.outputCommand(), a.egressCommand(), a.approvalsCommand(), a.toolsCommand(), a.alertsCommand(), a.auditCommand(), a.connectCommand(), a.connectionsCommand(), a.revokeCommand(), a.keysCommand(), a.manifestCommand(), a.probeCommand(), a.connectorCommand(), a.policyCommand(), a.versionCommand())
	for _, c := range internalCommands() {
		c.Hidden = true
		root.AddCommand(c)
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	a.keepErrors(root)
	return root
}

// keepErrors keeps what commands return from the styling library, which would
// ask the terminal for its colours at each error, also at the exit code of a
// program that exec ran.
func (a *app) keepErrors(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.err = run(c, args)
			return nil
		}
	}
	for _, sub := range c.Commands() {
		a.keepErrors(sub)
	}
}

// group makes a command that only has other commands.
func group(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("%s has no command %q", c.CommandPath(), args[0])}
		}
		return nil
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

// args makes what cobra says of a wrong number of arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{fmt.Errorf("%w: %s", err, c.UseLine())}
		}
		return nil
	}
}

func defaultHome() string {
	if h := os.Getenv("AMBIT_HOME"); h != "" {
		return h
	}
	if os.Geteuid() == 0 {
		return "/var/lib/ambit"
	}
	if h := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(h) {
		return filepath.Join(h, "ambit")
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(h, ".local", "share", "ambit")
}

// client is a client of the control plane; the caller closes it.
func (a *app) client() (*client.Client, error) {
	if a.address == "" && a.home == "" {
		return nil, usageError{errors.New("there is no home folder for this user: say where with --home")}
	}
	home, err := filepath.Abs(a.home)
	if err != nil {
		return nil, err
	}
	c := client.Config{Socket: filepath.Join(home, "run", "ambit.sock"), Address: a.address, Token: os.Getenv("AMBIT_TOKEN")}
	if a.address != "" && c.Token == "" {
		b, err := os.ReadFile(filepath.Join(home, "run", "token"))
		if err != nil {
			return nil, fmt.Errorf("finding the token for %s: set AMBIT_TOKEN, or name the home of ambit serve with --home: %w", a.address, err)
		}
		c.Token = strings.TrimSpace(string(b))
	}
	return client.New(c)
}
