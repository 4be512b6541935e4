package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"ambit"
	"ambit/flow"
)

// ToolDecider decides tool calls by what they are and by their arguments, and
// reserves what an allowed call will use up of limits. agreed says of a verdict
// with Asks whether people have agreed to it; nil is that nobody has. The
// reservation is nil if the call takes nothing, and unless the call is allowed. A
// decider that cannot decide returns the zero verdict with a reason.
type ToolDecider interface {
	DecideTool(ctx context.Context, c *ambit.ToolCall, agreed func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, Reservation)
}

// Reservation is what one call has taken of limits.
type Reservation interface {
	Settle(context.Context) error  // it ran, or nobody knows
	Release(context.Context) error // it certainly did not run
}

// Held is a call that waits for people.
type Held struct {
	Call    *ambit.ToolCall
	Asks    []ambit.Ask
	Finding flow.Finding
	Event   uint64 // the tool.call that was refused for now
}

// Asker keeps the questions that wait for people. Ask returns once the question
// is durable, with its name. An *ambit.DenyError says why nobody is asked.
type Asker interface {
	Ask(context.Context, Held) (id string, err error)
}

// Tools is what the gate needs for tool calls.
type Tools struct {
	Policy ToolDecider // nil denies every call
	Asker  Asker       // nil: nobody can be asked, so what asks is denied
}

// SetTools replaces what decides tool calls, for all calls from now on.
func (g *Gate) SetTools(t Tools) { g.tools.Store(&t) }

// Asked says that a call waits for people.
type Asked struct {
	Question string // its name
	Reason   ambit.Reason
	Event    uint64
}

// Error implements error.
func (a *Asked) Error() string { return "a person is asked (" + a.Question + "): " + a.Reason.Text }

// CheckTool decides a tool call: first the policy, then where its values come
// from. The decision is durable before it returns. It returns a Grant, an *Asked
// if people were asked, or a *ambit.DenyError. A nil task is one in which
// nothing was seen: then no target can be trusted.
func (g *Gate) CheckTool(ctx context.Context, call *ambit.ToolCall, task *flow.Task) (*Grant, error) {
	if task == nil {
		task = flow.New()
	}
	call.Agent = g.agent
	if call.Principal == "" {
		call.Principal = ambit.PrincipalAgent
	}
	t := g.tools.Load()
	v, finding, taken := g.decideTool(ctx, t, call, task)
	seq, err := g.log.Append(ctx, toolEvent(call, v, finding))
	if err != nil {
		release(ctx, taken)
		return nil, unlogged(err)
	}
	switch {
	case v.Decision == ambit.Allow:
		return &Grant{gate: g, call: call, taken: taken, verdict: v.Verdict, seq: seq, start: time.Now()}, nil
	case len(v.Asks) > 0:
		id, err := t.Asker.Ask(ctx, Held{Call: call, Asks: v.Asks, Finding: finding, Event: seq})
		if err == nil {
			return nil, &Asked{Question: id, Reason: v.Reason, Event: seq}
		}
		if d := (*ambit.DenyError)(nil); errors.As(err, &d) {
			v.Verdict = d.Verdict
		} else {
			v.Verdict = ambit.Verdict{Rule: "approvals", Reason: ambit.Reason{Code: "cannot-ask", Text: "a person would have to agree, and could not be asked: " + err.Error(), Remedy: "try again; if it stays so, see the log of the worker"}}
		}
	}
	g.alertTool(call, v.Verdict, seq)
	_ = g.denied.Wait(ctx)
	return nil, &ambit.DenyError{Verdict: v.Verdict, Event: &seq}
}

// GrantHeld makes the grant for a call that people have agreed to, which the
// caller has taken for the only time. The policy is asked again, as it is now:
// what it denies is denied, whoever agreed, and so is what it asks now and did not
// ask when people were shown the call. asked is what did; answer is the event of
// their answer.
func (g *Gate) GrantHeld(ctx context.Context, call *ambit.ToolCall, asked []ambit.Ask, answer uint64) (*Grant, error) {
	call.Agent = g.agent
	if call.Principal == "" {
		call.Principal = ambit.PrincipalAgent
	}
	v, taken := g.policyOf(ctx, g.tools.Load(), call, func(v ambit.ToolVerdict) bool { return agreedTo(v.Asks, asked) })
	switch {
	case v.Decision == ambit.Allow:
		v.Rule = "approval"
	case len(v.Asks) > 0:
		v.Reason = ambit.Reason{Code: "approval-other", Text: "people agreed, but not to what " + v.Asks[0].Rule + " asks now", Remedy: "make the call again, so that they are asked"}
	}
	e := toolEvent(call, v, flow.Finding{})
	e.Links = []ambit.Link{{Rel: "approval", Seq: answer}}
	seq, err := g.log.Append(ctx, e)
	if err != nil {
		release(ctx, taken)
		return nil, unlogged(err)
	}
	if v.Decision != ambit.Allow {
		release(ctx, taken)
		g.alertTool(call, v.Verdict, seq)
		return nil, &ambit.DenyError{Verdict: v.Verdict, Event: &seq}
	}
	return &Grant{gate: g, call: call, taken: taken, verdict: v.Verdict, seq: seq, start: time.Now()}, nil
}

