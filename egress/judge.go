package egress

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"ambit"
	"ambit/gate"
	"ambit/internal/dialguard"
	"ambit/internal/hostname"
	"ambit/internal/urlpath"
	"ambit/policy"
	"ambit/vault"
)

// origin is what a connection is for: the one name that everything on it must
// agree with.
type origin struct {
	scheme string // "https", "http"; "tls" before it is known what to do with it
	host   string // canonical
	port   uint16
	intent string  // as stated for the connection
	errand *Errand // what Ambit itself asks it for; nil if the agent asks

	full, brief string // authority and field, made once
}

func (o *origin) request(action ambit.Action) *ambit.Request {
	r := &ambit.Request{Action: action, Scheme: o.scheme, Host: o.host, Port: o.port, Intent: o.intent}
	if o.errand != nil {
		r.Principal, r.Task = ambit.PrincipalAmbit, o.errand.Task
		if !o.errand.Uncaused {
			r.Cause = &o.errand.Cause
		}
	}
	return r
}

// name sets host and port.
func (o *origin) name(host string, port uint16) {
	o.host, o.port = host, port
	if strings.IndexByte(host, ':') >= 0 {
		host = "[" + host + "]"
	}
	o.brief, o.full = host, host+":"+strconv.Itoa(int(port))
}

// authority is the host with its port, for dialling.
func (o *origin) authority() string { return o.full }

// field is the Host or :authority that the upstream is sent.
func (o *origin) field() string {
	if o.usual() {
		return o.brief
	}
	return o.full
}

// usual says whether the port is the one that goes without saying.
func (o *origin) usual() bool {
	return o.port == 443 && o.scheme == "https" || o.port == 80 && o.scheme == "http"
}

// call is one HTTP request as the agent sent it. Both protocols make one.
type call struct {
	method    string
	target    string // origin form
	authority string // Host or :authority; "" only if hasHost is false
	hasHost   bool
	upgrade   bool // of whatever kind
	header    http.Header
}

// admitted is a call that was granted.
type admitted struct {
	grant *gate.Grant
	up    *upstream
	plan  *vault.Plan // what the vault found; nil for nothing
}

// admitOne is judge within the bound of requests in flight. cancel cuts the call
// when the policy changes under it; whoever gets admitted says when it has ended.
func (s *side) admitOne(ctx context.Context, cancel context.CancelFunc, o *origin, c *call) (*admitted, *refusal) {
	if s.requests.Add(1) > s.most {
		s.requests.Add(-1)
		r := o.request(ambit.ActionConnect)
		return nil, s.deny(ctx, r, http.StatusServiceUnavailable, ambit.Reason{
			Code: "too-busy", Text: "this agent has too many requests in flight", Remedy: "let some of them end first",
		})
	}
	a, f := s.judge(ctx, cancel, o, c)
	if f != nil {
		s.requests.Add(-1)
	}
	return a, f
}

// ended counts out what admitOne let in.
func (s *side) ended(a *admitted) {
	s.flying.remove(a)
	s.requests.Add(-1)
}

// judge turns a call into a request, asks the gate and spends the grant. It
// takes out of the call's header what may not leave.
func (s *side) judge(ctx context.Context, cancel context.CancelFunc, o *origin, c *call) (*admitted, *refusal) {
	r := o.request(ambit.ActionHTTP)
	r.Method = c.method
	if f := s.sameName(ctx, o, c, r); f != nil {
		return nil, f
	}
	if f := s.canonical(ctx, c, r); f != nil {
		return nil, f
	}
	if c.upgrade {
		if !isWebSocket(c) {
			return nil, s.deny(ctx, r, http.StatusBadRequest, badRequest("the only upgrade there is here is to WebSocket version 13"))
		}
		r.Action = ambit.ActionWebSocket
		delete(c.header, "Sec-Websocket-Extensions") // no frame is compressed (H3)
	}
	intent, ok := cleanRequest(c.header)
	if intent != "" {
		r.Intent = intent
	}
	if !ok {
		return nil, s.deny(ctx, r, http.StatusBadRequest, forgedHeader())
	}
	r.Header = c.header
	if m := s.subjects(); m != nil {
		r.Touched = touched(m, r.Path, r.RawQuery, r.Intent)
		readable(c.header)
	}
	plan, door := s.examine(r)
	if door == nil && o.errand != nil {
		door = o.errand.judge(r)
	}
	a, f := s.admit(ctx, cancel, r, door)
	if f == nil {
		a.plan = plan
	}
	return a, f
}

