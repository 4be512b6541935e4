package ledger_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/gate/ledger"
	"ambit/internal/money"
	"ambit/internal/sqldb"
	"ambit/policy/tool"
)

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, path string, c *clock) (*ledger.Ledger, *sqldb.DB) {
	t.Helper()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(t.Context(), ledger.Config{DB: db, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return l, db
}

func fresh(t *testing.T) (*ledger.Ledger, *clock) {
	c := &clock{now: time.Date(2026, 11, 27, 9, 0, 30, 0, time.UTC)}
	l, db := open(t, filepath.Join(t.TempDir(), "agent.db"), c)
	t.Cleanup(func() { _ = db.Close() })
	return l, c
}

// policy allows refunds of 100 EUR an hour and 150 EUR a day, and three calls an hour.
func policy(t *testing.T) *tool.Set {
	t.Helper()
	eur := func(n int64) *money.Price {
		return &money.Price{Amount: money.Amount(n) * money.Unit, Currency: "EUR"}
	}
	s, err := tool.Compile(tool.Config{
		Tools:     []tool.Entry{{Label: "tools[0]", Tool: "shop.refund"}, {Label: "tools[1]", Tool: "shop.cancel"}},
		Approvals: []tool.Approval{{Tool: "shop.refund", Nobody: true}, {Label: "approvals[1]", Tool: "shop.cancel"}},
		Limits: []tool.Limit{
			{Label: "hour", Effect: "spend", Window: time.Hour, Price: eur(100), Calls: -1},
			{Label: "day", Effect: "spend", Window: 24 * time.Hour, Price: eur(150), Calls: -1},
			{Label: "calls", Tool: "shop.cancel", Window: time.Hour, Calls: 3},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func refund(eur string) *ambit.ToolCall {
	return &ambit.ToolCall{Args: []byte(`{"amount":` + eur + `}`), Tool: &ambit.Tool{Name: "shop.refund", Effects: []ambit.Effect{"spend"}, Amount: "/amount", Currency: "EUR"}}
}

// want decides and says whether that was as wanted: "" is allowed, else the rule.
func want(t *testing.T, l *ledger.Ledger, p ledger.Policy, c *ambit.ToolCall, rule string) *ledger.Reservation {
	t.Helper()
	v, r, err := l.Decide(t.Context(), p, c, nil)
	switch {
	case err != nil:
		t.Fatal(err)
	case (v.Decision == ambit.Allow) != (rule == "") || (r != nil) != (rule == "") || rule != "" && v.Rule != rule:
		t.Fatalf("%s: %+v, %v; want %q", c.Args, v, r, rule)
	}
	return r
}

func TestWindowsSlide(t *testing.T) {
	l, c := fresh(t)
	p := policy(t)
	want(t, l, p, refund("60"), "")
	want(t, l, p, refund("40.01"), "hour")
	want(t, l, p, refund("40"), "")
	want(t, l, p, refund("0.01"), "hour")
	c.add(59 * time.Minute)
	want(t, l, p, refund("1"), "hour")
	c.add(2 * time.Minute)
	want(t, l, p, refund("50.01"), "day")
	want(t, l, p, refund("50"), "")
	c.add(23 * time.Hour)
	want(t, l, p, refund("1"), "")
	want(t, l, p, refund("100"), "hour")
}

func TestReleaseGivesBackOnce(t *testing.T) {
	l, _ := fresh(t)
	p := policy(t)
	kept, given := want(t, l, p, refund("50"), ""), want(t, l, p, refund("50"), "")
	if err := kept.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := given.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := kept.Release(t.Context()); err != nil { // too late
			t.Fatal(err)
		}
	}
	want(t, l, p, refund("50.01"), "hour")
	want(t, l, p, refund("50"), "")
}

// Of many calls at the same time that want the last money, as many get it as
// there is money for.
func TestTwoCallsCannotHaveTheLastMoney(t *testing.T) {
	l, _ := fresh(t)
	p := policy(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 40 {
		wg.Go(func() {
			v, r, err := l.Decide(context.Background(), p, refund("50"), nil)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if v.Decision == ambit.Allow {
				passed++
				if err := r.Settle(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if passed != 2 {
		t.Errorf("%d calls of 50 EUR passed a limit of 100 EUR", passed)
	}
}

// What was in flight when the process died counts as spent.
func TestDeadProcessHasSpent(t *testing.T) {
	c := &clock{now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	path := filepath.Join(t.TempDir(), "agent.db")
	l, db := open(t, path, c)
	p := policy(t)
	want(t, l, p, refund("100"), "")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	l, db = open(t, path, c)
	defer db.Close()
	if l.Stranded != 1 {
		t.Errorf("%d calls were in flight", l.Stranded)
	}
	want(t, l, p, refund("0.01"), "hour")
}

func TestAgreedCallsDraw(t *testing.T) {
	l, _ := fresh(t)
	p := policy(t)
	cancel := &ambit.ToolCall{Args: []byte(`{}`), Tool: &ambit.Tool{Name: "shop.cancel", Effects: []ambit.Effect{"write"}}}
	want(t, l, p, cancel, "approvals[1]")
	agreed := func(v ambit.ToolVerdict) bool { return len(v.Asks) == 1 }
	for i := range 3 {
		v, r, err := l.Decide(t.Context(), p, cancel, agreed)
		if err != nil || r == nil || v.Decision != ambit.Allow || len(v.Asks) != 1 {
			t.Fatalf("%d: %+v, %v", i, v, err)
		}
	}
	// Nobody can agree to what a limit denies.
	v, r, err := l.Decide(t.Context(), p, cancel, func(ambit.ToolVerdict) bool { return true })
	if err != nil || r != nil || v.Decision == ambit.Allow || v.Rule != "calls" {
		t.Errorf("%+v, %v", v, err)
	}
}

// A clock that is set back does not empty a window.
func TestClockSetBack(t *testing.T) {
	l, c := fresh(t)
	p := policy(t)
	want(t, l, p, refund("100"), "")
	c.add(-3 * time.Hour)
	want(t, l, p, refund("1"), "hour")
}

func TestRowsAreBounded(t *testing.T) {
	c := &clock{now: time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)}
	l, db := open(t, filepath.Join(t.TempDir(), "agent.db"), c)
	defer db.Close()
	p := policy(t)
	for range 300 {
		if err := want(t, l, p, refund("0.01"), "").Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.add(11 * time.Minute)
	}
	var rows, reserved int
	if err := db.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM ledger_minute), (SELECT count(*) FROM ledger_reserved)", nil, &rows, &reserved); err != nil {
		t.Fatal(err)
	}
	if rows > 24*60/11+3 || reserved != 0 {
		t.Errorf("%d minutes, %d reservations", rows, reserved)
	}
}

// Without its database a ledger denies what has a limit.
func TestClosedDatabaseDenies(t *testing.T) {
	c := &clock{now: time.Now()}
	l, db := open(t, filepath.Join(t.TempDir(), "agent.db"), c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v, r, err := l.Decide(ctx, policy(t), refund("1"), nil)
	if err == nil || r != nil || v.Decision == ambit.Allow || v.Reason.Code != "ledger-unavailable" || !strings.Contains(fmt.Sprint(err), "ledger") {
		t.Errorf("%+v, %v, %v", v, r, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
