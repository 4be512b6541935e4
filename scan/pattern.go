package scan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of patterns, in bytes where nothing else is said.
const (
	minName   = 4  // of a field: what is shorter is everywhere
	minAfter  = 2  // of a text in front
	minPrefix = 3  // of what a token begins with
	shortText = 5  // a text in front with less is found like a prefix, so that it does not slow down the rest
	maxText   = 64 // of each of them
	maxValue  = 128
	maxShape  = 200 // of Pattern.Value
	maxStride = 4   // at which numbers are found
	maxTexts  = 512 // names, texts and prefixes of a Matcher together
	uuidBytes = 36
)

// Pattern says how the identifiers of a kind are recognised: by the field they
// are the value of, by the text in front of them, or by what they begin with.
type Pattern struct {
	// Kind is none of [Email], [Phone], [IBAN] and [Card]. Required.
	Kind Kind
	// Value is what an identifier looks like: a text that it begins with, maybe
	// none, and one field in braces, an alphabet and how many characters of it,
	// as in "cus_{base62:8-40}" and "{digits:1-20}". The alphabets are
	//
	//	digits     0-9
	//	hex        0-9a-fA-F
	//	HEX        0-9A-F
	//	base36     0-9a-z
	//	BASE36     0-9A-Z
	//	base62     0-9A-Za-z
	//	base64url  A-Za-z0-9-_
	//
	// and {uuid} is a UUID with or without hyphens. The value of a Subject is the
	// whole of it; case matters, except in a UUID. Required.
	Value string
	// Fields are names, of at least 4 bytes, whose value in JSON, in XML, in a
	// form or in a query it is: "order_id". Case does not matter. Of a list of
	// values the first is found.
	Fields []string
	// After is texts that it stands right behind, of at least 2 bytes and ending
	// with a character that is no letter, digit or underscore: "/orders/". Case
	// does not matter.
	After []string
	// Without Fields and After, it is recognised wherever it stands by itself,
	// by what it begins with, which must then have at least 3 bytes and end with
	// such a character or an underscore: "cus_".
}

// shape is a parsed Pattern.Value.
type shape struct {
	prefix   string
	alphabet [256]bool
	min, max int // characters of the alphabet
	uuid     bool
}

// how says in what way a text leads to a value.
type how uint8

const (
	byField  how = iota // the text is a field's name
	byPhone             // the same, or the end of one, and the value is a phone number
	byAfter             // the value is right behind the text
	byPrefix            // the value begins with the text
)

// lead is a text that leads to a value.
type lead struct {
	text  string // in lower case, except with byPrefix
	how   how
	kind  Kind
	shape *shape
}

// entry is a lead, and where in it a pair of bytes is.
type entry struct {
	lead   uint16
	offset uint8
}

// group is what there is to know about a pair of bytes that leads have: which
// they are, and what can stand before and behind it in them.
type group struct {
	before, behind byteSet
	entries        []entry
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) has(c byte) bool { return s[c>>6]&(1<<(c&63)) != 0 }
func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }

func (s *byteSet) addAll() { *s = byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)} }

// anchor is a byte, and the leads that end with it.
type anchor struct {
	char   byte
	before byteSet // what stands in front of it in them
	leads  []uint16
}

// Matcher knows what to look for. It does not change, and is safe for
// concurrent use. Make one with [NewMatcher].
type Matcher struct {
	leads []lead

	// Most leads are found by pairs of bytes: each occurrence of one has exactly
	// one of its pairs at a multiple of stride.
	stride int
	pairs  [1 << 10]uint64 // by pair: whether it has a group or is numeric; small, so that it stays in the nearest cache
	first  [1 << 16]uint16 // by pair: which group; 0 if there is none
	groups []group         // the first is not used

	// Prefixes and short texts are found by their last bytes, which are no
	// letters or digits.
	anchors []anchor
}

// NewMatcher returns a Matcher for the kinds that are always known and for the
// patterns, which may be none. An error says which pattern is wrong, and why.
func NewMatcher(patterns []Pattern) (*Matcher, error) {
	m := &Matcher{}
	for _, name := range []string{"phone", "phone_number", "phonenumber", "mobile", "mobile_number", "msisdn"} {
		m.leads = append(m.leads, lead{text: name, how: byPhone, kind: Phone})
	}
	for i, p := range patterns {
		if err := m.add(p); err != nil {
			return nil, fmt.Errorf("making a search for subjects: pattern %d, of kind %q: %w", i, p.Kind, err)
		}
	}
	if len(m.leads) > maxTexts {
		return nil, fmt.Errorf("making a search for subjects: the patterns have %d names, texts and prefixes together, and may have %d", len(m.leads), maxTexts)
	}
	m.index()
	return m, nil
}

