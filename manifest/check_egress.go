package manifest

import (
	"fmt"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"ambit"
	"ambit/internal/dialguard"
	"ambit/internal/hostname"
	"ambit/internal/urlpath"
)

const (
	maxPorts   = 64
	maxPattern = 1024
	maxValue   = 1024
)

// The names of metadata services, which resolve to addresses that are never
// dialled.
var metadataNames = []string{"metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}

// CheckHost judges a host of a rule: a canonical name, "*." and a name of at
// least two labels, or an IP address that may be dialled. Like the other checks
// it returns what is wrong and what would be right, or "" and "".
func CheckHost(s string) (text, hint string) {
	name, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(takeApart(name).host, "*") {
		return quote(s) + " is not a host: a star stands only at the start, as in *.example.com", "write one rule for each host"
	}
	canonical, err := hostname.Canonical(name)
	switch {
	case err != nil || canonical != name:
		return notHost(s, err)
	case name == ambit.InternalHost || strings.HasSuffix(name, "."+ambit.InternalHost):
		return quote(s) + " belongs to Ambit itself, which the agent reaches at http://" + ambit.InternalHost + " without a rule", "remove the rule"
	case wildcard && strings.HasSuffix(ambit.InternalHost, "."+name):
		return quote(s) + " takes in " + ambit.InternalHost + ", which belongs to Ambit itself", "write a longer name, such as " + quote("*.corp."+name)
	case wildcard && (hostname.IsIP(name) || !strings.Contains(name, ".")):
		return quote(s) + " opens too much: after the star there must be at least two labels", "write for example " + quote("*.example."+lastLabel(name))
	case wildcard:
		return "", ""
	case slices.Contains(metadataNames, name):
		return quote(s) + " is a cloud's metadata service, which hands out the host's own credentials and is never opened", "remove the rule"
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return neverDialled(a)
	}
	return "", ""
}

func lastLabel(name string) string {
	if !labelPattern().MatchString(name) {
		return "com"
	}
	return name
}

// neverDialled is for addresses that no rule opens.
func neverDialled(a netip.Addr) (text, hint string) {
	if dialguard.Check(a, true) == nil {
		return "", ""
	}
	class := dialguard.Classify(a)
	if class == dialguard.Metadata {
		return a.String() + " is a cloud's metadata service, which hands out the host's own credentials and is never opened", "remove it"
	}
	return a.String() + " is " + class.String() + ", and such an address is never dialled", "write a public, private or loopback address"
}

// target is a host and what people write around it.
type target struct {
	scheme, user     bool
	host, port, path string
}

func takeApart(s string) (t target) {
	if _, after, ok := strings.Cut(s, "://"); ok {
		t.scheme, s = true, after
	}
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		s, t.path = s[:i], s[i:]
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		t.user, s = true, s[i+1:]
	}
	if before, after, ok := strings.Cut(s, "]:"); ok {
		s, t.port = before+"]", after
	} else if strings.Count(s, ":") == 1 {
		s, t.port, _ = strings.Cut(s, ":")
	}
	t.host = s
	return t
}

// notHost says what a text that is not a canonical host is, and how to write
// what was meant.
func notHost(s string, cause error) (text, hint string) {
	t := takeApart(s)
	host, ok := meant(t.host)
	switch {
	case t.scheme:
		text = quote(s) + " is a URL, not a host"
	case t.user:
		text = quote(s) + " has a user name, which does not belong to a host"
	case t.path != "":
		text = quote(s) + " has a path, which does not belong to a host"
	case t.port != "":
		text = quote(s) + " has a port, which does not belong to a host"
	case ok || cause == nil:
		text = quote(s) + " is not written in the form in which hosts are compared"
	default:
		text = "not a host: " + cause.Error()
	}
	if !ok {
		return text, "write a name such as api.example.com, *.example.com, or an IP address"
	}
	hint = "write host: " + inYAML(host)
	if p, err := strconv.ParseUint(t.port, 10, 16); err == nil && p > 0 {
		hint += fmt.Sprintf(", ports: [%d]", p)
	}
	if p, err := urlpath.Pattern(cutQuery(t.path)); err == nil && p != "/" {
		hint += ", paths: [" + inYAML(p) + "]"
	}
	return text, hint
}

