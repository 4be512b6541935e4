package approval_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/approval"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

func secret(b byte) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{b}, 32)) }

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

func newClock() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

// alerts keeps what was raised.
type alerts struct {
	mu   sync.Mutex
	list []string
}

func (a *alerts) Raise(s ambit.Severity, key, title string, _ uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, s.String()+" "+key+": "+title)
}

func (a *alerts) all() string { a.mu.Lock(); defer a.mu.Unlock(); return strings.Join(a.list, "\n") }

// log is a real log, which a test can break.
type log struct {
	*audit.Log
	mu     sync.Mutex
	broken bool
}

func (l *log) Append(ctx context.Context, e ambit.Event) (uint64, error) {
	l.mu.Lock()
	broken := l.broken
	l.mu.Unlock()
	if broken {
		return 0, errors.New("the disk is full")
	}
	return l.Log.Append(ctx, e)
}

func (l *log) breakIt(b bool) { l.mu.Lock(); defer l.mu.Unlock(); l.broken = b }

// world is a store with a real log beside it in one file.
type world struct {
	*approval.Store
	t      *testing.T
	path   string
	clock  *clock
	alerts *alerts
	log    *log
	db     *sqldb.DB
	config func(*approval.Config)
}

func newWorld(t *testing.T, config func(*approval.Config)) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "agent.db"), clock: &clock{now: newClock()}, alerts: &alerts{}, config: config}
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	db, err := sqldb.Open(context.Background(), w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := audit.Open(context.Background(), audit.Config{DB: db, Agent: "support", Keys: audit.Keys{Body: secret(1), Sign: secret(2)}, Create: true, Clock: w.clock.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	w.log, w.db = &log{Log: l}, db
	c := approval.Config{DB: db, Agent: "support", Key: secret(1), Log: w.log, Alerts: w.alerts, Clock: w.clock.Now}
	if w.config != nil {
		w.config(&c)
	}
	if w.Store, err = approval.Open(context.Background(), c); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) close() {
	w.t.Helper()
	if err := errors.Join(w.Close(), w.log.Close(context.Background()), w.db.Close()); err != nil {
		w.t.Error(err)
	}
}

// reopen is another process after the end of this one, at any point: whatever a
// call has returned is durable, and nothing else is.
func (w *world) reopen() {
	w.t.Helper()
	w.close()
	w.open()
}

func refund(n int) approval.Question {
	of := uint64(40)
	return approval.Question{
		Task: "t1", Tool: "shop.refunds.create", Args: fmt.Sprintf(`{"amount":%d,"order":"1001"}`, n), ToolHash: "abc", PolicyVersion: "3",
		Effects: []ambit.Effect{ambit.EffectSpend}, Of: &of, Words: fmt.Sprintf("refund %d.00 EUR of order 1001", n),
		Provenance: []approval.Origin{{Pointer: "/order", Value: "1001", Label: ambit.Record, Text: "result of shop.tickets.get, event 12", Event: &of}},
		Asks:       []ambit.Ask{{Rule: "approvals[0] (line 12)", Reason: ambit.Reason{Code: "over-limit", Text: "a refund of more than 50 EUR"}}},
	}
}

func (w *world) ask(q approval.Question) approval.Question {
	w.t.Helper()
	made, err := w.Ask(context.Background(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

func (w *world) say(q approval.Question, by ambit.Principal, yes bool) (approval.Question, error) {
	return w.Answer(context.Background(), q.ID, q.Digest, approval.Answer{By: by, Yes: yes})
}

func (w *world) yes(q approval.Question) {
	w.t.Helper()
	if q, err := w.say(q, "uid:1000", true); err != nil || q.State != approval.Approved {
		w.t.Fatalf("%+v, %v", q, err)
	}
}

func (w *world) state(id string) approval.State {
	w.t.Helper()
	q, err := w.Get(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return q.State
}

func (w *world) events(kinds ...ambit.Kind) []ambit.Event {
	w.t.Helper()
	found, err := w.log.Search(context.Background(), audit.Query{Kinds: kinds})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// A question from its beginning to its end.
func TestLife(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(80))
	if q.ID != "support-1" || q.State != approval.Waiting || len(q.Digest) != 64 || !q.Expires.Equal(w.clock.Now().Add(24*time.Hour)) || q.People() != 1 {
		t.Errorf("%+v", q)
	}
	if !strings.Contains(w.alerts.all(), "medium approval-waiting shop.refunds.create: support-1 waits") || strings.Contains(w.alerts.all(), "1001") {
		t.Errorf("the alert: %s", w.alerts.all())
	}
	if _, err := w.Take(t.Context(), q.ID, q.Digest); !errors.Is(err, approval.ErrWaiting) {
		t.Errorf("taken before the answer: %v", err)
	}
	w.clock.add(time.Minute)
	w.yes(q)
	taken, err := w.Take(t.Context(), q.ID, q.Digest)
	if err != nil || taken.Args != `{"amount":80,"order":"1001"}` || taken.State != approval.Running {
		t.Fatalf("%+v, %v", taken, err)
	}
	if err := w.Finish(t.Context(), q.ID, []byte(`{"id":"re_1"}`), ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(t.Context(), q.ID, nil, "again"); !errors.Is(err, approval.ErrNotTaken) {
		t.Errorf("finished twice: %v", err)
	}
	w.reopen()
	got, err := w.Wait(t.Context(), q.ID)
	if err != nil || got.State != approval.Done || string(got.Result) != `{"id":"re_1"}` || got.Size != 13 || len(got.Answers) != 1 || got.Answers[0].By != "uid:1000" || got.Answers[0].Event != q.Event+1 {
		t.Errorf("%+v, %v", got, err)
	}
	found := w.events(ambit.KindApprovalAsk, ambit.KindApprovalAnswer)
	if len(found) != 2 || found[0].Seq != q.Event || *found[0].Of != 40 || found[0].Tool != "shop.refunds.create" || found[0].Rule != "approvals[0] (line 12)" ||
		found[0].Resource != "support-1" || found[0].Task != "t1" || !strings.Contains(found[0].Detail, q.Digest) || !strings.Contains(found[0].Detail, "refund 80.00 EUR") ||
		len(found[0].Provenance) != 1 || found[0].Provenance[0].Source != "record" || found[0].Principal != ambit.PrincipalAgent {
		t.Errorf("%+v", found)
	}
	if a := found[1]; *a.Of != q.Event || a.Principal != "uid:1000" || a.Decision != ambit.Allow || !strings.Contains(a.Detail, q.Digest) {
		t.Errorf("%+v", a)
	}
}

// What is in the file is not in the clear.
func TestNothingIsInTheClear(t *testing.T) {
	w := newWorld(t, nil)
	q := refund(80)
	q.Args, q.Words = `{"iban":"DE89370400440532013000"}`, "pay to DE89370400440532013000"
	q = w.ask(q)
	w.yes(q)
	if _, err := w.Take(t.Context(), q.ID, q.Digest); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(t.Context(), q.ID, []byte("DE89370400440532013000"), ""); err != nil {
		t.Fatal(err)
	}
	for _, ext := range []string{"", "-wal"} {
		b, err := os.ReadFile(w.path + ext)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("3704004405")) {
			t.Errorf("agent.db%s has it", ext)
		}
	}
}

// Whatever the process was doing when it died, the next one goes on from what
// was durable.
func TestReopenAtEachState(t *testing.T) {
	w := newWorld(t, nil)
	var ids []string
	steps := []struct {
		state approval.State
		do    func(q approval.Question)
		then  approval.State
	}{
		{approval.Waiting, func(approval.Question) {}, approval.Waiting},
		{approval.Approved, func(q approval.Question) { w.yes(q) }, approval.Approved},
		{approval.Denied, func(q approval.Question) { _, _ = w.say(q, "uid:1000", false) }, approval.Denied},
		{approval.Running, func(q approval.Question) { w.yes(q); _, _ = w.Take(t.Context(), q.ID, q.Digest) }, approval.Lost},
		{approval.Failed, func(q approval.Question) {
			w.yes(q)
			_, _ = w.Take(t.Context(), q.ID, q.Digest)
			_ = w.Finish(t.Context(), q.ID, nil, "503")
		}, approval.Failed},
	}
	for i, s := range steps {
		q := w.ask(refund(i))
		s.do(q)
		if got := w.state(q.ID); got != s.state {
			t.Fatalf("%s: %s", s.state, got)
		}
		ids = append(ids, q.ID)
	}
	w.reopen()
	for i, s := range steps {
		q, err := w.Get(t.Context(), ids[i])
		if err != nil || q.State != s.then {
			t.Errorf("after %s: %+v, %v", s.state, q, err)
		}
		_, err = w.Take(t.Context(), q.ID, q.Digest)
		want := map[approval.State]error{approval.Waiting: approval.ErrWaiting, approval.Approved: nil, approval.Denied: approval.ErrDenied, approval.Lost: approval.ErrTaken, approval.Failed: approval.ErrTaken}[s.then]
		if !errors.Is(err, want) {
			t.Errorf("taking after %s: %v, want %v", s.state, err, want)
		}
	}
	if !strings.Contains(w.alerts.all(), "high approval-lost shop.refunds.create") {
		t.Errorf("what was lost is told nobody: %s", w.alerts.all())
	}
	w.reopen()
	if next := w.ask(refund(99)); next.ID != "support-6" {
		t.Errorf("%s", next.ID)
	}
}

// What cannot be logged does not happen.
func TestLogFirst(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(1))
	w.log.breakIt(true)
	if _, err := w.Ask(t.Context(), refund(2)); err == nil {
		t.Error("asked without a log")
	}
	if _, err := w.say(q, "uid:1000", true); err == nil {
		t.Error("answered without a log")
	}
	w.log.breakIt(false)
	list, err := w.List(t.Context(), "", 0)
	if err != nil || len(list) != 1 || list[0].State != approval.Waiting || len(list[0].Answers) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestTwoPeople(t *testing.T) {
	w := newWorld(t, func(c *approval.Config) {
		c.Has = func(who ambit.Principal, role string) bool { return who == "uid:7" && role == "finance" }
	})
	two := refund(500)
	two.Asks = append(two.Asks, ambit.Ask{Rule: "gate.spend", People: 2}, ambit.Ask{Rule: "roles", From: []string{"finance"}})
	q := w.ask(two)
	got, err := w.say(q, "uid:1000", true)
	if err != nil || got.State != approval.Waiting || got.People() != 1 {
		t.Fatalf("one: %+v, %v", got, err)
	}
	if _, err := w.say(q, "uid:1000", true); !errors.Is(err, approval.ErrAgain) {
		t.Errorf("the same person twice: %v", err)
	}
	if got, err = w.say(q, "uid:1001", true); err != nil || got.State != approval.Waiting {
		t.Errorf("two, and nobody of finance: %+v, %v", got, err)
	}
	if got, err = w.say(q, "uid:7", true); err != nil || got.State != approval.Approved || len(got.Answers) != 3 {
		t.Errorf("three: %+v, %v", got, err)
	}
	if _, err := w.say(q, "uid:8", false); !errors.Is(err, approval.ErrDecided) {
		t.Errorf("late: %v", err)
	}

	// Whoever agreed may take it back until it is decided, and one no is enough.
	two.Args = `{"amount":501}`
	q = w.ask(two)
	_, err = w.say(q, "uid:1000", true)
	got, err2 := w.say(q, "uid:1000", false)
	if err != nil || err2 != nil || got.State != approval.Denied {
		t.Errorf("%+v, %v, %v", got, err, err2)
	}

	// Those who are not asked cannot answer, not even with a no.
	only := refund(3)
	only.Asks = []ambit.Ask{{Rule: "r", From: []string{"uid:5"}}}
	q = w.ask(only)
	for _, yes := range []bool{true, false} {
		if _, err := w.say(q, "uid:1000", yes); !errors.Is(err, approval.ErrNotAsked) {
			t.Errorf("%v", err)
		}
	}
	if got, err := w.say(q, "uid:5", true); err != nil || got.State != approval.Approved {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestExpiry(t *testing.T) {
	w := newWorld(t, nil)
	short, long := refund(1), refund(2)
	short.Asks = append(short.Asks, ambit.Ask{Rule: "x", Expires: time.Hour})
	long.Asks[0].Expires = 1000 * time.Hour
	a, b := w.ask(short), w.ask(long)
	if !b.Expires.Equal(w.clock.Now().Add(30 * 24 * time.Hour)) {
		t.Errorf("the longest is 30 days: %v", b.Expires)
	}
	waited := make(chan approval.Question, 1)
	go func() {
		q, err := w.Wait(context.Background(), a.ID)
		if err != nil {
			t.Error(err)
		}
		waited <- q
	}()
	w.clock.add(time.Hour - time.Microsecond)
	if s := w.state(a.ID); s != approval.Waiting {
		t.Errorf("early: %s", s)
	}
	w.clock.add(time.Microsecond)
	if _, err := w.say(a, "uid:1000", true); !errors.Is(err, approval.ErrExpired) {
		t.Errorf("an answer that is late: %v", err)
	}
	if q := <-waited; q.State != approval.Expired {
		t.Errorf("who waits: %+v", q)
	}
	// An approval must be used in time, which is a quarter of an hour at least.
	w.clock.add(30*24*time.Hour - time.Hour - time.Minute)
	w.yes(b)
	w.clock.add(2 * time.Minute)
	if s := w.state(b.ID); s != approval.Approved {
		t.Errorf("%s", s)
	}
	w.clock.add(14 * time.Minute)
	if _, err := w.Take(t.Context(), b.ID, b.Digest); !errors.Is(err, approval.ErrExpired) {
		t.Errorf("taken late: %v", err)
	}
	found := w.events(ambit.KindApprovalAnswer)
	if len(found) != 3 || found[0].Reason == nil || found[0].Reason.Code != "approval-expired" || found[0].Principal != ambit.PrincipalAmbit || found[0].Decision != ambit.Deny {
		t.Errorf("%+v", found)
	}
}

// Whoever waits is told without reading anything: by the goroutine.
func TestWait(t *testing.T) {
	w := newWorld(t, func(c *approval.Config) { c.Clock = nil })
	soon := refund(1)
	soon.Asks[0].Expires = time.Millisecond
	if q, err := w.Wait(t.Context(), w.ask(soon).ID); err != nil || q.State != approval.Expired {
		t.Errorf("%+v, %v", q, err)
	}
	q := w.ask(refund(2))
	done := make(chan error, 2)
	for range 2 {
		go func() {
			got, err := w.Wait(context.Background(), q.ID)
			if err == nil && got.State != approval.Denied {
				err = fmt.Errorf("%s", got.State)
			}
			done <- err
		}()
	}
	if _, err := w.say(q, "uid:1000", false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Wait(ctx, w.ask(refund(3)).ID); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	go func() { _, err := w.Wait(context.Background(), "support-3"); done <- err }()
	w.reopen()
	if err := <-done; !errors.Is(err, approval.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestCovers(t *testing.T) {
	w := newWorld(t, nil)
	covers := func(task string) string {
		got, err := w.Covers(t.Context(), task)
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, c := range got {
			out += fmt.Sprintf("%s %s %s;", c.Question, c.Cover, c.Provenance[0].Value)
		}
		return out
	}
	say := func(q approval.Question, by ambit.Principal, c approval.Cover) error {
		_, err := w.Answer(t.Context(), q.ID, q.Digest, approval.Answer{By: by, Yes: true, Cover: c})
		return err
	}
	once, value := w.ask(refund(1)), w.ask(refund(2))
	two := refund(3)
	two.Asks[0].People = 2
	careful := w.ask(two)
	if err := errors.Join(say(once, "uid:1", ""), say(value, "uid:1", approval.Value), say(careful, "uid:1", approval.Source)); err != nil {
		t.Fatal(err)
	}
	if got := covers("t1"); got != "support-2 value 1001;" {
		t.Errorf("%q", got)
	}
	if err := say(careful, "uid:2", approval.Value); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Take(t.Context(), value.ID, value.Digest); err != nil {
		t.Fatal(err)
	}
	want := "support-2 value 1001;support-3 value 1001;" // the more careful of the two counts
	for range 2 {
		if got := covers("t1"); got != want && got != "support-3 value 1001;support-2 value 1001;" {
			t.Errorf("%q", got)
		}
		w.reopen()
	}
	if got := covers("t2") + covers(""); got != "" {
		t.Errorf("another task: %q", got)
	}
	nowhere := refund(4)
	nowhere.Task = ""
	if err := say(w.ask(nowhere), "uid:1", approval.Value); !errors.Is(err, approval.ErrAnswer) {
		t.Errorf("no task: %v", err)
	}
	if err := say(w.ask(refund(5)), "uid:1", "all"); !errors.Is(err, approval.ErrAnswer) {
		t.Errorf("no such cover: %v", err)
	}
	w.clock.add(25 * time.Hour) // support-3 was never used
	if got := covers("t1"); got != "support-2 value 1001;" {
		t.Errorf("%q", got)
	}
}

func TestStats(t *testing.T) {
	w := newWorld(t, nil)
	for i, after := range []time.Duration{time.Second, 4 * time.Second, 10 * time.Second, time.Minute} {
		q := w.ask(refund(i))
		w.clock.add(after)
		if _, err := w.say(q, "uid:1", i > 0); err != nil {
			t.Fatal(err)
		}
	}
	mail := refund(9)
	mail.Tool = "mail.send"
	w.ask(mail)
	w.clock.add(24 * time.Hour) // and the three yes are not used
	w.ask(refund(10))
	got, err := w.Stats(t.Context())
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := []approval.Stats{
		{Asked: 6, Waiting: 1, Approved: 3, Denied: 1, Expired: 1, Median: 10 * time.Second, Yes: 0.75, Quick: 0.5},
		{Tool: "mail.send", Asked: 1, Expired: 1},
		{Tool: "shop.refunds.create", Asked: 5, Waiting: 1, Approved: 3, Denied: 1, Median: 10 * time.Second, Yes: 0.75, Quick: 0.5},
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// nowhere takes events and keeps nothing.
type nowhere struct{}

func (nowhere) Append(context.Context, ambit.Event) (uint64, error) { return 0, nil }
func (nowhere) Record(ambit.Event)                                  {}

// A question that waits is a row: no goroutine, no timer.
func TestManyWaitForNothing(t *testing.T) {
	w := newWorld(t, func(c *approval.Config) { c.MaxWaiting, c.PerMinute, c.Log = 1000, 1000, nowhere{} })
	before := runtime.NumGoroutine()
	for i := range 1000 {
		w.ask(refund(i))
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more", n-before)
	}
	if list, err := w.List(t.Context(), approval.Waiting, 0); err != nil || len(list) != 1000 || list[0].ID != "support-1000" {
		t.Errorf("%d, %v", len(list), err)
	}
	if list, err := w.List(t.Context(), approval.Denied, 3); err != nil || len(list) != 0 {
		t.Errorf("%d, %v", len(list), err)
	}
}

// What is about somebody can be erased, and what is old goes by itself.
func TestErase(t *testing.T) {
	keep := time.Duration(0)
	w := newWorld(t, func(c *approval.Config) { c.Keep = func(context.Context) time.Duration { return keep } })
	about := func(s string) bool { return strings.Contains(s, "kim@example.com") }
	names := []string{}
	for i := range 4 {
		q := refund(i)
		if i > 0 {
			q.Args = fmt.Sprintf(`{"to":"kim@example.com","n":%d}`, i)
		}
		q = w.ask(q)
		names = append(names, q.ID)
		if i > 1 {
			w.yes(q)
		}
		if i > 2 {
			if _, err := w.Take(t.Context(), q.ID, q.Digest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := w.Erase(t.Context(), about); n != 2 || !errors.Is(err, approval.ErrNotTaken) {
		t.Errorf("%d, %v", n, err)
	}
	if err := w.Finish(t.Context(), names[3], []byte("sent to kim@example.com"), ""); err != nil {
		t.Fatal(err)
	}
	if n, err := w.Erase(t.Context(), about); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for i, want := range []approval.State{approval.Waiting, approval.Expired, approval.Expired, approval.Done} {
		q, err := w.Get(t.Context(), names[i])
		if err != nil || q.State != want || about(fmt.Sprintf("%+v", q)) || (i > 0) == q.ErasedAt.IsZero() || i > 0 && (q.Digest != "" || q.Result != nil) {
			t.Errorf("%+v, %v", q, err)
		}
	}
	keep = time.Hour
	w.clock.add(2 * time.Hour)
	w.reopen() // looks at once
	for {
		list, err := w.List(t.Context(), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			break
		}
		runtime.Gosched()
	}
	w.reopen()
	if q := w.ask(refund(50)); q.ID != "support-5" {
		t.Errorf("a number is used again: %s", q.ID)
	}
}

func TestRefusedQuestions(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*approval.Question){
		"no tool":   func(q *approval.Question) { q.Tool = "" },
		"no words":  func(q *approval.Question) { q.Words = "" },
		"no ask":    func(q *approval.Question) { q.Asks = nil },
		"not JSON":  func(q *approval.Question) { q.Args = "{" },
		"not UTF-8": func(q *approval.Question) { q.Args = "\"\xff\"" },
	} {
		q := refund(1)
		change(&q)
		if _, err := w.Ask(t.Context(), q); err == nil {
			t.Error(name)
		}
	}
	long := refund(1)
	long.Args = `"` + strings.Repeat("x", approval.MaxArgs) + `"`
	var denied *ambit.DenyError
	if _, err := w.Ask(t.Context(), long); !errors.As(err, &denied) || denied.Verdict.Reason.Code != "too-large-to-show" {
		t.Errorf("%v", err)
	}
	q := w.ask(refund(1))
	w.yes(q)
	if _, err := w.Take(t.Context(), q.ID, q.Digest); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(t.Context(), q.ID, make([]byte, approval.MaxResult+1), ""); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Get(t.Context(), q.ID); err != nil || got.State != approval.Done || got.Result != nil || got.Size != approval.MaxResult+1 {
		t.Errorf("%s %d, %v", got.State, got.Size, err)
	}
}
