package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ambit/internal/hostname"
)

// Connection is one account that the agent may use, through a connector. What
// the connector makes of it is not judged here: only package connector knows
// the connectors.
type Connection struct {
	Index int    // position in connectors, from 0
	Line  int    // line in the file, from 1
	Name  string // of the connector: 1 to 40 of a-z, 0-9 and -, the first a letter
	As    string // of the connection, unique in the file, the same alphabet; default Name

	Account string // "" if it is not given
	// Pins has the values that each pin allows, by the pin's name. A list is
	// never empty.
	Pins map[string][]string
	// Hosts are in the form of Rule.Host; nil for those of the connector.
	Hosts   []string
	Ports   []uint16 // nil for those of the connector
	Methods []string // as in Rule; nil for no condition
	Paths   []string // as in Rule; nil for no condition

	Private bool
	Resolve []netip.Addr
	CA      string
	Require bool // refuses credentials that are none of ours; default true

	// Tools are the names of the connector's tools that the agent may call; nil for
	// none, and "*" alone for all.
	Tools []string
	// Upstream says that a server of Manifest.Upstreams is used with the account.
	Upstream bool
	// Direct says that the agent may use the account in requests of its own, too.
	// With neither Tools nor Upstream it always may.
	Direct bool

	places map[string]Error // where each key is, by its path below the connection
}

// Label names the connection so that an operator finds it:
// `connectors[0] "github" (line 7)`.
func (c *Connection) Label() string {
	return fmt.Sprintf("connectors[%d] %q (line %d)", c.Index, c.As, c.Line)
}

// Problem returns an error about a key of the connection, such as "account",
// "pin.owner" or "hosts[1]", that says where it is; about the connection itself
// if there is no such key.
func (c *Connection) Problem(key, text, hint string) *Error {
	at, ok := c.places[key]
	if !ok {
		at = c.places[""]
	}
	return at.Say(text, hint)
}

const (
	maxConnections     = 256
	maxPins            = 32
	maxPinValues       = 100
	maxPinValue        = 200
	maxHosts           = 32
	maxConnectionTools = 200
)

