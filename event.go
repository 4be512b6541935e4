package ambit

import "time"

// EventVersion is the version of [Event] that this release writes. A field is
// added without a new version; a version changes when the meaning of one does.
const EventVersion = 1

// Event is one entry of a log. The fields that do not apply are zero. JSON
// names are part of the log's format and never change their meaning;
// [Catalogue] says which kinds there are and docs/events.md explains them.
type Event struct {
	// V is the version of this form; set by the log. 0 is what releases before
	// there were versions wrote, with the same meaning as 1.
	V          int           `json:"v,omitempty"`
	Seq        uint64        `json:"seq"`                  // position in the log, from 0; set by the log
	Time       time.Time     `json:"time"`                 // UTC, microseconds, never goes back within a log; set by the log
	Kind       Kind          `json:"kind"`                 //
	Agent      AgentID       `json:"agent"`                // whom it is about; "" in the control plane's log where it is about none
	Principal  Principal     `json:"principal"`            // who did it
	Of         *uint64       `json:"of,omitempty"`         // the event of the same log that this one belongs to
	Task       string        `json:"task,omitempty"`       // what it was done for: one piece of work of the agent
	Action     Action        `json:"action,omitempty"`     //
	Tool       string        `json:"tool,omitempty"`       // fully qualified
	Resource   string        `json:"resource,omitempty"`   // what it acts on, where that is no URL: "manifest 3", "orders/1001"
	Method     string        `json:"method,omitempty"`     //
	Host       string        `json:"host,omitempty"`       //
	URL        string        `json:"url,omitempty"`        //
	Intent     string        `json:"intent,omitempty"`     //
	Decision   Decision      `json:"decision"`             // Deny where nothing was decided
	Rule       string        `json:"rule,omitempty"`       //
	Reason     *Reason       `json:"reason,omitempty"`     //
	Effects    []Effect      `json:"effects,omitempty"`    // what it does in the world if it goes through
	Provenance []Provenance  `json:"provenance,omitempty"` // where what it says came from
	Subjects   []string      `json:"subjects,omitempty"`   // whom it touches, each as the log's keyed hash; made of Touched
	More       int           `json:"more,omitempty"`       // how many subjects are not in Subjects, at least
	Unseen     bool          `json:"unseen,omitempty"`     // a part of what passed could not be looked through for subjects
	Status     int           `json:"status,omitempty"`     // of an outcome: the HTTP status, 0 if there was none; an exit code for agent.exec.end
	BytesOut   int64         `json:"bytesOut,omitempty"`   // body bytes sent upstream
	BytesIn    int64         `json:"bytesIn,omitempty"`    // body bytes received
	Duration   time.Duration `json:"duration,omitempty"`   // nanoseconds
	Severity   Severity      `json:"severity,omitempty"`   // of an alert; Info is left out and means info
	// Connection names the connection whose credential an egress.request asks
	// for, or that a vault event is about.
	Connection string   `json:"connection,omitempty"`
	Links      []Link   `json:"links,omitempty"`   // other events that it belongs to, also of other logs
	Erasure    *Erasure `json:"erasure,omitempty"` // of an audit.erase: what was erased
	Detail     string   `json:"detail,omitempty"`  // one line for people; never a secret

	// Touched is whom it touches, in the clear. The log keeps Subjects instead.
	Touched []Subject `json:"-"`
}

// Subject is somebody or something that data is about, as an identifier that
// stands in it: an e-mail address, a telephone number, an order.
type Subject struct {
	Kind  string `json:"kind"`  // "email", "phone", "iban", "card", or what a connector names: "order", "customer"
	Value string `json:"value"` // in the one form that package scan gives it
}

// Effect is what an action does in the world.
type Effect string

// The effects.
const (
	EffectRead    Effect = "read"    // data comes to the agent
	EffectWrite   Effect = "write"   // something is made or changed
	EffectDelete  Effect = "delete"  // something is destroyed
	EffectSpend   Effect = "spend"   // money moves
	EffectSend    Effect = "send"    // somebody gets a message
	EffectPublish Effect = "publish" // something becomes visible to others
	EffectAccess  Effect = "access"  // somebody may do something that they could not before
)

// MethodEffect is the effect that an HTTP method has by its definition (RFC
// 9110, section 9.2; RFC 5789).
func MethodEffect(method string) Effect {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "":
		return EffectRead
	case "DELETE":
		return EffectDelete
	}
	return EffectWrite
}

