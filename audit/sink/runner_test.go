package sink

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ambit"
)

// place is a receiver that keeps what it gets, and fails as it is told.
type place struct {
	got
	mu     sync.Mutex
	down   error         // what Deliver returns; the batch is lost
	unsure bool          // it has the batch, and says that it failed
	slow   time.Duration // how long Deliver takes
	tries  []time.Time
	sizes  []int
	closed bool
}

func (p *place) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	p.mu.Lock()
	p.tries = append(p.tries, time.Now())
	p.sizes = append(p.sizes, len(b.Events))
	down, unsure, slow := p.down, p.unsure, p.slow
	p.mu.Unlock()
	if !sleep(ctx, slow) {
		return nil, ctx.Err()
	}
	if down != nil && !unsure {
		return nil, down
	}
	for _, e := range b.Events {
		p.add(b.Log.Name, e.Seq)
	}
	return nil, down
}

func (p *place) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *place) tried() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tries)
}

func (p *place) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = err
}

// notices keeps what Behind is told.
type notices struct {
	mu  sync.Mutex
	all []Notice
}

func (n *notices) tell(x Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notices) take() []Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.all
	n.all = nil
	return all
}

// run runs a runner in a bubble, where time is what the test says.
func run(t *testing.T, o Options, body func(*Runner)) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	body(r)
	cancel()
	<-done
}

func TestEverythingOfEveryLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, one := &place{}, &place{}
		c := newCursors()
		logs := map[Log]*memory{support: newMemory(), control: newMemory(), {Name: "ambit/agent/other/01", Agent: "other"}: newMemory()}
		o := Options{Cursors: c, Sinks: []Sink{{Name: "all", Kind: "test", Receiver: all, Control: true}, {Name: "one", Receiver: one, Agents: []ambit.AgentID{"support"}, Blocking: true}}}
		run(t, o, func(r *Runner) {
			for l, m := range logs {
				m.write(1000)
				add(t, r, l, m)
			}
			synctest.Wait()
			logs[support].write(10)
			synctest.Wait()
			if next, blocking := r.Acknowledged(support.Name); next != 1010 || !blocking {
				t.Errorf("acknowledged %d, %v", next, blocking)
			}
			if _, blocking := r.Acknowledged(control.Name); blocking {
				t.Error("no blocking sink has the control plane's log")
			}
			s := r.Status()
			if s[0].State != Idle || s[0].Delivered != 3010 || s[0].WhenDown != "buffer" || s[1].WhenDown != "block" || len(s[1].Logs) != 1 {
				t.Errorf("%+v", s)
			}
		})
		for l := range logs {
			n := 1000
			if l == support {
				n = 1010
			}
			if err := all.whole(l.Name, n); err != nil {
				t.Error(err)
			}
			if l != support && one.count(l.Name) > 0 {
				t.Errorf("the sink for one agent got %s", l.Name)
			}
			if c.at["all "+l.Name] != uint64(n) {
				t.Errorf("the cursor is %d", c.at["all "+l.Name])
			}
		}
		if err := one.whole(support.Name, 1010); err != nil {
			t.Error(err)
		}
		if !all.closed || !slices.Contains(all.sizes, 256) || slices.Max(all.sizes) > 256 {
			t.Errorf("closed %v, batches of %v", all.closed, all.sizes)
		}
	})
}

