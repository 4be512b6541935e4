package audit

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/internal/sqldb"
)

// row is one row of audit_event. Every field is as untrusted as the file.
type row struct {
	seq        uint64
	micros     int64
	kind       ambit.Kind
	decision   int64
	of         sql.NullInt64
	commitment [sha256.Size]byte
	sealed     []byte // nil once erased
}

const rowColumns = "seq, time, kind, decision, of, commitment, sealed"

// insertRows is how many rows one statement inserts when there are enough.
const insertRows = 16

// rowsPerRead bounds how long one read holds the database's snapshot.
const rowsPerRead = 1024

// rowScan is what a row is scanned into; it is reused for row after row.
type rowScan struct {
	row
	raw, commit sql.RawBytes
}

// next scans the current row. The result is valid until the next call.
func (s *rowScan) next(rows *sqldb.Rows, body bool) (*row, error) {
	var seq int64
	if err := rows.Scan(&seq, &s.micros, (*string)(&s.kind), &s.decision, &s.of, &s.commit, &s.raw); err != nil {
		return nil, err
	}
	s.seq = uint64(seq) // a negative position becomes one that cannot follow any other
	s.commitment = [sha256.Size]byte{}
	if len(s.commit) == sha256.Size { // any other length is not what was hashed, and zeros are not either
		copy(s.commitment[:], s.commit)
	}
	s.sealed = nil
	if body && s.raw != nil {
		s.sealed = s.raw
	}
	return &s.row, nil
}

// eachRow calls f with each row from position from on, in order. The row is
// valid only during the call. It reads in portions, so that a long walk does
// not keep the database from reclaiming its write-ahead log: rows that exist
// do not change, except that bodies are erased.
func eachRow(ctx context.Context, q querier, from uint64, bodies bool, f func(*row) error) error {
	for {
		n, last, err := readRows(ctx, q, from, bodies, rowsPerRead, f)
		if err != nil || n < rowsPerRead {
			return err
		}
		from = last + 1
	}
}

// readRows calls f with at most limit rows from position from on.
func readRows(ctx context.Context, q querier, from uint64, bodies bool, limit int, f func(*row) error) (n int, last uint64, err error) {
	rows, err := q.Query(ctx, "SELECT "+rowColumns+" FROM audit_event WHERE seq >= ? ORDER BY seq LIMIT ?", int64(from), limit)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	var s rowScan
	for ; rows.Next(); n++ {
		r, err := s.next(rows, bodies)
		if err != nil {
			return n, last, err
		}
		last = r.seq
		if err := f(r); err != nil {
			return n, last, err
		}
	}
	return n, last, rows.Err()
}

// leaf is the leaf that the row's columns make.
func (r *row) leaf(origin string) Leaf {
	return Leaf{Origin: origin, Seq: r.seq, Micros: r.micros, Kind: r.kind, Commitment: r.commitment}
}

// leafHash is its hash.
func (r *row) leafHash(origin string) tlog.Hash {
	l := r.leaf(origin)
	return tlog.RecordHash(l.AppendTo(nil))
}

// event decrypts the row's body and checks it against the commitment and the
// columns. An error says what differs.
func (r *row) event(keys *keyring) (ambit.Event, error) {
	e, _, _, err := r.open(keys)
	return e, err
}

// open is event, with the body's bytes and the salt that opens the commitment.
func (r *row) open(keys *keyring) (e ambit.Event, salt, body []byte, err error) {
	if salt, body, err = keys.unseal(r.seq, r.sealed, r.commitment); err == nil {
		e, err = r.read(body)
	}
	return e, salt, body, err
}

// read reads a body and checks it against the columns.
func (r *row) read(body []byte) (ambit.Event, error) {
	e, err := decodeBody(body)
	if err != nil {
		return ambit.Event{}, err
	}
	switch {
	case e.Seq != r.seq:
		return e, fmt.Errorf("its body is that of event %d", e.Seq)
	case e.Time.UnixMicro() != r.micros:
		return e, fmt.Errorf("its time is not that of its body, %s", e.Time.Format(time.RFC3339Nano))
	case e.Kind != r.kind:
		return e, fmt.Errorf("its kind is not that of its body, %s", e.Kind)
	case int64(e.Decision) != r.decision:
		return e, fmt.Errorf("its decision is not that of its body, %s", e.Decision)
	case (e.Of != nil) != r.of.Valid || e.Of != nil && int64(*e.Of) != r.of.Int64:
		return e, fmt.Errorf("the event it belongs to is not that of its body")
	}
	return e, nil
}

// decodeBody reads the JSON of a body. Fields that this version does not know
// are ignored: a later one may add some.
func decodeBody(body []byte) (e ambit.Event, err error) {
	if readBody(string(body), &e) {
		return e, nil
	}
	e = ambit.Event{}
	if err := json.Unmarshal(body, &e); err != nil {
		return ambit.Event{}, fmt.Errorf("reading its body: %w", err)
	}
	return e, nil
}
