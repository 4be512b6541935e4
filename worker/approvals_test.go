package worker

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"ambit"
	"ambit/alert"
	"ambit/approval"
	"ambit/audit"
	"ambit/control"
)

// pending makes a question, as the gate will.
func (w *Worker) pending(t *testing.T, args string) approval.Question {
	t.Helper()
	q, err := w.approvals.Ask(t.Context(), approval.Question{
		Tool: "shop.refunds.create", Args: args, Words: "a refund",
		Asks: []ambit.Ask{{Rule: "approvals[0] (line 12)", Reason: ambit.Reason{Code: "over-limit", Text: "more than 50 EUR"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// A question goes over the wire, and its answer comes back with the person's
// name and is in the log.
func TestApprovalsOverTheWire(t *testing.T) {
	w := newWorker(t, oneRule)
	c := w.clientOf(t)
	q := w.pending(t, `{"amount":80, "html":"<b>&"}`)
	list, err := c.Approvals(t.Context(), control.ApprovalsQuery{State: approval.Waiting, Limit: 10})
	if err != nil || len(list) != 1 || list[0].Args != q.Args || list[0].Digest != q.Digest {
		t.Fatalf("%+v, %v", list, err)
	}
	if got := codes(t, c); !slices.Contains(got, "medium approval-waiting shop.refunds.create") {
		t.Errorf("no alert: %q", got)
	}
	say := func(id, digest string, by ambit.Principal, yes bool) (approval.Question, error) {
		return c.AnswerApproval(t.Context(), control.ApprovalAnswer{ID: id, Digest: digest, Answer: approval.Answer{By: by, Yes: yes, Note: "looked at it"}})
	}
	for name, refused := range map[string]struct {
		err    error
		status int
	}{
		"the agent itself (C3)": {second(say(q.ID, q.Digest, ambit.PrincipalAgent, true)), http.StatusForbidden},
		"nobody (C3)":           {second(say(q.ID, q.Digest, "", true)), http.StatusForbidden},
		"other bytes (C3)":      {second(say(q.ID, strings.Repeat("0", 64), "uid:1000", true)), http.StatusConflict},
		"no such question":      {second(say("support-9", q.Digest, "uid:1000", true)), http.StatusNotFound},
		"another agent's":       {second(say("finance-1", q.Digest, "uid:1000", true)), http.StatusNotFound},
		"no such state":         {second(c.Approvals(t.Context(), control.ApprovalsQuery{State: "maybe"})), http.StatusUnprocessableEntity},
	} {
		var e *control.Error
		if !errors.As(refused.err, &e) || e.Status != refused.status {
			t.Errorf("%s: %v", name, refused.err)
		}
	}
	got, err := say(q.ID, q.Digest, "uid:1000", true)
	if err != nil || got.State != approval.Approved || got.Answers[0].By != "uid:1000" {
		t.Fatalf("%+v, %v", got, err)
	}
	var e *control.Error
	if _, err := say(q.ID, q.Digest, "uid:1001", false); !errors.As(err, &e) || e.Status != http.StatusConflict {
		t.Errorf("answered twice: %v", err)
	}
	// Who answered has seen the alert, so the next question is news.
	all, err := c.Alerts(t.Context(), alert.Query{})
	if err != nil || len(all) != 1 || all[0].AckedBy != "uid:1000" {
		t.Errorf("%+v, %v", all, err)
	}
	events, err := w.audit.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{ambit.KindApprovalAsk, ambit.KindApprovalAnswer}})
	if err != nil || len(events) != 2 || events[1].Principal != "uid:1000" || *events[1].Of != events[0].Seq {
		t.Errorf("%+v, %v", events, err)
	}
	if one, err := c.Approval(t.Context(), q.ID); err != nil || one.State != approval.Approved {
		t.Errorf("%+v, %v", one, err)
	}
	if stats, err := c.ApprovalStats(t.Context()); err != nil || len(stats) != 2 || stats[0].Approved != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

// What is erased about somebody is erased in questions too.
func TestErasureReachesApprovals(t *testing.T) {
	w := newWorker(t, oneRule)
	kim, other := w.pending(t, `{"to":"kim@example.com"}`), w.pending(t, `{"to":"lee@example.com"}`)
	if _, err := w.erase(t.Context(), control.Erase{By: "uid:1000", Subjects: []ambit.Subject{{Kind: "email", Value: "kim@example.com"}}}); err != nil {
		t.Fatal(err)
	}
	if q, err := w.approvals.Get(t.Context(), kim.ID); err != nil || q.ErasedAt.IsZero() || q.Args != "null" || q.State != approval.Expired {
		t.Errorf("%+v, %v", q, err)
	}
	if q, err := w.approvals.Get(t.Context(), other.ID); err != nil || q.State != approval.Waiting {
		t.Errorf("%+v, %v", q, err)
	}
}

func second[T any](_ T, err error) error { return err }
