package audit_test

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

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/audit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// home is a database file with the keys of its log.
type home struct {
	t     testing.TB
	path  string
	agent ambit.AgentID
	keys  audit.Keys
	clock func() time.Time
}

func key(b byte) secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{b}, 32)) }

func newHome(t testing.TB) *home {
	return &home{t: t, path: filepath.Join(t.TempDir(), "agent.db"), agent: "support", keys: audit.Keys{Body: key(1), Sign: key(2)}}
}

func (h *home) db() *sqldb.DB {
	h.t.Helper()
	db, err := sqldb.Open(h.t.Context(), h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	return db
}

func (h *home) config(db *sqldb.DB) audit.Config {
	return audit.Config{DB: db, Agent: h.agent, Keys: h.keys, Clock: h.clock}
}

// open opens the log, making it if there is none; close ends log and database.
func (h *home) open() (l *audit.Log, closeLog func()) {
	h.t.Helper()
	db := h.db()
	cfg := h.config(db)
	cfg.Create = true
	l, err := audit.Open(h.t.Context(), cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return l, sync.OnceFunc(func() {
		h.t.Helper()
		if err := errors.Join(l.Close(context.Background()), db.Close()); err != nil {
			h.t.Error(err)
		}
	})
}

// fill writes n events and closes the log; it returns the head at the end.
func (h *home) fill(n int) audit.Head {
	h.t.Helper()
	l, closeLog := h.open()
	defer closeLog()
	for i := range n {
		l.Record(request(i))
	}
	head, err := l.Head(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return head
}

// verify checks the log without opening it.
func (h *home) verify(heads ...[]byte) audit.Report {
	h.t.Helper()
	db := h.db()
	defer db.Close()
	r, err := audit.Verify(h.t.Context(), h.config(db), heads...)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *home) exec(query string, args ...any) {
	h.t.Helper()
	db := h.db()
	defer db.Close()
	err := db.Write(h.t.Context(), func(tx *sqldb.Tx) error {
		res, err := tx.Exec(h.t.Context(), query, args...)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return errors.New("no row was changed")
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func request(i int) ambit.Event {
	return ambit.Event{
		Kind: ambit.KindEgressRequest, Principal: ambit.PrincipalAgent, Action: ambit.ActionHTTP, Method: "GET",
		Host: "api.shop.example", URL: fmt.Sprintf("https://api.shop.example/v1/orders/%d?expand=lines", i),
		Intent: "look up the order that the customer asks about", Decision: ambit.Allow, Rule: "egress.allow[0] (line 14)",
	}
}

func denied(i int) ambit.Event {
	e := request(i)
	e.Decision, e.Rule = ambit.Deny, ""
	e.Reason = &ambit.Reason{Code: "host-not-allowed", Text: "no rule allows this host"}
	return e
}

func outcome(of uint64, status int) ambit.Event {
	return ambit.Event{
		Kind: ambit.KindEgressOutcome, Principal: ambit.PrincipalAmbit, Of: &of, Action: ambit.ActionHTTP, Host: "api.shop.example",
		Decision: ambit.Allow, Status: status, BytesOut: 10, BytesIn: 2000, Duration: 35 * time.Millisecond,
	}
}

func TestAppendAndRecordKeepTheOrderAndSurviveReopening(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	var want []ambit.Event
	for i := range 600 { // more than two tiles
		e := request(i)
		if i%3 == 0 {
			seq, err := l.Append(t.Context(), e)
			if err != nil || seq != uint64(i) {
				t.Fatalf("Append = %d, %v", seq, err)
			}
		} else {
			l.Record(e)
		}
		e.V, e.Seq, e.Agent = ambit.EventVersion, uint64(i), "support"
		want = append(want, e)
	}
	closeLog()
	l, closeLog = h.open()
	defer closeLog()
	got, err := l.Search(t.Context(), audit.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i].Time = time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if seq, err := l.Append(t.Context(), request(600)); err != nil || seq != 600 {
		t.Errorf("Append after reopening = %d, %v", seq, err)
	}
	if r, err := l.Verify(t.Context()); err != nil || !r.OK || r.Events != 601 {
		t.Errorf("Verify = %+v, %v", r, err)
	}
}

// A recorded event that nobody waits for becomes durable by itself.
func TestRecordAloneIsCommitted(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	if _, err := l.Append(t.Context(), request(0)); err != nil {
		t.Fatal(err)
	}
	l.Record(outcome(0, 200))
	if err := l.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if r := h.verify(); r.Size != 2 || !r.OK {
		t.Errorf("another reader sees %+v", r)
	}
}

// L2: the clock is set back by an hour.
func TestL2ClockSetBack(t *testing.T) {
	h := newHome(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	times := []time.Time{now, now.Add(-time.Hour), now.Add(time.Second), now.Add(-time.Hour)}
	h.clock = func() time.Time { x := times[0]; times = times[1:]; return x }
	l, closeLog := h.open()
	for i := range 3 {
		if _, err := l.Append(t.Context(), request(i)); err != nil {
			t.Fatal(err)
		}
	}
	closeLog()
	l, closeLog = h.open()
	defer closeLog()
	if _, err := l.Append(t.Context(), request(3)); err != nil {
		t.Fatal(err)
	}
	events, err := l.Search(t.Context(), audit.Query{})
	if err != nil {
		t.Fatal(err)
	}
	first := now.Truncate(time.Microsecond)
	want := []time.Time{first, first, first.Add(time.Second), first.Add(time.Second)}
	for i, e := range events {
		if !e.Time.Equal(want[i]) || e.Time.Location() != time.UTC {
			t.Errorf("event %d has time %v, want %v", i, e.Time, want[i])
		}
	}
}

func TestConcurrentAppendsGetTheirOwnPositions(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	const writers, each = 16, 50
	var wg sync.WaitGroup
	got := make([][]uint64, writers)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := request(i)
				e.Intent = fmt.Sprint(w, " ", i)
				seq, err := l.Append(t.Context(), e)
				if err != nil {
					t.Error(err)
					return
				}
				got[w] = append(got[w], seq)
				l.Record(outcome(seq, 200))
			}
		})
	}
	wg.Wait()
	if _, err := l.Head(t.Context()); err != nil { // everything recorded before is in
		t.Fatal(err)
	}
	events, err := l.Search(t.Context(), audit.Query{})
	if err != nil || len(events) != 2*writers*each {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for w := range writers {
		for i, seq := range got[w] {
			if want := fmt.Sprint(w, " ", i); events[seq].Intent != want {
				t.Errorf("event %d is %q, want %q", seq, events[seq].Intent, want)
			}
		}
	}
	if r, err := l.Verify(t.Context()); err != nil || !r.OK {
		t.Errorf("Verify = %+v, %v", r, err)
	}
}

func TestClosedLog(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	closeLog()
	if _, err := l.Append(t.Context(), request(0)); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Append: %v", err)
	}
	l.Record(request(0))
	if err := l.Wait(t.Context(), 0); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Wait: %v", err)
	}
	if r := h.verify(); r.Size != 0 || !r.OK {
		t.Errorf("%+v", r)
	}
}

func TestAppendRefusesWhatIsNoKind(t *testing.T) {
	l, closeLog := newHome(t).open()
	defer closeLog()
	for _, k := range []ambit.Kind{"", "Egress", "a b", "a\nb", ".a", ambit.Kind(strings.Repeat("a", 65))} {
		if _, err := l.Append(t.Context(), ambit.Event{Kind: k}); err == nil {
			t.Errorf("kind %q was taken", k)
		}
	}
	l.Record(ambit.Event{Kind: "a\nb", Detail: "kept"})
	if _, err := l.Append(t.Context(), request(0)); err != nil {
		t.Fatal(err)
	}
	events, err := l.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{"invalid"}})
	if err != nil || len(events) != 1 || events[0].Detail != `recorded with the kind "a\nb": kept` {
		t.Errorf("%+v, %v", events, err)
	}
}

