package manifest

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxDescription = 500
	maxArguments   = 256
	maxArgument    = 30000 // characters; the kernel takes 128 KiB for one argument
	maxFolder      = 1024
	maxPEM         = 64 << 10
)

var (
	namePattern     = pattern(`^[a-z][a-z0-9-]{0,39}$`)
	labelPattern    = pattern(`^[a-z0-9-]{1,40}$`)
	variablePattern = pattern(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)
	// The grammar of a reference with a digest, with the registry spelt out:
	// https://github.com/distribution/reference/blob/main/reference.go
	imagePattern  = pattern(`^((localhost|[a-z0-9](-*[a-z0-9])*(\.[a-z0-9](-*[a-z0-9])*)+)(:[0-9]{1,5})?|[a-z0-9](-*[a-z0-9])*:[0-9]{1,5})(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+@sha256:[a-f0-9]{64}$`)
	digestPattern = pattern(`@sha256:[a-f0-9]{64}$`)
	sizePattern   = pattern(`^([1-9][0-9]{0,11})(KiB|MiB|GiB|TiB)$`)
	looseSize     = pattern(`(?i)^\s*0*([1-9][0-9]{0,11})\s*([kmgt])i?b?\s*$`)
	keptPattern   = pattern(`^([1-9][0-9]{0,3})([dwy])$`)
)

func checkName(s string) (text, hint string) {
	if namePattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not a name: 1 to 40 characters of a-z, 0-9 and -, the first a letter", "write for example name: support"
}

func checkLabel(s string) (text, hint string) {
	if labelPattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not a label: 1 to 40 characters of a-z, 0-9 and -", "write for example name: tracking"
}

func checkDescription(s string) (text, hint string) {
	if n := utf8.RuneCountInString(s); n > maxDescription {
		return fmt.Sprintf("has %d characters, more than %d", n, maxDescription), "say it shorter"
	}
	if i := strings.IndexFunc(s, invisible); i >= 0 {
		r, _ := utf8.DecodeRuneInString(s[i:])
		return fmt.Sprintf("contains the control character %U", r), "write it on one line; over several lines, start it with >-"
	}
	return "", ""
}

func checkArgument(s string) (text, hint string) {
	switch {
	case strings.ContainsRune(s, 0):
		return "contains a NUL character, which a program cannot be given", "remove it"
	case utf8.RuneCountInString(s) > maxArgument:
		return fmt.Sprintf("has more than %d characters", maxArgument), "put it into a file in the image"
	}
	return "", ""
}

// checkFolder is for absolute paths of the computer and of the host.
func checkFolder(s string) (text, hint string) {
	switch {
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	case utf8.RuneCountInString(s) > maxFolder:
		return fmt.Sprintf("has more than %d characters", maxFolder), "use a shorter path"
	case !strings.HasPrefix(s, "/"):
		return quote(s) + " is not an absolute path", "start it with /"
	case path.Clean(s) != s:
		return quote(s) + " is not written in its shortest form", "write " + quote(path.Clean(s))
	}
	return "", ""
}

func checkImage(s string) (text, hint string) {
	folder, isDir := strings.CutPrefix(s, "dir:")
	switch {
	case s == "host":
		return "", ""
	case isDir && folder == "/":
		return "dir:/ would show the agent everything on this host", "name the folder that has the image's root, or write host for the programs of this host"
	case isDir:
		return checkFolder(folder)
	case imagePattern().MatchString(s) && len(s) <= 512:
		return "", ""
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "."):
		return quote(s) + " is not an image", "for a folder write " + quote("dir:"+path.Clean("/"+s))
	}
	text = quote(s) + " is not an image"
	name, _, hasDigest := strings.Cut(s, "@")
	tag := strings.LastIndexByte(name, ':')
	tagged := tag > strings.LastIndexByte(name, '/')
	switch {
	case tagged && hasDigest && digestPattern().MatchString(s):
		return text + ": it has a tag and a digest", "leave the tag out, because the digest alone decides: " + name[:tag] + digestPattern().FindString(s)
	case tagged && !hasDigest:
		return text + ": a tag can be moved to other content at any time", "write the digest in its place, as in " + name[:tag] + "@sha256:<64 hex digits>; the registry shows it, and so does: docker buildx imagetools inspect " + shorten(s)
	case !hasDigest:
		return text + ": it has no digest", "write host, dir:/absolute/path, or registry/name@sha256:<64 hex digits>"
	case !digestPattern().MatchString(s):
		return text + ": after the @ stands no SHA-256 digest", "write sha256: and 64 hex digits in lower case"
	}
	for _, better := range []string{strings.ToLower(s), "docker.io/" + s, "docker.io/library/" + s} {
		if imagePattern().MatchString(better) {
			return text + ": it does not name a registry, or is not in lower case", "write " + better
		}
	}
	return text, "write host, dir:/absolute/path, or registry/name@sha256:<64 hex digits>"
}

