// Package httpstrict reads HTTP/1 requests as RFC 9112 writes them and in no
// other way. Wherever two readers of the same bytes could disagree about where
// a request ends or whom it is for, it refuses: a bare LF or CR, folded
// fields, a space before a colon, a repeated Host or Content-Length,
// Content-Length beside Transfer-Encoding, any transfer coding but "chunked",
// control characters anywhere.
//
// Trust: every byte read here is hostile. What comes out is framed without
// doubt and free of control characters; whether it is allowed is not decided
// here. Whoever feeds this package can make it hold at most Limits.Head bytes.
package httpstrict

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"
)

// Error says why a request was refused. It is never about the network.
type Error struct {
	Status int    // the HTTP status that answers it: 400, 417, 431 or 505
	Text   string // one clause for a person
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func bad(text string) error { return &Error{Status: http.StatusBadRequest, Text: text} }

func tooLarge(text string) error {
	return &Error{Status: http.StatusRequestHeaderFieldsTooLarge, Text: text}
}

// Limits bounds a head and a trailer section. Zero fields take the defaults.
type Limits struct {
	Head   int // bytes of all lines together; default 64 KiB
	Fields int // number of fields; default 256
}

// The defaults of Limits.
const (
	DefaultHead   = 64 << 10
	DefaultFields = 256
)

func (l Limits) withDefaults() Limits {
	if l.Head <= 0 {
		l.Head = DefaultHead
	}
	if l.Fields <= 0 {
		l.Fields = DefaultFields
	}
	return l
}

// Head is one parsed request head.
type Head struct {
	Method  string // a token, as sent
	Target  string // visible ASCII, as sent, without "#"
	Minor   int    // 1 for HTTP/1.1, 0 for HTTP/1.0
	Host    string // the one Host field; "" only if HasHost is false
	HasHost bool   // always true for HTTP/1.1
	// Header has every field but Host, Content-Length and Transfer-Encoding,
	// under canonical names, values trimmed.
	Header http.Header
	// Length is the body's length in bytes, -1 when it is chunked.
	Length int64
	// Expect is true for "Expect: 100-continue".
	Expect bool
	// Close is true when the connection ends after this request.
	Close bool
}

// ReadHead reads one request head from br. It returns io.EOF when the
// connection ended before the first byte, *Error for what is refused, and the
// reader's error otherwise. scratch is used for the raw bytes and returned,
// perhaps grown, for the next call.
func ReadHead(br *bufio.Reader, scratch []byte, lim Limits) (*Head, []byte, error) {
	lim = lim.withDefaults()
	raw, lines, err := readLines(br, scratch[:0], lim)
	if err != nil {
		return nil, raw, err
	}
	h, err := parse(string(raw), lines)
	return h, raw, err
}

// readLines collects the lines of a section up to and with its empty line and
// drops their line ends: in raw, each line ends in LF.
func readLines(br *bufio.Reader, raw []byte, lim Limits) ([]byte, int, error) {
	for n := 0; ; n++ {
		start := len(raw)
		for {
			part, err := br.ReadSlice('\n')
			if len(raw)+len(part) > lim.Head {
				return raw, 0, tooLarge("the head is too large")
			}
			raw = append(raw, part...)
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err == io.EOF && len(raw) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return raw, 0, err
		}
		line := raw[start:]
		if len(line) < 2 || line[len(line)-2] != '\r' {
			return raw, 0, bad("a line ends in a bare LF")
		}
		raw[len(raw)-2] = '\n'
		raw = raw[:len(raw)-1]
		if len(line) == 2 {
			return raw, n, nil
		}
		if n > lim.Fields {
			return raw, 0, tooLarge("there are too many header fields")
		}
	}
}

func parse(s string, lines int) (*Head, error) {
	line, rest, _ := strings.Cut(s, "\n")
	h := &Head{}
	if err := h.requestLine(line); err != nil {
		return nil, err
	}
	h.Header = make(http.Header, lines)
	values := make([]string, 0, lines)
	var f framing
	for {
		line, rest, _ = strings.Cut(rest, "\n")
		if line == "" {
			break
		}
		name, value, err := field(line)
		if err != nil {
			return nil, err
		}
		own, err := f.take(h, name, value)
		if err != nil {
			return nil, err
		}
		if own {
			continue
		}
		if have, ok := h.Header[name]; ok {
			h.Header[name] = append(have, value)
			continue
		}
		values = append(values, value)
		h.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return h, f.finish(h)
}

func (h *Head) requestLine(line string) error {
	method, rest, ok1 := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || method == "" || target == "" {
		return bad("the request line is not METHOD TARGET VERSION")
	}
	if !token(method) || len(method) > 32 {
		return bad("the method is not a token")
	}
	for i := 0; i < len(target); i++ {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return bad("the request target has characters that may not be there")
		}
	}
	switch proto {
	case "HTTP/1.1":
		h.Minor = 1
	case "HTTP/1.0":
		h.Close = true
	default:
		if strings.HasPrefix(proto, "HTTP/") && !strings.Contains(proto, " ") {
			return &Error{Status: http.StatusHTTPVersionNotSupported, Text: "only HTTP/1.1 and HTTP/1.0 are spoken here"}
		}
		return bad("the request line has no HTTP version")
	}
	h.Method, h.Target = method, target
	return nil
}

// field splits a field line and checks every byte of it (RFC 9112 section 5).
func field(line string) (name, value string, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", bad("a header field is folded over two lines")
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !token(name) {
		return "", "", bad("a header field's name is not a token followed by a colon")
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "", "", bad("a header field has a control character")
		}
	}
	return textproto.CanonicalMIMEHeaderKey(name), trim(value), nil
}

