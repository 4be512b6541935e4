//go:build linux

package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/internal/standin"
)

// TestLogInLikeAPerson: a program inside opens a real page in Chromium and logs
// in with user name, password and one-time code. It types references, the site
// gets the real ones, and what the site hands back stays with the gate: the
// browser has references that work like it.
func TestLogInLikeAPerson(t *testing.T) {
	chromium := inUsr(t, "chromium", "chromium-browser")
	const password, key = "real-password-&?=+", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	var mu sync.Mutex
	var seen []string // of the bodies that the site got
	routes := http.NewServeMux()
	for host, have := range map[string]standin.Credentials{
		"login.example.com": {"username": "ops@acme.example", "password": password, "totp": key},
		"plain.example.com": {"username": "ops@acme.example", "password": password},
	} {
		for _, service := range standin.All() {
			if service.Name == "login" {
				service.Hosts = []string{host}
				server := service.New(have, time.Now)
				routes.HandleFunc(host+"/", func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					seen = append(seen, r.Header.Get("Cookie")+r.Header.Get("Authorization"))
					mu.Unlock()
					server.ServeHTTP(w, r)
				})
				routes.HandleFunc(host+"/favicon.ico", http.NotFound)
			}
		}
	}
	u := newUpstream(t, routes, "login.example.com", "plain.example.com")
	h := newHome(t)
	connection := func(as, host string) string {
		return "  - name: login\n    as: " + as + "\n    hosts: [" + host + "]\n    ports: [" + strconv.Itoa(u.port) + "]\n    private: true\n    resolve: [127.0.0.1]\n" +
			"    ca: |\n      " + strings.ReplaceAll(strings.TrimSpace(u.ca), "\n", "\n      ") + "\n"
	}
	h.deploy("ambit: v1\nname: a\nconnectors:\n" + connection("login", "login.example.com") + connection("plain", "plain.example.com"))
	for name, have := range map[string]map[string]string{
		"login": {"username": "ops@acme.example", "password": password, "totp": key},
		"plain": {"username": "ops@acme.example", "password": password},
	} {
		text, err := json.Marshal(have)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := h.tryWith(text, "connect", "a", name); err != nil {
			t.Fatalf("%v\n%s%s", err, r.stdout, r.stderr)
		}
	}
	program := filepath.Join(t.TempDir(), "browser")
	build := exec.Command("go", "build", "-C", "browser", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program that drives the browser: %v\n%s", err, out)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := h.tryWith(b, "exec", "a", "--", "sh", "-c", "cat >/workspace/browser && chmod +x /workspace/browser"); err != nil {
		t.Fatalf("%v\n%s", err, r.stderr)
	}
	r := h.sh("a", "/workspace/browser "+chromium+" "+u.url("login.example.com", "")+" "+u.url("plain.example.com", ""))
	const want = `asked to "Log in", then at /: Orders
cookie __Host-session path=/ secure=true httpOnly=true sameSite=Lax ends=true
cookie theme path=/ secure=false httpOnly=false sameSite= ends=false
logged out: "Log in"
cookie theme path=/ secure=false httpOnly=false sameSite= ends=false
script: 200 200 Orders
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("the browser: %d\n%s\n%s\n%s", r.code, r.stdout, r.stderr, h.run("egress", "a"))
	}
	mu.Lock()
	all := strings.Join(seen, "\n")
	mu.Unlock()
	if !strings.Contains(all, "__Host-session=session-0") || !strings.Contains(all, "Bearer session-0") {
		t.Errorf("the site did not get its session:\n%s", all)
	}
	values := strings.Fields(r.stderr) // of the cookies, and the token
	if len(values) != 4 || values[1] != "dark" || len(values[0]) < 40 || len(values[3]) < 40 {
		t.Errorf("the browser has %q", values)
	}
	for _, secret := range []string{"session-0", password} {
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("the agent has %q:\n%s", secret, r.stderr)
		}
	}
}
