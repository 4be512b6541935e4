package tools

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit/internal/inert"
	"ambit/internal/jcs"
)

// Limits of a schema. They bound what compiling costs, and what checking costs for
// each value that is checked.
const (
	maxSchema  = 128 << 10 // bytes
	maxNodes   = 2000      // schemas in a schema
	maxWeight  = 200       // schemas that one value is checked against
	maxWork    = 200_000   // values times the schemas that one of them can meet
	maxPattern = 1024      // bytes of a regular expression
	maxByName  = 20        // patterns that the name of one property is matched with
)

// Schema is a JSON Schema 2020-12 that was read strictly and compiled.
type Schema struct {
	root     map[string]any
	names    map[string]bool // properties of the value itself
	weight   int             // how many schemas one value can meet
	compiled *jsonschema.Schema
}

// SchemaOptions say how a schema is read.
type SchemaOptions struct {
	// Closed refuses, for every object in the value that does not say what else it
	// may have, what is not described. The value itself is always such an object.
	Closed bool
	// Text is applied to titles and descriptions; nil leaves them.
	Text func(string) string
}

// ReadSchema reads a schema. References lead to the schema itself and nowhere else.
// Schemas of drafts 6 and 7 and of 2019-09 are read as 2020-12, and refused where
// that has other words for the same. Unknown keywords are taken out.
func ReadSchema(data []byte, o SchemaOptions) (*Schema, error) {
	if len(data) > maxSchema {
		return nil, fmt.Errorf("the schema has %d bytes and may have %d", len(data), maxSchema)
	}
	v, err := jcs.Parse(data, jcs.MaxDepth)
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	root, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the schema is not an object")
	}
	if err := dialect(root); err != nil {
		return nil, err
	}
	r := &schemaReader{text: o.Text, at: map[string]any{}, edges: map[string][]string{}, nots: map[string]string{}, weights: map[string]int{}}
	if err := r.read(root, "", false); err != nil {
		return nil, err
	}
	if err := r.resolve(); err != nil {
		return nil, err
	}
	s := &Schema{root: root, names: map[string]bool{}}
	for _, w := range r.weights {
		s.weight = max(s.weight, w)
	}
	r.names("", s.names)
	if o.Closed {
		if err := r.closeAll(root); err != nil {
			return nil, err
		}
	}
	return s, s.compile()
}

// JSON is the schema in canonical form, as it is checked.
func (s *Schema) JSON() []byte {
	b, err := jcs.Append(nil, s.root)
	if err != nil {
		return []byte("false") // cannot be: it was parsed
	}
	return b
}

// Check checks a value as jcs.Parse returns it. The error says what does not fit
// and where, in at most 1 KiB of inert text.
func (s *Schema) Check(v any) error {
	if n := count(v); n > maxWork/s.weight {
		return fmt.Errorf("there are %d values, and at most %d can be checked against this schema", n, maxWork/s.weight)
	}
	err := s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return errors.New(shorten(inert.Text(err.Error()), 1024))
	}
	said := leaves(invalid, nil)
	for i := range said {
		said[i] = strings.TrimPrefix(said[i], "at '': ")
	}
	return errors.New(shorten(inert.Text(strings.Join(said, "; ")), 1024))
}

// leaves says what did not fit, the first few of it: writing down all of it costs
// more than the check.
func leaves(e *jsonschema.ValidationError, said []string) []string {
	if len(e.Causes) == 0 && len(said) < 8 {
		return append(said, e.Error())
	}
	for _, cause := range e.Causes {
		if len(said) >= 8 {
			break
		}
		said = leaves(cause, said)
	}
	return said
}

func (s *Schema) compile() error {
	const here = "ambit:schema"
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(here, s.root); err != nil {
		return fmt.Errorf("reading the schema: %s", shorten(inert.Text(err.Error()), 1024))
	}
	var err error
	if s.compiled, err = c.Compile(here); err != nil {
		return fmt.Errorf("reading the schema: %s", shorten(inert.Text(err.Error()), 1024))
	}
	return nil
}

type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("a schema refers to nothing but itself")
}

// dialect takes out what says which JSON Schema it is.
func dialect(root map[string]any) error {
	switch d, _ := root["$schema"].(string); strings.TrimSuffix(d, "#") {
	case "https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2019-09/schema",
		"http://json-schema.org/draft-07/schema", "http://json-schema.org/draft-06/schema":
	case "":
		if root["$schema"] != nil && root["$schema"] != "" {
			return errors.New("$schema is not a string")
		}
	default:
		return fmt.Errorf("the schema is written in %s, which is not read; write JSON Schema 2020-12", shorten(inert.Text(d), 100))
	}
	delete(root, "$schema")
	delete(root, "$id")
	return nil
}

