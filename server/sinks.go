package server

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/api"
	"ambit/audit"
	"ambit/audit/sink"
	"ambit/audit/sink/outputs"
	"ambit/control"
	"ambit/internal/inert"
	"ambit/internal/sqldb"
)

//go:embed migrations/*.sql
var sinkMigrations embed.FS

// sinksFile has the cursors of sinks: it is written often, and losing it only
// means that events are delivered again.
const sinksFile = "sinks.db"

// followEvery is how often new agents are looked for, and workers are told how far
// the sinks are that may block them.
const followEvery = time.Second

// Sinks stream the logs to where an operator collects them.
type Sinks struct {
	configs []outputs.Sink
	runner  *sink.Runner
	db      *sqldb.DB
	behind  chan sink.Notice
	refused chan refusedEvent
}

type refusedEvent struct {
	sink string
	sink.Rejection
}

// OpenSinks reads the secrets of sinks and opens their cursors. It does not
// connect. No sinks are nil.
func OpenSinks(ctx context.Context, home string, configs []outputs.Sink, version string) (_ *Sinks, err error) {
	if len(configs) == 0 {
		return nil, nil
	}
	s := &Sinks{configs: configs, behind: make(chan sink.Notice, 64), refused: make(chan refusedEvent, 64)}
	var all []sink.Sink
	for i := range configs {
		one, err := sink.Open(&configs[i], version)
		if err != nil {
			return nil, fmt.Errorf("opening the sink %s: %w", configs[i].Name, err)
		}
		all = append(all, one)
	}
	if s.db, err = sqldb.Open(ctx, filepath.Join(home, sinksFile)); err != nil {
		return nil, err
	}
	migrations, err := fs.Sub(sinkMigrations, "migrations")
	if err == nil {
		err = s.db.Migrate(ctx, "sink_version", migrations)
	}
	if err == nil {
		s.runner, err = sink.New(sink.Options{
			Cursors: cursors{s.db}, Sinks: all,
			Behind:   func(n sink.Notice) { s.behind <- n },
			Rejected: func(name string, r sink.Rejection) { s.refused <- refusedEvent{name, r} },
		})
	}
	if err != nil {
		return nil, errors.Join(err, s.db.Close())
	}
	return s, nil
}

// Close closes the cursors, after Serve. Nil closes nothing.
func (s *Sinks) Close() error {
	if s == nil {
		return nil
	}
	return s.db.Close()
}

// cursors implements sink.Cursors.
type cursors struct{ db *sqldb.DB }

func (c cursors) Load(ctx context.Context, sink, log string) (uint64, error) {
	var next int64
	err := c.db.QueryRow(ctx, "SELECT next FROM sink_cursor WHERE sink = ? AND log = ?", []any{sink, log}, &next)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return uint64(max(next, 0)), err
}

func (c cursors) Store(ctx context.Context, sink, log string, next uint64) error {
	return c.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO sink_cursor (sink, log, next) VALUES (?, ?, ?) ON CONFLICT (sink, log) DO UPDATE SET next = excluded.next", sink, log, int64(next))
		return err
	})
}

// stream delivers until ctx ends.
func (s *Server) stream(ctx context.Context) {
	k := s.cfg.Sinks
	if k == nil {
		return
	}
	own := s.cfg.ControlLog.log
	if err := k.runner.Add(sink.Log{Name: originOf(own.VerifierKey())}, ownSource{own}); err != nil {
		s.log.Error("streaming the log of the control plane", slog.Any("error", err))
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.noteSinks(ctx) })
	wg.Go(func() { s.followAgents(ctx) })
	k.runner.Run(ctx)
}

// originOf is the name of a verifier key, which is the origin of its log.
func originOf(vkey string) string {
	name, _, _ := strings.Cut(vkey, "+")
	return name
}

// noteSinks writes into the log of the control plane that a sink fell behind or
// caught up, and what a receiver did not take. The rules of alerts see it.
func (s *Server) noteSinks(ctx context.Context) {
	for {
		var e ambit.Event
		select {
		case <-ctx.Done():
			return
		case n := <-s.cfg.Sinks.behind:
			e = ambit.Event{Resource: n.Sink, Decision: ambit.Allow, Detail: "caught up"}
			if n.Behind {
				e.Decision, e.Detail = ambit.Deny, fmt.Sprintf("%d events wait, the oldest for %v", n.Lag, n.Age.Round(time.Second))
				if n.Reason != "" {
					e.Detail += ": " + n.Reason
				}
			}
		case r := <-s.cfg.Sinks.refused:
			e = ambit.Event{Resource: r.sink, Decision: ambit.Deny, Detail: fmt.Sprintf("the receiver does not take event %d of %s: %s", r.Seq, r.Log, r.Text)}
		}
		e.Kind, e.Principal = ambit.KindAuditSink, ambit.PrincipalAmbit
		if err := s.note(ctx, e); err != nil && ctx.Err() == nil {
			s.log.Error("noting how a sink is", slog.String("sink", e.Resource), slog.String("what", inert.Text(e.Detail)), slog.Any("error", err))
		}
	}
}

