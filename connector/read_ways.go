package connector

import (
	"ambit/internal/strictyaml"
	"ambit/manifest"
)

func wayKeys() []string {
	return []string{"title", "fields", "yields", "oauth", "google", "github", "revoke"}
}
func oauthKeys() []string {
	return []string{
		"flows", "authorize", "device", "token", "scopes", "scopeSeparator", "scopeParameter", "pkce", "clientID", "clientSecret",
		"clientAuth", "parameters", "json", "redirectPort",
	}
}
func googleKeys() []string { return []string{"key", "subject", "token", "scopes"} }
func githubKeys() []string { return []string{"app", "installation", "key", "api"} }
func revokeKeys() []string {
	return []string{"method", "url", "headers", "form", "json", "basic"}
}

// ways reads how a person connects. A file that says nothing has one way: to
// give all the secrets.
func (r *reader) ways(n node) {
	if !n.Given() {
		w := Way{Name: "given", Title: "Enter it", Kind: WayGiven}
		for i := range r.def.secrets {
			w.Fields = append(w.Fields, r.def.secrets[i].Name)
		}
		r.def.ways = []Way{w}
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		r.Complain(k, checkName, name)
		f := r.Fields(v, wayKeys())
		w := Way{Name: name, Kind: WayGiven, Title: r.Checked(f["title"], "", checkLine), Yields: r.secretName(f["yields"])}
		r.List(f["fields"], func(_ int, item node) { w.Fields = append(w.Fields, r.secretName(item)) })
		r.NotEmpty(f["fields"])
		kinds := 0
		for key, kind := range map[string]WayKind{"oauth": WayOAuth, "google": WayGoogle, "github": WayGitHubApp} {
			if f[key].Given() {
				w.Kind = kind
				kinds++
			}
		}
		if kinds > 1 {
			r.Refuse(v, "is several ways at once", "write a way for each of oauth, google and github")
		}
		if !f["title"].Given() {
			r.Missing(v, "title", "write for example title: Personal access token")
		}
		r.kind(f, &w)
		r.fieldsOfWay(v, f, &w)
		w.Revoke = r.revocation(f["revoke"], w.Kind)
		r.def.ways = append(r.def.ways, w)
	})
	r.NotEmpty(n)
}

func (r *reader) kind(f map[string]node, w *Way) {
	switch w.Kind {
	case WayOAuth:
		w.OAuth = r.oauth(f["oauth"])
	case WayGoogle:
		g := r.Fields(f["google"], googleKeys())
		r.need(f["google"], g, "key", "token", "scopes")
		w.Google = &GoogleAssertion{
			Key: r.secretName(g["key"]), Subject: r.secretName(g["subject"]),
			Token: r.url(g["token"]), Scopes: r.Texts(g["scopes"], checkLine),
		}
	case WayGitHubApp:
		g := r.Fields(f["github"], githubKeys())
		r.need(f["github"], g, "app", "installation", "key", "api")
		w.GitHub = &GitHubAssertion{
			App: r.secretName(g["app"]), Installation: r.secretName(g["installation"]),
			Key: r.secretName(g["key"]), API: r.url(g["api"]),
		}
	}
}

// fieldsOfWay refuses a way that gives nothing, or more than one kind can.
func (r *reader) fieldsOfWay(v node, f map[string]node, w *Way) {
	switch {
	case w.Kind == WayGiven && f["yields"].Given():
		r.Refuse(f["yields"], "has no use: a person gives the secrets themselves", "remove it")
	case w.Kind == WayGiven && len(w.Fields) == 0:
		r.Missing(v, "fields", "write for example fields: [token]")
	case w.Kind != WayGiven && !f["yields"].Given():
		r.Missing(v, "yields", "write for example yields: token")
	}
	for i, name := range w.Fields {
		if name != "" && name == w.Yields {
			r.Refuse(f["fields"].Item(i), strictyaml.Quote(name)+" is what the way yields, not what a person gives", "remove it")
		}
	}
	given := map[string]bool{"": true}
	for _, name := range w.Fields {
		given[name] = true
	}
	var used []string
	switch {
	case w.OAuth != nil:
		used = []string{w.OAuth.ClientID, w.OAuth.ClientSecret}
	case w.Google != nil:
		used = []string{w.Google.Key, w.Google.Subject}
	case w.GitHub != nil:
		used = []string{w.GitHub.App, w.GitHub.Installation, w.GitHub.Key}
	}
	for _, name := range used {
		if !given[name] {
			r.Refuse(v, "uses "+strictyaml.Quote(name)+", which is none of its fields", "add it to fields")
		}
	}
}

