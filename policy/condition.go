package policy

import (
	"net/http"
	"slices"
	"strings"
)

// condition says which values a query parameter or a header field may have.
type condition struct {
	name   string
	values []string
}

// What can be wrong with a parameter or field. They continue the sentence
// "the parameter X ...".
const (
	isMissing   = "is missing"
	isRepeated  = "is there more than once, or beside one that some servers take for it"
	isForbidden = "has a value that is not allowed"
	isUnclear   = "cannot be judged, because servers read this query in different ways"
	isOverride  = "can change what the upstream does, and the rule limits just that"
)

// checkQuery judges a raw query. It returns the first condition that does not
// hold and what is wrong; problem is "" if all hold.
func checkQuery(conditions []condition, raw string) (name, problem string) {
	if len(conditions) == 0 {
		return "", ""
	}
	if !clearQuery(raw) {
		return conditions[0].name, isUnclear
	}
	for i := range conditions {
		if problem := conditions[i].checkPairs(raw); problem != "" {
			return conditions[i].name, problem
		}
	}
	return "", ""
}

// checkPairs judges one parameter in a query that is clear. Pairs are read as
// forms are (WHATWG URL section 5.1): "+" is a space.
func (c *condition) checkPairs(raw string) string {
	found, value := false, ""
	for more := true; more; {
		var pair string
		pair, raw, more = strings.Cut(raw, "&")
		key, v, _ := strings.Cut(pair, "=")
		switch {
		case pair == "":
		case decodesTo(key, c.name):
			if found {
				return isRepeated
			}
			found, value = true, v
		case resembles(key, c.name):
			return isRepeated
		}
	}
	if !found {
		return isMissing
	}
	for _, want := range c.values {
		if decodesTo(value, want) {
			return ""
		}
	}
	return isForbidden
}

// clearQuery says whether a query is printable ASCII with correct
// percent-encoding, and separates only with "&": some servers separate with ";"
// too.
func clearQuery(raw string) bool {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c <= 0x20 || c >= 0x7f || c == ';' || c == '#' {
			return false
		}
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return false
			}
			i += 2
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// next decodes the first byte of s, which is part of a clear query.
func next(s string) (c byte, rest string) {
	switch s[0] {
	case '%':
		return unhex(s[1])<<4 | unhex(s[2]), s[3:]
	case '+':
		return ' ', s[1:]
	}
	return s[0], s[1:]
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&0xf + 9
}

func decodesTo(encoded, want string) bool {
	for i := 0; i < len(want); i++ {
		if encoded == "" {
			return false
		}
		var c byte
		if c, encoded = next(encoded); c != want[i] {
			return false
		}
	}
	return encoded == ""
}

// resembles says whether a server could take the encoded key for the parameter
// name: case is ignored (ASP.NET), so is what follows "[" or NUL and leading
// spaces, and ".", " " and "_" are one (PHP).
func resembles(encoded, name string) bool {
	var c byte
	for encoded != "" {
		if c, encoded = next(encoded); c != ' ' {
			break
		}
	}
	if encoded == "" && c == ' ' {
		return false
	}
	for i := 0; i < len(name); i++ {
		if fold(c) != fold(name[i]) {
			return false
		}
		ended := encoded == ""
		if !ended {
			c, encoded = next(encoded)
		}
		if i == len(name)-1 {
			return ended || c == '[' || c == 0
		}
		if ended {
			return false
		}
	}
	return false
}

func fold(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '.' || c == ' ':
		return '_'
	}
	return c
}

// checkHeaders is checkQuery for header fields. A field is found under every
// name that a server could take for its own (case, and "_" for "-" as in CGI).
func checkHeaders(conditions []condition, h http.Header) (name, problem string) {
	for i := range conditions {
		if problem := conditions[i].checkField(h); problem != "" {
			return conditions[i].name, problem
		}
	}
	return "", ""
}

func (c *condition) checkField(h http.Header) string {
	n, value, exact := 0, "", false
	for name, values := range h {
		if len(values) > 0 && sameField(name, c.name) {
			n += len(values)
			value, exact = values[0], strings.EqualFold(name, c.name)
		}
	}
	switch {
	case n == 0:
		return isMissing
	case n > 1 || !exact:
		return isRepeated
	case !slices.Contains(c.values, strings.Trim(value, " \t")):
		return isForbidden
	}
	return ""
}

func sameField(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if foldField(a[i]) != foldField(b[i]) {
			return false
		}
	}
	return true
}

func foldField(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '_':
		return '-'
	}
	return c
}

// overrides has the header fields of a request that make some upstreams act on
// another method or path than the request's own, which is the one judged.
type overrides struct{ method, path string }

func findOverrides(h http.Header) (o overrides) {
	for name := range h {
		if len(name) == 0 || name[0]|0x20 != 'x' {
			continue
		}
		o.method = firstField(name, o.method, "X-Http-Method", "X-Http-Method-Override", "X-Method-Override")
		o.path = firstField(name, o.path, "X-Original-Url", "X-Rewrite-Url")
	}
	return o
}

// firstField returns the known field that name is, unless found comes before it
// in the alphabet: the order of a map must not show.
func firstField(name, found string, known ...string) string {
	for _, k := range known {
		if sameField(name, k) && (found == "" || k < found) {
			return k
		}
	}
	return found
}
