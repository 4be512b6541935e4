package money

import (
	"errors"
	"math/big"
	"testing"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
		err  error
	}{
		{"0", "0", nil}, {"50", "50", nil}, {"50.5", "50.50", nil}, {"0.0001", "0.0001", nil}, {"1e2", "100", nil}, {"5E-1", "0.50", nil},
		{"12.3400000", "12.34", nil}, {"922337203685477.5807", "922337203685477.5807", nil},
		{"922337203685477.5808", "", ErrRange}, {"1e21", "", ErrRange}, {"1e999", "", ErrRange}, {"1e-30", "", ErrRange}, {"0.00001", "", ErrRange}, {"0e30", "0", nil},
		{"-1", "", ErrNegative}, {"-0", "", ErrNegative}, {"NaN", "", ErrForm}, {"Infinity", "", ErrForm}, {"", "", ErrForm}, {"1,5", "", ErrForm}, {"01", "", ErrForm},
		{"+1", "", ErrForm}, {"0x10", "", ErrForm}, {"1_000", "", ErrForm}, {"٣", "", ErrForm}, {".5", "", ErrForm}, {"1e1000000000", "", ErrForm},
	} {
		got, err := ParseNumber(c.in)
		if !errors.Is(err, c.err) || err == nil && got.String() != c.want {
			t.Errorf("ParseNumber(%q) = %v, %v; want %q, %v", c.in, got, err, c.want, c.err)
		}
	}
	if _, err := Parse("1e2"); !errors.Is(err, ErrForm) {
		t.Errorf("Parse takes an exponent: %v", err)
	}
	if Max.Add(1) != Max || Amount(1).Add(Max) != Max {
		t.Error("a sum wraps around")
	}
}

func TestPrice(t *testing.T) {
	if p, err := ParsePrice("50.25 EUR"); err != nil || p.String() != "50.25 EUR" {
		t.Errorf("ParsePrice = %v, %v", p, err)
	}
	for _, s := range []string{"50", "50 eur", "EUR 50", "50  EUR", "50 EURO", "-5 EUR", "5e1 EUR", "50 ЕUR", "1.2.3 EUR"} {
		if p, err := ParsePrice(s); err == nil {
			t.Errorf("ParsePrice(%q) = %v", s, p)
		}
	}
}

// FuzzParseNumber compares with exact fractions.
func FuzzParseNumber(f *testing.F) {
	for _, s := range []string{"0", "1.5", "1e3", "-2", "0.00010", "9e14", "922337203685477.5807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseNumber(s)
		if err != nil {
			return
		}
		r, ok := new(big.Rat).SetString(s)
		if !ok || r.Cmp(big.NewRat(int64(a), int64(Unit))) != 0 || a < 0 {
			t.Errorf("ParseNumber(%q) = %d ten-thousandths", s, a)
		}
		back, err := Parse(a.String())
		if err != nil || back != a {
			t.Errorf("%q is written %s and read back as %v, %v", s, a, back, err)
		}
	})
}
