package tools_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambit/tools"
)

// TestTypeScript calls tools with the client of the TypeScript SDK, in both ages of
// the protocol.
func TestTypeScript(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if node, err = exec.LookPath("nodejs"); err != nil {
			t.Skip("there is no Node.js; scripts/setup-tests installs it")
		}
	}
	if out, err := exec.CommandContext(t.Context(), node, "-p", "process.versions.node.split('.')[0] >= 20").Output(); err != nil || strings.TrimSpace(string(out)) != "true" {
		t.Skip("the TypeScript SDK needs Node.js 20")
	}
	dir := t.TempDir()
	archives, err := filepath.Glob("testdata/npm/*.tgz")
	if err != nil || len(archives) == 0 {
		t.Fatalf("the packages of the SDK: %v %v", archives, err)
	}
	for _, path := range archives {
		base := filepath.Base(path)
		name := base[:strings.LastIndex(base, "-")]
		if scope, rest, ok := strings.Cut(name, "+"); ok {
			name = "@" + scope + "/" + rest
		}
		unpack(t, path, filepath.Join(dir, "node_modules", name))
	}
	use, err := os.ReadFile("testdata/npm/use.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "use.mjs"), use, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, tools.Config{Questions: &asked{}})
	for mode, revision := range map[string]string{"auto": "2026-07-28", "legacy": "2025-11-25"} {
		cmd := exec.CommandContext(t.Context(), node, "use.mjs", s.URL, mode)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		want := "speaks " + revision + `
tools ambit.result shop.refunds.create
shop.refunds.create false {"amount":4.5,"order":"1001"}
shop.refunds.create true {"code":"bad-arguments","reason":"nothing was done: the arguments do not fit: at '/order': got number, want string","status":"failed"}
shop.orders.delete -32602 there is no tool "shop.orders.delete"
`
		if err != nil || string(out) != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", mode, err, out, want)
		}
	}
	for _, call := range s.checker.calls {
		if call.Intent != "charged twice" {
			t.Errorf("intent %q", call.Intent)
		}
	}
}

// unpack unpacks an archive as the registry makes them into a folder.
func unpack(t *testing.T, path, dir string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, strings.TrimPrefix(h.Name, "package/"))
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o700)
		}
		if err == nil {
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
