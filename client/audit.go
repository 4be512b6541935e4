package client

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"ambit"
	"ambit/api"
	"ambit/audit"
)

// Search finds events in the logs of agents.
func (c *Client) Search(ctx context.Context, q api.Search) (out api.Found, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/audit/search", q, &out)
	return out, err
}

// Trace finds everything that touched somebody's data.
func (c *Client) Trace(ctx context.Context, q api.Search) (out api.Trace, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/audit/trace", q, &out)
	return out, err
}

// Prove proves that an event is in an agent's log.
func (c *Client) Prove(ctx context.Context, id ambit.AgentID, seq uint64) (p audit.Inclusion, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, fmt.Sprintf("/audit/events/%d/proof", seq)), nil, &p)
	return p, err
}

// Export copies a bundle of an agent's log to w. After an error what was written
// is no bundle.
func (c *Client) Export(ctx context.Context, id ambit.AgentID, q api.Export, w io.Writer) error {
	res, err := c.open(ctx, http.MethodPost, agentPath(id, "/audit/export"), q)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		return c.failure(ctx, fmt.Errorf("the export broke off: %w", err))
	}
	return nil
}

// Erase erases everything of an agent's log that touches somebody.
func (c *Client) Erase(ctx context.Context, id ambit.AgentID, subject string) (out api.Erased, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/audit/erase"), api.Erase{Subject: subject}, &out)
	return out, err
}

// Hold says whether there is a legal hold on an agent's log.
func (c *Client) Hold(ctx context.Context, id ambit.AgentID) (out api.Hold, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, "/audit/hold"), nil, &out)
	return out, err
}

// SetHold sets a legal hold, or lifts it.
func (c *Client) SetHold(ctx context.Context, id ambit.AgentID, h api.SetHold) (out api.Hold, err error) {
	err = c.call(ctx, http.MethodPut, agentPath(id, "/audit/hold"), h, &out)
	return out, err
}

// LogKey is the public key of an agent's log, in the form of signed notes.
func (c *Client) LogKey(ctx context.Context, id ambit.AgentID) (string, error) {
	h, err := c.Head(ctx, id)
	return h.Key, err
}

// Sinks says where events are streamed to, and how that goes.
func (c *Client) Sinks(ctx context.Context) (out api.Sinks, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/audit/sinks", nil, &out)
	return out, err
}
