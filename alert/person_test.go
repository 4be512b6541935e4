package alert_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/audit"
)

func only(t *testing.T, b *book) alert.Alert {
	t.Helper()
	all := list(t, b, alert.Query{})
	if len(all) != 1 {
		t.Fatalf("%+v", all)
	}
	return all[0]
}

// A muted alert is counted and is no news; the first one after the mute is.
func TestMute(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "agent.db"), newClock()
	b := open(t, path, c)
	raise := func() { b.Raise(ambit.Medium, "k x", "title", 1) }
	reopen := func() { b.close(); b = open(t, path, c) }
	raise()
	id := only(t, b).ID
	if err := b.Mute(t.Context(), id, "uid:1000", 24*time.Hour, "a known\x1b test"); err != nil {
		t.Fatal(err)
	}
	reopen()
	a := only(t, b)
	if a.MutedUntil == nil || !a.MutedUntil.Equal(c.Now().Add(24*time.Hour)) || a.MutedBy != "uid:1000" || a.MutedWhy != `a known\x1b test` {
		t.Errorf("%+v", a)
	}
	c.add(2 * alert.Quiet)
	raise()
	if err := b.Ack(t.Context(), id, "uid:7"); err != nil {
		t.Fatal(err)
	}
	raise()
	reopen()
	if a := only(t, b); a.Count != 3 || a.AckedBy != "uid:7" {
		t.Errorf("%+v", a)
	}
	if n := len(logged(t, closed(t, &b, path))); n != 1 {
		t.Errorf("%d events while muted", n)
	}
	b = open(t, path, c)
	c.add(24 * time.Hour)
	if a := only(t, b); a.MutedUntil != nil || a.MutedBy != "" {
		t.Errorf("still shown as muted: %+v", a)
	}
	raise()
	if n := len(logged(t, closed(t, &b, path))); n != 2 {
		t.Errorf("%d events after the mute", n)
	}
	// Unmuted by a person: the next one is news, quiet or not.
	b = open(t, path, c)
	if err := b.Mute(t.Context(), id, "uid:1000", time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	raise()
	if err := b.Unmute(t.Context(), id, "uid:8"); err != nil {
		t.Fatal(err)
	}
	raise()
	b.close()
	b = open(t, path, c)
	defer b.close()
	events, err := b.log.Search(t.Context(), audit.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %s %s", e.Kind, e.Principal, e.Detail))
	}
	want := []string{
		"alert ambit title",
		`alert.mute uid:1000 alert 1 (k x): muted until 2026-11-23T12:00:00Z: a known\x1b test`,
		"alert.ack uid:7 alert 1 (k x): seen",
		"alert ambit title",
		"alert.mute uid:1000 alert 1 (k x): muted until 2026-11-23T15:00:00Z",
		"alert.mute uid:8 alert 1 (k x): not muted any more",
		"alert ambit title",
	}
	// The first alert and the mute are written by two goroutines.
	if len(got) > 1 && strings.HasPrefix(got[0], "alert.mute") {
		got[0], got[1] = got[1], got[0]
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, d := range []time.Duration{0, -time.Hour, alert.MaxMute + 1} {
		if err := b.Mute(t.Context(), id, "uid:1", d, ""); !errors.Is(err, alert.ErrMute) {
			t.Errorf("%v: %v", d, err)
		}
	}
	if err := b.Unmute(t.Context(), 99, "uid:1"); !errors.Is(err, alert.ErrNotFound) {
		t.Error(err)
	}
}

// closed closes a book so that its file can be looked at.
func closed(t *testing.T, b **book, path string) string {
	t.Helper()
	(*b).close()
	return path
}

func news(t *testing.T, b *book, q alert.NewsQuery) alert.News {
	t.Helper()
	n, err := b.News(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitNews waits until as many are told after q.
func awaitNews(t *testing.T, b *book, q alert.NewsQuery, want int) alert.News {
	t.Helper()
	for {
		n := news(t, b, q)
		if len(n.Items) >= want || t.Context().Err() != nil {
			return n
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestNews(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "agent.db"), newClock()
	b := open(t, path, c)
	b.Raise(ambit.Low, "a x", "first", 1)
	first := awaitNews(t, b, alert.NewsQuery{}, 1)
	if len(first.Items) != 1 || first.Items[0].Position != 1 || first.After != 1 || first.Book == "" || first.More {
		t.Fatalf("%+v", first)
	}
	at := alert.NewsQuery{Book: first.Book, After: first.After}
	b.Raise(ambit.Low, "a x", "again", 2) // no news
	b.Raise(ambit.Low, "b x", "second", 3)
	b.close()
	b = open(t, path, c)
	defer func() { b.close() }()
	if n := news(t, b, at); len(n.Items) != 1 || n.Items[0].Key != "b x" || n.After != 2 || n.Book != first.Book {
		t.Errorf("%+v", n)
	}
	c.add(2 * alert.Quiet)
	b.Raise(ambit.Low, "a x", "once more", 4)
	if n := awaitNews(t, b, at, 2); len(n.Items) != 2 || n.Items[1].Title != "once more" || n.Items[1].Count != 3 || n.After != 3 {
		t.Errorf("%+v", n)
	}
	// Of another book, or of one that is older than what was seen, everything is told.
	for _, q := range []alert.NewsQuery{{Book: "other", After: 2}, {Book: first.Book, After: 77}} {
		if n := news(t, b, q); len(n.Items) != 2 || n.After != 3 {
			t.Errorf("%+v: %+v", q, n)
		}
	}
	if err := b.Mute(t.Context(), 1, "uid:1", time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if n := news(t, b, alert.NewsQuery{}); len(n.Items) != 1 || n.After != 3 {
		t.Errorf("a muted alert is told: %+v", n)
	}
}

func TestNewsComesInParts(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "agent.db"), newClock())
	defer b.close()
	const all = alert.MaxNews + 50
	for i := range all {
		b.Raise(ambit.Low, fmt.Sprintf("k %d", i), "t", 0)
	}
	awaitNews(t, b, alert.NewsQuery{}, alert.MaxNews)
	seen := map[string]bool{}
	q := alert.NewsQuery{}
	for len(seen) < all {
		n := news(t, b, q)
		for _, item := range n.Items {
			if seen[item.Key] {
				t.Fatalf("%s is told twice", item.Key)
			}
			seen[item.Key] = true
		}
		q = alert.NewsQuery{Book: n.Book, After: n.After}
	}
}

// L2: what a person does to an alert and cannot be logged is not done.
func TestL2PersonIsLoggedFirst(t *testing.T) {
	b, log := failingBook(t)
	b.Raise(ambit.Low, "k", "t", 0)
	log.set(true)
	if b.Ack(t.Context(), 1, "uid:1") == nil || b.Mute(t.Context(), 1, "uid:1", time.Hour, "") == nil {
		t.Error("done without a log")
	}
	all, err := b.List(t.Context(), alert.Query{})
	if err != nil || len(all) != 1 || all[0].Acked || all[0].MutedUntil != nil {
		t.Errorf("%+v, %v", all, err)
	}
	log.set(false)
}
