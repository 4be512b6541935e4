package vault

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
)

// crumb is one cookie of a request: text that is sent on as it is, or one whose
// value is a session's.
type crumb struct {
	text    string // "name=value"; with a session, only what stands before the value
	session *session
	foreign bool // it stays here, and is only looked at
}

// handedFill is a place with the reference to what a host handed back.
type handedFill struct {
	in      connector.In // InHeader or InQuery
	name    string       // of the header field
	pair    int          // of InQuery: the number of the pair between the "&"s
	before  string       // of InHeader: "Bearer ", or nothing
	session *session     // nil if there is no such thing any more: the place is emptied
}

// maxShort is how many bytes all cookies together may have that are sent on
// because each is too short to be a credential: some servers put one together from
// cookies with numbers.
const maxShort = 128

// matchHanded finds the references to what hosts handed back: in cookies, in
// header fields and in the query. Of the cookies only those are sent on that the
// site set, that are references, or that are too short to be credentials.
func (v *Vault) matchHanded(p *Plan, r *ambit.Request) *ambit.Reason {
	if p.site.session == nil {
		return nil
	}
	if values := r.Header["Cookie"]; len(values) > 0 {
		if reason := v.matchCookies(p, r.Host, strings.Join(values, "; ")); reason != nil {
			return reason
		}
	}
	b := p.site.bound
	for name, values := range r.Header {
		if name == "Cookie" || len(values) != 1 {
			continue
		}
		i := strings.Index(values[0], b.sessions)
		if i < 0 || !isScheme(values[0][:i]) {
			continue
		}
		found, reason := v.lookUp(p, r.Host, values[0][i:], "the header field "+name)
		if reason == nil && p.site.headers[foldField(name)] != passes && p.site.launders(found) {
			reason = b.foreignAt("the header field " + name)
		}
		if reason != nil {
			return reason
		}
		p.handed = append(p.handed, handedFill{in: connector.InHeader, name: name, before: values[0][:i], session: found})
	}
	if !strings.Contains(r.RawQuery, b.sessions) {
		return nil
	}
	i := 0
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(value, b.sessions) {
			found, reason := v.lookUp(p, r.Host, value, "the query")
			if reason == nil && hasField(p.site.query, unescape(name)) && p.site.launders(found) {
				reason = b.foreignAt("the query parameter " + quote(name))
			}
			if reason != nil {
				return reason
			}
			p.handed = append(p.handed, handedFill{in: connector.InQuery, pair: i, session: found})
		}
		i++
	}
	return nil
}

// launders says that what a session stands for may not be where the host takes
// credentials: many sites set a cookie, a language say, to whatever they are asked
// to, and an attacker's credential would come back as one of ours. A cookie that is
// called like a credential is one.
func (s *site) launders(of *session) bool {
	return s.bound.Require && of != nil && of.Cookie != "" &&
		s.headers[foldField(of.Cookie)] == passes && !hasField(s.query, of.Cookie) && !hasField(s.fields, of.Cookie)
}

// isScheme says that s is empty, or one word and a space: "Bearer ".
func isScheme(s string) bool {
	return s == "" || strings.HasSuffix(s, " ") && strings.IndexFunc(s[:len(s)-1], func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ',' }) < 0
}

// lookUp returns what a reference stands for, and nil if that is over. One that
// was handed back for another host is misplaced.
func (v *Vault) lookUp(p *Plan, host, ref, where string) (*session, *ambit.Reason) {
	p.uses = true
	found := v.store.session(p.site.bound.Name, ref, v.now())
	if found != nil && !found.goesTo(host) {
		reason := owner{bound: p.site.bound}.misplaced(p.site, where)
		reason.Text = where + " has a reference to what " + quote(found.Host) + " handed back, and that does not go to " + quote(host)
		return nil, &reason
	}
	return found, nil
}

func (v *Vault) matchCookies(p *Plan, host, field string) *ambit.Reason {
	s := p.site
	p.session = true
	short := 0 // bytes of cookies that are too short to be credentials
	for pair := range strings.SplitSeq(field, ";") {
		pair = strings.TrimSpace(pair)
		name, value, has := strings.Cut(pair, "=")
		if !has {
			name, value = "", pair // RFC 6265bis: a cookie without a name
		}
		if pair == "" {
			continue
		}
		if strings.HasPrefix(value, s.bound.sessions) {
			found, reason := v.lookUp(p, host, value, "a cookie")
			switch {
			case reason != nil:
				return reason
			case found == nil: // like a cookie that has expired
			case found.Cookie != name:
				reason := owner{bound: s.bound}.misplaced(s, "the cookie "+quote(name))
				return &reason
			default:
				p.cookies = append(p.cookies, crumb{text: pair[:len(pair)-len(value)], session: found})
			}
			continue
		}
		foreign := s.bound.Require && s.session.keepsCookie(name)
		if foreign && len(value) < scrub.MinLen {
			short += len(value)
			foreign = short > maxShort
		}
		p.cookies = append(p.cookies, crumb{text: pair, foreign: foreign})
	}
	return nil
}

// gatherCookies appends the cookies, but for the values that are references.
func (p *Plan) gatherCookies(text []byte) []byte {
	for _, c := range p.cookies {
		text = gatherValue(text, c.text)
	}
	return text
}

// fillsHanded says that a header field holds what a host handed back.
func (p *Plan) fillsHanded(name string) bool {
	return slices.ContainsFunc(p.handed, func(f handedFill) bool { return f.in == connector.InHeader && f.name == name })
}

