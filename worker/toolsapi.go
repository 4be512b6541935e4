package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"ambit"
	"ambit/control"
	"ambit/policy/tool"
	"ambit/tools/upstream"
)

func (w *Worker) serveTools(mux *http.ServeMux) {
	mux.HandleFunc("GET "+control.PathTools, answer(func(ctx context.Context, _ struct{}) (control.Tools, error) { return w.allTools(ctx) }))
	mux.HandleFunc("POST "+control.PathToolAccept, answer(w.acceptTool))
	mux.HandleFunc("POST "+control.PathToolReject, answer(w.rejectTool))
}

// allTools are the agent's, and those of servers that it could have.
func (w *Worker) allTools(ctx context.Context) (control.Tools, error) {
	t := &w.tools.servers
	t.mu.Lock()
	bound, all := t.bound, t.all
	t.mu.Unlock()
	out := control.Tools{Tools: []control.Tool{}, Servers: []control.ToolServer{}}
	for _, b := range bound {
		out.Tools = append(out.Tools, control.Tool{
			Name: b.Tool.Name, Connection: b.connection, State: control.ToolReady, Listed: w.listed(&b.Tool), ToolFacts: factsOf(&b.Tool),
			Description: b.Tool.Description, Input: b.Tool.Input, Output: b.Tool.Output,
		})
	}
	for _, s := range all {
		s.mu.Lock()
		out.Servers = append(out.Servers, control.ToolServer{Name: s.name, URL: s.url, Connection: s.connection, Asked: s.asked, Problem: s.problem})
		s.mu.Unlock()
		items, err := t.book.List(ctx, s.name)
		if err != nil {
			return out, err
		}
		for i := range items {
			out.Tools = append(out.Tools, w.describeItem(s, &items[i]))
		}
	}
	return out, nil
}

func factsOf(t *ambit.Tool) control.ToolFacts {
	return control.ToolFacts{Effects: t.Effects, Leaves: t.Leaves, Targets: t.Targets, Amount: t.Amount, Currency: t.Currency, Limits: t.Limits, Records: t.Records}
}

// listed says whether a rule of the manifest allows a tool on any condition.
func (w *Worker) listed(t *ambit.Tool) bool {
	set := w.tools.policy.Load()
	call := &ambit.ToolCall{Agent: w.config.Agent, Tool: t, Args: []byte("{}")}
	return set.Decide(call, set.NothingYet(call)).Reason.Code != tool.CodeNotAllowed
}

func describeState(s upstream.State) control.ToolState {
	switch s {
	case upstream.Accepted:
		return control.ToolReady
	case upstream.Changed:
		return control.ToolChanged
	case upstream.Rejected:
		return control.ToolRejected
	case upstream.Gone:
		return control.ToolGone
	case upstream.Fresh:
	}
	return control.ToolNew
}

func (w *Worker) describeItem(s *server, i *upstream.Item) control.Tool {
	facts := control.ToolFacts(i.Facts)
	effects := facts.Effects
	if len(effects) == 0 {
		effects = []ambit.Effect{ambit.EffectRead}
	}
	return control.Tool{
		Name: i.Name, Server: s.name, Own: i.Tool, Connection: s.connection, State: describeState(i.State), ToolFacts: facts,
		Listed:      i.Name != "" && w.listed(&ambit.Tool{Name: i.Name, Connection: s.connection, Effects: effects, Input: i.Input}),
		Description: i.Description, Input: i.Input, Output: i.Output, Hash: i.Hash, Flags: i.Flags, Problem: i.Problem, Before: i.Before,
		JudgedBy: i.JudgedBy, JudgedAt: i.JudgedAt, First: i.First, Changed: i.Changed, Seen: i.Seen,
	}
}

