package manifest

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The decoder, the schema and the manual have the same keys.
func TestKeysAreTheSameEverywhere(t *testing.T) {
	type object struct {
		Properties map[string]json.RawMessage
		Defs       map[string]json.RawMessage `json:"$defs"`
	}
	read := func(b []byte) (o object) {
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	manual, err := os.ReadFile("../docs/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	root := read(Schema())
	for _, c := range []struct {
		name   string
		keys   []string
		schema object
	}{
		{"root", rootKeys, root},
		{"computer", computerKeys, read(root.Properties["computer"])},
		{"egress", egressKeys, read(root.Properties["egress"])},
		{"rule", ruleKeys, read(root.Defs["rule"])},
		{"connection", connectionKeys, read(root.Defs["connection"])},
		{"upstream", upstreamKeys, read(root.Defs["upstream"])},
		{"alert", alertKeys, read(root.Defs["alert"])},
		{"audit", auditKeys, read(root.Properties["audit"])},
	} {
		if diff := cmp.Diff(slices.Sorted(slices.Values(c.keys)), slices.Sorted(maps.Keys(c.schema.Properties))); diff != "" {
			t.Errorf("%s: keys of the decoder (-) and of the schema (+):\n%s", c.name, diff)
		}
		for _, key := range c.keys {
			if !strings.Contains(string(manual), "\n| `"+key+"` | ") {
				t.Errorf("docs/manifest.md has no row for %s of %s", key, c.name)
			}
		}
	}
}

// Every whole manifest in the manual is read, and refusals it shows are real.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, block := range strings.Split(string(manual), "```yaml\n")[1:] {
		src, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(src, "ambit:") {
			read++
			if _, err := Parse("docs/manifest.md", []byte(src)); err != nil {
				t.Errorf("block %d:\n%v", i, err)
			}
		}
	}
	if read == 0 {
		t.Error("no manifest found")
	}
	var hots []byte
	for _, f := range archive(t, "refused.txtar").Files {
		if f.Name == "hots.yaml" {
			hots = f.Data
		}
	}
	_, err = Parse("support.yaml", hots)
	problems, ok := err.(Errors)
	if !ok || !strings.Contains(string(manual), problems[0].Error()+"\n"+problems[0].Excerpt()+"\n") {
		t.Errorf("the manual does not show\n%v", err)
	}
}
