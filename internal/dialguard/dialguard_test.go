package dialguard_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"code.dny.dev/ssrf"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ambit/internal/dialguard"
)

// Row S1: every class of address, at both ends of its ranges.
func TestS1Classify(t *testing.T) {
	for class, list := range map[dialguard.Class]string{
		dialguard.Public: `1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
			169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
			223.255.255.255 168.63.129.15 ::ffff:8.8.8.8 2606:4700::1111 2a00::1 2001:200::1 2620:4f:8001::1 3ffe::1`,
		dialguard.Private:      `10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.0 192.168.255.255 ::ffff:10.0.0.1 ::ffff:c0a8:1 fc00::1 fd00::1 fdff:ffff::1`,
		dialguard.Loopback:     `127.0.0.1 127.64.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1`,
		dialguard.CarrierGrade: `100.64.0.0 100.127.255.255 ::ffff:100.64.0.1`,
		dialguard.LinkLocal:    `169.254.0.1 169.254.255.255 fe80::1 febf::1`,
		dialguard.Metadata: `169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 192.0.0.192 168.63.129.16 ::ffff:169.254.169.254
			fd00:ec2::254 fd00:ec2::23 fd00:ec2::253 fd20:ce::254 fd00:c1::a9fe:a9fe fe80::a9fe:a9fe
			64:ff9b::169.254.169.254 64:ff9b::100.100.100.200 64:ff9b:1::169.254.169.254 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:fa9:fe:a9fe:: ::169.254.169.254 ::ffff:0:169.254.169.254
			2002:a9fe:a9fe::1 2001:0:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:5601:5601 2606:4700::5efe:169.254.169.254 2606:4700::200:5efe:a83f:8110`,
		dialguard.Unspecified: `0.0.0.0 0.0.0.1 0.255.255.255 :: ::ffff:0.0.0.0`,
		dialguard.Multicast:   `224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1`,
		dialguard.Reserved: `192.0.0.1 192.0.0.8 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 240.0.0.1 255.255.255.254
			100::1 2001:1::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2620:4f:8000::1 3fff::1 5f00::1 fec0::1 4000::1 1::1 200::1`,
		dialguard.Translated: `64:ff9b::8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 ::8.8.8.8 ::2 ::ffff:0:8.8.8.8
			2002:808:808::1 2002:7f00:1::1 2002:a00:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:8.8.8.8`,
		dialguard.Invalid: `fe80::1%eth0 ::1%lo 2606:4700::1111%1 fd00:ec2::254%eth0 ::ffff:127.0.0.1%1 64:ff9b::127.0.0.1%x`,
	} {
		for s := range strings.FieldsSeq(list) {
			a := netip.MustParseAddr(s)
			if got := dialguard.Classify(a); got != class {
				t.Errorf("Classify(%s) = %s, want %s", s, got, class)
			}
			open := class == dialguard.Private || class == dialguard.Loopback || class == dialguard.CarrierGrade
			checkDecision(t, a, false, class, class == dialguard.Public)
			checkDecision(t, a, true, class, class == dialguard.Public || open)
		}
	}
	checkDecision(t, netip.Addr{}, true, dialguard.Invalid, false)
}

func checkDecision(t *testing.T, a netip.Addr, allowPrivate bool, class dialguard.Class, want bool) {
	t.Helper()
	err := dialguard.Check(a, allowPrivate)
	if (err == nil) != want {
		t.Errorf("Check(%s, %v) = %v", a, allowPrivate, err)
	}
	var refused *dialguard.Error
	if err == nil {
		return
	}
	if !errors.As(err, &refused) || refused.Class != class {
		t.Errorf("Check(%s, %v) = %#v, want class %s", a, allowPrivate, err, class)
	}
	code := "private-address"
	if class == dialguard.Metadata {
		code = "metadata-address"
	}
	if r := refused.Reason(); r.Code != code || r.Text == "" || strings.Contains(r.Text, "%") {
		t.Errorf("Reason of %s = %+v", a, r)
	}
}

