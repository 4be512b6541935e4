package connector

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"ambit/internal/inert"
)

const (
	defaultResult = 64 << 10 // bytes of a result
	defaultText   = 16 << 10 // bytes of a text in it
	maxMessage    = 300      // characters of what a service says
)

// ResultError says that a call has failed at the service, or that its answer
// cannot be used.
type ResultError struct {
	Status int    // of the answer
	Text   string // what failed, written by Ambit
	// Message is what the service says: untrusted text, inert, at most 300
	// characters; "" if it says nothing.
	Message string
}

func (e *ResultError) Error() string {
	if e.Message == "" {
		return e.Text
	}
	return e.Text + "; the service says (untrusted): " + e.Message
}

// Result makes of a service's answer what the agent gets: the fields that the
// connector keeps, as JSON. An error is of type [*ResultError].
func (t *BoundTool) Result(status int, header http.Header, body []byte) (json.RawMessage, error) {
	r := &t.spec.result
	fail := func(text string) (json.RawMessage, error) { return nil, &ResultError{Status: status, Text: text} }
	if len(body) > MaxAnswer {
		return fail(fmt.Sprintf("the answer has more than %d bytes", MaxAnswer))
	}
	v, readable := readAnswer(body)
	success := status >= 200 && status <= 299
	if r.status != nil {
		success = slices.Contains(r.status, status)
	}
	if !success {
		text := fmt.Sprintf("the service answered with status %d", status)
		if s := http.StatusText(status); s != "" {
			text += " (" + s + ")"
		}
		return nil, &ResultError{status, text, r.message(v)}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if r.ok != "" {
			return fail("the answer is empty")
		}
		return json.RawMessage("{}"), nil
	}
	if !readable {
		return fail("the answer is not JSON" + typeOf(header))
	}
	if r.ok != "" {
		if good, _ := at(v, r.ok); good != true {
			return nil, &ResultError{status, "the service refused the call", r.message(v)}
		}
	}
	v, ok := at(v, r.from)
	if !ok {
		return fail("the answer does not have " + r.from)
	}
	if v, ok = r.kept.pick(v); !ok {
		return fail("the answer does not have the form that the connector knows")
	}
	for _, p := range r.decode {
		v = rewrite(v, pointerTokens(p), decodeText)
	}
	text, err := marshal(cut(v, r.maxText))
	if err != nil {
		return fail(err.Error())
	}
	if len(text) > r.max {
		return fail(fmt.Sprintf("the call was made, but its result has %d bytes, more than the %d that the tool may return: ask for less", len(text), r.max))
	}
	return text, nil
}

func typeOf(h http.Header) string {
	if t := h.Get("Content-Type"); t != "" {
		return ", but " + shortMessage(t)
	}
	return ""
}

// readAnswer decodes JSON and keeps numbers as they are written.
func readAnswer(body []byte) (any, bool) {
	if !utf8.Valid(body) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, false
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, false
	}
	return v, true
}

// message finds what the service says of a failure.
func (r *resultTemplate) message(v any) string {
	places := []string{"/error/message", "/message", "/error_description", "/error", "/errors", "/description", "/detail", "/title"}
	if r.failure != "" {
		places = []string{r.failure}
	}
	for _, p := range places {
		switch found, _ := at(v, p); found := found.(type) {
		case string:
			return shortMessage(found)
		case map[string]any, []any:
			if text, err := marshal(found); err == nil {
				return shortMessage(string(text))
			}
		}
	}
	return ""
}

// shortMessage makes text inert and short.
func shortMessage(s string) string {
	runes := []rune(strings.TrimSpace(s))
	if len(runes) > maxMessage {
		s = string(runes[:maxMessage]) + "…"
	} else {
		s = string(runes)
	}
	return inert.Text(s)
}

// decodeText undoes base64, in either alphabet and with line breaks, of UTF-8.
func decodeText(s string) string {
	clean := strings.NewReplacer("\n", "", "\r", "", "-", "+", "_", "/", "=", "").Replace(s)
	text, err := base64.RawStdEncoding.DecodeString(clean)
	if err != nil || !utf8.Valid(text) {
		return s
	}
	return string(text)
}

// cut shortens long texts, and says so in them.
func cut(v any, most int) any {
	switch v := v.(type) {
	case string:
		if len(v) <= most {
			return v
		}
		n := most
		for n > 0 && !utf8.RuneStart(v[n]) {
			n--
		}
		return fmt.Sprintf("%s… [%d more bytes were cut]", v[:n], len(v)-n)
	case []any:
		for i := range v {
			v[i] = cut(v[i], most)
		}
	case map[string]any:
		for k := range v {
			v[k] = cut(v[k], most)
		}
	}
	return v
}
