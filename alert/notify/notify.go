// Package notify tells people what is news among alerts: by webhooks, signed as
// https://www.standardwebhooks.com says, and by e-mail.
//
// News is taken from books of alerts, which number it durably. Each destination
// has a position in each book, kept in a file, that moves when the destination
// has taken what is before it. So nothing is lost and there is no queue to
// overflow: while a destination is away its position stays, an alert that comes
// up again meanwhile takes the place of what was waiting, and what is beyond
// maxPending waits in its book. A new destination begins with what is news from
// then on.
//
// Crash points: between a delivery and the position's being durable, the
// delivery is made again after the restart. Each alert of it has an id by which
// a receiver can tell.
//
// Known hole: the book of an agent whose worker does not run is not asked; what
// is in it is told when the worker runs again.
//
// Trust: the configuration is trusted to say who is told. What alerts say comes
// from agents, and through workers that may be in an attacker's hands: it is made
// inert once more, and bounded, before it is put into a message, and is never
// part of a header but for a subject in one encoded line. Destinations see what
// alerts say; of what they answer only the status is repeated. Secrets are read
// from files when a message is sent, and are in no error and no log.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"ambit"
	"ambit/alert"
)

// Book is where news comes from: an alert.Book, or a worker's over the wire.
type Book interface {
	News(context.Context, alert.NewsQuery) (alert.News, error)
}

// Source is a book and whose it is.
type Source struct {
	Name  string        // unique, and the same after a restart
	Agent ambit.AgentID // "" is the control plane
	Book  Book          // nil if it cannot be asked now
}

// Options is what a notifier needs.
type Options struct {
	// Destinations are who is told; each must be valid. Required.
	Destinations []Config
	// State is the path of the file that positions are kept in. Required.
	State string
	// Sources lists all books there are now. Required.
	Sources func(context.Context) ([]Source, error)
	Version string       // of the program, for User-Agent
	Log     *slog.Logger // required
}

// pace says how fast things go. Tests go faster.
type pace struct {
	poll    time.Duration // between looking for news
	gather  time.Duration // after the first piece of news, so that a burst is one message
	every   func(Kind) time.Duration
	retry   time.Duration // after the first failure; doubled after each one more
	longest time.Duration // of that
	attempt time.Duration // bounds one delivery
}

func usualPace() pace {
	return pace{
		poll: 3 * time.Second, gather: 2 * time.Second, retry: 5 * time.Second, longest: 15 * time.Minute, attempt: time.Minute,
		every: func(k Kind) time.Duration {
			if k == Email {
				return time.Minute
			}
			return time.Second
		},
	}
}

// Notifier tells destinations what is news. Run it once.
type Notifier struct {
	options Options
	log     *slog.Logger
	pace    pace
	dests   []*destination
	state   *state
	now     func() time.Time

	mu     sync.Mutex      // held for moments
	broken map[string]bool // books that did not answer, by source
}

// ErrUnknown says that there is no destination with that name.
var ErrUnknown = errors.New("there is no such destination of notifications")

// Open reads the state and sees that each destination could be used: that its
// secret can be read, and its certificates. It sends nothing.
func Open(o Options) (*Notifier, error) {
	n := &Notifier{options: o, log: o.Log, pace: usualPace(), now: time.Now, broken: map[string]bool{}}
	if o.State == "" || o.Sources == nil || o.Log == nil {
		return nil, errors.New("opening the notifications: state, sources and log are required")
	}
	names := map[string]bool{}
	var err error
	if n.state, err = openState(o.State); err != nil {
		return nil, fmt.Errorf("opening the notifications: %w", err)
	}
	for i := range o.Destinations {
		c := &o.Destinations[i]
		if err := c.Validate(); err != nil {
			return nil, fmt.Errorf("opening the notifications: %w", err)
		}
		if names[c.Name] {
			return nil, fmt.Errorf("opening the notifications: there are two destinations %s", c.Name)
		}
		names[c.Name] = true
		deliver, err := c.open(o.Version)
		if err != nil {
			return nil, fmt.Errorf("opening the notification %s: %w", c.Name, err)
		}
		n.dests = append(n.dests, newDestination(*c, deliver, n.state.of(c.Name, n.now())))
	}
	return n, n.save()
}

// Run tells news until ctx ends; it returns when everything that it began has
// ended.
func (n *Notifier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, d := range n.dests {
		wg.Go(func() { n.serve(ctx, d) })
	}
	for wait(ctx, n.pace.poll) {
		n.collect(ctx)
	}
	if err := n.save(); err != nil {
		n.log.Warn("the positions of notifications are not stored", slog.Any("err", err))
	}
}

