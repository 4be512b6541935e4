package openapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/manifest"
)

// operation is one method of one path.
type operation struct {
	im     *importer
	method string
	said   string // the path as the document has it
	path   string // as the tool has it
	op     map[string]any
	args   map[string]bool // names that are taken

	arguments []field
	query     []field // name and placeholder
	json      []field
	form      []field
	targets   []string
	limits    []string
	amounts   []string
}

// field is a key and its YAML.
type field struct{ name, text string }

// read returns why the operation makes no tool, or "".
func (o *operation) read(item map[string]any) string {
	o.path = o.im.base + o.said
	for _, p := range o.parameters(item) {
		if reason := o.parameter(p); reason != "" {
			return reason
		}
	}
	if strings.ContainsAny(o.path, "*?#%;\\ ") || !strings.HasPrefix(o.path, "/") || len(o.path) > 400 || clean(o.path, 500) != o.path {
		return "its path has characters that a tool's cannot have"
	}
	filled := connector.Template(o.path).Fill(func(string) (string, bool) { return "x", true })
	if text, _ := manifest.CheckPath(filled); text != "" || strings.ContainsAny(filled, "{}") {
		return "its path is none that a tool can have"
	}
	for _, segment := range strings.Split(o.path, "{")[1:] {
		if name, _, ok := strings.Cut(segment, "}"); !ok || !o.args[name] {
			return "its path has a placeholder that no parameter declares"
		}
	}
	if body, ok := o.op["requestBody"]; ok {
		return o.body(o.im.resolve(body))
	}
	return ""
}

// parameters are those of the path, and of the operation, which come first.
func (o *operation) parameters(item map[string]any) []map[string]any {
	var all []map[string]any
	seen := map[string]bool{}
	for _, from := range []any{o.op["parameters"], item["parameters"]} {
		list, _ := from.([]any)
		for _, p := range list {
			m := o.im.resolve(p)
			key := fmt.Sprint(m["in"], " ", m["name"])
			if m == nil || seen[key] {
				continue
			}
			seen[key] = true
			all = append(all, m)
		}
	}
	return all
}

func (o *operation) parameter(p map[string]any) string {
	name, _ := p["name"].(string)
	in, _ := p["in"].(string)
	required, _ := p["required"].(bool)
	skip := func(reason string) string {
		if required || in == "path" {
			return "its parameter " + clean(name, 60) + " " + reason
		}
		return ""
	}
	if in != "path" && in != "query" {
		return skip("is in the " + clean(in, 20))
	}
	if name == "" || len(name) > 100 || clean(name, 100) != name {
		return skip("has no name that can be written")
	}
	s := o.im.resolve(p["schema"])
	if s == nil {
		return skip("has no schema that can be read")
	}
	a, reason := o.im.argument(name, s, 0)
	if reason != "" {
		return skip(reason)
	}
	if a.composite {
		return skip("is not a single value")
	}
	arg := o.take(name)
	if d, ok := p["description"].(string); ok && a.description == "" {
		a.description = clean(d, 200)
	}
	o.add(arg, a, required || in == "path")
	if in == "path" {
		o.path = strings.ReplaceAll(o.path, "{"+name+"}", "{"+arg+"}")
		if !slices.Contains(o.targets, "/"+arg) {
			o.targets = append(o.targets, "/"+arg)
		}
		return ""
	}
	o.query = append(o.query, field{name, quote("{" + arg + "}")})
	return ""
}

// body reads what is sent: the fields of an object become arguments.
func (o *operation) body(b map[string]any) string {
	required, _ := b["required"].(bool)
	content, _ := b["content"].(map[string]any)
	if o.method == "GET" || o.method == "DELETE" {
		if required {
			return "it has a body with " + o.method
		}
		return ""
	}
	for _, kind := range []string{"application/json", "application/x-www-form-urlencoded"} {
		media, ok := content[kind].(map[string]any)
		if !ok {
			continue
		}
		s := o.im.object(media["schema"])
		if s == nil {
			return "its body is not an object whose fields are known"
		}
		return o.fields(s, kind == "application/json")
	}
	if len(content) == 0 && !required {
		return ""
	}
	return "its body is " + clean(strings.Join(slices.Sorted(maps.Keys(content)), ", "), 100) + ", which tools do not send"
}

