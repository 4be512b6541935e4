package main

import (
	"context"
	"errors"
	"log/slog"

	"ambit/agent"
	"ambit/server"
)

// Fleet runs the agents of one home.
type Fleet interface {
	server.Runner
	server.Workers
	// Close ends every worker and computer in good order; they are taken up
	// again by the next serve.
	Close(ctx context.Context) error
}

func newFleet(_ context.Context, _ string, _ *agent.Store, _ *slog.Logger) (Fleet, error) {
	return nil, errors.New("this build cannot run agents")
}
