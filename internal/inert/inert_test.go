package inert

import (
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"io"
)

// TestC5 is row C5: what an agent writes does nothing to a terminal.
func TestC5(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"plain, ünïcode 漢字 🎉":     "plain, ünïcode 漢字 🎉",
		"\x1b]0;owned\a":          `\x1b]0;owned\x07`,
		"\x1b[2Jgone":             `\x1b[2Jgone`,
		"a\nb\rc\td":              `a\nb\rc\td`,
		"\u202egnp.exe":           `\u202egnp.exe`,
		"zero\u200bwidth":         `zero\u200bwidth`,
		"c1 \u009b31m":            `c1 \u009b31m`,
		"tag \U000e0041":          `tag \U000e0041`,
		"bad \xff\xc3":            `bad \xff\xc3`,
		"\u2028line":              `\u2028line`,
		"<b>html</b> =cmd()":      "<b>html</b> =cmd()",
		"replacement \ufffd kept": "replacement \ufffd kept",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Lines("a\nb\tc\x1b"); got != "a\nb\tc\\x1b" {
		t.Errorf("Lines = %q", got)
	}
}

func TestQuote(t *testing.T) {
	got := Quote([]string{"sh", "-c", "echo 'hi' $(id)", "", "a\nb\\", "\x1b[1m'"})
	want := `sh -c 'echo '\''hi'\'' $(id)' '' $'a\nb\\' $'\x1b[1m\''`
	if got != want {
		t.Errorf("Quote = %s\nwant    %s", got, want)
	}
}

func TestWriterSplits(t *testing.T) {
	const in = "漢字 \x1b[31mred\r\nnext\r\xf0\x9f"
	var b strings.Builder
	w := NewWriter(&b)
	if _, err := io.Copy(w, iotest.OneByteReader(strings.NewReader(in))); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "漢字 \\x1b[31mred\nnext\\r\\xf0\\x9f"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "\x1b[0m", "\xff", "ok"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Text(s) {
			if !unicode.IsGraphic(r) || r == '\n' {
				t.Fatalf("Text(%q) lets %U through", s, r)
			}
		}
		if !utf8.ValidString(Lines(s)) {
			t.Fatal("not UTF-8")
		}
	})
}