func (o *operation) fields(s map[string]any, asJSON bool) string {
	properties, _ := s["properties"].(map[string]any)
	required := words(s["required"])
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		must := slices.Contains(required, name)
		p := o.im.resolve(properties[name])
		if only, _ := p["readOnly"].(bool); only {
			continue
		}
		reason := "cannot be read"
		var a argument
		if p != nil && len(name) <= 100 && clean(name, 100) == name && name != "$mail" {
			a, reason = o.im.argument(name, p, 0)
		}
		if reason == "" && !asJSON && a.composite {
			reason = "is not a single value"
		}
		if reason == "" && len(o.arguments) >= 90 {
			reason = "is one of too many"
		}
		if reason != "" {
			if must {
				return "its field " + clean(name, 60) + " " + reason
			}
			continue
		}
		arg := o.take(name)
		o.add(arg, a, must)
		f := field{name, quote("{" + arg + "}")}
		if asJSON {
			o.json = append(o.json, f)
		} else {
			o.form = append(o.form, f)
		}
	}
	return ""
}

// take makes an argument's name that is not taken.
func (o *operation) take(name string) string {
	base := slug(name, "_", 36)
	if base == "" {
		base = "argument"
	}
	switch base {
	case "account", "host", "connection":
		base += "_arg"
	}
	arg := base
	for n := 2; o.args[arg]; n++ {
		arg = fmt.Sprintf("%s_%d", base, n)
	}
	o.args[arg] = true
	return arg
}

// add notes an argument, and guesses what it means.
func (o *operation) add(arg string, a argument, required bool) {
	o.arguments = append(o.arguments, field{arg, a.yaml(required)})
	ws := split(arg)
	has := func(stems ...string) bool {
		return slices.ContainsFunc(ws, func(w string) bool {
			return slices.ContainsFunc(stems, func(s string) bool { return strings.HasPrefix(w, s) })
		})
	}
	pointer := "/" + arg
	if a.list {
		pointer += "/*"
	}
	switch {
	case a.number && has("amount", "price", "total", "cents"):
		o.amounts = append(o.amounts, arg)
	case a.number && has("limit", "page", "per", "count", "quantity", "size", "max"):
		o.limits = append(o.limits, pointer)
	case !a.object && (has("email", "recipient", "account", "user", "url", "uri", "iban", "phone", "customer", "channel", "address", "webhook", "callback", "destination", "role") || slices.Contains(ws, "to") || slices.Contains(ws, "id")):
		o.targets = append(o.targets, pointer)
	}
}

// write writes the tool.
func (o *operation) write() {
	id, _ := o.op["operationId"].(string)
	tags, _ := o.op["tags"].([]any)
	name := o.im.name(o.method, o.said, id, tags)
	effects := guess(o.method, o.said, id)
	title, _ := o.op["summary"].(string)
	if title = clean(title, 120); title == "" {
		title = o.method + " " + clean(o.said, 100)
	}
	w := &o.im.w
	w.line(1, name+":")
	w.line(2, "title: "+quote(title))
	if d, ok := o.op["description"].(string); ok && clean(d, 300) != "" {
		w.line(2, "description: "+quote(clean(d, 300)))
	}
	var list []string
	for _, e := range effects {
		list = append(list, string(e))
	}
	w.line(2, "effects: ["+strings.Join(list, ", ")+"]")
	if slices.ContainsFunc(effects, func(e ambit.Effect) bool {
		return e == ambit.EffectSend || e == ambit.EffectPublish || e == ambit.EffectAccess
	}) {
		w.line(2, "leaves: true")
	}
	w.line(2, "reviewed: false")
	if len(o.arguments) > 0 {
		w.line(2, "arguments:")
		for _, a := range o.arguments {
			w.line(3, a.name+": "+a.text)
		}
	}
	if changes(effects) && len(o.targets) > 0 {
		w.line(2, "targets: "+quoted(o.targets))
	}
	if len(o.limits) > 0 {
		w.line(2, "limits: "+quoted(o.limits))
	}
	w.line(2, "request:")
	w.line(3, "method: "+o.method)
	w.line(3, "path: "+quote(o.path))
	for _, part := range []struct {
		key string
		all []field
	}{{"query", o.query}, {"json", o.json}, {"form", o.form}} {
		if len(part.all) == 0 {
			continue
		}
		w.line(3, part.key+":")
		for _, f := range part.all {
			w.line(4, quote(f.name)+": "+f.text)
		}
	}
	if slices.Contains(effects, ambit.EffectSpend) {
		if len(o.amounts) > 0 {
			o.im.remark("%s: say with amount which argument is how much money, and whether it is in cents: %s", name, strings.Join(o.amounts, ", "))
		} else {
			o.im.remark("%s may spend, and no argument looks like an amount", name)
		}
	}
}
