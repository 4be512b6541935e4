package audit

import (
	"context"
	"fmt"
	"slices"

	"ambit"
)

// ruleSubject is the rule of an erasure that a person asked for.
const ruleSubject = "subject"

// EraseSubject erases everything that touches a subject, as [Log.Trace] finds
// it: of a call the request too, whose stated intent may name the person. What
// is appended meanwhile is not looked at. See [Log.Erase].
func (l *Log) EraseSubject(ctx context.Context, by ambit.Principal, s ambit.Subject) (Receipt, error) {
	ranges, err := l.touched(ctx, s)
	if err != nil {
		return Receipt{Rule: ruleSubject, Events: []uint64{}}, err
	}
	return l.Erase(ctx, by, ruleSubject, ranges, &s)
}

// touched are the positions of all events of all calls that touch a subject.
func (l *Log) touched(ctx context.Context, s ambit.Subject) (ranges [][2]uint64, err error) {
	var q Query
	for {
		trail, err := l.Trace(ctx, []ambit.Subject{s}, q)
		if err != nil {
			return nil, fmt.Errorf("finding what to erase: %w", err)
		}
		for _, t := range trail.Touches {
			ranges = append(ranges, t.positions()...)
		}
		if !trail.Cut || len(trail.Touches) == 0 {
			break
		}
		last := trail.Touches[len(trail.Touches)-1].At
		q.After = &last
	}
	slices.SortFunc(ranges, func(a, b [2]uint64) int { return int(a[0]) - int(b[0]) })
	return ranges, nil
}

func (t *Touch) positions() [][2]uint64 {
	events := append(append([]ambit.Event{t.Event}, t.Approvals...), t.Others...)
	if t.Outcome != nil {
		events = append(events, *t.Outcome)
	}
	out := make([][2]uint64, len(events))
	for i, e := range events {
		out[i] = [2]uint64{e.Seq, e.Seq + 1}
	}
	return out
}
