package flow

import (
	"encoding/base64"
	"encoding/hex"
	"hash/maphash"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"ambit"
)

// leaf is one value of a source.
type leaf struct {
	text      string
	key       string // the name of the field that it is in
	whole     bool   // it is the whole of a field
	number    bool   // it is a JSON number
	sentences bool   // it is prose of a person, who may forget the space after a full stop
}

// source is something that the agent has seen, made ready for searching: its
// folded text, and where in it each word begins.
type source struct {
	label ambit.Label
	from  string
	tool  string
	event uint64
	id    [32]byte // what was seen; zero if it may be there twice
	last  uint64   // when it was seen last, by Task.seen
	on    *shelf

	text    string   // folded; leaves are lines
	words   []uint64 // hash of a word (high half) and where it begins, sorted
	plain   int      // what is behind this is decoded
	raw     string   // not folded, to tell exact from normalised
	fields  map[string]bool
	amounts map[string][]string // numbers that are whole fields, by the field's name; sorted
	whole   map[string]bool     // the same, of all fields
	most    map[string]string   // the largest of each field that is not negative
	numbers map[string]bool     // all others
	largest string              // of these; "" if there is none
}

func newSource(seed maphash.Seed, label ambit.Label, from, tool string, event uint64, leaves []leaf) *source {
	s := &source{label: label, from: from, tool: tool, event: event, fields: map[string]bool{}, amounts: map[string][]string{}, whole: map[string]bool{}, most: map[string]string{}, numbers: map[string]bool{}}
	var folded, raw, decoded strings.Builder
	for _, l := range leaves {
		text := l.text
		if l.sentences {
			text = spaced(text)
		}
		f := fold(text)
		folded.WriteString(f)
		folded.WriteByte('\n')
		raw.WriteString(text)
		raw.WriteByte('\n')
		if l.whole {
			s.fields[strings.TrimSpace(f)] = true
		}
		if n, ok := decimal(strings.TrimSpace(f)); ok && (l.number || l.whole) {
			s.amounts[l.key] = append(s.amounts[l.key], n)
		} else {
			eachNumber(f, func(n string) { s.numbers[n] = true })
		}
		eachDecoded(text, func(d string) {
			decoded.WriteString(fold(d))
			decoded.WriteByte('\n')
			eachNumber(d, func(n string) { s.numbers[n] = true })
		})
	}
	s.measure()
	s.plain = folded.Len()
	s.raw = raw.String()
	s.text = folded.String() + decoded.String()
	for i := 0; i < len(s.text); {
		start, end := nextWord(s.text, i)
		if start < 0 {
			break
		}
		s.words = append(s.words, hashOf(seed, s.text[start:end])|uint64(start))
		i = end
	}
	slices.Sort(s.words)
	return s
}

// measure makes the numbers ready to be compared with many values.
func (s *source) measure() {
	larger := func(a, b string) string {
		if strings.HasPrefix(b, "-") || a != "" && !less(a, b) {
			return a
		}
		return b
	}
	for key, list := range s.amounts {
		slices.Sort(list)
		s.amounts[key] = slices.Compact(list)
		for _, n := range s.amounts[key] {
			s.whole[n] = true
			s.most[key] = larger(s.most[key], n)
		}
	}
	for n := range s.numbers {
		s.largest = larger(s.largest, n)
	}
}

// query is a value that is searched for, in each of its forms.
type query struct {
	value   string
	forms   []form // the first is the value itself, others are what it decodes to
	numeric string // its decimal form, if it is a number
	number  uint64 // hash of that
}

// form is a folded value, with its longest word: the rarest, more or less.
type form struct {
	text  string
	start int    // of that word; -1 if there is none
	hash  uint64 // of it, in the high half
}

func newQuery(seed maphash.Seed, value, folded string) query {
	q := query{value: strings.TrimSpace(value)}
	q.forms = []form{newForm(seed, folded)}
	if n, ok := decimal(q.forms[0].text); ok {
		q.numeric, q.number = n, hashOf(seed, n)
	}
	eachDecoded(value, func(d string) { q.forms = append(q.forms, newForm(seed, fold(d))) })
	return q
}

func newForm(seed maphash.Seed, folded string) form {
	f := form{text: bare(folded), start: -1}
	longest := 0
	for i := 0; i < len(f.text); {
		start, end := nextWord(f.text, i)
		if start < 0 {
			break
		}
		if end-start > longest {
			longest, f.start = end-start, start
		}
		i = end
	}
	if f.start >= 0 {
		f.hash = hashOf(seed, f.text[f.start:f.start+longest])
	}
	return f
}

