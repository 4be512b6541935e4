package connector

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"ambit/internal/hostname"
	"ambit/internal/reference"
	"ambit/internal/strictyaml"
	"ambit/manifest"
)

// The keys of each mapping, in the order in which messages list them.
func rootKeys() []string {
	return []string{
		"connector", "name", "title", "docs", "replaces", "account", "ownHosts", "hosts", "secrets", "references",
		"env", "files", "auth", "pins", "ways", "foreign", "subjects", "tools",
	}
}

func accountKeys() []string { return []string{"title", "check"} }
func hostKeys() []string    { return []string{"host", "methods", "paths", "websocket"} }
func secretKeys() []string {
	return []string{"title", "hint", "kind", "check", "optional", "multiline", "public", "short"}
}
func pinKeys() []string { return []string{"title", "check", "required", "with", "narrows"} }
func narrowKeys() []string {
	return []string{"host", "methods", "paths", "query", "headers", "json", "form"}
}
func foreignKeys() []string { return []string{"headers", "query", "fields"} }

const (
	maxText = 500
	maxFile = 4096
)

var (
	namePattern   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	secretPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
)

type node = strictyaml.Node

// reader reads one connector file.
type reader struct {
	*strictyaml.Decoder
	def   definition
	uses  []use
	auths []node // of definition.auth
}

// use is a template, and what its placeholders may be; judged at the end, when
// all that a file declares is known.
type use struct {
	node  node
	text  Template
	known known
	chain *pin // of fromPins: which
}

// known is a set of what a placeholder may be.
type known uint8

const (
	fromBinding   known = 1 << iota // account, host, connection, required pins
	fromSecrets                     // any secret
	fromRefs                        // a secret that has a reference
	fromRequest                     // parts of a request
	fromSignature                   // a signature and its time
	fromPins                        // a pin and those that it refines
	fromRefresh                     // refresh_token
	fromAccount                     // account and required pins
)

func (r *reader) template(n node, text string, k known) Template {
	if n.Given() {
		r.uses = append(r.uses, use{node: n, text: Template(text), known: k})
	}
	return Template(text)
}

func (r *reader) connector(root node) *Connector {
	c := &Connector{definition: &r.def}
	if !root.IsMapping() {
		r.WrongKind(root, "keys and values", start)
		return c
	}
	f := r.Fields(root, rootKeys())
	if v := f["connector"]; !v.Given() {
		r.Missing(root, "connector", start)
	} else if s, ok := v.Scalar(); !ok || s != "v1" {
		r.WrongKind(v, `"v1", the only version that this Ambit reads`, `write "connector: v1"`)
	}
	for key, example := range map[string]string{"name": "name: acme", "title": "title: Acme", "docs": "docs: https://acme.example/settings/tokens", "secrets": "secrets: {token: {title: API token}}", "auth": `auth: [{bearer: "{token}"}]`} {
		if !f[key].Given() {
			r.Missing(root, key, "write for example "+example)
		}
	}
	c.Name = r.Checked(f["name"], "", checkName)
	c.Title = r.Checked(f["title"], "", checkLine)
	c.Docs = r.Checked(f["docs"], "", checkDocs)
	r.def.replaces = r.Boolean(f["replaces"])
	if a := r.Fields(f["account"], accountKeys()); f["account"].Given() {
		c.Account = r.Checked(a["title"], "", checkLine)
		r.def.accountCheck = r.pattern(a["check"])
		if !a["title"].Given() || !a["check"].Given() {
			r.Refuse(f["account"], "needs a title and a check", `write for example account: {title: the subdomain, check: "^[a-z0-9-]{1,63}$"}`)
		}
	}
	r.hosts(f["hosts"])
	c.Generic = !f["hosts"].Given()
	c.OwnHosts = c.Generic || r.Boolean(f["ownHosts"])
	r.secrets(f["secrets"])
	r.references(f["references"])
	r.environment(f["env"])
	r.files(f["files"])
	r.auth(f["auth"])
	r.pins(f["pins"])
	r.ways(f["ways"])
	r.foreign(f["foreign"])
	c.Subjects = r.subjects(f["subjects"])
	r.tools(f["tools"], c)
	r.judge(root, f, c)
	return c
}

