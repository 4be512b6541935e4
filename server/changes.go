package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"ambit"
	"ambit/agent"
	"ambit/api"
)

// record writes what a person is about to do into the agent's log.
func (s *Server) record(ctx context.Context, e ambit.Event) (uint64, error) {
	w, err := s.cfg.Workers.Worker(ctx, e.Agent)
	if err != nil {
		return 0, fmt.Errorf("nothing was done, because it could not be written to the log of %s: %w", e.Agent, err)
	}
	e.Principal = principal(ctx)
	seq, err := w.Record(ctx, e)
	if err != nil {
		return 0, fmt.Errorf("nothing was done, because it could not be written to the log of %s: %w", e.Agent, err)
	}
	return seq, nil
}

// recordDeploy writes what is about to be in force into the agent's log and then,
// with a link to that, into the control plane's.
func (s *Server) recordDeploy(ctx context.Context, e ambit.Event) error {
	seq, err := s.record(ctx, e)
	if err != nil {
		return err
	}
	e.Links = []ambit.Link{{Rel: "agent", Log: e.Agent, Seq: seq}}
	return s.note(ctx, e)
}

type deployInput struct{ Body api.Deploy }

func (s *Server) deploy(ctx context.Context, in *deployInput) (*answer[api.Deployed], error) {
	file := in.Body.File
	if file == "" {
		file = "manifest"
	}
	source := []byte(in.Body.Manifest)
	m, err := s.bind(file, source)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	done, err := s.turns.take(ctx, m.Name, "deploy")
	if err != nil {
		return nil, err
	}
	defer done()

	_, err = s.cfg.Store.Get(ctx, m.Name)
	isNew := errors.Is(err, agent.ErrNotFound)
	if err != nil && !isNew {
		return nil, err
	}
	files, err := encodeConnectors(m.files)
	if err != nil {
		return nil, err
	}
	var out api.Deployed
	if isNew {
		out, err = s.deployNew(ctx, m, source, files)
	} else {
		out, err = s.deployAgain(ctx, m, source, files, in.Body.Widen)
	}
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if out.Created {
		status = http.StatusCreated
	}
	s.apply(ctx, m, &out)
	return &answer[api.Deployed]{status, out}, nil
}

// deployNew stores the agent, which has no log before, as stopped; only when
// the deploy is in its log is it wanted running. After a crash in between, the
// agent is there and stopped.
func (s *Server) deployNew(ctx context.Context, m *bound, source, files []byte) (api.Deployed, error) {
	id := m.Name
	a, v, created, changed, err := s.cfg.Store.Deploy(ctx, id, source, files, principal(ctx))
	if err != nil {
		return api.Deployed{}, err
	}
	if err := s.recordDeploy(ctx, deployEvent(m, v.N, v.SHA256)); err != nil {
		undo := s.cfg.Runner.Remove(ctx, id)
		if undo == nil {
			undo = s.cfg.Store.Delete(ctx, id)
		}
		return api.Deployed{}, errors.Join(err, undo)
	}
	if err := s.cfg.Store.SetDesired(ctx, id, agent.Running); err != nil {
		return api.Deployed{}, err
	}
	return api.Deployed{Created: created, Changed: changed, Version: describeVersion(v, a.Version)}, nil
}

// deployAgain logs the version before it stores it. The turn makes the number
// that is logged the one that is stored.
func (s *Server) deployAgain(ctx context.Context, m *bound, source, files []byte, widen bool) (api.Deployed, error) {
	id := m.Name
	versions, err := s.cfg.Store.Versions(ctx, id)
	if err != nil {
		return api.Deployed{}, err
	}
	sum := agent.Sum(source)
	if a, err := s.cfg.Store.Get(ctx, id); err != nil {
		return api.Deployed{}, err
	} else if current, err := s.cfg.Store.VersionSource(ctx, id, a.Version); err != nil {
		return api.Deployed{}, err
	} else if current.SHA256 != sum || !bytes.Equal(current.Connectors, files) {
		if err := s.narrows(ctx, id, m, widen); err != nil {
			return api.Deployed{}, err
		}
		if err := s.recordDeploy(ctx, deployEvent(m, versions[0].N+1, sum)); err != nil {
			return api.Deployed{}, err
		}
	}
	a, v, created, changed, err := s.cfg.Store.Deploy(ctx, id, source, files, principal(ctx))
	if err != nil {
		return api.Deployed{}, err
	}
	return api.Deployed{Created: created, Changed: changed, Version: describeVersion(v, a.Version)}, nil
}

func deployEvent(m *bound, n int, sum string) ambit.Event {
	detail := fmt.Sprintf("version %d, sha256 %s", n, sum)
	for _, f := range m.files {
		detail += fmt.Sprintf(", with connector %s, sha256 %s", f.Name, agent.Sum(f.Text))
	}
	return ambit.Event{Kind: ambit.KindAgentDeploy, Agent: m.Name, Resource: fmt.Sprintf("manifest %d", n), Detail: detail}
}

// apply enforces what is stored and completes out. A failure is part of the
// answer: the version is kept and enforced, only the computer is not up.
func (s *Server) apply(ctx context.Context, m *bound, out *api.Deployed) {
	if err := s.cfg.Runner.Apply(ctx, m.Name); err != nil {
		out.Failure = err.Error()
	}
	s.lookSoon(m.Name)
	out.Version.Source = ""
	out.Warnings, out.Reach = warnings(m), reach(m)
	if a, err := s.cfg.Store.Get(ctx, m.Name); err == nil {
		out.Agent = s.describe(a)
	}
	s.log.Info("deployed", slog.Any("agent", m.Name), slog.Any("version", out.Version.N), slog.Any("changed", out.Changed), slog.Any("by", principal(ctx)), slog.Any("failure", out.Failure))
}

