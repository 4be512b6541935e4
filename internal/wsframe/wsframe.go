// Package wsframe takes the frames of a WebSocket apart (RFC 6455 section 5) as
// they come, piece by piece, and makes single frames.
//
// It is strict, because who reads the same bytes in another way reads other
// messages: no reserved bit or opcode, since no extension is spoken; lengths in
// their shortest form; a mask on every frame of a client and on none of a server;
// control frames whole and of at most 125 bytes; fragments in order. What breaks
// a rule is an error, and the stream is over.
//
// Payload is handed on as it came: masked, if it was. Nothing is kept of it, so
// that a frame of any length costs no memory.
//
// Trust: the bytes are hostile. They can end the stream they are in, and nothing
// else.
package wsframe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
)

// Side is who sends a frame. The zero Side is none of them: every frame of it is
// refused.
type Side uint8

// The sides.
const (
	Client Side = 1 // masks each frame
	Server Side = 2 // masks none
)

// Opcode is what a frame is.
type Opcode uint8

// The opcodes of RFC 6455 section 11.8.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	Close        Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// Control says whether it is a control frame, which may stand between the
// fragments of a message.
func (o Opcode) Control() bool { return o >= Close }

// MaxControl is the longest payload of a control frame, in bytes.
const MaxControl = 125

// maxHead is the longest head of a frame in bytes.
const maxHead = 2 + 8 + 4

// Header is the head of a frame.
type Header struct {
	Op     Opcode
	Fin    bool // the last fragment of its message, or the only one
	Masked bool
	Mask   [4]byte // of a masked frame
	Length int64   // of the payload, in bytes
}

// Error is a rule of RFC 6455 that a frame breaks.
type Error struct{ text string }

// Error implements error.
func (e *Error) Error() string { return "a WebSocket frame " + e.text }