// How each keyword is read. What is not here is taken out.
const (
	plain   = iota + 1 // a value that is no schema
	text               // for people
	one                // a schema of a part of the value
	list               // schemas of parts of the value
	named              // schemas of parts of the value, by name
	same               // a schema of the value itself
	sames              // schemas of the value itself
	sameBy             // schemas of the value itself, by name
	apart              // schemas that are used where something refers to them
	refused            // not read
)

func keyword(name string) int {
	switch name {
	case "type", "enum", "const", "format", "default", "examples", "deprecated", "readOnly", "writeOnly",
		"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength", "minLength", "pattern",
		"maxItems", "minItems", "uniqueItems", "maxContains", "minContains",
		"maxProperties", "minProperties", "required", "dependentRequired", "$ref":
		return plain
	case "title", "description":
		return text
	case "items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties":
		return one
	case "prefixItems":
		return list
	case "properties", "patternProperties":
		return named
	case "if", "then", "else", "not":
		return same
	case "allOf", "anyOf", "oneOf":
		return sames
	case "dependentSchemas":
		return sameBy
	case "$defs", "definitions":
		return apart
	case "$schema", "$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary",
		"dependencies", "additionalItems", "contentSchema":
		return refused
	}
	return 0
}

type schemaReader struct {
	text    func(string) string
	at      map[string]any      // every schema, by its JSON pointer
	parts   []string            // those of parts of the value, in the order in which they were read
	edges   map[string][]string // from a schema to those of the same value
	nots    map[string]string   // from a schema to what its value must not be
	weights map[string]int      // -1 while it is being computed
}

// read reads the schema at a pointer. inPlace says that it belongs to another
// schema of the same value.
func (r *schemaReader) read(v any, at string, inPlace bool) error {
	if len(r.at) >= maxNodes {
		return fmt.Errorf("the schema has more than %d schemas in it", maxNodes)
	}
	r.at[at] = v
	if _, ok := v.(bool); ok {
		return nil
	}
	schema, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("at %q there should be a schema", shorten(inert.Text(at), 200))
	}
	if !inPlace {
		r.parts = append(r.parts, at)
	}
	words := make([]string, 0, len(schema))
	for word := range schema {
		words = append(words, word)
	}
	slices.Sort(words)
	for _, word := range words {
		if err := r.keyword(schema, at, word); err != nil {
			return err
		}
	}
	return nil
}

func (r *schemaReader) keyword(schema map[string]any, at, word string) error {
	v, here := schema[word], at+"/"+word
	switch keyword(word) {
	case plain:
		return r.plain(v, at, word)
	case text:
		s, ok := v.(string)
		if !ok {
			return fmt.Errorf("%s is not a string", word)
		}
		if r.text != nil {
			schema[word] = r.text(s)
		}
	case one:
		return r.read(v, here, false)
	case same:
		if word == "not" {
			r.nots[at] = here
		} else {
			r.edges[at] = append(r.edges[at], here)
		}
		return r.read(v, here, true)
	case list, sames:
		return r.list(v, at, word)
	case named, sameBy, apart:
		return r.named(v, at, word)
	case refused:
		return fmt.Errorf("the schema uses %s, which is not read here; write it without", word)
	default:
		delete(schema, word)
	}
	return nil
}

func (r *schemaReader) plain(v any, at, word string) error {
	s, _ := v.(string)
	switch word {
	case "pattern":
		return checkPattern(s)
	case "$ref":
		fragment, ok := strings.CutPrefix(s, "#")
		if !ok {
			return fmt.Errorf("the schema refers to %q; it may refer to itself only (#/…)", shorten(inert.Text(s), 100))
		}
		to, err := url.PathUnescape(fragment)
		if err != nil {
			return fmt.Errorf("$ref: %q is no reference", shorten(inert.Text(s), 100))
		}
		r.edges[at] = append(r.edges[at], to)
	}
	return nil
}

func checkPattern(s string) error {
	if len(s) > maxPattern {
		return fmt.Errorf("a pattern has more than %d bytes", maxPattern)
	}
	if _, err := regexp.Compile(s); err != nil {
		return fmt.Errorf("a pattern cannot be read: %s", shorten(inert.Text(err.Error()), 200))
	}
	return nil
}

