package vault

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/policy"
)

// site is a host of a connection, made ready to judge requests to it. It does
// not change.
type site struct {
	bound *bound
	host  *connector.Host
	ways  []way
	pins  []bodyPin

	session *siteSession // nil if the host hands back nothing that is kept

	// Where a credential could stand: the places of all ways, and
	// connector.Binding.Foreign. Names are folded.
	headers       map[string]fieldKind
	query, fields map[string]bool
}

// way is one way in which the host takes a credential.
type way struct {
	*connector.Auth
	scope scope
	spots []*spot
}

// spot is a place with what the agent sends there.
type spot struct {
	*connector.Place
	user, value pieces
	secrets     []string // names of the Secrets in them
	scope       scope    // of an InPath place: its pattern
}

// bodyPin is a body condition with the requests it is for.
type bodyPin struct {
	*connector.BodyCondition
	scope scope
}

// prepare makes a binding's hosts ready. The references must be there.
func (b *bound) prepare() error {
	for i := range b.Hosts {
		h := &b.Hosts[i]
		s := &site{
			bound: b, host: h, headers: make(map[string]fieldKind), query: foldAll(b.Foreign.Query, foldParam),
			fields: foldAll(b.Foreign.Fields, foldParam),
		}
		for _, name := range b.Foreign.Headers {
			s.mark(name, takes)
		}
		for _, name := range b.Foreign.Strip {
			s.mark(name, stays)
		}
		for _, a := range h.Auth {
			if err := s.add(a); err != nil {
				return fmt.Errorf("connection %s: %w", b.Name, err)
			}
		}
		for j := range h.Body {
			c := &h.Body[j]
			scope, err := newScope(c.Methods, c.Paths)
			if err != nil {
				return fmt.Errorf("connection %s: %w", b.Name, err)
			}
			s.pins = append(s.pins, bodyPin{c, scope})
		}
		b.sites = append(b.sites, s)
	}
	return nil
}

// fieldKind is what a header field is on a host.
type fieldKind uint8

const (
	passes fieldKind = iota
	takes            // a credential: nobody else's may stand there
	stays            // taken out of requests
)

func (s *site) mark(name string, kind fieldKind) {
	if name = foldField(name); s.headers[name] < kind {
		s.headers[name] = kind
	}
}

// add adds a way.
func (s *site) add(a *connector.Auth) error {
	scope, err := newScope(nil, a.Paths)
	if err != nil {
		return err
	}
	w := way{Auth: a, scope: scope}
	for i := range a.Places {
		p := &a.Places[i]
		at := &spot{Place: p, user: s.bound.pieces(p.User), value: s.bound.pieces(p.Value), secrets: append(p.User.Names(), p.Value.Names()...)}
		switch p.In {
		case connector.InHeader, connector.InBasic:
			s.mark(p.Name, takes)
		case connector.InQuery:
			s.query[foldParam(p.Name)] = true
		case connector.InPath:
			pattern := connector.Template(p.Name).Fill(func(string) (string, bool) { return "*", true })
			if at.scope, err = newScope(nil, []string{pattern}); err != nil {
				return err
			}
		}
		w.spots = append(w.spots, at)
	}
	if a.HMAC != nil {
		s.mark(a.HMAC.Header, takes)
	}
	if a.Session != nil { // of whatever path: a session is for all of the host
		if s.session == nil {
			s.session = &siteSession{}
		}
		s.session.cookies = append(s.session.cookies, a.Session.Cookies...)
		s.session.answers = append(s.session.answers, a.Session.JSON...)
	}
	s.ways = append(s.ways, w)
	return nil
}

// handsBack says that one of the hosts hands back what is kept.
func (b *bound) handsBack() bool {
	return slices.ContainsFunc(b.sites, func(s *site) bool { return s.session != nil })
}

// site returns the site of a host, or nil.
func (st *state) site(host string, port uint16) *site {
	for name := host; name != ""; {
		for _, s := range st.sites[name] {
			if s.host.Match(host, port) {
				return s
			}
		}
		dot := strings.IndexByte(name[1:], '.') // the next name above
		if dot < 0 {
			return nil
		}
		name = name[1+dot:]
	}
	return nil
}

// scope is a set of requests by method and path. The zero scope is all of them.
// Patterns are read by the package that reads those of the allowlist.
type scope struct{ set *policy.Set }

// scopeHost stands for the host, which is known already.
const scopeHost = "scope.invalid"

func newScope(methods, paths []string) (scope, error) {
	if methods == nil && paths == nil {
		return scope{}, nil
	}
	set, err := policy.Compile(policy.Egress{Rules: []policy.Rule{{Host: scopeHost, Methods: methods, Paths: paths}}})
	return scope{set}, err
}

func (s scope) has(method, path string) bool {
	if s.set == nil {
		return true
	}
	r := ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: method, Host: scopeHost, Port: 443, Path: path}
	return s.set.Decide(&r).Decision == ambit.Allow
}

