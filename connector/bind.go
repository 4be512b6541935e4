package connector

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambit/internal/strictyaml"
	"ambit/manifest"
	"ambit/policy"
)

// Bind fills in what the manifest says about each of its connections. An error
// is of type [manifest.Errors]: all problems, with line and column in the
// manifest.
func (c *Catalog) Bind(m *manifest.Manifest) ([]*Binding, error) {
	var all []*Binding
	var problems manifest.Errors
	for i := range m.Connectors {
		b := &binder{catalog: c, said: &m.Connectors[i]}
		if bound := b.bind(); len(b.problems) == 0 {
			all = append(all, bound)
		}
		problems = append(problems, b.problems...)
	}
	problems = append(problems, apart(m, all)...)
	problems = append(problems, name(m, all)...)
	problems = append(problems, upstreams(m, all)...)
	if len(problems) > 0 {
		if len(problems) > strictyaml.MaxErrors {
			problems = problems[:strictyaml.MaxErrors]
		}
		return nil, problems
	}
	return all, nil
}

// binder binds one connection.
type binder struct {
	catalog  *Catalog
	said     *manifest.Connection
	def      *Connector
	vars     map[string]string // what placeholders are, but for secrets
	problems manifest.Errors
}

func (b *binder) refuse(key, text, hint string) {
	b.problems = append(b.problems, b.said.Problem(key, text, hint))
}

func (b *binder) bind() *Binding {
	if b.def = b.catalog.Get(b.said.Name); b.def == nil {
		hint := "there are: " + strings.Join(b.catalog.names(), ", ")
		if near, ok := strictyaml.Nearest(b.said.Name, b.catalog.names()); ok {
			hint = "did you mean " + strictyaml.Quote(near) + "?"
		}
		b.refuse("name", "there is no connector "+strictyaml.Quote(b.said.Name), hint)
		return nil
	}
	b.vars = map[string]string{"connection": b.said.As}
	b.account()
	b.pins()
	if len(b.problems) > 0 {
		return nil
	}
	places := b.hosts()
	if len(b.problems) > 0 {
		return nil
	}
	out := &Binding{
		Name: b.said.As, Connector: b.def, Account: b.said.Account, Line: b.said.Line, CA: b.said.CA, Require: b.said.Require,
		Secrets: slices.Clone(b.def.secrets), References: slices.Clone(b.def.references),
		Foreign: b.foreign(),
	}
	b.vars["host"] = strings.TrimPrefix(places[0].host, "*.")
	auth := make([]*Auth, len(b.def.auth))
	for i := range b.def.auth {
		auth[i] = b.auth(&b.def.auth[i].Auth)
	}
	for _, p := range places {
		b.place(out, p, auth)
	}
	out.ToolRules = out.Rules
	if out.ToolsOnly = (len(b.said.Tools) > 0 || b.said.Upstream) && !b.said.Direct; out.ToolsOnly {
		out.Rules = nil
	}
	b.placement(out)
	for i := range b.def.ways {
		out.Ways = append(out.Ways, b.way(b.def.ways[i]))
	}
	if len(out.ToolRules) == 0 && len(b.problems) == 0 {
		b.closed()
		return out
	}
	if len(b.said.Tools) == 0 && !b.said.Upstream {
		out.ToolRules = nil
	}
	b.tools(out, places)
	return out
}

// placement adds what the computer gets: nothing if only tools use the account.
func (b *binder) placement(out *Binding) {
	if out.ToolsOnly {
		return
	}
	for _, e := range b.def.env {
		out.Env = append(out.Env, Env{Name: strings.ReplaceAll(e.Name, "{connection}", upper(b.said.As)), Value: b.fill(e.Value)})
	}
	for _, f := range b.def.files {
		out.Files = append(out.Files, File{Path: f.Path, Text: b.fill(f.Text)})
	}
}

// closed says why nothing is left open.
func (b *binder) closed() {
	switch {
	case b.said.Paths != nil:
		b.refuse("paths", "none of them is within what the connector and the pins leave open", "write paths below those, or leave paths out")
	case b.said.Methods != nil:
		b.refuse("methods", "none of them is within what the connector and the pins leave open", "leave methods out")
	default:
		b.refuse("pin", "these pins together leave nothing open", "remove one of them")
	}
}

