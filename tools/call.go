package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ambit"
	"ambit/gate"
	"ambit/internal/inert"
	"ambit/internal/jcs"
)

// maxFailure is how long the text about a failed call can get, in bytes.
const maxFailure = 2 << 10

// answer is what a call gives to the agent.
type answer struct {
	text       string
	structured json.RawMessage // an object; nil for none
	isError    bool
}

func (a answer) size() int { return len(a.text) + len(a.structured) }

func (a answer) wire() map[string]any {
	m := map[string]any{
		"content": []any{map[string]any{"type": "text", "text": strings.ToValidUTF8(a.text, "\ufffd")}},
		"isError": a.isError,
	}
	if a.structured != nil {
		m["structuredContent"] = a.structured
	}
	return m
}

// told is an answer of ours, not of a tool.
func told(isError bool, text string, fields map[string]any) answer {
	b, err := json.Marshal(fields)
	if err != nil {
		b = nil
	}
	return answer{text: text, structured: b, isError: isError}
}

func failed(code, text string) answer {
	return told(true, text, map[string]any{"status": "failed", "code": code, "reason": text})
}

// callTool answers tools/call. A problem is for what is no call; what a model can
// learn from is an answer.
func (c *caller) callTool(ctx context.Context, m *message) (map[string]any, *problem) {
	if p := m.only("name", "arguments"); p != nil {
		return nil, p
	}
	name, ok := m.params["name"].(string)
	if !ok {
		return nil, bad(codeParams, "name is missing")
	}
	args := map[string]any{}
	if v, ok := m.params["arguments"]; ok {
		if args, ok = v.(map[string]any); !ok {
			return nil, bad(codeParams, "arguments is not an object")
		}
	}
	t := c.gateway.find(name)
	if t == nil { // hidden, quarantined, another case: there is none
		c.refused(name, "unknown-tool", "there is no tool of this name")
		return nil, &problem{http.StatusOK, codeParams, "there is no tool " + quoted(name), nil}
	}
	return c.call(ctx, t, args).wire(), nil
}

func (c *caller) call(ctx context.Context, t *tool, args map[string]any) answer {
	call, err := c.parse(t, args)
	if err != nil {
		c.refused(t.Tool.Name, "bad-arguments", err.Error())
		return failed("bad-arguments", "nothing was done: "+err.Error())
	}
	if t.own != nil {
		return t.own(ctx, c, args, call.Args)
	}
	select {
	case c.gateway.running <- struct{}{}:
		defer func() { <-c.gateway.running }()
	default:
		return failed("too-many-calls", fmt.Sprintf("nothing was done: %d calls are running; wait for one of them", maxCalls))
	}
	grant, err := c.gateway.cfg.Checker.CheckTool(ctx, call)
	if err != nil {
		return undecided(err)
	}
	return c.gateway.run(ctx, t, grant, call)
}

// parse takes the intent out of arguments, checks the rest and writes it in
// canonical form.
func (c *caller) parse(t *tool, args map[string]any) (*ambit.ToolCall, error) {
	call := &ambit.ToolCall{Agent: c.gateway.cfg.Agent, Principal: ambit.PrincipalAgent, Tool: t.Tool, Task: c.task}
	if t.own == nil {
		if err := c.intent(t, args, call); err != nil {
			return nil, err
		}
	}
	if n := count(args); n > maxValues {
		return nil, fmt.Errorf("the arguments have %d values and may have %d", n, maxValues)
	}
	if err := t.input.Check(args); err != nil {
		return nil, fmt.Errorf("the arguments do not fit: %w", err)
	}
	var err error
	call.Args, err = jcs.Append(nil, args)
	return call, err
}

func (c *caller) intent(t *tool, args map[string]any, call *ambit.ToolCall) error {
	v, stated := args[t.intent]
	delete(args, t.intent)
	s, ok := v.(string)
	switch {
	case stated && !ok:
		return fmt.Errorf("%s is not a string", t.intent)
	case len(s) > ambit.MaxIntent:
		return fmt.Errorf("%s has %d bytes and may have %d", t.intent, len(s), ambit.MaxIntent)
	}
	call.Intent = cut(strings.TrimSpace(inert.Text(s)), ambit.MaxIntent)
	if call.Intent == "" && c.gateway.cfg.IntentRequired {
		return fmt.Errorf("state in %s why you make this call", t.intent)
	}
	return nil
}

// count is how many values there are in a value.
func count(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += count(e)
		}
	case map[string]any:
		for _, e := range v {
			n += count(e)
		}
	}
	return n
}

func (c *caller) refused(tool, code, text string) {
	if f := c.gateway.cfg.Refused; f != nil {
		f(Refusal{Task: c.task, Tool: shorten(inert.Text(tool), 128), Reason: ambit.Reason{Code: code, Text: text}})
	}
}

