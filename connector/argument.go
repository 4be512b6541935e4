package connector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ambit/internal/strictyaml"
)

const (
	defaultLength = 1000              // characters of a text
	defaultItems  = 100               // elements of a list
	maxWhole      = 9007199254740991  // 2^53-1: what every program reads as the same number (RFC 8785)
	maxArguments  = 256 << 10         // bytes
	maxNesting    = 16                // of arguments
	controls      = `[\x00-\x1f\x7f]` // no text has these ...
	controlsBut   = `[\x00-\x08\x0b-\x1f\x7f]`
)

// formatNames are the forms of text that have a name.
func formatNames() []string {
	return []string{"email", "url", "date", "date-time", "uuid", "currency", "path"}
}

var (
	emailForm    = regexp.MustCompile(`^[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	urlForm      = regexp.MustCompile(`^https://[A-Za-z0-9][!-~]{0,990}$`)
	dateForm     = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
	timeForm     = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})$`)
	uuidForm     = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
	// pathForm is of several segments, none of which is empty, "." or "..".
	pathForm = regexp.MustCompile(`^(?:[^/.\\%?#;]|\.[^/.\\%?#;]|\.\.[^/\\%?#;])[^/\\%?#;]*(?:/(?:[^/.\\%?#;]|\.[^/.\\%?#;]|\.\.[^/\\%?#;])[^/\\%?#;]*)*$`)
)

// formatPattern is what a text of the format looks like; nil for none.
func formatPattern(name string) *regexp.Regexp {
	switch name {
	case "email":
		return emailForm
	case "url":
		return urlForm
	case "date":
		return dateForm
	case "date-time":
		return timeForm
	case "uuid":
		return uuidForm
	case "currency":
		return currencyForm
	case "path":
		return pathForm
	}
	return nil
}

// ArgumentError says what is wrong with the arguments of a call. Its text may
// quote them, escaped and shortened.
type ArgumentError struct {
	Pointer string // JSON pointer to the argument; "" is all of them
	Text    string
}

func (e *ArgumentError) Error() string {
	if e.Pointer == "" {
		return "the arguments are refused: " + e.Text
	}
	return "the argument " + strictyaml.Shorten(e.Pointer) + " " + e.Text
}

// schema is the argument as JSON Schema 2020-12.
func (a *argument) schema() map[string]any {
	s := map[string]any{}
	if a.description != "" {
		s["description"] = a.description
	}
	switch a.kind {
	case kindEnum:
		s["type"], s["enum"] = "string", a.values
	case kindInteger, kindNumber:
		s["type"], s["minimum"], s["maximum"] = string(a.kind), a.min, a.max
	case kindBoolean:
		s["type"] = "boolean"
	case kindArray:
		s["type"], s["items"], s["maxItems"] = "array", a.items.schema(), a.maxItems
	case kindObject:
		for k, v := range objectSchema(a.fields) {
			s[k] = v
		}
	default:
		s["type"], s["minLength"], s["maxLength"] = "string", a.minLength, a.maxLength
		if a.format == "date" || a.format == "date-time" || a.format == "email" || a.format == "uuid" {
			s["format"] = a.format
		}
		if p := a.form(); p != nil {
			s["pattern"] = p.String()
		}
		s["not"] = map[string]any{"pattern": a.refusedCharacters()}
	}
	return s
}

// objectSchema is a closed object.
func objectSchema(fields []*argument) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range fields {
		properties[f.name] = f.schema()
		if !f.optional {
			required = append(required, f.name)
		}
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

// form is the pattern of a text.
func (a *argument) form() *regexp.Regexp {
	if a.pattern != nil {
		return a.pattern
	}
	return formatPattern(a.format)
}

func (a *argument) refusedCharacters() string {
	if a.multiline {
		return controlsBut
	}
	return controls
}

// check refuses a value that is not what the argument wants. at is its pointer.
func (a *argument) check(at string, v any) error {
	switch a.kind {
	case kindString:
		return a.checkText(at, v)
	case kindEnum:
		s, ok := v.(string)
		if !ok || !slices.Contains(a.values, s) {
			return a.wrong(at, v, "one of "+strings.Join(a.values, ", "))
		}
	case kindInteger, kindNumber:
		return a.checkNumber(at, v)
	case kindBoolean:
		if _, ok := v.(bool); !ok {
			return a.wrong(at, v, "true or false")
		}
	case kindArray:
		list, ok := v.([]any)
		if !ok {
			return a.wrong(at, v, "a list")
		}
		if len(list) > a.maxItems {
			return &ArgumentError{at, fmt.Sprintf("has %d elements, more than %d", len(list), a.maxItems)}
		}
		for i, item := range list {
			if err := a.items.check(at+"/"+strconv.Itoa(i), item); err != nil {
				return err
			}
		}
	case kindObject:
		return checkObject(at, a.fields, v)
	default:
		return &ArgumentError{at, "cannot be judged"}
	}
	return nil
}

func (a *argument) checkText(at string, v any) error {
	s, ok := v.(string)
	if !ok {
		return a.wrong(at, v, "text")
	}
	switch n := utf8.RuneCountInString(s); {
	case n > a.maxLength:
		return &ArgumentError{at, fmt.Sprintf("has %d characters, more than %d", n, a.maxLength)}
	case n < a.minLength:
		return &ArgumentError{at, fmt.Sprintf("has %d characters, fewer than %d", n, a.minLength)}
	case strings.IndexFunc(s, func(r rune) bool {
		return (r < 0x20 || r == 0x7f) && (!a.multiline || r != '\n' && r != '\t')
	}) >= 0:
		return &ArgumentError{at, "contains a control character"}
	}
	if p := a.form(); p != nil && !p.MatchString(s) {
		want := "the form " + p.String()
		if a.pattern == nil {
			want = "the form of: " + a.format
		}
		return &ArgumentError{at, "is " + strictyaml.Quote(s) + ", which does not have " + want}
	}
	return nil
}

// numbers as RFC 8785 writes them, without exponents and signs.
var numberForm = regexp.MustCompile(`^(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,17})?$`)

func (a *argument) checkNumber(at string, v any) error {
	n, ok := v.(json.Number)
	if !ok || a.kind == kindInteger && strings.ContainsAny(n.String(), ".eE") {
		return a.wrong(at, v, map[kind]string{kindInteger: "a whole number", kindNumber: "a number"}[a.kind])
	}
	f, err := n.Float64()
	if err != nil || !numberForm.MatchString(n.String()) || math.IsNaN(f) || f < a.min || f > a.max {
		return &ArgumentError{at, fmt.Sprintf("is %s, not a number from %s to %s", strictyaml.Shorten(n.String()), plain(a.min), plain(a.max))}
	}
	return nil
}

func plain(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (a *argument) wrong(at string, v any, want string) error {
	found := "an object"
	switch v := v.(type) {
	case string:
		found = "the text " + strictyaml.Quote(v)
	case json.Number:
		found = "the number " + strictyaml.Shorten(v.String())
	case bool:
		found = strconv.FormatBool(v)
	case nil:
		found = "null"
	case []any:
		found = "a list"
	}
	return &ArgumentError{at, "is " + found + ", and needs to be " + want}
}

// checkObject refuses what is missing, wrong or not known.
func checkObject(at string, fields []*argument, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return &ArgumentError{at, "is not an object"}
	}
	for name := range m {
		if find(fields, name) == nil {
			return &ArgumentError{at, "has no field " + strictyaml.Quote(name) + fieldHint(name, fields)}
		}
	}
	for _, f := range fields {
		v, given := m[f.name]
		if !given {
			if !f.optional {
				return &ArgumentError{at + "/" + f.name, "is missing"}
			}
			continue
		}
		if err := f.check(at+"/"+f.name, v); err != nil {
			return err
		}
	}
	return nil
}

func fieldHint(name string, fields []*argument) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	if near, ok := strictyaml.Nearest(name, names); ok {
		return "; did you mean " + strictyaml.Quote(near) + "?"
	}
	if len(names) == 0 {
		return "; there are none"
	}
	return "; there are: " + strings.Join(names, ", ")
}

// arguments reads the arguments of a call, and checks them.
func (t *tool) read(args []byte) (map[string]any, error) {
	switch {
	case len(args) > maxArguments:
		return nil, &ArgumentError{"", fmt.Sprintf("they have %d bytes, more than %d", len(args), maxArguments)}
	case !utf8.Valid(args):
		return nil, &ArgumentError{"", "they are not UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(args))
	d.UseNumber()
	v, err := decodeStrict(d, 0)
	if err != nil {
		return nil, &ArgumentError{"", "they cannot be read: " + strictyaml.Shorten(err.Error())}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &ArgumentError{"", "something follows them"}
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, &ArgumentError{"", "they are not a JSON object"}
	}
	return m, checkObject("", t.arguments, m)
}

// decodeStrict decodes one value, in which no key is there twice.
func decodeStrict(d *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, errors.New("they are nested too deeply")
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	list, object := []any{}, map[string]any{}
	for d.More() {
		var key string
		if open == '{' {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key, _ = k.(string) // the decoder takes nothing else
			if _, twice := object[key]; twice {
				return nil, fmt.Errorf("the key %q is there twice", key)
			}
		}
		v, err := decodeStrict(d, depth+1)
		if err != nil {
			return nil, err
		}
		if open == '{' {
			object[key] = v
		} else {
			list = append(list, v)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if open == '{' {
		return object, nil
	}
	return list, nil
}
