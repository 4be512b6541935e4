package notify

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"ambit/alert"
)

const (
	// maxPending is how many alerts wait in memory for a destination.
	maxPending = 1000
	// maxBatch is how many alerts one message has at most.
	maxBatch = 100
)

// position is a place in the news of a book.
type position struct {
	Book  string `json:"book"`
	After uint64 `json:"after"`
}

// item is one alert that is to be told.
type item struct {
	source Source
	book   string
	alert.NewsAlert
}

// destination is one that is told, and what it was told. It is safe for
// concurrent use.
type destination struct {
	config  Config
	deliver func(context.Context, *message) error
	wake    chan struct{} // capacity 1: something waits

	mu      sync.Mutex          // held for moments, never during I/O
	since   time.Time           // it is told of nothing that was over before
	told    map[string]position // by source; durable once saved
	read    map[string]position // what is in pending is before it
	pending []item              // in the order in which it became news, by source
	last    Status
}

func newDestination(c Config, deliver func(context.Context, *message) error, s destState) *destination {
	return &destination{
		config: c, deliver: deliver, wake: make(chan struct{}, 1), since: s.Since,
		told: maps.Clone(s.Told), read: maps.Clone(s.Told), last: Status{Name: c.Name, Kind: c.Kind, Severity: c.Severity},
	}
}

func (d *destination) hasRoom() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending) < maxPending
}

func (d *destination) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

func (d *destination) collected(source string) position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read[source]
}

// take adds what is news of a source.
func (d *destination) take(s Source, news alert.News) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.read[s.Name]
	again := news.Book != before.Book || news.After < before.After // it begins anew
	if again {
		d.pending = slices.DeleteFunc(d.pending, func(p item) bool { return p.source.Name == s.Name })
	}
	for _, a := range news.Items {
		if !d.config.wants(s.Agent, &a.Alert) || again && a.Last.Before(d.since) {
			continue
		}
		d.pending = slices.DeleteFunc(d.pending, func(p item) bool { return p.source.Name == s.Name && p.ID == a.ID })
		d.pending = append(d.pending, item{s, news.Book, a})
	}
	d.read[s.Name] = position{news.Book, news.After}
	d.settle(s.Name)
	if len(d.pending) > 0 {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// settle moves the durable position to before what still waits. The caller holds
// mu.
func (d *destination) settle(source string) {
	at := d.read[source]
	for _, p := range d.pending {
		if p.source.Name == source {
			at.After = min(at.After, p.Position-1)
		}
	}
	d.told[source] = at
}

// batch is what a message is made of next: the gravest first, if there is more
// than one message has room for.
func (d *destination) batch() batch {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := batch{items: slices.Clone(d.pending)}
	slices.SortStableFunc(b.items, func(x, y item) int { return cmp.Compare(y.Severity, x.Severity) })
	if len(b.items) > maxBatch {
		if d.config.Kind == Email { // one mail tells of all, and names those for which there is room
			b.more = len(b.items) - maxBatch
		} else {
			b.items = b.items[:maxBatch]
		}
	}
	return b
}

// delivered takes out what the destination took.
func (d *destination) delivered(b batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	type key struct {
		source, book string
		position     uint64
	}
	done := map[key]bool{}
	for _, i := range b.items {
		done[key{i.source.Name, i.book, i.Position}] = true
	}
	d.pending = slices.DeleteFunc(d.pending, func(p item) bool { return done[key{p.source.Name, p.book, p.Position}] })
	for source := range d.read {
		d.settle(source)
	}
}

// forget drops the positions of sources that are no more.
func (d *destination) forget(there map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := func(source string, _ position) bool { return !there[source] }
	maps.DeleteFunc(d.told, gone)
	maps.DeleteFunc(d.read, gone)
	d.pending = slices.DeleteFunc(d.pending, func(p item) bool { return !there[p.source.Name] })
}

func (d *destination) note(at time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at = at.UTC()
	if err == nil {
		d.last.Delivered, d.last.Failed, d.last.Error = &at, nil, ""
		return
	}
	d.last.Failed, d.last.Error = &at, err.Error()
}

func (d *destination) status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.last
	s.Waiting = len(d.pending)
	return s
}

func (d *destination) state() destState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return destState{Since: d.since, Told: maps.Clone(d.told)}
}

// backoff is how long to wait after so many failures: doubled each time, with a
// fifth of it by chance, so that those who wait for the same do not come at once.
func backoff(first, longest time.Duration, failures int) time.Duration {
	d := first << min(failures-1, 20)
	if d > longest || d <= 0 {
		d = longest
	}
	return d - time.Duration(rand.Float64()*float64(d)/5) //nolint:gosec // chance, and no secret
}
