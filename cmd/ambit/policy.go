package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ambit"
	"ambit/client"
	"ambit/connector"
	"ambit/gate/toolset"
	"ambit/internal/money"
	"ambit/manifest"
	"ambit/policy/tool"
)

func (a *app) policyCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "policy",
		Short:   "Try out what a manifest says about tool calls",
		Example: "ambit policy explain support.yaml shop.refunds.create --args '{\"amount\":75,\"currency\":\"EUR\"}'\nambit policy test support.yaml\nambit policy show support.yaml",
	})
	c.AddCommand(a.explainCommand(), a.policyTestCommand(), &cobra.Command{
		Use:     "show {MANIFEST | AGENT}",
		Short:   "Print the Cedar policies that a manifest comes to",
		Example: "ambit policy show support.yaml",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.toolPolicy(cmd, args[0], "")
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"cedar": p.set.Cedar()})
			}
			return a.print("%s", strings.TrimSpace(p.set.Cedar()))
		},
	})
	return c
}

// toolPolicy is a manifest's policy with the tools that are known.
type toolPolicy struct {
	file     string
	manifest *manifest.Manifest
	set      *tool.Set
	tools    map[string]*ambit.Tool
	declared bool // it is known what tools do
}

// toolPolicy reads a manifest, from a file if there is one and else the one of
// an agent that is in force, and its tools: those of its connections, of an agent
// those of servers too, and those of toolsFile, or of NAME.tools.json beside the
// file NAME.yaml.
func (a *app) toolPolicy(cmd *cobra.Command, name, toolsFile string) (*toolPolicy, error) {
	file, source, id, err := a.manifestOf(cmd, name)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(file, source)
	var found manifest.Errors
	if errors.As(err, &found) {
		return nil, a.printProblems(file, found)
	}
	if err != nil {
		return nil, err
	}
	p := &toolPolicy{file: file, manifest: m, tools: map[string]*ambit.Tool{}}
	if p.set, err = toolset.Compile(m); err != nil {
		return nil, err
	}
	if err := a.ownTools(cmd, p, id); err != nil {
		return nil, err
	}
	beside := toolsFile == ""
	if beside && id != "" {
		return p, nil
	}
	if beside {
		toolsFile = besides(file, ".tools.json")
	}
	b, err := readSmall(toolsFile)
	switch {
	case beside && errors.Is(err, fs.ErrNotExist):
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("reading the tools: %w", err)
	}
	p.declared = true
	more, err := toolset.ParseTools(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", toolsFile, err)
	}
	maps.Copy(p.tools, more)
	return p, nil
}

// ownTools adds the tools of an agent, or of the connections that a manifest names:
// of connectors that are shipped, and of those in the home.
func (a *app) ownTools(cmd *cobra.Command, p *toolPolicy, id ambit.AgentID) error {
	if id != "" {
		p.declared = true
		return a.withClient(func(c *client.Client) error {
			all, err := c.Tools(cmd.Context(), id)
			for _, t := range all.Tools {
				if t.Name != "" {
					p.tools[t.Name] = &ambit.Tool{
						Name: t.Name, Connection: t.Connection, Effects: t.Effects, Leaves: t.Leaves, Targets: t.Targets, Amount: t.Amount,
						Currency: t.Currency, Limits: t.Limits, Records: t.Records, Input: t.Input, Output: t.Output,
					}
				}
			}
			return err
		})
	}
	if !slices.ContainsFunc(p.manifest.Connectors, func(c manifest.Connection) bool { return len(c.Tools) > 0 }) {
		return nil
	}
	known, err := connector.Builtin()
	if err != nil {
		return err
	}
	dir := filepath.Join(a.home, "connectors")
	if _, err := os.Stat(dir); err == nil {
		if known, err = known.With(os.DirFS(dir)); err != nil {
			return fmt.Errorf("reading the connectors in %s: %w", dir, err)
		}
	}
	bindings, err := known.Bind(p.manifest)
	var found manifest.Errors
	if errors.As(err, &found) {
		return a.printProblems(p.file, found)
	}
	if err != nil {
		return err
	}
	for _, b := range bindings {
		for _, t := range b.Tools() {
			p.declared, p.tools[t.Tool.Name] = true, &t.Tool
		}
	}
	return nil
}

// besides is the file beside a manifest: support.policy-test.yaml beside
// support.yaml.
func besides(file, suffix string) string {
	return strings.TrimSuffix(strings.TrimSuffix(file, ".yaml"), ".yml") + suffix
}

