package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"ambit"
	"ambit/approval"
	"ambit/flow"
	"ambit/gate"
)

// asker puts before people what the gate holds.
type asker struct{ w *Worker }

// Ask implements gate.Asker.
func (a asker) Ask(ctx context.Context, h gate.Held) (string, error) {
	hash, err := toolHash(h.Call.Tool)
	if err != nil {
		return "", err
	}
	of := h.Event
	q, err := a.w.approvals.Ask(ctx, approval.Question{
		Task: h.Call.Task, Tool: h.Call.Tool.Name, Args: string(h.Call.Args), ToolHash: hash, PolicyVersion: a.w.policyVersion(),
		Effects: h.Call.Tool.Effects, Provenance: origins(h.Finding), Asks: h.Asks, Words: approval.Words(h.Call), Intent: h.Call.Intent, Of: &of,
		Touched: a.w.touched(&ambit.Event{Detail: string(h.Call.Args)}),
	})
	return q.ID, err
}

// grantApproved spends an approval on a call, which is the one that people agreed
// to or is refused: the tool and the policy are those of now.
func (w *Worker) grantApproved(ctx context.Context, id string, call *ambit.ToolCall) (*gate.Grant, error) {
	hash, err := toolHash(call.Tool)
	if err != nil {
		return nil, err
	}
	q, err := w.approvals.Take(ctx, id, approval.Digest(w.config.Agent, call.Tool.Name, string(call.Args), hash, w.policyVersion()))
	if err != nil {
		return nil, err
	}
	call.Intent = q.Intent // the one that people saw
	g, err := w.gate.GrantHeld(ctx, call, q.Asks, q.Answers[len(q.Answers)-1].Event)
	if err != nil { // it does not run
		if ferr := w.approvals.Finish(ctx, id, nil, err.Error()); ferr != nil {
			return nil, fmt.Errorf("%w; and %w", err, ferr)
		}
		return nil, err
	}
	return g, nil
}

func (w *Worker) policyVersion() string { return strconv.FormatInt(w.version.Load(), 10) }

// toolHash is over all that is declared of a tool.
func toolHash(t *ambit.Tool) (string, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("hashing the tool %s: %w", t.Name, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// origins are what package flow found, those in doubt first. A person cannot read
// more than there is room for; the arguments have everything.
func origins(f flow.Finding) []approval.Origin {
	var out []approval.Origin
	for _, o := range f.Origins {
		doubt := slices.ContainsFunc(f.Doubts, func(d flow.Doubt) bool { return d.Origin.Argument == o.Argument })
		to := approval.Origin{Pointer: o.Argument, Value: o.Value, Label: o.Label, Text: "not found in anything that the agent has seen", Tool: o.Tool, Doubt: doubt}
		if o.How != flow.Nowhere {
			to.Text = o.From
			if o.Event != 0 {
				event := o.Event
				to.Event = &event
				to.Text += fmt.Sprintf(", event %d", event)
			}
		}
		out = append(out, to)
	}
	slices.SortStableFunc(out, func(a, b approval.Origin) int {
		switch {
		case a.Doubt == b.Doubt:
			return 0
		case a.Doubt:
			return -1
		}
		return 1
	})
	return out[:min(len(out), approval.MaxOrigins)]
}
