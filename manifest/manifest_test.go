package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ambit"
	"ambit/internal/strictyaml"
)

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func mustParse(t testing.TB, src string) *Manifest {
	t.Helper()
	m, err := Parse("m.yaml", []byte(src))
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	return m
}

func TestDefaults(t *testing.T) {
	for _, src := range []string{
		"ambit: v1\nname: a\n",
		"\uFEFF---\r\nambit: v1\r\nname: a\r\n...\r\n",
		"{ambit: v1, 'name': \"a\", computer: {}, egress: {}, audit: {}, description: ''}",
		"ambit: v1\nname: a\negress: {allow: []}\ncomputer: {command: [], env: {}}\n",
	} {
		m := mustParse(t, src)
		if len(m.Computer.Env) == 0 {
			m.Computer.Env = nil
		}
		want := &Manifest{
			Name: "a",
			Computer: Computer{
				Image: Image{Kind: ImageHost}, Workdir: "/workspace", Memory: 1 << 30, CPUs: 1,
				Processes: 256, Disk: 2 << 30, Restart: "on-failure",
			},
			Egress: Egress{Intent: "optional"},
			Audit:  Audit{Retention: 90 * Day},
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("%q (-want +got):\n%s", src, diff)
		}
	}
}

const everything = `ambit: v1
name: a-1
description: >-
  Ünïcode, and
  folded.
computer:
  image: registry.example:5000/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  command: [sh, -c, "echo \u001b[1m\n", ""]
  env: {LANG: C.UTF-8, empty: ""}
  workdir: /srv/app
  memory: 65536KiB
  cpus: 0.5
  processes: 32768
  disk: 1TiB
  restart: never
connectors:
  - name: github
    pin: {owner: acme, repo: [site, docs]}
  - name: bearer
    as: internal
    account: team.one
    hosts: ["*.corp.example"]
    ports: [8443]
    methods: [GET]
    paths: [/v1/**]
    private: true
    resolve: [10.0.0.7]
    require: false
egress:
  intent: required
  allow:
    - name: one
      host: "*.example.com"
      ports: [443, 8443]
      methods: [GET, M-SEARCH]
      paths: [/, /v1/**, "/a*/b", "/%C3%BC", /x%2Fy]
      query: {page: "1", "weird key": [a, ""]}
      headers: {x-shop: acme, Accept: [a, b]}
      websocket: true
    - host: "2606:4700::1111"
    - {host: localhost, tls: none, private: true, resolve: ["127.0.0.1", "::1"]}
    - {host: 10.0.0.7, private: true, ports: [8080]}
    - host: pinned.example
      tls: passthrough
alerts:
  - {name: deletes, methods: [DELETE], severity: high}
  - name: everything
    severity: critical
    kinds: [egress.request]
    decision: allow
    hosts: [api.example.com, "*.example.org"]
    methods: [POST]
    paths: [/v1/**]
    effects: [write, spend]
    connections: [github]
    principals: [agent]
    intent: missing
    count: 5
    within: 10m
    per: connection
  - {name: tools, tools: ["shop/*"], codes: [pin-not-met], per: agent, severity: "off"}
  - {name: failing, status: 500-599, hosts: [api.example.com]}
  - {name: gone, kinds: [egress.outcome], status: 410}
  - {name: new, effects: [spend], first: tool}
  - {name: first-host, severity: off}
  - {name: repeated-denials, count: 50, within: 24h, severity: low}
audit:
  retention: 2y
`

func severity(s ambit.Severity) *ambit.Severity { return &s }

