package api

import (
	"ambit"
	"ambit/approval"
)

// Approvals are questions that wait for a person, or did.
type Approvals struct {
	Approvals []approval.Question `json:"approvals" doc:"newest first"`
	Missing   []string            `json:"missing" doc:"agents that could not be asked, with the reason"`
}

// AnswerApproval is what a person says about a question.
type AnswerApproval struct {
	Digest string         `json:"digest" pattern:"^[0-9a-f]{64}$" doc:"of the question that the person was shown"`
	Yes    bool           `json:"yes"`
	Note   string         `json:"note,omitempty" maxLength:"500" doc:"for other people"`
	Cover  approval.Cover `json:"cover,omitempty" enum:"once,value,source,plan" doc:"of a yes: for this call, for these values in the task, for what comes from these sources in the task, or for all that the plan of the task says; once if it is missing"`
}

// ApprovalStats say how people answer.
type ApprovalStats struct {
	Stats   []AgentApprovalStats `json:"stats" doc:"for each agent first all tools, then one by one"`
	Missing []string             `json:"missing" doc:"agents that could not be asked, with the reason"`
}

// AgentApprovalStats are those of one agent.
type AgentApprovalStats struct {
	Agent ambit.AgentID `json:"agent"`
	approval.Stats
}