func hashOf(seed maphash.Seed, word string) uint64 { return maphash.String(seed, word) &^ 0xffffffff }

// bare takes off what does not change where something goes.
func bare(s string) string {
	s = strings.TrimSpace(s)
	for _, scheme := range [...]string{"https://", "http://", "mailto:"} {
		s = strings.TrimPrefix(s, scheme)
	}
	return strings.TrimSuffix(s, "/")
}

// find says how a value stands in the source.
func (s *source) find(q query) How {
	for i, form := range q.forms {
		at := s.index(form)
		switch {
		case at < 0:
			continue
		case i > 0 || at >= s.plain:
			return Decoded
		case strings.Contains(s.raw, q.value):
			return Exact
		}
		return Normalised
	}
	if q.numeric != "" && s.hasNumber(q.numeric) {
		return Normalised
	}
	return Nowhere
}

func (s *source) hasNumber(n string) bool {
	return s.numbers[n] || s.whole[n]
}

// maxCompare bounds the bytes that are compared for one value in one source: a
// text of one word said again and again would cost the square of its length.
// What is not found within that counts as not there, and so as untrusted.
const maxCompare = 1 << 20

// index is where a value stands in the text as a value of its own, and not as a
// part of a longer name, address or number; -1 if nowhere.
func (s *source) index(f form) int {
	if f.start < 0 {
		return -1
	}
	work := maxCompare
	for i := s.first(f.hash); work > 0 && i < len(s.words) && s.words[i]&^0xffffffff == f.hash; i++ {
		work -= 16 + len(f.text)
		start := int(s.words[i]&0xffffffff) - f.start
		if start < 0 || !strings.HasPrefix(s.text[start:], f.text) {
			continue
		}
		if end := start + len(f.text); beginsAt(s.text, start) && endsAt(s.text, end) && !partOf(s.text, start, end) {
			return start
		}
	}
	return -1
}

// first is where the first of the words with a hash is, or would be. Hashes are
// uniform, so it is near where it would be if they were evenly spread; of a text
// that says the same word again and again it is not.
func (s *source) first(hash uint64) int {
	i := int((hash >> 32) * uint64(len(s.words)) >> 32)
	for range 64 {
		switch {
		case i > 0 && s.words[i-1] >= hash:
			i--
		case i < len(s.words) && s.words[i] < hash:
			i++
		default:
			return i
		}
	}
	i, _ = slices.BinarySearch(s.words, hash)
	return i
}

// joins are the characters that join the parts of one address, name or number.
const joins = ".-+@%~&="

// beginsAt reports whether nothing before i belongs to what begins there.
func beginsAt(s string, i int) bool {
	before, n := utf8.DecodeLastRuneInString(s[:i])
	if n == 0 {
		return true
	}
	if isWord(before) || before == '@' {
		return false
	}
	if strings.ContainsRune(joins, before) {
		r, n := utf8.DecodeLastRuneInString(s[:i-n])
		return n == 0 || !isWord(r)
	}
	return true
}

// endsAt reports whether nothing from i on belongs to what ends there.
func endsAt(s string, i int) bool {
	after, n := utf8.DecodeRuneInString(s[i:])
	if n == 0 {
		return true
	}
	if isWord(after) || after == '@' {
		return false
	}
	if strings.ContainsRune(joins, after) {
		r, n := utf8.DecodeRuneInString(s[i+n:])
		return n == 0 || !isWord(r)
	}
	return true
}

// inAddress are characters that the name in a mail address may have.
const inAddress = "!#$'*?^`{|}"

// partOf reports whether what stands from start to end is a mail address that
// lacks a part of its name, or a path that goes on: the folder is not the file.
func partOf(s string, start, end int) bool {
	switch {
	case s[start] == '/' && end < len(s) && s[end] == '/':
		r, _ := utf8.DecodeRuneInString(s[end+1:])
		return isWord(r)
	case start > 0 && strings.IndexByte(inAddress, s[start-1]) >= 0 && strings.IndexByte(s[start:end], '@') > 0:
		r, n := utf8.DecodeLastRuneInString(s[:start-1])
		return n > 0 && isWord(r)
	}
	return false
}

