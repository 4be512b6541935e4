package report_test

import (
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/api"
	"ambit/audit"
	"ambit/cmd/ambit/report"
)

// trace is what a log might answer, with a text of an agent's where there can be
// one.
func trace(text string) api.Trace {
	at := func(minute int) time.Time { return time.Date(2026, 11, 27, 10, minute, 0, 0, time.UTC) }
	call := func(minute int, method string, d ambit.Decision) audit.Touch {
		e := ambit.Event{Seq: uint64(minute), Time: at(minute), Kind: ambit.KindEgressRequest, Agent: "support", Principal: ambit.PrincipalAgent, Decision: d,
			Method: method, Host: "shop.example", URL: "https://shop.example/" + text, Intent: text, Rule: "egress.allow[0] (line 5)", Effects: []ambit.Effect{ambit.MethodEffect(method)}}
		if d != ambit.Allow {
			e.Reason = &ambit.Reason{Code: "path-not-allowed", Text: text}
			return audit.Touch{Event: e}
		}
		return audit.Touch{Event: e, Outcome: &ambit.Event{Kind: ambit.KindEgressOutcome, Status: 200, BytesIn: 94, Detail: text}}
	}
	asked := call(5, "POST", ambit.Allow)
	asked.Approvals = []ambit.Event{{Kind: ambit.KindApprovalAsk}, {Kind: ambit.KindApprovalAnswer, Principal: "uid:1000", Decision: ambit.Allow}}
	asked.Event.Effects = []ambit.Effect{ambit.EffectSpend, ambit.EffectWrite}
	t := api.Trace{
		Subjects: []ambit.Subject{{Kind: "email", Value: "alice@shop.example"}, {Kind: "order", Value: "1001"}}, Asked: at(9),
		Logs:    []api.TraceLog{{Agent: "support", Erased: 3, Unnamed: 1, Unseen: 2, Cut: true}, {Agent: "finance"}},
		Missing: []string{"sales: " + text},
	}
	for _, c := range []audit.Touch{call(1, "GET", ambit.Allow), call(2, "GET", ambit.Allow), call(3, "DELETE", ambit.Allow), call(4, "GET", ambit.Deny), asked} {
		t.Entries = append(t.Entries, api.TraceEntry{Agent: "support", Touch: c})
	}
	return t
}

func text(t *testing.T, r report.Report) string {
	t.Helper()
	var b strings.Builder
	if err := r.Text(&b, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSaysWhatHappened(t *testing.T) {
	got := text(t, report.New(trace("words"), time.UTC))
	for _, want := range []string{
		"What was done with the data of alice@shop.example, order 1001\n27 November 2026, 10:01:00 to 27 November 2026, 10:05:00\n",
		"The data was read 2 times, part of one payment, deleted once and kept back once, by 1 agent (support).",
		"It was exchanged with: shop.example (4 times).", "A person was asked once.",
		"support read from shop.example\n    call    GET https://shop.example/words\n    why     words\n    rule    egress.allow[0] (line 5)\n    result  answer 200, 94 bytes received, words\n    proof   ambit audit prove support 1\n",
		"support was refused at shop.example", "nothing left: words", "asked   a person was asked; uid:1000 approved it",
		"What this answer may not contain", "support: 3 events were erased", "1 event was about so many people", "2 calls passed something", "there is more than is shown here", "Could not be asked: sales: words",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(got, "Nothing of it was deleted") {
		t.Error("something was deleted")
	}
	if t.Failed() {
		t.Log(got)
	}
	if got := text(t, report.New(api.Trace{Subjects: []ambit.Subject{{Kind: "email", Value: "bob@shop.example"}}}, time.UTC)); !strings.Contains(got, "No event is known") {
		t.Error(got)
	}
}

// TestC5Reports (row C5): what an agent or a host wrote is inert on a terminal, in
// a page and in a spreadsheet.
func TestC5Reports(t *testing.T) {
	hostile := "=cmd|' /C calc'!A0\x1b]0;owned\a\r\n<script>alert(1)</script>\u202e\u200b\" onload=\"x"
	r := report.New(trace(hostile), time.UTC)
	terminal := text(t, r)
	if strings.ContainsAny(terminal, "\x1b\a\r\u202e\u200b") || strings.Contains(terminal, "\n<script>") {
		t.Errorf("on a terminal: %q", terminal)
	}
	var page strings.Builder
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	if p := page.String(); strings.Contains(p, "<script") || strings.ContainsAny(p, "\x1b\u202e") || strings.Contains(p, `onload="x`) || !strings.Contains(p, "&lt;script&gt;") {
		t.Errorf("in a page: %s", p)
	}
	var table strings.Builder
	if err := r.CSV(&table); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(table.String())).ReadAll()
	if err != nil || len(rows) != 6 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, c := range slices.Concat(rows...) {
		if c != "" && strings.ContainsAny(c[:1], "=+-@\t\r\n") {
			t.Errorf("a cell is a formula: %q", c)
		}
	}
}

// TestSaysThatItWaited: a call that a person was asked about was not simply refused.
func TestSaysThatItWaited(t *testing.T) {
	held := audit.Touch{
		Event:     ambit.Event{Kind: ambit.KindToolCall, Agent: "support", Tool: "shop.refunds.create", Effects: []ambit.Effect{ambit.EffectSpend}},
		Approvals: []ambit.Event{{Kind: ambit.KindApprovalAsk}, {Kind: ambit.KindApprovalAnswer, Principal: "uid:1000"}},
	}
	got := text(t, report.New(api.Trace{Entries: []api.TraceEntry{{Agent: "support", Touch: held}}}, time.UTC))
	for _, want := range []string{"support waited for a person at shop.refunds.create", "kept back once", "uid:1000 said no"} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}
