package client

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"ambit"
	"ambit/api"
)

func alertPath(id ambit.AgentID, alert int64, rest string) string {
	return agentPath(id, "/alerts/"+strconv.FormatInt(alert, 10)+rest)
}

// Ack marks an alert as seen.
func (c *Client) Ack(ctx context.Context, id ambit.AgentID, alert int64) error {
	return c.call(ctx, http.MethodPost, alertPath(id, alert, "/ack"), nil, nil)
}

// Mute silences an alert for d, in whole seconds.
func (c *Client) Mute(ctx context.Context, id ambit.AgentID, alert int64, d time.Duration, why string) error {
	return c.call(ctx, http.MethodPost, alertPath(id, alert, "/mute"), api.Mute{Seconds: int64(d / time.Second), Why: why}, nil)
}

// Unmute ends a mute.
func (c *Client) Unmute(ctx context.Context, id ambit.AgentID, alert int64) error {
	return c.call(ctx, http.MethodDelete, alertPath(id, alert, "/mute"), nil, nil)
}
