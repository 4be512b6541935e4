// Package ambit has the nouns that every other package speaks in: an agent, a
// request, the decision about it, the reason, the event that records it. It
// imports the standard library only and is imported by everyone.
//
// The order of things is always the same: a door (egress, tools, ...) turns
// what the agent's program asked for into a [Request]; the gate lets the
// policy decide, appends the [Event] durably and only then hands out a grant.
//
// Trust: values of these types describe what an untrusted agent asked for.
// Nothing here is validated by its type; the package that parses bytes into a
// Request vouches for it. The zero [Decision] is Deny, so a forgotten field
// refuses.
package ambit

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// AgentID names an agent within one home: the manifest's name, 1 to 40
// characters of a-z, 0-9 and -, starting with a letter.
type AgentID string

// Principal says who acted: "agent", "ambit" (the product itself), or a person
// such as "uid:1000" (known by the peer credentials of the control socket).
type Principal string

// Principals that are not people.
const (
	PrincipalAgent Principal = "agent"
	PrincipalAmbit Principal = "ambit"
)

// Decision is the verdict on one request. The zero value is Deny.
type Decision uint8

// The decisions.
const (
	Deny Decision = iota
	Allow
)

// String returns "deny" or "allow"; every unknown value is "deny".
func (d Decision) String() string {
	if d == Allow {
		return "allow"
	}
	return "deny"
}

// MarshalText implements encoding.TextMarshaler.
func (d Decision) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Whatever is not exactly
// "allow" is Deny.
func (d *Decision) UnmarshalText(b []byte) error {
	*d = Deny
	if string(b) == "allow" {
		*d = Allow
	}
	return nil
}

// Severity grades an alert.
type Severity uint8

// The severities, in rising order.
const (
	Info Severity = iota
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{"info", "low", "medium", "high", "critical"}

// String returns the lower-case name.
func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return "critical"
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown name is an error.
func (s *Severity) UnmarshalText(b []byte) error {
	for i, n := range severityNames {
		if string(b) == n {
			*s = Severity(i)
			return nil
		}
	}
	return fmt.Errorf("unknown severity %q", b)
}

// Action is what a request wants to do.
type Action string

// The actions of the egress door.
const (
	ActionHTTP        Action = "http"        // one HTTP request, any version, plain or TLS
	ActionWebSocket   Action = "websocket"   // an upgrade to WebSocket (RFC 6455, RFC 8441)
	ActionPassthrough Action = "passthrough" // a TLS connection that is not opened; judged on its name
	ActionConnect     Action = "connect"     // a connection that never became a request (bad TLS, no name)
	ActionName        Action = "name"        // a DNS question
)

// Request is one thing an agent wants to do, parsed and canonical. It is what
// the policy sees, and what the log keeps.
type Request struct {
	Agent     AgentID
	Principal Principal
	Action    Action
	Intent    string // as the agent stated it, at most MaxIntent bytes; "" is unstated
	Task      string // the piece of work that it belongs to; "" if that is not known
	// Cause is the event of the same log on whose behalf Ambit itself asks: a tool
	// call. nil if the agent asks.
	Cause *uint64

	// Of an egress request:
	Scheme   string // "https", "http"; "tls" for passthrough
	Method   string // upper case as sent; "" for passthrough and connect
	Host     string // canonical: lower case, no trailing dot, A-label; or an IP literal
	Port     uint16 //
	Path     string // canonical, as the upstream will see it, percent-encoding kept; starts with "/"
	RawQuery string // as sent, without "?"
	// Connection names the connection whose credential it asks for; "" for none.
	Connection string
	Header     http.Header // as the upstream will see it; never logged. nil when there is none
	Touched    []Subject   // whom its URL is about, as far as that was recognised
}

// InternalHost is the name under which an agent's computer reaches Ambit itself,
// in plain HTTP on port 80. Its worker answers; nobody is asked for an address,
// and nothing of it leaves. No rule can name it.
const InternalHost = "ambit.internal"

// MaxIntent is the longest intent that is kept, in bytes.
const MaxIntent = 512

// URL writes the request's target for people and for the log.
func (r *Request) URL() string {
	if r.Action == ActionName {
		return r.Host
	}
	b := make([]byte, 0, len(r.Scheme)+len(r.Host)+len(r.Path)+len(r.RawQuery)+16)
	b = append(append(b, r.Scheme...), "://"...)
	if strings.IndexByte(r.Host, ':') >= 0 { // an IPv6 literal
		b = append(append(append(b, '['), r.Host...), ']')
	} else {
		b = append(b, r.Host...)
	}
	usual := r.Scheme == "https" && r.Port == 443 || r.Scheme == "http" && r.Port == 80
	if !usual && r.Port != 0 {
		b = strconv.AppendUint(append(b, ':'), uint64(r.Port), 10)
	}
	b = append(b, r.Path...)
	if r.RawQuery != "" {
		b = append(append(b, '?'), r.RawQuery...)
	}
	return string(b)
}

// Reason says why a decision is what it is, for the agent and for a person.
type Reason struct {
	// Code is stable and made for programs: "host-not-allowed", "private-address".
	Code string `json:"code"`
	// Text is one sentence for a person.
	Text string `json:"text"`
	// Remedy is what the operator can do about it; "" when there is nothing.
	Remedy string `json:"remedy,omitempty"`
}

// Verdict is a decision with its reason. The zero Verdict denies.
type Verdict struct {
	Decision Decision
	Rule     string // the rule that decided, as the operator can find it: "egress.allow[2] (line 14)"; "" when none did
	Reason   Reason
}

// Outcome is how an allowed request ended.
type Outcome struct {
	Status   int           // HTTP status from upstream, 0 if none came
	BytesOut int64         // body bytes sent upstream
	BytesIn  int64         // body bytes received from upstream
	Duration time.Duration // from the decision to the end
	Error    string        // what went wrong, "" if nothing did
	Touched  []Subject     // whom the bodies were about, as far as they were recognised
	More     int           // how many more of those there were at least
	Unseen   bool          // a part of the bodies could not be looked through for them
}

// DenyError is what a door gets when it may not go on. It is also returned
// when nothing was decided because something failed: then Verdict.Reason says
// what.
type DenyError struct {
	Verdict Verdict
	Event   *uint64 // where the log has it; nil if it could not be logged
}

// Error implements error.
func (e *DenyError) Error() string {
	if e.Verdict.Rule != "" {
		return "denied by " + e.Verdict.Rule + ": " + e.Verdict.Reason.Text
	}
	return "denied: " + e.Verdict.Reason.Text
}
