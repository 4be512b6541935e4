package audit

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
)

// maxChain is how many events one is looked at with: itself, the event that it
// belongs to, the one that this belongs to, and so on.
const maxChain = 4

const (
	// maxPostings bounds what a segment is built from in memory; one whose
	// events have more terms covers fewer of them.
	maxPostings = 400_000
	// yieldRows is how many events are indexed before others may run: about
	// half a millisecond.
	yieldRows = 16
	// maxParents is how many events before the segment are remembered.
	maxParents = 512
)

// postings collects what one segment has: pairs of a term and a position.
type postings struct {
	ids   map[uint64]uint32 // of each term, in the order in which they came
	terms []uint64          // by id
	count []uint32          // by id
	last  []uint32          // by id: the last position, plus 1
	pairs []uint64          // id and position
}

func newPostings() *postings { return &postings{ids: make(map[uint64]uint32, 1<<14)} }

// add notes that a term is at a position; positions come in order.
func (p *postings) add(term uint64, at uint32) {
	id, ok := p.ids[term]
	if !ok {
		id = uint32(len(p.terms))
		p.ids[term] = id
		p.terms, p.count, p.last = append(p.terms, term), append(p.count, 0), append(p.last, 0)
	}
	if p.last[id] == at+1 {
		return
	}
	p.last[id] = at + 1
	p.count[id]++
	p.pairs = append(p.pairs, uint64(id)<<32|uint64(at))
}

// each calls f with each term, in order, and its positions.
func (p *postings) each(f func(term uint64, at []uint32) error) error {
	start := make([]uint32, len(p.terms)+1)
	for i, n := range p.count {
		start[i+1] = start[i] + n
	}
	flat := make([]uint32, len(p.pairs))
	next := slices.Clone(start)
	for _, pair := range p.pairs {
		id := pair >> 32
		flat[next[id]] = uint32(pair)
		next[id]++
	}
	order := make([]uint32, len(p.terms))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(p.terms[a], p.terms[b]) })
	for _, id := range order {
		if err := f(p.terms[id], flat[start[id]:start[id+1]]); err != nil {
			return err
		}
	}
	return nil
}

// indexed is what the index has of one event, without those that it belongs to.
type indexed struct {
	terms []uint64
	whole bool // these are all of its terms
	of    *uint64
}

// builder makes one segment of level 0. It knows no event from before the
// segment was begun: it may have been erased.
type builder struct {
	x       *indexer
	h       *hasher
	first   uint64
	post    *postings
	flags   byte
	events  []indexed // of the segment, by position
	arena   []uint64  // of their terms
	parents map[uint64]indexed
}

// own are the terms of a row by itself.
func (b *builder) own(r *row) (d indexed, flags byte) {
	d.of = r.parent()
	if r.sealed == nil {
		d.terms, d.whole = b.h.columns(b.arena[len(b.arena):], r), true
		return d, hasErased
	}
	e, err := r.event(b.x.l.keys)
	if err != nil {
		d.terms = b.h.columns(b.arena[len(b.arena):], r)
		return d, 0
	}
	d.terms, d.whole = b.h.event(b.arena[len(b.arena):], &e)
	if e.More > 0 {
		flags = hasMore
	}
	if e.Unseen {
		flags |= hasUnseen
	}
	return d, flags
}

// add indexes the next event.
func (b *builder) add(ctx context.Context, r *row) error {
	at := uint32(r.seq - b.first)
	d, flags := b.own(r)
	b.arena = slices.Grow(b.arena, len(d.terms))
	b.arena = append(b.arena, d.terms...)
	d.terms = b.arena[len(b.arena)-len(d.terms):]
	b.missing(at)
	b.events = append(b.events, d)
	for _, t := range d.terms {
		b.post.add(t, at)
	}
	for _, f := range []byte{hasErased, hasMore, hasUnseen} {
		if flags&f != 0 {
			b.mark(f, at)
		}
	}
	whole, of := d.whole, d.of
	for range maxChain - 1 {
		if of == nil {
			break
		}
		parent, err := b.parent(ctx, *of)
		if err != nil {
			return err
		}
		for _, t := range parent.terms {
			b.post.add(t, at)
		}
		whole = whole && parent.whole
		of = parent.of
	}
	if !whole {
		b.mark(hasUnread, at)
	}
	return nil
}

// missing has searches look for the rows that are not there before a position:
// somebody may put them back.
func (b *builder) missing(at uint32) {
	for p := uint32(len(b.events)); p < at; p++ {
		b.events = append(b.events, indexed{})
		b.mark(hasUnread, p)
	}
}