// Provenance says where one value of a call came from.
type Provenance struct {
	Value  string `json:"value"`           // which: the argument's name or path
	Source string `json:"source"`          // "person", "record", "text", "model", "unknown"
	Event  uint64 `json:"event,omitempty"` // that brought it to the agent
}

// Link names another event.
type Link struct {
	Rel string  `json:"rel"`           // "cause", "approval", "agent": what that event is to this one
	Log AgentID `json:"log,omitempty"` // whose log it is in; "" is the log of this event
	Seq uint64  `json:"seq"`           //
}

// Erasure is what an audit.erase says. The event is durable before the first
// body is gone, and is never erased itself.
type Erasure struct {
	// Rule is why: "retention 90d", "subject", "wipe".
	Rule string `json:"rule"`
	// Ranges are the positions: from each first to before each second. The
	// bodies of events in them are gone, those of audit.erase and audit.hold
	// excepted.
	Ranges [][2]uint64 `json:"ranges"`
	// Subject is the log's keyed hash of whom a person asked to erase; "" otherwise.
	Subject string `json:"subject,omitempty"`
	// Bodies is how many there were to erase.
	Bodies uint64 `json:"bodies"`
}

// Kind is what an event is about. The catalogue is below; a name never changes
// its meaning once released.
type Kind string

// The kinds of events.
const (
	KindEgressRequest Kind = "egress.request"
	KindEgressOutcome Kind = "egress.outcome"
	KindEgressName    Kind = "egress.name"

	KindToolCall       Kind = "tool.call"
	KindToolOutcome    Kind = "tool.outcome"
	KindModelCall      Kind = "model.call"
	KindModelOutcome   Kind = "model.outcome"
	KindMessageIn      Kind = "message.in"
	KindMessageOut     Kind = "message.out"
	KindMemoryWrite    Kind = "memory.write"
	KindMemoryDelete   Kind = "memory.delete"
	KindApprovalAsk    Kind = "approval.ask"
	KindApprovalAnswer Kind = "approval.answer"

	KindVaultConnect Kind = "vault.connect"
	KindVaultRevoke  Kind = "vault.revoke"
	KindVaultRefresh Kind = "vault.refresh"
	KindVaultRekey   Kind = "vault.rekey"
	KindVaultSession Kind = "vault.session"

	KindAgentDeploy  Kind = "agent.deploy"
	KindAgentWipe    Kind = "agent.wipe"
	KindAgentStart   Kind = "agent.start"
	KindAgentStop    Kind = "agent.stop"
	KindAgentExec    Kind = "agent.exec"
	KindAgentExecEnd Kind = "agent.exec.end"
	KindAgentKey     Kind = "agent.key"
	KindPolicyChange Kind = "policy.change"
	KindWorkerStart  Kind = "worker.start"
	KindWorkerStop   Kind = "worker.stop"

	KindControlStart Kind = "control.start"
	KindControlStop  Kind = "control.stop"
	KindControlKey   Kind = "control.key"
	KindLogin        Kind = "access.login"

	KindAuditRead    Kind = "audit.read"
	KindAuditVerify  Kind = "audit.verify"
	KindAuditWitness Kind = "audit.witness"
	KindAuditErase   Kind = "audit.erase"
	KindAuditHold    Kind = "audit.hold"
	KindAuditSink    Kind = "audit.sink"

	KindAlert     Kind = "alert"
	KindAlertAck  Kind = "alert.ack"
	KindAlertMute Kind = "alert.mute"
)

// KindSpec is one line of the catalogue.
type KindSpec struct {
	Kind Kind
	// Log is whose log it is in: "agent", "control", or "both".
	Log string
	// Text is what it says happened, in one sentence.
	Text string
	// Fields are the JSON names that it has besides v, seq, time, kind, agent,
	// principal and decision; those that may be missing too.
	Fields string
	// Later says that the part of the product that writes it is still to come.
	Later bool
}

