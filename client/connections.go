package client

import (
	"context"
	"net/http"
	"net/url"

	"ambit"
	"ambit/api"
)

func connectionPath(id ambit.AgentID, name, rest string) string {
	return agentPath(id, "/connections/"+url.PathEscape(name)+rest)
}

// Connections lists the connections of an agent, in the order of its manifest.
func (c *Client) Connections(ctx context.Context, id ambit.AgentID) ([]api.Connection, error) {
	var out struct{ Connections []api.Connection }
	err := c.call(ctx, http.MethodGet, agentPath(id, "/connections"), nil, &out)
	return out.Connections, err
}

// Connection returns one connection, with what a person is asked for to connect
// it.
func (c *Client) Connection(ctx context.Context, id ambit.AgentID, name string) (d api.ConnectionDetail, err error) {
	err = c.call(ctx, http.MethodGet, connectionPath(id, name, ""), nil, &d)
	return d, err
}

// Connect stores a credential, or replaces one. The end of ctx does not stop
// what has begun.
func (c *Client) Connect(ctx context.Context, id ambit.AgentID, name string, q api.Connect) (out api.Connection, err error) {
	err = c.call(ctx, http.MethodPut, connectionPath(id, name, ""), q, &out)
	return out, err
}

// StartOAuth starts a login of a person at the service. With the flow "device"
// Connection says how it goes on; with "code" FinishOAuth ends it.
func (c *Client) StartOAuth(ctx context.Context, id ambit.AgentID, name string, q api.StartOAuth) (out api.StartedOAuth, err error) {
	err = c.call(ctx, http.MethodPost, connectionPath(id, name, "/oauth/start"), q, &out)
	return out, err
}

// FinishOAuth connects the account once the person's browser came back, with
// the query of the address that it came back to.
func (c *Client) FinishOAuth(ctx context.Context, id ambit.AgentID, name, query string) (out api.Connection, err error) {
	err = c.call(ctx, http.MethodPost, connectionPath(id, name, "/oauth/finish"), api.FinishOAuth{Query: query}, &out)
	return out, err
}

// Revoke ends a connection at once, or all of an agent if name is "".
func (c *Client) Revoke(ctx context.Context, id ambit.AgentID, name string) ([]api.Revoked, error) {
	path := agentPath(id, "/connections")
	if name != "" {
		path = connectionPath(id, name, "")
	}
	var out struct{ Revoked []api.Revoked }
	err := c.call(ctx, http.MethodDelete, path, nil, &out)
	return out.Revoked, err
}
