package sink

import (
	"context"
	"maps"
	"slices"
	"time"

	"ambit/internal/inert"
)

// State is what a sink does.
type State string

// The states.
const (
	Starting State = "starting" // nothing was tried yet
	Idle     State = "idle"     // everything is delivered
	Sending  State = "sending"  // there is more
	Failing  State = "failing"  // the last delivery of a log failed; it is tried again
	Stopped  State = "stopped"
)

// Status is how one sink does.
type Status struct {
	Name      string        `json:"name"`
	Kind      string        `json:"kind"`
	WhenDown  string        `json:"whenDown"` // "buffer", "block"
	State     State         `json:"state"`
	Behind    bool          `json:"behind"`    // as Options.Behind was told
	Lag       uint64        `json:"lag"`       // events that wait, in all logs, as last measured
	LagTime   time.Duration `json:"lagTime"`   // how long the oldest of them waits, as far as that is known
	Delivered uint64        `json:"delivered"` // events since the start
	Rejected  uint64        `json:"rejected"`  // of those, how many the receiver did not take
	// LastError is the last failure, also if it is over; escaped, and without
	// secrets.
	LastError     string      `json:"lastError,omitempty"`
	LastErrorAt   time.Time   `json:"lastErrorAt,omitzero"`
	FailingSince  time.Time   `json:"failingSince,omitzero"`
	LastDelivered time.Time   `json:"lastDelivered,omitzero"`
	Logs          []LogStatus `json:"logs"` // by name
}

// LogStatus is how far a sink is in one log.
type LogStatus struct {
	Log     string    `json:"log"`
	Next    uint64    `json:"next"` // the first event that is not acknowledged
	End     uint64    `json:"end"`  // of the log, as last measured
	Failing time.Time `json:"failing,omitzero"`
}

// stats are guarded by worker.mu.
type stats struct {
	started, stopped, behind bool
	delivered, rejected      uint64
	lastError                string
	lastErrorAt, lastSent    time.Time
}

// maxError is how much of an error is kept, in bytes.
const maxError = 600

func (w *worker) isGone(s *stream) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.gone
}

func (w *worker) position(s *stream) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.next
}

func (w *worker) acknowledged(log string) (uint64, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.streams[log]
	if s == nil {
		return 0, false
	}
	return s.next, true
}

// failed notes a failure of a stream.
func (w *worker) failed(s *stream, err error) {
	w.noted(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.failing.IsZero() {
		s.failing = time.Now()
	}
}

func (w *worker) noted(err error) {
	text := inert.Text(err.Error())
	if len(text) > maxError {
		text = inert.Text(text[:maxError]) + "…"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.started = true
	w.stats.lastError, w.stats.lastErrorAt = text, time.Now()
}

func (w *worker) delivered(s *stream, events, rejected int, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.started = true
	w.stats.delivered += uint64(events)
	w.stats.rejected += uint64(rejected)
	w.stats.lastSent = time.Now()
	s.next, s.end, s.oldest, s.failing = next, max(s.end, next), time.Time{}, time.Time{}
}

func (w *worker) reading(s *stream, oldest time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.oldest = oldest
}

func (w *worker) idle(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.started = true
	s.oldest, s.failing = time.Time{}, time.Time{}
}

func (w *worker) stopped(err error) {
	if err != nil {
		w.noted(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.stopped = true
}

// measure asks the logs how long they are. One that does not say stays as it was.
func (w *worker) measure(ctx context.Context) {
	w.mu.Lock()
	var all []*stream
	for _, s := range w.streams {
		all = append(all, s)
	}
	w.mu.Unlock()
	for _, s := range all {
		one, cancel := context.WithTimeout(ctx, w.o.Timeout)
		end, err := s.from.End(one)
		cancel()
		if err != nil {
			continue
		}
		w.mu.Lock()
		s.end = max(end, s.next)
		w.mu.Unlock()
	}
}

// judge says whether the sink fell behind or caught up since it was last asked.
func (w *worker) judge(now time.Time) (Notice, bool) {
	s := w.status(now)
	n := Notice{Sink: s.Name, Lag: s.Lag, Age: s.LagTime}
	if s.State == Failing {
		n.Reason = s.LastError
	}
	late := s.Lag >= w.o.BehindEvents || s.LagTime >= w.o.BehindFor || !s.FailingSince.IsZero() && now.Sub(s.FailingSince) >= w.o.BehindFor
	well := s.Lag <= w.o.BehindEvents/2 && s.LagTime < w.o.BehindFor && s.State != Failing
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.stats.behind && late, w.stats.behind && well:
		w.stats.behind = late
		n.Behind = late
		return n, true
	}
	return n, false
}

func (w *worker) status(now time.Time) Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{
		Name: w.sink.Name, Kind: w.sink.Kind, WhenDown: "buffer", State: Idle, Behind: w.stats.behind, Delivered: w.stats.delivered, Rejected: w.stats.rejected,
		LastError: w.stats.lastError, LastErrorAt: w.stats.lastErrorAt, LastDelivered: w.stats.lastSent, Logs: []LogStatus{},
	}
	if w.sink.Blocking {
		s.WhenDown = "block"
	}
	for _, name := range sortedKeys(w.streams) {
		l := w.streams[name]
		s.Logs = append(s.Logs, LogStatus{Log: name, Next: l.next, End: l.end, Failing: l.failing})
		s.Lag += l.end - l.next
		if !l.oldest.IsZero() {
			s.LagTime = max(s.LagTime, now.Sub(l.oldest))
		}
		if !l.failing.IsZero() && (s.FailingSince.IsZero() || l.failing.Before(s.FailingSince)) {
			s.FailingSince = l.failing
		}
	}
	switch {
	case w.stats.stopped:
		s.State = Stopped
	case !s.FailingSince.IsZero():
		s.State = Failing
	case !w.stats.started:
		s.State = Starting
	case s.Lag > 0:
		s.State = Sending
	}
	return s
}

// Status is how every sink does, in the order of Options.Sinks.
func (r *Runner) Status() []Status {
	all := make([]Status, len(r.workers))
	for i, w := range r.workers {
		all[i] = w.status(time.Now())
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