// Catalogue is every kind of event, in the order of docs/events.md.
func Catalogue() []KindSpec {
	return []KindSpec{
		{KindEgressRequest, "agent", "A call was decided, before anything left. With a connection it is also the use of its credential.", "action method host url intent rule reason effects subjects more connection task links", false},
		{KindEgressOutcome, "agent", "An allowed call ended. The subjects are those of its bodies.", "of action host status bytesOut bytesIn duration subjects more unseen detail", false},
		{KindEgressName, "agent", "A name was asked for that no rule allows.", "action host url intent rule reason", false},
		{KindToolCall, "agent", "A tool call was decided, before it ran.", "tool resource intent rule reason effects provenance subjects more connection task links", false},
		{KindToolOutcome, "agent", "A tool call ended.", "of tool status bytesOut bytesIn duration subjects more unseen detail", false},
		{KindModelCall, "agent", "A call of a model was decided, before it left.", "host resource intent rule reason bytesOut task connection", true},
		{KindModelOutcome, "agent", "A call of a model ended.", "of status bytesIn duration detail", true},
		{KindMessageIn, "agent", "Somebody wrote to the agent.", "resource subjects more task detail", false},
		{KindMessageOut, "agent", "The agent wrote to somebody.", "resource intent rule reason effects provenance subjects more task links", true},
		{KindMemoryWrite, "agent", "Something was put into the agent's memory.", "resource provenance subjects more task", true},
		{KindMemoryDelete, "agent", "Something was taken out of the agent's memory.", "resource detail", true},
		{KindApprovalAsk, "agent", "A person was asked before a call ran. The detail has the digest of the call, and the call in words.", "of tool resource rule effects provenance subjects more task detail", false},
		{KindApprovalAnswer, "agent", "A person answered, before it took effect; or nobody did in time, which is of `ambit` with a reason.", "of tool resource reason task detail", false},
		{KindVaultConnect, "agent", "An account was connected, or its credential replaced.", "connection detail", false},
		{KindVaultRevoke, "agent", "A connection was revoked, or its service was told so.", "connection detail", false},
		{KindVaultRefresh, "agent", "A token was refreshed, or could not be.", "connection host url status detail", false},
		{KindVaultRekey, "agent", "The credentials were sealed with another key.", "detail", false},
		{KindVaultSession, "agent", "A host handed back a credential, which the vault keeps.", "of connection host detail", false},
		{KindAgentDeploy, "both", "A manifest version took effect.", "resource detail links", false},
		{KindAgentWipe, "both", "A person asked for everything of an agent to be destroyed.", "detail links", false},
		{KindAgentStart, "agent", "The computer was started.", "detail", false},
		{KindAgentStop, "agent", "The computer stopped; the detail says why.", "detail", false},
		{KindAgentExec, "agent", "A person ran a command in the computer.", "intent detail", false},
		{KindAgentExecEnd, "agent", "That command ended.", "of status duration detail", false},
		{KindAgentKey, "agent", "A person asked for a new key for the agent's credentials.", "detail", false},
		{KindPolicyChange, "agent", "What the agent may do changed in another way than by a deploy: it sealed the plan of a task, or a person accepted or rejected a tool of a server.", "of resource task tool effects detail", false},
		{KindWorkerStart, "agent", "The agent's worker opened the log.", "detail", false},
		{KindWorkerStop, "agent", "It closed the log in good order.", "detail", false},
		{KindControlStart, "control", "The control plane opened its log.", "detail", false},
		{KindControlStop, "control", "It closed the log in good order.", "detail", false},
		{KindControlKey, "control", "A person asked for another root key, or another protection of it.", "detail", false},
		{KindLogin, "control", "Somebody was let in, or was not: the principal says who, the detail where.", "reason detail", false},
		{KindAuditRead, "control", "A person looked into an agent's log, proved something from it or took a copy; of a wiped agent, what remains.", "resource detail", false},
		{KindAuditVerify, "control", "A log was verified; the decision is allow if it is whole.", "detail", false},
		{KindAuditWitness, "control", "The control plane, or an outside witness, refused to cosign a head; the decision is allow where a person has seen that.", "reason detail", false},
		{KindAuditErase, "agent", "Bodies of events were erased.", "erasure", false},
		{KindAuditHold, "agent", "A person forbade or allowed again that anything is erased.", "detail", false},
		{KindAuditSink, "control", "A sink fell behind, or caught up.", "resource detail", false},
		{KindAlert, "both", "Something that a person should look at came up.", "of severity links detail", false},
		{KindAlertAck, "both", "A person has seen an alert.", "of detail", false},
		{KindAlertMute, "both", "A person silenced an alert for a while, or ended that.", "of detail", false},
	}
}
