package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit"
)

const (
	// maxResults is the most that one search returns, and maxWeight about how
	// many bytes of events.
	maxResults = 10_000
	maxWeight  = 24 << 20
)

// notable is the condition of the index audit_event_notable, word for word.
const notable = "NOT (kind = 'egress.outcome' OR (kind = 'egress.request' AND decision = 1))"

// searchColumns finds events by their columns alone.
func (l *Log) searchColumns(ctx context.Context, q *Query, from, to int64) ([]ambit.Event, error) {
	var c conditions
	c.add("seq >= ? AND seq < ?", from, to)
	if len(q.Kinds) > 0 {
		c.add("kind IN (?"+strings.Repeat(", ?", len(q.Kinds)-1)+")", kindArgs(q.Kinds)...)
	}
	if q.Decision != nil {
		c.add("decision = ?", int64(*q.Decision))
	}
	if onlyNotable(q) {
		c.add(notable)
	}
	order := "seq"
	if q.Newest {
		order = "seq DESC"
	}
	rows, err := l.db.Query(ctx, "SELECT "+rowColumns+" FROM audit_event WHERE "+c.String()+" ORDER BY "+order+" LIMIT ?",
		append(c.args, limit(q.Limit))...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	events := []ambit.Event{}
	var s rowScan
	for weight := 0; rows.Next() && weight < maxWeight; {
		r, err := s.next(rows, true)
		if err != nil {
			return nil, err
		}
		weight += len(r.sealed)
		events = append(events, l.show(r))
	}
	return events, rows.Err()
}

// onlyNotable reports whether the query asks for nothing but notable events.
func onlyNotable(q *Query) bool {
	denied := q.Decision != nil && *q.Decision == ambit.Deny
	return len(q.Kinds) > 0 && !slices.ContainsFunc(q.Kinds, func(k ambit.Kind) bool {
		return k == ambit.KindEgressOutcome || k == ambit.KindEgressRequest && !denied
	})
}

func kindArgs(kinds []ambit.Kind) (args []any) {
	for _, k := range kinds {
		args = append(args, string(k))
	}
	return args
}

// conditions builds the WHERE of a query. Texts are constants; values are
// arguments.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) add(term string, args ...any) {
	c.terms, c.args = append(c.terms, term), append(c.args, args...)
}

func (c *conditions) String() string { return strings.Join(c.terms, " AND ") }

func limit(n int) int {
	if n <= 0 || n > maxResults {
		return maxResults
	}
	return n
}

// show is the event of a row as far as it can be shown.
func (l *Log) show(r *row) ambit.Event {
	e, _ := l.read(r)
	return e
}

// read is the event of a row, and whether that is what its body says. Otherwise
// it is made of the columns, with a Detail that says why.
func (l *Log) read(r *row) (ambit.Event, bool) {
	var detail string
	if r.sealed == nil {
		detail = "(erased)"
	} else if e, err := r.event(l.keys); err == nil {
		return e, true
	} else {
		detail = fmt.Sprintf("(this entry was changed: %v; run the verification)", err)
	}
	e := ambit.Event{Seq: r.seq, Time: time.UnixMicro(r.micros).UTC(), Kind: r.kind, Agent: l.agent, Detail: detail}
	if r.decision == int64(ambit.Allow) {
		e.Decision = ambit.Allow
	}
	if r.of.Valid {
		of := uint64(r.of.Int64)
		e.Of = &of
	}
	return e, false
}

// span turns times and positions into the positions from (included) and to
// (excluded). Times never go back, so they are found by bisection without an
// index. What is in the journal only is settled first.
func (l *Log) span(ctx context.Context, since, until time.Time, after, before *uint64) (from, to int64, err error) {
	settled, err := l.settle(ctx)
	if err != nil {
		return 0, 0, err
	}
	size := int64(settled)
	to = size
	if after != nil {
		from = int64(min(*after, uint64(size))) + 1
	}
	if before != nil {
		to = int64(min(*before, uint64(size)))
	}
	if !since.IsZero() {
		n, err := l.firstAt(ctx, size, since)
		if err != nil {
			return 0, 0, err
		}
		from = max(from, n)
	}
	if !until.IsZero() {
		n, err := l.firstAt(ctx, size, until)
		if err != nil {
			return 0, 0, err
		}
		to = min(to, n)
	}
	return from, to, nil
}

