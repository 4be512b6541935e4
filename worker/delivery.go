package worker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"ambit"
	"ambit/gate"
)

// maxAhead is how many events the log may be ahead of sinks that must have them.
const maxAhead = 1000

// errUndelivered keeps everything from leaving until sinks have what there is.
var errUndelivered = errors.New("a sink that must have every event is behind")

// delivery is the agent's log as the gate sees it. While sinks that must have
// every event are too far behind, nothing is appended, and so nothing leaves.
// How things ended is recorded all the same, and so is what people do.
type delivery struct {
	gate.Log
	size func() uint64
	must atomic.Bool
	next atomic.Uint64 // events that every such sink has
}

// Append implements gate.Log.
func (d *delivery) Append(ctx context.Context, e ambit.Event) (uint64, error) {
	if d.must.Load() {
		if size, next := d.size(), d.next.Load(); size > next && size-next > maxAhead {
			return 0, fmt.Errorf("%w: %d events wait; `ambit audit sinks` shows why", errUndelivered, size-next)
		}
	}
	return d.Log.Append(ctx, e)
}

// set notes how far such sinks are; nil is that there are none.
func (d *delivery) set(next *uint64) {
	if next != nil {
		d.next.Store(*next)
	}
	d.must.Store(next != nil)
}

// noteDelivered is told by the control plane.
func (w *Worker) noteDelivered(_ context.Context, next *uint64) (struct{}, error) {
	w.delivery.set(next)
	return struct{}{}, nil
}
