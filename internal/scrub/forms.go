package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxForm is the longest form in bytes that is looked for as one. It bounds
// what a stream holds back.
const maxForm = 512

// forms are the ways in which programs write a secret, cut to at most maxForm
// bytes each. They are copies, to be wiped.
func forms(secret []byte) [][]byte {
	var f collector
	f.add(bytes.Clone(secret))
	f.add(hex.AppendEncode(room(secret, 2), secret))
	f.add(bytes.ToUpper(f.list[len(f.list)-1]))
	for _, digits := range []string{lower, upper} {
		f.add(percentStyle{hex: digits}.append(room(secret, 3), secret, func(byte) bool { return false }))
		once := jsonStyle{hex: digits, all: true}.append(room(secret, 6), secret)
		f.add(once)
		f.add(jsonStyle{}.append(room(once, 2), once)) // JSON in a string of JSON
	}
	f.escapes(secret)
	for _, b := range base64s(secret) {
		f.add(b)
		f.digits(b)
	}
	return f.cut()
}

// collector gathers forms.
type collector struct{ list [][]byte }

func (f *collector) add(form []byte) { f.list = append(f.list, form) }

// room is an empty slice that need not grow, which would leave copies behind,
// for a text in which each byte of s becomes at most n.
func room(s []byte, n int) []byte { return make([]byte, 0, n*len(s)) }

// cut returns the forms without repetitions, the long ones in parts of nearly
// equal length.
func (f *collector) cut() (forms [][]byte) {
	slices.SortFunc(f.list, bytes.Compare)
	for i, form := range f.list {
		if i > 0 && bytes.Equal(form, f.list[i-1]) {
			continue
		}
		n := (len(form) + maxForm - 1) / maxForm
		for j := range n {
			forms = append(forms, form[j*len(form)/n:(j+1)*len(form)/n])
		}
	}
	for i := len(f.list) - 1; i > 0; i-- {
		if bytes.Equal(f.list[i], f.list[i-1]) {
			clear(f.list[i])
		}
	}
	return forms
}

// base64s are the digits that depend on the secret alone, for each alignment
// and alphabet: where something follows the secret, and where it is the end,
// with and without padding.
func base64s(secret []byte) (found [][]byte) {
	padded := make([]byte, 2, 2+len(secret))
	padded = append(padded, secret...)
	defer clear(padded)
	for before, first := range []int{0, 2, 3} { // bytes in front; the first digit without a bit of them
		s := padded[2-before:]
		for _, alphabet := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			all := make([]byte, alphabet.EncodedLen(len(s)))
			alphabet.Encode(all, s)
			whole := len(s) * 8 / 6
			digits := (len(s)*8 + 5) / 6
			found = append(found, all[first:], bytes.Clone(all[first:digits]), bytes.Clone(all[first:whole]))
			clear(all[:first])
		}
	}
	return found
}

// escapes adds what libraries make of text where it cannot stand as it is.
func (f *collector) escapes(text []byte) {
	if !slices.ContainsFunc(text, func(c byte) bool { return !isAlphanumeric(c) }) {
		return
	}
	// What the encoders of the common languages leave as it is, besides
	// letters and digits.
	for _, keep := range []string{
		"-_.~",                 // RFC 3986; Go's url.QueryEscape, Python's quote_plus
		"-_.~/",                // Python's quote
		"-_.*",                 // forms (WHATWG URL); Java's URLEncoder
		"-_.",                  // before RFC 3986
		"-_.~!'()*",            // JavaScript's encodeURIComponent
		"-_.~$&+=:@",           // Go's url.PathEscape
		"-_.~!'()*;/?:@&=+$,#", // JavaScript's encodeURI
	} {
		kept := func(c byte) bool { return isAlphanumeric(c) || strings.IndexByte(keep, c) >= 0 }
		for _, plus := range []bool{false, true} {
			for _, digits := range []string{lower, upper} {
				once := percentStyle{hex: digits, plus: plus}.append(room(text, 3), text, kept)
				f.add(once)
				f.add(percentStyle{hex: digits}.append(room(once, 3), once, unreserved))
			}
		}
	}
	f.jsons(text)
	f.htmls(text)
}

