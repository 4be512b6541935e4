package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/control"
	"ambit/internal/inert"
)

func (a *app) toolsCommand() *cobra.Command {
	c := a.listTools(&cobra.Command{
		Use:   "tools AGENT",
		Short: "Show the tools of an agent, and accept those that servers offer",
		Long: "Show the tools of an agent: those of its connections, and what the servers of its manifest (mcp) offer. A tool of a server is called only after a person has looked at it, said what it means and accepted it, and only if the manifest names it under tools. One that changes waits for a person again.\n\n" +
			"States: ready, new (nobody has accepted it), changed (it is not what was accepted), rejected, gone (not offered any more).",
		Example: "ambit tools support\nambit tools show support crm.contacts.get\nambit tools accept support crm.contacts.get --effects read --targets /id\nambit tools reject support crm.contacts.erase",
	})
	c.AddCommand(a.listTools(&cobra.Command{
		Use:     "list AGENT",
		Short:   "Show the tools of an agent",
		Example: "ambit tools list support",
	}), a.showToolCommand(), a.acceptToolCommand(), a.rejectToolCommand())
	return c
}

func (a *app) listTools(c *cobra.Command) *cobra.Command {
	c.Args = args(cobra.ExactArgs(1))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
			all, err := c.Tools(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.printTools(id, &all)
		})
	}
	return c
}

// toolName is what a person calls a tool.
func toolName(t *control.Tool) string {
	if t.Name != "" {
		return t.Name
	}
	return t.Server + "/" + t.Own
}

func (a *app) printTools(id ambit.AgentID, all *control.Tools) error {
	if a.json {
		return a.printJSON(all)
	}
	if len(all.Tools) == 0 {
		if err := a.print("%s has no tools", id); err != nil {
			return err
		}
	} else {
		t := table{head: []string{"NAME", "STATE", "EFFECTS", "FROM"}}
		for i := range all.Tools {
			tool := &all.Tools[i]
			from := "connection " + tool.Connection
			if tool.Server != "" {
				from = "server " + tool.Server
			}
			r := row{cells: []string{toolName(tool), string(tool.State), or(effectList(tool.Effects), "-"), from}}
			switch {
			case tool.Problem != "":
				r.note, r.color = "it cannot be accepted: "+tool.Problem, lipgloss.Yellow
			case tool.State == control.ToolChanged:
				r.note, r.color = "it is not what was accepted: `ambit tools show` has both", lipgloss.Red
			case tool.State == control.ToolNew:
				r.color = lipgloss.Yellow
			case tool.State == control.ToolReady && !tool.Listed:
				r.note = unlisted
			}
			t.rows = append(t.rows, r)
		}
		if err := t.write(a.stdout, a.color()); err != nil {
			return err
		}
	}
	for _, s := range all.Servers {
		asked := "asked " + clock(s.Asked)
		if s.Asked.IsZero() {
			asked = "not asked yet"
		}
		if s.Problem != "" {
			asked += "; " + s.Problem
		}
		if err := a.print("server %s, %s: %s", s.Name, inert.Text(s.URL), inert.Text(asked)); err != nil {
			return err
		}
	}
	return nil
}

const unlisted = "the manifest does not allow it: name it under tools"

// onTool makes a command about one tool: fn is called with it as it is now.
func (a *app) onTool(c *cobra.Command, fn func(ctx context.Context, c *client.Client, id ambit.AgentID, t *control.Tool) error) *cobra.Command {
	c.Args = args(cobra.ExactArgs(2))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
			all, err := c.Tools(cmd.Context(), id)
			if err != nil {
				return err
			}
			var found []*control.Tool
			for i := range all.Tools {
				if t := &all.Tools[i]; t.Name == args[1] || t.Server != "" && t.Server+"/"+t.Own == args[1] {
					found = append(found, t)
				}
			}
			switch len(found) {
			case 1:
				return fn(cmd.Context(), c, id, found[0])
			case 0:
				return fmt.Errorf("%s has no tool %q: `ambit tools %s` shows them", id, shorten(args[1], 100), id)
			}
			return fmt.Errorf("several tools have the name %s here, and none can be accepted; name one as %s/%s", args[1], found[0].Server, inert.Text(found[0].Own))
		})
	}
	return c
}

