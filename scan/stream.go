package scan

import "bytes"

const (
	// MaxSubjects is how many distinct subjects a Stream keeps. Of more it only
	// knows about how many there were, see [Stream.More].
	MaxSubjects = 256

	size = 16 << 10 // of the buffer

	// What a search looks at in front of where it is, and behind; and a letter
	// more at each end.
	before = max(maxLocal+maxUserinfo, maxText, back) + 8
	behind = max(maxDomain, reach, maxText+gap+maxValue) + 8

	back = 48 // how far in front of a few digits their number can begin
	few  = 8  // digits that no number has less of

	maxConversions = 1024 // domains that a Stream converts; a thousand distinct ones are no customer's
)

// Stream finds the subjects in one text that comes in pieces: a body, a header,
// an address. It is for one goroutine at a time and takes some 16 KiB at most,
// and what the subjects take. Make one with [Matcher.Stream].
type Stream struct {
	m      *Matcher
	escape unescaper
	closed bool

	// buf is a part of the text with escapes undone, a line break in front of the
	// first. Searches have been at buf[:next]; each of them may be some bytes
	// ahead, where it jumped over what cannot be anything.
	buf     []byte
	next    int
	pair    int // where a pair of bytes is looked at next
	number  int // where a number is looked for next
	started int // where the last one began that was tried

	hits    []hit  // of the present searches
	numbers []hit  // those of them that are numbers, until they are added to hits
	lanes   []span // of hits: of each search
	chars   []byte // their values
	found
}

// hit is a subject that a search found. Its value is chars[from:to].
type hit struct {
	at            int
	kind          Kind
	from, to      int
	international bool
}

type span struct{ from, to int }

// Stream returns a Stream for one text.
func (m *Matcher) Stream() *Stream {
	s := &Stream{m: m, next: 1, pair: 1}
	s.buf = append(make([]byte, 0, 512), '\n')
	return s
}

// Write looks at more of the text. It keeps no reference to p, and never fails:
// it returns len(p) and nil, so that a Stream is an io.Writer. After Close it
// does nothing.
func (s *Stream) Write(p []byte) (int, error) {
	if !s.closed {
		s.escape.write(p, s)
	}
	return len(p), nil
}

// Close says that the text is over. Only then is everything in it found; what
// is called before knows at least what is more than 17 KiB back.
func (s *Stream) Close() {
	if s.closed {
		return
	}
	s.escape.end(s)
	s.closed = true
	s.buf = append(s.buf, '\n')
	s.search(len(s.buf) - 1)
	s.buf, s.hits, s.numbers, s.chars = nil, nil, nil, nil
}

