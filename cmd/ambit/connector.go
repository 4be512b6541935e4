package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"ambit/connector"
	"ambit/connector/openapi"
)

func (a *app) connectorCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "connector",
		Short:   "Work on connector files without a control plane",
		Example: "ambit connector import openapi.yaml --name acme --out acme.yaml\nambit connector check acme.yaml",
	})
	c.AddCommand(a.importCommand(), &cobra.Command{
		Use:     "check FILE",
		Short:   "Say what is wrong with a connector file",
		Long:    "Say what is wrong with a connector file, with line and column, and which of its tools nobody has reviewed.",
		Example: "ambit connector check acme.yaml",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return a.checkConnector(args[0]) },
	}, &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of a connector file, for editors",
		Example: "ambit connector schema > connector.schema.json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(connector.Schema())
			return err
		},
	})
	return c
}

func (a *app) importCommand() *cobra.Command {
	var o openapi.Options
	var out string
	c := &cobra.Command{
		Use:   "import OPENAPI [--out FILE]",
		Short: "Make a connector file of an OpenAPI document",
		Long: "Make a connector file of an OpenAPI document, 3.0 or 3.1, in JSON or YAML; - is standard input. It has a tool for each operation, with effects that are guessed: by the method, and by words such as refund (spend), invite (access) and publish.\n\n" +
			"Each tool is marked \"reviewed: false\" and cannot be used until a person has checked its effects, targets, amount and records, and removed the mark. What cannot be expressed is left out, and standard error says what and why.",
		Example: "ambit connector import openapi.yaml --name acme --only orders,refunds --out acme.yaml",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			src, err := a.readLimited(args[0], openapi.MaxSize)
			if err != nil {
				return fmt.Errorf("reading the OpenAPI document: %w", err)
			}
			im, err := openapi.Import(src, o)
			if err != nil {
				return err
			}
			return a.printImported(im, out)
		},
	}
	c.Flags().StringVar(&o.Name, "name", "", "name of the connector; default: made of the document's title")
	c.Flags().StringVar(&o.Host, "host", "", "host, in place of the document's server")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "words of which an operation's path, name or tag must have one")
	c.Flags().StringVar(&out, "out", "", "write to this file, which must not exist yet; default: standard output")
	return c
}

// readLimited reads a file or standard input, and one byte more than most.
func (a *app) readLimited(name string, most int64) ([]byte, error) {
	r := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it is only read
		r = f
	}
	return io.ReadAll(io.LimitReader(r, most+1))
}

func (a *app) printImported(im *openapi.Imported, out string) error {
	if out != "" {
		if err := writeNew(out, im.File); err != nil {
			return fmt.Errorf("writing the connector file: %w", err)
		}
	}
	if a.json {
		return a.printJSON(struct {
			*openapi.Imported
			File string `json:"file,omitempty"` // its text, unless it was written
			Out  string `json:"out,omitempty"`
		}{im, map[bool]string{true: string(im.File)}[out == ""], out})
	}
	said := []string{fmt.Sprintf("%d tools were made, all to be reviewed; %d operations were left out", len(im.Tools), len(im.Left))}
	for _, l := range im.Left {
		said = append(said, "left out "+l.Operation+": "+l.Reason)
	}
	said = append(said, im.Remarks...)
	if out == "" {
		if _, err := a.stdout.Write(im.File); err != nil {
			return err
		}
		fmt.Fprintln(a.stderr, strings.Join(said, "\n"))
		return nil
	}
	return a.print("%s: %s", out, strings.Join(said, "\n"))
}

// writeNew writes a file that must not exist yet.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func (a *app) checkConnector(name string) error {
	src, err := a.readLimited(name, connector.MaxSize)
	if err != nil {
		return fmt.Errorf("reading the connector file: %w", err)
	}
	file := filepath.Base(name)
	c, err := connector.Check(file, src)
	var found connector.Errors
	if errors.As(err, &found) {
		return a.printProblems(file, found)
	}
	if err != nil {
		return err
	}
	tools := c.Tools()
	var open []string
	for _, t := range tools {
		if !t.Reviewed {
			open = append(open, t.Name)
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"ok": true, "name": c.Name, "tools": tools, "errors": []string{}})
	}
	text := fmt.Sprintf("%s is the connector %s with %d tools", file, c.Name, len(tools))
	if len(open) > 0 {
		text += fmt.Sprintf("\nnobody has reviewed %d of them: %s", len(open), strings.Join(open, ", "))
	}
	return a.print("%s", text)
}
