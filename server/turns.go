package server

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"ambit"
)

// turns lets one change of an agent run at a time. Changes of different agents
// do not wait for each other.
type turns struct {
	wait time.Duration
	mu   *sync.Mutex // of the map and of what is in it
	m    map[ambit.AgentID]*turn
}

// turn is whose turn it is. It is in the map while somebody has or wants it.
type turn struct {
	free  chan struct{} // holds one token
	users int
	what  string // of who has it: "deploy"
	since time.Time
}

func newTurns(wait time.Duration) turns {
	return turns{wait: wait, mu: new(sync.Mutex), m: map[ambit.AgentID]*turn{}}
}

// take waits for the turn to change an agent, not longer than t.wait. The
// caller gives it back with done.
func (t turns) take(ctx context.Context, id ambit.AgentID, what string) (done func(), err error) {
	t.mu.Lock()
	u := t.m[id]
	if u == nil {
		u = &turn{free: make(chan struct{}, 1)}
		u.free <- struct{}{}
		t.m[id] = u
	}
	u.users++
	t.mu.Unlock()

	if err := u.wait(ctx, t.wait); err != nil {
		t.mu.Lock()
		text := fmt.Sprintf("another %s of %s is running since %s: wait for it, then try again", u.what, id, time.Since(u.since).Round(time.Second))
		t.mu.Unlock()
		t.leave(id, u)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, problem(http.StatusConflict, text)
	}
	t.mu.Lock()
	u.what, u.since = what, time.Now()
	t.mu.Unlock()
	return func() { u.free <- struct{}{}; t.leave(id, u) }, nil
}

// wait takes the token, at once if it is there.
func (u *turn) wait(ctx context.Context, most time.Duration) error {
	select {
	case <-u.free:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	select {
	case <-u.free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turns) leave(id ambit.AgentID, u *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.users--; u.users == 0 {
		delete(t.m, id)
	}
}
