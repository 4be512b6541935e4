package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"ambit"
	"ambit/api"
	"ambit/approval"
	"ambit/control"
)

type approvalsInput struct {
	Agent ambit.AgentID  `query:"agent" doc:"only of this agent"`
	State approval.State `query:"state" enum:"waiting,approved,denied,expired,running,done,failed,lost" doc:"only in this state"`
	Limit int            `query:"limit" minimum:"0" maximum:"10000" default:"1000" doc:"the newest of each agent; 0 is 1000"`
}

// approvals asks all workers at once. One that cannot be asked is named in the
// answer and hides nothing of the others.
func (s *Server) approvals(ctx context.Context, in *approvalsInput) (*body[api.Approvals], error) {
	out := api.Approvals{Approvals: []approval.Question{}}
	q := control.ApprovalsQuery{State: in.State, Limit: cmp.Or(in.Limit, 1000)}
	var err error
	out.Missing, err = eachWorker(ctx, s, in.Agent, func(ctx context.Context, w *control.Client) ([]approval.Question, error) {
		return w.Approvals(ctx, q)
	}, func(id ambit.AgentID, found []approval.Question) {
		for _, q := range found {
			if agentOf(q.ID) == id { // a worker may say nothing about another agent
				out.Approvals = append(out.Approvals, q)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Approvals, func(a, b approval.Question) int {
		return cmp.Or(b.Asked.Compare(a.Asked), cmp.Compare(a.Agent, b.Agent), cmp.Compare(b.ID, a.ID))
	})
	return &body[api.Approvals]{out}, nil
}

// agentOf is the agent in a question's name: "support" of "support-7".
func agentOf(question string) ambit.AgentID {
	i := strings.LastIndexByte(question, '-')
	return ambit.AgentID(question[:max(i, 0)])
}

type approvalStatsInput struct {
	Agent ambit.AgentID `query:"agent" doc:"only of this agent"`
}

func (s *Server) approvalStats(ctx context.Context, in *approvalStatsInput) (*body[api.ApprovalStats], error) {
	out := api.ApprovalStats{Stats: []api.AgentApprovalStats{}}
	var err error
	out.Missing, err = eachWorker(ctx, s, in.Agent, func(ctx context.Context, w *control.Client) ([]approval.Stats, error) {
		return w.ApprovalStats(ctx)
	}, func(id ambit.AgentID, found []approval.Stats) {
		for _, f := range found {
			out.Stats = append(out.Stats, api.AgentApprovalStats{Agent: id, Stats: f})
		}
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out.Stats, func(a, b api.AgentApprovalStats) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Tool, b.Tool))
	})
	return &body[api.ApprovalStats]{out}, nil
}

// ApprovalPath is the part of the path that names a question, and with it the
// agent. It is exported because the HTTP library sees embedded fields of exported
// types only.
type ApprovalPath struct {
	ID string `path:"id" pattern:"^[a-z][a-z0-9-]{0,39}-[1-9][0-9]{0,17}$" doc:"the question's: support-7"`
}

func (s *Server) approval(ctx context.Context, in *ApprovalPath) (*body[approval.Question], error) {
	w, err := s.worker(ctx, agentOf(in.ID))
	if err != nil {
		return nil, err
	}
	q, err := w.Approval(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &body[approval.Question]{q}, nil
}

type answerApprovalInput struct {
	ApprovalPath
	Body api.AnswerApproval
}

// answerApproval goes on when the caller goes away: an answer that is in the log
// is to have its effect.
func (s *Server) answerApproval(ctx context.Context, in *answerApprovalInput) (*body[approval.Question], error) {
	w, err := s.worker(ctx, agentOf(in.ID))
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	a := approval.Answer{By: principal(ctx), Yes: in.Body.Yes, Note: in.Body.Note, Cover: in.Body.Cover}
	q, err := w.AnswerApproval(ctx, control.ApprovalAnswer{ID: in.ID, Digest: in.Body.Digest, Answer: a})
	if err != nil {
		return nil, err
	}
	s.log.Info("answered a question", slog.String("question", in.ID), slog.Any("yes", a.Yes), slog.Any("state", q.State), slog.Any("by", a.By))
	return &body[approval.Question]{q}, nil
}

// eachWorker asks the worker of one agent, or all of them at once if id is "", and
// hands each answer to take, one at a time. It returns those that could not be
// asked, with the reason.
func eachWorker[T any](ctx context.Context, s *Server, id ambit.AgentID, ask func(context.Context, *control.Client) (T, error), take func(ambit.AgentID, T)) ([]string, error) {
	ids := []ambit.AgentID{id}
	if id != "" {
		if _, err := s.cfg.Store.Get(ctx, id); err != nil {
			return nil, err
		}
	} else {
		agents, err := s.cfg.Store.List(ctx)
		if err != nil {
			return nil, err
		}
		ids = ids[:0]
		for _, a := range agents {
			ids = append(ids, a.ID)
		}
	}
	missing := []string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16) // workers asked at the same time
	for _, id := range ids {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			ctx, cancel := context.WithTimeout(ctx, 10*workerTimeout)
			defer cancel()
			var out T
			w, err := s.cfg.Workers.Worker(ctx, id)
			if err == nil {
				out, err = ask(ctx, w)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", id, err))
				return
			}
			take(id, out)
		})
	}
	wg.Wait()
	slices.Sort(missing)
	return missing, nil
}
