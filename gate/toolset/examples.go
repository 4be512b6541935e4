package toolset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/cedartext"
	"ambit/internal/money"
	"ambit/internal/strictyaml"
	"ambit/policy/tool"
)

// Example is a call and what the policy should say of it: a test of a policy.
type Example struct {
	Line  int // of the file, from 1
	Name  string
	Tool  string
	Args  []byte // JSON
	Spent tool.Spent
	Want  string // "allow", "deny" or "ask"
	Rule  string // what the rule starts with; "" is any
}

// Result is what came of an example.
type Result struct {
	Name string `json:"name"`
	Line int    `json:"line"`
	OK   bool   `json:"ok"`
	Want string `json:"want"` // with the rule, if one was wanted: "ask by gate.spend"
	Got  string `json:"got"`
	Rule string `json:"rule,omitempty"` // that decided
	Text string `json:"text,omitempty"` // why
}

const (
	maxExamples     = 1000
	maxExamplesSize = 1 << 20
	exampleHint     = `write for example "- {name: small refund, tool: shop.refunds.create, args: {amount: 5}, want: allow}"`
)

var (
	exampleKeys = []string{"name", "tool", "args", "facts", "want", "rule"}
	factKeys    = []string{"spentHour", "spentDay", "callsHour", "callsDay"}
)

// ParseExamples reads a file of examples. Its error is as that of
// manifest.Parse.
func ParseExamples(file string, src []byte) ([]Example, error) {
	d, root := strictyaml.Decode(&strictyaml.Language{
		Noun: "policy test", Start: exampleHint, MaxSize: maxExamplesSize, TooLarge: "write two files", Second: "put all examples into one list",
	}, file, src)
	var all []Example
	names := map[string]bool{}
	d.List(root, func(i int, n strictyaml.Node) {
		if i >= maxExamples {
			if i == maxExamples {
				d.Refuse(n, fmt.Sprintf("there are more than %d examples", maxExamples), "write two files")
			}
			return
		}
		e := example(d, n)
		if e.Name != "" && names[e.Name] {
			d.Refuse(n, "is called "+strictyaml.Quote(e.Name)+", as an example above", "give it another name")
		}
		names[e.Name] = true
		all = append(all, e)
	})
	if err := d.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

func example(d *strictyaml.Decoder, n strictyaml.Node) Example {
	if !n.IsMapping() {
		d.WrongKind(n, "an example", exampleHint)
		return Example{}
	}
	f := d.Fields(n, exampleKeys)
	line, _ := n.Place()
	for _, key := range []string{"name", "tool", "want"} {
		if !f[key].Given() {
			d.Missing(n, key, exampleHint)
		}
	}
	return Example{
		Line: line, Name: d.Checked(f["name"], "", short), Tool: d.Checked(f["tool"], "", toolName),
		Args: arguments(d, f["args"]), Spent: spent(d, f["facts"]),
		Want: d.Choice(f["want"], "allow", "deny", "ask"), Rule: d.Checked(f["rule"], "", short),
	}
}

func short(s string) (text, hint string) {
	switch {
	case s == "" || len(s) > 200:
		return "is empty or has more than 200 bytes", "write one short line"
	case strings.IndexFunc(s, strictyaml.Invisible) >= 0:
		return strictyaml.Quote(s) + " contains a control character", "remove it"
	}
	return "", ""
}

func toolName(s string) (text, hint string) {
	if cedartext.ToolName(s) {
		return "", ""
	}
	return strictyaml.Quote(s) + " is not the name of a tool", "write it fully qualified in lower case, as shop.orders.get"
}

// arguments are a mapping, or JSON in a text for what YAML here cannot write.
func arguments(d *strictyaml.Decoder, n strictyaml.Node) []byte {
	if !n.Given() {
		return []byte("{}")
	}
	if n.IsMapping() {
		return encode(d, n)
	}
	s, _ := d.Text(n, "")
	return []byte(s) // the policy judges it: a bad one is an example too
}

// encode writes a node as JSON, its numbers as they are written.
func encode(d *strictyaml.Decoder, n strictyaml.Node) []byte {
	switch {
	case n.IsMapping():
		fields := map[string]json.RawMessage{}
		d.Pairs(n, func(key string, _, v strictyaml.Node) { fields[key] = encode(d, v) })
		return object(fields)
	case n.IsList():
		items := [][]byte{}
		d.List(n, func(_ int, item strictyaml.Node) { items = append(items, encode(d, item)) })
		return append(append([]byte{'['}, bytes.Join(items, []byte{','})...), ']')
	}
	if number := n.Decimal(); number != "" {
		return []byte(number)
	}
	if b, ok := n.Truth(); ok {
		return strconv.AppendBool(nil, b)
	}
	s, _ := d.Text(n, "")
	return []byte(tool.Text(s))
}

func object(fields map[string]json.RawMessage) []byte {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b := []byte{'{'}
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, tool.Text(k)...), ':'), fields[k]...)
	}
	return append(b, '}')
}

