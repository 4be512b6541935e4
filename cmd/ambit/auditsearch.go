package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/audit/sink"
	"ambit/client"
	"ambit/cmd/ambit/report"
)

// searchFlags are the conditions that search, trace and export share.
type searchFlags struct {
	api.Search
	agents, kinds, actions, effects []string
	since, until                    string
}

func (f *searchFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringSliceVar(&f.kinds, "kind", nil, "only events of these kinds; docs/events.md has them")
	s.StringSliceVar(&f.Hosts, "host", nil, "only calls to these hosts, or to hosts under these domains")
	s.StringSliceVar(&f.Tools, "tool", nil, "only calls of these tools")
	s.StringSliceVar(&f.actions, "action", nil, "only these actions: http, websocket, passthrough, connect, name")
	s.StringSliceVar(&f.effects, "effect", nil, "only what has one of these effects: read, write, delete, spend, send, publish, access")
	s.StringSliceVar(&f.People, "person", nil, "only what these did: uid:1000, agent, ambit")
	s.StringVar(&f.Decision, "decision", "", "only what was decided so: allow or deny")
	s.StringVar(&f.Connection, "connection", "", "only calls with this connection's credential")
	s.StringVar(&f.Intent, "intent", "", "only calls whose stated intent has all of these words")
	s.StringVar(&f.Text, "text", "", `only events that have all of these words somewhere; "words in quotes" stand together`)
	s.BoolVar(&f.Control, "control", false, "in the log of the control plane, instead of all agents or beside those that are named")
	s.StringVar(&f.since, "since", "", "not older than this: a time ago (90m, 24h, 7d) or a time (2026-01-31T12:00:00Z)")
	s.StringVar(&f.until, "until", "", "older than this, written likewise")
}

// question is what the flags say.
func (f *searchFlags) question() (api.Search, error) {
	q := f.Search
	var err error
	if q.Since, err = parseSince(f.since, time.Now()); err != nil {
		return q, err
	}
	if q.Until, err = parseSince(f.until, time.Now()); err != nil {
		return q, err
	}
	for _, a := range f.agents {
		id, err := agentName(a)
		if err != nil {
			return q, err
		}
		q.Agents = append(q.Agents, id)
	}
	known := map[ambit.Kind]bool{}
	for _, k := range ambit.Catalogue() {
		known[k.Kind] = true
	}
	for _, k := range f.kinds {
		if !known[ambit.Kind(k)] {
			return q, usageError{fmt.Errorf("there are no events of the kind %q; docs/events.md has all kinds", k)}
		}
		q.Kinds = append(q.Kinds, ambit.Kind(k))
	}
	for _, v := range f.actions {
		q.Actions = append(q.Actions, ambit.Action(v))
	}
	for _, v := range f.effects {
		q.Effects = append(q.Effects, ambit.Effect(v))
	}
	if q.Decision != "" && q.Decision != "allow" && q.Decision != "deny" {
		return q, usageError{fmt.Errorf("--decision is allow or deny, not %q", q.Decision)}
	}
	if q.Limit < 0 || q.Limit > 10_000 {
		return q, usageError{errors.New("--limit is between 0 and 10000")}
	}
	return q, nil
}

func (a *app) searchCommand() *cobra.Command {
	var f searchFlags
	c := &cobra.Command{
		Use:   "search [AGENT]...",
		Short: "Find calls and other events in agents' logs",
		Long: "Find calls and other events in the logs of the agents that are named, or of all. All conditions must hold; of a list, one. " +
			"A call is shown once, with how it ended. That somebody searched is written into the log of the control plane.",
		Example: "ambit audit search support --host api.stripe.com --since 7d\nambit audit search --decision deny --text refund\nambit audit search support --subject alice@example.com --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.agents = args
			q, err := f.question()
			if err != nil {
				return err
			}
			return a.withClient(func(c *client.Client) error {
				done := a.progress(cmd.Context(), "searching")
				found, err := c.Search(cmd.Context(), q)
				done()
				if err != nil {
					return err
				}
				return a.printFound(found)
			})
		},
	}
	f.add(c)
	c.Flags().StringSliceVar(&f.Subjects, "subject", nil, "only what touches this person: an e-mail address, a telephone number, an IBAN, a card, order:1001")
	c.Flags().IntVar(&f.Limit, "limit", 200, "at most so many of each log; 0 is 10000")
	c.Flags().BoolVar(&f.Newest, "newest", false, "the newest first")
	return c
}