// meant finds the canonical host that a text stands for, if that is clear.
func meant(s string) (host string, ok bool) {
	name, wildcard := strings.CutPrefix(s, "*.")
	if a, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		name = a.Unmap().WithZone("").String()
	} else if ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, ".")); err == nil {
		name = ascii
	}
	name, err := hostname.Canonical(name)
	if err != nil {
		return "", false
	}
	if wildcard {
		name = "*." + name
	}
	return name, true
}

func cutQuery(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}

var plainScalar = pattern(`^[a-z/][A-Za-z0-9._/-]*$`)

// inYAML writes a value the way it has to be written in the file.
func inYAML(s string) string {
	if plainScalar().MatchString(s) {
		return s
	}
	return quote(s)
}

// CheckMethod judges an HTTP method of a rule.
func CheckMethod(s string) (text, hint string) {
	switch {
	case s == "CONNECT":
		return "CONNECT opens a tunnel that cannot be judged, so that no rule allows it", "remove it"
	case methodPattern().MatchString(s):
		return "", ""
	case methodPattern().MatchString(strings.ToUpper(s)):
		return quote(s) + " is not in upper case", "write " + strings.ToUpper(s)
	case s == "*":
		return `"*" is not an HTTP method`, "leave methods out to allow any"
	}
	return quote(s) + " is not an HTTP method", "write for example GET"
}

var methodPattern = pattern(`^[A-Z0-9!#$%&'*+.^_|~-]*[A-Z][A-Z0-9!#$%&'*+.^_|~-]*$`)

// CheckPath judges a path pattern of a rule.
func CheckPath(s string) (text, hint string) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return quote(s) + " does not start with /", "write " + inYAML("/"+s)
	case len(s) > maxPattern:
		return fmt.Sprintf("has more than %d characters", maxPattern), "use wildcards"
	case strings.ContainsAny(s, "?#"):
		return quote(s) + " has a query or fragment, which does not belong to a path", "write the path " + inYAML(cutQuery(s)) + " and the parameters under query"
	}
	for segment := range strings.SplitSeq(s, "/") {
		if strings.Contains(segment, "**") && segment != "**" {
			return quote(s) + " has ** within a segment, where it would match more than it seems to", "write ** as a segment of its own, as in /v1/**, or a single *"
		}
	}
	p, err := urlpath.Pattern(s)
	if err != nil {
		return quote(s) + " is not let through, whatever a rule says: " + err.Error(), "write the path in the form in which the host gets it"
	}
	if p != s {
		return quote(s) + " is not in canonical form, and would never match", "write " + inYAML(p)
	}
	return "", ""
}

func checkParameter(s string) (text, hint string) {
	if s == "" {
		return "a parameter needs a name", "write for example page: \"1\""
	}
	return checkValue(s)
}

func checkValue(s string) (text, hint string) {
	switch {
	case utf8.RuneCountInString(s) > maxValue:
		return fmt.Sprintf("has more than %d characters", maxValue), "use a shorter one"
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	}
	return "", ""
}

var (
	fieldPattern = pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
	// What a rule cannot judge by: the gate sets, strips or frames with these.
	goneFields = []string{"Host", "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Content-Length", "Upgrade", "Ambit-Intent"}
)

// CheckField judges the name of a header field that a rule may ask for.
func CheckField(s string) (text, hint string) {
	key := textproto.CanonicalMIMEHeaderKey(s)
	switch {
	case !fieldPattern().MatchString(s):
		return quote(s) + " is not the name of a header field", "write for example Accept"
	case key == "Host":
		return quote(s) + " is judged by the key host", "remove it"
	case slices.Contains(goneFields, key) || strings.HasPrefix(key, "Proxy-"):
		return quote(s) + " is set or removed by the gate, so that no rule can ask for it", "remove it"
	}
	return "", ""
}

func checkFieldValue(s string) (text, hint string) {
	if strings.Trim(s, " \t") != s {
		return quote(s) + " starts or ends with a space, which a header value never has", "write " + quote(strings.Trim(s, " \t"))
	}
	return checkValue(s)
}

func checkAddress(s string) (text, hint string) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return quote(s) + " is not an IP address", "write for example 93.184.216.34"
	}
	plain := a.Unmap().WithZone("")
	if text, hint = neverDialled(plain); text == "" && plain.String() != s {
		return quote(s) + " is not an IP address in its usual form", "write " + plain.String()
	}
	return text, hint
}
