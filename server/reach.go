package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambit/manifest"
)

// reach says in words what a manifest lets its agent reach, a line for each
// rule.
func reach(m *manifest.Manifest) []string {
	lines := make([]string, 0, len(m.Egress.Allow))
	for i := range m.Egress.Allow {
		lines = append(lines, reachRule(&m.Egress.Allow[i]))
	}
	return lines
}

func reachRule(r *manifest.Rule) string {
	methods := "any method"
	if r.Methods != nil {
		methods = strings.Join(r.Methods, " ")
	}
	scheme := "https"
	switch r.TLS {
	case manifest.TLSNone:
		scheme = "http"
	case manifest.TLSPassthrough:
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
func warnings(m *manifest.Manifest) []string {
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
	if m.Computer.Image.Kind == manifest.ImageDir {
		out = append(out, "the computer shows the host's folder "+m.Computer.Image.Ref)
	}
	return out
}
