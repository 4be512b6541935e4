package scrub

import (
	"errors"
	"io"
	"sync/atomic"
)

// Stream scrubs one body. Its counter is safe for concurrent use.
type Stream struct {
	s     *Scrubber
	found atomic.Int64
}

// Stream returns the scrubbing of one body.
func (s *Scrubber) Stream() *Stream { return &Stream{s: s} }

// Found is how many forms were replaced so far; one that overlaps or touches
// the one before is not counted again.
func (t *Stream) Found() int { return int(t.found.Load()) }

// Reader returns what r has, scrubbed. What is read from r goes on with the
// same call, except for the last bytes if they could be the beginning of a
// form: at most 511 bytes, and never one that could not. They go on as soon as
// what follows decides it, and at the end of r. After any other error they
// do not: what was cut off in the middle of a secret stays behind.
//
// The Reader starts no goroutine, has no buffer but for the bytes it holds
// back, as long as it is read with 1 KiB at a time or more, and is not safe for
// concurrent use. The caller's buffer is used as scratch space, as io.Reader
// allows, and what is held back is cleared from it.
func (t *Stream) Reader(r io.Reader) io.Reader {
	rd := &reader{stream: t, src: r}
	rd.mask.end = -1
	if t.s.m != nil {
		rd.mask.scan = t.s.m.Scan()
	}
	return rd
}

const (
	minRead  = 64  // the least that the source is asked for at once
	maxEmpty = 100 // how often the source may say nothing, before that is an error
)

type reader struct {
	stream *Stream
	src    io.Reader
	mask   mask
	err    error // of the source; comes after everything before it was handed on

	own   []byte // to read into, where the caller's buffer is too small
	ready []byte // of own: what may go on

	held  []byte // what could be the beginning of a form; most answers need no room for it
	nHeld int
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for empty := 0; empty < maxEmpty; {
		if len(r.ready) > 0 {
			n := copy(p, r.ready)
			r.ready = r.ready[n:]
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		small := len(p) < r.nHeld+minRead
		into := p
		if small {
			if r.own == nil {
				r.own = make([]byte, maxForm+512)
			}
			into = r.own
		}
		read, free := r.fill(into)
		switch {
		case small:
			r.ready = into[:free]
		case free > 0:
			return free, nil
		}
		if read == 0 && r.err == nil {
			empty++
		}
	}
	return 0, io.ErrNoProgress
}

// fill reads into b once, behind what is held back, and returns how many bytes
// were read and how many at the beginning of b may go on.
func (r *reader) fill(b []byte) (read, free int) {
	if r.stream.s.m == nil {
		r.err = ErrWiped
		return 0, 0
	}
	n, err := r.src.Read(b[r.nHeld:])
	if n < 0 || n > len(b)-r.nHeld {
		n, err = 0, errors.New("scrubbing a stream: its source says that it read more than there was room for")
	}
	copy(b, r.held[:r.nHeld])
	b = b[:r.nHeld+n]
	r.stream.found.Add(int64(r.mask.next(b, r.nHeld)))
	r.err = err

	pending := r.mask.scan.Pending()
	if err == io.EOF { //nolint:errorlint // a wrapped one is no good end; nothing can become a form any more
		pending = 0
	}
	free = len(b) - pending
	r.mask.end -= free
	if pending > 0 && r.held == nil {
		r.held = make([]byte, maxForm)
	}
	r.nHeld = copy(r.held, b[free:])
	clear(b[free:])
	if err != nil {
		r.nHeld = 0
	}
	clear(r.held[r.nHeld:])
	return n, free
}
