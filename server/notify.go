package server

import (
	"context"
	"errors"
	"net/http"

	"ambit"
	"ambit/alert"
	"ambit/alert/notify"
	"ambit/api"
)

// books lists the books of alerts that notifications are made of, that of the
// control plane first. A worker that
// does not run is not started for it: its book is read when it runs again.
func (s *Server) books(ctx context.Context) ([]notify.Source, error) {
	agents, err := s.cfg.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]notify.Source, 0, len(agents)+1)
	all = append(all, notify.Source{Name: "control", Book: s.cfg.ControlLog.alerts})
	for _, a := range agents {
		source := notify.Source{Name: "agent/" + string(a.ID), Agent: a.ID}
		if s.cfg.Runner.Status(a.ID).Worker == "running" {
			source.Book = workerBook{s, a.ID}
		}
		all = append(all, source)
	}
	return all, nil
}

// workerBook is the book of a worker.
type workerBook struct {
	server *Server
	agent  ambit.AgentID
}

// News implements notify.Book.
func (b workerBook) News(ctx context.Context, q alert.NewsQuery) (alert.News, error) {
	w, err := b.server.cfg.Workers.Worker(ctx, b.agent)
	if err != nil {
		return alert.News{}, err
	}
	return w.News(ctx, q)
}

// openNotifier opens what tells people, if anybody is to be told.
func (s *Server) openNotifier() (err error) {
	if len(s.cfg.Notify) == 0 {
		return nil
	}
	s.notifier, err = notify.Open(notify.Options{
		Destinations: s.cfg.Notify, State: s.cfg.NotifyState, Sources: s.books, Version: s.cfg.Version, Log: s.log,
	})
	return err
}

// startNotifier tells people until the function that it returns is called, which
// waits for the end.
func (s *Server) startNotifier() (stop func()) {
	if s.notifier == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.notifier.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (s *Server) destinations(context.Context, *struct{}) (*body[api.Destinations], error) {
	out := api.Destinations{Destinations: []notify.Status{}}
	if s.notifier != nil {
		out.Destinations = s.notifier.Status()
	}
	return &body[api.Destinations]{out}, nil
}

type destinationInput struct {
	Name string `path:"name" pattern:"^[a-z][a-z0-9-]{0,39}$" doc:"the destination's"`
}

// testDestination sends a message that says that it is a test.
func (s *Server) testDestination(ctx context.Context, in *destinationInput) (*struct{}, error) {
	if s.notifier == nil {
		return nil, problem(http.StatusNotFound, "nobody is notified of anything: no destination is configured")
	}
	err := s.notifier.Test(ctx, in.Name)
	switch {
	case errors.Is(err, notify.ErrUnknown):
		return nil, problem(http.StatusNotFound, "there is no such destination: `ambit alerts destinations` lists those that there are")
	case err != nil:
		return nil, problem(http.StatusBadGateway, err.Error())
	}
	return nil, nil
}
