package client

import (
	"context"
	"net/http"
	"net/url"

	"ambit"
	"ambit/api"
)

// Keys says how the keys of the home are, and those of one agent, or of all if
// id is "".
func (c *Client) Keys(ctx context.Context, id ambit.AgentID) (k api.Keys, err error) {
	path := "/v1/keys"
	if id != "" {
		path += "?" + url.Values{"agent": {string(id)}}.Encode()
	}
	err = c.call(ctx, http.MethodGet, path, nil, &k)
	return k, err
}

// ChangeRoot puts a new root key in force.
func (c *Client) ChangeRoot(ctx context.Context, r api.ChangeRoot) (k api.RootKey, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/keys/root", r, &k)
	return k, err
}

// RotateKey seals every credential of an agent with a new key and destroys the
// old one. A rotation that was cut short is finished instead.
func (c *Client) RotateKey(ctx context.Context, id ambit.AgentID) (k api.KeyRotated, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/keys/rotate"), nil, &k)
	return k, err
}
