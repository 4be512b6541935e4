package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/audit"
	"ambit/client"
	"ambit/internal/inert"
)

func oneLine(s string) string { return inert.Text(s) }

func (a *app) outputCommand() *cobra.Command {
	var follow, raw bool
	var tail int
	c := &cobra.Command{
		Use:     "output AGENT",
		Short:   "Print what an agent's program wrote",
		Long:    "Print what an agent's program wrote to its standard output and error. What goes to a terminal is made inert; --raw prints it as it is.",
		Example: "ambit output support\nambit output support -f --tail 4096",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				w, flush := a.stdout, func() {}
				if !raw {
					w, _, flush = a.inertOutputs()
				}
				defer flush()
				return c.Output(cmd.Context(), id, tail, follow, w)
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	c.Flags().IntVar(&tail, "tail", 0, "only so many last bytes; 0 is all that is kept")
	c.Flags().BoolVar(&raw, "raw", false, "do not make it inert on a terminal: terminal escapes of the agent take effect")
	return c
}

func (a *app) egressCommand() *cobra.Command {
	var q audit.CallQuery
	var follow bool
	var since string
	c := &cobra.Command{
		Use:     "egress AGENT",
		Short:   "Show every call that left an agent's computer or tried to",
		Long:    "Show every call that left an agent's computer or tried to, oldest first. --since takes a time ago (90m, 24h, 7d) or a time (2026-01-31T12:00:00Z). With --follow --json each line is one call, given when it was decided and again when it has ended.",
		Example: "ambit egress support --denied\nambit egress support --follow\nambit egress support --since 1h --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			if q.Limit < 0 {
				return usageError{errors.New("--limit is not below 0")}
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				if follow {
					return a.followEgress(cmd.Context(), c, id, q)
				}
				calls, err := c.Calls(cmd.Context(), id, q)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(calls)
				}
				if len(calls) == 0 {
					return a.print("No calls.")
				}
				t := table{head: egressHead()}
				for _, call := range calls {
					t.rows = append(t.rows, a.egressRow(call))
				}
				return t.write(a.stdout, a.color())
			})
		},
	}
	c.Flags().BoolVar(&q.Denied, "denied", false, "only what was refused")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with calls from now on")
	c.Flags().StringVar(&since, "since", "", "only calls since then")
	c.Flags().IntVar(&q.Limit, "limit", 0, "the last so many; 0 is as many as there are, up to 10000")
	return c
}

// parseSince reads a time ago or a time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	text := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= 36500 {
			text = strconv.Itoa(n*24) + "h"
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, usageError{fmt.Errorf("--since %q is neither a time ago (90m, 24h, 7d) nor a time (2026-01-31T12:00:00Z)", s)}
	}
	return now.Add(-d), nil
}

func egressHead() []string {
	return []string{"TIME", "DECISION", "METHOD", "URL", "STATUS", "OUT/IN", "TOOK", "RULE", "INTENT"}
}

// followWidths are the columns of rows that come one by one.
func followWidths() []int { return []int{19, 8, 7, 48, 6, 21, 9, 24, 0} }

func (a *app) egressRow(c audit.Call) row {
	url := c.URL
	if w := a.width(); w > 0 {
		url = shorten(url, max(24, w-110))
	}
	method := c.Method
	if method == "" {
		method = string(c.Action)
	}
	status := "-"
	switch {
	case c.Status != 0:
		status = strconv.Itoa(c.Status)
	case c.Decision == ambit.Allow && !c.Done:
		status = "…"
	case c.Decision == ambit.Allow && c.Detail != "":
		status = "failed"
	}
	intent := c.Intent
	if intent == "" {
		intent = "(unstated)"
	}
	rule := c.Rule
	if rule == "" {
		rule = "-"
	}
	r := row{cells: []string{clock(c.Time), c.Decision.String(), method, url, status, size(c.BytesOut) + "/" + size(c.BytesIn), took(c.Duration), rule, shorten(intent, 60)}}
	if c.Decision != ambit.Allow {
		r.color = lipgloss.Red
		if c.Reason != nil {
			r.note = c.Reason.Text
			if c.Reason.Remedy != "" {
				r.note += " (" + c.Reason.Remedy + ")"
			}
		}
	} else if c.Detail != "" {
		r.color, r.note = lipgloss.Yellow, c.Detail
	}
	return r
}

