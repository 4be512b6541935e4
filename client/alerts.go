package client

import (
	"context"
	"net/http"
	"net/url"
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

// Destinations lists those who are notified of alerts, and how they are.
func (c *Client) Destinations(ctx context.Context) (d api.Destinations, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/notify", nil, &d)
	return d, err
}

// TestDestination sends a message to a destination that says that it is a test.
func (c *Client) TestDestination(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodPost, "/v1/notify/"+url.PathEscape(name)+"/test", nil, nil)
}
