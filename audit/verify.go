package audit

import (
	"context"
	"errors"
	"fmt"

	"ambit/internal/sqldb"
)

// Verify checks the log from its first event to its last, as [Verify] does.
// Appends go on meanwhile; what they add is not checked.
func (l *Log) Verify(ctx context.Context, heads ...[]byte) (Report, error) {
	if _, err := l.settle(ctx); err != nil {
		return Report{}, fmt.Errorf("verifying the log: %w", err)
	}
	v := newVerification(l.db, l.keys)
	return v.check(ctx, heads)
}

// Verify checks a log without opening it, so also one that [Open] refuses. It
// recomputes every hash from the rows, those that are still in the journal
// included; decrypts each body and compares it with its leaf; sees that every
// body that is gone was erased by an audit.erase event; and compares the tree
// with the checkpoint that the log stored and with every given head (signed
// notes that were kept elsewhere). An error means that the log could not be
// checked; what is wrong with it is in the report. cfg.Create and cfg.Clock are not used. Memory is two bits for each
// event, besides what does not depend on the size of the log.
func Verify(ctx context.Context, cfg Config, heads ...[]byte) (Report, error) {
	keys, err := newKeyring(cfg.Agent, cfg.Keys)
	if err != nil {
		return Report{}, fmt.Errorf("verifying the log: %w", err)
	}
	v := newVerification(cfg.DB, keys)
	v.journaled = true
	return v.check(ctx, heads)
}

type verification struct {
	checker
	db        *sqldb.DB
	keys      *keyring
	journaled bool // the journal is read too
	leaf      []byte
	tiles     []tile // became full in this portion
}

func newVerification(db *sqldb.DB, keys *keyring) *verification {
	return &verification{checker: newChecker(keys.origin), db: db, keys: keys}
}

func (v *verification) check(ctx context.Context, heads [][]byte) (Report, error) {
	err := v.run(ctx, heads)
	if errors.Is(err, sqldb.ErrDamaged) {
		v.problem(v.next, ProblemDamaged, "the database cannot be read further: "+err.Error())
		err = nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("verifying the log: %w", err)
	}
	v.report.OK = len(v.report.Problems) == 0
	return v.report, nil
}

func (v *verification) run(ctx context.Context, heads [][]byte) error {
	var own []target
	h, err := readCheckpoint(ctx, v.db, v.keys)
	switch {
	case err == nil:
		own = []target{{h, true}}
	case errors.Is(err, ErrTampered):
		v.problem(0, ProblemEdited, err.Error())
	default:
		return err
	}
	v.expect(v.keys.verifier, own, heads)

	end, journaled, err := v.extent(ctx)
	if err != nil {
		return err
	}
	v.report.Size = end
	v.compare()
	if err := v.rows(ctx); err != nil {
		return err
	}
	for _, f := range journaled {
		v.report.Size = f.next()
		for i := range f.rows {
			if err := v.row(&f.rows[i]); err != nil {
				return err
			}
		}
		v.tiles = v.tiles[:0] // they are stored with the rows
	}
	if _, _, ok := v.erasures.gone.next(0); ok {
		if err := v.late(ctx); err != nil {
			return err
		}
	}
	v.finish()
	return nil
}

// late looks for erasures that were announced since the size was read. They
// are not in the tree that was checked, but only who has the key can make one.
func (v *verification) late(ctx context.Context) error {
	rows, err := v.db.Query(ctx, "SELECT "+rowColumns+" FROM audit_event WHERE kind = 'audit.erase' AND seq >= ?", int64(v.report.Size))
	if err != nil {
		return err
	}
	defer rows.Close()
	var s rowScan
	for rows.Next() {
		r, err := s.next(rows, true)
		if err != nil {
			return err
		}
		if e, err := r.event(v.keys); err == nil {
			_ = v.erasures.announced(&e) // the next verification says what is wrong with it
		}
	}
	return rows.Err()
}

// extent is the size of the database, and what the journal has beyond. The
// journal is read first: what leaves it meanwhile is in the database. Another
// process may be writing it, so what looks wrong is looked at again.
func (v *verification) extent(ctx context.Context) (size uint64, journaled []*frame, err error) {
	var first, end int64
	var wrong error
	for range 3 {
		var b []byte
		wrong = nil
		if v.journaled {
			b, wrong = readJournal(v.db.Path(), v.keys)
		}
		if wrong != nil && !errors.Is(wrong, sqldb.ErrDamaged) {
			return 0, nil, wrong
		}
		if err := v.db.QueryRow(ctx, "SELECT coalesce((SELECT min(seq) FROM audit_event), 0), coalesce((SELECT max(seq) FROM audit_event), -1) + 1", nil, &first, &end); err != nil {
			return 0, nil, err
		}
		if wrong == nil {
			journaled, wrong = pending(b, uint64(end), v.keys)
		}
		if wrong == nil {
			break
		}
	}
	if first < 0 {
		v.problem(0, ProblemEdited, "there are rows with positions below 0")
	}
	size = uint64(end)
	if wrong != nil {
		at := size
		if n := len(journaled); n > 0 {
			at = journaled[n-1].next()
		}
		v.problem(at, ProblemDamaged, wrong.Error())
	}
	return size, journaled, nil
}

// rows checks every row below report.Size, in portions, and after each the
// tiles that it filled (not meanwhile: that would take two connections).
func (v *verification) rows(ctx context.Context) error {
	for v.next < v.report.Size {
		n, _, err := readRows(ctx, v.db, v.next, true, rowsPerRead, v.row)
		if err != nil {
			return err
		}
		if err := v.checkTiles(ctx); err != nil {
			return err
		}
		if n == 0 { // deleted since the size was read
			v.problem(v.next, ProblemMissing, fmt.Sprintf("events %d to %d are missing", v.next, v.report.Size-1))
			v.gap, v.next = true, v.report.Size
		}
	}
	return nil
}

func (v *verification) row(r *row) error {
	if r.seq >= v.report.Size {
		return nil // appended since the size was read
	}
	v.reach(r.seq, r.micros)
	if r.sealed == nil {
		v.gone(r.seq, r.kind)
	} else if e, err := r.event(v.keys); err != nil {
		v.problem(r.seq, ProblemEdited, fmt.Sprintf("event %d was changed: %v", r.seq, err))
	} else {
		v.there(&e)
	}
	l := r.leaf(v.keys.origin)
	v.leaf = l.AppendTo(v.leaf[:0])
	v.tiles = append(v.tiles, v.grow(r.seq, v.leaf)...)
	return nil
}

// checkTiles compares stored tiles with the recomputed ones. They must be right
// because others will read them.
func (v *verification) checkTiles(ctx context.Context) error {
	for _, want := range v.tiles {
		var b []byte
		err := v.db.QueryRow(ctx, "SELECT coalesce((SELECT hashes FROM audit_tile WHERE level = ? AND n = ?), x'')", []any{want.level, int64(want.n)}, &b)
		if err != nil {
			return err
		}
		first := want.n << (tileHeight * (want.level + 1))
		got, err := parseTile(want.level, want.n, b)
		switch {
		case len(b) == 0:
			v.problem(first, ProblemMissing, fmt.Sprintf("hash tile %d/%d is missing", want.level, want.n))
			continue
		case err != nil:
			v.problem(first, ProblemEdited, err.Error())
			continue
		}
		v.sameTile(got, want)
	}
	v.tiles = v.tiles[:0]
	return nil
}
