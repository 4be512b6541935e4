package policy

import (
	"errors"
	"fmt"
	"strings"

	"ambit/internal/urlpath"
)

// pattern is a compiled path pattern. A canonical path may have "%2F" in it,
// which some upstreams read as a slash: then both readings must match, each
// against the pattern in the same reading.
type pattern struct {
	text     string   // canonical
	segments []string // of text
	decoded  []string // of text with "%2F" read as a slash
}

func compilePattern(text string) (pattern, error) {
	canonical, err := urlpath.Pattern(text)
	if err != nil {
		return pattern{}, err
	}
	p := pattern{text: canonical, segments: strings.Split(canonical[1:], "/")}
	p.decoded = p.segments
	if d := urlpath.Decoded(canonical); d != canonical {
		p.decoded = strings.Split(d[1:], "/")
	}
	for _, s := range p.segments {
		if s != "**" && strings.Contains(s, "**") {
			return pattern{}, errors.New("** must be a segment of its own; write for example /a/**/b*")
		}
	}
	return p, nil
}

// target is a canonical request path in its two readings, which are the same
// string if it has no "%2F".
type target struct{ path, decoded string }

func (p *pattern) match(t target) bool {
	return matchSegments(p.segments, t.path) &&
		(len(t.decoded) == len(t.path) || matchSegments(p.decoded, t.decoded))
}

// matchSegments matches segment by segment and, when it is stuck, goes back to
// the last "**" and lets it take one segment more. That is complete, because
// what an earlier "**" could take instead the last one can take too.
func matchSegments(segments []string, path string) bool {
	rest, more := path[1:], true // more: rest is a segment, possibly empty
	i := 0
	back, backRest := -1, ""
	for more {
		if i < len(segments) {
			if segments[i] == "**" {
				i++
				if i == len(segments) {
					return true
				}
				back, backRest = i, rest
				continue
			}
			segment, after, found := strings.Cut(rest, "/")
			if matchSegment(segments[i], segment) {
				i, rest, more = i+1, after, found
				continue
			}
		}
		if back < 0 {
			return false
		}
		_, backRest, more = strings.Cut(backRest, "/")
		i, rest = back, backRest
	}
	return i == len(segments)
}

// matchSegment matches "*" against any text without a slash. A "*" alone wants
// at least one byte, so that "/users/*" is a user and not the list of them.
func matchSegment(glob, s string) bool {
	if glob == "*" {
		return s != ""
	}
	i, j, back, from := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(glob) && glob[i] == '*':
			i++
			back, from = i, j
		case i < len(glob) && glob[i] == s[j]:
			i, j = i+1, j+1
		case back >= 0:
			from++
			i, j = back, from
		default:
			return false
		}
	}
	for i < len(glob) && glob[i] == '*' {
		i++
	}
	return i == len(glob)
}

// pathIndex finds the rules whose patterns can match a path: by the text up to
// the last slash before the first "*", or the whole text if there is none, or
// "" for a rule without patterns. Lists are in the manifest's order.
type pathIndex struct {
	byKey   map[string][]*rule // nil if there are too few rules for an index
	longest int                // length of the longest key, so that a long path costs no more
}

// indexFrom is the number of rules from which an index is worth its memory.
const indexFrom = 4

func newPathIndex(rules []*rule) (x pathIndex) {
	if len(rules) < indexFrom {
		return x
	}
	x.byKey = make(map[string][]*rule)
	for _, r := range rules {
		if len(r.paths) == 0 {
			x.byKey[""] = append(x.byKey[""], r)
		}
		for i := range r.paths {
			key := r.paths[i].key()
			x.longest = max(x.longest, len(key))
			if have := x.byKey[key]; len(have) == 0 || have[len(have)-1] != r {
				x.byKey[key] = append(have, r)
			}
		}
	}
	return x
}

func (p *pattern) key() string {
	if star := strings.IndexByte(p.text, '*'); star >= 0 {
		return p.text[:strings.LastIndexByte(p.text[:star], '/')+1]
	}
	return p.text
}

// candidates yields the lists of rules that can match path.
func (d *door) candidates(path string) func(yield func([]*rule) bool) {
	return func(yield func([]*rule) bool) {
		keys := d.paths.byKey
		if keys == nil {
			yield(d.rules)
			return
		}
		if !yield(keys[""]) {
			return
		}
		for i := 0; i < min(len(path), d.paths.longest); i++ {
			if path[i] == '/' && !yield(keys[path[:i+1]]) {
				return
			}
		}
		if len(path) <= d.paths.longest && path[len(path)-1] != '/' {
			yield(keys[path])
		}
	}
}

// Path is a path pattern for those who look at requests without deciding about
// them.
type Path struct{ pattern pattern }

// CompilePath reads a pattern as a rule has it.
func CompilePath(text string) (Path, error) {
	p, err := compilePattern(text)
	if err != nil {
		return Path{}, fmt.Errorf("path %q: %w", text, err)
	}
	return Path{p}, nil
}

// Match says whether one of the readings of a percent-encoded path matches; a
// rule that allows wants all of them to.
func (p *Path) Match(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	decoded := urlpath.Decoded(path)
	return matchSegments(p.pattern.segments, path) ||
		len(decoded) != len(path) && matchSegments(p.pattern.decoded, decoded)
}
