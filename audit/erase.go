package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit"
	"ambit/internal/sqldb"
)

// Erasing goes in this order, and each step can be the last before a crash:
//
//  1. audit.erase events that name every position are durable, and in the
//     database;
//  2. transaction after transaction takes bodies away, and what else is known
//     of them ([Log.forget]);
//  3. copies that were left in the files are overwritten: unused parts of the
//     database's pages, its write-ahead log, the journal's old frames;
//  4. the database says that the events were carried out.
//
// Whoever finds an event that was not carried out does 2 to 4 again, which
// changes nothing that is done already: [Log.Finish], and every erasure before
// its own.

const (
	// maxRanges is how many ranges one audit.erase has, so that its body is
	// below 64 KiB.
	maxRanges = 1024
	// erasePositions is how many positions one transaction goes through.
	erasePositions = 1024
)

// ErrCopies says that the bodies are erased, but encrypted copies of them are
// left in unused parts of the database's files, because somebody reads it.
var ErrCopies = errors.New("copies of what was erased are left in the database's files")

// maxRule is the longest name of a rule, in bytes.
const maxRule = 256

// erasable is the condition for what can be erased at all: not what says that
// something was erased, or that nothing may be.
const erasable = "kind NOT IN ('audit.erase', 'audit.hold')"

// neverErased says the same of a kind.
func neverErased(k ambit.Kind) bool { return k == ambit.KindAuditErase || k == ambit.KindAuditHold }

// Receipt says what an erasure did.
type Receipt struct {
	Rule    string   `json:"rule"`
	Subject string   `json:"subject,omitempty"` // the log's keyed hash of who was erased
	Bodies  uint64   `json:"bodies"`            // erased now
	Already uint64   `json:"already"`           // of the given positions, those that were erased before
	Events  []uint64 `json:"events"`            // positions of the audit.erase events that announce it; none if there was nothing to erase
	Head    Head     `json:"head"`              // of the log afterwards
	// Scrubbed: no copy is left in the files. Otherwise somebody was reading
	// the database for too long, and [Log.Finish] is to be called later.
	Scrubbed bool `json:"scrubbed"`
}

// String is the receipt for a person.
func (r Receipt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Erased by rule %q: %d bodies", r.Rule, r.Bodies)
	if r.Already > 0 {
		fmt.Fprintf(&b, ", and %d had been erased before", r.Already)
	}
	b.WriteString(".\n")
	if r.Subject != "" {
		fmt.Fprintf(&b, "Subject: %s (the log's keyed hash).\n", r.Subject)
	}
	if len(r.Events) > 0 {
		var at []string
		for _, seq := range r.Events {
			at = append(at, strconv.FormatUint(seq, 10))
		}
		fmt.Fprintf(&b, "The log says so at position %s.\n", strings.Join(at, ", "))
	}
	if !r.Scrubbed {
		b.WriteString("Encrypted copies may be left in the database's file; they are overwritten as soon as nobody reads it.\n")
	}
	fmt.Fprintf(&b, "The log afterwards:\n\n%s", r.Head.Note)
	return b.String()
}

// Erase deletes the bodies of the events at positions in ranges, from each
// first to before each second, and leaves the hashes, so that everything still
// verifies. The log says first, durably, what is erased, by whom and by which
// rule; subject, if any, is whom it is about. The bodies of audit.erase and
// audit.hold events stay. It returns [ErrHeld] while there is a legal hold.
//
// After an error that came once the log said so, the receipt has the events;
// [Log.Finish], or the next erasure, erases what is left. One erasure runs at a
// time, while appends and searches go on; whoever closes the log and the
// database waits for it.
func (l *Log) Erase(ctx context.Context, by ambit.Principal, rule string, ranges [][2]uint64, subject *ambit.Subject) (Receipt, error) {
	r := Receipt{Rule: rule, Events: []uint64{}}
	if subject != nil {
		r.Subject = l.keys.subject(*subject)
	}
	if rule == "" || len(rule) > maxRule {
		return r, fmt.Errorf("erasing: the rule must have 1 to %d bytes", maxRule)
	}
	release, err := l.exclusive(ctx)
	if err != nil {
		return r, fmt.Errorf("erasing: %w", err)
	}
	defer release()
	if err := l.erase(ctx, by, &r, ranges); err != nil {
		return r, fmt.Errorf("erasing: %w", err)
	}
	return r, nil
}

