package tool_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ambit"
	"ambit/internal/money"
	"ambit/policy/tool"
)

// naiveDecide is the second implementation: loops over the entries, with exact
// fractions and encoding/json, without Cedar and without an index, from the
// same promises. It does not know own Cedar. It returns what what() does.
func naiveDecide(c tool.Config, call *ambit.ToolCall, spent map[tool.Meter]money.Amount) string {
	n := naive{call: call, effects: map[ambit.Effect]bool{}}
	for _, e := range call.Tool.Effects {
		n.effects[e] = true
	}
	allowed := ""
	for _, e := range c.Tools {
		if !e.Deny && n.is(e.Tool, "") && (allowed == "" || e.Tool == call.Tool.Name) {
			allowed = e.Label
		}
	}
	if allowed == "" {
		return "deny tool-not-allowed"
	}
	if bad := n.read(); bad != "" {
		return "deny " + bad
	}
	var denied []string
	for _, e := range c.Tools {
		if !n.is(e.Tool, "") {
			continue
		}
		if e.Deny {
			denied = append(denied, "tool-denied "+e.Label)
		}
		for path, values := range e.Scope {
			v, ok := n.args[path[1:]]
			text, _ := json.Marshal(v)
			text = bytes.ReplaceAll(text, []byte(`\u003c`), []byte("<"))
			_, isList := v.([]any)
			_, isObject := v.(map[string]any)
			if !ok || v == nil || isList || isObject || !slices.Contains(values, string(text)) {
				denied = append(denied, "out-of-scope "+e.Label)
			}
		}
	}
	threshold, known := c.AskAbove[n.currency]
	small := n.amount != nil && known && n.amount.Cmp(rat(threshold)) <= 0
	denied = append(denied, n.role(c, small)...)
	for _, l := range c.Limits {
		if n.is(l.Tool, l.Effect) && !n.within(l, spent) {
			denied = append(denied, n.limitCode(l)+" "+l.Label)
		}
	}
	if len(denied) > 0 {
		return "deny " + strings.Join(denied, " | ")
	}
	var asked []string
	gated := true
	for _, a := range c.Approvals {
		if a.Tool == call.Tool.Name {
			gated = false
		}
		if a.Nobody || !n.is(a.Tool, a.Effect) {
			continue
		}
		passes := a.Above != nil && n.amount != nil && n.currency == a.Above.Currency && n.amount.Cmp(rat(a.Above.Amount)) <= 0 ||
			a.Count > 0 && n.count >= 0 && n.count <= a.Count
		if !passes {
			asked = append(asked, a.Label)
		}
	}
	for _, e := range []ambit.Effect{"spend", "delete", "bulk", "access", "publish", "customer"} {
		if gated && n.effects[e] && !(e == "spend" && small) {
			asked = append(asked, "gate."+string(e))
		}
	}
	if len(asked) > 0 {
		return "ask " + strings.Join(asked, ", ")
	}
	return "allow " + allowed
}

type naive struct {
	call     *ambit.ToolCall
	effects  map[ambit.Effect]bool
	args     map[string]any
	amount   *big.Rat // nil if unknown
	currency string
	count    int // -1 if unknown
}

func rat(a money.Amount) *big.Rat { return big.NewRat(int64(a), int64(money.Unit)) }

func (n *naive) is(name string, e ambit.Effect) bool {
	if e != "" {
		return n.effects[e]
	}
	if source, ok := strings.CutSuffix(name, "*"); ok {
		return strings.HasPrefix(n.call.Tool.Name, source)
	}
	return n.call.Tool.Name == name
}

