package vault

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/gate"
	"ambit/internal/hostname"
	"ambit/internal/secretbytes"
	"ambit/internal/urlpath"
	"ambit/vault/sign"
)

// values are the real values that one request needs: a few.
type values []value

type value struct {
	name string // of the Secret
	secretbytes.Bytes
}

// of returns the value of a Secret, the empty one if it is not there.
func (v values) of(name string) secretbytes.Bytes {
	for i := range v {
		if v[i].name == name {
			return v[i].Bytes
		}
	}
	return secretbytes.Bytes{}
}

func (v values) has(name string) bool {
	return slices.ContainsFunc(v, func(of value) bool { return of.name == name })
}

// use is the work of one call of [Vault.Use].
type use struct {
	v      *Vault
	ctx    context.Context
	st     *state
	plan   *Plan // nil on a host without a connection
	q      *http.Request
	host   string // of the request
	lease  *Lease
	values values
	few    [2]value       // room for values, of nearly all requests
	signed []func() error // sign again what the agent signed
}

// wipe wipes the values.
func (u *use) wipe() {
	for i := range u.values {
		u.values[i].Wipe()
	}
	u.values = nil
}

// Use puts the real values into q where the plan says, signs what the agent
// signed with a reference, and has the body looked at. p is what Examine
// returned for the request that g was granted for, and q that very request as it
// is about to leave: q.URL.Opaque is its path and q.URL.RawQuery its query. The
// header map of q is replaced and not changed, so that of g's request never has
// a real value. cut is called once if the connection ends while the lease runs;
// it must not block.
//
// An error is a *ambit.DenyError, and then nothing may leave. Its codes are
// those of Examine and not-granted, policy-changed, reconnect-needed,
// credential-failed, credential-unusable, signature-refused, body-opaque,
// body-too-long, body-unreadable and pin-not-met.
//
// Reading q.Body may return an error later, when a reference or a foreign
// credential turns up in it; [Lease.Refusal] says so. A body is read here and
// now only where that is needed: where a field of it is filled, pinned or
// signed, or where it is compressed. Closing q.Body closes the body that was
// there, and the caller closes it after an error too.
//
// If the lease has an [Identity], q must be sent with it. What goes over a
// WebSocket is looked at by [Lease.Answer].
//
// The lease is nil if there is nothing to watch; a nil lease can be used.
// Whoever has a lease calls [Lease.Done] at the end.
func (v *Vault) Use(ctx context.Context, g *gate.Grant, p *Plan, q *http.Request, cut func()) (*Lease, error) {
	st := v.state.Load()
	if p == nil && len(st.bound) == 0 {
		return nil, nil
	}
	if !granted(g, q) {
		return nil, denied("not-granted", "the request is not the one that was granted", "report this; nothing was let through")
	}
	r := g.Request()
	both := &struct { // they are as old
		use
		Lease
	}{use{v: v, ctx: ctx, st: st, q: q, host: r.Host}, Lease{host: r.Host, event: g.Event()}}
	u := &both.use
	u.lease, u.values = &both.Lease, u.few[:0]
	defer u.wipe()
	var s *site
	if p != nil && p.st == st {
		s = p.site
	} else {
		s = st.site(r.Host, r.Port)
	}
	if changed(p, s) {
		return nil, denied("policy-changed", "the agent's connections changed while this was decided", "send it again")
	}
	if p != nil {
		q.Header = maps.Clone(q.Header)
		if q.Header == nil {
			q.Header = make(http.Header)
		}
		if p.site != s { // of the state before
			plan := *p
			plan.site = s
			p = &plan
		}
		u.plan, u.lease.site = p, s
	}
	if r.Action == ambit.ActionWebSocket {
		u.lease.socket = u
	}
	if err := u.run(cut); err != nil {
		u.lease.Done()
		return nil, err
	}
	if p == nil && !u.lease.watches && r.Action != ambit.ActionWebSocket {
		return nil, nil
	}
	return u.lease, nil
}

// granted says whether q is what g allows.
func granted(g *gate.Grant, q *http.Request) bool {
	if g == nil || g.Verdict().Decision != ambit.Allow || q == nil || q.URL == nil {
		return false
	}
	r := g.Request()
	return reaches(q.URL.Host, r) && q.Method == r.Method && q.URL.Opaque == r.Path && q.URL.RawQuery == r.RawQuery
}