// A receiver that is down is tried again, less and less often, and then gets all.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := &place{down: errors.New("no route\x1b[2J\nto host")}, &notices{}
		m := newMemory()
		m.write(300)
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p, Blocking: true}}, Behind: n.tell}, func(r *Runner) {
			add(t, r, support, m)
			time.Sleep(20 * time.Minute)
			synctest.Wait()
			s := r.Status()[0]
			if s.State != Failing || s.LastError != `no route\x1b[2J\nto host` || s.Lag != 300 || s.LagTime < 19*time.Minute || s.Delivered != 0 || !s.Behind {
				t.Errorf("%+v", s)
			}
			if next, blocking := r.Acknowledged(support.Name); next != 0 || !blocking {
				t.Errorf("acknowledged %d, %v", next, blocking)
			}
			told := n.take()
			if len(told) != 1 || !told[0].Behind || told[0].Reason == "" || told[0].Age < 5*time.Minute || told[0].Age > 6*time.Minute {
				t.Errorf("%+v", told)
			}
			tries := p.tried()
			for i, at := range tries[1:] {
				wait := at.Sub(tries[i])
				if wait > time.Minute+time.Second || wait < time.Second/2 {
					t.Errorf("try %d came after %v", i+1, wait)
				}
			}
			if len(tries) < 20 || len(tries) > 60 {
				t.Errorf("%d tries in 20 minutes", len(tries))
			}
			p.set(nil)
			time.Sleep(2 * time.Minute)
			if s := r.Status()[0]; s.State != Idle || s.Behind || s.LastError == "" || !s.FailingSince.IsZero() {
				t.Errorf("%+v", s)
			}
			if told := n.take(); len(told) != 1 || told[0].Behind {
				t.Errorf("%+v", told)
			}
		})
		if err := p.whole(support.Name, 300); err != nil {
			t.Error(err)
		}
	})
}

// What a receiver wishes for is done, up to a minute.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{down: &laterError{errors.New("busy"), time.Hour}}
		m := newMemory()
		m.write(1)
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p}}}, func(r *Runner) {
			add(t, r, support, m)
			time.Sleep(10 * time.Minute)
		})
		if n := len(p.tries); n < 10 || n > 21 {
			t.Errorf("%d tries in 10 minutes", n)
		}
	})
}

// A restart between the acknowledgement and the cursor delivers twice, and loses
// nothing.
func TestRestartDeliversAtLeastOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c := &place{}, newCursors()
		m := newMemory()
		for round := range 5 {
			c.fails = round%2 == 0
			m.write(100)
			run(t, Options{Cursors: c, Sinks: []Sink{{Name: "siem", Receiver: p}}}, func(r *Runner) {
				add(t, r, support, m)
				synctest.Wait()
				if c.fails && !strings.Contains(r.Status()[0].LastError, "the disk is full") {
					t.Error("nobody is told that the cursor is not stored")
				}
			})
		}
		if err := p.whole(support.Name, 500); err != nil {
			t.Error(err)
		}
		if n := p.count(support.Name); n <= 500 {
			t.Errorf("%d events came: the test made no restart that delivers again", n)
		}
	})
}

// An error after the receiver had the batch delivers it again, whole and in order.
func TestUnsure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{down: errors.New("the connection ended"), unsure: true}
		m := newMemory()
		m.write(600)
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p}}}, func(r *Runner) {
			add(t, r, support, m)
			time.Sleep(10 * time.Second)
			p.set(nil)
			time.Sleep(time.Minute)
		})
		if err := p.whole(support.Name, 600); err != nil {
			t.Error(err)
		}
	})
}

// A log that cannot be read holds up no other.
func TestBrokenSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{}
		broken, fine := newMemory(), newMemory()
		broken.write(10)
		broken.fail(errors.New("malformed"))
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p, Control: true}}}, func(r *Runner) {
			add(t, r, support, broken)
			add(t, r, control, fine)
			for range 600 {
				fine.write(1)
				time.Sleep(time.Second)
			}
			synctest.Wait()
			if err := p.whole(control.Name, 600); err != nil {
				t.Error(err)
			}
			if s := r.Status()[0]; s.State != Failing || !strings.Contains(s.LastError, "malformed") || !s.Behind {
				t.Errorf("%+v", s)
			}
			broken.fail(nil)
			time.Sleep(2 * time.Minute)
			if s := r.Status()[0]; s.State != Idle {
				t.Errorf("%+v", s)
			}
		})
		if err := p.whole(support.Name, 10); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := &place{slow: 10 * time.Second}, &notices{}
		m := newMemory()
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p}}, Behind: n.tell, BehindEvents: 1000, BehindFor: time.Hour}, func(r *Runner) {
			add(t, r, support, m)
			m.write(5000)
			time.Sleep(11 * time.Second)
			if told := n.take(); len(told) != 1 || !told[0].Behind || told[0].Lag < 1000 || told[0].Reason != "" {
				t.Errorf("%+v", told)
			}
			time.Sleep(10 * time.Minute)
			if told := n.take(); len(told) != 1 || told[0].Behind {
				t.Errorf("%+v", told)
			}
		})
	})
}

