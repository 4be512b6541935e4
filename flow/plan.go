package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Plan is what an agent declares before it has read anything untrusted: which
// tools it will use, and where what they are given will come from. It is made
// when nobody but the person can have had a say in it, and so it is worth
// something afterwards.
type Plan struct {
	Steps []Step `json:"steps"`
}

// Step is one tool of a plan. Its order says nothing.
type Step struct {
	Tool string `json:"tool"`
	// Arguments are, by JSON pointer into the arguments, tools whose results the
	// value may come from, beside the person's words. A target that is not there
	// must stand in the person's words.
	Arguments map[string][]string `json:"arguments,omitempty"`
}

const (
	maxPlan  = 64 << 10 // bytes
	maxSteps = 200
)

// ErrLate says that something untrusted has been read, so that the plan may not be
// the person's any more.
var ErrLate = errors.New("a plan can only be made before anything untrusted is read in a task")

// ErrSealed says that the task has a plan, and it cannot be changed.
var ErrSealed = errors.New("this task has a plan already, and it cannot be changed")

// Seal fixes the plan of the task, as JSON in the form of [Plan].
func (t *Task) Seal(plan []byte) error {
	if len(plan) > maxPlan {
		return fmt.Errorf("the plan is longer than %d bytes", maxPlan)
	}
	var p Plan
	d := json.NewDecoder(bytes.NewReader(plan))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("reading the plan: there is something behind it")
	}
	if len(p.Steps) > maxSteps {
		return fmt.Errorf("the plan has more than %d steps", maxSteps)
	}
	for i, s := range p.Steps {
		if s.Tool == "" {
			return fmt.Errorf("step %d of the plan names no tool", i+1)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.plan != nil:
		return ErrSealed
	case t.tainted:
		return ErrLate
	}
	t.plan = &p
	return nil
}

// has reports whether a tool is in the plan.
func (p *Plan) has(tool string) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Tool == tool })
}

// takes reports whether the plan says that an argument may come from what a tool
// answers.
func (p *Plan) takes(tool, argument, from string) bool {
	for _, s := range p.Steps {
		if s.Tool != tool {
			continue
		}
		for pattern, sources := range s.Arguments {
			if len(pattern) > 0 && matches(pattern, argument) && slices.Contains(sources, from) {
				return true
			}
		}
	}
	return false
}

// PlanSchema is the JSON Schema of a [Plan], for the agent.
func PlanSchema() json.RawMessage {
	return json.RawMessage(`{
  "type": "object",
  "additionalProperties": false,
  "required": ["steps"],
  "properties": {
    "steps": {
      "type": "array",
      "maxItems": 200,
      "description": "The tools that the task will use, in any order. A tool that changes anything and is not here will ask a person.",
      "items": {
        "type": "object",
        "additionalProperties": false,
        "required": ["tool"],
        "properties": {
          "tool": {"type": "string", "maxLength": 128, "description": "Its full name."},
          "arguments": {
            "type": "object",
            "maxProperties": 64,
            "description": "By JSON pointer (\"/channel\"): the tools in whose results the argument will be found, if it is not in the person's words.",
            "additionalProperties": {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 128}}
          }
        }
      }
    }
  }
}`)
}
