// Package alert keeps what a person should look at: alerts with the same key
// are one alert that is counted. The first of a key, and the first after an
// hour of quiet or after a person has seen it, is also an event in the log.
//
// [Book.Raise] only notes the alert in memory; a goroutine writes it within a
// second, and at the latest when the book is closed. If the process dies in
// between, the count may be short and an alert of the last second may be
// missing; its cause is in the audit log, which was durable before.
//
// Trust: keys and titles hold text of a hostile agent. It is made inert before
// it is stored, and is stored encrypted. An agent can make many keys: beyond a
// thousand they are counted in one alert for each code, so it can neither fill
// the disk nor push out what is there. Who can write to the database file can
// delete alerts; the events in the log stay.
package alert

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

const (
	// MaxKeys is how many distinct keys there are at most; further ones are
	// counted under "<code> (others)", the code being the key's first word.
	MaxKeys = 1000
	// maxCodes is how many of those there are; the rest is "(others)".
	maxCodes = 100
	// Quiet is how long a key must be silent to be news again.
	Quiet = time.Hour

	// rest is how long the book waits after writing, so that a flood of alerts
	// costs one transaction a second, and after failing to write.
	rest = time.Second

	others = "(others)"
)

// Appender is the log: Append returns when the event is durable.
type Appender interface {
	Append(context.Context, ambit.Event) (uint64, error)
}

// Config is what a book of alerts needs. All of it is required but
// Agent and Clock.
type Config struct {
	// DB is the agent's database, shared with other packages. The caller
	// closes it after the book.
	DB *sqldb.DB
	// Log gets an event for each alert that is news. The caller closes it
	// after the book.
	Log Appender
	// Agent is whom the alerts are about; "" is the control plane.
	Agent ambit.AgentID
	// Key is the agent's data-encryption key, 32 bytes; a key for this
	// package's own use is derived from it, and it is not kept.
	Key secretbytes.Bytes
	// Clock tells the time; time.Now when nil.
	Clock func() time.Time
}

// Alert is what was raised with one key.
type Alert struct {
	ID       int64          `json:"id"`
	Severity ambit.Severity `json:"severity"` // the highest since it was last news
	Key      string         `json:"key"`
	Title    string         `json:"title"` // of the last one; printable, at most MaxText bytes
	First    time.Time      `json:"first"` // UTC
	Last     time.Time      `json:"last"`  // UTC
	Count    uint64         `json:"count"`
	Event    uint64         `json:"event"` // position in the log of the last one's cause
	Acked    bool           `json:"acked"` // a person has seen it, and nothing came since
}

// entry is an alert with what must still be done for it.
type entry struct {
	Alert
	dirty bool // the row is to be written
	news  bool // an event is to be logged
}

// Book keeps the alerts of one agent. It is safe for concurrent use.
type Book struct {
	cfg   Config
	aead  cipher.AEAD
	nudge chan struct{} // capacity 1: there is something to write
	stop  chan struct{}
	once  sync.Once
	done  chan struct{}

	flushing sync.Mutex // held while writing; taken before mu

	mu      sync.Mutex // held for moments, never during I/O
	entries map[string]*entry
	lastID  int64
}

// ErrNotFound says that there is no alert with that number.
var ErrNotFound = errors.New("there is no such alert")

// Open opens the alerts in the agent's database. It returns sqldb.ErrNewer for
// a database of a newer version, and an error if the key is another one.
func Open(ctx context.Context, cfg Config) (*Book, error) {
	b := &Book{cfg: cfg, nudge: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), entries: map[string]*entry{}}
	if b.cfg.Clock == nil {
		b.cfg.Clock = time.Now
	}
	if cfg.DB == nil || cfg.Log == nil || cfg.Key.Len() != 32 {
		return nil, errors.New("opening the alerts: database, log and a key of 32 bytes are required")
	}
	key, err := hkdf.Key(sha256.New, cfg.Key.Reveal(), nil, "ambit alert v1\n"+string(cfg.Agent), 32)
	if err != nil {
		return nil, fmt.Errorf("opening the alerts: %w", err)
	}
	defer clear(key)
	b.cfg.Key = secretbytes.Bytes{}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("opening the alerts: %w", err)
	}
	if b.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("opening the alerts: %w", err)
	}
	if err := b.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the alerts: %w", err)
	}
	go b.run()
	return b, nil
}

