package client

import (
	"context"
	"net/http"

	"ambit"
	"ambit/api"
	"ambit/control"
)

// Tools lists the tools of an agent's connections, and those that servers offer it.
func (c *Client) Tools(ctx context.Context, id ambit.AgentID) (t control.Tools, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, "/tools"), nil, &t)
	return t, err
}

// JudgeTool accepts or rejects a tool that a server offers, as the person was shown
// it, and returns it as it is then.
func (c *Client) JudgeTool(ctx context.Context, id ambit.AgentID, j api.JudgeTool) (t control.Tool, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/tools/judge"), j, &t)
	return t, err
}
