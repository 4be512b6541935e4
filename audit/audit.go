// Package audit is the append-only record of what one agent did: a Merkle
// tree over its events (RFC 6962), with checkpoints that the log signs, and
// the events themselves beside it, encrypted.
//
// [Log.Append] returns when its event survives a power cut. Whatever was
// queued while the last write ran becomes one frame of the journal, a file
// beside the database, so many appends share one flush of the disk.
// [Log.Record] does not wait; it blocks only while the queue is full and never
// drops. The rows go from the journal into the database hundreds at a time,
// and before anything reads them: what reads the log sees all of it, wherever
// it is.
//
// Anybody who kept a [Head] can tell whether the log still holds the history
// that the head stands for: [Verify] recomputes every hash from the rows. The
// formats are in docs/audit-format.md and do not change. [Log.Erase] takes the
// bodies of events away and leaves the hashes; [Log.Export] writes what others
// can check with [VerifyBundle], or with a program of their own.
//
// Crash points, in the order of things:
//   - before a frame is durable: nothing of the batch is there, or all of it,
//     and nobody was told otherwise; a torn frame is dropped by [Open];
//   - between that and the database's commit: Open finds the frame, checks it
//     and puts it into the database;
//   - between the commit and the next frame: Open finds frames whose positions
//     the database has, and passes them over;
//   - while Open does this, or Close: as one of the above.
//
// Beside the events there is an index of what is in them, encrypted too, that
// the log builds in the background and that [Log.Search] uses. It can be
// deleted at any time; nothing is found or missed for it.
//
// What the tree needs is recomputed from rows when the log is opened, and rows
// are keyed by position, so nothing is there twice. A write that fails leaves
// the tree as it was; the next frame takes its place. When the database cannot
// be written, the journal takes as many rows as one transaction is worth; then
// appends fail too.
//
// Known hole: a disk that lies about flushing, or that damages sectors beside
// those it writes while power fails (which SQLite too takes for granted,
// https://sqlite.org/psow.html). A journal that is deleted, or damaged in its
// last frame, while events are in it alone looks like a log that ended before
// them: only a head kept elsewhere shows it.
//
// Trust: events are taken as they are; nobody but the worker calls Append, and
// text in them may come from a hostile agent. Database and journal are not
// trusted: who can write to them but lacks the keys can destroy the log, and
// can put back an older copy of it, which only a head kept elsewhere shows;
// events of the journal are decrypted before they are believed. They cannot
// change, remove, add or reorder events unnoticed, nor read them (they
// see when, of which kind and with which decision events happened). Who has
// the signing key can write another history, which a head kept elsewhere
// shows. Who has the body key can read.
package audit

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/internal/sqldb"
)

// Config is what a log needs. All of it is required but Agent, Create and Clock.
type Config struct {
	// DB is the agent's database, shared with other packages. The caller
	// closes it after the log.
	DB *sqldb.DB
	// Agent is whose log this is, and is written into every event. Trusted. ""
	// is the log of the control plane, whose events say themselves which agent
	// they are about.
	Agent ambit.AgentID
	// Keys are the log's secrets. They are not kept, only keys derived from them.
	Keys Keys
	// Create makes a new log in a database that has none. Set it when an agent
	// is first deployed and at no other time: without it a lost log is an
	// error ([ErrNoLog]) instead of a fresh start.
	Create bool
	// Clock tells the time; time.Now when nil.
	Clock func() time.Time
}

// What a caller branches on.
var (
	// ErrNoLog: the database has no log, and Config.Create is not set.
	ErrNoLog = errors.New("there is no log in this database")
	// ErrForeign: the log belongs to another agent, or the keys are others.
	ErrForeign = errors.New("this log belongs to another agent or to other keys")
	// ErrTampered: the rows do not agree with the last checkpoint the log signed.
	ErrTampered = errors.New("the log was changed behind its back")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("the log is closed")
)

const formatVersion = 1

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Log is an open log. It is safe for concurrent use. There is one at a time for
// each database: it holds a lock on the journal.
type Log struct {
	db    *sqldb.DB
	agent ambit.AgentID
	keys  *keyring
	clock func() time.Time

	queue     chan *item
	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	done      chan struct{} // closed when the writer has ended
	closeErr  error         // what the writer could not write; read after done

	w     writer // owned by the writer goroutine
	index *indexer

	erasing chan struct{} // has an element while somebody erases or exports; held during I/O

	mu      sync.Mutex    // held for moments, never during I/O
	size    uint64        // durable events
	settled uint64        // of which in the database; the others are in the journal
	grown   chan struct{} // closed when size grows; nil while nobody waits
}

