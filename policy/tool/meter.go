package tool

import (
	"slices"
	"time"

	"ambit"
	"ambit/internal/money"
)

// Meters are the running totals that a decision about the call needs to know.
func (s *Set) Meters(c *ambit.ToolCall) []Meter {
	var all []Meter
	if _, bad := s.precheck(c); bad {
		return nil
	}
	for _, r := range s.choose(c.Tool).rules {
		if r.limit != nil && r.limit.Window > 0 && !slices.Contains(all, r.meter) {
			all = append(all, r.meter)
		}
	}
	return all
}

// Draws is what the call adds to the series of its meters. A call that Decide
// refuses for its arguments draws nothing.
func (s *Set) Draws(c *ambit.ToolCall) []Draw {
	meters := s.Meters(c)
	if len(meters) == 0 {
		return nil
	}
	f, err := s.examine(c)
	if err != nil {
		return nil
	}
	var all []Draw
	for _, m := range meters {
		d := Draw{m.Series, f.draw(m.Series)}
		if d.Amount > 0 && !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}

// NothingYet are the facts of an agent that has called nothing: for trying out a
// policy, never for deciding.
func (s *Set) NothingYet(c *ambit.ToolCall) Facts {
	f := Facts{Totals: map[Meter]money.Amount{}}
	for _, m := range s.Meters(c) {
		f.Totals[m] = 0
	}
	return f
}

// Spent are the facts of an agent whose calls of one hour and of one day, of
// every tool and effect, came to these totals; for trying out a policy.
type Spent struct {
	Hour, Day           map[string]money.Amount // by currency
	HourCalls, DayCalls int
}

// Facts are the facts of a call after what was spent.
func (p Spent) Facts(s *Set, c *ambit.ToolCall) Facts {
	f := s.NothingYet(c)
	for m := range f.Totals {
		amounts, calls := p.Day, p.DayCalls
		if m.Window <= time.Hour {
			amounts, calls = p.Hour, p.HourCalls
		}
		f.Totals[m] = amounts[m.Currency]
		if m.Currency == "" {
			f.Totals[m] = money.Amount(calls) * money.Unit
		}
	}
	return f
}

// Newly is a past call that one policy did not let pass and another would.
type Newly struct {
	Call          *ambit.ToolCall
	Before, After ambit.ToolVerdict
}

// Widened are those of some past calls that would newly pass without a person.
// Both policies are asked as if nothing had been spent, so that what is found
// is what the rules say and not what happened that day.
func Widened(before, after *Set, calls []*ambit.ToolCall) []Newly {
	var found []Newly
	for _, c := range calls {
		n := Newly{c, before.Decide(c, before.NothingYet(c)), after.Decide(c, after.NothingYet(c))}
		if n.Before.Decision != ambit.Allow && n.After.Decision == ambit.Allow {
			found = append(found, n)
		}
	}
	return found
}