func isWord(r rune) bool {
	return r < utf8.RuneSelf && among(byte(r), wordLow, wordHigh) || r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r))
}

// Sets of characters: a bit for each of 0 to 63, and for each of 64 to 127.
const (
	wordLow, wordHigh       = 0x03ff_0000_0000_0000, 0x07ff_fffe_87ff_fffe  // 0-9, A-Z, _, a-z
	encodedLow, encodedHigh = wordLow | 0x2400_e820_0000_0000, wordHigh | 1 // also % + - . / : = @
)

func among(c byte, low, high uint64) bool {
	if c < 64 {
		return low>>c&1 != 0
	}
	return c < utf8.RuneSelf && high>>(c-64)&1 != 0
}

// nextWord is the first word of s at or after i; start is -1 if there is none.
func nextWord(s string, i int) (start, end int) {
	start = -1
	for i < len(s) {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		switch {
		case isWord(r):
			if start < 0 {
				start = i
			}
		case start >= 0:
			return start, i
		}
		i += n
	}
	return start, i
}

// fold makes texts that a person would take for the same the same: NFKC
// (Unicode UAX 15), lower case, no invisible characters, one space for many.
func fold(s string) string {
	b := make([]byte, 0, len(s))
	space, ascii := false, 0
	for ; ascii < len(s) && s[ascii] < utf8.RuneSelf; ascii++ {
		c := s[ascii]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			space = true
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if space {
			b = append(b, ' ')
			space = false
		}
		b = append(b, c)
	}
	if ascii == len(s) {
		return string(b)
	}
	// A character may combine with the one before it.
	b, space = b[:0], false
	s = norm.NFKC.String(strings.ToValidUTF8(s, "\ufffd"))
	for _, r := range s {
		switch {
		case r == ' ' || r == '\t' || r == '\n' || r == '\r' || r >= utf8.RuneSelf && unicode.IsSpace(r):
			space = true
			continue
		case r >= utf8.RuneSelf && (unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r)):
			continue
		}
		if space {
			b = append(b, ' ')
			space = false
		}
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			b = append(b, byte(r))
		} else {
			b = utf8.AppendRune(b, unicode.ToLower(r))
		}
	}
	return string(b)
}

// spaced puts a space behind a full stop between a word in lower case and one
// that begins in upper case: the end of a sentence.
func spaced(s string) string {
	var b strings.Builder
	var before, last rune // last is the character before this one
	for i, r := range s {
		if last == '.' && unicode.IsUpper(r) && (unicode.IsLower(before) || unicode.IsDigit(before)) {
			if next, _ := utf8.DecodeRuneInString(s[i+utf8.RuneLen(r):]); unicode.IsLower(next) && !inMail(s[i:]) {
				b.WriteByte(' ')
			}
		}
		b.WriteRune(r)
		before, last = last, r
	}
	return b.String()
}

// inMail reports whether the word at the beginning of s goes on to an @: before it is
// the rest of a name ("john.Smith@").
func inMail(s string) bool {
	s = s[:min(len(s), 64)]
	at := strings.IndexByte(s, '@')
	return at > 0 && !strings.ContainsAny(s[:at], " \t\r\n")
}

// minDecoded is the shortest run of characters that is tried for an encoding.
const minDecoded = 12

// eachDecoded calls f with what stands encoded in s: runs of base64 (RFC 4648,
// both alphabets), hexadecimal, and percent-encoding.
func eachDecoded(s string, f func(string)) {
	for i := 0; i < len(s); {
		j := i
		percent := false
		for j < len(s) && encodes(s[j]) {
			percent = percent || s[j] == '%'
			j++
		}
		if run := s[i:j]; percent {
			if d, err := url.PathUnescape(run); err == nil && d != run && utf8.ValidString(d) {
				f(d)
			}
		} else if len(run) >= minDecoded {
			decodeRun(strings.TrimRight(run, "="), f)
		}
		i = max(j, i+1)
	}
}

func encodes(c byte) bool { return among(c, encodedLow, encodedHigh) }

func decodeRun(run string, f func(string)) {
	if strings.ContainsAny(run, ".@:") {
		return
	}
	if d, err := hex.DecodeString(run); err == nil && readable(d) {
		f(string(d))
		return
	}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if d, err := e.DecodeString(run); err == nil && readable(d) {
			f(string(d))
			return
		}
	}
}

// readable reports whether bytes are text.
func readable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' || c == 0x7f {
			return false
		}
	}
	return true
}
