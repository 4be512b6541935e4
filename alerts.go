package ambit

import "time"

// AlertSpec is one line of the catalogue of alerts. What raises it is in the
// rules of package alert, or in the part that noticed it; docs/alerts.md
// explains all of them.
type AlertSpec struct {
	// Code names the alert. It is the first word of its key, and what an entry
	// of alerts in a manifest tunes. It never changes its meaning once released.
	Code string
	// Log is whose alerts it is among: "agent", "control", or "both".
	Log string
	// Severity is what it has unless a manifest says otherwise.
	Severity Severity
	// Refusal: it is raised for refusals with this code as their reason.
	Refusal bool
	// Count and Within, if not zero, say how many events in which time it takes.
	Count  int
	Within time.Duration
	// Text is what it says happened, in one sentence.
	Text string
}

// The codes of alerts that other code speaks of.
const (
	AlertRefused        = "egress-refused"
	AlertRepeated       = "repeated-denials"
	AlertFirstHost      = "first-host"
	AlertFirstNamedHost = "first-named-host"
	AlertManyHosts      = "many-hosts"
	AlertFirstTool      = "first-tool"
	AlertManyTools      = "many-tools"
	AlertApproval       = "approval-waiting"
	AlertErased         = "erased"
	AlertWiped          = "wiped"
	AlertHeld           = "held"
	AlertSignInRefused  = "sign-in-refused"
	AlertSignInFailures = "sign-in-failures"
	AlertLogBroken      = "log-broken"
	AlertWitness        = "witness-refused"
	AlertSinkBehind     = "sink-behind"
)

// AlertCatalogue is every alert that Ambit raises by itself, in the order of
// docs/alerts.md.
func AlertCatalogue() []AlertSpec {
	const agent, control, both = "agent", "control", "both"
	refusal := func(code string, s Severity, text string) AlertSpec {
		return AlertSpec{Code: code, Log: agent, Severity: s, Refusal: true, Text: text}
	}
	return []AlertSpec{
		refusal("reference-misplaced", High, "A reference to a credential was sent where its connection does not take it."),
		refusal("foreign-credential", High, "A credential that is none of ours was sent to a host of a connection."),
		refusal("metadata-address", High, "A cloud's metadata service was asked for."),
		refusal("name-mismatch", High, "One connection spoke of two names."),
		refusal("forged-header", Medium, "A request had a header field in Ambit's name."),
		refusal("bad-request", Medium, "A request could not be read in one way only."),
		refusal("private-address", Medium, "A name led to an address of the operator's own network."),
		refusal("host-not-allowed", Medium, "A host was called that no rule allows."),
		refusal("name-not-allowed", Medium, "A name was asked for that no rule allows."),
		refusal("path-not-allowed", Medium, "An allowed host was called on a path that no rule allows."),
		refusal("method-not-allowed", Medium, "An allowed path was called with a method that no rule allows."),
		refusal("pin-not-met", Medium, "A call left the part of an account that its connection is pinned to."),
		refusal("intent-required", Low, "A call did not state what it is for."),
		refusal("bad-gateway", Low, "An allowed host could not be reached."),
		refusal(AlertRefused, Medium, "Anything else was refused; the alert bears the reason's own code."),
		{AlertRepeated, agent, High, false, 20, 5 * time.Minute, "The agent is refused again and again."},
		{AlertFirstHost, agent, Medium, false, 0, 0, "A host was called for the first time that only a wildcard allows."},
		{AlertFirstNamedHost, agent, Info, false, 0, 0, "A host was called for the first time that a rule names."},
		{AlertManyHosts, agent, Medium, false, 0, 0, "The agent has called more hosts than are remembered."},
		{AlertFirstTool, agent, Medium, false, 0, 0, "A tool was used for the first time."},
		{AlertManyTools, agent, Medium, false, 0, 0, "The agent has used more tools than are remembered."},
		{"tool-flood", agent, Medium, false, 0, 0, "The agent makes so many tool calls that cannot be read that not each is logged."},
		{"tool-new", agent, Medium, false, 0, 0, "A server offers a tool that nobody has accepted."},
		{"tool-changed", agent, High, false, 0, 0, "A tool of a server is not what a person accepted, and is not called until one accepts it again."},
		{AlertApproval, agent, Medium, false, 0, 0, "A call waits for a person to agree."},
		{"approval-lost", agent, High, false, 0, 0, "A call that people had agreed to ran when the worker ended; whether it happened is not known."},
		{"credential-echoed", agent, Low, false, 0, 0, "A host repeated a credential in its answer; the agent did not get it."},
		{"credential-damaged", agent, Critical, false, 0, 0, "A stored credential does not open: it was changed behind Ambit's back."},
		{"reconnect-needed", agent, High, false, 0, 0, "A service ended a connection, and a person must connect the account again."},
		{"refresh-failing", agent, Medium, false, 0, 0, "A service has given no new token for a while."},
		{"revoke-not-told", agent, Medium, false, 0, 0, "A connection was revoked, but its service could not be told."},
		{"forged-forward", agent, High, false, 0, 0, "Something in the computer speaks to the gate in a wrong way."},
		{"control-refused", agent, Critical, false, 0, 0, "A process of this machine tried to command the worker without its token."},
		{"retention-failed", agent, High, false, 0, 0, "What is too old could not be erased from the log."},
		{AlertErased, agent, Info, false, 0, 0, "Bodies of events were erased."},
		{AlertHeld, agent, Info, false, 0, 0, "A person forbade or allowed again that anything is erased."},
		{AlertWiped, both, Info, false, 0, 0, "A person asked for everything of an agent to be destroyed."},
		{AlertSignInRefused, control, Low, false, 0, 0, "Somebody was not let in."},
		{AlertSignInFailures, control, High, false, 5, 10 * time.Minute, "Sign-ins fail again and again."},
		{AlertLogBroken, control, Critical, false, 0, 0, "A log was verified and is not whole."},
		{AlertWitness, control, Critical, false, 0, 0, "The control plane refused to cosign a log's head."},
		{"witness-disagrees", control, Critical, false, 0, 0, "A witness of others has seen another history of a log."},
		{"witness-unreachable", control, Medium, false, 0, 0, "A witness of others did not cosign a head."},
		{"heads-not-written", control, High, false, 0, 0, "Heads could not be written to their folder."},
		{"heads-disagree", control, Critical, false, 0, 0, "The folder of heads has a newer one than the control plane knows."},
		{AlertSinkBehind, control, Medium, false, 0, 0, "A sink of events fell behind."},
	}
}

// RefusalSeverity is the severity of the alert for a refusal with this code as
// its reason.
func RefusalSeverity(code string) Severity {
	other := Medium
	for _, s := range AlertCatalogue() {
		switch {
		case s.Refusal && s.Code == code:
			return s.Severity
		case s.Code == AlertRefused:
			other = s.Severity
		}
	}
	return other
}
