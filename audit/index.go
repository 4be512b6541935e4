package audit

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"ambit/internal/sqldb"
)

const (
	// smallSegment and largeSegment are how many events segments of level 0 and
	// 1 have. What is behind the last small one is not indexed: searches read it.
	smallSegment = 4096
	largeSegment = 16 * smallSegment

	// The index is built when the log has hardly grown for quietFor: by fewer than
	// quietGrowth events. busyBacklog is how many events may wait for that. Until
	// then a search reads them, in some 10 µs each; building under load would take
	// that from requests.
	quietFor    = 50 * time.Millisecond
	quietGrowth = 16
	busyBacklog = 16 * smallSegment
	// indexRetry is when the index is tried again after it could not be written.
	indexRetry = 30 * time.Second
)

// indexer builds the index of a log from the events in its database, beside
// everything else, and never keeps an append from being done.
//
// Crash points: a segment counts once its directory is there, which is stored
// with its last pages in one transaction; in the same one those that it was
// merged of lose theirs. What has no directory is removed when the log is next
// opened.
type indexer struct {
	l            *Log
	keys         *indexKeys
	marks        map[byte]uint64 // the terms of the flags of a directory
	small, large uint64

	wake chan struct{} // holds a token when there may be something to do
	stop context.CancelFunc
	done chan struct{} // closed when the builder has ended

	built atomic.Uint64 // events up to the first one that is not indexed

	mu      sync.Mutex
	damaged []uint64 // segments that a search could not read
	err     error    // of the last attempt
}

func newIndexer(l *Log, keys *indexKeys) *indexer {
	x := &indexer{
		l: l, keys: keys, small: smallSegment, large: largeSegment, marks: map[byte]uint64{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	h := keys.hasher()
	for _, flag := range []byte{hasUnread, hasMore, hasErased, hasUnseen} {
		x.marks[flag] = h.term(termMark, strconv.Itoa(int(flag)))
	}
	return x
}

// forget removes segments over events that the log does not have. There are
// none unless rows were taken away behind its back; others would come in their
// place and not be found.
func (x *indexer) forget(ctx context.Context, size uint64) error {
	ids, err := numbers(ctx, x.l.db, "SELECT id FROM audit_index_segment WHERE last > ?", int64(size))
	if err != nil || len(ids) == 0 {
		return err
	}
	return x.l.db.Write(ctx, func(tx *sqldb.Tx) error { return dropSegments(ctx, tx, size, math.MaxInt64) })
}

// start begins to build. The indexer must then be ended.
func (x *indexer) start() {
	ctx, stop := context.WithCancel(context.Background())
	x.stop = stop
	go x.run(ctx)
}

// nudge has the indexer look for something to do.
func (x *indexer) nudge() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// grown tells it how many events are in the database.
func (x *indexer) grown(settled uint64) {
	if settled >= x.built.Load()+x.small {
		x.nudge()
	}
}

// report tells it that a segment cannot be read.
func (x *indexer) report(id uint64) {
	x.mu.Lock()
	if len(x.damaged) < 1000 {
		x.damaged = append(x.damaged, id)
	}
	x.mu.Unlock()
	x.nudge()
}

func (x *indexer) run(ctx context.Context) {
	defer close(x.done)
	err := x.sweep(ctx)
	h := x.keys.hasher()
	for ctx.Err() == nil {
		var did bool
		if err == nil {
			did, err = x.work(ctx, h, x.quiet)
		}
		if errors.Is(err, errSuperseded) || errors.Is(err, errGone) {
			did, err = true, x.sweep(ctx)
		}
		x.mu.Lock()
		x.err = err
		x.mu.Unlock()
		switch {
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(indexRetry):
				err = x.sweep(ctx)
			}
		case !did:
			h = x.keys.hasher() // an idle log keeps no words in memory
			select {
			case <-ctx.Done():
			case <-x.wake:
			}
		}
	}
}

// quiet waits until the log has hardly grown for a moment, or the index is far
// behind.
func (x *indexer) quiet(ctx context.Context) error {
	for {
		before := x.l.Size()
		if before >= x.built.Load()+busyBacklog {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietFor):
		}
		if x.l.Size() < before+quietGrowth {
			return nil
		}
	}
}

