package connector

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/strictyaml"
	"ambit/policy"
)

// BoundTool is a tool of one connection. It is safe for concurrent use.
type BoundTool struct {
	// Tool is what policy, people and the agent know of it. Its name is the
	// connection's and a dot and the tool's: "shop.refunds.create".
	Tool  ambit.Tool
	Title string // for people: "Refund an order"

	spec    *tool
	vars    map[string]string
	host    *Host
	headers map[string]string // that pins ask for
}

// Tools returns the tools that the manifest gives to the agent, in the order of
// the connector's file.
func (b *Binding) Tools() []*BoundTool { return slices.Clone(b.tools) }

// Opened returns what the connection opens, for the agent's own requests or for
// those of its tools.
func (b *Binding) Opened() []policy.Rule {
	if len(b.Rules) > 0 {
		return b.Rules
	}
	return b.ToolRules
}

// userAgent is what services see; GitHub refuses requests without one.
const userAgent = "ambit"

// tools binds those that the connection names.
func (b *binder) tools(out *Binding, places []bound) {
	names, all := b.wanted()
	for _, name := range names {
		t := b.def.tool(name)
		switch {
		case t == nil:
			b.unknownTool(name)
			continue
		case !t.reviewed:
			if !all {
				b.refuse("tools", "the tool "+name+" of "+b.def.File+" was imported and nobody has reviewed it", "check its effects, arguments and result, then remove reviewed: false there")
			}
			continue
		}
		bound, why := b.tool(out, t, places)
		switch {
		case bound != nil:
			out.tools = append(out.tools, bound)
		case !all:
			b.refuse("tools", "the tool "+name+" cannot be used: "+why, "remove it, or open what it needs")
		}
	}
	if all && len(out.tools) == 0 && len(b.problems) == 0 {
		b.refuse("tools", "no tool of the connector "+b.def.Name+" can be used here", "leave tools out, or pin less")
	}
}

// wanted returns the names that the manifest has, and whether those are all.
func (b *binder) wanted() (names []string, all bool) {
	if slices.Equal(b.said.Tools, []string{"*"}) {
		return b.def.toolNames(), true
	}
	for _, name := range b.def.toolNames() { // in the order of the file
		if slices.Contains(b.said.Tools, name) {
			names = append(names, name)
		}
	}
	for _, name := range b.said.Tools {
		if b.def.tool(name) == nil {
			names = append(names, name)
		}
	}
	return names, false
}

func (b *binder) unknownTool(name string) {
	names := b.def.toolNames()
	hint := "it has none: leave tools out"
	if len(names) > 0 {
		hint = "there are: " + strings.Join(names, ", ")
	}
	if near, ok := strictyaml.Nearest(name, names); ok {
		hint = "did you mean " + strictyaml.Quote(near) + "? " + hint
	}
	b.refuse("tools", "the connector "+b.def.Name+" has no tool "+strictyaml.Quote(name), hint)
}

