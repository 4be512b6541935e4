package approval_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/approval"
	"ambit/internal/sqldb"
)

// TestC3AgentAnswersItself is row C3: only a person answers.
func TestC3AgentAnswersItself(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(1))
	for _, by := range []ambit.Principal{
		ambit.PrincipalAgent, ambit.PrincipalAmbit, "", "unknown", "uid:", ":1000", "UID:1000", "agent:support", "ambit:x",
		"uid:1000 ", "uid:1000\n", "uid:10\u200b00", ambit.Principal("uid:" + strings.Repeat("1", 300)),
	} {
		for _, yes := range []bool{true, false} {
			if _, err := w.say(q, by, yes); !errors.Is(err, approval.ErrPrincipal) {
				t.Errorf("%q: %v", by, err)
			}
		}
	}
	if w.state(q.ID) != approval.Waiting || len(w.events(ambit.KindApprovalAnswer)) != 0 {
		t.Error("it had an effect")
	}
}

// TestC3OnePersonIsTwo: whoever has a token is nobody known, so they may be one
// of the people already.
func TestC3OnePersonIsTwo(t *testing.T) {
	w := newWorld(t, nil)
	two := refund(1)
	two.Asks[0].People = 2
	q := w.ask(two)
	if _, err := w.say(q, "uid:1000", true); err != nil {
		t.Fatal(err)
	}
	if _, err := w.say(q, "token:local", true); !errors.Is(err, approval.ErrNotAsked) {
		t.Errorf("%v", err)
	}
	if q, err := w.say(w.ask(refund(2)), "token:local", true); err != nil || q.State != approval.Approved {
		t.Errorf("one person is enough: %+v, %v", q, err)
	}
}

