package approval

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ambit"
)

// Take spends an approval, durably, before it returns: the call with this digest
// may run, once. The caller says with [Store.Finish] how it ended. digest is that
// of the call as it would run now, with the tool and the policy as they are now.
//
// Errors are ErrNotFound, ErrAgent, ErrDigest, ErrWaiting, ErrDenied, ErrExpired
// and ErrTaken.
func (s *Store) Take(ctx context.Context, id, digest string) (Question, error) {
	q, err := s.take(ctx, id, digest)
	if err != nil {
		return Question{}, fmt.Errorf("using the approval %s: %w", id, err)
	}
	return *q, nil
}

func (s *Store) take(ctx context.Context, id, digest string) (*Question, error) {
	n, err := s.number(id)
	if err != nil {
		return nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	q, err := s.read(ctx, n)
	if err != nil {
		return nil, err
	}
	switch {
	case digest != q.Digest:
		return nil, ErrDigest
	case q.State == Waiting:
		return nil, ErrWaiting
	case q.State == Denied:
		return nil, ErrDenied
	case q.State == Expired:
		return nil, ErrExpired
	case q.State != Approved:
		return nil, ErrTaken
	}
	q.State = Running
	if err := s.write(ctx, q); err != nil {
		return nil, err
	}
	return q, nil
}

// Finish says how a call that was taken ended: with a result, or with what went
// wrong. A result of more than MaxResult is not kept. It is stored also when ctx
// has ended: what happened has happened. The error is ErrNotTaken if the call does
// not run.
func (s *Store) Finish(ctx context.Context, id string, result []byte, failure string) error {
	if err := s.finish(context.WithoutCancel(ctx), id, result, failure); err != nil {
		return fmt.Errorf("noting how %s ended: %w", id, err)
	}
	return nil
}

func (s *Store) finish(ctx context.Context, id string, result []byte, failure string) error {
	n, err := s.number(id)
	if err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	q, err := s.read(ctx, n)
	if err != nil {
		return err
	}
	if q.State != Running {
		return ErrNotTaken
	}
	q.State, q.Ended, q.Size, q.Error = Done, s.now(), len(result), strings.ToValidUTF8(failure, "\uFFFD")
	if failure != "" {
		q.State = Failed
	}
	if len(result) <= MaxResult {
		q.Result = slices.Clone(result)
	}
	return s.write(ctx, q)
}

// Wait returns the question once it does not wait any more, with the result if
// there is one; at once, if it does not now. If ctx ends first it returns its
// error.
func (s *Store) Wait(ctx context.Context, id string) (Question, error) {
	for {
		q, changed, err := s.look(ctx, id)
		if err != nil {
			return Question{}, fmt.Errorf("waiting for the answer to %s: %w", id, err)
		}
		if changed == nil {
			return *q, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Question{}, fmt.Errorf("waiting for the answer to %s: %w", id, ctx.Err())
		case <-s.ctx.Done():
			return Question{}, fmt.Errorf("waiting for the answer to %s: %w", id, ErrClosed)
		}
	}
}

// Get returns a question, with the result of its call if that is kept.
func (s *Store) Get(ctx context.Context, id string) (Question, error) {
	q, _, err := s.look(ctx, id)
	if err != nil {
		return Question{}, fmt.Errorf("reading %s: %w", id, err)
	}
	return *q, nil
}

// look reads a question. changed is closed when it does not wait any more, and nil
// if it does not.
func (s *Store) look(ctx context.Context, id string) (q *Question, changed <-chan struct{}, err error) {
	n, err := s.number(id)
	if err != nil {
		return nil, nil, err
	}
	if err := s.begin(ctx); err != nil {
		return nil, nil, err
	}
	defer s.mu.Unlock()
	if q, err = s.read(ctx, n); err != nil {
		return nil, nil, err
	}
	if e := s.open[n]; e != nil {
		q.Count = e.count
		if e.state == Waiting {
			if e.changed == nil {
				e.changed = make(chan struct{})
			}
			changed = e.changed
		}
	}
	if q.Size > 0 {
		q.Result, err = s.result(ctx, n)
	}
	return q, changed, err
}

// List returns questions without their results, the newest first: those in a
// state, or all if that is "", at most limit; all if that is 0.
func (s *Store) List(ctx context.Context, state State, limit int) ([]Question, error) {
	if state != "" && !slices.Contains(States(), state) {
		return nil, fmt.Errorf("listing the questions: there is no state %q", state)
	}
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("listing the questions: %w", err)
	}
	defer s.mu.Unlock()
	if limit <= 0 {
		limit = -1
	}
	list := []Question{}
	err := s.each(ctx, func(n int64, q *Question) {
		if e := s.open[n]; e != nil {
			q.Count = e.count
		}
		list = append(list, *q)
	}, columns+"WHERE ? = '' OR state = ? ORDER BY n DESC LIMIT ?", string(state), string(state), limit)
	if err != nil {
		return nil, fmt.Errorf("listing the questions: %w", err)
	}
	return list, nil
}

// lose notes that what ran is lost. The caller holds mu.
func (s *Store) lose(ctx context.Context) error {
	var lost []*Question
	for n, e := range s.open {
		if e.state != Running {
			continue
		}
		q, err := s.read(ctx, n)
		if err != nil {
			return err
		}
		q.State, q.Ended, q.Error = Lost, s.now(), "the worker ended while the call ran; whether it happened is not known, and it is not run again"
		lost = append(lost, q)
	}
	if err := s.write(ctx, lost...); err != nil {
		return err
	}
	for _, q := range lost {
		if s.cfg.Alerts != nil {
			s.cfg.Alerts.Raise(ambit.High, "approval-lost "+q.Tool, fmt.Sprintf("%s, a call of the tool %s that people had agreed to, ran when the worker ended; whether it happened is not known: ambit approvals show %s", q.ID, q.Tool, q.ID), q.Event)
		}
	}
	return nil
}
