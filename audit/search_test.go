package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ambit"
	"ambit/audit"
)

func ptr[T any](v T) *T { return &v }

// Search agrees with filtering everything by hand.
func TestSearchAgainstNaive(t *testing.T) {
	h := newHome(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ticks := 0
	h.clock = func() time.Time { ticks++; return now.Add(time.Duration(ticks/3) * time.Second) }
	l, closeLog := h.open()
	defer closeLog()
	kinds := []ambit.Kind{ambit.KindEgressRequest, ambit.KindEgressOutcome, ambit.KindEgressName, ambit.KindAlert, ambit.KindAgentStart}
	for i := range 400 {
		e := request(i)
		e.Kind = kinds[i*7%len(kinds)]
		e.Decision = ambit.Decision(i / 3 % 2)
		l.Record(e)
	}
	if _, err := l.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := l.Search(t.Context(), audit.Query{})
	if err != nil || len(all) != 400 {
		t.Fatal(len(all), err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		position := rapid.OneOf(rapid.Just[*uint64](nil), rapid.Custom(func(rt *rapid.T) *uint64 {
			return ptr(rapid.OneOf(rapid.Uint64Range(0, 410), rapid.Uint64()).Draw(rt, "position"))
		}))
		when := rapid.OneOf(rapid.Just(time.Time{}), rapid.Custom(func(rt *rapid.T) time.Time {
			return now.Add(time.Duration(rapid.IntRange(-5_000, 140_000).Draw(rt, "ms")) * time.Millisecond)
		}))
		q := audit.Query{
			Kinds: rapid.SliceOfN(rapid.SampledFrom(kinds), 0, 3).Draw(rt, "kinds"),
			Since: when.Draw(rt, "since"), Until: when.Draw(rt, "until"),
			After: position.Draw(rt, "after"), Before: position.Draw(rt, "before"),
			Limit: rapid.SampledFrom([]int{0, 1, 10}).Draw(rt, "limit"), Newest: rapid.Bool().Draw(rt, "newest"),
		}
		if rapid.Bool().Draw(rt, "by decision") {
			q.Decision = ptr(ambit.Decision(rapid.IntRange(0, 1).Draw(rt, "decision")))
		}
		want := []ambit.Event{}
		for _, e := range all {
			if (len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind)) && (q.Decision == nil || *q.Decision == e.Decision) &&
				!e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until)) &&
				(q.After == nil || e.Seq > *q.After) && (q.Before == nil || e.Seq < *q.Before) {
				want = append(want, e)
			}
		}
		if q.Newest {
			slices.Reverse(want)
		}
		if q.Limit > 0 && len(want) > q.Limit {
			want = want[:q.Limit]
		}
		got, err := l.Search(t.Context(), q)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("%+v: %s", q, diff)
		}
	})
}

func TestCalls(t *testing.T) {
	h := newHome(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h.clock = func() time.Time { return now }
	l, closeLog := h.open()
	defer closeLog()
	append_ := func(e ambit.Event) {
		t.Helper()
		if _, err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	append_(ambit.Event{Kind: ambit.KindWorkerStart})                                                               // 0
	append_(request(1))                                                                                             // 1
	append_(request(2))                                                                                             // 2
	append_(denied(3))                                                                                              // 3
	append_(outcome(2, 503))                                                                                        // 4
	append_(outcome(2, 200))                                                                                        // 5: the first counts
	append_(ambit.Event{Kind: ambit.KindEgressName, Action: ambit.ActionName, Host: "evil.test", URL: "evil.test"}) // 6
	append_(ambit.Event{Kind: ambit.KindEgressOutcome, Of: ptr(uint64(0)), Decision: ambit.Allow})                  // 7: of no call
	now = now.Add(time.Minute)                                                                                      //
	append_(request(8))                                                                                             // 8
	broken := outcome(8, 0)
	broken.Detail = "connection reset"
	append_(broken) // 9

	show := func(q audit.CallQuery) (lines []string) {
		t.Helper()
		calls, err := l.Calls(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range calls {
			lines = append(lines, fmt.Sprintf("%d %s %s %s %d done=%v out=%d in=%d %v %s", c.Seq, c.Decision, c.Method, c.Host, c.Status, c.Done, c.BytesOut, c.BytesIn, c.Duration, c.Detail))
		}
		return lines
	}
	one := "1 allow GET api.shop.example 0 done=false out=0 in=0 0s "
	two := "2 allow GET api.shop.example 503 done=true out=10 in=2000 35ms "
	three := "3 deny GET api.shop.example 0 done=true out=0 in=0 0s "
	six := "6 deny  evil.test 0 done=true out=0 in=0 0s "
	eight := "8 allow GET api.shop.example 0 done=true out=10 in=2000 35ms connection reset"
	for _, c := range []struct {
		q    audit.CallQuery
		want []string
	}{
		{audit.CallQuery{}, []string{one, two, three, six, eight}},
		{audit.CallQuery{Denied: true}, []string{three, six}},
		{audit.CallQuery{Limit: 2}, []string{six, eight}},
		{audit.CallQuery{Denied: true, Limit: 1}, []string{six}},
		{audit.CallQuery{Since: now}, []string{eight}},
		{audit.CallQuery{After: ptr(uint64(2))}, []string{three, six, eight}},
		{audit.CallQuery{After: ptr(uint64(9))}, nil},
	} {
		if diff := cmp.Diff(c.want, show(c.q)); diff != "" {
			t.Errorf("%+v: %s", c.q, diff)
		}
	}
	calls, err := l.Calls(t.Context(), audit.CallQuery{After: ptr(uint64(2)), Limit: 10})
	if err != nil || calls[0].Reason == nil || calls[0].Reason.Code != "host-not-allowed" || calls[0].Intent == "" || calls[0].URL == "" {
		t.Errorf("%+v, %v", calls, err)
	}
}

func TestWait(t *testing.T) {
	l, closeLog := newHome(t).open()
	defer closeLog()
	seq, err := l.Append(t.Context(), request(0))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Wait(ctx, seq); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait for what is not there: %v", err)
	}
	woken := make(chan error, 2)
	for range 2 {
		go func() { woken <- l.Wait(t.Context(), seq) }()
	}
	if _, err := l.Append(t.Context(), request(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-woken; err != nil {
			t.Error(err)
		}
	}
	go func() { woken <- l.Wait(t.Context(), seq+1) }()
	closeLog()
	if err := <-woken; !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Wait on a closed log: %v", err)
	}
}
