package connector

import (
	"net/http"
	"slices"
	"strings"

	"ambit/internal/strictyaml"
	"ambit/manifest"
)

// schemeKeys are the keys of an auth entry of which exactly one is there.
func schemeKeys() []string {
	return []string{"bearer", "basic", "header", "query", "path", "form", "json", "websocket", "login", "hmac", "sigv4", "mtls"}
}

func authKeys() []string  { return append(schemeKeys(), "hosts", "paths") }
func basicKeys() []string { return []string{"user", "password"} }
func loginKeys() []string { return []string{"form", "json", "cookies", "answers"} }
func hmacKeys() []string {
	return []string{"secret", "algorithm", "encoding", "message", "header", "value", "timestampHeader", "milliseconds"}
}
func sigv4Keys() []string { return []string{"key", "secret", "session", "region", "service"} }
func mtlsKeys() []string  { return []string{"certificate", "key"} }

func canonicalHeader(s string) string { return http.CanonicalHeaderKey(s) }

func (r *reader) auth(n node) {
	r.List(n, func(_ int, item node) {
		f := r.Fields(item, authKeys())
		var given []string
		for _, key := range schemeKeys() {
			if f[key].Given() {
				given = append(given, key)
			}
		}
		if len(given) != 1 {
			r.Refuse(item, "an entry has exactly one way in which a credential travels", "write one of: "+strings.Join(schemeKeys(), ", "))
			return
		}
		e := authEntry{hosts: r.Texts(f["hosts"], checkLine)}
		for i, h := range e.hosts {
			if !slices.ContainsFunc(r.def.hosts, func(o hostEntry) bool { return string(o.host) == h }) {
				r.Refuse(f["hosts"].Item(i), strictyaml.Quote(h)+" is none of the hosts", "write it as it is under hosts")
			}
		}
		r.NotEmpty(f["hosts"])
		e.Scheme = Scheme(given[0])
		e.Paths = r.Texts(f["paths"], manifest.CheckPath)
		r.NotEmpty(f["paths"])
		r.scheme(f[given[0]], &e.Auth)
		r.def.auth, r.auths = append(r.def.auth, e), append(r.auths, item)
	})
	r.NotEmpty(n)
}

// scheme reads what an entry says about the way of its credential.
func (r *reader) scheme(n node, a *Auth) {
	switch a.Scheme {
	case Bearer:
		v := r.place(n, fromSecrets)
		a.Places = []Place{{In: InHeader, Name: "Authorization", Value: "Bearer " + v}}
	case Basic:
		f := r.Fields(n, basicKeys())
		p := Place{In: InBasic, Name: "Authorization", User: r.half(f["user"]), Value: r.half(f["password"])}
		if len(p.User.Names())+len(p.Value.Names()) == 0 {
			r.Refuse(n, "has no secret", `write for example basic: {user: api, password: "{token}"}`)
		}
		a.Places = []Place{p}
	case Header:
		a.Places = r.places(n, InHeader)
	case Query:
		a.Places = r.places(n, InQuery)
	case Form:
		a.Places = r.places(n, InForm)
	case JSON:
		a.Places = r.places(n, InJSON)
	case WebSocket:
		a.Places = r.places(n, InWebSocket)
	case Path:
		a.Places = r.pathPlace(n)
	case Login:
		f := r.Fields(n, loginKeys())
		a.Places = append(r.places(f["form"], InForm), r.places(f["json"], InJSON)...)
		if len(a.Places) == 0 {
			r.Refuse(n, "a login needs the fields of its form or of its JSON body", `write for example login: {form: {user: "{username}", pass: "{password}"}}`)
		}
		a.Session = &Session{Cookies: r.Texts(f["cookies"], checkLine), JSON: r.Texts(f["answers"], checkPointer)}
	case HMAC:
		a.HMAC = r.hmac(n)
	case SigV4:
		f := r.Fields(n, sigv4Keys())
		a.SigV4 = &SigV4Auth{
			KeyID: r.secretName(f["key"]), Secret: r.secretName(f["secret"]), Session: r.secretName(f["session"]),
			Region: string(r.vars(f["region"])), Service: string(r.vars(f["service"])),
		}
		r.need(n, f, "key", "secret", "region", "service")
	case MTLS:
		f := r.Fields(n, mtlsKeys())
		a.MTLS = &MTLSAuth{Certificate: r.secretName(f["certificate"]), Key: r.secretName(f["key"])}
		r.need(n, f, "certificate", "key")
	}
}

