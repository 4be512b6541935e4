package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/api"
	"ambit/audit"
	"ambit/control"
)

// logPatience is how long a wipe waits for a log that it then destroys.
const logPatience = 10 * time.Second

// WipedDir is the folder in a home where the logs of wiped agents are kept,
// without what they said.
func WipedDir(home string) string { return filepath.Join(home, "wiped") }

// wipe stops an agent first, so that after a crash in between it does not run.
// What remains is its log without a single body: that so many events happened,
// when, and that they were erased. The files go before the keys, and the store
// last, so that a wipe that failed can be done again. A legal hold forbids it.
func (s *Server) wipe(ctx context.Context, in *AgentPath) (*body[api.Wiped], error) {
	id := in.Agent
	if _, err := s.cfg.Store.Get(ctx, id); err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	done, err := s.turns.take(ctx, id, "wipe")
	if err != nil {
		return nil, err
	}
	defer done()
	if who, err := s.cfg.Store.Held(ctx, id); err != nil {
		return nil, err
	} else if who != "" {
		return nil, problem(http.StatusConflict, fmt.Sprintf("a legal hold forbids it: %s set it; `ambit audit hold %s` shows the reason, and with --release it is lifted", who, id))
	}
	if err := s.noteWipe(ctx, id); err != nil {
		s.log.Warn("wiping an agent although that could not be logged everywhere", slog.Any("agent", id), slog.Any("error", err))
	}
	if err := s.cfg.Store.SetDesired(ctx, id, agent.Stopped); err != nil {
		return nil, err
	}
	out := s.remains(ctx, id)
	if err := s.cfg.Runner.Remove(ctx, id); err != nil {
		return nil, fmt.Errorf("%s is stopped, but not all of it could be removed (wipe it again): %w", id, err)
	}
	if err := s.cfg.Store.Delete(ctx, id); err != nil {
		return nil, err
	}
	s.log.Info("wiped", slog.Any("agent", id), slog.Any("by", principal(ctx)), slog.String("remains", out.Bundle))
	return &body[api.Wiped]{out}, nil
}

// noteWipe writes it into both logs, as far as that goes.
func (s *Server) noteWipe(ctx context.Context, id ambit.AgentID) error {
	e := ambit.Event{Kind: ambit.KindAgentWipe, Agent: id, Detail: "asked for by a person: everything of this agent is destroyed"}
	patience, stop := context.WithTimeout(ctx, logPatience)
	seq, err := s.record(patience, e)
	stop()
	if err == nil {
		e.Links = []ambit.Link{{Rel: "agent", Log: id, Seq: seq}}
	}
	patience, stop = context.WithTimeout(ctx, logPatience)
	defer stop()
	return errors.Join(err, s.note(patience, e))
}

// remains erases every body of the log and keeps what is left. A log that cannot
// be read, or that the witness refuses, leaves nothing: a wipe must not depend on
// it.
func (s *Server) remains(ctx context.Context, id ambit.AgentID) api.Wiped {
	out, err := s.keepRemains(ctx, id)
	if err != nil {
		out.Missing = err.Error()
		s.log.Warn("nothing remains of the log of a wiped agent", slog.Any("agent", id), slog.Any("error", err))
	}
	e := ambit.Event{Kind: ambit.KindAuditRead, Agent: id, Decision: ambit.Allow, Resource: out.Bundle, Detail: "the log of the wiped agent, of which every body is erased, has the key " + out.Key}
	if err != nil {
		e.Decision, e.Detail = ambit.Deny, "nothing remains of the log of the wiped agent: "+out.Missing
	}
	if err := s.note(ctx, e); err != nil {
		s.log.Warn("noting what remains of a wiped agent", slog.Any("agent", id), slog.Any("error", err))
	}
	return out
}

func (s *Server) keepRemains(ctx context.Context, id ambit.AgentID) (out api.Wiped, err error) {
	if s.cfg.Wiped == "" {
		return out, errors.New("there is no folder for it")
	}
	if err := s.cfg.Runner.Apply(ctx, id); err != nil { // the computer, which must add nothing more
		return out, err
	}
	w, err := s.cfg.Workers.Worker(ctx, id)
	if err != nil {
		return out, err
	}
	if _, err := w.Erase(ctx, control.Erase{By: principal(ctx), All: true}); err != nil {
		return out, err
	}
	head, err := s.witness.look(ctx, id, w, 0)
	if err != nil {
		return out, err
	}
	key, err := s.witness.verifierKey(ctx, id)
	if err != nil {
		return out, err
	}
	name := strings.ReplaceAll(strings.TrimPrefix(head.Origin, "ambit/agent/"), "/", ".") + ".tar"
	path := filepath.Join(s.cfg.Wiped, name)
	if err := keepFile(path, func(f io.Writer) error {
		return w.Export(ctx, control.Export{Note: head.Note, Query: audit.Query{Kinds: []ambit.Kind{ambit.KindAuditErase, ambit.KindAuditHold}}}, f)
	}); err != nil {
		return out, err
	}
	return api.Wiped{Bundle: path, Key: key}, nil
}

// keepFile writes a file that only its owner reads, whole and durably or not at
// all.
func keepFile(path string, write func(io.Writer) error) (err error) {
	// mkdir, write, fsync, rename, fsync(directory)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keeping %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("keeping %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil //nolint:nilerr // it is there; only its name may not survive a power cut
	}
	return errors.Join(d.Sync(), d.Close())
}
