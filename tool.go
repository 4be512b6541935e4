package ambit

import (
	"encoding/json"
	"time"
)

// The effects that only tools have: a request does not show them.
const (
	EffectBulk     Effect = "bulk"     // many things at once
	EffectCustomer Effect = "customer" // a customer notices it
)

// ActionTool is the action of a tool call.
const ActionTool Action = "tool"

// Label says where a piece of text came from. The zero value is Untrusted.
type Label string

// The labels, from the most trusted to the least.
const (
	Person    Label = "person" // the words of whom the agent works for
	Record    Label = "record" // a field that a declared system of record fills in
	Untrusted Label = ""       // everything else: free text, what cannot be traced
)

// Trusted reports whether an argument that decides who gets something may come
// from there without a person being asked.
func (l Label) Trusted() bool { return l == Person || l == Record }

// Tool is what an operator has declared or accepted of one tool. What a model
// or an upstream server says of it decides nothing.
type Tool struct {
	// Name is fully qualified: the connection or upstream, a dot, and its own
	// name ("shop.refunds.create"). Lower-case letters, digits, "_", "-" and ".",
	// at most 128.
	Name        string
	Description string // for the model
	Connection  string // whose credential it uses; "" for none
	Effects     []Effect
	// Leaves says that a call takes its arguments out of the operator's systems,
	// whatever it reads: a web page's address, a mail.
	Leaves bool

	// What its arguments mean. Each is a JSON pointer (RFC 6901) into the
	// arguments, in which "*" stands for every element of a list.
	Targets  []string // who or what gets something: recipient, account, link, path, identifier
	Amount   string   // how much money; "" for none
	Currency string   // a pointer, or three capital letters that are always meant; "" if Amount is ""
	Limits   []string // other quantities that matter: counts, sizes

	// Records are JSON pointers, with "*", to what in the result is a record of a
	// system that outsiders cannot fill in with text of theirs. "" is the whole
	// result. Everything else is untrusted.
	Records []string

	Input  json.RawMessage // JSON Schema 2020-12 of the arguments: a closed object
	Output json.RawMessage // of the result; nil if nothing is known of it
}

// Changes reports whether a call does more than read.
func (t *Tool) Changes() bool {
	for _, e := range t.Effects {
		if e != EffectRead {
			return true
		}
	}
	return len(t.Effects) == 0 // not declared: anything
}

// ToolCall is one call of a tool, parsed and canonical.
type ToolCall struct {
	Agent     AgentID
	Principal Principal // who calls; "" is the agent
	Tool      *Tool     // as it was when the call was decided
	// Args are the arguments in canonical form (RFC 8785). What is decided,
	// shown to a person and run are exactly these bytes.
	Args   []byte
	Intent string // as the agent stated it, at most MaxIntent bytes
	Task   string // the piece of work that it belongs to; "" if that is not known
	// Touched is whom the arguments are about, as far as that was recognised.
	Touched []Subject
}

// Ask says that a person must agree before a call runs.
type Ask struct {
	Rule    string        `json:"rule"`              // what wants it, as the operator can find it: "approvals[0] (line 12)", "gate.delete", "provenance"
	Reason  Reason        `json:"reason"`            // why, written by the system
	From    []string      `json:"from,omitempty"`    // who may answer: principals ("uid:1000") or roles of people; empty is whoever may deploy the agent
	People  int           `json:"people,omitempty"`  // how many different people must agree; 0 is 1
	Expires time.Duration `json:"expires,omitempty"` // nanoseconds after which nobody can agree any more; 0 is the default
}

// ToolVerdict is a decision about a tool call. The zero value denies.
type ToolVerdict struct {
	Verdict
	// Asks has what people would have to agree to: then the Decision is Deny, and
	// the Reason says that somebody is asked. Empty means that nobody can lift it.
	Asks []Ask
}
