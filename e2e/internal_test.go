//go:build linux

package e2e

import (
	"strings"
	"testing"
)

// TestAmbitInternal: programs in the computer reach Ambit itself under its one
// name, knowing the proxy or not, and nothing else is there (N1, N11, C1).
func TestAmbitInternal(t *testing.T) {
	inUsr(t, "curl")
	h := newHome(t)
	h.deploy(manifest("support", ""))
	const noProxy = "env -u HTTP_PROXY -u http_proxy -u HTTPS_PROXY -u https_proxy "
	for _, way := range []string{"curl -sS ", noProxy + "curl -sS ", "curl -sS --noproxy '*' ", "curl -sS --proxytunnel "} {
		if r := h.sh("support", way+"http://ambit.internal/"); r.code != 0 || !strings.Contains(r.stdout, "the agent support.") {
			t.Errorf("%s: %+v", way, r)
		}
		if r := h.sh("support", way+"-w '%{http_code}' http://AMBIT.internal/admin"); !strings.Contains(r.stdout, `"urn:ambit:problem:no-such-page"`) || !strings.HasSuffix(r.stdout, "404") {
			t.Errorf("%s, /admin: %+v", way, r)
		}
		const ping = `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`
		if r := h.sh("support", way+"-H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'Mcp-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/list' -d '"+ping+"' http://ambit.internal/mcp"); !strings.Contains(r.stdout, `"ambit.plan"`) {
			t.Errorf("%s, /mcp: %+v", way, r)
		}
	}
	if calls := h.calls("support"); len(calls) != 0 {
		t.Errorf("the log has %+v", calls)
	}
	for line, want := range map[string]string{
		"curl -sSv https://ambit.internal/":                                     "403",                    // CONNECT is refused
		"curl -sS http://ambit.internal:8080/":                                  `problem:internal-only"`, // by the proxy
		"curl -sS -H 'Host: evil.example' http://ambit.internal/":               `problem:name-mismatch"`,
		"curl -sS --noproxy '*' -H 'Host: evil.example' http://ambit.internal/": `problem:name-mismatch"`,
		"curl -sSk --noproxy '*' https://ambit.internal:80/":                    `problem:internal-only"`,
		"curl -sS --noproxy '*' --http2-prior-knowledge http://ambit.internal/": `problem:internal-only"`,
		"curl -sS http://x.ambit.internal/":                                     `problem:host-not-allowed"`,
		"curl -sS --noproxy '*' http://x.ambit.internal/":                       "Could not resolve host",
		"curl -sS --noproxy '*' http://ambit.internal:3128/":                    "Failed to connect", // nobody listens
	} {
		if r := h.sh("support", line); !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("%s: %+v, want %s", line, r, want)
		}
	}
	for _, c := range h.calls("support") {
		if c.Decision != "deny" {
			t.Errorf("allowed: %+v", c)
		}
	}
}
