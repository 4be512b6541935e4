//go:build linux

package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestConnectByDevice: an account is connected by a code that a person enters in
// a browser elsewhere (RFC 8628), while the command waits; one that is cut off
// leaves nothing connected.
func TestConnectByDevice(t *testing.T) {
	s := newServices(t)
	h := newHome(t)
	s.tokensConnector(h)
	h.deploy("ambit: v1\nname: a\nconnectors:\n" + s.tokens())
	start := func() (out *lockedBuffer, end func() error, interrupt func(), code string) {
		t.Helper()
		cmd := h.command("connect", "a", "tokens", "--flow", "device")
		out = &lockedBuffer{}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(s.given("oauth2"))), out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		shown := regexp.MustCompile(`enter the code (WDJB-[0-9]+):\n\n  https://oauth\.example\.com/device\n`)
		h.await(func() bool { return shown.MatchString(out.String()) }, 20*time.Second, "a code to enter")
		return out, cmd.Wait, func() { _ = cmd.Process.Kill() }, shown.FindStringSubmatch(out.String())[1]
	}
	_, end, interrupt, _ := start()
	interrupt()
	if end() == nil {
		t.Error("a command that was killed says that all is well")
	}
	if got := h.run("connections", "a", "--json"); !strings.Contains(got, `"status":"not-connected"`) {
		t.Errorf("nobody entered the code: %s", got)
	}
	out, end, _, code := start() // in place of the first
	if s.servers["oauth2"].Approve("WDJB-9999") || !s.servers["oauth2"].Approve(code) {
		t.Fatalf("the service does not know the code %s", code)
	}
	if err := end(); err != nil || !strings.Contains(out.String(), "tokens of a is connected") {
		t.Fatalf("%v\n%s", err, out)
	}
	curl := `curl -sS -H "Authorization: Bearer $TOKENS_ACCESS_TOKEN" ` + s.at("oauth.example.com", "/v1/things")
	if r := h.sh("a", curl); r.stdout != "{}" {
		t.Errorf("with the account: %+v", r)
	}
	if out := h.run("revoke", "a", "tokens"); !strings.Contains(out, "is revoked") {
		t.Errorf("revoke: %s", out)
	}
	if r := h.sh("a", curl); !strings.Contains(r.stdout, "not-connected") {
		t.Errorf("after it was revoked: %+v", r)
	}
}
