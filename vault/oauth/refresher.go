package oauth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"ambit/internal/secretbytes"
)

// Health is how one connection's token fares. The zero value is the one with
// which nothing can be done.
type Health uint8

// The states of a connection.
const (
	ReconnectNeeded Health = iota // the provider refused for good: the person must connect again
	OK                            // the token is good, or will be refreshed when it is needed
	Refreshing                    // a refresh is under way
	Failing                       // refreshing fails for now and is tried again
)

// String is the state's name, as people and programs read it.
func (h Health) String() string {
	switch h {
	case OK:
		return "ok"
	case Refreshing:
		return "refreshing"
	case Failing:
		return "failing"
	}
	return "reconnect-needed"
}

// State is a connection's health with its circumstances.
type State struct {
	Health   Health
	Since    time.Time // of Failing: the first failure; otherwise when it became so
	Failures int       // in a row
	Next     time.Time // of Failing: not tried again before
	Err      error     // the last failure; nil when there is none. Never holds a secret
}

// ErrClosed is a Refresher that was closed, because its connection was revoked
// or replaced.
var ErrClosed = errors.New("oauth: the connection is closed")

// RefresherConfig is one connection. All functions are called with the
// Refresher's own context, which ends with Close, except Load in Access.
type RefresherConfig struct {
	// Load returns the token as it is stored, with the refresh token if there is
	// one. Required. It is called for each use; the Refresher wipes what it
	// gets.
	Load func(context.Context) (*Token, error)
	// Fetch asks the provider, with the stored refresh token: [Client.Refresh],
	// or an exchange of a new assertion, which needs none. Required. An *Error
	// that is permanent ends the connection, every other error is temporary.
	Fetch func(ctx context.Context, refresh secretbytes.Bytes) (*Token, error)
	// Store makes a token durable before it returns. Required. Where Refresh is
	// empty, the refresh token that is stored must stay. It must be atomic: the
	// old token or the new one.
	Store func(context.Context, *Token) error
	// Notify is told each new Health, one after the other. It must not block
	// and must not call the Refresher. Optional.
	Notify func(State)
	// Ahead is how long before its end a token is refreshed; up to half as much
	// is added by chance, and half of a token's life is the most. Default five
	// minutes.
	Ahead time.Duration
	Now   func() time.Time                           // default time.Now
	Sleep func(context.Context, time.Duration) error // as Config.Sleep
}

// Refresher keeps the token of one connection fresh: one refresh at a time,
// ahead of its end, tried again with growing pauses (one second to five minutes,
// and what the provider asks for).
//
// Crash points: before Fetch returns, the stored token is the old one, and the
// provider may or may not have issued another. After that and before Store
// returns, the new token is in memory alone and used by nobody; if the process
// dies there and the provider rotates refresh tokens, the old one is tried
// after the restart, and if the provider refuses it the person must connect
// again. If Store fails, the new token is kept and stored later, without asking
// the provider again. After Store, everyone loads the new token.
//
// It is safe for concurrent use. Close it.
type Refresher struct {
	c      RefresherConfig
	ctx    context.Context // of refreshes, which outlive the request that caused them
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // held for short, never while a function of c runs
	closed  bool
	state   State
	flight  *flight       // nil when no refresh is under way
	early   time.Duration // how long before its end the token is due
	forced  bool          // an upstream refused the token
	last    time.Time     // the last refresh that was done
	pending *Token        // fetched, and not stored yet; owned by the flight while there is one
}

// flight is one refresh that several wait for.
type flight struct {
	done chan struct{}
	err  error // to be read after done
}

// Pauses between two tries, and between two refreshes that upstreams cause.
const (
	firstPause  = time.Second
	longPause   = 5 * time.Minute
	expirePause = time.Minute
	checkPause  = time.Hour
)

// NewRefresher returns a Refresher for a connection that is in order.
func NewRefresher(c RefresherConfig) (*Refresher, error) {
	if c.Load == nil || c.Fetch == nil || c.Store == nil {
		return nil, errors.New("oauth: Load, Fetch and Store are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Notify == nil {
		c.Notify = func(State) {}
	}
	if c.Ahead <= 0 {
		c.Ahead = 5 * time.Minute
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Refresher{c: c, ctx: ctx, cancel: cancel, state: State{Health: OK, Since: c.Now()}}
	r.early = c.Ahead + rand.N(c.Ahead/2+1) //nolint:gosec // spreads load, guards nothing
	return r, nil
}

// State is how the connection fares now.
func (r *Refresher) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Access returns an access token that is good now, as a copy that the caller
// wipes. A token near its end is returned while it is refreshed behind the
// caller's back; one that has ended is waited for. When it cannot be had, the
// error is that of the last try, ErrClosed, or the end of ctx.
func (r *Refresher) Access(ctx context.Context) (secretbytes.Bytes, error) {
	for tries := 0; ; tries++ {
		if err := r.usable(); err != nil {
			return secretbytes.Bytes{}, err
		}
		t, err := r.load(ctx)
		if err != nil {
			return secretbytes.Bytes{}, err
		}
		t.Refresh.Wipe()
		due, ended := r.due(t)
		if !due || tries > 0 {
			return t.Access, nil
		}
		f, err := r.start()
		if !ended {
			return t.Access, nil
		}
		t.Wipe()
		if err != nil {
			return secretbytes.Bytes{}, err
		}
		select {
		case <-ctx.Done():
			return secretbytes.Bytes{}, fmt.Errorf("oauth: waiting for a refresh: %w", ctx.Err())
		case <-f.done:
		}
		if f.err != nil {
			return secretbytes.Bytes{}, f.err
		}
	}
}

// Expire says that an upstream refused the token (401), so that the next Access
// gets another. It does nothing within a minute of the last refresh: an
// upstream, or an agent, must not make us flood the provider. It reports
// whether it did.
func (r *Refresher) Expire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil || !r.last.IsZero() && r.c.Now().Sub(r.last) < expirePause {
		return false
	}
	r.forced = true
	return true
}

// Run refreshes the token ahead of its end, also when nobody uses it, until ctx
// ends, the Refresher is closed, or the person must connect again; it returns
// which. Access works without it.
func (r *Refresher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	for {
		if err := r.usable(); err != nil {
			return err
		}
		wait := longPause // when it cannot be loaded
		if t, err := r.load(ctx); err == nil {
			wait = r.pause(t)
			t.Wipe()
		}
		if wait <= 0 {
			f, err := r.start()
			if err != nil {
				continue
			}
			select {
			case <-ctx.Done():
			case <-f.done:
			}
		} else {
			_ = r.c.Sleep(ctx, wait) // ctx is looked at below
		}
		if ctx.Err() != nil {
			return errors.Join(r.usable(), ctx.Err())
		}
	}
}

// Close ends the refresh that is under way and waits for it. A token that was
// fetched and not stored is lost.
func (r *Refresher) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending != nil {
		r.pending.Wipe()
		r.pending = nil
	}
}

