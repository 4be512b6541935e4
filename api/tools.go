package api

import "ambit/control"

// JudgeTool is what a person makes of a tool that a server offers.
type JudgeTool struct {
	Name   string            `json:"name" minLength:"1" maxLength:"400" doc:"the tool's name here, or the server's name, a slash and the server's own name for it"`
	Hash   string            `json:"hash" pattern:"^[0-9a-f]{64}$" doc:"of the tool that the person was shown"`
	Accept bool              `json:"accept" doc:"false rejects it"`
	Facts  control.ToolFacts `json:"facts,omitzero" doc:"what it means, if it is accepted"`
}
