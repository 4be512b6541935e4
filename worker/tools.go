package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"ambit"
	"ambit/approval"
	"ambit/connector"
	"ambit/egress"
	"ambit/flow"
	"ambit/gate"
	"ambit/gate/ledger"
	"ambit/policy/tool"
	"ambit/tools"
	"ambit/tools/upstream"
)

// toolbox is what the agent's tool calls need.
type toolbox struct {
	registry tools.Registry
	gateway  *tools.Gateway
	ledger   *ledger.Ledger
	policy   atomic.Pointer[tool.Set]
	given    atomic.Pointer[map[string]*ambit.Tool] // by name
	intent   atomic.Bool                            // every call must state one
	refused  *rate.Limiter

	work     atomic.Pointer[work]
	answered atomic.Uint64 // how many answers people have given

	servers servers // that others run

	held    sync.Map // *heldGrant by the event of its call
	running sync.WaitGroup
}

// boundTool is a tool of a connection.
type boundTool struct {
	connection string
	*connector.BoundTool
}

// openTools opens the door for tool calls. The gate must be open.
func (w *Worker) openTools(ctx context.Context, c *compiled) (err error) {
	w.tools.refused = rate.NewLimiter(50, 1000)
	w.tools.work.Store(&work{flow: flow.New(), requests: w.gate.Requests()})
	if w.tools.ledger, err = ledger.Open(ctx, ledger.Config{DB: w.db}); err != nil {
		return err
	}
	w.tools.servers.stale = make(chan struct{}, 1)
	if w.tools.servers.book, err = upstream.OpenBook(ctx, w.db); err != nil {
		return err
	}
	door := toolDoor{w}
	w.tools.gateway, err = tools.New(tools.Config{
		Agent: w.config.Agent, Tools: &w.tools.registry, Checker: door, Questions: door, Planner: door,
		Labeller: door, Refused: door.refused, Fetched: door.fetched, Version: w.config.Version,
	})
	if err != nil {
		return err
	}
	w.gate.SetTools(gate.Tools{Policy: door, Asker: asker{w}})
	return w.setTools(ctx, c)
}

// closeTools ends the asking of servers, and waits for the calls that run without
// anybody waiting for them.
func (w *Worker) closeTools() {
	w.tools.servers.stopServers()
	w.tools.gateway.Close()
	w.tools.running.Wait()
}

// toolDoor is what the door for tools asks.
type toolDoor struct{ w *Worker }

// DecideTool implements gate.ToolDecider.
func (d toolDoor) DecideTool(ctx context.Context, call *ambit.ToolCall, agreed func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, gate.Reservation) {
	t := &d.w.tools
	if t.intent.Load() && call.Intent == "" && agreed == nil { // what people agreed to stated it when it was asked about
		return ambit.ToolVerdict{Verdict: ambit.Verdict{Rule: "egress.intent", Reason: ambit.Reason{
			Code: "intent-required", Text: "the call does not state its intent, which the manifest requires", Remedy: "state the intent in the argument intent",
		}}}, nil
	}
	v, taken, err := t.ledger.Decide(ctx, t.policy.Load(), call, agreed)
	if err != nil {
		d.w.log.Warn("deciding a tool call", slog.String("tool", call.Tool.Name), slog.Any("error", err))
	}
	if taken == nil {
		return v, nil
	}
	return v, taken
}

// CheckTool implements tools.Checker. Which task a call belongs to is for the
// person to say, who began it; the agent has no say in it.
func (d toolDoor) CheckTool(ctx context.Context, call *ambit.ToolCall) (tools.Grant, error) {
	task := d.w.tools.work.Load()
	call.Task = task.id
	call.Touched = d.w.touched(&ambit.Event{Detail: string(call.Args), Intent: call.Intent})
	if err := d.w.catchUp(ctx, task); err != nil {
		return nil, err
	}
	g, err := d.w.gate.CheckTool(ctx, call, task.flow)
	var asked *gate.Asked
	switch {
	case err == nil:
		return g, nil
	case !errors.As(err, &asked):
		return nil, err
	}
	if q, err := d.w.approvals.Get(ctx, asked.Question); err == nil && q.State == approval.Approved {
		g, err := d.w.grantHeld(ctx, asked.Question, call)
		if !errors.Is(err, approval.ErrTaken) {
			return g, err
		}
		asked.Reason.Text = "a person agreed, and the call is running."
	}
	return nil, &tools.Pending{Question: asked.Question, Text: asked.Reason.Text}
}

