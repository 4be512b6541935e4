package audit

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"ambit"
)

const (
	queueLength = 1024
	maxBatch    = 512
	// flushAfter is how long a recorded event may wait for an append to share
	// a commit with.
	flushAfter = 250 * time.Millisecond
	// gatherFrom and gatherFor bound how long a write waits for company when the
	// last one had some: no longer than the last one took, for that is what it
	// saves. Somebody who appends alone never waits.
	gatherFrom = 50 * time.Microsecond
	gatherFor  = time.Millisecond
	// retryAfter is how often recorded events are tried again while the
	// log cannot be written.
	retryAfter = time.Second
)

// item is one thing for the writer to do.
type item struct {
	event  ambit.Event
	micros int64
	head   bool        // answer with a head; there is no event
	settle bool        // answer when all before is in the database; there is no event
	scrub  bool        // settle everything and overwrite the journal's old frames; there is no event
	done   chan result // nil: nobody waits
	seq    uint64      // set by the writer; of a settle item, the size it waits for
}

// hasEvent says whether the item is an event and no question.
func (it *item) hasEvent() bool { return !it.head && !it.settle && !it.scrub }

type result struct {
	seq  uint64
	head Head
	err  error
}

// writer is what the writer goroutine owns.
type writer struct {
	state   *state // of all durable events
	journal *journal
	batch   []*item       // events that a failed write left first, in order
	failing bool          // the last write failed
	company int           // how many waited for the last write together
	took    time.Duration // of the last write

	settled     uint64      // events in the database
	pending     []*frame    // durable in the journal only, but for those of current
	pendingRows int         // in pending
	current     *settlement // on its way into the database; nil if none is
	settling    chan error  // tells how current ended; nil if there is none
	settleErr   error       // of the last settlement; nil if it went well
	readers     []*item     // wait for events to be settled

	timer             *time.Timer // of flush, retry and settling; see gather
	free              []*frame    // to be used again
	plain, leaf, body []byte      // overwritten for each event
}

// Append writes e and returns its position when it is durable. The log sets
// Seq, Time and Agent. Events of concurrent callers share commits. If ctx ends
// while it waits, Append returns the context's error and the event may or may
// not be in the log.
func (l *Log) Append(ctx context.Context, e ambit.Event) (uint64, error) {
	if !validKind(e.Kind) {
		return 0, fmt.Errorf("appending to the log: kind %q is not a lower-case word with dots", e.Kind)
	}
	r, err := l.ask(ctx, l.item(e))
	if err != nil {
		return 0, fmt.Errorf("appending to the log: %w", err)
	}
	return r.seq, nil
}

// Record queues e in order and returns; it is durable no later than the next
// Append, the end of Close, or flushAfter (a quarter of a second). If that
// fails it is tried again until it works or the log is closed. Record blocks
// while the queue is full. After Close has begun it does nothing.
func (l *Log) Record(e ambit.Event) {
	if !validKind(e.Kind) {
		e.Detail = "recorded with the kind " + strconv.Quote(string(e.Kind)) + ": " + e.Detail
		e.Kind = "invalid"
	}
	select {
	case <-l.closing:
		return
	default:
	}
	select {
	case l.queue <- l.item(e):
	case <-l.closing:
	}
}

// Head returns a signed checkpoint that covers every event appended or
// recorded before.
func (l *Log) Head(ctx context.Context) (Head, error) {
	r, err := l.ask(ctx, &item{head: true})
	if err != nil {
		return Head{}, fmt.Errorf("signing the log's head: %w", err)
	}
	return r.head, nil
}

func (l *Log) ask(ctx context.Context, it *item) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, err
	}
	it.done = make(chan result, 1)
	select {
	case <-l.closing:
		return result{}, ErrClosed
	default:
	}
	select {
	case l.queue <- it:
	case <-ctx.Done():
		return result{}, ctx.Err()
	case <-l.closing:
		return result{}, ErrClosed
	}
	select {
	case r := <-it.done:
		return r, r.err
	case <-ctx.Done():
		return result{}, ctx.Err()
	case <-l.done:
		select {
		case r := <-it.done:
			return r, r.err
		default:
			return result{}, ErrClosed // it was queued while the writer ended
		}
	}
}

// wake is why the writer stopped gathering.
type wake int

const (
	forWaiter wake = iota // somebody waits, or the batch is full
	forFlush              // recorded events waited long enough
	forClose              // the log is being closed and the queue is empty
)

