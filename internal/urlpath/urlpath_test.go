package urlpath_test

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"ambit/internal/urlpath"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"/":                        "/",
		"/a/b":                     "/a/b",
		"/a/b/":                    "/a/b/",
		"/A/b":                     "/A/b",
		"/%61/%7euser/%2D":         "/a/~user/-",
		"/a%2eb":                   "/a.b",
		"/a..b/...c/.git/b.":       "/a..b/...c/.git/b.",
		"/a%20b":                   "/a%20b",
		"/%e2%82%ac/%f0%9f%98%80":  "/%E2%82%AC/%F0%9F%98%80",
		"/a:b@c!$&'()+,=":          "/a:b@c!$&'()+,=",
		"/%3a%40":                  "/%3A%40",
		"/[x]|{y}^`<z>\"":          "/%5Bx%5D%7C%7By%7D%5E%60%3Cz%3E%22",
		"/*/**":                    "/%2A/%2A%2A",
		"/%2a":                     "/%2A",
		"/@scope%2fname":           "/@scope%2Fname",
		"/projects/a%2Fb%2fc/x":    "/projects/a%2Fb%2Fc/x",
		"/100%25":                  "/100%25",
		"/a%2520b":                 "/a%2520b",
		"/%25zz":                   "/%25zz",
		"/%3Fa%23":                 "/%3Fa%23",
		"/%EF%BF%BD":               "/%EF%BF%BD",
		"/" + long(8191):           "/" + long(8191),
		"/repos/a/b/compare/x...y": "/repos/a/b/compare/x...y",
	} {
		got, err := urlpath.Canonical(in)
		if err != nil || got != want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }

// Row N4: what servers read in more than one way is refused.
func TestN4RefusesAmbiguousPaths(t *testing.T) {
	for _, in := range []string{
		"", "*", "a", "http://h/a", "?", "./a", "%2Fa",
		"/.", "/..", "/a/../b", "/a/./b", "/a/..", "/../a", "/...", "/a/..../b",
		"/%2e", "/%2E%2e/a", "/a/.%2e/b", "/a/%2e./b", "/a/..%20/b", "/a/%20./b", "/a/.%20.",
		"//", "//a", "/a//b", "/a//", "///",
		`/a\b`, `/..\a`, "/a%5cb", "/a%5Cb", "/..%5c",
		"/a/..%2fb", "/a%2f..%2fb", "/a%2f%2fb", "/a%2f/b", "/a/%2fb", "/%2fa", "/a%2f.", "/%2e%2e%2f", "/a%2f%2e%2e",
		"/a;b", "/a;", "/;/a", "/a/..;/b", "/a/..;x=y/b", "/a/.;/b", "/a;.json", "/a%3b", "/a/..%3B/b", "/a/;/../b",
		"/\x00", "/a%00", "/a%00.json", "/a\tb", "/a%0ab", "/a%0d%0aX:y", "/\x7f", "/%7f", "/%1b[31m", "/a\r\n",
		"/a b", "/a?b", "/a#b",
		"/é", "/\xff", "/%ff", "/%c0%ae%c0%ae/", "/%c0%af", "/%e0%80%ae", "/%ed%a0%80", "/%e9", "/%c3", "/%c3/%a9", "/%c3a%a9", "/%c3%41", "/%f5%80%80%80", "/%80",
		"/%", "/%2", "/%2g", "/%g2", "/%zz", "/a%", "/%u002e", "/% 2e", "/%%32%65", "/%+2",
		"/%252e%252e/a", "/%252E", "/%252f", "/%255c", "/%2500", "/%250a", "/%253b", "/%253f", "/%25252e", "/%2525252F", "/%25%32%65", "/%25%32%66", "/%2525%35c", "/%25c0%25ae", "/%257f",
		"/" + long(8192),
	} {
		if got, err := urlpath.Canonical(in); err == nil {
			t.Errorf("Canonical(%q) = %q, want an error", in, got)
		}
		if got, err := urlpath.Pattern(in); err == nil {
			t.Errorf("Pattern(%q) = %q, want an error", in, got)
		}
	}
}

func TestPatternKeepsStars(t *testing.T) {
	for in, want := range map[string]string{"/**": "/**", "/a/*.%6ason": "/a/*.json", "/%2a/*": "/%2A/*"} {
		if got, err := urlpath.Pattern(in); err != nil || got != want {
			t.Errorf("Pattern(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestDecoded(t *testing.T) {
	for in, want := range map[string]string{"/a": "/a", "/@s%2Fn": "/@s/n", "/a%2Fb%2Fc": "/a/b/c"} {
		if got := urlpath.Decoded(in); got != want {
			t.Errorf("Decoded(%q) = %q", in, got)
		}
	}
}

func TestCanonicalDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = urlpath.Canonical("/v1/orders/42%20a/%E2%82%AC") }); n != 0 {
		t.Errorf("Canonical allocates %v times", n)
	}
}

func TestCanonicalProperties(t *testing.T) {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"/", "/", ".", "..", "%2e", "%2F", "%25", "25", "2e", "2F", "5c", "%5c", ";", "%3b", "\\", "%", "%c3%a9", "%c0%ae", "%00", "é", "*", "[", "%20", "+"}),
		rapid.StringMatching(`%[0-9a-fA-F]{2}`),
		rapid.StringMatching(`[a-zA-Z0-9~_-]{1,3}`),
	)
	rapid.Check(t, func(t *rapid.T) {
		checkCanonical(t, "/"+strings.Join(rapid.SliceOfN(piece, 0, 10).Draw(t, "pieces"), ""))
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/a", "/a%2fb", "/a%252e", "/a;b", "/%25%32%65", "/%c3%a9", "/%e2%82%ac", "/[x]", `/a\b`, "//", "/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkCanonical(t, s) })
}

type fataler interface{ Fatalf(string, ...any) }

// checkCanonical holds what every accepted path must be: stable, printable,
// and untouched by the cleaning of others, however often it is decoded.
func checkCanonical(t fataler, raw string) {
	got, err := urlpath.Canonical(raw)
	if err != nil {
		return
	}
	if again, err := urlpath.Canonical(got); err != nil || again != got {
		t.Fatalf("Canonical(%q) = %q, but Canonical of that is %q, %v", raw, got, again, err)
	}
	for i := 0; i < len(got); i++ {
		if got[i] <= 0x20 || got[i] > 0x7e || strings.IndexByte(`?#\;*`, got[i]) >= 0 {
			t.Fatalf("Canonical(%q) = %q is not inert", raw, got)
		}
	}
	u, err := url.ParseRequestURI(got)
	if err != nil || u.EscapedPath() != got {
		t.Fatalf("net/url makes %v, %v of %q", u, err, got)
	}
	rawDecoded, err := url.PathUnescape(raw)
	if err != nil || rawDecoded != u.Path {
		t.Fatalf("%q decodes to %q, and its canonical form to %q", raw, rawDecoded, u.Path)
	}
	if !utf8.ValidString(u.Path) {
		t.Fatalf("%q decodes to bytes that are not UTF-8", got)
	}
	for decoded := u.Path; ; {
		clean := path.Clean(decoded)
		if strings.HasSuffix(decoded, "/") && clean != "/" {
			clean += "/"
		}
		if clean != decoded || strings.ContainsAny(decoded, "\\;\x00\n") {
			t.Fatalf("%q decodes to %q, which others clean to %q", got, decoded, clean)
		}
		next, err := url.PathUnescape(decoded)
		if err != nil || next == decoded {
			return
		}
		decoded = next
	}
}

func BenchmarkCanonical(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = urlpath.Canonical("/v1/orders/42/items")
	}
}