// read reads /amount, /currency and the list /to of the generated calls.
func (n *naive) read() string {
	d := json.NewDecoder(strings.NewReader(string(n.call.Args)))
	d.UseNumber()
	if err := d.Decode(&n.args); err != nil {
		return "bad-arguments"
	}
	if v, ok := n.args["amount"]; ok && v != nil && n.call.Tool.Amount != "" {
		number, ok := v.(json.Number)
		if !ok {
			return "bad-arguments"
		}
		r, ok := new(big.Rat).SetString(string(number))
		tenThousandths := new(big.Rat)
		if ok {
			tenThousandths.Mul(r, big.NewRat(10000, 1))
		}
		if !ok || strings.HasPrefix(string(number), "-") || !tenThousandths.IsInt() || !tenThousandths.Num().IsInt64() {
			return "bad-arguments"
		}
		n.amount = r
	}
	if n.call.Tool.Amount != "" {
		switch v := n.args["currency"].(type) {
		case nil:
			n.amount = nil
		case string:
			if len(v) != 3 || strings.Trim(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" && strings.Trim(v, "abcdefghijklmnopqrstuvwxyz") != "" {
				return "bad-arguments"
			}
			n.currency = strings.ToUpper(v)
		default:
			return "bad-arguments"
		}
	}
	if n.amount == nil {
		n.currency = ""
	}
	if len(n.call.Tool.Targets) > 0 {
		to, _ := n.args["to"].([]any)
		for _, v := range to {
			switch v.(type) {
			case string, json.Number:
				n.count++
			case nil:
			default:
				return "bad-arguments"
			}
		}
	}
	if n.count == 0 {
		n.count = -1
	}
	return ""
}

func (n *naive) within(l tool.Limit, spent map[tool.Meter]money.Amount) bool {
	m := tool.Meter{Window: l.Window}
	switch source, all := strings.CutSuffix(l.Tool, ".*"); {
	case l.Effect != "":
		m.Of = "effect " + string(l.Effect)
	case all:
		m.Of = "source " + source
	default:
		m.Of = "tool " + l.Tool
	}
	if l.Price == nil {
		return rat(spent[m]).Cmp(big.NewRat(int64(l.Calls)-1, 1)) <= 0
	}
	if n.amount == nil || n.currency != l.Price.Currency {
		return false
	}
	m.Currency = l.Price.Currency
	sum := new(big.Rat).Set(n.amount)
	if l.Window > 0 {
		sum.Add(sum, rat(spent[m]))
	}
	return sum.Cmp(rat(l.Price.Amount)) <= 0
}

func (n *naive) limitCode(l tool.Limit) string {
	if l.Price != nil && (n.amount == nil || n.currency != l.Price.Currency) {
		return "limit-unmeasured"
	}
	return "limit-exceeded"
}

// outside: it leaves, and not every one of /to is at acme.example.
func (n *naive) outside() bool {
	to, _ := n.args["to"].([]any)
	strangers, people := false, 0
	for _, v := range to {
		if v != nil {
			people++
			strangers = strangers || !regexp.MustCompile(`^[A-Za-z0-9._+-]{1,64}@acme\.example$`).MatchString(fmt.Sprint(v))
		}
	}
	return n.call.Tool.Leaves && (strangers || people == 0 || len(n.call.Tool.Targets) == 0)
}

// role has the roles as docs/policy.md says them.
func (n *naive) role(c tool.Config, small bool) (denied []string) {
	judged := map[ambit.Effect]bool{}
	for e := range n.effects {
		judged[e] = true
	}
	for _, e := range c.Tools {
		if e.Tool == n.call.Tool.Name {
			for _, w := range e.Widen {
				delete(judged, w)
			}
		}
	}
	no := func(yes bool, rule string) {
		if yes {
			denied = append(denied, "role-denied role "+c.Role+": "+rule)
		}
	}
	switch c.Role {
	case "support":
		no(judged["delete"], "no delete")
		no(judged["spend"] && !small, "no spend above the threshold")
		no(judged["access"], "no access")
		no(judged["bulk"], "no bulk")
		no(judged["publish"], "no publish")
	case "finance":
		no(judged["send"] && n.outside(), "no message to people outside")
		no(judged["publish"] && n.outside(), "no publishing outside")
		no(judged["delete"], "no delete")
		no(judged["access"], "no access")
	case "sales":
		no(judged["spend"], "no spend")
		no(judged["delete"], "no delete")
		no(judged["access"], "no access")
		no(judged["bulk"], "no bulk")
	case "operations":
		no(judged["spend"], "no spend")
		no(judged["send"] && n.outside(), "no message to people outside")
		no(judged["publish"] && n.outside(), "no publishing outside")
		no(judged["customer"], "no customer impact")
	case "research":
		delete(judged, "read")
		no(len(judged) > 0, "reads only")
	}
	return denied
}

