//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inUsr skips the test if the machine has none of the programs where a computer
// with `image: host` sees them. scripts/setup-tests installs them.
func inUsr(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if _, err := os.Stat(filepath.Join("/usr/bin", name)); err == nil {
			return "/usr/bin/" + name
		}
	}
	t.Skipf("this machine has no /usr/bin/%s", strings.Join(names, ", no /usr/bin/"))
	return ""
}

// TestRealPrograms: what agents are made of runs inside and reaches what a rule
// allows, over the gate, without being told about it; each call is in the log.
func TestRealPrograms(t *testing.T) {
	h := newHome(t)
	repository, git := newRepository(t)
	mux := http.NewServeMux()
	mux.Handle("/git/", git)
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<!doctype html><p id=x>static</p><script>fetch("/data").then(r => r.text()).then(t => document.getElementById("x").textContent = t)</script>`)
	})
	mux.HandleFunc("/data", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "data for "+r.URL.RawQuery) })
	u := newUpstream(t, mux, "shop.example")
	h.deploy(manifest("a", u.rule("shop.example")))
	logged := func(method, path string, atLeast int) {
		t.Helper()
		n := 0
		for _, c := range h.calls("a") {
			if c.Method == method && c.Decision == "allow" && c.Status == 200 && strings.HasPrefix(c.URL, u.url("shop.example", path)) {
				n++
			}
		}
		if n < atLeast {
			t.Errorf("the log has %s %s %d times, want %d\n%s", method, path, n, atLeast, h.run("egress", "a"))
		}
	}
	t.Run("curl", func(t *testing.T) {
		inUsr(t, "curl")
		for _, flags := range []string{"", "--noproxy '*'", "--http1.1", "--http2"} {
			if r := h.sh("a", "curl -sS "+flags+" '"+u.url("shop.example", "/data?curl")+"'"); r.stdout != "data for curl" {
				t.Errorf("curl %s: %+v", flags, r)
			}
		}
		logged("GET", "/data?curl", 4)
	})
	t.Run("git", func(t *testing.T) {
		inUsr(t, "git")
		r := h.sh("a", "cd /workspace && git clone -q "+u.url("shop.example", "/git/"+repository)+" copy && cat copy/README && git -C copy log --format=%s")
		if r.code != 0 || r.stdout != "hello from git\nfirst\n" {
			t.Errorf("git clone: %+v", r)
		}
		logged("POST", "/git/"+repository+"/git-upload-pack", 1)
	})
	t.Run("python", func(t *testing.T) {
		inUsr(t, "python3")
		for i, opener := range []string{"urllib.request.build_opener(urllib.request.ProxyHandler({})).open", "urllib.request.urlopen"} {
			if r := h.sh("a", fmt.Sprintf("/usr/bin/python3 -c \"import urllib.request; print(%s('%s').read().decode())\"", opener, u.url("shop.example", "/data?python"+fmt.Sprint(i)))); r.stdout != fmt.Sprintf("data for python%d\n", i) {
				t.Errorf("python with %s: %+v", opener, r)
			}
		}
		logged("GET", "/data?python", 2)
	})
	t.Run("node", func(t *testing.T) {
		inUsr(t, "node", "nodejs")
		for i, env := range []string{"", "env -u HTTPS_PROXY -u HTTP_PROXY -u https_proxy -u http_proxy "} {
			if r := h.sh("a", fmt.Sprintf("%s$(command -v node || command -v nodejs) -e \"fetch('%s').then(r => r.text()).then(console.log)\"", env, u.url("shop.example", "/data?node"+fmt.Sprint(i)))); r.stdout != fmt.Sprintf("data for node%d\n", i) {
				t.Errorf("node %s: %+v", env, r)
			}
		}
		logged("GET", "/data?node", 2)
	})
	t.Run("chromium", func(t *testing.T) {
		chromium := inUsr(t, "chromium", "chromium-browser")
		r := h.sh("a", "cd /home/agent && "+chromium+" --headless --no-sandbox --disable-gpu --virtual-time-budget=5000 --dump-dom "+u.url("shop.example", "/page")+" 2>/home/agent/errors")
		if !strings.Contains(r.stdout, "data for") {
			t.Errorf("chromium: %+v\n%s", r, h.sh("a", "tail -c 2000 /home/agent/errors").stdout)
		}
		logged("GET", "/page", 1)
		logged("GET", "/data", 1)
		hosts := map[string]bool{}
		for _, c := range h.calls("a") {
			if c.Decision == "allow" {
				hosts[c.Host] = true
			}
		}
		if len(hosts) != 1 {
			t.Errorf("hosts that were reached: %v", hosts)
		}
	})
}

// newRepository makes a Git repository and a handler that serves it the smart way.
func newRepository(t *testing.T) (name string, handler http.Handler) {
	t.Helper()
	inUsr(t, "git")
	root := t.TempDir()
	name = "demo.git"
	work := filepath.Join(root, "work")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work}, {"-C", work, "add", "README"},
		{"-C", work, "-c", "user.name=e2e", "-c", "user.email=e2e@shop.example", "commit", "-q", "-m", "first"},
		{"clone", "-q", "--bare", work, filepath.Join(root, name)},
	} {
		if slices.Contains(args, "add") {
			if err := os.WriteFile(filepath.Join(work, "README"), []byte("hello from git\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return name, &cgi.Handler{
		Path: "/usr/bin/git", Args: []string{"http-backend"}, Root: "/git", Stderr: os.Stderr,
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
}
