// Package money has exact amounts: whole ten-thousandths, never a floating
// point number. What does not fit (a sign, a fifth digit after the point, more
// than nine hundred trillion, an exponent beyond bounds) is an error and never
// rounded.
//
// Trust: nothing. The texts come from operators and from agents alike.
package money

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Amount is a number of ten-thousandths, never negative. It also counts what is
// no money.
type Amount int64

// Max is the largest amount.
const Max Amount = math.MaxInt64

// Unit is one.
const Unit Amount = 10_000

const (
	places      = 4
	maxText     = 64 // of a number, in bytes
	maxExponent = 30
)

var (
	// ErrForm is what a text that is not a number of the form comes to.
	ErrForm = errors.New("it is not a plain decimal number")
	// ErrNegative is what a number below zero comes to.
	ErrNegative = errors.New("it is negative")
	// ErrRange is what a number that is not exact here comes to.
	ErrRange = errors.New("it is too large, or has more than four digits after the point")
)

var (
	plainPattern  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]+)?$`) })
	pricePattern  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9.]+) ([A-Z]{3})$`) })
	numberPattern = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,3}))?$`)
	})
)

// Parse reads "50" or "50.25": digits, at most one point, no sign and no
// exponent.
func Parse(s string) (Amount, error) {
	if len(s) > maxText || !plainPattern().MatchString(s) {
		return 0, ErrForm
	}
	whole, fraction, _ := strings.Cut(s, ".")
	return scale(whole+fraction, -len(fraction))
}

// ParseNumber reads a JSON number, which may have an exponent.
func ParseNumber(s string) (Amount, error) {
	if a, ok := short(s); ok {
		return a, nil
	}
	if len(s) > maxText {
		return 0, ErrRange
	}
	m := numberPattern().FindStringSubmatch(s)
	switch {
	case m == nil:
		return 0, ErrForm
	case m[1] != "":
		return 0, ErrNegative
	}
	exponent := 0
	if m[4] != "" {
		var err error
		if exponent, err = strconv.Atoi(m[4]); err != nil || exponent > maxExponent || exponent < -maxExponent {
			return 0, ErrRange
		}
	}
	return scale(m[2]+m[3], exponent-len(m[3]))
}

// short reads what most amounts are: up to fourteen digits, and up to four after
// a point. What it does not take may still be a number.
func short(s string) (Amount, bool) {
	n, digits, fraction := int64(0), 0, -1
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9' && digits < 14 && fraction < places:
			if i == 1 && s[0] == '0' {
				return 0, false // 01 is no number
			}
			n, digits = n*10+int64(c-'0'), digits+1
			if fraction >= 0 {
				fraction++
			}
		case c == '.' && fraction < 0 && digits > 0:
			fraction = 0
		default:
			return 0, false
		}
	}
	if digits == 0 || fraction == 0 {
		return 0, false
	}
	for range places - max(fraction, 0) {
		n *= 10
	}
	return Amount(n), true
}

// scale is digits times ten to the exponent.
func scale(digits string, exponent int) (Amount, error) {
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return 0, nil
	}
	shift := exponent + places
	if shift < 0 {
		kept := len(digits) + shift
		if kept <= 0 || strings.Trim(digits[kept:], "0") != "" {
			return 0, ErrRange
		}
		digits, shift = digits[:kept], 0
	}
	if len(digits)+shift > 19 {
		return 0, ErrRange
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", shift), 10, 64)
	if err != nil {
		return 0, ErrRange
	}
	return Amount(n), nil
}

// Add is the sum, or Max if that is more: a sum that is too large is never
// under a limit.
func (a Amount) Add(b Amount) Amount {
	if a > Max-b {
		return Max
	}
	return a + b
}

// String writes "50" or "50.25"; two digits after the point where there is one.
func (a Amount) String() string {
	s := strconv.FormatInt(int64(a/Unit), 10)
	rest := strconv.FormatInt(int64(Unit+a%Unit), 10)[1:]
	rest = rest[:2] + strings.TrimRight(rest[2:], "0")
	if rest == "00" {
		return s
	}
	return s + "." + rest
}

// Price is an amount of a currency.
type Price struct {
	Amount   Amount
	Currency string // three capital letters
}

// ParsePrice reads "50 EUR".
func ParsePrice(s string) (Price, error) {
	m := pricePattern().FindStringSubmatch(s)
	if m == nil {
		return Price{}, ErrForm
	}
	a, err := Parse(m[1])
	return Price{a, m[2]}, err
}

// Currency reports whether s is three capital letters.
func Currency(s string) bool {
	if len(s) != 3 {
		return false
	}
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return true
}

// String writes "50 EUR".
func (p Price) String() string { return p.Amount.String() + " " + p.Currency }