func (b *binder) account() {
	given := b.said.Account
	switch {
	case b.def.Account == "" && given != "":
		b.refuse("account", "the connector "+b.def.Name+" takes no account", "remove it")
	case b.def.Account != "" && given == "":
		b.refuse("", "needs an account: "+b.def.Account, "write account: NAME")
	case b.def.Account != "" && !b.def.accountCheck.MatchString(given):
		b.refuse("account", strictyaml.Quote(given)+" is not "+b.def.Account, "write it as "+b.def.accountCheck.String()+" says")
	default:
		b.vars["account"] = given
	}
}

// pins checks the pins that are given, and that none is missing.
func (b *binder) pins() {
	var known []string
	for i := range b.def.pins {
		p := &b.def.pins[i]
		known = append(known, p.name)
		values := b.said.Pins[p.name]
		switch {
		case p.required && values == nil:
			b.refuse("pin", "the connector "+b.def.Name+" needs the pin "+p.name+": "+p.title, "write pin: {"+p.name+": …}")
		case p.variable() && len(values) > 1:
			b.refuse("pin."+p.name, "takes one value", "write a connection for each, with as")
		case values != nil && p.with != "" && b.said.Pins[p.with] == nil:
			b.refuse("pin."+p.name, "goes with the pin "+p.with+": "+b.def.pin(p.with).title, "write "+p.with+" too")
		}
		for _, v := range values {
			if !p.check.MatchString(v) {
				b.refuse("pin."+p.name, strictyaml.Quote(v)+" is not "+p.title, "write it as "+p.check.String()+" says")
			}
		}
		if p.variable() && len(values) > 0 {
			b.vars[p.name] = values[0]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.said.Pins)) {
		if slices.Contains(known, name) {
			continue
		}
		hint := "it has none"
		if len(known) > 0 {
			hint = "there are: " + strings.Join(known, ", ")
		}
		if near, ok := strictyaml.Nearest(name, known); ok {
			hint = "did you mean " + strictyaml.Quote(near) + "?"
		}
		b.refuse("pin."+name, "the connector "+b.def.Name+" has no pin "+strictyaml.Quote(name), hint)
	}
}

// bound is a host with its entry.
type bound struct {
	host  string
	entry hostEntry
}

func (b *binder) hosts() []bound {
	var all []bound
	if given := b.said.Hosts; given != nil {
		if !b.def.OwnHosts {
			b.refuse("hosts", "the connector "+b.def.Name+" is for the service's own hosts only", "remove it, or use a generic connector such as bearer")
			return nil
		}
		var entry hostEntry
		if len(b.def.hosts) > 0 {
			entry = b.def.hosts[0]
		}
		for _, h := range given {
			if !b.def.Generic && strings.HasPrefix(h, "*.") { // a name below could say whose bucket it is, whatever the pin says
				b.refuse("hosts", "the connector "+b.def.Name+" is for one installation, and "+strictyaml.Quote(h)+" is many names", "write its host")
				continue
			}
			all = append(all, bound{h, entry})
		}
		return all
	}
	if b.def.Generic {
		b.refuse("", "the connector "+b.def.Name+" needs the hosts of the service", "write for example hosts: [api.acme.example]")
	}
	for _, e := range b.def.hosts {
		h := string(b.fill(e.host))
		if text, hint := manifest.CheckHost(h); text != "" {
			b.refuse("account", "makes a host that is none: "+text, hint)
		}
		all = append(all, bound{h, e})
	}
	return all
}

// place adds the rules for a host, and the host if there are any.
func (b *binder) place(out *Binding, p bound, auth []*Auth) {
	ports := b.said.Ports
	if ports == nil {
		ports = []uint16{443}
	}
	var hosts []string
	body := map[string][]BodyCondition{}
	for _, o := range b.openings(p) {
		if o.host != p.host && !matchHost(p.host, o.host) {
			b.refuse("pin", "makes the host "+strictyaml.Quote(o.host)+", which is not below "+p.host, "correct the connector")
			continue
		}
		if !slices.Contains(hosts, o.host) {
			hosts = append(hosts, o.host)
		}
		for _, c := range o.body {
			c.Methods, c.Paths = o.methods, o.paths
			body[o.host] = append(body[o.host], c)
		}
		out.Rules = append(out.Rules, policy.Rule{
			Label: b.said.Label(), Host: o.host, Ports: ports, Methods: o.methods, Paths: o.paths, Query: o.query, Headers: o.headers,
			TLS: policy.Terminate, Private: b.said.Private, WebSocket: p.entry.websocket && websocketMethod(o.methods), Resolve: b.said.Resolve,
		})
	}
	for _, h := range hosts {
		host := Host{Name: h, Ports: ports, Body: body[h]}
		for i, a := range auth {
			at := b.def.auth[i].hosts
			if at == nil || slices.Contains(at, string(p.entry.host)) {
				host.Auth = append(host.Auth, a)
			}
		}
		out.Hosts = append(out.Hosts, host)
	}
}

