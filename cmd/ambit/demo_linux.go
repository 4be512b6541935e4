package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ambit/approval"
	"ambit/cmd/ambit/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See an agent at work, and under attack",
		Long: "See an agent at work for a stand-in shop, and then obey a hostile ticket that makes it try to get data out in six ways. It refunds money with a tool: what is over a limit, or goes to an account out of a ticket, waits for a person. All of it runs for real on this machine, in a temporary home, and needs no network.\n\n" +
			"On a terminal, and without --once, you are the person who is asked. The agents stay to be looked at until Ctrl-C, with --once until all is shown; then everything is removed. The exit code is 1 if anything passed that must not.",
		Example: "ambit demo\nambit demo --once\nambit demo --once --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("home") || cmd.Flags().Changed("address") {
				return usageError{errors.New("demo runs a control plane of its own, in a temporary home: it takes no --home and no --address")}
			}
			c := demo.Config{
				Out: a.stdout, Color: a.color(), Width: a.width(), JSON: a.json, Once: once,
				Program: cmp.Or(called(), "ambit"), Progress: a.progress,
			}
			_, in := terminal(a.stdin)
			if _, out := terminal(a.stdout); in && out && !once && !a.json {
				c.Ask = a.askDemo
			}
			return demo.Run(cmd.Context(), c)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "end when all is shown")
	c.AddCommand(&cobra.Command{
		Use: "agent SHOP TICKET", Short: "The agent's program (started by demo)", Hidden: true, Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo.Agent(cmd.Context(), args[0], args[1], a.stdin, a.stdout)
		},
	})
	return c
}

// askDemo shows a question as `ambit approvals show` does, and asks. Enter, and the
// end of the input, are what byDefault says.
func (a *app) askDemo(ctx context.Context, q *approval.Question, byDefault bool) (bool, error) {
	choice := "[y/N]"
	if byDefault {
		choice = "[Y/n]"
	}
	if _, err := fmt.Fprintln(a.stderr); err != nil {
		return false, err
	}
	if err := writeQuestion(a.stderr, q, a.colorErr()); err != nil {
		return false, err
	}
	for {
		line, err := a.askLine(ctx, "\nLet this call run? "+choice+" ")
		switch line = strings.ToLower(line); {
		case errors.Is(err, io.EOF), err == nil && line == "":
			return byDefault, nil
		case err != nil:
			return false, err
		case line == "y" || line == "yes":
			return true, nil
		case line == "n" || line == "no":
			return false, nil
		}
	}
}

// called is how a person called this program.
func called() string {
	if len(os.Args) == 0 || strings.ContainsAny(os.Args[0], " '\"") {
		return ""
	}
	return os.Args[0]
}
