package connector

import (
	"maps"
	"slices"
	"strings"

	"ambit/internal/urlpath"
)

// opening is a kind of request to one host. Nil is any; an opening never has
// an empty list.
type opening struct {
	host    string // "" leaves what there is
	methods []string
	paths   []string
	query   map[string][]string
	headers map[string][]string
	body    []BodyCondition // without methods and paths
}

// both is what a and b leave open together. It returns false if that is
// nothing. Where it cannot be written in patterns, less is left and never more.
func both(a, b opening) (opening, bool) {
	o := opening{host: a.host, body: slices.Concat(a.body, b.body)}
	if b.host != "" {
		o.host = b.host
	}
	var okMethods, okPaths, okQuery, okHeaders bool
	o.methods, okMethods = intersect(a.methods, b.methods, sameWord)
	o.paths, okPaths = intersect(a.paths, b.paths, commonPaths)
	o.query, okQuery = intersectMaps(a.query, b.query)
	o.headers, okHeaders = intersectMaps(a.headers, b.headers)
	return o, okMethods && okPaths && okQuery && okHeaders
}

// intersect keeps what each pair has in common.
func intersect(a, b []string, common func(a, b string) []string) ([]string, bool) {
	switch {
	case a == nil:
		return b, true
	case b == nil:
		return a, true
	}
	var all []string
	for _, x := range a {
		for _, y := range b {
			all = append(all, common(x, y)...)
		}
	}
	return unique(all), len(all) > 0
}

func intersectMaps(a, b map[string][]string) (map[string][]string, bool) {
	if a == nil {
		return b, true
	}
	all := maps.Clone(a)
	for name, values := range b {
		v, ok := intersect(all[name], values, sameWord)
		if !ok {
			return nil, false
		}
		all[name] = v
	}
	return all, true
}

func sameWord(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return nil
}

// commonPaths returns patterns of what both patterns match. Each is checked
// again by covers, so that a mistake in finding them opens nothing.
func commonPaths(a, b string) []string {
	budget := 1000
	var all []string
	for _, segments := range commonSegments(strings.Split(a[1:], "/"), strings.Split(b[1:], "/"), &budget) {
		p := "/" + strings.Join(segments, "/")
		if covers(a, p) && covers(b, p) {
			all = append(all, p)
		}
	}
	return all
}

func commonSegments(a, b []string, budget *int) [][]string {
	if *budget--; *budget < 0 {
		return nil
	}
	switch {
	case len(a) == 0 && len(b) == 0:
		return [][]string{nil}
	case len(a) == 0 || len(b) == 0:
		if rest := append(slices.Clone(a), b...); len(rest) > 1 && rest[0] == "**" {
			return commonSegments(a[min(1, len(a)):], b[min(1, len(b)):], budget)
		}
		return nil
	case len(a) == 1 && a[0] == "**":
		return [][]string{b}
	case len(b) == 1 && b[0] == "**":
		return [][]string{a}
	case a[0] == "**":
		return append(commonSegments(a[1:], b, budget), prefixed(b[0], commonSegments(a, b[1:], budget))...)
	case b[0] == "**":
		return append(commonSegments(a, b[1:], budget), prefixed(a[0], commonSegments(a[1:], b, budget))...)
	case coversSegment(a[0], b[0]):
		return prefixed(b[0], commonSegments(a[1:], b[1:], budget))
	case coversSegment(b[0], a[0]):
		return prefixed(a[0], commonSegments(a[1:], b[1:], budget))
	}
	return nil
}

func prefixed(segment string, all [][]string) [][]string {
	for i, rest := range all {
		all[i] = append([]string{segment}, rest...)
	}
	return all
}

// covers says whether every path that the pattern narrow matches is one that
// wide matches. It may say no where it is so, and never yes where it is not.
// Both are canonical. Because a path with "%2F" is judged in both readings,
// both are compared.
func covers(wide, narrow string) bool {
	return coversSegments(strings.Split(wide[1:], "/"), strings.Split(narrow[1:], "/")) &&
		coversSegments(strings.Split(urlpath.Decoded(wide)[1:], "/"), strings.Split(urlpath.Decoded(narrow)[1:], "/"))
}

func coversSegments(wide, narrow []string) bool {
	for len(wide) > 0 {
		if wide[0] == "**" {
			if len(wide) == 1 {
				return len(narrow) > 0 // at the end it is at least one segment
			}
			for skip := 0; skip <= len(narrow); skip++ {
				if coversSegments(wide[1:], narrow[skip:]) {
					return true
				}
			}
			return false
		}
		if len(narrow) == 0 || !coversSegment(wide[0], narrow[0]) {
			return false
		}
		wide, narrow = wide[1:], narrow[1:]
	}
	return len(narrow) == 0
}

// coversSegment compares two segments. A "**" of narrow is covered by nothing
// but "**".
func coversSegment(wide, narrow string) bool {
	switch {
	case wide == narrow:
		return true
	case narrow == "**" || narrow == "":
		return false
	case wide == "*":
		return strings.Trim(narrow, "*") != "" // "**" and the like are never canonical
	case strings.Contains(narrow, "*"):
		before, after, one := strings.Cut(wide, "*")
		return one && !strings.Contains(after, "*") && len(narrow) >= len(before)+len(after) &&
			strings.HasPrefix(narrow, before) && strings.HasSuffix(narrow, after) &&
			!strings.Contains(before, "*")
	}
	return matchGlob(wide, narrow)
}

// matchGlob says whether glob, in which "*" is any text, matches s.
func matchGlob(glob, s string) bool {
	first, rest, star := strings.Cut(glob, "*")
	if !star {
		return glob == s
	}
	if !strings.HasPrefix(s, first) {
		return false
	}
	s = s[len(first):]
	parts := strings.Split(rest, "*")
	for _, p := range parts[:len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// escapePath writes a pin's value for a path: whatever is not unreserved (RFC
// 3986 section 2.3) is percent-encoded. A slash is too where encodeSlash says
// so.
func escapePath(value string, encodeSlash bool) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0, c == '/' && !encodeSlash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
