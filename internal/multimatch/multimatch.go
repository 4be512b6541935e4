// Package multimatch finds a few thousand byte strings at once, exactly, in
// whole texts and in streams, at the speed of memory where they are not and in
// linear time whatever the text is.
//
// Two searches work together. Where no pattern has begun, a table says for
// each four bytes how far the next place is at which one could begin (Wu and
// Manber, "A fast algorithm for multi-pattern searching", 1994), so that most
// of a text is never looked at. At such a place, a bit says whether any pattern
// begins with the bytes that stand there. If so, a trie with failure links goes
// on byte by byte (Aho and Corasick, 1975) until all that had begun is over. The
// trie is left early only if at least half of what it read is
// settled, so no byte is read more than a fixed number of times: a text made
// to look like the patterns slows the search down and cannot make it
// quadratic.
//
// Patterns are often secrets. A Matcher holds them as a trie in its own memory
// and nowhere else; Wipe clears it. All their bytes are in one piece, which [NewIn]
// lets the caller choose; the rest is numbers and hashes.
//
// Trust: the text is hostile. Who chose the patterns can cost memory in
// proportion to their length, and nothing else. Nothing here is constant-time:
// how long a search takes says how much of the text looks like a pattern.
package multimatch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// MinLen and MaxLen bound a pattern, in bytes.
const (
	MinLen = 4
	MaxLen = 4096
)

const (
	block     = 4  // bytes that the table looks at
	maxWindow = 16 // bytes at the beginning of each pattern that the table knows; more would fill it without being faster
	shortHead = 8  // bytes at the beginning of a pattern that have a bit; of one with less, nothing has
	longHead  = 16 // those of a pattern that has as many
	maxNodes  = 1 << 28
	none      = -1 // no pattern
	root      = 0  // the node where nothing has begun
)

// node is a beginning that patterns have in common. Its children have
// consecutive numbers from kids on, in the order of their bytes.
type node struct {
	kids    int32
	fail    int32 // the longest end of this beginning that is a beginning itself
	pattern int32 // the longest pattern that ends here, or none
	depth   uint16
	n       uint16 // how many children
}

// Matcher looks for a set of patterns. It is safe for concurrent use, except
// for Wipe. The zero Matcher has no patterns and finds nothing.
type Matcher struct {
	nodes  []node
	in     []byte          // the byte that leads to a node from its parent
	first  [256]int32      // the root's children by byte; root if there is none
	lens   []int           // of the patterns
	window int             // bytes at the beginning of each pattern that near knows
	near   *[1 << 16]uint8 // by hash of a block: where in a window it ends last, counted in places from 1; 0 if in none
	short  bitset          // heads of the patterns that are shorter than longHead
	long   bitset          // and of the others; both nil if a window is shorter than shortHead
	min    int             // the shortest pattern
	max    int             // the longest
}

// Match is a pattern in a text: text[Start:End] is pattern number Pattern.
// Of equal patterns it is the first.
type Match struct{ Pattern, Start, End int }

// New returns a Matcher for the patterns, which are numbered from 0, and may
// be equal to one another or begin or hold one another. It keeps no reference
// to them. A pattern shorter than MinLen or longer than MaxLen is an error
// that does not tell what it is.
func New(patterns [][]byte) (*Matcher, error) {
	return NewIn(patterns, func(n int) []byte { return make([]byte, n) })
}

// NewIn is New with the bytes of the patterns in what room returns: n zeros, for
// as long as the Matcher is not wiped. It is called at most once.
func NewIn(patterns [][]byte, room func(n int) []byte) (*Matcher, error) {
	m := &Matcher{lens: make([]int, len(patterns))}
	shortest, total := MaxLen, 1
	for i, p := range patterns {
		if len(p) < MinLen || len(p) > MaxLen {
			return nil, fmt.Errorf("making a search: pattern %d has %d bytes, and must have %d to %d", i, len(p), MinLen, MaxLen)
		}
		m.lens[i] = len(p)
		m.max = max(m.max, len(p))
		shortest = min(shortest, len(p))
		total += len(p)
	}
	if total > maxNodes {
		return nil, fmt.Errorf("making a search: the patterns have %d bytes together, and may have %d", total, maxNodes)
	}
	if len(patterns) == 0 {
		return m, nil
	}
	m.min, m.window = shortest, min(shortest, maxWindow)
	m.grow(patterns, room)
	m.link()
	m.fill(patterns)
	return m, nil
}

