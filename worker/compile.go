package worker

import (
	"crypto/x509"
	"errors"
	"fmt"

	"ambit/control"
	"ambit/manifest"
	"ambit/policy"
)

// compile turns a manifest's source into the policy that the gate enforces. It
// parses the source itself: a worker enforces only what it has understood.
func compile(source string) (*policy.Set, error) {
	m, err := manifest.Parse("manifest", []byte(source))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	e := policy.Egress{IntentRequired: m.Egress.Intent == manifest.IntentRequired}
	pools := map[string]*x509.CertPool{} // by PEM, so that equal rules share one
	for i := range m.Egress.Allow {
		r := &m.Egress.Allow[i]
		rule := policy.Rule{
			Label: r.Label(), Host: r.Host, Ports: r.Ports, Methods: r.Methods, Paths: r.Paths,
			Query: r.Query, Headers: r.Headers, TLS: policy.TLSMode(r.TLS),
			Private: r.Private, WebSocket: r.WebSocket, Resolve: r.Resolve,
		}
		if r.CA != "" {
			if pools[r.CA] == nil {
				p, err := x509.SystemCertPool()
				if err != nil {
					return nil, fmt.Errorf("reading the system's certificate authorities: %w; install the package ca-certificates", err)
				}
				if !p.AppendCertsFromPEM([]byte(r.CA)) {
					return nil, fmt.Errorf("%s: ca holds no certificate in PEM", r.Label())
				}
				pools[r.CA] = p
			}
			rule.Roots = pools[r.CA]
		}
		e.Rules = append(e.Rules, rule)
	}
	return policy.Compile(e)
}

// apply enforces another manifest from now on. What goes on and is no longer
// allowed is cut.
func (w *Worker) apply(p control.Policy) error {
	w.applying.Lock()
	defer w.applying.Unlock()
	if p.Version < int(w.version.Load()) {
		return errors.New("the worker enforces a newer version already")
	}
	set, err := compile(p.Source)
	if err != nil {
		return err
	}
	w.policy.Store(set)
	w.gate.SetPolicy(set)
	w.version.Store(int64(p.Version))
	w.proxy.Refresh()
	return nil
}
