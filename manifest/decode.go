package manifest

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"ambit"
	"ambit/internal/dialguard"
	"ambit/internal/hostname"
	"ambit/internal/strictyaml"
)

// The keys of each mapping, in the order in which messages list them.
var (
	rootKeys     = []string{"ambit", "name", "description", "role", "computer", "connectors", "mcp", "tools", "limits", "approvals", "inside", "cedar", "egress", "alerts", "audit"}
	computerKeys = []string{"image", "command", "env", "workdir", "memory", "cpus", "processes", "disk", "restart", "registryCA"}
	egressKeys   = []string{"intent", "allow"}
	ruleKeys     = []string{"name", "host", "ports", "methods", "paths", "query", "headers", "tls", "private", "resolve", "ca", "websocket"}
	auditKeys    = []string{"retention"}
)

// laterKeys are top-level keys of the design that this version does not read.
var laterKeys = []string{"region", "model", "channels", "memory"}

const firstHint = `a manifest starts with "ambit: v1"`

func language() *strictyaml.Language {
	return &strictyaml.Language{
		Noun: "manifest", Start: firstHint, MaxSize: MaxSize, TooLarge: "use wildcards to write fewer rules",
		Second: "put each agent into a file of its own", Later: laterKeys,
	}
}

// decoder reads the mappings of a manifest.
type decoder struct{ *strictyaml.Decoder }

type (
	node  = strictyaml.Node
	check = strictyaml.Check
)

func quote(s string) string   { return strictyaml.Quote(s) }
func shorten(s string) string { return strictyaml.Shorten(s) }
func invisible(r rune) bool   { return strictyaml.Invisible(r) }

func (d *decoder) manifest(root node) *Manifest {
	if !root.IsMapping() {
		d.WrongKind(root, "keys and values", firstHint)
		return nil
	}
	f := d.Fields(root, rootKeys)
	if v := f["ambit"]; !v.Given() {
		d.Missing(root, "ambit", firstHint)
	} else if s, ok := v.Scalar(); !ok || s != Version {
		d.WrongKind(v, quote(Version)+", the only version that this Ambit reads", `write "ambit: v1"`)
	}
	if !f["name"].Given() {
		d.Missing(root, "name", "write for example name: support")
	}
	tools, upstreams := d.tools(f["tools"]), d.upstreams(f["mcp"])
	connections := d.connections(f["connectors"], upstreams)
	return &Manifest{
		Name:        ambit.AgentID(d.Checked(f["name"], "", checkName)),
		Description: d.Checked(f["description"], "", checkDescription),
		Computer:    d.computer(f["computer"]),
		Connectors:  connections,
		Upstreams:   d.use(f["mcp"], upstreams, connections),
		Role:        d.role(f["role"]),
		Tools:       tools,
		Limits:      d.limits(f["limits"], tools),
		Approvals:   d.approvals(f["approvals"]),
		Inside:      d.inside(f["inside"]),
		Cedar:       d.cedar(f["cedar"]),
		Egress:      d.egress(f["egress"]),
		Alerts:      d.alerts(f["alerts"]),
		Audit:       d.audit(f["audit"]),
	}
}

func (d *decoder) computer(n node) Computer {
	f := d.Fields(n, computerKeys)
	c := Computer{
		Image:      parseImage(d.Checked(f["image"], "host", checkImage)),
		Command:    d.Texts(f["command"], checkArgument),
		Env:        d.env(f["env"]),
		Workdir:    d.Checked(f["workdir"], DefaultWorkdir, checkFolder),
		Memory:     d.size(f["memory"], DefaultMemory),
		CPUs:       d.Number(f["cpus"], 0.01, 1024, DefaultCPUs),
		Processes:  d.Integer(f["processes"], 8, 32768, DefaultProcesses),
		Disk:       d.size(f["disk"], DefaultDisk),
		Restart:    Restart(d.Choice(f["restart"], string(RestartOnFailure), string(RestartNever), string(RestartAlways))),
		RegistryCA: d.Checked(f["registryCA"], "", checkPEM),
	}
	if len(c.Command) > maxArguments {
		d.Refuse(f["command"], fmt.Sprintf("has %d items, more than %d", len(c.Command), maxArguments), "put them into a script")
	}
	if len(c.Command) > 0 {
		program := f["command"].Item(0)
		if s, ok := program.Scalar(); ok && s == "" {
			d.Refuse(program, "the program's name is empty", "write for example command: [node, agent.js]")
		}
	}
	if f["registryCA"].Given() && c.Image.Kind != ImageOCI && c.Image.Kind != 0 {
		d.Refuse(f["registryCA"], "has no use: the image "+quote(c.Image.String())+" does not come from a registry", "remove it")
	}
	return c
}