func TestEverything(t *testing.T) {
	want := &Manifest{
		Name: "a-1", Description: "Ünïcode, and folded.",
		Computer: Computer{
			Image:   Image{Kind: ImageOCI, Ref: "registry.example:5000/team/app@sha256:" + strings.Repeat("0123456789abcdef", 4)},
			Command: []string{"sh", "-c", "echo \x1b[1m\n", ""}, Env: map[string]string{"LANG": "C.UTF-8", "empty": ""},
			Workdir: "/srv/app", Memory: 64 * MiB, CPUs: 0.5, Processes: 32768, Disk: TiB, Restart: RestartNever,
		},
		Connectors: []Connection{
			{Index: 0, Line: 17, Name: "github", As: "github", Pins: map[string][]string{"owner": {"acme"}, "repo": {"site", "docs"}}, Require: true},
			{
				Index: 1, Line: 19, Name: "bearer", As: "internal", Account: "team.one", Hosts: []string{"*.corp.example"}, Ports: []uint16{8443},
				Methods: []string{"GET"}, Paths: []string{"/v1/**"}, Private: true, Resolve: []netip.Addr{netip.MustParseAddr("10.0.0.7")},
			},
		},
		Egress: Egress{Intent: IntentRequired, Allow: []Rule{
			{
				Index: 0, Line: 32, Name: "one", Host: "*.example.com", Ports: []uint16{443, 8443}, Methods: []string{"GET", "M-SEARCH"},
				Paths:   []string{"/", "/v1/**", "/a*/b", "/%C3%BC", "/x%2Fy"},
				Query:   map[string][]string{"page": {"1"}, "weird key": {"a", ""}},
				Headers: map[string][]string{"X-Shop": {"acme"}, "Accept": {"a", "b"}},
				TLS:     TLSTerminate, WebSocket: true,
			},
			{Index: 1, Line: 40, Host: "2606:4700::1111", Ports: []uint16{443}, TLS: TLSTerminate},
			{Index: 2, Line: 41, Host: "localhost", Ports: []uint16{80}, TLS: TLSNone, Private: true, Resolve: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}},
			{Index: 3, Line: 42, Host: "10.0.0.7", Ports: []uint16{8080}, TLS: TLSTerminate, Private: true},
			{Index: 4, Line: 43, Host: "pinned.example", Ports: []uint16{443}, TLS: TLSPassthrough},
		}},
		Alerts: []Alert{
			{Index: 0, Line: 46, Name: "deletes", Severity: severity(ambit.High), Kinds: []ambit.Kind{"egress.request"}, Methods: []string{"DELETE"}, Per: "host"},
			{
				Index: 1, Line: 47, Name: "everything", Severity: severity(ambit.Critical), Kinds: []ambit.Kind{"egress.request"}, Decision: "allow",
				Hosts: []string{"api.example.com", "*.example.org"}, Methods: []string{"POST"}, Paths: []string{"/v1/**"}, Effects: []ambit.Effect{"write", "spend"},
				Connections: []string{"github"}, Principals: []ambit.Principal{"agent"}, IntentMissing: true, Count: 5, Within: 10 * time.Minute, Per: "connection",
			},
			{Index: 2, Line: 61, Name: "tools", Off: true, Kinds: []ambit.Kind{"tool.call"}, Tools: []string{"shop/*"}, Codes: []string{"pin-not-met"}, Per: "agent"},
			{Index: 3, Line: 62, Name: "failing", Kinds: []ambit.Kind{"egress.outcome"}, Hosts: []string{"api.example.com"}, StatusFrom: 500, StatusTo: 599, Per: "host"},
			{Index: 4, Line: 63, Name: "gone", Kinds: []ambit.Kind{"egress.outcome"}, StatusFrom: 410, StatusTo: 410, Per: "host"},
			{Index: 5, Line: 64, Name: "new", Kinds: []ambit.Kind{"tool.call"}, Effects: []ambit.Effect{"spend"}, Per: "host", First: "tool"},
			{Index: 6, Line: 65, Name: "first-host", Builtin: true, Off: true},
			{Index: 7, Line: 66, Name: "repeated-denials", Builtin: true, Severity: severity(ambit.Low), Count: 50, Within: 24 * time.Hour},
		},
		Audit: Audit{Retention: 730 * Day},
	}
	if diff := cmp.Diff(want, mustParse(t, everything), compareAddr, cmpopts.IgnoreUnexported(Connection{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := schemaError(compiled(t), []byte(everything)); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
}

// A certificate of an authority is kept as it was written.
func TestCertificates(t *testing.T) {
	pem, err := os.ReadFile("testdata/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	indent := func(by string) string {
		return by + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n"+by) + "\n"
	}
	src := "ambit: v1\nname: a\ncomputer:\n  image: localhost:5000/app@sha256:" + strings.Repeat("ab", 32) +
		"\n  registryCA: |\n" + indent("    ") + "egress:\n  allow:\n    - host: a.example\n      ca: |\n" + indent("        ") + indent("        ")
	m := mustParse(t, src)
	if m.Computer.RegistryCA != string(pem) {
		t.Errorf("registryCA is %q", m.Computer.RegistryCA)
	}
	if got := m.Egress.Allow[0].CA; got != string(pem)+string(pem) {
		t.Errorf("ca is %q", got)
	}
	if err := schemaError(compiled(t), []byte(src)); err != nil {
		t.Errorf("the schema refuses it: %v", err)
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("examples are %v, %v", files, err)
	}
	schema := compiled(t)
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f, src); err != nil {
			t.Errorf("refused:\n%v", err)
		}
		if err := schemaError(schema, src); err != nil {
			t.Errorf("the schema refuses %s: %v", f, err)
		}
	}
}

