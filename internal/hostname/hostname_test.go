package hostname_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/hostname"
)

func TestCanonical(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"api.example":             "api.example",
		"API.Example":             "api.example",
		"api.example.":            "api.example",
		"localhost":               "localhost",
		"_dmarc.example":          "_dmarc.example",
		"my_host.example":         "my_host.example",
		"r4---sn-abc.example":     "r4---sn-abc.example",
		"xn--bcher-kva.example":   "xn--bcher-kva.example",
		"XN--BCHER-KVA.example":   "xn--bcher-kva.example",
		"1.2.3.4":                 "1.2.3.4",
		"1.2.3.4.":                "1.2.3.4",
		"1.2.3.4.example":         "1.2.3.4.example",
		"4chan":                   "4chan",
		"a.0xg":                   "a.0xg",
		"[::1]":                   "::1",
		"::1":                     "::1",
		"[2001:DB8:0:0:0:0:0:1]":  "2001:db8::1",
		label63 + ".example":      label63 + ".example",
		strings.Repeat("a.", 127): strings.Repeat("a.", 126) + "a",
	} {
		got, err := hostname.Canonical(in)
		if err != nil || got != want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

// Row N3, and the decimal, octal and hex forms of row S1: a spelling that is
// not the canonical one, up to case and a trailing dot, is refused.
func TestN3RefusesOtherSpellings(t *testing.T) {
	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a..", "api.example..",
		"[api.example]", "[1.2.3.4]", "[::1", "::1]", "[]", "[", "]", "[[::1]]", "[::1].", "[::1]x",
		"api%2eexample", "%61pi.example", "api.example%00", "api.example\x00", "api.example\x00.evil.test",
		"user@api.example", "user:pw@api.example", "api.example@evil.test",
		" api.example", "api.example ", "api example", "api.example\t", "api.example\r\n", "api.example/", "api.example?", "api.example#", "api\\example",
		"bücher.example", "api。example", "api．example", "ａpi.example", "api.examp\u00adle", "\u212aelvin.example",
		"xn--", "xn--.example", "xn--a.example", "xn--api-.example", "xn--bcher-kv\u0430.example", "xn--zzzzzzzzzz9999.example",
		"-a.example", "a-.example", "a.-", "*.example", "a*.example", "a,b", "a;b", "a'b", "a\"b", "a:b",
		"127.1", "127.0.1", "0177.0.0.1", "0x7f.1", "0x7f.0.0.1", "0x7f000001", "0X7F000001", "2130706433", "017700000001",
		"127.0.0.01", "127.0.0.256", "127.0.0.0x1", "1.2.3.4.5", "1.2.3", "0", "0x", "a.0x", "a.1", "a.0x1f", "999",
		"::1%eth0", "[fe80::1%25eth0]", "[fe80::1%eth0]", "fe80::1%1", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "[v1.a]", "1:2:3", "[:::1]",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 128),
	} {
		if got, err := hostname.Canonical(in); err == nil {
			t.Errorf("Canonical(%q) = %q, want an error", in, got)
		} else {
			checkInert(t, err.Error())
		}
	}
}

func TestSplitHostPort(t *testing.T) {
	for _, c := range []struct {
		in   string
		def  uint16
		host string
		port uint16
	}{
		{"api.example", 443, "api.example", 443},
		{"API.example.:8443", 443, "api.example", 8443},
		{"1.2.3.4:1", 0, "1.2.3.4", 1},
		{"[::1]", 80, "::1", 80},
		{"[::1]:65535", 80, "::1", 65535},
	} {
		host, port, err := hostname.SplitHostPort(c.in, c.def)
		if err != nil || host != c.host || port != c.port {
			t.Errorf("SplitHostPort(%q, %d) = %q, %d, %v", c.in, c.def, host, port, err)
		}
	}
}

