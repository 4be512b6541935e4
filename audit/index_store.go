package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ambit/internal/sqldb"
)

const (
	pageBits     = 20
	maxPages     = 1 << pageBits
	maxDirectory = 1 + 8*maxPages + indexSealing
	// pagesPerWrite is how many pages one transaction writes or removes: few
	// enough that the writer of the log hardly waits.
	pagesPerWrite = 32
)

var (
	// errSuperseded: what a segment is made of was erased meanwhile.
	errSuperseded = errors.New("the events were changed while they were indexed")
	// errGone: a segment was merged or removed since its directory was read.
	errGone = errors.New("a segment of the index is gone")
)

// damageError says which segment cannot be read.
type damageError struct {
	id  uint64
	err error
}

func (e *damageError) Error() string { return "a segment of the search index: " + e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

// segment is a part of the index: the events from first to before last.
type segment struct {
	id, first, last uint64
	level           int
	directory
}

func (s *segment) width() uint32 { return uint32(s.last - s.first) }

const segmentColumns = "id, level, first, last, directory"

// scanSegment reads what a query for segmentColumns found. The directory's
// encryption vouches for the columns.
func scanSegment(keys *indexKeys, scan func(...any) error) (*segment, error) {
	var s segment
	var id, first, last int64
	var sealed []byte
	if err := scan(&id, &s.level, &first, &last, &sealed); err != nil {
		return nil, err
	}
	s.id, s.first, s.last = uint64(id), uint64(first), uint64(last)
	b, err := keys.open(s.id, s.first, s.last, theDirectory, sealed)
	if err == nil && (first < 0 || last <= first || last-first > maxWidth) {
		err = errors.New("its extent is not in order")
	}
	if err == nil {
		s.directory, err = parseDirectory(b)
	}
	if err != nil {
		return &s, &damageError{s.id, err}
	}
	return &s, nil
}

// segmentAt is the last segment that begins at or before a position; nil if
// there is none. It may end before the position.
func segmentAt(ctx context.Context, q querier, keys *indexKeys, at uint64) (*segment, error) {
	s, err := scanSegment(keys, func(dest ...any) error {
		return q.QueryRow(ctx, "SELECT "+segmentColumns+" FROM audit_index_segment WHERE directory IS NOT NULL AND length(directory) <= ? AND first <= ? ORDER BY first DESC LIMIT 1",
			[]any{maxDirectory, int64(at)}, dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return s, err
}

// segmentAfter is the first position above at where a segment begins, or end.
func segmentAfter(ctx context.Context, q querier, at, end uint64) (uint64, error) {
	var first sql.NullInt64
	err := q.QueryRow(ctx, "SELECT min(first) FROM audit_index_segment WHERE directory IS NOT NULL AND first > ?", []any{int64(at)}, &first)
	if err != nil || !first.Valid {
		return end, err
	}
	return min(end, uint64(first.Int64)), nil
}

// pages calls f with the pages from from to before to, decrypted.
func (s *segment) pages(ctx context.Context, q querier, keys *indexKeys, from, to int, f func(page []byte) error) error {
	rows, err := q.Query(ctx, "SELECT id, sealed FROM audit_index_page WHERE id >= ? AND id < ? AND length(sealed) <= ? ORDER BY id",
		int64(s.id<<pageBits)+int64(from), int64(s.id<<pageBits)+int64(to), maxPage+indexSealing)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := from
	for ; rows.Next(); n++ {
		var id int64
		var sealed sql.RawBytes
		if err := rows.Scan(&id, &sealed); err != nil {
			return err
		}
		if id != int64(s.id<<pageBits)+int64(n) {
			return errGone
		}
		page, err := keys.open(s.id, s.first, s.last, uint64(n), sealed)
		if err != nil {
			return &damageError{s.id, err}
		}
		if err := f(page); err != nil {
			if errors.Is(err, errPage) {
				err = &damageError{s.id, err}
			}
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != to {
		return errGone
	}
	return nil
}

// lookup adds to set where a term is. scratch is overwritten.
func (s *segment) lookup(ctx context.Context, q querier, keys *indexKeys, term uint64, set bitset, scratch *[]uint32) error {
	from, to := s.directory.pages(term)
	if from == to {
		return nil
	}
	return s.pages(ctx, q, keys, from, to, func(page []byte) error {
		return find(set, page, term, s.width(), scratch)
	})
}

// segmentWriter writes one segment: its row, pages a few at a time, and last
// its directory. Until then nothing reads it, and dropSegments ends it.
type segmentWriter struct {
	db    *sqldb.DB
	keys  *indexKeys
	seg   segment
	page  []byte
	ready [][]byte // sealed, to be written
	wrote int
}

// newSegment begins a segment. What it is made of is read after this. It may
// become shorter until something is added.
func newSegment(ctx context.Context, db *sqldb.DB, keys *indexKeys, level int, first, last uint64) (*segmentWriter, error) {
	w := &segmentWriter{db: db, keys: keys, seg: segment{level: level, first: first, last: last}}
	err := db.Write(ctx, func(tx *sqldb.Tx) error {
		res, err := tx.Exec(ctx, "INSERT INTO audit_index_segment (level, first, last) VALUES (?, ?, ?)", level, int64(first), int64(last))
		if err != nil {
			return err
		}
		id, err := res.LastInsertId()
		w.seg.id = uint64(id)
		return err
	})
	return w, err
}

// add adds a term with its rising positions. Terms come in order.
func (w *segmentWriter) add(ctx context.Context, term uint64, at []uint32) error {
	for len(at) > 0 {
		n := min(len(at), maxEntry)
		if len(w.page) == 0 {
			w.seg.terms = append(w.seg.terms, term)
		}
		w.page = appendEntry(w.page, term, at[:n])
		at = at[n:]
		if len(w.page) < pageFull {
			continue
		}
		if err := w.closePage(); err != nil {
			return err
		}
		if len(w.ready) >= pagesPerWrite {
			if err := w.db.Write(ctx, func(tx *sqldb.Tx) error { return w.store(ctx, tx) }); err != nil {
				return err
			}
			w.stored()
		}
	}
	return nil
}

func (w *segmentWriter) closePage() error {
	n := w.wrote + len(w.ready)
	if n >= maxPages {
		return errors.New("a segment of the index has too many pages")
	}
	w.ready = append(w.ready, w.keys.seal(w.seg.id, w.seg.first, w.seg.last, uint64(n), w.page))
	w.page = w.page[:0]
	return nil
}

func (w *segmentWriter) store(ctx context.Context, tx *sqldb.Tx) error {
	for i, b := range w.ready {
		_, err := tx.Exec(ctx, "INSERT INTO audit_index_page (id, sealed) VALUES (?, ?)", int64(w.seg.id<<pageBits)+int64(w.wrote+i), b)
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *segmentWriter) stored() { w.wrote, w.ready = w.wrote+len(w.ready), w.ready[:0] }

// finish makes the segment take the place of those that it is made of. If
// something was erased meanwhile it returns errSuperseded.
func (w *segmentWriter) finish(ctx context.Context, of []*segment) error {
	if len(w.page) > 0 {
		if err := w.closePage(); err != nil {
			return err
		}
	}
	sealed := w.keys.seal(w.seg.id, w.seg.first, w.seg.last, theDirectory, w.seg.directory.bytes())
	err := w.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := w.store(ctx, tx); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, "UPDATE audit_index_segment SET directory = ?, last = ? WHERE id = ? AND directory IS NULL", sealed, int64(w.seg.last), int64(w.seg.id))
		if err := oneRow(res, err); err != nil {
			return err
		}
		for _, s := range of {
			res, err := tx.Exec(ctx, "UPDATE audit_index_segment SET directory = NULL WHERE id = ? AND directory IS NOT NULL", int64(s.id))
			if err := oneRow(res, err); err != nil {
				return err
			}
		}
		return nil
	})
	w.stored()
	return err
}

func oneRow(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(errSuperseded, err)
	}
	return nil
}

// removeSegment removes a segment that nothing reads any more, a few pages at a
// time.
func removeSegment(ctx context.Context, db *sqldb.DB, id uint64) error {
	for {
		var n int64
		err := db.Write(ctx, func(tx *sqldb.Tx) error {
			res, err := tx.Exec(ctx, "DELETE FROM audit_index_page WHERE id IN (SELECT id FROM audit_index_page WHERE id >= ? AND id < ? LIMIT ?)",
				int64(id<<pageBits), int64((id+1)<<pageBits), pagesPerWrite)
			if err != nil {
				return err
			}
			if n, err = res.RowsAffected(); err != nil || n == pagesPerWrite {
				return err
			}
			_, err = tx.Exec(ctx, "DELETE FROM audit_index_segment WHERE id = ?", int64(id))
			return err
		})
		if err != nil || n < pagesPerWrite {
			return err
		}
	}
}

// dropSegments removes from the index, in the transaction in which bodies of
// the events from from to before to are erased, everything that was made of
// them: the segments of these positions and those of events that belong to
// them. What is being built of them ends without effect. The index builds what
// is missing again; until then searches read the events there.
func dropSegments(ctx context.Context, tx *sqldb.Tx, from, to uint64) error {
	drop := func(from, to int64) error {
		ids, err := numbers(ctx, tx, "SELECT id FROM audit_index_segment WHERE first < ? AND last > ?", to, from)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := tx.Exec(ctx, "DELETE FROM audit_index_page WHERE id >= ? AND id < ?", id<<pageBits, (id+1)<<pageBits); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "DELETE FROM audit_index_segment WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	}
	if err := drop(int64(from), int64(to)); err != nil {
		return err
	}
	type run struct{ from, to int64 }
	parents := []run{{int64(from), int64(to)}}
	for range maxChain - 1 {
		var next []run
		for _, p := range parents {
			children, err := numbers(ctx, tx, "SELECT seq FROM audit_event WHERE of >= ? AND of < ? AND seq >= ?", p.from, p.to, p.to)
			if err != nil {
				return err
			}
			for _, c := range children {
				if err := drop(c, c+1); err != nil {
					return err
				}
				next = append(next, run{c, c + 1})
			}
		}
		parents = next
	}
	return nil
}

// numbers reads one column of whole numbers.
func numbers(ctx context.Context, q querier, query string, args ...any) (found []int64, err error) {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		found = append(found, n)
	}
	return found, rows.Err()
}

// reindex makes the index forget the events of these positions, from each first
// to before each second, and build again what it must. Erasing calls
// dropSegments in its own transaction instead, and then l.index.nudge.
func (l *Log) reindex(ctx context.Context, ranges [][2]uint64) error {
	err := l.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, r := range ranges {
			if err := dropSegments(ctx, tx, r[0], r[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rebuilding the search index: %w", err)
	}
	l.index.nudge()
	return nil
}
