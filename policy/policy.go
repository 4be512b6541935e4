// Package policy decides what an agent may send out. It is pure: a [Set] is
// compiled once from the rules of a manifest and never changes, and the same
// request always gets the same verdict. It does no input or output.
//
// A request is allowed if one rule matches it entirely. There are no deny
// rules and no order to get wrong: rules only add. What a rule does not name it
// does not limit (no methods means every method); a rule always names its host.
// Between rules for one host and port, how the connection is made (TLS mode,
// private addresses, fixed addresses, trusted roots) must be one thing: the most
// specific host wins, see [Compile].
//
// Hosts are found in a map, wildcards by walking the labels, paths by walking
// the segments, so that a decision costs the same with ten rules as with a
// hundred thousand, and an allowed one does not allocate.
//
// Trust: the rules are the operator's and trusted; Compile still refuses those
// that could not do what they say. The request is hostile, and a field of it
// that is not in canonical form is refused, although the door should have seen
// to that. Whoever controls a Set controls where the agent's data goes. The
// zero Set and a nil one deny everything.
package policy

import (
	"crypto/x509"
	"net/netip"
	"slices"

	"ambit"
	"ambit/internal/hostname"
)

// TLSMode is what the gate does with a connection to a host.
type TLSMode string

// The modes. The zero value is Terminate.
const (
	Terminate   TLSMode = "terminate"   // opened with the agent's own CA and judged by request
	Passthrough TLSMode = "passthrough" // not opened; judged by the name in the handshake alone, which is weaker
	None        TLSMode = "none"        // plain HTTP, judged by request
)

// Rule allows requests. All of what it names must hold; what it leaves empty is
// not limited, except as said below.
type Rule struct {
	// Label is how the operator finds the rule: "egress.allow[2] (line 14)". It
	// is in verdicts and errors. Default "egress.allow[i]" by position.
	Label string
	// Host is a name, an IP address, or "*." and a name for all names below it,
	// at any depth (not the name itself, and never an address). Required.
	Host string
	// Ports default to 443, or 80 with None.
	Ports []uint16
	// Methods are compared exactly. CONNECT cannot be one of them.
	Methods []string
	// Paths are patterns of canonical paths: "*" is any text within a segment
	// (alone, it is not an empty segment), a segment "**" is any number of
	// segments, as the last one at least one. "/v1/**" does not match "/v1".
	Paths []string
	// Query has parameters, decoded, that must be there exactly once with one of
	// the values, while no other parameter resembles them and the whole query
	// can be read in one way only.
	Query map[string][]string
	// Headers has fields that must be there exactly once with one of the values.
	Headers map[string][]string
	// TLS defaults to Terminate. With Passthrough there is no request to judge,
	// so that Methods, Paths, Query, Headers and WebSocket must be empty.
	TLS TLSMode
	// Private opens private, loopback and carrier-grade addresses for this host.
	Private bool
	// WebSocket allows the upgrade to WebSocket, beside plain requests.
	WebSocket bool
	// Resolve is dialled instead of what DNS says; empty means DNS.
	Resolve []netip.Addr
	// Roots are trusted for this host instead of the system's; nil means those.
	Roots *x509.CertPool
}

// Egress is all that a manifest says about the way out.
type Egress struct {
	Rules []Rule
	// IntentRequired refuses requests whose intent is unstated.
	IntentRequired bool
}

// Endpoint is how a host and port that a rule allows is to be reached. The
// zero Endpoint is of no use: its TLS mode is none of the three. Resolve and
// Roots are shared and must not be changed.
type Endpoint struct {
	TLS     TLSMode
	Private bool
	Resolve []netip.Addr
	Roots   *x509.CertPool
	Rule    string // label of the rule that says so
}

// Set is a compiled policy. It is safe for concurrent use.
type Set struct {
	exact, below   map[string]*host // by name or address; by what follows "*."
	intentRequired bool
}

// host has the rules of one Host.
type host struct {
	first *rule   // the first one in the manifest
	doors []*door // by port
}

// door has the rules of one Host and port.
type door struct {
	port  uint16
	reach *Endpoint // without Rule; the same pointer if and only if it is equal
	rules []*rule   // in the manifest's order, never empty
	paths pathIndex // of rules
}

// Endpoint says how host and port are reached, before any request is seen. The
// verdict is denied if no rule is for them, or host is not canonical. An
// allowed verdict says no more than that some request could be allowed.
func (s *Set) Endpoint(host string, port uint16) (Endpoint, ambit.Verdict) {
	r := ambit.Request{Action: ambit.ActionConnect, Host: host, Port: port}
	if v, bad := malformed(&r); bad {
		return Endpoint{}, v
	}
	var found *door
	near := miss{stage: atHost}
	for h := range s.hosts(host) {
		near.note(atPort, h.first)
		if d := h.at(port); d != nil && found == nil {
			found = d
		}
	}
	if found == nil {
		return Endpoint{}, near.refuse(&r)
	}
	e := *found.reach
	e.Rule = found.rules[0].label
	return e, ambit.Verdict{Decision: ambit.Allow, Rule: e.Rule}
}

// Ports returns the ports of all rules for host, sorted. It is empty if the
// name is to be refused, as is one that is not canonical.
func (s *Set) Ports(host string) []uint16 {
	if name, err := hostname.Canonical(host); err != nil || name != host {
		return nil
	}
	var ports []uint16
	for h := range s.hosts(host) {
		for _, d := range h.doors {
			ports = append(ports, d.port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Names says whether a rule is for this host alone and not for all below a
// suffix.
func (s *Set) Names(host string) bool { return s != nil && s.exact[host] != nil }

// hosts yields what matches name, the most specific first: itself, then
// wildcards from the longest to the shortest. Addresses match no wildcard.
func (s *Set) hosts(name string) func(yield func(*host) bool) {
	return func(yield func(*host) bool) {
		if s == nil {
			return
		}
		if h := s.exact[name]; h != nil && !yield(h) {
			return
		}
		if len(s.below) == 0 || hostname.IsIP(name) {
			return
		}
		for i := 1; i < len(name); i++ {
			if name[i] != '.' {
				continue
			}
			if h := s.below[name[i+1:]]; h != nil && !yield(h) {
				return
			}
		}
	}
}

// at returns the door with the port, or nil.
func (h *host) at(port uint16) *door {
	lo, hi := 0, len(h.doors)
	for lo < hi {
		if mid := (lo + hi) / 2; h.doors[mid].port < port {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(h.doors) && h.doors[lo].port == port {
		return h.doors[lo]
	}
	return nil
}
