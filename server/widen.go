package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ambit"
	"ambit/api"
	"ambit/audit"
	"ambit/gate/toolset"
	"ambit/internal/inert"
	"ambit/policy/tool"
)

const (
	// replayed is how far back calls are tried out on a new manifest, and
	// mostReplayed how many of them.
	replayed     = 7 * 24 * time.Hour
	mostReplayed = 10_000
	// shownNewly is how many of those that would newly pass are shown.
	shownNewly = 20
)

// narrows refuses a manifest that would let calls through which the one in force
// did not, unless the person has seen that: the tool calls of the last week are
// decided by both.
func (s *Server) narrows(ctx context.Context, id ambit.AgentID, after *bound, seen bool) error {
	if seen {
		return nil
	}
	a, err := s.cfg.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	current, err := s.cfg.Store.VersionSource(ctx, id, a.Version)
	if err != nil {
		return err
	}
	before, err := bindStored(fmt.Sprintf("version %d", a.Version), current.Source, current.Connectors)
	if err != nil {
		return nil //nolint:nilerr // an older release took it: nothing is in force that could be compared
	}
	newly, err := s.newly(ctx, id, before, after)
	if err != nil || len(newly) == 0 {
		return err
	}
	p := problem(http.StatusConflict, fmt.Sprintf("the new manifest is wider: of the calls of the last week, %d that were refused or asked about would pass without a person. "+
		"Nothing was changed. If that is what you want, deploy with --widen", len(newly)))
	for i, n := range newly {
		if i == shownNewly {
			p.Errors = append(p.Errors, api.ProblemError{Message: fmt.Sprintf("and %d more", len(newly)-i)})
			break
		}
		p.Errors = append(p.Errors, api.ProblemError{Message: n})
	}
	return p
}

// newly are past calls, in words, that would newly pass.
func (s *Server) newly(ctx context.Context, id ambit.AgentID, before, after *bound) ([]string, error) {
	old, err := toolset.Compile(before.Manifest)
	if err != nil {
		return nil, err
	}
	set, err := toolset.Compile(after.Manifest)
	if err != nil {
		return nil, err
	}
	tools := map[string]*ambit.Tool{}
	for _, b := range after.bindings {
		for _, t := range b.Tools() {
			tools[t.Tool.Name] = &t.Tool
		}
	}
	if len(tools) == 0 {
		return nil, nil
	}
	w, err := s.worker(ctx, id)
	if err != nil {
		return nil, err
	}
	found, err := w.Find(ctx, audit.Query{Kinds: []ambit.Kind{ambit.KindToolCall}, Since: time.Now().Add(-replayed), Newest: true, Limit: mostReplayed})
	if err != nil {
		return nil, fmt.Errorf("reading the calls of the last week: %w", err)
	}
	var calls []*ambit.ToolCall
	when := map[*ambit.ToolCall]ambit.Event{}
	for i := range found {
		e := found[i].Event
		if t := tools[e.Tool]; t != nil && strings.HasPrefix(e.Resource, "{") {
			c := &ambit.ToolCall{Agent: id, Principal: e.Principal, Tool: t, Args: []byte(e.Resource), Intent: e.Intent, Task: e.Task}
			calls, when[c] = append(calls, c), e
		}
	}
	changed := tool.Widened(old, set, calls)
	out := make([]string, len(changed))
	for i, n := range changed {
		e := when[n.Call]
		args := inert.Text(string(n.Call.Args))
		if len(args) > 200 {
			args = strings.ToValidUTF8(args[:200], "") + "…"
		}
		out[i] = fmt.Sprintf("event %d, %s: %s %s: %s (%s) before, now allowed by %s", e.Seq, e.Time.Format("2006-01-02 15:04"), n.Call.Tool.Name, args,
			toolset.Outcome(n.Before), n.Before.Rule, n.After.Rule)
	}
	return out, nil
}
