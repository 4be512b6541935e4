package approval

import (
	"context"
	"time"

	"ambit"
)

// expire ends what nobody decided, or took, in time. While that cannot be written
// nothing else is done either. The caller holds mu.
func (s *Store) expire(ctx context.Context) error {
	now := s.now()
	var due []*Question
	for n, e := range s.open {
		if e.state == Running || now.Before(e.expires) {
			continue
		}
		q, err := s.read(ctx, n)
		if err != nil {
			return err
		}
		if q.State == Waiting {
			q.Decided = now
		}
		q.State, q.Count = Expired, e.count
		due = append(due, q)
	}
	if err := s.write(ctx, due...); err != nil {
		return err
	}
	for _, q := range due {
		text := "nobody decided in time"
		if q.Decided.Before(now) {
			text = "nobody used the approval in time"
		}
		of := q.Event
		s.cfg.Log.Record(ambit.Event{
			Kind: ambit.KindApprovalAnswer, Agent: s.cfg.Agent, Principal: ambit.PrincipalAmbit, Of: &of, Task: q.Task, Tool: q.Tool, Resource: q.ID,
			Reason: &ambit.Reason{Code: "approval-expired", Text: text}, Detail: "digest " + q.Digest,
		})
	}
	return nil
}

// run is the one goroutine of a store: it expires what nobody reads, and deletes
// what is too old.
func (s *Store) run() {
	defer close(s.done)
	for pruned := (time.Time{}); ; {
		if now := s.now(); now.Sub(pruned) >= time.Hour {
			pruned = now
			_ = s.prune(s.ctx) // again in an hour
		}
		timer := time.NewTimer(s.pause())
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-s.nudge:
			timer.Stop()
		case <-timer.C:
			if s.begin(s.ctx) == nil { // expires; what fails is tried again
				s.mu.Unlock()
			}
		}
	}
}

// pause is how long there is nothing to do: until the next expiry, and a minute at
// the most while there is one to come, because clocks are set; a second at the
// least, because disks fail.
func (s *Store) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, now := time.Hour, s.now()
	for _, e := range s.open {
		if e.state != Running {
			wait = min(wait, time.Minute, max(time.Second, e.expires.Sub(now)))
		}
	}
	return wait
}
