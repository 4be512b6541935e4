package control

import (
	"context"
	"net/http"
	"time"

	"ambit"
	"ambit/alert"
)

// Paths of the worker's control API for alerts.
const (
	PathAlerts = "/alerts"
	PathAck    = "/alerts/ack"
	PathMute   = "/alerts/mute"
	PathUnmute = "/alerts/unmute"
	PathNews   = "/alerts/news"
)

// OnAlert is what a person does to an alert.
type OnAlert struct {
	ID  int64           `json:"id"`
	By  ambit.Principal `json:"by"`
	For time.Duration   `json:"for,omitempty"` // of a mute: nanoseconds
	Why string          `json:"why,omitempty"` // of a mute
}

// Alerts lists alerts.
func (c *Client) Alerts(ctx context.Context, q alert.Query) ([]alert.Alert, error) {
	var out []alert.Alert
	err := c.call(ctx, http.MethodPost, PathAlerts, q, &out)
	return out, err
}

// Ack marks an alert as seen by a person.
func (c *Client) Ack(ctx context.Context, id int64, by ambit.Principal) error {
	return c.call(ctx, http.MethodPost, PathAck, OnAlert{ID: id, By: by}, nil)
}

// Mute silences an alert for a while.
func (c *Client) Mute(ctx context.Context, m OnAlert) error {
	return c.call(ctx, http.MethodPost, PathMute, m, nil)
}

// Unmute ends a mute.
func (c *Client) Unmute(ctx context.Context, id int64, by ambit.Principal) error {
	return c.call(ctx, http.MethodPost, PathUnmute, OnAlert{ID: id, By: by}, nil)
}

// News asks for what is news among the alerts.
func (c *Client) News(ctx context.Context, q alert.NewsQuery) (alert.News, error) {
	var n alert.News
	err := c.call(ctx, http.MethodPost, PathNews, q, &n)
	return n, err
}