// followAgents gives the logs of agents to the sinks as they come and go, and
// tells workers how far the sinks are that may block them.
func (s *Server) followAgents(ctx context.Context) {
	known := map[ambit.AgentID]string{} // the origins of their logs
	told := map[ambit.AgentID]uint64{}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		agents, err := s.cfg.Store.List(ctx)
		if err == nil {
			there := map[ambit.AgentID]bool{}
			for _, a := range agents {
				there[a.ID] = true
				s.followAgent(ctx, a.ID, known, told)
			}
			for id, origin := range known {
				if !there[id] {
					s.cfg.Sinks.runner.Remove(origin)
					delete(known, id)
					delete(told, id)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Server) followAgent(ctx context.Context, id ambit.AgentID, known map[ambit.AgentID]string, told map[ambit.AgentID]uint64) {
	vkey, err := s.witness.verifierKey(ctx, id)
	if err != nil {
		return // wiped meanwhile
	}
	origin, k := originOf(vkey), s.cfg.Sinks
	if old := known[id]; old != origin { // new, or made anew under its name
		if old != "" {
			k.runner.Remove(old)
		}
		if err := k.runner.Add(sink.Log{Name: origin, Agent: id}, workerSource{s, id}); err != nil {
			s.log.Error("streaming a log", slog.Any("agent", id), slog.Any("error", err))
			return
		}
		known[id] = origin
		delete(told, id)
	}
	next, blocks := k.runner.Acknowledged(origin)
	w := s.cfg.Workers.Running(id)
	if !blocks || w == nil {
		delete(told, id)
		return
	}
	if last, ok := told[id]; ok && last == next {
		return
	}
	ask, cancel := context.WithTimeout(ctx, workerTimeout)
	defer cancel()
	if w.Delivered(ask, &next) == nil {
		told[id] = next
	}
}

// Delivered is how many events of an agent's log every sink has that may block
// it; nil if there is no such sink. A worker is started with it: until it is known
// it is 0, so that nothing leaves that might not be delivered.
func (s *Sinks) Delivered(id ambit.AgentID, origin string) *uint64 {
	if s == nil || !slices.ContainsFunc(s.configs, func(c outputs.Sink) bool {
		return c.Block && (c.Agents == nil || slices.Contains(c.Agents, id))
	}) {
		return nil
	}
	next, _ := s.runner.Acknowledged(origin)
	return &next
}

// workerSource is the log of an agent, behind its worker. The worker of a stopped
// agent is started to deliver what is left.
type workerSource struct {
	server *Server
	agent  ambit.AgentID
}

func (w workerSource) ask(ctx context.Context, q control.Events) (control.EventsAnswer, error) {
	c, err := w.server.cfg.Workers.Worker(ctx, w.agent)
	if err != nil {
		return control.EventsAnswer{}, err
	}
	return c.Events(ctx, q)
}

// Events implements sink.Source.
func (w workerSource) Events(ctx context.Context, from uint64, limit int) ([]ambit.Event, error) {
	for {
		a, err := w.ask(ctx, control.Events{From: from, Limit: limit})
		if err != nil || len(a.Events) > 0 || a.Next <= from || a.Next >= a.End {
			return a.Events, err
		}
		from = a.Next // all of them were erased
	}
}

// Wait implements sink.Source.
func (w workerSource) Wait(ctx context.Context, from uint64) error {
	for {
		a, err := w.ask(ctx, control.Events{From: from, Wait: true})
		if err != nil || a.End > from {
			return err
		}
	}
}

// End implements sink.Source.
func (w workerSource) End(ctx context.Context) (uint64, error) {
	a, err := w.ask(ctx, control.Events{})
	return a.End, err
}

// ownSource is the log of the control plane.
type ownSource struct{ log *audit.Log }

// Events implements sink.Source.
func (o ownSource) Events(ctx context.Context, from uint64, limit int) ([]ambit.Event, error) {
	events, _, err := o.log.Events(ctx, from, limit)
	return events, err
}

// Wait implements sink.Source.
func (o ownSource) Wait(ctx context.Context, from uint64) error {
	if o.log.Size() > from {
		return nil
	}
	return o.log.Wait(ctx, max(from, 1)-1)
}

// End implements sink.Source.
func (o ownSource) End(context.Context) (uint64, error) { return o.log.Size(), nil }

func (s *Server) sinks(context.Context, *struct{}) (*body[api.Sinks], error) {
	out := api.Sinks{Sinks: []sink.Status{}}
	if s.cfg.Sinks != nil {
		out.Sinks = s.cfg.Sinks.runner.Status()
	}
	return &body[api.Sinks]{out}, nil
}