// maxSmall is the largest file of tools or examples, in bytes.
const maxSmall = 16 << 20

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s has more than %d bytes", name, maxSmall)
	}
	return b, err
}

// manifestOf is a manifest, and the agent that it is in force of; "" if it is a
// file.
func (a *app) manifestOf(cmd *cobra.Command, name string) (file string, source []byte, id ambit.AgentID, err error) {
	if _, err := os.Stat(name); err == nil || name == "-" || strings.ContainsAny(name, "./") {
		file, source, err = a.readManifest(name)
		return file, source, "", err
	}
	if id, err = agentName(name); err != nil {
		return "", nil, "", err
	}
	err = a.withClient(func(c *client.Client) error {
		versions, err := c.Versions(cmd.Context(), id)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if v.Current {
				v, err = c.VersionSource(cmd.Context(), id, v.N)
				source = []byte(v.Source)
				return err
			}
		}
		return fmt.Errorf("no version of the manifest of %s is in force", id)
	})
	return name, source, id, err
}

func (a *app) explainCommand() *cobra.Command {
	var arguments, toolsFile, intent, spentHour, spentDay string
	c := &cobra.Command{
		Use:   "explain {MANIFEST | AGENT} TOOL",
		Short: "Say what would happen to a tool call, and why",
		Long: "Say what would happen to a tool call, and why. Nothing is called, and nothing is logged. The manifest is a file, or the one of an agent that is in force.\n\n" +
			"What tools do is known of an agent, and of the connectors that are shipped or in the home. Of others it is read from --tools, a JSON list of tools, or from NAME.tools.json beside NAME.yaml. Exit codes: 0 it would be allowed, 3 denied, 4 a person would be asked.",
		Example: "ambit policy explain support.yaml shop.refunds.create --args '{\"amount\":75,\"currency\":\"EUR\"}'\nambit policy explain support.yaml shop.refunds.create --args '{\"amount\":5,\"currency\":\"EUR\"}' --spent-day '498 EUR'",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			spent := tool.Spent{Hour: map[string]money.Amount{}, Day: map[string]money.Amount{}}
			for flag, x := range map[string]struct {
				text string
				into map[string]money.Amount
			}{"--spent-hour": {spentHour, spent.Hour}, "--spent-day": {spentDay, spent.Day}} {
				if x.text == "" {
					continue
				}
				p, err := money.ParsePrice(x.text)
				if err != nil {
					return usageError{fmt.Errorf("%s is an amount and a currency, as \"450 EUR\", not %q", flag, x.text)}
				}
				x.into[p.Currency] = p.Amount
			}
			p, err := a.toolPolicy(cmd, args[0], toolsFile)
			if err != nil {
				return err
			}
			call := &ambit.ToolCall{Agent: p.manifest.Name, Args: canonical(arguments), Intent: intent}
			return a.explainTool(p, call, args[1], spent)
		},
	}
	c.Flags().StringVar(&arguments, "args", "{}", "the arguments of the call, as JSON")
	c.Flags().StringVar(&toolsFile, "tools", "", "file with the tools, as JSON")
	c.Flags().StringVar(&intent, "intent", "", "what the agent says the call is for")
	c.Flags().StringVar(&spentHour, "spent-hour", "", "what was spent within the hour before")
	c.Flags().StringVar(&spentDay, "spent-day", "", "what was spent within the day before")
	return c
}

// canonical writes the arguments as a call carries them. What is no JSON stays
// as it is, and is refused as the call would be.
func canonical(arguments string) []byte {
	var b bytes.Buffer
	if json.Compact(&b, []byte(arguments)) != nil {
		return []byte(arguments)
	}
	return b.Bytes()
}

// explanation is what explain prints as JSON.
type explanation struct {
	Tool    string       `json:"tool"`
	Outcome string       `json:"outcome"` // allow, deny, ask
	Rule    string       `json:"rule,omitempty"`
	Reason  ambit.Reason `json:"reason,omitzero"`
	Asks    []asked      `json:"asks,omitempty"`
	Unknown []string     `json:"unknown,omitempty"` // names in the manifest that are no tools
}

type asked struct {
	Rule    string   `json:"rule"`
	Text    string   `json:"text"`
	From    []string `json:"from,omitempty"` // nobody in particular: whoever may deploy the agent
	People  int      `json:"people"`
	Expires string   `json:"expires,omitempty"`
}