func (l *Log) run() {
	defer close(l.done)
	l.w.settled = l.w.state.size
	for {
		why := l.gather()
		err := l.commit()
		if why == forClose {
			l.closeErr = errors.Join(err, l.end())
			return
		}
		if l.w.settling == nil && (len(l.w.readers) > 0 || l.w.pendingRows >= settleRows && l.w.settleErr == nil) {
			l.startSettling()
		}
	}
}

// end settles everything and gives the journal up.
func (l *Log) end() error {
	w := &l.w
	err := l.settleAll()
	if err != nil {
		err = fmt.Errorf("closing the log: %d events stay in its journal and are moved when it is next opened: %w", w.pendingRows, err)
	}
	return errors.Join(err, w.journal.close(err == nil))
}

// gather collects a batch: what is queued if somebody waits, otherwise until
// somebody does or the oldest event has waited long enough. Meanwhile, and
// when nothing happens, it has what is pending settled. With nothing pending
// and nothing queued no timer runs.
func (l *Log) gather() wake {
	w := &l.w
	var flush, idle <-chan time.Time
	arm := func(d time.Duration) <-chan time.Time {
		if w.timer == nil {
			w.timer = time.NewTimer(d)
		} else {
			w.timer.Reset(d)
		}
		return w.timer.C
	}
	if len(w.batch) > 0 {
		flush = arm(retryAfter)
	}
	waiting := 0
	for {
		queue := l.queue
		if len(w.batch) >= maxBatch {
			if !w.failing || waiting > 0 {
				return forWaiter
			}
			queue = nil // full of events that cannot be written: callers wait
		}
		if waiting > 0 {
			return l.gatherMore(waiting)
		}
		select { // without a timer while the queue has something
		case it := <-queue:
			waiting += w.take(it)
			continue
		default:
		}
		switch {
		case len(w.batch) > 0 && flush == nil:
			flush, idle = arm(flushAfter), nil
		case len(w.batch) == 0 && idle == nil && w.settling == nil && len(w.pending) > 0:
			idle = arm(settleAfter)
			if w.settleErr != nil {
				idle = arm(retryAfter)
			}
		}
		select {
		case it := <-queue:
			waiting += w.take(it)
		case <-flush:
			return forFlush
		case <-idle:
			idle = nil
			l.startSettling()
		case err := <-w.settling:
			_ = l.endSettling(err) // kept in settleErr, and tried again
		case <-l.closing:
			return l.drain()
		}
	}
}

// take puts it into the batch and returns 1 if somebody waits for it.
func (w *writer) take(it *item) int {
	w.batch = append(w.batch, it)
	if it.done != nil {
		return 1
	}
	return 0
}

// gatherMore lets others join those who wait already, so that one flush of the
// disk is for all: whoever is queued, and for a moment half as many as came
// together last time. The other half is on its way meanwhile, so that neither
// the disk nor the processors stand still.
func (l *Log) gatherMore(waiting int) wake {
	w := &l.w
	waiting = l.takeQueued(waiting)
	runtime.Gosched() // whom the last commit woke may have something
	waiting = l.takeQueued(waiting)
	if w.took >= gatherFrom && waiting < w.company/2 {
		late := time.NewTimer(min(w.took, gatherFor))
		defer late.Stop()
		for wait := true; wait && waiting < w.company/2 && len(w.batch) < maxBatch; {
			select {
			case it := <-l.queue:
				waiting = l.takeQueued(waiting + w.take(it))
			case <-late.C:
				wait = false
			case <-l.closing:
				wait = false
			}
		}
	}
	w.company = max(waiting, w.company*15/16) // one less each time fewer come
	return forWaiter
}

// takeQueued takes what is queued without waiting, and adds to waiting.
func (l *Log) takeQueued(waiting int) int {
	for len(l.w.batch) < maxBatch {
		select {
		case it := <-l.queue:
			waiting += l.w.take(it)
		default:
			return waiting
		}
	}
	return waiting
}

// drain takes everything that was queued before the log was closed.
func (l *Log) drain() wake {
	for {
		select {
		case it := <-l.queue:
			l.w.take(it)
		default:
			return forClose
		}
	}
}

