package control

import (
	"context"
	"net/http"

	"ambit"
)

// PathTask is where a task of the agent begins.
const PathTask = "/task"

// Task is what a person wants of the agent, in their words.
type Task struct {
	Words string          `json:"words"`
	By    ambit.Principal `json:"by"`
}

// TaskBegun names a task.
type TaskBegun struct {
	Task  string `json:"task"`
	Event uint64 `json:"event"` // of the person's words
}

// BeginTask begins a task. The one before it ends.
func (c *Client) BeginTask(ctx context.Context, t Task) (TaskBegun, error) {
	var out TaskBegun
	err := c.call(ctx, http.MethodPost, PathTask, t, &out)
	return out, err
}
