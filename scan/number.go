package scan

// The number searches below begin at b[start], look at no more than reach bytes
// from there and at two before it.
const (
	reach     = 128
	maxDigits = 36 // of what is looked for: an IBAN has up to 34
	minCard   = 14
)

// number is one that was found: it ends before b[end].
type number struct {
	chars [maxDigits]byte
	n     int
	end   int
	form  bool // a + between digits is a space
}

func (n *number) text() []byte { return n.chars[:n.n] }

func (n *number) add(c byte) bool {
	if n.n == len(n.chars) {
		return false
	}
	n.chars[n.n] = c
	n.n++
	return true
}

// separated says whether what begins at b[i] goes on with something before it:
// a decimal number, a name with hyphens.
func separated(b []byte, i int) bool {
	switch at(b, i-1) {
	case '.', '-', '_', '+', markPlus, '#', '$':
		return class[at(b, i-2)]&isAlnum != 0
	}
	return class[at(b, i-1)]&isAlnum != 0
}

// findCard finds a card's number: all digits together, or in groups as they
// are printed, with one separator throughout.
func findCard(b []byte, start int) (c number, ok bool) {
	if separated(b, start) {
		return c, false
	}
	var groups [6]int
	separator, count := byte(0), 0
	for i := start; ; {
		from := i
		for class[at(b, i)]&isDigit != 0 {
			if c.n == 19 {
				return c, false
			}
			c.add(b[i])
			i++
		}
		if i == from || count == 0 && !cardRange(c.text()) || count == len(groups) {
			return c, false
		}
		groups[count] = i - from
		count++
		if cardLength(c.text()) && printed(groups[:count]) && !part(b, i) && luhn(c.text()) {
			c.end = i
			return c, true
		}
		s := at(b, i)
		if s == '+' {
			s = ' '
		}
		if s != ' ' && s != '-' || count > 1 && s != separator || groups[count-1] < 4 {
			return c, false
		}
		separator = s
		i++
	}
}

// printed says whether a card's number is written in groups like these.
func printed(groups []int) bool {
	switch len(groups) {
	case 1:
		return true
	case 3:
		return groups[0] == 4 && groups[1] == 6 && groups[2] >= 4
	case 4, 5:
		for _, n := range groups[:len(groups)-1] {
			if n != 4 {
				return false
			}
		}
		return groups[len(groups)-1] <= 4
	}
	return false
}

// prefix is the number that the first n digits make.
func prefix(digits []byte, n int) (p int) {
	for _, c := range digits[:min(n, len(digits))] {
		p = p*10 + int(c-'0')
	}
	return p
}

// cardRange says whether the first group of digits can begin a card's number.
func cardRange(digits []byte) bool {
	return len(digits) >= 4 && digits[0] >= '2' && digits[0] <= '6'
}

// cardLength says whether numbers of the range of these digits have as many.
// The ranges are those that the schemes publish for issuers.
func cardLength(digits []byte) bool {
	n, p := len(digits), prefix(digits, 4)
	switch {
	case n < minCard:
		return false
	case p/1000 == 4: // Visa
		return n == 16 || n == 19
	case p/100 >= 51 && p/100 <= 55 || p >= 2221 && p <= 2720: // Mastercard
		return n == 16
	case p/100 == 34 || p/100 == 37: // American Express
		return n == 15
	case p >= 3000 && p <= 3059 || p == 3095 || p/100 == 36 || p/100 == 38 || p/100 == 39: // Diners Club
		return n == 14 || n == 16
	case p >= 3528 && p <= 3589: // JCB
		return n == 16
	case p == 6011 || p >= 6440 && p <= 6499 || p/100 == 65: // Discover, RuPay
		return n == 16 || n == 19
	case p/100 == 62: // UnionPay
		return n >= 16
	case p == 5018 || p == 5020 || p == 5038 || p == 5893 || p == 6304 || p == 6759 || p >= 6761 && p <= 6763: // Maestro
		return n >= 16
	case p >= 2200 && p <= 2204: // Mir
		return n == 16
	}
	return false
}

// luhn checks the last digit (ISO 7812-1, annex B).
func luhn(digits []byte) bool {
	sum := 0
	for i, c := range digits {
		d := int(c - '0')
		if (len(digits)-i)%2 == 0 {
			d *= 2
			if d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// findIBAN finds an IBAN, all together or with single separators after each
// fourth character.
func findIBAN(b []byte, start int) (n number, ok bool) {
	c1, c2 := upper(b[start]), upper(at(b, start+1))
	if class[c1]&isLetter == 0 || class[c2]&isLetter == 0 ||
		class[at(b, start+2)]&isDigit == 0 || class[at(b, start+3)]&isDigit == 0 || class[at(b, start-1)]&isAlnum != 0 {
		return n, false
	}
	length := ibanLength(c1, c2)
	i := start
	for n.n < length {
		c := upper(at(b, i))
		if n.n > 0 && n.n%4 == 0 && (c == ' ' || c == '-' || c == '+') {
			i++
			c = upper(at(b, i))
		}
		if class[c]&isAlnum == 0 {
			return n, false
		}
		n.add(c)
		i++
	}
	n.end = i
	return n, length > 0 && class[at(b, i)]&isAlnum == 0 && at(b, i) != '_' && mod97(n.text()) && together(n.text()) >= few
}

// together returns how many digits stand together at most.
func together(text []byte) (most int) {
	n := 0
	for _, c := range text {
		if n++; class[c]&isDigit == 0 {
			n = 0
		}
		most = max(most, n)
	}
	return most
}

// mod97 checks an IBAN's checksum (ISO 7064).
func mod97(iban []byte) bool {
	rest := 0
	for i := range iban {
		c := iban[(i+4)%len(iban)]
		if c <= '9' {
			rest = (rest*10 + int(c-'0')) % 97
		} else {
			rest = (rest*100 + int(c-'A') + 10) % 97
		}
	}
	return rest == 1
}

// ibanLength is how long the IBANs of a country are, 0 if it has none. From the
// IBAN registry of SWIFT.
func ibanLength(c1, c2 byte) int {
	switch string([]byte{c1, c2}) {
	case "NO":
		return 15
	case "BE":
		return 16
	case "DK", "FI", "FO", "GL", "NL", "SD", "FK":
		return 18
	case "MK", "SI":
		return 19
	case "AT", "BA", "EE", "KZ", "LT", "LU", "XK", "MN":
		return 20
	case "CH", "HR", "LI", "LV":
		return 21
	case "BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA":
		return 22
	case "AE", "GI", "IL", "IQ", "TL", "OM", "SO":
		return 23
	case "AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG":
		return 24
	case "LY", "PT", "ST":
		return 25
	case "IS", "TR":
		return 26
	case "BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM":
		return 27
	case "AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV":
		return 28
	case "BR", "EG", "PS", "QA", "UA":
		return 29
	case "JO", "KW", "MU", "YE":
		return 30
	case "MT", "SC":
		return 31
	case "LC":
		return 32
	case "RU":
		return 33
	}
	return 0
}
