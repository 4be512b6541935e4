package connector

import (
	"maps"
	"slices"
	"strings"

	"ambit/internal/urlpath"
)

// fill fills in everything but secrets.
func (b *binder) fill(t Template) Template { return Template(fillWith(t, b.vars)) }

func (b *binder) fillText(s string) string { return fillWith(Template(s), b.vars) }

func fillWith(t Template, vars map[string]string) string {
	return t.Fill(func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	})
}

// fillPath fills in a path pattern; values are percent-encoded. A slash in a
// value stays one, but in a segment whose text has "%2F" it is that, too.
func fillPath(t Template, vars map[string]string) (string, error) {
	segments := strings.Split(string(t), "/")
	for i, s := range segments {
		segments[i] = Template(s).Fill(func(name string) (string, bool) {
			v, ok := vars[name]
			return escapePath(v, strings.Contains(s, "%2F")), ok
		})
	}
	return urlpath.Pattern(strings.Join(segments, "/"))
}

func fillFields(fields []Field, vars map[string]string) map[string][]string {
	if fields == nil {
		return nil
	}
	all := make(map[string][]string, len(fields))
	for _, f := range fields {
		all[f.Name] = []string{fillWith(f.Value, vars)}
	}
	return all
}

// auth fills in an entry. The copy shares nothing with the connector that
// changes.
func (b *binder) auth(from *Auth) *Auth {
	a := *from
	a.Places = slices.Clone(from.Places)
	for i := range a.Places {
		p := &a.Places[i]
		p.Value, p.User = b.fill(p.Value), b.fill(p.User)
	}
	if from.SigV4 != nil {
		s := *from.SigV4
		s.Region, s.Service = b.fillText(s.Region), b.fillText(s.Service)
		a.SigV4 = &s
	}
	return &a
}

func (b *binder) way(w Way) Way {
	if w.OAuth != nil {
		o := *w.OAuth
		o.Authorize, o.Device, o.Token = b.fillText(o.Authorize), b.fillText(o.Device), b.fillText(o.Token)
		o.Params = maps.Clone(o.Params)
		w.OAuth = &o
	}
	if w.Google != nil {
		g := *w.Google
		g.Token = b.fillText(g.Token)
		w.Google = &g
	}
	if w.GitHub != nil {
		g := *w.GitHub
		g.API = b.fillText(g.API)
		w.GitHub = &g
	}
	if w.Revoke != nil {
		r := *w.Revoke
		r.URL, r.Basic = b.fill(r.URL), b.fill(r.Basic)
		r.Header, r.Fields = b.fillValues(r.Header), b.fillValues(r.Fields)
		w.Revoke = &r
	}
	return w
}

func (b *binder) fillValues(fields []Field) []Field {
	all := slices.Clone(fields)
	for i := range all {
		all[i].Value = b.fill(all[i].Value)
	}
	return all
}

// foreign adds what the connector knows to where services commonly take a
// credential.
func (b *binder) foreign() Foreign {
	f := Foreign{
		Headers: []string{
			"Authorization", "Proxy-Authorization", "X-Authorization", "X-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Auth-Key",
			"X-Access-Token", "X-Goog-Api-Key", "X-Amz-Security-Token", "Private-Token", "Job-Token",
		},
		Query: []string{
			"access_token", "oauth_token", "auth_token", "private_token", "refresh_token", "client_secret", "api_key", "apikey", "api-key",
			"X-Amz-Credential", "X-Amz-Signature", "X-Amz-Security-Token", "AWSAccessKeyId", "X-Goog-Credential", "X-Goog-Signature",
		},
		Fields: []string{"access_token", "private_token", "refresh_token", "client_secret", "api_key", "apikey"},
	}
	login := slices.ContainsFunc(b.def.auth, func(e authEntry) bool { return e.Scheme == Login })
	if login {
		f.Headers = append(f.Headers, "Cookie")
		f.Query = append(f.Query, "jsessionid", "PHPSESSID") // sessions in the address
		f.Fields = append(f.Fields, "PHPSESSID")
	} else {
		f.Strip = []string{"Cookie"}
	}
	f.Headers = unique(append(f.Headers, b.def.definition.foreign.Headers...))
	f.Query = unique(append(f.Query, b.def.definition.foreign.Query...))
	f.Fields = unique(append(f.Fields, b.def.definition.foreign.Fields...))
	return f
}