// agreedTo reports whether each of asks is one of asked: the same rule, for the same
// people.
func agreedTo(asks, asked []ambit.Ask) bool {
	for i := range asks {
		a := &asks[i]
		if !slices.ContainsFunc(asked, func(b ambit.Ask) bool {
			return a.Rule == b.Rule && a.People <= max(b.People, 1) && slices.Equal(a.From, b.From)
		}) {
			return false
		}
	}
	return true
}

// release gives back what a call took that did not run.
func release(ctx context.Context, taken Reservation) {
	if taken != nil {
		_ = taken.Release(context.WithoutCancel(ctx)) // what cannot be given back stays spent
	}
}

// policyOf is the verdict of the policy. It denies whatever it cannot decide.
func (g *Gate) policyOf(ctx context.Context, t *Tools, call *ambit.ToolCall, agreed func(ambit.ToolVerdict) bool) (v ambit.ToolVerdict, taken Reservation) {
	if t == nil || t.Policy == nil || call.Tool == nil {
		return ambit.ToolVerdict{Verdict: ambit.Verdict{Reason: ambit.Reason{Code: "no-policy", Text: "this agent has no policy for tools, so every call is refused", Remedy: "deploy a manifest that has tools"}}}, nil
	}
	defer func() {
		if x := recover(); x != nil {
			v = ambit.ToolVerdict{Verdict: ambit.Verdict{Reason: ambit.Reason{Code: "policy-failed", Text: fmt.Sprintf("the policy failed: %v", x), Remedy: "report this; nothing was let through"}}}
		}
	}()
	v, taken = t.Policy.DecideTool(ctx, call, agreed)
	if v.Decision != ambit.Allow {
		v.Decision = ambit.Deny
		if len(v.Asks) == 0 && v.Reason.Code == "" {
			v.Reason = ambit.Reason{Code: "denied", Text: "no rule allows this"}
		}
	}
	return v, taken
}

// decideTool is the verdict of the policy, with what provenance asks for.
func (g *Gate) decideTool(ctx context.Context, t *Tools, call *ambit.ToolCall, task *flow.Task) (v ambit.ToolVerdict, f flow.Finding, taken Reservation) {
	v, taken = g.policyOf(ctx, t, call, nil)
	if v.Decision != ambit.Allow && len(v.Asks) == 0 {
		release(ctx, taken)
		return v, f, nil
	}
	if f = task.Check(call); f.Ask != nil {
		v.Asks = append(slices.Clip(v.Asks), *f.Ask)
	}
	if len(v.Asks) == 0 {
		return v, f, taken
	}
	release(ctx, taken)
	if v.Decision == ambit.Allow || v.Reason.Code == "" {
		v.Rule, v.Reason = v.Asks[0].Rule, v.Asks[0].Reason
	}
	v.Decision = ambit.Deny
	if t.Asker == nil {
		v.Asks = nil
		v.Reason.Remedy = "nobody can be asked here"
	}
	return v, f, nil
}

func toolEvent(call *ambit.ToolCall, v ambit.ToolVerdict, f flow.Finding) ambit.Event {
	e := ambit.Event{
		Kind: ambit.KindToolCall, Agent: call.Agent, Principal: call.Principal, Action: ambit.ActionTool, Intent: call.Intent, Task: call.Task,
		Decision: v.Decision, Rule: v.Rule, Resource: brief(call.Args), Touched: call.Touched,
	}
	if call.Tool != nil {
		e.Tool, e.Connection, e.Effects = call.Tool.Name, call.Tool.Connection, call.Tool.Effects
	}
	if v.Decision != ambit.Allow {
		e.Reason = &v.Reason
	}
	for _, o := range f.Origins {
		if len(e.Provenance) == maxProvenance {
			break
		}
		e.Provenance = append(e.Provenance, o.Provenance())
	}
	return e
}

const (
	maxProvenance = 64   // values of a call that its event tells about
	maxResource   = 4096 // bytes of its arguments
)

// brief is the arguments as an event has them. Of long ones it has the beginning, and
// what says of any others whether it was those.
func brief(args []byte) string {
	if len(args) <= maxResource {
		return string(args)
	}
	return fmt.Sprintf("%s… (%d bytes, SHA-256 %x)", args[:maxResource], len(args), sha256.Sum256(args))
}

func unlogged(err error) error {
	return &ambit.DenyError{Verdict: ambit.Verdict{Rule: "log", Reason: ambit.Reason{
		Code:   "log-unavailable",
		Text:   "the log could not be written, so nothing may leave: " + err.Error(),
		Remedy: "see that the disk has room and is writable, then try again",
	}}}
}

func (g *Gate) alertTool(call *ambit.ToolCall, v ambit.Verdict, seq uint64) {
	if g.alerts == nil {
		return
	}
	name := "(no tool)"
	if call.Tool != nil {
		name = call.Tool.Name
	}
	g.alerts.Raise(ambit.RefusalSeverity(v.Reason.Code), v.Reason.Code+" "+name, "refused: "+name+": "+v.Reason.Text, seq)
}
