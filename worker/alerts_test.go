package worker

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/control"
)

// control serves the worker's control API and returns its client.
func (w *Worker) clientOf(t *testing.T) *control.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "w") // short: a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := listen(filepath.Join(dir, "c.sock"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.serveControl(ctx, l) }()
	c := control.NewClient(filepath.Join(dir, "c.sock"), "right")
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (w *Worker) call(t *testing.T, method, host string) {
	t.Helper()
	r := &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: method, Host: host, Port: 443, Path: "/"}
	if _, err := w.gate.Check(t.Context(), r); err != nil {
		var deny *ambit.DenyError
		if !errors.As(err, &deny) {
			t.Fatal(err)
		}
	}
}

func codes(t *testing.T, c *control.Client) []string {
	t.Helper()
	all, err := c.Alerts(t.Context(), alert.Query{})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, a := range all {
		out = append(out, a.Severity.String()+" "+a.Key)
	}
	slices.Sort(out)
	return out
}

// What passes the gate is looked at by the rules.
func TestRulesSeeTheGate(t *testing.T) {
	w := newWorker(t, "ambit: v1\nname: support\negress:\n  allow:\n    - {host: api.example}\n    - {host: \"*.wild.example\"}\n")
	c := w.clientOf(t)
	w.call(t, "GET", "api.example")
	w.call(t, "GET", "a.wild.example")
	for range 20 {
		w.call(t, "GET", "evil.example")
	}
	want := []string{"high repeated-denials", "info first-named-host api.example", "medium first-host a.wild.example", "medium host-not-allowed evil.example"}
	if got := codes(t, c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a person does to an alert goes over the wire, and is in the log with
// their name.
func TestAlertsOverTheWire(t *testing.T) {
	w := newWorker(t, oneRule)
	c := w.clientOf(t)
	w.call(t, "GET", "evil.example")
	all, err := c.Alerts(t.Context(), alert.Query{})
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	id := all[0].ID
	if err := c.Mute(t.Context(), control.OnAlert{ID: id, By: "uid:1000", For: time.Hour, Why: "a test"}); err != nil {
		t.Fatal(err)
	}
	if all, err = c.Alerts(t.Context(), alert.Query{}); err != nil || all[0].MutedBy != "uid:1000" || all[0].MutedUntil == nil || all[0].MutedWhy != "a test" {
		t.Errorf("%+v, %v", all, err)
	}
	if err := errors.Join(c.Unmute(t.Context(), id, "uid:1001"), c.Ack(t.Context(), id, "uid:1002")); err != nil {
		t.Fatal(err)
	}
	if all, err = c.Alerts(t.Context(), alert.Query{}); err != nil || all[0].MutedUntil != nil || all[0].AckedBy != "uid:1002" {
		t.Errorf("%+v, %v", all, err)
	}
	events, err := w.audit.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{ambit.KindAlertMute, ambit.KindAlertAck}})
	if err != nil || len(events) != 3 || events[0].Principal != "uid:1000" || events[1].Principal != "uid:1001" || events[2].Principal != "uid:1002" {
		t.Errorf("%+v, %v", events, err)
	}
	if _, err := c.News(t.Context(), alert.NewsQuery{}); err != nil {
		t.Error(err)
	}
	var refused *control.Error
	if err := c.Ack(t.Context(), 99, "uid:1"); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("an alert that is not there: %v", err)
	}
	if err := c.Mute(t.Context(), control.OnAlert{ID: id, By: "uid:1"}); !errors.As(err, &refused) || refused.Status != http.StatusUnprocessableEntity {
		t.Errorf("a mute without end: %v", err)
	}
}

// An operator's rules, and their changes to Ambit's, are in force with the
// manifest that has them.
func TestRulesOfTheManifest(t *testing.T) {
	w := newWorker(t, oneRule+`alerts:
  - {name: deletes, methods: [DELETE], severity: critical}
  - {name: two-posts, methods: [POST], count: 2, within: 1h, per: agent, severity: low}
  - {name: dormant, methods: [GET], severity: off}
  - {name: first-named-host, severity: off}
  - {name: host-not-allowed, severity: info}
`)
	c := w.clientOf(t)
	for _, method := range []string{"GET", "DELETE", "POST", "POST"} {
		w.call(t, method, "api.example")
	}
	w.call(t, "GET", "evil.example")
	want := []string{"critical deletes api.example", "info host-not-allowed evil.example", "low two-posts"}
	if got := codes(t, c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	next, err := compile(control.Policy{Source: oneRule + "alerts:\n  - {name: patches, methods: [PATCH], severity: high}\n"})
	if err == nil {
		err = w.rules.Set(next.rules, next.tunings)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.call(t, "DELETE", "api.example")
	w.call(t, "PATCH", "api.example")
	w.call(t, "GET", "other.example")
	want = append([]string{}, "critical deletes api.example", "high patches api.example", "info host-not-allowed evil.example", "low two-posts", "medium host-not-allowed other.example")
	if got := codes(t, c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
