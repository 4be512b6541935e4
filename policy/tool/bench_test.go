package tool_test

import (
	"fmt"
	"testing"
	"time"

	"ambit"
	"ambit/internal/money"
	"ambit/policy/tool"
)

// BenchmarkDecide shows that the number of rules for other tools does not show,
// and what operators' Cedar costs that names no tool.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1000} {
		rules := func() tool.Config {
			c := tool.Config{Agent: "support", Role: "support", AskAbove: map[string]money.Amount{"EUR": 50 * money.Unit}}
			for i := range n / 4 {
				name := fmt.Sprintf("shop.refunds.create%d", i)
				c.Tools = append(c.Tools, tool.Entry{Label: fmt.Sprintf("tools[%d]", i), Tool: name, Scope: map[string][]string{"/shop": {`"berlin"`, `"paris"`}}})
				c.Limits = append(c.Limits,
					tool.Limit{Label: fmt.Sprintf("tools[%d].limits.perCall", i), Tool: name, Price: &money.Price{Amount: 50 * money.Unit, Currency: "EUR"}, Calls: -1},
					tool.Limit{Label: fmt.Sprintf("tools[%d].limits.perDay", i), Tool: name, Window: 24 * time.Hour, Price: &money.Price{Amount: 500 * money.Unit, Currency: "EUR"}, Calls: -1})
				c.Approvals = append(c.Approvals, tool.Approval{Label: fmt.Sprintf("approvals[%d]", i), Tool: name, Above: &money.Price{Amount: 40 * money.Unit, Currency: "EUR"}})
			}
			return c
		}
		for _, own := range []int{0, 1, n} {
			c := rules()
			for i := range own {
				c.Cedar += fmt.Sprintf("forbid (principal, action, resource) when { context.args.order == \"o%d\" };\n", i)
			}
			if len(c.Cedar) > 64<<10 {
				c.Cedar = c.Cedar[:0]
				for i := range own {
					c.Cedar += fmt.Sprintf("forbid(principal,action,resource)when{context.args.o==%d};\n", i)
				}
			}
			s, err := tool.Compile(c)
			if err != nil {
				b.Fatal(err)
			}
			call := &ambit.ToolCall{Agent: "support", Tool: refunds("shop.refunds.create1"), Args: []byte(`{"amount":20.5,"currency":"EUR","order":"1001","o":"1001","shop":"berlin","reason":"it came broken, and the customer has sent a photo"}`)}
			facts := s.NothingYet(call)
			b.Run(fmt.Sprintf("rules=%d/cedar=%d", len(c.Tools)*4, own), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if v := s.Decide(call, facts); v.Decision != ambit.Allow {
						b.Fatalf("%+v", v)
					}
				}
			})
		}
	}
}

func refunds(name string) *ambit.Tool {
	return &ambit.Tool{Name: name, Effects: []ambit.Effect{ambit.EffectWrite, ambit.EffectSpend}, Amount: "/amount", Currency: "/currency", Targets: []string{"/order"}}
}
