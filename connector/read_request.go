package connector

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"ambit/internal/strictyaml"
	"ambit/manifest"
)

func requestKeys() []string {
	return []string{"method", "host", "path", "query", "headers", "json", "form", "idempotency", "before"}
}

func beforeKeys() []string { return []string{"path", "same"} }

func (r *toolReader) request(n node) {
	f := r.Fields(n, requestKeys())
	if !n.Given() {
		return
	}
	r.need(n, f, "method", "path")
	q := &r.tool.request
	q.method = r.choice(f["method"], "GET", "POST", "PUT", "PATCH", "DELETE")
	q.path = Template(r.Checked(f["path"], "", checkToolPath))
	r.useText(f["path"], q.path, false)
	for _, name := range q.path.Names() {
		if a := r.tool.argument(name); a != nil && a.optional {
			r.Refuse(f["path"], "the argument "+strictyaml.Quote(name)+" may be left out, and a path may not", "remove optional: true")
		}
	}
	r.hostAndPath(f["path"], f["host"])
	q.query = r.pairs(f["query"], checkLine, true)
	q.headers = r.headers(f["headers"])
	if f["form"].Given() {
		q.form = r.pairs(f["form"], checkLine, true)
	}
	if f["json"].Given() {
		v := r.body(f["json"], 0)
		q.json = &v
		if !v.isMap && !v.isList {
			r.WrongKind(f["json"], "a mapping or a list", "write the fields of the body")
		}
	}
	if f["json"].Given() && f["form"].Given() {
		r.Refuse(f["form"], "there is a JSON body already", "keep one of them")
	}
	if body := f["json"].Given() || f["form"].Given(); body && (q.method == "GET" || q.method == "DELETE") {
		r.Refuse(f["method"], "a "+q.method+" has no body", "write the arguments into query")
	}
	q.idempotency = r.header(f["idempotency"])
	if q.idempotency != "" && q.method == "GET" {
		r.Refuse(f["idempotency"], "has no use in a GET", "remove it")
	}
	r.before(f["before"])
}

// hostAndPath judges host and path: the tool must be within what is opened of the host.
func (r *toolReader) hostAndPath(path, host node) {
	q := &r.tool.request
	q.host = r.Checked(host, "", checkLine)
	if len(r.def.hosts) == 0 {
		if host.Given() {
			r.Refuse(host, "the connector has no hosts of its own", "leave it out: it is the manifest's first host")
		}
		return
	}
	i := 0
	if host.Given() {
		if i = slices.IndexFunc(r.def.hosts, func(e hostEntry) bool { return string(e.host) == q.host }); i < 0 {
			r.Refuse(host, strictyaml.Quote(q.host)+" is none of the hosts", "write it as it is under hosts")
			return
		}
	}
	e := &r.def.hosts[i]
	q.host = string(e.host)
	at := host
	if !host.Given() {
		at = path
	}
	switch pattern := r.tool.pattern(q.path); {
	case strings.HasPrefix(q.host, "*."):
		r.Refuse(at, "the host is many", "write a host for tools")
	case path.Given() && q.path != "" && !opens(e.paths, pattern):
		r.Refuse(path, "is none of the paths of "+q.host, "open it under hosts")
	case e.methods != nil && q.method != "" && !slices.Contains(e.methods, q.method):
		r.Refuse(at, "the method "+q.method+" is not open at "+q.host, "open it under hosts")
	case !r.authorised(q.host):
		r.Refuse(at, "the credential for "+q.host+" cannot travel with a tool's request", "tools work with bearer, basic, header, query, form, json and mtls")
	}
}

// opens says whether patterns of an opening, of which nil is any path, leave
// something of a tool's open.
func opens(paths []string, pattern string) bool {
	return paths == nil || pattern != "" && slices.ContainsFunc(paths, func(p string) bool { return len(commonPaths(p, pattern)) > 0 })
}

