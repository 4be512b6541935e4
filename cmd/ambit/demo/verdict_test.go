//go:build linux

package demo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/approval"
	"ambit/audit"
)

// TestJudge shows that the demonstration can fail: only a log that refuses, or
// nothing at all, makes a thing look refused.
func TestJudge(t *testing.T) {
	denied := audit.Call{Rule: "egress.allow[0]", Reason: &ambit.Reason{Text: "no rule allows it"}, Done: true}
	allowed := audit.Call{Decision: ambit.Allow, Rule: "egress.allow[1]", Done: true}
	for _, c := range []struct {
		name   string
		did    action
		calls  []audit.Call
		passed bool
		rule   string
	}{
		{"refused by the gate, seen as an answer", action{Status: 403}, []audit.Call{denied}, false, "egress.allow[0]"},
		{"refused by the gate, seen as an error", action{Error: "Forbidden"}, []audit.Call{denied}, false, "egress.allow[0]"},
		{"no way there", action{Error: "network is unreachable"}, nil, false, ""},
		{"it says that it failed, the log says that it was allowed", action{Error: "no luck"}, []audit.Call{denied, allowed}, true, "egress.allow[1]"},
		{"it worked", action{Status: 200}, []audit.Call{allowed}, true, "egress.allow[1]"},
		{"it worked, and the log knows of a refusal only", action{Status: 200}, []audit.Call{denied}, true, "egress.allow[0]"},
		{"answered without an entry in the log", action{Status: 403}, nil, true, ""},
		{"a file was read", action{Got: "text"}, nil, true, ""},
	} {
		got := judge(c.did, c.calls)
		if got.Passed != c.passed || got.Rule != c.rule {
			t.Errorf("%s: passed %v by %q, want %v by %q", c.name, got.Passed, got.Rule, c.passed, c.rule)
		}
	}
}

func TestJudgeTheWhole(t *testing.T) {
	plan := []attack{{"paste site", []string{"POST a"}}, {"files", []string{"READ b", "READ c"}}}
	refused := func(name, what string) step { return step{Attack: true, Name: name, What: what} }
	good := func() *result {
		return &result{
			Work:    []step{{Passed: true, Calls: []audit.Call{{Decision: ambit.Allow, Method: "GET", URL: "https://shop/1"}}}},
			Attacks: []step{refused("paste site", "POST a"), refused("files", "READ b"), refused("files", "READ c")},
		}
	}
	seen := []string{"GET https://shop/1"}
	for _, c := range []struct {
		name   string
		change func(*result)
		seen   []string
		want   string // in the findings; "" is none
	}{
		{"all is well", func(*result) {}, seen, ""},
		{"one passed", func(r *result) { r.Attacks[2].Passed = true }, seen, "files: passed"},
		{"one was not tried", func(r *result) { r.Attacks = r.Attacks[1:] }, seen, "paste site: 0 of 1"},
		{"the canary is out", func(r *result) { r.Attacks[1].got = "x canary-1 y" }, seen, "was read"},
		{"the shop saw more", func(*result) {}, append(seen, "GET https://shop/customers"), "shop/customers"},
		{"the shop saw less", func(*result) {}, nil, "shop saw"},
	} {
		r := good()
		c.change(r)
		found := strings.Join(r.judge(plan, c.seen, "canary-1"), "\n")
		if (found == "") != (c.want == "") || !strings.Contains(found, c.want) {
			t.Errorf("%s: found %q, want %q", c.name, found, c.want)
		}
	}
	r := good()
	_ = r.judge(plan, seen, "canary-1")
	if d := cmp.Diff([]int{2, 2, 1}, []int{r.Ways, r.Refused, r.Seen}); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
}

