package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"ambit"
)

const (
	// rowsFirst is how many rows a search reads at first, and rowsMost at most:
	// one that ends early shall not have read much for nothing.
	rowsFirst = 32
	rowsMost  = 512
	// rowsWeight bounds the bytes of rows in memory.
	rowsWeight = 4 << 20
	// fewCandidates is how many are looked at rather than asking the index on.
	fewCandidates = 8
)

// Search returns the events that match, each by itself: an outcome does not
// match for what its request says. [Log.Find] joins them. An event whose body
// was erased has only Seq, Time, Kind, Agent, Decision and Of, and a Detail that
// says so; one that was changed behind the log's back likewise. Of large events
// it returns fewer than asked for, but one: then there may be more.
func (l *Log) Search(ctx context.Context, q Query) ([]ambit.Event, error) {
	events, weight, most := []ambit.Event{}, 0, limit(q.Limit)
	m, from, to, err := l.prepare(ctx, &q)
	if err == nil && m.onlyColumns() && !m.all {
		events, err = l.searchColumns(ctx, &q, int64(from), int64(to))
	} else if err == nil {
		err = l.eachMatch(ctx, m, from, to, q.Newest, func(f found) error {
			events = append(events, f.shown)
			if weight += f.weight; len(events) >= most || weight >= maxWeight {
				return errEnough
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("searching the log: %w", err)
	}
	return events, nil
}

// Each calls f with every event that matches, each by itself as for
// [Log.Search], until f returns an error, which it returns. Limit counts if it
// is not 0; there is no other bound. Events that are appended meanwhile are not
// looked at. Memory does not depend on how many there are.
func (l *Log) Each(ctx context.Context, q Query, f func(ambit.Event) error) error {
	m, from, to, err := l.prepare(ctx, &q)
	if err != nil {
		return fmt.Errorf("searching the log: %w", err)
	}
	n := 0
	var ferr error
	err = l.eachMatch(ctx, m, from, to, q.Newest, func(e found) error {
		if ferr = f(e.shown); ferr != nil {
			return errEnough
		}
		if n++; q.Limit > 0 && n >= q.Limit {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("searching the log: %w", err)
	}
	return ferr
}

func (l *Log) prepare(ctx context.Context, q *Query) (m *matcher, from, to uint64, err error) {
	if m, err = l.matcher(q); err != nil {
		return nil, 0, 0, err
	}
	first, end, err := l.span(ctx, q.Since, q.Until, q.After, q.Before)
	return m, uint64(first), uint64(max(first, end)), err
}

// found is one event as it is shown.
type found struct {
	shown  ambit.Event
	read   bool // the body was there and right; otherwise shown has the columns
	erased bool
	weight int // bytes, about
}

func (l *Log) decode(r *row) found {
	f := found{erased: r.sealed == nil, weight: len(r.sealed) + 256}
	f.shown, f.read = l.read(r)
	return f
}

// known is what is known of the event.
func (f *found) known() *ambit.Event {
	if f.read {
		return &f.shown
	}
	e := f.shown
	e.Detail = "" // ours
	return &e
}

// eachMatch calls f with each event that matches by itself, until it returns
// errEnough.
func (l *Log) eachMatch(ctx context.Context, m *matcher, from, to uint64, newest bool, f func(found) error) error {
	err := l.eachPart(ctx, m, from, to, newest, func(p part) error {
		return l.eachBatch(ctx, p, newest, func(rows []row) error {
			for i := range rows {
				if !m.mayMatch(&rows[i]) {
					continue
				}
				e := l.decode(&rows[i])
				if !m.matches(e.known()) {
					continue
				}
				if err := f(e); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// mayMatch says whether the columns of a row let it match by itself.
func (m *matcher) mayMatch(r *row) bool {
	e := ambit.Event{Kind: r.kind}
	if r.decision == int64(ambit.Allow) {
		e.Decision = ambit.Allow
	}
	for i := range m.tests {
		if m.tests[i].columns && !m.tests[i].holds(&e) {
			return false
		}
	}
	return true
}

// part is a run of positions, and which of them may match.
type part struct {
	from, to uint64
	indexed  bool
	at       []uint64 // of an indexed one: what may match, in the order of positions
	// Of an indexed one: how many do not name all subjects, have no body, or
	// were not looked through as a whole.
	more, erased, unseen uint64
}

// eachPart calls f with the parts of the positions from from to before to, in
// order or from the end. What the index cannot tell about is a part that is not
// indexed, of at most rowsPerRead positions.
func (l *Log) eachPart(ctx context.Context, m *matcher, from, to uint64, newest bool, f func(part) error) error {
	asked := slices.ContainsFunc(m.tests, func(t test) bool { return t.terms != nil })
	for tries := 0; from < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := part{from: from, to: min(to, from+rowsPerRead)}
		if newest {
			p = part{from: max(from, to-min(to, rowsPerRead)), to: to}
		}
		if asked && !m.all {
			var err error
			p, err = l.nextPart(ctx, m, from, to, newest)
			if errors.Is(err, errGone) && tries < 3 {
				tries++ // it was merged or rebuilt
				continue
			}
			if d := (*damageError)(nil); errors.As(err, &d) || errors.Is(err, errGone) {
				if d != nil {
					l.index.report(d.id)
				}
				p.indexed, err = false, nil
				if newest {
					p.from = max(p.from, p.to-min(p.to, rowsPerRead))
				} else {
					p.to = min(p.to, p.from+rowsPerRead)
				}
			}
			if err != nil {
				return err
			}
		}
		tries = 0
		if err := f(p); err != nil {
			return err
		}
		if newest {
			to = p.from
		} else {
			from = p.to
		}
	}
	return nil
}

// nextPart is the first part of a span, or the last. With an error it has the
// positions that the error is about.
func (l *Log) nextPart(ctx context.Context, m *matcher, from, to uint64, newest bool) (part, error) {
	at := from
	if newest {
		at = to - 1
	}
	s, err := segmentAt(ctx, l.db, l.index.keys, at)
	if s != nil && err == nil && s.last > at {
		p := part{from: max(from, s.first), to: min(to, s.last), indexed: true}
		return p, l.candidates(ctx, m, s, &p)
	}
	p := part{from: from, to: to}
	if err == nil || s != nil { // what is before, or after, the segment that was found
		if newest {
			if s != nil && err == nil {
				p.from = max(from, s.last)
			}
			p.from = max(p.from, to-min(to, rowsPerRead))
		} else {
			end, aerr := segmentAfter(ctx, l.db, at, to)
			if aerr != nil {
				return p, aerr
			}
			p.to = min(end, from+rowsPerRead)
		}
	}
	return p, err
}

// candidates asks a segment what may match.
func (l *Log) candidates(ctx context.Context, m *matcher, s *segment, p *part) error {
	var scratch []uint32
	low, high := p.from-s.first, p.to-s.first
	marked := func(flag byte) (bitset, error) {
		set := newBitset(s.width())
		if s.flags&flag == 0 {
			return set, nil
		}
		err := s.lookup(ctx, l.db, l.index.keys, l.index.marks[flag], set, &scratch)
		set.cut(low, high)
		return set, err
	}
	var all bitset
	for i := range m.tests {
		if m.tests[i].terms == nil {
			continue
		}
		if all != nil && all.count() <= fewCandidates {
			break
		}
		set := newBitset(s.width())
		for _, t := range m.tests[i].terms {
			if err := s.lookup(ctx, l.db, l.index.keys, t, set, &scratch); err != nil {
				return err
			}
		}
		if all == nil {
			all = set
			all.cut(low, high)
		} else {
			all.and(set)
		}
	}
	unread, err := marked(hasUnread)
	if err != nil {
		return err
	}
	all.or(unread)
	p.at = all.list(s.first)
	if !m.counts {
		return nil
	}
	for _, c := range []struct {
		flag byte
		n    *uint64
	}{{hasMore, &p.more}, {hasErased, &p.erased}, {hasUnseen, &p.unseen}} {
		set, err := marked(c.flag)
		if err != nil {
			return err
		}
		*c.n = uint64(set.count())
	}
	return nil
}

// eachBatch calls f with the rows of a part that may match, a few at a time. No
// query is open meanwhile.
func (l *Log) eachBatch(ctx context.Context, p part, newest bool, f func([]row) error) error {
	if newest {
		slices.Reverse(p.at)
	}
	from, to := p.from, p.to
	for n := rowsFirst; ; n = min(2*n, rowsMost) {
		var rows []row
		var err error
		if p.indexed {
			n = min(n, len(p.at))
			if n == 0 {
				return nil
			}
			rows, _, err = collectRows(ctx, l.db, rowsAt, newest, n, jsonNumbers(p.at[:n]))
		} else {
			if from >= to {
				return nil
			}
			rows, _, err = collectRows(ctx, l.db, rowsIn, newest, n, int64(from), int64(to))
		}
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			if err := f(rows); err != nil {
				return err
			}
		}
		switch {
		case p.indexed: // rows that are missing are passed over
			done := n
			if len(rows) > 0 {
				last := rows[len(rows)-1].seq
				done = slices.Index(p.at[:n], last) + 1
			}
			p.at = p.at[done:]
		case len(rows) == 0:
			return nil
		case newest:
			to = rows[len(rows)-1].seq
		default:
			from = rows[len(rows)-1].seq + 1
		}
	}
}

// Which rows collectRows reads.
const (
	rowsAt = "seq IN (SELECT value FROM json_each(?))"
	rowsIn = "seq >= ? AND seq < ?"
	rowsOf = "of IS NOT NULL AND of IN (SELECT value FROM json_each(?))" // as the index on it wants it
)

// collectRows reads up to n rows. If they are large it reads fewer, but at least
// one, and says that there may be more.
func collectRows(ctx context.Context, q querier, where string, newest bool, n int, args ...any) (all []row, more bool, err error) {
	order := "seq"
	if newest {
		order = "seq DESC"
	}
	rows, err := q.Query(ctx, "SELECT "+rowColumns+" FROM audit_event WHERE "+where+" ORDER BY "+order+" LIMIT ?", append(args, n)...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	var s rowScan
	for weight := 0; rows.Next(); {
		r, err := s.next(rows, true)
		if err != nil {
			return nil, false, err
		}
		one := *r
		one.sealed = bytes.Clone(r.sealed)
		all = append(all, one)
		if weight += len(one.sealed); weight >= rowsWeight {
			return all, true, nil
		}
	}
	return all, false, rows.Err()
}

// jsonNumbers is a list as json_each reads it.
func jsonNumbers(n []uint64) string {
	b := []byte{'['}
	for i, v := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(v), 10)
	}
	return string(append(b, ']'))
}

// Events returns the events from position from on as they are, in order, at most
// limit of them, and where to go on. Those without a body, or with one that was
// changed, are left out.
func (l *Log) Events(ctx context.Context, from uint64, limit int) (events []ambit.Event, next uint64, err error) {
	size, err := l.settle(ctx)
	if err != nil {
		return nil, from, fmt.Errorf("reading the log: %w", err)
	}
	events, next = []ambit.Event{}, from
	for weight := 0; next < size && len(events) < limit && weight < rowsWeight; {
		rows, _, err := collectRows(ctx, l.db, rowsIn, false, min(limit-len(events), rowsMost), int64(next), int64(size))
		if err != nil {
			return nil, from, fmt.Errorf("reading the log: %w", err)
		}
		if len(rows) == 0 {
			return events, size, nil
		}
		for i := range rows {
			f := l.decode(&rows[i])
			next = rows[i].seq + 1
			if f.read {
				weight += f.weight
				events = append(events, f.shown)
			}
		}
	}
	return events, next, nil
}

// Matcher returns what says whether an event matches a query by itself; Limit,
// Newest, After and Before do not count.
func (l *Log) Matcher(q Query) (func(ambit.Event) bool, error) {
	m, err := l.matcher(&q)
	if err != nil {
		return nil, err
	}
	return func(e ambit.Event) bool {
		return !e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until)) && m.matches(&e)
	}, nil
}
