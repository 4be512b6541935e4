package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
)

func (a *app) alertsCommand() *cobra.Command {
	var agent, least string
	var control bool
	var ack int64
	c := &cobra.Command{
		Use:     "alerts",
		Short:   "Show what a person should look at",
		Long:    "Show what a person should look at, the newest first: the alerts of the agents, and those about the control plane and its witness. The same thing again is one alert that is counted; it is news again after an hour of quiet, and after somebody has marked it as seen. docs/alerts.md says which alerts there are.",
		Example: "ambit alerts\nambit alerts --agent support --min high\nambit alerts ack --agent support 3\nambit alerts mute --agent support 3 --for 7d --why \"the nightly test\"",
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
	c.Flags().Int64Var(&ack, "ack", 0, "mark the alert with this number as seen, as the command ack does")
	c.AddCommand(a.ackCommand(), a.muteCommand(), a.unmuteCommand(), a.destinationsCommand(), a.testNotifyCommand())
	return c
}

// onAlert makes a command about one alert: fn is called with the agent and the
// number.
func (a *app) onAlert(c *cobra.Command, fn func(ctx context.Context, c *client.Client, id ambit.AgentID, alert int64) error) *cobra.Command {
	var agent string
	c.Args = args(cobra.ExactArgs(1))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if agent == "" {
			return usageError{errors.New("say whose alert it is with --agent: the number of an alert is within its agent")}
		}
		id, err := agentName(agent)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || n < 1 {
			return usageError{fmt.Errorf("%q is not the number of an alert: `ambit alerts --agent %s` shows the numbers", args[0], id)}
		}
		return a.withClient(func(c *client.Client) error { return fn(cmd.Context(), c, id, n) })
	}
	c.Flags().StringVar(&agent, "agent", "", "whose alert it is")
	return c
}

func (a *app) ackCommand() *cobra.Command {
	return a.onAlert(&cobra.Command{
		Use:     "ack --agent AGENT NUMBER",
		Short:   "Mark an alert as seen",
		Long:    "Mark an alert as seen. The next one of its kind is news again. Who marked it is in the log of the agent.",
		Example: "ambit alerts ack --agent support 3",
	}, a.ack)
}

func (a *app) muteCommand() *cobra.Command {
	var length, why string
	c := &cobra.Command{
		Use:     "mute --agent AGENT NUMBER [--for 24h] [--why TEXT]",
		Short:   "Silence an alert for a while",
		Long:    "Silence an alert for a while: it is counted and shown, and nobody is notified. The first one after that is news. Who muted it, and why, is in the log of the agent. To turn an alert off for good, give it the severity off in the manifest.",
		Example: "ambit alerts mute --agent support 3\nambit alerts mute --agent support 3 --for 7d --why \"the nightly test\"",
	}
	c.Flags().StringVar(&length, "for", "24h", "how long: 30m, 24h, 7d; a year at most")
	c.Flags().StringVar(&why, "why", "", "why, for other people")
	return a.onAlert(c, func(ctx context.Context, c *client.Client, id ambit.AgentID, alert int64) error {
		d, ok := duration(length)
		if !ok || d < time.Minute || d > api.MaxMuteSeconds*time.Second {
			return usageError{fmt.Errorf("--for %q is not a time from a minute to a year: write for example 30m, 24h or 7d", length)}
		}
		if err := c.Mute(ctx, id, alert, d, why); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]any{"agent": id, "muted": alert, "seconds": int64(d / time.Second)})
		}
		return a.print("alert %d of %s is muted until %s", alert, id, clock(time.Now().Add(d)))
	})
}

func (a *app) unmuteCommand() *cobra.Command {
	return a.onAlert(&cobra.Command{
		Use:     "unmute --agent AGENT NUMBER",
		Short:   "Let a muted alert speak again",
		Example: "ambit alerts unmute --agent support 3",
	}, func(ctx context.Context, c *client.Client, id ambit.AgentID, alert int64) error {
		if err := c.Unmute(ctx, id, alert); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]any{"agent": id, "unmuted": alert})
		}
		return a.print("alert %d of %s is not muted any more", alert, id)
	})
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
			r := row{cells: []string{logOf(f.Agent), strconv.FormatInt(f.ID, 10), f.Severity.String(), clock(f.Last), strconv.FormatUint(f.Count, 10), seen(f), f.Title}}
			switch {
			case f.MutedUntil != nil:
				r.note = fmt.Sprintf("muted until %s by %s", clock(*f.MutedUntil), f.MutedBy)
				if f.MutedWhy != "" {
					r.note += ": " + f.MutedWhy
				}
			case f.Severity >= ambit.High && !f.Acked:
				r.color = lipgloss.Red
			}
			t.rows = append(t.rows, r)
		}
		if err := t.write(a.stdout, a.color()); err != nil {
			return err
		}
	}
	return askedAll(found.Missing)
}

// seen says whether a person has seen an alert, and who.
func seen(f api.Alert) string {
	switch {
	case !f.Acked:
		return "no"
	case f.AckedBy == "":
		return "yes"
	}
	return "by " + string(f.AckedBy)
}

func (a *app) destinationsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "destinations",
		Short:   "Show who is notified of alerts, and how that goes",
		Example: "ambit alerts destinations",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(func(c *client.Client) error {
				found, err := c.Destinations(cmd.Context())
				switch {
				case err != nil:
					return err
				case a.json:
					return a.printJSON(found)
				case len(found.Destinations) == 0:
					return a.print("Nobody is notified.")
				}
				t := table{head: []string{"NAME", "KIND", "FROM", "WAITING", "DELIVERED"}}
				for _, d := range found.Destinations {
					delivered := "-"
					if d.Delivered != nil {
						delivered = clock(*d.Delivered)
					}
					r := row{cells: []string{d.Name, string(d.Kind), d.Severity.String(), strconv.Itoa(d.Waiting), delivered}}
					if d.Failed != nil {
						r.color, r.note = lipgloss.Yellow, clock(*d.Failed)+": "+d.Error
					}
					t.rows = append(t.rows, r)
				}
				return t.write(a.stdout, a.color())
			})
		},
	}
}

func (a *app) testNotifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "test-notify NAME",
		Short:   "Send a test message to one who is notified",
		Example: "ambit alerts test-notify ops",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(func(c *client.Client) error {
				if err := c.TestDestination(cmd.Context(), args[0]); err != nil {
					return err
				}
				if a.json {
					return a.printJSON(map[string]any{"tested": args[0]})
				}
				return a.print("%s took the test message", args[0])
			})
		},
	}
}