// piece is text, or a secret with its reference.
type piece struct{ text, secret, ref string }

// pieces is a template with the references that the agent fills it with.
type pieces []piece

func (b *bound) pieces(t connector.Template) pieces {
	const mark = "\x00" // is in no template
	marked := t.Fill(func(name string) (string, bool) { return mark + name + mark, true })
	var all pieces
	for i, s := range strings.Split(marked, mark) {
		switch {
		case i%2 == 1:
			all = append(all, piece{secret: s, ref: b.refs[s]})
		case s != "":
			all = append(all, piece{text: s})
		}
	}
	return all
}

// fixed says that there is no secret in it.
func (p pieces) fixed() bool {
	for i := range p {
		if p[i].secret != "" {
			return false
		}
	}
	return true
}

// match says whether s is the template filled with references. With fold, the
// text around them is compared without regard to case.
func (p pieces) match(s string, fold bool) bool {
	for i := range p {
		want := p[i].text
		exact := !fold
		if p[i].secret != "" {
			want, exact = p[i].ref, true
			if want == "" {
				return false
			}
		}
		if len(s) < len(want) || s[:len(want)] != want && (exact || !strings.EqualFold(s[:len(want)], want)) {
			return false
		}
		s = s[len(want):]
	}
	return s == ""
}

// real is the template filled with real values, made at once.
func (p pieces) real(values values) string {
	var b strings.Builder
	b.Grow(p.realLen(values))
	for i := range p {
		if p[i].secret != "" {
			b.Write(values.of(p[i].secret).Reveal())
			continue
		}
		b.WriteString(p[i].text)
	}
	return b.String()
}

func (p pieces) realLen(values values) int {
	n := 0
	for i := range p {
		n += len(p[i].text) + values.of(p[i].secret).Len()
	}
	return n
}

// appendReal appends the template filled with real values.
func (p pieces) appendReal(dst []byte, values values) []byte {
	dst = slices.Grow(dst, p.realLen(values)) // at once: growing would leave copies of secrets behind
	for i := range p {
		if p[i].secret != "" {
			dst = append(dst, values.of(p[i].secret).Reveal()...)
			continue
		}
		dst = append(dst, p[i].text...)
	}
	return dst
}

// takes says for people how a credential stands at the spot.
func (s *spot) takes() string {
	switch s.In {
	case connector.InHeader:
		return `the header field "` + s.Name + ": " + string(s.Value) + `"`
	case connector.InBasic:
		return `"Authorization: Basic" with "` + string(s.User) + ":" + string(s.Value) + `"`
	case connector.InQuery:
		return `the query parameter "` + s.Name + "=" + string(s.Value) + `"`
	case connector.InPath:
		return `the path "` + s.Name + `"`
	case connector.InForm:
		return `the form field "` + s.Name + `"`
	case connector.InJSON:
		return `the JSON field "` + s.Name + `"`
	case connector.InWebSocket:
		return `the field "` + s.Name + `" of the first message of a WebSocket`
	}
	return "nothing"
}

// encodings are the forms in which programs send a reference: as it is,
// percent-encoded, and in base64 at each alignment (RFC 4648), as in
// Authorization: Basic.
func encodings(ref string) [][]byte {
	all := [][]byte{[]byte(ref)}
	if e := url.QueryEscape(ref); e != ref {
		all = append(all, []byte(e))
	}
	for shift := range 3 {
		plain := append(make([]byte, shift), ref...)
		whole := len(plain) / 3 * 3 // the digits behind depend on what follows
		for i, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			b := []byte(enc.EncodeToString(plain[:whole]))
			if shift > 0 {
				b = b[shift+1:] // these depend on what stands before
			}
			if i == 0 || !bytes.Equal(b, all[len(all)-1]) {
				all = append(all, b)
			}
		}
	}
	return all
}

func foldAll(names []string, fold func(string) string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, n := range names {
		all[fold(n)] = true
	}
	return all
}

// foldField is the same for all names that a server could take for one header
// field: case does not matter, and CGI cannot tell "_" from "-".
func foldField(name string) string {
	if strings.IndexByte(name, '_') >= 0 {
		name = strings.ReplaceAll(name, "_", "-")
	}
	return http.CanonicalHeaderKey(name)
}

// foldParam is the same for all names that a server could take for one
// parameter or field: case does not matter (ASP.NET), nor what follows "[" or
// NUL, and ".", " " and "_" are one (PHP).
func foldParam(name string) string { return string(appendFolded(nil, name)) }

func appendFolded[T string | []byte](dst []byte, name T) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == ' ' && len(dst) == 0:
			continue
		case c == '.' || c == ' ':
			c = '_'
		case (c == '[' || c == 0) && len(dst) > 0:
			return dst
		}
		dst = append(dst, c)
	}
	return dst
}

// hasField says whether one of the names, which are folded, is meant.
func hasField[T string | []byte](names map[string]bool, name T) bool {
	var room [64]byte
	return names[string(appendFolded(room[:0], name))]
}