// exclusive waits until no other erasure or export runs.
func (l *Log) exclusive(ctx context.Context) (release func(), err error) {
	select {
	case l.erasing <- struct{}{}:
		return func() { <-l.erasing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// erase is Erase for whoever has the exclusive right.
func (l *Log) erase(ctx context.Context, by ambit.Principal, r *Receipt, ranges [][2]uint64) error {
	if err := l.refuseHeld(ctx, l.db); err != nil {
		return err
	}
	if _, err := l.finish(ctx, math.MaxInt64); err != nil && !errors.Is(err, ErrCopies) {
		return fmt.Errorf("finishing an earlier erasure: %w", err)
	}
	if _, err := l.Head(ctx); err != nil { // what was recorded before has a position
		return err
	}
	size, err := l.settle(ctx)
	if err != nil {
		return err
	}
	ranges = merged(ranges, size)
	if err := l.announce(ctx, by, r, ranges); err != nil {
		return err
	}
	if len(r.Events) == 0 {
		r.Scrubbed = true
	} else {
		// What was just announced is carried out like what an earlier process did.
		r.Bodies, err = l.finish(ctx, int64(r.Events[0]))
		r.Scrubbed = err == nil
		if err != nil && !errors.Is(err, ErrCopies) {
			return err
		}
	}
	r.Head, err = l.Head(ctx)
	return err
}

// merged is ranges in order, without overlaps and empty ones, below size.
func merged(ranges [][2]uint64, size uint64) (result [][2]uint64) {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, func(a, b [2]uint64) int { return int(min(max(int64(a[0])-int64(b[0]), -1), 1)) })
	for _, r := range ranges {
		r[0], r[1] = min(r[0], size), min(r[1], size)
		n := len(result)
		switch {
		case r[0] >= r[1]:
		case n > 0 && r[0] <= result[n-1][1]:
			result[n-1][1] = max(result[n-1][1], r[1])
		default:
			result = append(result, r)
		}
	}
	return result
}

// announce appends the events that say what is erased, as many as the ranges
// need, and sees that they are in the database. Parts without a body to erase
// are not announced.
func (l *Log) announce(ctx context.Context, by ambit.Principal, r *Receipt, ranges [][2]uint64) error {
	for part := range slices.Chunk(ranges, maxRanges) {
		e := ambit.Erasure{Rule: r.Rule, Subject: r.Subject}
		for _, span := range part {
			bodies, gone, err := l.count(ctx, span)
			if err != nil {
				return err
			}
			r.Already += gone
			if bodies > 0 {
				e.Ranges, e.Bodies = append(e.Ranges, span), e.Bodies+bodies
			}
		}
		if e.Bodies == 0 {
			continue
		}
		seq, err := l.Append(ctx, ambit.Event{Kind: ambit.KindAuditErase, Principal: by, Decision: ambit.Allow, Erasure: &e})
		if err != nil {
			return err
		}
		r.Events = append(r.Events, seq)
	}
	_, err := l.settle(ctx)
	return err
}

// count is how many bodies of a range can be erased, and how many were.
func (l *Log) count(ctx context.Context, span [2]uint64) (bodies, gone uint64, err error) {
	err = l.db.QueryRow(ctx, "SELECT count(sealed), count(*) - count(sealed) FROM audit_event WHERE seq >= ? AND seq < ? AND "+erasable,
		[]any{int64(span[0]), int64(span[1])}, &bodies, &gone)
	return bodies, gone, err
}

// Finish carries out what audit.erase events of this log announced and a crash,
// a full disk or a hold kept from being done, and returns how many bodies that
// erased. It is cheap when there is nothing to do, and to be called when the
// log was opened. It returns [ErrHeld] if there is something to do and a hold
// forbids it, and [ErrCopies] if only copies in the database's file are left.
func (l *Log) Finish(ctx context.Context) (bodies uint64, err error) {
	release, err := l.exclusive(ctx)
	if err == nil {
		defer release()
		bodies, err = l.finish(ctx, math.MaxInt64)
	}
	if err != nil {
		return bodies, fmt.Errorf("erasing: %w", err)
	}
	return bodies, nil
}

// finish carries out what is not noted as done, and what was announced at
// position from or later in any case: the note is not trusted.
func (l *Log) finish(ctx context.Context, from int64) (bodies uint64, err error) {
	size, err := l.settle(ctx)
	if err != nil {
		return 0, err
	}
	var done, retained int64
	if err := l.db.QueryRow(ctx, "SELECT coalesce(max(done), 0), coalesce(max(retained), 0) FROM audit_erasing", nil, &done, &retained); err != nil {
		return 0, err
	}
	var last, reached uint64
	for after := min(done, from); ; {
		e, err := l.nextErasure(ctx, after)
		if err != nil {
			return bodies, err
		}
		if e == nil {
			break
		}
		n, err := l.carryOut(ctx, merged(e.Erasure.Ranges, min(e.Seq, size)))
		bodies += n
		if err != nil {
			return bodies, err
		}
		for _, r := range e.Erasure.Ranges {
			if r[0] <= max(reached, uint64(retained)) {
				reached = max(reached, r[1])
			}
		}
		last, after = e.Seq+1, int64(e.Seq)+1
	}
	if last == 0 {
		return 0, nil
	}
	if err := l.scrub(ctx); err != nil {
		return bodies, err
	}
	return bodies, l.noteErased(ctx, int64(last), int64(reached))
}

// noteErased notes how far erasing is, so that it is not looked at again.
func (l *Log) noteErased(ctx context.Context, done, retained int64) error {
	return l.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO audit_erasing (id, done, retained) VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET done = max(done, excluded.done), retained = max(retained, excluded.retained)", done, retained)
		return err
	})
}

