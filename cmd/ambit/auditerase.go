package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
)

func (a *app) proveCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "prove AGENT EVENT",
		Short: "Prove that an event is in an agent's log",
		Long: "Prove that an event is in an agent's log: the text (C2SP tlog-proof) has the hashes from the event up to a head that the log signed, and what opens its commitment. " +
			"Programs that know transparency logs can check it with the log's public key (`ambit audit key AGENT`).",
		Example: "ambit audit prove support 17\nambit audit prove support 17 --out event-17.proof",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[1], 10, 63)
			if err != nil {
				return usageError{fmt.Errorf("%q is not the number of an event; `ambit audit search` shows them", args[1])}
			}
			return a.withAgent(args[:1], func(c *client.Client, id ambit.AgentID) error {
				p, err := c.Prove(cmd.Context(), id, seq)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(p)
				}
				text, err := p.Text()
				if err != nil {
					return err
				}
				if out != "" {
					return a.writeFile(out, writes(text))
				}
				_, err = a.stdout.Write(text)
				return err
			})
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "the file to write instead of standard output")
	return c
}

func (a *app) keyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "key AGENT",
		Short:   "Print the public key of an agent's log",
		Long:    "Print the public key of an agent's log, in the form of signed notes. Whoever checks what the log shows needs it, and should have it from you and not from the bundle.",
		Example: "ambit audit key support > support.vkey",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				k, err := c.LogKey(cmd.Context(), id)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(map[string]string{"key": k})
				}
				return a.print("%s", k)
			})
		},
	}
}

func (a *app) eraseCommand() *cobra.Command {
	var subject string
	var yes bool
	c := &cobra.Command{
		Use:   "erase AGENT --subject SUBJECT",
		Short: "Erase what an agent's log has about somebody",
		Long: "Erase the events of an agent's log that touch somebody, as `ambit audit trace` finds them. Their hashes stay, so that the log can still be verified, and the log says that they were erased, when and by whom. " +
			"It prints a receipt. This cannot be undone; a legal hold forbids it. On a terminal it asks first; elsewhere it needs --yes.",
		Example: "ambit audit erase support --subject alice@example.com",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if subject == "" {
				return usageError{errors.New("say whose data it is about: --subject alice@example.com")}
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				if !yes {
					if err := a.ask(cmd.Context(), fmt.Sprintf("Erase everything in the log of %s that touches %s? This cannot be undone.", id, subject)); err != nil {
						return err
					}
				}
				done := a.progress(cmd.Context(), "erasing")
				erased, err := c.Erase(cmd.Context(), id, subject)
				done()
				if err != nil {
					return err
				}
				return a.printErased(erased)
			})
		},
	}
	c.Flags().StringVar(&subject, "subject", "", "whose data it is: an e-mail address, a telephone number, an IBAN, a card, order:1001")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) printErased(e api.Erased) error {
	if a.json {
		return a.printJSON(e)
	}
	for _, r := range e.Receipts {
		if err := a.print("%s", trimNewline(r.String())); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) holdCommand() *cobra.Command {
	var why string
	var release bool
	c := &cobra.Command{
		Use:   "hold AGENT [--why TEXT | --release]",
		Short: "Forbid that anything of an agent's log is erased",
		Long: "Set a legal hold on an agent's log: as long as it lasts nothing is erased, neither by age nor by a person, and the agent cannot be wiped. --release lifts it. Both are in the log. " +
			"Without a flag it says whether there is one.",
		Example: "ambit audit hold support --why 'case 2026-17'\nambit audit hold support\nambit audit hold support --release --why 'case 2026-17 is closed'",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				var h api.Hold
				var err error
				if why == "" && !release {
					h, err = c.Hold(cmd.Context(), id)
				} else {
					h, err = c.SetHold(cmd.Context(), id, api.SetHold{On: !release, Why: why})
				}
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(h)
				}
				if !h.Held {
					return a.print("There is no legal hold on the log of %s.", id)
				}
				return a.print("The log of %s is on hold since %s, set by %s: %s", id, clock(h.Time), h.By, h.Why)
			})
		},
	}
	c.Flags().StringVar(&why, "why", "", "the reason, for the log; sets the hold")
	c.Flags().BoolVar(&release, "release", false, "lift the hold")
	return c
}

// ask asks a question that is answered with yes or no.
func (a *app) ask(ctx context.Context, question string) error {
	if _, ok := terminal(a.stdin); !ok {
		return usageError{errors.New("this cannot be undone: say --yes, or run it on a terminal")}
	}
	answer, err := a.askLine(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// writes writes b.
func writes(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}