func (a *app) printFound(found api.Found) error {
	if a.json {
		if err := a.printJSON(found); err != nil {
			return err
		}
		return missing(found.Missing)
	}
	if len(found.Found) == 0 {
		if err := a.print("Nothing is found."); err != nil {
			return err
		}
		return missing(found.Missing)
	}
	t := table{head: []string{"TIME", "AGENT", "EVENT", "KIND", "WHO", "DECISION", "WHAT", "STATUS", "INTENT"}}
	for _, f := range found.Found {
		t.rows = append(t.rows, a.foundRow(f))
	}
	if err := t.write(a.stdout, a.color()); err != nil {
		return err
	}
	return missing(found.Missing)
}

func missing(agents []string) error {
	if len(agents) == 0 {
		return nil
	}
	return fmt.Errorf("some agents could not be asked:\n  %s", strings.Join(agents, "\n  "))
}

func (a *app) foundRow(f api.TraceEntry) row {
	e := &f.Event
	what := e.Detail
	switch {
	case e.Tool != "":
		what = e.Tool + " " + e.Resource
	case e.URL != "":
		what = e.Method + " " + e.URL
	case e.Resource != "":
		what = e.Resource + " " + e.Detail
	}
	if w := a.width(); w > 0 {
		what = shorten(what, max(30, w-110))
	}
	status, decision := "-", e.Decision.String()
	if f.Outcome != nil && f.Outcome.Status != 0 {
		status = strconv.Itoa(f.Outcome.Status)
	}
	r := row{}
	if e.Decision != ambit.Allow {
		if e.Reason != nil {
			r.color, r.note = lipgloss.Red, e.Reason.Text
		} else {
			decision = "-"
		}
	}
	r.cells = []string{clock(e.Time), logOf(f.Agent), strconv.FormatUint(e.Seq, 10), string(e.Kind), string(e.Principal), decision, strings.TrimSpace(what), status, shorten(e.Intent, 50)}
	return r
}

func (a *app) traceCommand() *cobra.Command {
	var f searchFlags
	var html, csv string
	c := &cobra.Command{
		Use:   "trace --subject SUBJECT [AGENT]...",
		Short: "Answer what agents did with somebody's data",
		Long: "Answer what agents did with somebody's data: everything that touched it, in order, in the logs of the agents that are named, or of all. " +
			"It is found in addresses, in what was sent and in what was answered. --subject is an e-mail address, a telephone number, an IBAN, a card's number, or what a connector knows, such as order:1001; given again, any of them counts. " +
			"The report says what it may not contain. That somebody asked is written into the log of the control plane.",
		Example: "ambit audit trace --subject alice@example.com\nambit audit trace --subject order:1001 --since 30d --html report.html\nambit audit trace support --subject '+49 170 1234567' --csv report.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.agents = args
			q, err := f.question()
			if err != nil {
				return err
			}
			if len(q.Subjects) == 0 {
				return usageError{errors.New("say whose data it is about: --subject alice@example.com")}
			}
			return a.withClient(func(c *client.Client) error {
				done := a.progress(cmd.Context(), "looking through the logs")
				found, err := c.Trace(cmd.Context(), q)
				done()
				if err != nil {
					return err
				}
				return a.printTrace(found, html, csv)
			})
		},
	}
	f.add(c)
	c.Flags().StringSliceVar(&f.Subjects, "subject", nil, "whose data it is about")
	c.Flags().IntVar(&f.Limit, "limit", 0, "at most so many of each log; 0 is 10000")
	c.Flags().StringVar(&html, "html", "", "write the report as a page into this file")
	c.Flags().StringVar(&csv, "csv", "", "write the report as a table into this file; - is standard output")
	return c
}

