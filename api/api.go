// Package api is the wire between the control plane and those who use it: the
// JSON documents of its HTTP API, version 1, and the frames of its exec stream.
// Server and client share it; the server's /openapi.json describes it to
// everyone else.
//
// Trust: nothing here checks anything. Strings that come from an agent (an
// intent, a URL, an error of its program) are as the agent wrote them: whoever
// shows them makes them inert first.
package api

import (
	"fmt"
	"strings"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/control"
)

// Version says which program answers.
type Version struct {
	Version string `json:"version" doc:"of the program"`
	API     int    `json:"api" doc:"of this API; 1"`
	Go      string `json:"go" doc:"the Go release that it was built with"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Agent is one agent and how it is.
type Agent struct {
	Name     ambit.AgentID `json:"name"`
	Version  int           `json:"version" doc:"the manifest version in force"`
	Desired  string        `json:"desired" enum:"running,stopped" doc:"what a person wants"`
	Computer string        `json:"computer" doc:"starting, running, paused, stopped, failed or backoff; empty is unknown"`
	Worker   string        `json:"worker" doc:"state of its worker process; empty is unknown"`
	Since    time.Time     `json:"since" doc:"when the computer came into its state"`
	Restarts int           `json:"restarts" doc:"of the computer, since a person last started it"`
	Error    string        `json:"error,omitempty" doc:"the last failure"`
	Memory   int64         `json:"memory" doc:"bytes, worker and computer together; 0 is unknown"`
	Created  time.Time     `json:"created"`
	Updated  time.Time     `json:"updated"`
}

// Status is an agent with what its worker says.
type Status struct {
	Agent
	Reported *control.Status `json:"reported,omitempty" doc:"what the worker says of itself"`
	Missing  string          `json:"missing,omitempty" doc:"why the worker said nothing"`
	Reach    []string        `json:"reach" doc:"what the agent may reach, a line for each rule"`
}

// Deploy is a manifest to deploy.
type Deploy struct {
	File     string `json:"file,omitempty" maxLength:"4096" doc:"its name, for error messages"`
	Manifest string `json:"manifest" doc:"the YAML, at most 1 MiB"`
	Widen    bool   `json:"widen,omitempty" doc:"calls that were refused before may pass now; without it a manifest is refused by which any tool call of the last week would newly pass"`
}

// Deployed is what a deploy did.
type Deployed struct {
	Agent    Agent           `json:"agent"`
	Version  ManifestVersion `json:"version" doc:"now in force"`
	Created  bool            `json:"created" doc:"the agent is new"`
	Changed  bool            `json:"changed" doc:"false: the manifest is the one that was in force already"`
	Warnings []string        `json:"warnings"`
	Reach    []string        `json:"reach" doc:"what the agent may reach, a line for each rule; none is nothing"`
	Failure  string          `json:"failure,omitempty" doc:"the version is kept, but the computer did not come up, because of this"`
}

// ManifestVersion is one version of an agent's manifest.
type ManifestVersion struct {
	N       int             `json:"n"`
	SHA256  string          `json:"sha256" doc:"of the source, hexadecimal"`
	Time    time.Time       `json:"time"`
	By      ambit.Principal `json:"by"`
	Note    string          `json:"note,omitempty"`
	Current bool            `json:"current"`
	Source  string          `json:"source,omitempty" doc:"the YAML; only when one version is asked for"`
}

// Head is a checkpoint with the keys that prove it.
type Head struct {
	audit.Head
	Key     string `json:"key" doc:"the log's verifier key (c2sp.org/signed-note)"`
	Witness string `json:"witness" doc:"the verifier key of the control plane's cosignature (c2sp.org/tlog-cosignature)"`
}

// Alert is an alert of one agent. Its ID is within the agent.
type Alert struct {
	Agent ambit.AgentID `json:"agent" doc:"empty is the control plane"`
	alert.Alert
}

// Alerts is what was found.
type Alerts struct {
	Alerts  []Alert  `json:"alerts" doc:"newest first"`
	Missing []string `json:"missing" doc:"agents that could not be asked, with the reason"`
}

// Verify asks for a proof of a log.
type Verify struct {
	Heads [][]byte `json:"heads,omitempty" maxItems:"1000" doc:"checkpoints kept elsewhere, as GET …/audit/head gave them"`
}

// Verified is the outcome of a proof.
type Verified struct {
	OK      bool         `json:"ok" doc:"the log is whole and agrees with every head, and with the control plane"`
	Report  audit.Report `json:"report" doc:"what the worker found"`
	Witness string       `json:"witness,omitempty" doc:"what is wrong in the eyes of the control plane, which kept the last head that it saw"`
}

// Exec is the first frame of an exec stream: what to run.
type Exec struct {
	Argv   []string `json:"argv"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	TTY    bool     `json:"tty,omitempty"`
	Rows   uint16   `json:"rows,omitempty"`
	Cols   uint16   `json:"cols,omitempty"`
	Intent string   `json:"intent,omitempty"`
}

// Problem is an RFC 9457 problem.
type Problem struct {
	Type   string         `json:"type,omitempty" doc:"empty is about:blank"`
	Title  string         `json:"title" doc:"the HTTP status in words"`
	Status int            `json:"status"`
	Detail string         `json:"detail" doc:"what happened, why, and what to do"`
	Errors []ProblemError `json:"errors,omitempty"`
}

// ProblemError is one of several things wrong with a request.
type ProblemError struct {
	Message  string `json:"message"`
	Location string `json:"location,omitempty" doc:"where in the request: body.heads[2]"`
	File     string `json:"file,omitempty" doc:"of a manifest"`
	Line     int    `json:"line,omitempty" doc:"of a manifest, from 1"`
	Column   int    `json:"column,omitempty" doc:"of a manifest, in characters from 1"`
	Hint     string `json:"hint,omitempty" doc:"what would be right"`
	Excerpt  string `json:"excerpt,omitempty" doc:"the line of a manifest, and a mark under the place"`
}

// Error implements error.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString(p.Title)
	}
	for _, e := range p.Errors {
		b.WriteString("\n" + e.String())
	}
	return b.String()
}

// String writes e the way compilers do: file:line:column: message.
func (e ProblemError) String() string {
	s := e.Message
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	switch {
	case e.Line > 0:
		s = fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, s)
	case e.File != "":
		s = e.File + ": " + s
	case e.Location != "":
		s = e.Location + ": " + s
	}
	return s
}

// GetStatus is the HTTP status; the name is the HTTP library's.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is RFC 9457's; the signature is the HTTP library's.
func (p *Problem) ContentType(string) string { return ProblemType }

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"
