package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"ambit"
	"ambit/api"
	"ambit/approval"
)

func approvalsPath(id ambit.AgentID, rest string, q url.Values) string {
	if id != "" {
		q.Set("agent", string(id))
	}
	return "/v1/approvals" + rest + "?" + q.Encode()
}

// Approvals lists the questions of one agent, or of all if id is "", newest first:
// those in a state, all if that is "", and at most limit of each agent.
func (c *Client) Approvals(ctx context.Context, id ambit.AgentID, state approval.State, limit int) (a api.Approvals, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if state != "" {
		q.Set("state", string(state))
	}
	err = c.call(ctx, http.MethodGet, approvalsPath(id, "", q), nil, &a)
	return a, err
}

// Approval asks for one question.
func (c *Client) Approval(ctx context.Context, question string) (q approval.Question, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/approvals/"+url.PathEscape(question), nil, &q)
	return q, err
}

// AnswerApproval answers a question, and returns it as it is then. The digest in a
// is that of the question which the person was shown.
func (c *Client) AnswerApproval(ctx context.Context, question string, a api.AnswerApproval) (q approval.Question, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/approvals/"+url.PathEscape(question)+"/answer", a, &q)
	return q, err
}

// ApprovalStats asks how people answer the questions of one agent, or of all if id
// is "".
func (c *Client) ApprovalStats(ctx context.Context, id ambit.AgentID) (s api.ApprovalStats, err error) {
	err = c.call(ctx, http.MethodGet, approvalsPath(id, "/stats", url.Values{}), nil, &s)
	return s, err
}