// Wait implements tools.Questions.
func (d toolDoor) Wait(ctx context.Context, question string, long time.Duration) (tools.Grant, *ambit.ToolCall, error) {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	q, err := d.w.approvals.Wait(ctx, question)
	if errors.Is(err, context.DeadlineExceeded) {
		if q, err = d.w.approvals.Get(context.WithoutCancel(ctx), question); err == nil && q.State == approval.Waiting {
			return nil, nil, &tools.Pending{Question: question, Text: q.Asks[0].Reason.Text}
		}
	}
	if errors.Is(err, approval.ErrNotFound) || errors.Is(err, approval.ErrAgent) {
		return nil, nil, tools.ErrNoQuestion
	}
	if err != nil {
		return nil, nil, err
	}
	for {
		for q.State == approval.Running { // somebody else runs it
			select {
			case <-ctx.Done():
				return nil, nil, &tools.Pending{Question: question, Text: "a person agreed, and the call is running."}
			case <-time.After(runningPause):
			}
			if q, err = d.w.approvals.Get(context.WithoutCancel(ctx), question); err != nil {
				return nil, nil, err
			}
		}
		grant, call, err := d.w.heldCall(context.WithoutCancel(ctx), &q)
		if q.State != approval.Approved || !errors.Is(err, tools.ErrTaken) {
			return grant, call, err
		}
		// Somebody took it since it was looked at: what comes of it is the result.
		if q, err = d.w.approvals.Get(context.WithoutCancel(ctx), question); err != nil {
			return nil, nil, err
		}
	}
}

// runningPause is how long is waited between two looks whether a call has ended.
const runningPause = 20 * time.Millisecond

// heldCall is the call of a question with its grant, if people have agreed and
// nobody has taken it.
func (w *Worker) heldCall(ctx context.Context, q *approval.Question) (tools.Grant, *ambit.ToolCall, error) {
	refuse := func(code, text string) error {
		return &ambit.DenyError{Verdict: ambit.Verdict{Rule: q.ID, Reason: ambit.Reason{Code: code, Text: text}}}
	}
	switch q.State {
	case approval.Denied:
		return nil, nil, refuse("approval-denied", "a person said no")
	case approval.Expired:
		return nil, nil, refuse("approval-expired", "nobody agreed in time")
	case approval.Lost:
		return nil, nil, refuse("approval-lost", "Ambit ended while the call ran; whether it took effect is not known, and it is not run again")
	case approval.Done, approval.Failed:
		if len(q.Result) == 0 && q.Error == "" {
			return nil, nil, tools.ErrTaken
		}
		return nil, nil, &tools.Ended{Result: q.Result, Failed: q.Error}
	case approval.Approved:
	default:
		return nil, nil, tools.ErrTaken
	}
	var t *ambit.Tool
	if given := w.tools.given.Load(); given != nil {
		t = (*given)[q.Tool]
	}
	if t == nil {
		return nil, nil, refuse("tool-changed", "the tool was taken away since a person was asked")
	}
	call := &ambit.ToolCall{Agent: w.config.Agent, Tool: t, Args: []byte(q.Args), Task: q.Task, Intent: q.Intent, Touched: w.touched(&ambit.Event{Detail: q.Args})}
	g, err := w.grantHeld(ctx, q.ID, call)
	switch {
	case errors.Is(err, approval.ErrTaken):
		return nil, nil, tools.ErrTaken
	case errors.Is(err, approval.ErrDigest):
		return nil, nil, refuse("tool-changed", "the tool or the manifest was changed since a person was asked; make the call again")
	case err != nil:
		return nil, nil, err
	}
	return g, call, nil
}

// grantHeld spends an approval.
func (w *Worker) grantHeld(ctx context.Context, question string, call *ambit.ToolCall) (tools.Grant, error) {
	g, err := w.grantApproved(ctx, question, call)
	if err != nil {
		return nil, err
	}
	h := &heldGrant{Grant: g, w: w, question: question}
	w.tools.held.Store(g.Event(), h)
	return h, nil
}

// heldGrant is the grant of a call that people agreed to. How it ends is kept with
// the question.
type heldGrant struct {
	*gate.Grant
	w        *Worker
	question string
	result   []byte
	once     sync.Once
}

// Finish implements tools.Grant.
func (h *heldGrant) Finish(o ambit.Outcome) {
	h.Grant.Finish(o)
	h.once.Do(func() {
		h.w.tools.held.Delete(h.Event())
		if err := h.w.approvals.Finish(context.Background(), h.question, h.result, o.Error); err != nil {
			h.w.log.Warn("keeping how a held call ended", slog.String("question", h.question), slog.Any("error", err))
		}
	})
}

// runAgreed runs the call of a question that people have agreed to, also if the
// agent does not ask for it.
func (w *Worker) runAgreed(ctx context.Context, q approval.Question) {
	if q.State != approval.Approved || w.tools.given.Load() == nil { // not open yet: see runAllAgreed
		return
	}
	w.tools.running.Go(func() {
		g, call, err := w.heldCall(ctx, &q)
		if errors.Is(err, tools.ErrTaken) {
			return
		}
		if err != nil {
			w.log.Warn("running a call that people agreed to", slog.String("question", q.ID), slog.Any("error", err))
			return
		}
		w.tools.gateway.Resume(ctx, q.ID, g, call)
	})
}

// runAllAgreed runs what people agreed to while no worker ran.
func (w *Worker) runAllAgreed(ctx context.Context) {
	agreed, err := w.approvals.List(ctx, approval.Approved, 0)
	if err != nil {
		w.log.Warn("looking for calls that people agreed to", slog.Any("error", err))
	}
	for i := range agreed {
		w.runAgreed(ctx, agreed[i])
	}
}

