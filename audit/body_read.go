package audit

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ambit"
)

// readBody reads a body of the form that appendBody writes, with plain texts
// and without what is rare, and says whether it was one. Then it is what
// encoding/json makes of it, in a fifth of the time: searching, verifying and
// indexing a log are mostly this.
func readBody(body string, e *ambit.Event) bool {
	r := bodyReader{rest: body, ok: true}
	if !r.skip("{") {
		return false
	}
	if r.skip(`"v":`) {
		e.V = int(r.number())
		r.want(",")
	}
	r.want(`"seq":`)
	e.Seq = uint64(r.natural())
	r.want(`,"time":`)
	r.ok = r.ok && e.Time.UnmarshalText([]byte(r.text())) == nil
	r.want(`,"kind":`)
	e.Kind = ambit.Kind(r.text())
	r.want(`,"agent":`)
	e.Agent = ambit.AgentID(r.text())
	r.want(`,"principal":`)
	e.Principal = ambit.Principal(r.text())
	if r.skip(`,"of":`) {
		of := uint64(r.natural())
		e.Of = &of
	}
	r.field(`,"task":`, &e.Task)
	r.field(`,"action":`, (*string)(&e.Action))
	r.field(`,"tool":`, &e.Tool)
	r.field(`,"resource":`, &e.Resource)
	r.field(`,"method":`, &e.Method)
	r.field(`,"host":`, &e.Host)
	r.field(`,"url":`, &e.URL)
	r.field(`,"intent":`, &e.Intent)
	r.want(`,"decision":`)
	if r.text() == ambit.Allow.String() {
		e.Decision = ambit.Allow
	}
	r.field(`,"rule":`, &e.Rule)
	if r.skip(`,"reason":{"code":`) {
		e.Reason = &ambit.Reason{Code: r.text()}
		r.want(`,"text":`)
		e.Reason.Text = r.text()
		r.field(`,"remedy":`, &e.Reason.Remedy)
		r.want("}")
	}
	if r.skip(`,"effects":[`) {
		r.list(func(s string) { e.Effects = append(e.Effects, ambit.Effect(s)) })
	}
	if r.skip(`,"subjects":[`) {
		r.list(func(s string) { e.Subjects = append(e.Subjects, s) })
	}
	if r.skip(`,"more":`) {
		e.More = int(r.number())
	}
	if r.skip(`,"status":`) {
		e.Status = int(r.number())
	}
	if r.skip(`,"bytesOut":`) {
		e.BytesOut = r.number()
	}
	if r.skip(`,"bytesIn":`) {
		e.BytesIn = r.number()
	}
	if r.skip(`,"duration":`) {
		e.Duration = time.Duration(r.number())
	}
	r.field(`,"connection":`, &e.Connection)
	r.field(`,"detail":`, &e.Detail)
	return r.ok && r.rest == "}"
}

// bodyReader reads what is next. Once ok is false the rest means nothing.
type bodyReader struct {
	rest string
	ok   bool
}

func (r *bodyReader) skip(s string) (there bool) {
	r.rest, there = strings.CutPrefix(r.rest, s)
	return there
}

func (r *bodyReader) want(s string) { r.ok = r.skip(s) && r.ok }

func (r *bodyReader) field(name string, dst *string) {
	if r.skip(name) {
		*dst = r.text()
	}
}

// text is a string without escapes.
func (r *bodyReader) text() string {
	if !r.skip(`"`) {
		r.ok = false
		return ""
	}
	plain := true
	for i := range len(r.rest) {
		c := r.rest[i]
		if c == '"' {
			s := r.rest[:i]
			r.rest = r.rest[i+1:]
			r.ok = r.ok && (plain || utf8.ValidString(s))
			return s
		}
		if c == '\\' || c < ' ' {
			break
		}
		plain = plain && c < utf8.RuneSelf
	}
	r.ok = false
	return ""
}

// list calls f with the texts of a list that has begun and has some.
func (r *bodyReader) list(f func(string)) {
	for r.ok {
		f(r.text())
		if r.skip("]") {
			return
		}
		r.want(",")
	}
}

func (r *bodyReader) number() int64 {
	if !r.skip("-") {
		return r.natural()
	}
	if r.ok = r.ok && !strings.HasPrefix(r.rest, "0"); !r.ok {
		return 0
	}
	return -r.natural()
}

// natural is a number from 0 on, of at most 18 digits.
func (r *bodyReader) natural() int64 {
	n := 0
	for n < len(r.rest) && n < 19 && '0' <= r.rest[n] && r.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(r.rest[:n], 10, 64)
	r.ok = r.ok && err == nil && n < 19 && (n == 1 || r.rest[0] != '0')
	r.rest = r.rest[n:]
	return v
}
