// Package inert makes text that an agent chose safe to show: control
// characters, terminal escapes, bidirectional overrides, invisible characters
// and broken UTF-8 come out as visible escapes (\x1b, \u202e) that do nothing.
//
// Trust: nothing. The input is hostile; the output has graphic characters of
// Unicode only (and, where the function says so, newlines and tabs).
package inert

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text makes s one line.
func Text(s string) string { return escape(s, false) }

// Lines is Text but for newlines and tabs, which stay.
func Lines(s string) string { return escape(s, true) }

// Quote writes argv the way a POSIX shell would read it, on one line.
func Quote(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = quote(a)
	}
	return strings.Join(out, " ")
}

func quote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	if t := Text(s); t != s { // $'...' is the quoting that reads escapes
		return "$'" + strings.ReplaceAll(Text(strings.ReplaceAll(s, `\`, `\\`)), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func escape(s string, lines bool) string {
	clean := true
	for _, r := range s { // RuneError also stands for itself; harmless either way
		if r == utf8.RuneError || !shown(r, lines) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case shown(r, lines):
			b.WriteRune(r)
		default:
			writeEscaped(&b, r)
		}
		s = s[n:]
	}
	return b.String()
}

func shown(r rune, lines bool) bool {
	return unicode.IsGraphic(r) || lines && (r == '\n' || r == '\t')
}

func writeEscaped(b *strings.Builder, r rune) {
	switch {
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < 0x80:
		fmt.Fprintf(b, `\x%02x`, r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}

// Writer passes bytes on as [Lines] does. A character may be split over
// writes. Carriage returns before a newline are dropped.
type Writer struct {
	w    io.Writer
	rest []byte // the start of a character, or a carriage return, at the end of the last write
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	b := append(w.rest, p...)
	cut := len(b)
	if cut > 0 && b[cut-1] == '\r' {
		cut--
	} else {
		for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
			if c := b[len(b)-i]; utf8.RuneStart(c) {
				if !utf8.FullRune(b[len(b)-i:]) {
					cut = len(b) - i
				}
				break
			}
		}
	}
	w.rest = append([]byte(nil), b[cut:]...)
	if err := w.emit(b[:cut]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what a last, broken character left.
func (w *Writer) Flush() error {
	b := w.rest
	w.rest = nil
	return w.emit(b)
}

func (w *Writer) emit(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := io.WriteString(w.w, Lines(strings.ReplaceAll(string(b), "\r\n", "\n")))
	return err
}
