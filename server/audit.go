package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ambit"
	"ambit/api"
	"ambit/audit"
	"ambit/control"
	"ambit/scan"
)

type searchInput struct{ Body api.Search }

// auditSearch asks the logs that are named, or all.
func (s *Server) auditSearch(ctx context.Context, in *searchInput) (*body[api.Found], error) {
	q, _, err := query(&in.Body)
	if err != nil {
		return nil, err
	}
	out := api.Found{Found: []api.TraceEntry{}}
	var mu sync.Mutex
	ids, err := s.logs(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	if err := s.noteRead(ctx, "search", in.Body.Agents, q.Subjects); err != nil {
		return nil, err
	}
	out.Missing = s.eachLog(ctx, ids, func(ctx context.Context, id ambit.AgentID, l searched) error {
		found, err := l.Find(ctx, q)
		mu.Lock()
		defer mu.Unlock()
		for _, f := range found {
			out.Found = append(out.Found, api.TraceEntry{Agent: id, Touch: f})
		}
		return err
	})
	byTime(out.Found, q.Newest)
	return &body[api.Found]{out}, nil
}

// auditTrace finds everything that touched somebody, in all logs that are named,
// or in all.
func (s *Server) auditTrace(ctx context.Context, in *searchInput) (*body[api.Trace], error) {
	q, subjects, err := query(&in.Body)
	if err != nil {
		return nil, err
	}
	if len(subjects) == 0 {
		return nil, problem(http.StatusUnprocessableEntity, "say whose data it is about: an e-mail address, a telephone number, order:1001")
	}
	ids, err := s.logs(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	if err := s.noteRead(ctx, "trace", in.Body.Agents, subjects); err != nil {
		return nil, err
	}
	q.Subjects = nil
	out := api.Trace{Subjects: subjects, Entries: []api.TraceEntry{}, Logs: []api.TraceLog{}, Asked: time.Now().UTC()}
	var mu sync.Mutex
	out.Missing = s.eachLog(ctx, ids, func(ctx context.Context, id ambit.AgentID, l searched) error {
		trail, err := l.Trace(ctx, control.Trace{Subjects: subjects, Query: q})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, t := range trail.Touches {
			out.Entries = append(out.Entries, api.TraceEntry{Agent: id, Touch: t})
		}
		out.Logs = append(out.Logs, api.TraceLog{Agent: id, Erased: trail.Erased, Unnamed: trail.More, Unseen: trail.Unseen, Cut: trail.Cut})
		return nil
	})
	byTime(out.Entries, q.Newest)
	slices.SortFunc(out.Logs, func(a, b api.TraceLog) int { return cmp.Compare(a.Agent, b.Agent) })
	return &body[api.Trace]{out}, nil
}

func byTime(entries []api.TraceEntry, newest bool) {
	slices.SortStableFunc(entries, func(a, b api.TraceEntry) int {
		c := cmp.Or(a.Event.Time.Compare(b.Event.Time), cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Event.Seq, b.Event.Seq))
		if newest {
			return -c
		}
		return c
	})
}

// query is the question to one log, with whom it is about.
func query(in *api.Search) (audit.Query, []ambit.Subject, error) {
	q := audit.Query{
		Kinds: in.Kinds, Actions: in.Actions, Hosts: in.Hosts, Tools: in.Tools, Effects: in.Effects,
		Intent: in.Intent, Text: in.Text, Since: in.Since, Until: in.Until, Limit: in.Limit, Newest: in.Newest,
	}
	for _, p := range in.People {
		q.Principals = append(q.Principals, ambit.Principal(p))
	}
	if in.Connection != "" {
		q.Connections = []string{in.Connection}
	}
	if in.Decision != "" {
		var d ambit.Decision
		if err := d.UnmarshalText([]byte(in.Decision)); err != nil {
			return q, nil, err
		}
		q.Decision = &d
	}
	subjects, err := subjectsOf(in.Subjects)
	q.Subjects = subjects
	return q, subjects, err
}

// subjectsOf is every reading of what a person typed.
func subjectsOf(texts []string) ([]ambit.Subject, error) {
	var out []ambit.Subject
	for _, text := range texts {
		found, err := scan.Parse(text)
		if err != nil {
			return nil, problem(http.StatusUnprocessableEntity, err.Error())
		}
		out = append(out, scan.Plain(found)...)
	}
	return out, nil
}

// searched is a log that can be looked through: an agent's, behind its worker, or
// the control plane's own.
type searched interface {
	Find(ctx context.Context, q audit.Query) ([]audit.Touch, error)
	Trace(ctx context.Context, q control.Trace) (audit.Trail, error)
}

// ownLog is that of the control plane.
type ownLog struct{ log *audit.Log }

func (o ownLog) Find(ctx context.Context, q audit.Query) ([]audit.Touch, error) {
	return o.log.Find(ctx, q)
}

func (o ownLog) Trace(ctx context.Context, q control.Trace) (audit.Trail, error) {
	return o.log.Trace(ctx, q.Subjects, q.Query)
}

// logs are the agents that are named, or all; one that does not exist is an
// error. "" is the control plane.
func (s *Server) logs(ctx context.Context, q *api.Search) (ids []ambit.AgentID, err error) {
	if q.Control {
		ids = []ambit.AgentID{""}
	}
	named := q.Agents
	for _, id := range named {
		if _, err := s.cfg.Store.Get(ctx, id); err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
	}
	if len(named) > 0 || q.Control {
		return append(ids, slices.Compact(slices.Sorted(slices.Values(named)))...), nil
	}
	agents, err := s.cfg.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range agents {
		ids = append(ids, a.ID)
	}
	return ids, nil
}

// auditPatience bounds a question to one log.
const auditPatience = 2 * time.Minute

// eachLog looks through logs at the same time. Those that cannot be asked are
// named in the result and hide nothing of the others.
func (s *Server) eachLog(ctx context.Context, ids []ambit.AgentID, ask func(context.Context, ambit.AgentID, searched) error) (missing []string) {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	missing = []string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16) // workers asked at the same time
	for _, id := range ids {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := s.askLog(ctx, id, ask); err != nil {
				mu.Lock()
				missing = append(missing, fmt.Sprintf("%s: %v", cmp.Or(string(id), "the control plane"), err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(missing)
	return missing
}

func (s *Server) askLog(ctx context.Context, id ambit.AgentID, ask func(context.Context, ambit.AgentID, searched) error) error {
	if id == "" {
		return ask(ctx, id, ownLog{s.cfg.ControlLog.log})
	}
	w, err := s.cfg.Workers.Worker(ctx, id)
	if err != nil {
		return err
	}
	return ask(ctx, id, w)
}

// noteRead writes down that a person looks into logs, and at whom.
func (s *Server) noteRead(ctx context.Context, what string, ids []ambit.AgentID, subjects []ambit.Subject) error {
	e := ambit.Event{Kind: ambit.KindAuditRead, Resource: what, Touched: subjects, Decision: ambit.Allow}
	if len(ids) == 1 {
		e.Agent = ids[0]
	}
	return s.note(ctx, e)
}

type eventPath struct {
	AgentPath
	Seq uint64 `path:"seq" doc:"the event's position"`
}

func (s *Server) auditProve(ctx context.Context, in *eventPath) (*body[audit.Inclusion], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	if err := s.noteRead(ctx, fmt.Sprintf("proof of event %d", in.Seq), []ambit.AgentID{in.Agent}, nil); err != nil {
		return nil, err
	}
	p, err := w.Prove(ctx, in.Seq)
	if err != nil {
		return nil, err
	}
	return &body[audit.Inclusion]{p}, nil
}

type exportInput struct {
	AgentPath
	Body api.Export
}

func (s *Server) auditExport(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
	q, _, err := query(&in.Body.Search)
	if err != nil {
		return nil, err
	}
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	if err := s.noteRead(ctx, "export", []ambit.AgentID{in.Agent}, q.Subjects); err != nil {
		return nil, err
	}
	head, err := s.witness.look(ctx, in.Agent, w, 0)
	if err != nil {
		return nil, err
	}
	return stream("application/x-tar", func(ctx context.Context, sw *streamWriter) error {
		return w.Export(ctx, control.Export{Query: q, Formats: in.Body.Formats, Note: head.Note}, sw)
	}), nil
}

type eraseInput struct {
	AgentPath
	Body api.Erase
}

// auditErase erases what is known to touch a person. It goes on when the caller
// goes away.
func (s *Server) auditErase(ctx context.Context, in *eraseInput) (*body[api.Erased], error) {
	subjects, err := subjectsOf([]string{in.Body.Subject})
	if err != nil {
		return nil, err
	}
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	receipts, err := w.Erase(ctx, control.Erase{By: principal(ctx), Subjects: subjects})
	if err != nil {
		return nil, err
	}
	return &body[api.Erased]{api.Erased{Receipts: receipts}}, nil
}

type holdInput struct {
	AgentPath
	Body api.SetHold
}

// auditHold sets a hold first in the store, which a wipe asks, and then in the
// log; it is lifted the other way around. Whatever happens in between, it lasts.
func (s *Server) auditHold(ctx context.Context, in *holdInput) (*body[api.Hold], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	done, err := s.turns.take(ctx, in.Agent, "hold")
	if err != nil {
		return nil, err
	}
	defer done()
	if in.Body.On {
		who := fmt.Sprintf("%s on %s", principal(ctx), time.Now().UTC().Format("2006-01-02 15:04 MST"))
		if err := s.cfg.Store.SetHeld(ctx, in.Agent, who); err != nil {
			return nil, err
		}
	}
	if err := w.Hold(ctx, control.Hold{On: in.Body.On, By: principal(ctx), Why: in.Body.Why}); err != nil {
		return nil, err
	}
	if !in.Body.On {
		if err := s.cfg.Store.SetHeld(ctx, in.Agent, ""); err != nil {
			return nil, err
		}
	}
	return s.held(ctx, w)
}

func (s *Server) auditHeld(ctx context.Context, in *AgentPath) (*body[api.Hold], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return s.held(ctx, w)
}

func (s *Server) held(ctx context.Context, w *control.Client) (*body[api.Hold], error) {
	h, err := w.Held(ctx)
	if err != nil {
		return nil, err
	}
	out := api.Hold{}
	if h != nil {
		out = api.Hold{Held: true, By: h.By, Time: h.Time, Why: h.Why}
	}
	return &body[api.Hold]{out}, nil
}