// sameName holds every request to the name of its connection (N1, N3, N6).
func (s *side) sameName(ctx context.Context, o *origin, c *call, r *ambit.Request) *refusal {
	if !c.hasHost || c.authority == o.field() {
		return nil
	}
	fallback := uint16(443)
	if o.scheme == "http" {
		fallback = 80
	}
	host, port, err := hostname.SplitHostPort(c.authority, fallback)
	if err != nil {
		return s.deny(ctx, r, http.StatusBadRequest, badRequest(err.Error()))
	}
	if host != o.host || port != o.port {
		return s.deny(ctx, r, http.StatusMisdirectedRequest, mismatch("Host", c.authority, o.authority()))
	}
	return nil
}

// canonical makes path and query canonical (N4, N8).
func (s *side) canonical(ctx context.Context, c *call, r *ambit.Request) *refusal {
	if c.method == http.MethodConnect {
		return s.deny(ctx, r, http.StatusBadRequest, badRequest("there is no CONNECT inside a connection to a host"))
	}
	if c.target == "" || c.target[0] != '/' {
		return s.deny(ctx, r, http.StatusBadRequest, badRequest("the request target is not a path"))
	}
	path, query, _ := strings.Cut(c.target, "?")
	canonical, err := urlpath.Canonical(path)
	if err == nil {
		r.Path, r.RawQuery = canonical, query
		err = checkQuery(query)
	}
	if err != nil {
		r.RawQuery = ""
		return s.deny(ctx, r, http.StatusBadRequest, badRequest(err.Error()+": "+short(c.target)))
	}
	return nil
}

// checkQuery refuses what no query has: anything but visible ASCII, "#", and a
// "%" without two hexadecimal digits.
func checkQuery(q string) error {
	for i := 0; i < len(q); i++ {
		switch c := q[i]; {
		case c <= ' ' || c >= 0x7f || c == '#':
			return errors.New("the query has a character that must be percent-encoded")
		case c == '%' && (i+2 >= len(q) || !isHex(q[i+1]) || !isHex(q[i+2])):
			return errors.New(`the query has a "%" without two hexadecimal digits`)
		}
	}
	return nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// admit asks the gate. The address is looked up and vetted before, so that a
// refusal of it is part of the decision; only a name that a rule allows is
// ever looked up, and not for a call that is refused already. door is what the
// door itself has against the call, nil for nothing. cancel cuts the call when
// the policy changes under it.
func (s *side) admit(ctx context.Context, cancel context.CancelFunc, r *ambit.Request, door *ambit.Verdict) (*admitted, *refusal) {
	if door == nil && s.isInternal(r.Host) {
		door = notHere()
	}
	up := s.upstream()
	ep, v := up.ends.Endpoint(r.Host, r.Port)
	if v.Decision == ambit.Allow && door == nil {
		door = s.vet(ctx, up, r, ep)
	}
	grant, err := s.check(ctx, r, door)
	if err != nil {
		return nil, refused(err)
	}
	if err := grant.Use(); err != nil {
		return nil, refused(err)
	}
	a := &admitted{grant: grant, up: up}
	s.flying.add(a, cancel)
	if s.upstream() != up {
		s.flying.remove(a)
		// Granted by one policy, vetted by another: nothing was sent.
		grant.Finish(ambit.Outcome{Error: "the policy changed at this moment"})
		seq := grant.Event()
		return nil, &refusal{status: http.StatusServiceUnavailable, event: &seq, verdict: ambit.Verdict{Reason: ambit.Reason{
			Code: "policy-changed", Text: "the policy changed while this was decided", Remedy: "send it again",
		}}, denied: true}
	}
	return a, nil
}

// vet returns the denied verdict for an address that may not be dialled, nil
// if there is none. A name that cannot be resolved is not refused: the call
// is granted and fails (S1, S2).
func (s *side) vet(ctx context.Context, up *upstream, r *ambit.Request, ep policy.Endpoint) *ambit.Verdict {
	addrs, err := up.addrs(ctx, r.Host, ep)
	var guard *dialguard.Error
	if errors.As(err, &guard) {
		reason := guard.Reason()
		if !hostname.IsIP(r.Host) {
			reason.Text = r.Host + ": " + reason.Text
		}
		return &ambit.Verdict{Rule: ep.Rule, Reason: reason}
	}
	if len(s.never) == 0 {
		return nil
	}
	for _, a := range addrs {
		if err := s.reserved(netip.AddrPortFrom(a, r.Port)); err != nil {
			return &ambit.Verdict{Rule: ep.Rule, Reason: ambit.Reason{Code: "private-address", Text: err.Error() + " and is never dialled for an agent"}}
		}
	}
	return nil
}