// Check says what is wrong with the pattern; nil if nothing is.
func (p Pattern) Check() error { return new(Matcher).add(p) }

func (m *Matcher) add(p Pattern) error {
	if !validKind(p.Kind) {
		return errors.New("its kind is not 1 to 40 characters of a-z, 0-9 and -, the first a letter: write for example order")
	}
	if known(p.Kind) {
		return errors.New("its kind is recognised without a pattern: give it another name")
	}
	s, err := parseShape(p.Value)
	if err != nil {
		return err
	}
	for _, name := range p.Fields {
		if err := checkText(name, minName); err != nil {
			return fmt.Errorf("the field %q %w", shorten(name), err)
		}
		m.leads = append(m.leads, lead{strings.ToLower(name), byField, p.Kind, s})
	}
	for _, text := range p.After {
		if err := checkText(text, minAfter); err != nil {
			return fmt.Errorf("the text %q %w", shorten(text), err)
		}
		if wordByte(text[len(text)-1]) {
			return fmt.Errorf("the text %q ends with a letter, a digit or an underscore, so that it would be found in the middle of words: end it with what is between, as in /orders/", text)
		}
		m.leads = append(m.leads, lead{strings.ToLower(text), byAfter, p.Kind, s})
	}
	if len(p.Fields)+len(p.After) > 0 {
		return nil
	}
	if err := checkText(s.prefix, minPrefix); err != nil {
		return fmt.Errorf("what it begins with, %q, %w, because nothing else says where it is", s.prefix, err)
	}
	if class[s.prefix[len(s.prefix)-1]]&isAlnum != 0 {
		return fmt.Errorf("what it begins with, %q, ends with a letter or a digit, so that words would look like it: say in which fields it is, or after what", s.prefix)
	}
	m.leads = append(m.leads, lead{s.prefix, byPrefix, p.Kind, s})
	return nil
}

// shorten is for messages.
func shorten(s string) string { return s[:min(len(s), maxText+1)] }

func wordByte(c byte) bool { return class[c]&isAlnum != 0 || c == '_' }

func checkText(s string, least int) error {
	if len(s) < least || len(s) > maxText {
		return fmt.Errorf("has %d bytes, and must have %d to %d", len(s), least, maxText)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '%' || s[i] == '\\' {
			return errors.New("has a character that is a space, a % or a backslash, or is not ASCII")
		}
	}
	return nil
}

func parseShape(text string) (*shape, error) {
	wrong := func(why string) error {
		return fmt.Errorf("its value %q %s: write for example \"cus_{base62:8-40}\" or \"{digits:1-20}\"", text, why)
	}
	if len(text) > maxShape {
		return nil, fmt.Errorf("its value has %d bytes, and may have %d", len(text), maxShape)
	}
	prefix, field, ok := strings.Cut(text, "{")
	field, closed := strings.CutSuffix(field, "}")
	if !ok || !closed || strings.ContainsAny(field, "{}") {
		return nil, wrong("is not a text and one field in braces, which ends it")
	}
	s := &shape{prefix: prefix}
	for i := range len(prefix) {
		if prefix[i] <= ' ' || prefix[i] >= 0x7f || prefix[i] == '%' || prefix[i] == '\\' || prefix[i] == '}' {
			return nil, wrong("has a character that is a space, a %, a } or a backslash, or is not ASCII")
		}
	}
	name, count, ok := strings.Cut(field, ":")
	if name == "uuid" && !ok {
		s.uuid, s.min, s.max = true, 32, uuidBytes
	} else {
		low, high, isRange := strings.Cut(count, "-")
		if !isRange {
			high = low
		}
		var err1, err2 error
		s.min, err1 = strconv.Atoi(low)
		s.max, err2 = strconv.Atoi(high)
		if err1 != nil || err2 != nil || s.min < 1 || s.max < s.min {
			return nil, wrong("does not say how many characters")
		}
	}
	chars := alphabet(name)
	if chars == "" {
		return nil, wrong("has no alphabet that is known: they are digits, hex, HEX, base36, BASE36, base62, base64url, and uuid")
	}
	if len(prefix)+s.max > maxValue || len(prefix) > maxText {
		return nil, wrong("is longer than " + strconv.Itoa(maxValue) + " bytes")
	}
	for i := range len(chars) {
		s.alphabet[chars[i]] = true
	}
	return s, nil
}

