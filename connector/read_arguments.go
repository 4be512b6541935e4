package connector

import (
	"regexp"
	"slices"
	"strings"

	"ambit/internal/strictyaml"
)

func argumentKeys() []string {
	return []string{
		"type", "description", "optional", "format", "pattern", "multiline", "minLength", "maxLength", "min", "max", "values", "items", "maxItems", "fields",
	}
}

const (
	maxFields = 100 // of an object
	maxDeep   = 5   // nesting of arguments
	maxLength = 100_000
)

var fieldPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,59}$`)

// arguments reads the arguments of a tool, or the fields of one that is an
// object.
func (r *toolReader) arguments(n node, depth int) []*argument {
	var all []*argument
	r.Pairs(n, func(name string, k, v node) {
		switch {
		case len(all) == maxFields:
			r.Refuse(k, "is one more than the 100 that there may be", "leave out what agents do not need")
			return
		case depth == 0:
			r.Complain(k, checkArgument, name)
			if slices.Contains(r.allowed(&use{known: fromBinding}, r.connector), name) {
				r.Refuse(k, "{"+name+"} is something else in a connector", "give the argument another name")
			}
		case !fieldPattern.MatchString(name):
			r.Refuse(k, strictyaml.Quote(name)+" is not the name of a field", "write letters, digits, _ and -")
		}
		a := r.argument(v, depth)
		a.name = name
		all = append(all, a)
	})
	r.NotEmpty(n)
	return all
}

func (r *toolReader) argument(n node, depth int) *argument {
	if depth > maxDeep {
		r.Refuse(n, "is nested too deeply", "write a flatter one")
		return &argument{kind: kindBoolean}
	}
	f := r.Fields(n, argumentKeys())
	if !f["type"].Given() {
		r.Missing(n, "type", "write for example type: string")
	}
	a := &argument{
		kind: kind(r.choice(f["type"], string(kindString), string(kindInteger), string(kindNumber), string(kindBoolean), string(kindEnum), string(kindArray), string(kindObject))),
	}
	a.description = r.Checked(f["description"], "", checkLine)
	a.optional = r.Boolean(f["optional"])
	r.onlyOf(f, a.kind)
	switch a.kind {
	case kindString:
		a.format = r.choice(f["format"], formatNames()...)
		a.pattern = r.pattern(f["pattern"])
		a.multiline = r.Boolean(f["multiline"])
		a.maxLength = r.Integer(f["maxLength"], 1, maxLength, defaultLength)
		a.minLength = r.Integer(f["minLength"], 0, maxLength, 1)
		if a.minLength > a.maxLength {
			r.Refuse(n, "has a minLength above its maxLength", "correct one of them")
		}
		if a.format != "" && (a.pattern != nil || a.multiline) {
			r.Refuse(n, "has a format already", "leave out pattern and multiline")
		}
	case kindInteger, kindNumber:
		a.min = r.Number(f["min"], 0, maxWhole, 0)
		a.max = r.Number(f["max"], 0, maxWhole, maxWhole)
		if a.min > a.max {
			r.Refuse(n, "has a min above its max", "correct one of them")
		}
	case kindEnum:
		a.values = r.Texts(f["values"], checkLine)
		r.need(n, f, "values")
		r.NotEmpty(f["values"])
	case kindArray:
		r.need(n, f, "items")
		a.items = &argument{kind: kindBoolean}
		if f["items"].Given() {
			a.items = r.argument(f["items"], depth+1)
			if a.items.optional {
				r.Refuse(f["items"], "an element is never optional", "remove optional")
			}
		}
		a.maxItems = r.Integer(f["maxItems"], 1, 1000, defaultItems)
	case kindObject:
		r.need(n, f, "fields")
		if f["fields"].Given() {
			a.fields = r.arguments(f["fields"], depth+1)
		}
	}
	return a
}

// onlyOf refuses keys that say nothing about this kind.
func (r *toolReader) onlyOf(f map[string]node, k kind) {
	for key, kinds := range map[string][]kind{
		"format": {kindString}, "pattern": {kindString}, "multiline": {kindString}, "minLength": {kindString}, "maxLength": {kindString},
		"min": {kindInteger, kindNumber}, "max": {kindInteger, kindNumber}, "values": {kindEnum}, "items": {kindArray}, "maxItems": {kindArray}, "fields": {kindObject},
	} {
		if f[key].Given() && k != "" && !slices.Contains(kinds, k) {
			r.Refuse(f[key], "says nothing about type: "+string(k), "remove it")
		}
	}
}

func checkArgument(s string) (text, hint string) {
	if secretPattern.MatchString(s) && !strings.HasSuffix(s, "_") {
		return "", ""
	}
	return strictyaml.Quote(s) + " is not the name of an argument: 1 to 40 characters of a-z, 0-9 and _, the first a letter", "write for example order_id"
}
