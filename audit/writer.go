package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/internal/sqldb"
)

const (
	// MaxText is the longest text of an event's field that is kept, in bytes.
	// Of a longer one the beginning is kept, and how much is missing.
	MaxText = 16 << 10

	queueLength = 1024
	maxBatch    = 512
	// flushAfter is how long a recorded event may wait for an append to share
	// a commit with.
	flushAfter = 250 * time.Millisecond
	// gatherFor is how long a commit waits for company when the last one had
	// some: under load fewer commits cost less, and somebody who appends alone
	// never waits.
	gatherFor = 200 * time.Microsecond
	// retryAfter is how often recorded events are tried again while the
	// database cannot be written.
	retryAfter = time.Second
	// signEvery is how many events may follow the stored checkpoint under load.
	signEvery = tileWidth
)

// item is one thing for the writer to do.
type item struct {
	event  ambit.Event
	micros int64
	head   bool        // answer with a head; there is no event
	done   chan result // nil: nobody waits
	seq    uint64      // set by the writer
}

type result struct {
	seq  uint64
	head Head
	err  error
}

// writer is what the writer goroutine owns.
type writer struct {
	state   *state  // nil: to be loaded again, because a commit failed
	batch   []*item // events that a failed commit left first, in order
	failing bool    // the last commit failed
	company int     // how many waited for the last commit together

	args                []any
	plain, leaf         []byte
	sealed, commitments [insertRows][]byte
	buf                 bytes.Buffer
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

// item makes an event fit to be stored.
func (l *Log) item(e ambit.Event) *item {
	// Up to the year 9999, which is what JSON can say (RFC 3339).
	micros := min(max(l.clock().UnixMicro(), 0), 253402300799999999)
	e.Agent = l.agent
	for _, s := range []*string{(*string)(&e.Principal), (*string)(&e.Action), &e.Method, &e.Host, &e.URL, &e.Intent, &e.Rule, &e.Detail} {
		clip(s)
	}
	if e.Reason != nil && len(e.Reason.Code)+len(e.Reason.Text)+len(e.Reason.Remedy) > MaxText {
		r := *e.Reason
		clip(&r.Code)
		clip(&r.Text)
		clip(&r.Remedy)
		e.Reason = &r
	}
	return &item{event: e, micros: micros}
}

func clip(s *string) {
	if len(*s) <= MaxText {
		return
	}
	n := MaxText
	for n > MaxText-utf8.UTFMax && !utf8.RuneStart((*s)[n]) {
		n--
	}
	*s = strings.Clone((*s)[:n]) + fmt.Sprintf("… (%d bytes more)", len(*s)-n)
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
	for {
		why := l.gather()
		err := l.commit(why)
		if why == forClose {
			l.closeErr = err
			return
		}
	}
}

// gather collects a batch: what is queued if somebody waits, otherwise until
// somebody does or the oldest event has waited long enough.
func (l *Log) gather() wake {
	w := &l.w
	var timer *time.Timer
	var expired <-chan time.Time
	arm := func(d time.Duration) {
		if timer == nil {
			timer = time.NewTimer(d)
			expired = timer.C
		}
	}
	defer func() {
		if timer != nil {
			timer.Stop()
		}
	}()
	if len(w.batch) > 0 {
		arm(retryAfter)
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
		select {
		case it := <-queue:
			w.batch = append(w.batch, it)
			if it.done != nil {
				waiting++
			}
			arm(flushAfter)
		case <-expired:
			return forFlush
		case <-l.closing:
			return l.drain()
		}
	}
}

// gatherMore lets others join those who wait already, so that one fsync is for
// all: whoever is queued, and for a moment as many as came together last time.
func (l *Log) gatherMore(waiting int) wake {
	w := &l.w
	expected := w.company
	var late <-chan time.Time
	for yielded := false; len(w.batch) < maxBatch; {
		select {
		case it := <-l.queue:
			w.batch = append(w.batch, it)
			if it.done != nil {
				waiting++
			}
			continue
		default:
		}
		if !yielded {
			yielded = true
			runtime.Gosched() // whom the last commit woke may have something
			continue
		}
		if waiting >= expected {
			break
		}
		if late == nil {
			timer := time.NewTimer(gatherFor)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case it := <-l.queue:
			w.batch = append(w.batch, it)
			if it.done != nil {
				waiting++
			}
			continue
		case <-late:
		case <-l.closing:
		}
		break
	}
	w.company = max(waiting, w.company*3/4)
	return forWaiter
}

// drain takes everything that was queued before the log was closed.
func (l *Log) drain() wake {
	for {
		select {
		case it := <-l.queue:
			l.w.batch = append(l.w.batch, it)
		default:
			return forClose
		}
	}
}

// commit makes the batch durable and answers those who wait. If it fails they
// get the error; recorded events stay in the batch, and the state is loaded
// again before the next attempt.
func (l *Log) commit(why wake) error {
	w := &l.w
	err := l.write(why)
	if err == nil && w.state.size != l.Size() {
		l.publish(w.state.size)
	}
	w.failing = err != nil
	kept := w.batch[:0]
	for _, it := range w.batch {
		switch {
		case it.done == nil && err != nil:
			kept = append(kept, it)
		case it.head && err == nil:
			h, err := l.head()
			it.done <- result{head: h, err: err}
		case it.done != nil:
			it.done <- result{seq: it.seq, err: err}
		}
	}
	clear(w.batch[len(kept):])
	w.batch = kept
	if err != nil && len(kept) > 0 {
		return fmt.Errorf("closing the log: %d recorded events could not be written: %w", len(kept), err)
	}
	return err
}

// write puts the batch into the database, in one transaction.
func (l *Log) write(why wake) error {
	w := &l.w
	events := 0
	for _, it := range w.batch {
		if !it.head {
			events++
		}
	}
	sign := why != forWaiter
	if w.state != nil && events == 0 && (!sign || w.state.signed == w.state.size) {
		return nil
	}
	// No deadline: SQLite gives up by itself, and an interrupted commit would
	// leave open whether it happened.
	ctx := context.Background()
	err := l.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := l.reload(ctx, tx); err != nil {
			return err
		}
		if err := l.insert(ctx, tx); err != nil {
			return err
		}
		if st := w.state; sign || st.size-st.signed >= signEvery {
			return l.storeCheckpoint(ctx, tx)
		}
		return nil
	})
	if err != nil {
		w.state = nil
	}
	return err
}

