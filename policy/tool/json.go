package tool

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// The bounds of the arguments of a call.
const (
	maxArgs   = 1 << 20
	maxDepth  = 64
	maxValues = 100_000
	maxFields = 10_000 // of one object
)

var errArgs = errors.New("the arguments are not canonical JSON")

// parseObject reads canonical JSON (RFC 8785) in one pass. It is stricter than
// JSON where readers differ: no space, no key twice, valid UTF-8, no escape
// that canonical form does not have (so that no lone surrogate can stand
// there). It is laxer than the canonical form in the order of keys and in how
// numbers are written, on which nothing here depends.
func parseObject(b []byte) (value, error) {
	r := reader{b: b}
	v, err := r.value(0)
	if err == nil && (len(r.b) > 0 || v.kind != object) {
		err = errArgs
	}
	if err != nil {
		return value{}, err
	}
	return v, nil
}

type reader struct {
	b    []byte // what is left
	seen int
}

// take takes c if it is next.
func (r *reader) take(c byte) bool {
	if len(r.b) == 0 || r.b[0] != c {
		return false
	}
	r.b = r.b[1:]
	return true
}

func (r *reader) word(s string) bool {
	if len(r.b) < len(s) || string(r.b[:len(s)]) != s {
		return false
	}
	r.b = r.b[len(s):]
	return true
}

func (r *reader) value(depth int) (value, error) {
	switch r.seen++; {
	case r.seen > maxValues:
		return value{}, fmt.Errorf("the arguments have more than %d values", maxValues)
	case depth > maxDepth:
		return value{}, fmt.Errorf("the arguments are nested more than %d deep", maxDepth)
	case r.take('{'):
		return r.object(depth)
	case r.take('['):
		return r.items(depth)
	case r.take('"'):
		s, err := r.text()
		return value{kind: text, text: s}, err
	case r.word("true"):
		return value{kind: truth, text: "true"}, nil
	case r.word("false"):
		return value{kind: truth, text: "false"}, nil
	case r.word("null"):
		return value{}, nil
	}
	return r.number()
}

func (r *reader) items(depth int) (value, error) {
	v := value{kind: list}
	if r.take(']') {
		return v, nil
	}
	for {
		item, err := r.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.list = append(v.list, item)
		if r.take(']') {
			return v, nil
		}
		if !r.take(',') {
			return value{}, errArgs
		}
	}
}

func (r *reader) object(depth int) (value, error) {
	v := value{kind: object, fields: make([]field, 0, 8)}
	if r.take('}') {
		return v, nil
	}
	var names map[string]bool // once there are many
	twice := func(name string) bool {
		if len(v.fields) < 32 {
			_, there := v.field(name)
			return there
		}
		if names == nil {
			names = make(map[string]bool, 2*len(v.fields))
			for _, f := range v.fields {
				names[f.name] = true
			}
		}
		there := names[name]
		names[name] = true
		return there
	}
	for {
		if !r.take('"') {
			return value{}, errArgs
		}
		name, err := r.text()
		if err != nil || !r.take(':') {
			return value{}, errArgs
		}
		switch {
		case twice(name):
			return value{}, errors.New("the arguments have a key twice")
		case len(v.fields) == maxFields:
			return value{}, fmt.Errorf("an object in the arguments has more than %d keys", maxFields)
		}
		item, err := r.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		v.fields = append(v.fields, field{name, item})
		if r.take('}') {
			return v, nil
		}
		if !r.take(',') {
			return value{}, errArgs
		}
	}
}

// text reads up to the closing quotation mark.
func (r *reader) text() (string, error) {
	escaped := false
	for i := 0; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			raw := r.b[:i]
			r.b = r.b[i+1:]
			if !utf8.Valid(raw) {
				return "", errArgs
			}
			if escaped {
				return unescape(raw)
			}
			return string(raw), nil
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return "", errArgs
		}
	}
	return "", errArgs
}

func unescape(raw []byte) (string, error) {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		if i++; i == len(raw) {
			return "", errArgs
		}
		switch raw[i] {
		case '"', '\\':
			out = append(out, raw[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u': // of a control character
			if i+4 >= len(raw) || raw[i+1] != '0' || raw[i+2] != '0' {
				return "", errArgs
			}
			high, low := hex(raw[i+3]), hex(raw[i+4])
			if high > 1 || low > 15 {
				return "", errArgs
			}
			out = append(out, high<<4|low)
			i += 4
		default:
			return "", errArgs
		}
	}
	return string(out), nil
}

func hex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func (r *reader) number() (value, error) {
	n := 0
	digits := func() bool {
		start := n
		for n < len(r.b) && '0' <= r.b[n] && r.b[n] <= '9' {
			n++
		}
		return n > start
	}
	next := func(chars ...byte) bool {
		for _, c := range chars {
			if n < len(r.b) && r.b[n] == c {
				n++
				return true
			}
		}
		return false
	}
	next('-')
	if !next('0') && !digits() {
		return value{}, errArgs
	}
	if next('.') && !digits() {
		return value{}, errArgs
	}
	if next('e', 'E') {
		next('+', '-')
		if !digits() {
			return value{}, errArgs
		}
	}
	v := value{kind: number, text: string(r.b[:n])}
	r.b = r.b[n:]
	return v, nil
}