// reaches says whether an authority is the host and port of r.
func reaches(authority string, r *ambit.Request) bool {
	if host, port, ok := strings.Cut(authority, ":"); ok && host == r.Host && port == "443" && r.Port == 443 { // nearly all
		return true
	}
	fallback := uint16(443)
	if r.Scheme == "http" {
		fallback = 80
	}
	host, port, err := hostname.SplitHostPort(authority, fallback)
	return err == nil && host == r.Host && port == r.Port
}

// changed says that another manifest came into force since p was made.
func changed(p *Plan, s *site) bool {
	if p == nil || s == nil {
		return p != nil || s != nil
	}
	return p.site.bound.Binding != s.bound.Binding || p.site.host != s.host
}

func denied(code, text, remedy string) *ambit.DenyError {
	return &ambit.DenyError{Verdict: ambit.Verdict{Reason: ambit.Reason{Code: code, Text: text, Remedy: remedy}}}
}

// deny is denied with the connection as the rule.
func (u *use) deny(r ambit.Reason) *ambit.DenyError {
	v := ambit.Verdict{Reason: r}
	if u.plan != nil {
		v.Rule = u.plan.site.bound.rule()
	}
	return &ambit.DenyError{Verdict: v}
}

// run does it all. The lease is registered before anything secret is opened:
// what is revoked from then on is cut.
func (u *use) run(cut func()) error {
	if u.plan == nil {
		return u.body()
	}
	b := u.plan.site.bound
	u.lease.start(u.v, b, cut)
	if err := u.verify(); err != nil {
		return err
	}
	if err := u.openAll(); err != nil {
		return err
	}
	if err := u.identify(); err != nil {
		return err
	}
	// What is signed below must be what leaves.
	setField(u.q.Header, "Accept-Encoding", "identity")
	if s := u.plan.site.session; s != nil && len(s.answers) > 0 { // a part of an answer cannot be looked into for tokens
		delete(u.q.Header, "Range")
	}
	if b.Require && u.plan.strips {
		for name := range u.q.Header {
			if u.plan.site.headers[foldField(name)] == stays && !u.plan.allowed(name) {
				delete(u.q.Header, name)
			}
		}
	}
	if err := u.fill(); err != nil {
		return err
	}
	for _, again := range u.signed {
		if err := again(); err != nil {
			return err
		}
	}
	return u.watchAnswer()
}

// openAll gets the real values that header, query, path and signature need.
func (u *use) openAll() error {
	p := u.plan
	for _, s := range p.headers {
		if err := u.open(s.secrets); err != nil {
			return err
		}
	}
	for _, f := range p.query {
		if err := u.open(f.spot.secrets); err != nil {
			return err
		}
	}
	if p.path != nil {
		if err := u.open(p.path.secrets); err != nil {
			return err
		}
	}
	for _, s := range p.sockets { // opened again for the message, and known now to be there
		if err := u.open(s.secrets); err != nil {
			return err
		}
	}
	for _, w := range p.signed {
		if err := u.open(w.Secrets()); err != nil {
			return err
		}
	}
	return nil
}

// open gets real values.
func (u *use) open(names []string) error {
	b := u.plan.site.bound
	for _, name := range names {
		if u.values.has(name) {
			continue
		}
		of, err := u.v.value(u.ctx, b, name)
		switch {
		case err == nil:
			u.values = append(u.values, value{name, of})
		case errors.Is(err, errNotGiven) && u.optional(name):
			u.values = append(u.values, value{name: name})
		case errors.Is(err, errNotGiven):
			return u.deny(ambit.Reason{
				Code: "not-connected", Text: "the account of the connection " + quote(b.Name) + " was connected without " + quote(name),
				Remedy: "run: ambit connect " + string(u.v.config.Agent) + " " + b.Name,
			})
		case errors.Is(err, ErrReconnect):
			return u.deny(ambit.Reason{
				Code: "reconnect-needed", Text: "the connection " + quote(b.Name) + " is over until a person connects the account again",
				Remedy: "run: ambit connect " + string(u.v.config.Agent) + " " + b.Name,
			})
		case errors.Is(err, ErrNotConnected):
			return u.deny(u.v.notConnected(b))
		default:
			return u.deny(ambit.Reason{
				Code: "credential-failed", Text: "the credential of the connection " + quote(b.Name) + " could not be had: " + err.Error(),
				Remedy: "send it again; if that does not help, run: ambit connect " + string(u.v.config.Agent) + " " + b.Name,
			})
		}
	}
	return nil
}

