package connector

import (
	"slices"
	"strings"
)

// Template is text with placeholders such as "{token}": a name of a-z, 0-9 and
// _ in braces. Every other brace is text. After [Catalog.Bind] the placeholders
// that are left are names of Secrets; whatever else was there is filled in.
type Template string

// Names returns the placeholders, in order, each once.
func (t Template) Names() []string {
	var names []string
	for _, p := range t.parts() {
		if p.name != "" && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// Append appends the text to dst, with each placeholder replaced by what value
// returns for it.
func (t Template) Append(dst []byte, value func(name string) []byte) []byte {
	for _, p := range t.parts() {
		dst = append(dst, p.before...)
		if p.name != "" {
			dst = append(dst, value(p.name)...)
		}
	}
	return dst
}

// Fill is Append for text that is no secret. A placeholder for which value
// returns false stays as it is.
func (t Template) Fill(value func(name string) (string, bool)) string {
	var b strings.Builder
	for _, p := range t.parts() {
		b.WriteString(p.before)
		if p.name == "" {
			continue
		}
		if v, ok := value(p.name); ok {
			b.WriteString(v)
		} else {
			b.WriteString("{" + p.name + "}")
		}
	}
	return b.String()
}

// Split takes a template of exactly one placeholder apart. It returns false for
// any other.
func (t Template) Split() (prefix, name, suffix string, ok bool) {
	parts := t.parts()
	switch {
	case len(parts) == 1 && parts[0].name != "":
		return parts[0].before, parts[0].name, "", true
	case len(parts) == 2 && parts[0].name != "" && parts[1].name == "":
		return parts[0].before, parts[0].name, parts[1].before, true
	}
	return "", "", "", false
}

// part is text and the placeholder after it; name is "" at the end.
type part struct{ before, name string }

func (t Template) parts() []part {
	var parts []part
	s, from := string(t), 0
	for i := 0; i < len(s); i++ {
		if s[i] != '{' {
			continue
		}
		end := i + 1
		for end < len(s) && placeholderByte(s[end], end == i+1) {
			end++
		}
		if end > i+1 && end < len(s) && s[end] == '}' {
			parts = append(parts, part{s[from:i], s[i+1 : end]})
			from, i = end+1, end
		}
	}
	if from < len(s) {
		parts = append(parts, part{before: s[from:]})
	}
	return parts
}

func placeholderByte(c byte, first bool) bool {
	return 'a' <= c && c <= 'z' || !first && ('0' <= c && c <= '9' || c == '_')
}