// agree compares; a denial of several rules names one of them.
func agree(naive, got string) bool {
	reasons, ok := strings.CutPrefix(naive, "deny ")
	if !ok {
		return naive == got
	}
	one, isDeny := strings.CutPrefix(got, "deny ")
	return isDeny && slices.Contains(strings.Split(reasons, " | "), one)
}

func drawConfig(t *rapid.T) tool.Config {
	names := rapid.SampledFrom([]string{"a.x", "a.y", "b.x", "a.*", "b.*"})
	effects := rapid.SampledFrom([]ambit.Effect{"read", "write", "spend", "delete", "bulk", "send", "publish", "access", "customer"})
	price := func() *money.Price {
		return &money.Price{Amount: money.Amount(rapid.Int64Range(0, 30_0000).Draw(t, "price")), Currency: rapid.SampledFrom([]string{"EUR", "USD"}).Draw(t, "of")}
	}
	c := tool.Config{Role: rapid.SampledFrom(append(tool.Roles(), "", "")).Draw(t, "role"), AskAbove: map[string]money.Amount{}, Inside: []string{"acme.example"}}
	if rapid.Bool().Draw(t, "threshold") {
		p := price()
		c.AskAbove[p.Currency] = p.Amount
	}
	for i, name := range rapid.SliceOfNDistinct(names, 0, 4, rapid.ID).Draw(t, "tools") {
		e := tool.Entry{Label: fmt.Sprintf("tools[%d]", i), Tool: name, Deny: rapid.IntRange(0, 4).Draw(t, "deny") == 0}
		if !e.Deny && rapid.IntRange(0, 3).Draw(t, "scoped") == 0 {
			e.Scope = map[string][]string{"/id": {`7`, `"7"`, `"é<"`}}
		}
		if !e.Deny && !strings.HasSuffix(name, "*") && rapid.IntRange(0, 2).Draw(t, "widen") == 0 {
			e.Widen = []ambit.Effect{effects.Draw(t, "wider")}
		}
		c.Tools = append(c.Tools, e)
	}
	where := func(name *string, effect *ambit.Effect) {
		if rapid.Bool().Draw(t, "by effect") {
			*effect = effects.Draw(t, "effect")
		} else {
			*name = names.Draw(t, "tool")
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "limits") {
		l := tool.Limit{Label: fmt.Sprintf("limits[%d]", i), Window: rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour}).Draw(t, "window"), Calls: -1}
		where(&l.Tool, &l.Effect)
		if l.Window > 0 && rapid.Bool().Draw(t, "calls") {
			l.Calls = rapid.IntRange(0, 3).Draw(t, "most")
		} else {
			l.Price = price()
		}
		c.Limits = append(c.Limits, l)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "approvals") {
		a := tool.Approval{Label: fmt.Sprintf("approvals[%d]", i)}
		where(&a.Tool, &a.Effect)
		switch rapid.IntRange(0, 3).Draw(t, "when") {
		case 0:
			a.Above = price()
		case 1:
			a.Count = rapid.IntRange(1, 3).Draw(t, "count")
		case 2:
			a.Nobody = a.Effect == "" && !strings.HasSuffix(a.Tool, "*")
		}
		c.Approvals = append(c.Approvals, a)
	}
	return c
}

