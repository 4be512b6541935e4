package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"ambit"
	"ambit/flow"
	"ambit/gate"
	"ambit/tools"
)

// revision is that of the Model Context Protocol in which the door is spoken to.
const revision = "2026-07-28"

// door is the real door for tools, with tools that answer what the case says.
type door struct {
	gateway *tools.Gateway
	gate    *gate.Gate
	task    *flow.Task
	answer  []byte // of the next call
	call    *ambit.ToolCall
}

func newDoor(all []*ambit.Tool, g *gate.Gate, task *flow.Task) (*door, error) {
	d := &door{gate: g, task: task}
	var registry tools.Registry
	entries := make([]tools.Entry, len(all))
	for i, t := range all {
		entries[i] = tools.Entry{Tool: t, Runner: d}
	}
	if err := registry.Set(entries); err != nil {
		return nil, err
	}
	var err error
	d.gateway, err = tools.New(tools.Config{Agent: "replay", Tools: &registry, Checker: d, Planner: d, Labeller: d})
	return d, err
}

// CheckTool implements tools.Checker.
func (d *door) CheckTool(ctx context.Context, call *ambit.ToolCall) (tools.Grant, error) {
	d.call = call
	g, err := d.gate.CheckTool(ctx, call, d.task)
	var asked *gate.Asked
	if errors.As(err, &asked) {
		return nil, &tools.Pending{Question: asked.Question, Text: asked.Reason.Text}
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Plan implements tools.Planner.
func (d *door) Plan(_ context.Context, _ string, plan []byte) error { return d.task.Seal(plan) }

// Run implements tools.Runner.
func (d *door) Run(_ context.Context, grant tools.Grant, _ *ambit.ToolCall) (tools.Result, error) {
	return tools.Result{JSON: d.answer}, grant.Use()
}

// Result implements tools.Labeller.
func (d *door) Result(_ context.Context, event uint64, call *ambit.ToolCall, r tools.Result) error {
	d.task.Result(call.Tool, r.JSON, event)
	return nil
}

// outcome is what came of a call.
type outcome struct {
	status string // "" if it ran; otherwise "waiting", "denied", "failed"
	reason string
}

// do calls a tool through the door. answer is what the tool will say.
func (d *door) do(ctx context.Context, name string, args any, answer []byte) (outcome, error) {
	d.answer, d.call = answer, nil
	b, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{
		"_meta": map[string]any{"io.modelcontextprotocol/protocolVersion": revision}, "name": name, "arguments": args,
	}})
	if err != nil {
		return outcome{}, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+ambit.InternalHost+"/mcp", bytes.NewReader(b))
	if err != nil {
		return outcome{}, err
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": revision, "Mcp-Method": "tools/call", "Mcp-Name": name} {
		q.Header.Set(name, value)
	}
	w := &recorded{header: http.Header{}}
	d.gateway.ServeHTTP(w, q)
	var m struct {
		Result *struct {
			IsError    bool           `json:"isError"`
			Structured map[string]any `json:"structuredContent"`
		} `json:"result"`
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(w.body.Bytes(), &m); err != nil {
		return outcome{}, fmt.Errorf("the door answered %d and no JSON: %w", w.status, err)
	}
	if m.Error != nil {
		return outcome{}, fmt.Errorf("the door does not take the call of %s: %s", name, m.Error.Message)
	}
	if m.Result == nil {
		return outcome{}, fmt.Errorf("the door answered %d without a result", w.status)
	}
	status, _ := m.Result.Structured["status"].(string)
	reason, _ := m.Result.Structured["reason"].(string)
	if !slices.Contains([]string{"waiting", "denied", "failed", "running"}, status) || status != "waiting" && !m.Result.IsError {
		return outcome{}, nil
	}
	return outcome{status, reason}, nil
}

// recorded is an answer that is kept.
type recorded struct {
	header http.Header
	body   bytes.Buffer
	status int
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorded) WriteHeader(status int)      { r.status = status }
