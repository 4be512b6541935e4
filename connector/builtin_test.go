package connector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit/internal/secretbytes"
)

func builtin(t testing.TB) *Catalog {
	t.Helper()
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What the issue promises is shipped.
func TestBuiltinHasWhatIsPromised(t *testing.T) {
	want := []string{
		"anthropic", "basic", "bearer", "github", "gitlab", "gmail", "google-drive", "header", "hmac", "hubspot", "linear", "login", "mtls",
		"notion", "oauth2", "openai", "openrouter", "query", "s3", "shopify", "sigv4", "slack", "stripe", "zendesk",
	}
	if diff := cmp.Diff(want, builtin(t).names()); diff != "" {
		t.Error(diff)
	}
}

func TestShippedFiles(t *testing.T) {
	schema := compiled(t)
	manual, err := os.ReadFile("../docs/connectors.md")
	if err != nil {
		t.Fatal(err)
	}
	key := secretbytes.New([]byte("0123456789abcdef0123456789abcdef"))
	for _, c := range builtin(t).List() {
		t.Run(c.Name, func(t *testing.T) {
			if c.File != c.Name+".yaml" || !c.Builtin {
				t.Errorf("it is in %s, built in: %v", c.File, c.Builtin)
			}
			src, err := shipped.ReadFile("catalog/" + c.File)
			if err != nil {
				t.Fatal(err)
			}
			if err := schemaError(schema, src); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			if !strings.Contains(string(manual), "\n| `"+c.Name+"` | ") {
				t.Error("docs/connectors.md has no row for it")
			}
			for _, r := range c.references {
				ref := r.Shape.Derive(key, c.Name, r.Secret)
				s := c.secret(r.Secret)
				if !r.Shape.Match(ref) {
					t.Errorf("the reference of %s, %q, does not match its own shape", r.Secret, ref)
				}
				if s.Check != nil && s.Kind == Text && !s.Public && !s.Check.MatchString(ref) {
					t.Errorf("the reference of %s, %q, does not look like what it stands for: %s", r.Secret, ref, s.Check)
				}
			}
			seen := map[string]bool{}
			for _, e := range c.env {
				if seen[e.Name] {
					t.Errorf("the variable %s is there twice", e.Name)
				}
				seen[e.Name] = true
			}
		})
	}
}

// The decoder, the schema and the manual have the same keys.
func TestKeysAreTheSameEverywhere(t *testing.T) {
	type object struct {
		Properties           map[string]object
		AdditionalProperties json.RawMessage
		Items                json.RawMessage
		Defs                 map[string]object `json:"$defs"`
		AnyOf                []object
	}
	inner := func(raw json.RawMessage) (o object) {
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	var root object
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	auth, way := root.Defs["auth"].Properties, root.Defs["way"].Properties
	manual, err := os.ReadFile("../docs/connectors.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		keys []string
		in   map[string]object
	}{
		{"root", rootKeys(), root.Properties},
		{"account", accountKeys(), root.Properties["account"].Properties},
		{"host", hostKeys(), inner(root.Properties["hosts"].Items).AnyOf[1].Properties},
		{"secret", secretKeys(), inner(root.Properties["secrets"].AdditionalProperties).Properties},
		{"pin", pinKeys(), inner(root.Properties["pins"].AdditionalProperties).Properties},
		{"narrow", narrowKeys(), root.Defs["narrow"].Properties},
		{"foreign", foreignKeys(), root.Properties["foreign"].Properties},
		{"subject", subjectKeys(), inner(root.Properties["subjects"].Items).Properties},
		{"auth", authKeys(), auth},
		{"basic", basicKeys(), auth["basic"].Properties},
		{"login", loginKeys(), auth["login"].Properties},
		{"hmac", hmacKeys(), auth["hmac"].Properties},
		{"sigv4", sigv4Keys(), auth["sigv4"].Properties},
		{"mtls", mtlsKeys(), auth["mtls"].Properties},
		{"way", wayKeys(), way},
		{"oauth", oauthKeys(), way["oauth"].Properties},
		{"google", googleKeys(), way["google"].Properties},
		{"github", githubKeys(), way["github"].Properties},
		{"revoke", revokeKeys(), way["revoke"].Properties},
		{"tool", toolKeys(), root.Defs["tool"].Properties},
		{"argument", argumentKeys(), root.Defs["argument"].Properties},
		{"amount", amountKeys(), root.Defs["tool"].Properties["amount"].Properties},
		{"request", requestKeys(), root.Defs["tool"].Properties["request"].Properties},
		{"before", beforeKeys(), root.Defs["tool"].Properties["request"].Properties["before"].Properties},
		{"result", resultKeys(), root.Defs["tool"].Properties["result"].Properties},
	} {
		if diff := cmp.Diff(slices.Sorted(slices.Values(c.keys)), slices.Sorted(maps.Keys(c.in))); diff != "" {
			t.Errorf("%s: keys of the decoder (-) and of the schema (+):\n%s", c.name, diff)
		}
		for _, key := range c.keys {
			if !strings.Contains(string(manual), "`"+key+"`") {
				t.Errorf("docs/connectors.md does not say what %s of %s is", key, c.name)
			}
		}
	}
}

// The connector that the manual shows is read.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../docs/connectors.md")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, block := range strings.Split(string(manual), "```yaml\n")[1:] {
		src, _, _ := strings.Cut(block, "```")
		if strings.HasPrefix(src, "connector:") {
			read++
			if _, err := parse("manual.yaml", []byte(src)); err != nil {
				t.Errorf("block %d:\n%v", i, err)
			}
			if err := schemaError(compiled(t), []byte(src)); err != nil {
				t.Errorf("block %d: the schema refuses it: %v", i, err)
			}
		}
	}
	if read == 0 {
		t.Error("no connector found")
	}
}

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema())))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("connector.v1.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("connector.v1.json")
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

// FuzzParse holds: no panic; whatever is accepted the schema accepts; nothing
// that is accepted sends a credential to an address.
func FuzzParse(f *testing.F) {
	files, err := fs.Glob(shipped, "catalog/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		src, err := shipped.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, c := range refusedFiles() {
		if len(c.src) < MaxSize { // shrinking one that is large takes a minute
			f.Add([]byte(c.src))
		}
	}
	schema := compiled(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := parse("f.yaml", src)
		if err != nil {
			var problems Errors
			if !errors.As(err, &problems) || len(problems) == 0 || c != nil {
				t.Fatalf("parse = %v, %v", c, err)
			}
			return
		}
		if err := schemaError(schema, src); err != nil {
			t.Errorf("parse accepts what the schema refuses: %v", err)
		}
		for _, h := range c.hosts {
			if strings.ContainsAny(string(h.host), "/:@ ") {
				t.Errorf("a host is %q", h.host)
			}
		}
		if len(c.ways) == 0 || len(c.auth) == 0 || !namePattern.MatchString(c.Name) {
			t.Errorf("a connector is called %q and has %d ways, %d auth", c.Name, len(c.ways), len(c.auth))
		}
	})
}
