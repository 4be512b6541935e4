package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"ambit"
)

// memory is a log in memory.
type memory struct {
	mu     sync.Mutex
	events []ambit.Event
	more   chan struct{} // closed and made anew when there is more
	broken error
}

func newMemory() *memory { return &memory{more: make(chan struct{})} }

// write appends n events.
func (m *memory) write(n int) {
	for range n {
		m.put(ambit.Event{Kind: ambit.KindEgressRequest, Agent: "support", Principal: ambit.PrincipalAgent, Action: ambit.ActionHTTP, Method: "GET", Host: "api.example.com", URL: "https://api.example.com/orders?id=1", Decision: ambit.Allow})
	}
}

func (m *memory) put(e ambit.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.V, e.Seq, e.Time = ambit.EventVersion, uint64(len(m.events)), time.Now().UTC().Truncate(time.Microsecond)
	m.events = append(m.events, e)
	close(m.more)
	m.more = make(chan struct{})
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

func (m *memory) Events(_ context.Context, from uint64, limit int) ([]ambit.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	if from >= uint64(len(m.events)) {
		return nil, nil
	}
	rest := m.events[from:]
	return append([]ambit.Event(nil), rest[:min(limit, len(rest))]...), nil
}

func (m *memory) Wait(ctx context.Context, from uint64) error {
	for {
		m.mu.Lock()
		there, more := from < uint64(len(m.events)), m.more
		m.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

func (m *memory) End(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.events)), m.broken
}

// cursors are in memory too.
type cursors struct {
	mu    sync.Mutex
	at    map[string]uint64
	fails bool // Store does nothing and says so
}

func newCursors() *cursors { return &cursors{at: map[string]uint64{}} }

func (c *cursors) Load(_ context.Context, sink, log string) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[sink+" "+log], nil
}

func (c *cursors) Store(_ context.Context, sink, log string, next uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails {
		return errors.New("the disk is full")
	}
	c.at[sink+" "+log] = next
	return nil
}

// got is what a receiver has, by log.
type got struct {
	mu   sync.Mutex
	seqs map[string][]uint64
}

func (g *got) add(log string, seq uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seqs == nil {
		g.seqs = map[string][]uint64{}
	}
	g.seqs[log] = append(g.seqs[log], seq)
}

// whole says what is missing for n events of a log that came at least once, and in
// order: one that comes again may be followed only by what came after it before.
func (g *got) whole(log string, n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := uint64(0)
	for i, seq := range g.seqs[log] {
		if seq > next {
			return fmt.Errorf("%s: %d came before %d (the %d-th to come)", log, seq, next, i)
		}
		if i > 0 && seq > g.seqs[log][i-1]+1 {
			return fmt.Errorf("%s: %d came after %d", log, seq, g.seqs[log][i-1])
		}
		next = max(next, seq+1)
	}
	if next != uint64(n) {
		return fmt.Errorf("%s: %d of %d came", log, next, n)
	}
	return nil
}

func (g *got) count(log string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.seqs[log])
}

// until waits for what must come to be true. How long that takes is not asserted.
func until(t *testing.T, what func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err = what(); err == nil {
			return
		}
	}
	t.Fatalf("still not: %v", err)
}

var support = Log{Name: "ambit/agent/support/00112233", Agent: "support"}
var control = Log{Name: "ambit/control/44556677"}

// quick are options for tests over real connections.
func quick(c Cursors, sinks ...Sink) Options {
	return Options{Cursors: c, Sinks: sinks, MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Check: 10 * time.Millisecond, Timeout: 5 * time.Second}
}

// start runs a runner until the test ends, or stop is called.
func start(t *testing.T, o Options) (r *Runner, stop func()) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return r, stop
}

func add(t *testing.T, r *Runner, l Log, s Source) {
	t.Helper()
	if err := r.Add(l, s); err != nil {
		t.Fatal(err)
	}
}