// reload reads the state after a failure. What was durable before must still
// be there.
func (l *Log) reload(ctx context.Context, tx *sqldb.Tx) error {
	if l.w.state != nil {
		return nil
	}
	st, err := load(ctx, tx, l.keys)
	if err != nil {
		return err
	}
	if size := l.Size(); st.size < size {
		return fmt.Errorf("%w: it had %d events and has %d now", ErrTampered, size, st.size)
	}
	l.w.state = st
	return nil
}

func (l *Log) storeCheckpoint(ctx context.Context, tx *sqldb.Tx) error {
	st := l.w.state
	checkpoint, err := l.keys.sign(st.size, st.edge.root())
	if err != nil {
		return err
	}
	st.signed = st.size
	res, err := tx.Exec(ctx, "UPDATE audit_log SET checkpoint = ? WHERE id = 1", string(checkpoint))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%w: the row that says whose log it is is gone", ErrTampered), err)
	}
	return nil
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

var (
	insertOne  = "INSERT INTO audit_event (" + rowColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?)"
	insertMany = insertOne + strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", insertRows-1)
	insertFew  = insertOne + strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", insertRows/4-1)
)

// insert adds the batch's events to the tree and to the transaction.
func (l *Log) insert(ctx context.Context, tx *sqldb.Tx) error {
	w := &l.w
	const columns = 7
	w.args = w.args[:0]
	for _, it := range w.batch {
		if it.head {
			continue
		}
		if err := l.addRow(ctx, tx, it, len(w.args)/columns); err != nil {
			return err
		}
		if len(w.args) == insertRows*columns {
			if _, err := tx.Exec(ctx, insertMany, w.args...); err != nil {
				return err
			}
			w.args = w.args[:0]
		}
	}
	for rest := w.args; len(rest) > 0; {
		query, n := insertOne, columns
		if few := insertRows / 4 * columns; len(rest) >= few {
			query, n = insertFew, few
		}
		if _, err := tx.Exec(ctx, query, rest[:n]...); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// addRow gives the event its position and time, adds its leaf to the tree and
// its columns to the arguments. i selects the buffers to use.
func (l *Log) addRow(ctx context.Context, tx *sqldb.Tx, it *item, i int) error {
	w, st := &l.w, l.w.state
	st.micros = max(st.micros, it.micros) // the clock may go back, the log does not
	it.seq = st.size
	it.event.Seq, it.event.Time = st.size, time.UnixMicro(st.micros).UTC()
	w.buf.Reset()
	enc := json.NewEncoder(&w.buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&it.event); err != nil {
		return fmt.Errorf("encoding the event: %w", err)
	}
	body := bytes.TrimSuffix(w.buf.Bytes(), []byte("\n"))

	leaf := Leaf{Origin: l.keys.origin, Seq: st.size, Micros: st.micros, Kind: it.event.Kind}
	w.sealed[i], leaf.Commitment = l.keys.seal(w.sealed[i][:0], st.size, body, &w.plain)
	w.commitments[i] = append(w.commitments[i][:0], leaf.Commitment[:]...)
	w.leaf = leaf.AppendTo(w.leaf[:0])
	for _, t := range st.edge.add(st.size, tlog.RecordHash(w.leaf)) {
		if _, err := tx.Exec(ctx, "INSERT INTO audit_tile (level, n, hashes) VALUES (?, ?, ?)", t.level, int64(t.n), t.bytes()); err != nil {
			return err
		}
	}
	var of any
	if it.event.Of != nil {
		of = int64(*it.event.Of)
	}
	w.args = append(w.args, int64(st.size), st.micros, string(it.event.Kind), int64(it.event.Decision), of, w.commitments[i], w.sealed[i])
	st.size++
	return nil
}