func (d *decoder) env(n node) map[string]string {
	if !n.Given() {
		return nil
	}
	env := map[string]string{}
	d.Pairs(n, func(key string, k, v node) {
		d.Complain(k, CheckVariable, key)
		env[key] = d.Checked(v, "", checkArgument)
	})
	return env
}

func (d *decoder) egress(n node) Egress {
	f := d.Fields(n, egressKeys)
	e := Egress{Intent: Intent(d.Choice(f["intent"], string(IntentOptional), string(IntentRequired)))}
	d.List(f["allow"], func(i int, item node) {
		e.Allow = append(e.Allow, d.rule(i, item))
	})
	d.agree(f["allow"], e.Allow)
	return e
}

// agree refuses rules for the same host and port that want the connection made
// in different ways: before there is a request, nothing tells which is meant.
func (d *decoder) agree(n node, rules []Rule) {
	type endpoint struct {
		host string
		port uint16
	}
	first := make(map[endpoint]*Rule, len(rules))
	for i := range rules {
		r := &rules[i]
		for _, port := range r.Ports {
			if r.Host == "" || r.TLS == "" || port == 0 {
				continue // refused already
			}
			other := first[endpoint{r.Host, port}]
			if other == nil {
				first[endpoint{r.Host, port}] = r
				continue
			}
			if key := difference(r, other); key != "" {
				d.Refuse(n.Item(i), fmt.Sprintf("differs in %s from %s, which is for the same host and port %d", key, other.Label(), port),
					"a connection can be made in one way only: write the same "+key+" in both")
				break
			}
		}
	}
}

// difference names the key in which two rules want a connection made in
// different ways.
func difference(a, b *Rule) string {
	switch {
	case a.TLS != b.TLS:
		return "tls"
	case a.Private != b.Private:
		return "private"
	case !slices.Equal(a.Resolve, b.Resolve):
		return "resolve"
	case a.CA != b.CA:
		return "ca"
	}
	return ""
}

func (d *decoder) audit(n node) Audit {
	f := d.Fields(n, auditKeys)
	return Audit{Retention: d.retention(f["retention"])}
}

func (d *decoder) rule(i int, n node) Rule {
	if !n.IsMapping() {
		d.WrongKind(n, "a rule", `write for example "host: api.example.com"`)
		return Rule{}
	}
	f := d.Fields(n, ruleKeys)
	line, _ := n.Place()
	r := Rule{
		Index:     i,
		Line:      line,
		Name:      d.Checked(f["name"], "", checkLabel),
		Host:      d.Checked(f["host"], "", CheckHost),
		Methods:   d.Texts(f["methods"], CheckMethod),
		Paths:     d.Texts(f["paths"], CheckPath),
		Query:     d.conditions(f["query"], checkParameter, checkValue, strings.Clone),
		Headers:   d.conditions(f["headers"], CheckField, checkFieldValue, http.CanonicalHeaderKey),
		TLS:       TLS(d.Choice(f["tls"], string(TLSTerminate), string(TLSPassthrough), string(TLSNone))),
		Private:   d.Boolean(f["private"]),
		CA:        d.Checked(f["ca"], "", checkPEM),
		WebSocket: d.Boolean(f["websocket"]),
	}
	for _, s := range d.Texts(f["resolve"], checkAddress) {
		if a, err := netip.ParseAddr(s); err == nil {
			r.Resolve = append(r.Resolve, a)
		}
	}
	r.Ports = d.ports(f["ports"], r.TLS)
	if !f["host"].Given() {
		d.Missing(n, "host", "write for example host: api.example.com")
	}
	for _, key := range []string{"methods", "paths", "resolve"} {
		d.NotEmpty(f[key])
	}
	d.consistent(f, &r)
	return r
}

