package scan

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 5321 section 4.5.3.1, in octets, and of RFC 1035 section 2.3.4.
const (
	maxLocal    = 64
	maxDomain   = 255
	maxDNSLabel = 63
	maxUserinfo = 64 // how far back a URL's user name is looked for
)

// address is where an e-mail address is in b: b[start:end], with its @ at sign.
type address struct {
	start, sign, end int
	international    bool // its domain is not all ASCII
}

// findEmail returns the address around the @ (or its mark) at b[sign].
func findEmail(b []byte, sign int) (a address, ok bool) {
	if class[at(b, sign+1)]&isAlnum == 0 && wordAt(b, sign+1) == 0 {
		return a, false
	}
	start, ok := localStart(b, sign)
	if !ok {
		return a, false
	}
	end, international, ok := domainEnd(b, sign+1)
	return address{start, sign, end, international}, ok
}

// localStart goes back from the @ to where the local part begins.
func localStart(b []byte, sign int) (start int, ok bool) {
	form := b[sign] == markAt
	i := sign
walk:
	for i > 0 {
		c := b[i-1]
		switch {
		case class[c]&isAlnum != 0 || c == '_' || c == '-' || c == markPlus:
			i--
		case c == '+':
			if form {
				break walk
			}
			i--
		case c == '.':
			if i == sign {
				return 0, false
			}
			if b[i] == '.' {
				break walk
			}
			i--
		case c == '\'': // in a name it has letters around it; elsewhere it quotes
			if i == sign || class[b[i]]&isLetter == 0 || class[at(b, i-2)]&isLetter == 0 {
				break walk
			}
			i--
		default:
			n := wordBefore(b, i)
			if n == 0 {
				break walk
			}
			i -= n
		}
		if sign-i > maxLocal {
			return 0, false
		}
	}
	for i < sign && class[b[i]]&isLocal != 0 && class[b[i]]&isAlnum == 0 && b[i] != '_' {
		i++
	}
	return i, i < sign && !password(b, i)
}

// password says whether what begins at b[i] is the password in a URL,
// "//user:password@host", which looks like an address and is a secret.
func password(b []byte, i int) bool {
	if at(b, i-1) != ':' {
		return false
	}
	for j := i - 1; j > max(0, i-maxUserinfo); j-- {
		c := b[j-1]
		if c == '/' {
			return at(b, j-2) == '/'
		}
		if class[c]&isLocal == 0 && c != '%' && c != '~' {
			return false
		}
	}
	return false
}

// domainEnd goes on to where the domain that begins at b[from] ends.
func domainEnd(b []byte, from int) (end int, international, ok bool) {
	top, dots := 0, 0 // the last label that can be a top-level domain; the dots before it
	for i, n := from, 0; ; n++ {
		start, plain := i, true
		for i-from <= maxDomain {
			if c := at(b, i); class[c]&isAlnum != 0 || c == '-' {
				i++
			} else if size := wordAt(b, i); size > 0 {
				plain = false
				i += size
			} else {
				break
			}
		}
		if i-from > maxDomain || i-start > maxDNSLabel {
			return 0, false, false
		}
		last := i
		for last > start && b[last-1] == '-' {
			last--
		}
		if last == start || b[start] == '-' {
			break
		}
		international = international || !plain
		if topLevel(b[start:last]) {
			top, end, dots = start, last, n
		}
		if last < i || at(b, i) != '.' {
			break
		}
		i++
	}
	return end, international, dots > 0 && !image(b[top:end])
}

// topLevel says whether the label can be the last one of a domain.
func topLevel(label []byte) bool {
	if len(label) < 2 {
		return false
	}
	if len(label) > 4 && bytes.EqualFold(label[:4], []byte("xn--")) {
		return true
	}
	for _, c := range label {
		if class[c]&isLetter == 0 && c < 0x80 {
			return false
		}
	}
	return true
}

// image says whether a label is the end of a file's name, as in
// "logo@2x.png", and no top-level domain.
func image(label []byte) bool {
	switch len(label) {
	case 3, 4:
		switch string([]byte{lower(label[0]), lower(label[1]), lower(label[2]), lower(label[len(label)-1])}) {
		case "pngg", "jpgg", "jpeg", "giff", "svgg", "webp":
			return true
		}
	}
	return false
}

// appendEmail appends the address in lower case; its domain is not in ASCII
// yet.
func appendEmail(to, b []byte, a address) []byte {
	for i := a.start; i < a.end; {
		switch c := b[i]; {
		case i == a.sign:
			to = append(to, '@')
		case c == markPlus:
			to = append(to, '+')
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(b[i:a.end])
			to = utf8.AppendRune(to, unicode.ToLower(r))
			i += n
			continue
		default:
			to = append(to, lower(c))
		}
		i++
	}
	return to
}

// toASCII writes the domain of an address with A-labels. One that IDNA does not
// know stays as it is.
func toASCII(email []byte) []byte {
	local, domain, _ := bytes.Cut(email, []byte("@"))
	ascii, err := idna.Lookup.ToASCII(string(domain))
	if err != nil {
		return email
	}
	return append(append(bytes.Clone(local), '@'), ascii...)
}
