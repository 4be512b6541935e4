// Package hostname brings a host, wherever an untrusted program wrote it
// (CONNECT target, SNI, Host, :authority, DNS question), to the one form that
// rules are compared with, and refuses every spelling that two programs could
// read differently.
//
// A canonical host is one of:
//
//   - a name: labels of a-z, 0-9, "-" and "_", each 1 to 63 bytes and neither
//     starting nor ending with "-", joined by dots, at most 253 bytes, without
//     a trailing dot, the last label not a number. Underscores are kept,
//     because DNS has such names ("_dmarc", older hosts) and no program reads
//     them in two ways. Labels that start with "xn--" must be valid A-labels
//     (RFC 5891 section 4.2). Unicode is refused rather than converted: the
//     conversions in use (IDNA 2003, 2008, UTS 46) disagree.
//   - an IPv4 address in dotted decimal with four parts. The other spellings
//     of inet_aton ("127.1", "0177.0.0.1", "0x7f.1", "2130706433") are refused.
//   - an IPv6 address as RFC 5952 writes it, without brackets. Addresses with
//     a zone and IPv4-mapped ones ("::ffff:1.2.3.4") are refused.
//
// Trust: nothing is trusted; every input is hostile. Whoever controls the text
// controls only which canonical host comes out, and that host is the one that
// is judged, resolved and sent.
package hostname

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// MaxLength is the longest canonical name in bytes (RFC 1035 section 2.3.4).
const MaxLength = 253

// maxLabel is the longest label in bytes.
const maxLabel = 63

// Canonical returns the canonical form of s, which may be in upper case, have
// one trailing dot, or be an IPv6 address with or without brackets. It is
// idempotent, and does not allocate when s is canonical already. The error says
// what is wrong with s and quotes it in ASCII.
func Canonical(s string) (string, error) {
	if s == "" {
		return "", errors.New("the host is empty")
	}
	if s[0] == '[' || strings.IndexByte(s, ':') >= 0 {
		return canonicalIPv6(s)
	}
	name, err := canonicalName(s)
	if err != nil {
		return "", fmt.Errorf("the host %s %w", quote(s), err)
	}
	return name, nil
}

// IsIP says whether a canonical host is an IP address and not a name.
func IsIP(host string) bool {
	if host == "" {
		return false
	}
	// The last label of a canonical name is not a number, so that the last byte
	// tells most names apart without parsing.
	if c := host[len(host)-1]; !isDigit(c) && strings.IndexByte(host, ':') < 0 {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// SplitHostPort splits an authority ("host", "host:port", "[v6]" or
// "[v6]:port"; RFC 3986 section 3.2 without user information) and returns the
// canonical host. An IPv6 address must be in brackets. A port is one to five
// decimal digits without a leading zero, 1 to 65535. An authority without a
// port has defaultPort; with a defaultPort of 0 it is an error.
func SplitHostPort(authority string, defaultPort uint16) (host string, port uint16, err error) {
	raw, digits, hasPort, err := cutPort(authority)
	if err != nil {
		return "", 0, err
	}
	port = defaultPort
	if hasPort {
		if port, err = parsePort(digits); err != nil {
			return "", 0, fmt.Errorf("the authority %s %w", quote(authority), err)
		}
	}
	if port == 0 {
		return "", 0, fmt.Errorf("the authority %s has no port; write host:port", quote(authority))
	}
	if host, err = Canonical(raw); err != nil {
		return "", 0, err
	}
	return host, port, nil
}

// cutPort separates the port's digits from the host. The host keeps its
// brackets.
func cutPort(authority string) (host, digits string, hasPort bool, err error) {
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		rest := authority[end+1:]
		switch {
		case end < 0:
			return "", "", false, fmt.Errorf("the authority %s has no closing bracket", quote(authority))
		case rest == "":
			return authority, "", false, nil
		case rest[0] != ':':
			return "", "", false, fmt.Errorf("the authority %s has something other than a port behind its bracket", quote(authority))
		}
		return authority[:end+1], rest[1:], true, nil
	}
	host, digits, hasPort = strings.Cut(authority, ":")
	if strings.IndexByte(digits, ':') >= 0 {
		return "", "", false, fmt.Errorf("the authority %s has more than one colon; write an IPv6 address in brackets", quote(authority))
	}
	return host, digits, hasPort, nil
}

func parsePort(s string) (uint16, error) {
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0, errors.New("has a port that is not a number")
		}
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, errors.New("has a port that is not 1 to 65535 in plain decimal")
	}
	return uint16(n), nil
}