func TestImageString(t *testing.T) {
	for _, s := range []string{"host", "dir:/srv/root", "localhost/a@sha256:" + strings.Repeat("0", 64)} {
		if text, _ := checkImage(s); text != "" {
			t.Errorf("%q: %s", s, text)
		}
		if got := parseImage(s).String(); got != s {
			t.Errorf("%q comes out as %q", s, got)
		}
	}
	if got := (Image{}).String(); got != "" {
		t.Errorf("the zero Image is %q", got)
	}
}

func TestQuantities(t *testing.T) {
	for got, want := range map[string]string{
		Bytes(0).String(): "0B", (1536 * MiB).String(): "1536MiB", (2 * TiB).String(): "2TiB", Bytes(1000).String(): "1000B",
		DefaultRetention.String(): "90d", Forever.String(): "forever", (14 * Day).String(): "14d",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	m := mustParse(t, "ambit: v1\nname: a\naudit: {retention: forever}\n")
	if m.Audit.Retention != Forever {
		t.Errorf("retention is %v", m.Audit.Retention)
	}
}

func TestLabel(t *testing.T) {
	m := mustParse(t, "ambit: v1\nname: a\negress:\n  allow:\n    - host: a\n    - {host: b,\n       name: track}\n    -\n      name: last\n      host: c\n")
	var got []string
	for i := range m.Egress.Allow {
		got = append(got, m.Egress.Allow[i].Label())
	}
	want := []string{"egress.allow[0] (line 5)", `egress.allow[1] "track" (line 6)`, `egress.allow[2] "last" (line 9)`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The largest manifests there can be are read. Whatever takes the parser
// quadratic time takes minutes here and fails the test run.
func TestLarge(t *testing.T) {
	fill := func(head, unit, tail string) string {
		return head + strings.Repeat(unit, (MaxSize-len(head)-len(tail))/len(unit)) + tail
	}
	some := func(head, unit, tail string) string { return head + strings.Repeat(unit, 20_000) + tail }
	const head = "ambit: v1\nname: a\n"
	t.Run("a hundred thousand rules", func(t *testing.T) {
		m := mustParse(t, "{ambit: v1,name: a,egress: {allow: ["+strings.Repeat("{host: a},", 100_000)+"]}}")
		if n := len(m.Egress.Allow); n != 100_000 || m.Egress.Allow[n-1].Host != "a" || m.Egress.Allow[n-1].Index != n-1 {
			t.Errorf("%d rules", n)
		}
	})
	for name, src := range map[string]string{
		"block rules":     fill(head+"egress:\n  allow:\n", "  - host: a\n    private: true\n", ""),
		"comments":        fill(head, "# a\n", ""),
		"blank lines":     fill(head, "\n", ""),
		"one rule, paths": fill(head+"egress: {allow: [{host: a, paths: [", "/a,", "]}]}"),
	} {
		t.Run(name, func(t *testing.T) { mustParse(t, src) })
	}
	for name, src := range map[string]string{
		"wrong rules":       fill(head+"egress: {allow: [", "{hots: 1},", "]}"),
		"scalars":           some(head+"egress: {allow: [", "a,", "]}"),
		"aliases":           some(head+"egress: {allow: [", "*a,", "]}"),
		"keys":              fill(head, "k: v\n", ""),
		"same keys in flow": some("{", "k: v,", "}"),
		"dashes":            fill(head+"egress:\n  allow:\n", "  -\n", ""),
		"dashes in a row":   some("", "- ", ""),
		"empty values":      fill(head+"egress:\n  allow:\n", "  - host:\n", ""),
		"flow keys":         fill("[", "{a},", "]"),
		"brackets":          some("", "[", ""),
		"open quote":        some(head+"description: \"", "a\n", ""),
		"plain lines":       some(head+"description: a", "\n a", ""),
		"literal":           some(head+"description: |\n", " a\n", ""),
		"escapes":           some(head+"description: \"", `\n`, "\""),
		"documents":         some("", "---\n", ""),
		"questions":         some("", "? ", ""),
		"anchors":           some(head+"egress: {allow: [", "&a b,", "]}"),
		"tags":              some(head+"egress: {allow: [", "!a b,", "]}"),
		"colons":            some("", "a: ", ""),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("m.yaml", []byte(src)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// FuzzParse holds: no panic; at most 20 problems, in order, in printable text;
// and what Parse accepts the schema accepts.
func FuzzParse(f *testing.F) {
	for _, file := range archive(f, "refused.txtar").Files {
		if strings.HasSuffix(file.Name, ".yaml") {
			f.Add(file.Data)
		}
	}
	f.Add([]byte(everything))
	f.Add([]byte("{ambit: v1,name: a,egress: {allow: [{host: a}]}}"))
	schema := compiled(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := Parse("f.yaml", src)
		if err == nil {
			if err := schemaError(schema, src); err != nil {
				t.Errorf("Parse accepts what the schema refuses: %v", err)
			}
			if text, _ := checkName(string(m.Name)); text != "" {
				t.Errorf("the name is %q", m.Name)
			}
			return
		}
		var problems Errors
		if !errors.As(err, &problems) || len(problems) == 0 || len(problems) > strictyaml.MaxErrors || m != nil {
			t.Fatalf("Parse = %v, %v", m, err)
		}
		last := 0
		for _, e := range problems {
			if e.Line < last || e.Line < 1 || e.Column < 1 {
				t.Errorf("%d:%d after line %d", e.Line, e.Column, last)
			}
			last = e.Line
			for _, r := range e.Error() + strings.ReplaceAll(e.Excerpt(), "\n", "") {
				if !unicode.IsGraphic(r) {
					t.Errorf("%U in %q", r, e.Error())
				}
			}
		}
	})
}

// What is found wrong with a connection later is shown at its place.
func TestConnectionProblem(t *testing.T) {
	m := mustParse(t, "ambit: v1\nname: a\nconnectors:\n  - name: github\n    pin: {owner: acme}\n")
	c := &m.Connectors[0]
	if got, want := c.Label(), `connectors[0] "github" (line 4)`; got != want {
		t.Errorf("label is %s, want %s", got, want)
	}
	for key, want := range map[string]string{
		"":          "m.yaml:4:5: connectors[0]: no; say \\x1b\n  4 |   - name: github\n    |     ^",
		"pin.owner": "m.yaml:5:11: connectors[0].pin.owner: no; say \\x1b\n  5 |     pin: {owner: acme}\n    |           ^",
		"account":   "m.yaml:4:5: connectors[0]: no; say \\x1b\n  4 |   - name: github\n    |     ^",
	} {
		e := c.Problem(key, "no", "say \x1b")
		if got := e.Error() + "\n" + e.Excerpt(); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", key, got, want)
		}
	}
}

func ExampleParse() {
	_, err := Parse("support.yaml", []byte("ambit: v1\nname: support\negress:\n  allow:\n    - hots: api.example.com\n"))
	var problems Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Println(p)
			fmt.Println(p.Excerpt())
		}
	}
	// Output:
	// support.yaml:5:7: egress.allow[0].hots: unknown key "hots"; did you mean "host"?
	//   5 |     - hots: api.example.com
	//     |       ^
}

func ExampleRule_Label() {
	m, err := Parse("a.yaml", []byte("ambit: v1\nname: a\negress: {allow: [{host: api.example.com, name: api}]}\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Egress.Allow[0].Label())
	// Output: egress.allow[0] "api" (line 3)
}
