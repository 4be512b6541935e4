package connector

import (
	"strings"

	"ambit/internal/hostname"
)

// Match says whether the host is for this name and port. name is canonical.
func (h *Host) Match(name string, port uint16) bool {
	for _, p := range h.Ports {
		if p == port {
			return matchHost(h.Name, name)
		}
	}
	return false
}

// matchHost says whether the canonical name is pattern, or below it if that
// starts with "*.". An address is below nothing.
func matchHost(pattern, name string) bool {
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	if !wildcard {
		return pattern == name
	}
	return len(name) > len(suffix) && strings.HasSuffix(name, suffix) && !hostname.IsIP(name)
}

// Segment returns which segment of a path an InPath place is, from 0. It
// returns -1 for a place that is none.
func (p *Place) Segment() int {
	if p.In != InPath {
		return -1
	}
	before, _, _ := strings.Cut(p.Name, "{")
	return strings.Count(before, "/") - 1
}

// Secrets returns the names of the Secrets that the entry uses, each once.
func (a *Auth) Secrets() []string {
	var names []string
	for i := range a.Places {
		names = append(names, a.Places[i].User.Names()...)
		names = append(names, a.Places[i].Value.Names()...)
	}
	switch {
	case a.HMAC != nil:
		names = append(names, a.HMAC.Secret)
	case a.SigV4 != nil:
		names = append(names, a.SigV4.KeyID, a.SigV4.Secret)
		if a.SigV4.Session != "" {
			names = append(names, a.SigV4.Session)
		}
	case a.MTLS != nil:
		names = append(names, a.MTLS.Certificate, a.MTLS.Key)
	}
	return unique(names)
}

// unique removes what was there before, and keeps the order.
func unique(all []string) []string {
	var kept []string
	seen := make(map[string]bool, len(all))
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	return kept
}
