package worker

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"ambit/alert"
	"ambit/connector"
	"ambit/control"
	"ambit/gate/toolset"
	"ambit/manifest"
	"ambit/policy"
	"ambit/policy/tool"
	"ambit/scan"
)

// compiled is a manifest as the worker enforces it.
type compiled struct {
	policy     *policy.Set
	reach      *policy.Set // what tools may ask with the agent's connections
	bindings   []*connector.Binding
	subjects   *scan.Matcher // finds whom a call is about
	rules      []alert.Rule  // the operator's
	tunings    []alert.Tuning
	tools      []boundTool
	upstreams  []manifest.Upstream
	toolPolicy *tool.Set
	intent     bool          // every tool call must state one
	retention  time.Duration // how long bodies of the log are kept; manifest.Forever is
}

// compile turns a manifest's source, with its connector files, into what is
// enforced. It parses both itself: a worker enforces only what it has understood.
func compile(p control.Policy) (*compiled, error) {
	m, err := manifest.Parse("manifest", []byte(p.Source))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	c := &compiled{retention: time.Duration(m.Audit.Retention)}
	c.rules, c.tunings = alertRules(m)
	if c.bindings, err = bind(m, p.Connectors); err != nil {
		return nil, fmt.Errorf("reading the manifest's connectors: %w", err)
	}
	if c.subjects, err = subjects(c.bindings); err != nil {
		return nil, err
	}
	if c.policy, err = compileEgress(m, c.bindings); err != nil {
		return nil, err
	}
	c.upstreams = m.Upstreams
	if c.reach, err = compileReach(c.bindings, m.Upstreams); err != nil {
		return nil, err
	}
	for _, b := range c.bindings {
		for _, t := range b.Tools() {
			c.tools = append(c.tools, boundTool{b.Name, t})
		}
	}
	c.intent = m.Egress.Intent == manifest.IntentRequired
	c.toolPolicy, err = toolset.Compile(m)
	return c, err
}

// compileReach is the policy of what the worker asks itself on behalf of a tool
// call: what the connections open, the addresses of servers of tools that are used
// without one, and nothing of what the manifest allows the agent beside them. A
// stated intent is the tool call's to demand.
func compileReach(bindings []*connector.Binding, upstreams []manifest.Upstream) (*policy.Set, error) {
	rules, err := connectionRules(bindings, pools{}, func(b *connector.Binding) []policy.Rule { return b.Opened() })
	if err != nil {
		return nil, err
	}
	for i := range upstreams {
		if upstreams[i].Connection == "" {
			rules = append(rules, connector.UpstreamRule(&upstreams[i]))
		}
	}
	return policy.Compile(policy.Egress{Rules: rules})
}

// connectionRules are what the connections open, with the authorities that are
// trusted for their hosts.
func connectionRules(bindings []*connector.Binding, pools pools, of func(*connector.Binding) []policy.Rule) ([]policy.Rule, error) {
	var rules []policy.Rule
	for _, b := range bindings {
		roots, err := pools.get(b.CA)
		if err != nil {
			return nil, fmt.Errorf("connection %s: %w", b.Name, err)
		}
		for _, rule := range of(b) {
			rule.Roots = roots
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// subjects puts together how the connectors' services name people and things.
func subjects(bindings []*connector.Binding) (*scan.Matcher, error) {
	var all []scan.Pattern
	seen := map[*connector.Connector]bool{}
	for _, b := range bindings {
		if !seen[b.Connector] {
			seen[b.Connector] = true
			all = append(all, b.Connector.Subjects...)
		}
	}
	m, err := scan.NewMatcher(all)
	if err != nil {
		return nil, fmt.Errorf("putting together what the connectors recognise: %w", err)
	}
	return m, nil
}

func compileEgress(m *manifest.Manifest, bindings []*connector.Binding) (_ *policy.Set, err error) {
	e := policy.Egress{IntentRequired: m.Egress.Intent == manifest.IntentRequired}
	pools := pools{}
	for i := range m.Egress.Allow {
		r := &m.Egress.Allow[i]
		rule := policy.Rule{
			Label: r.Label(), Host: r.Host, Ports: r.Ports, Methods: r.Methods, Paths: r.Paths,
			Query: r.Query, Headers: r.Headers, TLS: policy.TLSMode(r.TLS),
			Private: r.Private, WebSocket: r.WebSocket, Resolve: r.Resolve,
		}
		if rule.Roots, err = pools.get(r.CA); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Label(), err)
		}
		e.Rules = append(e.Rules, rule)
	}
	more, err := connectionRules(bindings, pools, func(b *connector.Binding) []policy.Rule { return b.Rules })
	if err != nil {
		return nil, err
	}
	e.Rules = append(e.Rules, more...)
	return policy.Compile(e)
}

func bind(m *manifest.Manifest, files []connector.Source) ([]*connector.Binding, error) {
	if len(m.Connectors) == 0 {
		return nil, nil
	}
	known, err := connector.Builtin()
	if err != nil {
		return nil, err
	}
	if known, err = known.WithSources(files); err != nil {
		return nil, err
	}
	return known.Bind(m)
}

// pools are sets of certificate authorities by PEM, so that equal rules share
// one.
type pools map[string]*x509.CertPool

// get returns the system's authorities and those in pem; nil if pem is "".
func (p pools) get(pem string) (*x509.CertPool, error) {
	if pem == "" || p[pem] != nil {
		return p[pem], nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w; install the package ca-certificates", err)
	}
	if !roots.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("ca holds no certificate in PEM")
	}
	p[pem] = roots
	return roots, nil
}

// apply enforces another manifest from now on. What goes on and is no longer
// allowed is cut.
func (w *Worker) apply(ctx context.Context, p control.Policy) error {
	w.applying.Lock()
	defer w.applying.Unlock()
	if p.Version < int(w.version.Load()) {
		return errors.New("the worker enforces a newer version already")
	}
	c, err := compile(p)
	if err != nil {
		return err
	}
	if err := w.rules.Set(c.rules, c.tunings); err != nil {
		return err
	}
	// The version comes first: what people agreed to under the one before does not
	// run with a part of this one. Then what keeps a credential to its hosts, then
	// what opens them.
	before := w.version.Swap(int64(p.Version))
	err = w.vault.Bind(c.bindings)
	if err == nil {
		err = w.setTools(ctx, c)
	}
	if err != nil {
		w.version.Store(before)
		return err
	}
	w.adopt(c)
	w.gate.SetPolicy(c.policy)
	w.errands.SetPolicy(c.reach)
	w.proxy.Refresh()
	w.askServers(w.life)
	return nil
}

// adopt makes it what the worker goes by.
func (w *Worker) adopt(c *compiled) {
	w.policy.Store(c.policy)
	w.reach.Store(c.reach)
	w.subjects.Store(c.subjects)
	w.retention.Store(int64(c.retention))
}