var (
	connectionKeys = []string{"name", "as", "account", "pin", "hosts", "ports", "methods", "paths", "private", "resolve", "ca", "require", "tools", "direct"}
	accountPattern = pattern(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$`)
	pinPattern     = pattern(`^[a-z][a-z0-9_]{0,39}$`)
	toolPattern    = pattern(`^[a-z][a-z0-9_-]{0,39}(\.[a-z][a-z0-9_-]{0,39}){0,2}$`)
)

func (d *decoder) connections(n node, upstreams []namedUpstream) []Connection {
	var all []Connection
	first := map[string]*Connection{}
	d.List(n, func(i int, item node) {
		if i == maxConnections {
			d.Refuse(item, fmt.Sprintf("there are more than %d connections", maxConnections), "give the work to several agents")
		}
		if i >= maxConnections {
			return
		}
		all = append(all, d.connection(i, item, upstreams))
	})
	for i := range all {
		c := &all[i]
		switch other := first[c.As]; {
		case c.As == "":
		case other == nil:
			first[c.As] = c
		default:
			d.Refuse(n.Item(i), "is called "+quote(c.As)+", as is "+other.Label(), "give one of them another name with as, such as "+quote(shorten(c.As)+"-2"))
		}
	}
	return all
}

func (d *decoder) connection(i int, n node, upstreams []namedUpstream) Connection {
	if !n.IsMapping() {
		d.WrongKind(n, "a connection", `write for example "name: github"`)
		return Connection{}
	}
	f := d.Fields(n, connectionKeys)
	line, _ := n.Place()
	at := d.places(n, f)
	c := Connection{
		Index:   i,
		Line:    line,
		Name:    d.Checked(f["name"], "", checkConnector),
		Account: d.Checked(f["account"], "", checkAccount),
		Pins:    d.pins(f["pin"], at),
		Hosts:   d.Texts(f["hosts"], CheckHost),
		Methods: d.Texts(f["methods"], CheckMethod),
		Paths:   d.Texts(f["paths"], CheckPath),
		Private: d.Boolean(f["private"]),
		CA:      d.Checked(f["ca"], "", checkPEM),
		Require: !f["require"].Given() || d.Boolean(f["require"]),
		Tools:   d.Texts(f["tools"], checkConnectionTool),
		Direct:  d.Boolean(f["direct"]),
		places:  at,
	}
	c.As = d.Checked(f["as"], c.Name, checkConnectionName)
	c.Upstream = slices.ContainsFunc(upstreams, func(u namedUpstream) bool { return u.Connection == c.As && c.As != "" })
	d.toolsOf(f, &c)
	if !f["name"].Given() {
		d.Missing(n, "name", "write for example name: github")
	}
	if f["ports"].Given() {
		c.Ports = d.ports(f["ports"], TLSTerminate)
	}
	for _, s := range d.Texts(f["resolve"], checkAddress) {
		if a, err := netip.ParseAddr(s); err == nil {
			c.Resolve = append(c.Resolve, a)
		}
	}
	for _, key := range []string{"hosts", "methods", "paths", "resolve", "tools"} {
		d.NotEmpty(f[key])
	}
	if len(c.Hosts) > maxHosts {
		d.Refuse(f["hosts"], fmt.Sprintf("has %d hosts, more than the %d of one connection", len(c.Hosts), maxHosts), "write a second connection")
	}
	d.reachable(f, &c)
	return c
}

// toolsOf refuses lists of tools that contradict themselves. Whether the
// connector has them is not known here.
func (d *decoder) toolsOf(f map[string]node, c *Connection) {
	for i, name := range c.Tools {
		switch {
		case name == "":
		case name == "*" && len(c.Tools) > 1:
			d.Refuse(f["tools"].Item(i), `"*" is all of them, and there are others beside it`, `write ["*"], or only names`)
		case slices.Contains(c.Tools[:i], name):
			d.Refuse(f["tools"].Item(i), quote(name)+" is here twice", "keep one of them")
		}
	}
	if len(c.Tools) > maxConnectionTools {
		d.Refuse(f["tools"], fmt.Sprintf("has %d tools, more than the %d of one connection", len(c.Tools), maxConnectionTools), "name those that the work needs")
	}
	if f["direct"].Given() && !f["tools"].Given() && !c.Upstream {
		d.Refuse(f["direct"], "has no use without tools: the agent uses the account in requests of its own", "remove it, or name tools")
	}
}

// reachable refuses addresses that only private: true opens, and hosts that
// contradict each other.
func (d *decoder) reachable(f map[string]node, c *Connection) {
	for i, h := range c.Hosts {
		if h != "" && slices.Contains(c.Hosts[:i], h) {
			d.Refuse(f["hosts"].Item(i), quote(h)+" is here twice", "keep one of them")
		}
		a, err := netip.ParseAddr(h)
		if err != nil {
			continue
		}
		if f["resolve"].Given() {
			d.Refuse(f["resolve"], "has no use: the host "+quote(h)+" is an address already", "remove it, or write a name as the host")
		}
		if !c.Private {
			d.onlyPublic(f["hosts"].Item(i), a)
		}
	}
	for i, a := range c.Resolve {
		if !c.Private {
			d.onlyPublic(f["resolve"].Item(i), a)
		}
	}
}

// pins reads a mapping from a pin to one value or a list of values, and notes
// where each is.
func (d *decoder) pins(n node, at map[string]Error) map[string][]string {
	if !n.Given() {
		return nil
	}
	all := map[string][]string{}
	d.Pairs(n, func(key string, k, v node) {
		if !d.Complain(k, checkPin, key) {
			return
		}
		values := []string{""}
		if v.IsList() {
			values = d.Texts(v, checkPinValue)
			d.NotEmpty(v)
		} else {
			values[0] = d.Checked(v, "", checkPinValue)
		}
		if len(values) > maxPinValues {
			d.Refuse(v, fmt.Sprintf("has %d values, more than the %d of one pin", len(values), maxPinValues), "use a pin that is less narrow")
		}
		all[key], at["pin."+key] = values, d.At(k)
	})
	d.NotEmpty(n)
	if len(all) > maxPins {
		d.Refuse(n, fmt.Sprintf("has more than %d pins", maxPins), "remove those that the connector does not have")
	}
	return all
}

// places notes where the keys of a connection are, for what is found wrong with
// them later.
func (d *decoder) places(n node, f map[string]node) map[string]Error {
	at := map[string]Error{"": d.At(n)}
	for key, v := range f {
		at[key] = d.At(v)
		if v.IsList() {
			d.List(v, func(i int, item node) { at[fmt.Sprintf("%s[%d]", key, i)] = d.At(item) })
		}
	}
	return at
}

func checkConnector(s string) (text, hint string) {
	if namePattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not the name of a connector: 1 to 40 characters of a-z, 0-9 and -, the first a letter", "write for example name: github"
}

func checkConnectionName(s string) (text, hint string) {
	if namePattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not the name of a connection: 1 to 40 characters of a-z, 0-9 and -, the first a letter", "write for example as: shop-eu"
}

func checkConnectionTool(s string) (text, hint string) {
	if s == "*" || toolPattern().MatchString(s) && len(s) <= 80 {
		return "", ""
	}
	return quote(s) + " is not the name of a tool", `write the name that the connector has for it, as in tools: [orders.get], or ["*"] for all`
}

func checkAccount(s string) (text, hint string) {
	if accountPattern().MatchString(s) {
		return "", ""
	}
	if _, err := hostname.Canonical(s); err != nil && strings.Contains(s, "://") {
		return quote(s) + " is a URL, not an account", "write the account's name alone, as in account: demo-shop"
	}
	return quote(s) + " is not an account: 1 to 100 letters, digits, dots, - and _, the first and last a letter or digit", "write for example account: demo-shop"
}

func checkPin(s string) (text, hint string) {
	if pinPattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not the name of a pin: 1 to 40 characters of a-z, 0-9 and _, the first a letter", "write for example owner: acme"
}

func checkPinValue(s string) (text, hint string) {
	switch {
	case s == "":
		return "is empty, and would pin nothing", "write what the agent may reach, as in owner: acme"
	case len(s) > maxPinValue:
		return fmt.Sprintf("has more than %d bytes", maxPinValue), "use a shorter one"
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	}
	return "", ""
}
