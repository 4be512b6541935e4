package worker

import (
	"context"

	"ambit/audit"
)

// maxPending bounds the calls whose end a follower still waits for.
const maxPending = 1000

// follow hands the calls that match q to emit, the stored ones first: each when
// it was decided, and again when it has ended. It goes on until ctx ends.
func (w *Worker) follow(ctx context.Context, q audit.CallQuery, emit func(audit.Call) error) error {
	pending := map[uint64]bool{} // shown, and not over yet
	var next uint64              // events below it were looked at
	for first := true; ; first = false {
		size := w.audit.Size()
		list, err := w.audit.Calls(ctx, q)
		if err != nil {
			return err
		}
		for _, c := range list {
			fresh := first || c.Seq >= next
			if !fresh && !(pending[c.Seq] && c.Done) {
				continue
			}
			delete(pending, c.Seq)
			if !c.Done && len(pending) < maxPending {
				pending[c.Seq] = true
			}
			if err := emit(c); err != nil {
				return err
			}
		}
		next = size
		from := next
		for seq := range pending {
			from = min(from, seq)
		}
		q.Limit = 0
		if from > 0 {
			after := from - 1
			q.After = &after
		}
		if err := w.audit.Wait(ctx, next-1); err != nil {
			return err
		}
	}
}
