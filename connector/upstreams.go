package connector

import (
	"net/http"
	"slices"

	"ambit"
	"ambit/internal/strictyaml"
	"ambit/manifest"
	"ambit/policy"
)

// UpstreamRule opens the one address of a server of tools, in the one way in which
// it is spoken to. Its roots are not filled in.
func UpstreamRule(u *manifest.Upstream) policy.Rule {
	return policy.Rule{
		Label: u.Label(), Host: u.Host, Ports: []uint16{u.Port}, Methods: []string{http.MethodPost}, Paths: []string{u.Path}, TLS: policy.Terminate,
	}
}

// upstreams refuses servers of tools that their connection does not open, and those
// without one whose host somebody else opens, too.
func upstreams(m *manifest.Manifest, all []*Binding) manifest.Errors {
	var problems manifest.Errors
	for i := range m.Upstreams {
		u := &m.Upstreams[i]
		for _, b := range all {
			at := slices.ContainsFunc(b.Hosts, func(h Host) bool { return matchHost(h.Name, u.Host) && slices.Contains(h.Ports, u.Port) })
			switch {
			case b.Name == u.Connection && !at:
				problems = append(problems, u.Problem("url", strictyaml.Quote(u.Host)+" is not a host of the connection "+b.Name+" on this port", "add it to the hosts and ports of "+said(m, b.Name).Label()+", or name another connection"))
			case b.Name == u.Connection:
				if text := closed(b, u); text != "" {
					problems = append(problems, u.Problem("url", "the connection "+b.Name+" does not open it: "+text, "open it there with paths, methods or a pin"))
				}
			case u.Connection == "" && at:
				problems = append(problems, u.Problem("url", strictyaml.Quote(u.Host)+" is a host of "+said(m, b.Name).Label(), "write connection: "+b.Name))
			}
		}
		for j := range m.Egress.Allow {
			r := &m.Egress.Allow[j]
			if u.Connection == "" && r.Paths == nil && hostsOverlap(r.Host, u.Host) && slices.Contains(r.Ports, u.Port) {
				problems = append(problems, u.Problem("url", r.Label()+" opens it to the agent's own requests, past what people accept", "name paths in that rule, or remove it"))
			}
		}
	}
	return problems
}

// closed says why a connection does not open the address of a server.
func closed(b *Binding, u *manifest.Upstream) string {
	s, err := policy.Compile(policy.Egress{Rules: b.Opened()})
	if err != nil {
		return err.Error()
	}
	v := s.Decide(&ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: http.MethodPost, Host: u.Host, Port: u.Port, Path: u.Path})
	if v.Decision == ambit.Allow {
		return ""
	}
	return v.Reason.Text
}