func (r *reader) url(n node) string {
	s := r.Checked(n, "", checkURL)
	r.template(n, s, fromBinding)
	return s
}

func (r *reader) oauth(n node) *OAuth {
	f := r.Fields(n, oauthKeys())
	r.need(n, f, "flows", "token", "clientID")
	o := &OAuth{
		Authorize:    r.url(f["authorize"]),
		Device:       r.url(f["device"]),
		Token:        r.url(f["token"]),
		Scopes:       r.Texts(f["scopes"], checkLine),
		ScopeSep:     r.separator(f["scopeSeparator"]),
		ScopeParam:   r.Checked(f["scopeParameter"], "scope", checkLine),
		PKCE:         !f["pkce"].Given() || r.Boolean(f["pkce"]),
		ClientID:     r.secretName(f["clientID"]),
		ClientSecret: r.secretName(f["clientSecret"]),
		ClientAuth:   ClientAuth(r.Choice(f["clientAuth"], string(ClientBody), string(ClientBasic), string(ClientNone))),
		JSON:         r.Boolean(f["json"]),
		RedirectPort: uint16(r.Integer(f["redirectPort"], 1024, 65535, 0)),
	}
	r.List(f["flows"], func(_ int, item node) {
		o.Flows = append(o.Flows, Flow(r.choice(item, string(FlowCode), string(FlowDevice), string(FlowClient))))
	})
	r.NotEmpty(f["flows"])
	for _, flow := range o.Flows {
		if flow == FlowCode && o.Authorize == "" {
			r.Missing(n, "authorize", "the flow code needs it")
		}
		if flow == FlowDevice && o.Device == "" {
			r.Missing(n, "device", "the flow device needs it")
		}
	}
	if o.ClientAuth != ClientNone && o.ClientAuth != "" && o.ClientSecret == "" && f["clientID"].Given() {
		r.Refuse(n, "has no clientSecret", "name the secret, or write clientAuth: none for a public client")
	}
	if f["parameters"].Given() {
		o.Params = map[string]string{}
		r.Pairs(f["parameters"], func(name string, _, v node) { o.Params[name] = r.Checked(v, "", checkLine) })
	}
	return o
}

// separator reads a text of one space or comma.
func (r *reader) separator(n node) string {
	return r.Choice(n, " ", ",")
}

func (r *reader) revocation(n node, kind WayKind) *Revocation {
	if !n.Given() {
		return nil
	}
	k := fromSecrets | fromBinding
	if kind == WayOAuth {
		k |= fromRefresh
	}
	f := r.Fields(n, revokeKeys())
	r.need(n, f, "method", "url")
	v := &Revocation{
		Method: r.choice(f["method"], "POST", "DELETE", "GET"),
		URL:    r.template(f["url"], r.Checked(f["url"], "", checkURL), k),
		Header: r.values(f["headers"], manifest.CheckField, k),
	}
	for _, body := range []string{"form", "json"} {
		if f[body].Given() {
			v.Body = body
			check := checkLine
			if body == "json" {
				check = checkPointer
			}
			v.Fields = r.values(f[body], check, k)
		}
	}
	if f["form"].Given() && f["json"].Given() {
		r.Refuse(f["json"], "there is a form already", "keep one of them")
	}
	if f["basic"].Given() {
		v.Basic = r.template(f["basic"], r.Checked(f["basic"], "", checkLine), k)
	}
	return v
}

func (r *reader) values(n node, name strictyaml.Check, k known) []Field {
	if !n.Given() {
		return nil
	}
	var all []Field
	r.Pairs(n, func(key string, at, v node) {
		r.Complain(at, name, key)
		all = append(all, Field{Name: key, Value: r.template(v, r.Checked(v, "", checkLine), k)})
	})
	r.NotEmpty(n)
	return all
}
