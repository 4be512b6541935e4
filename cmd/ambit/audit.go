package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
)

// maxHead bounds a file with a checkpoint, in bytes.
const maxHead = 64 << 10

func (a *app) auditCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "audit",
		Short:   "Find out what agents did, and prove it",
		Example: "ambit audit trace --subject alice@example.com\nambit audit search support --host api.stripe.com --since 7d\nambit audit verify support",
	})
	c.AddCommand(a.searchCommand(), a.traceCommand(), a.headCommand(), a.verifyCommand(), a.keyCommand(), a.proveCommand(), a.exportCommand(), a.eraseCommand(), a.holdCommand(), a.sinksCommand())
	return c
}

const controlHelp = "the control plane's own log instead of an agent's"

// withLog runs fn with the agent that the first argument names, or with "" for
// the control plane.
func (a *app) withLog(args []string, control bool, fn func(c *client.Client, id ambit.AgentID) error) error {
	switch {
	case control && len(args) > 0:
		return usageError{errors.New("name an agent or give --control, not both")}
	case control:
		return a.withClient(func(c *client.Client) error { return fn(c, "") })
	case len(args) == 0:
		return usageError{errors.New("whose log? Name an agent, or give --control for the control plane's own")}
	}
	return a.withAgent(args, fn)
}

// logOf names a log for people.
func logOf(id ambit.AgentID) string {
	if id == "" {
		return "the control plane"
	}
	return string(id)
}

func (a *app) headCommand() *cobra.Command {
	var control bool
	c := &cobra.Command{
		Use:     "head {AGENT | --control}",
		Short:   "Print the signed checkpoint of a log, to keep it elsewhere",
		Long:    "Print the signed checkpoint of an agent's log, or of the control plane's own. The control plane has it proved first that the log only grew since it last looked, and cosigns it. Kept where nobody who can reach this machine can change it, it finds out later whether the log was edited, cut off or replaced: ambit audit verify AGENT --head FILE. With --json it has the keys with which others check the signatures.",
		Example: "ambit audit head support > support.head\nambit audit head --control",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withLog(args, control, func(c *client.Client, id ambit.AgentID) error {
				ask := func(ctx context.Context) (api.Head, error) { return c.Head(ctx, id) }
				if control {
					ask = c.ControlHead
				}
				h, err := ask(cmd.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(h)
				}
				return a.print("%s", trimNewline(string(h.Note)))
			})
		},
	}
	c.Flags().BoolVar(&control, "control", false, controlHelp)
	return c
}

func trimNewline(s string) string {
	if len(s) > 0 && s[len(s)-1] == '\n' {
		return s[:len(s)-1]
	}
	return s
}

func (a *app) verifyCommand() *cobra.Command {
	var files []string
	var control bool
	var bundle bundleFlags
	c := &cobra.Command{
		Use:   "verify {AGENT | --control | --bundle FILE --key KEY}",
		Short: "Check a log from its first event to its last",
		Long: "Check an agent's log, or the control plane's own, from its first event to its last: every hash is computed again, and the result is held against the log's own signed checkpoint, the one that the control plane kept, and those given with --head. Bodies that are gone must have been erased by an event of the log. The exit code is 1 if anything is wrong.\n\n" +
			"With --bundle a file is checked that was exported from a log, with the log's public key alone: no control plane and no network.",
		Example: "ambit audit verify support\nambit audit verify support --head support.head\nambit audit verify --control\nambit audit verify --bundle support.tar --key support.vkey",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := bundle.check(args, control); err != nil {
				return err
			}
			heads := make([][]byte, len(files))
			for i, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					return fmt.Errorf("reading a head: %w", err)
				}
				if len(b) > maxHead {
					return fmt.Errorf("reading a head: %s is too large to be one", f)
				}
				heads[i] = b
			}
			if bundle.file != "" {
				return a.verifyBundle(bundle, heads)
			}
			return a.withLog(args, control, func(c *client.Client, id ambit.AgentID) error {
				done := a.progress(cmd.Context(), "verifying the log of "+logOf(id))
				verify := func() (api.Verified, error) { return c.Verify(cmd.Context(), id, heads) }
				if control {
					verify = func() (api.Verified, error) { return c.ControlVerify(cmd.Context(), heads) }
				}
				v, err := verify()
				done()
				if err != nil {
					return err
				}
				return a.printVerified(id, v)
			})
		},
	}
	c.Flags().BoolVar(&control, "control", false, controlHelp)
	c.Flags().StringArrayVar(&files, "head", nil, "file with a checkpoint that was kept elsewhere; may be given again")
	c.Flags().StringVar(&bundle.file, "bundle", "", "file that was exported from a log, to be checked instead of an agent's log")
	c.Flags().StringVar(&bundle.key, "key", "", "public key of the bundle's log, or a file with it")
	c.Flags().StringArrayVar(&bundle.witnesses, "witness", nil, "public key, or a file with it, of a witness that must have signed the bundle's checkpoint; may be given again")
	return c
}

func (a *app) printVerified(id ambit.AgentID, v api.Verified) error {
	if a.json {
		if err := a.printJSON(v); err != nil {
			return err
		}
		if !v.OK {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	r := v.Report
	if v.OK {
		return a.print("The log of %s is whole: %d events, root %s; heads kept elsewhere that it agrees with: %d; bodies erased: %d.%s", logOf(id), r.Events, r.Root, r.Heads, r.Erased, erasureLines(r))
	}
	text := fmt.Sprintf("the log of %s is NOT what was written", logOf(id)) + problemLines(r)
	if v.Witness != "" {
		text += "\n  the control plane: " + v.Witness
	}
	if id == "" {
		return &exitError{exitFailed, text + "\nKeep the home of ambit serve for examination."}
	}
	return &exitError{exitFailed, text + "\nKeep the agent's folder for examination; `ambit stop " + string(id) + "` stops it."}
}
