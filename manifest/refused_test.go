package manifest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit/internal/strictyaml"
)

var update = flag.Bool("update", false, "rewrite testdata/refused.txtar with what the messages are now")

// archive reads a txtar archive of testdata.
func archive(t testing.TB, name string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// compiled is the published schema. It refers to nothing outside of itself, so
// that the compiler has no loader.
func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema())))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("manifest.v1.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("manifest.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, errors.New("refers to " + url) }

// schemaError is what an editor with the schema says about src.
func schemaError(s *jsonschema.Schema, src []byte) error {
	var doc any
	if err := yaml.Unmarshal(src, &doc); err != nil {
		return fmt.Errorf("reading YAML: %w", err)
	}
	j, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(j)))
	if err != nil {
		return fmt.Errorf("reading JSON: %w", err)
	}
	return s.Validate(v)
}

const schemaAccepts = "(only Ambit sees this; the schema accepts it)\n"

// Each X.yaml of the archive must give exactly the messages of X.want, and the
// schema must refuse it as well unless X.want says that it does not.
func TestRefused(t *testing.T) {
	a, schema := archive(t, "refused.txtar"), compiled(t)
	out := &txtar.Archive{Comment: a.Comment}
	want := map[string]string{}
	for _, f := range a.Files {
		if name, ok := strings.CutSuffix(f.Name, ".want"); ok {
			want[name] = string(f.Data)
		}
	}
	for _, f := range a.Files {
		name, ok := strings.CutSuffix(f.Name, ".yaml")
		if !ok {
			continue
		}
		t.Run(name, func(t *testing.T) {
			m, err := Parse(f.Name, f.Data)
			var problems Errors
			if !errors.As(err, &problems) || m != nil {
				t.Fatalf("Parse = %v, %v; want no manifest and Errors", m, err)
			}
			got := ""
			for _, e := range problems {
				got += e.Error() + "\n"
				if x := e.Excerpt(); x != "" {
					got += x + "\n"
				}
			}
			if schemaError(schema, f.Data) == nil {
				got += schemaAccepts
			}
			out.Files = append(out.Files, f, txtar.File{Name: name + ".want", Data: []byte(got)})
			if !*update {
				if diff := cmp.Diff(want[name], got); diff != "" {
					t.Errorf("messages differ (-want +got):\n%s", diff)
				}
			}
		})
	}
	if *update {
		if err := os.WriteFile("testdata/refused.txtar", txtar.Format(out), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// What cannot stand in an archive of text.
func TestRefusedBytes(t *testing.T) {
	const head = "ambit: v1\nname: a\n"
	for _, c := range []struct{ name, src, want string }{
		{"empty", "", `m.yaml:1:1: the file is empty; a manifest starts with "ambit: v1"`},
		{"only a mark", "\uFEFF", `m.yaml:1:1: the file is empty; a manifest starts with "ambit: v1"`},
		{"too large", head + strings.Repeat("#", MaxSize), `m.yaml:1:1: the file has 1048594 bytes, more than the 1048576 (1 MiB) that a manifest may have; use wildcards to write fewer rules`},
		{"binary", "\x7fELF\x02", `m.yaml:1:1: character U+007F may not be in a manifest; remove it; it changes how the file is shown`},
		{"not UTF-8", "ambit: v1\nname: caf\xe9\n", `m.yaml:2:10: byte 0xe9 is not UTF-8 text; save the file as UTF-8`},
		{"UTF-16", "a\x00m\x00", `m.yaml:1:2: character U+0000 may not be in a manifest; remove it; it changes how the file is shown`},
		{"escape", head + "description: \x1b[2J\n", `m.yaml:3:14: character U+001B may not be in a manifest; remove it; it changes how the file is shown`},
		{"lone carriage return", head + "# a\rcomputer: {}\n", `m.yaml:3:4: character U+000D may not be in a manifest; remove it; it changes how the file is shown`},
		{"Trojan Source", head + "# \u202e\n", `m.yaml:3:3: character U+202E may not be in a manifest; remove it; it changes how the file is shown`},
		{"line separator", head + "# \u2028\n", `m.yaml:3:3: character U+2028 may not be in a manifest; remove it; it changes how the file is shown`},
		{"deep flow", head + "computer: " + strings.Repeat("[", 100_000), `m.yaml:3:26: nested more than 16 deep; no key of a manifest is that deep`},
		{"deep block", strings.Repeat("- ", 100_000), `m.yaml:1:33: nested more than 16 deep; no key of a manifest is that deep`},
		{"deep keys", deepKeys(100), `m.yaml:17:18: nested more than 16 deep; no key of a manifest is that deep`},
		{"many keys", manyKeys(2000), `m.yaml:1025:6: more than 1024 keys in one mapping; use a list`},
		{"many flow keys", "{" + strings.Repeat("a: b,", 2000) + "}", `m.yaml:1:5126: more than 1024 keys in one mapping; use a list`},
		{"keys without commas", "[\n" + strings.Repeat("a: b\n", 2000) + "]", `m.yaml:1026:2: more than 1024 keys in one mapping; use a list`},
		{"empty entries", strings.Repeat("-\n", 300), `m.yaml:258:1: more than 256 keys or list entries have no value; remove them`},
		{"empty values", strings.Repeat("- a:\n  b:\n", 300), `m.yaml:258:3: more than 256 keys or list entries have no value; remove them`},
		{"empty flow values", "[" + strings.Repeat("{a},", 300) + "]", `m.yaml:1:1028: more than 256 keys or list entries have no value; remove them`},
		{"many documents", strings.Repeat("--- a\n", 100), `m.yaml:2:1: a second document starts here; put each agent into a file of its own`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("m.yaml", []byte(c.src))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func deepKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
	}
	return b.String()
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	return b.String()
}

// C5: names, keys and values with terminal escapes, line breaks and marks that
// turn the direction of writing are inert in every message.
func TestC5MessagesAreInert(t *testing.T) {
	const evil = `\x1b]0;owned\x07\n\r\u202e\u0000=cmd|' /C calc'!A0<script>`
	src := `ambit: "` + evil + `"
name: "` + evil + `"
"` + evil + `": 1
description: "` + evil + `"
computer: {image: "` + evil + `", command: ["` + evil + `"], env: {"` + evil + `": "` + evil + `"}, workdir: "` + evil + `", memory: "` + evil + `", restart: "` + evil + `"}
egress:
  intent: "` + evil + `"
  allow:
    - {host: "` + evil + `", methods: ["` + evil + `"], paths: ["` + evil + `", "/` + evil + `"], query: {"` + evil + `": "` + evil + `"}, headers: {"` + evil + `": 1, A: "` + evil + `"}, tls: "` + evil + `", resolve: ["` + evil + `"], ca: "` + evil + `"}
audit: {retention: "` + evil + `"}
`
	_, err := Parse("\x1b[31m\n\u202e.yaml", []byte(src))
	var problems Errors
	if !errors.As(err, &problems) || len(problems) != strictyaml.MaxErrors {
		t.Fatalf("%d problems, want %d:\n%v", len(problems), strictyaml.MaxErrors, err)
	}
	for _, e := range problems {
		for _, s := range []string{e.Error(), e.Path, e.Text, e.Hint, e.Source} {
			for _, r := range s {
				if !unicode.IsPrint(r) {
					t.Errorf("%U in %q", r, s)
				}
			}
		}
	}
}

func TestErrorsAreSortedAndBounded(t *testing.T) {
	src := "ambit: v1\nname: a\negress:\n  allow:\n" + strings.Repeat("    - hots: x\n", 1000)
	_, err := Parse("m.yaml", []byte(src))
	var problems Errors
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	if len(problems) != strictyaml.MaxErrors {
		t.Fatalf("%d problems, want %d", len(problems), strictyaml.MaxErrors)
	}
	if got, want := problems[strictyaml.MaxErrors-1].Error(), "m.yaml:24:7: 981 more problems from here on are not shown; repair those above first"; got != want {
		t.Errorf("last line is\n%s\nwant\n%s", got, want)
	}
	for i := 1; i < len(problems); i++ {
		if problems[i].Line < problems[i-1].Line {
			t.Errorf("line %d after line %d", problems[i].Line, problems[i-1].Line)
		}
	}
	var first *Error
	if !errors.As(err, &first) || first != problems[0] {
		t.Errorf("errors.As finds %v", first)
	}
}

// A long line is shown around the place and no further.
func TestExcerptOfLongLine(t *testing.T) {
	src := "ambit: v1\nname: a\negress: {allow: [" + strings.Repeat("{host: a},", 50_000) + "{hots: a}]}\n"
	_, err := Parse("m.yaml", []byte(src))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	lines := strings.Split(e.Excerpt(), "\n")
	if len(lines) != 2 || len(lines[0]) > 120 {
		t.Fatalf("excerpt is\n%s", e.Excerpt())
	}
	if at := strings.Index(lines[1], "^"); !strings.HasPrefix(lines[0][at:], "hots: a}") {
		t.Errorf("the caret does not point at the key:\n%s", e.Excerpt())
	}
}
