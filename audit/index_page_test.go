package audit

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/sqldb"
)

// What goes into pages comes out of them.
func TestEntries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		width := rapid.SampledFrom([]uint32{1, 64, 4096, maxWidth}).Draw(rt, "width")
		most := rapid.SampledFrom([]int{1, 3, 500, maxEntry}).Draw(rt, "most")
		want := map[uint64][]uint32{}
		var page []byte
		for _, term := range slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.Uint64(), 1, 5, rapid.ID).Draw(rt, "terms"))) {
			from := rapid.Uint32Range(0, width-1).Draw(rt, "from")
			step := rapid.Uint32Range(1, 40).Draw(rt, "step")
			var at []uint32
			for p := from; p < width && len(at) < most; p += 1 + (p*7)%step {
				at = append(at, p)
			}
			want[term] = at
			page = appendEntry(page, term, at)
		}
		for term, at := range want {
			got, set := newBitset(width), newBitset(width)
			set.add(at)
			if err := find(got, page, term, width, new([]uint32)); err != nil || !slices.Equal(got, set) {
				rt.Fatalf("%x at %v, %v; want %v", term, got.list(0), err, at)
			}
		}
	})
}

// Sets of positions are those of a list.
func TestBitset(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.SliceOf(rapid.Uint32Range(0, 299)).Draw(rt, "at")
		from, to := rapid.Uint64Range(0, 300).Draw(rt, "from"), rapid.Uint64Range(0, 300).Draw(rt, "to")
		s := newBitset(300)
		s.add(at)
		s.cut(from, to)
		want := []uint64{}
		for _, p := range at {
			if uint64(p) >= from && uint64(p) < to {
				want = append(want, uint64(p)+1000)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if got := s.list(1000); !slices.Equal(got, want) || s.count() != len(want) {
			rt.Fatalf("from %d to %d: %v, want %v", from, to, got, want)
		}
	})
}

// A segment with a term that fills many pages has all of it, and its
// neighbours too.
func TestTermOverManyPages(t *testing.T) {
	x := openIndexed(t, filepath.Join(t.TempDir(), "agent.db"))
	w, err := newSegment(t.Context(), x.l.db, x.l.index.keys, 1, 0, maxWidth)
	if err != nil {
		t.Fatal(err)
	}
	var sparse []uint32
	for p := uint32(0); p < maxWidth; p += 9 {
		sparse = append(sparse, p)
	}
	terms := map[uint64][]uint32{1: {5}, 7: sparse, 8: {0, 9}, 9: sparse, 1 << 60: {maxWidth - 1}}
	for _, term := range []uint64{1, 7, 8, 9, 1 << 60} {
		if err := w.add(t.Context(), term, terms[term]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.finish(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s, err := segmentAt(t.Context(), x.l.db, x.l.index.keys, 77)
	if err != nil || len(s.terms) < 10 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, term := range []uint64{0, 1, 2, 7, 8, 9, 10, 1 << 60, 1 << 61} {
		got, want := newBitset(s.width()), newBitset(s.width())
		want.add(terms[term])
		if err := s.lookup(t.Context(), x.l.db, x.l.index.keys, term, got, new([]uint32)); err != nil || !slices.Equal(got, want) {
			t.Errorf("term %d: %d positions, %v; want %d", term, got.count(), err, want.count())
		}
	}
	x.write(func(tx *sqldb.Tx) error { return dropSegments(t.Context(), tx, 0, 1) })
}

// Whatever is in a page, or in a directory: it is read or refused, and what is
// read is in order and inside the segment.
func FuzzPage(f *testing.F) {
	page := appendEntry(nil, 3, []uint32{9})
	page = appendEntry(page, 4, []uint32{1, 2, 70, 4000})
	page = appendEntry(page, 4, []uint32{4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4010, 4012})
	f.Add(page, uint64(4), uint32(4096))
	f.Add([]byte{}, uint64(0), uint32(1))
	f.Add(append(binary.BigEndian.AppendUint64(nil, 1), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1), uint64(1), uint32(1))
	f.Add(append(bytes.Repeat([]byte{0}, 8), 4, 3, 0xff, 0xff, 3), uint64(0), uint32(maxWidth))
	f.Add((&directory{flags: 3, terms: []uint64{1, 1, 9}}).bytes(), uint64(1), uint32(64))
	f.Fuzz(func(t *testing.T, b []byte, term uint64, width uint32) {
		width = width%maxWidth + 1
		_ = find(newBitset(width), b, term, width, new([]uint32))
		for rest := b; len(rest) > 0; {
			e, after, err := nextEntry(rest)
			if err != nil {
				break
			}
			at, err := e.positions(nil, width)
			if cap(at) > 4*maxEntry {
				t.Errorf("%d positions", cap(at))
			}
			if err == nil && (len(at) != e.n || !slices.IsSorted(at) || len(slices.Compact(slices.Clone(at))) != len(at) || at[len(at)-1] >= width) {
				t.Errorf("positions %v of %d", at, e.n)
			}
			got, want := newBitset(width), newBitset(width)
			gerr := e.addTo(got, width, new([]uint32))
			if want.add(at); (gerr == nil) != (err == nil) || err == nil && !slices.Equal(got, want) {
				t.Errorf("%v and %v of one entry; %v, %v", got.list(0), at, gerr, err)
			}
			rest = after
		}
		if d, err := parseDirectory(b); err == nil {
			if from, to := d.pages(term); from < 0 || to > len(d.terms) || from > to {
				t.Errorf("pages %d to %d of %d", from, to, len(d.terms))
			}
			if !bytes.Equal(d.bytes(), b) {
				t.Error("another directory")
			}
		}
	})
}

// Any text has words, and none of them is of more than so many bytes.
func FuzzWords(f *testing.F) {
	f.Add("The refund\u200b of Größe 12, \xff注文\u202e%20")
	f.Fuzz(func(t *testing.T, s string) {
		for _, w := range append(wordsOf(s), wordsOf(plainURL(s))...) {
			if len(w) < minWord || len(w) > maxWord {
				t.Errorf("%q", w)
			}
			if again := wordsOf(w); len(again) != 1 || again[0] != w && len(w) < maxWord-4 {
				t.Errorf("%q is looked for as %q", w, again)
			}
		}
	})
}