func (a *app) showToolCommand() *cobra.Command {
	return a.onTool(&cobra.Command{
		Use:     "show AGENT NAME",
		Short:   "Show one tool: what it means, and what its server says of it",
		Long:    "Show one tool: its effects and what its arguments mean, its schema, and for a tool of a server the server's own words. Those are shown as the agent would get them, without what does not show, and what was taken out is said.",
		Example: "ambit tools show support crm.contacts.get",
	}, func(_ context.Context, _ *client.Client, _ ambit.AgentID, t *control.Tool) error {
		if a.json {
			return a.printJSON(t)
		}
		return writeTool(a.stdout, t, a.color())
	})
}

// writeTool shows all of a tool. A server's words are behind those of the system, on
// lines that are marked.
func writeTool(w io.Writer, t *control.Tool, color bool) error {
	bold := func(s string) string {
		if color {
			return lipgloss.NewStyle().Bold(true).Render(s)
		}
		return s
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-12s%s\n", name, inert.Text(value))
		}
	}
	quoted := func(title, text string) {
		if text == "" {
			return
		}
		fmt.Fprintf(&b, "\n%s\n", bold(title))
		for l := range strings.SplitSeq(text, "\n") {
			b.WriteString("  | " + inert.Text(l) + "\n")
		}
	}
	fmt.Fprintf(&b, "%s\n\n", bold(inert.Text(toolName(t))))
	line("State", string(t.State))
	line("Server", t.Server)
	line("Its name", t.Own)
	line("Connection", t.Connection)
	line("Effects", effectList(t.Effects))
	if t.Leaves {
		line("Leaves", "a call takes its arguments out of your systems")
	}
	line("Targets", pointers(t.Targets))
	line("Amount", strings.TrimSpace(t.Amount+" "+t.Currency))
	line("Limits", pointers(t.Limits))
	line("Records", pointers(t.Records))
	if !t.Listed {
		line("Policy", unlisted)
	}
	if !t.JudgedAt.IsZero() {
		line("Judged", "by "+string(t.JudgedBy)+", "+clock(t.JudgedAt))
	}
	line("Problem", t.Problem)
	line("Hash", t.Hash)
	for _, f := range t.Flags {
		line("Careful", f)
	}
	described, err := json.Marshal(t.Description)
	if err != nil {
		return err
	}
	for _, word := range lookalikes(string(described)) {
		line("Careful", word+" mixes alphabets: it is "+inert.Spelled(word))
	}
	who := "The connector"
	if t.Server != "" {
		who = "The server"
	}
	quoted(who+" says", t.Description)
	quoted(who+" says of the arguments", indented(string(t.Input)))
	quoted(who+" says of the result", indented(string(t.Output)))
	quoted("What was accepted before, as the server said it", indented(t.Before))
	_, err = io.WriteString(w, b.String())
	return err
}

func pointers(list []string) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = or(p, `"" (all of it)`)
	}
	return strings.Join(out, ", ")
}

// meanings are the flags that say what a tool means.
type meanings struct {
	effects, targets, limits, records []string
	amount, currency                  string
	leaves                            bool
}

// given are the facts that the flags say; none if there is no flag.
func (m *meanings) given() (f control.ToolFacts, any bool) {
	f = control.ToolFacts{Leaves: m.leaves, Targets: words(m.targets), Limits: words(m.limits), Records: words(m.records), Amount: m.amount, Currency: m.currency}
	for _, e := range words(m.effects) {
		f.Effects = append(f.Effects, ambit.Effect(e))
	}
	return f, len(f.Effects)+len(f.Targets)+len(f.Limits)+len(f.Records) > 0 || m.amount != "" || m.currency != "" || m.leaves
}

// words divides at commas; an empty text is one, too: the pointer to all.
func words(list []string) (all []string) {
	for _, s := range list {
		for w := range strings.SplitSeq(s, ",") {
			all = append(all, strings.TrimSpace(w))
		}
	}
	return all
}

