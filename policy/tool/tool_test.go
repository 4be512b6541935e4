package tool_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/internal/cedartext"
	"ambit/internal/money"
	"ambit/policy/tool"
)

func eur(n int64) *money.Price {
	return &money.Price{Amount: money.Amount(n) * money.Unit, Currency: "EUR"}
}

func compile(t testing.TB, c tool.Config) *tool.Set {
	t.Helper()
	s, err := tool.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func call(t *ambit.Tool, args string) *ambit.ToolCall {
	return &ambit.ToolCall{Agent: "support", Tool: t, Args: []byte(args)}
}

func reads(name string) *ambit.Tool {
	return &ambit.Tool{Name: name, Effects: []ambit.Effect{ambit.EffectRead}}
}

func does(name string, effects ...ambit.Effect) *ambit.Tool {
	return &ambit.Tool{Name: name, Effects: effects, Targets: []string{"/to"}, Leaves: true}
}

// what is "allow", "ask RULE, ...", or "deny CODE RULE".
func what(v ambit.ToolVerdict) string {
	switch {
	case v.Decision == ambit.Allow && len(v.Asks) == 0:
		return "allow " + v.Rule
	case v.Decision == ambit.Deny && len(v.Asks) > 0:
		var rules []string
		for _, a := range v.Asks {
			rules = append(rules, a.Rule)
		}
		return "ask " + strings.Join(rules, ", ")
	}
	return strings.TrimSpace("deny " + v.Reason.Code + " " + v.Rule)
}

func decide(s *tool.Set, c *ambit.ToolCall) string { return what(s.Decide(c, s.NothingYet(c))) }

// Row N5: without a policy that was understood, everything is denied.
func TestN5NoPolicyDeniesEverything(t *testing.T) {
	c := call(reads("shop.orders.get"), `{}`)
	var none *tool.Set
	for name, s := range map[string]*tool.Set{"nil": none, "zero": {}, "empty": compile(t, tool.Config{})} {
		if v := s.Decide(c, tool.Facts{}); v.Decision == ambit.Allow || len(v.Asks) > 0 || v.Reason.Code == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	var zero ambit.ToolVerdict
	if zero.Decision != ambit.Deny {
		t.Error("the zero verdict allows")
	}
	for _, src := range []string{"permit (", "permit (principal, action, resource);", " ", "\x00", strings.Repeat("(", 1000)} {
		if s, err := tool.Compile(tool.Config{Tools: []tool.Entry{{Tool: "shop.orders.get"}}, Cedar: src}); err == nil || s != nil {
			t.Errorf("%q: %v, %v", src, s, err)
		}
	}
}

// Row M1: a name is one spelling.
func TestM1LookAlikes(t *testing.T) {
	s := compile(t, tool.Config{Tools: []tool.Entry{{Label: "tools[0]", Tool: "shop.orders.get"}, {Label: "tools[1]", Tool: "files.*"}}})
	for _, name := range []string{"shop.orders.get", "files.read"} {
		if got := decide(s, call(reads(name), `{}`)); !strings.HasPrefix(got, "allow") {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, name := range []string{
		"Shop.orders.get", "shop.orders.GET", "shop.orders.get ", " shop.orders.get", "shop.orders.get\x00", "shop.orders.get\n", "sh\u043ep.orders.get",
		"shop\uff0eorders.get", "shop.orders.g\u0065\u0301t", "shop.orders.get\u200b", "shop..orders.get", ".shop.orders.get", "shop.orders.get.", "shop/orders.get",
		"shop.orders.ge", "shop.orders.gett", "shop.orders", "shop.orders.get.all", "orders.get", "files", "files.", "files2.read", "filesx.read", "\u017fhop.orders.get", "", "files." + strings.Repeat("a", 200), "files.*",
	} {
		if got := decide(s, call(reads(name), `{}`)); !strings.HasPrefix(got, "deny") {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestDecide(t *testing.T) {
	refund := refunds("shop.refunds.create")
	config := func(change func(*tool.Config)) tool.Config {
		c := tool.Config{Agent: "support", Tools: []tool.Entry{{Label: "tools[0]", Tool: "shop.refunds.create"}, {Label: "tools[1]", Tool: "mail.*"}, {Label: "tools[2]", Tool: "shop.orders.get"}}}
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		change func(*tool.Config)
		tool   *ambit.Tool
		args   string
		want   string
	}{
		{"reading is allowed", nil, reads("shop.orders.get"), `{}`, "allow tools[2]"},
		{"not listed", nil, reads("shop.orders.list"), `{}`, "deny tool-not-allowed"},
		{"denied under a star", func(c *tool.Config) {
			c.Tools = append(c.Tools, tool.Entry{Label: "no", Tool: "mail.send", Deny: true})
		}, does("mail.send", "send"), `{}`, "deny tool-denied no"},
		{"the star", nil, does("mail.send", "send"), `{}`, "allow tools[1]"},
		{"no effects", nil, &ambit.Tool{Name: "mail.send"}, `{}`, "deny tool-undeclared"},
		{"an unknown effect", nil, does("mail.send", "sending"), `{}`, "deny tool-undeclared"},
		{"every spend asks", nil, refund, `{"amount":1,"currency":"EUR"}`, "ask gate.spend"},
		{"the threshold", func(c *tool.Config) { c.AskAbove = map[string]money.Amount{"EUR": 20 * money.Unit} }, refund, `{"amount":20,"currency":"EUR"}`, "allow tools[0]"},
		{"above it", func(c *tool.Config) { c.AskAbove = map[string]money.Amount{"EUR": 20 * money.Unit} }, refund, `{"amount":20.0001,"currency":"EUR"}`, "ask gate.spend"},
		{"another currency is above", func(c *tool.Config) { c.AskAbove = map[string]money.Amount{"EUR": 20 * money.Unit} }, refund, `{"amount":1,"currency":"JPY"}`, "ask gate.spend"},
		{"no amount is above", func(c *tool.Config) { c.AskAbove = map[string]money.Amount{"EUR": 20 * money.Unit} }, refund, `{"currency":"EUR"}`, "ask gate.spend"},
		{"null is no amount", func(c *tool.Config) { c.AskAbove = map[string]money.Amount{"EUR": 20 * money.Unit} }, refund, `{"amount":null,"currency":"EUR"}`, "ask gate.spend"},
		{"several gates", nil, does("mail.all", "bulk", "publish", "delete", "access", "customer"), `{}`, "ask gate.delete, gate.bulk, gate.access, gate.publish, gate.customer"},
		{"an approval replaces the gate", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.refunds.create", Above: eur(50)}}
		}, refund, `{"amount":50,"currency":"EUR"}`, "allow tools[0]"},
		{"and asks above", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.refunds.create", Above: eur(50)}}
		}, refund, `{"amount":50.01,"currency":"EUR"}`, "ask approvals[0]"},
		{"and for another currency", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.refunds.create", Above: eur(50)}}
		}, refund, `{"amount":1,"currency":"USD"}`, "ask approvals[0]"},
		{"one of an effect adds", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Effect: "spend", Above: eur(50)}}
		}, refund, `{"amount":51,"currency":"EUR"}`, "ask approvals[0], gate.spend"},
		{"one of a source adds", func(c *tool.Config) { c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "mail.*"}} }, does("mail.bin", "delete"), `{}`, "ask approvals[0], gate.delete"},
		{"nobody is asked", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.refunds.create", Nobody: true}}
		}, refund, `{"amount":1000,"currency":"EUR"}`, "allow tools[0]"},
		{"a limit stays", func(c *tool.Config) {
			c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.refunds.create", Nobody: true}}
			c.Limits = []tool.Limit{{Label: "limits[0]", Effect: "spend", Price: eur(500), Calls: -1}}
		}, refund, `{"amount":1000,"currency":"EUR"}`, "deny limit-exceeded limits[0]"},
		{"a limit in another currency", func(c *tool.Config) {
			c.Limits = []tool.Limit{{Label: "limits[0]", Effect: "spend", Price: eur(500), Calls: -1}}
		}, refund, `{"amount":1,"currency":"USD"}`, "deny limit-unmeasured limits[0]"},
		{"a limit without an amount", func(c *tool.Config) {
			c.Limits = []tool.Limit{{Label: "limits[0]", Effect: "spend", Price: eur(500), Calls: -1}}
		}, refund, `{"currency":"EUR"}`, "deny limit-unmeasured limits[0]"},
		{"counting", func(c *tool.Config) { c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "mail.*", Count: 2}} }, does("mail.send", "send"), `{"to":["a@x.example","b@x.example","c@x.example"]}`, "ask approvals[0]"},
		{"few enough", func(c *tool.Config) { c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "mail.*", Count: 2}} }, does("mail.send", "send"), `{"to":["a@x.example","b@x.example"]}`, "allow tools[1]"},
		{"nothing to count", func(c *tool.Config) { c.Approvals = []tool.Approval{{Label: "approvals[0]", Tool: "shop.*", Count: 2}} }, reads("shop.orders.get"), `{}`, "ask approvals[0]"},
		{"in scope", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/customer_id": {`7`, `"x y"`}} }, reads("shop.orders.get"), `{"customer_id":7}`, "allow tools[2]"},
		{"in scope as text", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/customer_id": {`7`, `"x y"`}} }, reads("shop.orders.get"), `{"customer_id":"x y"}`, "allow tools[2]"},
		{"a text is not a number", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/customer_id": {`7`}} }, reads("shop.orders.get"), `{"customer_id":"7"}`, "deny out-of-scope tools[2]"},
		{"out of scope", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/customer_id": {`7`}} }, reads("shop.orders.get"), `{"customer_id":8}`, "deny out-of-scope tools[2]"},
		{"not there", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/customer_id": {`7`}} }, reads("shop.orders.get"), `{}`, "deny out-of-scope tools[2]"},
		{"every element", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/o/*/id": {`1`, `2`}} }, reads("shop.orders.get"), `{"o":[{"id":1},{"id":2}]}`, "allow tools[2]"},
		{"one without it", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/o/*/id": {`1`, `2`}} }, reads("shop.orders.get"), `{"o":[{"id":1},{}]}`, "deny out-of-scope tools[2]"},
		{"no element", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/o/*/id": {`1`, `2`}} }, reads("shop.orders.get"), `{"o":[]}`, "deny out-of-scope tools[2]"},
		{"a list where a value should be", func(c *tool.Config) { c.Tools[2].Scope = map[string][]string{"/id": {`1`}} }, reads("shop.orders.get"), `{"id":[1]}`, "deny out-of-scope tools[2]"},
		{"own Cedar forbids", func(c *tool.Config) {
			c.Cedar, c.CedarFile = "\n@id(\"no-night\")\nforbid (principal, action, resource) when { context.intent == \"\" };", "policy.cedar"
		}, reads("shop.orders.get"), `{}`, "deny cedar-denied cedar no-night (policy.cedar:2)"},
		{"own Cedar asks", func(c *tool.Config) {
			c.Cedar, c.CedarLine = "@id(\"vip\") @ask(\"owner\")\nforbid (principal == Agent::\"support\", action, resource in Source::\"shop\") when { context.args has vip && context.args.vip };", 10
		}, reads("shop.orders.get"), `{"vip":true}`, "ask cedar vip (line 11)"},
		{"own Cedar permits", func(c *tool.Config) { c.Cedar = "permit (principal, action, resource == Tool::\"shop.orders.list\");" }, reads("shop.orders.list"), `{}`, "allow cedar policy 0 (line 1)"},
		{"own Cedar errs", func(c *tool.Config) {
			c.Cedar = "@id(\"a\") forbid (principal, action, resource) when { context.args.total > 100 };"
		}, reads("shop.orders.get"), `{"total":"101"}`, "deny policy-error cedar a (line 1)"},
		{"own Cedar misses", func(c *tool.Config) {
			c.Cedar = "@id(\"a\") forbid (principal, action, resource) when { context.args.total > 100 };"
		}, reads("shop.orders.get"), `{}`, "deny policy-error cedar a (line 1)"},
		{"a number that Cedar cannot hold", func(c *tool.Config) {
			c.Cedar = "forbid (principal, action, resource) when { context.args has x && context.args.x == 1 };"
		}, reads("shop.orders.get"), `{"x":1e300}`, "deny policy-error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := compile(t, config(c.change))
			if got := decide(s, call(c.tool, c.args)); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

func TestBadArguments(t *testing.T) {
	s := compile(t, tool.Config{Tools: []tool.Entry{{Label: "tools[0]", Tool: "shop.*"}}, AskAbove: map[string]money.Amount{"EUR": money.Max}})
	many := refunds("shop.many")
	many.Amount, many.Currency = "/items/*/amount", "/items/*/currency"
	text := refunds("shop.text")
	text.Input = []byte(`{"type":"object","properties":{"amount":{"type":"string"}}}`)
	fixed := refunds("shop.fixed")
	fixed.Currency = "EUR"
	for _, c := range []struct {
		tool *ambit.Tool
		args string
		want string
	}{
		{fixed, `{"amount":5}`, "allow"},
		{fixed, `{"amount":"5"}`, "deny bad-arguments"},
		{text, `{"amount":"5","currency":"EUR"}`, "allow"},
		{text, `{"amount":"5e1","currency":"EUR"}`, "deny bad-arguments"},
		{text, `{"amount":" 5","currency":"EUR"}`, "deny bad-arguments"},
		{text, `{"amount":"٥","currency":"EUR"}`, "deny bad-arguments"},
		{text, `{"amount":"NaN","currency":"EUR"}`, "deny bad-arguments"},
		{fixed, `{"amount":NaN}`, "deny bad-arguments"},
		{fixed, `{"amount":Infinity}`, "deny bad-arguments"},
		{fixed, `{"amount":-5}`, "deny bad-arguments"},
		{fixed, `{"amount":1e400}`, "deny bad-arguments"},
		{fixed, `{"amount":0.00001}`, "deny bad-arguments"},
		{fixed, `{"amount":99999999999999999999}`, "deny bad-arguments"},
		{fixed, `{"amount":[5]}`, "deny bad-arguments"},
		{fixed, `{"amount":true}`, "deny bad-arguments"},
		{fixed, `{"amount":1,"amount":1000}`, "deny bad-arguments"},
		{fixed, `{"amount":1,"\u0061mount":1000}`, "deny bad-arguments"},
		{fixed, `{"amount":1} {"amount":1000}`, "deny bad-arguments"},
		{fixed, `{"amount":1,}`, "deny bad-arguments"},
		{fixed, `[1]`, "deny bad-arguments"},
		{fixed, ``, "deny bad-arguments"},
		{fixed, "{\"amount\":1,\"x\":\"\xff\"}", "deny bad-arguments"},
		{fixed, `{"amount":1,"x":"\ud800"}`, "deny bad-arguments"},
		{fixed, `{"amount":1,"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", "deny bad-arguments"},
		{fixed, `{"amount":1,"order":{"a":1}}`, "deny bad-arguments"},
		{refunds("shop.a"), `{"amount":1,"currency":"eur"}`, "allow"},
		{refunds("shop.a"), `{"amount":1,"currency":"Eur"}`, "deny bad-arguments"},
		{refunds("shop.a"), `{"amount":1,"currency":"ЕUR"}`, "deny bad-arguments"},
		{refunds("shop.a"), `{"amount":1,"currency":978}`, "deny bad-arguments"},
		{refunds("shop.a"), `{"amount":1}`, "ask gate.spend"},
		{many, `{"items":[{"amount":1,"currency":"EUR"},{"amount":2,"currency":"EUR"}]}`, "allow"},
		{many, `{"items":[{"amount":1,"currency":"EUR"},{"amount":2,"currency":"USD"}]}`, "deny mixed-currencies"},
		{many, `{"items":[{"amount":1,"currency":"EUR"},{"currency":"EUR"}]}`, "ask gate.spend"},
		{many, `{"items":[]}`, "ask gate.spend"},
		{many, `{"items":[{"amount":922337203685477,"currency":"EUR"},{"amount":922337203685477,"currency":"EUR"}]}`, "allow"},
	} {
		got := decide(s, call(c.tool, c.args))
		if !strings.HasPrefix(got, c.want) {
			if len(c.args) > 100 {
				c.args = c.args[:100]
			}
			t.Errorf("%s %s: %s, want %s", c.tool.Name, c.args, got, c.want)
		}
	}
	// A sum that is too large is not under a limit.
	s = compile(t, tool.Config{Tools: []tool.Entry{{Tool: "shop.*"}}, Limits: []tool.Limit{{Label: "l", Effect: "spend", Price: eur(922_337_203_685_476), Calls: -1}}})
	if got := decide(s, call(many, `{"items":[{"amount":922337203685477,"currency":"EUR"},{"amount":922337203685477,"currency":"EUR"}]}`)); got != "deny limit-exceeded l" {
		t.Error(got)
	}
}

func TestTotals(t *testing.T) {
	s := compile(t, tool.Config{
		Tools:     []tool.Entry{{Label: "tools[0]", Tool: "shop.refunds.create"}},
		Approvals: []tool.Approval{{Tool: "shop.refunds.create", Nobody: true}},
		Limits: []tool.Limit{
			{Label: "hour", Tool: "shop.refunds.create", Window: time.Hour, Price: eur(100), Calls: -1},
			{Label: "day", Effect: "spend", Window: 24 * time.Hour, Price: eur(500), Calls: -1},
			{Label: "calls", Tool: "shop.*", Window: time.Hour, Calls: 3},
		},
	})
	c := call(refunds("shop.refunds.create"), `{"amount":50,"currency":"EUR"}`)
	for _, x := range []struct {
		spent tool.Spent
		want  string
	}{
		{tool.Spent{}, "allow tools[0]"},
		{tool.Spent{Hour: map[string]money.Amount{"EUR": 50 * money.Unit}}, "allow tools[0]"},
		{tool.Spent{Hour: map[string]money.Amount{"EUR": 50*money.Unit + 1}}, "deny limit-exceeded hour"},
		{tool.Spent{Day: map[string]money.Amount{"EUR": 450*money.Unit + 1}}, "deny limit-exceeded day"},
		{tool.Spent{HourCalls: 2}, "allow tools[0]"},
		{tool.Spent{HourCalls: 3}, "deny limit-exceeded calls"},
		{tool.Spent{Hour: map[string]money.Amount{"EUR": money.Max}}, "deny limit-exceeded hour"},
	} {
		if got := what(s.Decide(c, x.spent.Facts(s, c))); got != x.want {
			t.Errorf("%+v: %s, want %s", x.spent, got, x.want)
		}
	}
	if got := what(s.Decide(c, tool.Facts{})); got != "deny policy-error" {
		t.Errorf("totals that are not known: %s", got)
	}
	if got := len(s.Meters(c)); got != 3 {
		t.Errorf("%d meters", got)
	}
	if got := fmt.Sprint(s.Draws(c)); got != "[{{tool shop.refunds.create EUR} 50} {{source shop } 1} {{effect spend EUR} 50}]" {
		t.Errorf("draws %s", got)
	}
	if got := what(s.Decide(c, tool.Facts{Totals: map[tool.Meter]money.Amount{s.Meters(c)[0]: math.MinInt64}})); got != "deny policy-error" {
		t.Errorf("a total below zero: %s", got)
	}
}

func TestRoles(t *testing.T) {
	all := []string{"read", "write", "send", "spend", "delete", "access", "publish", "bulk", "customer"}
	for role, want := range map[string]map[string]string{
		"":           {"spend": "ask", "delete": "ask", "access": "ask", "publish": "ask", "bulk": "ask", "customer": "ask"},
		"support":    {"spend": "deny", "delete": "deny", "access": "deny", "publish": "deny", "bulk": "deny", "customer": "ask"},
		"finance":    {"spend": "ask", "delete": "deny", "access": "deny", "publish": "deny", "send": "deny", "bulk": "ask", "customer": "ask"},
		"sales":      {"spend": "deny", "delete": "deny", "access": "deny", "publish": "ask", "bulk": "deny", "customer": "ask"},
		"research":   {"write": "deny", "send": "deny", "spend": "deny", "delete": "deny", "access": "deny", "publish": "deny", "bulk": "deny", "customer": "deny"},
		"operations": {"spend": "deny", "send": "deny", "publish": "deny", "customer": "deny", "delete": "ask", "access": "ask", "bulk": "ask"},
	} {
		s := compile(t, tool.Config{Role: role, Tools: []tool.Entry{{Label: "tools[0]", Tool: "x.*"}}, Inside: []string{"acme.example", "*.acme.example"}})
		for _, e := range all {
			expect := want[e]
			if expect == "" {
				expect = "allow"
			}
			v := s.Decide(call(does("x.y", ambit.Effect(e)), `{"to":"a@other.example"}`), tool.Facts{})
			got, _, _ := strings.Cut(what(v), " ")
			if got != expect {
				t.Errorf("%s %s: %s, want %s", role, e, what(v), expect)
			}
			if got == "deny" && (!strings.HasPrefix(v.Rule, "role "+role+": ") || v.Reason.Code != tool.CodeRole) {
				t.Errorf("%s %s: %+v", role, e, v)
			}
		}
	}
	for _, role := range tool.Roles() {
		if text, ok := tool.RoleText(role); !ok || !strings.HasPrefix(text, "// ") {
			t.Errorf("%s is not documented", role)
		}
	}
	if _, err := tool.Compile(tool.Config{Role: "../gates"}); err == nil {
		t.Error("a role that there is not")
	}
}

// A support agent that may spend up to a threshold, and one tool that it may
// delete with.
func TestWideningTheRoleIsExplicit(t *testing.T) {
	s := compile(t, tool.Config{
		Role:     "support",
		AskAbove: map[string]money.Amount{"EUR": 20 * money.Unit},
		Tools:    []tool.Entry{{Label: "tools[0]", Tool: "shop.*"}, {Label: "tools[1]", Tool: "shop.drafts.delete", Widen: []ambit.Effect{"delete"}}},
	})
	for _, c := range []struct {
		tool *ambit.Tool
		args string
		want string
	}{
		{refunds("shop.r"), `{"amount":20,"currency":"EUR"}`, "allow tools[0]"},
		{refunds("shop.r"), `{"amount":21,"currency":"EUR"}`, "deny role-denied role support: no spend above the threshold"},
		{does("shop.drafts.delete", "delete"), `{}`, "ask gate.delete"},
		{does("shop.drafts.delete", "delete", "access"), `{}`, "deny role-denied role support: no access"},
		{does("shop.orders.delete", "delete"), `{}`, "deny role-denied role support: no delete"},
	} {
		if got := decide(s, call(c.tool, c.args)); got != c.want {
			t.Errorf("%s: %s, want %s", c.tool.Name, got, c.want)
		}
	}
}

func TestInside(t *testing.T) {
	s := compile(t, tool.Config{Role: "finance", Tools: []tool.Entry{{Label: "tools[0]", Tool: "mail.*"}}, Inside: []string{"acme.example", "*.corp.example"}})
	send := does("mail.send", "send")
	for to, inside := range map[string]bool{
		`"a@acme.example"`: true, `["a@acme.example","b.c+d@x.corp.example"]`: true, `"A@ACME.example"`: true, `"https://acme.example/x"`: true,
		`"a@acme.example,b@other.example"`: false, `["a@acme.example","b@other.example"]`: false, `"a@other.example"`: false, `"a@sub.acme.example"`: false,
		`"a@corp.example"`: false, `"a@acme.example@other.example"`: false, `"\"a@acme.example\" <b@other.example>"`: false, `"b@other.example <a@acme.example>"`: false,
		`"a@acme.example "`: false, `"a@acme.example."`: false, `"a@аcme.example"`: false, `"a@acme.example.other.example"`: false, `"a@notacme.example"`: false,
		`""`: false, `[]`: false, `"https://acme.example@other.example/"`: false, `"https://other.example/acme.example"`: false, `"http://acme.example/"`: false,
		`"https://acme.example\\@other.example/"`: false, `"a@127.0.0.1"`: false, `"#general"`: false, `"a\nb@acme.example"`: false, `"a%b@acme.example"`: false, `null`: false,
	} {
		got := decide(s, call(send, `{"to":`+to+`}`))
		if want := "allow tools[0]"; (got == want) != inside {
			t.Errorf("%s: %s", to, got)
		}
	}
	if got := decide(s, call(send, `{}`)); !strings.HasPrefix(got, "deny role-denied") {
		t.Errorf("nobody named: %s", got)
	}
	stays := does("mail.note", "send")
	stays.Leaves = false
	if got := decide(s, call(stays, `{}`)); got != "allow tools[0]" {
		t.Errorf("what does not leave: %s", got)
	}
}

func TestCompileRefuses(t *testing.T) {
	e := func(tool_ string) tool.Entry { return tool.Entry{Label: "tools[0] (line 3)", Tool: tool_} }
	for want, c := range map[string]tool.Config{
		"not the name of a tool":     {Tools: []tool.Entry{e("Shop.orders")}},
		"not the name of a tool; wr": {Tools: []tool.Entry{e("shop.orders.*")}},
		"not the name of a tool; w":  {Tools: []tool.Entry{e("*")}},
		"same tool as":               {Tools: []tool.Entry{e("a.b"), e("a.b")}},
		"scope and widen have":       {Tools: []tool.Entry{{Tool: "a.b", Deny: true, Scope: map[string][]string{"/a": {"1"}}}}},
		"one exact tool":             {Tools: []tool.Entry{{Tool: "a.*", Widen: []ambit.Effect{"delete"}}}},
		"not a JSON pointer":         {Tools: []tool.Entry{{Tool: "a.b", Scope: map[string][]string{"a": {"1"}}}}},
		"there is no role":           {Role: "boss"},
		"not a domain":               {Inside: []string{"Acme.example"}},
		"inside: \"example\"":        {Inside: []string{"example"}},
		"bounds the same":            {Limits: []tool.Limit{{Tool: "a.b", Price: eur(1), Calls: -1}, {Tool: "a.b", Price: eur(2), Calls: -1}}},
		"bounds neither":             {Limits: []tool.Limit{{Tool: "a.b", Calls: 3}}},
		"within 24 hours":            {Limits: []tool.Limit{{Tool: "a.b", Calls: 3, Window: 25 * time.Hour}}},
		"neither a tool nor":         {Limits: []tool.Limit{{Calls: 3, Window: time.Hour}}},
		"there is no effect":         {Limits: []tool.Limit{{Effect: "sepnd", Calls: 3, Window: time.Hour}}},
		"asks nobody for more":       {Approvals: []tool.Approval{{Effect: "spend", Nobody: true}}},
		"nothing else has a use":     {Approvals: []tool.Approval{{Tool: "a.b", Nobody: true, People: 1}}},
		"two conditions":             {Approvals: []tool.Approval{{Tool: "a.b", Above: eur(1), Count: 1}}},
		"cedar (policy.cedar:1)":     {Cedar: "permit (", CedarFile: "policy.cedar"},
	} {
		if s, err := tool.Compile(c); err == nil || !strings.Contains(err.Error(), want) || s != nil {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Two rules that say the same by other means do not double or lift each other.
func TestAskHasWhoAndHowLong(t *testing.T) {
	s := compile(t, tool.Config{Tools: []tool.Entry{{Tool: "a.b"}}, Approvals: []tool.Approval{{Label: "approvals[0] (line 9)", Tool: "a.b", From: []string{"owner"}, People: 2, Expires: time.Hour}}})
	v := s.Decide(call(reads("a.b"), `{}`), tool.Facts{})
	if len(v.Asks) != 1 || v.Asks[0].From[0] != "owner" || v.Asks[0].People != 2 || v.Asks[0].Expires != time.Hour || v.Asks[0].Rule != "approvals[0] (line 9)" || v.Reason.Code != tool.CodeApproval {
		t.Errorf("%+v", v)
	}
}

func TestWidened(t *testing.T) {
	before := compile(t, tool.Config{Tools: []tool.Entry{{Tool: "shop.orders.get"}, {Tool: "shop.refunds.create"}}})
	after := compile(t, tool.Config{Tools: []tool.Entry{{Tool: "shop.*"}}, AskAbove: map[string]money.Amount{"EUR": 5 * money.Unit}})
	calls := []*ambit.ToolCall{
		call(reads("shop.orders.get"), `{}`), call(reads("shop.orders.list"), `{}`),
		call(refunds("shop.refunds.create"), `{"amount":5,"currency":"EUR"}`), call(refunds("shop.refunds.create"), `{"amount":6,"currency":"EUR"}`), call(reads("other.x"), `{}`),
	}
	got := tool.Widened(before, after, calls)
	if len(got) != 2 || got[0].Call != calls[1] || got[1].Call != calls[2] {
		t.Errorf("%+v", got)
	}
	if back := tool.Widened(after, before, calls); len(back) != 0 {
		t.Errorf("narrowing: %+v", back)
	}
	if first := tool.Widened(nil, before, calls); len(first) != 1 {
		t.Errorf("from nothing: %+v", first)
	}
}

// The effects that operators can write are those that tools can have.
func TestEffectsAreTheSame(t *testing.T) {
	want := []ambit.Effect{ambit.EffectRead, ambit.EffectWrite, ambit.EffectDelete, ambit.EffectSpend, ambit.EffectSend, ambit.EffectPublish, ambit.EffectAccess, ambit.EffectBulk, ambit.EffectCustomer}
	if got := fmt.Sprint(cedartext.Effects()); got != fmt.Sprint(want) {
		t.Errorf("%s, want %v", got, want)
	}
}

// What is decided can be read by people.
func TestCedarText(t *testing.T) {
	s := compile(t, tool.Config{Role: "support", Tools: []tool.Entry{{Label: "tools[0] (line 3)", Tool: "shop.orders.get", Scope: map[string][]string{"/id": {`"ü\"x"`}}}}})
	text := s.Cedar()
	for _, want := range []string{"// tools[0] (line 3)\npermit (principal, action, resource == Tool::\"shop.orders.get\");", "// role support: no delete", "// gate.spend"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
