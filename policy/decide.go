package policy

import (
	"slices"
	"strings"

	"ambit"
	"ambit/internal/hostname"
	"ambit/internal/urlpath"
)

// rule is a compiled Rule.
type rule struct {
	order     int // position in the manifest
	label     string
	methods   []string
	paths     []pattern
	query     []condition
	headers   []condition
	websocket bool
}

// stage is how far a request came with a rule. The furthest decides which
// refusal is shown: it is the nearest miss.
type stage uint8

const (
	atHost stage = iota
	atPort
	atScheme
	atPath
	atMethod
	atQuery
	atHeader
	atWebSocket
	matched
)

// miss is the furthest that a request came with any rule; at the same stage the
// first rule of the manifest stands for all.
type miss struct {
	stage stage
	rule  *rule
	reach *Endpoint // from atScheme on
}

func (m *miss) note(s stage, r *rule) {
	if s > m.stage || s == m.stage && (m.rule == nil || r.order < m.rule.order) {
		m.stage, m.rule = s, r
	}
}

// facts is what is worked out once for a request.
type facts struct {
	*ambit.Request
	target    target
	overrides overrides
}

// Decide decides r. It never panics and allocates only for a refusal or a path
// with "%2F". A nil Set denies. A request that is not in canonical form is
// denied with the code "bad-request".
//
// A refusal names the nearest miss: the label of the rule that came furthest,
// and one of the codes host-not-allowed, port-not-allowed, scheme-not-allowed,
// path-not-allowed, method-not-allowed, query-not-allowed, header-not-allowed,
// websocket-not-allowed, intent-required. A name (DNS) is allowed if any rule is
// for it, on whatever port. A connection that never became a request is always
// denied.
func (s *Set) Decide(r *ambit.Request) ambit.Verdict {
	if r == nil {
		return badRequest("there is no request")
	}
	if v, bad := malformed(r); bad {
		return v
	}
	near := s.nearest(r)
	if near.stage != matched {
		return near.refuse(r)
	}
	if s.intentRequired && r.Action != ambit.ActionName && strings.TrimSpace(r.Intent) == "" {
		return near.refuseUnstated()
	}
	return ambit.Verdict{Decision: ambit.Allow, Rule: near.rule.label}
}

func (s *Set) nearest(r *ambit.Request) miss {
	f := facts{Request: r, target: target{r.Path, urlpath.Decoded(r.Path)}, overrides: findOverrides(r.Header)}
	near := miss{stage: atHost}
	for h := range s.hosts(r.Host) {
		if r.Action == ambit.ActionName {
			near.note(matched, h.first)
			continue
		}
		near.note(atPort, h.first)
		d := h.at(r.Port)
		if d == nil || near.reach != nil && near.reach != d.reach {
			continue // another port, or shadowed by a more specific host
		}
		near.reach = d.reach
		d.judge(&f, &near)
	}
	return near
}

// judge notes how far the rules of the door let the request come.
func (d *door) judge(f *facts, near *miss) {
	near.note(atScheme, d.rules[0])
	if !d.reach.TLS.carries(f.Request) {
		return
	}
	if f.Action == ambit.ActionPassthrough {
		near.note(matched, d.rules[0])
		return
	}
	near.note(atPath, d.rules[0])
	for rules := range d.candidates(f.Path) {
		for _, r := range rules {
			s := r.judge(f)
			near.note(s, r)
			if s == matched {
				break // the others of this list come later in the manifest
			}
		}
	}
}

// carries says whether a request of this kind belongs on such a connection.
func (m TLSMode) carries(r *ambit.Request) bool {
	switch r.Action {
	case ambit.ActionHTTP, ambit.ActionWebSocket:
		return m == Terminate && r.Scheme == "https" || m == None && r.Scheme == "http"
	case ambit.ActionPassthrough:
		return m == Passthrough && r.Scheme == "tls"
	}
	return false
}

// judge says how far the request comes with the rule.
func (r *rule) judge(f *facts) stage {
	if !r.allowsPath(f.target) {
		return atPath
	}
	if !r.allowsMethod(f.Request) {
		return atMethod
	}
	if _, problem := checkQuery(r.query, f.RawQuery); problem != "" {
		return atQuery
	}
	if _, problem := r.checkHeaders(f.overrides, f.Request); problem != "" {
		return atHeader
	}
	if f.Action == ambit.ActionWebSocket && !r.websocket {
		return atWebSocket
	}
	return matched
}

func (r *rule) allowsPath(t target) bool {
	for i := range r.paths {
		if r.paths[i].match(t) {
			return true
		}
	}
	return len(r.paths) == 0
}

// allowsMethod never allows CONNECT, which opens a tunnel in which nothing is
// judged, but for the start of a WebSocket over HTTP/2, which is then a GET
// (RFC 8441 section 4).
func (r *rule) allowsMethod(q *ambit.Request) bool {
	method := q.Method
	if q.Action == ambit.ActionWebSocket {
		if method != "GET" && method != "CONNECT" {
			return false
		}
		method = "GET"
	}
	return method != "CONNECT" && (len(r.methods) == 0 || slices.Contains(r.methods, method))
}

// checkHeaders judges the rule's own conditions, and refuses a field that
// overrides what the rule limits unless there is a condition for it.
func (r *rule) checkHeaders(o overrides, q *ambit.Request) (name, problem string) {
	if o.method != "" && len(r.methods) > 0 && !r.names(o.method) {
		return o.method, isOverride
	}
	if o.path != "" && len(r.paths) > 0 && !r.names(o.path) {
		return o.path, isOverride
	}
	return checkHeaders(r.headers, q.Header)
}

func (r *rule) names(field string) bool {
	return slices.ContainsFunc(r.headers, func(c condition) bool { return strings.EqualFold(c.name, field) })
}

// malformed refuses a request that is not in the form that rules are written
// for, whatever they say.
func malformed(r *ambit.Request) (ambit.Verdict, bool) {
	host, err := hostname.Canonical(r.Host)
	switch {
	case err != nil:
		return badRequest(err.Error()), true
	case host != r.Host:
		return badRequest("the host is not in canonical form, which is " + host), true
	}
	switch r.Action {
	case ambit.ActionName:
		return ambit.Verdict{}, false
	case ambit.ActionHTTP, ambit.ActionWebSocket:
		if v, bad := malformedHTTP(r); bad {
			return v, true
		}
	case ambit.ActionPassthrough, ambit.ActionConnect:
	default:
		return badRequest("no rule can allow this kind of request"), true
	}
	if r.Port == 0 {
		return badRequest("the request has no port"), true
	}
	return ambit.Verdict{}, false
}

func malformedHTTP(r *ambit.Request) (ambit.Verdict, bool) {
	path, err := urlpath.Canonical(r.Path)
	switch {
	case err != nil:
		return badRequest(err.Error()), true
	case path != r.Path:
		return badRequest("the path is not in canonical form, which is " + path), true
	case !isToken(r.Method) || len(r.Method) > maxMethod:
		return badRequest("the method is not one that HTTP can have"), true
	case r.Scheme != "https" && r.Scheme != "http":
		return badRequest("the scheme is neither https nor http"), true
	}
	return ambit.Verdict{}, false
}

// maxMethod is the longest method in bytes; the longest registered one has 17.
const maxMethod = 32

// isToken is RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
