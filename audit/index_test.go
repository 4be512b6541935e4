package audit

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ambit"
	"ambit/internal/sqldb"
)

// indexLog is a log whose index is built by hand, in small segments.
type indexLog struct {
	t    testing.TB
	l    *Log
	path string
}

func openIndexed(t testing.TB, path string) *indexLog {
	t.Helper()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := open(t.Context(), Config{DB: db, Agent: "support", Keys: testKeys(1), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	l.index.small, l.index.large = 16, 64
	l.index.stop = func() {}
	close(l.index.done)
	t.Cleanup(func() {
		if err := errors.Join(l.Close(context.Background()), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return &indexLog{t, l, path}
}

func atOnce(context.Context) error { return nil }

// build takes at most n steps of building and returns how many there were.
func (x *indexLog) build(n int) int {
	x.t.Helper()
	if _, err := x.l.Head(x.t.Context()); err != nil { // what was recorded is durable
		x.t.Fatal(err)
	}
	if _, err := x.l.settle(x.t.Context()); err != nil {
		x.t.Fatal(err)
	}
	h := x.l.index.keys.hasher()
	for i := range n {
		did, err := x.l.index.work(x.t.Context(), h, atOnce)
		if err != nil {
			x.t.Fatal(err)
		}
		if !did {
			return i
		}
	}
	return n
}

func (x *indexLog) write(f func(tx *sqldb.Tx) error) {
	x.t.Helper()
	if err := x.l.db.Write(x.t.Context(), f); err != nil {
		x.t.Fatal(err)
	}
}

// erase does what erasing bodies does.
func (x *indexLog) erase(from, to uint64) {
	x.t.Helper()
	x.write(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(x.t.Context(), "UPDATE audit_event SET sealed = NULL WHERE seq >= ? AND seq < ?", int64(from), int64(to))
		return errors.Join(err, dropSegments(x.t.Context(), tx, from, to))
	})
}

func (x *indexLog) count(query string) (n int) {
	x.t.Helper()
	if err := x.l.db.QueryRow(x.t.Context(), query, nil, &n); err != nil {
		x.t.Fatal(err)
	}
	return n
}

// However far the index is, whatever was erased: every search finds what
// reading everything finds.
func TestSearchesAreThoseOfAFullScan(t *testing.T) {
	x := openIndexed(t, filepath.Join(t.TempDir(), "agent.db"))
	w := &world{Rand: rand.New(rand.NewPCG(1, 2))}
	for range 120 {
		x.l.Record(w.event())
	}
	n := &naive{
		keys: x.l.keys, word: regexp.MustCompile(`[\p{L}\p{Nd}\p{M}]+`), format: regexp.MustCompile(`\p{Cf}`), words: map[string][]string{},
	}
	rapid.Check(t, func(rt *rapid.T) {
		w.Rand = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		for range w.IntN(3) {
			x.l.Record(w.event())
		}
		if w.IntN(6) == 0 {
			at := w.Uint64N(w.next)
			x.erase(at, at+w.Uint64N(5))
		}
		if at := w.Uint64N(w.next); w.IntN(4) == 0 {
			if err := x.l.reindex(x.t.Context(), [][2]uint64{{at, at + w.Uint64N(60)}}); err != nil {
				rt.Fatal(err)
			}
		}
		x.build(w.IntN(4))
		var err error
		if n.all, err = x.l.Search(t.Context(), Query{}); err != nil || len(n.all) != int(w.next) {
			rt.Fatal(len(n.all), w.next, err)
		}
		if w.IntN(2) == 0 {
			x.compare(rt, n, w.query())
		}
	})
}

func (x *indexLog) compare(rt *rapid.T, n *naive, q Query) {
	ctx := x.t.Context()
	want := n.search(&q)
	got, err := x.l.Search(ctx, q)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		rt.Fatalf("Search %+v: %v %s", q, err, diff)
	}
	each := []ambit.Event{}
	if err := x.l.Each(ctx, q, func(e ambit.Event) error { each = append(each, e); return nil }); err != nil || !cmp.Equal(want, each) {
		rt.Fatalf("Each %+v: %v %s", q, err, cmp.Diff(want, each))
	}
	all := n.find(&q)
	touches, err := x.l.Find(ctx, q)
	hits := []hit{}
	for _, f := range touches {
		hits = append(hits, hit{f.At, f.Event.Seq})
		if want := n.members(f.Event.Seq); !slices.Equal(want, f.seqs()) {
			rt.Fatalf("Find %+v: the call %d has %v, not %v", q, f.Event.Seq, f.seqs(), want)
		}
	}
	if diff := cmp.Diff(cutTo(&q, all), hits, cmp.AllowUnexported(hit{})); err != nil || diff != "" {
		rt.Fatalf("Find %+v: %v %s", q, err, diff)
	}
	whom := []ambit.Subject{{Kind: "email", Value: "alice@example.org"}, {Kind: "email", Value: "nobody@example.org"}}
	q.Subjects = whom
	trail, err := x.l.Trace(ctx, whom, q)
	all = n.find(&q)
	var more, erased uint64
	for _, e := range n.span(&q) {
		if n.erased(&e) {
			erased++
		} else if e.More > 0 {
			more++
		}
	}
	if err != nil || len(trail.Touches) != len(cutTo(&q, all)) || trail.Cut != (len(trail.Touches) < len(all)) || trail.More != more || trail.Erased != erased {
		rt.Fatalf("Trace %+v: %v; %d of %d, cut %v, %d more, %d erased; want %d, %d", q, err, len(trail.Touches), len(all), trail.Cut, trail.More, trail.Erased, more, erased)
	}
	for _, f := range trail.Touches {
		if !slices.Equal(f.Subjects, whom[:1]) {
			rt.Fatalf("%+v touches %v", f, f.Subjects)
		}
	}
}

// What was erased is not in the index: a segment that covers it is gone in the
// same transaction, and so is one with an outcome that took words from it.
func TestErasedEventsLeaveTheIndex(t *testing.T) {
	x := openIndexed(t, filepath.Join(t.TempDir(), "agent.db"))
	request := ambit.Event{Kind: ambit.KindEgressRequest, Intent: "zebra", Decision: ambit.Allow}
	x.l.Record(request)
	for range 30 {
		x.l.Record(ambit.Event{Kind: ambit.KindEgressRequest})
	}
	x.l.Record(ambit.Event{Kind: ambit.KindEgressOutcome, Of: new(uint64), Decision: ambit.Allow})
	x.build(10)
	holds := func() bool {
		h := x.l.index.keys.hasher()
		segments, _, err := x.l.index.list(t.Context())
		if err != nil || len(segments) != 2 {
			t.Fatal(len(segments), err)
		}
		found := 0
		for _, s := range segments {
			set := newBitset(s.width())
			if err := s.lookup(t.Context(), x.l.db, x.l.index.keys, h.term(termWord, "zebra"), set, new([]uint32)); err != nil {
				t.Fatal(err)
			}
			found += set.count()
		}
		return found > 0
	}
	if !holds() {
		t.Fatal("the word is not in the index")
	}
	x.erase(0, 1)
	if n := x.count("SELECT count(*) FROM audit_index_page"); n != 0 {
		t.Errorf("%d pages with the word are left", n)
	}
	x.build(10)
	if holds() {
		t.Error("the word is in the index again")
	}
}

// The builder ends at any point, as if the process died: what it was doing is
// done again, and nothing is left over.
func TestIndexIsBuiltAfterAnyEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	x := openIndexed(t, path)
	w := &world{Rand: rand.New(rand.NewPCG(3, 4))}
	for range 130 {
		x.l.Record(w.event())
	}
	x.build(0)
	died := errors.New("died")
	for n := int64(1); ; n += 1 + n/16 { // at the nth thing that it does with the database
		ctx := &dying{Context: t.Context(), err: died}
		ctx.left.Store(n)
		h := x.l.index.keys.hasher()
		err := x.l.index.sweep(ctx)
		for did := true; did && err == nil; {
			did, err = x.l.index.work(ctx, h, atOnce)
		}
		if err == nil {
			break
		}
		if n%7 != 0 {
			x.write(func(tx *sqldb.Tx) error { return dropSegments(t.Context(), tx, 30, 31) })
		}
	}
	if err := x.l.index.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := x.count("SELECT count(*) FROM audit_index_segment WHERE level = 1"); n != 2 {
		t.Errorf("%d large segments", n)
	}
	if n := x.count("SELECT count(*) FROM audit_index_segment"); n != 2 {
		t.Errorf("%d segments", n)
	}
	if n := x.count("SELECT count(*) FROM audit_index_page WHERE (id >> 20) NOT IN (SELECT id FROM audit_index_segment)"); n != 0 {
		t.Errorf("%d pages of no segment", n)
	}
}

// dying is a context that ends when it was asked some times.
type dying struct {
	context.Context
	left atomic.Int64
	err  error
}

func (d *dying) Err() error {
	if d.left.Add(-1) <= 0 {
		return d.err
	}
	return nil
}

func (d *dying) Done() <-chan struct{} {
	if d.Err() == nil {
		return nil
	}
	done := make(chan struct{})
	close(done)
	return done
}

// A damaged, moved or deleted part of the index changes no result, and is
// built again.
func TestDamagedIndex(t *testing.T) {
	for _, damage := range []string{
		"UPDATE audit_index_page SET sealed = zeroblob(length(sealed))",
		"UPDATE audit_index_page SET sealed = x'01'",
		"UPDATE audit_index_page SET sealed = zeroblob(1 << 20)",
		"UPDATE audit_index_page SET sealed = (SELECT p.sealed FROM audit_index_page p WHERE p.id <> audit_index_page.id LIMIT 1)",
		"DELETE FROM audit_index_page",
		"DELETE FROM audit_index_page WHERE id IN (SELECT max(id) FROM audit_index_page)",
		"UPDATE audit_index_segment SET directory = x''",
		"UPDATE audit_index_segment SET directory = (SELECT s.directory FROM audit_index_segment s WHERE s.id <> audit_index_segment.id LIMIT 1)",
		"UPDATE audit_index_segment SET last = last + 7",
		"UPDATE audit_index_segment SET first = -5, last = 1 << 60",
		"UPDATE audit_index_segment SET directory = NULL",
		"DELETE FROM audit_index_segment",
		"INSERT INTO audit_index_segment (level, first, last, directory) VALUES (0, 3, 9, x'01')",
	} {
		x := openIndexed(t, filepath.Join(t.TempDir(), "agent.db"))
		w := &world{Rand: rand.New(rand.NewPCG(5, 6))}
		for range 100 {
			x.l.Record(w.event())
		}
		x.build(100)
		q := Query{Text: "refund"}
		want, err := x.l.Search(t.Context(), q)
		if err != nil || len(want) == 0 {
			t.Fatal(len(want), err)
		}
		x.write(func(tx *sqldb.Tx) error { _, err := tx.Exec(t.Context(), damage); return err })
		for range 2 {
			got, err := x.l.Search(t.Context(), q)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v %s", damage, err, diff)
			}
			q.Newest = !q.Newest
			slices.Reverse(want)
		}
		if err := x.l.index.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.build(100)
		sound := x.count("SELECT count(*) FROM audit_index_segment WHERE directory IS NOT NULL")
		got, err := x.l.Search(t.Context(), q)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s, built again: %v %s", damage, err, diff)
		}
		if len(x.l.index.damaged) > 0 || sound != 3 {
			t.Errorf("%s: %d segments, damaged %v", damage, sound, x.l.index.damaged)
		}
		if r, err := x.l.Verify(t.Context()); err != nil || !r.OK {
			t.Errorf("%s: the verification says %+v, %v", damage, r, err)
		}
	}
}