// Raise notes an alert and returns at once. key says what is the same alert
// again; its first word is a code, the rest says about what. title is one
// sentence for a person. event is the position in the log of the cause. After
// Close it does nothing.
func (b *Book) Raise(severity ambit.Severity, key, title string, event uint64) {
	now := time.UnixMicro(b.cfg.Clock().UnixMicro()).UTC()
	key, title = inert(key), inert(title)
	severity = min(severity, ambit.Critical)
	b.mu.Lock()
	e := b.entry(key, now)
	if e.Count == 0 || e.Acked || now.Sub(e.Last) >= Quiet {
		e.news, e.Severity = true, severity
	}
	e.Severity = max(e.Severity, severity)
	e.Title, e.Event, e.Acked = title, event, false
	e.Last = later(e.Last, now)
	e.Count++
	e.dirty = true
	b.mu.Unlock()
	b.wake()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// entry finds the entry of a key, or makes one, or finds the one that its code
// shares when there are too many. The caller holds mu.
func (b *Book) entry(key string, now time.Time) *entry {
	code, _, _ := strings.Cut(key, " ")
	if e, ok := b.entries[key]; ok {
		return e
	}
	if len(b.entries) >= MaxKeys {
		key = code + " " + others
	}
	if e, ok := b.entries[key]; ok {
		return e
	}
	if len(b.entries) >= MaxKeys+maxCodes {
		key = others
	}
	if e, ok := b.entries[key]; ok {
		return e
	}
	b.lastID++
	e := &entry{Alert: Alert{ID: b.lastID, Key: key, First: now}}
	b.entries[key] = e
	return e
}

func (b *Book) wake() {
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

// Query says which alerts to list.
type Query struct {
	MinSeverity ambit.Severity // this or higher
	Since       time.Time      // the last one not older than this
	Limit       int            // at most this many; all if 0
}

// List returns the alerts that match, the most recent first.
func (b *Book) List(ctx context.Context, q Query) ([]Alert, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	list := []Alert{}
	b.mu.Lock()
	for _, e := range b.entries {
		if e.Severity >= q.MinSeverity && !e.Last.Before(q.Since) {
			list = append(list, e.Alert)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y Alert) int {
		return cmp.Or(y.Last.Compare(x.Last), cmp.Compare(y.ID, x.ID))
	})
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list, nil
}

// Ack notes, durably, that a person has seen an alert. The next one with its
// key is news again. It returns ErrNotFound if there is none with that number.
func (b *Book) Ack(ctx context.Context, id int64) error {
	b.mu.Lock()
	found := false
	for _, e := range b.entries {
		if e.ID == id {
			e.Acked, e.dirty, found = true, true, true
		}
	}
	b.mu.Unlock()
	if !found {
		return fmt.Errorf("acknowledging alert %d: %w; see the list of alerts for the numbers", id, ErrNotFound)
	}
	if err := b.store(ctx); err != nil {
		return fmt.Errorf("acknowledging alert %d: %w", id, err)
	}
	return nil
}

// Close writes what is still in memory and ends the book. If ctx ends first it
// returns its error while the writing goes on.
func (b *Book) Close(ctx context.Context) error {
	b.once.Do(func() { close(b.stop) })
	select {
	case <-b.done:
	case <-ctx.Done():
		return fmt.Errorf("closing the alerts: %w", ctx.Err())
	}
	return b.flush(ctx) // a second attempt if the last one failed, and for what came meanwhile
}