// Row N6: port numbers that are out of range or written oddly are refused.
func TestN6RefusesPorts(t *testing.T) {
	for _, in := range []string{
		"", ":443", "a", "a:", "a:0", "a:00443", "a:0443", "a:65536", "a:443443", "a:4294967739", "a:18446744073709552059", "a:-1", "a:+443", "a: 443", "a:443 ",
		"a:0x1bb", "a:443/", "a:443:443", "a:https", "a:4٤3", "::1", "::1:443", "[::1]443", "[::1]:", "[::1:443", "[a]:443", "u@a:443", "a:443@b",
	} {
		if host, port, err := hostname.SplitHostPort(in, 0); err == nil {
			t.Errorf("SplitHostPort(%q, 0) = %q, %d, want an error", in, host, port)
		} else {
			checkInert(t, err.Error())
		}
	}
}

func TestIsIP(t *testing.T) {
	for in, want := range map[string]bool{"1.2.3.4": true, "::1": true, "2001:db8::a": true, "a.example": false, "a1": false, "abc": false, "": false, "1.example1": false} {
		if got := hostname.IsIP(in); got != want {
			t.Errorf("IsIP(%q) = %v", in, got)
		}
	}
}

func TestCanonicalDoesNotAllocate(t *testing.T) {
	for _, host := range []string{"api.shop.example", "10.0.0.1", "2001:db8::1"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = hostname.Canonical(host) }); n != 0 {
			t.Errorf("Canonical(%q) allocates %v times", host, n)
		}
	}
}

// Whatever is accepted is canonical, stays as it is, and is read in the same
// way by net/netip and net/url.
func TestCanonicalProperties(t *testing.T) {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{".", "..", ":", "[", "]", "%", "@", "xn--", "XN--bcher-kva", "0x", "0", "127", "::", "ffff", "-", "_", "é", "\x00", "A"}),
		rapid.StringMatching(`[a-zA-Z0-9]{1,5}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		checkCanonical(t, strings.Join(rapid.SliceOfN(piece, 1, 8).Draw(t, "pieces"), ""))
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"api.example", "API.example.", "[::1]", "0x7f.1", "2130706433", "xn--bcher-kva.example", "a%00", "u@h", "[fe80::1%eth0]", "::ffff:1.2.3.4", "bücher.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkCanonical(t, s) })
}

func FuzzSplitHostPort(f *testing.F) {
	for _, s := range []string{"api.example:443", "[::1]:80", "a:b:c", "u@h:1", "h:0443", "[::1", "h:"} {
		f.Add(s, uint16(443))
	}
	f.Fuzz(func(t *testing.T, s string, def uint16) {
		host, port, err := hostname.SplitHostPort(s, def)
		if err != nil {
			return
		}
		if port == 0 {
			t.Fatalf("SplitHostPort(%q) = port 0", s)
		}
		checkCanonical(t, host)
	})
}

type fataler interface{ Fatalf(string, ...any) }

func checkCanonical(t fataler, s string) {
	host, err := hostname.Canonical(s)
	if err != nil {
		checkInert(t, err.Error())
		return
	}
	if again, err := hostname.Canonical(host); err != nil || again != host {
		t.Fatalf("Canonical(%q) = %q, but Canonical of that is %q, %v", s, host, again, err)
	}
	if strings.ContainsAny(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ[]%@ /\\\x00") || strings.HasSuffix(host, ".") {
		t.Fatalf("Canonical(%q) = %q, which is not canonical", s, host)
	}
	authority := host
	if a, err := netip.ParseAddr(host); err == nil {
		if a.String() != host || a.Is4In6() || a.Zone() != "" {
			t.Fatalf("Canonical(%q) = %q, but the address is %v", s, host, a)
		}
		if a.Is6() {
			authority = "[" + host + "]"
		}
	}
	if hostname.IsIP(host) != (authority[0] == '[' || isIPv4(host)) {
		t.Fatalf("IsIP(%q) is wrong", host)
	}
	if u, err := url.Parse("https://" + authority + "/"); err != nil || u.Hostname() != host || u.User != nil {
		t.Fatalf("net/url reads %q as %v, %v", authority, u, err)
	}
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

func checkInert(t fataler, s string) {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			t.Fatalf("message %q is not inert", s)
		}
	}
}

func BenchmarkCanonical(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = hostname.Canonical("api.shop.example")
	}
}
