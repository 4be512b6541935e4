package alert

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzInert(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[2J\u202e\xff\n")
	f.Add(strings.Repeat("é", 600))
	f.Add(strings.Repeat("x", MaxText))
	f.Fuzz(func(t *testing.T, s string) {
		got := inert(s)
		if len(got) > MaxText || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", s, got)
		}
		if again := inert(got); again != got {
			t.Errorf("%q became %q the second time", got, again)
		}
	})
}
