package audit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"ambit"
)

// MaxText is the longest text of an event's field that is kept, in bytes.
// Of a longer one the beginning is kept, and how much is missing.
const MaxText = 16 << 10

// item makes an event fit to be stored.
func (l *Log) item(e ambit.Event) *item {
	// Up to the year 9999, which is what JSON can say (RFC 3339).
	micros := min(max(l.clock().UnixMicro(), 0), 253402300799999999)
	e.V = ambit.EventVersion
	if l.agent != "" {
		e.Agent = l.agent
	}
	for _, s := range []*string{(*string)(&e.Principal), &e.Task, (*string)(&e.Action), &e.Tool, &e.Resource, &e.Method, &e.Host, &e.URL, &e.Intent, &e.Rule, &e.Connection, &e.Detail} {
		clip(s)
	}
	l.name(&e)
	if e.Reason != nil && len(e.Reason.Code)+len(e.Reason.Text)+len(e.Reason.Remedy) > MaxText {
		r := *e.Reason
		clip(&r.Code)
		clip(&r.Text)
		clip(&r.Remedy)
		e.Reason = &r
	}
	return &item{event: e, micros: micros}
}

// MaxSubjects is how many subjects one event names. Of more it says how many
// they are.
const MaxSubjects = 256

// name puts the hashes of the subjects that an event touches in their place.
func (l *Log) name(e *ambit.Event) {
	if len(e.Touched) == 0 {
		return
	}
	n := min(len(e.Touched), MaxSubjects)
	e.More += len(e.Touched) - n
	e.Subjects = make([]string, n)
	for i, s := range e.Touched[:n] {
		e.Subjects[i] = l.keys.subject(s)
	}
	e.Touched = nil
}

func clip(s *string) {
	if len(*s) <= MaxText {
		return
	}
	n := MaxText
	for n > MaxText-utf8.UTFMax && !utf8.RuneStart((*s)[n]) {
		n--
	}
	*s = strings.Clone((*s)[:n]) + fmt.Sprintf("… (%d bytes more)", len(*s)-n)
}
