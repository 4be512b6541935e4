package manifest

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"ambit/internal/dialguard"
	"ambit/internal/hostname"
	"ambit/internal/urlpath"
)

// Upstream is a server of the Model Context Protocol that others run, whose tools
// the agent may get: those that a person accepts, and an entry of tools allows.
type Upstream struct {
	Index int    // position in mcp, from 0
	Line  int    // line in the file, from 1
	Name  string // the first part of its tools' names, unique in the list: 1 to 32 of a-z, 0-9 and -, the first a letter
	URL   string // https, in canonical form
	Host  string // of the URL, in canonical form
	Port  uint16 // of the URL; 443 if it has none
	Path  string // of the URL, percent-encoded; starts with "/"
	// Connection is the As of the connection whose account is used; "" for none.
	Connection string

	places map[string]Error
}

// Label names the entry so that an operator finds it: `mcp[0] "crm" (line 7)`.
func (u *Upstream) Label() string {
	return fmt.Sprintf("mcp[%d] %q (line %d)", u.Index, u.Name, u.Line)
}

// Problem is as that of Connection, for the keys name, url and connection.
func (u *Upstream) Problem(key, text, hint string) *Error {
	at, ok := u.places[key]
	if !ok {
		at = u.places[""]
	}
	return at.Say(text, hint)
}

const (
	maxUpstreams    = 32
	upstreamExample = "write for example {name: crm, url: https://mcp.example.com/mcp, connection: crm}"
	urlExample      = "write for example url: https://mcp.example.com/mcp"
)

var (
	upstreamKeys    = []string{"name", "url", "connection"}
	upstreamPattern = pattern(`^[a-z][a-z0-9-]{0,31}$`)
)

// upstreams reads mcp. What it says about connections is checked by use, once
// those are read.
func (d *decoder) upstreams(n node) []namedUpstream {
	var all []namedUpstream
	d.List(n, func(i int, item node) {
		if i == maxUpstreams {
			d.Refuse(item, fmt.Sprintf("there are more than %d servers", maxUpstreams), "give the work to several agents")
		}
		if i < maxUpstreams {
			all = append(all, d.upstream(i, item))
		}
	})
	for i := range all {
		u := &all[i]
		first := slices.IndexFunc(all[:i], func(o namedUpstream) bool { return o.Name == u.Name })
		if u.Name != "" && first >= 0 {
			d.Refuse(n.Item(i), "is called "+quote(u.Name)+", as is "+all[first].Label(), "give one of them another name")
		}
	}
	return all
}

func (d *decoder) upstream(i int, n node) namedUpstream {
	if !n.IsMapping() {
		d.WrongKind(n, "a server", upstreamExample)
		return namedUpstream{}
	}
	f := d.Fields(n, upstreamKeys)
	line, _ := n.Place()
	u := namedUpstream{connection: f["connection"], Upstream: Upstream{
		Index: i, Line: line, Name: d.Checked(f["name"], "", checkUpstreamName), URL: d.Checked(f["url"], "", checkUpstreamURL),
		Connection: d.Checked(f["connection"], "", checkConnectionName), places: d.places(n, f),
	}}
	for _, key := range []string{"name", "url"} {
		if !f[key].Given() {
			d.Missing(n, key, upstreamExample)
		}
	}
	if u.URL == "" || !u.address() {
		return u
	}
	if a, err := netip.ParseAddr(u.Host); err == nil && u.Connection == "" {
		if dialguard.Check(a, false) != nil {
			d.Refuse(f["url"], "leads to "+a.String()+", which is "+dialguard.Classify(a).String(), "use it through a connection with private: true")
		}
	}
	return u
}

// address fills in what the URL is made of.
func (u *Upstream) address() bool {
	parsed, err := url.Parse(u.URL)
	if err != nil {
		return false
	}
	if u.Host, u.Port, err = hostname.SplitHostPort(parsed.Host, DefaultPort); err != nil {
		return false
	}
	if u.Path, err = urlpath.Canonical("/" + strings.TrimPrefix(parsed.EscapedPath(), "/")); err != nil {
		return false
	}
	authority := u.Host
	if strings.Contains(authority, ":") {
		authority = "[" + authority + "]"
	}
	if u.Port != DefaultPort {
		authority += fmt.Sprintf(":%d", u.Port)
	}
	u.URL = "https://" + authority + u.Path
	if parsed.RawQuery != "" {
		u.URL += "?" + parsed.RawQuery
	}
	return true
}

// namedUpstream is an Upstream with where it names its connection.
type namedUpstream struct {
	Upstream
	connection node
}

// use holds mcp to the connections.
func (d *decoder) use(n node, upstreams []namedUpstream, connections []Connection) []Upstream {
	var all []Upstream
	for i := range upstreams {
		u := &upstreams[i]
		all = append(all, u.Upstream)
		c := slices.IndexFunc(connections, func(c Connection) bool { return c.As != "" && c.As == u.Name })
		if c >= 0 && len(connections[c].Tools) > 0 {
			d.Refuse(n.Item(i), "is called "+quote(u.Name)+", as is "+connections[c].Label()+", which has tools", "give the server another name: it is the first part of its tools' names")
		}
		if u.Connection == "" {
			continue
		}
		c = slices.IndexFunc(connections, func(c Connection) bool { return c.As == u.Connection })
		if c < 0 {
			hint := "there are none: write it under connectors"
			if len(connections) > 0 {
				names := make([]string, len(connections))
				for i := range connections {
					names[i] = connections[i].As
				}
				hint = "there are: " + shorten(strings.Join(names, ", "))
			}
			d.Refuse(u.connection, "there is no connection "+quote(u.Connection), hint)
		}
	}
	return all
}

func checkUpstreamName(s string) (text, hint string) {
	switch {
	case s == "ambit":
		return `"ambit" is the name of Ambit's own tools`, "give the server another name"
	case upstreamPattern().MatchString(s):
		return "", ""
	}
	return quote(s) + " is not the name of a server: 1 to 32 characters of a-z, 0-9 and -, the first a letter", "write for example name: crm"
}

func checkUpstreamURL(s string) (text, hint string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > 1000 || strings.IndexFunc(s, invisible) >= 0 || strings.ContainsAny(s, " \\"):
		return quote(s) + " is not a URL", urlExample
	case u.Scheme != "https":
		return quote(s) + " is not a URL of https", urlExample
	case u.User != nil:
		return "has a user in it", "give the credential to a connection, and name that under connection"
	case u.Fragment != "" || strings.Contains(s, "#"):
		return quote(s) + " has a fragment, which no server gets", "remove what is behind #"
	case strings.Contains(u.EscapedPath(), "*"):
		return quote(s) + ` has a "*" in its path`, "write the one address of the server"
	}
	host, _, err := hostname.SplitHostPort(u.Host, DefaultPort)
	if err != nil {
		return quote(s) + " has no valid host: " + err.Error(), urlExample
	}
	if text, hint := CheckHost(host); text != "" {
		return text, hint
	}
	if _, err := urlpath.Canonical("/" + strings.TrimPrefix(u.EscapedPath(), "/")); err != nil {
		return quote(s) + " has a path that can be read in two ways: " + err.Error(), urlExample
	}
	return "", ""
}
