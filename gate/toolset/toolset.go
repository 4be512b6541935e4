// Package toolset makes the policy for tool calls of a manifest, for whoever
// decides by it: the worker of the agent, and the commands that try it out.
//
// Trust: the manifest is the operator's and was parsed by package manifest.
// Whatever of it cannot be compiled is an error, and then there is no policy.
package toolset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit"
	"ambit/internal/money"
	"ambit/manifest"
	"ambit/policy/tool"
)

// Compile makes the policy.
func Compile(m *manifest.Manifest) (*tool.Set, error) {
	c := tool.Config{
		Agent: m.Name, Role: m.Role, Inside: m.Inside, Cedar: m.Cedar.Text, CedarLine: m.Cedar.Line,
		AskAbove: map[string]money.Amount{},
	}
	for i := range m.Tools {
		t := &m.Tools[i]
		c.Tools = append(c.Tools, tool.Entry{Label: t.Label(), Tool: t.Tool, Deny: t.Deny, Scope: scope(t.Scope), Widen: t.Widen})
		c.Limits = append(c.Limits, bounds(t.Label(), tool.Limit{Tool: t.Tool}, t.Limits)...)
	}
	for i := range m.Connectors {
		c.Tools = append(c.Tools, given(m, &m.Connectors[i])...)
	}
	for i := range m.Limits {
		l := &m.Limits[i]
		if l.AskAbove != nil {
			c.AskAbove[l.AskAbove.Currency] = l.AskAbove.Amount
		}
		c.Limits = append(c.Limits, bounds(l.Label(), tool.Limit{Tool: l.Tool, Effect: l.Effect}, l.Bounds)...)
	}
	for i := range m.Approvals {
		a := &m.Approvals[i]
		one := tool.Approval{Label: a.Label(), Tool: a.Tool, Effect: a.Effect, Above: a.Above, Count: a.Count, Nobody: a.Nobody, From: a.Ask, Expires: a.Expires}
		if !a.Nobody {
			one.People = a.People
		}
		c.Approvals = append(c.Approvals, one)
	}
	s, err := tool.Compile(c)
	if err != nil {
		return nil, fmt.Errorf("making the policy for tools: %w", err)
	}
	return s, nil
}

// given are entries for the tools that a connection names, but for those that have
// one of their own.
func given(m *manifest.Manifest, c *manifest.Connection) (all []tool.Entry) {
	for _, name := range c.Tools {
		name = c.As + "." + name
		if !slices.ContainsFunc(m.Tools, func(t manifest.Tool) bool { return t.Tool == name || t.Tool == c.As+".*" }) {
			all = append(all, tool.Entry{Label: c.Label(), Tool: name})
		}
	}
	return all
}

func scope(m map[string][]manifest.Value) map[string][]string {
	if len(m) == 0 {
		return nil
	}
	all := make(map[string][]string, len(m))
	for path, values := range m {
		for _, v := range values {
			text := v.Text
			if v.IsText {
				text = tool.Text(v.Text)
			}
			all[path] = append(all[path], text)
		}
	}
	return all
}

// bounds makes a limit of each bound that is given.
func bounds(label string, of tool.Limit, b manifest.Bounds) []tool.Limit {
	var all []tool.Limit
	add := func(key string, window time.Duration, p *money.Price, calls int) {
		if p == nil && calls < 1 {
			return
		}
		l := of
		l.Label, l.Window, l.Price, l.Calls = labelOf(label, key), window, p, calls
		all = append(all, l)
	}
	add("perCall", 0, b.PerCall, -1)
	add("perHour", time.Hour, b.PerHour, -1)
	add("perDay", 24*time.Hour, b.PerDay, -1)
	add("callsPerHour", time.Hour, nil, b.CallsPerHour)
	add("callsPerDay", 24*time.Hour, nil, b.CallsPerDay)
	return all
}

// labelOf puts the key into a label: "limits[0].perDay (line 9)".
func labelOf(label, key string) string {
	name, line, _ := strings.Cut(label, " ")
	return name + "." + key + " " + line
}

// Unknown are the tools that the manifest names and that there are not: each
// entry with a label. A mistake in a name allows nothing, and says so here only.
func Unknown(m *manifest.Manifest, tools map[string]*ambit.Tool) []string {
	var sources []string
	for name := range tools {
		source, _, _ := strings.Cut(name, ".")
		sources = append(sources, source)
	}
	var all []string
	note := func(label, name string) {
		source, star := strings.CutSuffix(name, ".*")
		if name == "" || star && slices.Contains(sources, source) || tools[name] != nil {
			return
		}
		all = append(all, label+" names "+name+", which is no tool of this agent")
	}
	for i := range m.Tools {
		note(m.Tools[i].Label(), m.Tools[i].Tool)
	}
	for i := range m.Limits {
		note(m.Limits[i].Label(), m.Limits[i].Tool)
	}
	for i := range m.Approvals {
		note(m.Approvals[i].Label(), m.Approvals[i].Tool)
	}
	return all
}
