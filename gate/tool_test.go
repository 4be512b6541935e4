package gate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"ambit"
	"ambit/flow"
	"ambit/gate"
)

type toolDecider func(*ambit.ToolCall) ambit.ToolVerdict

func (d toolDecider) DecideTool(_ context.Context, c *ambit.ToolCall, agreed func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, gate.Reservation) {
	v := d(c)
	if len(v.Asks) > 0 && agreed != nil && agreed(v) {
		v.Decision = ambit.Allow
	}
	return v, nil
}

func allowTool(*ambit.ToolCall) ambit.ToolVerdict {
	return ambit.ToolVerdict{Verdict: ambit.Verdict{Decision: ambit.Allow, Rule: "tools[0]"}}
}

func askTool(*ambit.ToolCall) ambit.ToolVerdict {
	return ambit.ToolVerdict{Asks: []ambit.Ask{{Rule: "gate.spend", Reason: ambit.Reason{Code: "over-threshold", Text: "it spends 80 EUR"}}}}
}

func denyTool(*ambit.ToolCall) ambit.ToolVerdict {
	return ambit.ToolVerdict{Verdict: ambit.Verdict{Rule: "tools[1]", Reason: ambit.Reason{Code: "tool-denied", Text: "no"}}}
}

type people struct {
	held []gate.Held
	err  error
}

func (p *people) Ask(_ context.Context, h gate.Held) (string, error) {
	p.held = append(p.held, h)
	return "a-1", p.err
}

func refund(to string) *ambit.ToolCall {
	tool := &ambit.Tool{Name: "shop.refund", Effects: []ambit.Effect{ambit.EffectSpend}, Targets: []string{"/to"}, Input: []byte(`{"type":"object"}`)}
	return &ambit.ToolCall{Tool: tool, Args: []byte(`{"to":"` + to + `"}`), Intent: "refund", Task: "t1"}
}

func words(s string) *flow.Task {
	t := flow.New()
	t.Person(s, 0)
	return t
}

// TestN5ToolsDenyWhenTheyCannotDecide: as for requests, and what nobody can be
// asked about is refused.
func TestN5ToolsDenyWhenTheyCannotDecide(t *testing.T) {
	for name, c := range map[string]struct {
		tools  *gate.Tools
		broken error
		code   string
	}{
		"never set":        {nil, nil, "no-policy"},
		"no policy":        {&gate.Tools{}, nil, "no-policy"},
		"zero verdict":     {&gate.Tools{Policy: toolDecider(func(*ambit.ToolCall) ambit.ToolVerdict { return ambit.ToolVerdict{} })}, nil, "denied"},
		"policy panics":    {&gate.Tools{Policy: toolDecider(func(*ambit.ToolCall) ambit.ToolVerdict { panic("boom") })}, nil, "policy-failed"},
		"denied":           {&gate.Tools{Policy: toolDecider(denyTool), Asker: new(people)}, nil, "tool-denied"},
		"log is not there": {&gate.Tools{Policy: toolDecider(allowTool)}, errors.New("disk full"), "log-unavailable"},
		"nobody to ask":    {&gate.Tools{Policy: toolDecider(askTool)}, nil, "over-threshold"},
		"cannot ask":       {&gate.Tools{Policy: toolDecider(askTool), Asker: &people{err: errors.New("disk full")}}, nil, "cannot-ask"},
		"too many asked":   {&gate.Tools{Policy: toolDecider(askTool), Asker: &people{err: &ambit.DenyError{Verdict: ambit.Verdict{Reason: ambit.Reason{Code: "flood"}}}}}, nil, "flood"},
		"unknown decision": {&gate.Tools{Policy: toolDecider(func(*ambit.ToolCall) ambit.ToolVerdict {
			return ambit.ToolVerdict{Verdict: ambit.Verdict{Decision: 7}}
		})}, nil, "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			g := open(&memory{broken: c.broken}, decider(allow))
			if c.tools != nil {
				g.SetTools(*c.tools)
			}
			grant, err := g.CheckTool(t.Context(), refund("Ann"), words("refund Ann"))
			var deny *ambit.DenyError
			if grant != nil || !errors.As(err, &deny) || deny.Verdict.Reason.Code != c.code {
				t.Errorf("got %v, %v", grant, err)
			}
		})
	}
}

func TestToolIsLoggedBeforeItRuns(t *testing.T) {
	m := new(memory)
	g := open(m, decider(allow))
	g.SetTools(gate.Tools{Policy: toolDecider(allowTool), Asker: new(people)})
	grant, err := g.CheckTool(t.Context(), refund("Ann"), words("refund Ann"))
	if err != nil {
		t.Fatal(err)
	}
	if e := m.events[0]; len(m.events) != 1 || e.Kind != ambit.KindToolCall || e.Tool != "shop.refund" || e.Decision != ambit.Allow || e.Intent != "refund" ||
		e.Task != "t1" || len(e.Provenance) != 1 || e.Provenance[0] != (ambit.Provenance{Value: "/to", Source: "person"}) {
		t.Errorf("the log has %+v", m.events)
	}
	if err := grant.Use(); err != nil {
		t.Error(err)
	}
	if err := grant.Use(); !errors.Is(err, gate.ErrSpent) {
		t.Errorf("the second use gives %v", err)
	}
	grant.Finish(ambit.Outcome{Status: 200})
	grant.Finish(ambit.Outcome{Status: 500})
	if e := m.events[1]; len(m.events) != 2 || e.Kind != ambit.KindToolOutcome || *e.Of != 0 || e.Status != 200 {
		t.Errorf("the log has %+v", m.events)
	}
}