// Open opens the log of cfg.Agent. It refuses a database of a newer version
// (sqldb.ErrNewer), of another agent or other keys (ErrForeign), one whose log
// is missing (ErrNoLog), one whose newest part does not agree with the signed
// checkpoint or with the journal (ErrTampered, sqldb.ErrDamaged), and one that
// is open elsewhere (sqldb.ErrBusy); nothing is changed then. It does not read
// the whole log: [Verify] does.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l, err := open(ctx, cfg)
	if err == nil {
		l.index.start()
	}
	return l, err
}

// open opens the log and leaves its index alone.
func open(ctx context.Context, cfg Config) (*Log, error) {
	if cfg.DB == nil {
		return nil, errors.New("opening the log: there is no database")
	}
	keys, err := newKeyring(cfg.Agent, cfg.Keys)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := cfg.DB.Migrate(ctx, "audit_version", migrations); err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	journal, st, err := recoverLog(ctx, cfg, keys)
	if err != nil {
		return nil, fmt.Errorf("opening the log %s: %w", keys.origin, err)
	}
	l := &Log{
		db: cfg.DB, agent: cfg.Agent, keys: keys, clock: cfg.Clock,
		queue: make(chan *item, queueLength), closing: make(chan struct{}), done: make(chan struct{}),
		erasing: make(chan struct{}, 1), size: st.size, settled: st.size,
	}
	if l.clock == nil {
		l.clock = time.Now
	}
	l.w.state, l.w.journal = st, journal
	indexKeys, err := newIndexKeys(keys.origin, cfg.Keys)
	if err == nil {
		l.index = newIndexer(l, indexKeys)
		err = l.index.forget(ctx, st.size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the log %s: %w", keys.origin, err), journal.close(false))
	}
	go l.run()
	return l, nil
}

// VerifierKey is the log's public key in the form of signed notes
// (https://c2sp.org/signed-note): all that a third party needs to check heads.
func (l *Log) VerifierKey() string { return l.keys.vkey }

// Size is the number of durable events.
func (l *Log) Size() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Wait returns nil when an event with a position above after is durable.
// Otherwise it returns the context's error, or ErrClosed.
func (l *Log) Wait(ctx context.Context, after uint64) error {
	for {
		l.mu.Lock()
		if l.size > 0 && l.size-1 > after {
			l.mu.Unlock()
			return nil
		}
		if l.grown == nil {
			l.grown = make(chan struct{})
		}
		grown := l.grown
		l.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return ErrClosed
		}
	}
}

// publish makes new sizes known.
func (l *Log) publish(size, settled uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if size != l.size && l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
	l.size, l.settled = size, settled
	l.index.grown(settled)
}

// Close writes what is queued, moves everything into the database with a
// signed checkpoint, and ends the log. If ctx ends first, Close returns its
// error while the writer goes on; calling it again waits again. An error that
// is not the context's says how many events of Record could not be written, or
// that the durable ones stay in the journal, from which the next Open takes them.
func (l *Log) Close(ctx context.Context) error {
	l.closeOnce.Do(func() {
		l.index.end()
		close(l.closing)
	})
	for _, done := range []<-chan struct{}{l.index.done, l.done} {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("closing the log: %w", ctx.Err())
		}
	}
	return l.closeErr
}

// state is the tree at one size.
type state struct {
	edge   edge
	size   uint64 // events
	micros int64  // time of the last event
}

// add puts a durable row into the tree and returns the tiles that it filled.
// leaf is overwritten.
func (st *state) add(r *row, origin string, leaf *[]byte) []tile {
	l := r.leaf(origin)
	*leaf = l.AppendTo((*leaf)[:0])
	st.size, st.micros = r.seq+1, max(st.micros, r.micros)
	return st.edge.add(r.seq, tlog.RecordHash(*leaf))
}

// querier is what reads: the database, or a transaction.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (*sqldb.Rows, error)
	QueryRow(ctx context.Context, query string, args []any, dest ...any) error
}

// create makes a log in a database that has none.
func create(ctx context.Context, db *sqldb.DB, keys *keyring) error {
	checkpoint, err := keys.sign(0, new(edge).root())
	if err != nil {
		return err
	}
	return db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO audit_log (id, format, origin, keycheck, checkpoint) VALUES (1, ?, ?, ?, ?)",
			formatVersion, keys.origin, keys.keycheck, string(checkpoint))
		return err
	})
}