// firstAt is the position of the first event that is not older than t.
func (l *Log) firstAt(ctx context.Context, size int64, t time.Time) (int64, error) {
	micros := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		micros++
	}
	low, high := int64(0), size
	for low < high {
		mid := low + (high-low)/2
		var at int64
		err := l.db.QueryRow(ctx, "SELECT time FROM audit_event WHERE seq >= ? ORDER BY seq LIMIT 1", []any{mid}, &at)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return 0, err
		}
		if err != nil || at >= micros {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low, nil
}

// CallQuery says which calls to find.
type CallQuery struct {
	Denied bool      // only what was refused
	Since  time.Time // not older than this
	After  *uint64   // position above this
	Limit  int       // the last so many; 10,000 if 0 or more than that
}

// Call is one egress request, or a name that was refused, with its outcome.
type Call struct {
	Seq      uint64         `json:"seq"`
	Time     time.Time      `json:"time"`
	Action   ambit.Action   `json:"action"`
	Method   string         `json:"method,omitempty"`
	Host     string         `json:"host"`
	URL      string         `json:"url"`
	Intent   string         `json:"intent,omitempty"`
	Decision ambit.Decision `json:"decision"`
	Rule     string         `json:"rule,omitempty"`
	Reason   *ambit.Reason  `json:"reason,omitempty"`
	Status   int            `json:"status,omitempty"`   // from upstream; 0 if none came
	BytesOut int64          `json:"bytesOut,omitempty"` // body bytes sent
	BytesIn  int64          `json:"bytesIn,omitempty"`  // body bytes received
	Duration time.Duration  `json:"duration,omitempty"` // nanoseconds
	Detail   string         `json:"detail,omitempty"`   // what went wrong, if something did
	// Done: the outcome is known, or there is none because it was refused. An
	// allowed call that stays undone was running when the worker died.
	Done bool `json:"done"`
}

// Calls returns the last calls that match, oldest first.
func (l *Log) Calls(ctx context.Context, q CallQuery) ([]Call, error) {
	from, to, err := l.span(ctx, q.Since, time.Time{}, q.After, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the calls: %w", err)
	}
	where := "seq >= ? AND seq < ? AND kind IN ('egress.request', 'egress.name')"
	if q.Denied {
		where += " AND decision = 0 AND " + notable
	}
	calls := []Call{}
	var outcomes []ambit.Event
	for _, part := range []struct {
		query string
		each  func(ambit.Event)
	}{
		{"SELECT " + rowColumns + " FROM audit_event WHERE " + where + " ORDER BY seq DESC LIMIT ?",
			func(e ambit.Event) { calls = append(calls, newCall(e)) }},
		{"SELECT " + rowColumns + " FROM audit_event WHERE kind = 'egress.outcome' AND of IS NOT NULL AND of IN (SELECT seq FROM audit_event WHERE " + where + " ORDER BY seq DESC LIMIT ?)",
			func(e ambit.Event) { outcomes = append(outcomes, e) }},
	} {
		if err := l.each(ctx, part.each, part.query, from, to, limit(q.Limit)); err != nil {
			return nil, fmt.Errorf("reading the calls: %w", err)
		}
	}
	slices.Reverse(calls)
	for i := range outcomes {
		finish(calls, &outcomes[i])
	}
	return calls, nil
}

func (l *Log) each(ctx context.Context, f func(ambit.Event), query string, args ...any) error {
	rows, err := l.db.Query(ctx, query, args...)
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
		f(l.show(r))
	}
	return rows.Err()
}

func newCall(e ambit.Event) Call {
	return Call{
		Seq: e.Seq, Time: e.Time, Action: e.Action, Method: e.Method, Host: e.Host, URL: e.URL, Intent: e.Intent,
		Decision: e.Decision, Rule: e.Rule, Reason: e.Reason, Detail: e.Detail, Done: e.Decision != ambit.Allow,
	}
}

// finish puts an outcome into its call; calls are in order of position. The
// first outcome counts.
func finish(calls []Call, o *ambit.Event) {
	i, ok := slices.BinarySearchFunc(calls, *o.Of, func(c Call, seq uint64) int { return int(min(max(int64(c.Seq)-int64(seq), -1), 1)) })
	if !ok || calls[i].Done {
		return
	}
	c := &calls[i]
	c.Status, c.BytesOut, c.BytesIn, c.Duration, c.Done = o.Status, o.BytesOut, o.BytesIn, o.Duration, true
	if o.Detail != "" {
		c.Detail = o.Detail
	}
}
