package connector

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/strictyaml"
	"ambit/manifest"
)

func toolKeys() []string {
	return []string{"title", "description", "effects", "leaves", "reviewed", "arguments", "targets", "amount", "limits", "request", "result"}
}
func amountKeys() []string { return []string{"value", "currency", "minor", "decimals"} }
func requestKeys() []string {
	return []string{"method", "host", "path", "query", "headers", "json", "form", "idempotency", "before"}
}
func beforeKeys() []string { return []string{"path", "same"} }
func resultKeys() []string {
	return []string{"status", "ok", "error", "from", "keep", "records", "decode", "maxBytes", "maxText"}
}

// MaxTools is how many tools a connector has at most.
const MaxTools = 200

const (
	mailKey   = "$mail"
	maxBody   = 8  // nesting of a body
	leastText = 64 // bytes
	// maxToolName leaves room for a connection's name and a dot in the 128 bytes of
	// an ambit.Tool's.
	maxToolName = 80
)

var toolPattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}(?:\.[a-z][a-z0-9_-]{0,39}){0,2}$`)

func effects() []string {
	return []string{
		string(ambit.EffectRead), string(ambit.EffectWrite), string(ambit.EffectDelete), string(ambit.EffectSpend), string(ambit.EffectSend),
		string(ambit.EffectPublish), string(ambit.EffectAccess), string(ambit.EffectBulk), string(ambit.EffectCustomer),
	}
}

// tools reads what the agent can do by name, each as one request.
func (r *reader) tools(n node, c *Connector) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		if len(r.def.tools) == MaxTools {
			r.Refuse(k, "is one more than the 200 tools that a connector may have", "keep those that agents need")
			return
		}
		r.Complain(k, checkTool, name)
		t := &toolReader{reader: r, connector: c, tool: &tool{name: name}, used: map[string]bool{}}
		t.read(v)
		r.def.tools = append(r.def.tools, t.tool)
	})
	r.NotEmpty(n)
}

// toolReader reads one tool.
type toolReader struct {
	*reader
	connector *Connector
	tool      *tool
	used      map[string]bool // arguments
}

func (r *toolReader) read(n node) {
	f := r.Fields(n, toolKeys())
	r.need(n, f, "title", "effects", "request")
	t := r.tool
	t.title = r.Checked(f["title"], "", checkLine)
	t.description = r.Checked(f["description"], "", checkLine)
	for _, s := range r.Texts(f["effects"], checkEffect) {
		t.effects = append(t.effects, ambit.Effect(s))
	}
	r.NotEmpty(f["effects"])
	t.leaves = r.Boolean(f["leaves"])
	t.reviewed = !f["reviewed"].Given() || r.Boolean(f["reviewed"])
	if f["arguments"].Given() {
		t.arguments = r.arguments(f["arguments"], 0)
	}
	t.targets = r.facts(f["targets"])
	t.limits = r.facts(f["limits"])
	r.request(f["request"])
	r.amount(f["amount"])
	r.result(f["result"])
	if f["effects"].Given() && !slices.ContainsFunc(t.effects, func(e ambit.Effect) bool { return e != ambit.EffectRead }) &&
		!slices.Contains([]string{"", "GET", "HEAD", "POST"}, t.request.method) {
		r.Refuse(f["effects"], "say that the tool only reads, and its method is "+t.request.method, "name what it changes")
	}
	for _, a := range t.arguments {
		if !r.used[a.name] {
			r.Refuse(f["arguments"], "nothing uses the argument "+strictyaml.Quote(a.name), "write {"+a.name+"} into the request, or remove it")
		}
	}
}

// facts reads pointers into the arguments.
func (r *toolReader) facts(n node) []string {
	all := r.Texts(n, checkPointer)
	for i, p := range all {
		if p != "" && r.fact(p) == nil {
			r.Refuse(n.Item(i), "no argument is at "+strictyaml.Quote(p), "write a pointer such as /recipient or /items/*/id")
		}
	}
	r.NotEmpty(n)
	return all
}

// fact finds the argument that a pointer leads to.
func (r *toolReader) fact(p string) *argument {
	fields, a := r.tool.arguments, (*argument)(nil)
	for _, token := range pointerTokens(p) {
		switch {
		case a != nil && a.kind == kindArray:
			if token != "*" || a.items == nil {
				return nil
			}
			a = a.items
		default:
			if a = find(fields, token); a == nil {
				return nil
			}
		}
		fields = a.fields
	}
	return a
}

func (r *toolReader) amount(n node) {
	if !n.Given() {
		return
	}
	f := r.Fields(n, amountKeys())
	r.need(n, f, "value", "currency")
	m := &money{amount: r.Checked(f["value"], "", checkPointer), minor: r.Boolean(f["minor"])}
	if a := r.fact(m.amount); f["value"].Given() && (a == nil || a.optional || a.kind != kindNumber && a.kind != kindInteger || strings.Count(m.amount, "/") != 1) {
		r.Refuse(f["value"], "is not an argument that is always there and is a number", "without it nobody knows how much it is: write for example /amount")
	}
	m.currency = r.Checked(f["currency"], "", checkLine)
	if name, ok := strings.CutPrefix(m.currency, "/"); ok {
		a := find(r.tool.arguments, name)
		if a == nil || a.optional || a.format != "currency" {
			r.Refuse(f["currency"], "is not an argument that is always there and has format: currency", "write for example EUR, or /currency")
		}
		r.used[name] = true
	} else if _, known := (&money{}).decimalsOf(m.currency); f["currency"].Given() && !known {
		r.Refuse(f["currency"], strictyaml.Quote(m.currency)+" is not a currency of ISO 4217", "write for example EUR, or /currency")
	}
	if f["decimals"].Given() {
		m.decimals = map[string]int{}
		r.Pairs(f["decimals"], func(currency string, k, v node) {
			if !currencyForm.MatchString(currency) {
				r.Refuse(k, strictyaml.Quote(currency)+" is not a currency", "write for example ISK: 2")
			}
			m.decimals[currency] = r.Integer(v, 0, 4, 2)
		})
		r.NotEmpty(f["decimals"])
		if !m.minor {
			r.Refuse(f["decimals"], "has no use without minor: true", "remove it")
		}
	}
	r.tool.money = m
}

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

func (r *toolReader) result(n node) {
	q := &r.tool.result
	q.max, q.maxText = defaultResult, defaultText
	if !n.Given() {
		return
	}
	f := r.Fields(n, resultKeys())
	r.List(f["status"], func(_ int, item node) { q.status = append(q.status, r.Integer(item, 100, 599, 0)) })
	r.NotEmpty(f["status"])
	for i, s := range q.status {
		if s != 0 && (s < http.StatusOK || s > 299) {
			r.Refuse(f["status"].Item(i), "is not the status of a success", "write for example [200, 201]")
		}
	}
	q.ok = r.Checked(f["ok"], "", checkPointer)
	q.failure = r.Checked(f["error"], "", checkPointer)
	q.from = r.Checked(f["from"], "", checkPointer)
	q.keep = r.Texts(f["keep"], checkPointer)
	r.NotEmpty(f["keep"])
	q.records, q.decode = r.within(f["records"], q.keep), r.within(f["decode"], q.keep)
	for i, p := range q.records {
		if p != "" && slices.ContainsFunc(q.decode, func(d string) bool { return d == p || strings.HasPrefix(d, p+"/") || strings.HasPrefix(p, d+"/") }) {
			r.Refuse(f["records"].Item(i), "is decoded, and so is not a record", "remove it here")
		}
	}
	q.max = r.Integer(f["maxBytes"], 1024, 1<<20, defaultResult)
	q.maxText = r.Integer(f["maxText"], leastText, 1<<20, defaultText)
}

// within reads pointers into what is kept.
func (r *toolReader) within(n node, keep []string) []string {
	all := r.Texts(n, checkPointer)
	for i, p := range all {
		if p != "" && !covered(p, keep) {
			r.Refuse(n.Item(i), strictyaml.Quote(p)+" is not kept", "add it to keep, or remove it here")
		}
	}
	r.NotEmpty(n)
	return all
}

func checkTool(s string) (text, hint string) {
	if toolPattern.MatchString(s) && len(s) <= maxToolName {
		return "", ""
	}
	return strictyaml.Quote(s) + " is not the name of a tool: at most three words of a-z, 0-9, - and _ with dots between them, 80 characters", "write for example orders.get"
}

func checkEffect(s string) (text, hint string) {
	if slices.Contains(effects(), s) {
		return "", ""
	}
	hint = "write one of: " + strings.Join(effects(), ", ")
	if near, ok := strictyaml.Nearest(s, effects()); ok {
		hint = "did you mean " + strictyaml.Quote(near) + "?"
	}
	return strictyaml.Quote(s) + " is no effect", hint
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
