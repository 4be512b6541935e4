package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/textproto"
	"strconv"
	"strings"
)

// field is a field of a form or JSON body.
type field struct {
	name       string // decoded; of JSON the last key
	pointer    string // of JSON: RFC 6901
	value      string // decoded; of what is no string in JSON, as it stands there
	start, end int    // where the value stands, in JSON with its quotes
	text       bool   // a string: what can be filled
	scalar     bool   // no object or array
}

// holds says that a field can hold a credential: it is neither empty nor one of
// JSON's words, nor an object, of which each field is looked at itself.
func (f field) holds() bool {
	switch {
	case f.text:
		return f.value != ""
	case !f.scalar:
		return strings.HasPrefix(f.value, "[")
	}
	return f.value != "null" && f.value != "true" && f.value != "false"
}

// maxFields is how many fields a body may have that is taken apart: one of a few
// KiB can be decompressed to millions of them.
const maxFields = 1 << 16

var errFields = errors.New("it has more than 65536 fields")

// fieldsOf takes a body apart, in order. An opaque body has no fields.
func fieldsOf(b []byte, m media) ([]field, error) {
	switch m.kind {
	case formBody:
		if bytes.Count(b, []byte("&"))+bytes.Count(b, []byte(";")) >= maxFields {
			return nil, errFields
		}
		return formFields(b), nil
	case multipartBody:
		return multipartFields(b, m.boundary)
	case jsonBody:
		return jsonFields(b)
	}
	return nil, nil
}

func formFields(b []byte) []field {
	var all []field
	for start := 0; start <= len(b); {
		end := len(b)
		if i := bytes.IndexAny(b[start:], "&;"); i >= 0 { // some servers separate with ";" too
			end = start + i
		}
		name, value, found := strings.Cut(string(b[start:end]), "=")
		if found {
			all = append(all, field{name: unescape(name), value: unescape(value), start: end - len(value), end: end, text: true, scalar: true})
		}
		start = end + 1
	}
	return all
}

var errMultipart = errors.New("its parts cannot be told apart")

// multipartFields is strict (RFC 2046 section 5.1): what can be read in two ways
// is an error.
func multipartFields(b []byte, boundary string) ([]field, error) {
	delimiter := []byte("\r\n--" + boundary)
	rest, ok := bytes.CutPrefix(b, delimiter[2:])
	if !ok {
		return nil, errMultipart
	}
	var all []field
	for {
		if tail, last := bytes.CutPrefix(rest, []byte("--")); last {
			if len(bytes.TrimSpace(tail)) > 0 {
				return nil, errMultipart
			}
			return all, nil
		}
		part, ok := bytes.CutPrefix(rest, []byte("\r\n"))
		if !ok {
			return nil, errMultipart
		}
		end := bytes.Index(part, delimiter)
		if end < 0 {
			return nil, errMultipart
		}
		rest = part[end+len(delimiter):]
		head, value, ok := bytes.Cut(part[:end], []byte("\r\n\r\n"))
		if !ok {
			return nil, errMultipart
		}
		name, err := partName(head)
		if err != nil {
			return nil, err
		}
		if len(all) == maxFields {
			return nil, errFields
		}
		stop := len(b) - len(part) + end
		all = append(all, field{name: name, value: string(value), start: stop - len(value), end: stop, text: true, scalar: true})
	}
}

// partName returns the field that a part is.
func partName(head []byte) (string, error) {
	var found []string
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || bytes.ContainsAny(line, "\r\n\x00") || len(key) == 0 || strings.ContainsAny(string(key), " \t") {
			return "", errMultipart
		}
		switch textproto.CanonicalMIMEHeaderKey(string(key)) {
		case "Content-Disposition":
			found = append(found, string(value))
		case "Content-Transfer-Encoding", "Content-Encoding":
			return "", errMultipart
		}
	}
	if len(found) != 1 {
		return "", errMultipart
	}
	return dispositionName(found[0])
}

func dispositionName(value string) (string, error) {
	if strings.Contains(value, "*") && strings.Contains(strings.ToLower(value), "name*") && !strings.Contains(strings.ToLower(value), "filename*") {
		return "", errMultipart // RFC 8187: some read it, some do not
	}
	_, params, err := mime.ParseMediaType(value)
	if err != nil || strings.Contains(params["name"], `\`) { // is it undone or kept? servers differ
		return "", errMultipart
	}
	return params["name"], nil
}

// maxDepth is how deep JSON may be.
const maxDepth = 100

var errJSON = errors.New("it is not JSON")

// level is an object or array that is being read.
type level struct {
	object  bool
	key     string
	wantKey bool
	index   int
	prefix  int // length of the pointer without this level
}

// jsonFields takes one JSON value apart.
func jsonFields(b []byte) (all []field, err error) {
	err = walkJSON(b, func(f field) error {
		if len(all) == maxFields {
			return errFields
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// walkJSON calls visit for each field of one JSON value, until that is an error.
func walkJSON(b []byte, visit func(field) error) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var stack []level
	var pointer []byte
	for done := false; ; {
		from := int(d.InputOffset())
		t, err := d.Token()
		if err == io.EOF && done && len(stack) == 0 {
			return nil
		}
		if err != nil || done && len(stack) == 0 {
			return errJSON
		}
		done = true
		end := int(d.InputOffset())
		for from < end && strings.IndexByte(" \t\r\n,:", b[from]) >= 0 {
			from++
		}
		if closing, is := t.(json.Delim); is && (closing == '}' || closing == ']') {
			pointer = pointer[:stack[len(stack)-1].prefix]
			stack = stack[:len(stack)-1]
			continue
		}
		f := field{start: from, end: end, scalar: true}
		if len(stack) > 0 {
			top := &stack[len(stack)-1]
			if key, is := t.(string); is && top.object && top.wantKey {
				top.key, top.wantKey = key, false
				continue
			}
			pointer = top.next(pointer[:top.prefix])
			f.name = top.key
		}
		f.pointer = string(pointer)
		switch t := t.(type) {
		case string:
			f.text, f.value = true, t
		case json.Delim:
			f.scalar, f.value = false, t.String()
			if len(stack) == maxDepth {
				return errJSON
			}
			stack = append(stack, level{object: t == '{', wantKey: t == '{', prefix: len(pointer), key: f.name})
		default:
			f.value = string(b[from:end])
		}
		if err := visit(f); err != nil {
			return err
		}
	}
}

// next appends the reference token of the value that comes now.
func (l *level) next(pointer []byte) []byte {
	pointer = append(pointer, '/')
	if !l.object {
		l.index++
		return strconv.AppendInt(pointer, int64(l.index-1), 10)
	}
	l.wantKey = true
	key := strings.ReplaceAll(strings.ReplaceAll(l.key, "~", "~0"), "/", "~1")
	return append(pointer, key...)
}

// appendJSON appends a JSON string.
func appendJSON(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
