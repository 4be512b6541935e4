package alert_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

func key(b byte) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{b}, 32)) }

// book is a real log with the alerts beside it in one file.
type book struct {
	*alert.Book
	log   *audit.Log
	close func()
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func open(t *testing.T, path string, c *clock) *book {
	t.Helper()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: "support", Keys: audit.Keys{Body: key(1), Sign: key(2)}, Create: true, Clock: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	b, err := alert.Open(t.Context(), alert.Config{DB: db, Log: log, Agent: "support", Key: key(1), Clock: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return &book{b, log, sync.OnceFunc(func() {
		ctx := context.Background()
		if err := errors.Join(b.Close(ctx), log.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})}
}

func list(t *testing.T, b *book, q alert.Query) []alert.Alert {
	t.Helper()
	l, err := b.List(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// logged returns the alert events of a closed book.
func logged(t *testing.T, path string) []ambit.Event {
	t.Helper()
	b := open(t, path, newClock())
	defer b.close()
	events, err := b.log.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{ambit.KindAlert}})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestSameKeyIsOneAlert(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "agent.db"), newClock()
	b := open(t, path, c)
	b.Raise(ambit.Medium, "host-not-allowed paste.example", "refused: GET paste.example", 7)
	c.add(time.Minute)
	b.Raise(ambit.High, "host-not-allowed paste.example", "refused: POST paste.example", 9)
	b.Raise(ambit.Low, "intent-required api.example", "no intent", 10)
	b.close()
	events := logged(t, path)
	if len(events) != 2 {
		t.Fatalf("logged: %+v", events)
	}
	b = open(t, path, c)
	defer b.close()
	got := list(t, b, alert.Query{MinSeverity: ambit.Medium})
	start := c.Now().Add(-time.Minute)
	if len(got) != 1 || got[0].Count != 2 || got[0].Severity != ambit.High || got[0].Event != 9 ||
		got[0].Title != "refused: POST paste.example" || !got[0].First.Equal(start) || !got[0].Last.Equal(c.Now()) {
		t.Errorf("%+v", got)
	}
	if all := list(t, b, alert.Query{}); len(all) != 2 || all[0].ID < all[1].ID {
		t.Errorf("%+v", all)
	}
	if one := list(t, b, alert.Query{Limit: 1}); len(one) != 1 {
		t.Errorf("%+v", one)
	}
	if none := list(t, b, alert.Query{Since: c.Now().Add(time.Second)}); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestNewsAgainAfterQuietAndAfterAck(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "agent.db"), newClock()
	for i, step := range []struct {
		wait time.Duration
		ack  bool
		want int // events so far
	}{{0, false, 1}, {time.Minute, false, 1}, {alert.Quiet, false, 2}, {time.Minute, true, 3}} {
		b := open(t, path, c)
		c.add(step.wait)
		if step.ack {
			id := list(t, b, alert.Query{})[0].ID
			if err := b.Ack(t.Context(), id, "uid:1000"); err != nil {
				t.Fatal(err)
			}
			if !list(t, b, alert.Query{})[0].Acked {
				t.Error("not acknowledged")
			}
			if err := b.Ack(t.Context(), id+1, "uid:1000"); !errors.Is(err, alert.ErrNotFound) {
				t.Errorf("Ack of what is not there: %v", err)
			}
		}
		b.Raise(ambit.Medium, "k x", "title", 1)
		b.close()
		if got := len(logged(t, path)); got != step.want {
			t.Errorf("step %d: %d events, want %d", i, got, step.want)
		}
	}
}

// L3: an agent floods with alerts.
func TestL3FloodIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	b := open(t, path, newClock())
	const n = 50_000
	for i := range n {
		b.Raise(ambit.Medium, fmt.Sprintf("host-not-allowed h%d.example", i), "x", 1)
	}
	for i := range n {
		b.Raise(ambit.Medium, fmt.Sprintf("code-%d x", i), "x", 1)
	}
	all := list(t, b, alert.Query{})
	var count uint64
	folded := map[string]uint64{}
	for _, a := range all {
		count += a.Count
		if strings.HasSuffix(a.Key, "(others)") {
			folded[a.Key] = a.Count
		}
	}
	if len(all) > alert.MaxKeys+101 || count != 2*n || folded["host-not-allowed (others)"] != n-alert.MaxKeys {
		t.Errorf("%d alerts counting %d, %v", len(all), count, folded)
	}
	b.close()
	b = open(t, path, newClock())
	defer b.close()
	if again := list(t, b, alert.Query{}); len(again) != len(all) {
		t.Errorf("%d alerts after reopening, %d before", len(again), len(all))
	}
}

func TestHostileTextIsInertAndEncrypted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	b := open(t, path, newClock())
	hostile := "canary \x1b]0;title\x07\n\r\u202egnp\u200b\xff\u0085\u2028 ü ✓" + strings.Repeat("\x00😀", 1000)
	b.Raise(ambit.Critical+9, "code "+hostile, hostile, 1)
	got := list(t, b, alert.Query{MinSeverity: ambit.Critical})
	if len(got) != 1 {
		t.Fatal(got)
	}
	want := `canary \x1b]0;title\x07\x0a\x0d\u202egnp\u200b\xff\u0085\u2028 ü ✓\x00😀`
	if !strings.HasPrefix(got[0].Title, want) || !strings.HasPrefix(got[0].Key, "code "+want) || !strings.HasSuffix(got[0].Title, "…") {
		t.Errorf("%q", got[0].Title)
	}
	b.close()
	for _, e := range logged(t, path) {
		if !strings.HasPrefix(e.Detail, want) || e.Severity != ambit.Critical || e.Of == nil || *e.Of != 1 {
			t.Errorf("%+v", e)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(file, []byte("canary")) {
		t.Error("the file holds the title in the clear")
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	b := open(t, path, newClock())
	b.Raise(ambit.Low, "k", "t", 0)
	b.close()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := alert.Open(t.Context(), alert.Config{DB: db, Log: b.log, Agent: "support", Key: key(9)}); err == nil {
		t.Error("opened with another key")
	}
}

// failing is a log on a full disk, for as long as it is told.
type failing struct {
	mu   sync.Mutex
	full bool
	n    int
}

func (f *failing) Append(context.Context, ambit.Event) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return 0, errors.New("disk full")
	}
	f.n++
	return 0, nil
}

// L2: while the log cannot be written an alert waits, and Raise does not.
func TestL2AlertsWaitForTheLog(t *testing.T) {
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	log := &failing{full: true}
	b, err := alert.Open(t.Context(), alert.Config{DB: db, Log: log, Agent: "support", Key: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.Raise(ambit.Low, "k", "t", 0)
	}
	if err := b.Close(t.Context()); err == nil {
		t.Error("Close says that all is written")
	}
	log.mu.Lock()
	log.full = false
	log.mu.Unlock()
	if err := b.Close(t.Context()); err != nil || log.n != 1 {
		t.Errorf("Close: %v; %d events", err, log.n)
	}
}

func (f *failing) set(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

// failingBook is a book whose log can be full.
func failingBook(t *testing.T) (*alert.Book, *failing) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	log := &failing{}
	b, err := alert.Open(t.Context(), alert.Config{DB: db, Log: log, Agent: "support", Key: key(1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return b, log
}
