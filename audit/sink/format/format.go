// Package format writes audit events in the forms that other systems read: JSON
// Lines (the event as the log has it), CSV for spreadsheets, and OCSF 1.8 for
// security lakes. It does no input or output.
//
// Every form is one line, whatever the event says. JSON keeps the values exactly
// and writes what is not a graphic character as an escape, so that the bytes do
// nothing to a terminal and split no line; CSV is for eyes and shows the escapes
// themselves.
//
// Trust: nothing. Events quote what an untrusted agent and its upstreams said;
// values are data in every form, never syntax, and never a formula.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"ambit"
)

// AppendJSON appends the event as one line of JSON without its newline.
// Characters that are not graphic are escaped; the values stay what they are.
func AppendJSON(dst []byte, e *ambit.Event) ([]byte, error) { return appendValue(dst, e, false) }

// ASCII rewrites one line of JSON so that every other character is an escape,
// for protocols that would want to know the encoding.
func ASCII(line []byte) []byte { return appendEscaped(nil, line, true) }

// UID names an event for ever: the log's name, a slash and the position.
func UID(log string, seq uint64) string { return log + "/" + strconv.FormatUint(seq, 10) }

func appendValue(dst []byte, v any, ascii bool) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return dst, fmt.Errorf("writing an event as JSON: %w", err)
	}
	return appendEscaped(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n")), ascii), nil
}

// appendEscaped copies JSON. What is escaped can only stand within its strings.
func appendEscaped(dst, line []byte, ascii bool) []byte {
	for len(line) > 0 {
		plain := 0
		for plain < len(line) && line[plain] >= ' ' && line[plain] < 0x7f {
			plain++
		}
		if dst, line = append(dst, line[:plain]...), line[plain:]; len(line) == 0 {
			break
		}
		r, n := utf8.DecodeRune(line)
		switch {
		case r >= 0x80 && !ascii && unicode.IsGraphic(r):
			dst = append(dst, line[:n]...)
		case r <= 0xffff:
			dst = appendUnit(dst, r)
		default:
			high, low := utf16.EncodeRune(r)
			dst = appendUnit(appendUnit(dst, high), low)
		}
		line = line[n:]
	}
	return dst
}

func appendUnit(dst []byte, unit rune) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[unit>>12&15], digits[unit>>8&15], digits[unit>>4&15], digits[unit&15])
}

// Shorten returns an event of at most limit bytes of JSON, and whether it had to
// leave something out: whole lists first, then the ends of texts. Position, time,
// kind, principal and decision are always whole; an event of the catalogue fits
// into 4096 bytes.
func Shorten(e ambit.Event, limit int) (ambit.Event, bool) {
	fits := func() bool {
		line, err := AppendJSON(nil, &e)
		return err == nil && len(ASCII(line)) <= limit
	}
	if fits() {
		return e, false
	}
	e.More += len(e.Subjects)
	e.Provenance, e.Subjects, e.Links, e.Effects = nil, nil, nil, nil
	if e.Erasure != nil {
		e.Erasure = &ambit.Erasure{Rule: e.Erasure.Rule, Subject: e.Erasure.Subject, Bodies: e.Erasure.Bodies}
	}
	reason := ambit.Reason{}
	if e.Reason != nil {
		reason = *e.Reason
		e.Reason = &reason
	}
	for keep := max(limit/4, 8); keep >= 8 && (keep == max(limit/4, 8) || !fits()); keep /= 2 {
		for _, s := range []*string{&e.Detail, &e.URL, &e.Resource, &e.Intent, &e.Tool, &e.Host, &e.Method, &e.Rule, &e.Task, &e.Connection, &reason.Text, &reason.Remedy, &reason.Code} {
			*s = cut(*s, keep)
		}
		if e.Erasure != nil {
			e.Erasure.Rule, e.Erasure.Subject = cut(e.Erasure.Rule, keep), cut(e.Erasure.Subject, keep)
		}
	}
	return e, true
}

// cut keeps the first n bytes, no character in two, and says that there was more.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
