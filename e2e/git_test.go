//go:build linux

package e2e

import (
	"strconv"
	"strings"
	"testing"
)

// TestN10Git (row N10, inside): git clones from and pushes to the repository
// that is pinned, with what the vault placed in .netrc. It pushes to no other
// one, and not with somebody else's token.
func TestN10Git(t *testing.T) {
	h := newHome(t)
	s := newServices(t)
	h.deploy(manifest("a", "", "connectors:\n", s.connection("github", "    pin: {owner: acme, repo: demo}\n")))
	s.connect(h, "a", "github")
	github := s.servers["github"]
	at := func(user, path string) string {
		port := ""
		if s.port != 443 {
			port = ":" + strconv.Itoa(s.port)
		}
		return "https://" + user + "github.com" + port + path
	}
	r := h.sh("a", strings.Join([]string{
		"set -e", "cd /workspace", "git clone -q " + at("", "/acme/demo.git") + " copy", "cat copy/README", "cd copy", "echo more >>README",
		"git -c user.name=a -c user.email=a@acme.example commit -qam second", "git push -q", "git fetch -q && git status -sb",
	}, "\n"))
	if r.code != 0 || r.stdout != "hello from git\n## main...origin/main\n" || github.Accepted() < 4 {
		t.Fatalf("clone, commit and push: %+v", r)
	}
	if r := h.sh("a", "git clone -q "+at("", "/acme/demo.git")+" /tmp/again && git -C /tmp/again log --format=%s"); r.stdout != "second\nfirst\n" {
		t.Errorf("what was pushed: %+v", r)
	}
	const foreign = "x-access-token:ghp_attackersOwnToken0123456789abcdefghijk@"
	accepted := github.Accepted()
	for _, refused := range []struct{ what, url, code string }{
		{"another owner", at("", "/evil/demo.git"), "path-not-allowed"},
		{"another repository", at("", "/acme/loot.git"), "path-not-allowed"},
		{"a name that begins like it", at("", "/acme/demo2.git"), "path-not-allowed"},
		{"the attacker's token", at(foreign, "/acme/demo.git"), "foreign-credential"},
		{"the attacker's token and repository", at(foreign, "/evil/demo.git"), "path-not-allowed"},
	} {
		t.Run(refused.what, func(t *testing.T) {
			before := len(h.calls("a", "--denied"))
			r := h.sh("a", "cd /workspace/copy && git push "+refused.url+" main")
			if r.code == 0 || !strings.Contains(r.stderr, "403") {
				t.Errorf("push: %+v", r)
			}
			denied := h.calls("a", "--denied")[before:]
			if len(denied) == 0 {
				t.Fatal("the log has no refusal")
			}
			for _, c := range denied {
				if c.Host != "github.com" || c.Reason == nil || c.Reason.Code != refused.code {
					t.Errorf("logged: %+v %+v", c, c.Reason)
				}
			}
		})
	}
	if n := github.Accepted(); n != accepted {
		t.Errorf("the service accepted %d requests that are to be refused", n-accepted)
	}
	high := false
	for _, a := range h.alerts("a") {
		high = high || a.Severity == "high" && a.Key == "foreign-credential github.com"
	}
	if !high {
		t.Errorf("no alert of the attacker's token: %+v", h.alerts("a"))
	}
}
