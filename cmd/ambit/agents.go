package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/manifest"
)

// agentName reads an agent's name as a person wrote it.
func agentName(s string) (ambit.AgentID, error) {
	ok := len(s) >= 1 && len(s) <= 40 && s[0] >= 'a' && s[0] <= 'z'
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !ok {
		return "", usageError{fmt.Errorf("%q is not the name of an agent: 1 to 40 of a-z, 0-9 and -, beginning with a letter", s)}
	}
	return ambit.AgentID(s), nil
}

// withAgent runs fn with the agent that the first argument names.
func (a *app) withAgent(args []string, fn func(c *client.Client, id ambit.AgentID) error) error {
	id, err := agentName(args[0])
	if err != nil {
		return err
	}
	return a.withClient(func(c *client.Client) error { return fn(c, id) })
}

func (a *app) withClient(fn func(c *client.Client) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

func (a *app) deployCommand() *cobra.Command {
	var widen bool
	c := &cobra.Command{
		Use:     "deploy FILE",
		Short:   "Create or update the agent that a manifest names",
		Long:    "Create or update the agent that a manifest names. FILE may be - for standard input. Every version is kept: see ambit versions and ambit redeploy. Updating an agent that a person stopped leaves it stopped.\n\nThe tool calls of the last week are first decided by the new manifest too. If one that was refused or asked about would now pass without a person, nothing is changed and they are shown; --widen says that this is meant.",
		Example: "ambit deploy support.yaml\nambit deploy - < support.yaml",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, source, err := a.readManifest(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(c *client.Client) error {
				done := a.progress(cmd.Context(), "deploying "+file)
				out, err := c.Deploy(cmd.Context(), api.Deploy{File: file, Manifest: string(source), Widen: widen})
				done()
				if errors.Is(err, context.Canceled) {
					return &exitError{exitInterrupted, "interrupted: if the deploy had begun, ambit serve finishes it; `ambit agents` shows how it went"}
				}
				if err != nil {
					return err
				}
				return a.printDeployed(out)
			})
		},
	}
	c.Flags().BoolVar(&widen, "widen", false, "tool calls that were refused before may pass now")
	return c
}

// readManifest reads a file or standard input, up to a little more than the
// largest manifest: the check of the size says the rest.
func (a *app) readManifest(name string) (file string, source []byte, err error) {
	r := a.stdin
	if name == "-" {
		name = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return "", nil, fmt.Errorf("reading the manifest: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	source, err = io.ReadAll(io.LimitReader(r, manifest.MaxSize+1))
	if err != nil {
		return "", nil, fmt.Errorf("reading the manifest: %w", err)
	}
	return name, source, nil
}

func (a *app) printDeployed(d api.Deployed) error {
	if a.json {
		if err := a.printJSON(d); err != nil {
			return err
		}
	} else if err := a.printDeployedText(d); err != nil {
		return err
	}
	if d.Failure != "" {
		return fmt.Errorf("version %d of %s is stored, but its computer did not come up: %s", d.Version.N, d.Agent.Name, d.Failure)
	}
	return nil
}

func (a *app) printDeployedText(d api.Deployed) error {
	did := "updated to"
	switch {
	case d.Created:
		did = "created,"
	case !d.Changed:
		did = "is unchanged at"
	}
	text := fmt.Sprintf("%s %s version %d (%s)", d.Agent.Name, did, d.Version.N, state(d.Agent))
	if len(d.Reach) == 0 {
		text += "\nIt may reach nothing: its manifest allows no host."
	} else {
		text += "\nIt may reach:\n  " + strings.Join(d.Reach, "\n  ")
	}
	for _, w := range d.Warnings {
		text += "\nNote: " + w
	}
	return a.print("%s", text)
}

func state(s api.Agent) string {
	if s.Computer == "" {
		return "wanted " + s.Desired
	}
	return s.Computer
}

func (a *app) agentsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "agents",
		Aliases: []string{"list", "ls"},
		Short:   "List all agents",
		Example: "ambit agents",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *client.Client) error {
				agents, err := c.Agents(cmd.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(agents)
				}
				if len(agents) == 0 {
					return a.print("There are no agents yet. Deploy one: ambit deploy FILE")
				}
				t := table{head: []string{"AGENT", "COMPUTER", "SINCE", "VERSION", "MEMORY", "RESTARTS"}}
				for _, g := range agents {
					r := row{cells: []string{string(g.Name), state(g), clock(g.Since), strconv.Itoa(g.Version), memory(g.Memory), strconv.Itoa(g.Restarts)}, note: g.Error}
					if g.Error != "" {
						r.color = lipgloss.Red
					}
					t.rows = append(t.rows, r)
				}
				return t.write(a.stdout, a.color())
			})
		},
	}
}

func memory(n int64) string {
	if n == 0 {
		return "-"
	}
	return size(n)
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status AGENT",
		Short:   "Show how an agent is",
		Example: "ambit status support",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				s, err := c.Status(cmd.Context(), id)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(s)
				}
				return a.printStatus(s)
			})
		},
	}
}

