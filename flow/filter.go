package flow

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// filter tells most words and numbers that are not there, from less memory than
// an index of them needs: a Bloom filter whose two bits of a word are in one place.
type filter []uint64

// newFilter has room for n words.
func newFilter(n int) filter { return make(filter, 1<<bits.Len(uint(n/12))) }

// hashes are those of the words and numbers of a source.
func (s *source) hashes(seed maphash.Seed) []uint64 {
	all := slices.Clone(s.words)
	for n := range s.numbers {
		all = append(all, hashOf(seed, n))
	}
	for _, list := range s.amounts {
		for _, n := range list {
			all = append(all, hashOf(seed, n))
		}
	}
	return all
}

func (f filter) add(hash uint64) {
	at, set := f.bits(hash)
	f[at] |= set
}

// bits are the two bits of a word with a hash, and where they are.
func (f filter) bits(hash uint64) (at, set uint64) {
	return hash >> 32 & uint64(len(f)-1), 1<<(hash>>58) | 1<<(hash>>52&63)
}

// mayHave is false if no word and no number has the hash.
func (f filter) mayHave(hash uint64) bool {
	at, set := f.bits(hash)
	return f[at]&set == set
}

// mayHaveAny is false if a value is not there in any form.
func (f filter) mayHaveAny(q *query) bool {
	for _, form := range q.forms {
		if form.start >= 0 && f.mayHave(form.hash) {
			return true
		}
	}
	return q.numeric != "" && f.mayHave(q.number)
}

// shelf is some sources that came one after the other, with one filter of all, so
// that a value is not looked for in each of thousands of small ones. What is
// forgotten stays in the filter.
type shelf struct {
	sources []*source
	room    int // for so many more words
	filter  filter
}

// shelfRoom is how many words small sources may have together.
const shelfRoom = 12 << 10

// shelve puts a source behind the others. The caller holds mu.
func (t *Task) shelve(s *source) {
	hashes := s.hashes(t.seed)
	var last *shelf
	if n := len(t.shelves); n > 0 && t.shelves[n-1].room >= len(hashes) {
		last = t.shelves[n-1]
	} else {
		size := max(shelfRoom, len(hashes))
		last = &shelf{room: size, filter: newFilter(size)}
		t.shelves = append(t.shelves, last)
	}
	for _, h := range hashes {
		last.filter.add(h)
	}
	last.room -= len(hashes)
	last.sources = append(last.sources, s)
	s.on = last
}

// unshelve takes a source away. The caller holds mu.
func (t *Task) unshelve(s *source) {
	s.on.sources = slices.DeleteFunc(s.on.sources, func(other *source) bool { return other == s })
	if len(s.on.sources) == 0 {
		t.shelves = slices.DeleteFunc(t.shelves, func(other *shelf) bool { return other == s.on })
	}
}
