package main

import (
	"context"
	"log/slog"

	"ambit/agent"
	"ambit/server"
	"ambit/server/fleet"
)

// Fleet runs the agents of one home.
type Fleet interface {
	server.Runner
	server.Workers
	// Close ends every worker and computer in good order; they are taken up
	// again by the next serve.
	Close(ctx context.Context) error
}

func newFleet(ctx context.Context, home string, store *agent.Store, log *slog.Logger) (Fleet, error) {
	return fleet.Open(ctx, fleet.Config{Home: home, Store: store, Version: version, Log: log})
}
