package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambit"
	"ambit/gate/toolset"
	"ambit/manifest"
	"ambit/policy"
)

// reach says in words what a manifest lets its agent reach, a line for each
// rule.
func reach(m *bound) []string {
	lines := make([]string, 0, len(m.Egress.Allow))
	for i := range m.Egress.Allow {
		r := &m.Egress.Allow[i]
		lines = append(lines, reachRule(&policy.Rule{
			Host: r.Host, Ports: r.Ports, Methods: r.Methods, Paths: r.Paths, Query: r.Query, Headers: r.Headers,
			TLS: policy.TLSMode(r.TLS), WebSocket: r.WebSocket,
		}))
	}
	for _, b := range m.bindings {
		for i := range b.Rules {
			lines = append(lines, reachRule(&b.Rules[i])+" as "+b.Name)
		}
		for _, t := range b.Tools() {
			lines = append(lines, "tool "+t.Tool.Name)
		}
	}
	for i := range m.Upstreams {
		u := &m.Upstreams[i]
		line := "tools of " + u.Name + " at " + u.URL + ", those that a person accepts"
		if u.Connection != "" {
			line += ", as " + u.Connection
		}
		lines = append(lines, line)
	}
	return lines
}

func reachRule(r *policy.Rule) string {
	methods := "any method"
	if r.Methods != nil {
		methods = strings.Join(r.Methods, " ")
	}
	scheme := "https"
	switch r.TLS {
	case policy.None:
		scheme = "http"
	case policy.Passthrough:
		scheme, methods = "tls", "anything"
	}
	host := r.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ports := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		ports[i] = fmt.Sprint(p)
	}
	line := fmt.Sprintf("%s %s://%s:%s", methods, scheme, host, strings.Join(ports, ","))
	if r.Paths != nil {
		line += " " + strings.Join(r.Paths, " ")
	}
	for _, c := range []struct {
		what string
		m    map[string][]string
	}{{"query", r.Query}, {"header", r.Headers}} {
		for _, k := range slices.Sorted(maps.Keys(c.m)) {
			line += fmt.Sprintf(" %s %s=%s", c.what, k, strings.Join(c.m[k], "|"))
		}
	}
	if r.WebSocket {
		line += " and WebSocket"
	}
	return line
}

// warnings says what of a manifest is allowed and deserves a second look.
func warnings(m *bound) []string {
	out := []string{}
	for i := range m.Egress.Allow {
		r := &m.Egress.Allow[i]
		switch {
		case r.TLS == manifest.TLSPassthrough:
			out = append(out, fmt.Sprintf("%s: connections to %s are not opened: only the name is checked, and the log has no URLs", r.Label(), r.Host))
		case r.TLS == manifest.TLSNone:
			out = append(out, fmt.Sprintf("%s: calls to %s are not encrypted", r.Label(), r.Host))
		}
		if r.Private {
			out = append(out, fmt.Sprintf("%s: %s may be an address of this machine or its network", r.Label(), r.Host))
		}
	}
	for i := range m.Connectors {
		c := &m.Connectors[i]
		if c.Private {
			out = append(out, fmt.Sprintf("%s: its hosts may be addresses of this machine or its network", c.Label()))
		}
		if !c.Require {
			out = append(out, fmt.Sprintf("%s: requests with a credential that is not the connection's are let through (require: false)", c.Label()))
		}
	}
	tools := map[string]*ambit.Tool{}
	for _, b := range m.bindings {
		for _, t := range b.Tools() {
			tools[t.Tool.Name] = &t.Tool
		}
	}
	out = append(out, toolset.Unknown(m.Manifest, tools)...)
	if m.Computer.Image.Kind == manifest.ImageDir {
		out = append(out, "the computer shows the host's folder "+m.Computer.Image.Ref)
	}
	return out
}
