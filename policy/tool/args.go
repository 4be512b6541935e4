package tool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// value is a JSON value. Numbers keep their text.
type value struct {
	kind   kind
	text   string // of text and number; "true" or "false"
	list   []value
	fields []field
}

type field struct {
	name  string
	value value
}

func (v value) field(name string) (value, bool) {
	for i := range v.fields {
		if v.fields[i].name == name {
			return v.fields[i].value, true
		}
	}
	return value{}, false
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

// parseArgs reads the arguments, which must be an object that can be read in
// one way only.
func parseArgs(b []byte) (value, error) {
	if len(b) > maxArgs {
		return value{}, fmt.Errorf("the arguments have more than %d bytes", maxArgs)
	}
	return parseObject(b)
}

// Text is a text as [Entry.Scope] writes it: in quotes, as JSON.
func Text(s string) string {
	if plainText(s) {
		return `"` + s + `"`
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil { // it never fails on a string
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// plainText reports whether JSON escapes nothing of s.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// literal is the JSON text of a scalar; ok is false for anything else.
func (v value) literal() (string, bool) {
	switch v.kind {
	case text:
		return Text(v.text), true
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
		if !strings.Contains(p, "~") {
			continue
		}
		if strings.Contains(strings.ReplaceAll(strings.ReplaceAll(p, "~0", ""), "~1", ""), "~") {
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
		child, ok := v.field(p[0])
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
