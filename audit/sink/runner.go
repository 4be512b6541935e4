package sink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"ambit"
)

// Options are what a Runner needs. Zero durations and numbers are the defaults.
type Options struct {
	Cursors Cursors
	Sinks   []Sink
	// Behind is called when a sink falls behind, and when it has caught up; never
	// at the same time as itself. nil is not called.
	Behind func(Notice)
	// Rejected is called for every event that a receiver does not take. It may be
	// called at the same time for several sinks. nil is not called.
	Rejected func(sink string, r Rejection)

	BehindEvents uint64        // a sink is behind when so many events wait, default 10000
	BehindFor    time.Duration // or when it has failed, or an event has waited, for so long, default 5 minutes
	Check        time.Duration // how often that is looked at, default 5 seconds
	Timeout      time.Duration // of one delivery, default 1 minute
	MinBackoff   time.Duration // after the first failure, default 1 second; doubled for each further one
	MaxBackoff   time.Duration // default 1 minute
}

// Notice says that a sink fell behind or caught up.
type Notice struct {
	Sink   string
	Behind bool
	Lag    uint64        // events that wait
	Age    time.Duration // how long the oldest of them waits, as far as that is known
	Reason string        // the last error if it fails, escaped; "" if it is only slow
}

// Runner delivers the events of logs to sinks. Make one with [New], give it the
// logs with Add and let it Run; Add and Remove may be called before and meanwhile.
type Runner struct {
	o       Options
	workers []*worker
}

// New returns a runner. It starts nothing.
func New(o Options) (*Runner, error) {
	defaults(&o)
	r := &Runner{o: o}
	names := map[string]bool{}
	for _, s := range o.Sinks {
		if s.Name == "" || names[s.Name] {
			return nil, fmt.Errorf("two sinks are called %q, or one has no name", s.Name)
		}
		names[s.Name] = true
		if s.Limits.Events <= 0 {
			s.Limits.Events = 256
		}
		if s.Limits.Bytes <= 0 {
			s.Limits.Bytes = 1 << 20
		}
		r.workers = append(r.workers, newWorker(s, &r.o))
	}
	return r, nil
}

func defaults(o *Options) {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&o.BehindFor, 5 * time.Minute}, {&o.Check, 5 * time.Second}, {&o.Timeout, time.Minute}, {&o.MinBackoff, time.Second}, {&o.MaxBackoff, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	if o.BehindEvents == 0 {
		o.BehindEvents = 10000
	}
}

// Add gives a log to the sinks that want it. A log that is there already is
// replaced.
func (r *Runner) Add(l Log, from Source) error {
	if err := checkLog(l.Name); err != nil {
		return err
	}
	for _, w := range r.workers {
		if w.sink.selects(l) {
			w.add(l, from)
		}
	}
	return nil
}

// Remove takes a log away. What was not delivered stays in the log; its cursor
// stays too.
func (r *Runner) Remove(log string) {
	for _, w := range r.workers {
		w.remove(log)
	}
}

// Run delivers until the context ends, and returns when everything has stopped
// and the receivers are closed.
func (r *Runner) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, w := range r.workers {
		all.Go(func() { w.run(ctx) })
	}
	all.Go(func() { r.watch(ctx) })
	all.Wait()
}

// watch tells who is behind.
func (r *Runner) watch(ctx context.Context) {
	tick := time.NewTicker(r.o.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, w := range r.workers {
			w.measure(ctx)
			if n, changed := w.judge(time.Now()); changed && r.o.Behind != nil {
				r.o.Behind(n)
			}
		}
	}
}

// Acknowledged is the position up to which every blocking sink has a log: the
// first event that one of them does not have. It returns false if no blocking
// sink gets the log.
func (r *Runner) Acknowledged(log string) (next uint64, blocking bool) {
	for _, w := range r.workers {
		if !w.sink.Blocking {
			continue
		}
		if n, ok := w.acknowledged(log); ok && (!blocking || n < next) {
			next, blocking = n, true
		}
	}
	return next, blocking
}

// worker delivers for one sink.
type worker struct {
	sink Sink
	o    *Options

	ready   chan *stream  // one that has events, or is to be tried again
	changed chan struct{} // streams were added; holds one

	failures int // of the receiver, one after the other; of the worker's goroutine

	mu      sync.Mutex // never held while something waits
	streams map[string]*stream
	stats   stats
}

