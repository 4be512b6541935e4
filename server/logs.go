package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"ambit"
	"ambit/alert"
	"ambit/api"
	"ambit/audit"
	"ambit/control"
)

// worker is the worker of an agent that exists.
func (s *Server) worker(ctx context.Context, id ambit.AgentID) (*control.Client, error) {
	if _, err := s.cfg.Store.Get(ctx, id); err != nil {
		return nil, err
	}
	return s.cfg.Workers.Worker(ctx, id)
}

// stream answers with what fn writes. An error before the first byte is a
// problem; after it the connection is cut, so that nobody takes the part for
// the whole.
func stream(contentType string, fn func(ctx context.Context, w *streamWriter) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		sw := &streamWriter{w: w, contentType: contentType}
		err := fn(hc.Context(), sw)
		switch {
		case err == nil || hc.Context().Err() != nil:
			sw.start()
		case !sw.started:
			writeProblem(w, problemOf(err))
		default:
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		}
	}}
}

// streamWriter sends each write at once.
type streamWriter struct {
	w           http.ResponseWriter
	contentType string
	started     bool
}

func (s *streamWriter) start() {
	if s.started {
		return
	}
	s.started = true
	s.w.Header().Set("Content-Type", s.contentType)
	s.w.Header().Set("X-Content-Type-Options", "nosniff")
	s.w.WriteHeader(http.StatusOK)
}

// Write implements io.Writer.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.start()
	n, err := s.w.Write(p)
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	return n, err
}

type outputInput struct {
	AgentPath
	Tail   int  `query:"tail" minimum:"0" doc:"only so many last bytes; 0 is all that is kept"`
	Follow bool `query:"follow" doc:"go on with what it writes from now on"`
}

func (s *Server) output(ctx context.Context, in *outputInput) (*huma.StreamResponse, error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return stream("application/octet-stream", func(ctx context.Context, sw *streamWriter) error {
		return w.Output(ctx, control.OutputQuery{Tail: in.Tail, Follow: in.Follow}, sw)
	}), nil
}

type egressInput struct {
	AgentPath
	Denied bool      `query:"denied" doc:"only what was refused"`
	Since  time.Time `query:"since" doc:"not older than this (RFC 3339)"`
	Limit  int       `query:"limit" minimum:"0" maximum:"10000" doc:"the last so many; 0 is 10000"`
	Follow bool      `query:"follow" doc:"go on, as application/x-ndjson"`
}

func (s *Server) egress(ctx context.Context, in *egressInput) (*huma.StreamResponse, error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	q := audit.CallQuery{Denied: in.Denied, Since: in.Since, Limit: in.Limit}
	if !in.Follow {
		calls, err := w.Calls(ctx, q)
		if err != nil {
			return nil, err
		}
		if calls == nil {
			calls = []audit.Call{}
		}
		return stream("application/json", func(_ context.Context, sw *streamWriter) error { return json.NewEncoder(sw).Encode(calls) }), nil
	}
	return stream("application/x-ndjson", func(ctx context.Context, sw *streamWriter) error {
		enc := json.NewEncoder(sw)
		return w.FollowCalls(ctx, q, func(c audit.Call) error { return enc.Encode(c) })
	}), nil
}

type alertsInput struct {
	Agent   ambit.AgentID `query:"agent" doc:"only of this agent"`
	Control bool          `query:"control" doc:"only of the control plane"`
	Min     string        `query:"min" enum:"info,low,medium,high,critical" default:"info" doc:"only of this severity or higher"`
}

// alerts asks all workers at once, and the control plane's own book. A worker
// that cannot be asked is named in the answer and hides nothing of the others.
func (s *Server) alerts(ctx context.Context, in *alertsInput) (*body[api.Alerts], error) {
	var q alert.Query
	if err := q.MinSeverity.UnmarshalText([]byte(in.Min)); err != nil {
		return nil, problem(http.StatusUnprocessableEntity, err.Error())
	}
	var ids []ambit.AgentID
	switch {
	case in.Control && in.Agent != "":
		return nil, problem(http.StatusUnprocessableEntity, "alerts are of an agent or of the control plane, not of both")
	case in.Control:
	case in.Agent != "":
		if _, err := s.cfg.Store.Get(ctx, in.Agent); err != nil {
			return nil, err
		}
		ids = []ambit.AgentID{in.Agent}
	default:
		agents, err := s.cfg.Store.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range agents {
			ids = append(ids, a.ID)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := api.Alerts{Alerts: []api.Alert{}, Missing: []string{}}
	if in.Agent == "" {
		own, err := s.cfg.ControlLog.alerts.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, a := range own {
			out.Alerts = append(out.Alerts, api.Alert{Alert: a})
		}
	}
	limit := make(chan struct{}, 16) // workers asked at the same time
	for _, id := range ids {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			found, err := s.alertsOf(ctx, id, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Missing = append(out.Missing, fmt.Sprintf("%s: %v", id, err))
			}
			for _, a := range found {
				out.Alerts = append(out.Alerts, api.Alert{Agent: id, Alert: a})
			}
		})
	}
	wg.Wait()
	slices.Sort(out.Missing)
	slices.SortFunc(out.Alerts, func(a, b api.Alert) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Agent, b.Agent), cmp.Compare(b.ID, a.ID))
	})
	return &body[api.Alerts]{out}, nil
}

func (s *Server) alertsOf(ctx context.Context, id ambit.AgentID, q alert.Query) ([]alert.Alert, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*workerTimeout)
	defer cancel()
	w, err := s.cfg.Workers.Worker(ctx, id)
	if err != nil {
		return nil, err
	}
	return w.Alerts(ctx, q)
}

type ackInput struct {
	AgentPath
	ID int64 `path:"id" doc:"the alert's"`
}

func (s *Server) ackAlert(ctx context.Context, in *ackInput) (*struct{}, error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	return nil, w.Ack(ctx, in.ID, principal(ctx))
}