func (r *schemaReader) list(v any, at, word string) error {
	all, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%s is not a list", word)
	}
	for i, v := range all {
		here := at + "/" + word + "/" + strconv.Itoa(i)
		inPlace := keyword(word) == sames
		if inPlace {
			r.edges[at] = append(r.edges[at], here)
		}
		if err := r.read(v, here, inPlace); err != nil {
			return err
		}
	}
	return nil
}

func (r *schemaReader) named(v any, at, word string) error {
	all, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is not an object", word)
	}
	if word == "patternProperties" && len(all) > maxByName {
		return fmt.Errorf("patternProperties has more than %d patterns", maxByName)
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if word == "properties" && inert.Text(name) != name {
			return fmt.Errorf("a property's name has characters that do not show: %q", shorten(inert.Text(name), 100))
		}
		if word == "patternProperties" {
			if err := checkPattern(name); err != nil {
				return err
			}
		}
		here := at + "/" + word + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
		if keyword(word) == sameBy {
			r.edges[at] = append(r.edges[at], here)
		}
		if err := r.read(all[name], here, keyword(word) != named); err != nil {
			return err
		}
	}
	return nil
}

// resolve checks that every reference leads to a schema, that none leads back to
// itself without going into the value, and that nothing weighs too much.
func (r *schemaReader) resolve() error {
	for at := range r.at {
		if _, err := r.weigh(at); err != nil {
			return err
		}
	}
	return nil
}

func (r *schemaReader) weigh(at string) (int, error) {
	if _, ok := r.at[at]; !ok {
		return 0, fmt.Errorf("$ref leads to #%s, where no schema is", shorten(inert.Text(at), 100))
	}
	switch w := r.weights[at]; {
	case w < 0:
		return 0, errors.New("a $ref leads in a circle")
	case w > 0:
		return w, nil
	}
	r.weights[at] = -1
	sum, all := 1, r.edges[at]
	if not, ok := r.nots[at]; ok {
		all = append(slices.Clone(all), not)
	}
	for _, to := range all {
		w, err := r.weigh(to)
		if err != nil {
			return 0, err
		}
		if sum += w; sum > maxWeight {
			return 0, fmt.Errorf("one value would be checked against more than %d schemas", maxWeight)
		}
	}
	r.weights[at] = sum
	return sum, nil
}

// names collects the properties that the schema at a pointer names of its value.
func (r *schemaReader) names(at string, names map[string]bool) {
	if schema, ok := r.at[at].(map[string]any); ok {
		properties, _ := schema["properties"].(map[string]any)
		for name := range properties {
			names[name] = true
		}
	}
	for _, to := range r.edges[at] { // without circles, see resolve
		r.names(to, names)
	}
}

// closeAll closes every object that does not say what else it may have.
func (r *schemaReader) closeAll(root map[string]any) error {
	switch root["type"] {
	case nil:
		root["type"] = "object"
	case "object":
	default:
		return errors.New("the arguments of a tool are an object, and this schema says something else")
	}
	if root["additionalProperties"] != false {
		delete(root, "additionalProperties")
	}
	if root["unevaluatedProperties"] != false {
		delete(root, "unevaluatedProperties")
	}
	for _, at := range r.parts {
		schema, ok := r.at[at].(map[string]any)
		if !ok || schema["additionalProperties"] != nil || schema["unevaluatedProperties"] != nil || !r.object(at) {
			continue
		}
		if len(r.edges[at]) > 0 {
			schema["unevaluatedProperties"] = false // sees what the others describe
		} else {
			schema["additionalProperties"] = false
		}
	}
	return nil
}

// object reports whether the schema at a pointer describes an object.
func (r *schemaReader) object(at string) bool {
	schema, ok := r.at[at].(map[string]any)
	if !ok {
		return false
	}
	for _, word := range []string{"properties", "patternProperties", "required", "propertyNames", "dependentRequired", "dependentSchemas", "minProperties", "maxProperties"} {
		if schema[word] != nil {
			return true
		}
	}
	types, _ := schema["type"].([]any)
	if schema["type"] == "object" || slices.Contains(types, any("object")) {
		return true
	}
	return slices.ContainsFunc(r.edges[at], r.object)
}

// shorten cuts text at the end of a character, and shows that it did.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return cut(s, limit-len("…")) + "…"
}

// cut cuts text at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