func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// framing collects the fields that say where a request ends.
type framing struct {
	length   bool
	chunked  bool
	expected bool
}

// take handles the fields that do not go into Header, and those that decide
// about the connection. own is true for a field that was consumed.
func (f *framing) take(h *Head, name, value string) (own bool, err error) {
	switch name {
	case "Host":
		if h.HasHost {
			return true, bad("there are two Host fields")
		}
		h.HasHost, h.Host = true, value
		return true, nil
	case "Content-Length":
		if f.length {
			return true, bad("there are two Content-Length fields")
		}
		f.length = true
		h.Length, err = parseLength(value)
		return true, err
	case "Transfer-Encoding":
		if f.chunked {
			return true, bad("there are two Transfer-Encoding fields")
		}
		if h.Minor == 0 {
			return true, bad("HTTP/1.0 has no Transfer-Encoding")
		}
		if !strings.EqualFold(value, "chunked") {
			return true, bad("the only transfer coding accepted is chunked")
		}
		f.chunked = true
		return true, nil
	case "Expect":
		if !strings.EqualFold(value, "100-continue") || f.expected {
			return true, &Error{Status: http.StatusExpectationFailed, Text: "the only expectation known is 100-continue"}
		}
		f.expected = true
		return true, nil
	case "Connection":
		for v := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(trim(v), "close") {
				h.Close = true
			}
		}
	}
	return false, nil
}

func (f *framing) finish(h *Head) error {
	if f.length && f.chunked {
		return bad("Content-Length and Transfer-Encoding are both there")
	}
	if f.chunked {
		h.Length = -1
	}
	if h.Minor == 1 && !h.HasHost {
		return bad("there is no Host field")
	}
	if h.HasHost && h.Host == "" {
		return bad("the Host field is empty")
	}
	h.Expect = f.expected && h.Minor == 1 && h.Length != 0
	return nil
}

// parseLength accepts digits only: no sign, no list, no space. Eighteen of
// them fit into an int64.
func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 {
		return 0, bad("Content-Length is not a number that fits")
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, bad("Content-Length is not a plain number")
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

// token reports whether s is a token (RFC 9110 section 5.6.2).
func token(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return true
}

func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// IsError reports whether err is a refusal of this package, and which.
func IsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
