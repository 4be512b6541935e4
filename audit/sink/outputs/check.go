package outputs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pattern compiles a regular expression when it is first used.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

var (
	namePattern   = pattern(`^[a-z][a-z0-9-]{0,39}$`)
	indexPattern  = pattern(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,79}$`)
	fieldPattern  = pattern(`^[A-Za-z][A-Za-z0-9-]{0,63}$`)
	hostPattern   = pattern(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
	bucketPattern = pattern(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixPattern = pattern(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
	regionPattern = pattern(`^[a-z0-9-]{1,40}$`)
	keyIDPattern  = pattern(`^[A-Za-z0-9_+/=.-]{3,128}$`)
	codePattern   = pattern(`^[a-z0-9][a-z0-9-]{0,63}$`)
	timePattern   = pattern(`^([1-9][0-9]{0,6})(s|m|h|d)$`)
	sizePattern   = pattern(`^([1-9][0-9]{0,6})(KiB|MiB|GiB)$`)
)

// form makes a check of a pattern.
func form(p func() *regexp.Regexp, text, hint string) func(string) (string, string) {
	return func(s string) (string, string) {
		if p().MatchString(s) {
			return "", ""
		}
		return quote(s) + " " + text, hint
	}
}

func checkName(s string) (string, string) {
	return form(namePattern, "is no name: 1 to 40 of a-z, 0-9 and -, the first a letter", "write for example siem")(s)
}

func checkIndex(s string) (string, string) {
	return form(indexPattern, "is no name of an index", "")(s)
}

func checkField(s string) (string, string) {
	switch strings.ToLower(s) {
	case "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "user-agent":
		return quote(s) + " is a field that the request has already", "write for example header: X-Api-Key"
	}
	return form(fieldPattern, "is no name of a header field", "write for example header: X-Api-Key")(s)
}

func checkHostname(s string) (string, string) {
	return form(hostPattern, "is no name of a host", "")(s)
}

func checkBucket(s string) (string, string) {
	return form(bucketPattern, "is no name of a bucket: 3 to 63 of a-z, 0-9, . and -", "")(s)
}

func checkPrefix(s string) (string, string) {
	if len(s) > 200 {
		return "has more than 200 characters", ""
	}
	return form(prefixPattern, "is no prefix: words of A-Z, a-z, 0-9, ., _ and - with single slashes between them", "write for example prefix: audit/prod")(s)
}

func checkRegion(s string) (string, string) { return form(regionPattern, "is no region", "")(s) }

func checkKeyID(s string) (string, string) {
	return form(keyIDPattern, "is no access key id", "the secret belongs into secret-file")(s)
}

func checkCode(s string) (string, string) {
	return form(codePattern, "is no code of a reason", "write for example host-not-allowed")(s)
}

func checkUser(s string) (string, string) {
	if s == "" || len(s) > 256 || strings.ContainsAny(s, "\r\n\x00") {
		return "is no name of a user", ""
	}
	return "", ""
}

func checkPath(s string) (string, string) {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s || s == "/" {
		return quote(s) + " is no absolute path in its shortest form", "write for example /etc/ambit/siem.secret"
	}
	return "", ""
}

func checkMail(s string) (string, string) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Name != "" || a.Address != s || len(s) > 254 {
		return quote(s) + " is no plain e-mail address", "write for example security@example.com"
	}
	return "", ""
}

func checkHostPort(s string) (string, string) {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" || !isHost(host) {
		return quote(s) + " is no host and port", "write for example mail.example.com:587"
	}
	return "", ""
}

func isHost(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Zone() == "" || a.IsLinkLocalUnicast()
	}
	return hostPattern().MatchString(host)
}

// loopback says whether a host, or a host and port, is this machine.
func loopback(s string) bool {
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		host = strings.Trim(s, "[]")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// checkVerifierKey holds a key against https://c2sp.org/signed-note: name, the first 4
// bytes of the hash, and the algorithm (1: Ed25519, 4: timestamped cosignature)
// before 32 bytes of key.
func checkVerifierKey(s string) (string, string) {
	const text, hint = "is no verifier key of a witness", `it looks like "witness.example.com+1a2b3c4d+BN…", as the witness publishes it`
	name, rest, _ := strings.Cut(s, "+")
	hash, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	n, bad := strconv.ParseUint(hash, 16, 32)
	if err != nil || bad != nil || len(hash) != 8 || len(key) != 33 || key[0] != 1 && key[0] != 4 || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return text, hint
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if uint64(binary.BigEndian.Uint32(sum[:])) != n {
		return text + ": its hash is not that of its name and key", "copy it again"
	}
	return "", ""
}

const insecureHint = "write https:// or tls://, or insecure: true if the network in between is to be trusted with everything"

// url reads one that requests go to.
func (d *decoder) url(parent, n node, insecure bool, tls node) string {
	if !n.Given() {
		d.Missing(parent, "url", "write for example url: https://siem.example.com/")
		return ""
	}
	s, ok := d.Text(n, "")
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || !isHost(u.Hostname()) || u.Opaque != "":
		d.Refuse(n, quote(s)+" is no URL of https", "write for example https://siem.example.com/")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		d.Refuse(n, "has a user, a query or a fragment in it, where secrets are", "put secrets into secret-file")
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		d.Refuse(n, "would send everything to another machine in the clear", insecureHint)
	case u.Scheme == "http" && tls.Given():
		d.Refuse(tls, "has no use: the URL is without TLS", "write https:// in the URL, or remove it")
	default:
		return s
	}
	return ""
}

// address reads one of syslog: tls://host:port or tcp://host:port.
func (d *decoder) address(n node, insecure bool) (transport, address string) {
	s, ok := d.Text(n, "")
	if !ok {
		return "", ""
	}
	transport, address, _ = strings.Cut(s, "://")
	if text, _ := checkHostPort(address); text != "" || transport != "tls" && transport != "tcp" {
		d.Refuse(n, quote(s)+" is no address of syslog", "write for example tls://siem.example.com:6514")
		return "", ""
	}
	if transport == "tcp" && !insecure && !loopback(address) {
		d.Refuse(n, "would send everything to another machine in the clear", insecureHint)
	}
	return transport, address
}

// duration reads a number with its unit: 90s, 5m, 1h, 7d.
func (d *decoder) duration(n node, least, most, fallback time.Duration) time.Duration {
	if !n.Given() {
		return fallback
	}
	s, _ := n.Scalar()
	if m := timePattern().FindStringSubmatch(s); m != nil {
		count, _ := strconv.Atoi(m[1])
		t := time.Duration(count) * map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
		if t >= least && t <= most {
			return t
		}
		d.Refuse(n, fmt.Sprintf("%s is not from %s to %s", s, least, most), "")
		return 0
	}
	d.WrongKind(n, "a number and s, m, h or d", "write for example 1h")
	return 0
}

// size reads a number with its unit: 100MiB.
func (d *decoder) size(n node, fallback int64) int64 {
	if !n.Given() {
		return fallback
	}
	s, _ := n.Scalar()
	if m := sizePattern().FindStringSubmatch(s); m != nil {
		count, _ := strconv.Atoi(m[1])
		size := int64(count) << map[string]int{"KiB": 10, "MiB": 20, "GiB": 30}[m[2]]
		if size >= 64<<10 && size < math.MaxInt64>>20 {
			return size
		}
	}
	d.WrongKind(n, "a size from 64KiB on, with KiB, MiB or GiB", "write for example 100MiB")
	return 0
}
