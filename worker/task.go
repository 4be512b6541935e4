package worker

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"

	"ambit"
	"ambit/approval"
	"ambit/control"
	"ambit/flow"
)

// maxWords is how much of what a person says an event keeps, in bytes.
const maxWords = 4096

// work is the task that the agent works on: it begins when a person says what they
// want. There is one at a time, whatever sessions the agent opens, since what it
// has read in one it knows in all. What was seen in it is in memory: after a
// restart of the worker nothing can be traced, and so everything asks.
type work struct {
	id       string // "" before anybody has said anything
	flow     *flow.Task
	requests uint64 // of the agent's own that were let through before it began

	mu      sync.Mutex
	answers uint64          // that were looked at
	covered map[string]bool // questions whose yes reaches further, and counts already
}

// beginTask begins a task with a person's words.
func (w *Worker) beginTask(ctx context.Context, t control.Task) (control.TaskBegun, error) {
	id := "task-" + strings.ToLower(rand.Text()[:10])
	e := ambit.Event{Kind: ambit.KindMessageIn, Agent: w.config.Agent, Principal: t.By, Task: id, Resource: id, Detail: cut(t.Words, maxWords)}
	e.Touched = w.touched(&ambit.Event{Detail: t.Words})
	seq, err := w.events.Append(ctx, e)
	if err != nil {
		return control.TaskBegun{}, err
	}
	task := &work{id: id, flow: flow.New(), requests: w.gate.Requests()}
	task.flow.Person(t.Words, seq)
	w.tools.work.Store(task)
	return control.TaskBegun{Task: id, Event: seq}, nil
}

// catchUp has a task know what happened beside its tool calls: requests of the
// agent's own, which brought it text that nobody has seen, and what people agreed
// to.
func (w *Worker) catchUp(ctx context.Context, t *work) error {
	if w.gate.Requests() > t.requests {
		t.flow.Tainted()
	}
	answers := w.tools.answered.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answers == answers || t.id == "" {
		return nil
	}
	all, err := w.approvals.Covers(ctx, t.id)
	if err != nil {
		return err
	}
	for _, c := range all {
		if t.covered[c.Question] {
			continue
		}
		if t.covered == nil {
			t.covered = map[string]bool{}
		}
		t.covered[c.Question] = true
		cover := flow.Cover{Plan: c.Cover == approval.Plan, Effects: c.Effects}
		for _, o := range c.Provenance {
			if !o.Doubt {
				continue
			}
			cover.Values = append(cover.Values, o.Value)
			if c.Cover != approval.Value && o.Tool != "" {
				cover.Sources = append(cover.Sources, o.Tool)
			}
		}
		t.flow.Cover(cover)
	}
	t.answers = answers
	return nil
}

// cut is the beginning of a text.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