// before reads what must be so at the service before a call is made.
func (r *toolReader) before(n node) {
	if !n.Given() {
		return
	}
	f := r.Fields(n, beforeKeys())
	r.need(n, f, "path", "same")
	p := &precondition{path: Template(r.Checked(f["path"], "", checkToolPath))}
	r.useText(f["path"], p.path, false)
	p.same = r.pairs(f["same"], checkPointer, false)
	for _, t := range append([]Field{{Value: p.path}}, p.same...) {
		for _, name := range t.Value.Names() {
			if a := r.tool.argument(name); a != nil && a.optional {
				r.Refuse(n, "the argument "+strictyaml.Quote(name)+" may be left out, and then nothing could be compared", "remove optional: true")
			}
		}
	}
	i := slices.IndexFunc(r.def.hosts, func(e hostEntry) bool { return string(e.host) == r.tool.request.host })
	if i >= 0 && f["path"].Given() && p.path != "" && (!opens(r.def.hosts[i].paths, r.tool.pattern(p.path)) || r.def.hosts[i].methods != nil && !slices.Contains(r.def.hosts[i].methods, "GET")) {
		r.Refuse(f["path"], "is not open at "+r.tool.request.host, "open it under hosts")
	}
	r.tool.request.before = p
}

// authorised says whether a tool can use the host.
func (r *toolReader) authorised(host string) bool {
	none := true
	for i := range r.def.auth {
		e := &r.def.auth[i]
		if e.hosts != nil && !slices.Contains(e.hosts, host) {
			continue
		}
		if none = false; e.fitsTools() {
			return true
		}
	}
	return none
}

// fitsTools says whether [Request.Refer] can put in what the entry needs.
func (a *Auth) fitsTools() bool {
	switch a.Scheme {
	case Bearer, Basic, Header, Query, Form, JSON, MTLS:
		return true
	}
	return false
}

// pattern is a path with "*" in place of what is filled in; "" if it is none.
func (t *tool) pattern(path Template) string {
	p := path.Fill(func(name string) (string, bool) {
		if a := t.argument(name); a != nil && a.format == "path" {
			return "**", true
		}
		return "*", true
	})
	if text, _ := manifest.CheckPath(p); text != "" {
		return ""
	}
	return p
}

func (r *toolReader) headers(n node) []Field {
	if !n.Given() {
		return nil
	}
	var all []Field
	r.Pairs(n, func(name string, k, v node) {
		if !r.Complain(k, manifest.CheckField, name) {
			return
		}
		h := Field{Name: canonicalHeader(name), Value: Template(r.Checked(v, "", checkLine))}
		if r.carries(h.Name) {
			r.Refuse(k, "is where a credential stands, or is set by Ambit", "remove it: the gate puts credentials in")
		}
		for _, p := range h.Value.Names() {
			if r.tool.argument(p) != nil {
				r.Refuse(v, "a header field has no arguments in it", "write them into query or the body")
			}
		}
		r.useText(v, h.Value, false)
		all = append(all, h)
	})
	r.NotEmpty(n)
	return all
}

// carries says whether a header field is not a tool's to set.
func (r *toolReader) carries(name string) bool {
	set := []string{"Authorization", "Proxy-Authorization", "Cookie", "Content-Type", "Content-Length", "User-Agent", "Accept-Encoding", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}
	set = append(set, r.def.foreign.Headers...)
	for i := range r.def.auth {
		for _, p := range r.def.auth[i].Places {
			set = append(set, p.Name)
		}
	}
	return slices.Contains(set, name)
}

// pairs reads a query or a form.
func (r *toolReader) pairs(n node, name strictyaml.Check, lists bool) []Field {
	if !n.Given() {
		return nil
	}
	var all []Field
	r.Pairs(n, func(key string, k, v node) {
		r.Complain(k, name, key)
		t := Template(r.Checked(v, "", checkLine))
		r.useText(v, t, lists)
		all = append(all, Field{Name: key, Value: t})
	})
	r.NotEmpty(n)
	return all
}