// put adds decoded text.
func (s *Stream) put(p []byte) {
	for len(p) > 0 {
		n := min(len(p), size-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		if p = p[n:]; len(s.buf) == size {
			s.advance()
		}
	}
}

func (s *Stream) putByte(c byte) {
	if s.buf = append(s.buf, c); len(s.buf) == size {
		s.advance()
	}
}

// advance searches what has enough behind it, and keeps the rest and what
// searches look back at.
func (s *Stream) advance() {
	limit := len(s.buf) - behind
	s.search(limit)
	gone := limit - before
	s.buf = s.buf[:copy(s.buf, s.buf[gone:])]
	s.next, s.pair, s.number, s.started = limit-gone, s.pair-gone, s.number-gone, s.started-gone
}

// search finds what there is in buf from where it was to limit, and keeps it in
// the order of the text.
func (s *Stream) search(limit int) {
	s.hits, s.numbers, s.chars, s.lanes = s.hits[:0], s.numbers[:0], s.chars[:0], s.lanes[:0]
	s.emails(limit)
	s.lane()
	s.pairs(limit)
	s.lane()
	s.hits = append(s.hits, s.numbers...)
	s.lane()
	for i := range s.m.anchors {
		s.anchored(&s.m.anchors[i], limit)
		s.lane()
	}
	for range s.hits {
		var first *span
		for i := range s.lanes {
			if l := &s.lanes[i]; l.from < l.to && (first == nil || s.hits[l.from].at < s.hits[first.from].at) {
				first = l
			}
		}
		h := s.hits[first.from]
		first.from++
		s.add(h.kind, s.chars[h.from:h.to], h.international)
	}
}

// lane says that a search is over: the hits since the last one are its own, and
// in order.
func (s *Stream) lane() {
	from := 0
	if n := len(s.lanes); n > 0 {
		from = s.lanes[n-1].to
	}
	s.lanes = append(s.lanes, span{from, len(s.hits)})
}

func (s *Stream) hit(list []hit, at int, kind Kind, value []byte) []hit {
	from := len(s.chars)
	s.chars = append(s.chars, value...)
	return append(list, hit{at: at, kind: kind, from: from, to: len(s.chars)})
}

// emails finds addresses by their @.
func (s *Stream) emails(limit int) {
	b := s.buf[:limit]
	plain, marked := index(b, s.next, '@'), index(b, s.next, markAt)
	for {
		i := min(plain, marked)
		if i == limit {
			return
		}
		if a, ok := findEmail(s.buf, i); ok {
			from := len(s.chars)
			s.chars = appendEmail(s.chars, s.buf, a)
			s.hits = append(s.hits, hit{at: i, kind: Email, from: from, to: len(s.chars), international: a.international})
		}
		if i == plain {
			plain = index(b, i+1, '@')
		} else {
			marked = index(b, i+1, markAt)
		}
	}
}

// index returns where c is in b[from:], len(b) if nowhere.
func index(b []byte, from int, c byte) int {
	if i := bytes.IndexByte(b[from:], c); i >= 0 {
		return from + i
	}
	return len(b)
}

// pairs finds leads and numbers by two bytes of every few. In a number no five
// bytes are without two neighbours of which one is a digit and the other a digit
// or a separator.
func (s *Stream) pairs(limit int) {
	i, pairs, stride := s.pair, &s.m.pairs, s.m.stride
	b := s.buf[:min(limit+1, len(s.buf))]
	for i+1 < len(b) {
		p := uint16(b[i]) | uint16(b[i+1])<<8
		if pairs[p>>6]&(1<<(p&63)) != 0 {
			s.look(p, i, limit)
		}
		i += stride
	}
	s.pair = i
}

// look looks at what the pair at buf[i] can be a part of.
func (s *Stream) look(p uint16, i, limit int) {
	b := s.buf
	if k := s.m.first[p]; k != 0 {
		if g := &s.m.groups[k]; g.before.has(at(b, i-1)) && g.behind.has(at(b, i+2)) {
			s.group(g, i)
		}
	}
	if i < s.number || !numeric(p) || i >= 3 && pair[b[i-3]]|pair[at(b, i+4)] == 0 { // of less than few
		return
	}
	s.number = s.cluster(i, limit)
}

// numeric says whether the pair of bytes is in numbers.
func numeric(p uint16) bool { return pair[p&0xff]&(pair[p>>8]>>2)&0b11 != 0 }

// pair is, for a digit or a separator, with what it makes a pair: the lower two
// bits as its first byte, the next two as its second. The others say what it can
// begin.
var pair = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c == '0':
			t[c] = 0b11_11 | isZero
		case class[c]&isDigit != 0:
			t[c] = 0b11_11
		case c == '+' || c == markPlus || c == '(':
			t[c] = 0b10_01 | isSign
		case class[c]&isSpacing != 0:
			t[c] = 0b10_01
		}
	}
	return t
}()

const (
	isZero = 1 << 4 // two of them begin a phone number
	isSign = 1 << 5 // one does
)