func drawCall(t *rapid.T) *ambit.ToolCall {
	td := &ambit.Tool{Name: rapid.SampledFrom([]string{"a.x", "a.y", "a.z", "b.x"}).Draw(t, "name"), Targets: []string{"/to"}, Amount: "/amount", Currency: "/currency"}
	td.Effects = rapid.SliceOfNDistinct(rapid.SampledFrom([]ambit.Effect{"read", "write", "spend", "delete", "bulk", "send", "publish", "access", "customer"}), 1, 3, rapid.ID).Draw(t, "effects")
	td.Leaves = rapid.Bool().Draw(t, "leaves")
	if rapid.Bool().Draw(t, "no amount") {
		td.Amount, td.Currency = "", ""
	}
	if rapid.Bool().Draw(t, "no targets") {
		td.Targets = nil
	}
	var args []string
	for _, m := range []struct {
		key    string
		values []string
	}{
		{"amount", []string{"", "", "0", "5", "10.5", "29.9999", "30", "1e1", "-1", `"5"`, "null", "0.00001", "1e30", "[]"}},
		{"currency", []string{"", `"EUR"`, `"EUR"`, `"EUR"`, `"USD"`, `"eur"`, `"Eur"`, "null", "1"}},
		{"id", []string{"", "7", `"7"`, "7.0", `"é<"`, "null", "[7]", "true"}},
		{"to", []string{"", "[]", `["a"]`, `["a",1]`, `["a@acme.example"]`, `["a@acme.example","b@x.acme.example"]`, `["a@acme.example",null,"B.c@acme.example"]`, `["a","b","c",null]`, `[{}]`}},
	} {
		if v := rapid.SampledFrom(m.values).Draw(t, m.key); v != "" {
			args = append(args, `"`+m.key+`":`+v)
		}
	}
	return &ambit.ToolCall{Tool: td, Args: []byte("{" + strings.Join(args, ",") + "}")}
}

func checkNaive(t *rapid.T) {
	c := drawConfig(t)
	s, err := tool.Compile(c)
	if err != nil {
		if !strings.Contains(err.Error(), "bounds the same") {
			t.Fatal(err)
		}
		return
	}
	call := drawCall(t)
	facts := tool.Facts{Totals: map[tool.Meter]money.Amount{}}
	for _, m := range s.Meters(call) {
		facts.Totals[m] = money.Amount(rapid.Int64Range(0, 30_0000).Draw(t, "total"))
		if m.Currency == "" {
			facts.Totals[m] = money.Amount(rapid.Int64Range(0, 4).Draw(t, "total")) * money.Unit
		}
	}
	got, want := what(s.Decide(call, facts)), naiveDecide(c, call, facts.Totals)
	if !agree(want, got) {
		t.Fatalf("%+v\n%+v %s\ngot  %s\nwant %s\n%s", c, *call.Tool, call.Args, got, want, s.Cedar())
	}
}

func TestAgainstNaive(t *testing.T) { rapid.Check(t, checkNaive) }

func FuzzDecide(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkNaive)) }

// FuzzArgs: hostile arguments never make a call pass that reads another way.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{`{"amount":5,"currency":"EUR"}`, `{"amount":1e2,"currency":"usd","order":["a"]}`, `{"a":{"b":[1,2,{"c":null}]}}`, `{"amount":"5"}`, `{"x":"\u001f\\"}`} {
		f.Add(s)
	}
	s, err := tool.Compile(tool.Config{Tools: []tool.Entry{{Label: "t", Tool: "a.x"}}, AskAbove: map[string]money.Amount{"EUR": 100 * money.Unit}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, args string) {
		v := s.Decide(&ambit.ToolCall{Tool: refunds("a.x"), Args: []byte(args)}, tool.Facts{})
		if v.Decision != ambit.Allow {
			return
		}
		var got struct {
			Amount   json.Number
			Currency string
		}
		if err := json.Unmarshal([]byte(args), &got); err != nil {
			t.Fatalf("%q passes and is no JSON: %v", args, err)
		}
		var fields map[string]json.RawMessage
		_ = json.Unmarshal([]byte(args), &fields)
		r, ok := new(big.Rat).SetString(string(fields["amount"]))
		var currency string
		if !ok || r.Sign() < 0 || r.Cmp(big.NewRat(100, 1)) > 0 || json.Unmarshal(fields["currency"], &currency) != nil || !strings.EqualFold(currency, "EUR") {
			t.Fatalf("%q passes", args)
		}
	})
}
