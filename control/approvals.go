package control

import (
	"context"
	"net/http"

	"ambit/approval"
)

// Paths of the worker's control API for questions that wait for a person.
const (
	PathApprovals      = "/approvals"
	PathApproval       = "/approvals/one"
	PathApprovalAnswer = "/approvals/answer"
	PathApprovalStats  = "/approvals/stats"
)

// ApprovalsQuery says which questions to list.
type ApprovalsQuery struct {
	State approval.State `json:"state,omitempty"` // all if ""
	Limit int            `json:"limit,omitempty"` // the newest; all if 0
}

// ApprovalAnswer is what a person says about a question.
type ApprovalAnswer struct {
	ID     string          `json:"id"`
	Digest string          `json:"digest"` // of what the person was shown
	Answer approval.Answer `json:"answer"`
}

// Approvals lists questions, the newest first.
func (c *Client) Approvals(ctx context.Context, q ApprovalsQuery) ([]approval.Question, error) {
	var out []approval.Question
	err := c.call(ctx, http.MethodPost, PathApprovals, q, &out)
	return out, err
}

// Approval asks for one question.
func (c *Client) Approval(ctx context.Context, id string) (approval.Question, error) {
	var out approval.Question
	err := c.call(ctx, http.MethodPost, PathApproval, id, &out)
	return out, err
}

// AnswerApproval hands over an answer, and returns the question as it is then.
func (c *Client) AnswerApproval(ctx context.Context, a ApprovalAnswer) (approval.Question, error) {
	var out approval.Question
	err := c.call(ctx, http.MethodPost, PathApprovalAnswer, a, &out)
	return out, err
}

// ApprovalStats asks how people answer.
func (c *Client) ApprovalStats(ctx context.Context) ([]approval.Stats, error) {
	var out []approval.Stats
	err := c.call(ctx, http.MethodGet, PathApprovalStats, nil, &out)
	return out, err
}