// cluster looks at the digits and separators around b[i], which is one of them,
// and returns where to go on.
func (s *Stream) cluster(i, limit int) int {
	b := s.buf
	least := max(i-back, s.started+1, 1)
	start := i
	for start > least && pair[b[start-1]] != 0 {
		start--
	}
	var signs, zeros, last uint8
	end := start
	for end < limit {
		k := pair[b[end]]
		if k == 0 {
			break
		}
		signs |= k
		zeros |= k & last
		last = k
		end++
	}
	next := max(end, i+1)
	bank := class[b[start-1]]&isAlnum != 0 // an IBAN's
	digits := end - start                  // at most
	if end == limit {                      // and it goes on
		digits, signs = maxDigits, isSign
	}
	if digits < few || digits < minCard && signs&isSign == 0 && zeros&isZero == 0 && !bank {
		return next
	}
	for bank && start > least && (class[b[start-1]]&isAlnum != 0 || b[start-1] == ' ' || b[start-1] == '+' || b[start-1] == '-') {
		start--
	}
	for at := max(start, s.started+1); at < end; at++ {
		if class[b[at-1]]&isAlnum == 0 && promising(b, at, digits) {
			if kind, n, ok := findNumber(b, at); ok {
				s.numbers = s.hit(s.numbers, at, kind, n.text())
				at = n.end - 1
			}
			s.started = at
		}
	}
	s.started = max(s.started, end-1)
	return next
}

// promising says whether a number can begin at b[start] that has so many digits
// at most.
func promising(b []byte, start, digits int) bool {
	c, c1, c2, c3 := b[start], class[at(b, start+1)], class[at(b, start+2)], class[at(b, start+3)]
	switch k := class[c]; {
	case k&isDigit != 0:
		return c == '0' && at(b, start+1) == '0' || digits >= minCard && c != '0' && c1&c2&c3&isDigit != 0
	case k&isLetter != 0:
		return c1&isLetter != 0 && c2&c3&isDigit != 0
	case c == '+' || c == markPlus || c == '(':
		return c1&isDigit != 0 || at(b, start+1) == '('
	}
	return false
}

// findNumber finds a number of any kind that begins at b[start], where no word
// goes on.
func findNumber(b []byte, start int) (kind Kind, n number, ok bool) {
	switch c := b[start]; {
	case class[c]&isLetter != 0:
		n, ok = findIBAN(b, start)
		return IBAN, n, ok
	case c == '0' || c == '+' || c == markPlus:
		n, ok = findPhone(b, start)
		return Phone, n, ok
	case c == '(':
		n, ok = findNational(b, start)
		return Phone, n, ok
	case class[c]&isDigit != 0:
		n, ok = findCard(b, start)
		return Card, n, ok
	}
	return "", n, false
}

// group looks at the leads that have the pair at buf[i].
func (s *Stream) group(g *group, i int) {
	for _, e := range g.entries {
		l, start := &s.m.leads[e.lead], i-int(e.offset)
		if l.stands(s.buf, start) {
			s.follow(l, start, i)
		}
	}
}

// anchored finds the leads that end with a byte.
func (s *Stream) anchored(a *anchor, limit int) {
	b := s.buf[:limit]
	for i := index(b, s.next, a.char); i < limit; i = index(b, i+1, a.char) {
		if !a.before.has(at(b, i-1)) {
			continue
		}
		for _, k := range a.leads {
			l := &s.m.leads[k]
			if start := i + 1 - len(l.text); l.stands(s.buf, start) {
				s.follow(l, start, i)
			}
		}
	}
}

// follow looks at where the lead that stands at buf[start] leads to.
func (s *Stream) follow(l *lead, start, i int) {
	if l.how == byPhone {
		if from, ok := fieldValue(s.buf, start+len(l.text)); ok {
			if n, ok := fieldPhone(s.buf, from); ok {
				s.hits = s.hit(s.hits, i, Phone, n.text())
			}
		}
		return
	}
	if from, to, ok := l.value(s.buf, start); ok {
		first := len(s.chars)
		s.chars = append(s.chars, s.buf[from:to]...)
		s.chars = s.chars[:first+len(normal(s.chars[first:]))]
		s.hits = append(s.hits, hit{at: i, kind: l.kind, from: first, to: len(s.chars)})
	}
}