// optional says that a request is whole without a value: the session token of
// permanent AWS keys.
func (u *use) optional(name string) bool {
	return slices.ContainsFunc(u.plan.signed, func(w *way) bool { return w.SigV4 != nil && w.SigV4.Session == name })
}

func (u *use) unusable(text string) error {
	b := u.plan.site.bound
	return u.deny(ambit.Reason{
		Code: "credential-unusable", Text: "the credential of the connection " + quote(b.Name) + " " + text,
		Remedy: "run: ambit connect " + string(u.v.config.Agent) + " " + b.Name + ", with a credential as the service gives it",
	})
}

// fill puts the values where the plan says.
func (u *use) fill() error {
	if err := u.fillHeaders(); err != nil {
		return err
	}
	if err := u.fillQuery(); err != nil {
		return err
	}
	if err := u.fillPath(); err != nil {
		return err
	}
	if err := u.fillHanded(); err != nil {
		return err
	}
	return u.body()
}

func (u *use) fillHeaders() error {
	for _, s := range u.plan.headers {
		value, err := u.header(s)
		if err != nil {
			return err
		}
		for i := 0; i < len(value); i++ {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return u.unusable("has a line break or another control character, which no header field can have")
			}
		}
		setField(u.q.Header, s.Name, value)
	}
	return nil
}

// setField sets a field that is often there: a map of eight grows when one of
// them is set again, unless it is deleted first.
func setField(h http.Header, name, value string) {
	delete(h, name)
	h[name] = []string{value}
}

// header is the value of a field with the real values in it.
func (u *use) header(s *spot) (string, error) {
	if s.In != connector.InBasic {
		return s.value.real(u.values), nil
	}
	value := u.v.store.memory.take(s.value.appendReal(nil, u.values))
	defer value.Wipe()
	user := u.v.store.memory.take(s.user.appendReal(nil, u.values))
	defer user.Wipe()
	basic, err := sign.EncodeBasic(user, value)
	if err != nil {
		return "", u.unusable("cannot be sent as user name and password: " + err.Error())
	}
	defer basic.Wipe()
	return string(basic.Reveal()), nil
}

func (u *use) fillQuery() error {
	if len(u.plan.query) == 0 {
		return nil
	}
	pairs := strings.Split(u.q.URL.RawQuery, "&")
	for _, f := range u.plan.query {
		name, _, _ := strings.Cut(pairs[f.pair], "=")
		pairs[f.pair] = name + "=" + u.escaped(f.spot)
	}
	query := *u.q.URL
	query.RawQuery = strings.Join(pairs, "&")
	u.q.URL = &query
	return nil
}

// escaped is a percent-encoded value.
func (u *use) escaped(s *spot) string {
	value := s.value.appendReal(nil, u.values)
	defer clear(value)
	text := appendEscaped(nil, value, "")
	defer clear(text)
	return string(text)
}

func (u *use) fillPath() error {
	s := u.plan.path
	if s == nil {
		return nil
	}
	value := s.value.appendReal(nil, u.values)
	defer clear(value)
	text := appendEscaped(nil, value, ":@!$&'()+,=")
	defer clear(text)
	segments := strings.Split(u.q.URL.Opaque, "/")
	segments[s.Segment()+1] = string(text)
	path := strings.Join(segments, "/")
	canonical, err := urlpath.Canonical(path)
	if err != nil || canonical != path || len(value) == 0 || strings.Contains(segments[s.Segment()+1], "%2F") {
		return u.unusable("cannot be a part of a path")
	}
	to := *u.q.URL
	to.Opaque = path
	u.q.URL = &to
	return nil
}