func (r *reader) hosts(n node) {
	r.List(n, func(_ int, item node) {
		var h hostEntry
		if item.IsMapping() {
			f := r.Fields(item, hostKeys())
			if !f["host"].Given() {
				r.Missing(item, "host", "write for example host: api.example.com")
			}
			h.host = r.host(f["host"], fromAccount)
			h.methods = r.Texts(f["methods"], manifest.CheckMethod)
			h.paths = r.Texts(f["paths"], manifest.CheckPath)
			h.websocket = r.Boolean(f["websocket"])
			r.NotEmpty(f["methods"])
			r.NotEmpty(f["paths"])
		} else {
			h.host = r.host(item, fromAccount)
		}
		if slices.ContainsFunc(r.def.hosts, func(o hostEntry) bool { return o.host == h.host }) {
			r.Refuse(item, "the host is here twice", "keep one of them")
		}
		r.def.hosts = append(r.def.hosts, h)
	})
	r.NotEmpty(n)
}

// host reads a host with placeholders. It is never an address.
func (r *reader) host(n node, k known) Template {
	s := r.Checked(n, "", func(s string) (text, hint string) {
		filled := Template(s).Fill(func(string) (string, bool) { return "x", true })
		if hostname.IsIP(filled) {
			return strictyaml.Quote(s) + " is an address: a connector names its hosts", "write the host's name"
		}
		return manifest.CheckHost(filled)
	})
	return r.template(n, s, k)
}

func (r *reader) secrets(n node) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		r.Complain(k, checkSecret, name)
		f := r.Fields(v, secretKeys())
		s := Secret{
			Name:      name,
			Title:     r.Checked(f["title"], "", checkLine),
			Hint:      r.Checked(f["hint"], "", checkLine),
			Check:     r.pattern(f["check"]),
			Optional:  r.Boolean(f["optional"]),
			Multiline: r.Boolean(f["multiline"]),
			Public:    r.Boolean(f["public"]),
			Short:     r.Boolean(f["short"]),
		}
		if f["kind"].Given() {
			s.Kind = SecretKind(r.choice(f["kind"], string(TOTP), string(Certificate), string(PrivateKey), string(ServiceAccount)))
		}
		if !f["title"].Given() {
			r.Missing(v, "title", "write for example title: API token")
		}
		switch s.Kind {
		case Certificate, PrivateKey, ServiceAccount:
			s.Multiline = true
		}
		r.def.secrets = append(r.def.secrets, s)
	})
	r.NotEmpty(n)
}

// choice is Choice for a key that has no default.
func (r *reader) choice(n node, words ...string) string {
	if !n.Given() {
		return ""
	}
	s, ok := r.Text(n, "")
	if ok && slices.Contains(words, s) {
		return s
	}
	if ok {
		r.Refuse(n, strictyaml.Quote(s)+" is no value of this key", "write one of: "+strings.Join(words, ", "))
	}
	return ""
}

func (r *reader) references(n node) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		text, ok := r.Text(v, "")
		if !ok {
			return
		}
		if r.def.secret(name) == nil {
			r.Refuse(k, "there is no secret "+strictyaml.Quote(name), "declare it under secrets")
		}
		shape, err := reference.Parse(text)
		if err != nil {
			r.Refuse(v, "is no shape: "+err.Error(), `write for example "sk_live_{base62:24}"`)
		}
		if s := r.def.secret(name); shape.Weak() && s != nil && s.Kind != TOTP {
			r.Refuse(v, "a weak shape is for one-time codes (kind: totp) only", "make it longer, and leave out weak:")
		}
		r.def.references = append(r.def.references, Reference{Secret: name, Shape: shape})
	})
	r.NotEmpty(n)
}

func (r *reader) environment(n node) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		r.Complain(k, manifest.CheckVariable, strings.ReplaceAll(name, "{connection}", "X"))
		r.def.env = append(r.def.env, Env{Name: name, Value: r.template(v, r.Checked(v, "", checkLine), fromBinding|fromRefs)})
	})
	r.NotEmpty(n)
}

