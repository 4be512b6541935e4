package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxNested = 4   // objects and lists in an argument
	maxFields = 100 // of an object
	maxParts  = 500 // of an operation's arguments, with all that is in them
)

// argument is a schema as a connector file has it.
type argument struct {
	parts       []field // type and what else there is, but for description and optional
	description string
	number      bool
	list        bool
	object      bool
	composite   bool // an object, or a list of something that is not a single value
}

// yaml writes it on one line.
func (a *argument) yaml(required bool) string {
	var all []string
	for _, p := range a.parts {
		all = append(all, p.name+": "+p.text)
	}
	if !required {
		all = append(all, "optional: true")
	}
	if a.description != "" {
		all = append(all, "description: "+quote(a.description))
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// object finds the fields of an object: its own, and those of allOf.
func (im *importer) object(v any) map[string]any {
	s := im.resolve(v)
	if s == nil {
		return nil
	}
	properties, required := map[string]any{}, []any{}
	collect := func(m map[string]any) {
		p, _ := m["properties"].(map[string]any)
		maps.Copy(properties, p)
		r, _ := m["required"].([]any)
		required = append(required, r...)
	}
	all, _ := s["allOf"].([]any)
	for _, part := range all {
		m := im.resolve(part)
		if m == nil || m["allOf"] != nil || m["oneOf"] != nil || m["anyOf"] != nil {
			return nil
		}
		collect(m)
	}
	collect(s)
	if len(properties) == 0 || s["oneOf"] != nil {
		return nil
	}
	return map[string]any{"properties": properties, "required": required}
}

// single undoes what only says that a value may be null, or wraps one schema.
func (im *importer) single(s map[string]any) map[string]any {
	for _, key := range []string{"oneOf", "anyOf", "allOf"} {
		list, ok := s[key].([]any)
		if !ok {
			continue
		}
		var others []map[string]any
		for _, x := range list {
			if m := im.resolve(x); m == nil || m["type"] != "null" {
				others = append(others, m)
			}
		}
		if len(others) == 1 && others[0] != nil {
			return others[0]
		}
		if key != "allOf" {
			return nil
		}
	}
	return s
}

// kind is the type of a schema, "" if there are several or none.
func kind(s map[string]any) string {
	switch t := s["type"].(type) {
	case string:
		return t
	case []any:
		others := slices.DeleteFunc(slices.Clone(t), func(x any) bool { return x == "null" })
		if len(others) == 1 {
			k, _ := others[0].(string)
			return k
		}
		return ""
	}
	switch {
	case s["properties"] != nil || s["allOf"] != nil:
		return "object"
	case s["enum"] != nil:
		return "string"
	case s["items"] != nil:
		return "array"
	}
	return ""
}

// argument makes an argument of a schema, or says why not.
func (im *importer) argument(name string, s map[string]any, nested int) (argument, string) {
	if nested > maxNested {
		return argument{}, "is nested too deeply"
	}
	if im.budget--; im.budget < 0 { // references can say the same again and again
		return argument{}, "is too large"
	}
	if s = im.single(s); s == nil {
		return argument{}, "may be one of several things"
	}
	var a argument
	if d, ok := s["description"].(string); ok {
		a.description = clean(d, 200)
	}
	put := func(key, text string) { a.parts = append(a.parts, field{key, text}) }
	switch kind(s) {
	case "string":
		return im.text(name, s, a)
	case "integer", "number":
		a.number = true
		put("type", kind(s))
		for key, from := range map[string]string{"min": "minimum", "max": "maximum"} {
			if f, ok := number(s[from]); ok && f > 0 && f <= 1<<53-1 {
				put(key, f.String())
			}
		}
		slices.SortFunc(a.parts[1:], func(x, y field) int { return -strings.Compare(x.name, y.name) })
	case "boolean":
		put("type", "boolean")
	case "array":
		items, reason := im.argument("", im.orEmpty(s["items"]), nested+1)
		if reason != "" {
			return argument{}, "has elements of which one " + reason
		}
		items.description = ""
		a.list, a.composite = true, items.object || items.list
		put("type", "array")
		put("items", items.yaml(true))
		if f, ok := number(s["maxItems"]); ok && f >= 1 && f <= 1000 {
			put("maxItems", strconv.Itoa(int(f)))
		}
	case "object":
		a.object, a.composite = true, true
		return im.fieldsOf(s, a, nested)
	default:
		return argument{}, "has no single type"
	}
	return a, ""
}

func (im *importer) orEmpty(v any) map[string]any {
	if m := im.resolve(v); m != nil {
		return m
	}
	return map[string]any{}
}

func (im *importer) fieldsOf(s map[string]any, a argument, nested int) (argument, string) {
	o := im.object(s)
	if o == nil {
		return argument{}, "is an object whose fields are not known"
	}
	properties, _ := o["properties"].(map[string]any)
	if len(properties) > maxFields {
		return argument{}, "has too many fields"
	}
	required := words(o["required"])
	var all []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		must := slices.Contains(required, name)
		p := im.resolve(properties[name])
		reason := "cannot be read"
		var f argument
		if p != nil && fieldForm.MatchString(name) {
			f, reason = im.argument(name, p, nested+1)
		}
		if reason != "" {
			if must {
				return argument{}, "has a field " + clean(name, 60) + " that " + reason
			}
			continue
		}
		all = append(all, name+": "+f.yaml(must))
	}
	if len(all) == 0 {
		return argument{}, "has no field that can be written"
	}
	a.parts = append(a.parts, field{"type", "object"}, field{"fields", "{" + strings.Join(all, ", ") + "}"})
	return a, ""
}

var fieldForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,59}$`)

// text makes an argument of a string.
func (im *importer) text(name string, s map[string]any, a argument) (argument, string) {
	put := func(key, text string) { a.parts = append(a.parts, field{key, text}) }
	if list, ok := s["enum"].([]any); ok {
		var values []string
		for _, v := range list {
			if t, ok := v.(string); ok && t != "" && len(t) <= 200 && clean(t, 200) == t {
				values = append(values, quote(t))
			}
		}
		if len(values) == 0 || len(values) > 300 {
			return argument{}, "has values that cannot be written"
		}
		put("type", "enum")
		put("values", "["+strings.Join(values, ", ")+"]")
		return a, ""
	}
	format, _ := s["format"].(string)
	if format == "binary" || format == "byte" {
		return argument{}, "is binary"
	}
	put("type", "string")
	long := slices.ContainsFunc(split(name), func(w string) bool {
		return slices.Contains([]string{"body", "text", "description", "message", "content", "note", "comment", "html", "markdown"}, w)
	})
	most, given := number(s["maxLength"])
	switch {
	case given && most >= 1 && most <= 100_000:
		put("maxLength", strconv.Itoa(int(most)))
	case long:
		put("maxLength", "20000")
	}
	pattern, _ := s["pattern"].(string)
	switch {
	case map[string]bool{"email": true, "date": true, "date-time": true, "uuid": true}[format]:
		put("format", format)
	case name == "currency" && pattern == "" && (!given || most == 3):
		put("pattern", `"^[A-Za-z]{3}$"`)
	case usable(pattern):
		put("pattern", quote(pattern))
	case long:
		put("multiline", "true")
	}
	return a, ""
}

// usable says whether a pattern is one that connector files can have.
func usable(p string) bool {
	if len(p) < 3 || len(p) > 400 || p[0] != '^' || p[len(p)-1] != '$' || clean(p, 500) != p {
		return false
	}
	_, err := regexp.Compile("^(?:" + p[1:len(p)-1] + ")$")
	return err == nil
}

// decimal is a number of a schema.
type decimal float64

func (d decimal) String() string {
	if d == decimal(math.Trunc(float64(d))) {
		return strconv.FormatFloat(float64(d), 'f', 0, 64)
	}
	return strconv.FormatFloat(math.Floor(float64(d)*1e6)/1e6, 'f', -1, 64)
}

func number(v any) (decimal, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return decimal(f), err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

func words(v any) []string {
	list, _ := v.([]any)
	var all []string
	for _, x := range list {
		if s, ok := x.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// writer writes lines of YAML.
type writer struct{ b strings.Builder }

func (w *writer) line(indent int, text string) {
	fmt.Fprintf(&w.b, "%s%s\n", strings.Repeat("  ", indent), text)
}

// quote writes text as YAML reads it: a JSON string.
func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return `""` // a string can always be written
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quoted(all []string) string {
	var out []string
	for _, s := range all {
		out = append(out, quote(s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