// TestC3OtherBytes: a yes is for what was shown, and for nothing else.
func TestC3OtherBytes(t *testing.T) {
	w := newWorld(t, nil)
	q, other := w.ask(refund(1)), w.ask(refund(1000))
	if _, err := w.Answer(t.Context(), q.ID, other.Digest, approval.Answer{By: "uid:1000", Yes: true}); !errors.Is(err, approval.ErrDigest) {
		t.Errorf("answered with another digest: %v", err)
	}
	if _, err := w.Answer(t.Context(), q.ID, q.Digest[:12], approval.Answer{By: "uid:1000", Yes: true}); !errors.Is(err, approval.ErrDigest) {
		t.Errorf("answered with a part of it: %v", err)
	}
	if _, err := w.Answer(t.Context(), q.ID, "", approval.Answer{By: "uid:1000"}); !errors.Is(err, approval.ErrDigest) {
		t.Errorf("answered blindly: %v", err)
	}
	w.yes(q)
	for name, digest := range map[string]string{
		"another question": other.Digest, "none": "", "a part": q.Digest[:63], "upper case": strings.ToUpper(q.Digest),
		"another tool":   approval.Digest("support", "shop.refunds.delete", q.Args, "abc", "3"),
		"other bytes":    approval.Digest("support", q.Tool, q.Args+" ", "abc", "3"),
		"a changed tool": approval.Digest("support", q.Tool, q.Args, "abd", "3"),
		"another policy": approval.Digest("support", q.Tool, q.Args, "abc", "4"),
		"another agent":  approval.Digest("finance", q.Tool, q.Args, "abc", "3"),
		"moved borders":  approval.Digest("support", q.Tool+q.Args[:1], q.Args[1:], "abc", "3"),
	} {
		if _, err := w.Take(t.Context(), q.ID, digest); !errors.Is(err, approval.ErrDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Take(t.Context(), q.ID, approval.Digest("support", q.Tool, q.Args, "abc", "3")); err != nil {
		t.Error(err)
	}
}

// TestC3AnotherWorker: an approval of one agent is none of another's.
func TestC3AnotherWorker(t *testing.T) {
	w := newWorld(t, nil)
	other := newWorld(t, func(c *approval.Config) { c.Agent = "finance" })
	q := w.ask(refund(1))
	w.yes(q)
	if _, err := other.Take(t.Context(), q.ID, q.Digest); !errors.Is(err, approval.ErrAgent) {
		t.Errorf("%v", err)
	}
	for _, id := range []string{"", "1", "support", "support-", "support-0", "support-01", "support--1", "support-+1", "support-1 ", "Support-1", "support-99999999999999999999", "support-9"} {
		if _, err := w.Take(t.Context(), id, q.Digest); !errors.Is(err, approval.ErrNotFound) && !errors.Is(err, approval.ErrAgent) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if w.state(q.ID) != approval.Approved {
		t.Error("it is used")
	}
}

// TestC3Twice: of many at once, one gets it, also after a restart.
func TestC3Twice(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(1))
	w.yes(q)
	var wg sync.WaitGroup
	errs := make(chan error, 20)
	for range 20 {
		wg.Go(func() {
			_, err := w.Take(context.Background(), q.ID, q.Digest)
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	got := 0
	for err := range errs {
		if err == nil {
			got++
		} else if !errors.Is(err, approval.ErrTaken) {
			t.Error(err)
		}
	}
	if got != 1 {
		t.Errorf("%d got it", got)
	}
	w.reopen()
	if _, err := w.Take(t.Context(), q.ID, q.Digest); !errors.Is(err, approval.ErrTaken) {
		t.Errorf("after a restart: %v", err)
	}
	// Asking again is a new question, which nobody has agreed to.
	if again := w.ask(refund(1)); again.ID == q.ID || again.State != approval.Waiting {
		t.Errorf("%+v", again)
	}
}

// TestC3Late: neither a yes nor its use is good for ever, whatever the clock of
// the process that wrote it said.
func TestC3Late(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(1))
	w.yes(q)
	w.close()
	w.clock.add(25 * time.Hour)
	w.open()
	if _, err := w.Take(t.Context(), q.ID, q.Digest); !errors.Is(err, approval.ErrExpired) {
		t.Errorf("%v", err)
	}
}

// TestC3Database: who can write to the file cannot make a yes.
func TestC3Database(t *testing.T) {
	for name, statement := range map[string]string{
		"the state":        "UPDATE approval SET state = 'approved' WHERE n = 1",
		"another question": "UPDATE approval SET state = 'approved', sealed = (SELECT sealed FROM approval WHERE n = 2) WHERE n = 1",
	} {
		w := newWorld(t, nil)
		q := w.ask(refund(1))
		w.yes(w.ask(refund(2)))
		err := w.db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(context.Background(), statement)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Take(t.Context(), q.ID, q.Digest); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestC4Flood is row C4: a hundred questions in a minute are collapsed, limited,
// and then denied.
func TestC4Flood(t *testing.T) {
	w := newWorld(t, nil)
	first := w.ask(refund(0))
	for range 99 { // the same again is the same question
		if q := w.ask(refund(0)); q.ID != first.ID {
			t.Fatalf("%+v", q)
		}
	}
	if q, err := w.Get(t.Context(), first.ID); err != nil || q.Count != 100 {
		t.Errorf("%+v, %v", q, err)
	}
	code := func(err error) string {
		var denied *ambit.DenyError
		if !errors.As(err, &denied) || denied.Verdict.Decision != ambit.Deny || denied.Verdict.Reason.Text == "" || denied.Verdict.Reason.Remedy == "" {
			t.Errorf("no denial that a person can act on: %v", err)
			return ""
		}
		return denied.Verdict.Reason.Code
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, refused := 1, 0
	for i := range 100 { // others, all at once
		wg.Go(func() {
			_, err := w.Ask(context.Background(), refund(i+1))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made++
			} else if refused++; code(err) != "approvals-too-fast" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made != 10 || refused != 91 {
		t.Errorf("%d made, %d refused", made, refused)
	}
	w.reopen() // forgets nothing
	if _, err := w.Ask(t.Context(), refund(500)); code(err) != "approvals-too-fast" {
		t.Error(err)
	}
	w.clock.add(time.Minute)
	for i := range 10 {
		w.ask(refund(200 + i))
	}
	w.clock.add(time.Minute)
	if _, err := w.Ask(t.Context(), refund(300)); code(err) != "approvals-full" {
		t.Error(err)
	}
	if n := len(w.events(ambit.KindApprovalAsk)); n != 20 {
		t.Errorf("%d events", n)
	}
	if _, err := w.say(first, "uid:1000", false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Ask(t.Context(), refund(0)); code(err) != "approval-denied" { // a no holds
		t.Error(err)
	}
	w.reopen()
	if _, err := w.Ask(t.Context(), refund(0)); code(err) != "approval-denied" {
		t.Error(err)
	}
	w.ask(refund(300))
}

// TestC4OtherWords: asking for the same in other words until somebody is tired is no
// way to a yes.
func TestC4OtherWords(t *testing.T) {
	w := newWorld(t, nil)
	refused := func(i int) bool {
		_, err := w.Ask(t.Context(), refund(i))
		var denied *ambit.DenyError
		return errors.As(err, &denied) && denied.Verdict.Reason.Code == "approval-denied"
	}
	no := func(i int) {
		t.Helper()
		if _, err := w.say(w.ask(refund(i)), "uid:1000", false); err != nil {
			t.Fatal(err)
		}
		w.clock.add(time.Minute)
	}
	for i := range 4 {
		no(i)
	}
	w.yes(w.ask(refund(4))) // who says yes reads them
	w.clock.add(time.Minute)
	for i := range 5 {
		no(10 + i)
	}
	if !refused(20) {
		t.Error("it is asked again in other words")
	}
	w.reopen()
	if !refused(20) {
		t.Error("a restart forgets it")
	}
	other, elsewhere := refund(20), refund(20)
	other.Tool, elsewhere.Task = "shop.orders.cancel", "t2"
	w.ask(other)
	w.ask(elsewhere)
	w.clock.add(approval.Refrain)
	w.ask(refund(20))
}

// TestC4Collapse: what is approved and not used yet is not asked again, and the
// same call in another task is another question.
func TestC4Collapse(t *testing.T) {
	w := newWorld(t, nil)
	q := w.ask(refund(1))
	elsewhere := refund(1)
	elsewhere.Task = "t2"
	if got := w.ask(elsewhere); got.ID == q.ID || got.Digest != q.Digest {
		t.Errorf("%+v", got)
	}
	w.yes(q)
	if got := w.ask(refund(1)); got.ID != q.ID || got.State != approval.Approved {
		t.Errorf("%+v", got)
	}
}

// Everything at once.
func TestConcurrency(t *testing.T) {
	w := newWorld(t, func(c *approval.Config) { c.MaxWaiting, c.PerMinute, c.MaxNoes = 1000, 1000, 1000 })
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			ctx := context.Background()
			q, err := w.Ask(ctx, refund(i))
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() {
				if _, err := w.say(q, "uid:1000", i%3 > 0); err != nil {
					t.Error(err)
				}
			})
			got, err := w.Wait(ctx, q.ID)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = w.Take(ctx, q.ID, q.Digest)
			if (err == nil) != (got.State == approval.Approved) {
				t.Errorf("%s: %v", got.State, err)
			}
			if err == nil {
				err = w.Finish(ctx, q.ID, []byte("x"), "")
				if err != nil {
					t.Error(err)
				}
			}
			if _, err := w.List(ctx, "", 5); err != nil {
				t.Error(err)
			}
			if _, err := w.Covers(ctx, "t1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stats, err := w.Stats(t.Context())
	if err != nil || stats[0].Asked != 30 || stats[0].Approved != 20 || stats[0].Denied != 10 {
		t.Errorf("%+v, %v", stats, err)
	}
}
