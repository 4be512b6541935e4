package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"ambit/api"
	"ambit/client"
	"ambit/gate/toolset"
	"ambit/manifest"
)

func (a *app) manifestCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "manifest",
		Short:   "Work on manifests without a control plane",
		Example: "ambit manifest check support.yaml\nambit manifest schema > ambit.schema.json",
	})
	c.AddCommand(&cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of a manifest, for editors",
		Example: "ambit manifest schema > ambit.schema.json",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(manifest.Schema())
			return err
		},
	}, &cobra.Command{
		Use:     "check FILE",
		Short:   "Say what is wrong with a manifest",
		Long:    "Say what is wrong with a manifest, with line and column. FILE may be - for standard input.",
		Example: "ambit manifest check support.yaml",
		Args:    args(cobra.ExactArgs(1)),
		RunE:    func(_ *cobra.Command, args []string) error { return a.checkManifest(args[0]) },
	})
	return c
}

func (a *app) checkManifest(name string) error {
	file, source, err := a.readManifest(name)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(file, source)
	var found manifest.Errors
	if errors.As(err, &found) {
		return a.printProblems(file, found)
	}
	if err != nil {
		return err
	}
	if _, err := toolset.Compile(m); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"ok": true, "name": m.Name, "errors": []string{}})
	}
	return a.print("%s is a manifest of agent %s with %d egress rules", file, m.Name, len(m.Egress.Allow))
}

func (a *app) printProblems(file string, found manifest.Errors) error {
	if a.json {
		if err := a.printJSON(map[string]any{"ok": false, "errors": found}); err != nil {
			return err
		}
		return &exitError{code: exitFailed}
	}
	text := file + " is refused"
	for _, e := range found {
		text += "\n" + e.Error()
		if x := e.Excerpt(); x != "" {
			text += "\n" + x
		}
	}
	return &exitError{exitFailed, text}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program, and of the control plane if it runs",
		Example: "ambit version --json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Client api.Version  `json:"client"`
				Server *api.Version `json:"server,omitempty"`
			}{Client: api.Version{Version: programVersion(), API: 1, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}}
			_ = a.withClient(func(c *client.Client) error {
				v, err := c.Version(cmd.Context())
				if err == nil {
					out.Server = &v
				}
				return err
			})
			if a.json {
				return a.printJSON(out)
			}
			text := fmt.Sprintf("ambit %s (%s, %s/%s)", out.Client.Version, out.Client.Go, out.Client.OS, out.Client.Arch)
			if out.Server != nil && out.Server.Version != out.Client.Version {
				text += fmt.Sprintf("\ncontrol plane: %s: restart ambit serve to have one version", out.Server.Version)
			}
			return a.print("%s", text)
		},
	}
}
