package connector

import (
	"fmt"
	"slices"
	"strings"

	"ambit/manifest"
)

// apart refuses what would open a connection's hosts beside it: another
// connection, and rules of egress.allow.
func apart(m *manifest.Manifest, all []*Binding) manifest.Errors {
	var problems manifest.Errors
	for i, b := range all {
		for _, other := range all[:i] {
			if host, ok := overlap(b, other); ok {
				problems = append(problems, said(m, b.Name).Problem("", fmt.Sprintf("is for the host %s, as is %s: nothing in a request tells which credential is meant", host, said(m, other.Name).Label()),
					"give the two to different agents, or name the account of one with a pin that makes its hosts others"))
			}
		}
		for j := range m.Egress.Allow {
			r := &m.Egress.Allow[j]
			if text, hint := beside(b, said(m, b.Name), r); text != "" {
				problems = append(problems, said(m, b.Name).Problem("", text, hint))
			}
		}
	}
	return problems
}

func overlap(a, b *Binding) (host string, ok bool) {
	for i := range a.Hosts {
		for j := range b.Hosts {
			x, y := &a.Hosts[i], &b.Hosts[j]
			if hostsOverlap(x.Name, y.Name) && slices.ContainsFunc(x.Ports, func(p uint16) bool { return slices.Contains(y.Ports, p) }) {
				return x.Name, true
			}
		}
	}
	return "", false
}

func hostsOverlap(a, b string) bool {
	return a == b || matchHost(a, b) || matchHost(b, a) || matchHost(a, strings.TrimPrefix(b, "*.")) && strings.HasPrefix(b, "*.") ||
		matchHost(b, strings.TrimPrefix(a, "*.")) && strings.HasPrefix(a, "*.")
}

// beside says what is wrong with a rule of egress.allow beside a connection.
// A rule that names paths is somebody's clear wish; one that does not would
// undo the pins without saying so.
func beside(b *Binding, said *manifest.Connection, r *manifest.Rule) (text, hint string) {
	for i := range b.Hosts {
		h := &b.Hosts[i]
		if !hostsOverlap(h.Name, r.Host) || !slices.ContainsFunc(r.Ports, func(p uint16) bool { return slices.Contains(h.Ports, p) }) {
			continue
		}
		narrowed := len(said.Pins) > 0 || said.Paths != nil || said.Methods != nil
		switch {
		case r.TLS != manifest.TLSTerminate:
			return fmt.Sprintf("is for the host %s, and %s has tls: %s for it: the credential could not be put in, and others not be kept out", h.Name, r.Label(), r.TLS),
				"remove that rule, or the connection"
		case b.ToolsOnly:
			return fmt.Sprintf("is for tools only, and %s opens its host %s to the agent's own requests", r.Label(), h.Name),
				"remove that rule, or write direct: true in the connection"
		case narrowed && r.Paths == nil:
			return fmt.Sprintf("narrows the host %s, and %s opens all of it again", h.Name, r.Label()),
				"name paths in that rule, or remove it"
		}
	}
	return "", ""
}

// name gives each connection its variables: the first that wants a name has it,
// for a later one the connection's name is added.
func name(m *manifest.Manifest, all []*Binding) manifest.Errors {
	taken := map[string]string{}
	for key := range m.Computer.Env {
		taken[key] = "computer.env"
	}
	var problems manifest.Errors
	for _, b := range all {
		at := said(m, b.Name)
		for i := range b.Env {
			e := &b.Env[i]
			switch taken[e.Name] {
			case "":
			case "computer.env":
				problems = append(problems, at.Problem("", "sets the variable "+e.Name+", as does computer.env", "remove it there"))
			default:
				e.Name += "_" + upper(b.Name)
				if taken[e.Name] != "" {
					problems = append(problems, at.Problem("", "sets the variable "+e.Name+", as does "+taken[e.Name], "give the connection another name with as"))
				}
			}
			taken[e.Name] = at.Label()
		}
	}
	return problems
}

func said(m *manifest.Manifest, connection string) *manifest.Connection {
	for i := range m.Connectors {
		if m.Connectors[i].As == connection {
			return &m.Connectors[i]
		}
	}
	return &manifest.Connection{} // there is one for each binding
}

// upper writes a connection's name as part of a variable's.
func upper(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