// fillHanded puts in what hosts handed back.
func (u *use) fillHanded() error {
	if u.plan.session {
		if err := u.fillCookies(); err != nil {
			return err
		}
	}
	var pairs []string
	for _, f := range u.plan.handed {
		value, err := u.openHanded(f.session)
		if err != nil {
			return err
		}
		text := []byte(f.before)
		switch f.in {
		case connector.InQuery:
			if pairs == nil {
				pairs = strings.Split(u.q.URL.RawQuery, "&")
			}
			name, _, _ := strings.Cut(pairs[f.pair], "=")
			text = appendEscaped(text, value.Reveal(), "")
			pairs[f.pair] = name + "=" + string(text)
		default:
			if f.session == nil {
				delete(u.q.Header, f.name)
				break
			}
			text = append(text, value.Reveal()...)
			u.q.Header[f.name] = []string{string(text)}
		}
		clear(text)
		value.Wipe()
	}
	if pairs != nil {
		to := *u.q.URL
		to.RawQuery = strings.Join(pairs, "&")
		u.q.URL = &to
	}
	return nil
}

func (u *use) fillCookies() error {
	var field []byte
	defer func() { clear(field) }()
	for _, c := range u.plan.cookies {
		if c.foreign {
			continue
		}
		if len(field) > 0 {
			field = append(field, "; "...)
		}
		field = append(field, c.text...)
		if c.session == nil {
			continue
		}
		value, err := u.openSession(c.session)
		if err != nil {
			return err
		}
		field = append(field, value.Reveal()...)
		value.Wipe()
	}
	delete(u.q.Header, "Cookie")
	if len(field) > 0 {
		u.q.Header["Cookie"] = []string{string(field)}
	}
	return nil
}

// openHanded returns what is put in where no cookie is: a script reads a
// cookie's value with its percent-encoding undone, and so it is sent.
func (u *use) openHanded(of *session) (secretbytes.Bytes, error) {
	if of == nil {
		return secretbytes.Bytes{}, nil
	}
	value, err := u.openSession(of)
	if err != nil {
		return value, err
	}
	if of.Cookie == "" || bytes.IndexByte(value.Reveal(), '%') < 0 {
		return value, nil
	}
	plain := appendUnescaped(make([]byte, 0, value.Len()), value.Reveal(), false)
	if slices.ContainsFunc(plain, func(c byte) bool { return c < ' ' || c == 0x7f }) {
		clear(plain)
		return value, nil
	}
	value.Wipe()
	return u.v.store.memory.take(plain), nil
}

// openSession returns a copy of the value, unless the connection has ended since
// the session was found. What ends it from now on cuts the lease.
func (u *use) openSession(of *session) (secretbytes.Bytes, error) {
	b := u.plan.site.bound
	switch c := u.v.connected(b); {
	case c == nil:
		return secretbytes.Bytes{}, u.deny(u.v.notConnected(b))
	case c.Life != of.Life:
		return secretbytes.Bytes{}, u.deny(ambit.Reason{Code: "policy-changed", Text: "the connection " + quote(b.Name) + " changed while this was decided", Remedy: "log in again"})
	}
	value, err := u.v.store.openSession(b.Name, of)
	if err == nil {
		return value, nil
	}
	return value, u.deny(ambit.Reason{
		Code: "credential-failed", Text: "what a host of the connection " + quote(u.plan.site.bound.Name) + " handed back could not be had: " + err.Error(),
		Remedy: "log in again",
	})
}

// siteSession is what a host hands back as a credential.
type siteSession struct {
	cookies []string // names; "*" at the end is any text
	answers []string // JSON pointers
}

// keepsCookie says whether a cookie is one that the vault keeps.
func (s *siteSession) keepsCookie(name string) bool {
	return slices.ContainsFunc(s.cookies, func(pattern string) bool {
		prefix, any := strings.CutSuffix(pattern, "*")
		return name == pattern || any && strings.HasPrefix(name, prefix)
	})
}

// setCookie is what a Set-Cookie field says, as far as it matters here (RFC 6265
// section 5.2).
type setCookie struct {
	name, value string
	rest        string // from the first ";" on
	domain      string // canonical; "" is the host alone
	over        bool   // it deletes the cookie
}

func (v *Vault) parseSetCookie(field string) setCookie {
	pair, _, _ := strings.Cut(field, ";")
	c := setCookie{rest: field[len(pair):]}
	name, value, has := strings.Cut(pair, "=")
	if !has {
		name, value = "", pair
	}
	c.name, c.value = strings.TrimSpace(name), strings.TrimSpace(value)
	age := false
	for attribute := range strings.SplitSeq(c.rest, ";") {
		key, text, _ := strings.Cut(attribute, "=")
		text = strings.TrimSpace(text)
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "domain":
			c.domain = strings.ToLower(strings.TrimPrefix(text, "."))
		case "max-age":
			age, c.over = true, strings.HasPrefix(text, "-") || strings.Trim(text, "0") == "" && text != ""
		case "expires":
			if at, err := http.ParseTime(strings.ReplaceAll(text, "-", " ")); err == nil && !age {
				c.over = !v.now().Before(at)
			}
		}
	}
	return c
}

// write is the field with another value.
func (c *setCookie) write(value string) string {
	if c.name == "" {
		return value + c.rest
	}
	return c.name + "=" + value + c.rest
}
