// Package fleet makes agents run: for each one a worker process and, beside it,
// a computer, both restarted with back-off when they die, and both taken up
// again when the control plane itself was restarted.
//
// One goroutine per agent (a keeper) owns everything about it, so there are no
// two opinions about what runs. What should run is in the store; what does run
// is asked of the kernel.
//
// Crash points: a worker and a computer are processes of their own and outlive
// this one. When it comes back it finds the worker by its control socket and
// the computer by its process id, checks whose processes they are, and goes on.
// A computer that was being started is ended and started anew.
//
// Trust: the folder of an agent may be written by whoever broke that agent's
// worker or computer; nothing in it is opened, executed or believed with more
// rights than the agent's own user has. Process ids read there are checked
// against the agent's user id before anything is sent to them.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"ambit"
	"ambit/agent"
	"ambit/control"
	"ambit/server"
)

// Config is what a fleet needs. All of it is required but Never.
type Config struct {
	Home    string // the control plane's home, absolute
	Store   *agent.Store
	Version string
	Log     *slog.Logger
	// Never is where the control plane itself listens: no agent is let there,
	// whatever its manifest says.
	Never []netip.AddrPort
	// Delivered is how many events of an agent's log, which has this origin, every
	// sink has that may block it; nil if there is none. Nil is never.
	Delivered func(id ambit.AgentID, origin string) *uint64
}

// Fleet runs the agents of one home. It implements server.Runner and
// server.Workers.
type Fleet struct {
	config Config
	// This program and the small one that launches computers, in a place that
	// every agent's user can reach; launcher is "" where this program does it.
	binary, launcher string

	limiter *limiter
	log     *slog.Logger

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // held for moments
	keepers map[ambit.AgentID]*keeper
	closed  bool
}

// Open checks that this machine can hold agents, then takes up every agent of
// the store: what runs goes on, what should run is started.
func Open(ctx context.Context, c Config) (*Fleet, error) {
	binary, launcher, err := installBinaries(c.Home)
	if err != nil {
		return nil, err
	}
	if err := probe(ctx, binary); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(agentsDir(c.Home), 0o711); err != nil {
		return nil, fmt.Errorf("making the folder for agents: %w", err)
	}
	f := &Fleet{config: c, binary: binary, launcher: launcher, log: c.Log, keepers: map[ambit.AgentID]*keeper{}}
	f.limiter = newLimiter(c.Home, c.Log)
	f.ctx, f.stop = context.WithCancel(context.WithoutCancel(ctx))
	agents, err := c.Store.List(ctx)
	if err != nil {
		f.stop()
		return nil, err
	}
	for _, a := range agents {
		k, err := f.keeper(a.ID)
		if err != nil {
			return nil, err
		}
		f.wg.Go(func() { // in parallel, and not waited for: the API is up meanwhile
			if err := k.do(f.ctx, (*keeper).apply); err != nil && f.ctx.Err() == nil {
				f.log.Error("taking up an agent", slog.String("agent", string(a.ID)), slog.Any("error", err))
			}
		})
	}
	return f, nil
}

// Close stops every computer and every worker in good order, and waits. What
// should run is started again by the next Open.
func (f *Fleet) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	keepers := make([]*keeper, 0, len(f.keepers))
	for _, k := range f.keepers {
		keepers = append(keepers, k)
	}
	f.mu.Unlock()
	errs := make([]error, len(keepers))
	var wg sync.WaitGroup
	for i, k := range keepers {
		wg.Go(func() { errs[i] = k.do(ctx, (*keeper).shutdown) })
	}
	wg.Wait()
	f.stop()
	f.wg.Wait()
	f.limiter.close()
	return errors.Join(errs...)
}

func (f *Fleet) keeper(id ambit.AgentID) (*keeper, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.New("the control plane is shutting down")
	}
	k := f.keepers[id]
	if k == nil {
		k = newKeeper(f, id)
		f.keepers[id] = k
		f.wg.Go(func() { k.run(f.ctx) })
	}
	return k, nil
}

// Apply implements server.Runner.
func (f *Fleet) Apply(ctx context.Context, id ambit.AgentID) error {
	k, err := f.keeper(id)
	if err != nil {
		return err
	}
	return k.do(ctx, func(k *keeper, ctx context.Context) error {
		k.restarts, k.backoff = 0, backoff{}
		return k.apply(ctx)
	})
}

// Remove implements server.Runner.
func (f *Fleet) Remove(ctx context.Context, id ambit.AgentID) error {
	k, err := f.keeper(id)
	if err != nil {
		return err
	}
	if err := k.do(ctx, (*keeper).remove); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.keepers, id)
	f.mu.Unlock()
	k.retire()
	return nil
}

// Status implements server.Runner.
func (f *Fleet) Status(id ambit.AgentID) server.AgentStatus {
	f.mu.Lock()
	k := f.keepers[id]
	f.mu.Unlock()
	if k == nil {
		return server.AgentStatus{}
	}
	return k.status()
}

// Worker implements server.Workers.
func (f *Fleet) Worker(ctx context.Context, id ambit.AgentID) (*control.Client, error) {
	k, err := f.keeper(id)
	if err != nil {
		return nil, err
	}
	if c := k.client(); c != nil {
		return c, nil
	}
	if err := k.do(ctx, (*keeper).needWorker); err != nil {
		return nil, err
	}
	if c := k.client(); c != nil {
		return c, nil
	}
	return nil, errors.New("the agent's worker does not run; see its status")
}

// Running implements server.Workers.
func (f *Fleet) Running(id ambit.AgentID) *control.Client {
	f.mu.Lock()
	k := f.keepers[id]
	f.mu.Unlock()
	if k == nil {
		return nil
	}
	return k.client()
}

// Halt implements server.Workers.
func (f *Fleet) Halt(ctx context.Context, id ambit.AgentID, why string) error {
	k, err := f.keeper(id)
	if err != nil {
		return err
	}
	return k.do(ctx, func(k *keeper, ctx context.Context) error { return k.halt(ctx, why) })
}

// backoff spaces restarts: it doubles from first to most, and starts over after
// a life of at least calm.
type backoff struct {
	next time.Duration
}

const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 30 * time.Second
	backoffCalm  = time.Minute
)

// after returns the pause before the next start of something that lived so long.
func (b *backoff) after(lived time.Duration) time.Duration {
	if lived >= backoffCalm || b.next == 0 {
		b.next = backoffFirst
	}
	d := b.next
	b.next = min(2*b.next, backoffMost)
	return d
}
