package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
	"ambit/approval"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// nowhere takes events and keeps nothing.
type nowhere struct{}

func (nowhere) Append(context.Context, ambit.Event) (uint64, error) { return 41, nil }
func (nowhere) Record(ambit.Event)                                  {}

// questions is a control plane that has nothing but questions, and a person who
// is known as uid:1000.
func questions(t *testing.T) (*approval.Store, func(stdin string, args ...string) (int, string)) {
	t.Helper()
	home, err := os.MkdirTemp("", "ambit") // short: a socket's path
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqldb.Open(t.Context(), filepath.Join(home, "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := approval.Open(t.Context(), approval.Config{DB: db, Agent: "support", Key: secretbytes.New(bytes.Repeat([]byte{7}, 32)), Log: nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, out any, err error) {
		status := http.StatusOK
		if err != nil {
			status = map[bool]int{true: http.StatusForbidden, false: http.StatusConflict}[errors.Is(err, approval.ErrNotAsked)]
			out = api.Problem{Title: "no", Status: status, Detail: err.Error()}
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out)
	}
	mux.HandleFunc("GET /v1/approvals", func(w http.ResponseWriter, r *http.Request) {
		list, err := store.List(r.Context(), approval.State(r.FormValue("state")), 0)
		reply(w, api.Approvals{Approvals: list}, err)
	})
	mux.HandleFunc("GET /v1/approvals/{id}", func(w http.ResponseWriter, r *http.Request) {
		q, err := store.Get(r.Context(), r.PathValue("id"))
		reply(w, q, err)
	})
	mux.HandleFunc("POST /v1/approvals/{id}/answer", func(w http.ResponseWriter, r *http.Request) {
		var a api.AnswerApproval
		_ = json.NewDecoder(r.Body).Decode(&a)
		q, err := store.Answer(r.Context(), r.PathValue("id"), a.Digest, approval.Answer{By: "uid:1000", Yes: a.Yes, Note: a.Note, Cover: a.Cover})
		reply(w, q, err)
	})
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(home, "run", "ambit.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(mux)
	s.Listener = l
	s.Start()
	t.Cleanup(func() {
		s.Close()
		if err := errors.Join(store.Close(), db.Close(), os.RemoveAll(home)); err != nil {
			t.Error(err)
		}
	})
	return store, func(stdin string, args ...string) (int, string) {
		var out bytes.Buffer
		code := run(context.Background(), append([]string{"--home", home}, args...), strings.NewReader(stdin), &out, &out)
		return code, out.String()
	}
}

func TestApprovals(t *testing.T) {
	store, ambitRun := questions(t)
	event := uint64(12)
	ask := func(n int, asks ...ambit.Ask) approval.Question {
		t.Helper()
		q, err := store.Ask(context.Background(), approval.Question{
			Tool: "shop.refunds.create", Task: "t1", Args: fmt.Sprintf("{\"amount\":%d,\"by\":\"kim@p\u0430ypal.com\",\"to\":\"DE89\u202e\"}", n), Words: "refund of order 1001", Effects: []ambit.Effect{ambit.EffectSpend},
			Provenance: []approval.Origin{{Pointer: "/to", Value: "DE89\u202e", Text: "result of shop.tickets.get, event 12", Event: &event, Doubt: true}},
			Asks:       append(asks, ambit.Ask{Rule: "approvals[0] (line 12)", Reason: ambit.Reason{Text: "a refund of more than 50 EUR"}}),
		})
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	q := ask(1)
	two := ask(2, ambit.Ask{Rule: "gate.spend", People: 2})
	if _, err := store.Answer(t.Context(), ask(3).ID, ask(3).Digest, approval.Answer{By: "uid:7"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		stdin, args string
		code        int
		says        []string
	}{
		{"", "approvals", 0, []string{"support-1  waiting", "refund of order 1001"}},
		{"", "approvals list --all", 0, []string{"support-3  denied", "support-1  waiting"}},
		{"", "approvals show support-1", 0, []string{
			"support-1: refund of order 1001", q.Digest, "  \"amount\": 1,\n", `"to": "DE89\u202e"`, `mixes alphabets: it is kim@p\u0430ypal.com`, "approvals[0] (line 12): a refund of more than 50 EUR",
			"untrusted  result of shop.tickets.get, event 12\n    look at this one", "spend",
		}},
		{"y\n", "approvals approve support-1", 2, []string{"--digest"}}, // no terminal: a pipe's y is nobody's
		{"", "approvals approve support-1 --digest 000000000000", 1, []string{"another call", "nothing was approved"}},
		{"", "approvals approve support-1 --digest " + two.Digest[:12], 1, []string{"nothing was approved"}},
		{"", "approvals approve support-1 --note fine --cover value --digest " + q.Digest[:12], 0, []string{"support-1 is approved"}},
		{"", "approvals approve support-1 --yes", 1, []string{"it is approved"}},
		{"", "approvals deny support-1", 1, []string{"it is approved"}},
		{"", "approvals show --agent support 1", 0, []string{"yes by uid:1000", "also for these values elsewhere in the task: fine"}},
		{"", "approvals approve support-2 --yes", 4, []string{"your yes counts", "one more person"}},
		{"", "approvals approve support-2 --yes --json", 1, []string{"agreed already"}},
		{"", "approvals deny support-2 --note no", 0, []string{"support-2 is denied"}},
		{"", "approvals deny support-3 --json", 1, []string{"it is denied"}},
	} {
		code, out := ambitRun(c.stdin, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", c.args, want, out)
			}
		}
	}
	others, err := store.Ask(t.Context(), approval.Question{Tool: "x", Args: "{}", Words: "w", Asks: []ambit.Ask{{Rule: "r", From: []string{"uid:5"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if code, out := ambitRun("", "approvals", "approve", others.ID, "--yes"); code != exitDenied {
		t.Errorf("somebody else's: %d %s", code, out)
	}
	// On a terminal, only a y is a yes.
	for answer, agrees := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false, "yesss\n": false} {
		var out bytes.Buffer
		a := &app{stdin: strings.NewReader(answer), stderr: &out}
		if err := a.confirmCall(t.Context(), &q); (err == nil) != agrees || !strings.Contains(out.String(), q.Digest) {
			t.Errorf("%q: %v\n%s", answer, err, out.String())
		}
	}
}
