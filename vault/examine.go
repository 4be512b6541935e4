package vault

import (
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/internal/urlpath"
	"ambit/vault/sign"
)

// Plan is what [Vault.Examine] found in a request: where real values go in. A
// nil Plan is of a request to a host without a connection.
type Plan struct {
	st       *state // that it was made with
	site     *site
	strips   bool // a header field is there that does not leave
	headers  []*spot
	query    []queryFill
	path     *spot
	signed   []*way  // by the agent, with references
	sockets  []*spot // of the first message of a WebSocket
	identity *way    // whose client certificate is shown
	session  bool    // the Cookie field is written anew, with cookies
	cookies  []crumb
	handed   []handedFill // elsewhere, what hosts handed back
	uses     bool         // of the credential, as far as is known before the body
}

// queryFill is a parameter that is filled: the pair with that number between
// the "&"s.
type queryFill struct {
	pair int
	spot *spot
}

// Examine looks for references in the header, query and path of a request, and
// for credentials that are none of ours. A verdict that is not nil is denied,
// and says why for the gate to log; the codes are reference-misplaced,
// foreign-credential, signature-refused, pin-not-met, not-connected and
// scheme-unknown. It sets r.Connection if
// the request asks for a credential, and changes nothing else.
//
// References in a body are found by [Vault.Use].
func (v *Vault) Examine(r *ambit.Request) (*Plan, *ambit.Verdict) {
	st := v.state.Load()
	if len(st.bound) == 0 {
		return nil, nil
	}
	s := st.site(r.Host, r.Port)
	var p *Plan
	if s != nil {
		p = &Plan{st: st, site: s}
		reason := p.match(r)
		if reason == nil {
			reason = v.matchHanded(p, r)
		}
		if reason != nil {
			return nil, &ambit.Verdict{Rule: s.bound.rule(), Reason: *reason}
		}
	}
	var room [2048]byte // most requests fit, so that nothing is allocated
	text := p.gather(room[:0], r)
	if hit, ok := st.references.Find(text, 0); ok {
		return nil, &ambit.Verdict{Reason: st.owners[hit.Pattern].misplaced(s, p.where(st, r))}
	}
	if p == nil {
		return nil, nil
	}
	if s.bound.Require {
		if reason := p.foreign(r); reason != nil {
			return nil, &ambit.Verdict{Rule: s.bound.rule(), Reason: *reason}
		}
	}
	if p.uses || p.mayFill(r) {
		r.Connection = s.bound.Name
	}
	if p.uses {
		if v.connected(s.bound) == nil {
			return nil, &ambit.Verdict{Rule: s.bound.rule(), Reason: v.notConnected(s.bound)}
		}
	}
	return p, nil
}

// rule says where the operator finds a connection.
func (b *bound) rule() string {
	if opened := b.Opened(); len(opened) > 0 {
		return opened[0].Label
	}
	return "connectors " + b.Name
}

// match finds the places that are filled with references.
func (p *Plan) match(r *ambit.Request) *ambit.Reason {
	for i := range p.site.ways {
		w := &p.site.ways[i]
		if !w.scope.has(r.Method, r.Path) {
			continue
		}
		switch w.Scheme {
		case connector.Bearer, connector.Basic, connector.Header, connector.Query, connector.Path, connector.Form, connector.JSON, connector.WebSocket, connector.Login:
			for _, s := range w.spots {
				p.matchSpot(s, r)
			}
		case connector.MTLS:
			if p.identity == nil {
				p.identity = w
			}
		case connector.HMAC:
			if len(r.Header[w.HMAC.Header]) > 0 {
				p.signed = append(p.signed, w)
			}
		case connector.SigV4:
			if reason := p.claim(w, r); reason != nil {
				return reason
			}
		default:
			return &ambit.Reason{
				Code: "scheme-unknown", Text: "the connection " + quote(p.site.bound.Name) + " uses its credential in a way (" + string(w.Scheme) + ") that the gate does not know",
				Remedy: "update Ambit, or remove the connection from the manifest",
			}
		}
	}
	p.uses = p.uses || len(p.headers) > 0 || len(p.query) > 0 || p.path != nil || len(p.signed) > 0 || len(p.sockets) > 0 || p.identity != nil
	return nil
}

