// Package reference makes the strings that an agent holds in place of
// credentials. They look like what they stand for (prefix, length, alphabet,
// checksum), so that programs which check a credential before they send it
// accept them, and are worth nothing outside the agent's own gate.
//
// A [Shape] is written as text in which fields stand in braces:
//
//	ghp_{base62:30}{crc32:6}
//	AKIA{base32:16}
//	ref-{base32l:16}@login.invalid
//	weak:{digits:6}
//
// A field {alphabet:n} is n characters that are derived from a key; the
// alphabets are
//
//	digits     0-9
//	hex        0-9a-f
//	HEX        0-9A-F
//	base32     A-Z2-7 (RFC 4648)
//	base32l    a-z2-7
//	base36     0-9a-z
//	base62     0-9A-Za-z
//	base64url  A-Za-z0-9-_ (RFC 4648)
//
// {crc32:6} is the checksum that GitHub and npm put at the end of their
// tokens: the CRC-32 (IEEE) of all characters derived before it, in base 62
// with the digits 0-9A-Za-z, most significant first, with zeros in front.
// Everything else is copied as it stands.
//
// At least 64 bits must be derived, so that nobody guesses a reference and no
// two are the same by chance. Where a form has no room for that, as with
// one-time codes of six digits, the text starts with "weak:", which is no part
// of the reference; such a one must never be recognised by its look alone.
//
// Trust: a shape comes from a connector's file, which an operator trusts; a
// wrong one makes a program refuse the reference, and nothing else. Who has
// the key can derive every reference. A reference tells nothing about the
// key, the other references or the credential.
package reference

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
)

// MaxLen is the length of the longest reference in bytes.
const MaxLen = 512

const (
	minBits     = 64 // derived, unless weak
	minWeakBits = 13 // derived in any case: four digits
	crcLen      = 6  // digits of base 62 that hold 32 bits
	weakPrefix  = "weak:"
	base62      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// alphabet is the characters of a kind of field; "" if there is no such kind.
func alphabet(name string) string {
	switch name {
	case "digits":
		return base62[:10]
	case "hex":
		return "0123456789abcdef"
	case "HEX":
		return "0123456789ABCDEF"
	case "base32":
		return "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	case "base32l":
		return "abcdefghijklmnopqrstuvwxyz234567"
	case "base36":
		return "0123456789abcdefghijklmnopqrstuvwxyz"
	case "base62":
		return base62
	case "base64url":
		return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	}
	return ""
}

// Shape is what a reference looks like. The zero Shape matches nothing and
// derives "".
type Shape struct {
	text  string
	parts []part
	len   int
	weak  bool
}

// part is one of: a literal text, a field of derived characters, a checksum.
type part struct {
	literal string
	from    string // the alphabet of a derived field
	n       int    // how many characters
}

func (p part) isChecksum() bool { return p.literal == "" && p.from == "" }

// Parse reads a shape. The error says what is wrong with the text.
func Parse(text string) (Shape, error) {
	s := Shape{text: text}
	rest, weak := strings.CutPrefix(text, weakPrefix)
	s.weak = weak
	bits := 0.0
	for rest != "" {
		p, after, err := parsePart(rest)
		if err != nil {
			return Shape{}, fmt.Errorf("parsing the shape %q: %w", text, err)
		}
		if p.isChecksum() && bits == 0 {
			return Shape{}, fmt.Errorf("parsing the shape %q: a checksum needs a field in front of it that it is over", text)
		}
		rest = after
		s.parts = append(s.parts, p)
		s.len += p.n
		bits += float64(p.n) * math.Log2(float64(max(len(p.from), 1)))
	}
	switch {
	case s.len > MaxLen:
		return Shape{}, fmt.Errorf("parsing the shape %q: it is %d bytes long, and at most %d are allowed", text, s.len, MaxLen)
	case weak && bits < minWeakBits:
		return Shape{}, fmt.Errorf("parsing the shape %q: it has %.0f bits that are derived, and even a weak one needs %d, such as {digits:4}", text, bits, minWeakBits)
	case weak && bits >= minBits:
		return Shape{}, fmt.Errorf("parsing the shape %q: it has %.0f bits that are derived, which is not weak; leave out %q", text, bits, weakPrefix)
	case !weak && bits < minBits:
		return Shape{}, fmt.Errorf("parsing the shape %q: it has %.0f bits that are derived, and %d are needed; if the form has no room for more, start it with %q", text, bits, minBits, weakPrefix)
	}
	return s, nil
}

// parsePart reads the first part of text, which is not empty.
func parsePart(text string) (p part, rest string, err error) {
	if text[0] != '{' {
		n := strings.IndexByte(text, '{')
		if n < 0 {
			n = len(text)
		}
		for _, c := range []byte(text[:n]) {
			if c <= ' ' || c > '~' || c == '}' {
				return part{}, "", fmt.Errorf("it has the character %q, and may have only what is printed in ASCII, without spaces and without braces that are not a field's", c)
			}
		}
		return part{literal: text[:n], n: n}, text[n:], nil
	}
	field, rest, ok := strings.Cut(text[1:], "}")
	name, count, ok2 := strings.Cut(field, ":")
	if !ok || !ok2 {
		return part{}, "", errors.New("a field is written {alphabet:length}, such as {base62:24}")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > MaxLen || strconv.Itoa(n) != count {
		return part{}, "", fmt.Errorf("the length of {%s} must be a number from 1 to %d", field, MaxLen)
	}
	if name == "crc32" {
		if n != crcLen {
			return part{}, "", fmt.Errorf("{%s} must be {crc32:%d}", field, crcLen)
		}
		return part{n: n}, rest, nil
	}
	from := alphabet(name)
	if from == "" {
		return part{}, "", fmt.Errorf("there is no alphabet %q; there are digits, hex, HEX, base32, base32l, base36, base62, base64url, and crc32 for a checksum", name)
	}
	return part{from: from, n: n}, rest, nil
}

// String returns the text that was parsed.
func (s Shape) String() string { return s.text }

// Len is the length of a reference in bytes, 0 for the zero Shape.
func (s Shape) Len() int { return s.len }

// Weak says whether the shape was declared as one that has too few bits to be
// recognised by.
func (s Shape) Weak() bool { return s.weak }

// Match says whether a text has the shape, its checksums included. It does
// not say that the text was derived by it.
func (s Shape) Match(text string) bool {
	if s.len == 0 || len(text) != s.len {
		return false
	}
	var derived []byte
	for _, p := range s.parts {
		has := text[:p.n]
		text = text[p.n:]
		switch {
		case p.literal != "":
			if has != p.literal {
				return false
			}
		case p.isChecksum():
			if has != checksum(derived) {
				return false
			}
		default:
			for i := range len(has) {
				if strings.IndexByte(p.from, has[i]) < 0 {
					return false
				}
			}
			derived = append(derived, has...)
		}
	}
	return true
}

// checksum is GitHub's, over the characters derived so far.
func checksum(derived []byte) string {
	sum := crc32.ChecksumIEEE(derived)
	var out [crcLen]byte
	for i := crcLen - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}