// wait returns false if ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// collect asks every book once.
func (n *Notifier) collect(ctx context.Context) {
	sources, err := n.options.Sources(ctx)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Warn("the books of alerts are not known", slog.Any("err", err))
		}
		return
	}
	there := map[string]bool{}
	var wg sync.WaitGroup
	limit := make(chan struct{}, 16) // books asked at the same time
	for _, s := range sources {
		there[s.Name] = true
		if s.Book == nil {
			continue
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			n.collectFrom(ctx, s)
		})
	}
	wg.Wait()
	for _, d := range n.dests {
		d.forget(there)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.broken, func(source string, _ bool) bool { return !there[source] })
}

// collectFrom asks one book, as a rule once for all destinations.
func (n *Notifier) collectFrom(ctx context.Context, s Source) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answers := map[position]alert.News{}
	for _, d := range n.dests {
		for range maxRounds {
			at := d.collected(s.Name)
			if !d.hasRoom() {
				break
			}
			news, asked := answers[at]
			if !asked {
				var err error
				if news, err = s.Book.News(ctx, alert.NewsQuery{Book: at.Book, After: at.After}); err == nil {
					err = sane(news)
				}
				n.silent(ctx, s.Name, err)
				if err != nil {
					return
				}
				answers[at] = news
			}
			d.take(s, news)
			if !news.More {
				break
			}
		}
	}
}

const (
	// maxRounds is how many answers of a book are read in one go: a book can be
	// a worker's that says there is always more.
	maxRounds = 10
	// maxBookID is the longest id of a book.
	maxBookID = 64
)

// sane refuses an answer that no book gives.
func sane(n alert.News) error {
	if len(n.Items) > alert.MaxNews || n.Book == "" || len(n.Book) > maxBookID {
		return errors.New("its answer is none of a book's")
	}
	return nil
}

// silent says once that a book does not answer, and once that it does again.
func (n *Notifier) silent(ctx context.Context, book string, err error) {
	n.mu.Lock()
	was := n.broken[book]
	n.broken[book] = err != nil
	n.mu.Unlock()
	switch {
	case err != nil && !was && !errors.Is(ctx.Err(), context.Canceled):
		n.log.Warn("a book of alerts does not answer", slog.String("book", book), slog.Any("err", err))
	case err == nil && was:
		n.log.Info("a book of alerts answers again", slog.String("book", book))
	}
}

// serve delivers to one destination until ctx ends.
func (n *Notifier) serve(ctx context.Context, d *destination) {
	failures, last := 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
		if !wait(ctx, max(n.pace.gather, n.pace.every(d.config.Kind)-n.now().Sub(last))) {
			return
		}
		for d.waiting() > 0 {
			batch := d.batch()
			err := n.attempt(ctx, d, batch.message())
			if ctx.Err() != nil {
				return
			}
			last = n.now()
			d.note(last, err)
			pause := n.pace.every(d.config.Kind)
			if err != nil {
				failures++
				pause = backoff(n.pace.retry, n.pace.longest, failures)
				n.log.Warn("a notification was not delivered; it is tried again", slog.String("destination", d.config.Name), slog.Any("err", err), slog.Duration("again", pause))
			} else {
				failures = 0
				d.delivered(batch)
				if err := n.save(); err != nil {
					n.log.Warn("the positions of notifications are not stored; some may be told again after a restart", slog.Any("err", err))
				}
			}
			if (err != nil || d.waiting() > 0) && !wait(ctx, pause) {
				return
			}
		}
	}
}

func (n *Notifier) attempt(ctx context.Context, d *destination, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, n.pace.attempt)
	defer cancel()
	return d.deliver(ctx, m)
}

// Test sends a message to a destination that says that it is a test.
func (n *Notifier) Test(ctx context.Context, name string) error {
	for _, d := range n.dests {
		if d.config.Name == name {
			if err := n.attempt(ctx, d, testMessage(n.now())); err != nil {
				return fmt.Errorf("telling %s: %w", name, err)
			}
			return nil
		}
	}
	return ErrUnknown
}

// Status is how a destination is.
type Status struct {
	Name      string         `json:"name"`
	Kind      Kind           `json:"kind"`
	Severity  ambit.Severity `json:"severity" doc:"the least of alerts that it is told"`
	Waiting   int            `json:"waiting" doc:"alerts that it is not told yet"`
	Delivered *time.Time     `json:"delivered,omitempty" doc:"when it last took something, since the start"`
	Failed    *time.Time     `json:"failed,omitempty" doc:"when it last did not, since then"`
	Error     string         `json:"error,omitempty" doc:"why"`
}

// Status lists the destinations.
func (n *Notifier) Status() []Status {
	list := []Status{}
	for _, d := range n.dests {
		list = append(list, d.status())
	}
	return list
}

// save makes the positions durable.
func (n *Notifier) save() error {
	all := map[string]destState{}
	for _, d := range n.dests {
		all[d.config.Name] = d.state()
	}
	return n.state.save(all)
}