func (a *app) acceptToolCommand() *cobra.Command {
	var m meanings
	var hash string
	c := a.onTool(&cobra.Command{
		Use:   "accept AGENT NAME --effects EFFECTS",
		Short: "Accept a tool of a server, as it is now",
		Long: "Accept a tool of a server, as it is now, and say what it means: what the rules of the manifest go by, whatever the server says. On a terminal the tool is shown and it asks first. Elsewhere it needs --hash with the first 12 or more digits of the hash that `ambit tools show` has.\n\n" +
			"Effects are read, write, delete, spend, send, publish, access, bulk and customer. The others are JSON pointers: --targets to the arguments that say who or what gets something, --amount to how much money, --limits to counts, --records to what in the result outsiders cannot fill in. A tool that changed keeps what was said of it, if nothing is said now.",
		Example: "ambit tools accept support crm.contacts.get --effects read --targets /id\nambit tools accept support crm.refunds.create --effects spend,customer --targets /account --amount /amount --currency EUR --hash 3f9a1c22b70d",
	}, func(ctx context.Context, c *client.Client, id ambit.AgentID, t *control.Tool) error {
		facts, said := m.given()
		_, tty := terminal(a.stdin)
		switch {
		case t.Server == "":
			return fmt.Errorf("%s is a tool of a connection, and nobody accepts it: the manifest names it", t.Name)
		case t.Problem != "":
			return fmt.Errorf("%s cannot be accepted: %s", inert.Text(toolName(t)), inert.Text(t.Problem))
		case t.State == control.ToolGone:
			return fmt.Errorf("the server does not offer %s any more", inert.Text(toolName(t)))
		case !said && t.State == control.ToolChanged:
			facts = t.ToolFacts
		case len(facts.Effects) == 0:
			return usageError{errors.New("say what effects the tool has with --effects; one that only reads has read")}
		}
		switch {
		case hash == "" && !tty:
			return usageError{fmt.Errorf("say what you accept with --hash, as `ambit tools show %s %s` has it, or run this on a terminal", id, inert.Text(toolName(t)))}
		case hash != "" && !regexp.MustCompile(`^[0-9a-f]{12,64}$`).MatchString(hash):
			return usageError{errors.New("--hash is 12 or more of the digits of a tool's hash")}
		case !strings.HasPrefix(t.Hash, hash):
			return fmt.Errorf("%s is not what you looked at any more: look again; nothing was accepted", inert.Text(toolName(t)))
		case hash == "":
			if err := a.confirmTool(ctx, t, facts); err != nil {
				return err
			}
		}
		return a.judgeTool(ctx, c, id, t, api.JudgeTool{Accept: true, Facts: facts})
	})
	c.Flags().StringArrayVar(&m.effects, "effects", nil, "what a call does: read, write, delete, spend, send, publish, access, bulk, customer")
	c.Flags().StringArrayVar(&m.targets, "targets", nil, "JSON pointers to who or what gets something: /to,/items/*/id")
	c.Flags().StringVar(&m.amount, "amount", "", "JSON pointer to how much money")
	c.Flags().StringVar(&m.currency, "currency", "", "JSON pointer to its currency, or three capital letters")
	c.Flags().StringArrayVar(&m.limits, "limits", nil, "JSON pointers to counts and sizes")
	c.Flags().StringArrayVar(&m.records, "records", nil, "JSON pointers to what in the result outsiders cannot fill in")
	c.Flags().BoolVar(&m.leaves, "leaves", false, "a call takes its arguments out of your systems, even if it only reads")
	c.Flags().StringVar(&hash, "hash", "", "beginning of the hash of what you accept")
	return c
}

// confirmTool shows a tool as it would be accepted, and asks.
func (a *app) confirmTool(ctx context.Context, t *control.Tool, facts control.ToolFacts) error {
	shown := *t
	shown.ToolFacts = facts
	if err := writeTool(a.stderr, &shown, a.colorErr()); err != nil {
		return err
	}
	return a.agree(ctx, "\nLet the agent have this tool?", "nothing was accepted")
}

func (a *app) rejectToolCommand() *cobra.Command {
	return a.onTool(&cobra.Command{
		Use:     "reject AGENT NAME",
		Short:   "Take a tool of a server away",
		Long:    "Take a tool of a server away from the agent, accepted or not. It stays so until it changes, and then it waits for a person again.",
		Example: "ambit tools reject support crm.contacts.erase",
	}, func(ctx context.Context, c *client.Client, id ambit.AgentID, t *control.Tool) error {
		if t.Server == "" {
			return fmt.Errorf("%s is a tool of a connection: take it out of the manifest", t.Name)
		}
		return a.judgeTool(ctx, c, id, t, api.JudgeTool{})
	})
}

// judgeTool sends what a person made of the tool that was shown, and says what came
// of it.
func (a *app) judgeTool(ctx context.Context, c *client.Client, id ambit.AgentID, t *control.Tool, j api.JudgeTool) error {
	j.Name, j.Hash = t.Server+"/"+t.Own, t.Hash
	now, err := c.JudgeTool(ctx, id, j)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(now)
	}
	text := fmt.Sprintf("%s is %s", inert.Text(toolName(&now)), now.State)
	if now.State == control.ToolReady && !now.Listed {
		text += "; " + unlisted
	}
	return a.print("%s", text)
}