func (d *decoder) ports(n node, tls TLS) []uint16 {
	if !n.Given() {
		if tls == TLSNone {
			return []uint16{DefaultPlainPort}
		}
		return []uint16{DefaultPort}
	}
	var ports []uint16
	d.List(n, func(i int, item node) {
		ports = append(ports, uint16(d.Integer(item, 1, 65535, 0)))
	})
	d.NotEmpty(n)
	if len(ports) > maxPorts {
		d.Refuse(n, fmt.Sprintf("has %d ports, more than the %d of one rule", len(ports), maxPorts), "name only those that the agent needs")
	}
	return ports
}

// conditions reads a mapping from a name to one value or a list of values. The
// result is by the canonical name.
func (d *decoder) conditions(n node, name, value check, canonical func(string) string) map[string][]string {
	if !n.Given() {
		return nil
	}
	all := map[string][]string{}
	d.Pairs(n, func(key string, k, v node) {
		if !d.Complain(k, name, key) {
			return
		}
		key = canonical(key)
		if _, twice := all[key]; twice {
			d.Refuse(k, "names the same field as a key above in other letters", "put all allowed values into one list")
		}
		if v.IsList() {
			all[key] = d.Texts(v, value)
			d.NotEmpty(v)
		} else {
			all[key] = []string{d.Checked(v, "", value)}
		}
	})
	d.NotEmpty(n)
	return all
}

// consistent refuses what contradicts itself within a rule.
func (d *decoder) consistent(f map[string]node, r *Rule) {
	switch r.TLS {
	case TLSPassthrough:
		for _, key := range []string{"methods", "paths", "query", "headers", "ca"} {
			if f[key].Given() {
				d.Refuse(f[key], "cannot be judged with tls: passthrough, because the connection is not opened", "remove it, or remove tls: passthrough")
			}
		}
		if r.WebSocket {
			d.Refuse(f["websocket"], "has no meaning with tls: passthrough: whatever is in the connection passes", "remove it")
		}
		if hostname.IsIP(r.Host) {
			d.Refuse(f["tls"], "passthrough needs a host name: a TLS handshake does not name an IP address (RFC 6066)", "write the name as host and the address under resolve")
		}
	case TLSNone:
		if f["ca"].Given() {
			d.Refuse(f["ca"], "has no use with tls: none: there is no certificate", "remove it, or remove tls: none")
		}
	}
	if r.WebSocket && r.Methods != nil && !slices.Contains(r.Methods, "GET") {
		d.Refuse(f["websocket"], "a WebSocket starts with GET, and methods does not have it", "add GET to methods, or remove websocket")
	}
	if hostname.IsIP(r.Host) && f["resolve"].Given() {
		d.Refuse(f["resolve"], "has no use: the host is an address already", "remove it")
	}
	if r.Private {
		return
	}
	if a, err := netip.ParseAddr(r.Host); err == nil {
		d.onlyPublic(f["host"], a)
	}
	for i, a := range r.Resolve {
		d.onlyPublic(f["resolve"].Item(i), a)
	}
}

// onlyPublic refuses an address that private: true would open.
func (d *decoder) onlyPublic(n node, a netip.Addr) {
	if dialguard.Check(a, false) != nil {
		d.Refuse(n, a.String()+" is "+dialguard.Classify(a).String(), "add private: true if the agent may connect to your own network")
	}
}
