package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ambit/internal/inert"
)

// MaxErrors is how many problems of one file are reported.
const MaxErrors = 20

// Error is one problem of a file: where it is, what is wrong and what
// would be right. Text and Hint are safe to print: whatever they quote from the
// file is escaped and shortened.
type Error struct {
	File   string `json:"file"`             // as it was given to Decode
	Line   int    `json:"line"`             // from 1
	Column int    `json:"column"`           // from 1, in characters
	Path   string `json:"path,omitempty"`   // the key, as in "egress.allow[1].host"; "" is the whole file
	Text   string `json:"text"`             // what is wrong
	Hint   string `json:"hint,omitempty"`   // what to do about it
	Source string `json:"source,omitempty"` // the line in the file, or the part of it around Column, escaped
	Caret  int    `json:"caret,omitempty"`  // the place in Source that Column is, from 0, in characters
}

// Error returns one line in the form of a compiler:
// "support.yaml:12:7: egress.allow[1].hots: unknown key ...; did you mean ...?".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", inert.Text(e.File), e.Line, e.Column)
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Text)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Excerpt returns the line of the file and, under it, a caret that points at
// the column, both indented; "" if the file has no such line.
func (e *Error) Excerpt() string {
	if e.Source == "" {
		return ""
	}
	number := strconv.Itoa(e.Line)
	margin := strings.Repeat(" ", len(number))
	return fmt.Sprintf("  %s | %s\n  %s | %s^", number, e.Source, margin, strings.Repeat(" ", e.Caret))
}

// Errors is why a file is refused: every problem, in the order of the file, at
// most 20. If there are more, the last entry says how
// many are left out.
type Errors []*Error

// Error returns one line for each problem.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first *Error.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// finish sorts problems by place, keeps the first 20 and gives each its line
// of the source.
func finish(problems []*Error, lines []string) Errors {
	slices.SortStableFunc(problems, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(problems) - (MaxErrors - 1); more > 1 {
		first := problems[MaxErrors-1]
		problems = append(problems[:MaxErrors-1:MaxErrors-1], &Error{
			File: first.File, Line: first.Line, Column: first.Column,
			Text: fmt.Sprintf("%d more problems from here on are not shown", more),
			Hint: "repair those above first",
		})
	}
	for _, e := range problems {
		e.show(lines)
	}
	return problems
}

// show fills in Source and Caret.
func (e *Error) show(lines []string) {
	if e.Line >= 1 && e.Line <= len(lines) {
		e.Source, e.Caret = excerpt(lines[e.Line-1], e.Column)
	}
}

// Say returns a copy of e that says text and hint, both made inert.
func (e *Error) Say(text, hint string) *Error {
	said := *e
	said.Text, said.Hint = inert.Text(text), inert.Text(hint)
	return &said
}

// excerpt cuts a window of at most 100 characters around column out of line
// and escapes it. It returns the window and where column is in it.
func excerpt(line string, column int) (string, int) {
	const before, width = 60, 100
	runes := []rune(strings.TrimSuffix(line, "\r"))
	at := min(max(column-1, 0), len(runes))
	start := max(0, at-before)
	end := min(len(runes), start+width)
	head, tail := inert.Text(string(runes[start:at])), inert.Text(string(runes[at:end]))
	return head + tail, utf8.RuneCountInString(head)
}

// Quote quotes text of the file for a message, escaped and shortened.
func Quote(s string) string { return strconv.Quote(Shorten(s)) }

// Shorten cuts text for a message after 60 characters.
func Shorten(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}