func (a *app) printTrace(found api.Trace, html, csv string) error {
	r := report.New(found, time.Local) //nolint:gosmopolitan // for the person who asks
	var err error
	switch {
	case a.json:
		err = a.printJSON(found)
	case html != "" || csv != "":
		if html != "" {
			err = a.writeFile(html, r.HTML)
		}
		if csv != "" && err == nil {
			err = a.writeFile(csv, r.CSV)
		}
	default:
		err = r.Text(a.stdout, a.color())
	}
	return errors.Join(err, missing(found.Missing))
}

// writeFile writes a file that only this user can read, whole or not at all; -
// is standard output.
func (a *app) writeFile(name string, write func(io.Writer) error) (err error) {
	if name == "-" {
		return write(a.stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return a.print("written to %s", name)
}

func (a *app) exportCommand() *cobra.Command {
	var f searchFlags
	var out string
	var formats []string
	c := &cobra.Command{
		Use:   "export AGENT --out FILE",
		Short: "Write an agent's log into a bundle that anybody can check",
		Long: "Write an agent's log into a bundle: its signed head, all hashes, and the events that the conditions select. Whoever has the log's public key (`ambit audit key AGENT`) can check it without this program: docs/audit-format.md. " +
			"--format csv and --format ocsf add the same events for a spreadsheet and for a SIEM (OCSF).",
		Example: "ambit audit export support --out support.tar\nambit audit export support --since 30d --format csv --format ocsf --out support.tar\nambit audit verify --bundle support.tar --key support.vkey",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.question()
			if err != nil {
				return err
			}
			if out == "" {
				return usageError{errors.New("say where the bundle goes: --out FILE")}
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				done := a.progress(cmd.Context(), "exporting the log of "+string(id))
				defer done()
				return a.exportTo(cmd.Context(), c, id, api.Export{Search: q, Formats: formats}, out, done)
			})
		},
	}
	f.add(c)
	_ = c.Flags().MarkHidden("control")
	c.Flags().StringSliceVar(&f.Subjects, "subject", nil, "only what touches this person")
	c.Flags().StringVarP(&out, "out", "o", "", "the file to write; - is standard output")
	c.Flags().StringSliceVar(&formats, "format", nil, "further files with the same events: csv, ocsf")
	return c
}

func (a *app) exportTo(ctx context.Context, c *client.Client, id ambit.AgentID, q api.Export, out string, done func()) error {
	if out == "-" {
		if _, ok := terminal(a.stdout); ok {
			return usageError{errors.New("a bundle is no text for a terminal: say --out FILE")}
		}
	}
	return a.writeFile(out, func(w io.Writer) error {
		defer done()
		return c.Export(ctx, id, q, w)
	})
}

func (a *app) sinksCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sinks",
		Short:   "Show where the logs are streamed to, and how that goes",
		Long:    "Show where the logs are streamed to, and how that goes. The file outputs.yaml in the home says where; docs/outputs.md explains it.",
		Example: "ambit audit sinks",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *client.Client) error {
				all, err := c.Sinks(cmd.Context())
				if err != nil {
					return err
				}
				return a.printSinks(all)
			})
		},
	}
}

func (a *app) printSinks(all api.Sinks) error {
	if a.json {
		return a.printJSON(all)
	}
	if len(all.Sinks) == 0 {
		return a.print("The logs are streamed nowhere; docs/outputs.md says how to change that.")
	}
	t := table{head: []string{"SINK", "KIND", "STATE", "WHEN DOWN", "WAITING", "FOR", "DELIVERED", "REFUSED", "LAST"}}
	for _, s := range all.Sinks {
		r := row{cells: []string{
			s.Name, s.Kind, string(s.State), s.WhenDown, strconv.FormatUint(s.Lag, 10), took(s.LagTime), strconv.FormatUint(s.Delivered, 10), strconv.FormatUint(s.Rejected, 10), clock(s.LastDelivered),
		}}
		if s.State == sink.Failing || s.Behind {
			r.color, r.note = lipgloss.Red, s.LastError
		}
		t.rows = append(t.rows, r)
	}
	return t.write(a.stdout, a.color())
}
