package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
)

// How a way gets its token.
const (
	oauthWay   = "oauth"
	flowCode   = "code"
	flowDevice = "device"
)

// connecting is what a person said about how to connect an account.
type connecting struct {
	way, flow string
	from      string   // file with the credential, "-" for standard input
	fields    []string // "name=FILE"
}

func (a *app) connectCommand() *cobra.Command {
	var o connecting
	c := &cobra.Command{
		Use:   "connect AGENT NAME",
		Short: "Connect an account of an agent, or replace its credential",
		Long: "Connect the account of a connection that the agent's manifest has. The credential is sealed in the agent's own database; it can be replaced, and is never shown again. The agent has had a reference to it since it was deployed, which does not change.\n\n" +
			"On a terminal each thing is asked for, and what is secret is not shown. Elsewhere it is read from standard input, or from the file of --from: if one value is needed, all of the input is that value; if there are several, it is a JSON object of texts, or lines of the form name=value. --field reads one value from a file. A credential is never an argument.\n\n" +
			"A login in the browser comes back to a port of 127.0.0.1 of this machine, which this command listens on; --flow device needs no browser here, where the service has that.",
		Example: "ambit connect support github\n" +
			"ambit connect support github < token.txt\n" +
			"ambit connect support zendesk --way token --from zendesk.json\n" +
			"ambit connect support github --way app --field app_id=id --field installation_id=inst --field private_key=app.pem\n" +
			"ambit connect support gmail --way oauth --from client.json",
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := connectionName(args[1])
			if err != nil {
				return err
			}
			return a.withAgent(args, func(c *client.Client, id ambit.AgentID) error {
				return a.connect(cmd.Context(), c, id, name, o)
			})
		},
	}
	c.Flags().StringVar(&o.way, "way", "", "how: one of the connector's ways; default: a question on the terminal, elsewhere the first")
	c.Flags().StringVar(&o.flow, "flow", "", "how a login goes, code (browser here) or device (browser anywhere), or client-credentials; default: the way's first")
	c.Flags().StringVar(&o.from, "from", "", "file with the credential; - is standard input")
	c.Flags().StringArrayVar(&o.fields, "field", nil, "NAME=FILE: read one value from a file; may be repeated")
	return c
}

func (a *app) connect(ctx context.Context, c *client.Client, id ambit.AgentID, name string, o connecting) error {
	d, err := c.Connection(ctx, id, name)
	if err != nil {
		return err
	}
	way, err := a.chooseWay(ctx, d, o.way)
	if err != nil {
		return err
	}
	q := api.Connect{Way: way.Name, Flow: o.flow}
	if q.Flow != "" && !slices.Contains(way.Flows, q.Flow) {
		return usageError{fmt.Errorf("the way %s has no flow %q; it has: %s", way.Name, q.Flow, or(strings.Join(way.Flows, ", "), "none"))}
	}
	if q.Flow == "" && len(way.Flows) > 0 {
		q.Flow = way.Flows[0]
	}
	if q.Fields, err = a.credential(ctx, way, o); err != nil {
		return err
	}
	defer wipe(q.Fields)
	var out api.Connection
	switch {
	case way.Kind == oauthWay && q.Flow == flowCode:
		out, err = a.loginHere(ctx, c, id, name, way, q)
	case way.Kind == oauthWay && q.Flow == flowDevice:
		out, err = a.loginElsewhere(ctx, c, id, name, q)
	default:
		done := a.progress(ctx, "connecting "+name)
		out, err = c.Connect(ctx, id, name, q)
		done()
	}
	if err != nil {
		return err
	}
	return a.printConnected(id, out)
}

func (a *app) printConnected(id ambit.AgentID, c api.Connection) error {
	if a.json {
		return a.printJSON(c)
	}
	text := fmt.Sprintf("%s of %s is connected to %s", c.Name, id, c.Title)
	if c.Account != "" {
		text += ", account " + c.Account
	}
	text += "; its credential is used at " + shortHosts(c.Hosts)
	for _, n := range c.Notes {
		text += "\nNote: " + n
	}
	if len(c.Missing) > 0 {
		text += "\nNote: the service did not grant: " + strings.Join(c.Missing, ", ")
	}
	return a.print("%s", text)
}

// chooseWay finds the way that is named, or lets a person choose.
func (a *app) chooseWay(ctx context.Context, d api.ConnectionDetail, name string) (api.Way, error) {
	names := make([]string, len(d.Ways))
	for i, w := range d.Ways {
		if w.Name == name {
			return w, nil
		}
		names[i] = w.Name
	}
	if name != "" || len(d.Ways) == 0 {
		return api.Way{}, usageError{fmt.Errorf("%s has no way %q; it has: %s", d.Title, shorten(name, 60), strings.Join(names, ", "))}
	}
	if _, ok := terminal(a.stdin); !ok || len(d.Ways) == 1 {
		return d.Ways[0], nil
	}
	question := "How is " + d.Title + " connected?\n"
	for i, w := range d.Ways {
		question += fmt.Sprintf("  %d  %s (--way %s)\n", i+1, w.Title, w.Name)
	}
	answer, err := a.askLine(ctx, question+"Number or name [1]: ")
	if err != nil {
		return api.Way{}, err
	}
	if answer == "" {
		return d.Ways[0], nil
	}
	for i, w := range d.Ways {
		if answer == w.Name || answer == strconv.Itoa(i+1) {
			return w, nil
		}
	}
	return api.Way{}, errors.New("that is none of them: nothing was connected")
}
