package upstream

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// What Clean finds.
const (
	flagHidden  = "characters that do not show"
	flagEscape  = "terminal escapes"
	flagComment = "a comment that does not show"
	flagImage   = "an image that would be fetched"
)

// maxPasses is how often a text is gone through: one that is written by people needs
// two.
const maxPasses = 8

// maxDescription is how many bytes of a description are kept.
const maxDescription = 16 << 10

var (
	escapes  = regexp.MustCompile("(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b[@-_]?")
	comments = regexp.MustCompile(`(?s)<!--.*?(?:-->|$)`)
	images   = regexp.MustCompile(`!\[([^\]]*)\](?:\([^)]*\)?|\[[^\]]*\]?)|(?i:<img\b[^>]*>?)`)
)

// Clean takes out of a text what a person who reads it does not see, and what
// fetches something when it is shown. It says what that was.
func Clean(text string) (clean string, flags []string) {
	flag := func(found bool, f string) {
		if found && !slices.Contains(flags, f) {
			flags = append(flags, f)
		}
	}
	// What is taken out can have held together what is left.
	for passes := 0; ; passes++ {
		if passes == maxPasses {
			return "(a text that hides things in each other was taken out)", []string{flagComment, flagHidden}
		}
		before := text
		if t := escapes.ReplaceAllString(text, ""); t != text {
			flag(true, flagEscape)
			text = t
		}
		hidden, last := false, rune(0)
		text = strings.Map(func(r rune) rune {
			if shows(r) {
				last = r
				return r
			}
			emoji := r == 0xfe0f && unicode.Is(unicode.So, last) // one after a symbol is how emoji are written
			hidden, last = hidden || r != '\r' && !emoji, 0
			return -1
		}, strings.ToValidUTF8(text, "\ufffd"))
		flag(hidden, flagHidden)
		if t := comments.ReplaceAllString(text, ""); t != text {
			flag(true, flagComment)
			text = t
		}
		if t := images.ReplaceAllString(text, "[image: $1]"); t != text {
			flag(true, flagImage)
			text = t
		}
		if text == before {
			break
		}
	}
	if len(text) > maxDescription {
		text = strings.ToValidUTF8(text[:maxDescription], "") + " (cut)"
	}
	return strings.TrimSpace(text), flags
}

// shows reports whether a character shows, or divides lines. Selectors of variants
// and fillers are graphic for Unicode and show nothing.
func shows(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return true
	case r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0100 && r <= 0xe01ef, // variation selectors
		r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, // Hangul fillers
		r == 0x034f, r == 0x17b4, r == 0x17b5, r == 0x2800, // joiner, Khmer vowels, blank Braille
		r >= 0x180b && r <= 0x180f:
		return false
	}
	return unicode.IsGraphic(r)
}
