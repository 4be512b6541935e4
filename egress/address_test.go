package egress_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"ambit/egress"
	"ambit/policy"
)

// resolver is a DNS of the test's own. Names it does not know do not exist.
type resolver map[string][]string

func (r resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range r[strings.TrimSuffix(host, ".")] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

// S1: addresses that no rule, or no rule without private: true, opens.
func TestS1(t *testing.T) {
	names := resolver{
		"mapped.example": {"::ffff:169.254.169.254"}, "nat64.example": {"64:ff9b::a9fe:a9fe"},
		"sixtofour.example": {"2002:7f00:1::"}, "teredo.example": {"2001:0:7f00:1::"}, "zone.example": {"fe80::1%eth0"},
		"cgnat.example": {"100.64.0.1"}, "any.example": {"0.0.0.0"}, "any6.example": {"::"}, "local.example": {"127.0.0.1"},
	}
	rules := []policy.Rule{}
	hosts := map[string]string{
		"mapped.example": "metadata-address", "nat64.example": "metadata-address", "sixtofour.example": "private-address",
		"teredo.example": "private-address", "zone.example": "private-address", "cgnat.example": "private-address",
		"any.example": "private-address", "any6.example": "private-address", "local.example": "private-address",
	}
	for h := range hosts {
		rules = append(rules, policy.Rule{Host: h})
	}
	rules = append(rules, policy.Rule{Host: "metadata.example", Private: true})
	names["metadata.example"] = []string{"169.254.169.254"}
	hosts["metadata.example"] = "metadata-address"
	d := newDoor(t, egress.Config{Resolver: names}, rules...)
	for h, code := range hosts {
		resp, err := d.client(false).Get("https://" + h + "/")
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, code)
	}
	// As literals, in every spelling: no rule can name them, and no rule does.
	for _, target := range []string{
		"169.254.169.254:80", "2852039166:80", "0xa9fea9fe:80", "0251.0376.0251.0376:80", "127.1:80", "0:80", "127.0.0.1:80",
		"[::ffff:169.254.169.254]:80", "[::1]:80", "[fe80::1%25eth0]:80", "[64:ff9b::a9fe:a9fe]:80", "100.100.100.200:80",
	} {
		resp := parse(t, raw(t, d.dialProxy(), "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"))
		if resp.StatusCode != 400 && resp.StatusCode != 403 {
			t.Errorf("%s: %d", target, resp.StatusCode)
		}
	}
	if d.log.allowed() != 0 {
		t.Errorf("something was allowed:\n%s", d.log)
	}
}

// S1: the gate's own listeners, even under a rule that opens loopback.
func TestS1OwnListener(t *testing.T) {
	own, rule := plainShop(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	at := netip.AddrPortFrom(loopback[0], uint16(portOf(own.Listener)))
	d := newDoor(t, egress.Config{Never: []netip.AddrPort{at}}, rule)
	resp, err := d.client(false).Get(fmt.Sprintf("http://plain.example:%d/", at.Port()))
	if err != nil {
		t.Fatal(err)
	}
	d.wantProblem(resp, 403, "private-address")
}

// S2: an allowed name with a private address, alone or among others.
func TestS2(t *testing.T) {
	own, _ := plainShop(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	port := uint16(portOf(own.Listener))
	names := resolver{"private.example": {"127.0.0.1"}, "mixed.example": {"93.184.215.14", "127.0.0.1"}}
	d := newDoor(t, egress.Config{Resolver: names},
		policy.Rule{Host: "private.example", TLS: policy.None, Ports: []uint16{port}},
		policy.Rule{Host: "mixed.example", TLS: policy.None, Ports: []uint16{port}})
	for h := range names {
		resp, err := d.client(false).Get(fmt.Sprintf("http://%s:%d/", h, port))
		if err != nil {
			t.Fatal(err)
		}
		if p := d.wantProblem(resp, 403, "private-address"); !strings.Contains(p.Detail, "127.0.0.1") {
			t.Errorf("%+v", p)
		}
	}
}

// rebinding answers with one address first and with another ever after.
type rebinding struct {
	asked       atomic.Int32
	first, then netip.Addr
}

func (r *rebinding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.asked.Add(1) == 1 {
		return []netip.Addr{r.first}, nil
	}
	return []netip.Addr{r.then}, nil
}

// S2: a name that changes its answer between check and dial. The address that
// was vetted is the one that is dialled.
func TestS2Rebinding(t *testing.T) {
	good, rule := plainShop(t, hello)
	port := portOf(good.Listener)
	bad, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		t.Skip("needs 127.0.0.2: " + err.Error())
	}
	defer bad.Close()
	go func() {
		if _, err := bad.Accept(); err == nil {
			t.Error("an address was dialled that was not vetted for the request")
		}
	}()
	rule.Resolve = nil
	names := &rebinding{first: loopback[0], then: netip.MustParseAddr("127.0.0.2")}
	d := newDoor(t, egress.Config{Resolver: names}, rule)
	resp, err := d.client(false).Get(fmt.Sprintf("http://plain.example:%d/", port))
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if n := names.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// An address is a host like any other, if a rule names it.
func TestAddressAsHost(t *testing.T) {
	s := newShop(t, hello)
	ca, err := egress.NewCA("upstreams")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{egress.SignFor(t, ca, "127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { _ = http.Serve(l, http.HandlerFunc(hello)) }() // ends with l
	port := portOf(l)
	rule := policy.Rule{Host: "127.0.0.1", Ports: []uint16{uint16(port)}, Private: true, Roots: rootsOf(ca)}
	d := newDoor(t, egress.Config{}, rule, s.rule())
	resp, err := d.client(false).Get(fmt.Sprintf("https://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	// Under the name of a host that is allowed, the certificate of another is not taken.
	wrong := s.rule()
	wrong.Ports = []uint16{uint16(port)}
	wrong.Roots = rootsOf(ca)
	d = newDoor(t, egress.Config{}, wrong)
	if resp, err = d.client(false).Get(fmt.Sprintf("https://shop.example:%d/", port)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 502 {
		t.Errorf("status %d for a certificate of another name", resp.StatusCode)
	}
}
