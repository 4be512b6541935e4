package outputs

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit"
)

func manual(t *testing.T) (text, example string) {
	t.Helper()
	b, err := os.ReadFile("../../../docs/outputs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```yaml\n")
	example, _, _ = strings.Cut(rest, "```")
	return string(b), example
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("outputs.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("outputs.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, src string) error {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(src))
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

func TestManual(t *testing.T) {
	_, example := manual(t)
	c, err := Parse("docs/outputs.md", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if err := valid(t, schema(t), example); err != nil {
		t.Error(err)
	}
	want := Sink{Line: 23, Name: "lake", Kind: S3, OCSF: true, Control: true, URL: "https://s3.eu-central-1.amazonaws.com", SecretFile: "/etc/ambit/s3.secret",
		Bucket: "acme-audit", Prefix: "ambit/prod", Region: "eu-central-1", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Every: 5 * time.Minute}
	if d := cmp.Diff(want, c.Sinks[4]); d != "" {
		t.Error(d)
	}
	if len(c.Sinks) != 6 || !c.Sinks[5].Block || c.Sinks[5].MaxSize != 200<<20 || c.Sinks[3].Control || c.Sinks[3].Agents[0] != "support" || c.Sinks[0].MessageSize != 8192 || c.Sinks[0].Facility != 13 {
		t.Errorf("%+v", c.Sinks)
	}
	if c.Heads.Every != time.Hour || len(c.Witnesses) != 1 || c.Notify[0].Severity != ambit.Critical || c.Notify[1].Severity != ambit.Info || c.Notify[1].SMTP != "starttls" || len(c.Notify[1].Codes) != 3 {
		t.Errorf("%+v %+v", c.Heads, c.Notify)
	}
}

// The decoder, the schema and the manual have the same keys.
func TestKeysAreTheSameEverywhere(t *testing.T) {
	text, _ := manual(t)
	var root struct {
		Properties map[string]any
		Defs       map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	check := func(name string, keys []string, have map[string]any) {
		if d := cmp.Diff(slices.Sorted(slices.Values(keys)), slices.Sorted(maps.Keys(have))); d != "" {
			t.Errorf("%s: keys of the decoder (-) and of the schema (+):\n%s", name, d)
		}
		for _, key := range keys {
			if name != "root" && !strings.Contains(text, "\n| `"+key+"` | ") {
				t.Errorf("docs/outputs.md has no row for %s of %s", key, name)
			}
		}
	}
	check("root", rootKeys, root.Properties)
	check("tls", tlsKeys, root.Defs["tls"].Properties)
	check("witness", witnessKeys, root.Defs["witness"].Properties)
	check("heads", headsKeys, root.Defs["heads"].Properties)
	check("notify-webhook", notifyKeys(false), root.Defs["notify-webhook"].Properties)
	check("notify-email", notifyKeys(true), root.Defs["notify-email"].Properties)
	for _, k := range kinds() {
		check(k, append(slices.Clone(commonKeys), ownKeys(Kind(k))...), root.Defs["sink-"+k].Properties)
	}
}

const head = "ambit: v1\nsinks:\n  - {name: a, kind: "

func TestRefused(t *testing.T) {
	s := schema(t)
	for src, want := range map[string]struct {
		text   string
		schema bool // a schema refuses it too
	}{
		"sinks: []":                                          {`the key "ambit" is missing`, true},
		head + "file, path: /a, paht: /b}":                   {`:3:37: sinks[0].paht: unknown key "paht"; did you mean "path"?`, true},
		head + "kafka}":                                      {"is no kind that there is", true},
		head + "fil, path: /a}":                              {`did you mean "file"?`, true},
		"ambit: v1\nsinks:\n  - {name: a}":                   {`the key "kind" is missing`, true},
		head + "file}":                                       {`the key "path" is missing`, true},
		head + "file, path: a/b}":                            {"is no absolute path", true},
		head + "file, path: /a/../b}":                        {"is no absolute path", false},
		head + "file, path: /a, url: 'https://example.com'}": {`unknown key "url"`, true},
		head + "file, path: /a}\n  - {name: a, kind: file, path: /b}": {`is called "a", as is the one on line 3`, false},
		head + "file, path: /a, max-size: 1KiB}":                      {"needs a size", false},
		head + "file, path: /a, max-age: 1}":                          {"needs a number and s, m, h or d", true},
		head + "file, path: /a, keep: -1}":                            {"needs a whole number", true},
		head + "file, path: /a, agents: []}":                          {"is empty", true},
		head + "file, path: /a, agents: [A]}":                         {"is no name", true},
		head + "file, path: /a, when-down: drop}":                     {"is no value of this key", true},
		head + "file, path: /a, secret-file: /b}":                     {"unknown key", true},
		head + "syslog}": {`the key "address" is missing`, true},
		head + "syslog, address: siem.example.com:514}":                                                                                            {"is no address of syslog", true},
		head + "syslog, address: udp://siem.example.com:514}":                                                                                      {"is no address of syslog", true},
		head + "syslog, address: tcp://siem.example.com:514}":                                                                                      {"in the clear", false},
		head + "syslog, address: tcp://127.0.0.1:514, tls: {ca: /a}}":                                                                              {"has no use", false},
		head + "syslog, address: tls://siem.example.com:6514, tls: {cert: /a}}":                                                                    {"needs cert and key", true},
		head + "syslog, address: tls://siem.example.com:6514, tls: {}}":                                                                            {"is empty", true},
		head + "splunk, url: 'https://example.com'}":                                                                                               {`the key "secret-file" is missing`, true},
		head + "splunk, url: 'http://example.com', secret-file: /a}":                                                                               {"in the clear", false},
		head + "splunk, url: 'https://user:pass@example.com', secret-file: /a}":                                                                    {"where secrets are", true},
		head + "splunk, url: 'https://example.com/?token=a', secret-file: /a}":                                                                     {"where secrets are", true},
		head + "splunk, url: 'ftp://example.com', secret-file: /a}":                                                                                {"is no URL of https", true},
		head + "splunk, url: 'https://example.com', secret-file: /a, token: x}":                                                                    {"unknown key", true},
		head + "otlp, url: 'https://example.com', header: X-Key}":                                                                                  {"has no use without secret-file", false},
		head + "otlp, url: 'https://example.com', secret-file: /a, header: Host}":                                                                  {"has already", false},
		head + "s3, url: 'https://example.com', secret-file: /a, bucket: A_B, access-key-id: abc}":                                                 {"is no name of a bucket", true},
		head + "s3, url: 'https://example.com', secret-file: /a, bucket: abc}":                                                                     {`the key "access-key-id" is missing`, true},
		head + "s3, url: 'https://e.com', secret-file: /a, bucket: abc, access-key-id: abc, prefix: /}":                                            {"is no prefix", true},
		"ambit: v1\nwitnesses:\n  - {name: a, key: nonsense, url: 'https://w.example/'}":                                                           {"is no verifier key", true},
		"ambit: v1\nwitnesses:\n  - {name: a, key: PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW, url: 'https://w.example/'}": {"its hash is not that of its name", false},
		"ambit: v1\nheads: {every: 1h}":                                                                                                            {"nowhere to publish", true},
		"ambit: v1\nnotify:\n  - {name: a, kind: webhook, url: 'https://e.com'}":                                                                   {`the key "secret-file" is missing`, true},
		"ambit: v1\nnotify:\n  - {name: a, kind: sms}":                                                                                             {"is no kind", true},
		"ambit: v1\nnotify:\n  - {name: a, kind: email, address: 'mail.example.com:25', from: a@b.c, to: [a@b.c], smtp: none}":                     {"in the clear", false},
		"ambit: v1\nnotify:\n  - {name: a, kind: email, address: 'mail.example.com:25', from: a@b.c, to: [a@b.c], user: u}":                        {"needs user and secret-file", false},
		"ambit: v1\nnotify:\n  - {name: a, kind: email, address: 'mail.example.com:25', from: 'A <a@b.c>', to: [a@b.c]}":                           {"is no plain e-mail address", true},
	} {
		_, err := Parse("outputs.yaml", []byte(src))
		if err == nil || !strings.Contains(err.Error(), want.text) || !strings.HasPrefix(err.Error(), "outputs.yaml:") {
			t.Errorf("%s\nwant %q, got %v", src, want.text, err)
		}
		if bad := valid(t, s, src) != nil; bad != want.schema {
			t.Errorf("%s\nthe schema refuses it: %v", src, bad)
		}
	}
}

func TestPlainIsAllowed(t *testing.T) {
	for _, src := range []string{
		head + "syslog, address: tcp://127.0.0.1:514}", head + "syslog, address: 'tcp://[::1]:514'}", head + "syslog, address: tcp://localhost:514}",
		head + "syslog, address: tcp://10.0.0.1:514, insecure: true}", head + "otlp, url: 'http://localhost:4318/v1/logs'}",
		head + "webhook, url: 'http://siem.example.com/', secret-file: /a, insecure: true}",
	} {
		if _, err := Parse("outputs.yaml", []byte(src)); err != nil {
			t.Errorf("%s: %v", src, err)
		}
		if err := valid(t, schema(t), src); err != nil {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s, err := ReadSecret(path("good", " token\n\n", 0o600))
	if err != nil || string(s.Reveal()) != "token" {
		t.Errorf("%v %q", err, s.Reveal())
	}
	if _, err := ReadSecret(path("read only", "token", 0o400)); err != nil {
		t.Error(err)
	}
	for name, p := range map[string]string{
		"group":   path("group", "canary-token", 0o640),
		"world":   path("world", "canary-token", 0o604),
		"empty":   path("empty", " \n", 0o600),
		"control": path("control", "canary-token\x00", 0o600),
		"large":   path("large", strings.Repeat("canary-token", 10000), 0o600),
		"folder":  dir,
		"missing": filepath.Join(dir, "none"),
	} {
		if _, err := ReadSecret(p); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("../../../docs/outputs.md")
	if err != nil {
		f.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	f.Add([]byte(example))
	f.Add([]byte(head + "file, path: /a}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse("outputs.yaml", src)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\r\x00") {
			t.Fatalf("%q", err)
		}
	})
}