func (r *reader) files(n node) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		if path.Clean(name) != name || path.IsAbs(name) || name == "." || strings.HasPrefix(name, "..") || strings.ContainsAny(name, "\\\x00") {
			r.Refuse(k, strictyaml.Quote(name)+" is not a path below the agent's home folder", "write for example .netrc")
		}
		text, ok := r.Text(v, "")
		if ok && len(text) > maxFile {
			r.Refuse(v, "is longer than 4096 bytes", "write no more than programs need to find the reference")
		}
		r.def.files = append(r.def.files, File{Path: name, Text: r.template(v, text, fromBinding|fromRefs)})
	})
	r.NotEmpty(n)
}

func (r *reader) foreign(n node) {
	f := r.Fields(n, foreignKeys())
	for _, h := range r.Texts(f["headers"], manifest.CheckField) {
		r.def.foreign.Headers = append(r.def.foreign.Headers, canonicalHeader(h))
	}
	r.def.foreign.Query = r.Texts(f["query"], checkLine)
	r.def.foreign.Fields = r.Texts(f["fields"], checkLine)
}

// pattern reads a regular expression, which must say how a text begins and
// ends.
func (r *reader) pattern(n node) *regexp.Regexp {
	s, ok := r.Text(n, "")
	if !ok || !n.Given() {
		return nil
	}
	if len(s) > maxText || !strings.HasPrefix(s, "^") || !strings.HasSuffix(s, "$") {
		r.Refuse(n, "is not a pattern of the whole text, of at most 500 characters", "start it with ^ and end it with $")
		return nil
	}
	// Without the group, ^a|b$ would be "starts with a, or ends with b".
	p, err := regexp.Compile(`^(?:` + s[1:len(s)-1] + `)$`)
	if err != nil {
		r.Refuse(n, "is no regular expression: "+err.Error(), "write it in the syntax of RE2")
		return nil
	}
	return p
}

func checkName(s string) (text, hint string) {
	if namePattern.MatchString(s) {
		return "", ""
	}
	return strictyaml.Quote(s) + " is not a name: 1 to 40 characters of a-z, 0-9 and -, the first a letter", "write for example name: acme"
}

func checkSecret(s string) (text, hint string) {
	if !secretPattern.MatchString(s) {
		return strictyaml.Quote(s) + " is not the name of a secret: 1 to 40 characters of a-z, 0-9 and _, the first a letter", "write for example token"
	}
	if slices.Contains(reserved(), s) {
		return strictyaml.Quote(s) + " is what another placeholder is called", "choose another name"
	}
	return "", ""
}

// checkLine is for text that people read, and for values of one line.
func checkLine(s string) (text, hint string) {
	switch {
	case s == "":
		return "is empty", "write something, or leave the key out"
	case len(s) > maxText:
		return "is longer than 500 bytes", "say it shorter"
	case strings.IndexFunc(s, strictyaml.Invisible) >= 0:
		return "contains a control character", "write it on one line"
	}
	return "", ""
}

// checkDocs is for addresses that people open.
func checkDocs(s string) (text, hint string) {
	page, _, _ := strings.Cut(s, "#")
	return checkURL(page)
}

// checkURL is for https addresses, with placeholders, at a host that is a name.
func checkURL(s string) (text, hint string) {
	if t, h := checkLine(s); t != "" {
		return t, h
	}
	u, err := url.Parse(Template(s).Fill(func(string) (string, bool) { return "x", true }))
	if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return strictyaml.Quote(s) + " is not an https URL", "write for example https://acme.example/oauth/token"
	}
	if hostname.IsIP(strings.Trim(u.Hostname(), "[]")) {
		return strictyaml.Quote(s) + " has an address for a host: a connector names its hosts", "write the host's name"
	}
	return manifest.CheckHost(u.Hostname())
}

// reserved are the placeholders that a file does not declare.
func reserved() []string {
	return append([]string{"account", "connection", "refresh_token", "signature"}, signed()...)
}

// signed are the parts of a request that a signature can cover.
func signed() []string {
	return []string{"method", "host", "path", "query", "target", "timestamp", "body"}
}
