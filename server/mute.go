package server

import (
	"context"
	"time"

	"ambit/api"
	"ambit/control"
)

type muteInput struct {
	AgentPath
	ID   int64 `path:"id" doc:"the alert's"`
	Body api.Mute
}

func (s *Server) muteAlert(ctx context.Context, in *muteInput) (*struct{}, error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return nil, w.Mute(ctx, control.OnAlert{ID: in.ID, By: principal(ctx), For: time.Duration(in.Body.Seconds) * time.Second, Why: in.Body.Why})
}

func (s *Server) unmuteAlert(ctx context.Context, in *ackInput) (*struct{}, error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return nil, w.Unmute(ctx, in.ID, principal(ctx))
}
