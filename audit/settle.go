package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ambit/internal/sqldb"
)

const (
	// settleRows is how many rows in the journal are worth a transaction.
	settleRows = 512
	// settleAfter is how long the journal may be left alone before its rows
	// are settled however few they are.
	settleAfter = 200 * time.Millisecond
	// maxPending bounds the rows in memory.
	maxPending = 8 * settleRows
)

// settlement is a run of journaled rows on its way into the database, with the
// checkpoint at its end. It does not change once it is made.
type settlement struct {
	from, size uint64 // the positions from (included) and to (excluded)
	frames     []*frame
	checkpoint []byte
}

// newSettlement makes one of frames, which begin at from and end where st is.
func newSettlement(keys *keyring, from uint64, frames []*frame, st *state) (*settlement, error) {
	checkpoint, err := keys.sign(st.size, st.edge.root())
	return &settlement{from: from, size: st.size, frames: frames, checkpoint: checkpoint}, err
}

// recoverLog opens the journal, puts into the database what only the journal
// has, and loads the state. A log that is refused is not changed.
func recoverLog(ctx context.Context, cfg Config, keys *keyring) (*journal, *state, error) {
	_, err := readCheckpoint(ctx, cfg.DB, keys)
	missing := errors.Is(err, ErrNoLog) && cfg.Create
	if err != nil && !missing {
		return nil, nil, err
	}
	j, err := openJournal(cfg.DB.Path(), keys)
	if err != nil {
		return nil, nil, err
	}
	if missing {
		err = create(ctx, cfg.DB, keys)
	}
	var st *state
	if err == nil {
		st, err = replay(ctx, cfg.DB, j, keys)
	}
	if err == nil {
		err = j.start(keys)
	}
	if err != nil {
		_ = j.close(false)
		return nil, nil, err
	}
	return j, st, nil
}

// replay settles what is pending in the journal. A crash on the way is met by
// the next call in the same way: the transaction happened or it did not, and
// the frames stay until later ones overwrite them. The state that it returns is
// loaded from the database, and must be the one that the frames led to.
func replay(ctx context.Context, db *sqldb.DB, j *journal, keys *keyring) (*state, error) {
	st, err := load(ctx, db, keys)
	if err != nil {
		return nil, err
	}
	b, err := j.read()
	if err != nil {
		return nil, err
	}
	todo, err := pending(b, st.size, keys)
	if err != nil || len(todo) == 0 {
		return st, err
	}
	from, leaf := st.size, []byte(nil)
	for _, f := range todo {
		for i := range f.rows {
			f.tiles = append(f.tiles, st.add(&f.rows[i], keys.origin, &leaf)...)
		}
	}
	s, err := newSettlement(keys, from, todo, st)
	if err != nil {
		return nil, err
	}
	if err := s.store(ctx, db); err != nil {
		return nil, err
	}
	root := st.edge.root()
	if st, err = load(ctx, db, keys); err == nil && (st.size != s.size || st.edge.root() != root) {
		err = fmt.Errorf("%w: what was put into it from the journal is not there", ErrTampered)
	}
	return st, err
}

// startSettling begins to put everything that is pending into the database,
// while the writer goes on. Only one settlement runs at a time.
func (l *Log) startSettling() {
	w := &l.w
	s, err := newSettlement(l.keys, w.settled, w.pending, w.state)
	w.settling = make(chan error, 1)
	if err != nil {
		w.settling <- err
		return
	}
	w.current, w.pending, w.pendingRows = s, nil, 0
	go func(done chan<- error) {
		// No deadline: SQLite gives up by itself, and an interrupted commit
		// would leave open whether it happened.
		done <- s.store(context.Background(), l.db)
	}(w.settling)
}

// endSettling takes the result of a settlement. If it failed its rows are
// pending again.
func (l *Log) endSettling(err error) error {
	w := &l.w
	s := w.current
	w.settling, w.current, w.settleErr = nil, nil, err
	if s != nil && err == nil {
		w.settled = s.size
		for _, f := range s.frames {
			w.recycle(f)
		}
		if len(w.pending) == 0 {
			w.journal.restart()
			w.free = nil
		}
		l.publish(l.Size(), w.settled)
	}
	if s != nil && err != nil {
		w.pending = append(s.frames, w.pending...)
		w.pendingRows = 0
		for _, f := range w.pending {
			w.pendingRows += len(f.rows)
		}
	}
	readers := w.readers[:0]
	for _, it := range w.readers {
		if err == nil && it.seq > w.settled {
			readers = append(readers, it)
			continue
		}
		it.done <- result{seq: it.seq, err: err}
	}
	clear(w.readers[len(readers):])
	w.readers = readers
	if err == nil && (len(readers) > 0 || w.pendingRows >= settleRows) {
		l.startSettling()
	}
	return err
}