func (r *Refresher) usable() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.state.Health == ReconnectNeeded:
		return r.state.Err
	}
	return nil
}

func (r *Refresher) load(ctx context.Context) (*Token, error) {
	t, err := r.c.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("oauth: loading the token: %w", err)
	}
	return t, nil
}

// due says whether t wants a refresh, and whether it is of no use any more.
func (r *Refresher) due(t *Token) (due, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.c.Now()
	ended = r.forced || !t.Expires.IsZero() && !now.Before(t.Expires)
	return ended || !t.Expires.IsZero() && !now.Before(t.Expires.Add(-r.early)), ended
}

// pause is how long Run waits before it refreshes t, at most an hour: the token
// may be another by then.
func (r *Refresher) pause(t *Token) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, at := r.c.Now(), t.Expires.Add(-r.early)
	switch {
	case r.forced:
		at = now
	case t.Expires.IsZero():
		at = now.Add(checkPause)
	}
	if r.state.Health == Failing && at.Before(r.state.Next) {
		at = r.state.Next
	}
	return min(at.Sub(now), checkPause)
}

// start joins the refresh that is under way, or begins one; an error if it is
// too early to try again, or there is nothing to try.
func (r *Refresher) start() (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, ErrClosed
	case r.flight != nil:
		return r.flight, nil
	case r.state.Health == ReconnectNeeded, r.state.Health == Failing && r.c.Now().Before(r.state.Next):
		return nil, r.state.Err
	}
	f := &flight{done: make(chan struct{})}
	r.flight = f
	before := r.state
	r.state.Health, r.state.Since = Refreshing, r.c.Now()
	r.wg.Go(func() {
		if before.Health == OK {
			r.c.Notify(State{Health: Refreshing, Since: r.c.Now()})
		}
		f.err = r.refresh()
		state := r.finish(before, f.err)
		if r.ctx.Err() == nil { // what Close interrupts has not failed
			r.c.Notify(state)
		}
		r.mu.Lock()
		r.flight = nil // only now: the next one must not notify before this one has
		r.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// refresh fetches a token, if none is waiting, and stores it.
func (r *Refresher) refresh() error {
	if r.pending == nil { // owned by this flight
		old, err := r.load(r.ctx)
		if err != nil {
			return err
		}
		defer old.Wipe()
		t, err := r.c.Fetch(r.ctx, old.Refresh)
		if err != nil {
			return err
		}
		r.pending = t
	}
	if err := r.c.Store(r.ctx, r.pending); err != nil {
		return fmt.Errorf("oauth: storing the new token before it is used: %w", err)
	}
	return nil
}

// finish works out the state after a refresh; the next cannot begin yet.
func (r *Refresher) finish(before State, err error) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.c.Now()
	if err == nil {
		r.last, r.forced = now, false
		r.early = r.c.Ahead + rand.N(r.c.Ahead/2+1) //nolint:gosec // spreads load, guards nothing
		if !r.pending.Expires.IsZero() {
			r.early = min(r.early, max(r.pending.Expires.Sub(now), 0)/2)
		}
		r.pending.Wipe()
		r.pending = nil
		r.state = State{Health: OK, Since: now}
		return r.state
	}
	r.state = State{Health: Failing, Since: now, Failures: before.Failures + 1, Err: err}
	if before.Health == Failing {
		r.state.Since = before.Since
	}
	var e *Error
	after := time.Duration(0)
	if errors.As(err, &e) {
		if after = e.RetryAfter; e.Permanent {
			r.state.Health, r.state.Since = ReconnectNeeded, now
			return r.state
		}
	}
	pause := min(firstPause<<min(r.state.Failures-1, 20), longPause)
	pause = pause/2 + rand.N(pause/2+1) //nolint:gosec // spreads load, guards nothing
	r.state.Next = now.Add(max(pause, after))
	return r.state
}