// stream is one log on its way to one sink.
type stream struct {
	log  Log
	from Source
	stop context.CancelFunc // set once it runs
	gone bool               // removed; guarded by worker.mu

	resume chan pause // from the worker to the stream's watcher; holds one

	// Of the worker's goroutine.
	loaded   bool
	pending  Batch // what is to be tried again, as it was
	failures int   // of the source or of the cursors, one after the other

	// Guarded by worker.mu.
	next    uint64    // first that is not acknowledged
	end     uint64    // as it was when last measured
	oldest  time.Time // of the first event that waits; zero if that is not known
	failing time.Time // since when; zero if it does not
}

// pause is what a stream's watcher waits for: events from a position on, and then
// company; or only some time.
type pause struct {
	from   uint64
	linger time.Duration
	only   time.Duration // if not 0
}

func newWorker(s Sink, o *Options) *worker {
	return &worker{sink: s, o: o, ready: make(chan *stream), changed: make(chan struct{}, 1), streams: map[string]*stream{}}
}

func (w *worker) add(l Log, from Source) {
	w.remove(l.Name)
	w.mu.Lock()
	w.streams[l.Name] = &stream{log: l, from: from, resume: make(chan pause, 1)}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) remove(log string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.streams[log]
	if s == nil {
		return
	}
	s.gone = true
	delete(w.streams, log)
	if s.stop != nil {
		s.stop()
	}
}

// run is the sink's goroutine.
func (w *worker) run(ctx context.Context) {
	var watchers sync.WaitGroup
	defer func() {
		watchers.Wait()
		w.stopped(w.sink.Receiver.Close())
	}()
	w.adopt(ctx, &watchers)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.changed:
			w.adopt(ctx, &watchers)
		case s := <-w.ready:
			w.serve(ctx, s)
		}
	}
}

// adopt starts the streams that are new.
func (w *worker) adopt(ctx context.Context, watchers *sync.WaitGroup) {
	w.mu.Lock()
	var fresh []*stream
	for _, s := range w.streams {
		if s.stop == nil {
			fresh = append(fresh, s)
		}
	}
	own := make([]context.Context, len(fresh))
	for i, s := range fresh {
		own[i], s.stop = context.WithCancel(ctx)
	}
	w.mu.Unlock()
	for _, s := range fresh { // all of them first, so that Acknowledged soon knows
		if err := w.load(ctx, s); err != nil && ctx.Err() == nil {
			w.failed(s, err)
		}
	}
	for i, s := range fresh {
		watchers.Go(func() { w.follow(own[i], s) })
		w.serve(ctx, s)
	}
}

// follow is the goroutine that waits for a stream.
func (w *worker) follow(ctx context.Context, s *stream) {
	for {
		var p pause
		select {
		case <-ctx.Done():
			return
		case p = <-s.resume:
		}
		if p.only == 0 {
			// An error is found again, and told, when the events are read.
			if err := s.from.Wait(ctx, p.from); err != nil && ctx.Err() != nil {
				return
			}
			p.only = p.linger
		}
		if !sleep(ctx, p.only) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case w.ready <- s:
		}
	}
}

// serve takes a stream one step on, and lets it wait for the next.
func (w *worker) serve(ctx context.Context, s *stream) {
	if w.isGone(s) || ctx.Err() != nil {
		return
	}
	p, err := w.step(ctx, s)
	switch {
	case ctx.Err() != nil || w.isGone(s):
		return
	case err != nil:
		s.failures++
		w.failed(s, err)
		p = pause{only: w.backoff(s.failures, 0)}
	}
	s.resume <- p
}