// readCheckpoint reads what log this is, and its last stored checkpoint.
func readCheckpoint(ctx context.Context, q querier, keys *keyring) (Head, error) {
	var format int
	var origin, checkpoint string
	var keycheck []byte
	err := q.QueryRow(ctx, "SELECT format, origin, keycheck, checkpoint FROM audit_log", nil, &format, &origin, &keycheck, &checkpoint)
	if errors.Is(err, sql.ErrNoRows) {
		var rows int
		if err := q.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM audit_event) + EXISTS (SELECT 1 FROM audit_tile)", nil, &rows); err != nil {
			return Head{}, err
		}
		if rows > 0 {
			return Head{}, fmt.Errorf("%w: there are events, but the row that says whose log it is is gone; keep the file and restore a backup", ErrTampered)
		}
		return Head{}, fmt.Errorf("%w; if there should be one, restore its file from a backup", ErrNoLog)
	}
	if err != nil {
		return Head{}, err
	}
	if format != formatVersion {
		return Head{}, fmt.Errorf("%w: the log's format is %d, this program knows %d", sqldb.ErrNewer, format, formatVersion)
	}
	if origin != keys.origin {
		return Head{}, fmt.Errorf("%w: it is %s, not %s", ErrForeign, origin, keys.origin)
	}
	if subtle.ConstantTimeCompare(keycheck, keys.keycheck) != 1 {
		return Head{}, fmt.Errorf("%w: the data key is not the one it was made with", ErrForeign)
	}
	h, err := parseHead([]byte(checkpoint), keys.verifier)
	if err != nil {
		return Head{}, fmt.Errorf("%w: its stored checkpoint is wrong: %w", ErrTampered, err)
	}
	return h, nil
}

// load rebuilds the state: the edge at the last checkpoint from tiles and
// rows, which must give the root that was signed, and from there by adding
// the rows that came later.
func load(ctx context.Context, q querier, keys *keyring) (*state, error) {
	head, err := readCheckpoint(ctx, q, keys)
	if err != nil {
		return nil, err
	}
	st := &state{size: head.Size &^ (tileWidth - 1)}
	var leaf []byte
	if err := st.edge.fromTiles(ctx, q, st.size); err != nil {
		return nil, err
	}
	check := func() error {
		if st.size == head.Size && st.edge.root() != head.Root {
			return fmt.Errorf("%w: the newest rows and tiles do not give the root hash that was signed at size %d; keep the file and run the verification", ErrTampered, head.Size)
		}
		return nil
	}
	if err := check(); err != nil {
		return nil, err
	}
	err = eachRow(ctx, q, st.size, false, func(r *row) error {
		if r.seq != st.size {
			return fmt.Errorf("%w: event %d is missing; keep the file and run the verification", ErrTampered, st.size)
		}
		st.add(r, keys.origin, &leaf)
		return check()
	})
	if err != nil {
		return nil, err
	}
	if st.size < head.Size {
		return nil, fmt.Errorf("%w: a checkpoint was signed at size %d, but the log ends after %d events; keep the file and run the verification", ErrTampered, head.Size, st.size)
	}
	if st.size > 0 && st.micros == 0 { // no row follows the last full tile
		err := q.QueryRow(ctx, "SELECT time FROM audit_event WHERE seq = ?", []any{int64(st.size - 1)}, &st.micros)
		if err != nil {
			return nil, fmt.Errorf("%w: the last event is missing: %w", ErrTampered, err)
		}
	}
	return st, nil
}

// fromTiles sets e to the edge of a tree of size leaves, a multiple of 256,
// out of stored tiles.
func (e *edge) fromTiles(ctx context.Context, q querier, size uint64) error {
	e.levels = nil
	for level := 0; level == 0 || size>>(tileHeight*level) > 0; level++ {
		e.levels = append(e.levels, make([]tlog.Hash, 0, tileWidth))
		if level == 0 { // a multiple of 256 leaves none over
			continue
		}
		end := size >> (tileHeight * level)
		for n := end &^ (tileWidth - 1); n < end; n++ {
			var b []byte
			err := q.QueryRow(ctx, "SELECT hashes FROM audit_tile WHERE level = ? AND n = ?", []any{level - 1, int64(n)}, &b)
			if errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("%w: hash tile %d/%d is missing", ErrTampered, level-1, n)
			}
			if err != nil {
				return err
			}
			t, err := parseTile(level-1, n, b)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrTampered, err)
			}
			e.levels[level] = append(e.levels[level], subtreeHash(t.hashes))
		}
	}
	return nil
}