// offered finds a tool of a server, by its name here or, if it has none, by the
// server's and its own ("crm/Create Issue").
func (w *Worker) offered(ctx context.Context, name string) (*server, upstream.Item, error) {
	t := &w.tools.servers
	t.mu.Lock()
	bound, all := t.bound, t.all
	t.mu.Unlock()
	for _, s := range all {
		items, err := t.book.List(ctx, s.name)
		if err != nil {
			return nil, upstream.Item{}, err
		}
		var found []upstream.Item
		for i := range items {
			if items[i].Name == name && name != "" || s.name+"/"+items[i].Tool == name {
				found = append(found, items[i])
			}
		}
		if len(found) > 1 {
			return nil, upstream.Item{}, statusError{http.StatusConflict, fmt.Errorf("several tools of the server %s have the name %s here; write one as %s/ and the server's own name", s.name, name, s.name)}
		}
		if len(found) == 1 {
			return s, found[0], nil
		}
	}
	if slices.ContainsFunc(bound, func(b boundTool) bool { return b.Tool.Name == name }) {
		return nil, upstream.Item{}, fmt.Errorf("%s is a tool of a connection: the manifest says what becomes of it", name)
	}
	return nil, upstream.Item{}, statusError{http.StatusNotFound, fmt.Errorf("no server of this agent offers a tool %q", name)}
}

// acceptTool lets the agent have a tool as a person looked at it.
func (w *Worker) acceptTool(ctx context.Context, q control.JudgeTool) (control.Tool, error) {
	return w.judgeTool(ctx, q, "accepted", func(i *upstream.Item) error {
		return w.tools.servers.book.Accept(ctx, i.Upstream, i.Tool, q.Hash, q.By, upstream.Facts(q.Facts))
	})
}

// rejectTool takes a tool away from the agent.
func (w *Worker) rejectTool(ctx context.Context, q control.JudgeTool) (control.Tool, error) {
	q.Facts = control.ToolFacts{}
	return w.judgeTool(ctx, q, "rejected", func(i *upstream.Item) error {
		return w.tools.servers.book.Reject(ctx, i.Upstream, i.Tool, q.Hash, q.By)
	})
}

// judgeTool logs durably what a person made of a tool, and then does it. What could
// not be done after all is in the log, too.
func (w *Worker) judgeTool(ctx context.Context, q control.JudgeTool, word string, do func(*upstream.Item) error) (control.Tool, error) {
	if q.By == "" || q.By == ambit.PrincipalAgent {
		return control.Tool{}, statusError{http.StatusForbidden, errors.New("a person judges a tool")}
	}
	s, item, err := w.offered(ctx, q.Name)
	switch {
	case err != nil:
		return control.Tool{}, err
	case item.Hash != q.Hash:
		return control.Tool{}, statusError{http.StatusConflict, upstream.ErrMoved}
	case item.Problem != "" && word == "accepted":
		return control.Tool{}, fmt.Errorf("the tool cannot be accepted: %s", item.Problem)
	}
	facts := upstream.Facts(q.Facts)
	if err := facts.Check(item.Input); err != nil && word == "accepted" {
		return control.Tool{}, err
	}
	e := ambit.Event{
		Kind: ambit.KindPolicyChange, Agent: w.config.Agent, Principal: q.By, Tool: item.Name, Resource: "tool " + s.name + "/" + item.Tool,
		Effects: facts.Effects, Detail: toolDetail(word, q),
	}
	seq, err := w.events.Append(ctx, e)
	if err != nil {
		return control.Tool{}, err
	}
	ctx = context.WithoutCancel(ctx) // what is in the log is to have its effect
	if err := do(&item); err != nil {
		e.Principal, e.Effects, e.Of, e.Detail = ambit.PrincipalAmbit, nil, &seq, "not "+word+": "+err.Error()
		if _, lerr := w.events.Append(ctx, e); lerr != nil {
			return control.Tool{}, errors.Join(err, lerr)
		}
		if errors.Is(err, upstream.ErrMoved) {
			err = statusError{http.StatusConflict, err}
		}
		return control.Tool{}, err
	}
	if err := w.renewTools(ctx); err != nil {
		return control.Tool{}, err
	}
	w.saw(ctx, "tool-changed "+ofTool(s.name, item.Tool), q.By)
	w.saw(ctx, "tool-new "+s.name, q.By)
	if _, item, err = w.offered(ctx, q.Name); err != nil {
		return control.Tool{}, err
	}
	return w.describeItem(s, &item), nil
}

// toolDetail says in the log what a person made of a tool.
func toolDetail(word string, q control.JudgeTool) string {
	s := word + ", as the hash " + q.Hash + " is of"
	if word == "accepted" {
		if b, err := json.Marshal(q.Facts); err == nil {
			s += ", with " + string(b)
		}
	}
	return cut(s, maxWords)
}
