package approval

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"ambit"
)

// tokens are principals that stand for whoever has a token. Nobody knows which
// person that is, so they do not count where it matters.
const tokens = "token:"

// isPerson is whether who may answer anything at all: somebody with a way of
// knowing them and a name ("uid:1000").
func isPerson(who ambit.Principal) bool {
	way, name, ok := strings.Cut(string(who), ":")
	if !ok || way == "" || name == "" || len(who) > 200 {
		return false
	}
	for _, r := range string(who) {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return false
		}
	}
	for _, r := range way {
		if r < 'a' || r > 'z' {
			return false
		}
	}
	return way != string(ambit.PrincipalAgent) && way != string(ambit.PrincipalAmbit)
}

// may says whether who may answer an ask.
func (s *Store) may(who ambit.Principal, a *ambit.Ask) bool {
	if strings.HasPrefix(string(who), tokens) {
		return len(a.From) == 0 && a.People <= 1
	}
	if len(a.From) == 0 {
		return true
	}
	for _, from := range a.From {
		if from == string(who) || s.cfg.Has != nil && s.cfg.Has(who, from) {
			return true
		}
	}
	return false
}

// Answer takes what a person says about a question, and returns it as it is then.
// It is in the log before it takes effect. digest is that of the question which
// the person was shown. One no is enough; each ask must have its number of
// different people who say yes. By, Yes, Note and Cover of a are read.
//
// Errors are ErrNotFound, ErrAgent, ErrPrincipal, ErrNotAsked, ErrDigest,
// ErrDecided, ErrExpired, ErrAgain and ErrAnswer.
func (s *Store) Answer(ctx context.Context, id, digest string, a Answer) (Question, error) {
	q, err := s.answer(ctx, id, digest, a)
	if err != nil {
		return Question{}, fmt.Errorf("answering %s: %w", id, err)
	}
	return *q, nil
}

func (s *Store) answer(ctx context.Context, id, digest string, a Answer) (*Question, error) {
	if !isPerson(a.By) {
		return nil, ErrPrincipal
	}
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
	if e := s.open[n]; e != nil {
		q.Count = e.count
	}
	if a, err = s.check(q, digest, a); err != nil {
		return nil, err
	}
	apply(q, a)
	q.Answers[len(q.Answers)-1].Event, err = s.cfg.Log.Append(ctx, s.answered(q, a))
	if err != nil {
		return nil, fmt.Errorf("logging it first: %w", err)
	}
	if err := s.write(ctx, q); err != nil {
		return nil, fmt.Errorf("it is in the log and has no effect; answer again: %w", err)
	}
	return q, nil
}

// check says whether an answer can be taken, and completes it.
func (s *Store) check(q *Question, digest string, a Answer) (Answer, error) {
	switch {
	case q.State == Expired:
		return a, ErrExpired
	case q.State != Waiting:
		return a, ErrDecided
	case digest != q.Digest:
		return a, ErrDigest
	case len(a.Note) > MaxNote:
		return a, fmt.Errorf("%w: a note has at most %d bytes", ErrAnswer, MaxNote)
	}
	a.Time, a.Note, a.For = s.now(), strings.ToValidUTF8(a.Note, "\uFFFD"), []int{}
	for i := range q.Asks {
		if s.may(a.By, &q.Asks[i]) {
			a.For = append(a.For, i)
		}
	}
	if len(a.For) == 0 {
		return a, ErrNotAsked
	}
	if !a.Yes {
		a.Cover = Once
		return a, nil
	}
	switch a.Cover {
	case "":
		a.Cover = Once
	case Once, Value, Source, Plan:
	default:
		return a, fmt.Errorf("%w: it covers once, value, source or plan, not %q", ErrAnswer, a.Cover)
	}
	if a.Cover != Once && q.Task == "" {
		return a, fmt.Errorf("%w: which task this call belongs to is not known, so a yes is for this call only", ErrAnswer)
	}
	for _, before := range q.Answers {
		if before.By == a.By {
			return a, ErrAgain
		}
	}
	return a, nil
}

// apply is what an answer does to a question.
func apply(q *Question, a Answer) {
	q.Answers = append(q.Answers, a)
	switch {
	case !a.Yes:
		q.State, q.Decided = Denied, a.Time
	case q.People() == 0:
		q.State, q.Decided = Approved, a.Time
		if least := a.Time.Add(Grace); q.Expires.Before(least) {
			q.Expires = least
		}
	}
}

// answered is the event of an answer.
func (s *Store) answered(q *Question, a Answer) ambit.Event {
	detail := "no to"
	decision := ambit.Deny
	if a.Yes {
		decision = ambit.Allow
		detail = "yes to"
	}
	detail += " digest " + q.Digest
	if a.Yes {
		detail += ", for " + map[Cover]string{Once: "this call", Value: "these values in the task", Source: "these sources in the task", Plan: "what the plan of the task says"}[a.Cover]
	}
	if missing := q.People(); missing > 0 {
		detail += fmt.Sprintf(", %d more must agree", missing)
	}
	if a.Note != "" {
		detail += ": " + a.Note
	}
	of := q.Event
	return ambit.Event{
		Kind: ambit.KindApprovalAnswer, Agent: s.cfg.Agent, Principal: a.By, Of: &of, Task: q.Task, Tool: q.Tool, Resource: q.ID,
		Decision: decision, Detail: detail,
	}
}
