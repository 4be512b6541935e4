package server

import (
	"context"
	"log/slog"

	"ambit/api"
	"ambit/control"
)

func (s *Server) tools(ctx context.Context, in *AgentPath) (*body[control.Tools], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	all, err := w.Tools(ctx)
	if err != nil {
		return nil, err
	}
	return &body[control.Tools]{all}, nil
}

type judgeToolInput struct {
	AgentPath
	Body api.JudgeTool
}

// judgeTool goes on when the caller goes away: what is in the log is to have its
// effect.
func (s *Server) judgeTool(ctx context.Context, in *judgeToolInput) (*body[control.Tool], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	judge := w.RejectTool
	if in.Body.Accept {
		judge = w.AcceptTool
	}
	t, err := judge(ctx, control.JudgeTool{Name: in.Body.Name, Hash: in.Body.Hash, By: principal(ctx), Facts: in.Body.Facts})
	if err != nil {
		return nil, err
	}
	s.log.Info("judged a tool", slog.Any("agent", in.Agent), slog.String("tool", t.Name), slog.Any("accepted", in.Body.Accept), slog.Any("by", principal(ctx)))
	return &body[control.Tool]{t}, nil
}
