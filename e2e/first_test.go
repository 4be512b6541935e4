//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestOneWayOut is the main promise: the allowed call works from a program that
// knows the proxy and from one that does not, everything else is refused with a
// reason, and both are in the log, which verifies.
func TestOneWayOut(t *testing.T) {
	for _, mode := range []struct {
		name string
		home func(*testing.T) *home
	}{{"ordinary user", newHome}, {"root", newRootHome}} {
		t.Run(mode.name, func(t *testing.T) {
			u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(w, "order %s", strings.TrimPrefix(r.URL.Path, "/orders/"))
			}), "shop.example")
			h := mode.home(t)
			h.deploy(manifest("support", u.rule("shop.example", "      methods: [GET]", "      paths: [/orders/*]")))
			if r := h.sh("support", "id -u; curl -sS "+u.url("shop.example", "/orders/1001")); r.code != 0 || r.stdout != "1000\norder 1001" {
				t.Errorf("through the proxy: %+v", r)
			}
			if r := h.sh("support", "curl -sS --noproxy '*' "+u.url("shop.example", "/orders/1002")); r.code != 0 || r.stdout != "order 1002" {
				t.Errorf("without the proxy: %+v", r)
			}
			if r := h.sh("support", "curl -sS "+u.url("shop.example", "/admin")); !strings.Contains(r.stdout, `"urn:ambit:problem:path-not-allowed"`) {
				t.Errorf("a path that no rule allows: %+v", r)
			}
			if r := h.sh("support", "curl -sS --noproxy '*' https://evil.example/"); r.code != 6 {
				t.Errorf("a name that no rule allows: %+v", r)
			}
			var seen []string
			for _, c := range h.calls("support") {
				seen = append(seen, fmt.Sprintf("%s %s %s %d", c.Decision, c.Action, strings.TrimPrefix(c.URL, "https://shop.example:"+fmt.Sprint(u.port)), c.Status))
			}
			want := []string{"allow http /orders/1001 200", "allow http /orders/1002 200", "deny http /admin 0", "deny name evil.example 0"}
			if got := strings.Join(seen, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("the log has\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
			if out := h.run("audit", "verify", "support"); !strings.Contains(out, "is whole") {
				t.Errorf("verify: %s", out)
			}
		})
	}
}
