package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"ambit"
)

// appendBody appends the JSON of an event, byte for byte what encoding/json
// makes of it without escaping for HTML. By hand because every request pays
// for two.
func appendBody(b []byte, e *ambit.Event) ([]byte, error) {
	b = append(b, '{')
	if e.V != 0 {
		b = append(strconv.AppendInt(append(b, `"v":`...), int64(e.V), 10), ',')
	}
	b = strconv.AppendUint(append(b, `"seq":`...), e.Seq, 10)
	b = append(e.Time.AppendFormat(append(b, `,"time":"`...), time.RFC3339Nano), '"')
	var err error
	value := func(name string, v any) { // what is rare, or small
		if err == nil {
			b, err = appendValue(append(b, name...), v)
		}
	}
	text := func(name, s string, always bool) {
		if (s != "" || always) && err == nil {
			b, err = appendString(append(b, name...), s)
		}
	}
	number := func(name string, n int64) {
		if n != 0 {
			b = strconv.AppendInt(append(b, name...), n, 10)
		}
	}
	text(`,"kind":`, string(e.Kind), true)
	text(`,"agent":`, string(e.Agent), true)
	text(`,"principal":`, string(e.Principal), true)
	if e.Of != nil {
		b = strconv.AppendUint(append(b, `,"of":`...), *e.Of, 10)
	}
	text(`,"task":`, e.Task, false)
	text(`,"action":`, string(e.Action), false)
	text(`,"tool":`, e.Tool, false)
	text(`,"resource":`, e.Resource, false)
	text(`,"method":`, e.Method, false)
	text(`,"host":`, e.Host, false)
	text(`,"url":`, e.URL, false)
	text(`,"intent":`, e.Intent, false)
	text(`,"decision":`, e.Decision.String(), true)
	text(`,"rule":`, e.Rule, false)
	if r := e.Reason; r != nil {
		text(`,"reason":{"code":`, r.Code, true)
		text(`,"text":`, r.Text, true)
		text(`,"remedy":`, r.Remedy, false)
		b = append(b, '}')
	}
	if len(e.Effects) > 0 {
		b = append(b, `,"effects":[`...)
		for i, f := range e.Effects {
			text([...]string{"", ","}[min(i, 1)], string(f), true)
		}
		b = append(b, ']')
	}
	if len(e.Provenance) > 0 {
		value(`,"provenance":`, e.Provenance)
	}
	if len(e.Subjects) > 0 {
		b = append(b, `,"subjects":[`...)
		for i, s := range e.Subjects {
			text([...]string{"", ","}[min(i, 1)], s, true)
		}
		b = append(b, ']')
	}
	number(`,"more":`, int64(e.More))
	if e.Unseen {
		b = append(b, `,"unseen":true`...)
	}
	number(`,"status":`, int64(e.Status))
	number(`,"bytesOut":`, e.BytesOut)
	number(`,"bytesIn":`, e.BytesIn)
	number(`,"duration":`, int64(e.Duration))
	if e.Severity != 0 {
		text(`,"severity":`, e.Severity.String(), true)
	}
	text(`,"connection":`, e.Connection, false)
	if len(e.Links) > 0 {
		value(`,"links":`, e.Links)
	}
	if e.Erasure != nil {
		value(`,"erasure":`, e.Erasure)
	}
	text(`,"detail":`, e.Detail, false)
	return append(b, '}'), err
}

// appendString appends a JSON string. What is not plain ASCII is left to
// encoding/json.
func appendString(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendValue(b, s)
		}
	}
	return append(append(append(b, '"'), s...), '"'), nil
}

// appendValue appends the JSON of any value.
func appendValue(b []byte, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return b, fmt.Errorf("encoding the event: %w", err)
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), nil
}