// explainTool says what the policy comes to for a call of a named tool.
func (a *app) explainTool(p *toolPolicy, call *ambit.ToolCall, name string, spent tool.Spent) error {
	call.Tool = p.tools[name]
	if call.Tool == nil {
		call.Tool = &ambit.Tool{Name: name}
	}
	v := p.set.Decide(call, spent.Facts(p.set, call))
	e := explanation{Tool: name, Outcome: toolset.Outcome(v), Rule: v.Rule, Reason: v.Reason}
	if p.declared {
		e.Unknown = toolset.Unknown(p.manifest, p.tools)
	}
	for _, k := range v.Asks {
		one := asked{Rule: k.Rule, Text: k.Reason.Text, From: k.From, People: max(k.People, 1)}
		if k.Expires > 0 {
			one.Expires = span(k.Expires)
		}
		e.Asks = append(e.Asks, one)
	}
	code := map[string]int{"allow": exitDone, "deny": exitDenied, "ask": exitWaiting}[e.Outcome]
	if a.json {
		if err := a.printJSON(e); err != nil {
			return err
		}
	} else if err := a.print("%s", e.text(p.declared)); err != nil {
		return err
	}
	if code == exitDone {
		return nil
	}
	return &exitError{code: code}
}

// span writes "24h" where Go writes "24h0m0s".
func span(d time.Duration) string {
	s := d.String()
	if rest, ok := strings.CutSuffix(s, "m0s"); ok {
		s = rest + "m"
	}
	if rest, ok := strings.CutSuffix(s, "h0m"); ok {
		s = rest + "h"
	}
	return s
}

func (e *explanation) text(declared bool) string {
	lines := []string{e.Tool + " would be " + map[string]string{"allow": "allowed", "deny": "denied", "ask": "asked about"}[e.Outcome]}
	add := func(key, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("  %-7s %s", key, value))
		}
	}
	if e.Outcome != "ask" {
		add("rule", e.Rule)
		add("why", e.Reason.Text)
		add("remedy", e.Reason.Remedy)
	}
	for _, k := range e.Asks {
		add("rule", k.Rule)
		add("why", k.Text)
		who := strings.Join(k.From, ", ")
		if who == "" {
			who = "whoever may deploy the agent"
		}
		if k.People > 1 {
			who += fmt.Sprintf("; %d people", k.People)
		}
		if k.Expires != "" {
			who += "; within " + k.Expires
		}
		add("asked", who)
	}
	if e.Reason.Code == tool.CodeUndeclared && !declared {
		add("note", "no file says what tools do: name one with --tools")
	}
	for _, u := range e.Unknown {
		add("note", u)
	}
	return strings.Join(lines, "\n")
}

func (a *app) policyTestCommand() *cobra.Command {
	var tests, toolsFile string
	c := &cobra.Command{
		Use:     "test MANIFEST",
		Short:   "Run the examples that are kept beside a manifest",
		Long:    "Run the examples of calls that are kept beside a manifest: NAME.policy-test.yaml beside NAME.yaml, with the tools of NAME.tools.json. The exit code is 1 if the policy says something else of one.",
		Example: "ambit policy test support.yaml\nambit policy test support.yaml --tests refunds.policy-test.yaml --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.toolPolicy(cmd, args[0], toolsFile)
			if err != nil {
				return err
			}
			if tests == "" {
				tests = besides(p.file, ".policy-test.yaml")
			}
			b, err := readSmall(tests)
			if err != nil {
				return fmt.Errorf("reading the examples: %w", err)
			}
			examples, err := toolset.ParseExamples(tests, b)
			var found manifest.Errors
			if errors.As(err, &found) {
				return a.printProblems(tests, found)
			}
			if err != nil {
				return err
			}
			return a.printResults(tests, toolset.Run(p.set, p.manifest.Name, p.tools, examples))
		},
	}
	c.Flags().StringVar(&tests, "tests", "", "file with the examples")
	c.Flags().StringVar(&toolsFile, "tools", "", "file with the tools, as JSON")
	return c
}

func (a *app) printResults(file string, results []toolset.Result) error {
	var lines []string
	failed := 0
	for _, r := range results {
		if r.OK {
			continue
		}
		failed++
		by := r.Rule
		if by == "" {
			by = "no rule"
		}
		lines = append(lines, fmt.Sprintf("%s:%d: %s: wanted %s, got %s by %s: %s", file, r.Line, r.Name, r.Want, r.Got, by, r.Text))
	}
	lines = append(lines, fmt.Sprintf("%d of %d examples are as wanted", len(results)-failed, len(results)))
	if a.json {
		if err := a.printJSON(map[string]any{"ok": failed == 0, "results": results}); err != nil {
			return err
		}
	} else if err := a.print("%s", strings.Join(lines, "\n")); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}