// Plan implements tools.Planner.
func (d toolDoor) Plan(ctx context.Context, _ string, plan []byte) error {
	task := d.w.tools.work.Load()
	if err := d.w.catchUp(ctx, task); err != nil {
		return err
	}
	if err := task.flow.Seal(plan); err != nil {
		return err
	}
	_, err := d.w.events.Append(ctx, ambit.Event{
		Kind: ambit.KindPolicyChange, Agent: d.w.config.Agent, Principal: ambit.PrincipalAgent, Task: task.id, Resource: "plan", Detail: cut(string(plan), maxWords),
	})
	return err
}

// Result implements tools.Labeller. What a tool says about its own failure is text
// of others.
func (d toolDoor) Result(_ context.Context, event uint64, call *ambit.ToolCall, r tools.Result) error {
	data := r.JSON
	if data == nil {
		var err error
		if data, err = json.Marshal(r.Text); err != nil {
			return err
		}
	}
	if h, ok := d.w.tools.held.Load(event); ok {
		h.(*heldGrant).result = data
	}
	t := *call.Tool
	if r.IsError {
		t.Records = nil
	}
	if task := d.w.tools.work.Load(); task.id == call.Task {
		task.flow.Result(&t, data, event)
	} else {
		task.flow.Tainted()
	}
	return nil
}

// fetched notes that the agent has been told of a question. What an earlier task's
// says, the one that works now has not seen.
func (d toolDoor) fetched(ctx context.Context, question string) {
	task := d.w.tools.work.Load()
	q, err := d.w.approvals.Get(context.WithoutCancel(ctx), question)
	if err == nil && q.Task == task.id || errors.Is(err, approval.ErrNotFound) || errors.Is(err, approval.ErrAgent) {
		return
	}
	task.flow.Tainted()
}

// refused logs a call that was refused before the gate saw it: there is no such
// tool, or its arguments do not fit.
func (d toolDoor) refused(r tools.Refusal) {
	if !d.w.tools.refused.Allow() {
		d.w.rules.Raise(ambit.Medium, "tool-flood", "the agent makes so many calls that cannot be read that not each is logged", 0)
		return
	}
	d.w.delivery.Record(ambit.Event{
		Kind: ambit.KindToolCall, Agent: d.w.config.Agent, Principal: ambit.PrincipalAgent, Action: ambit.ActionTool,
		Tool: r.Tool, Task: d.w.tools.work.Load().id, Rule: "tools", Reason: &r.Reason,
	})
}

// runner runs calls of one tool of a connection.
type runner struct {
	w *Worker
	t boundTool
}

// Run implements tools.Runner.
func (r runner) Run(ctx context.Context, grant tools.Grant, call *ambit.ToolCall) (tools.Result, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", call.Agent, grant.Event(), call.Args))
	q, err := r.t.Request(call.Args, hex.EncodeToString(sum[:20]))
	if err != nil {
		return tools.Result{}, fmt.Errorf("nothing was done: %w", err)
	}
	if err := grant.Use(); err != nil {
		return tools.Result{}, err
	}
	if q.Before != nil {
		status, _, body, err := r.send(ctx, grant, call, q.Before)
		if err == nil {
			err = r.t.Agrees(call.Args, status, body)
		}
		if err != nil {
			return tools.Result{}, fmt.Errorf("nothing was done: %w", err)
		}
	}
	status, header, body, err := r.send(ctx, grant, call, q)
	if err != nil {
		return tools.Result{}, err
	}
	result, err := r.t.Result(status, header, body)
	if failed := (*connector.ResultError)(nil); errors.As(err, &failed) {
		return tools.Result{Text: failed.Error(), IsError: true}, nil
	}
	if err != nil {
		return tools.Result{}, err
	}
	return tools.Result{JSON: result}, nil
}

// send makes one request with the connection's account.
func (r runner) send(ctx context.Context, grant tools.Grant, call *ambit.ToolCall, q *connector.Request) (status int, header http.Header, body []byte, err error) {
	var refer error
	for _, a := range q.Auth { // the first way that the account has
		refer = q.Refer(a, func(secret string) (string, bool) { return r.w.vault.Reference(r.t.connection, secret) })
		if refer == nil {
			break
		}
	}
	if refer != nil {
		return 0, nil, nil, fmt.Errorf("putting in the account %s: %w", r.t.connection, refer)
	}
	hq, err := http.NewRequestWithContext(ctx, q.Method, q.URL, bytes.NewReader(q.Body))
	if err != nil {
		return 0, nil, nil, err
	}
	for name, values := range q.Header {
		hq.Header[name] = values
	}
	resp, err := r.w.proxy.Do(ctx, egress.Errand{
		Request: hq, Cause: grant.Event(), Task: call.Task, Intent: call.Intent, Connection: r.t.connection, MaxAnswer: connector.MaxAnswer,
	})
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}