func (p *Plan) matchSpot(s *spot, r *ambit.Request) {
	switch s.In {
	case connector.InHeader:
		if v := r.Header[s.Name]; len(v) == 1 && p.filled(s.Name) == nil && s.value.match(v[0], true) {
			p.headers = append(p.headers, s)
		}
	case connector.InBasic:
		if v := r.Header[s.Name]; len(v) == 1 && p.filled(s.Name) == nil && s.matchBasic(v[0]) {
			p.headers = append(p.headers, s)
		}
	case connector.InQuery:
		i := 0
		for pair := range strings.SplitSeq(r.RawQuery, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if unescape(name) == s.Name && s.value.match(unescape(value), false) {
				p.query = append(p.query, queryFill{i, s})
			}
			i++
		}
	case connector.InPath:
		if segment, ok := nthSegment(r.Path, s.Segment()); ok && p.path == nil && s.value.match(unescapePath(segment), false) && s.scope.has(r.Method, r.Path) {
			p.path = s
		}
	case connector.InWebSocket:
		if r.Action == ambit.ActionWebSocket {
			p.sockets = append(p.sockets, s)
		}
	case connector.InForm, connector.InJSON: // in the body
	}
}

// mayFill says whether the body could ask for the credential.
func (p *Plan) mayFill(r *ambit.Request) bool {
	m, err := mediaOf(r.Header)
	return err == nil && len(p.site.bodySpots(r.Method, r.Path, m.kind)) > 0
}

