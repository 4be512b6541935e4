// Package jcs reads JSON so that no two readers can understand it differently,
// and writes it in the one form of RFC 8785 (JSON Canonicalization Scheme).
//
// What RFC 7493 (I-JSON) excludes is refused, not repaired: a name twice in an
// object, text that is not UTF-8, half of a surrogate pair, a number that a
// double cannot hold as it is written.
//
// Trust: every byte read here is hostile. Whoever feeds this package can make it
// hold a small multiple of the bytes that it was given, and nest calls as deep as
// it was told to allow.
package jcs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting of arrays and objects that [Canonical] reads.
const MaxDepth = 64

// Error says where and why bytes are not acceptable JSON.
type Error struct {
	Offset int // in bytes, from 0
	Text   string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s (at byte %d)", e.Text, e.Offset) }

// Canonical returns the canonical form of one JSON text, or an *[Error].
func Canonical(data []byte) ([]byte, error) {
	v, err := Parse(data, MaxDepth)
	if err != nil {
		return nil, err
	}
	return Append(make([]byte, 0, len(data)), v)
}

// Parse reads one JSON text whose arrays and objects nest at most depth deep.
// The value is nil, bool, float64, string, []any or map[string]any; no float64 is
// infinite or NaN, and no string has anything but Unicode scalar values. The
// error is an *[Error].
func Parse(data []byte, depth int) (any, error) {
	p := parser{data: data}
	p.space()
	v, err := p.value(depth)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at < len(data) {
		return nil, p.bad("something follows the value")
	}
	return v, nil
}

// Append appends the canonical form of a value of the kinds that [Parse] returns.
func Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case float64:
		return appendNumber(dst, v)
	case string:
		return appendString(dst, v)
	case []any:
		return appendList(dst, v)
	case map[string]any:
		return appendObject(dst, v)
	}
	return nil, fmt.Errorf("writing canonical JSON: %T is no JSON value", v)
}

func appendList(dst []byte, list []any) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, e := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = Append(dst, e); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func appendObject(dst []byte, object map[string]any) (_ []byte, err error) {
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.SortFunc(names, compare)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendString(dst, name); err != nil {
			return nil, err
		}
		dst = append(dst, ':')
		if dst, err = Append(dst, object[name]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// compare orders by UTF-16 code units (RFC 8785, section 3.2.3). That is not the
// order of UTF-8: U+E000 to U+FFFF come after what needs a surrogate pair.
func compare(a, b string) int {
	for a != "" && b != "" {
		x, n := utf8.DecodeRuneInString(a)
		y, m := utf8.DecodeRuneInString(b)
		if x != y {
			return units(x) - units(y)
		}
		a, b = a[n:], b[m:]
	}
	return len(a) - len(b)
}

// units maps runes to numbers in the order of their UTF-16 forms.
func units(r rune) int {
	if r < 0x10000 {
		return int(r) << 16
	}
	high, low := utf16.EncodeRune(r)
	return int(high)<<16 | int(low)
}

const hex = "0123456789abcdef"

func appendString(dst []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("writing canonical JSON: a string is not UTF-8")
	}
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case strings.IndexByte("\b\f\n\r\t", c) >= 0:
			dst = append(dst, '\\', "btn.fr"[c-'\b'])
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, '"'), nil
}

type parser struct {
	data []byte
	at   int
}

func (p *parser) bad(text string) error { return &Error{p.at, text} }

