package alert

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxText is the longest key or title, in bytes, after escaping.
const MaxText = 500

// inert makes text of a hostile agent safe to print on a terminal and in a
// page's text: what is not a printable character (controls and with them
// terminal escapes, newlines, invisible and direction-changing characters,
// bytes that are not UTF-8) is written as \x1b or \u202e. At most MaxText
// bytes are kept; no character is cut in two.
func inert(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+n]
		switch {
		case r == utf8.RuneError && n == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case unicode.IsPrint(r):
		case r < 0x80:
			piece = fmt.Sprintf(`\x%02x`, r)
		case r < 0x10000:
			piece = fmt.Sprintf(`\u%04x`, r)
		default:
			piece = fmt.Sprintf(`\U%08x`, r)
		}
		if b.Len()+len(piece) > MaxText-len("…") {
			if i+n < len(s) || b.Len()+len(piece) > MaxText {
				b.WriteString("…")
				break
			}
		}
		b.WriteString(piece)
		i += n
	}
	return b.String()
}
