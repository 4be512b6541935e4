package approval

import (
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"ambit/internal/sqldb"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

func (s *Store) migrate(ctx context.Context) error {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	return s.cfg.DB.Migrate(ctx, "approval_version", migrations)
}

const columns = "SELECT n, state, sealed FROM approval "

// load makes the copy in memory. The caller holds mu.
func (s *Store) load(ctx context.Context) error {
	now := s.now()
	before, recent := s.open, []time.Time{}
	open, covers := map[int64]*entry{}, map[string][]Covered{}
	s.noes, s.yeses = map[key]no{}, map[key]time.Time{}
	if err := s.lastNumber(ctx); err != nil {
		return err
	}
	err := s.each(ctx, func(n int64, q *Question) {
		if q.State.open() {
			e := &entry{key: key{q.Task, q.Digest}, state: q.State, expires: q.Expires, count: q.Count}
			if old := before[n]; old != nil {
				e.count = max(e.count, old.count)
				if old.state == e.state {
					e.changed, old.changed = old.changed, nil
				}
			}
			open[n] = e
		}
		if now.Sub(q.Asked) < time.Minute {
			recent = append(recent, q.Asked)
		}
		s.decided(q)
		if c, ok := q.covered(); ok {
			covers[q.Task] = append(covers[q.Task], c)
		}
	}, columns+"WHERE state IN (?, ?, ?) OR covers = 1 OR changed > ? ORDER BY n", string(Waiting), string(Approved), string(Running), now.Add(-Refrain).UnixMicro())
	if err != nil {
		return err
	}
	for _, e := range before {
		e.tell()
	}
	s.open, s.recent, s.covers, s.stale = open, recent, covers, false
	return nil
}

func (s *Store) lastNumber(ctx context.Context) error {
	var last int64
	err := s.cfg.DB.QueryRow(ctx, "SELECT seq FROM sqlite_sequence WHERE name = 'approval'", nil, &last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	s.last = max(s.last, last)
	return nil
}

// each calls fn with the questions that a query finds.
func (s *Store) each(ctx context.Context, fn func(n int64, q *Question), query string, args ...any) error {
	rows, err := s.cfg.DB.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		var state State
		var sealed []byte
		if err := rows.Scan(&n, &state, &sealed); err != nil {
			return err
		}
		q, err := s.unseal(n, state, sealed)
		if err != nil {
			return err
		}
		fn(n, q)
	}
	return rows.Err()
}

func (s *Store) unseal(n int64, state State, sealed []byte) (*Question, error) {
	plain, err := s.aead.Open(nil, nil, sealed, associated(n, "question"))
	if err != nil {
		return nil, fmt.Errorf("question %s does not decrypt: it was changed, or the key is another one; restore the database from a backup", name(s.cfg.Agent, n))
	}
	q := &Question{}
	if err := json.Unmarshal(plain, q); err != nil {
		return nil, fmt.Errorf("reading question %s: %w", name(s.cfg.Agent, n), err)
	}
	if q.State != state {
		return nil, fmt.Errorf("question %s says that it is %s, and its row %s: the database was changed; restore it from a backup", q.ID, q.State, state)
	}
	return q, nil
}

func associated(n int64, what string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(n)), what...)
}

// read is one question as it is stored, without its result.
func (s *Store) read(ctx context.Context, n int64) (*Question, error) {
	var state State
	var sealed []byte
	err := s.cfg.DB.QueryRow(ctx, "SELECT state, sealed FROM approval WHERE n = ?", []any{n}, &state, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return s.unseal(n, state, sealed)
}

// result reads what a call came to; nil if it is not kept.
func (s *Store) result(ctx context.Context, n int64) ([]byte, error) {
	var sealed []byte
	err := s.cfg.DB.QueryRow(ctx, "SELECT result FROM approval WHERE n = ?", []any{n}, &sealed)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if sealed == nil {
		return nil, nil
	}
	plain, err := s.aead.Open(nil, nil, sealed, associated(n, "result"))
	if err != nil {
		return nil, fmt.Errorf("the result of question %s does not decrypt: it was changed, or the key is another one", name(s.cfg.Agent, n))
	}
	return plain, nil
}

// write stores questions in one transaction, and then what follows from it in
// memory. The caller holds mu.
func (s *Store) write(ctx context.Context, questions ...*Question) error {
	if len(questions) == 0 {
		return nil
	}
	err := s.cfg.DB.Write(ctx, func(tx *sqldb.Tx) error {
		for _, q := range questions {
			if err := s.put(ctx, tx, q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.stale = true // it may be there all the same: see sqldb.DB.Write
		return fmt.Errorf("storing: %w", err)
	}
	for _, q := range questions {
		s.follow(q)
	}
	s.wake()
	return nil
}

func (s *Store) put(ctx context.Context, tx *sqldb.Tx, q *Question) error {
	n, err := s.number(q.ID)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var result []byte
	if q.Result != nil {
		result = s.aead.Seal(nil, nil, q.Result, associated(n, "result"))
	}
	_, covers := q.covered()
	_, err = tx.Exec(ctx, `INSERT INTO approval (n, state, changed, covers, sealed, result) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (n) DO UPDATE SET state = excluded.state, changed = excluded.changed, covers = excluded.covers, sealed = excluded.sealed, result = excluded.result`,
		n, string(q.State), s.now().UnixMicro(), covers, s.aead.Seal(nil, nil, plain, associated(n, "question")), result)
	return err
}

// follow brings the copy in memory up to what was stored, and tells whoever
// waits.
func (s *Store) follow(q *Question) {
	n, err := s.number(q.ID)
	if err != nil {
		return
	}
	e := s.open[n]
	if e != nil && e.state != q.State {
		e.tell()
	}
	if q.State.open() {
		if e == nil {
			e = &entry{key: key{q.Task, q.Digest}}
			s.open[n] = e
		}
		e.state, e.expires, e.count = q.State, q.Expires, q.Count
	} else {
		delete(s.open, n)
	}
	s.decided(q)
	s.forget(q)
	if c, ok := q.covered(); ok {
		s.covers[q.Task] = append(s.covers[q.Task], c)
	}
}

// decided notes what people said to a question, for those that come.
func (s *Store) decided(q *Question) {
	of := key{q.Task, q.Tool}
	switch {
	case q.State == Denied:
		s.noes[key{q.Task, q.Digest}] = no{q.Decided, q.Tool}
	case q.State != Waiting && q.State != Expired && q.Decided.After(s.yeses[of]):
		s.yeses[of] = q.Decided
	}
}

// tell wakes whoever waits.
func (e *entry) tell() {
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

func (s *Store) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}