// TestJudgeRefunds: what the shop paid is compared with what rules and people let
// through, and what was to be asked about must have been.
func TestJudgeRefunds(t *testing.T) {
	const small, big, stolen = `{"order":7003,"account":"GB29","amount":30,"currency":"EUR"}`, `{"order":7003,"account":"GB29","amount":80,"currency":"EUR"}`,
		`{"order":7001,"account":"` + thiefAccount + `","amount":20,"currency":"EUR"}`
	paid := func(amount int) refund { return refund{Order: 7003, Account: "GB29", Amount: amount, Currency: "EUR"} }
	said := func(yes bool) []approval.Answer { return []approval.Answer{{Yes: yes}} }
	event := uint64(7)
	good := func() *refunds {
		return &refunds{
			Steps: []step{
				{Passed: true, Tools: []audit.Touch{{Event: ambit.Event{Tool: refundTool, Decision: ambit.Allow, Resource: small}}}},
				{Passed: true, Tools: []audit.Touch{{Event: ambit.Event{Tool: refundTool, Decision: ambit.Allow, Resource: big, Links: []ambit.Link{{Rel: "approval"}}}}}},
				{Attack: true, Name: "goes round the tool"},
			},
			Questions: []approval.Question{
				{Args: big, Answers: said(true)},
				{Args: stolen, Answers: said(false), Provenance: []approval.Origin{{Value: thiefAccount, Doubt: true, Tool: "desk.tickets.get", Event: &event}}},
			},
			Allowed: []refund{paid(30), paid(80)}, Paid: []refund{paid(30), paid(80)},
		}
	}
	thief := refund{Order: 7001, Account: thiefAccount, Amount: 20, Currency: "EUR"}
	for _, c := range []struct {
		name   string
		change func(*refunds)
		want   string // in the findings; "" is none
	}{
		{"all is well", func(*refunds) {}, ""},
		{"a person says no to the big one", func(r *refunds) {
			r.Questions[0].Answers, r.Allowed, r.Paid = said(false), r.Allowed[:1], r.Paid[:1]
		}, ""},
		{"a person says yes to the thief", func(r *refunds) {
			r.Questions[1].Answers, r.Allowed, r.Paid = said(true), append(r.Allowed, thief), append(r.Paid, thief)
		}, ""},
		{"the thief is paid against a no", func(r *refunds) { r.Allowed, r.Paid = append(r.Allowed, thief), append(r.Paid, thief) }, "the shop paid"},
		{"the shop paid what the log does not have", func(r *refunds) { r.Paid = append(r.Paid, thief) }, "the shop paid"},
		{"it ran twice", func(r *refunds) { r.Allowed, r.Paid = append(r.Allowed, paid(80)), append(r.Paid, paid(80)) }, "the shop paid"},
		{"what was agreed to did not run", func(r *refunds) { r.Allowed, r.Paid = r.Allowed[:1], r.Paid[:1] }, "the shop paid"},
		{"another account", func(r *refunds) { r.Paid[0].Account = thiefAccount }, "the shop paid"},
		{"the big one was not asked about", func(r *refunds) { r.Questions = r.Questions[1:] }, "80 EUR was asked about: false"},
		{"its source is not named", func(r *refunds) { r.Questions[1].Provenance = nil }, "does not name the ticket"},
		{"a request of its own passed", func(r *refunds) { r.Steps[2].Passed = true }, "round the tool: passed"},
	} {
		r := good()
		c.change(r)
		found := strings.Join(r.judge(), "\n")
		if (found == "") != (c.want == "") || !strings.Contains(found, c.want) {
			t.Errorf("%s: found %q, want %q", c.name, found, c.want)
		}
	}
}

// TestRefundsIn: the program does what a text wants, whoever wrote it.
func TestRefundsIn(t *testing.T) {
	want := []refund{{Order: 7003, Account: customerAccount, Amount: 30, Currency: "EUR"}, {Order: 7003, Account: customerAccount, Amount: 80, Currency: "EUR"}}
	if d := cmp.Diff(want, refundsIn(refundWords)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := refundsIn(thiefWords); got != nil {
		t.Errorf("%v", got)
	}
}