// step delivers one batch. An error is one of our own side: of the log or of the
// cursors.
func (w *worker) step(ctx context.Context, s *stream) (pause, error) {
	if !s.loaded {
		if err := w.load(ctx, s); err != nil {
			return pause{}, err
		}
	}
	full := true
	if len(s.pending.Events) == 0 {
		events, err := s.from.Events(ctx, w.position(s), w.sink.Limits.Events)
		if err != nil {
			return pause{}, fmt.Errorf("reading the log %s: %w", s.log.Name, err)
		}
		if len(events) == 0 {
			w.idle(s)
			s.failures = 0
			return pause{from: w.position(s), linger: w.sink.Limits.Linger}, nil
		}
		events, cut := within(events, w.sink.Limits.Bytes)
		full = cut || len(events) == w.sink.Limits.Events
		s.pending = Batch{Log: s.log, Events: events}
		w.reading(s, events[0].Time)
	}
	s.failures = 0
	if !w.deliver(ctx, s) {
		return pause{only: 1}, nil // the back-off is over; the others first
	}
	p := pause{from: w.position(s)}
	if !full {
		p.linger = w.sink.Limits.Linger
	}
	return p, nil
}

// deliver tries a stream's batch once, and waits if it failed.
func (w *worker) deliver(ctx context.Context, s *stream) bool {
	one, cancel := context.WithTimeout(ctx, w.o.Timeout)
	rejected, err := w.sink.Receiver.Deliver(one, s.pending)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			w.failed(s, err)
			w.failures++
			sleep(ctx, w.backoff(w.failures, wish(err)))
		}
		return false
	}
	w.failures = 0
	next := s.pending.Last() + 1
	w.delivered(s, len(s.pending.Events), len(rejected), next)
	s.pending = Batch{}
	for _, r := range rejected {
		if w.o.Rejected != nil {
			w.o.Rejected(w.sink.Name, r)
		}
	}
	// What was acknowledged is kept track of here too: if this fails, the next one
	// stores more, and a restart before that delivers again.
	if err := w.o.Cursors.Store(context.WithoutCancel(ctx), w.sink.Name, s.log.Name, next); err != nil {
		w.noted(fmt.Errorf("storing how far the sink is in the log %s: %w", s.log.Name, err))
	}
	return true
}

// load finds out where a stream goes on. A log that is shorter than what was
// delivered of it was put back to an earlier state: what it gets from now on is
// delivered, and that is told.
func (w *worker) load(ctx context.Context, s *stream) error {
	next, err := w.o.Cursors.Load(ctx, w.sink.Name, s.log.Name)
	if err != nil {
		return fmt.Errorf("loading how far the sink is in the log %s: %w", s.log.Name, err)
	}
	end, err := s.from.End(ctx)
	if err != nil {
		return fmt.Errorf("reading the log %s: %w", s.log.Name, err)
	}
	if next > end {
		w.noted(fmt.Errorf("the log %s ends at %d, and %d events of it were delivered: it is an older copy", s.log.Name, end, next))
		next = end
	}
	w.mu.Lock()
	s.next, s.end = next, end
	w.mu.Unlock()
	s.loaded = true
	return nil
}

// backoff is how long to wait after so many failures, with jitter. A receiver's
// wish counts within the bounds.
func (w *worker) backoff(failures int, wish time.Duration) time.Duration {
	d := w.o.MaxBackoff
	if shift := failures - 1; shift < 20 {
		d = min(w.o.MinBackoff<<max(shift, 0), w.o.MaxBackoff)
	}
	d = max(d, min(wish, w.o.MaxBackoff))
	return d/2 + rand.N(d/2+1) //nolint:gosec // G404: jitter is no secret
}

// sleep returns false if the context ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// within cuts events off behind about so many bytes; the first always stays.
func within(events []ambit.Event, limit int) ([]ambit.Event, bool) {
	total := 0
	for i := range events {
		if total += weight(&events[i]); total > limit && i > 0 {
			return events[:i:i], true
		}
	}
	return events, false
}

// weight is about how many bytes an event has as JSON.
func weight(e *ambit.Event) int {
	n := 300 + len(e.Task) + len(e.Tool) + len(e.Resource) + len(e.Method) + len(e.Host) + len(e.URL) + len(e.Intent) + len(e.Rule) + len(e.Connection) + len(e.Detail)
	if e.Reason != nil {
		n += len(e.Reason.Code) + len(e.Reason.Text) + len(e.Reason.Remedy)
	}
	for _, p := range e.Provenance {
		n += 50 + len(p.Value) + len(p.Source)
	}
	for _, s := range e.Subjects {
		n += 3 + len(s)
	}
	if e.Erasure != nil {
		n += 100 + 20*len(e.Erasure.Ranges)
	}
	return n + 60*len(e.Links)
}