// useText judges the placeholders of a text: each is a single value, or if the
// text is nothing else, and may have several, a list of them.
func (r *toolReader) useText(n node, t Template, lists bool) {
	_, alone := whole(t)
	for _, name := range t.Names() {
		a := r.use(n, name)
		if a == nil || a.kind != kindArray && a.kind != kindObject {
			continue
		}
		if !lists || !alone || a.kind == kindObject || a.items == nil || a.items.kind == kindArray || a.items.kind == kindObject {
			r.Refuse(n, "the argument "+strictyaml.Quote(name)+" is not a single value", "use it in a JSON body, as \"{"+name+"}\"")
		}
	}
}

// use notes that an argument is used, and refuses a placeholder that nothing
// fills. It returns nil for one that is no argument.
func (r *toolReader) use(n node, name string) *argument {
	r.used[name] = true
	if a := r.tool.argument(name); a != nil {
		return a
	}
	known := r.allowed(&use{known: fromAccount}, r.connector)
	if slices.Contains(known, name) {
		return nil
	}
	for _, a := range r.tool.arguments {
		known = append(known, a.name)
	}
	hint := "declare it under arguments"
	if near, ok := strictyaml.Nearest(name, known); ok {
		hint = "did you mean {" + near + "}?"
	}
	r.Refuse(n, "nothing fills the placeholder {"+name+"}", hint)
	return nil
}

// body reads a part of a JSON body.
func (r *toolReader) body(n node, depth int) value {
	switch {
	case depth > maxBody:
		r.Refuse(n, "is nested too deeply", "write a flatter body")
		return value{}
	case n.IsMapping():
		v := value{isMap: true}
		r.Pairs(n, func(key string, k, item node) {
			if key == mailKey {
				v.mail = r.mail(item)
				return
			}
			r.Complain(k, checkLine, key)
			v.keys = append(v.keys, key)
			v.values = append(v.values, r.body(item, depth+1))
		})
		if v.mail != nil && len(v.keys) > 0 {
			r.Refuse(n, "has other keys beside $mail", "write $mail alone: it becomes a text")
		}
		return v
	case n.IsList():
		v := value{isList: true}
		r.List(n, func(_ int, item node) { v.list = append(v.list, r.body(item, depth+1)) })
		return v
	}
	if s := n.Decimal(); s != "" {
		return value{raw: json.RawMessage(s)}
	}
	if s, ok := n.Scalar(); ok {
		t := Template(s)
		if _, alone := whole(t); alone {
			r.use(n, t.Names()[0])
		} else {
			r.useText(n, t, false)
		}
		if s != "" {
			r.Complain(n, checkLine, s)
		}
		return value{text: t}
	}
	return value{raw: json.RawMessage(strconv.FormatBool(r.Boolean(n)))}
}

func (r *toolReader) mail(n node) *mailTemplate {
	f := r.Fields(n, mailKeys())
	r.need(n, f, "to", "subject", "text")
	read := func(key string) Template {
		t := Template(r.Checked(f[key], "", checkLine))
		r.useText(f[key], t, key == "to" || key == "cc" || key == "bcc")
		return t
	}
	m := &mailTemplate{to: read("to"), cc: read("cc"), bcc: read("bcc"), subject: read("subject"), text: read("text"), inReplyTo: read("inReplyTo")}
	for key, t := range map[string]Template{"to": m.to, "cc": m.cc, "bcc": m.bcc} {
		if t == "" {
			continue
		}
		name, alone := whole(t)
		a := r.tool.argument(name)
		if a != nil && a.kind == kindArray {
			a = a.items
		}
		if !alone || a == nil || a.format != "email" {
			r.Refuse(f[key], "is not an argument with format: email, or a list of them", "write for example \"{to}\"")
		}
	}
	return m
}

// checkToolPath is for paths with placeholders.
func checkToolPath(s string) (text, hint string) {
	if t, h := checkLine(s); t != "" {
		return t, h
	}
	filled := Template(s).Fill(func(string) (string, bool) { return "x", true })
	if strings.ContainsAny(filled, "*{}") {
		return strictyaml.Quote(s) + " has more than names in braces", "write for example /v1/orders/{order_id}"
	}
	return manifest.CheckPath(filled)
}
