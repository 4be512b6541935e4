package dialguard

import "net/netip"

type block struct {
	prefix netip.Prefix
	class  Class
}

// The first block that has an address decides, so that an exception stands
// before its range. These tables are never written to.
var (
	blocks4 = blocks(
		// Metadata services, wherever they hide.
		"169.254.169.254", Metadata, // AWS, Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack, ...
		"169.254.170.2", Metadata, // AWS ECS task credentials
		"169.254.170.23", Metadata, // AWS EKS pod identity
		"169.254.169.253", Metadata, // AWS resolver
		"169.254.0.23", Metadata, // Tencent
		"169.254.42.42", Metadata, // Scaleway
		"100.100.100.200", Metadata, // Alibaba
		"192.0.0.192", Metadata, // Oracle Cloud Classic
		"168.63.129.16", Metadata, // Azure WireServer

		"0.0.0.0/8", Unspecified, // RFC 791; Linux connects 0.0.0.0 to itself
		"10.0.0.0/8", Private,
		"100.64.0.0/10", CarrierGrade,
		"127.0.0.0/8", Loopback,
		"169.254.0.0/16", LinkLocal,
		"172.16.0.0/12", Private,
		"192.0.0.0/24", Reserved, // IETF protocol assignments
		"192.0.2.0/24", Reserved, // documentation
		"192.31.196.0/24", Reserved, // AS112
		"192.52.193.0/24", Reserved, // AMT
		"192.88.99.0/24", Reserved, // 6to4 relay, deprecated
		"192.168.0.0/16", Private,
		"192.175.48.0/24", Reserved, // AS112
		"198.18.0.0/15", Reserved, // benchmarks
		"198.51.100.0/24", Reserved, // documentation
		"203.0.113.0/24", Reserved, // documentation
		"224.0.0.0/4", Multicast,
		"255.255.255.255", Multicast,
		"240.0.0.0/4", Reserved,
	)
	blocks6 = blocks(
		"fd00:ec2::/32", Metadata, // AWS: metadata, resolver, time, pod identity
		"fd20:ce::254", Metadata, // Google
		"fd00:c1::a9fe:a9fe", Metadata, // Oracle
		"fd00:42::42", Metadata, // Scaleway
		"fe80::a9fe:a9fe", Metadata, // OpenStack

		"::", Unspecified,
		"::1", Loopback,
		"fc00::/7", Private,
		"fe80::/10", LinkLocal,
		"ff00::/8", Multicast,

		"::/96", Translated, // IPv4-compatible (RFC 4291, deprecated)
		"::ffff:0:0:0/96", Translated, // IPv4-translated (RFC 2765)
		"64:ff9b::/96", Translated, // NAT64 (RFC 6052)
		"64:ff9b:1::/48", Translated, // local NAT64 (RFC 8215)
		"2001::/32", Translated, // Teredo (RFC 4380)
		"2002::/16", Translated, // 6to4 (RFC 3056)

		"2001::/23", Reserved, // IETF protocol assignments
		"2001:db8::/32", Reserved, // documentation
		"2620:4f:8000::/48", Reserved, // AS112
		"3fff::/20", Reserved, // documentation
		"2000::/3", Public,
		"::/0", Reserved,
	)
)

// blocks reads pairs of a prefix (or a single address) and its class.
func blocks(pairs ...any) []block {
	bs := make([]block, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		s := pairs[i].(string)
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a := netip.MustParseAddr(s)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		bs = append(bs, block{p, pairs[i+1].(Class)})
	}
	return bs
}

// Classify says what kind of destination addr is. An IPv4-mapped IPv6 address
// is its IPv4 address, as it is for the kernel. An address that carries another
// one through a translator is Metadata if the one inside is, so that the alert
// says so, and else Translated. An address with a zone is Invalid: prefixes
// never contain one (see [netip.Prefix.Contains]), so that it would fall
// through every other check.
func Classify(addr netip.Addr) Class {
	if !addr.IsValid() || addr.Zone() != "" {
		return Invalid
	}
	addr = addr.Unmap()
	if addr.Is4() {
		return lookup(blocks4, addr, Public)
	}
	c := lookup(blocks6, addr, Reserved)
	if c == Public && isISATAP(addr) {
		c = Translated
	}
	if c == Translated && carriesMetadata(addr) {
		c = Metadata
	}
	return c
}

func lookup(bs []block, addr netip.Addr, otherwise Class) Class {
	for _, b := range bs {
		if b.prefix.Contains(addr) {
			return b.class
		}
	}
	return otherwise
}

// isISATAP says whether the interface identifier is ISATAP's: 0:5efe or
// 200:5efe, then an IPv4 address (RFC 5214 section 6.1).
func isISATAP(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// carriesMetadata looks in all the places where the translations put an IPv4
// address. Looking in the wrong place for a given prefix does no harm: the
// address is refused either way.
func carriesMetadata(addr netip.Addr) bool {
	b := addr.As16()
	for _, v4 := range [...][4]byte{
		{b[12], b[13], b[14], b[15]},                             // NAT64 /96, IPv4-compatible, IPv4-translated, ISATAP
		{b[2], b[3], b[4], b[5]},                                 // 6to4
		{b[6], b[7], b[9], b[10]},                                // NAT64 /48 (RFC 6052 section 2.2)
		{b[7], b[9], b[10], b[11]},                               // NAT64 /56
		{b[9], b[10], b[11], b[12]},                              // NAT64 /64
		{b[4], b[5], b[6], b[7]},                                 // Teredo server, NAT64 /32
		{b[12] ^ 0xff, b[13] ^ 0xff, b[14] ^ 0xff, b[15] ^ 0xff}, // Teredo client
	} {
		if lookup(blocks4, netip.AddrFrom4(v4), Public) == Metadata {
			return true
		}
	}
	return false
}