// commit makes the batch durable, in one frame or, if it is large, in several,
// and answers those who wait. From the first frame that fails they get the
// error; recorded events stay in the batch.
func (l *Log) commit() error {
	w := &l.w
	rest := w.batch
	var err error
	for len(rest) > 0 && err == nil {
		var n int
		if n, err = l.write(rest); err == nil {
			rest = rest[n:]
		}
	}
	w.failing = err != nil
	kept := w.batch[:0]
	for _, it := range rest {
		if it.done == nil {
			kept = append(kept, it)
		} else {
			it.done <- result{err: err}
		}
	}
	clear(w.batch[len(kept):])
	w.batch = kept
	if err != nil && len(kept) > 0 {
		return fmt.Errorf("closing the log: %d recorded events could not be written: %w", len(kept), err)
	}
	return err
}

// write makes a frame of the first items durable and answers them. It returns
// how many they are. Nothing changes if it fails: the tree grows after the
// write, and the next frame takes the place of this one.
func (l *Log) write(items []*item) (n int, err error) {
	w := &l.w
	f := w.newFrame()
	for n < len(items) && len(f.buf) < frameFull {
		if items[n].hasEvent() {
			if err := l.addRow(f, items[n]); err != nil {
				w.recycle(f)
				return 0, err
			}
		}
		n++
	}
	if len(f.rows) == 0 {
		w.recycle(f)
	} else {
		b := f.finish()
		if err = l.room(len(b)); err == nil {
			began := time.Now()
			err = w.journal.append(b)
			w.took = time.Since(began)
		}
		if err != nil {
			w.recycle(f)
			return 0, err
		}
		l.publish(f.next(), w.settled)
		w.pending = append(w.pending, f)
		w.pendingRows += len(f.rows)
	}
	for _, it := range items[:n] { // first those who can go on
		if it.done != nil && it.hasEvent() {
			it.done <- result{seq: it.seq}
		}
	}
	for i := range f.rows {
		f.tiles = append(f.tiles, w.state.add(&f.rows[i], l.keys.origin, &w.leaf)...)
	}
	for _, it := range items[:n] {
		switch {
		case it.head:
			h, err := l.head()
			it.done <- result{head: h, err: err}
		case it.scrub:
			it.done <- result{err: l.scrubJournal()}
		case it.settle && w.settled >= w.state.size:
			it.done <- result{seq: w.settled}
		case it.settle:
			it.seq = w.state.size
			w.readers = append(w.readers, it)
		}
	}
	return n, nil
}

// maxFree bounds how many frames are kept for use again, and freeFrame, in
// bytes, how large they are, but for four. An idle log keeps none.
const (
	maxFree   = 64
	freeFrame = 64 << 10
)

func (w *writer) newFrame() *frame {
	f := new(frame)
	if n := len(w.free); n > 0 {
		f, w.free[n-1] = w.free[n-1], nil
		w.free = w.free[:n-1]
	}
	f.reset()
	return f
}

// recycle keeps a frame that nothing refers to any more.
func (w *writer) recycle(f *frame) {
	if len(w.free) < maxFree && (cap(f.buf) <= freeFrame || len(w.free) < 4) {
		f.reset()
		w.free = append(w.free, f)
	}
}

func (l *Log) head() (Head, error) {
	st := l.w.state
	h := Head{Origin: l.keys.origin, Size: st.size, Root: st.edge.root()}
	if st.size > 0 {
		h.Time = time.UnixMicro(st.micros).UTC()
	}
	var err error
	h.Note, err = l.keys.sign(h.Size, h.Root)
	return h, err
}

// addRow gives the event its position and time and adds it to the frame.
func (l *Log) addRow(f *frame, it *item) error {
	w := &l.w
	r := row{seq: w.state.size, micros: w.state.micros, kind: it.event.Kind, decision: int64(it.event.Decision)}
	if n := len(f.rows); n > 0 {
		r.seq, r.micros = f.rows[n-1].seq+1, f.rows[n-1].micros
	}
	r.micros = max(r.micros, it.micros) // the clock may go back, the log does not
	if it.event.Of != nil {
		r.of.Int64, r.of.Valid = int64(*it.event.Of), true
	}
	it.seq = r.seq
	it.event.Seq, it.event.Time = r.seq, time.UnixMicro(r.micros).UTC()
	body, err := appendBody(w.body[:0], &it.event)
	if err != nil {
		return err
	}
	w.body = body
	f.add(r, func(dst []byte) ([]byte, [commitmentSize]byte) { return l.keys.seal(dst, r.seq, body, &w.plain) })
	return nil
}
