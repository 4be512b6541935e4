package api

import (
	"time"

	"ambit"
	"ambit/audit"
	"ambit/audit/sink"
)

// Search asks the logs of agents for events. Conditions are joined with "and";
// of a list one must hold.
type Search struct {
	Agents     []ambit.AgentID `json:"agents,omitempty" maxItems:"1000" doc:"in these logs; all if none is named"`
	Control    bool            `json:"control,omitempty" doc:"in the log of the control plane; with agents also in theirs"`
	Kinds      []ambit.Kind    `json:"kinds,omitempty" maxItems:"100"`
	Actions    []ambit.Action  `json:"actions,omitempty" maxItems:"100"`
	Hosts      []string        `json:"hosts,omitempty" maxItems:"100" doc:"a host, or a domain with all hosts under it"`
	Tools      []string        `json:"tools,omitempty" maxItems:"100"`
	People     []string        `json:"people,omitempty" maxItems:"100" doc:"who did it: agent, ambit, uid:1000"`
	Effects    []ambit.Effect  `json:"effects,omitempty" maxItems:"10"`
	Decision   string          `json:"decision,omitempty" enum:"allow,deny" doc:"only with this decision"`
	Connection string          `json:"connection,omitempty" maxLength:"100"`
	Intent     string          `json:"intent,omitempty" maxLength:"1000" doc:"words that the stated intent has"`
	Text       string          `json:"text,omitempty" maxLength:"1000" doc:"words that any text of the event has"`
	Subjects   []string        `json:"subjects,omitempty" maxItems:"20" doc:"whom it touches: an e-mail address, a telephone number, order:1001"`
	Since      time.Time       `json:"since,omitzero" doc:"not older than this"`
	Until      time.Time       `json:"until,omitzero" doc:"older than this"`
	Limit      int             `json:"limit,omitempty" minimum:"0" maximum:"10000" doc:"of each log; 0 is 10000"`
	Newest     bool            `json:"newest,omitempty" doc:"the newest first; otherwise the oldest"`
}

// Found is the answer to a search.
type Found struct {
	Found   []TraceEntry `json:"found" doc:"by time"`
	Missing []string     `json:"missing" doc:"agents that could not be asked, with the reason"`
}

// Trace is what happened with the data of one person.
type Trace struct {
	Subjects []ambit.Subject `json:"subjects" doc:"what was looked for: every reading that the question has"`
	Entries  []TraceEntry    `json:"entries" doc:"by time"`
	Logs     []TraceLog      `json:"logs" doc:"what was looked through"`
	Missing  []string        `json:"missing" doc:"agents that could not be asked, with the reason"`
	Asked    time.Time       `json:"asked" doc:"when"`
}

// TraceEntry is one thing that touched the subject.
type TraceEntry struct {
	Agent ambit.AgentID `json:"agent"`
	audit.Touch
}

// TraceLog says how complete the answer of one log is.
type TraceLog struct {
	Agent   ambit.AgentID `json:"agent"`
	Erased  uint64        `json:"erased" doc:"events whose body was erased: they may have touched the subject"`
	Unnamed uint64        `json:"unnamed" doc:"events with so many subjects that not all are named"`
	Unseen  uint64        `json:"unseen" doc:"calls of which a part could not be looked through: pictures, archives, connections that are not opened"`
	Cut     bool          `json:"cut,omitempty" doc:"there is more than is shown: narrow the time"`
}

// Export asks for a bundle of a log. The conditions say of which events the
// bodies are in it; the tree of hashes is always whole. Agents and Limit are not
// used.
type Export struct {
	Search
	Formats []string `json:"formats,omitempty" maxItems:"10" doc:"further files with the same events: csv, ocsf"`
}

// Erase asks to erase everything that touches one person.
type Erase struct {
	Subject string `json:"subject" maxLength:"512" doc:"an e-mail address, a telephone number, order:1001"`
}

// Erased says what is gone.
type Erased struct {
	Receipts []audit.Receipt `json:"receipts" doc:"one for each reading of whom was asked about"`
}

// SetHold sets or lifts a legal hold.
type SetHold struct {
	On  bool   `json:"on"`
	Why string `json:"why" maxLength:"1000"`
}

// Hold says whether anything of a log may be erased.
type Hold struct {
	Held bool            `json:"held" doc:"nothing is erased, by retention or by anybody"`
	By   ambit.Principal `json:"by,omitempty"`
	Time time.Time       `json:"time,omitzero"`
	Why  string          `json:"why,omitempty"`
}

// Sinks are where events are streamed to, and how that goes.
type Sinks struct {
	Sinks []sink.Status `json:"sinks"`
}

// Wiped says what remains of an agent that was wiped.
type Wiped struct {
	Bundle  string `json:"bundle,omitempty" doc:"file of the control plane's machine: its log, of which every body is erased"`
	Key     string `json:"key,omitempty" doc:"the public key of that log, with which the file can be checked"`
	Missing string `json:"missing,omitempty" doc:"why nothing remains"`
}