// VersionPath is the part of the path that names a version. It is exported because
// the HTTP library sees embedded fields of exported types only.
type VersionPath struct {
	AgentPath
	N int `path:"n" minimum:"1" doc:"the version"`
}

type redeployInput struct {
	VersionPath
	Widen bool `query:"widen" doc:"calls that were refused before may pass now"`
}

func (s *Server) redeploy(ctx context.Context, in *redeployInput) (*body[api.Deployed], error) {
	ctx, cancel := s.detach(ctx)
	defer cancel()
	done, err := s.turns.take(ctx, in.Agent, "deploy")
	if err != nil {
		return nil, err
	}
	defer done()
	old, err := s.cfg.Store.VersionSource(ctx, in.Agent, in.N)
	if err != nil {
		return nil, err
	}
	m, err := bindStored(fmt.Sprintf("version %d", in.N), old.Source, old.Connectors)
	if err != nil { // it was accepted by an older release
		return nil, err
	}
	versions, err := s.cfg.Store.Versions(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	if err := s.narrows(ctx, in.Agent, m, in.Widen); err != nil {
		return nil, err
	}
	if err := s.recordDeploy(ctx, deployEvent(m, versions[0].N+1, old.SHA256)); err != nil {
		return nil, err
	}
	a, v, err := s.cfg.Store.Redeploy(ctx, in.Agent, in.N, principal(ctx))
	if err != nil {
		return nil, err
	}
	out := api.Deployed{Changed: true, Version: describeVersion(v, a.Version)}
	s.apply(ctx, m, &out)
	return &body[api.Deployed]{out}, nil
}

func (s *Server) start(ctx context.Context, in *AgentPath) (*body[api.Agent], error) {
	return s.want(ctx, in.Agent, agent.Running)
}

func (s *Server) stop(ctx context.Context, in *AgentPath) (*body[api.Agent], error) {
	return s.want(ctx, in.Agent, agent.Stopped)
}

// want changes what a person wants. A start that cannot be logged does not
// happen; a stop does, because it only takes away.
func (s *Server) want(ctx context.Context, id ambit.AgentID, d agent.Desired) (*body[api.Agent], error) {
	if _, err := s.cfg.Store.Get(ctx, id); err != nil {
		return nil, err
	}
	ctx, cancel := s.detach(ctx)
	defer cancel()
	what, kind := "start", ambit.KindAgentStart
	if d == agent.Stopped {
		what, kind = "stop", ambit.KindAgentStop
	}
	done, err := s.turns.take(ctx, id, what)
	if err != nil {
		return nil, err
	}
	defer done()
	if d == agent.Running { // with the turn: who refuses it now halts it after us
		if err := s.witness.refused(ctx, id); err != nil {
			return nil, err
		}
	}
	if _, err := s.record(ctx, ambit.Event{Kind: kind, Agent: id, Detail: "asked for by a person"}); err != nil {
		if d == agent.Running {
			return nil, err
		}
		s.log.Warn("stopping an agent whose log cannot be written", slog.Any("agent", id), slog.Any("error", err))
	}
	if err := s.cfg.Store.SetDesired(ctx, id, d); err != nil {
		return nil, err
	}
	if err := s.cfg.Runner.Apply(ctx, id); err != nil {
		return nil, err
	}
	s.lookSoon(id)
	a, err := s.cfg.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	s.log.Info("changed", slog.Any("agent", id), slog.Any("wanted", d), slog.Any("by", principal(ctx)))
	return &body[api.Agent]{s.describe(a)}, nil
}

type versionList struct {
	Versions []api.ManifestVersion `json:"versions" doc:"newest first"`
}

func (s *Server) listVersions(ctx context.Context, in *AgentPath) (*body[versionList], error) {
	a, err := s.cfg.Store.Get(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	versions, err := s.cfg.Store.Versions(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	out := make([]api.ManifestVersion, len(versions))
	for i, v := range versions {
		out[i] = describeVersion(v, a.Version)
	}
	return &body[versionList]{versionList{out}}, nil
}

func (s *Server) getVersion(ctx context.Context, in *VersionPath) (*body[api.ManifestVersion], error) {
	a, err := s.cfg.Store.Get(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	v, err := s.cfg.Store.VersionSource(ctx, in.Agent, in.N)
	if err != nil {
		return nil, err
	}
	return &body[api.ManifestVersion]{describeVersion(v, a.Version)}, nil
}

func describeVersion(v agent.Version, current int) api.ManifestVersion {
	return api.ManifestVersion{N: v.N, SHA256: v.SHA256, Time: v.Time, By: v.By, Note: v.Note, Current: v.N == current, Source: string(v.Source)}
}

func (s *Server) describe(a agent.Agent) api.Agent {
	st := s.cfg.Runner.Status(a.ID)
	return api.Agent{
		Name: a.ID, Version: a.Version, Desired: string(a.Desired), Computer: st.Computer, Worker: st.Worker,
		Since: st.Since, Restarts: st.Restarts, Error: st.Error, Memory: st.Memory, Created: a.Created, Updated: a.Updated,
	}
}
