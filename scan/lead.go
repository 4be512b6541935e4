package scan

// The searches below look at no more than maxText+2 bytes before b[end], and at
// no more than gap+maxValue+2 behind it.
const gap = 32 // between a field's name and its value

// stands says whether the lead's text is at b[start:], as a whole name or token.
func (l *lead) stands(b []byte, start int) bool {
	if start < 0 || start+len(l.text) > len(b) {
		return false
	}
	if l.how == byPrefix {
		return string(b[start:start+len(l.text)]) == l.text && !wordByte(at(b, start-1))
	}
	for i := range len(l.text) {
		if lower(b[start+i]) != l.text[i] {
			return false
		}
	}
	before := at(b, start-1)
	switch l.how {
	case byField:
		return !wordByte(before) && before != '-'
	case byPhone: // of homePhone and billing_phone the end says enough
		return true
	}
	return !wordByte(l.text[0]) || !wordByte(before)
}

// value returns where the value of the lead that stands at b[start:] is.
func (l *lead) value(b []byte, start int) (from, to int, ok bool) {
	end := start + len(l.text)
	switch l.how {
	case byPrefix:
		from = start
	case byAfter:
		from = end
	default:
		if from, ok = fieldValue(b, end); !ok {
			return 0, 0, false
		}
	}
	to, ok = l.shape.match(b, from)
	return from, to, ok
}

// fieldValue goes from the end of a name to its value: over quotes, one of : = >,
// spaces, and the beginning of a list.
func fieldValue(b []byte, end int) (from int, ok bool) {
	i := end
	for c := at(b, i); c == '"' || c == '\'' || c == ']' || c == '['; c = at(b, i) {
		if i++; i-end > 3 {
			return 0, false
		}
	}
	i = spaces(b, i)
	if c := at(b, i); c != ':' && c != '=' && c != '>' {
		return 0, false
	}
	i = spaces(b, i+1)
	if at(b, i) == '[' {
		i = spaces(b, i+1)
	}
	if c := at(b, i); c == '"' || c == '\'' {
		i++
	}
	return i, true
}

func spaces(b []byte, i int) int {
	for end := i + 8; i < end; i++ {
		if c := at(b, i); c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			break
		}
	}
	return min(i, len(b))
}

// match returns the end of the identifier at b[from:].
func (s *shape) match(b []byte, from int) (end int, ok bool) {
	i := from + len(s.prefix)
	if i > len(b) || string(b[from:i]) != s.prefix {
		return 0, false
	}
	first := i
	for i < len(b) && s.alphabet[b[i]] {
		if i++; i-first > s.max {
			return 0, false
		}
	}
	if i-first < s.min || s.uuid && !isUUID(b[first:i]) || part(b, i) {
		return 0, false
	}
	return i, at(b, i) != '-' || class[at(b, i+1)]&isAlnum == 0
}