// tool binds one, or says why it can never pass.
func (b *binder) tool(out *Binding, t *tool, places []bound) (*BoundTool, string) {
	i := slices.IndexFunc(places, func(p bound) bool { return string(p.entry.host) == t.request.host })
	if i < 0 || strings.HasPrefix(places[i].host, "*.") {
		return nil, "the connection has no host " + t.request.host
	}
	h := slices.IndexFunc(out.Hosts, func(h Host) bool { return h.Name == places[i].host })
	if h < 0 {
		return nil, "the pins close its host " + places[i].host
	}
	bound := &BoundTool{Title: t.title, spec: t, host: &out.Hosts[h], vars: map[string]string{}, headers: map[string]string{}}
	for _, name := range b.def.variables() {
		if v, ok := b.vars[name]; ok {
			bound.vars[name] = v
		}
	}
	path := fillWith(t.request.path, bound.vars)
	pattern := t.pattern(Template(path))
	var open []policy.Rule
	for _, r := range out.ToolRules {
		if r.Host == bound.host.Name && (r.Methods == nil || slices.Contains(r.Methods, t.request.method)) &&
			opens(r.Paths, pattern) {
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		return nil, "pins, methods or paths of the connection leave nothing of it open"
	}
	if q := t.request.before; q != nil && !slices.ContainsFunc(out.ToolRules, func(r policy.Rule) bool {
		return r.Host == bound.host.Name && (r.Methods == nil || slices.Contains(r.Methods, http.MethodGet)) && opens(r.Paths, t.pattern(Template(fillWith(q.path, bound.vars))))
	}) {
		return nil, "pins, methods or paths of the connection close what it asks first"
	}
	bound.pinned(open)
	bound.Tool = b.described(t)
	return bound, ""
}

// variables are the placeholders of a tool that are not arguments.
func (d *definition) variables() []string {
	names := []string{"account"}
	for i := range d.pins {
		if d.pins[i].variable() {
			names = append(names, d.pins[i].name)
		}
	}
	return names
}

// pinned puts in the header fields that every way to pass wants with one value.
func (t *BoundTool) pinned(open []policy.Rule) {
	for name, values := range open[0].Headers {
		same := len(values) == 1 && !slices.ContainsFunc(open[1:], func(r policy.Rule) bool { return !slices.Equal(r.Headers[name], values) })
		if same {
			t.headers[name] = values[0]
		}
	}
}

func (b *binder) described(t *tool) ambit.Tool {
	input, err := json.Marshal(objectSchema(t.arguments))
	if err != nil { // it is made of texts and numbers
		b.refuse("tools", "the arguments of "+t.name+" cannot be described", "correct "+b.def.File)
	}
	text := t.title
	if t.description != "" {
		text += ". " + t.description
	}
	out := ambit.Tool{
		Name: b.said.As + "." + t.name, Description: text, Connection: b.said.As, Effects: slices.Clone(t.effects), Leaves: t.leaves,
		Targets: slices.Clone(t.targets), Limits: slices.Clone(t.limits), Records: slices.Clone(t.result.records), Input: input,
	}
	if t.money != nil {
		out.Amount, out.Currency = t.money.amount, t.money.currency
	}
	return out
}

// Request makes the request of a call. args are its arguments in JSON, as they
// were decided. idempotency is the same for every attempt at the same call, and
// different for every other: 8 to 128 letters, digits, "-" and "_", such as the
// call's digest. An error about the arguments is of type [*ArgumentError].
func (t *BoundTool) Request(args []byte, idempotency string) (*Request, error) {
	given, err := t.spec.read(args)
	if err != nil {
		return nil, err
	}
	if given, err = t.spec.money.convert(given); err != nil {
		return nil, err
	}
	q := &t.spec.request
	f := &filler{args: given, vars: t.vars}
	path, err := f.path(t.spec, q.path)
	if err != nil {
		return nil, err
	}
	query, err := f.query(q.query)
	if err != nil {
		return nil, err
	}
	r := t.bare(q.method, path)
	if query != "" {
		r.URL += "?" + query
	}
	body, contentType, err := f.body(q)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		r.Body = body
		r.Header.Set("Content-Type", contentType)
	}
	if q.idempotency != "" {
		if !idempotencyForm.MatchString(idempotency) {
			return nil, &ArgumentError{"", "the call has no key that keeps it from being done twice"}
		}
		r.Header.Set(q.idempotency, idempotency)
	}
	r.Auth = t.auth(q, path)
	if q.before != nil {
		path, err := f.path(t.spec, q.before.path)
		if err != nil {
			return nil, err
		}
		r.Before = t.bare(http.MethodGet, path)
		r.Before.Auth = t.auth(&requestTemplate{}, path)
	}
	return r, nil
}

// bare is a request without query and body.
func (t *BoundTool) bare(method, path string) *Request {
	r := &Request{Method: method, URL: "https://" + t.host.address() + path, Header: http.Header{"User-Agent": {userAgent}, "Accept": {"application/json"}}}
	for _, h := range t.spec.request.headers {
		r.Header.Set(h.Name, fillWith(h.Value, t.vars))
	}
	for _, name := range slices.Sorted(maps.Keys(t.headers)) {
		r.Header.Set(name, t.headers[name])
	}
	return r
}

// Agrees holds the answer to [Request.Before] to the arguments of the call. An
// error says what is different at the service, or that it cannot be known.
func (t *BoundTool) Agrees(args []byte, status int, body []byte) error {
	before := t.spec.request.before
	if before == nil {
		return nil
	}
	given, err := t.spec.read(args)
	if err != nil {
		return err
	}
	v, ok := readAnswer(body)
	if !ok || status != http.StatusOK || len(body) > MaxAnswer {
		return &ResultError{status, fmt.Sprintf("the service was asked first whether the arguments are right, and answered with status %d", status), t.spec.result.message(v)}
	}
	f := &filler{args: given, vars: t.vars}
	for _, s := range before.same {
		want, complete, err := f.text(s.Value)
		if err != nil || !complete {
			return &ArgumentError{"", "they do not say " + string(s.Value)}
		}
		found, _ := at(v, s.Name)
		if text, err := scalar(found); err != nil || !strings.EqualFold(text, want) {
			return &ResultError{status, "the arguments say " + strictyaml.Quote(want) + " for " + s.Name + ", which the service does not", shortMessage(text)}
		}
	}
	return nil
}

// auth finds the ways in which a credential may travel with the request.
func (t *BoundTool) auth(q *requestTemplate, path string) []*Auth {
	var all []*Auth
	for _, a := range t.host.Auth {
		switch {
		case !a.fitsTools(), a.Scheme == Form && q.form == nil, a.Scheme == JSON && (q.json == nil || !q.json.isMap):
			continue
		case a.Paths != nil && !slices.ContainsFunc(a.Paths, func(p string) bool { return covers(p, path) }):
			continue
		}
		all = append(all, a)
	}
	return all
}

// address is the host with its port, if that is not 443.
func (h *Host) address() string {
	name := h.Name
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if len(h.Ports) == 0 || slices.Contains(h.Ports, 443) {
		return name
	}
	return name + ":" + strconv.Itoa(int(h.Ports[0]))
}
