package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"ambit"
	"ambit/audit"
)

// Paths of the worker's control API that are about its log.
const (
	PathSearch    = "/audit/search"
	PathTrace     = "/audit/trace"
	PathProve     = "/audit/prove"
	PathExport    = "/audit/export"
	PathErase     = "/audit/erase"
	PathHold      = "/audit/hold"
	PathEvents    = "/audit/events"
	PathDelivered = "/audit/delivered"
)

// Trace asks what touched any of the subjects.
type Trace struct {
	Subjects []ambit.Subject `json:"subjects"`
	Query    audit.Query     `json:"query"`
}

// Export asks for a bundle of the log.
type Export struct {
	// Query says of which events the bodies are in it. The tree is always whole.
	Query audit.Query `json:"query"`
	// Formats are further files with the same events: "csv", "ocsf".
	Formats []string `json:"formats,omitempty"`
	// Note is the head that the bundle is of, with all its signatures; the log's
	// newest head if it is nil.
	Note []byte `json:"note,omitempty"`
}

// Erase asks to erase the bodies of all events that touch a subject.
type Erase struct {
	By       ambit.Principal `json:"by"`
	Subjects []ambit.Subject `json:"subjects,omitempty"` // every reading of whom a person named
	All      bool            `json:"all,omitempty"`      // everything, for a wipe
}

// Hold forbids that anything is erased, or allows it again.
type Hold struct {
	On  bool            `json:"on"`
	By  ambit.Principal `json:"by"`
	Why string          `json:"why"`
}

// Events asks for what stands at a position and behind it.
type Events struct {
	From  uint64 `json:"from"`
	Limit int    `json:"limit"` // at most so many events; 0 is only the end
	// Wait lets the worker wait for the first of them, for EventsPatience at most.
	Wait bool `json:"wait,omitempty"`
}

// EventsAnswer has them, oldest first; those whose bodies were erased are left
// out.
type EventsAnswer struct {
	Events []ambit.Event `json:"events"`
	Next   uint64        `json:"next"` // where to go on
	End    uint64        `json:"end"`  // the position that the next event will have
}

// EventsPatience is how long a worker waits for events before it answers that
// there are none.
const EventsPatience = 20 * time.Second

// Find finds calls and other events.
func (c *Client) Find(ctx context.Context, q audit.Query) (found []audit.Touch, err error) {
	err = c.call(ctx, http.MethodPost, PathSearch, q, &found)
	return found, err
}

// Trace finds what touched somebody's data.
func (c *Client) Trace(ctx context.Context, q Trace) (found audit.Trail, err error) {
	err = c.call(ctx, http.MethodPost, PathTrace, q, &found)
	return found, err
}

// Prove proves one event.
func (c *Client) Prove(ctx context.Context, seq uint64) (p audit.Inclusion, err error) {
	err = c.call(ctx, http.MethodPost, PathProve, seq, &p)
	return p, err
}

// Export copies a bundle to w. A bundle that broke off has no end: whoever
// reads it notices.
func (c *Client) Export(ctx context.Context, q Export, w io.Writer) error {
	res, err := c.open(ctx, http.MethodPost, PathExport, q)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("reading the bundle: %w", err)
	}
	return nil
}

// Erase erases bodies, durably, and says what is gone.
func (c *Client) Erase(ctx context.Context, q Erase) (r []audit.Receipt, err error) {
	err = c.call(ctx, http.MethodPost, PathErase, q, &r)
	return r, err
}

// Held asks for the legal hold; nil if there is none.
func (c *Client) Held(ctx context.Context) (h *audit.Hold, err error) {
	err = c.call(ctx, http.MethodGet, PathHold, nil, &h)
	return h, err
}

// Hold sets or lifts the legal hold.
func (c *Client) Hold(ctx context.Context, q Hold) error {
	return c.call(ctx, http.MethodPost, PathHold, q, nil)
}

// Events returns events as they are in the log, for sinks.
func (c *Client) Events(ctx context.Context, q Events) (a EventsAnswer, err error) {
	err = c.call(ctx, http.MethodPost, PathEvents, q, &a)
	return a, err
}

// Delivered tells the worker how many events every sink has that may block the
// agent; nil if there is no such sink.
func (c *Client) Delivered(ctx context.Context, next *uint64) error {
	return c.call(ctx, http.MethodPost, PathDelivered, next, nil)
}