func alphabet(name string) string {
	const digits, small, large = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	switch name {
	case "digits":
		return digits
	case "hex":
		return digits + small[:6] + large[:6]
	case "HEX":
		return digits + large[:6]
	case "base36":
		return digits + small
	case "BASE36":
		return digits + large
	case "base62":
		return digits + small + large
	case "base64url":
		return digits + small + large + "-_"
	case "uuid":
		return digits + small[:6] + large[:6] + "-"
	}
	return ""
}

// index makes the tables. Of each lead a window of stride+1 bytes is chosen, the
// one whose pairs are rarest in text.
func (m *Matcher) index() {
	shortest := maxText
	for i, l := range m.leads {
		if l.anchored() {
			m.anchor(l, uint16(i))
		} else {
			shortest = min(shortest, len(l.text))
		}
	}
	m.stride = min(shortest-1, maxStride)
	for p := range 1 << 16 {
		if numeric(uint16(p)) {
			m.pairs[p>>6] |= 1 << (p & 63)
		}
	}
	m.groups = make([]group, 1)
	for i, l := range m.leads {
		if l.anchored() {
			continue
		}
		from := l.window(m.stride)
		for offset := from; offset < from+m.stride; offset++ {
			for _, p := range l.pairs(offset) {
				if m.first[p] == 0 {
					m.pairs[p>>6] |= 1 << (p & 63)
					m.first[p] = uint16(len(m.groups))
					m.groups = append(m.groups, group{})
				}
				m.groups[m.first[p]].join(l, entry{uint16(i), uint8(offset)})
			}
		}
	}
}

// join adds an entry of the lead.
func (g *group) join(l lead, e entry) {
	g.entries = append(g.entries, e)
	before, behind := int(e.offset)-1, int(e.offset)+2
	if before < 0 {
		g.before.addAll()
	} else {
		for _, c := range spellings(l.text[before]) {
			g.before.add(c)
		}
	}
	switch {
	case behind < len(l.text):
		for _, c := range spellings(l.text[behind]) {
			g.behind.add(c)
		}
	case l.how == byAfter:
		g.behind.addAll()
	default: // as fieldValue wants it
		for _, c := range []byte("\"'[] \n\t\r:=>") {
			g.behind.add(c)
		}
	}
}

// anchor makes the lead one that is found by its last byte.
func (m *Matcher) anchor(l lead, number uint16) {
	c := l.text[len(l.text)-1]
	i := slices.IndexFunc(m.anchors, func(a anchor) bool { return a.char == c })
	if i < 0 {
		i = len(m.anchors)
		m.anchors = append(m.anchors, anchor{char: c})
	}
	a := &m.anchors[i]
	a.leads = append(a.leads, number)
	for _, c := range spellings(l.text[len(l.text)-2]) {
		a.before.add(c)
	}
}

func (l lead) anchored() bool {
	return l.how == byPrefix || l.how == byAfter && len(l.text) < shortText
}

// window is where in the lead's text the pairs are that it is found by.
func (l lead) window(stride int) (best int) {
	// From often to rare in JSON, HTML and English.
	const common = "\"etaoinsr_/hldcumfpgw=:bykvxjqz"
	weight := func(c byte) int {
		if i := strings.IndexByte(common, lower(c)); i >= 0 {
			return len(common) - i
		}
		return 1
	}
	least := -1
	for from := 0; from+stride < len(l.text); from++ {
		sum := 0
		for i := from; i < from+stride; i++ {
			sum += weight(l.text[i]) * weight(l.text[i+1])
		}
		if least < 0 || sum < least {
			best, least = from, sum
		}
	}
	return best
}

// pairs are the spellings of the two bytes at the offset.
func (l lead) pairs(offset int) (all []uint16) {
	for _, a := range spellings(l.text[offset]) {
		for _, b := range spellings(l.text[offset+1]) {
			all = append(all, uint16(a)|uint16(b)<<8)
		}
	}
	return all
}

func spellings(c byte) []byte {
	if upper(c) != c {
		return []byte{c, upper(c)}
	}
	return []byte{c}
}
