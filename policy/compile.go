package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ambit/internal/dialguard"
	"ambit/internal/hostname"
)

// Compile makes a Set of the rules. It refuses a rule that could never match,
// that could not be read in one way only, or that asks for what is never
// allowed; the error starts with the rule's label.
//
// All rules with the same Host and port must agree on TLS, Private, Resolve and
// Roots, else Compile refuses them. Between different Hosts that match one name,
// the most specific that has a rule for the port decides (a name before a
// wildcard, a longer wildcard before a shorter), and a rule of a less specific
// one counts for that name and port only if it agrees with it.
func Compile(e Egress) (*Set, error) {
	c := compiler{
		set:     Set{exact: make(map[string]*host), below: make(map[string]*host), intentRequired: e.IntentRequired},
		reaches: make(map[string]*Endpoint),
	}
	for i := range e.Rules {
		r := e.Rules[i]
		if r.Label == "" {
			r.Label = fmt.Sprintf("egress.allow[%d]", i)
		}
		if !printable(r.Label) {
			return nil, fmt.Errorf("%s: the label has characters that cannot be shown", strconv.QuoteToASCII(r.Label))
		}
		if err := c.add(i, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Label, err)
		}
	}
	for _, hosts := range []map[string]*host{c.set.exact, c.set.below} {
		for _, h := range hosts {
			slices.SortFunc(h.doors, func(a, b *door) int { return int(a.port) - int(b.port) })
			for _, d := range h.doors {
				d.paths = newPathIndex(d.rules)
			}
		}
	}
	return &c.set, nil
}

type compiler struct {
	set     Set
	reaches map[string]*Endpoint // by everything that is in them
	roots   []*x509.CertPool     // the different ones
}

func (c *compiler) add(order int, r *Rule) error {
	index, name := c.set.exact, r.Host
	if suffix, ok := strings.CutPrefix(r.Host, "*."); ok {
		index, name = c.set.below, suffix
	}
	name, err := hostname.Canonical(name)
	if err != nil {
		return err
	}
	if err := checkConnection(r, name); err != nil {
		return err
	}
	compiled, err := compileRule(order, r)
	if err != nil {
		return err
	}
	h := index[name]
	if h == nil {
		h = &host{first: compiled}
		index[name] = h
	}
	reach := c.reach(r)
	for _, port := range ports(r) {
		if err := h.add(port, reach, compiled); err != nil {
			return err
		}
	}
	return nil
}

func (h *host) add(port uint16, reach *Endpoint, r *rule) error {
	if port == 0 {
		return errors.New("port 0 is not a port; ports are 1 to 65535")
	}
	for _, d := range h.doors {
		if d.port != port {
			continue
		}
		if d.reach != reach {
			return fmt.Errorf("it is for the same host and port %d as %s, but says something else about %s; one connection can be made in one way only, so make them the same",
				port, d.rules[0].label, difference(d.reach, reach))
		}
		if d.rules[len(d.rules)-1] != r { // a port that is there twice counts once
			d.rules = append(d.rules, r)
		}
		return nil
	}
	h.doors = append(h.doors, &door{port: port, reach: reach, rules: []*rule{r}})
	return nil
}

func difference(a, b *Endpoint) string {
	switch {
	case a.TLS != b.TLS:
		return "tls"
	case a.Private != b.Private:
		return "private"
	case !slices.Equal(a.Resolve, b.Resolve):
		return "resolve"
	}
	return "ca"
}

// reach returns one pointer for all rules that say the same.
func (c *compiler) reach(r *Rule) *Endpoint {
	roots := slices.IndexFunc(c.roots, r.Roots.Equal)
	if r.Roots != nil && roots < 0 {
		roots = len(c.roots)
		c.roots = append(c.roots, r.Roots)
	}
	key := fmt.Sprint(mode(r), r.Private, r.Resolve, roots)
	e := c.reaches[key]
	if e == nil {
		e = &Endpoint{TLS: mode(r), Private: r.Private, Resolve: slices.Clone(r.Resolve), Roots: r.Roots}
		c.reaches[key] = e
	}
	return e
}

func mode(r *Rule) TLSMode {
	if r.TLS == "" {
		return Terminate
	}
	return r.TLS
}

func ports(r *Rule) []uint16 {
	switch {
	case len(r.Ports) > 0:
		return r.Ports
	case r.TLS == None:
		return []uint16{80}
	}
	return []uint16{443}
}

