package connector

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit"
	"ambit/internal/urlpath"
	"ambit/policy"
)

// What commonPaths finds is matched by both patterns, as the policy reads them.
func TestCommonPathsOpenNothing(t *testing.T) {
	segment := rapid.SampledFrom([]string{"*", "**", "a", "b", "a*", "*b", "a%2F*", "a%2Fb", "a.git"})
	word := rapid.SampledFrom([]string{"a", "b", "ab", "c", "a%2Fb", "a%2Fc", "a.git", ""})
	path := func(g *rapid.Generator[string], t *rapid.T, name string) string {
		return "/" + strings.Join(rapid.SliceOfN(g, 1, 4).Draw(t, name), "/")
	}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		a, b := path(segment, t, "a"), path(segment, t, "b")
		p := path(word, t, "path")
		if c, err := urlpath.Canonical(p); err != nil || c != p {
			return
		}
		for _, common := range commonPaths(a, b) {
			if !matches(t, common, p) {
				continue
			}
			found++
			if !matches(t, a, p) || !matches(t, b, p) {
				t.Errorf("%s and %s have %s in common, which matches %s, and one of them does not", a, b, common, p)
			}
		}
	})
	if found == 0 {
		t.Error("nothing was ever in common")
	}
}

func matches(t rapid.TB, pattern, path string) bool {
	set, err := policy.Compile(policy.Egress{Rules: []policy.Rule{{Host: "a.example", Paths: []string{pattern}}}})
	if err != nil {
		t.Fatal(err)
	}
	v := set.Decide(&ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: "a.example", Port: 443, Path: path})
	return v.Decision == ambit.Allow
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