// Row S2: of several answers one is private, in any place.
func TestS2OneBadAnswerRefusesAll(t *testing.T) {
	public := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700::1111"), netip.MustParseAddr("::ffff:1.1.1.1")}
	got, err := dialguard.Vet(public, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"8.8.8.8", "2606:4700::1111", "1.1.1.1"}
	for i := range got {
		if got[i].String() != want[i] {
			t.Errorf("answer %d is %s, want %s", i, got[i], want[i])
		}
	}
	bad := netip.MustParseAddr("10.0.0.1")
	for i := range len(public) + 1 {
		mixed := append(append(append([]netip.Addr{}, public[:i]...), bad), public[i:]...)
		list, err := dialguard.Vet(mixed, false)
		var refused *dialguard.Error
		if list != nil || !errors.As(err, &refused) || refused.Addr != bad {
			t.Errorf("Vet with the private answer at %d = %v, %v", i, list, err)
		}
		if _, err := dialguard.Vet(mixed, true); err != nil {
			t.Errorf("Vet with private allowed = %v", err)
		}
		mixed[i] = netip.MustParseAddr("169.254.169.254")
		if list, err := dialguard.Vet(mixed, true); err == nil {
			t.Errorf("Vet lets metadata through: %v", list)
		}
	}
	if _, err := dialguard.Vet(nil, true); !errors.Is(err, dialguard.ErrNoAddress) {
		t.Errorf("Vet(nil) = %v", err)
	}
}

// Row S2: a real dialler with Control does not connect to a listener that is
// there, whatever was checked before, and does with private allowed.
func TestS2ControlStopsTheDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, target := range []string{"127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "localhost"} {
		d := net.Dialer{Control: dialguard.Control(false)}
		conn, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(target, port))
		if err == nil {
			conn.Close()
			t.Errorf("dialled %s", target)
		}
		var refused *dialguard.Error
		if !errors.As(err, &refused) {
			t.Errorf("dialling %s: %v", target, err)
		}
	}
	d := net.Dialer{Control: dialguard.Control(true)}
	conn, err := d.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, c := range [][2]string{{"udp4", "8.8.8.8:53"}, {"unix", "/run/x.sock"}, {"tcp4", "8.8.8.8"}, {"tcp6", "[fe80::1%lo]:80"}, {"", "8.8.8.8:53"}} {
		if err := dialguard.Control(true)(c[0], c[1], nil); err == nil {
			t.Errorf("Control lets %v through", c)
		}
	}
}

// Nothing that is allowed here is refused by an independent implementation.
func TestNeverWeakerThanSSRF(t *testing.T) {
	guardian := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAnyNetwork())
	seeds := []string{"10.0.0.0", "100.64.0.0", "127.0.0.0", "169.254.169.254", "192.0.0.0", "192.0.2.0", "192.88.99.0", "198.18.0.0", "203.0.113.0", "224.0.0.0", "240.0.0.0",
		"2001::", "2001:200::", "2001:db8::", "2002::", "2620:4f:8000::", "3fff::", "3fff:1000::", "64:ff9b::", "fc00::", "fe80::", "ff00::", "2000::", "4000::", "2606:4700::"}
	rapid.Check(t, func(t *rapid.T) {
		a := netip.MustParseAddr(rapid.SampledFrom(seeds).Draw(t, "seed"))
		b := a.AsSlice()
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		a, _ = netip.AddrFromSlice(b)
		if dialguard.Check(a, false) == nil {
			if err := guardian.SafeAddr(a.Unmap()); err != nil {
				t.Fatalf("%s is allowed here, and ssrf says: %v", a, err)
			}
		}
		if a.Is4() { // mapped is the same as plain
			mapped := netip.AddrFrom16(a.As16())
			if diff := cmp.Diff(dialguard.Classify(a).String(), dialguard.Classify(mapped).String()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	b.ReportAllocs()
	a := netip.MustParseAddr("8.8.8.8")
	for b.Loop() {
		_ = dialguard.Check(a, false)
	}
}
