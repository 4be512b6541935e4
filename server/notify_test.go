package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/alert"
	"ambit/alert/notify"
	"ambit/api"
	"ambit/client"
	"ambit/control"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// awake is a fleet whose workers run.
type awake struct{ *fleet }

func (awake) Status(ambit.AgentID) AgentStatus {
	return AgentStatus{Worker: "running", Computer: ComputerRunning}
}

// nowhere takes events and keeps nothing.
type nowhere struct{}

func (nowhere) Append(context.Context, ambit.Event) (uint64, error) { return 0, nil }

// bookWorker is a worker's side of the wire with a real book behind it.
func bookWorker(t *testing.T, socket string) *alert.Book {
	t.Helper()
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	book, err := alert.Open(t.Context(), alert.Config{DB: db, Log: nowhere{}, Agent: "support", Key: secretbytes.New(bytes.Repeat([]byte{7}, 32))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	handle := func(path string, fn func(*http.Request) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			out, err := fn(r)
			switch {
			case errors.Is(err, alert.ErrNotFound):
				http.Error(w, err.Error(), http.StatusNotFound)
			case err != nil:
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			default:
				_ = json.NewEncoder(w).Encode(out)
			}
		})
	}
	on := func(fn func(context.Context, control.OnAlert) error) func(*http.Request) (any, error) {
		return func(r *http.Request) (any, error) {
			var q control.OnAlert
			err := json.NewDecoder(r.Body).Decode(&q)
			return nil, errors.Join(err, fn(r.Context(), q))
		}
	}
	handle(control.PathRecord, func(*http.Request) (any, error) { return 0, nil })
	handle(control.PathAlerts, func(r *http.Request) (any, error) { return book.List(r.Context(), alert.Query{}) })
	handle(control.PathNews, func(r *http.Request) (any, error) {
		var q alert.NewsQuery
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, err
		}
		return book.News(r.Context(), q)
	})
	handle(control.PathAck, on(func(ctx context.Context, q control.OnAlert) error { return book.Ack(ctx, q.ID, q.By) }))
	handle(control.PathMute, on(func(ctx context.Context, q control.OnAlert) error { return book.Mute(ctx, q.ID, q.By, q.For, q.Why) }))
	handle(control.PathUnmute, on(func(ctx context.Context, q control.OnAlert) error { return book.Unmute(ctx, q.ID, q.By) }))
	w := httptest.NewUnstartedServer(mux)
	w.Listener = l
	w.Start()
	t.Cleanup(func() {
		w.Close()
		if err := errors.Join(book.Close(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return book
}

// alerting runs a server with a real book and these destinations.
func alerting(t *testing.T, to ...notify.Config) (*alert.Book, *client.Client, func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit") // short: a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home, err := OpenHome(filepath.Join(dir, "h"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := agent.Open(t.Context(), agent.Config{Home: home.Dir})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{socket: filepath.Join(dir, "w.sock")}
	book := bookWorker(t, f.socket)
	controlLog, err := OpenControlLog(t.Context(), home.Dir, store, "v0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Store: store, Runner: awake{f}, Workers: f, Version: "v0", ControlLog: controlLog, Log: slog.New(slog.DiscardHandler), Notify: to, NotifyState: filepath.Join(home.Dir, "notify.json")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(home, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	c, err := client.New(client.Config{Socket: SocketPath(home.Dir)})
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		c.Close()
		stop()
		if err := errors.Join(<-ended, controlLog.Close(context.Background()), store.Close(), home.Close()); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(end)
	if _, err := c.Deploy(t.Context(), api.Deploy{File: "a.yaml", Manifest: support}); err != nil {
		t.Fatal(err)
	}
	return book, c, end
}

// Alerts of workers reach a destination, and Serve waits for what tells it.
func TestNotifications(t *testing.T) {
	got := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- string(b)
	}))
	defer hook.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	book, c, end := alerting(t, notify.Config{Name: "ops", Kind: notify.Webhook, Severity: ambit.High, URL: hook.URL, SecretFile: secret})
	if err := c.TestDestination(t.Context(), "ops"); err != nil || !strings.Contains(<-got, `"ambit.test"`) {
		t.Errorf("a test: %v", err)
	}
	var p *api.Problem
	if err := c.TestDestination(t.Context(), "nobody"); !errors.As(err, &p) || p.Status != http.StatusNotFound {
		t.Errorf("%v", err)
	}
	book.Raise(ambit.Low, "k low", "not told", 1)
	book.Raise(ambit.High, "k high", "told", 1)
	select {
	case text := <-got:
		if !strings.Contains(text, `"agent":"support"`) || !strings.Contains(text, `"title":"told"`) || strings.Contains(text, "not told") {
			t.Error(text)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was told")
	}
	d, err := c.Destinations(t.Context())
	if err != nil || len(d.Destinations) != 1 || d.Destinations[0].Name != "ops" || d.Destinations[0].Kind != notify.Webhook {
		t.Errorf("%+v, %v", d, err)
	}
	hook.Close()
	if err := c.TestDestination(t.Context(), "ops"); !errors.As(err, &p) || p.Status != http.StatusBadGateway {
		t.Errorf("%v", err)
	}
	end()
}

// What a person does to an alert goes through the API with their name.
func TestMuteOverTheAPI(t *testing.T) {
	book, c, _ := alerting(t)
	book.Raise(ambit.High, "k high", "t", 1)
	if err := c.Mute(t.Context(), "support", 1, time.Hour, "a test"); err != nil {
		t.Fatal(err)
	}
	me := principalOf(os.Geteuid())
	found, err := c.Alerts(t.Context(), "support", ambit.Info)
	if err != nil || len(found.Alerts) != 1 || found.Alerts[0].MutedBy != me || found.Alerts[0].MutedWhy != "a test" || time.Until(*found.Alerts[0].MutedUntil) > time.Hour {
		t.Fatalf("%+v, %v", found, err)
	}
	if err := errors.Join(c.Unmute(t.Context(), "support", 1), c.Ack(t.Context(), "support", 1)); err != nil {
		t.Fatal(err)
	}
	if found, err = c.Alerts(t.Context(), "", ambit.Info); err != nil || found.Alerts[0].MutedUntil != nil || found.Alerts[0].AckedBy != me {
		t.Errorf("%+v, %v", found, err)
	}
	for name, want := range map[string]struct {
		err    error
		status int
	}{
		"no such alert": {c.Mute(t.Context(), "support", 9, time.Hour, ""), http.StatusNotFound},
		"no such agent": {c.Mute(t.Context(), "nobody", 1, time.Hour, ""), http.StatusNotFound},
		"too short":     {c.Mute(t.Context(), "support", 1, time.Second, ""), http.StatusUnprocessableEntity},
		"too long":      {c.Mute(t.Context(), "support", 1, 2*alert.MaxMute, ""), http.StatusUnprocessableEntity},
		"long reason":   {c.Mute(t.Context(), "support", 1, time.Hour, strings.Repeat("x", 501)), http.StatusUnprocessableEntity},
		"nobody told":   {c.TestDestination(t.Context(), "ops"), http.StatusNotFound},
	} {
		var p *api.Problem
		if !errors.As(want.err, &p) || p.Status != want.status {
			t.Errorf("%s: %v", name, want.err)
		}
	}
}