// The index is built beside the log, catches up with what was there before it,
// and closing the log ends it.
func TestIndexIsBuiltInTheBackground(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	x := openIndexed(t, path)
	w := &world{Rand: rand.New(rand.NewPCG(7, 8))}
	for range 4200 {
		x.l.Record(w.event())
	}
	if err := x.l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	l, err := Open(t.Context(), Config{DB: db, Agent: "support", Keys: testKeys(1)})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); l.Index().Built != 4096; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", l.Index())
		}
	}
	for range 500 {
		l.Record(w.event())
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Rows that were taken away are not found by what the index said of them, nor
// are those missed that come in their place.
func TestIndexOfRowsThatAreGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	x := openIndexed(t, path)
	for range 64 {
		x.l.Record(ambit.Event{Kind: ambit.KindAlert, Detail: "before"})
	}
	x.build(100)
	if err := x.l.index.forget(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	if n := x.count("SELECT count(*) FROM audit_index_segment WHERE last > 40"); n != 0 {
		t.Errorf("%d segments", n)
	}
}

// An event that was changed or taken away while the index was built, and put
// back afterwards, is found.
func TestEventsThatWerePutBackAreFound(t *testing.T) {
	for _, away := range []string{
		"UPDATE audit_event SET sealed = zeroblob(90) WHERE seq = 3",
		"UPDATE audit_event SET of = 1 WHERE seq = 3",
		"DELETE FROM audit_event WHERE seq = 3",
		"DELETE FROM audit_event WHERE seq IN (3, 15)",
	} {
		x := openIndexed(t, filepath.Join(t.TempDir(), "agent.db"))
		of := uint64(3)
		for range 15 {
			x.l.Record(ambit.Event{Kind: ambit.KindEgressRequest, Intent: "zebra"})
		}
		x.l.Record(ambit.Event{Kind: ambit.KindEgressOutcome, Of: &of, Status: 200})
		x.build(0)
		do := func(query string) {
			x.write(func(tx *sqldb.Tx) error { _, err := tx.Exec(t.Context(), query); return err })
		}
		do("CREATE TABLE kept AS SELECT * FROM audit_event")
		do(away)
		x.build(10)
		do("INSERT OR REPLACE INTO audit_event SELECT * FROM kept")
		for _, q := range []Query{{Intent: "zebra"}, {Intent: "zebra", Kinds: []ambit.Kind{ambit.KindEgressOutcome}}} {
			plain := q
			plain.ReadAll = true
			got, err := x.l.Find(t.Context(), q)
			want, perr := x.l.Find(t.Context(), plain)
			if diff := cmp.Diff(want, got); err != nil || perr != nil || diff != "" {
				t.Errorf("%s: %+v: %v %v %s", away, q, err, perr, diff)
			}
		}
	}
}
