package gate_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ambit"
	"ambit/gate"
)

// memory is a log and an alerter in memory, as strict as the real ones: in
// order, and failing when told to.
type memory struct {
	mu     sync.Mutex
	events []ambit.Event
	alerts []string
	broken error
}

func (m *memory) Append(_ context.Context, e ambit.Event) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return 0, m.broken
	}
	m.events = append(m.events, e)
	return uint64(len(m.events) - 1), nil
}

func (m *memory) Record(e ambit.Event) { _, _ = m.Append(context.Background(), e) }

func (m *memory) Raise(_ ambit.Severity, key, _ string, _ uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.alerts = append(m.alerts, key)
}

type decider func(*ambit.Request) ambit.Verdict

func (d decider) Decide(r *ambit.Request) ambit.Verdict { return d(r) }

func allow(*ambit.Request) ambit.Verdict { return ambit.Verdict{Decision: ambit.Allow, Rule: "r1"} }

func request() *ambit.Request {
	return &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: "a.example", Port: 443, Path: "/"}
}

func open(m *memory, d gate.Decider) *gate.Gate {
	return gate.New(gate.Config{Agent: "a", Policy: d, Log: m, Alerts: m})
}

// TestN5DeniesWhenItCannotDecide: no policy, a policy that fails, a log that
// cannot be written: everything is refused.
func TestN5DeniesWhenItCannotDecide(t *testing.T) {
	for name, c := range map[string]struct {
		policy gate.Decider
		broken error
		code   string
	}{
		"no policy":         {nil, nil, "no-policy"},
		"zero verdict":      {decider(func(*ambit.Request) ambit.Verdict { return ambit.Verdict{} }), nil, "denied"},
		"policy panics":     {decider(func(*ambit.Request) ambit.Verdict { panic("boom") }), nil, "policy-failed"},
		"log is not there":  {decider(allow), errors.New("disk full"), "log-unavailable"},
		"unknown decisions": {decider(func(*ambit.Request) ambit.Verdict { return ambit.Verdict{Decision: 9} }), nil, "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			grant, err := open(&memory{broken: c.broken}, c.policy).Check(t.Context(), request())
			var deny *ambit.DenyError
			if grant != nil || !errors.As(err, &deny) || deny.Verdict.Reason.Code != c.code || deny.Verdict.Decision == ambit.Allow {
				t.Errorf("got %v, %v", grant, err)
			}
		})
	}
}

func TestLoggedBeforeGranted(t *testing.T) {
	m := &memory{}
	g := open(m, decider(allow))
	grant, err := g.Check(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	if len(m.events) != 1 || m.events[0].Kind != ambit.KindEgressRequest || m.events[0].Decision != ambit.Allow || m.events[0].URL != "https://a.example/" {
		t.Fatalf("the log has %+v", m.events)
	}
	grant.Finish(ambit.Outcome{Status: 200, BytesIn: 5})
	grant.Finish(ambit.Outcome{Status: 500})
	if len(m.events) != 2 || *m.events[1].Of != grant.Event() || m.events[1].Status != 200 {
		t.Errorf("the log has %+v", m.events)
	}
}

func TestGrantIsForOneUse(t *testing.T) {
	grant, err := open(&memory{}, decider(allow)).Check(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	if err := grant.Use(); err != nil {
		t.Error(err)
	}
	if err := grant.Use(); !errors.Is(err, gate.ErrSpent) {
		t.Errorf("the second use gave %v", err)
	}
	var forged gate.Grant
	if forged.Use() == nil || (*gate.Grant)(nil).Use() == nil {
		t.Error("a grant that no gate made can be used")
	}
}

// TestDoorCanOnlyTakeAway: a door's denial stands against the policy, its
// approval does not.
func TestDoorCanOnlyTakeAway(t *testing.T) {
	m := &memory{}
	g := open(m, decider(allow))
	if _, err := g.CheckWith(t.Context(), request(), &ambit.Verdict{Reason: ambit.Reason{Code: "name-mismatch"}}); err == nil {
		t.Error("the door's denial did not stand")
	}
	if len(m.alerts) != 1 || m.alerts[0] != "name-mismatch a.example" || m.events[0].Decision == ambit.Allow {
		t.Errorf("alerts %v, events %+v", m.alerts, m.events)
	}
	g.SetPolicy(nil)
	if _, err := g.CheckWith(t.Context(), request(), &ambit.Verdict{Decision: ambit.Allow}); err == nil {
		t.Error("a door let something through that has no policy")
	}
}

// TestCauseIsLogged: what Ambit asks on behalf of a tool call says so.
func TestCauseIsLogged(t *testing.T) {
	m := &memory{}
	g := open(m, decider(allow))
	r, cause := request(), uint64(7)
	r.Principal, r.Task, r.Cause = ambit.PrincipalAmbit, "task-1", &cause
	if _, err := g.Check(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Check(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if e := m.events[0]; e.Principal != ambit.PrincipalAmbit || e.Task != "task-1" || len(e.Links) != 1 || e.Links[0] != (ambit.Link{Rel: "cause", Seq: 7}) {
		t.Errorf("the log has %+v", e)
	}
	if e := m.events[1]; e.Principal != ambit.PrincipalAgent || e.Task != "" || e.Links != nil {
		t.Errorf("the log has %+v", e)
	}
}

// TestL3DenialsAreSlowedDown: a flood of refusals is in the log to the last one,
// and comes no faster than the limit.
func TestL3DenialsAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		g := open(m, nil)
		const flood = 3000
		begin := time.Now()
		for range flood {
			if _, err := g.Check(t.Context(), request()); err == nil {
				t.Fatal("it was allowed")
			}
		}
		if took := time.Since(begin); took < 35*time.Second {
			t.Errorf("%d refusals took %v", flood, took)
		}
		if len(m.events) != flood {
			t.Errorf("the log has %d of %d", len(m.events), flood)
		}
	})
}