// IsError says whether err is about a frame that breaks a rule.
func IsError(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

func broken(text string) *Error { return &Error{text} }

// Piece is a part of one frame.
type Piece struct {
	// Header is the frame's; it stays until the next one begins.
	Header *Header
	// Payload is the part of it that is here, in the bytes that were read.
	Payload []byte
	// Offset is where in the frame's payload it is.
	Offset int64
	// Head says that the head is complete with this piece, which then has no
	// payload, and End that the frame is. Neither is true while more of the head is
	// to come; Header is nil then.
	Head, End bool
}

// Reader takes a stream of frames apart. The zero Reader refuses everything; see
// [New]. It is not safe for concurrent use.
type Reader struct {
	side   Side
	head   [maxHead]byte
	n      int // bytes of head that are there
	at     Header
	inside bool  // the head is complete
	read   int64 // bytes of the payload that were read
	open   bool  // a message has begun and not ended
	closed bool  // there was a close frame
	err    error
}

// New returns a Reader of what one side sends.
func New(side Side) Reader { return Reader{side: side} }

// Next reads on: at most to the end of a head, or of a frame. n is how many bytes
// of b it took; the last len(Payload) of them are payload. b must not be empty.
// An error is an *Error and comes again with every further call.
func (r *Reader) Next(b []byte) (p Piece, n int, err error) {
	if r.err != nil {
		return Piece{}, 0, r.err
	}
	if !r.inside {
		return r.begin(b)
	}
	n = len(b)
	if left := r.at.Length - r.read; int64(n) > left {
		n = int(left)
	}
	p = Piece{Header: &r.at, Payload: b[:n], Offset: r.read}
	r.read += int64(n)
	if r.read == r.at.Length {
		p.End = true
		r.end()
	}
	return p, n, nil
}

// begin reads a head. One that is wrong is refused as soon as that can be seen.
func (r *Reader) begin(b []byte) (p Piece, n int, err error) {
	for need := r.need(); r.n < need && n < len(b); need = r.need() {
		m := copy(r.head[r.n:need], b[n:])
		n, r.n = n+m, r.n+m
		if r.n == 2 {
			if r.err = r.first(); r.err != nil {
				return Piece{}, n, r.err
			}
		}
	}
	if r.n < r.need() {
		return Piece{}, n, nil
	}
	if r.err = r.length(); r.err != nil {
		return Piece{}, n, r.err
	}
	r.inside, r.read = true, 0
	p = Piece{Header: &r.at, Head: true, End: r.at.Length == 0}
	if p.End {
		r.end()
	}
	return p, n, nil
}

// need is how long the head is, as far as that is known.
func (r *Reader) need() int {
	if r.n < 2 {
		return 2
	}
	n := 2
	switch r.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if r.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// first judges the first two bytes.
func (r *Reader) first() error {
	h := Header{Op: Opcode(r.head[0] & 15), Fin: r.head[0]&0x80 != 0, Masked: r.head[1]&0x80 != 0}
	short := r.head[1] & 0x7f
	switch {
	case r.head[0]&0x70 != 0:
		return broken("has a reserved bit set, and no extension was agreed on")
	case h.Op > Binary && h.Op < Close || h.Op > Pong:
		return broken("has an opcode that is reserved")
	case r.side == Client && !h.Masked:
		return broken("of the client has no mask")
	case r.side == Server && h.Masked:
		return broken("of the server has a mask")
	case r.side != Client && r.side != Server:
		return broken("is of neither side")
	case h.Op.Control() && !h.Fin:
		return broken("is a fragment of a control frame")
	case h.Op.Control() && short > MaxControl:
		return broken("is a control frame of more than 125 bytes")
	case h.Op == Close && short == 1:
		return broken("closes with half a status code")
	case !h.Op.Control() && r.closed:
		return broken("with data follows the one that closed the WebSocket")
	case h.Op == Continuation && !r.open:
		return broken("goes on with a message that has not begun")
	case (h.Op == Text || h.Op == Binary) && r.open:
		return broken("begins a message in the middle of another")
	}
	r.at = h
	return nil
}

// length reads what follows the first two bytes.
func (r *Reader) length() error {
	h, rest := &r.at, r.head[2:r.n]
	switch short := r.head[1] & 0x7f; short {
	case 126:
		h.Length, rest = int64(binary.BigEndian.Uint16(rest)), rest[2:]
		if h.Length < 126 {
			return broken("has a length that is not in its shortest form")
		}
	case 127:
		long := binary.BigEndian.Uint64(rest)
		if long > math.MaxInt64 {
			return broken("has a length of 2^63 or more")
		}
		if long <= math.MaxUint16 {
			return broken("has a length that is not in its shortest form")
		}
		h.Length, rest = int64(long), rest[8:]
	default:
		h.Length = int64(short)
	}
	copy(h.Mask[:], rest)
	return nil
}

func (r *Reader) end() {
	r.n, r.inside = 0, false
	switch {
	case r.at.Op == Close:
		r.closed = true
	case !r.at.Op.Control():
		r.open = !r.at.Fin
	}
}

// Xor masks or unmasks payload in place (RFC 6455 section 5.3). offset is where
// in its frame b begins.
func Xor(b []byte, mask [4]byte, offset int64) {
	var two [8]byte
	for i := range two {
		two[i] = mask[(offset+int64(i))&3]
	}
	key := binary.LittleEndian.Uint64(two[:])
	for len(b) >= 32 {
		for i := 0; i < 32; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], binary.LittleEndian.Uint64(b[i:])^key)
		}
		b = b[32:]
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^key)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= two[i]
	}
}

// Append appends a whole message in one frame. A client's has a mask of its own,
// which nobody can predict; payload is not changed.
func Append(dst []byte, side Side, op Opcode, payload []byte) []byte {
	var masked byte
	if side == Client {
		masked = 0x80
	}
	dst = append(dst, 0x80|byte(op))
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, masked|byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, masked|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, masked|127), uint64(n))
	}
	if side != Client {
		return append(dst, payload...)
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:]) // never fails
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	Xor(dst[start:], mask, 0)
	return dst
}

// AppendClose appends a server's close frame with a status code (RFC 6455 section
// 7.4) and a text of at most 123 bytes, which is cut off there.
func AppendClose(dst []byte, status uint16, text string) []byte {
	payload := append(binary.BigEndian.AppendUint16(nil, status), text[:min(len(text), MaxControl-2)]...)
	return Append(dst, Server, Close, payload)
}