// checkConnection checks what a rule says about the connection to name.
func checkConnection(r *Rule, name string) error {
	isIP := hostname.IsIP(name)
	switch mode(r) {
	case Terminate, None:
	case Passthrough:
		if len(r.Methods)+len(r.Paths)+len(r.Query)+len(r.Headers) > 0 || r.WebSocket || r.Roots != nil {
			return errors.New("with tls: passthrough nothing inside the connection can be judged; remove methods, paths, query, headers, websocket and ca, or remove tls: passthrough")
		}
		if isIP {
			return errors.New("tls: passthrough needs a name, because a TLS handshake does not carry an address; write the name as host and the address under resolve")
		}
	default:
		return fmt.Errorf("tls is %s; it must be terminate, passthrough or none", strconv.QuoteToASCII(string(r.TLS)))
	}
	switch {
	case isIP && strings.HasPrefix(r.Host, "*."):
		return errors.New("a wildcard needs a name behind it, not an address")
	case isIP && len(r.Resolve) > 0:
		return errors.New("resolve has no use, because host is an address already; remove it")
	case r.TLS == None && r.Roots != nil:
		return errors.New("ca has no use with tls: none; remove it")
	}
	addrs := r.Resolve
	if isIP {
		a, _ := netip.ParseAddr(name)
		addrs = []netip.Addr{a}
	}
	for _, a := range addrs {
		if dialguard.Check(a, r.Private) == nil {
			continue
		}
		class := dialguard.Classify(a)
		if dialguard.Check(a, true) == nil {
			return fmt.Errorf("the address %s is %s; add private: true if the agent may connect to your own network", a, class)
		}
		return fmt.Errorf("the address %s is %s, which no rule can open; remove it", strconv.QuoteToASCII(a.String()), class)
	}
	return nil
}

func compileRule(order int, r *Rule) (*rule, error) {
	c := &rule{order: order, label: r.Label, methods: slices.Clone(r.Methods), websocket: r.WebSocket}
	for _, m := range r.Methods {
		switch {
		case !isToken(m) || len(m) > maxMethod:
			return nil, fmt.Errorf("%s is not an HTTP method", strconv.QuoteToASCII(m))
		case m == "CONNECT":
			return nil, errors.New("CONNECT opens a tunnel in which nothing is judged; remove it from methods")
		}
	}
	if r.WebSocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET") {
		return nil, errors.New("a WebSocket starts with GET; add GET to methods, or remove websocket")
	}
	for _, text := range r.Paths {
		p, err := compilePattern(text)
		if err != nil {
			return nil, fmt.Errorf("the path pattern %s: %w", strconv.QuoteToASCII(text), err)
		}
		c.paths = append(c.paths, p)
	}
	var err error
	if c.query, err = compileQuery(r.Query); err != nil {
		return nil, err
	}
	if c.headers, err = compileHeaders(r.Headers); err != nil {
		return nil, err
	}
	return c, nil
}

func compileQuery(query map[string][]string) ([]condition, error) {
	conditions, err := conditions("query parameter", query)
	if err != nil {
		return nil, err
	}
	for i := range conditions {
		for j := range conditions {
			if i != j && resembles(encode(conditions[i].name), conditions[j].name) {
				return nil, fmt.Errorf("some servers take the query parameters %s and %s for one, so they cannot both be judged; keep one",
					strconv.QuoteToASCII(conditions[i].name), strconv.QuoteToASCII(conditions[j].name))
			}
		}
	}
	return conditions, nil
}

// encode percent-encodes every byte.
func encode(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func compileHeaders(headers map[string][]string) ([]condition, error) {
	canonical := make(map[string][]string, len(headers))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		key := http.CanonicalHeaderKey(name)
		switch {
		case !isToken(name):
			return nil, fmt.Errorf("%s is not the name of a header field", strconv.QuoteToASCII(name))
		case key == "Host":
			return nil, errors.New("the field Host is judged by host; remove it from headers")
		case has(canonical, key):
			return nil, fmt.Errorf("the header field %s is there twice; put all its values into one list", key)
		}
		canonical[key] = headers[name]
	}
	conditions, err := conditions("header field", canonical)
	if err != nil {
		return nil, err
	}
	for i := range conditions {
		for j := range i {
			if sameField(conditions[i].name, conditions[j].name) {
				return nil, fmt.Errorf("some servers take the header fields %s and %s for one, so they cannot both be judged; keep one", conditions[j].name, conditions[i].name)
			}
		}
		for _, v := range conditions[i].values {
			if v != strings.Trim(v, " \t") {
				return nil, fmt.Errorf("the header field %s has a value with spaces around it, which never arrive", conditions[i].name)
			}
		}
	}
	return conditions, nil
}

func has(m map[string][]string, key string) bool {
	_, ok := m[key]
	return ok
}

// conditions sorts by name, so that the same request always fails at the same
// one.
func conditions(kind string, from map[string][]string) ([]condition, error) {
	var cs []condition
	for _, name := range slices.Sorted(maps.Keys(from)) {
		values := from[name]
		switch {
		case name == "":
			return nil, fmt.Errorf("a %s has no name", kind)
		case len(values) == 0:
			return nil, fmt.Errorf("the %s %s has no value that is allowed, so that nothing would match; list at least one", kind, strconv.QuoteToASCII(name))
		case !clearText(name) || !all(values, clearText):
			return nil, fmt.Errorf("the %s %s has a control character in its name or values", kind, strconv.QuoteToASCII(name))
		}
		cs = append(cs, condition{name: name, values: slices.Clone(values)})
	}
	return cs, nil
}

func all(values []string, is func(string) bool) bool {
	return !slices.ContainsFunc(values, func(s string) bool { return !is(s) })
}

func clearText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
}
