// Package clienthello reads the first message of a TLS connection, which is
// sent in the clear, and says what it asks for (RFC 8446 section 4.1.2,
// RFC 6066 section 3). The bytes are kept, so that whoever goes on with the
// connection can replay them.
//
// Trust: every byte is hostile. A hello that cannot be read whole, that is
// longer than MaxSize or that says something twice is refused. A hello proves
// nothing: it is what the program claims it wants.
package clienthello

import (
	"encoding/binary"
	"errors"
	"io"
)

// MaxSize is the largest hello that is read, in bytes, record headers
// included.
const MaxSize = 16 << 10

// Hello is what a ClientHello asks for.
type Hello struct {
	// ServerName is the SNI as sent; "" if there is none.
	ServerName string
	// ECH is true if the encrypted_client_hello extension is there: the name
	// that counts may be another one (RFC 9849).
	ECH bool
}

// Errors of Read. Other errors are the reader's.
var (
	ErrMalformed = errors.New("the TLS ClientHello is malformed")
	ErrTooLarge  = errors.New("the TLS ClientHello is too large")
)

const (
	recordHandshake = 22
	typeClientHello = 1
	extServerName   = 0
	extECH          = 0xfe0d
	recordHeader    = 5
	messageHeader   = 4
	maxRecord       = 1 << 14
)

// Read reads one ClientHello from r, over as many records as it is split
// into. raw is every byte it took from r, also when err is not nil.
func Read(r io.Reader) (h Hello, raw []byte, err error) {
	raw = make([]byte, 0, 2048)
	var message []byte
	for {
		start := len(raw)
		if raw, err = take(r, raw, recordHeader); err != nil {
			return h, raw, err
		}
		head := raw[start:]
		if head[0] != recordHandshake || head[1] != 3 {
			return h, raw, ErrMalformed
		}
		size := int(binary.BigEndian.Uint16(head[3:]))
		if size == 0 || size > maxRecord {
			return h, raw, ErrMalformed
		}
		if raw, err = take(r, raw, size); err != nil {
			return h, raw, err
		}
		message = append(message, raw[start+recordHeader:]...)
		if len(message) < messageHeader {
			continue
		}
		if message[0] != typeClientHello {
			return h, raw, ErrMalformed
		}
		want := messageHeader + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
		if want > MaxSize {
			return h, raw, ErrTooLarge
		}
		if len(message) > want {
			return h, raw, ErrMalformed // something follows before we answered
		}
		if len(message) == want {
			h, err = parse(message[messageHeader:])
			return h, raw, err
		}
	}
}

// take appends exactly n bytes of r to raw, within MaxSize.
func take(r io.Reader, raw []byte, n int) ([]byte, error) {
	start := len(raw)
	if start+n > MaxSize {
		return raw, ErrTooLarge
	}
	for len(raw) < start+n {
		if cap(raw) < start+n {
			raw = append(make([]byte, 0, 2*(start+n)), raw...)
		}
		m, err := r.Read(raw[len(raw) : start+n])
		raw = raw[:len(raw)+m]
		if err != nil && len(raw) < start+n {
			if err == io.EOF && len(raw) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return raw, err
		}
	}
	return raw, nil
}

// fields cuts a message into its parts; bad is sticky.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.b) {
		f.bad = true
		return nil
	}
	part := f.b[:n]
	f.b = f.b[n:]
	return part
}

func (f *fields) number(size int) int {
	n := 0
	for _, b := range f.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector reads a length of the given size and as many bytes.
func (f *fields) vector(size int) fields {
	n := f.number(size)
	return fields{b: f.take(n), bad: f.bad}
}

func parse(message []byte) (Hello, error) {
	var h Hello
	f := fields{b: message}
	version := f.number(2)
	f.take(32)  // random
	f.vector(1) // session
	suites := f.vector(2)
	methods := f.vector(1)
	if f.bad || version>>8 != 3 || len(suites.b) == 0 || len(suites.b)%2 != 0 || len(methods.b) == 0 {
		return h, ErrMalformed
	}
	if len(f.b) == 0 {
		return h, nil // no extensions at all
	}
	extensions := f.vector(2)
	if f.bad || len(f.b) != 0 {
		return h, ErrMalformed
	}
	seen := make(map[int]bool, 16)
	for len(extensions.b) > 0 {
		kind := extensions.number(2)
		body := extensions.vector(2)
		if extensions.bad || seen[kind] {
			return h, ErrMalformed
		}
		seen[kind] = true
		switch kind {
		case extServerName:
			name, ok := serverName(body)
			if !ok {
				return h, ErrMalformed
			}
			h.ServerName = name
		case extECH:
			h.ECH = true
		}
	}
	return h, nil
}

// serverName accepts exactly one entry of the type host_name.
func serverName(f fields) (string, bool) {
	list := f.vector(2)
	kind := list.number(1)
	name := list.vector(2)
	if f.bad || list.bad || len(f.b) != 0 || len(list.b) != 0 || kind != 0 || len(name.b) == 0 || len(name.b) > 255 {
		return "", false
	}
	for _, b := range name.b {
		if b <= ' ' || b >= 0x7f {
			return "", false
		}
	}
	return string(name.b), true
}