// grow makes the trie, level by level. The room for its nodes is made at once,
// since growing would leave copies of secrets behind.
func (m *Matcher) grow(patterns [][]byte, room func(int) []byte) {
	order := make([]int, len(patterns))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if c := bytes.Compare(patterns[a], patterns[b]); c != 0 {
			return c
		}
		return a - b
	})
	nodes := 1
	for i, p := range order { // one for each byte that the pattern before does not have in common with it
		nodes += len(patterns[p])
		if i > 0 {
			nodes -= shared(patterns[order[i-1]], patterns[p])
		}
	}
	// A node is a run of the sorted patterns with the same beginning.
	type run struct{ from, to int }
	runs := append(make([]run, 0, nodes), run{0, len(order)})
	m.nodes = append(make([]node, 0, nodes), node{pattern: none})
	m.in = append(room(nodes)[:0], 0)
	for i := 0; i < len(runs); i++ {
		at, depth := runs[i], int(m.nodes[i].depth)
		if p := order[at.from]; len(patterns[p]) == depth {
			m.nodes[i].pattern = int32(p)
			for at.from < at.to && len(patterns[order[at.from]]) == depth {
				at.from++
			}
		}
		m.nodes[i].kids = int32(len(m.nodes))
		for at.from < at.to {
			c, from := patterns[order[at.from]][depth], at.from
			for at.from < at.to && patterns[order[at.from]][depth] == c {
				at.from++
			}
			runs = append(runs, run{from, at.from})
			m.nodes = append(m.nodes, node{pattern: none, depth: uint16(depth + 1)})
			m.in = append(m.in, c)
			m.nodes[i].n++
		}
	}
}

