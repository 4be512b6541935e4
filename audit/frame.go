package audit

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"ambit"
)

// A frame is one batch in the journal: written with one write, and durable as
// a whole or not acknowledged at all. That is why the checksum is the frame's
// and not each record's: a power cut may leave any of a frame's sectors out,
// and must not look like damage. The numbers are little endian.
//
//	4  magic "ajf1"
//	4  CRC-32C of all that follows
//	4  length of the frame in bytes, with these fields
//	4  number of records, at least 1
//	8  position of the first; the others follow without gaps
//	   records
//
// A record is one row of audit_event, whose position follows from its place:
//
//	8  time, microseconds
//	1  decision
//	1  1 if it belongs to another event, otherwise 0
//	8  the position of that event, or 0
//	1  length of the kind
//	   kind
//	32 commitment
//	4  length of the sealed body
//	   sealed body
//
// Frames are written at multiples of durable.BlockSize (by earlier releases at
// multiples of 8), and the space between is not looked at.
const (
	frameMagic  = "ajf1"
	frameHeader = 24
	recordFixed = 8 + 1 + 1 + 8 + 1 + 32 + 4
	frameAlign  = 8
)

// frame is a batch of consecutive rows. The rows point into buf.
type frame struct {
	buf   []byte
	rows  []row
	tiles []tile // that the rows made full; they are stored with them
}

func (f *frame) first() uint64 { return f.rows[0].seq }
func (f *frame) next() uint64  { return f.rows[len(f.rows)-1].seq + 1 }

// reset empties f and keeps its memory.
func (f *frame) reset() {
	clear(f.rows) // so that their old arrays can go
	f.buf = append(f.buf[:0], make([]byte, frameHeader)...)
	f.rows, f.tiles = f.rows[:0], nil
}

// add appends a record. seal appends the sealed body to what it is given and
// returns the commitment too.
func (f *frame) add(r row, seal func(dst []byte) ([]byte, [commitmentSize]byte)) {
	b := binary.LittleEndian.AppendUint64(f.buf, uint64(r.micros))
	var has byte
	if r.of.Valid {
		has = 1
	}
	b = append(b, byte(r.decision), has)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.of.Int64))
	b = append(append(b, byte(len(r.kind))), r.kind...)
	at := len(b)
	b = append(b, make([]byte, commitmentSize+4)...)
	body := len(b)
	b, r.commitment = seal(b)
	copy(b[at:], r.commitment[:])
	binary.LittleEndian.PutUint32(b[at+commitmentSize:], uint32(len(b)-body))
	r.sealed = b[body:len(b):len(b)]
	f.buf, f.rows = b, append(f.rows, r)
}

// finish fills in the header. There must be a record.
func (f *frame) finish() []byte {
	copy(f.buf, frameMagic)
	binary.LittleEndian.PutUint32(f.buf[8:], uint32(len(f.buf)))
	binary.LittleEndian.PutUint32(f.buf[12:], uint32(len(f.rows)))
	binary.LittleEndian.PutUint64(f.buf[16:], f.first())
	binary.LittleEndian.PutUint32(f.buf[4:], checksum(f.buf[8:]))
	return f.buf
}

// checksum is CRC-32C; the standard library makes its table once.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// parseFrame reads the frame at the beginning of b; false if there is no whole
// one. Whatever it accepts, frame.add and finish would write again.
func parseFrame(b []byte) (*frame, bool) {
	if len(b) < frameHeader || string(b[:4]) != frameMagic {
		return nil, false
	}
	length, count, first := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint64(b[16:])
	if length < frameHeader || uint64(length) > uint64(len(b)) || count == 0 || count > (length-frameHeader)/recordFixed || first > 1<<62 {
		return nil, false
	}
	b = b[:length:length]
	if checksum(b[8:]) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, false
	}
	f := &frame{buf: b, rows: make([]row, 0, count)}
	rest := b[frameHeader:]
	for i := range uint64(count) {
		var r row
		var ok bool
		if r, rest, ok = parseRecord(rest); !ok {
			return nil, false
		}
		r.seq = first + i
		f.rows = append(f.rows, r)
	}
	return f, len(rest) == 0
}

func parseRecord(b []byte) (r row, rest []byte, ok bool) {
	if len(b) < recordFixed {
		return r, nil, false
	}
	r.micros, r.decision = int64(binary.LittleEndian.Uint64(b)), int64(b[8])
	r.of.Valid, r.of.Int64 = b[9] == 1, int64(binary.LittleEndian.Uint64(b[10:]))
	kind := int(b[18])
	if b[9] > 1 || !r.of.Valid && r.of.Int64 != 0 || len(b) < recordFixed+kind {
		return r, nil, false
	}
	r.kind, b = ambit.Kind(b[19:19+kind]), b[19+kind:]
	r.commitment, b = [commitmentSize]byte(b[:commitmentSize]), b[commitmentSize:]
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) || n < sealedMin {
		return r, nil, false
	}
	r.sealed = b[:n:n]
	return r, b[n:], validKind(r.kind)
}

// frames returns the whole frames of a journal's bytes in the order of their
// places. What is between them is passed over.
func frames(b []byte) (found []*frame) {
	for len(b) >= frameHeader {
		var n int
		if f, ok := parseFrame(b); ok {
			found = append(found, f)
			n = aligned(len(f.buf))
		} else if i := bytes.Index(b[1:], []byte(frameMagic)); i >= 0 {
			n = max(frameAlign, (i+1)/frameAlign*frameAlign)
		} else {
			return found
		}
		b = b[min(n, len(b)):]
	}
	return found
}

// aligned is where, at the earliest, another frame can begin behind one of n
// bytes.
func aligned(n int) int { return (n + frameAlign - 1) &^ (frameAlign - 1) }