// followEgress shows a call when it has ended, and one that lasts also when it
// begins.
func (a *app) followEgress(ctx context.Context, c *client.Client, id ambit.AgentID, q audit.CallQuery) error {
	if a.json {
		return c.FollowCalls(ctx, id, q, func(call audit.Call) error { return a.printJSON(call) })
	}
	head := row{cells: egressHead()}
	if err := head.write(a.stdout, followWidths(), a.color(), lipgloss.NewStyle().Bold(true)); err != nil {
		return err
	}
	return c.FollowCalls(ctx, id, q, func(call audit.Call) error {
		lasts := call.Action == ambit.ActionWebSocket || call.Action == ambit.ActionPassthrough
		if !call.Done && !lasts {
			return nil
		}
		r := a.egressRow(call)
		style := lipgloss.NewStyle()
		if r.color != nil {
			style = style.Foreground(r.color)
		}
		for i := range r.cells {
			r.cells[i] = oneLine(r.cells[i])
		}
		return r.write(a.stdout, followWidths(), a.color(), style)
	})
}

func (a *app) alertsCommand() *cobra.Command {
	var agent, least string
	var control bool
	var ack int64
	c := &cobra.Command{
		Use:     "alerts",
		Short:   "Show what a person should look at",
		Long:    "Show what a person should look at: the alerts of the agents, and those about the control plane and its witness. To acknowledge that the witness refuses the log of an agent lets it look at that log again; what it kept stays.",
		Example: "ambit alerts\nambit alerts --agent support --min high\nambit alerts --agent support --ack 3\nambit alerts --control --ack 1",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var id ambit.AgentID
			var severity ambit.Severity
			var err error
			if agent != "" {
				if id, err = agentName(agent); err != nil {
					return err
				}
			}
			if err := severity.UnmarshalText([]byte(least)); err != nil {
				return usageError{fmt.Errorf("--min is info, low, medium, high or critical, not %q", least)}
			}
			if control && id != "" {
				return usageError{errors.New("--control and --agent exclude each other")}
			}
			if cmd.Flags().Changed("ack") && id == "" && !control {
				return usageError{errors.New("--ack needs --agent or --control: the number of an alert is within its agent")}
			}
			return a.withClient(func(c *client.Client) error {
				if cmd.Flags().Changed("ack") {
					return a.ack(cmd.Context(), c, id, ack)
				}
				list := func() (api.Alerts, error) { return c.Alerts(cmd.Context(), id, severity) }
				if control {
					list = func() (api.Alerts, error) { return c.ControlAlerts(cmd.Context(), severity) }
				}
				found, err := list()
				if err != nil {
					return err
				}
				return a.printAlerts(found)
			})
		},
	}
	c.Flags().StringVar(&agent, "agent", "", "only of this agent")
	c.Flags().BoolVar(&control, "control", false, "only of the control plane and its witness")
	c.Flags().StringVar(&least, "min", "info", "only of this severity or higher: info, low, medium, high, critical")
	c.Flags().Int64Var(&ack, "ack", 0, "mark the alert with this number as seen")
	return c
}

func (a *app) ack(ctx context.Context, c *client.Client, id ambit.AgentID, alert int64) error {
	acknowledge := func() error { return c.Ack(ctx, id, alert) }
	if id == "" {
		acknowledge = func() error { return c.AckControl(ctx, alert) }
	}
	if err := acknowledge(); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"agent": id, "acked": alert})
	}
	return a.print("alert %d of %s is marked as seen", alert, logOf(id))
}

func (a *app) printAlerts(found api.Alerts) error {
	if a.json {
		return a.printJSON(found)
	}
	if len(found.Alerts) == 0 && len(found.Missing) == 0 {
		return a.print("No alerts.")
	}
	if len(found.Alerts) > 0 {
		t := table{head: []string{"AGENT", "NUMBER", "SEVERITY", "LAST", "COUNT", "SEEN", "WHAT"}}
		for _, f := range found.Alerts {
			seen := "no"
			if f.Acked {
				seen = "yes"
			}
			r := row{cells: []string{logOf(f.Agent), strconv.FormatInt(f.ID, 10), f.Severity.String(), clock(f.Last), strconv.FormatUint(f.Count, 10), seen, f.Title}}
			if f.Severity >= ambit.High && !f.Acked {
				r.color = lipgloss.Red
			}
			t.rows = append(t.rows, r)
		}
		if err := t.write(a.stdout, a.color()); err != nil {
			return err
		}
	}
	if len(found.Missing) > 0 {
		return fmt.Errorf("some agents could not be asked:\n  %s", strings.Join(found.Missing, "\n  "))
	}
	return nil
}
