package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
)

// The states of a connection that a person should look at.
const (
	notConnected    = "not-connected"
	failing         = "failing"
	reconnectNeeded = "reconnect-needed"
)

func (a *app) connectionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "connections AGENT",
		Short: "List the accounts that an agent works with",
		Long: "List the connections of an agent's manifest, and how they are: connected, not-connected, failing (no new token at the moment; it is tried again) or reconnect-needed (a person must connect the account again).\n\n" +
			"What is connected can be replaced with ambit connect, and is never shown.",
		Example: "ambit connections support\nambit connections support --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				list, err := c.Connections(cmd.Context(), id)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(list)
				}
				return a.printConnections(id, list)
			})
		},
	}
}

func (a *app) printConnections(id ambit.AgentID, list []api.Connection) error {
	if len(list) == 0 {
		return a.print("%s has no connections: write connectors: into its manifest, and deploy it", id)
	}
	t := table{head: []string{"NAME", "SERVICE", "ACCOUNT", "STATE", "SINCE", "BY", "HOSTS"}}
	for _, c := range list {
		r := row{cells: []string{c.Name, c.Title, or(c.Account, "-"), c.Status, clock(c.Since), or(string(c.By), "-"), shortHosts(c.Hosts)}, note: c.Reason}
		switch c.Status {
		case failing, notConnected:
			r.color = lipgloss.Yellow
		case reconnectNeeded:
			r.color = lipgloss.Red
		}
		t.rows = append(t.rows, r)
	}
	return t.write(a.stdout, a.color())
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// shortHosts names the first two.
func shortHosts(hosts []string) string {
	if len(hosts) > 2 {
		return fmt.Sprintf("%s and %d more", strings.Join(hosts[:2], ", "), len(hosts)-2)
	}
	return strings.Join(hosts, ", ")
}

func (a *app) revokeCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "revoke AGENT [NAME]",
		Short: "End a connection of an agent at once, or all of them",
		Long: "End a connection at once: its credential is deleted, what is under way with it is cut, and the service is told where it can be. The agent's references stay, and are worth nothing until the account is connected again.\n\n" +
			"Without NAME all connections of the agent are ended, also those that its manifest does not name any more. On a terminal it asks first; elsewhere it needs --yes.",
		Example: "ambit revoke support github\nambit revoke support --yes",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				name := ""
				if len(args) == 2 {
					var err error
					if name, err = connectionName(args[1]); err != nil {
						return err
					}
				} else if !yes {
					if err := a.confirmRevoke(cmd.Context(), id); err != nil {
						return err
					}
				}
				done := a.progress(cmd.Context(), "revoking")
				ended, err := c.Revoke(cmd.Context(), id, name)
				done()
				if err != nil {
					return err
				}
				return a.printRevoked(id, ended)
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) printRevoked(id ambit.AgentID, ended []api.Revoked) error {
	if a.json {
		return a.printJSON(ended)
	}
	if len(ended) == 0 {
		return a.print("%s has nothing connected", id)
	}
	for _, r := range ended {
		text := "the service was told"
		if !r.Told {
			text = r.Reason
		}
		if err := a.print("%s is revoked; %s", r.Name, text); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) confirmRevoke(ctx context.Context, id ambit.AgentID) error {
	if _, ok := terminal(a.stdin); !ok {
		return usageError{fmt.Errorf("this ends every connection of %s: say --yes, name one, or run this on a terminal", id)}
	}
	answer, err := a.askLine(ctx, fmt.Sprintf("This ends every connection of %s. Go on? [y/N] ", id))
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return errors.New("nothing was revoked")
	}
	return nil
}

// connectionName reads a connection's name as a person wrote it: the same
// alphabet as an agent's.
func connectionName(s string) (string, error) {
	if _, err := agentName(s); err != nil {
		return "", usageError{fmt.Errorf("%q is not the name of a connection: 1 to 40 of a-z, 0-9 and -, beginning with a letter", shorten(s, 60))}
	}
	return s, nil
}

// askLine asks on the terminal, with echo. It reads no byte more than the line.
func (a *app) askLine(ctx context.Context, question string) (string, error) {
	_, _ = fmt.Fprint(a.stderr, question)
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the program if nothing is written
		var line []byte
		for b := make([]byte, 1); ; {
			if _, err := a.stdin.Read(b); err != nil {
				answered <- answer{err: fmt.Errorf("reading the answer: %w", err)}
				return
			}
			if b[0] == '\n' {
				answered <- answer{line: strings.TrimSpace(string(line))}
				return
			}
			line = append(line, b[0])
		}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-answered:
		return got.line, got.err
	}
}
