// Package upstream makes tools of what servers of the Model Context Protocol (MCP)
// offer, that others run. A server says what its tools are called and take; a person
// looks at that, says what it means (effects, targets, records) and accepts it. What
// was accepted is pinned by a hash: a tool that is new or has changed is quarantined
// until a person looks again.
//
// Trust: nothing that a server says. Whoever runs one decides what its results say
// and what its tools do behind their descriptions; with a description that was
// accepted, words for the model too. They cannot change a tool unseen, ask anything
// of the agent (sampling, elicitation and roots are refused), or take more time or
// memory than the limits here. The HTTP client is trusted to reach that server only,
// and to log what leaves.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"time"

	"ambit"
	"ambit/tools"
)

// Config is what an Upstream needs.
type Config struct {
	// Name is the first part of its tools' names: 1 to 32 lower-case letters,
	// digits, _ and -.
	Name string
	// URL is the server's MCP endpoint, http or https. The operator's.
	URL string
	// Client reaches it: it vets addresses, puts credentials in and logs. Required.
	Client *http.Client
	// Connection names the connection whose credential its tools use; "" for none.
	Connection string
	// Book has what people accepted. Required.
	Book *Book
	// MaxAge is how old the list of tools may be when one is called; an older one is
	// fetched again first, so that a change is found before the call. 0 is 10 minutes.
	MaxAge time.Duration
	// ListTime is how long fetching the list may take; 0 is 30 seconds. How long a
	// call may take is for who calls.
	ListTime time.Duration
	// Quarantined is told of tools that were not quarantined before and now wait for
	// a person. It must not block. May be nil.
	Quarantined func(Item)
	// Version is that of this program, for the server.
	Version string
}

// Upstream is one server. It is safe for concurrent use. Nothing runs between
// calls.
type Upstream struct {
	cfg    Config
	client *client

	refreshing sync.Mutex // held while the list is fetched
	mu         sync.Mutex
	fetched    time.Time
}

var upstreamName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// New returns an Upstream. It does not connect.
func New(c Config) (*Upstream, error) {
	if !upstreamName.MatchString(c.Name) || c.Name == "ambit" {
		return nil, fmt.Errorf("the upstream's name %q: it has 1 to 32 lower-case letters, digits, _ and -, and is not ambit", c.Name)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("the upstream %s: its URL is not one of http or https, without a user and a fragment", c.Name)
	}
	if c.Client == nil || c.Book == nil {
		return nil, errors.New("making an upstream: its client or its book is missing")
	}
	if c.MaxAge == 0 {
		c.MaxAge = 10 * time.Minute
	}
	if c.ListTime == 0 {
		c.ListTime = 30 * time.Second
	}
	return &Upstream{cfg: c, client: newClient(c)}, nil
}

// Refresh fetches the list of tools and quarantines those that are new or changed.
// After an error nothing has changed.
func (u *Upstream) Refresh(ctx context.Context) error {
	u.refreshing.Lock()
	defer u.refreshing.Unlock()
	return u.refresh(ctx)
}

func (u *Upstream) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.ListTime)
	defer cancel()
	seen, err := u.client.list(ctx)
	if err != nil {
		return fmt.Errorf("asking %s for its tools: %w", u.cfg.Name, err)
	}
	fresh, err := u.cfg.Book.record(ctx, u.cfg.Name, seen)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.fetched = time.Now()
	u.mu.Unlock()
	if u.cfg.Quarantined != nil {
		for _, item := range fresh {
			u.cfg.Quarantined(item)
		}
	}
	return nil
}

// current makes sure that the list is not too old.
func (u *Upstream) current(ctx context.Context) error {
	if u.age() <= u.cfg.MaxAge {
		return nil
	}
	u.refreshing.Lock()
	defer u.refreshing.Unlock()
	if u.age() <= u.cfg.MaxAge { // somebody else did
		return nil
	}
	return u.refresh(ctx)
}

func (u *Upstream) age() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Since(u.fetched)
}

// Entries are the tools that may be called: accepted, and unchanged since. They are
// what the book says now; after Refresh, Accept and Reject they are others.
func (u *Upstream) Entries(ctx context.Context) ([]tools.Entry, error) {
	items, err := u.cfg.Book.List(ctx, u.cfg.Name)
	if err != nil {
		return nil, err
	}
	var entries []tools.Entry
	for _, item := range items {
		if item.State != Accepted {
			continue
		}
		tool := &ambit.Tool{
			Name: item.Name, Description: item.Description, Connection: u.cfg.Connection,
			Input: item.Input, Output: item.Output,
		}
		item.Facts.apply(tool)
		entries = append(entries, tools.Entry{Tool: tool, Runner: &runner{u, item.Tool, item.Hash}})
	}
	return entries, nil
}

// runner runs one tool as it was accepted.
type runner struct {
	upstream *Upstream
	tool     string
	hash     string
}

// Run implements tools.Runner.
func (r *runner) Run(ctx context.Context, grant tools.Grant, call *ambit.ToolCall) (tools.Result, error) {
	u := r.upstream
	if err := u.current(ctx); err != nil {
		return tools.Result{}, fmt.Errorf("nothing was done: %w", err)
	}
	ok, err := u.cfg.Book.holds(ctx, u.cfg.Name, r.tool, r.hash)
	if err != nil {
		return tools.Result{}, fmt.Errorf("nothing was done: %w", err)
	}
	if !ok {
		return tools.Result{}, errors.New("nothing was done: the tool changed since a person accepted it, and waits for one to look again")
	}
	if err := grant.Use(); err != nil {
		return tools.Result{}, fmt.Errorf("nothing was done: %w", err)
	}
	return u.client.call(ctx, r.tool, call.Args)
}