func spent(d *strictyaml.Decoder, n strictyaml.Node) tool.Spent {
	f := d.Fields(n, factKeys)
	return tool.Spent{
		Hour: prices(d, f["spentHour"]), Day: prices(d, f["spentDay"]),
		HourCalls: d.Integer(f["callsHour"], 0, 1_000_000_000, 0), DayCalls: d.Integer(f["callsDay"], 0, 1_000_000_000, 0),
	}
}

// prices reads "50 EUR", or a list of that.
func prices(d *strictyaml.Decoder, n strictyaml.Node) map[string]money.Amount {
	all := map[string]money.Amount{}
	add := func(n strictyaml.Node) {
		s, ok := d.Text(n, "")
		if !ok {
			return
		}
		p, err := money.ParsePrice(s)
		if err != nil {
			d.Refuse(n, strictyaml.Quote(s)+" is not an amount and a currency", "write for example 450 EUR")
			return
		}
		all[p.Currency] = p.Amount
	}
	switch {
	case !n.Given():
	case n.IsList():
		d.List(n, func(_ int, item strictyaml.Node) { add(item) })
	default:
		add(n)
	}
	return all
}

// Outcome is "allow", "deny" or "ask".
func Outcome(v ambit.ToolVerdict) string {
	switch {
	case v.Decision == ambit.Allow:
		return "allow"
	case len(v.Asks) > 0:
		return "ask"
	}
	return "deny"
}

// Run tries the examples out. A tool that is not among tools is called as one
// that nobody has declared.
func Run(s *tool.Set, agent ambit.AgentID, tools map[string]*ambit.Tool, examples []Example) []Result {
	all := make([]Result, len(examples))
	for i := range examples {
		e := &examples[i]
		t := tools[e.Tool]
		if t == nil {
			t = &ambit.Tool{Name: e.Tool}
		}
		c := &ambit.ToolCall{Agent: agent, Tool: t, Args: e.Args}
		v := s.Decide(c, e.Spent.Facts(s, c))
		r := Result{Name: e.Name, Line: e.Line, Want: e.Want, Got: Outcome(v), Rule: v.Rule, Text: v.Reason.Text}
		if e.Rule != "" {
			r.Want += " by " + e.Rule
		}
		r.OK = r.Got == e.Want && (e.Rule == "" || ruled(v, e.Rule))
		all[i] = r
	}
	return all
}

// ruled reports whether the rule that decided, or one of those that ask, is or
// starts with prefix, so that an example need not know lines.
func ruled(v ambit.ToolVerdict, prefix string) bool {
	is := func(rule string) bool {
		rest, ok := strings.CutPrefix(rule, prefix)
		return ok && (rest == "" || rest[0] == ' ' || rest[0] == '.')
	}
	return is(v.Rule) || slices.ContainsFunc(v.Asks, func(a ambit.Ask) bool { return is(a.Rule) })
}

// ParseTools reads declarations of tools: a JSON list of ambit.Tool.
func ParseTools(src []byte) (map[string]*ambit.Tool, error) {
	var list []*ambit.Tool
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil {
		return nil, fmt.Errorf("reading the tools, a JSON list of tools: %w", err)
	}
	all := make(map[string]*ambit.Tool, len(list))
	for i, t := range list {
		switch {
		case t == nil || !cedartext.ToolName(t.Name):
			return nil, fmt.Errorf("reading the tools: entry %d has no fully qualified name in lower case, as shop.orders.get", i)
		case all[t.Name] != nil:
			return nil, fmt.Errorf("reading the tools: %s is there twice", t.Name)
		}
		all[t.Name] = t
	}
	return all, nil
}