// settleAll waits until nothing is pending.
func (l *Log) settleAll() error {
	w := &l.w
	for w.settling != nil || len(w.pending) > 0 {
		if w.settling == nil {
			l.startSettling()
		}
		if err := l.endSettling(<-w.settling); err != nil {
			return err
		}
	}
	return nil
}

// scrubJournal puts everything into the database and overwrites every frame.
// Events that come meanwhile wait for the few milliseconds that it takes.
func (l *Log) scrubJournal() error {
	if err := l.settleAll(); err != nil {
		return err
	}
	return l.w.journal.scrub()
}

// room sees that a frame of n bytes fits into the journal. While the database
// cannot be written, the journal takes no more than one transaction.
func (l *Log) room(n int) error {
	w := &l.w
	full := func() bool {
		rows := w.pendingRows
		if w.current != nil {
			rows += int(w.current.size - w.current.from)
		}
		return !w.journal.has(n) || rows >= maxPending || w.settleErr != nil && rows >= settleRows
	}
	if !full() {
		return nil
	}
	if err := l.settleAll(); err != nil {
		return err
	}
	if full() {
		return fmt.Errorf("a batch of %d bytes does not fit into the log's journal", n)
	}
	return nil
}

// settle returns when every event that is durable now is in the database, and
// how many those are.
func (l *Log) settle(ctx context.Context) (uint64, error) {
	l.mu.Lock()
	size, settled := l.size, l.settled
	l.mu.Unlock()
	if settled >= size {
		return settled, nil
	}
	r, err := l.ask(ctx, &item{settle: true})
	if !errors.Is(err, ErrClosed) {
		return r.seq, err
	}
	select { // closing the log settles too
	case <-l.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.settled < l.size {
		return 0, l.closeErr
	}
	return l.settled, nil
}

var (
	insertOne  = "INSERT INTO audit_event (" + rowColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?)"
	insertMany = insertOne + strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", insertRows-1)
	insertFew  = insertOne + strings.Repeat(", (?, ?, ?, ?, ?, ?, ?)", insertRows/4-1)
)

// store puts the rows, the tiles that they fill and the checkpoint into the
// database, in one transaction. After a failure that left open whether the
// commit happened, it finds out and goes on from there.
func (s *settlement) store(ctx context.Context, db *sqldb.DB) error {
	return db.Write(ctx, func(tx *sqldb.Tx) error {
		var has int64
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(seq), -1) + 1 FROM audit_event", nil, &has); err != nil {
			return err
		}
		if uint64(has) < s.from || uint64(has) > s.size {
			return fmt.Errorf("%w: it had %d events and has %d now", ErrTampered, s.from, has)
		}
		if err := s.insert(ctx, tx, uint64(has)); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, "UPDATE audit_log SET checkpoint = ? WHERE id = 1", string(s.checkpoint))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("%w: the row that says whose log it is is gone", ErrTampered), err)
		}
		return nil
	})
}

// insert adds the frames from position from on: a transaction has frames whole.
func (s *settlement) insert(ctx context.Context, tx *sqldb.Tx, from uint64) error {
	const columns = 7
	args := make([]any, 0, insertRows*columns)
	for _, f := range s.frames {
		if f.first() < from {
			continue
		}
		for i := range f.rows {
			r := &f.rows[i]
			var of any
			if r.of.Valid {
				of = r.of.Int64
			}
			args = append(args, int64(r.seq), r.micros, string(r.kind), r.decision, of, r.commitment[:], r.sealed)
			if len(args) == insertRows*columns {
				if _, err := tx.Exec(ctx, insertMany, args...); err != nil {
					return err
				}
				args = args[:0]
			}
		}
		for _, t := range f.tiles {
			if _, err := tx.Exec(ctx, "INSERT INTO audit_tile (level, n, hashes) VALUES (?, ?, ?)", t.level, int64(t.n), t.bytes()); err != nil {
				return err
			}
		}
	}
	for rest := args; len(rest) > 0; {
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
