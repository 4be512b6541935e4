package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/agent"
)

// The defaults of the witness.
const (
	defaultWitnessEvery = time.Minute
	defaultSilence      = 15 * time.Minute
	// cosignAge is how old the cosignature of a log that does not grow may
	// become before it is made again: each costs a transaction.
	cosignAge = time.Hour
	// lookers is how many logs are looked at at the same time.
	lookers = 8
)

func newWitness(cfg *Config, halt func(ambit.AgentID, string)) (*witness, error) {
	w := &witness{
		store: cfg.Store, log: cfg.ControlLog, slog: cfg.Log, now: time.Now, silence: cfg.Silence, ask: askTimeout, halt: halt,
		silent: map[ambit.AgentID]silent{},
	}
	for _, c := range cfg.Witnesses {
		o, err := newOutside(c)
		if err != nil {
			return nil, err
		}
		w.outside = append(w.outside, o)
	}
	return w, nil
}

// rounds looks at all logs again and again until ctx ends.
func (s *Server) rounds(ctx context.Context) {
	tick := time.NewTicker(s.cfg.WitnessEvery)
	defer tick.Stop()
	var export <-chan time.Time
	if s.cfg.Heads.Folder != "" {
		t := time.NewTicker(s.cfg.Heads.Every)
		defer t.Stop()
		export = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.round(ctx)
		case <-export:
			s.exportHeads(ctx)
		}
	}
}

// round looks once at each log whose worker runs, and at the control plane's
// own. It starts no worker.
func (s *Server) round(ctx context.Context) {
	agents, err := s.cfg.Store.List(ctx)
	if err != nil {
		s.log.Error("the witness cannot list the agents", slog.Any("error", err))
	}
	var wg sync.WaitGroup
	limit := make(chan struct{}, lookers)
	for _, a := range agents {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			s.lookRunning(ctx, a.ID)
		})
	}
	wg.Wait()
	s.lookAt(ctx, "", s.cfg.ControlLog)
}

// lookRunning looks at the log of an agent if its worker runs.
func (s *Server) lookRunning(ctx context.Context, id ambit.AgentID) {
	if c := s.cfg.Workers.Running(id); c != nil {
		s.lookAt(ctx, id, c)
	}
}

// lookAt looks at a log, and shows its head to the outside witnesses.
func (s *Server) lookAt(ctx context.Context, id ambit.AgentID, p prover) {
	head, err := s.witness.look(ctx, id, p, cosignAge)
	var r *refusal
	switch {
	case errors.As(err, &r), errors.Is(err, agent.ErrNotFound), ctx.Err() != nil: // said already, or gone
		return
	case err != nil:
		s.log.Warn("the witness could not look at a log", slog.Any("agent", id), slog.Any("error", err))
		return
	}
	s.witness.show(ctx, id, p, head)
}

// lookSoon looks at the log of an agent after something was done with it,
// without keeping the caller.
func (s *Server) lookSoon(id ambit.AgentID) {
	s.streams.Go(func() { s.lookRunning(s.work, id) })
}

// halted stops an agent whose log was refused: a worker that forged its log, or
// lost it, decides nothing more and holds no more keys. It waits its turn, so
// that a start which is under way does not undo it, but not for long.
func (s *Server) halted(id ambit.AgentID, why string) {
	s.streams.Go(func() {
		ctx, cancel := s.detach(s.work)
		defer cancel()
		if done, err := s.turns.take(ctx, id, "halt"); err == nil {
			defer done()
		}
		err := s.cfg.Store.SetDesired(ctx, id, agent.Stopped)
		if err := errors.Join(err, s.cfg.Workers.Halt(ctx, id, why)); err != nil && !errors.Is(err, agent.ErrNotFound) {
			s.log.Error("halting an agent whose log is refused", slog.Any("agent", id), slog.Any("error", err))
		}
	})
}

const refusalCode = "witness-refused "

// refusalKey is the key of the alert about the refusal of a log.
func refusalKey(id ambit.AgentID) string {
	if id == "" {
		return refusalCode + "(control plane)"
	}
	return refusalCode + string(id)
}

// acknowledge lets the witness look again at the logs whose refusal a person has
// seen: that of the alert with this key, or those that share one because there
// were too many.
func (s *Server) acknowledge(ctx context.Context, key string, others []string) error {
	name, ok := strings.CutPrefix(key, refusalCode)
	if !ok {
		return nil
	}
	if key == refusalKey("") {
		if err := s.noteAcknowledged(ctx, ""); err != nil {
			return err
		}
		s.witness.mu.Lock()
		s.witness.own = nil
		s.witness.mu.Unlock()
		return nil
	}
	agents, err := s.cfg.Store.List(ctx)
	if err != nil {
		return err
	}
	own := map[string]bool{}
	for _, k := range others {
		own[k] = true
	}
	for _, a := range agents {
		if string(a.ID) != name && (name != "(others)" || own[refusalKey(a.ID)]) {
			continue
		}
		if why, err := s.cfg.Store.Refused(ctx, a.ID); err != nil || why == "" {
			continue // wiped meanwhile, or not refused
		}
		if err := s.noteAcknowledged(ctx, a.ID); err != nil {
			return err
		}
		if err := s.cfg.Store.SetRefused(ctx, a.ID, ""); err != nil {
			return fmt.Errorf("letting the witness look at %s again: %w", a.ID, err)
		}
	}
	return nil
}

func (s *Server) noteAcknowledged(ctx context.Context, id ambit.AgentID) error {
	return s.note(ctx, ambit.Event{
		Kind: ambit.KindAuditWitness, Agent: id, Decision: ambit.Allow,
		Detail: "a person has seen the refusal: the witness looks at the log again, from the head that was kept",
	})
}
