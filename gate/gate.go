// Package gate is the choke point: every door asks it before anything leaves
// or changes. Check lets the policy decide, appends the decision to the log,
// waits until that is durable and only then returns a [Grant]. What spends a
// secret or dials out demands a Grant, and only this package makes one.
//
// Crash points: before the append is durable nothing has left, and the agent
// sees an error; after it the log says the call was allowed even if the process
// dies before the call is made. An outcome that never came is shown as such.
//
// Trust: the gate trusts its policy and its log, and nothing that an agent
// says. Whoever controls the log's disk can make every request fail, and
// cannot make one pass.
package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"ambit"
)

// Decider decides a request. It is pure: same request, same verdict. A
// Decider that cannot decide returns the zero Verdict with a reason.
type Decider interface {
	Decide(*ambit.Request) ambit.Verdict
}

// Log is the durable record. Append returns only when the event survives a
// power cut, with the position it got. Record queues an event in order and
// returns at once; it is durable no later than the next Append, or when the
// log is closed. Both are safe for concurrent use.
type Log interface {
	Append(context.Context, ambit.Event) (uint64, error)
	Record(ambit.Event)
}

// Alerter is told about what a person should look at. Raise must not block;
// alerts with the same key are one alert that is counted.
type Alerter interface {
	Raise(severity ambit.Severity, key, title string, event uint64)
}

// Config is what a gate needs. All of it is required.
type Config struct {
	Agent  ambit.AgentID
	Policy Decider
	Log    Log
	Alerts Alerter
}

// Gate decides for one agent. It is safe for concurrent use.
type Gate struct {
	agent  ambit.AgentID
	policy atomic.Pointer[Decider]
	tools  atomic.Pointer[Tools]
	log    Log
	alerts Alerter
	denied *rate.Limiter
	let    atomic.Uint64 // requests of the agent's own that were let through
}

// How many refusals an agent may cause at once, and how many a second after
// that. More of them wait: each is in the log, and a flood of them must not
// fill the disk that all agents share (ATTACKS L3, B3).
const (
	denialBurst = 1000
	denialRate  = 50
)

// New returns a gate. A nil policy denies everything.
func New(c Config) *Gate {
	g := &Gate{agent: c.Agent, log: c.Log, alerts: c.Alerts, denied: rate.NewLimiter(denialRate, denialBurst)}
	g.SetPolicy(c.Policy)
	return g
}

// SetPolicy replaces the policy for all requests from now on. A nil policy
// denies everything.
func (g *Gate) SetPolicy(d Decider) {
	if d == nil {
		g.policy.Store(nil)
		return
	}
	g.policy.Store(&d)
}

// Check decides r and logs the decision durably. It returns a Grant if r is
// allowed, and a *ambit.DenyError in every other case: denied, no policy, or
// the log could not be written.
func (g *Gate) Check(ctx context.Context, r *ambit.Request) (*Grant, error) {
	return g.CheckWith(ctx, r, nil)
}

// CheckWith is Check with a finding of the door's own: a verdict that is
// denied already (names that do not agree, a request that cannot be parsed, an
// address that may not be dialled). A non-nil denied verdict is logged and
// alerted like one of the policy's; an allowed one is ignored: a door can only
// take away.
func (g *Gate) CheckWith(ctx context.Context, r *ambit.Request, door *ambit.Verdict) (*Grant, error) {
	r.Agent = g.agent
	if r.Principal == "" {
		r.Principal = ambit.PrincipalAgent
	}
	v := g.decide(r)
	if door != nil && door.Decision != ambit.Allow {
		v = *door
	}
	kind := ambit.KindEgressRequest
	if r.Action == ambit.ActionName {
		kind = ambit.KindEgressName
	}
	e := ambit.Event{
		Kind: kind, Agent: g.agent, Principal: r.Principal, Action: r.Action,
		Method: r.Method, Host: r.Host, URL: r.URL(), Intent: r.Intent,
		Decision: v.Decision, Rule: v.Rule, Connection: r.Connection, Touched: r.Touched,
		Task: r.Task,
	}
	if r.Cause != nil {
		e.Links = []ambit.Link{{Rel: "cause", Seq: *r.Cause}}
	}
	if kind == ambit.KindEgressRequest {
		e.Effects = effects(r)
	}
	if v.Decision != ambit.Allow {
		e.Reason = &v.Reason
	}
	seq, err := g.log.Append(ctx, e)
	if err != nil {
		return nil, unlogged(err)
	}
	if v.Decision != ambit.Allow {
		g.alert(r, v, seq)
		_ = g.denied.Wait(ctx) // ends early only with ctx: it is refused either way
		return nil, &ambit.DenyError{Verdict: v, Event: &seq}
	}
	if r.Principal == ambit.PrincipalAgent {
		g.let.Add(1)
	}
	return &Grant{gate: g, req: *r, verdict: v, seq: seq, start: time.Now()}, nil
}

