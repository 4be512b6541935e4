package vault

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"ambit/internal/multimatch"
)

// watchedBody is a body that is looked at on its way: for references, and on a
// connection's host for fields with a foreign credential. What could be the
// beginning of a reference is held back until what follows decides it.
type watchedBody struct {
	u     *use
	src   io.ReadCloser
	scan  multimatch.Scan
	watch fieldWatch // nil if any field may be there

	buffer []byte
	held   int    // bytes at the beginning of buffer that are held back
	ready  []byte // of buffer: what may go on
	tail   []byte // of buffer: what is held back once ready is gone
	err    error  // comes after ready
}

// watched is the body of u.q, looked at on its way.
func (u *use) watched(m media, body io.ReadCloser) *watchedBody {
	size := 16 << 10
	if n := u.q.ContentLength; n >= 0 && n < int64(size) {
		size = max(int(n)+1, 512)
	}
	w := &watchedBody{u: u, src: body, scan: u.st.references.Scan(), buffer: make([]byte, size+u.st.references.MaxLen())}
	if u.plan != nil && u.plan.site.bound.Require {
		w.watch = u.watch(m)
	}
	u.lease.watches = true
	return w
}

// Read implements io.Reader.
func (w *watchedBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(w.ready) == 0 && w.err == nil {
		w.fill()
	}
	if w.u.lease.over.Load() {
		return 0, errRevoked
	}
	if len(w.ready) > 0 {
		n := copy(p, w.ready)
		w.ready = w.ready[n:]
		return n, nil
	}
	return 0, w.err
}

// Close implements io.Closer.
func (w *watchedBody) Close() error { return w.src.Close() }

// fill reads once.
func (w *watchedBody) fill() {
	w.held = copy(w.buffer, w.tail)
	n, err := w.src.Read(w.buffer[w.held:])
	b := w.buffer[:w.held+n]
	if hit, found := w.scan.Next(b, w.held); found {
		w.refuse(w.u.deny(w.u.st.owners[hit.Pattern].misplaced(w.u.site(), "the body")))
		return
	}
	if w.watch != nil {
		if name := w.watch.next(b[w.held:]); name != "" {
			w.refuse(w.u.deny(*w.u.plan.site.bound.foreignAt(name)))
			return
		}
	}
	pending := w.scan.Pending()
	if err != nil {
		if !errors.Is(err, io.EOF) { // it broke off: what is undecided stays here
			b = b[:len(b)-pending]
		}
		pending = 0
	}
	w.ready, w.tail, w.err = b[:len(b)-pending], b[len(b)-pending:], err
}

// fieldWatch looks for fields with a foreign credential in a body that comes
// piece by piece. next returns where in the piece one is, for people; "" if
// there is none.
type fieldWatch interface{ next(b []byte) string }

// watch is how fields are looked for in a body of that kind.
func (u *use) watch(m media) fieldWatch {
	if u.plan == nil || !u.plan.site.bound.Require || len(u.plan.site.fields) == 0 {
		return nil
	}
	names := u.plan.site.fields
	switch {
	case m.kind == formBody:
		return &formWatch{names: names}
	case m.kind == multipartBody:
		return &partWatch{names: names}
	case !m.stated: // curl --data-binary, and servers that take everything
		return both{&formWatch{names: names}, &jsonWatch{names: names}}
	}
	return &jsonWatch{names: names, sure: m.kind == jsonBody}
}

type both [2]fieldWatch

func (w both) next(b []byte) string {
	if name := w[0].next(b); name != "" {
		return name
	}
	return w[1].next(b)
}

const maxName = 256 // bytes of a field's name that are looked at, as it is written

func inBody(name string) string { return "the field " + quote(name) + " of the body" }

// formWatch is for application/x-www-form-urlencoded.
type formWatch struct {
	names map[string]bool
	name  []byte
	value bool // the name is over
	hit   bool // and it is one of names
}

func (w *formWatch) next(b []byte) string {
	for len(b) > 0 {
		if w.value && !w.hit {
			i := bytes.IndexAny(b, "&;")
			if i < 0 {
				return ""
			}
			b = b[i:]
		}
		c := b[0]
		b = b[1:]
		switch {
		case c == '&' || c == ';':
			w.name, w.value, w.hit = w.name[:0], false, false
		case w.value: // the first byte of a value that must not be there
			return inBody(unescape(string(w.name)))
		case c == '=':
			w.value, w.hit = true, hasField(w.names, unescape(string(w.name)))
		case c == '+' && len(w.name) == 0: // a space in front of a name is none of it (PHP)
		case len(w.name) < maxName:
			if w.name = append(w.name, c); string(w.name) == "%20" {
				w.name = w.name[:0]
			}
		}
	}
	return ""
}