// websocketMethod says whether a rule with these methods can open a WebSocket,
// which starts with GET.
func websocketMethod(methods []string) bool {
	return methods == nil || slices.Contains(methods, "GET")
}

// openings is what is open of a host: what the connector opens, of that what
// all pins leave, and of that what the connection's own methods and paths are.
func (b *binder) openings(p bound) []opening {
	all := []opening{{host: p.host, methods: p.entry.methods, paths: p.entry.paths}}
	for _, pin := range b.leaves() {
		all = product(all, b.pinned(pin, p.entry))
	}
	return product(all, []opening{{methods: b.said.Methods, paths: b.said.Paths}})
}

func product(a, b []opening) []opening {
	var all []opening
	for _, x := range a {
		for _, y := range b {
			if o, ok := both(x, y); ok {
				all = append(all, o)
			}
		}
	}
	return all
}

// leaves are the pins that narrow: those that are given, but for those that
// another one which is given refines.
func (b *binder) leaves() []*pin {
	var all []*pin
	for i := range b.def.pins {
		p := &b.def.pins[i]
		if b.said.Pins[p.name] == nil || len(p.narrows) == 0 {
			continue
		}
		refined := slices.ContainsFunc(b.def.pins, func(o pin) bool {
			return o.name != p.name && b.said.Pins[o.name] != nil && slices.Contains(b.def.chain(&o), p.name)
		})
		if !refined {
			all = append(all, p)
		}
	}
	return all
}

// pinned is what a pin leaves of a host, for every combination of the values of
// the pin and of those it refines.
func (b *binder) pinned(p *pin, entry hostEntry) []opening {
	var all []opening
	for _, w := range p.narrows[string(entry.host)] {
		chain := b.def.chain(p)
		var body []BodyCondition
		if w.json != "" || w.form != "" { // one condition for all values, which must all hold at once
			body = []BodyCondition{{JSON: w.json, Form: w.form, Values: b.said.Pins[p.name]}}
			chain = chain[1:]
		}
		for _, vars := range b.combinations(chain) {
			o := b.opening(w, vars)
			o.body = body
			all = append(all, o)
		}
	}
	if len(all) > maxOpenings {
		b.refuse("pin", fmt.Sprintf("the values of the pins make more than %d combinations", maxOpenings), "use fewer values, or a pin that is less narrow")
		return nil
	}
	return all
}

// maxOpenings is how many rules a pin makes of one host at most.
const maxOpenings = 1000

// combinations fills in the pins of a chain in every way that their values
// allow.
func (b *binder) combinations(chain []string) []map[string]string {
	all := []map[string]string{b.vars}
	for _, name := range chain {
		var more []map[string]string
		for _, vars := range all {
			for _, v := range b.said.Pins[name] {
				with := maps.Clone(vars)
				with[name] = v
				more = append(more, with)
			}
		}
		if all = more; len(all) > maxOpenings {
			return all
		}
	}
	return all
}

func (b *binder) opening(w narrow, vars map[string]string) opening {
	o := opening{methods: w.methods, host: fillWith(w.host, vars)}
	if text, hint := manifest.CheckHost(o.host); w.host != "" && text != "" {
		b.refuse("pin", "makes a host that is none: "+text, hint)
	}
	for _, t := range w.paths {
		path, err := fillPath(t, vars)
		if err != nil {
			b.refuse("pin", "cannot be written in a path: "+err.Error(), "write it in the form in which the host gets it")
			continue
		}
		o.paths = append(o.paths, path)
	}
	o.query, o.headers = fillFields(w.query, vars), fillFields(w.headers, vars)
	return o
}
