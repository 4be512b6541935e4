package vault

import (
	"errors"

	"ambit/internal/wsframe"
)

// flow is one direction of a WebSocket. Frames go on as they came, byte for byte
// but for what a look changes, as soon as what they carry is decided: what could
// be the beginning of something that must not go on is held back, with whatever
// follows it on the wire.
type flow struct {
	frames wsframe.Reader
	// look makes the look at a message, or at a control frame; nil if nothing is
	// looked for.
	look func() look

	held []byte // of the wire: not decided
	room []byte // held, and what came behind it

	// Of the message under way:
	now   look
	plain []byte // what is pending of it, unmasked; and while a piece is looked at, that too
	parts []part // where on the wire plain stands

	control []byte // payload of the control frame under way, unmasked
	start   int    // on the wire, of a head or control frame that is not whole; -1 if there is none
	border  int    // on the wire, of the last frame that ended; -1 if it has gone on
	whole   bool   // what went on ends where a frame ends
}

// look looks at one message as it comes.
type look interface {
	// next looks at b[i:], together with b[:i], which was pending; it may change
	// both. pending is how many of the last bytes of b are undecided.
	next(b []byte, i int) (pending int, err error)
}

// part is a piece of payload on the wire: places count from the first byte of
// held.
type part struct{ at, n int }

// maxBehind is how many bytes of the wire may be held back: with frames that
// carry next to nothing it could be any number.
const maxBehind = 64 << 10

var errBehind = errors.New("a WebSocket message has too many frames that carry next to nothing")

func newFlow(side wsframe.Side, l func() look) flow {
	return flow{frames: wsframe.New(side), look: l, start: -1, border: -1, whole: true}
}

// pass takes the next bytes of the wire, and returns those that may go on. They
// are good until the next call, and may be in b, which is changed only where a look
// changes the payload of a server's frames.
func (f *flow) pass(b []byte) ([]byte, error) {
	i := len(f.held)
	if i > 0 {
		f.room = append(append(f.room[:0], f.held...), b...)
		b = f.room
	}
	for i < len(b) {
		p, n, err := f.frames.Next(b[i:])
		if err != nil {
			return nil, err
		}
		if f.start < 0 && (p.Header == nil || p.Head) {
			f.start = i
		}
		i += n
		if p.Header == nil {
			break // a head that is not whole
		}
		if p.Header.Op.Control() {
			err = f.short(b, i, p)
		} else {
			err = f.data(b, i, p)
		}
		if err != nil {
			return nil, err
		}
	}
	return f.split(b)
}

// short goes on with a control frame, which is looked at whole and by itself.
// b[:i] was read, and p is the end of it.
func (f *flow) short(b []byte, i int, p wsframe.Piece) error {
	if p.Head {
		f.control = f.control[:0]
	}
	f.control = append(f.control, p.Payload...)
	if !p.End {
		return nil
	}
	f.start, f.border = -1, i
	if f.look == nil || len(f.control) == 0 {
		return nil
	}
	if p.Header.Masked {
		wsframe.Xor(f.control, p.Header.Mask, 0)
	}
	if _, err := f.look().next(f.control, 0); err != nil {
		return err
	}
	if !p.Header.Masked {
		copy(b[i-len(f.control):], f.control)
	}
	return nil
}

// data goes on with a message. b[:i] was read, and p is the end of it.
func (f *flow) data(b []byte, i int, p wsframe.Piece) error {
	if p.Head {
		f.start = -1
		if p.Header.Op != wsframe.Continuation && f.look != nil {
			f.now = f.look()
		}
	}
	if len(p.Payload) > 0 && f.now != nil {
		if err := f.payload(b, i-len(p.Payload), p); err != nil {
			return err
		}
	}
	if p.End {
		f.border = i
		if p.Header.Fin { // nothing follows that could make something of what is pending
			f.now, f.plain, f.parts = nil, f.plain[:0], f.parts[:0]
		}
	}
	return nil
}

// payload looks at a piece of a message that stands in b from at on.
func (f *flow) payload(b []byte, at int, p wsframe.Piece) error {
	text, before := p.Payload, len(f.plain)
	copied := before > 0 || p.Header.Masked
	if copied {
		f.plain = append(f.plain, p.Payload...)
		text = f.plain
	}
	if p.Header.Masked {
		wsframe.Xor(text[before:], p.Header.Mask, p.Offset)
	}
	f.parts = append(f.parts, part{at, len(p.Payload)})
	pending, err := f.now.next(text, before)
	if err != nil {
		return err
	}
	if copied && !p.Header.Masked { // a look may have changed it
		rest := text
		for _, w := range f.parts {
			copy(b[w.at:w.at+w.n], rest)
			rest = rest[w.n:]
		}
	}
	decided := len(text) - pending
	f.plain = append(f.plain[:0], text[decided:]...)
	done := 0
	for done < len(f.parts) && f.parts[done].n <= decided {
		decided -= f.parts[done].n
		done++
	}
	f.parts = f.parts[:copy(f.parts, f.parts[done:])]
	if decided > 0 {
		f.parts[0].at += decided
		f.parts[0].n -= decided
	}
	return nil
}

// split keeps what is not decided.
func (f *flow) split(b []byte) ([]byte, error) {
	free := len(b)
	if f.start >= 0 {
		free = f.start
	}
	if len(f.parts) > 0 {
		free = min(free, f.parts[0].at)
	}
	if len(b)-free > maxBehind {
		return nil, errBehind
	}
	for i := range f.parts {
		f.parts[i].at -= free
	}
	if f.start >= 0 {
		f.start -= free
	}
	if free > 0 {
		f.whole = free == f.border
	}
	if f.border -= free; f.border <= 0 {
		f.border = -1
	}
	f.held = append(f.held[:0], b[free:]...)
	return b[:free], nil
}
