package policy_test

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"

	"ambit/policy"
)

func addr(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }

// Every rule that cannot do what it says is refused, by its label, with what is
// wrong.
func TestCompileRefuses(t *testing.T) {
	with := func(change func(*policy.Rule)) policy.Rule {
		r := policy.Rule{Host: "api.example"}
		change(&r)
		return r
	}
	for _, c := range []struct {
		rule policy.Rule
		want string
	}{
		{policy.Rule{}, "the host is empty"},
		{policy.Rule{Host: "*"}, "no host name has"},
		{policy.Rule{Host: "*."}, "the host is empty"},
		{policy.Rule{Host: "*.*.example"}, "no host name has"},
		{policy.Rule{Host: "a*.example"}, "no host name has"},
		{policy.Rule{Host: "*example"}, "no host name has"},
		{policy.Rule{Host: "https://api.example"}, "the host"},
		{policy.Rule{Host: "api.example:443"}, "neither a name nor an IPv6 address"},
		{policy.Rule{Host: "*.8.8.8.8"}, "needs a name"},
		{policy.Rule{Host: "*.4"}, "ends in a number"},
		{policy.Rule{Host: "127.1"}, "ends in a number"},
		{policy.Rule{Host: "10.0.0.1"}, "add private: true"},
		{policy.Rule{Host: "169.254.169.254", Private: true}, "no rule can open"},
		{policy.Rule{Host: "64:ff9b::808:808", Private: true}, "no rule can open"},
		{policy.Rule{Host: "0.0.0.0", Private: true}, "no rule can open"},
		{policy.Rule{Host: "8.8.8.8", Resolve: addr("8.8.4.4")}, "resolve has no use"},
		{policy.Rule{Host: "8.8.8.8", TLS: policy.Passthrough}, "needs a name"},
		{with(func(r *policy.Rule) { r.Ports = []uint16{443, 0} }), "port 0"},
		{with(func(r *policy.Rule) { r.Methods = []string{""} }), "not an HTTP method"},
		{with(func(r *policy.Rule) { r.Methods = []string{"GET POST"} }), "not an HTTP method"},
		{with(func(r *policy.Rule) { r.Methods = []string{"CONNECT"} }), "tunnel"},
		{with(func(r *policy.Rule) { r.Methods, r.WebSocket = []string{"POST"}, true }), "add GET"},
		{with(func(r *policy.Rule) { r.Paths = []string{"v1"} }), "does not start with a slash"},
		{with(func(r *policy.Rule) { r.Paths = []string{"/a/../b"} }), "segment of dots"},
		{with(func(r *policy.Rule) { r.Paths = []string{"/a**"} }), "segment of its own"},
		{with(func(r *policy.Rule) { r.Paths = []string{"/***"} }), "segment of its own"},
		{with(func(r *policy.Rule) { r.Paths = []string{"/a?b=c"} }), "raw '?'"},
		{with(func(r *policy.Rule) { r.Paths = []string{"/\x1b"} }), "control character"},
		{with(func(r *policy.Rule) { r.Query = map[string][]string{"": {"a"}} }), "no name"},
		{with(func(r *policy.Rule) { r.Query = map[string][]string{"a": {}} }), "no value"},
		{with(func(r *policy.Rule) { r.Query = map[string][]string{"a": {"\n"}} }), "control character"},
		{with(func(r *policy.Rule) { r.Query = map[string][]string{"a.b": {"1"}, "A_b": {"1"}} }), "for one"},
		{with(func(r *policy.Rule) { r.Query = map[string][]string{"a": {"1"}, "a[b]": {"1"}} }), "for one"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"Host": {"a"}} }), "judged by host"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"a b": {"a"}} }), "not the name"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"x-a": {"a"}, "X-A": {"a"}} }), "twice"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"X-A": {"a"}, "X_A": {"a"}} }), "for one"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"X-A": nil} }), "no value"},
		{with(func(r *policy.Rule) { r.Headers = map[string][]string{"X-A": {"a "}} }), "spaces around"},
		{with(func(r *policy.Rule) { r.TLS = "off" }), "must be terminate, passthrough or none"},
		{with(func(r *policy.Rule) { r.TLS, r.Paths = policy.Passthrough, []string{"/a"} }), "nothing inside"},
		{with(func(r *policy.Rule) { r.TLS, r.WebSocket = policy.Passthrough, true }), "nothing inside"},
		{with(func(r *policy.Rule) { r.TLS, r.Roots = policy.Passthrough, x509.NewCertPool() }), "nothing inside"},
		{with(func(r *policy.Rule) { r.TLS, r.Roots = policy.None, x509.NewCertPool() }), "no use with tls: none"},
		{with(func(r *policy.Rule) { r.Resolve = addr("10.0.0.1") }), "add private: true"},
		{with(func(r *policy.Rule) { r.Resolve = addr("::ffff:127.0.0.1") }), "add private: true"},
		{with(func(r *policy.Rule) { r.Resolve, r.Private = addr("fd00:ec2::254"), true }), "no rule can open"},
		{with(func(r *policy.Rule) { r.Resolve, r.Private = addr("fe80::1%eth0"), true }), "no rule can open"},
		{with(func(r *policy.Rule) { r.Resolve = []netip.Addr{{}} }), "no rule can open"},
		{with(func(r *policy.Rule) { r.Label = "a\x1b[31m" }), "cannot be shown"},
	} {
		if c.rule.Label == "" {
			c.rule.Label = "egress.allow[1] (line 9)"
		}
		s, err := policy.Compile(policy.Egress{Rules: []policy.Rule{{Host: "first.example"}, c.rule}})
		if err == nil || s != nil {
			t.Errorf("%+v is accepted", c.rule)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "1") {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.want)
		}
		for _, c := range []byte(err.Error()) {
			if c < 0x20 || c > 0x7e {
				t.Errorf("%q is not inert", err)
			}
		}
	}
}

// Rules for one host and port must agree about the connection, whatever their
// order.
func TestCompileRefusesContradiction(t *testing.T) {
	pool := x509.NewCertPool()
	pool.AddCert(&x509.Certificate{Raw: []byte("a"), RawSubject: []byte("b")})
	base := policy.Rule{Label: "one", Host: "api.example", Private: true}
	for want, change := range map[string]func(*policy.Rule){
		"tls":     func(r *policy.Rule) { r.TLS = policy.None; r.Ports = []uint16{443} },
		"private": func(r *policy.Rule) { r.Private = false },
		"resolve": func(r *policy.Rule) { r.Resolve = addr("10.0.0.1") },
		"ca":      func(r *policy.Rule) { r.Roots = pool },
	} {
		other := base
		other.Label = "two"
		change(&other)
		for _, rules := range [][]policy.Rule{{base, other}, {other, base}} {
			_, err := policy.Compile(policy.Egress{Rules: rules})
			if err == nil || !strings.Contains(err.Error(), "about "+want) || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "two") {
				t.Errorf("%s: %v", want, err)
			}
		}
		other.Ports = []uint16{8443}
		compile(t, base, other) // another port is another connection
	}
	same := base
	same.Roots = x509.NewCertPool()
	again := same
	again.Roots = x509.NewCertPool() // equal, and not the same pointer
	compile(t, same, again)
	compile(t, base, base, policy.Rule{Host: "api.example", Private: true, Ports: []uint16{443, 443, 8443}, TLS: policy.Terminate})
}
