package server

import (
	"context"
	"log/slog"

	"ambit/api"
	"ambit/control"
)

type beginTaskInput struct {
	AgentPath
	Body api.BeginTask
}

// beginTask begins a task with the words of who calls. Only people get here, so
// that an agent cannot put words into their mouths.
func (s *Server) beginTask(ctx context.Context, in *beginTaskInput) (*body[api.Task], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	t, err := w.BeginTask(ctx, control.Task{Words: in.Body.Words, By: principal(ctx)})
	if err != nil {
		return nil, err
	}
	s.log.Info("a task began", slog.Any("agent", in.Agent), slog.String("task", t.Task), slog.Any("by", principal(ctx)))
	return &body[api.Task]{api.Task{Task: t.Task, Event: t.Event}}, nil
}