func (p *parser) space() {
	for p.at < len(p.data) {
		switch p.data[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// next is the byte that comes, 0 at the end; a 0 in the data is never right.
func (p *parser) next() byte {
	if p.at < len(p.data) {
		return p.data[p.at]
	}
	return 0
}

func (p *parser) value(depth int) (any, error) {
	switch c := p.next(); {
	case c == '{' || c == '[':
		if depth <= 0 {
			return nil, p.bad("it is nested too deep")
		}
		if c == '{' {
			return p.object(depth - 1)
		}
		return p.list(depth - 1)
	case c == '"':
		return p.text()
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case c == 't':
		return true, p.word("true")
	case c == 'f':
		return false, p.word("false")
	case c == 'n':
		return nil, p.word("null")
	case p.at >= len(p.data):
		return nil, p.bad("it ends too early")
	}
	return nil, p.bad("this is not JSON")
}

func (p *parser) word(w string) error {
	if !strings.HasPrefix(string(p.data[p.at:min(len(p.data), p.at+len(w))]), w) {
		return p.bad("this is not JSON")
	}
	p.at += len(w)
	return nil
}

func (p *parser) object(depth int) (any, error) {
	object := map[string]any{}
	p.at++
	p.space()
	if p.next() == '}' {
		p.at++
		return object, nil
	}
	for {
		if p.next() != '"' {
			return nil, p.bad("a name is missing")
		}
		start := p.at
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice {
			p.at = start
			return nil, p.bad("a name stands twice in one object")
		}
		p.space()
		if p.next() != ':' {
			return nil, p.bad("a colon is missing")
		}
		p.at++
		p.space()
		if object[name], err = p.value(depth); err != nil {
			return nil, err
		}
		if more, err := p.more('}'); !more {
			return object, err
		}
	}
}

func (p *parser) list(depth int) (any, error) {
	list := []any{}
	p.at++
	p.space()
	if p.next() == ']' {
		p.at++
		return list, nil
	}
	for {
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if more, err := p.more(']'); !more {
			return list, err
		}
	}
}

// more reads a comma, or the end of a list or an object.
func (p *parser) more(end byte) (bool, error) {
	p.space()
	switch p.next() {
	case ',':
		p.at++
		p.space()
		return true, nil
	case end:
		p.at++
		return false, nil
	}
	return false, p.bad("a comma or the end of a list or object is missing")
}

func (p *parser) text() (string, error) {
	p.at++
	start := p.at
	for p.at < len(p.data) { // mostly there is nothing to undo
		c := p.data[p.at]
		if c == '"' {
			s := p.data[start:p.at]
			if !utf8.Valid(s) {
				return "", p.bad("a string is not UTF-8")
			}
			p.at++
			return string(s), nil
		}
		if c == '\\' || c < ' ' {
			break
		}
		p.at++
	}
	out := slices.Clone(p.data[start:p.at])
	for p.at < len(p.data) {
		c := p.data[p.at]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", p.bad("a string is not UTF-8")
			}
			p.at++
			return string(out), nil
		case c < ' ':
			return "", p.bad("a string has a control character as it is")
		case c == '\\':
			var err error
			if out, err = p.escape(out); err != nil {
				return "", err
			}
		default:
			out = append(out, c)
			p.at++
		}
	}
	return "", p.bad("a string does not end")
}

func (p *parser) escape(out []byte) ([]byte, error) {
	p.at++
	c := p.next()
	if c == 'u' {
		p.at++
		r, err := p.unit()
		if err != nil {
			return nil, err
		}
		if utf16.IsSurrogate(r) {
			if p.next() != '\\' || p.at+1 >= len(p.data) || p.data[p.at+1] != 'u' {
				return nil, p.bad("half of a surrogate pair")
			}
			p.at += 2
			low, err := p.unit()
			if err != nil {
				return nil, err
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return nil, p.bad("half of a surrogate pair")
			}
		}
		return utf8.AppendRune(out, r), nil
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	i := strings.IndexByte(from, c)
	if c == 0 || i < 0 {
		return nil, p.bad("this is no escape")
	}
	p.at++
	return append(out, to[i]), nil
}

func (p *parser) unit() (rune, error) {
	if p.at+4 > len(p.data) {
		return 0, p.bad("an escape has too few digits")
	}
	var r rune
	for _, c := range p.data[p.at : p.at+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, p.bad("an escape has too few digits")
		}
	}
	p.at += 4
	return r, nil
}
