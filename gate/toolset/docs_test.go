package toolset_test

import (
	"os"
	"strings"
	"testing"

	"ambit/gate/toolset"
	"ambit/internal/cedartext"
	"ambit/manifest"
	"ambit/policy/tool"
)

// What docs/policy.md shows is tried: its manifest with its tools and its
// examples, its Cedar, and its table of roles.
func TestManual(t *testing.T) {
	b, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	blocks := func(kind string) (all []string) {
		for _, block := range strings.Split(text, "```"+kind+"\n")[1:] {
			src, _, _ := strings.Cut(block, "```")
			all = append(all, src)
		}
		return all
	}
	yaml, json, cedar := blocks("yaml"), blocks("json"), blocks("cedar")
	if len(yaml) != 2 || len(json) != 1 || len(cedar) != 1 {
		t.Fatalf("%d, %d, %d blocks", len(yaml), len(json), len(cedar))
	}
	m, err := manifest.Parse("support.yaml", []byte(yaml[0]))
	if err != nil {
		t.Fatal(err)
	}
	s, err := toolset.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := toolset.ParseTools([]byte(json[0]))
	if err != nil {
		t.Fatal(err)
	}
	examples, err := toolset.ParseExamples("support.policy-test.yaml", []byte(yaml[1]))
	if err != nil || len(examples) < 5 {
		t.Fatal(err, len(examples))
	}
	for _, r := range toolset.Run(s, m.Name, tools, examples) {
		if !r.OK {
			t.Errorf("%+v", r)
		}
	}
	if unknown := toolset.Unknown(m, tools); len(unknown) > 0 {
		t.Error(unknown)
	}
	if _, err := cedartext.Parse(cedar[0]); err != nil {
		t.Error(err)
	}
	for _, name := range cedartext.ContextNames() {
		if !strings.Contains(text, "`context."+name+"`") {
			t.Errorf("context.%s is not explained", name)
		}
	}
	for _, role := range tool.Roles() {
		if !strings.Contains(text, "\n| `"+role+"` | ") {
			t.Errorf("the role %s is not explained", role)
		}
	}
}

// Bad files of examples and tools are refused with a place.
func TestBadFiles(t *testing.T) {
	for src, want := range map[string]string{
		"a: b":                                  "needs a list",
		"- {name: a, tool: A.b, want: allow}":   `"A.b" is not the name of a tool`,
		"- {name: a, tool: a.b, want: perhaps}": "write one of: allow, deny, ask",
		"- {name: a, tool: a.b}":                `"want" is missing`,
		"- {name: a, tool: a.b, want: deny}\n- {name: a, tool: a.b, want: deny}":           "as an example above",
		"- {name: a, tool: a.b, want: deny, facts: {spentDay: 5}}":                         "needs text",
		"- {name: a, tool: a.b, want: deny, facts: {spentDay: x}}":                         "is not an amount and a currency",
		"- {name: a, tool: a.b, want: deny, args: {a: null}}":                              "found nothing",
		"- {name: a, tool: a.b, want: deny, args: {a: " + strings.Repeat("[", 1000) + "}}": "nested more than",
		"- {name: a, tool: a.b, want: deny, args: {a: 1, a: 2}}":                           "is here twice",
	} {
		_, err := toolset.ParseExamples("x.yaml", []byte(src))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "x.yaml:") {
			t.Errorf("%q: %v, want %q", src, err, want)
		}
	}
	for _, src := range []string{"", "{}", "[null]", `[{"name":"A"}]`, `[{"name":"a.b"},{"name":"a.b"}]`, `[{"name":"a.b","efects":[]}]`, `[{"name":"a.b","effects":"read"}]`} {
		if got, err := toolset.ParseTools([]byte(src)); err == nil {
			t.Errorf("%q: %v", src, got)
		}
	}
}

func FuzzParseExamples(f *testing.F) {
	f.Add("- {name: a, tool: a.b, args: {x: [1, {y: true}]}, facts: {spentDay: [5 EUR]}, want: deny, rule: x}")
	f.Add("- name: a\n  tool: a.b\n  args: '{\"a\":1}'\n  want: ask\n")
	s, err := toolset.Compile(&manifest.Manifest{Tools: []manifest.Tool{{Tool: "a.b"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src string) {
		examples, err := toolset.ParseExamples("x.yaml", []byte(src))
		if err != nil {
			return
		}
		for _, r := range toolset.Run(s, "a", nil, examples) {
			if r.Got == "allow" {
				t.Errorf("%q allows what nobody declared", src)
			}
		}
	})
}
