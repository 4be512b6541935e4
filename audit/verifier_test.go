package audit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambit/audit"
)

// A program that was written from docs/audit-format.md, and has no line in
// common with this package, agrees about bundles, proofs and the page's own
// examples; and refuses what was changed.
func TestIndependentVerifier(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "verifier")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../e2e/verifier", "-o", program, ".")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	run := func(what, key string, file []byte, more ...string) (string, error) {
		t.Helper()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), program, append([]string{what, key, path}, more...)...).CombinedOutput()
		return string(out), err
	}
	accepted := func(want, what, key string, file []byte, more ...string) {
		t.Helper()
		if out, err := run(what, key, file, more...); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
	refused := func(want, what, key string, file []byte, more ...string) {
		t.Helper()
		if out, err := run(what, key, file, more...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s was not refused with %q: %s", what, want, out)
		}
	}

	h := newHome(t)
	old := h.fill(100)
	b, logKey, _ := exported(t, h)
	kept := filepath.Join(dir, "head")
	if err := os.WriteFile(kept, old.Note, 0o600); err != nil {
		t.Fatal(err)
	}
	accepted("701 events", "bundle", logKey, b, kept)
	accepted("5 erased", "bundle", logKey, b)
	other := newHome(t)
	other.keys.Body = key(9)
	forged, _, _ := exported(t, other)
	refused("another history", "bundle", logKey, forged, kept)
	refused("root", "bundle", logKey, change(t, b, "tile/entries/001", func(s string) string { return strings.Replace(s, "egress.request", "egress.outcome", 1) }))
	refused("not what the leaves give", "bundle", logKey, change(t, b, "tile/0/001", func(s string) string { return s[1:] + "x" }))
	refused("committed", "bundle", logKey, change(t, b, "events.jsonl", func(s string) string { return strings.Replace(s, "orders/20", "orders/21", 1) }))
	refused("event 20 has no body", "bundle", logKey, change(t, b, "events.jsonl", erased20))
	refused("says what was erased", "bundle", logKey, change(t, b, "events.jsonl", func(s string) string {
		return s[:strings.LastIndex(strings.TrimSpace(s), "\n")+1]
	}))

	l, closeLog := h.open()
	defer closeLog()
	for seq, want := range map[uint64]string{7: "orders/7", 10: "erased", 700: "audit.erase"} {
		p, err := l.ProveInclusion(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		accepted(want, "proof", logKey, text)
		p.Seq++
		if text, err = p.Text(); err != nil {
			t.Fatal(err)
		}
		refused("", "proof", logKey, text)
	}
	_, example, _ := strings.Cut(doc(t), "    c2sp.org/tlog-proof@v1\n")
	example, _, _ = strings.Cut("c2sp.org/tlog-proof@v1\n"+example, "\n\nThe extra line")
	example = strings.ReplaceAll(example, "\n    ", "\n") + "\n"
	accepted("event 2", "proof", "ambit/agent/support/6a3803d5+65fbb19f+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU", []byte(example))
	if p, err := audit.ParseInclusion([]byte(example)); err != nil || p.Seq != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

// erased20 says of one more event that it was erased.
func erased20(lines string) string {
	all := strings.SplitAfter(lines, "\n")
	for i, line := range all {
		if strings.HasPrefix(line, `{"seq":20,`) {
			all[i] = "{\"seq\":20}\n"
		}
	}
	return strings.Join(all, "")
}

func doc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/audit-format.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
