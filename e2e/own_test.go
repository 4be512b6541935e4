//go:build linux

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestS1OwnListener (rows S1 and C1, inside): no rule opens the control plane's
// own port.
func TestS1OwnListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	h := makeHome(t, ordinary())
	h.args = []string{"--listen", "127.0.0.1:" + port}
	h.serve()
	rule := func(host string) string {
		return "    - {host: " + host + ", ports: [" + port + "], tls: none, private: true, resolve: [127.0.0.1]}\n"
	}
	h.deploy(manifest("a", rule("api.example.com")+"    - {host: 127.0.0.1, ports: ["+port+"], tls: none, private: true}\n"))
	h.plant("a")
	for _, host := range []string{"api.example.com", "127.0.0.1"} {
		to := host + ":" + port
		got := h.attack("a", "ask", "-plain", "-path", "http://"+to+"/openapi.json", "-header", to)
		if len(got) != 1 || got[0].Worked || !strings.Contains(got[0].Detail, "urn:ambit:problem:private-address") {
			t.Errorf("%s: %+v", to, got)
		}
	}
}