// digits adds what the same libraries make of base64.
func (f *collector) digits(text []byte) {
	if !bytes.ContainsAny(text, "+/=") {
		return
	}
	for _, digits := range []string{lower, upper} {
		f.add(percentStyle{hex: digits}.append(room(text, 3), text, isAlphanumeric))
		f.add(jsonStyle{hex: digits, also: "+"}.append(room(text, 6), text)) // .NET
	}
	f.add(jsonStyle{hex: lower, also: "="}.append(room(text, 6), text)) // Gson
	f.add(jsonStyle{slash: true}.append(room(text, 6), text))           // PHP
	f.add(bytes.ReplaceAll(text, []byte("+"), []byte("&#43;")))         // Go's html/template
}

// jsons adds text as it is inside JSON strings.
func (f *collector) jsons(text []byte) {
	for _, also := range []string{
		"",         // JavaScript, Python, Rust, PHP
		"<>&",      // Go
		"<>&='",    // Gson
		"<>&\"'+`", // .NET
	} {
		for _, slash := range []bool{false, true} { // PHP
			for _, ascii := range []bool{false, true} { // Python, PHP, .NET
				for _, digits := range []string{lower, upper} {
					f.add(jsonStyle{also: also, slash: slash, ascii: ascii, hex: digits}.append(room(text, 6), text))
				}
			}
		}
	}
	for _, also := range []string{"", "<>&"} { // JSON in a string of JSON
		once := jsonStyle{also: also, hex: lower}.append(room(text, 6), text)
		f.add(once)
		f.add(jsonStyle{also: also, hex: lower}.append(room(once, 6), once))
	}
}

// htmls adds text as it is inside HTML and XML.
func (f *collector) htmls(text []byte) {
	if !bytes.ContainsAny(text, `&<>"'+`) {
		return
	}
	for _, quote := range []string{`"`, "&quot;", "&#34;"} {
		for _, apostrophe := range []string{"'", "&#39;", "&#x27;", "&#039;", "&apos;"} {
			for _, plus := range []string{"+", "&#43;"} { // Go's html/template
				out := room(text, 6)
				for _, c := range text {
					switch c {
					case '&':
						out = append(out, "&amp;"...)
					case '<':
						out = append(out, "&lt;"...)
					case '>':
						out = append(out, "&gt;"...)
					case '"':
						out = append(out, quote...)
					case '\'':
						out = append(out, apostrophe...)
					case '+':
						out = append(out, plus...)
					default:
						out = append(out, c)
					}
				}
				f.add(out)
			}
		}
	}
}

const (
	lower = "0123456789abcdef"
	upper = "0123456789ABCDEF"
)

func unreserved(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-_.~", c) >= 0 }

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// percentStyle is a way of percent-encoding.
type percentStyle struct {
	hex  string
	plus bool // a space is "+"
}

func (p percentStyle) append(out, text []byte, kept func(byte) bool) []byte {
	for _, c := range text {
		switch {
		case kept(c):
			out = append(out, c)
		case c == ' ' && p.plus:
			out = append(out, '+')
		default:
			out = append(out, '%', p.hex[c>>4], p.hex[c&15])
		}
	}
	return out
}

// jsonStyle is a way of escaping in JSON.
type jsonStyle struct {
	hex   string
	also  string // what is written as \u00XX though it need not be
	slash bool   // "/" is written as "\/"
	ascii bool   // what is not ASCII is written as \uXXXX
	all   bool   // everything is
}

func (j jsonStyle) append(out, text []byte) []byte {
	for len(text) > 0 {
		if c := text[0]; isAlphanumeric(c) && !j.all {
			out = append(out, c)
			text = text[1:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 { // JSON cannot say it; perhaps somebody does not care
			out = append(out, text[0])
			text = text[1:]
			continue
		}
		raw := text[:n]
		text = text[n:]
		short := strings.IndexRune("\"\\\b\f\n\r\t", r)
		switch {
		case j.all, r < utf8.RuneSelf && strings.IndexByte(j.also, byte(r)) >= 0, j.ascii && r >= utf8.RuneSelf:
			out = j.units(out, r)
		case short >= 0:
			out = append(out, '\\', `"\bfnrt`[short])
		case r < ' ':
			out = j.units(out, r)
		case r == '/' && j.slash:
			out = append(out, '\\', '/')
		default:
			out = append(out, raw...)
		}
	}
	return out
}

// units appends r as one or two UTF-16 code units.
func (j jsonStyle) units(out []byte, r rune) []byte {
	var space [2]uint16
	for _, u := range utf16.AppendRune(space[:0], r) {
		out = append(out, '\\', 'u', j.hex[u>>12], j.hex[u>>8&15], j.hex[u>>4&15], j.hex[u&15])
	}
	return out
}