// L3: an agent that sends enormous texts does not fill the log with them, and
// text that is not UTF-8 or looks like JSON does no harm.
func TestL3HostileText(t *testing.T) {
	l, closeLog := newHome(t).open()
	defer closeLog()
	e := request(0)
	e.URL = strings.Repeat("ü", 1<<20)
	e.Intent = "\xff\x00\"},{\"seq\":7"
	e.Reason = &ambit.Reason{Text: strings.Repeat("x", 1<<20)}
	if _, err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	events, err := l.Search(t.Context(), audit.Query{})
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	if got := events[0]; len(got.URL) > audit.MaxText+40 || !strings.HasSuffix(got.URL, "ü… (2080768 bytes more)") ||
		len(got.Reason.Text) > audit.MaxText+40 || got.Intent != "\uFFFD\x00\"},{\"seq\":7" {
		t.Errorf("URL of %d bytes ends in %q, intent %q", len(got.URL), got.URL[len(got.URL)-30:], got.Intent)
	}
	if len(e.Reason.Text) != 1<<20 {
		t.Error("the caller's event was changed")
	}
}

// Hosts, URLs and intents stand only in the encrypted body, and an ordinary
// event takes at most 700 bytes on disk.
func TestFileHoldsNoClearTextAndStaysSmall(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	const n = 20_000
	for i := 0; i < n; i += 2 {
		e := request(i)
		e.Host, e.Intent = "canary-host.example", "canary intent"
		e.URL = "https://canary-host.example/canary-path?canary=1"
		l.Record(e)
		o := outcome(uint64(i), 200)
		o.Host, o.Detail = "canary-host.example", "canary detail"
		l.Record(o)
	}
	if _, err := l.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agent.db", "agent.db-wal", "agent.journal"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(h.path), name))
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(bytes.ToLower(b), []byte("canary")); i >= 0 {
			t.Errorf("%s holds %q", name, b[i:i+20])
		}
	}
	closeLog()
	info, err := os.Stat(h.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes for each event", info.Size()/n)
	if info.Size()/n > 700 {
		t.Errorf("%d bytes for each event", info.Size()/n)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// Who an event touches is stored as a hash with the log's key, never as it is.
func TestSubjectsAreHashed(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	e := request(0)
	for i := range audit.MaxSubjects + 3 {
		e.Touched = append(e.Touched, ambit.Subject{Kind: "email", Value: fmt.Sprintf("person%d@shop.example", i%(audit.MaxSubjects+2))})
	}
	if _, err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got, err := l.Search(t.Context(), audit.Query{})
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if n := len(got[0].Subjects); n != audit.MaxSubjects || got[0].More != 3 || got[0].Touched != nil {
		t.Errorf("%d subjects and %d more", n, got[0].More)
	}
	for _, s := range got[0].Subjects {
		if len(s) != 16 || strings.Contains(s, "person") {
			t.Errorf("a subject is stored as %q", s)
		}
	}
}
