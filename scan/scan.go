// Package scan recognises subjects: what identifies a person or a customer in
// the bytes that pass an agent's doors, be it an address, a header, a body or
// the argument of a tool, so that everything that touched somebody can be found
// again.
//
// Four kinds are known everywhere:
//
//   - [Email]: addresses of RFC 5321 whose local part has letters, digits and
//     any of . _ + - ' and whose domain has at least one dot. Both halves are
//     written in lower case, a domain in another script as its A-labels (RFC
//     5890). Letters may be Latin, Greek or Cyrillic; all others are taken for
//     the text around an address, because scripts without spaces write it
//     without any.
//   - [Phone]: numbers of 9 to 15 digits after + or 00 with a country code that
//     exists, written like E.164: "+491701234567". A number without a country
//     code is one only where that is clear, in "(030) 123-456", in
//     "(415) 555-2671", and in a field of JSON, XML or a form whose name says
//     so (phone, mobile, …). It is written as its digits, and is not the same
//     subject as the number with the country code.
//   - [IBAN]: with the length that its country has and a right checksum (ISO
//     13616), in upper case and without spaces. Eight of its digits must stand
//     together, spaces not counted: one whose account is mostly letters is missed.
//   - [Card]: the numbers of payment cards, 14 to 19 digits, with a range that
//     is issued, a length that belongs to it and a right checksum (ISO 7812),
//     written as digits. Visa's numbers of 13 digits, which are no longer
//     issued, are left out: they look like the ids of many services.
//
// Other kinds are said by a [Pattern]: an order's number in a path or a field, a
// customer's token. [NewMatcher] puts patterns together, and [Matcher.Stream]
// reads bytes in pieces of any size, with the same result for any division.
//
// The text is looked at with the usual escapes undone, also where one is within
// another: percent-encoding (RFC 3986, and forms), the escapes of JSON strings
// (RFC 8259) and the numeric and most usual named ones of HTML. What is
// compressed, encrypted, in base64 or quoted-printable is not looked into.
//
// What it is not: proof. A digit sequence can be a card's number by chance, and
// a program that wants to hide whom it touches writes the name backwards. It
// says whose data passed where nobody tries to hide that.
//
// Trust: the text is hostile. It can add subjects (which is why there is a
// limit, [MaxSubjects]) and hide some; it can make a search neither take more
// than a time in proportion to its length nor more than a fixed amount of
// memory. Whoever writes patterns decides what counts as a subject, and a
// pattern with a name that occurs often costs time. Subjects are personal data
// and sometimes more, as a card's number is: who stores them must treat them
// so.
package scan

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what a Subject identifies: 1 to 40 characters of a-z, 0-9 and -,
// the first a letter.
type Kind string

// The kinds that are known without a Pattern.
const (
	Email Kind = "email"
	Phone Kind = "phone"
	IBAN  Kind = "iban"
	Card  Kind = "card"
)

// Subject is one identifier in the one form that it is compared in.
type Subject struct {
	Kind  Kind   `json:"kind"`
	Value string `json:"value"`
}

// String is a form that [Parse] reads back: "order:1001".
func (s Subject) String() string { return string(s.Kind) + ":" + s.Value }

// maxTyped is the longest text that Parse looks at, in bytes.
const maxTyped = 512

// Parse reads what a person typed: an e-mail address, a phone number, an IBAN,
// a card's number, or a kind, a colon and a value, as in "order:1001". It
// returns every reading that the text has, never none without an error, in the
// form in which a [Stream] finds them. White space around it is ignored.
func Parse(text string) ([]Subject, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, errors.New("reading a subject: it is empty: write an e-mail address, a phone number, an IBAN, a card's number, or for example order:1001")
	case len(text) > maxTyped:
		return nil, fmt.Errorf("reading a subject: it has %d bytes, and at most %d make sense", len(text), maxTyped)
	}
	all := builtin(text)
	if kind, value, ok := strings.Cut(text, ":"); ok && validKind(Kind(kind)) {
		value = strings.TrimSpace(value)
		if known(Kind(kind)) {
			for _, s := range builtin(value) {
				if s.Kind == Kind(kind) {
					all = append(all, s)
				}
			}
		} else if value != "" && strings.IndexFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0 {
			all = append(all, Subject{Kind(kind), string(normal([]byte(value)))})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("reading a subject: %q is not an e-mail address, a phone number, an IBAN or a card's number: check it, or write what kind it is, for example order:1001", text)
	}
	return all, nil
}

func known(k Kind) bool { return k == Email || k == Phone || k == IBAN || k == Card }

func validKind(k Kind) bool {
	for i := range len(k) {
		c := k[i]
		if !(c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '-')) {
			return false
		}
	}
	return k != "" && len(k) <= 40
}

// builtin returns what the whole text is, of the kinds that are known.
func builtin(text string) (all []Subject) {
	b := []byte("\n" + text + "\n")
	end := len(b) - 1
	found := func(kind Kind, value []byte) { all = append(all, Subject{kind, string(value)}) }

	for i, c := range b {
		if c != '@' {
			continue
		}
		if m, ok := findEmail(b, i); ok && m.start == 1 && m.end == end {
			value := appendEmail(nil, b, m)
			if m.international {
				value = toASCII(value)
			}
			found(Email, value)
		}
	}
	if n, ok := findIBAN(b, 1); ok && n.end == end {
		found(IBAN, n.text())
	}
	if n, ok := findCard(b, 1); ok && n.end == end {
		found(Card, n.text())
	}
	if n, ok := findPhone(b, 1); ok && n.end == end {
		found(Phone, n.text())
	} else if n, ok := findNational(b, 1); ok && n.end == end {
		found(Phone, n.text())
	} else if n, ok := fieldPhone(b, 1); ok && n.end == end {
		found(Phone, n.text())
	}
	return all
}

// normal brings the value of a pattern to its one form, in place: a UUID (RFC
// 9562) in lower case and without hyphens, everything else as it is.
func normal(v []byte) []byte {
	if !isUUID(v) {
		return v
	}
	out := v[:0]
	for _, c := range v {
		if c != '-' {
			out = append(out, lower(c))
		}
	}
	return out
}

func isUUID(v []byte) bool {
	hyphens := len(v) == 36
	if !hyphens && len(v) != 32 {
		return false
	}
	for i, c := range v {
		if hyphens && (i == 8 || i == 13 || i == 18 || i == 23) {
			if c != '-' {
				return false
			}
		} else if class[c]&isHex == 0 {
			return false
		}
	}
	return true
}