// undecided is the answer where a Checker gave no grant.
func undecided(err error) answer {
	var pending *Pending
	if errors.As(err, &pending) {
		return told(false, "This call waits for a person and has not run: "+pending.Text+
			" Go on with other work. Fetch the result later with the tool ambit.result and question \""+pending.Question+"\"; do not make the call again.",
			map[string]any{"status": "waiting", "question": pending.Question, "reason": pending.Text, "tool": own + "result"})
	}
	var denied *ambit.DenyError
	if errors.As(err, &denied) {
		v := denied.Verdict
		fields := map[string]any{"status": "denied", "code": v.Reason.Code, "reason": v.Reason.Text}
		text := "Denied, nothing was done: " + v.Reason.Text
		if v.Rule != "" {
			fields["rule"] = v.Rule
			text += " (" + v.Rule + ")"
		}
		if v.Reason.Remedy != "" {
			fields["remedy"] = v.Reason.Remedy
			text += ". What the operator can do: " + v.Reason.Remedy
		}
		if denied.Event != nil {
			fields["event"] = *denied.Event
		}
		return told(true, text, fields)
	}
	return failed("not-decided", "nothing was done: the call could not be decided: "+shorten(inert.Text(err.Error()), maxFailure))
}

// run runs a granted call and makes the answer of its result. The grant is spent
// and finished when it returns, whatever the runner did.
func (g *Gateway) run(ctx context.Context, t *tool, grant Grant, call *ambit.ToolCall) answer {
	ctx, cancel := context.WithTimeout(withCall(ctx, call, grant.Event()), g.cfg.CallTime)
	defer cancel()
	start := time.Now()
	outcome := ambit.Outcome{BytesOut: int64(len(call.Args)), Error: gate.NotRun}
	defer func() {
		_ = grant.Use() // it was, or nobody may any more
		outcome.Duration = time.Since(start)
		grant.Finish(outcome)
	}()
	fail := func(code, what string, err error) answer {
		if outcome.Error = shorten(inert.Text(err.Error()), maxFailure); outcome.Error == gate.NotRun {
			outcome.Error = "it failed: " + outcome.Error // whoever answers must not give back what it took of limits
		}
		// An error may have words of whoever was asked, if anybody was.
		if l := g.cfg.Labeller; l != nil && grant.Use() != nil {
			if err := l.Result(ctx, grant.Event(), call, Result{Text: outcome.Error, IsError: true}); err != nil {
				return failed("not-labelled", what+", and why is not passed on: "+shorten(inert.Text(err.Error()), maxFailure))
			}
		}
		return failed(code, what+": "+outcome.Error)
	}
	result, err := runSafely(ctx, t.Runner, grant, call)
	if err != nil {
		return fail("tool-failed", "the call failed", err)
	}
	outcome.Error, outcome.BytesIn = "", int64(len(result.JSON)+len(result.Text))
	if result, err = g.checked(t, result); err != nil {
		return fail("bad-result", "the call was made, but its result is not passed on", err)
	}
	if g.cfg.Labeller != nil {
		if err := g.cfg.Labeller.Result(ctx, grant.Event(), call, result); err != nil {
			outcome.Error = "the result could not be labelled: " + shorten(inert.Text(err.Error()), maxFailure)
			return failed("not-labelled", "the call was made, but its result is not passed on: "+outcome.Error)
		}
	}
	if result.IsError {
		outcome.Error = "the tool says that it failed"
	}
	return answerOf(result)
}

// runSafely turns a panic of a runner into an error: a tool must not end the worker
// of all tools.
func runSafely(ctx context.Context, r Runner, grant Grant, call *ambit.ToolCall) (_ Result, err error) {
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("its runner panicked: %v; whether the call took effect is not known", x)
		}
	}()
	return r.Run(ctx, grant, call)
}

// checked holds a result against the limits and against what the tool says of its
// results.
func (g *Gateway) checked(t *tool, r Result) (Result, error) {
	if n := len(r.JSON) + len(r.Text); n > g.cfg.MaxResult {
		return r, fmt.Errorf("the result has %d bytes and may have %d; ask for less at a time", n, g.cfg.MaxResult)
	}
	if r.JSON == nil {
		r.Text = strings.ToValidUTF8(r.Text, "\ufffd")
		if t.output != nil && !r.IsError {
			return r, errors.New("the tool declares a schema for its results, and this one is plain text")
		}
		return r, nil
	}
	r.Text = ""
	v, err := jcs.Parse(r.JSON, jcs.MaxDepth)
	if err != nil {
		return r, fmt.Errorf("the result is not acceptable JSON: %w", err)
	}
	if t.output != nil && !r.IsError {
		if err := t.output.Check(v); err != nil {
			return r, fmt.Errorf("the result is not what the tool's own schema says: %w", err)
		}
	}
	r.JSON, err = jcs.Append(nil, v)
	return r, err
}

func answerOf(r Result) answer {
	if r.JSON == nil {
		return answer{text: r.Text, isError: r.IsError}
	}
	a := answer{text: string(r.JSON), isError: r.IsError}
	if r.JSON[0] == '{' { // revisions before 2026 have nothing else there
		a.structured = r.JSON
	}
	return a
}