// shared is how many bytes at their beginning a and b have in common.
func shared(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// link sets the failure links, which all point to nodes of lower numbers, and
// inherits along them which patterns end.
func (m *Matcher) link() {
	for i := int32(0); i < int32(m.nodes[root].n); i++ {
		kid := m.nodes[root].kids + i
		m.first[m.in[kid]] = kid
	}
	for at := range m.nodes {
		n := m.nodes[at]
		for kid := n.kids; kid < n.kids+int32(n.n); kid++ {
			k := &m.nodes[kid]
			if at != root {
				k.fail, _ = m.step(n.fail, m.in[kid])
			}
			if k.pattern == none {
				k.pattern = m.nodes[k.fail].pattern
			}
		}
	}
}

// fill makes the table.
func (m *Matcher) fill(patterns [][]byte) {
	m.near = new([1 << 16]uint8)
	for _, p := range patterns {
		for i := 0; i <= m.window-block; i++ {
			n := &m.near[hash(p[i:])]
			*n = max(*n, uint8(i+1))
		}
	}
	if m.window < shortHead {
		return
	}
	m.short, m.long = newBitset(len(patterns)), newBitset(len(patterns))
	for _, p := range patterns {
		if len(p) < longHead {
			m.short.add(hashShort(p))
		} else {
			m.long.add(hashLong(p))
		}
	}
}

// bitset is a set of hashes: of a hash, it looks at the highest bits.
type bitset []uint64

// newBitset has sixteen bits for each of n hashes, and so few for some hundred
// that they stay in the processor's nearest cache.
func newBitset(n int) bitset {
	return make(bitset, 1<<max(bits.Len(uint(n))-2, 10))
}

func (s bitset) place(h uint64) (word, bit uint64) {
	h, _ = bits.Mul64(h, uint64(len(s))*64)
	return h / 64, 1 << (h % 64)
}

func (s bitset) add(h uint64) {
	word, bit := s.place(h)
	s[word] |= bit
}

func (s bitset) has(h uint64) bool {
	word, bit := s.place(h)
	return s[word]&bit != 0
}

const spread = 0x9E3779B97F4A7C15

func hashShort(b []byte) uint64 { return binary.LittleEndian.Uint64(b) * spread }

func hashLong(b []byte) uint64 {
	return (hashShort(b) ^ hashShort(b)>>32 ^ binary.LittleEndian.Uint64(b[8:])) * spread
}

// begins says whether a pattern could begin with b, which has a window or more.
func (m *Matcher) begins(b []byte) bool {
	return m.short == nil || len(b) < longHead || m.long.has(hashLong(b)) || m.short.has(hashShort(b))
}

// hash is of the first block of b.
func hash(b []byte) uint16 {
	return uint16(binary.LittleEndian.Uint32(b) * 0x9E3779B1 >> 16)
}

// MinLen is the length of the shortest pattern, 0 if there is none.
func (m *Matcher) MinLen() int { return m.min }

// MaxLen is the length of the longest pattern, 0 if there is none.
func (m *Matcher) MaxLen() int { return m.max }

// Wipe clears what is known of the patterns; nothing is found any more. It
// must not run at the same time as another method.
func (m *Matcher) Wipe() {
	clear(m.nodes)
	clear(m.in)
	clear(m.lens)
	clear(m.short)
	clear(m.long)
	if m.near != nil {
		clear(m.near[:])
	}
	*m = Matcher{}
}

// step is where the byte c leads from the node at, and how many nodes were
// looked at.
func (m *Matcher) step(at int32, c byte) (next int32, looked int) {
	for at != root {
		looked++
		n := &m.nodes[at]
		switch {
		case n.n == 1:
			if m.in[n.kids] == c {
				return n.kids, looked
			}
		case n.n > 1:
			if i := bytes.IndexByte(m.in[n.kids:n.kids+int32(n.n)], c); i >= 0 {
				return n.kids + int32(i), looked
			}
		}
		at = n.fail
	}
	return m.first[c], looked + 1
}

// skip returns the first place at or after i where a pattern could begin.
// Where less than a window is left, that is every place.
func (m *Matcher) skip(b []byte, i int) int {
	last := m.window - block
	most, near := last+1, m.near
	for i += last; i+block <= len(b); {
		n := int(near[hash(b[i:])])
		if n == 0 { // apart, so that the processor need not wait for the table
			i += most
			continue
		}
		if n == most && m.begins(b[i-last:]) {
			break
		}
		i += max(most-n, 1)
	}
	return i - last
}

// Scan is a search that goes through a stream piece by piece and reports every
// place where a pattern ends. The zero Scan finds nothing.
type Scan struct {
	m     *Matcher
	at    int32
	steps int // how much was looked at, for tests
}

// Scan returns a search at the beginning of a stream.
func (m *Matcher) Scan() Scan { return Scan{m: m} }

// Next goes on at b[i] and stops behind the first byte that ends a pattern:
// the match is the longest one that ends there, and the next call goes on at
// its End. If there is none, all of b was read, and the next call goes on with
// what follows in the stream. At least the last Pending bytes that were read
// must be in front of b[i]; a match may begin there.
//
// The bytes in front of b[i] are not looked at again, so a caller may
// overwrite a match as soon as it is found: the matches that overlap it are
// found all the same.
func (s *Scan) Next(b []byte, i int) (Match, bool) {
	if s.m == nil || s.m.near == nil {
		return Match{}, false
	}
	m, at, begun := s.m, s.at, i
	for i < len(b) {
		if at == root {
			i = m.skip(b, i)
			begun = i
		}
		next, looked := m.step(at, b[i])
		at, i = next, i+1
		s.steps += looked
		n := &m.nodes[at]
		if n.pattern != none {
			s.at = at
			return Match{int(n.pattern), i - m.lens[n.pattern], i}, true
		}
		// Only the last d bytes can still begin a pattern. Leave the trie and
		// look at them again once that is at most half of what was read.
		if d := int(n.depth); 2*d <= i-begun {
			at, i = root, i-d
		}
	}
	s.at = at
	return Match{}, false
}

// Pending is how many of the bytes read last could, with what follows, become
// a pattern.
func (s *Scan) Pending() int {
	if s.m == nil || s.m.near == nil {
		return 0
	}
	at := s.at
	for at != root && s.m.nodes[at].n == 0 {
		at = s.m.nodes[at].fail
	}
	return int(s.m.nodes[at].depth)
}

// Find returns the leftmost match that begins at or after from, and of those
// that begin there the longest. To know the longest it reads up to MaxLen bytes
// behind the match: to go through a text in which matches are dense, Scan is
// better.
func (m *Matcher) Find(b []byte, from int) (Match, bool) {
	s := m.Scan()
	if from < 0 || from > len(b) {
		return Match{}, false
	}
	best, ok := s.Next(b, from)
	if !ok {
		return Match{}, false
	}
	at, i := s.at, best.End
	for i < len(b) && i-int(m.nodes[at].depth) <= best.Start {
		at, _ = m.step(at, b[i])
		i++
		p := m.nodes[at].pattern
		if p == none {
			continue
		}
		if start := i - m.lens[p]; start <= best.Start {
			best = Match{int(p), start, i}
		}
	}
	return best, true
}
