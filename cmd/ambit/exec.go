package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/internal/inert"
)

type execFlags struct {
	tty    string
	intent string
	task   string
	dir    string
	env    []string
}

func (a *app) execCommand() *cobra.Command {
	var f execFlags
	c := &cobra.Command{
		Use:   "exec AGENT -- CMD [ARG...]",
		Short: "Run a program in an agent's computer",
		Long: "Run a program in an agent's computer, under the same rules as the agent's own. Its exit code is this command's; 125 means that it could not be run.\n\n" +
			"With a terminal the program's bytes go to yours as they are, and Ctrl-C goes to the program. Without one, what goes to your terminal is made inert.",
		Example: "ambit exec support -- ls -l /workspace\nambit exec support --intent 'look up an order' -- curl https://api.example.com/orders/1\nambit exec -t support -- bash",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError{errors.New("there is no program to run: write it after --, as in: ambit exec AGENT -- ls -l")}
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error { return a.exec(cmd, c, id, args[1:], f) })
		},
	}
	c.Flags().StringVarP(&f.tty, "tty", "t", "auto", "give the program a terminal: auto (if this has one), yes or no")
	c.Flags().Lookup("tty").NoOptDefVal = "yes"
	c.Flags().StringVar(&f.intent, "intent", "", "what it is for; recorded with every call that it makes")
	c.Flags().StringVar(&f.task, "task", "", "what you want, in your words: begins a task, as `ambit task` does; the program finds it in $AMBIT_TASK_WORDS")
	c.Flags().StringVar(&f.dir, "dir", "", "folder to run in, inside the computer")
	c.Flags().StringArrayVarP(&f.env, "env", "e", nil, "variable to add to its environment, as NAME=value; may be given again")
	return c
}

func (a *app) exec(cmd *cobra.Command, c *client.Client, id ambit.AgentID, argv []string, f execFlags) error {
	in, inTerm := terminal(a.stdin)
	out, outTerm := terminal(a.stdout)
	spec := api.Exec{Argv: argv, Env: f.env, Dir: f.dir, Intent: f.intent}
	switch f.tty {
	case "auto":
		spec.TTY = inTerm && outTerm
	case "yes":
		spec.TTY = true
	case "no":
	default:
		return usageError{fmt.Errorf("--tty is auto, yes or no, not %q", f.tty)}
	}
	streams := client.Streams{Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr}
	if spec.TTY && outTerm {
		if cols, rows, err := term.GetSize(int(out.Fd())); err == nil {
			spec.Rows, spec.Cols = uint16(rows), uint16(cols)
		}
		sizes, stop := watchSize(out)
		defer stop()
		streams.Resize = sizes
	}
	if spec.TTY && inTerm {
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return &exitError{exitExecFailed, "preparing the terminal: " + err.Error()}
		}
		defer func() { _ = term.Restore(int(in.Fd()), old) }()
	}
	if !spec.TTY {
		var flush func()
		streams.Stdout, streams.Stderr, flush = a.inertOutputs()
		defer flush()
	}
	if f.task != "" {
		if _, err := c.BeginTask(cmd.Context(), id, f.task); err != nil {
			return &exitError{exitExecFailed, explain(err)}
		}
		spec.Env = append(spec.Env, "AMBIT_TASK_WORDS="+f.task)
	}
	code, err := c.Exec(cmd.Context(), id, spec, streams)
	switch {
	case cmd.Context().Err() != nil:
		return cmd.Context().Err()
	case err != nil:
		return &exitError{exitExecFailed, explain(err)}
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}

// inertOutputs makes what goes to a terminal inert, and leaves pipes and files
// alone.
func (a *app) inertOutputs() (stdout, stderr io.Writer, flush func()) {
	var writers []*inert.Writer
	wrap := func(w io.Writer) io.Writer {
		if _, ok := terminal(w); !ok {
			return w
		}
		i := inert.NewWriter(w)
		writers = append(writers, i)
		return i
	}
	stdout, stderr = wrap(a.stdout), wrap(a.stderr)
	return stdout, stderr, func() {
		for _, w := range writers {
			_ = w.Flush()
		}
	}
}

func termSize(f *os.File) ([2]uint16, bool) {
	cols, rows, err := term.GetSize(int(f.Fd()))
	return [2]uint16{uint16(rows), uint16(cols)}, err == nil
}
