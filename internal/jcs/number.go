package jcs

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// maxNumber is the longest number that is read, in bytes. No double needs more
// than 25.
const maxNumber = 128

// number reads a number. The double must stand for it: otherwise something else
// would be decided and run than what was written.
func (p *parser) number() (any, error) {
	start := p.at
	if p.next() == '-' {
		p.at++
	}
	switch whole := p.digits(); {
	case whole == 0:
		return nil, p.bad("a number has no digits")
	case whole > 1 && p.data[p.at-whole] == '0':
		return nil, p.bad("a number begins with 0")
	}
	if p.next() == '.' {
		p.at++
		if p.digits() == 0 {
			return nil, p.bad("a number has no digits after its point")
		}
	}
	if c := p.next(); c == 'e' || c == 'E' {
		p.at++
		if c := p.next(); c == '+' || c == '-' {
			p.at++
		}
		if p.digits() == 0 {
			return nil, p.bad("a number has no digits in its exponent")
		}
	}
	text := string(p.data[start:p.at])
	if len(text) > maxNumber {
		return nil, p.bad("a number is too long")
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !fits(text, f) {
		return nil, p.bad("a number is larger or finer than a double can hold; write it as a string")
	}
	return f, nil
}

func (p *parser) digits() (n int) {
	for c := p.next(); '0' <= c && c <= '9'; c = p.next() {
		p.at++
		n++
	}
	return n
}

// fits reports whether f stands for text. A fraction of at most 17 digits does,
// which is how precise doubles are. A whole number, such as an identifier, and
// whatever has more digits must come back when f is written as precisely.
func fits(text string, f float64) bool {
	digits, exponent, ok := normal(text)
	if !ok {
		return false
	}
	if digits == "" || f == 0 {
		return digits == "" && f == 0
	}
	if len(digits) <= 17 && exponent < len(digits) {
		return true
	}
	back, backExponent, _ := normal(strconv.FormatFloat(f, 'e', len(digits)-1, 64))
	return back == digits && backExponent == exponent
}

// normal takes a number apart: 0.digits times ten to the exponent, without zeros
// at either end of the digits and without the sign. No digits are zero.
func normal(text string) (digits string, exponent int, ok bool) {
	mantissa, e, has := strings.Cut(strings.ToLower(strings.TrimPrefix(text, "-")), "e")
	if has {
		var err error
		if exponent, err = strconv.Atoi(e); err != nil {
			return "", 0, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits = strings.TrimLeft(whole+fraction, "0")
	exponent += len(whole) - (len(whole) + len(fraction) - len(digits))
	return strings.TrimRight(digits, "0"), exponent, true
}

// appendNumber writes as ECMAScript's Number::toString does (RFC 8785, section
// 3.2.2.3; ECMA-262, section 6.1.6.1.20).
func appendNumber(dst []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, errors.New("writing canonical JSON: a number is not finite")
	case f == 0: // also minus zero
		return append(dst, '0'), nil
	case f < 0:
		dst, f = append(dst, '-'), -f
	}
	digits, n, _ := normal(strconv.FormatFloat(f, 'e', -1, 64))
	k := len(digits)
	switch {
	case k <= n && n <= 21:
		return append(append(dst, digits...), strings.Repeat("0", n-k)...), nil
	case 0 < n && n <= 21:
		return append(append(append(dst, digits[:n]...), '.'), digits[n:]...), nil
	case -6 < n && n <= 0:
		return append(append(append(dst, "0."...), strings.Repeat("0", -n)...), digits...), nil
	}
	dst = append(dst, digits[0])
	if k > 1 {
		dst = append(append(dst, '.'), digits[1:]...)
	}
	dst = append(dst, 'e')
	if n > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(n-1), 10), nil
}
