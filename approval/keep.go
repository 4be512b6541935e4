package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"ambit/internal/sqldb"
)

// prune deletes questions that ended longer ago than they are kept.
func (s *Store) prune(ctx context.Context) error {
	if s.cfg.Keep == nil {
		return nil
	}
	keep := s.cfg.Keep(ctx)
	if keep <= 0 {
		return nil
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	before := s.now().Add(-keep).UnixMicro()
	gone := 0
	err := s.cfg.DB.Write(ctx, func(tx *sqldb.Tx) error {
		done, err := tx.Exec(ctx, "DELETE FROM approval WHERE changed < ? AND state NOT IN (?, ?, ?)", before, string(Waiting), string(Approved), string(Running))
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		gone = int(n)
		return err
	})
	if err != nil || gone > 0 {
		s.stale = true // what they covered is gone
	}
	return err
}

// Erase empties questions that are about somebody: all whose text, or result,
// about says yes to. One that waits, or is approved and not taken, expires first;
// one that runs is left, and ErrNotTaken returned once the others are empty. What
// is left is who was asked about which tool, and when. It returns how many there
// were.
func (s *Store) Erase(ctx context.Context, about func(text string) bool) (int, error) {
	if err := s.begin(ctx); err != nil {
		return 0, fmt.Errorf("erasing questions: %w", err)
	}
	defer s.mu.Unlock()
	var found []*Question
	err := s.each(ctx, func(_ int64, q *Question) { found = append(found, q) }, columns+"ORDER BY n")
	if err != nil {
		return 0, fmt.Errorf("erasing questions: %w", err)
	}
	erased, runs := 0, false
	for _, q := range found {
		if is, err := s.isAbout(ctx, q, about); err != nil {
			return erased, fmt.Errorf("erasing questions: %w", err)
		} else if !is {
			continue
		}
		if q.State == Running {
			runs = true
			continue
		}
		if q.State == Waiting {
			q.Decided = s.now()
		}
		if q.State.open() {
			q.State = Expired
		}
		// The digest goes too: it would confirm a guess.
		q.Args, q.Words, q.Intent, q.Error, q.Digest, q.Provenance, q.Size, q.ErasedAt = "null", "(erased)", "", "", "", nil, 0, s.now()
		for i := range q.Answers {
			q.Answers[i].Note = ""
		}
		if err := s.write(ctx, q); err != nil {
			return erased, fmt.Errorf("erasing questions: %w", err)
		}
		erased++
	}
	if erased > 0 {
		err = s.cfg.DB.Scrub(ctx)
	}
	if runs {
		err = errors.Join(err, fmt.Errorf("a call runs that is about them, erase again when it has ended: %w", ErrNotTaken))
	}
	return erased, err
}

func (s *Store) isAbout(ctx context.Context, q *Question, about func(string) bool) (bool, error) {
	if !q.ErasedAt.IsZero() {
		return false, nil
	}
	texts := []string{q.Args, q.Words, q.Intent, q.Error}
	for _, o := range q.Provenance {
		texts = append(texts, o.Value, o.Text)
	}
	for _, a := range q.Answers {
		texts = append(texts, a.Note)
	}
	if slices.ContainsFunc(texts, about) {
		return true, nil
	}
	if q.Size == 0 {
		return false, nil
	}
	n, err := s.number(q.ID)
	if err != nil {
		return false, err
	}
	result, err := s.result(ctx, n)
	return err == nil && about(string(result)), err
}
