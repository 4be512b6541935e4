package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/egress"
	"ambit/internal/inert"
	"ambit/manifest"
	"ambit/policy"
	"ambit/tools"
	"ambit/tools/upstream"
	"ambit/vault"
)

// How often a server is asked what it offers.
const (
	askEvery  = 15 * time.Minute
	askAgain  = 30 * time.Second // after a failure; doubled up to askEvery
	askWhen   = 5 * time.Second  // between looks whether its connection is connected
	listTime  = 30 * time.Second
	callTime  = 6 * time.Minute // more than a call may take
	maxAnswer = 5 << 20         // more than an answer may have
)

// servers are those that others run and the agent has tools of.
type servers struct {
	book *upstream.Book

	mu    sync.Mutex // held while the agent's tools are put together
	bound []boundTool
	all   []*server // in the order of the manifest
	life  context.Context

	stale   chan struct{} // says that the agent's tools are to be put together anew
	running sync.WaitGroup
	stop    context.CancelFunc
}

// server is one of them. What the manifest says of it does not change.
type server struct {
	name, url, connection string
	up                    *upstream.Upstream
	rules                 *policy.Set   // what it is asked, and nothing else
	kick                  chan struct{} // asks it now
	end                   context.CancelFunc

	mu      sync.Mutex
	asked   time.Time
	problem string
}

// newServer makes the server of an entry of the manifest. Nothing is asked of it.
func (w *Worker) newServer(u *manifest.Upstream) (s *server, err error) {
	s = &server{name: u.Name, url: u.URL, connection: u.Connection, kick: make(chan struct{}, 1)}
	if s.rules, err = policy.Compile(policy.Egress{Rules: []policy.Rule{connector.UpstreamRule(u)}}); err != nil {
		return nil, fmt.Errorf("%s: %w", u.Label(), err)
	}
	s.up, err = upstream.New(upstream.Config{
		Name: s.name, URL: s.url, Connection: s.connection, Book: w.tools.servers.book, Client: &http.Client{Transport: carrier{w, s}},
		ListTime: listTime, Version: w.config.Version, Quarantined: func(i upstream.Item) { w.quarantined(s, &i) },
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Label(), err)
	}
	return s, nil
}

// carrier brings what is said to a server through the egress door: judged, with the
// account put in, and logged.
type carrier struct {
	w *Worker
	s *server
}

// RoundTrip implements http.RoundTripper.
func (c carrier) RoundTrip(q *http.Request) (*http.Response, error) {
	e := egress.Errand{Request: q, Connection: c.s.connection, Rules: c.s.rules, MaxAnswer: maxAnswer, Timeout: callTime}
	if call, event, ok := tools.CallOf(q.Context()); ok {
		e.Cause, e.Task, e.Intent = event, call.Task, call.Intent
	} else {
		e.Uncaused, e.Intent = true, "see which tools the server "+c.s.name+" offers"
	}
	return c.w.proxy.Do(q.Context(), e)
}

// quarantined tells people of a tool that waits for them. It is called while the
// list of a server is read, so it does nothing that takes long.
func (w *Worker) quarantined(s *server, i *upstream.Item) {
	if i.State == upstream.Changed {
		w.rules.Raise(ambit.High, "tool-changed "+ofTool(s.name, i.Tool),
			"the tool "+inert.Text(i.Tool)+" of the server "+s.name+" is not what a person accepted, and is not called until one accepts it again", 0)
	} else {
		w.rules.Raise(ambit.Medium, "tool-new "+s.name, "the server "+s.name+" offers tools that nobody has accepted; the last of them is "+inert.Text(i.Tool), 0)
	}
	w.tools.servers.restart()
}

// ofTool is what the alert of one tool is kept under.
func ofTool(server, tool string) string { return server + "/" + inert.Text(tool) }

// restart has the agent's tools put together anew.
func (t *servers) restart() {
	select {
	case t.stale <- struct{}{}:
	default:
	}
}

