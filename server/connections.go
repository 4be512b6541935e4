package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"ambit"
	"ambit/api"
	"ambit/connector"
	"ambit/control"
	"ambit/vault"
)

// ConnectionPath names a connection of an agent. It is exported because the HTTP
// library sees embedded fields of exported types only.
type ConnectionPath struct {
	AgentPath
	Name string `path:"name" pattern:"^[a-z][a-z0-9-]{0,39}$" doc:"the connection's name in the manifest"`
}

type connectionList struct {
	Connections []api.Connection `json:"connections" doc:"in the order of the manifest"`
}

func (s *Server) connections(ctx context.Context, in *AgentPath) (*body[connectionList], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	list, err := w.Connections(ctx)
	if err != nil {
		return nil, err
	}
	out := connectionList{make([]api.Connection, len(list))}
	for i, c := range list {
		out.Connections[i] = describeConnection(c)
	}
	return &body[connectionList]{out}, nil
}

func (s *Server) connection(ctx context.Context, in *ConnectionPath) (*body[api.ConnectionDetail], error) {
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	c, err := w.Connection(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	out := api.ConnectionDetail{Connection: describeConnection(c.Connection), Ways: make([]api.Way, len(c.Ways))}
	for i, way := range c.Ways {
		out.Ways[i] = describeWay(way)
	}
	if c.Login != nil {
		out.Login = &api.Login{State: string(c.Login.State), Reason: c.Login.Reason}
	}
	return &body[api.ConnectionDetail]{out}, nil
}

type connectInput struct {
	ConnectionPath
	Body api.Connect
}

// connect hands a credential to the agent's worker, which logs who gave it
// before it stores it. Nothing of it is kept or logged here.
func (s *Server) connect(ctx context.Context, in *connectInput) (*body[api.Connection], error) {
	q := control.Connect{Name: in.Name, By: principal(ctx), Credential: control.Credential{Way: in.Body.Way, Flow: connector.Flow(in.Body.Flow), Fields: in.Body.Fields}}
	defer q.Wipe()
	ctx, cancel := s.detach(ctx)
	defer cancel()
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	c, err := w.Connect(ctx, q)
	if err != nil {
		return nil, err
	}
	s.log.Info("connected", slog.Any("agent", in.Agent), slog.String("connection", in.Name), slog.Any("by", principal(ctx)))
	return &body[api.Connection]{describeConnection(c)}, nil
}

type startOAuthInput struct {
	ConnectionPath
	Body api.StartOAuth
}

func (s *Server) startOAuth(ctx context.Context, in *startOAuthInput) (*body[api.StartedOAuth], error) {
	q := control.Connect{Name: in.Name, By: principal(ctx), Credential: control.Credential{
		Way: in.Body.Way, Flow: connector.Flow(in.Body.Flow), Fields: in.Body.Fields, RedirectURL: in.Body.RedirectURL,
	}}
	defer q.Wipe()
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	o, err := w.StartOAuth(ctx, q)
	if err != nil {
		return nil, err
	}
	return &body[api.StartedOAuth]{api.StartedOAuth{
		Flow: string(o.Flow), Expires: o.Expires, URL: o.URL,
		UserCode: o.UserCode, VerificationURL: o.VerificationURL, CompleteURL: o.CompleteURL,
	}}, nil
}

type finishOAuthInput struct {
	ConnectionPath
	Body api.FinishOAuth
}

func (s *Server) finishOAuth(ctx context.Context, in *finishOAuthInput) (*body[api.Connection], error) {
	ctx, cancel := s.detach(ctx)
	defer cancel()
	w, err := s.worker(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	c, err := w.FinishOAuth(ctx, control.FinishOAuth{Name: in.Name, By: principal(ctx), Query: in.Body.Query})
	if err != nil {
		return nil, err
	}
	s.log.Info("connected", slog.Any("agent", in.Agent), slog.String("connection", in.Name), slog.Any("by", principal(ctx)))
	return &body[api.Connection]{describeConnection(c)}, nil
}

type revokedList struct {
	Revoked []api.Revoked `json:"revoked" doc:"by name"`
}

func (s *Server) revokeAll(ctx context.Context, in *AgentPath) (*body[revokedList], error) {
	return s.revoke(ctx, in.Agent, "")
}

func (s *Server) revokeOne(ctx context.Context, in *ConnectionPath) (*body[revokedList], error) {
	return s.revoke(ctx, in.Agent, in.Name)
}

// revoke does not wait for its turn: what it ends is over at once.
func (s *Server) revoke(ctx context.Context, id ambit.AgentID, name string) (*body[revokedList], error) {
	ctx, cancel := s.detach(ctx)
	defer cancel()
	w, err := s.worker(ctx, id)
	if err != nil {
		return nil, err
	}
	ended, err := w.Revoke(ctx, control.Revoke{Name: name, By: principal(ctx)})
	var failed *control.Error
	if name != "" && errors.As(err, &failed) && failed.Status == http.StatusNotFound {
		if _, unknown := w.Connection(ctx, name); unknown != nil {
			return nil, unknown // says which connections there are
		}
	}
	if err != nil {
		return nil, err
	}
	out := revokedList{make([]api.Revoked, len(ended))}
	for i, r := range ended {
		out.Revoked[i] = api.Revoked(r)
		s.log.Info("revoked", slog.Any("agent", id), slog.String("connection", r.Name), slog.Any("by", principal(ctx)))
	}
	return &body[revokedList]{out}, nil
}

func describeConnection(c vault.Connection) api.Connection {
	return api.Connection{
		Name: c.Name, Connector: c.Connector, Title: c.Title, Account: c.Account, Status: string(c.Status), Reason: c.Reason,
		Way: c.Way, Since: c.Since, By: c.By, Expires: c.Expires, Hosts: append([]string{}, c.Hosts...), Missing: c.Missing, Notes: c.Notes,
	}
}

func describeWay(w vault.Way) api.Way {
	out := api.Way{Name: w.Name, Title: w.Title, Kind: string(w.Kind), RedirectPort: int(w.RedirectPort), Fields: make([]api.Field, len(w.Fields))}
	for _, f := range w.Flows {
		out.Flows = append(out.Flows, string(f))
	}
	for i, f := range w.Fields {
		out.Fields[i] = api.Field(f)
	}
	return out
}
