package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"ambit"
	"ambit/client"
)

func (a *app) taskCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "task AGENT WORDS...",
		Short: "Say what you want of an agent",
		Long: "Begin a task of an agent with your words. The names, addresses, accounts and numbers in them are what the agent's tools may use without asking you; what comes from elsewhere and decides who gets something is asked about. The task before it ends.\n\n" +
			"This tells the gate, not the agent's program: give that the same words, or use exec --task, which does it for the program that it runs.",
		Example: "ambit task support \"Refund order 1001 to Ada, 30 EUR\"",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			words := strings.Join(args[1:], " ")
			if strings.TrimSpace(words) == "" {
				return usageError{errors.New("say what you want, as in: ambit task support \"Refund order 1001\"")}
			}
			return a.withAgent(args[:1], func(c *client.Client, id ambit.AgentID) error {
				t, err := c.BeginTask(cmd.Context(), id, words)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(t)
				}
				return a.print("%s works on %s", id, t.Task)
			})
		},
	}
}
