package approval_test

import (
	"strings"
	"testing"
	"unicode"

	"ambit"
	"ambit/approval"
)

func refundTool() *ambit.Tool {
	return &ambit.Tool{
		Name: "shop.refunds.create", Effects: []ambit.Effect{ambit.EffectSpend, ambit.EffectCustomer},
		Targets: []string{"/order", "/lines/*/sku"}, Amount: "/amount", Currency: "EUR", Limits: []string{"/count"},
	}
}

func TestWords(t *testing.T) {
	for args, want := range map[string]string{
		`{"amount":80.50,"order":"1001"}`:                                                `shop.refunds.create (moves money, a customer notices it); amount 80.50 EUR; order "1001"`,
		`{"amount":1,"lines":[{"sku":"a"},{"sku":"b"}],"count":2,"note":"not declared"}`: `shop.refunds.create (moves money, a customer notices it); amount 1 EUR; sku "a", "b"; count 2`,
		`{}`: `shop.refunds.create (moves money, a customer notices it); amount none EUR`,
		`[]`: `shop.refunds.create (moves money, a customer notices it); amount none EUR`,
		`{"amount":"\" EUR; order \"1001\"\u001b[2J"}`: `shop.refunds.create (moves money, a customer notices it); amount "' EUR; order '1001'\x1b[2J" EUR`,
		`{"amount":1,"order":{"id":5}}`:                `shop.refunds.create (moves money, a customer notices it); amount 1 EUR; order "{'id':5}"`,
	} {
		if got := approval.Words(&ambit.ToolCall{Tool: refundTool(), Args: []byte(args)}); got != want {
			t.Errorf("%s:\n%s\n%s", args, got, want)
		}
	}
	undeclared := &ambit.Tool{Name: "x.y"}
	if got := approval.Words(&ambit.ToolCall{Tool: undeclared, Args: []byte("{}")}); got != "x.y (effects not declared)" {
		t.Error(got)
	}
	payroll := &ambit.Tool{Name: "bank.payroll", Effects: []ambit.Effect{ambit.EffectSpend}, Amount: "/pay/*/amount", Currency: "EUR"}
	if got := approval.Words(&ambit.ToolCall{Tool: payroll, Args: []byte(`{"pay":[{"amount":1},{"amount":90000}]}`)}); !strings.Contains(got, "amount 1, 90000 EUR") {
		t.Error(got)
	}
	per := refundTool()
	per.Currency = "/currency"
	for args, want := range map[string]string{
		`{"amount":5,"currency":"USD"}`:                 "amount 5 USD",
		`{"amount":5,"currency":"USD; order \"1001\""}`: `amount 5 in "USD; order '1001'"`,
		`{"amount":5}`: "amount 5 in none",
		`{"lines":[{"sku":1},{"sku":2},{"sku":3},{"sku":4},{"sku":5},{"sku":6}]}`: "sku 1, 2, 3, 4 and 2 more",
	} {
		if got := approval.Words(&ambit.ToolCall{Tool: per, Args: []byte(args)}); !strings.Contains(got, want) {
			t.Error(got)
		}
	}
}

// FuzzWords holds that whatever a model writes stays one short line that does
// nothing to a terminal.
func FuzzWords(f *testing.F) {
	f.Add(`{"amount":80,"order":"1001","lines":[{"sku":"a\n"}]}`)
	f.Add(`{"order":["\u202e",null,1e999],"amount":"x"}`)
	f.Add(`[[[`)
	f.Fuzz(func(t *testing.T, args string) {
		got := approval.Words(&ambit.ToolCall{Tool: refundTool(), Args: []byte(args)})
		for _, r := range got {
			if !unicode.IsGraphic(r) {
				t.Fatalf("%U in %q", r, got)
			}
		}
		if !strings.HasPrefix(got, "shop.refunds.create (moves money, a customer notices it)") {
			t.Fatalf("%q", got)
		}
		if len(got) > 4096 {
			t.Fatalf("%d bytes", len(got))
		}
	})
}
