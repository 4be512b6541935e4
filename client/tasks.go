package client

import (
	"context"
	"net/http"

	"ambit"
	"ambit/api"
)

// BeginTask tells an agent's gate what a person wants of it. The task before it
// ends.
func (c *Client) BeginTask(ctx context.Context, id ambit.AgentID, words string) (t api.Task, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/tasks"), api.BeginTask{Words: words}, &t)
	return t, err
}
