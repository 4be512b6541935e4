package egress_test

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"ambit/egress"
	"ambit/policy"
)

// Ambit's own requests pass the same guard as the agent's (S1): a private
// address only where the manifest opens it, our own listeners and metadata
// never, and nothing that is not HTTPS.
func TestHelperTransport(t *testing.T) {
	s := newShop(t, hello)
	shop, err := policy.Compile(policy.Egress{Rules: []policy.Rule{s.rule()}})
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(portOf(s.Listener))
	names := resolver{"private.example": {"127.0.0.1"}, "metadata.example": {"169.254.169.254"}, "own.example": {"127.0.0.1"}}
	get := func(c egress.HelperConfig, url string) (string, error) {
		c.Resolver = names
		res, err := (&http.Client{Transport: egress.HelperTransport(t.Context(), c)}).Get(url)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	known := egress.HelperConfig{Endpoints: func() egress.Endpoints { return shop }}
	if got, err := get(known, s.url("/token")); err != nil || !strings.HasPrefix(got, "hello from") {
		t.Errorf("a host that the manifest opens: %q, %v", got, err)
	}
	own := known
	own.Never = []netip.AddrPort{netip.AddrPortFrom(loopback[0], uint16(portOf(s.Listener)))}
	if _, err := get(own, s.url("/token")); err == nil || !strings.Contains(err.Error(), "belongs to Ambit itself") {
		t.Errorf("our own listener: %v", err)
	}
	none := egress.HelperConfig{Endpoints: func() egress.Endpoints { return nil }}
	for url, want := range map[string]string{
		s.url("/token"):                          "no such host",
		"https://private.example:" + port + "/":  "private",
		"https://metadata.example:" + port + "/": "metadata",
		"https://127.0.0.1:" + port + "/":        "must be a name",
		"http://private.example:" + port + "/":   "https only",
	} {
		if _, err := get(none, url); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want one that says %q", url, err, want)
		}
	}
}
