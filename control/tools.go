package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"ambit"
)

// Paths of the worker's control API for the agent's tools.
const (
	PathTools      = "/tools"
	PathToolAccept = "/tools/accept"
	PathToolReject = "/tools/reject"
)

// ToolState says whether the agent has a tool.
type ToolState string

// The states. Only what is ready can be called.
const (
	ToolReady    ToolState = "ready"
	ToolNew      ToolState = "new"      // of a server, and nobody has accepted it
	ToolChanged  ToolState = "changed"  // it is not what a person accepted
	ToolRejected ToolState = "rejected" // a person does not want it
	ToolGone     ToolState = "gone"     // accepted once, and not offered any more
)

// Tools are those of an agent.
type Tools struct {
	Tools   []Tool       `json:"tools" doc:"of its connections, then of the servers that others run"`
	Servers []ToolServer `json:"servers" doc:"in the order of the manifest"`
}

// ToolServer is a server of tools that others run.
type ToolServer struct {
	Name       string    `json:"name"`
	URL        string    `json:"url"`
	Connection string    `json:"connection,omitempty" doc:"whose account is used"`
	Asked      time.Time `json:"asked,omitzero" doc:"when it last said what it offers"`
	Problem    string    `json:"problem,omitempty" doc:"why it does not say it now"`
}

// Tool is a tool of an agent. What a server says of one of its own is its words,
// cleaned of what does not show; they decide nothing.
type Tool struct {
	Name       string    `json:"name" doc:"the name here; empty if it can have none"`
	Server     string    `json:"server,omitempty" doc:"that offers it; empty for tools of connections"`
	Own        string    `json:"own,omitempty" doc:"the server's own name for it"`
	Connection string    `json:"connection,omitempty" doc:"whose account is used"`
	State      ToolState `json:"state"`
	Listed     bool      `json:"listed" doc:"the manifest allows it, on the conditions that it names"`
	ToolFacts            // nothing of a server's tool that was never accepted

	Description string          `json:"description,omitempty" doc:"of a server's tool: the server's words, cleaned"`
	Input       json.RawMessage `json:"input,omitempty" doc:"JSON Schema of the arguments"`
	Output      json.RawMessage `json:"output,omitempty" doc:"JSON Schema of the result"`

	Hash     string          `json:"hash,omitempty" doc:"of all that the server says of it now"`
	Flags    []string        `json:"flags,omitempty" doc:"what was taken out of the server's words, or is hidden in them"`
	Problem  string          `json:"problem,omitempty" doc:"why it cannot be accepted"`
	Before   string          `json:"before,omitempty" doc:"what was accepted, if that is something else"`
	JudgedBy ambit.Principal `json:"judgedBy,omitempty"`
	JudgedAt time.Time       `json:"judgedAt,omitzero"`
	First    time.Time       `json:"first,omitzero"`
	Changed  time.Time       `json:"changed,omitzero"`
	Seen     time.Time       `json:"seen,omitzero"`
}

// ToolFacts are what a tool means, said by an operator, or by who accepted it. The
// fields are those of ambit.Tool.
type ToolFacts struct {
	Effects  []ambit.Effect `json:"effects,omitempty" doc:"what a call does in the world"`
	Leaves   bool           `json:"leaves,omitempty" doc:"a call takes its arguments out of the operator's systems"`
	Targets  []string       `json:"targets,omitempty" doc:"JSON pointers to the arguments that say who or what gets something"`
	Amount   string         `json:"amount,omitempty" doc:"JSON pointer to how much money"`
	Currency string         `json:"currency,omitempty" doc:"JSON pointer, or three capital letters"`
	Limits   []string       `json:"limits,omitempty" doc:"JSON pointers to counts and sizes"`
	Records  []string       `json:"records,omitempty" doc:"JSON pointers to what in the result outsiders cannot fill in"`
}

// JudgeTool is what a person makes of a server's tool.
type JudgeTool struct {
	Name string `json:"name"`
	Hash string `json:"hash"` // of what the person looked at
	// By is who judges. The worker believes the control plane.
	By    ambit.Principal `json:"by"`
	Facts ToolFacts       `json:"facts"` // if it is accepted
}

// Tools asks for all tools of the agent.
func (c *Client) Tools(ctx context.Context) (Tools, error) {
	var out Tools
	err := c.call(ctx, http.MethodGet, PathTools, nil, &out)
	return out, err
}

// AcceptTool lets the agent have a tool of a server, as it is now.
func (c *Client) AcceptTool(ctx context.Context, q JudgeTool) (Tool, error) {
	var out Tool
	err := c.call(ctx, http.MethodPost, PathToolAccept, q, &out)
	return out, err
}

// RejectTool takes a tool of a server away.
func (c *Client) RejectTool(ctx context.Context, q JudgeTool) (Tool, error) {
	var out Tool
	err := c.call(ctx, http.MethodPost, PathToolReject, q, &out)
	return out, err
}