// serversOf are those of a manifest; what has not changed is kept. mu is held.
func (w *Worker) serversOf(said []manifest.Upstream) ([]*server, error) {
	var all []*server
	for i := range said {
		u := &said[i]
		n := slices.IndexFunc(w.tools.servers.all, func(s *server) bool { return s.name == u.Name && s.url == u.URL && s.connection == u.Connection })
		if n >= 0 {
			all = append(all, w.tools.servers.all[n])
			continue
		}
		s, err := w.newServer(u)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// setTools gives the agent the tools of a manifest. If any cannot be taken nothing
// changes.
func (w *Worker) setTools(ctx context.Context, c *compiled) error {
	t := &w.tools.servers
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := w.serversOf(c.upstreams)
	if err != nil {
		return err
	}
	if err := w.putTogether(ctx, c.tools, all); err != nil {
		return fmt.Errorf("taking the tools of the manifest: %w", err)
	}
	for _, s := range t.all {
		if s.end != nil && !slices.Contains(all, s) {
			s.end()
		}
	}
	t.bound, t.all = c.tools, all
	w.tools.policy.Store(c.toolPolicy)
	w.tools.intent.Store(c.intent)
	return nil
}

// renewTools puts the agent's tools together as people have accepted them now.
func (w *Worker) renewTools(ctx context.Context) error {
	t := &w.tools.servers
	t.mu.Lock()
	defer t.mu.Unlock()
	return w.putTogether(ctx, t.bound, t.all)
}

// putTogether has the agent get tools of connections and servers. Too many of
// servers take nothing away from the connections. mu is held.
func (w *Worker) putTogether(ctx context.Context, bound []boundTool, all []*server) error {
	entries := make([]tools.Entry, len(bound))
	for i, t := range bound {
		entries[i] = tools.Entry{Tool: &t.Tool, Runner: runner{w, t}}
	}
	of := len(entries)
	for _, s := range all {
		more, err := s.up.Entries(ctx)
		if err != nil {
			return err
		}
		entries = append(entries, more...)
	}
	if err := w.tools.registry.Set(entries); err != nil {
		if of == len(entries) {
			return err
		}
		w.log.Warn("the agent gets no tools of servers", slog.Any("error", err))
		entries = entries[:of]
		if err := w.tools.registry.Set(entries); err != nil {
			return err
		}
	}
	given := make(map[string]*ambit.Tool, len(entries))
	for _, e := range entries {
		given[e.Tool.Name] = e.Tool
	}
	w.tools.given.Store(&given)
	return nil
}

// askServers begins to ask the servers what they offer, and goes on until ctx ends.
func (w *Worker) askServers(ctx context.Context) {
	t := &w.tools.servers
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life == nil && len(t.all) == 0 {
		return
	}
	if t.life == nil {
		t.life, t.stop = context.WithCancel(ctx)
		life := t.life
		t.running.Go(func() { w.keepTools(life) })
	}
	if t.life.Err() != nil {
		return
	}
	for _, s := range t.all {
		if s.end != nil {
			s.ask() // the manifest may have opened what it needs
			continue
		}
		var life context.Context
		life, s.end = context.WithCancel(t.life)
		t.running.Go(func() { w.keepAsking(life, s) })
	}
}

// stopServers ends the asking, and waits for it.
func (t *servers) stopServers() {
	t.mu.Lock()
	stop := t.stop
	t.mu.Unlock()
	if stop != nil {
		stop()
	}
	t.running.Wait()
}

// keepTools puts the agent's tools together whenever something was quarantined.
func (w *Worker) keepTools(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.tools.servers.stale:
		}
		if err := w.renewTools(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("putting the agent's tools together", slog.Any("error", err))
		}
	}
}

func (s *server) ask() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// keepAsking asks a server at once and then again and again, less often while it
// fails.
func (w *Worker) keepAsking(ctx context.Context, s *server) {
	again := askAgain
	for {
		pause := askEvery
		if why := w.unconnected(s.connection); why != "" {
			s.note(why, false) // asking would be refused, logged and alerted
			pause = askWhen
		} else if err := w.askServer(ctx, s); err != nil {
			pause, again = again, min(2*again, askEvery)
		} else {
			again = askAgain
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.kick:
			timer.Stop()
			again = askAgain
		case <-timer.C:
		}
	}
}

// unconnected says why a connection cannot be used now; "" if it can, or if there
// is none.
func (w *Worker) unconnected(connection string) string {
	if connection == "" {
		return ""
	}
	for _, c := range w.vault.Connections() {
		if c.Name == connection && (c.Status == vault.StatusNotConnected || c.Status == vault.StatusReconnect) {
			return "the connection " + connection + " is " + string(c.Status)
		}
	}
	return ""
}

// askServer asks a server once what it offers.
func (w *Worker) askServer(ctx context.Context, s *server) error {
	err := s.up.Refresh(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if s.note(inert.Text(err.Error()), false) {
			w.log.Warn("asking a server for its tools", slog.String("server", s.name), slog.Any("error", err))
		}
		return err
	}
	s.note("", true)
	return w.renewTools(ctx)
}

// note keeps how asking went, and reports whether that is news.
func (s *server) note(problem string, asked bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.problem != problem
	s.problem = problem
	if asked {
		s.asked = time.Now().UTC()
	}
	return news
}

// connected has the servers that use a connection asked at once.
func (w *Worker) connected(connection string) {
	t := &w.tools.servers
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.all {
		if s.connection == connection {
			s.ask()
		}
	}
}