func (r *reader) hmac(n node) *HMACAuth {
	f := r.Fields(n, hmacKeys())
	r.need(n, f, "secret", "message", "header")
	h := &HMACAuth{
		Secret:          r.secretName(f["secret"]),
		Algorithm:       r.Choice(f["algorithm"], "sha256", "sha512", "sha1"),
		Encoding:        r.Choice(f["encoding"], "hex", "base64", "base64url"),
		Header:          r.header(f["header"]),
		Value:           r.Checked(f["value"], "", checkLine),
		TimestampHeader: r.header(f["timestampHeader"]),
		Milliseconds:    r.Boolean(f["milliseconds"]),
	}
	h.Message, _ = r.Text(f["message"], "")
	names := r.template(f["message"], h.Message, fromRequest).Names()
	r.template(f["value"], h.Value, fromSignature)
	if f["message"].Given() && len(names) == 0 && !strings.Contains(h.Message, "{body-sha256}") {
		r.Refuse(f["message"], "covers nothing of the request", `write for example "{timestamp}.{body}"`)
	}
	if slices.Contains(names, "timestamp") && h.TimestampHeader == "" && !strings.Contains(h.Value, "{timestamp}") {
		r.Refuse(f["message"], "signs {timestamp}, which no field carries", "name the field under timestampHeader, or write {timestamp} in value too")
	}
	return h
}

// need refuses a mapping that lacks one of the keys.
func (r *reader) need(n node, f map[string]node, keys ...string) {
	for _, key := range keys {
		if !f[key].Given() {
			r.Missing(n, key, "it has no default")
		}
	}
}

func (r *reader) header(n node) string {
	return canonicalHeader(r.Checked(n, "", manifest.CheckField))
}

// secretName reads the name of a secret.
func (r *reader) secretName(n node) string {
	s := r.Checked(n, "", checkSecret)
	if n.Given() && s != "" && r.def.secret(s) == nil {
		r.Refuse(n, "there is no secret "+strictyaml.Quote(s), "declare it under secrets")
	}
	return s
}

// vars reads text whose placeholders are known when a manifest is bound.
func (r *reader) vars(n node) Template {
	return r.template(n, r.Checked(n, "", checkLine), fromBinding)
}

// place reads the template of a credential: text with at least one secret.
func (r *reader) place(n node, k known) Template {
	s := r.Checked(n, "", checkLine)
	if n.Given() && s != "" && len(Template(s).Names()) == 0 {
		r.Refuse(n, "has no placeholder for a secret", `write for example "{token}"`)
	}
	return r.template(n, s, k|fromAccount)
}

// half reads the user or password of Basic, which may have no secret.
func (r *reader) half(n node) Template {
	s, _ := r.Text(n, "")
	if strings.ContainsAny(s, "\r\n\x00") {
		r.Refuse(n, "contains a control character", "write it on one line")
	}
	return r.template(n, s, fromSecrets|fromAccount)
}

// places reads a mapping from a name to a template.
func (r *reader) places(n node, in In) []Place {
	if !n.Given() {
		return nil
	}
	var all []Place
	r.Pairs(n, func(name string, k, v node) {
		p := Place{In: in, Name: name, Value: r.place(v, fromSecrets)}
		switch in {
		case InHeader:
			if r.Complain(k, manifest.CheckField, name) {
				p.Name = canonicalHeader(name)
			}
		case InJSON, InWebSocket:
			r.Complain(k, checkPointer, name)
		default:
			r.Complain(k, checkLine, name)
		}
		all = append(all, p)
	})
	r.NotEmpty(n)
	return all
}

// pathPlace reads a path with one placeholder: "/bot{token}/**".
func (r *reader) pathPlace(n node) []Place {
	s := r.Checked(n, "", func(s string) (text, hint string) {
		if _, _, _, ok := Template(s).Split(); !ok {
			return "needs exactly one placeholder", "write for example /bot{token}/**"
		}
		before, _, _ := strings.Cut(s, "{")
		if strings.Contains(before, "**") {
			return "has ** before the placeholder, so that nobody knows which segment it is", "write the segments out"
		}
		return manifest.CheckPath(Template(s).Fill(func(string) (string, bool) { return "x", true }))
	})
	if s == "" {
		return nil
	}
	p := Place{In: InPath, Name: s}
	p.Value = r.template(n, strings.Split(s, "/")[p.Segment()+1], fromSecrets)
	return []Place{p}
}

// checkPointer is for JSON pointers (RFC 6901).
func checkPointer(s string) (text, hint string) {
	if t, h := checkLine(s); t != "" {
		return t, h
	}
	if !strings.HasPrefix(s, "/") {
		return strictyaml.Quote(s) + " is not a JSON pointer (RFC 6901)", "write " + strictyaml.Quote("/"+strings.ReplaceAll(s, ".", "/"))
	}
	return "", ""
}
