package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"ambit/internal/sqldb"
)

// ProblemKind is what a verification found wrong. The names are stable.
type ProblemKind string

// The kinds of problems.
const (
	ProblemEdited       ProblemKind = "edited"        // an event, a hash or the log's own row is not what was written
	ProblemMissing      ProblemKind = "missing"       // an event or a hash tile is gone
	ProblemTruncated    ProblemKind = "truncated"     // the log ends before a signed head: cut off, or an older copy
	ProblemForked       ProblemKind = "forked"        // the log agrees with itself and not with a head: another history
	ProblemBadSignature ProblemKind = "bad-signature" // a head is not of this log, or was changed
	ProblemTime         ProblemKind = "time"          // the time goes back
	ProblemDamaged      ProblemKind = "damaged"       // the database cannot be read further
)

// Problem is one thing that is wrong.
type Problem struct {
	Seq  uint64      `json:"seq"` // the event, or the size that a head speaks of
	Kind ProblemKind `json:"kind"`
	Text string      `json:"text"` // one sentence for a person
}

// maxProblems is how many problems a report lists.
const maxProblems = 100

// Report is the result of a verification. The zero value is not OK.
type Report struct {
	OK       bool      `json:"ok"`
	Origin   string    `json:"origin"`
	Size     uint64    `json:"size"`   // position after the last event
	Root     tlog.Hash `json:"root"`   // of all events; zero if one is missing
	Events   uint64    `json:"events"` // rows that were checked
	Erased   uint64    `json:"erased"` // of which the body was deleted
	Heads    int       `json:"heads"`  // given heads that agree
	Problems []Problem `json:"problems"`
	More     int       `json:"more,omitempty"` // problems that are not listed
}

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
// included; decrypts each body and compares it with
// its leaf; and compares the tree with the checkpoint that the log stored and
// with every given head (signed notes that were kept elsewhere). An error
// means that the log could not be checked; what is wrong with it is in the
// report. cfg.Create and cfg.Clock are not used. Memory does not depend on the
// size of the log.
func Verify(ctx context.Context, cfg Config, heads ...[]byte) (Report, error) {
	keys, err := newKeyring(cfg.Agent, cfg.Keys)
	if err != nil {
		return Report{}, fmt.Errorf("verifying the log: %w", err)
	}
	v := newVerification(cfg.DB, keys)
	v.journaled = true
	return v.check(ctx, heads)
}

// target is a head that the tree must agree with at its size.
type target struct {
	Head
	own bool // the checkpoint that the log stored
}

type verification struct {
	db        *sqldb.DB
	keys      *keyring
	journaled bool // the journal is read too
	report    Report
	targets   []target // by size, those still to come
	edge      edge
	next      uint64 // the position that must come next
	micros    int64  // time of the event before
	gap       bool   // an event is missing: no hash can be recomputed any more
	leaf      []byte
	tiles     []tile          // became full in this portion
	seen      map[uint64]bool // events with a problem
	differ    []target        // heads that do not agree
}

func newVerification(db *sqldb.DB, keys *keyring) *verification {
	v := &verification{db: db, keys: keys, seen: map[uint64]bool{}}
	v.report.Origin, v.report.Problems = keys.origin, []Problem{}
	return v
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
	own, err := readCheckpoint(ctx, v.db, v.keys)
	switch {
	case err == nil:
		v.targets = append(v.targets, target{own, true})
	case errors.Is(err, ErrTampered):
		v.problem(0, ProblemEdited, err.Error())
	default:
		return err
	}
	for i, b := range heads {
		h, err := parseHead(b, v.keys.verifier)
		if err != nil {
			v.problem(0, ProblemBadSignature, fmt.Sprintf("head %d of those given: %v", i+1, err))
			continue
		}
		v.targets = append(v.targets, target{h, false})
	}
	slices.SortStableFunc(v.targets, func(a, b target) int { return int(min(max(int64(a.Size)-int64(b.Size), -1), 1)) })

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
	v.finish()
	return nil
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
	if r.seq != v.next {
		v.problem(v.next, ProblemMissing, fmt.Sprintf("events %d to %d are missing", v.next, r.seq-1))
		v.gap, v.next = true, r.seq
	}
	v.next++
	v.report.Events++
	if r.micros < v.micros {
		v.problem(r.seq, ProblemTime, fmt.Sprintf("event %d is older than the one before it", r.seq))
	}
	v.micros = r.micros
	if r.sealed == nil {
		v.report.Erased++
	} else if _, err := r.event(v.keys); err != nil {
		v.problem(r.seq, ProblemEdited, fmt.Sprintf("event %d was changed: %v", r.seq, err))
	}
	if v.gap {
		return nil
	}
	l := r.leaf(v.keys.origin)
	v.leaf = l.AppendTo(v.leaf[:0])
	v.tiles = append(v.tiles, v.edge.add(r.seq, tlog.RecordHash(v.leaf))...)
	v.compare()
	return nil
}

// compare holds the tree against the heads of its present size.
func (v *verification) compare() {
	for len(v.targets) > 0 && v.targets[0].Size == v.next {
		t := v.targets[0]
		v.targets = v.targets[1:]
		switch {
		case t.Root != v.edge.root():
			v.differ = append(v.differ, t)
		case !t.own:
			v.report.Heads++
		}
	}
}

// checkTiles compares stored tiles with the recomputed ones. The verdict does
// not rest on stored tiles; they show which event was changed when its body is
// erased, and must themselves be right because others will read them.
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
		for i := range got.hashes {
			at := first + uint64(i)<<(tileHeight*want.level)
			if got.hashes[i] != want.hashes[i] && !v.seen[at] {
				v.problem(at, ProblemEdited, fmt.Sprintf("event %d and its stored hash do not agree (tile %d/%d)", at, want.level, want.n))
			}
		}
	}
	v.tiles = v.tiles[:0]
	return nil
}

// finish says what the heads show, knowing what the rows show.
func (v *verification) finish() {
	if !v.gap {
		v.report.Root = v.edge.root()
	}
	inside := len(v.report.Problems) > 0 || slices.ContainsFunc(v.differ, func(t target) bool { return t.own })
	for _, t := range v.differ {
		switch {
		case t.own:
			v.problem(t.Size, ProblemEdited, fmt.Sprintf("the first %d events do not give the root hash that the log signed", t.Size))
		case inside:
			v.problem(t.Size, ProblemEdited, fmt.Sprintf("the first %d events do not give the root hash of the head kept elsewhere", t.Size))
		default:
			v.problem(t.Size, ProblemForked, fmt.Sprintf("the head kept elsewhere, of size %d, belongs to another history than the one that is here: the log was written anew, or goes on from an older copy", t.Size))
		}
	}
	for _, t := range v.targets { // not reached
		if t.Size <= v.report.Size {
			continue // behind a gap, which is a problem already
		}
		whose := "the head kept elsewhere"
		if t.own {
			whose = "the log's own checkpoint"
		}
		v.problem(v.report.Size, ProblemTruncated, fmt.Sprintf("%s is of size %d, but the log ends after %d events: the end was cut off, or an older copy was put in its place", whose, t.Size, v.report.Size))
	}
}

func (v *verification) problem(seq uint64, kind ProblemKind, text string) {
	if len(v.report.Problems) >= maxProblems {
		v.report.More++
		return
	}
	v.seen[seq] = true
	v.report.Problems = append(v.report.Problems, Problem{seq, kind, text})
}
