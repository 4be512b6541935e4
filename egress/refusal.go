package egress

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"ambit"
)

// refusal is an answer of the gate's own: the request was denied, or what was
// granted could not be done.
type refusal struct {
	status  int
	verdict ambit.Verdict
	event   *uint64
	denied  bool // false if it was granted and failed
}

// problem is its body (RFC 9457).
type problem struct {
	Type   string  `json:"type"`
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Detail string  `json:"detail"`
	Rule   string  `json:"rule,omitempty"`
	Remedy string  `json:"remedy,omitempty"`
	Event  *uint64 `json:"event,omitempty"`
}

const problemType = "application/problem+json"

// statusOf is the one table from reason to HTTP status; all others are 403.
func statusOf(code string) int {
	switch code {
	case "bad-request", "forged-header":
		return http.StatusBadRequest
	case "name-mismatch":
		return http.StatusMisdirectedRequest
	case "bad-gateway":
		return http.StatusBadGateway
	case "gateway-timeout":
		return http.StatusGatewayTimeout
	case "log-unavailable", "too-busy", "policy-changed":
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

func (r *refusal) body() []byte {
	title := "Refused by the agent's policy"
	switch {
	case !r.denied:
		title = "Allowed, but the host could not be reached"
	case r.status == http.StatusBadRequest || r.status == http.StatusMisdirectedRequest || r.status == http.StatusRequestHeaderFieldsTooLarge || r.status == http.StatusExpectationFailed:
		title = "Refused: the request is not sound"
	case r.status == http.StatusServiceUnavailable:
		title = "Refused: the gate cannot decide now"
	}
	b, err := json.Marshal(problem{
		Type: "urn:ambit:problem:" + r.verdict.Reason.Code, Title: title, Status: r.status,
		Detail: r.verdict.Reason.Text, Rule: r.verdict.Rule, Remedy: r.verdict.Reason.Remedy, Event: r.event,
	})
	if err != nil { // strings and numbers always marshal
		return []byte("{}")
	}
	return append(b, '\n')
}

// header returns the fields that go with the body. A gRPC program gets the
// refusal as a status it can read: PERMISSION_DENIED, INVALID_ARGUMENT or
// UNAVAILABLE, in a response of trailers only.
func (r *refusal) header(grpc bool) http.Header {
	h := http.Header{"Cache-Control": {"no-store"}}
	if r.denied {
		h.Set("Ambit-Decision", "deny")
	}
	if !grpc {
		h.Set("Content-Type", problemType)
		return h
	}
	code := "7"
	switch {
	case r.status == http.StatusBadRequest:
		code = "3"
	case r.status >= 500:
		code = "14"
	}
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", code)
	h.Set("Grpc-Message", grpcMessage(r.verdict.Reason.Text))
	return h
}

// grpcMessage percent-encodes as the gRPC protocol wants it.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isGRPC(h http.Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "application/grpc")
}

// deny logs what the door found by itself and returns the answer to it.
func (s *side) deny(ctx context.Context, r *ambit.Request, status int, reason ambit.Reason) *refusal {
	_, err := s.check(ctx, r, &ambit.Verdict{Reason: reason})
	f := refused(err)
	if f.verdict.Reason.Code == reason.Code {
		f.status = status
	}
	return f
}

// refused is the answer to what the gate did not grant.
func refused(err error) *refusal {
	var d *ambit.DenyError
	if !errors.As(err, &d) { // the gate returns nothing else
		d = &ambit.DenyError{Verdict: ambit.Verdict{Reason: ambit.Reason{Code: "denied", Text: "the gate did not grant this"}}}
	}
	return &refusal{status: statusOf(d.Verdict.Reason.Code), verdict: d.Verdict, event: d.Event, denied: true}
}

func badRequest(text string) ambit.Reason {
	return ambit.Reason{Code: "bad-request", Text: text, Remedy: "this is for the program that sent it to mend; no rule can allow it"}
}

func forgedHeader() ambit.Reason {
	return ambit.Reason{
		Code: "forged-header", Text: "the request has a header field in Ambit's name other than one Ambit-Intent",
		Remedy: "this is for the program that sent it to mend; no rule can allow it",
	}
}

func mismatch(what, got, want string) ambit.Reason {
	return ambit.Reason{
		Code: "name-mismatch",
		Text: "the connection is for " + want + ", but its " + what + " says " + short(got),
	}
}

// short quotes what an agent wrote, in ASCII and not at length.
func short(s string) string {
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return strconv.QuoteToASCII(s)
}

// failed is the answer when a granted request came to nothing.
func failed(err error, event uint64) *refusal {
	r := ambit.Reason{Code: "bad-gateway", Text: "the host could not be reached: " + err.Error(), Remedy: "see that the host is up and its name resolves where Ambit runs"}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		r.Code = "gateway-timeout"
	}
	return &refusal{status: statusOf(r.Code), verdict: ambit.Verdict{Decision: ambit.Allow, Reason: r}, event: &event}
}