// work does the next thing that there is to do, and says whether there was one:
// it removes a damaged segment, merges small ones, or indexes what is not yet,
// the oldest first.
func (x *indexer) work(ctx context.Context, h *hasher, quiet func(context.Context) error) (did bool, err error) {
	x.l.mu.Lock()
	settled := x.l.settled
	x.l.mu.Unlock()
	segments, bad, err := x.list(ctx)
	if err != nil {
		return false, err
	}
	x.mu.Lock()
	bad, x.damaged = append(bad, x.damaged...), nil
	x.mu.Unlock()
	for _, id := range bad {
		if err := removeSegment(ctx, x.l.db, id); err != nil {
			return false, err
		}
	}
	if len(bad) > 0 {
		return true, nil
	}
	if of := x.mergeable(segments); of != nil {
		err := x.mergeAndRemove(ctx, of)
		if d := (*damageError)(nil); errors.As(err, &d) {
			err = errors.Join(removeSegment(ctx, x.l.db, d.id), x.sweep(ctx))
		}
		return true, err
	}
	first, last := x.gap(segments, settled)
	x.built.Store(first)
	if first == last {
		return false, nil
	}
	if err := quiet(ctx); err != nil {
		return false, err
	}
	return true, x.buildSegment(ctx, h, first, last)
}

func (x *indexer) mergeAndRemove(ctx context.Context, of []*segment) error {
	if err := x.merge(ctx, of); err != nil {
		return err
	}
	for _, s := range of {
		if err := removeSegment(ctx, x.l.db, s.id); err != nil {
			return err
		}
	}
	return nil
}

// list are the segments in order, and those that cannot be.
func (x *indexer) list(ctx context.Context) (segments []*segment, bad []uint64, err error) {
	rows, err := x.l.db.Query(ctx, "SELECT "+segmentColumns+" FROM audit_index_segment WHERE directory IS NOT NULL ORDER BY first, id")
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	end := uint64(0)
	for rows.Next() {
		s, err := scanSegment(x.keys, rows.Scan)
		d := (*damageError)(nil)
		switch {
		case errors.As(err, &d):
			bad = append(bad, d.id)
			continue
		case err != nil:
			return nil, nil, err
		case s.first < end: // over the same events
			bad = append(bad, s.id)
			continue
		}
		end = s.last
		if s.level > 0 {
			s.terms = nil // of no use here
		}
		segments = append(segments, s)
	}
	return segments, bad, rows.Err()
}

// gap is the first run of events that is to be indexed; both are the position
// from which on nothing is indexed if there is none.
func (x *indexer) gap(segments []*segment, settled uint64) (first, last uint64) {
	for _, s := range segments {
		if first < s.first {
			return first, min(s.first, first+x.small, (first/x.large+1)*x.large)
		}
		first = s.last
	}
	last = min(first+x.small, (first/x.large+1)*x.large)
	if last > settled {
		return first, first
	}
	return first, last
}

// mergeable are small segments that fill a large one.
func (x *indexer) mergeable(segments []*segment) []*segment {
	start := 0
	for i, s := range segments {
		if s.level != 0 || i > start && segments[i-1].last != s.first {
			start = i
		}
		if s.level != 0 {
			start = i + 1
			continue
		}
		if s.first%x.large == 0 {
			start = i
		}
		if s.last%x.large == 0 && segments[start].first == s.last-x.large {
			return segments[start : i+1]
		}
	}
	return nil
}

// sweep removes what was being written or removed when the builder last ended.
func (x *indexer) sweep(ctx context.Context) error {
	ids, err := numbers(ctx, x.l.db, "SELECT id FROM audit_index_segment WHERE directory IS NULL")
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := removeSegment(ctx, x.l.db, uint64(id)); err != nil {
			return err
		}
	}
	return nil
}

// end stops the builder; done is closed when it has.
func (x *indexer) end() { x.stop() }

// IndexStatus says how far the search index is.
type IndexStatus struct {
	Events uint64 `json:"events"` // that can be searched
	Built  uint64 `json:"built"`  // of which the first so many are indexed; a search reads the rest
	// Error is why building stopped for now; "" if it did not.
	Error string `json:"error,omitempty"`
}

// Index says how far the search index is. It is built in the background, in
// steps of 4096 events.
func (l *Log) Index() IndexStatus {
	l.mu.Lock()
	s := IndexStatus{Events: l.settled}
	l.mu.Unlock()
	s.Built = min(l.index.built.Load(), s.Events)
	l.index.mu.Lock()
	defer l.index.mu.Unlock()
	if err := l.index.err; err != nil && !errors.Is(err, context.Canceled) {
		s.Error = err.Error()
	}
	return s
}
