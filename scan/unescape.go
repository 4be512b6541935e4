package scan

import (
	"bytes"
	"unicode/utf8"
)

// ahead is how many bytes after an escape's first one decide what it is.
const ahead = 10

// sink takes decoded text.
type sink interface {
	put([]byte)
	putByte(byte)
}

// unescaper undoes escapes in a text that comes in pieces. What an escape stands
// for can be the first byte of another, at any depth.
type unescaper struct {
	first   byte // the first byte of an escape that is not decided yet; 0 if there is none
	waiting [ahead]byte
	n       int // of waiting: what follows it
}

func begins(c byte) bool { return c == '%' || c == '\\' || c == '&' }

// write decodes more of the text.
func (u *unescaper) write(p []byte, to sink) {
	p, ok := u.resume(p, to)
	if !ok {
		return
	}
	percent, backslash, ampersand := -1, -1, -1
	for i := 0; ; {
		for u.first != 0 {
			if len(p)-i < ahead {
				u.n = copy(u.waiting[:], p[i:])
				return
			}
			i += u.step(p[i:], to)
		}
		if percent < i {
			percent = index(p, i, '%')
		}
		if backslash < i {
			backslash = index(p, i, '\\')
		}
		if ampersand < i {
			ampersand = index(p, i, '&')
		}
		next := min(percent, backslash, ampersand)
		to.put(p[i:next])
		if next == len(p) {
			return
		}
		u.first = p[next]
		i = next + 1
	}
}

// resume decodes what waited, with the beginning of p behind it, and returns
// the rest of p; false if all of it waits now.
func (u *unescaper) resume(p []byte, to sink) ([]byte, bool) {
	var b [2 * ahead]byte
	waited := copy(b[:], u.waiting[:u.n])
	n := waited + copy(b[waited:], p[:min(len(p), ahead)])
	i := 0
	for i < waited {
		switch {
		case u.first != 0 && n-i < ahead:
			u.n = copy(u.waiting[:], b[i:n])
			return nil, false
		case u.first != 0:
			i += u.step(b[i:n], to)
		case begins(b[i]):
			u.first = b[i]
			i++
		default:
			to.putByte(b[i])
			i++
		}
	}
	u.n = 0
	return p[i-waited:], true
}

// end decodes what waited: nothing follows it.
func (u *unescaper) end(to sink) {
	b := u.waiting[:u.n]
	for {
		switch {
		case u.first != 0:
			b = b[u.step(b, to):]
		case len(b) == 0:
			return
		case begins(b[0]):
			u.first, b = b[0], b[1:]
		default:
			to.putByte(b[0])
			b = b[1:]
		}
	}
}

// step decides the escape that began, of which b follows, and returns how many
// bytes of b belong to it.
func (u *unescaper) step(b []byte, to sink) int {
	first := u.first
	u.first = 0
	switch first {
	case '%':
		if v, ok := number16(b, 2); ok {
			u.byte(percentEncoded(byte(v)), to)
			return 2
		}
	case '\\':
		if len(b) > 0 {
			return u.backslash(b, to)
		}
	case '&':
		if n := u.entity(b, to); n > 0 {
			return n
		}
	}
	to.putByte(first)
	return 0
}

func percentEncoded(c byte) byte {
	switch c {
	case '@':
		return markAt
	case '+':
		return markPlus
	}
	return c
}

func (u *unescaper) backslash(b []byte, to sink) int {
	switch c := b[0]; c {
	case 'u':
		if v, ok := number16(b[1:], 4); ok {
			u.rune(v, to)
			return 5
		}
	case 'x':
		if v, ok := number16(b[1:], 2); ok {
			u.byte(byte(v), to)
			return 3
		}
	case 'n', 'r', 't', 'b', 'f', 'v':
		to.putByte('\n')
		return 1
	case '\\', '&', '%', '"', '\'', '/':
		u.byte(c, to)
		return 1
	}
	to.putByte('\\')
	return 0
}

// entity undoes a character reference of HTML, and returns 0 if there is none.
func (u *unescaper) entity(b []byte, to sink) int {
	if len(b) == 0 || b[0] != '#' && class[b[0]]&isLetter == 0 {
		return 0
	}
	end := bytes.IndexByte(b[:min(len(b), ahead)], ';')
	if end < 2 {
		return 0
	}
	name := b[:end]
	if name[0] == '#' {
		v, ok := 0, false
		if lower(name[1]) == 'x' {
			v, ok = number16(name[2:], len(name)-2)
		} else {
			v, ok = number10(name[1:])
		}
		if !ok {
			return 0
		}
		u.rune(v, to)
		return end + 1
	}
	c := byte(0)
	switch string(name) {
	case "amp":
		c = '&'
	case "quot":
		c = '"'
	case "apos":
		c = '\''
	case "lt":
		c = '<'
	case "gt":
		c = '>'
	case "nbsp":
		c = ' '
	case "commat":
		c = '@'
	case "plus":
		c = '+'
	case "period":
		c = '.'
	case "lowbar":
		c = '_'
	case "sol":
		c = '/'
	case "equals":
		c = '='
	default:
		return 0
	}
	u.byte(c, to)
	return end + 1
}

// byte puts what an escape stood for, unless it begins another.
func (u *unescaper) byte(c byte, to sink) {
	if begins(c) {
		u.first = c
	} else {
		to.putByte(c)
	}
}

func (u *unescaper) rune(r int, to sink) {
	switch {
	case r < utf8.RuneSelf:
		u.byte(byte(r), to)
	case r == 0xA0: // a space that does not break
		to.putByte(' ')
	default:
		var b [utf8.UTFMax]byte
		to.put(b[:utf8.EncodeRune(b[:], rune(r))])
	}
}

// number16 reads n hexadecimal digits.
func number16(b []byte, n int) (v int, ok bool) {
	if len(b) < n || n < 1 || n > 6 {
		return 0, false
	}
	for _, c := range b[:n] {
		if class[c]&isHex == 0 {
			return 0, false
		}
		v = v<<4 | int(c&15)
		if c > '9' {
			v += 9
		}
	}
	return v, true
}

func number10(b []byte) (v int, ok bool) {
	if len(b) < 1 || len(b) > 7 {
		return 0, false
	}
	for _, c := range b {
		if class[c]&isDigit == 0 {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}