// parseImage takes what checkImage has passed; "" is the zero Image.
func parseImage(s string) Image {
	folder, isDir := strings.CutPrefix(s, "dir:")
	switch {
	case s == "":
		return Image{}
	case s == "host":
		return Image{Kind: ImageHost}
	case isDir:
		return Image{Kind: ImageDir, Ref: folder}
	}
	return Image{Kind: ImageOCI, Ref: s}
}

// The variables that Ambit sets so that programs find the gate and trust its
// certificates. A proxy variable is refused in any case of letters.
var (
	proxyVariables = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY"}
	caVariables    = []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"}
)

// CheckVariable judges the name of a variable of the computer.
func CheckVariable(s string) (text, hint string) {
	switch {
	case !variablePattern().MatchString(s):
		return quote(s) + " is not a variable name: up to 100 letters, digits and _, the first no digit", "write for example LANG"
	case strings.HasPrefix(s, "AMBIT_"):
		return quote(s) + " is reserved: Ambit sets the variables that start with AMBIT_", "choose another name"
	case slices.Contains(proxyVariables, strings.ToUpper(s)):
		return quote(s) + " is set by Ambit: it leads to the agent's gate, the only way out there is", "remove it; to open a host, add a rule to egress.allow"
	case slices.Contains(caVariables, s):
		return quote(s) + " is set by Ambit: it names the certificates of the agent's gate, without which no connection is trusted", "remove it; to trust a host's own authority, write it as ca of its rule in egress.allow"
	}
	return "", ""
}

// checkPEM is for certificates. It never quotes what it reads.
func checkPEM(s string) (text, hint string) {
	const paste = "paste one or more blocks of -----BEGIN CERTIFICATE----- under the key, after |"
	if len(s) > maxPEM {
		return fmt.Sprintf("has %d bytes, more than %d", len(s), maxPEM), "name only the authority of this host"
	}
	rest, found := []byte(s), false
	for len(strings.TrimSpace(string(rest))) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "is not a list of certificates in PEM form", paste
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return "contains a private key", "remove it and replace the key, since this file is stored and shown; only certificates belong here"
		}
		if block.Type != "CERTIFICATE" {
			return "contains a PEM block that is no certificate: " + quote(block.Type), paste
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "contains a certificate that cannot be read: " + quote(err.Error()), "copy it again, whole"
		}
		found = true
	}
	if !found {
		return "contains no certificate", paste
	}
	return "", ""
}

// sizeUnits are the units from the largest to the smallest.
var sizeUnits = [...]struct {
	name string
	size Bytes
}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// The bounds of memory and disk.
const (
	minSize = 64 * MiB
	maxSize = 16 * TiB
)

// size reads "512MiB".
func (d *decoder) size(n node, fallback Bytes) Bytes {
	if !n.Given() {
		return fallback
	}
	if n.Decimal() != "" {
		d.Refuse(n, "a size needs a unit, found "+n.Kind(), "write for example "+fallback.String()+"; the units are KiB, MiB, GiB and TiB")
		return 0
	}
	s, ok := d.Text(n, "")
	if !ok {
		return 0
	}
	m := sizePattern().FindStringSubmatch(s)
	if m == nil {
		hint := "write a whole number and KiB, MiB, GiB or TiB, as in " + fallback.String()
		if l := looseSize().FindStringSubmatch(s); l != nil {
			hint = "write " + l[1] + strings.ToUpper(l[2]) + "iB"
		}
		d.Refuse(n, quote(s)+" is not a size", hint)
		return 0
	}
	count, err := strconv.ParseInt(m[1], 10, 64)
	for _, u := range sizeUnits {
		if err == nil && u.name == m[2] && count <= int64(maxSize/u.size) && Bytes(count)*u.size >= minSize {
			return Bytes(count) * u.size
		}
	}
	d.Refuse(n, quote(s)+" is not between "+minSize.String()+" and "+maxSize.String(), "write for example "+fallback.String())
	return 0
}

// maxRetention is ten years, of 365 days each.
const maxRetention = 3650 * Day

// retention reads "90d" or "forever".
func (d *decoder) retention(n node) Retention {
	if n.Given() && n.Whole() != "" {
		d.Refuse(n, "a time needs a unit, found "+n.Kind(), "write "+n.Whole()+"d for days; the units are d, w and y")
		return 0
	}
	s, ok := d.Text(n, DefaultRetention.String())
	if !ok {
		return 0
	}
	if s == "forever" {
		return Forever
	}
	const hint = `write a number of days, weeks or years as in 90d, 12w or 2y, or "forever"`
	m := keptPattern().FindStringSubmatch(s)
	if m == nil {
		d.Refuse(n, quote(s)+" is not a time to keep the log for", hint)
		return 0
	}
	days, err := strconv.Atoi(m[1])
	switch m[2] {
	case "w":
		days *= 7
	case "y":
		days *= 365
	}
	r := Retention(time.Duration(days)) * Day
	if err != nil || r > maxRetention {
		d.Refuse(n, quote(s)+" is more than 10y", "write 10y or less, or forever")
		return 0
	}
	return r
}
