package approval

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Stats says how people answer about one tool.
type Stats struct {
	Tool     string        `json:"tool"` // "" is all of them
	Asked    int           `json:"asked"`
	Waiting  int           `json:"waiting"`
	Approved int           `json:"approved"` // whatever came of it then
	Denied   int           `json:"denied"`
	Expired  int           `json:"expired"` // nobody answered
	Median   time.Duration `json:"median"`  // from the question to the decision, nanoseconds; 0 if there is none
	Yes      float64       `json:"yes"`     // share of the decisions, 0 to 1
	Quick    float64       `json:"quick"`   // share of the decisions that came within QuickAnswer: people who stop reading
}

// QuickAnswer is how fast nobody reads a call.
const QuickAnswer = 5 * time.Second

// Stats counts the questions that are kept: first all of them, then by tool.
func (s *Store) Stats(ctx context.Context) ([]Stats, error) {
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("counting the questions: %w", err)
	}
	defer s.mu.Unlock()
	counts := map[string]*tally{"": {}}
	err := s.each(ctx, func(_ int64, q *Question) {
		if counts[q.Tool] == nil {
			counts[q.Tool] = &tally{Stats: Stats{Tool: q.Tool}}
		}
		counts[q.Tool].add(q)
		counts[""].add(q)
	}, columns+"ORDER BY n")
	if err != nil {
		return nil, fmt.Errorf("counting the questions: %w", err)
	}
	out := []Stats{}
	for _, t := range counts {
		out = append(out, t.total())
	}
	slices.SortFunc(out, func(a, b Stats) int { return strings.Compare(a.Tool, b.Tool) })
	return out, nil
}

type tally struct {
	Stats
	took []time.Duration
}

func (t *tally) add(q *Question) {
	t.Asked++
	people := len(q.Answers) > 0 && q.Answers[len(q.Answers)-1].Time.Equal(q.Decided)
	switch {
	case q.State == Waiting:
		t.Waiting++
		return
	case q.State == Denied:
		t.Denied++
	case q.State == Expired && !people:
		t.Expired++
		return
	default:
		t.Approved++
	}
	t.took = append(t.took, q.Decided.Sub(q.Asked))
}

func (t *tally) total() Stats {
	if n := len(t.took); n > 0 {
		slices.Sort(t.took)
		t.Median = t.took[n/2]
		t.Yes = float64(t.Approved) / float64(n)
		quick := 0
		for _, d := range t.took {
			if d < QuickAnswer {
				quick++
			}
		}
		t.Quick = float64(quick) / float64(n)
	}
	return t.Stats
}
