package approval

import (
	"context"
	"fmt"

	"ambit"
)

// Covered is a yes that goes further than one call: what package flow asks about
// a value before it asks a person again.
type Covered struct {
	Question   string         // which says who agreed, and when
	Event      uint64         // of the question
	Tool       string         // that was asked about
	Effects    []ambit.Effect // of that tool
	Cover      Cover          // Value or Source
	Provenance []Origin       // the values, and their sources
}

// covered is what a question covers beyond its call; false if nothing.
func (q *Question) covered() (Covered, bool) {
	agreed := q.State == Approved || q.State == Running || q.State == Done || q.State == Failed || q.State == Lost
	c := q.Cover()
	if !agreed || c == Once || q.Task == "" || len(q.Provenance) == 0 || !q.ErasedAt.IsZero() {
		return Covered{}, false
	}
	return Covered{Question: q.ID, Event: q.Event, Tool: q.Tool, Effects: q.Effects, Cover: c, Provenance: q.Provenance}, true
}

// Covers are what people agreed to for the rest of a task, oldest first. It does
// no input or output, but where a write has failed before. The lists inside must
// not be changed.
func (s *Store) Covers(ctx context.Context, task string) ([]Covered, error) {
	if task == "" {
		return nil, nil
	}
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("reading what people agreed to: %w", err)
	}
	defer s.mu.Unlock()
	return append([]Covered(nil), s.covers[task]...), nil
}

// forget takes what a question covered out of memory. The caller holds mu.
func (s *Store) forget(q *Question) {
	kept := []Covered{}
	for _, c := range s.covers[q.Task] {
		if c.Question != q.ID {
			kept = append(kept, c)
		}
	}
	if s.covers[q.Task] = kept; len(kept) == 0 {
		delete(s.covers, q.Task)
	}
}
