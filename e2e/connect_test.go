//go:build linux

package e2e

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConnect: what a person can do wrong with an account is said in words, the
// credential is in none of them, and what was connected before stays.
func TestConnect(t *testing.T) {
	h := newHome(t)
	h.deploy("ambit: v1\nname: a\nconnectors:\n  - {name: github}\n  - {name: zendesk, account: acme}\n  - {name: mtls, as: bank, hosts: [bank.example]}\n")
	const token = "ghp_REALrealREALrealREALrealREAL00aaaa"
	connected := func(want int) {
		t.Helper()
		if out := h.run("connections", "a", "--json"); strings.Count(out, `"status":"connected"`) != want {
			t.Errorf("connections: %s", out)
		}
	}
	connected(0)
	if r, err := h.tryWith([]byte(token+"\n"), "connect", "a", "github"); err != nil || !strings.Contains(r.stdout, "github of a is connected to GitHub") {
		t.Fatalf("%v %+v", err, r)
	}
	connected(1)
	dir := filepath.Dir(h.dir)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	binary := make([]byte, 100)
	_, _ = rand.Read(binary)
	binary[0] = 0xff
	for name, c := range map[string]struct {
		stdin string
		args  []string
		code  int
		want  string // in what it says
	}{
		"nothing":              {"", []string{"github"}, 1, "Access token (token) is empty: nothing was connected"},
		"an empty line":        {"\n", []string{"github"}, 1, "(token)"},
		"too short":            {"abc", []string{"github"}, 1, "fewer than 8 bytes"},
		"huge":                 {strings.Repeat("a", 64<<10+1), []string{"github"}, 1, "64 KiB is the most"},
		"far too long":         {strings.Repeat("a", 1<<20), []string{"github"}, 1, "longer than 320 KiB"},
		"binary":               {string(binary), []string{"github"}, 1, "binary"},
		"two lines":            {token + "\n" + token, []string{"github"}, 1, "(token)"},
		"no such connection":   {token, []string{"gitlab"}, 1, `no such connection: "gitlab"; its manifest has: github, zendesk, bank`},
		"no such way":          {token, []string{"github", "--way", "fax"}, 2, "it has: token, app, oauth"},
		"no such flow":         {token, []string{"github", "--flow", "device"}, 2, "has no flow"},
		"no such agent":        {token, nil, 1, "there is no such agent"},
		"a credential as word": {"", []string{"github", token}, 2, ""},
		"no such file":         {"", []string{"github", "--from", "/nowhere"}, 1, "reading the credential"},
		"no such field":        {token, []string{"github", "--field", "key=/dev/null"}, 2, "its fields are: token"},
		"field without file":   {token, []string{"github", "--field", "token"}, 2, "NAME=FILE"},
		"one of two":           {"email=ops@acme.example\n", []string{"zendesk", "--way", "token"}, 1, "(api_token) is empty"},
		"not of that form":     {token + "\n" + token, []string{"zendesk", "--way", "token"}, 1, "name=value"},
		"another field":        {`{"email":"ops@acme.example","pin":"` + token + `"}`, []string{"zendesk", "--way", "token"}, 1, "no field"},
		"no certificate":       {"", []string{"bank", "--field", "certificate=" + write("c", "x"), "--field", "private_key=" + write("k", "y")}, 1, "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"connect", "a"}, c.args...)
			if c.args == nil {
				args = []string{"connect", "nobody", "github"}
			}
			r, _ := h.tryWith([]byte(c.stdin), args...)
			if r.code != c.code || !strings.Contains(r.stderr, c.want) || r.stdout != "" && r.code != 2 {
				t.Errorf("%+v, want %d and %q", r, c.code, c.want)
			}
			if strings.Contains(r.stdout+r.stderr, token) && name != "a credential as word" {
				t.Errorf("the credential is shown: %+v", r)
			}
		})
	}
	connected(1)
	if r, _ := h.try("revoke", "a"); r.code != 2 || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("ending all connections without a word: %+v", r)
	}
	if r, _ := h.try("revoke", "a", "zendesk"); r.code != 1 || !strings.Contains(r.stderr, "there is nothing to revoke") {
		t.Errorf("ending what is not connected: %+v", r)
	}
	if out := h.run("revoke", "a", "--yes"); !strings.Contains(out, "github is revoked") {
		t.Errorf("ending all: %s", out)
	}
	connected(0)
	// What was written about all that has none of it.
	for _, args := range [][]string{{"alerts", "--json"}, {"egress", "a", "--json"}, {"status", "a", "--json"}, {"connections", "a"}} {
		if out := h.run(args...); strings.Contains(out, token) {
			t.Errorf("%v shows the credential: %s", args, out)
		}
	}
	if bytes.Contains([]byte(h.logs.String()), []byte(token)) {
		t.Errorf("serve shows the credential: %s", h.logs)
	}
}
