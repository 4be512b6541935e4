package inert

import (
	"strings"
	"unicode"
)

// Mixed returns the words of s that have Latin letters together with letters of
// an alphabet that has letters which look the same: names that may not be what
// they look like. A word goes on over what joins names: dots, hyphens, "@", "/".
// What is in one alphabet only is not found.
func Mixed(s string) []string {
	var found []string
	words := strings.FieldsFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_@/:", r)
	})
	for _, w := range words {
		latin, other := false, false
		for _, r := range w {
			latin = latin || unicode.Is(unicode.Latin, r)
			other = other || unicode.In(r, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee, unicode.Coptic, unicode.Lisu, unicode.Georgian)
		}
		if latin && other {
			found = append(found, w)
		}
	}
	return found
}

// Spelled is s with every character beyond ASCII written as an escape.
func Spelled(s string) string {
	var b strings.Builder
	for _, r := range Text(s) {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			writeEscaped(&b, r)
		}
	}
	return b.String()
}
