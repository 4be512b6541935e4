package tool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The bounds of the arguments of a call.
const (
	maxArgs    = 1 << 20
	maxDepth   = 64
	maxMembers = 100_000
)

// value is a JSON value. Numbers keep their text.
type value struct {
	kind   kind
	text   string // of text and number; "true" or "false"
	list   []value
	fields map[string]value
}

type kind uint8

const (
	null kind = iota
	text
	number
	truth
	list
	object
)

var errArgs = errors.New("the arguments are not canonical JSON")

// parseArgs reads the arguments, which must be an object that can be read in
// one way only: no key twice, nothing that decoders replace silently.
func parseArgs(b []byte) (value, error) {
	if len(b) > maxArgs {
		return value{}, fmt.Errorf("the arguments have more than %d bytes", maxArgs)
	}
	// Canonical JSON escapes control characters and nothing else with \u, so a
	// lone surrogate, which decoders replace, cannot stand in it.
	if !utf8.Valid(b) || bytes.Contains(bytes.ReplaceAll(bytes.ReplaceAll(b, []byte(`\\`), nil), []byte(`\u00`), nil), []byte(`\u`)) {
		return value{}, errArgs
	}
	r := reader{dec: json.NewDecoder(bytes.NewReader(b))}
	r.dec.UseNumber()
	v, err := r.value(0)
	if err != nil {
		return value{}, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) || v.kind != object {
		return value{}, errArgs
	}
	return v, nil
}

type reader struct {
	dec  *json.Decoder
	seen int
}

func (r *reader) value(depth int) (value, error) {
	if r.seen++; r.seen > maxMembers {
		return value{}, fmt.Errorf("the arguments have more than %d values", maxMembers)
	}
	t, err := r.dec.Token()
	if err != nil {
		return value{}, errArgs
	}
	switch t := t.(type) {
	case string:
		return value{kind: text, text: t}, nil
	case json.Number:
		return value{kind: number, text: string(t)}, nil
	case bool:
		return value{kind: truth, text: fmt.Sprint(t)}, nil
	case json.Delim:
		if depth == maxDepth {
			return value{}, fmt.Errorf("the arguments are nested more than %d deep", maxDepth)
		}
		if t == '[' {
			return r.items(depth)
		}
		return r.members(depth)
	}
	return value{}, nil
}

func (r *reader) items(depth int) (value, error) {
	v := value{kind: list}
	for r.dec.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.list = append(v.list, item)
	}
	_, err := r.dec.Token()
	if err != nil {
		return value{}, errArgs
	}
	return v, nil
}

func (r *reader) members(depth int) (value, error) {
	v := value{kind: object, fields: map[string]value{}}
	for r.dec.More() {
		t, err := r.dec.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return value{}, errArgs
		}
		if _, twice := v.fields[key]; twice {
			return value{}, errors.New("the arguments have a key twice")
		}
		if v.fields[key], err = r.value(depth + 1); err != nil {
			return value{}, err
		}
	}
	_, err := r.dec.Token()
	if err != nil {
		return value{}, errArgs
	}
	return v, nil
}

// literal is the JSON text of a scalar; ok is false for anything else.
func (v value) literal() (string, bool) {
	switch v.kind {
	case text:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(v.text)
		return strings.TrimSuffix(b.String(), "\n"), err == nil
	case number, truth:
		return v.text, true
	}
	return "", false
}

// pointer is a JSON pointer (RFC 6901) in which "*" is every element of a list.
type pointer []string

func parsePointer(s string) (pointer, error) {
	if s == "" {
		return pointer{}, nil
	}
	if s[0] != '/' {
		return nil, errors.New("a JSON pointer starts with /")
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		if strings.ContainsRune(strings.NewReplacer("~0", "", "~1", "").Replace(p), '~') {
			return nil, errors.New("in a JSON pointer ~ is written ~0, and / within a name ~1")
		}
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	return parts, nil
}

// find returns what the pointer is at. whole is false if it led nowhere
// somewhere: at one of the elements, or at all.
func (p pointer) find(v value) (found []value, whole bool) {
	if len(p) == 0 {
		return []value{v}, true
	}
	if p[0] != "*" {
		child, ok := v.fields[p[0]]
		if !ok {
			return nil, false
		}
		return p[1:].find(child)
	}
	if v.kind != list {
		return nil, false
	}
	whole = true
	for _, item := range v.list {
		more, ok := p[1:].find(item)
		found = append(found, more...)
		whole = whole && ok
	}
	return found, whole
}

// declaredText reports whether the tool's schema says that there is a text at
// the pointer, so that an amount may be written as one.
func declaredText(schema json.RawMessage, p pointer) bool {
	var s struct {
		Type       any
		Properties map[string]json.RawMessage
		Items      json.RawMessage
	}
	if json.Unmarshal(schema, &s) != nil {
		return false
	}
	switch {
	case len(p) == 0:
		return s.Type == "string"
	case p[0] == "*":
		return declaredText(s.Items, p[1:])
	}
	return declaredText(s.Properties[p[0]], p[1:])
}
