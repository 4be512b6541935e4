package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
	"ambit/approval"
	"ambit/control"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// serveApprovals is a worker's side of the wire with a real store behind it.
func (f *fleet) serveApprovals(mux *http.ServeMux) {
	handle := func(path string, fn func(*http.Request) (any, error)) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if f.asked == nil || r.Header.Get("Authorization") != "Bearer token of support" {
				http.Error(w, "this worker has no questions", http.StatusInternalServerError)
				return
			}
			out, err := fn(r)
			switch {
			case errors.Is(err, approval.ErrNotFound):
				http.Error(w, err.Error(), http.StatusNotFound)
			case errors.Is(err, approval.ErrNotAsked):
				http.Error(w, err.Error(), http.StatusForbidden)
			case err != nil:
				http.Error(w, err.Error(), http.StatusConflict)
			default:
				_ = json.NewEncoder(w).Encode(out)
			}
		})
	}
	handle("POST "+control.PathApprovals, func(r *http.Request) (any, error) {
		var q control.ApprovalsQuery
		err := json.NewDecoder(r.Body).Decode(&q)
		list, lerr := f.asked.List(r.Context(), q.State, q.Limit)
		return list, errors.Join(err, lerr)
	})
	handle("POST "+control.PathApproval, func(r *http.Request) (any, error) {
		var id string
		err := json.NewDecoder(r.Body).Decode(&id)
		q, qerr := f.asked.Get(r.Context(), id)
		return q, errors.Join(err, qerr)
	})
	handle("POST "+control.PathApprovalAnswer, func(r *http.Request) (any, error) {
		var a control.ApprovalAnswer
		err := json.NewDecoder(r.Body).Decode(&a)
		q, aerr := f.asked.Answer(r.Context(), a.ID, a.Digest, a.Answer)
		return q, errors.Join(err, aerr)
	})
	handle("GET "+control.PathApprovalStats, func(r *http.Request) (any, error) { return f.asked.Stats(r.Context()) })
}

func (nowhere) Record(ambit.Event) {}

// asking runs a server whose agent support asks questions.
func asking(t *testing.T) *fixture {
	t.Helper()
	f := serve(t, "")
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	f.asked, err = approval.Open(t.Context(), approval.Config{DB: db, Agent: "support", Key: secretbytes.New(bytes.Repeat([]byte{7}, 32)), Log: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.end()
		if err := errors.Join(f.asked.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	f.deploy(t, support)
	return f
}

func (f *fixture) ask(t *testing.T, args string, asks ...ambit.Ask) approval.Question {
	t.Helper()
	q, err := f.asked.Ask(context.Background(), approval.Question{
		Tool: "shop.refunds.create", Task: "t1", Args: args, Words: "a refund", Asks: append(asks, ambit.Ask{Rule: "approvals[0] (line 12)"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// A person sees the exact call, and their answer has the name that the kernel
// says, whatever they say.
func TestApprovalsOverTheAPI(t *testing.T) {
	f := asking(t)
	const args = `{"amount":80,"note":"<b>\u0007&"}`
	q := f.ask(t, args)
	list, err := f.client.Approvals(t.Context(), "", approval.Waiting, 10)
	if err != nil || len(list.Approvals) != 1 || list.Approvals[0].ID != "support-1" || list.Approvals[0].Args != args || len(list.Missing) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	one, err := f.client.Approval(t.Context(), q.ID)
	if err != nil || one.Digest != approval.Digest("support", one.Tool, one.Args, "", "") {
		t.Fatalf("what is shown is not what would run: %+v, %v", one, err)
	}
	got, err := f.client.AnswerApproval(t.Context(), q.ID, api.AnswerApproval{Digest: one.Digest, Yes: true, Note: "fine", Cover: approval.Value})
	if err != nil || got.State != approval.Approved || got.Answers[0].By != principalOf(os.Geteuid()) || got.Answers[0].Cover != approval.Value {
		t.Fatalf("%+v, %v", got, err)
	}
	stats, err := f.client.ApprovalStats(t.Context(), "support")
	if err != nil || len(stats.Stats) != 2 || stats.Stats[0].Agent != "support" || stats.Stats[0].Yes != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
	others := f.ask(t, "{}", ambit.Ask{Rule: "r", From: []string{"uid:12345"}})
	only := f.ask(t, "[]")
	for name, refused := range map[string]struct {
		err    error
		status int
	}{
		"answered already": {second(f.client.AnswerApproval(t.Context(), q.ID, api.AnswerApproval{Digest: one.Digest})), http.StatusConflict},
		"other bytes":      {second(f.client.AnswerApproval(t.Context(), only.ID, api.AnswerApproval{Digest: one.Digest, Yes: true})), http.StatusConflict},
		"no such question": {second(f.client.Approval(t.Context(), "support-99")), http.StatusNotFound},
		"no such agent":    {second(f.client.Approval(t.Context(), "nobody-1")), http.StatusNotFound},
		"a long note":      {second(f.client.AnswerApproval(t.Context(), only.ID, api.AnswerApproval{Digest: only.Digest, Note: strings.Repeat("x", 501)})), http.StatusUnprocessableEntity},
	} {
		if p := problemFrom(refused.err); p == nil || p.Status != refused.status {
			t.Errorf("%s: %v", name, refused.err)
		}
	}
	// Whoever is asked by one rule of two has not decided it.
	if got, err := f.client.AnswerApproval(t.Context(), others.ID, api.AnswerApproval{Digest: others.Digest, Yes: true}); err != nil || got.State != approval.Waiting || got.People() != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A worker speaks of its own agent, and one that does not answer hides nothing.
func TestApprovalsOfOthers(t *testing.T) {
	f := asking(t)
	f.deploy(t, strings.Replace(support, "name: support", "name: finance", 1))
	f.ask(t, "{}")
	list, err := f.client.Approvals(t.Context(), "", "", 0)
	if err != nil || len(list.Approvals) != 1 || len(list.Missing) != 1 || !strings.HasPrefix(list.Missing[0], "finance: ") {
		t.Errorf("%+v, %v", list, err)
	}
	stats, err := f.client.ApprovalStats(t.Context(), "")
	if err != nil || len(stats.Missing) != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
	if _, err := f.client.Approvals(t.Context(), "nobody", "", 0); problemFrom(err) == nil {
		t.Errorf("%v", err)
	}
}
