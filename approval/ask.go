package approval

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ambit"
)

// Ask makes a question, and says so durably in the log before it returns. The
// same call in the same task, while one waits or is approved and not used yet, is
// the same question: it is counted and returned as it is. A *ambit.DenyError says
// that no question is made, and why: there are too many, somebody said no to just
// this, or it cannot be shown to a person.
func (s *Store) Ask(ctx context.Context, q Question) (Question, error) {
	if err := s.begin(ctx); err != nil {
		return Question{}, fmt.Errorf("asking a person: %w", err)
	}
	defer s.mu.Unlock()
	now := s.now()
	if err := s.prepare(&q, now); err != nil {
		return Question{}, err
	}
	for n, e := range s.open {
		if e.key == (key{q.Task, q.Digest}) && e.state != Running {
			e.count++ // written when something else of it is
			same, err := s.read(ctx, n)
			if err != nil {
				return Question{}, fmt.Errorf("asking a person: %w", err)
			}
			same.Count = e.count
			return *same, nil
		}
	}
	if err := s.mayAsk(&q, now); err != nil {
		return Question{}, err
	}
	s.last++
	q.ID = name(s.cfg.Agent, s.last)
	seq, err := s.cfg.Log.Append(ctx, s.asked(&q))
	if err != nil {
		return Question{}, fmt.Errorf("asking a person: logging it first: %w", err)
	}
	q.Event = seq
	if err := s.write(ctx, &q); err != nil {
		return Question{}, fmt.Errorf("asking a person: %w", err)
	}
	s.recent = append(s.recent, now)
	if s.cfg.Alerts != nil { // nothing of the arguments: an alert goes out by mail
		s.cfg.Alerts.Raise(ambit.Medium, ambit.AlertApproval+" "+q.Tool, fmt.Sprintf("%s waits for a person: a call of the tool %s; ambit approvals show %s", q.ID, q.Tool, q.ID), seq)
	}
	return q, nil
}

// prepare checks what a question says, and fills in the rest.
func (s *Store) prepare(q *Question, now time.Time) error {
	shown := len(q.Args)
	for i := range q.Provenance {
		o := &q.Provenance[i]
		o.Value, o.Text = strings.ToValidUTF8(o.Value, "\uFFFD"), strings.ToValidUTF8(o.Text, "\uFFFD")
		shown += len(o.Value)
	}
	switch {
	case q.Tool == "" || len(q.Asks) == 0 || q.Words == "":
		return fmt.Errorf("asking a person: tool, words and what wants it asked are required")
	case !utf8.ValidString(q.Args) || !json.Valid([]byte(q.Args)):
		return fmt.Errorf("asking a person: the arguments are not JSON")
	case shown > MaxArgs || len(q.Provenance) > MaxOrigins:
		return deny("too-large-to-show", fmt.Sprintf("a person must agree to this call, and it is too long for one to read: %d bytes, of which %d are shown", shown, MaxArgs),
			"split the work into smaller calls")
	}
	expires := MaxExpires
	for _, a := range q.Asks {
		wait := a.Expires
		if wait <= 0 {
			wait = DefaultExpires
		}
		expires = min(expires, wait)
	}
	q.Agent, q.Words = s.cfg.Agent, strings.ToValidUTF8(q.Words, "\uFFFD")
	q.Digest = Digest(q.Agent, q.Tool, q.Args, q.ToolHash, q.PolicyVersion)
	q.Asked, q.Expires, q.State, q.Count, q.Answers = now, now.Add(expires), Waiting, 1, []Answer{}
	q.Decided, q.Ended, q.ErasedAt, q.Error, q.Size, q.Result = time.Time{}, time.Time{}, time.Time{}, "", 0, nil
	return nil
}

// mayAsk keeps an agent from wearing people out.
func (s *Store) mayAsk(q *Question, now time.Time) error {
	waiting := 0
	for _, e := range s.open {
		if e.state == Waiting {
			waiting++
		}
	}
	s.recent = slices.DeleteFunc(s.recent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	maps.DeleteFunc(s.yeses, func(_ key, t time.Time) bool { return now.Sub(t) >= Refrain })
	maps.DeleteFunc(s.noes, func(_ key, n no) bool { return now.Sub(n.at) >= Refrain })
	noes, yes := 0, s.yeses[key{q.Task, q.Tool}]
	for k, n := range s.noes {
		if k.task == q.Task && n.tool == q.Tool && n.at.After(yes) {
			noes++
		}
	}
	switch no, ok := s.noes[key{q.Task, q.Digest}]; {
	case ok:
		return deny("approval-denied", fmt.Sprintf("a person has said no to exactly this call, and is not asked again before %s", no.at.Add(Refrain).Format("15:04 MST")),
			"do something else, or have a person do it")
	case noes >= s.cfg.MaxNoes: // else a word that does not matter makes it another call
		return deny("approval-denied", fmt.Sprintf("people have said no to the last %d calls of %s in this task, and are not asked about another one for now", noes, q.Tool),
			"look at what the agent does; a new task (`ambit task`) begins anew")
	case waiting >= s.cfg.MaxWaiting:
		return deny("approvals-full", fmt.Sprintf("%d questions of this agent wait for a person already, and there may be no more", waiting),
			"answer them: `ambit approvals --agent "+string(s.cfg.Agent)+"`")
	case len(s.recent) >= s.cfg.PerMinute:
		return deny("approvals-too-fast", fmt.Sprintf("this agent has asked %d questions within a minute, and may not ask more", len(s.recent)),
			"try again in a minute; if it goes on, look at what the agent does")
	}
	return nil
}

func deny(code, text, remedy string) error {
	return &ambit.DenyError{Verdict: ambit.Verdict{Rule: "approval", Reason: ambit.Reason{Code: code, Text: text, Remedy: remedy}}}
}

// asked is the event of a question.
func (s *Store) asked(q *Question) ambit.Event {
	rules := make([]string, len(q.Asks))
	for i, a := range q.Asks {
		rules[i] = a.Rule
	}
	e := ambit.Event{
		Kind: ambit.KindApprovalAsk, Agent: s.cfg.Agent, Principal: ambit.PrincipalAgent, Of: q.Of, Task: q.Task, Tool: q.Tool, Resource: q.ID,
		Rule: strings.Join(rules, ", "), Effects: q.Effects, Touched: q.Touched, Detail: "digest " + q.Digest + ": " + q.Words,
	}
	for i := range q.Provenance {
		o := &q.Provenance[i]
		p := ambit.Provenance{Value: o.Pointer, Source: source(o)}
		if o.Event != nil {
			p.Event = *o.Event
		}
		e.Provenance = append(e.Provenance, p)
	}
	return e
}

// source is where a value came from in the words of the log: see flow.
func source(o *Origin) string {
	switch {
	case o.Label != ambit.Untrusted:
		return string(o.Label)
	case o.Event == nil:
		return "unknown"
	}
	return "text"
}
