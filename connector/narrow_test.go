package connector

import (
	"strings"
	"testing"

	"ambit"
	"ambit/internal/urlpath"
	"ambit/policy"
)

// What commonPaths finds is matched by both patterns, as the policy reads them:
// for all pairs of short patterns, and all short paths.
func TestCommonPathsOpenNothing(t *testing.T) {
	patterns := append(words(2, "*", "**", "a", "a*", "*b", "a%2F*", "a%2Fb", "a.git"), words(3, "*", "**", "a")...)
	var paths []string
	for _, p := range append(words(2, "a", "b", "ab", "a%2Fb", "a%2Fc", "a.git", ""), words(3, "a", "b", "a%2Fb")...) {
		if c, err := urlpath.Canonical(p); err == nil && c == p {
			paths = append(paths, p)
		}
	}
	known := map[string][]bool{}
	matches := func(pattern string) []bool {
		if known[pattern] == nil {
			known[pattern] = matched(t, pattern, paths)
		}
		return known[pattern]
	}
	found := 0
	for _, a := range patterns {
		for _, b := range patterns {
			for _, common := range commonPaths(a, b) {
				inA, inB := matches(a), matches(b)
				for i, in := range matches(common) {
					if in && (!inA[i] || !inB[i]) {
						t.Fatalf("%s and %s have %s in common, which matches %s, and one of them does not", a, b, common, paths[i])
					}
					if in {
						found++
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("nothing was ever in common")
	}
}

// words makes all paths of up to n of the segments.
func words(n int, segments ...string) []string {
	all, last := []string(nil), []string{""}
	for range n {
		var longer []string
		for _, l := range last {
			for _, s := range segments {
				longer = append(longer, l+"/"+s)
			}
		}
		all, last = append(all, longer...), longer
	}
	return all
}

// matched says of each path whether a rule with the pattern allows it.
func matched(t *testing.T, pattern string, paths []string) []bool {
	set, err := policy.Compile(policy.Egress{Rules: []policy.Rule{{Host: "a.example", Paths: []string{pattern}}}})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]bool, len(paths))
	for i, p := range paths {
		v := set.Decide(&ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: "a.example", Port: 443, Path: p})
		all[i] = v.Decision == ambit.Allow
	}
	return all
}

func TestCommonPaths(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"/v1/**", "/v1/orders", "/v1/orders"},
		{"/acme/**", "/*/*/info/refs", "/acme/*/info/refs"},
		{"/acme/shop.git/**", "/**/git-upload-pack", "/acme/shop.git/**/git-upload-pack"},
		{"/v1/*", "/v1/**", "/v1/*"},
		{"/a*", "/ab", "/ab"},
		{"/a*", "/*b", ""},
		{"/v1/a", "/v1/b", ""},
		{"/*/x", "/a%2Fb/x", ""}, // some servers take it for /a/b/x, which the first does not allow
	} {
		if got := strings.Join(commonPaths(c.a, c.b), " "); got != c.want {
			t.Errorf("%s and %s: %q, want %q", c.a, c.b, got, c.want)
		}
	}
}
