package tool

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cedar-policy/cedar-go"

	"ambit"
)

// A policy that panics denies.
func TestPanicDenies(t *testing.T) {
	s, err := Compile(Config{Tools: []Entry{{Label: "tools[0]", Tool: "a.b"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.byTool["a.b"] = append(s.byTool["a.b"], &rule{id: "policy9", policy: &cedar.Policy{}, kind: forbid})
	v := s.Decide(&ambit.ToolCall{Tool: &ambit.Tool{Name: "a.b", Effects: []ambit.Effect{"read"}}, Args: []byte(`{}`)}, Facts{})
	if v.Decision == ambit.Allow || len(v.Asks) > 0 || v.Reason.Code != CodePolicyError {
		t.Errorf("%+v", v)
	}
}

func TestConcurrentUse(t *testing.T) {
	s, err := Compile(Config{Role: "support", Tools: []Entry{{Label: "tools[0]", Tool: "a.b"}}, Cedar: `forbid (principal, action, resource) when { context.args has x };`})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if v := s.Decide(&ambit.ToolCall{Tool: &ambit.Tool{Name: "a.b", Effects: []ambit.Effect{"read"}}, Args: []byte(`{"y":[1,2]}`)}, Facts{}); v.Decision != ambit.Allow {
					t.Errorf("%+v", v)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzParse: what the reader of arguments takes, encoding/json reads the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,-2.5e3,"x\n\"",null,true,{}]}`, `{"a":{"a":{}},"b":[]}`, `{"é":"\u0001"}`, `{"a":01}`, `{"a":1.}`, `{"a" :1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseArgs([]byte(s))
		if err != nil {
			return
		}
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("%q is taken, and is no JSON: %v", s, err)
		}
		if got := plain(v); !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%q is read as %v, and as %v", s, got, want)
		}
	})
}

func plain(v value) any {
	switch v.kind {
	case text:
		return v.text
	case number:
		return json.Number(v.text)
	case truth:
		return v.text == "true"
	case list:
		all := make([]any, len(v.list))
		for i, item := range v.list {
			all[i] = plain(item)
		}
		return all
	case object:
		all := map[string]any{}
		for _, f := range v.fields {
			all[f.name] = plain(f.value)
		}
		return all
	}
	return nil
}