// nextErasure is the first audit.erase from a position on, or nil.
func (l *Log) nextErasure(ctx context.Context, from int64) (*ambit.Event, error) {
	rows, err := l.db.Query(ctx, "SELECT "+rowColumns+" FROM audit_event WHERE kind = 'audit.erase' AND seq >= ? ORDER BY seq LIMIT 1", from)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	var s rowScan
	r, err := s.next(rows, true)
	if err != nil {
		return nil, err
	}
	e, err := r.event(l.keys)
	if err == nil && e.Erasure == nil {
		err = errors.New("it does not say what was erased")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: event %d: %w; run the verification", ErrTampered, r.seq, err)
	}
	return &e, nil
}

// carryOut takes the bodies of ranges, which are in order, away.
func (l *Log) carryOut(ctx context.Context, ranges [][2]uint64) (bodies uint64, err error) {
	var part [][2]uint64
	room := uint64(erasePositions)
	flush := func() error {
		n, err := l.take(ctx, part)
		bodies += n
		part, room = nil, erasePositions
		return err
	}
	for _, r := range ranges {
		for r[0] < r[1] {
			end := min(r[1], r[0]+room)
			part = append(part, [2]uint64{r[0], end})
			if room -= end - r[0]; room == 0 {
				if err := flush(); err != nil {
					return bodies, err
				}
			}
			r[0] = end
		}
	}
	if len(part) > 0 {
		err = flush()
	}
	return bodies, err
}

// take takes bodies away in one transaction, unless a hold forbids it by now.
func (l *Log) take(ctx context.Context, ranges [][2]uint64) (bodies uint64, err error) {
	var held error
	err = l.db.Write(ctx, func(tx *sqldb.Tx) error {
		bodies = 0
		if held = l.refuseHeld(ctx, tx); held != nil {
			return held
		}
		for _, r := range ranges {
			res, err := tx.Exec(ctx, "UPDATE audit_event SET sealed = NULL WHERE seq >= ? AND seq < ? AND sealed IS NOT NULL AND "+erasable, int64(r[0]), int64(r[1]))
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			bodies += uint64(n)
		}
		return l.forget(ctx, tx, ranges)
	})
	if held != nil {
		return 0, held // without the database's words
	}
	if err != nil {
		return 0, err
	}
	l.index.nudge()
	return bodies, nil
}

// forget makes the search index forget events, in the transaction in which their
// bodies go.
func (l *Log) forget(ctx context.Context, tx *sqldb.Tx, ranges [][2]uint64) error {
	for _, r := range ranges {
		if err := dropSegments(ctx, tx, r[0], r[1]); err != nil {
			return err
		}
	}
	return nil
}

// scrub overwrites copies of what was erased.
func (l *Log) scrub(ctx context.Context) error {
	if _, err := l.ask(ctx, &item{scrub: true}); err != nil {
		return err
	}
	err := l.db.Scrub(ctx)
	if errors.Is(err, sqldb.ErrBusy) {
		err = fmt.Errorf("%w: %w", ErrCopies, err)
	}
	return err
}

// Retain erases everything that is older than keep, with a rule such as
// "retention 90d"; 0 keeps everything. When nothing is due it costs a few
// reads. Each call that erases something adds an event and goes through the
// whole database, so it is meant to be called each day, or each hour.
func (l *Log) Retain(ctx context.Context, keep time.Duration) (Receipt, error) {
	r := Receipt{Rule: "retention " + days(keep), Events: []uint64{}, Scrubbed: true}
	if keep <= 0 {
		return r, nil
	}
	release, err := l.exclusive(ctx)
	if err != nil {
		return r, fmt.Errorf("erasing what is older than %s: %w", days(keep), err)
	}
	defer release()
	if err := l.retain(ctx, &r, l.clock().Add(-keep)); err != nil {
		return r, fmt.Errorf("erasing what is older than %s: %w", days(keep), err)
	}
	return r, nil
}

func (l *Log) retain(ctx context.Context, r *Receipt, before time.Time) error {
	size, err := l.settle(ctx)
	if err != nil {
		return err
	}
	to, err := l.firstAt(ctx, int64(size), before)
	if err != nil {
		return err
	}
	var from int64
	if err := l.db.QueryRow(ctx, "SELECT coalesce(max(retained), 0) FROM audit_erasing", nil, &from); err != nil {
		return err
	}
	if from >= to {
		return nil
	}
	if err := l.erase(ctx, ambit.PrincipalAmbit, r, [][2]uint64{{uint64(from), uint64(to)}}); err != nil {
		return err
	}
	if len(r.Events) > 0 {
		return nil // finish has noted it
	}
	return l.noteErased(ctx, 0, to) // there was nothing to erase in it
}

// days writes a duration as a manifest does.
func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	return d.String()
}
