package connector

import (
	"regexp"
	"slices"
	"strings"

	"ambit"
	"ambit/internal/strictyaml"
)

func toolKeys() []string {
	return []string{"title", "description", "effects", "leaves", "reviewed", "arguments", "targets", "amount", "limits", "request", "result"}
}

func amountKeys() []string { return []string{"value", "currency", "minor", "decimals"} }

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
		r.Refuse(f["currency"], strictyaml.Quote(m.currency)+" is not a currency whose decimals are known here", "write for example EUR, or /currency")
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
