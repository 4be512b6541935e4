package alert

import (
	"context"

	"ambit"
)

// Log is where events go: see gate.Log.
type Log interface {
	Appender
	Record(ambit.Event)
}

// Watched is a log whose events rules look at, once they are in it.
type Watched struct {
	log   Log
	rules *Rules
}

// Watch puts rules behind a log. The book of the rules writes to the log
// itself: alerts about alerts would have no end.
func Watch(log Log, rules *Rules) *Watched { return &Watched{log, rules} }

// Append appends to the log and returns when the event is durable and the rules
// have seen it. What the log refuses they do not see.
func (w *Watched) Append(ctx context.Context, e ambit.Event) (uint64, error) {
	seq, err := w.log.Append(ctx, e)
	if err == nil {
		w.rules.See(seq, &e)
	}
	return seq, err
}

// Record queues an event. The rules see it before it is durable; an alert that
// they make of it comes after it in the log.
func (w *Watched) Record(e ambit.Event) {
	w.log.Record(e)
	seq := uint64(0)
	if e.Of != nil {
		seq = *e.Of
	}
	w.rules.See(seq, &e)
}
