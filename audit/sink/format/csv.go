package format

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ambit"
	"ambit/internal/inert"
)

// csvColumns are the names of the columns, those of the JSON.
func csvColumns() []string {
	return []string{"log", "seq", "time", "kind", "agent", "principal", "decision", "of", "task", "action", "tool", "resource", "method", "host", "url", "intent",
		"rule", "reason.code", "reason.text", "reason.remedy", "effects", "provenance", "subjects", "more", "unseen", "status", "bytesOut", "bytesIn", "duration", "severity",
		"connection", "links", "erasure", "detail", "v"}
}

// AppendCSVHeader appends the names of the columns, with a newline.
func AppendCSVHeader(dst []byte) []byte { return appendRow(dst, csvColumns()) }

// AppendCSV appends the event as one row (RFC 4180), with a newline. Every cell is
// quoted, has graphic characters only, and is no formula to a spreadsheet: one
// that begins with =, +, - or @ (also in full width) gets an apostrophe before it,
// as OWASP's "CSV Injection" says. What JSON has as an object is JSON in its cell;
// duration is in nanoseconds.
func AppendCSV(dst []byte, log string, e *ambit.Event) []byte {
	var reason ambit.Reason
	if e.Reason != nil {
		reason = *e.Reason
	}
	effects := make([]string, len(e.Effects))
	for i, effect := range e.Effects {
		effects[i] = string(effect)
	}
	severity := ""
	if e.Kind == ambit.KindAlert {
		severity = e.Severity.String()
	}
	of := ""
	if e.Of != nil {
		of = strconv.FormatUint(*e.Of, 10)
	}
	return appendRow(dst, []string{log, strconv.FormatUint(e.Seq, 10), e.Time.UTC().Format(time.RFC3339Nano), string(e.Kind), string(e.Agent), string(e.Principal), e.Decision.String(),
		of, e.Task, string(e.Action), e.Tool, e.Resource, e.Method, e.Host, e.URL, e.Intent,
		e.Rule, reason.Code, reason.Text, reason.Remedy, strings.Join(effects, " "), list(len(e.Provenance), e.Provenance), strings.Join(e.Subjects, " "), number(int64(e.More)), mark(e.Unseen),
		number(int64(e.Status)), number(e.BytesOut), number(e.BytesIn), number(int64(e.Duration)), severity,
		e.Connection, list(len(e.Links), e.Links), erasure(e.Erasure), e.Detail, number(int64(e.V))})
}

func mark(is bool) string {
	if is {
		return "true"
	}
	return ""
}

// number writes nothing for what is not there.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func list(n int, v any) string {
	if n == 0 {
		return ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}

func erasure(e *ambit.Erasure) string {
	if e == nil {
		return ""
	}
	return list(1, e)
}

func appendRow(dst []byte, cells []string) []byte {
	for i, cell := range cells {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, strings.ReplaceAll(Cell(cell), `"`, `""`)...)
		dst = append(dst, '"')
	}
	return append(dst, '\r', '\n')
}

// Cell makes text of a cell. Spreadsheets also look behind leading blanks.
func Cell(s string) string {
	s = inert.Text(s)
	first, n := utf8.DecodeRuneInString(strings.TrimLeft(s, " \u00a0\u3000"))
	if n > 0 && strings.ContainsRune("=+-@|＝＋－＠", first) {
		return "'" + s
	}
	return s
}