// filled returns what fills a header field; nil if nothing does.
func (p *Plan) filled(name string) *spot {
	if p == nil {
		return nil
	}
	for _, s := range p.headers {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// matchBasic says whether the value of an Authorization field is Basic with the
// references. A half without a placeholder is the gate's to write.
func (s *spot) matchBasic(value string) bool {
	user, password, err := sign.DecodeBasic(value)
	return err == nil && (s.user.fixed() || s.user.match(user, false)) && (s.value.fixed() || s.value.match(password, false))
}

// claim finds a signature of AWS's kind that was made with the reference.
func (p *Plan) claim(w *way, r *ambit.Request) *ambit.Reason {
	if len(r.Header["Authorization"]) == 0 && !strings.Contains(r.RawQuery, "X-Amz-") && !strings.Contains(r.RawQuery, "AWSAccessKeyId") {
		return nil
	}
	c, err := sign.ParseClaim(r.Header, r.RawQuery)
	if err != nil || c.KeyID != p.site.bound.refs[w.SigV4.KeyID] {
		return nil // it is none, or foreign
	}
	if c.Region != w.SigV4.Region || c.Service != w.SigV4.Service {
		return &ambit.Reason{
			Code: "signature-refused", Text: "the request is signed for " + quote(c.Service) + " in " + quote(c.Region) + ", and the connection " + quote(p.site.bound.Name) + " is for " + w.SigV4.Service + " in " + w.SigV4.Region,
			Remedy: "set the region and the service in the program, or the region's pin of the connection",
		}
	}
	if reason := p.site.bound.copies(r); reason != nil {
		return reason
	}
	p.signed = append(p.signed, w)
	return nil
}

// copies holds what S3 is told to copy from to the paths that are open: it reads
// there with the same key. SDKs may write the field into the query of a presigned
// URL.
func (b *bound) copies(r *ambit.Request) *ambit.Reason {
	const name = "X-Amz-Copy-Source"
	sources := r.Header[name]
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		if key, value, _ := strings.Cut(pair, "="); strings.EqualFold(unescape(key), name) {
			sources = append(slices.Clone(sources), value)
		}
	}
	if len(sources) == 0 {
		return nil
	}
	var paths []string
	for _, r := range b.Opened() {
		paths = append(paths, r.Paths...)
	}
	if paths == nil {
		return nil
	}
	open, err := newScope(nil, paths)
	for _, from := range sources {
		from, _, _ = strings.Cut(unescape(from), "?")
		path, bad := urlpath.Canonical("/" + strings.TrimPrefix(string(appendEscaped(nil, []byte(from), "/")), "/"))
		if err != nil || bad != nil || !open.has("GET", path) {
			return &ambit.Reason{
				Code: "pin-not-met", Text: "the request copies from " + quote(from) + ", which the connection " + quote(b.Name) + " does not open",
				Remedy: "copy from what the connection is pinned to, as in bucket/key",
			}
		}
	}
	return nil
}

// sigV4 says whether the agent signed in AWS's way.
func (p *Plan) sigV4() bool {
	for _, w := range p.signed {
		if w.SigV4 != nil {
			return true
		}
	}
	return false
}

// gather appends all text of the request in which no reference may stand, in
// the forms in which it could. Pieces are apart by a byte that is in none.
func (p *Plan) gather(text []byte, r *ambit.Request) []byte {
	text = p.gatherPath(text, r.Path)
	text = p.gatherQuery(text, r.RawQuery)
	for name, values := range r.Header {
		if p.allowed(name) {
			continue
		}
		for _, v := range values {
			text = gatherValue(text, v)
		}
	}
	if p != nil {
		text = p.gatherCookies(text)
	}
	return text
}

// allowed says that a header field holds nothing but what is filled or signed.
func (p *Plan) allowed(name string) bool {
	if p == nil {
		return false
	}
	switch {
	case p.filled(name) != nil, p.fillsHanded(name):
		return true
	case name == "Authorization":
		return p.sigV4()
	case name == "Cookie":
		return p.session
	}
	return false
}

func (p *Plan) gatherPath(text []byte, path string) []byte {
	if p != nil && p.path != nil {
		i := 0
		for segment := range strings.SplitSeq(path[1:], "/") {
			if i != p.path.Segment() {
				text = gatherValue(text, segment)
			}
			i++
		}
		return text
	}
	return gatherValue(text, path)
}

func (p *Plan) gatherQuery(text []byte, query string) []byte {
	if query == "" {
		return text
	}
	if p == nil || len(p.query) == 0 && len(p.handed) == 0 && !p.sigV4() {
		return gatherValue(text, query)
	}
	i := 0
	for pair := range strings.SplitSeq(query, "&") {
		if !p.fillsPair(i) && !(p.sigV4() && strings.HasPrefix(pair, "X-Amz-Credential=")) {
			text = gatherValue(text, pair)
		}
		i++
	}
	return text
}

func (p *Plan) fillsPair(i int) bool {
	for _, f := range p.query {
		if f.pair == i {
			return true
		}
	}
	for _, f := range p.handed {
		if f.in == connector.InQuery && f.pair == i {
			return true
		}
	}
	return false
}

// gatherValue appends a text, and what it is if its percent-encoding is undone.
func gatherValue(text []byte, s string) []byte {
	text = append(append(text, s...), 0)
	if strings.IndexByte(s, '%') >= 0 {
		text = append(appendUnescaped(text, s, false), 0)
	}
	return text
}

// where says for people in which part of the request a reference stands. It is
// asked only when there is one.
func (p *Plan) where(st *state, r *ambit.Request) string {
	has := func(text []byte) bool { _, ok := st.references.Find(text, 0); return ok }
	if has(p.gatherPath(nil, r.Path)) {
		return "the path"
	}
	if has(p.gatherQuery(nil, r.RawQuery)) {
		return "the query"
	}
	for name, values := range r.Header {
		if p.allowed(name) {
			continue
		}
		for _, v := range values {
			if has(gatherValue(nil, v)) {
				return "the header field " + name
			}
		}
	}
	if p != nil && has(p.gatherCookies(nil)) {
		return "a cookie"
	}
	return "the request"
}

// nthSegment returns a segment of a canonical path, from 0.
func nthSegment(path string, n int) (string, bool) {
	if n < 0 || path == "" {
		return "", false
	}
	i := 0
	for segment := range strings.SplitSeq(path[1:], "/") {
		if i == n {
			return segment, true
		}
		i++
	}
	return "", false
}

// unescape undoes the encoding of a form or query; what is no encoding stays.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	return string(appendUnescaped(nil, s, true))
}

func unescapePath(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	return string(appendUnescaped(nil, s, false))
}

func appendUnescaped[T string | []byte](dst []byte, s T, plus bool) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			c = byte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
		case c == '+' && plus:
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendEscaped percent-encodes all but the unreserved characters of RFC 3986,
// and those in keep.
func appendEscaped(dst, b []byte, keep string) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range b {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0 || strings.IndexByte(keep, c) >= 0 {
			dst = append(dst, c)
			continue
		}
		dst = append(dst, '%', digits[c>>4], digits[c&15])
	}
	return dst
}
