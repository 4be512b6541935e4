package control

import (
	"context"
	"net/http"

	"ambit"
	"ambit/connector"
	"ambit/vault"
)

// Paths of the worker's control API that are about connections.
const (
	PathConnections = "/connections"
	PathConnection  = "/connection"
	PathConnect     = "/connect"
	PathRevoke      = "/revoke"
	PathPlacement   = "/placement"
	PathOAuthStart  = "/oauth/start"
	PathOAuthFinish = "/oauth/finish"
)

// Connection is one connection with what a person is asked for to connect it.
type Connection struct {
	vault.Connection
	Ways  []vault.Way  `json:"ways"`
	Login *vault.Login `json:"login,omitempty"` // the last one since the worker started
}

// Connect is what a person gives to connect an account. It holds credentials:
// whoever has it wipes it.
type Connect struct {
	Name string `json:"name"` // of the connection
	// By is who asks. The worker believes the control plane.
	By ambit.Principal `json:"by"`
	Credential
}

// Credential is what a person gives. Whoever has it wipes it.
type Credential struct {
	Way    string            `json:"way,omitempty"`  // "" is the first
	Flow   connector.Flow    `json:"flow,omitempty"` // of OAuth; "" is the way's first
	Fields map[string][]byte `json:"fields,omitempty"`
	// RedirectURL is where the person's browser comes back to, of the code flow.
	RedirectURL string `json:"redirectURL,omitempty"`
}

// Wipe overwrites the values.
func (c *Credential) Wipe() {
	for _, b := range c.Fields {
		clear(b)
	}
}

// FinishOAuth is how the person's browser came back.
type FinishOAuth struct {
	Name  string          `json:"name"`
	By    ambit.Principal `json:"by"`
	Query string          `json:"query"` // of the address that it came back to
}

// Revoke asks to end connections.
type Revoke struct {
	Name string          `json:"name,omitempty"` // "" is all
	By   ambit.Principal `json:"by"`
}

// Connections asks for all connections of the agent's manifest, in its order.
func (c *Client) Connections(ctx context.Context) ([]vault.Connection, error) {
	var out []vault.Connection
	err := c.call(ctx, http.MethodGet, PathConnections, nil, &out)
	return out, err
}

// Connection asks for one connection.
func (c *Client) Connection(ctx context.Context, name string) (Connection, error) {
	var out Connection
	err := c.call(ctx, http.MethodPost, PathConnection, name, &out)
	return out, err
}

// Connect stores a credential, durably when it answers, or replaces one.
func (c *Client) Connect(ctx context.Context, q Connect) (vault.Connection, error) {
	var out vault.Connection
	err := c.call(ctx, http.MethodPost, PathConnect, q, &out)
	return out, err
}

// StartOAuth starts a login of a person at the service.
func (c *Client) StartOAuth(ctx context.Context, q Connect) (vault.StartedOAuth, error) {
	var out vault.StartedOAuth
	err := c.call(ctx, http.MethodPost, PathOAuthStart, q, &out)
	return out, err
}

// FinishOAuth connects the account after a login in the browser.
func (c *Client) FinishOAuth(ctx context.Context, q FinishOAuth) (vault.Connection, error) {
	var out vault.Connection
	err := c.call(ctx, http.MethodPost, PathOAuthFinish, q, &out)
	return out, err
}

// Revoke ends connections at once.
func (c *Client) Revoke(ctx context.Context, q Revoke) ([]vault.Revoked, error) {
	var out []vault.Revoked
	err := c.call(ctx, http.MethodPost, PathRevoke, q, &out)
	return out, err
}

// Placement asks what the agent's computer gets of the connections.
func (c *Client) Placement(ctx context.Context) (vault.Placement, error) {
	var out vault.Placement
	err := c.call(ctx, http.MethodGet, PathPlacement, nil, &out)
	return out, err
}
