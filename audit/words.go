package audit

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"ambit"
)

// A word is a run of letters, digits and marks, in lower case. What is shorter
// than minWord is none; of a longer one the beginning counts. Characters
// without a width (zero-width spaces, marks of direction) do not end a word: an
// agent could hide one that way.
const (
	minWord = 2
	maxWord = 64
)

// eachWord calls f with each word of s until f returns false. The word is valid
// during the call only.
func eachWord(s string, f func(word []byte) bool) bool {
	var buf [maxWord + utf8.UTFMax]byte
	n, full := 0, false
	for i := 0; i <= len(s); {
		r, size := rune(-1), 1
		if i < len(s) {
			if r = rune(s[i]); r >= utf8.RuneSelf {
				r, size = utf8.DecodeRuneInString(s[i:])
			}
		}
		i += size
		switch {
		case 'a' <= r && r <= 'z' || '0' <= r && r <= '9':
		case 'A' <= r && r <= 'Z':
			r += 'a' - 'A'
		case r >= utf8.RuneSelf && r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)):
			r = unicode.ToLower(r)
		case r >= utf8.RuneSelf && unicode.Is(unicode.Cf, r):
			continue
		default:
			if n >= minWord && !f(buf[:n]) {
				return false
			}
			n, full = 0, false
			continue
		}
		if full || n+utf8.RuneLen(r) > maxWord {
			full = true
			continue
		}
		n += utf8.EncodeRune(buf[n:], r)
	}
	return true
}

// wordsOf are the words of s.
func wordsOf(s string) (words []string) {
	eachWord(s, func(w []byte) bool { words = append(words, string(w)); return true })
	return words
}

// eachText calls f with each text of an event that is searched for words, until
// f returns false. What the agent has least say in comes first.
func eachText(e *ambit.Event, f func(string) bool) {
	texts := [...]string{e.Intent, e.Tool, e.Resource, "", "", "", e.Detail, plainURL(e.URL)}
	if r := e.Reason; r != nil {
		texts[3], texts[4], texts[5] = r.Code, r.Text, r.Remedy
	}
	for _, s := range texts {
		if s != "" && !f(s) {
			return
		}
	}
}

// plainURL takes the percent-encoding off a URL; what is wrong in it stays.
func plainURL(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			high, ok := unhex(s[i+1])
			low, also := unhex(s[i+2])
			if ok && also {
				b = append(b, high<<4|low)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