// Requests is how many requests of the agent's own were let through: what they
// brought it is untrusted text that no tool has seen.
func (g *Gate) Requests() uint64 { return g.let.Load() }

// effects are those of the method. What a WebSocket or an unopened connection
// carries is not seen, so it may read and write.
func effects(r *ambit.Request) []ambit.Effect {
	switch r.Action {
	case ambit.ActionWebSocket, ambit.ActionPassthrough:
		return []ambit.Effect{ambit.EffectRead, ambit.EffectWrite}
	case ambit.ActionHTTP:
		return []ambit.Effect{ambit.MethodEffect(r.Method)}
	}
	return nil
}

func (g *Gate) decide(r *ambit.Request) (v ambit.Verdict) {
	p := g.policy.Load()
	if p == nil {
		return ambit.Verdict{Reason: ambit.Reason{Code: "no-policy", Text: "this agent has no policy, so everything is refused", Remedy: "deploy a manifest"}}
	}
	defer func() {
		if x := recover(); x != nil {
			v = ambit.Verdict{Reason: ambit.Reason{Code: "policy-failed", Text: fmt.Sprintf("the policy failed: %v", x), Remedy: "report this; nothing was let through"}}
		}
	}()
	v = (*p).Decide(r)
	if v.Decision != ambit.Allow && v.Reason.Code == "" {
		v.Reason = ambit.Reason{Code: "denied", Text: "no rule allows this"}
	}
	return v
}

func (g *Gate) alert(r *ambit.Request, v ambit.Verdict, seq uint64) {
	if g.alerts == nil {
		return
	}
	target := r.Host
	if target == "" {
		target = "(no host)"
	}
	title := "refused: " + strings.TrimSpace(r.Method+" "+target) + ": " + v.Reason.Text
	g.alerts.Raise(ambit.RefusalSeverity(v.Reason.Code), v.Reason.Code+" "+target, title, seq)
}

// ErrSpent is returned by Use when a grant was used before.
var ErrSpent = errors.New("this grant was used already")

// Grant is the permission to do one request, once. Only Check makes one.
type Grant struct {
	gate    *Gate
	req     ambit.Request   // of an egress request
	call    *ambit.ToolCall // of a tool call
	taken   Reservation     // of limits; nil for none
	verdict ambit.Verdict
	seq     uint64
	start   time.Time
	used    atomic.Bool
	ended   atomic.Bool
}

// Call is the tool call that was granted; nil if it is a request.
func (g *Grant) Call() *ambit.ToolCall { return g.call }

// Request is what was granted; the zero value if it is a tool call. The header
// map must not be changed.
func (g *Grant) Request() *ambit.Request { return &g.req }

// Verdict is the decision with the rule that allowed it.
func (g *Grant) Verdict() ambit.Verdict { return g.verdict }

// Event is the position of the decision in the log.
func (g *Grant) Event() uint64 { return g.seq }

// Use spends the grant. The second call returns ErrSpent, and what was asked
// for must not be done.
func (g *Grant) Use() error {
	if g == nil || g.gate == nil {
		return errors.New("this grant was not made by a gate")
	}
	if g.used.Swap(true) {
		return ErrSpent
	}
	return nil
}

// NotRun is the Error of an Outcome of a tool call that certainly did nothing:
// what it took of limits is given back.
const NotRun = "the call was not run"

// Finish records how the request ended. The first call counts.
func (g *Grant) Finish(o ambit.Outcome) {
	if g == nil || g.ended.Swap(true) {
		return
	}
	if o.Duration == 0 {
		o.Duration = time.Since(g.start)
	}
	seq := g.seq
	if g.call != nil {
		if g.taken != nil { // what cannot be settled or given back stays spent
			if ctx := context.Background(); o.Error == NotRun {
				_ = g.taken.Release(ctx)
			} else {
				_ = g.taken.Settle(ctx)
			}
		}
		g.gate.log.Record(ambit.Event{
			Kind: ambit.KindToolOutcome, Agent: g.gate.agent, Principal: ambit.PrincipalAmbit,
			Of: &seq, Action: ambit.ActionTool, Tool: g.call.Tool.Name, Task: g.call.Task, Decision: ambit.Allow,
			Status: o.Status, BytesOut: o.BytesOut, BytesIn: o.BytesIn, Duration: o.Duration, Detail: o.Error,
			Touched: o.Touched, More: o.More, Unseen: o.Unseen,
		})
		return
	}
	g.gate.log.Record(ambit.Event{
		Kind: ambit.KindEgressOutcome, Agent: g.gate.agent, Principal: ambit.PrincipalAmbit,
		Of: &seq, Action: g.req.Action, Host: g.req.Host, Decision: ambit.Allow,
		Status: o.Status, BytesOut: o.BytesOut, BytesIn: o.BytesIn, Duration: o.Duration, Detail: o.Error,
		Touched: o.Touched, More: o.More, Unseen: o.Unseen,
	})
}