// partWatch is for multipart/form-data. It looks at every line that could be the
// head of a part.
type partWatch struct {
	names  map[string]bool
	line   []byte
	before string // the field of the line before, if that is one that must not be there
	long   bool   // the line is none that matters
}

const disposition = "content-disposition:"

func (w *partWatch) next(b []byte) string {
	for len(b) > 0 {
		if w.long {
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				return ""
			}
			b, w.long = b[i+1:], false
			continue
		}
		c := b[0]
		b = b[1:]
		if len(w.line) == 0 && (c == ' ' || c == '\t') && w.before != "" {
			return w.before // goes on in a second line
		}
		w.before = ""
		if c != '\n' {
			w.line = append(w.line, c)
			n := min(len(w.line), len(disposition))
			if !strings.EqualFold(string(w.line[:n]), disposition[:n]) {
				w.line, w.long = w.line[:0], true
			} else if len(w.line) > 4<<10 {
				return "a part of the body, of which nobody can tell which field it is,"
			}
			continue
		}
		if len(w.line) >= len(disposition) {
			name, err := dispositionName(strings.TrimRight(string(w.line[len(disposition):]), "\r"))
			if err != nil || hasField(w.names, name) {
				return inBody(name)
			}
			w.before = inBody(name)
		}
		w.line = w.line[:0]
	}
	return ""
}

// jsonWatch is for JSON, whatever its Content-Type: it looks at the keys of
// objects at any depth.
type jsonWatch struct {
	names map[string]bool
	sure  bool // it is JSON; otherwise only if it begins like it

	state jsonState
	key   []byte // of the string that was read last, decoded
	hex   int    // digits of \u that are still to come
	char  int    // what they are
}

type jsonState uint8

const (
	jsonStart  jsonState = iota
	jsonOff              // it is no JSON
	jsonOut              // outside of a string
	jsonIn               // in one
	jsonEscape           // behind a backslash
	jsonHex              // in \uXXXX
	jsonAfter            // behind a string: a colon makes it a key
	jsonValue            // behind the colon of a key that must not be there
	jsonEmpty            // in the string that is its value
)

func (w *jsonWatch) next(b []byte) string {
	if w.state == jsonOff {
		return ""
	}
	for i := 0; i < len(b); i++ {
		switch w.state { // the long ones, at once
		case jsonOut:
			n := bytes.IndexByte(b[i:], '"')
			if n < 0 {
				return ""
			}
			i += n
		case jsonIn:
			from := i
			for i < len(b) && b[i] != '"' && b[i] != '\\' {
				i++
			}
			w.key = append(w.key, b[from:min(i, from+maxName-len(w.key))]...)
			if i == len(b) {
				return ""
			}
		}
		if w.step(b[i]) {
			return inBody(string(w.key))
		}
		if w.state == jsonOff {
			return ""
		}
	}
	return ""
}

// step takes one byte, and returns true if a credential begins with it.
func (w *jsonWatch) step(c byte) bool {
	space := c == ' ' || c == '\t' || c == '\r' || c == '\n'
	switch w.state {
	case jsonStart:
		switch {
		case c == '{' || c == '[' || w.sure && !space:
			w.state = jsonOut
		case !space && c != 0xef && c != 0xbb && c != 0xbf: // a mark of UTF-8
			w.state = jsonOff
		}
		if w.sure && c == '"' {
			w.begin()
		}
	case jsonIn, jsonEscape, jsonHex:
		w.inside(c)
	case jsonAfter:
		switch {
		case c == ':' && hasField(w.names, w.key):
			w.state = jsonValue
		case c == '"':
			w.begin()
		case !space:
			w.state = jsonOut
		}
	case jsonValue:
		switch {
		case space:
		case c == '"':
			w.state = jsonEmpty
		case c == '{' || c == 'n' || c == 't' || c == 'f': // an object is looked at itself; null, true, false
			w.state = jsonOut
		default:
			return true
		}
	case jsonEmpty:
		w.state = jsonOut
		return c != '"'
	default:
		if c == '"' {
			w.begin()
		}
	}
	return false
}

func (w *jsonWatch) begin() { w.state, w.key = jsonIn, w.key[:0] }

// inside takes a byte of a string.
func (w *jsonWatch) inside(c byte) {
	switch {
	case w.state == jsonHex:
		w.char = w.char<<4 | max(unhex(c), 0)
		if w.hex--; w.hex > 0 {
			return
		}
		c, w.state = byte(min(w.char, 0xff)), jsonIn // names are ASCII
	case w.state == jsonEscape && c == 'u':
		w.state, w.hex, w.char = jsonHex, 4, 0
		return
	case w.state == jsonEscape:
		w.state = jsonIn
	case c == '\\':
		w.state = jsonEscape
		return
	case c == '"':
		w.state = jsonAfter
		return
	}
	if len(w.key) < maxName {
		w.key = append(w.key, c)
	}
}