// A receiver that never answers is given up on after the time for one delivery.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{slow: time.Hour}
		m := newMemory()
		m.write(1)
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p}}}, func(r *Runner) {
			add(t, r, support, m)
			time.Sleep(5 * time.Minute)
			if s := r.Status()[0]; s.State != Failing || !strings.Contains(s.LastError, "deadline") || len(p.tried()) < 3 {
				t.Errorf("%+v after %d tries", s, len(p.tried()))
			}
		})
	})
}

func TestLingerCollects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{}
		m := newMemory()
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "s3", Receiver: p, Limits: Limits{Events: 100, Linger: time.Minute}}}}, func(r *Runner) {
			add(t, r, support, m)
			synctest.Wait()
			for range 250 {
				m.write(1)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(2 * time.Minute)
		})
		if !slices.Equal(p.sizes, []int{100, 100, 50}) {
			t.Errorf("batches of %v", p.sizes)
		}
	})
}

func TestRemoveAndReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{}
		first, second := newMemory(), newMemory()
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p, Blocking: true}}}, func(r *Runner) {
			add(t, r, support, first)
			first.write(5)
			synctest.Wait()
			r.Remove(support.Name)
			first.write(5)
			synctest.Wait()
			if _, blocking := r.Acknowledged(support.Name); blocking || p.count(support.Name) != 5 || len(r.Status()[0].Logs) != 0 {
				t.Errorf("%d events, %+v", p.count(support.Name), r.Status())
			}
			add(t, r, support, first)
			synctest.Wait()
			if err := p.whole(support.Name, 10); err != nil || p.count(support.Name) != 10 {
				t.Error(err)
			}
			// an older copy of the log was put back: what it gets now is delivered
			second.write(3)
			add(t, r, support, second)
			synctest.Wait()
			second.write(1)
			synctest.Wait()
			if s := r.Status()[0]; p.count(support.Name) != 11 || !strings.Contains(s.LastError, "older copy") {
				t.Errorf("%d events, %+v", p.count(support.Name), s)
			}
		})
	})
}

func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{}
		m := newMemory()
		for range 20 {
			m.put(ambit.Event{Kind: ambit.KindAlert, Detail: strings.Repeat("x", 16<<10)})
		}
		run(t, Options{Cursors: newCursors(), Sinks: []Sink{{Name: "siem", Receiver: p, Limits: Limits{Bytes: 40 << 10}}}}, func(r *Runner) {
			add(t, r, support, m)
			synctest.Wait()
		})
		if err := p.whole(support.Name, 20); err != nil || slices.Max(p.sizes) != 2 {
			t.Errorf("%v, batches of %v", err, p.sizes)
		}
	})
}

func TestNamesOfLogs(t *testing.T) {
	r, err := New(Options{Cursors: newCursors()})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "a b", "a\n", "ä", strings.Repeat("a", 201)} {
		if r.Add(Log{Name: bad}, newMemory()) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, good := range []string{support.Name, control.Name, "A.b_c-9"} {
		if err := r.Add(Log{Name: good}, newMemory()); err != nil {
			t.Error(err)
		}
	}
	if _, err := New(Options{Sinks: []Sink{{Name: "a"}, {Name: "a"}}}); err == nil {
		t.Error("two sinks of one name were taken")
	}
}
