//go:build linux

package demo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit"
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