func canonicalIPv6(s string) (string, error) {
	inner := s
	if s[0] == '[' {
		if len(s) < 2 || s[len(s)-1] != ']' {
			return "", fmt.Errorf("the host %s has no closing bracket", quote(s))
		}
		inner = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(inner)
	switch {
	case err != nil || !a.Is6():
		return "", fmt.Errorf("the host %s is neither a name nor an IPv6 address", quote(s))
	case a.Zone() != "":
		return "", fmt.Errorf("the host %s has an IPv6 zone, which means something on one machine only", quote(s))
	case a.Is4In6():
		return "", fmt.Errorf("the host %s is an IPv4 address in IPv6 clothes; write %s", quote(s), a.Unmap())
	}
	var buf [48]byte
	if c := a.AppendTo(buf[:0]); string(c) != inner {
		return string(c), nil
	}
	return inner, nil
}

// canonicalName handles names and IPv4 addresses. Its errors continue the
// sentence "the host X ...".
func canonicalName(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if len(s) > MaxLength {
		return "", fmt.Errorf("is longer than %d bytes", MaxLength)
	}
	upper, alabel, label := false, false, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if err := checkLabel(s[label:i]); err != nil {
				return "", err
			}
			alabel = alabel || i-label >= 4 && strings.EqualFold(s[label:label+4], "xn--")
			label = i + 1
			continue
		}
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', isDigit(c), c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			upper = true
		case c >= 0x80:
			return "", errors.New("is not ASCII; write its A-label (xn--...)")
		default:
			return "", fmt.Errorf("has the character %s, which no host name has", strconv.QuoteRuneToASCII(rune(c)))
		}
	}
	if upper {
		s = strings.ToLower(s)
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; isNumber(last) {
		if a, err := netip.ParseAddr(s); err != nil || !a.Is4() {
			return "", errors.New("ends in a number but is not an IPv4 address of four decimal parts")
		}
	}
	if alabel {
		if err := checkALabels(s); err != nil {
			return "", err
		}
	}
	return s, nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("has an empty label")
	case len(label) > maxLabel:
		return fmt.Errorf("has a label longer than %d bytes", maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("has a label that starts or ends with a hyphen")
	}
	return nil
}

// isNumber says whether a host with this last label is an IPv4 address to some
// parsers: decimal, octal or hexadecimal (WHATWG URL, "ends in a number").
func isNumber(label string) bool {
	hex := strings.HasPrefix(label, "0x")
	if hex {
		label = label[2:]
	}
	for i := 0; i < len(label); i++ {
		c := label[i]
		if !isDigit(c) && !(hex && 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// checkALabels refuses a label that starts with "xn--" and is not what its
// Unicode form encodes to, so that it has one spelling.
func checkALabels(s string) error {
	profile := idna.New(idna.ValidateLabels(true), idna.BidiRule(), idna.StrictDomainName(false))
	for label := range strings.SplitSeq(s, ".") {
		if !strings.HasPrefix(label, "xn--") {
			continue
		}
		u, err := profile.ToUnicode(label)
		if err == nil {
			var back string
			if back, err = profile.ToASCII(u); err == nil && (back != label || u == label) {
				err = errors.New("it does not encode to itself")
			}
		}
		if err != nil {
			return errors.New("has a label that starts with xn-- and is not a valid A-label")
		}
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// quote makes s safe to show: ASCII only, control characters escaped, at most
// 80 bytes of it.
func quote(s string) string {
	if len(s) > 80 {
		return strconv.QuoteToASCII(s[:80]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
