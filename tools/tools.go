// Package tools is the door through which an agent calls tools: a server of the
// Model Context Protocol (MCP, streamable HTTP) that the worker serves inside the
// agent's computer.
//
// A call takes one way: read strictly ([Gateway]), found by its exact name in the
// [Registry], its arguments checked against the tool's closed schema and written in
// the one form of RFC 8785, decided and logged by the [Checker], run by the tool's
// [Runner] with the [Grant] that came of it, its result checked and labelled, and
// only then answered. What is decided, shown to a person and run are the same bytes.
//
// Trust: nothing that an agent sends, and no result of a tool. The operator is
// trusted for what a tool means (its effects, targets and records); whoever runs the
// server behind a tool decides what its results say, and nothing else. The Checker
// is trusted to log before it grants.
package tools

import (
	"context"
	"errors"
	"time"

	"ambit"
)

// Checker decides a call and logs the decision durably before it returns. The
// error is an *[ambit.DenyError] if it is denied, a *[Pending] if a person is asked;
// after any other error too, nothing may be done.
type Checker interface {
	CheckTool(ctx context.Context, call *ambit.ToolCall) (Grant, error)
}

// Grant is the permission to run one call, once. A *gate.Grant is one.
type Grant interface {
	Use() error // spends it; the second call is an error, and nothing may be done
	Event() uint64
	Finish(ambit.Outcome) // says how it ended; the first call counts
}

// Pending is the error that says that a person was asked.
type Pending struct {
	Question string // names the question: "support-7"
	Text     string // one sentence: who is asked, and why
}

// Error implements error.
func (p *Pending) Error() string { return "waiting for question " + p.Question + ": " + p.Text }

// Runner runs calls of a tool. It spends the grant before anything leaves, and runs
// exactly call.Args. It does not finish the grant. An error means that it is not
// known whether the call took effect, unless its text says so; the agent reads it.
// It is safe for concurrent use and ends with ctx.
type Runner interface {
	Run(ctx context.Context, grant Grant, call *ambit.ToolCall) (Result, error)
}

// Result is what a tool returned.
type Result struct {
	JSON    []byte // any JSON value; nil if the result is Text
	Text    string
	IsError bool // the tool says that it failed
}

// Labeller takes note of where the text of a result came from, before the agent
// has it. After an error the agent does not get the result. Event is the position of
// the call in the log; result.JSON is canonical.
type Labeller interface {
	Result(ctx context.Context, event uint64, call *ambit.ToolCall, result Result) error
}

// Planner keeps the plan that an agent declares for a task, as canonical JSON that
// fits flow.PlanSchema. The agent reads its error.
type Planner interface {
	Plan(ctx context.Context, task string, plan []byte) error
}

// Questions knows what became of the calls that wait for a person.
type Questions interface {
	// Wait returns when the question is answered, or with a *[Pending] when it has
	// waited for so long. If people agreed and nobody has taken the call yet, it
	// returns the call as it was asked about, and its grant; [ErrTaken] if somebody
	// has, and *[Ended] if it is known what came of it. An *[ambit.DenyError] says that it will never run, [ErrNoQuestion] that
	// this agent has none of that name.
	Wait(ctx context.Context, question string, long time.Duration) (Grant, *ambit.ToolCall, error)
}

// Ended is the error that says that the call of a question was run, and what came
// of it.
type Ended struct {
	Result []byte // JSON; nil if it is not kept
	Failed string // why it failed; "" if it did not
}

// Error implements error.
func (e *Ended) Error() string { return "the call of this question was run" }

// What Questions.Wait returns besides.
var (
	ErrTaken      = errors.New("the call of this question was taken to be run")
	ErrNoQuestion = errors.New("this agent has no such question")
)

// Refusal is a call that was refused before a Checker saw it.
type Refusal struct {
	Task   string
	Tool   string // as it was asked for, made inert and short
	Reason ambit.Reason
}

// Limits of what is read and kept.
const (
	MaxMessage = 1 << 20 // bytes of a message of the agent
	MaxDepth   = 32      // how deep it nests
	MaxWait    = 60      // seconds that ambit.result waits

	maxValues = 50_000 // values in the arguments of a call
	maxCalls  = 64     // calls at the same time
	maxTools  = 1000
)

// Config is what a Gateway needs.
type Config struct {
	Agent ambit.AgentID // required
	Tools *Registry     // required
	// Checker decides. Required.
	Checker Checker
	// Questions answers ambit.result; without it that tool is not there.
	Questions Questions
	// Planner takes what ambit.plan is given; without it that tool is not there.
	Planner Planner
	// Labeller may be nil.
	Labeller Labeller
	// Visible says which tools this agent may see. One that it may not see is one
	// that there is not. Nil shows all.
	Visible func(name string) bool
	// Refused is told of calls that no Checker saw: unknown tools, arguments that
	// do not fit. It must not block. May be nil.
	Refused func(Refusal)
	// Fetched is told of each question that ambit.result was asked about, before
	// the agent has the answer. May be nil.
	Fetched func(ctx context.Context, question string)
	// IntentRequired refuses calls that do not state their intent.
	IntentRequired bool

	// Hosts are the values of the Host header that are served; nil is ambit.internal.
	Hosts []string
	// Origins are the pages that may call; nil is none. Programs send no Origin.
	Origins []string

	CallTime  time.Duration // how long a call may run; 0 is 5 minutes
	MaxResult int           // bytes of a result; 0 is 1 MiB
	Version   string        // of this program, for the client
}
