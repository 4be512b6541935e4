package inside

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// testNames allows *.ok.example on two ports and counts what the worker is asked.
func testNames(asked *atomic.Int64, listened *[]string) names {
	return newNames(netip.MustParsePrefix("127.64.0.0/30"),
		func(_ context.Context, name string) ([]uint16, error) {
			asked.Add(1)
			switch {
			case name == "away.example":
				return nil, errors.New("the gate does not answer")
			case strings.HasSuffix(name, ".ok.example"):
				return []uint16{443, 8443}, nil
			}
			return nil, nil
		},
		func(ap netip.AddrPort, name string) error {
			*listened = append(*listened, ap.String()+" "+name)
			return nil
		})
}

func TestAnswers(t *testing.T) {
	var asked atomic.Int64
	var listened []string
	n := testNames(&asked, &listened)
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		a     string
	}{
		{"a.ok.example.", dns.TypeA, dns.RcodeSuccess, "127.64.0.1"},
		{"A.OK.example.", dns.TypeA, dns.RcodeSuccess, "127.64.0.1"},
		{"a.ok.example.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"a.ok.example.", dns.TypeTXT, dns.RcodeSuccess, ""},
		{"b.ok.example.", dns.TypeA, dns.RcodeSuccess, "127.64.0.2"},
		{"secret.evil.example.", dns.TypeA, dns.RcodeNameError, ""},
		{"secret.evil.example.", dns.TypeTXT, dns.RcodeNameError, ""},
		{"localhost.", dns.TypeA, dns.RcodeSuccess, "127.0.0.1"},
		{".", dns.TypeNS, dns.RcodeNameError, ""},
		{"away.example.", dns.TypeA, dns.RcodeServerFailure, ""},
	} {
		q := new(dns.Msg)
		q.SetQuestion(c.name, c.qtype)
		m := n.answer(t.Context(), q)
		got := ""
		for _, rr := range m.Answer {
			got += rr.(*dns.A).A.String()
		}
		if m.Rcode != c.rcode || got != c.a {
			t.Errorf("%s %s: %s %q", c.name, dns.TypeToString[c.qtype], dns.RcodeToString[m.Rcode], got)
		}
	}
	if want := "127.64.0.1:443 a.ok.example,127.64.0.1:8443 a.ok.example,127.64.0.2:443 b.ok.example,127.64.0.2:8443 b.ok.example"; strings.Join(listened, ",") != want {
		t.Errorf("it listens at %v", listened)
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("the worker was asked %d times, want once for each name", n)
	}
}

// FuzzDNS feeds init's DNS server: whatever comes, it answers or refuses, and
// names nobody allowed get no address.
func FuzzDNS(f *testing.F) {
	for _, name := range []string{"a.ok.example.", "secret.evil.example.", "."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		b, err := q.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	var asked atomic.Int64
	var listened []string
	n := testNames(&asked, &listened)
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		m := n.answer(context.Background(), q)
		for _, rr := range m.Answer {
			name := strings.ToLower(strings.TrimSuffix(rr.Header().Name, "."))
			if !strings.HasSuffix(name, ".ok.example") && name != "localhost" && !strings.HasSuffix(name, ".localhost") {
				t.Errorf("%q was answered", name)
			}
		}
	})
}

func TestEnvironment(t *testing.T) {
	env := WithIntent(Merge(Environ("support"), "LANG=de"), "look up #1 & more")
	count := map[string]int{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		count[name]++
		if name == "HTTPS_PROXY" && value != "http://intent:look%2520up%2520%25231%2520&%2520more@127.0.0.1:3128" {
			t.Errorf("HTTPS_PROXY=%s", value)
		}
		if name == "LANG" && value != "de" {
			t.Errorf("LANG=%s", value)
		}
	}
	for name, n := range count {
		if n != 1 {
			t.Errorf("%s is there %d times", name, n)
		}
	}
}