func (a *app) printStatus(s api.Status) error {
	lines := [][2]string{
		{"agent", string(s.Name)},
		{"computer", fmt.Sprintf("%s since %s, wanted %s", state(s.Agent), clock(s.Since), s.Desired)},
		{"worker", s.Worker},
		{"version", fmt.Sprintf("%d of %s", s.Version, clock(s.Updated))},
		{"created", clock(s.Created)},
		{"restarts", strconv.Itoa(s.Restarts)},
		{"memory", memory(s.Memory)},
	}
	if s.Error != "" {
		lines = append(lines, [2]string{"error", s.Error})
	}
	if r := s.Reported; r != nil {
		lines = append(lines, [2]string{"log", fmt.Sprintf("%d events", r.Events)})
		if r.Program != "" {
			lines = append(lines, [2]string{"program", r.Program})
		}
		if r.Exit != nil {
			lines = append(lines, [2]string{"last exit", strings.TrimSpace(fmt.Sprintf("%d at %s %s", r.Exit.Code, clock(r.Exit.Time), r.Exit.Text))})
		}
	}
	if s.Missing != "" {
		lines = append(lines, [2]string{"worker says", s.Missing})
	}
	if len(s.Reach) == 0 {
		lines = append(lines, [2]string{"may reach", "nothing"})
	}
	for i, r := range s.Reach {
		label := ""
		if i == 0 {
			label = "may reach"
		}
		lines = append(lines, [2]string{label, r})
	}
	for _, l := range lines {
		if err := a.print("%-12s %s", l[0], oneLine(l[1])); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) versionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "versions AGENT [N]",
		Short:   "List the versions of an agent's manifest, or print one",
		Example: "ambit versions support\nambit versions support 2 > old.yaml",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				if len(args) == 2 {
					return a.printVersion(cmd.Context(), c, id, args[1])
				}
				versions, err := c.Versions(cmd.Context(), id)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(versions)
				}
				t := table{head: []string{"VERSION", "TIME", "BY", "SHA256", "NOTE"}}
				for _, v := range versions {
					note := v.Note
					if v.Current {
						note = strings.TrimPrefix(note+", in force", ", ")
					}
					t.add(strconv.Itoa(v.N), clock(v.Time), string(v.By), v.SHA256[:min(12, len(v.SHA256))], note)
				}
				return t.write(a.stdout, a.color())
			})
		},
	}
}

func versionNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usageError{fmt.Errorf("%q is not a version number", s)}
	}
	return n, nil
}

func (a *app) printVersion(ctx context.Context, c *client.Client, id ambit.AgentID, number string) error {
	n, err := versionNumber(number)
	if err != nil {
		return err
	}
	v, err := c.VersionSource(ctx, id, n)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(v)
	}
	_, err = io.WriteString(a.stdout, v.Source) // byte for byte: it was written by the operator, and parsed
	return err
}

func (a *app) redeployCommand() *cobra.Command {
	var widen bool
	c := &cobra.Command{
		Use:     "redeploy AGENT N",
		Short:   "Put an old version in force again, as a new one",
		Example: "ambit redeploy support 2",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := versionNumber(args[1])
			if err != nil {
				return err
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				done := a.progress(cmd.Context(), "deploying")
				out, err := c.Redeploy(cmd.Context(), id, n, widen)
				done()
				if err != nil {
					return err
				}
				return a.printDeployed(out)
			})
		},
	}
	c.Flags().BoolVar(&widen, "widen", false, "tool calls that were refused before may pass now")
	return c
}

func (a *app) startCommand() *cobra.Command {
	return a.changeCommand("start", "Start an agent's computer", (*client.Client).Start)
}

func (a *app) stopCommand() *cobra.Command {
	return a.changeCommand("stop", "Stop an agent's computer; its files and its log stay", (*client.Client).Stop)
}

func (a *app) changeCommand(verb, short string, change func(*client.Client, context.Context, ambit.AgentID) (api.Agent, error)) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " AGENT",
		Short:   short,
		Example: "ambit " + verb + " support",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				done := a.progress(cmd.Context(), verb+" "+string(id))
				out, err := change(c, cmd.Context(), id)
				done()
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(out)
				}
				return a.print("%s: %s", out.Name, state(out))
			})
		},
	}
}

func (a *app) wipeCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:     "wipe AGENT",
		Short:   "Stop an agent and destroy its files, log, versions and keys",
		Long:    "Stop an agent and destroy its files, versions, keys and what its log says. This cannot be undone. The hashes of its log remain, in the folder wiped of the home, so that it can be shown later how much happened, when, and that it was erased. A legal hold (ambit audit hold) forbids it. On a terminal it asks for the agent's name; elsewhere it needs --yes.",
		Example: "ambit wipe support\nambit wipe support --yes",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				if !yes {
					if err := a.confirm(cmd.Context(), id); err != nil {
						return err
					}
				}
				done := a.progress(cmd.Context(), "wiping "+string(id))
				out, err := c.Wipe(cmd.Context(), id)
				done()
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(map[string]any{"wiped": id, "bundle": out.Bundle, "key": out.Key, "missing": out.Missing})
				}
				if out.Bundle == "" {
					return a.print("%s is wiped; nothing remains of its log: %s", id, out.Missing)
				}
				return a.print("%s is wiped. Its log remains without what it said: %s\nTo check that: ambit audit verify --bundle %s --key %s", id, out.Bundle, out.Bundle, out.Key)
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// confirm asks for the agent's name.
func (a *app) confirm(ctx context.Context, id ambit.AgentID) error {
	if _, ok := terminal(a.stdin); !ok {
		return usageError{fmt.Errorf("wiping %s destroys everything of it: say --yes, or run this on a terminal", id)}
	}
	_, _ = fmt.Fprintf(a.stderr, "This destroys the files, log, versions and keys of %s for good. Write its name to go on: ", id)
	answer := make(chan string, 1)
	go func() { // ends with the program if nothing is written
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case got := <-answer:
		if got != string(id) {
			return errors.New("that is not its name: nothing was wiped")
		}
		return nil
	}
}
