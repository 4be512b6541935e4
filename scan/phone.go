package scan

// Lengths of phone numbers in digits. E.164 allows 15; the few countries whose
// numbers have less than 9 with the country code are left out, because dates
// and amounts look the same.
const (
	maxPhone       = 15
	minPhone       = 9
	minPhone00     = 10 // after 00, which ids begin with as well
	minNational    = 7  // in a field
	minParenthesis = 8  // of which the first are in parentheses
)

// between says whether c can be between digits of a phone number.
func (n *number) between(c byte) bool {
	return class[c]&isSpacing != 0 && c != markPlus && (c != '+' || n.form)
}

// groups reads digits from b[i:], with at most three separators between them,
// until something else comes, and adds them to n. A group that would make them
// more than most is left out, unless it is the first.
func (n *number) groups(b []byte, i, most int) bool {
	n.end = i
	for first := true; ; first = false {
		for skipped := 0; n.between(at(b, i)); skipped++ {
			if skipped == 3 || first {
				return n.n > 0
			}
			i++
		}
		j := i
		for class[at(b, j)]&isDigit != 0 && j-i <= most {
			j++
		}
		if j == i || n.n+j-i > most || class[at(b, j)]&isAlnum != 0 {
			return n.n > 0 && (!first || j == i)
		}
		for ; i < j; i++ {
			n.add(b[i])
		}
		n.end = j
	}
}

// findPhone finds a number with a country code, after + or 00.
func findPhone(b []byte, start int) (n number, ok bool) {
	i, least := start+1, minPhone
	switch c := b[start]; {
	case c == '+' || c == markPlus:
		if class[at(b, start-1)]&isAlnum != 0 {
			return n, false
		}
		n.form = c == markPlus
	case c == '0' && at(b, start+1) == '0':
		if separated(b, start) || at(b, start-1) == ':' && class[at(b, start-2)]&isDigit != 0 || at(b, start-1) == ',' {
			return n, false
		}
		i, least = start+2, minPhone00
	default:
		return n, false
	}
	n.add('+')
	if c := at(b, i); c == '(' || c == ' ' && b[start] == '0' {
		i++
	}
	most := maxPhone
	switch at(b, i) {
	case '1', '7':
		least, most = 11, 11
	case '0':
		return n, false
	}
	if class[at(b, i)]&isDigit == 0 {
		return n, false
	}
	i = n.countryCode(b, i)
	if i < 0 || !n.groups(b, i, most+1) || n.n-1 < least || class[at(b, n.end)]&isAlnum != 0 || at(b, n.end) == '_' {
		return n, false
	}
	if n.chars[1] == '1' && (n.chars[2] < '2' || n.chars[5] < '2') { // the North American plan
		return n, false
	}
	return n, true
}

// countryCode adds the country code at b[i:], and what is between it and the
// rest, with a trunk zero in parentheses left out; it returns where the rest
// begins, or -1.
func (n *number) countryCode(b []byte, i int) int {
	length := 0
	for j := i; j < i+3 && class[at(b, j)]&isDigit != 0; j++ {
		if assigned(b[i : j+1]) {
			length = j + 1 - i
			break
		}
	}
	if length == 0 {
		return -1
	}
	for range length {
		n.add(b[i])
		i++
	}
	for range 3 {
		if at(b, i) == '(' && at(b, i+1) == '0' && at(b, i+2) == ')' {
			i += 3
		} else if n.between(at(b, i)) {
			i++
		}
	}
	return i
}

// assigned says whether the digits are a country code (ITU-T E.164, list of
// assigned codes).
func assigned(code []byte) bool {
	p := prefix(code, len(code))
	switch len(code) {
	case 1:
		return p == 1 || p == 7
	case 2:
		switch p {
		case 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49,
			51, 52, 53, 54, 55, 56, 57, 58, 60, 61, 62, 63, 64, 65, 66,
			81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98:
			return true
		}
	case 3:
		switch {
		case p >= 211 && p <= 213, p == 216, p == 218, p >= 220 && p <= 258, p >= 260 && p <= 269, p >= 290 && p <= 291,
			p >= 297 && p <= 299, p >= 350 && p <= 359, p >= 370 && p <= 378, p >= 380 && p <= 383, p >= 385 && p <= 387, p == 389,
			p >= 420 && p <= 421, p == 423, p >= 500 && p <= 509, p >= 590 && p <= 599, p == 670, p >= 672 && p <= 683,
			p >= 685 && p <= 692, p == 800, p == 808, p == 850, p >= 852 && p <= 853, p >= 855 && p <= 856, p == 870, p == 878,
			p >= 880 && p <= 883, p == 886, p >= 960 && p <= 968, p >= 970 && p <= 977, p == 979, p >= 992 && p <= 996, p == 998:
			return true
		}
	}
	return false
}

// findNational finds a number without a country code whose area code is in
// parentheses: with the trunk zero, or as in North America.
func findNational(b []byte, start int) (n number, ok bool) {
	if b[start] != '(' || class[at(b, start-1)]&isAlnum != 0 || at(b, start-1) == '_' {
		return n, false
	}
	i := start + 1
	for class[at(b, i)]&isDigit != 0 && i-start <= 5 {
		n.add(b[i])
		i++
	}
	if n.n < 3 || at(b, i) != ')' {
		return n, false
	}
	i++
	if at(b, i) == ' ' {
		i++
	}
	american := n.n == 3 && n.chars[0] >= '2'
	if n.chars[0] != '0' && !american {
		return n, false
	}
	area, from := n.n, i
	if !n.groups(b, i, 12) || class[at(b, n.end)]&isAlnum != 0 || at(b, n.end) == '_' {
		return n, false
	}
	if american {
		return n, n.n == 10 && class[at(b, from+3)]&isDigit == 0
	}
	return n, n.n >= minParenthesis && n.n-area >= 5
}

// fieldPhone reads the value of a field that is known to be a phone number,
// without a country code.
func fieldPhone(b []byte, start int) (n number, ok bool) {
	if at(b, start) == '(' {
		start++
	}
	if !n.groups(b, start, maxPhone) || n.n < minNational || n.n > 12 || n.chars[0] == '0' && n.chars[1] == '0' {
		return n, false
	}
	c := at(b, n.end)
	return n, class[c]&(isAlnum|isSpacing) == 0 && c != '_' && c != ':' && c != '@'
}
