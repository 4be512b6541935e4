package tools

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ambit"
	"ambit/flow"
	"ambit/internal/inert"
)

// builtin answers a call of a tool that is built in. args fit its schema, and
// canonical is what they are.
type builtin func(ctx context.Context, c *caller, args map[string]any, canonical []byte) answer

const resultSchema = `{
  "type": "object", "required": ["question"],
  "properties": {
    "question": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,79}$", "description": "the question that the call's answer named"},
    "wait": {"type": "integer", "minimum": 0, "maximum": 60, "description": "how many seconds to wait for a person; 0 if you leave it out"}
  }
}`

// builtins makes the tools that are there of themselves. Their names begin with
// "ambit.", which those of no others do.
func (g *Gateway) builtins() (list []*tool, err error) {
	add := func(name, description string, schema json.RawMessage, f builtin) {
		t, e := prepare(Entry{Tool: &ambit.Tool{Name: own + name, Description: description, Input: schema, Effects: []ambit.Effect{ambit.EffectRead}}})
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s%s: %w", own, name, e))
			return
		}
		t.own = f
		list = append(list, t)
	}
	if g.cfg.Planner != nil {
		add("plan", "Declare which tools this task will use, before you read anything from outside. Afterwards a call that changes something and is not in the plan waits for a person.", flow.PlanSchema(), g.plan)
	}
	if g.cfg.Questions != nil {
		add("result", "Fetch the result of a call that waited for a person.", json.RawMessage(resultSchema), g.result)
	}
	return list, err
}

func (g *Gateway) plan(ctx context.Context, c *caller, _ map[string]any, canonical []byte) answer {
	if err := g.cfg.Planner.Plan(ctx, c.task, canonical); err != nil {
		return failed("plan-refused", "the plan was not taken: "+shorten(inert.Text(err.Error()), maxFailure))
	}
	return told(false, "The plan holds for this task.", map[string]any{"status": "planned"})
}

// result answers ambit.result: what a call came to that waited for a person.
func (g *Gateway) result(ctx context.Context, _ *caller, args map[string]any, _ []byte) answer {
	question, _ := args["question"].(string)
	a := g.fetch(ctx, question, args)
	if f := g.cfg.Fetched; f != nil {
		f(ctx, question)
	}
	return a
}

func (g *Gateway) fetch(ctx context.Context, question string, args map[string]any) answer {
	seconds, _ := args["wait"].(float64)
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	select {
	case g.waiting <- struct{}{}:
		defer func() { <-g.waiting }()
	default:
		return failed("too-many-calls", fmt.Sprintf("%d programs are waiting already", maxCalls))
	}
	if k := g.kept.get(question); k != nil {
		return g.await(ctx, question, k, end)
	}
	grant, call, err := g.cfg.Questions.Wait(ctx, question, time.Until(end))
	if err == nil {
		k, first := g.kept.begin(question)
		if first {
			g.calls.Go(func() { g.finish(g.later, k, grant, call) })
		}
		return g.await(ctx, question, k, end)
	}
	if k := g.kept.get(question); k != nil { // somebody took it meanwhile
		return g.await(ctx, question, k, end)
	}
	var ended *Ended
	switch {
	case errors.As(err, &ended) && ended.Failed != "":
		return failed("tool-failed", "the call failed: "+shorten(inert.Text(ended.Failed), maxFailure))
	case errors.As(err, &ended):
		return answerOf(Result{JSON: ended.Result})
	case errors.Is(err, ErrTaken):
		return failed("result-gone", "the call of this question was run before, and its result is not kept any more; see what it did before you ask again")
	case errors.Is(err, ErrNoQuestion):
		return failed("unknown-question", "there is no question "+quoted(question))
	case ctx.Err() != nil:
		return failed("not-decided", "the connection ended while it waited")
	}
	return undecided(err)
}

func (g *Gateway) await(ctx context.Context, question string, k *kept, end time.Time) answer {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	select { // what is there is not missed because nobody waits
	case <-k.done:
		return k.answer
	default:
	}
	select {
	case <-k.done:
		return k.answer
	case <-timer.C:
	case <-ctx.Done():
	}
	return told(false, "A person agreed, and the call is running. Fetch its result with ambit.result and question \""+question+"\".",
		map[string]any{"status": "running", "question": question})
}

// Resume runs a call that people agreed to, when nobody fetches it with
// ambit.result, and keeps its answer under the question's name. It returns when the
// call has ended. A question whose call runs or ran already is left alone: its grant
// is single use.
func (g *Gateway) Resume(ctx context.Context, question string, grant Grant, call *ambit.ToolCall) {
	if k, first := g.kept.begin(question); first {
		g.finish(ctx, k, grant, call)
	}
}

// finish runs a call as it was asked about, with the tool as it is now: one that was
// taken away, or does not take these arguments any more, does not run.
func (g *Gateway) finish(ctx context.Context, k *kept, grant Grant, call *ambit.ToolCall) {
	t := g.find(call.Tool.Name)
	if t == nil || t.own != nil || !t.takes(call) {
		_ = grant.Use()
		const text = "the tool was taken away or changed since a person was asked; nothing was done"
		grant.Finish(ambit.Outcome{Error: text})
		g.kept.finish(k, failed("tool-changed", text))
		return
	}
	g.kept.finish(k, g.run(ctx, t, grant, call))
}
