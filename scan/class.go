package scan

import "unicode/utf8"

// What a byte can be. The two marks stand in the decoded text for an @ and a +
// that were percent-encoded, and are bytes that UTF-8 does not have: in a form a
// plain + is a space, and only there is @ written %40.
const (
	isDigit   = 1 << iota
	isLetter  // of ASCII
	isHex     //
	isLocal   // may be in the local part of an address, and is ASCII
	isSpacing // between the digits of a number

	isAlnum = isDigit | isLetter

	markAt   = 0xC0
	markPlus = 0xC1
)

// class is what each byte is.
var class = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = isDigit | isHex | isLocal
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = isLetter | isLocal
		t[c-'a'+'A'] = isLetter | isLocal
	}
	for c := 'a'; c <= 'f'; c++ {
		t[c] |= isHex
		t[c-'a'+'A'] |= isHex
	}
	for _, c := range []byte("._+-'\xC1") {
		t[c] |= isLocal
	}
	for _, c := range []byte(" -.()/+\xC1") {
		t[c] |= isSpacing
	}
	return t
}()

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c | 0x20
	}
	return c
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c &^ 0x20
	}
	return c
}

// at is b[i], or a line break outside.
func at(b []byte, i int) byte {
	if uint(i) < uint(len(b)) {
		return b[i]
	}
	return '\n'
}

// part says whether b[i] goes on with a word, a name or a decimal number that
// ended before it.
func part(b []byte, i int) bool {
	switch c := at(b, i); c {
	case '_':
		return true
	case '-', '.':
		return class[at(b, i+1)]&isDigit != 0
	default:
		return class[c]&isAlnum != 0
	}
}

// wordRune says whether r is a letter outside ASCII of a script that has
// spaces between words, or an accent on one.
func wordRune(r rune) bool {
	return r >= 0xC0 && r <= 0x24F && r != 0xD7 && r != 0xF7 || // Latin
		r >= 0x300 && r <= 0x36F || // accents
		r >= 0x370 && r <= 0x52F && r != 0x37E && r != 0x387 || // Greek, Cyrillic
		r >= 0x1E00 && r <= 0x1FFF // Latin and Greek with accents
}

// wordAt returns the length of the wordRune at b[i:], 0 if there is none.
func wordAt(b []byte, i int) int {
	if at(b, i) < 0x80 {
		return 0
	}
	if r, n := utf8.DecodeRune(b[i:]); wordRune(r) {
		return n
	}
	return 0
}

// wordBefore is wordAt for what ends at b[:i].
func wordBefore(b []byte, i int) int {
	if at(b, i-1) < 0x80 {
		return 0
	}
	if r, n := utf8.DecodeLastRune(b[max(0, i-utf8.UTFMax):i]); wordRune(r) {
		return n
	}
	return 0
}
