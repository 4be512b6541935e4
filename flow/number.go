package flow

import "strings"

// decimal is the one form of a number: no sign of grouping, no zeros that say
// nothing.
func decimal(s string) (string, bool) {
	negative := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	whole, fraction, _ := strings.Cut(s, ".")
	if strings.ContainsRune(whole, ',') {
		groups := strings.Split(whole, ",")
		for i, g := range groups {
			if i > 0 && len(g) != 3 || len(g) == 0 || len(g) > 3 {
				return "", false
			}
		}
		whole = strings.Join(groups, "")
	}
	if whole == "" || len(whole)+len(fraction) > 40 || !digits(whole) || !digits(fraction) {
		return "", false
	}
	whole = strings.TrimLeft(whole, "0")
	fraction = strings.TrimRight(fraction, "0")
	if whole == "" {
		whole = "0"
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if negative && whole != "0" {
		whole = "-" + whole
	}
	return whole, true
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// eachNumber calls f with the one form of each number in s that stands by
// itself: not in a date, a time, a name or an account number.
func eachNumber(s string, f func(string)) {
	for i := 0; i < len(s); {
		if s[i] < '0' || s[i] > '9' {
			i++
			continue
		}
		j := i
		for j < len(s) && (s[j] >= '0' && s[j] <= '9' || (s[j] == '.' || s[j] == ',') && j+1 < len(s) && s[j+1] >= '0' && s[j+1] <= '9') {
			j++
		}
		if n, ok := decimal(s[i:j]); ok && !joined(s, i, j) {
			f(n)
		}
		i = j
	}
}

// joined reports whether what stands from i to j is a part of something longer.
func joined(s string, i, j int) bool {
	separates := func(c byte) bool { return c == ':' || c == '/' }
	digit := func(i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }
	return !beginsAt(s, i) || !endsAt(s, j) || i > 0 && separates(s[i-1]) && digit(i-2) || j < len(s) && separates(s[j]) && digit(j+1)
}

// less compares two decimals that are not negative.
func less(a, b string) bool {
	aw, af, _ := strings.Cut(a, ".")
	bw, bf, _ := strings.Cut(b, ".")
	if len(aw) != len(bw) {
		return len(aw) < len(bw)
	}
	if aw != bw {
		return aw < bw
	}
	return af < bf // without zeros at the end, as texts
}

// double is twice a decimal that is not negative.
func double(a string) string {
	b := []byte(a)
	carry := byte(0)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == '.' {
			continue
		}
		d := (b[i]-'0')*2 + carry
		b[i], carry = '0'+d%10, d/10
	}
	s := string(b)
	if carry > 0 {
		s = "1" + s
	}
	d, _ := decimal(s)
	return d
}
