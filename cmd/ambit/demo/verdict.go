//go:build linux

package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit"
	"ambit/audit"
)

// result is the whole of a run, for scripts.
type result struct {
	Home    string `json:"home"`
	Work    []step `json:"work"`
	Attacks []step `json:"attacks"`
	// Account is how the agent used an account without having its key.
	Account struct {
		Reference   string   `json:"reference"`   // what it has for the account
		Environment []string `json:"environment"` // all that it could show
		After       step     `json:"after"`       // what it tried once the account was revoked
	} `json:"account"`
	Refunds refunds  `json:"refunds"` // what it did with money
	Trace   []string `json:"trace"`   // what the log knows of one customer's data
	Changed uint64   `json:"changed"` // the event of which a byte was changed
	Found   []string `json:"found"`   // what the verification said of that
	Ways    int      `json:"ways"`    // out that were tried
	Refused int      `json:"refused"` // of these, with every try refused
	Log     string   `json:"log"`     // root of support's verified log
	Events  uint64   `json:"events"`
	Seen    int      `json:"seen"` // requests that reached the shop
}

// step is one thing that the agent did and how it went.
type step struct {
	Attack bool          `json:"attack"` // and not its work
	Name   string        `json:"name"`   // of the way out, or of the work
	What   string        `json:"what"`   // exactly
	Passed bool          `json:"passed"`
	Status int           `json:"status,omitempty"`
	Took   time.Duration `json:"took"`           // nanoseconds, as the agent's program saw it
	Rule   string        `json:"rule,omitempty"` // of the log
	Why    string        `json:"why,omitempty"`  // a refusal's reason, of the log if there is a call
	Calls  []audit.Call  `json:"calls"`          // what the log has
	// Tools are the tool calls of the log, and Question what one of them waits for.
	Tools    []audit.Touch `json:"tools,omitempty"`
	Question string        `json:"question,omitempty"`
	got      string
}

// judge decides how a thing went. It passed if anything of it was allowed or
// answered; the agent's word alone never makes it refused.
func judge(a action, calls []audit.Call) step {
	st := step{Name: a.Doing, What: a.Line, Status: a.Status, Took: a.Took, Calls: calls, Why: a.Error, got: a.Got}
	denied := slices.ContainsFunc(calls, func(c audit.Call) bool { return c.Decision != ambit.Allow })
	for _, c := range calls {
		if c.Decision == ambit.Allow {
			st.Passed = true
			st.Rule = c.Rule
		} else if !st.Passed {
			st.Rule = c.Rule
			if c.Reason != nil {
				st.Why = c.Reason.Text
			}
		}
	}
	if a.worked() || a.Status != 0 && !denied {
		st.Passed = true
	}
	return st
}

// check fills in what there is to say about the whole, and fails with a
// *LeakError if anything passed that must not.
func (s *stage) check(ctx context.Context, plan []attack, r *result) error {
	for _, st := range r.Work {
		if !st.Passed || st.Status/100 != 2 {
			return fmt.Errorf("%s was to work and did not: %s", st.What, st.Why)
		}
	}
	leaks := slices.Concat(r.judge(plan, s.shop.requests(), s.canary), r.judgeAccount(s.shop.keys), r.Refunds.judge(), r.judgeLog())
	v, err := s.plane.client.Verify(ctx, support, nil)
	if err != nil {
		return fmt.Errorf("verifying the log: %w", err)
	}
	if !v.OK {
		leaks = append(leaks, fmt.Sprintf("the log of %s is not whole: %v %s", support, v.Report.Problems, v.Witness))
	}
	r.Log, r.Events = v.Report.Root.String(), v.Report.Events
	if len(leaks) > 0 {
		return &LeakError{leaks}
	}
	return nil
}

// judgeAccount returns what is wrong with how the account was used: the key, or
// nothing at all, in the agent's hands, or a call that passed after it was over.
func (r *result) judgeAccount(keys map[string]string) (leaks []string) {
	if r.Account.Reference == "" {
		leaks = append(leaks, "the agent had no reference to show")
	}
	for _, st := range slices.Concat(r.Work, r.Attacks, r.Refunds.Steps, []step{r.Account.After}) {
		if containsAny(st.got, keys) || containsAny(strings.Join(r.Account.Environment, "\n"), keys) {
			leaks = append(leaks, "the agent has the key of its account")
		}
	}
	if after := r.Account.After; after.Passed || len(after.Calls) != 1 {
		leaks = append(leaks, "the account was revoked, and this passed: "+after.What)
	}
	return leaks
}

// judge counts the ways out that were refused, and returns what is wrong: a way
// that was not tried or not refused, the canary in the agent's hands, a request
// that the shop saw and the log did not allow, or the other way round.
func (r *result) judge(plan []attack, seen []string, canary string) (leaks []string) {
	r.Ways, r.Seen = len(plan), len(seen)
	for _, p := range plan {
		tries := slices.DeleteFunc(slices.Clone(r.Attacks), func(st step) bool { return st.Name != p.name })
		switch {
		case len(tries) != len(p.lines):
			leaks = append(leaks, fmt.Sprintf("%s: %d of %d tries were made", p.name, len(tries), len(p.lines)))
		case slices.ContainsFunc(tries, func(st step) bool { return st.Passed }):
			leaks = append(leaks, p.name+": passed")
		default:
			r.Refused++
		}
	}
	var allowed []string
	for _, st := range slices.Concat(r.Work, r.Attacks, r.Refunds.Steps) {
		if strings.Contains(st.got, canary) {
			leaks = append(leaks, st.What+": finance's file was read")
		}
		for _, c := range st.Calls {
			if c.Decision == ambit.Allow {
				allowed = append(allowed, c.Method+" "+c.URL)
			}
		}
	}
	slices.Sort(allowed)
	if !slices.Equal(allowed, seen) {
		leaks = append(leaks, fmt.Sprintf("the log allowed\n    %s\n  and the shop saw\n    %s", strings.Join(allowed, "\n    "), strings.Join(seen, "\n    ")))
	}
	return leaks
}