// TestM3UntracedTargetIsAsked: the policy allows, and the recipient stands
// nowhere.
func TestM3UntracedTargetIsAsked(t *testing.T) {
	m, p := new(memory), new(people)
	g := open(m, decider(allow))
	g.SetTools(gate.Tools{Policy: toolDecider(allowTool), Asker: p})
	call := refund("Eve")
	_, err := g.CheckTool(t.Context(), call, nil)
	var asked *gate.Asked
	if !errors.As(err, &asked) || asked.Question != "a-1" || asked.Event != 0 || !strings.Contains(asked.Reason.Text, "Eve") {
		t.Fatalf("got %v", err)
	}
	if h := p.held[0]; h.Call != call || len(h.Finding.Doubts) != 1 || h.Asks[0].Rule != "provenance" {
		t.Errorf("people are asked %+v", h)
	}
	if e := m.events[0]; e.Decision != ambit.Deny || e.Reason == nil || e.Reason.Code != "provenance-target" {
		t.Errorf("the log has %+v", e)
	}
}

// TestHeldCall: a yes lifts what was asked about, and nothing that is denied.
func TestHeldCall(t *testing.T) {
	m := new(memory)
	g := open(m, decider(allow))
	g.SetTools(gate.Tools{Policy: toolDecider(askTool), Asker: new(people)})
	grant, err := g.GrantHeld(t.Context(), refund("Eve"), askTool(nil).Asks, 7)
	if err != nil || grant == nil {
		t.Fatal(err)
	}
	if l := m.events[0].Links; len(l) != 1 || l[0] != (ambit.Link{Rel: "approval", Seq: 7}) {
		t.Errorf("it is linked to %v", l)
	}
	g.SetTools(gate.Tools{Policy: toolDecider(denyTool), Asker: new(people)})
	var deny *ambit.DenyError
	if _, err := g.GrantHeld(t.Context(), refund("Eve"), askTool(nil).Asks, 7); !errors.As(err, &deny) || deny.Verdict.Reason.Code != "tool-denied" {
		t.Errorf("what is denied meanwhile gives %v", err)
	}
}

// limit is a policy that allows and counts what is taken.
type limit struct{ settled, released int }

func (l *limit) DecideTool(context.Context, *ambit.ToolCall, func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, gate.Reservation) {
	return allowTool(nil), l
}
func (l *limit) Settle(context.Context) error  { l.settled++; return nil }
func (l *limit) Release(context.Context) error { l.released++; return nil }

// TestLimitsAreGivenBack: what a call took is kept once it may have run, and given
// back if it certainly did not.
func TestLimitsAreGivenBack(t *testing.T) {
	for name, c := range map[string]struct {
		words   string
		broken  error
		outcome *ambit.Outcome
		want    limit
	}{
		"ran":        {"Ann", nil, &ambit.Outcome{Status: 200}, limit{settled: 1}},
		"failed":     {"Ann", nil, &ambit.Outcome{Error: "cut off"}, limit{settled: 1}},
		"not run":    {"Ann", nil, &ambit.Outcome{Error: gate.NotRun}, limit{released: 1}},
		"no end":     {"Ann", nil, nil, limit{}},
		"asked":      {"somebody", nil, nil, limit{released: 1}},
		"not logged": {"Ann", errors.New("disk full"), nil, limit{released: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			m, l := &memory{broken: c.broken}, new(limit)
			g := open(m, decider(allow))
			g.SetTools(gate.Tools{Policy: l, Asker: new(people)})
			grant, err := g.CheckTool(t.Context(), refund("Ann"), words(c.words))
			if (err == nil) != (c.outcome != nil || name == "no end") {
				t.Fatal(err)
			}
			if c.outcome != nil {
				_ = grant.Use()
				grant.Finish(*c.outcome)
				grant.Finish(*c.outcome)
			}
			if *l != c.want {
				t.Errorf("%+v, want %+v", *l, c.want)
			}
		})
	}
}

// TestC3OtherQuestion: a yes is for what was asked. A rule that asks only now, or
// asks more people, or others, has no answer.
func TestC3OtherQuestion(t *testing.T) {
	for name, asked := range map[string][]ambit.Ask{
		"provenance only": {{Rule: "provenance"}},
		"other people":    {{Rule: "approvals[0] (line 3)", From: []string{"support"}, People: 2}},
		"fewer people":    {{Rule: "approvals[0] (line 3)", From: []string{"owner"}}},
		"nothing":         nil,
	} {
		m := new(memory)
		g := open(m, decider(allow))
		g.SetTools(gate.Tools{Policy: toolDecider(func(*ambit.ToolCall) ambit.ToolVerdict {
			return ambit.ToolVerdict{Asks: []ambit.Ask{{Rule: "approvals[0] (line 3)", From: []string{"owner"}, People: 2}}}
		}), Asker: new(people)})
		if grant, err := g.GrantHeld(t.Context(), refund("Eve"), asked, 7); err == nil || grant != nil {
			t.Errorf("%s: it is granted", name)
		}
	}
}

// TestL3LongArguments: what stands behind much else in the arguments is in the log
// too, by its digest.
func TestL3LongArguments(t *testing.T) {
	m := new(memory)
	g := open(m, decider(allow))
	g.SetTools(gate.Tools{Policy: toolDecider(allowTool)})
	for _, to := range []string{"Ann", "Bob"} {
		call := refund("Ann")
		call.Args = []byte(`{"note":"` + strings.Repeat("x", 5000) + `","to":"` + to + `"}`)
		if _, err := g.CheckTool(t.Context(), call, words("Ann or Bob")); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := m.events[0].Resource, m.events[1].Resource; a == b || len(a) > 4300 || !strings.Contains(a, " bytes, SHA-256 ") {
		t.Errorf("the log has %q and %q", a[4090:], b[4090:])
	}
}
