package audit

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A page of the index is a run of entries in the order of their terms. An entry
// says at which positions of the segment, counted from its first, a term is:
//
//	term     8 bytes, big endian: a keyed hash
//	head     uvarint: twice the number of positions, plus 1 for a bitmap
//	length   uvarint: bytes of what follows; not there for a single position
//	content  uvarints: the first position, then for each further one its
//	         distance from the one before, less 1; or of a bitmap, the first
//	         position as an uvarint and then the bits, the first one included
//
// A term with many positions has several entries, one after the other.
const (
	// maxEntry is the most positions that one entry has.
	maxEntry = 4096
	// pageFull is when a page is closed, in bytes. It is at most one entry longer.
	pageFull = 8 << 10
	// maxPage bounds a page: an entry's largest form beside what there was.
	maxPage = pageFull + 32<<10
	// maxWidth is the most positions that a segment has.
	maxWidth = 1 << 20
)

var errPage = errors.New("a page of the index is not in its form")

// appendEntry appends the entry of a term at 1 to maxEntry rising positions.
func appendEntry(b []byte, term uint64, at []uint32) []byte {
	b = binary.BigEndian.AppendUint64(b, term)
	n := len(at)
	if n == 1 {
		return binary.AppendUvarint(append(b, 2), uint64(at[0]))
	}
	deltas := uvarintLen(at[0])
	for i, p := range at[1:] {
		deltas += uvarintLen(p - at[i] - 1)
	}
	span := int(at[n-1]-at[0])/8 + 1
	if bitmap := uvarintLen(at[0]) + span; bitmap < deltas {
		b = binary.AppendUvarint(b, uint64(n)<<1|1)
		b = binary.AppendUvarint(b, uint64(bitmap))
		b = binary.AppendUvarint(b, uint64(at[0]))
		start := len(b)
		b = append(b, make([]byte, span)...)
		for _, p := range at {
			b[start+int(p-at[0])/8] |= 1 << ((p - at[0]) % 8)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(n)<<1)
	b = binary.AppendUvarint(b, uint64(deltas))
	b = binary.AppendUvarint(b, uint64(at[0]))
	for i, p := range at[1:] {
		b = binary.AppendUvarint(b, uint64(p-at[i]-1))
	}
	return b
}

func uvarintLen(v uint32) int { return (bits.Len32(v|1) + 6) / 7 }

// entry is one entry of a page as it stands there.
type entry struct {
	term   uint64
	n      int
	bitmap bool
	data   []byte
}

// nextEntry takes the first entry off a page.
func nextEntry(page []byte) (e entry, rest []byte, err error) {
	if len(page) < 8 {
		return entry{}, nil, errPage
	}
	e.term, page = binary.BigEndian.Uint64(page), page[8:]
	head, k := binary.Uvarint(page)
	if k <= 0 || head < 2 || head>>1 > maxEntry {
		return entry{}, nil, errPage
	}
	e.n, e.bitmap, page = int(head>>1), head&1 == 1, page[k:]
	var length uint64
	if e.n == 1 && !e.bitmap {
		_, k := binary.Uvarint(page)
		length = uint64(max(k, 0))
	} else {
		if length, k = binary.Uvarint(page); k <= 0 {
			return entry{}, nil, errPage
		}
		page = page[k:]
	}
	if length == 0 || length > uint64(len(page)) {
		return entry{}, nil, errPage
	}
	e.data = page[:length]
	return e, page[length:], nil
}

// positions appends the entry's positions, which must be rising and below width.
func (e *entry) positions(dst []uint32, width uint32) ([]uint32, error) {
	b := e.data
	first, k := binary.Uvarint(b)
	if k <= 0 || first >= uint64(width) {
		return dst, errPage
	}
	b = b[k:]
	before := len(dst)
	if e.bitmap {
		for i, octet := range b {
			for ; octet != 0; octet &= octet - 1 {
				p := first + uint64(i)*8 + uint64(bits.TrailingZeros8(octet))
				if p >= uint64(width) || len(dst)-before >= e.n {
					return dst, errPage
				}
				dst = append(dst, uint32(p))
			}
		}
	} else {
		p := first
		dst = append(dst, uint32(p))
		for len(b) > 0 {
			gap := uint64(b[0])
			k := 1
			if gap >= 0x80 {
				gap, k = binary.Uvarint(b)
			}
			if k <= 0 || gap >= uint64(width) || p+gap+1 >= uint64(width) || len(dst)-before >= e.n {
				return dst, errPage
			}
			p += gap + 1
			dst, b = append(dst, uint32(p)), b[k:]
		}
	}
	if len(dst)-before != e.n {
		return dst, errPage
	}
	return dst, nil
}

// addTo adds the entry's positions, which must be below width, to a set of that
// width. scratch is overwritten.
func (e *entry) addTo(set bitset, width uint32, scratch *[]uint32) error {
	if !e.bitmap {
		at, err := e.positions((*scratch)[:0], width)
		*scratch = at
		set.add(at)
		return err
	}
	first, k := binary.Uvarint(e.data)
	if k <= 0 || first >= uint64(width) {
		return errPage
	}
	n := 0
	for i, octet := range e.data[k:] {
		if octet == 0 {
			continue
		}
		p := first + uint64(i)*8
		if p+uint64(bits.Len8(octet)) > uint64(width) {
			return errPage
		}
		set[p/64] |= uint64(octet) << (p % 64)
		if above := uint64(octet) >> (64 - p%64); above != 0 {
			set[p/64+1] |= above
		}
		n += bits.OnesCount8(octet)
	}
	if n != e.n {
		return errPage
	}
	return nil
}

// find adds to set the positions of a term that a page has.
func find(set bitset, page []byte, term uint64, width uint32, scratch *[]uint32) error {
	for len(page) > 0 {
		e, rest, err := nextEntry(page)
		if err != nil {
			return err
		}
		if e.term > term {
			break
		}
		if e.term == term {
			if err := e.addTo(set, width, scratch); err != nil {
				return err
			}
		}
		page = rest
	}
	return nil
}

// What a segment's directory says of the segment.
const (
	hasUnread = 1 << iota // events of which not every term is in the index
	hasMore               // events that do not name all their subjects
	hasErased             // events without a body
	hasUnseen             // events of which a part was not looked through for subjects
)

// directory says what a segment has and where in it.
type directory struct {
	flags byte
	terms []uint64 // the first term of each page, rising or equal
}

func (d *directory) bytes() []byte {
	b := append(make([]byte, 0, 1+8*len(d.terms)), d.flags)
	for _, t := range d.terms {
		b = binary.BigEndian.AppendUint64(b, t)
	}
	return b
}

func parseDirectory(b []byte) (d directory, err error) {
	if len(b)%8 != 1 {
		return directory{}, errors.New("a directory of the index is not in its form")
	}
	d.flags, b = b[0], b[1:]
	d.terms = make([]uint64, len(b)/8)
	for i := range d.terms {
		d.terms[i] = binary.BigEndian.Uint64(b[8*i:])
		if i > 0 && d.terms[i] < d.terms[i-1] {
			return directory{}, errors.New("a directory of the index is not in order")
		}
	}
	return d, nil
}

// pages are those that may have a term: from the first to before the second. A
// term may begin at the end of the page before the first that begins with it.
func (d *directory) pages(term uint64) (from, to int) {
	for from = 0; from < len(d.terms) && d.terms[from] < term; from++ {
		continue
	}
	for to = from; to < len(d.terms) && d.terms[to] == term; to++ {
		continue
	}
	return max(from-1, 0), to
}

// bitset is a set of positions of a segment.
type bitset []uint64

func newBitset(width uint32) bitset { return make(bitset, (width+63)/64) }

func (s bitset) add(at []uint32) {
	for _, p := range at {
		s[p/64] |= 1 << (p % 64)
	}
}

func (s bitset) and(t bitset) {
	for i := range s {
		s[i] &= t[i]
	}
}

func (s bitset) or(t bitset) {
	for i := range s {
		s[i] |= t[i]
	}
}

func (s bitset) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// cut keeps the positions from from to before to.
func (s bitset) cut(from, to uint64) {
	for i := range s {
		low := uint64(i) * 64
		if from > low {
			s[i] &= ^uint64(0) << min(from-low, 64)
		}
		if to < low+64 {
			s[i] &= 1<<(max(to, low)-low) - 1
		}
	}
}

// list is the set in order, each position plus base.
func (s bitset) list(base uint64) []uint64 {
	at := make([]uint64, 0, s.count())
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			at = append(at, base+uint64(i)*64+uint64(bits.TrailingZeros64(w)))
		}
	}
	return at
}