func (b *builder) mark(flag byte, at uint32) {
	b.flags |= flag
	b.post.add(b.x.marks[flag], at)
}

// parent is an event that one of the segment belongs to.
func (b *builder) parent(ctx context.Context, seq uint64) (indexed, error) {
	if seq >= b.first {
		if i := seq - b.first; i < uint64(len(b.events)) {
			return b.events[i], nil
		}
		return indexed{}, nil
	}
	if d, ok := b.parents[seq]; ok {
		return d, nil
	}
	d := indexed{}
	rows, _, err := collectRows(ctx, b.x.l.db, rowsAt, false, 1, jsonNumbers([]uint64{seq}))
	if err != nil {
		return d, err
	}
	if len(rows) == 1 {
		d, _ = b.own(&rows[0])
		d.terms = slices.Clone(d.terms)
	}
	if len(b.parents) >= maxParents {
		clear(b.parents)
	}
	b.parents[seq] = d
	return d, nil
}

// buildSegment indexes the events from first to before last, or fewer.
func (x *indexer) buildSegment(ctx context.Context, h *hasher, first, last uint64) error {
	w, err := newSegment(ctx, x.l.db, x.keys, 0, first, last)
	if err != nil {
		return err
	}
	b := &builder{x: x, h: h, first: first, post: newPostings(), parents: map[uint64]indexed{}}
	err = eachRow(ctx, x.l.db, first, true, func(r *row) error {
		if r.seq >= last {
			return errEnough
		}
		if len(b.post.pairs) >= maxPostings {
			w.seg.last = r.seq
			return errEnough
		}
		if r.seq%yieldRows == 0 {
			runtime.Gosched()
		}
		return b.add(ctx, r)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	b.missing(uint32(w.seg.last - first))
	w.seg.flags = b.flags
	b.arena, b.events, b.parents = nil, nil, nil
	err = b.post.each(func(term uint64, at []uint32) error { return w.add(ctx, term, at) })
	if err != nil {
		return err
	}
	return w.finish(ctx, nil)
}

// cursor walks over the entries of a segment.
type cursor struct {
	x     *indexer
	seg   *segment
	next  int      // page to load
	pages [][]byte // loaded
	rest  []byte   // of the page before them
	entry entry
	end   bool
}

const pagesPerRead = 4

func (c *cursor) advance(ctx context.Context) (err error) {
	for len(c.rest) == 0 {
		if len(c.pages) == 0 {
			from, to := c.next, min(c.next+pagesPerRead, len(c.seg.terms))
			if from == to {
				c.end = true
				return nil
			}
			err := c.seg.pages(ctx, c.x.l.db, c.x.keys, from, to, func(page []byte) error {
				c.pages = append(c.pages, page)
				return nil
			})
			if err != nil {
				return err
			}
			c.next = to
		}
		c.rest, c.pages = c.pages[0], c.pages[1:]
	}
	if c.entry, c.rest, err = nextEntry(c.rest); err != nil {
		return &damageError{c.seg.id, err}
	}
	return nil
}

// merge makes one segment of level 1 of several that follow each other.
func (x *indexer) merge(ctx context.Context, of []*segment) error {
	first, last := of[0].first, of[len(of)-1].last
	w, err := newSegment(ctx, x.l.db, x.keys, 1, first, last)
	if err != nil {
		return err
	}
	cursors := make([]*cursor, len(of))
	for i, s := range of {
		w.seg.flags |= s.flags
		cursors[i] = &cursor{x: x, seg: s}
		if err := cursors[i].advance(ctx); err != nil {
			return err
		}
	}
	var at []uint32
	for n := 0; ; n++ {
		term, found := uint64(0), false
		for _, c := range cursors {
			if !c.end && (!found || c.entry.term < term) {
				term, found = c.entry.term, true
			}
		}
		if !found {
			break
		}
		at = at[:0]
		for _, c := range cursors {
			base := uint32(c.seg.first - first)
			for !c.end && c.entry.term == term {
				start := len(at)
				if at, err = c.entry.positions(at, c.seg.width()); err != nil {
					return &damageError{c.seg.id, err}
				}
				for i := start; i < len(at); i++ {
					at[i] += base
				}
				if err := c.advance(ctx); err != nil {
					return err
				}
			}
		}
		if err := w.add(ctx, term, at); err != nil {
			return err
		}
		if n%256 == 0 {
			runtime.Gosched()
		}
	}
	return w.finish(ctx, of)
}
