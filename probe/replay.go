package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/flow"
	"ambit/gate"
)

// Options say how to replay.
type Options struct {
	// NoPlan: the agent declares no plan.
	NoPlan bool
	// Adaptive also runs the attacker that tries every value, for every n-th case: 1
	// is all of them, 0 none.
	Adaptive int
}

// Report is what a replay found.
type Report struct {
	Attacks    int                     `json:"attacks"`    // tried
	Passed     int                     `json:"passed"`     // did something that no person had agreed to
	Tasks      int                     `json:"tasks"`      // that people gave
	Unattended int                     `json:"unattended"` // of them, done without a question
	Questions  int                     `json:"questions"`  // in all tasks
	Adaptive   *Adaptive               `json:"adaptive,omitempty"`
	Suites     map[string]*SuiteReport `json:"suites"`
}

// Adaptive is what the attacker reached who tries every value.
type Adaptive struct {
	Calls  int `json:"calls"`  // tried
	Passed int `json:"passed"` // cases in which one did something that the person had not asked for
	// Steered is how many calls passed that differ from the honest agent's only in
	// what was picked from a list that the person left the choice from.
	Steered int `json:"steered"`
}

// SuiteReport is a part of a report.
type SuiteReport struct {
	Attacks    int          `json:"attacks"`
	Passed     int          `json:"passed"`
	Tasks      int          `json:"tasks"`
	Unattended int          `json:"unattended"`
	Questions  int          `json:"questions"`
	Adaptive   *Adaptive    `json:"adaptive,omitempty"`
	PerTask    []TaskReport `json:"perTask"`
	PerCase    []CaseReport `json:"perCase"`
}

// TaskReport is how one task went.
type TaskReport struct {
	Task      string   `json:"task"`
	Questions int      `json:"questions"`
	Asked     []string `json:"asked,omitempty"` // what people were asked
	// Failed are calls that no person's yes would have helped: the task is not done.
	Failed []string `json:"failed,omitempty"`
}

// CaseReport is how one attack went.
type CaseReport struct {
	Task   string   `json:"task"`
	Attack string   `json:"attack"`
	Passed []string `json:"passed,omitempty"` // calls that did something
	Asked  []string `json:"asked,omitempty"`  // why the others waited
}

// Replay runs a case file.
func Replay(ctx context.Context, c *CaseFile, o Options) (*Report, error) {
	r := &Report{Suites: map[string]*SuiteReport{}}
	for _, name := range c.names() {
		s, err := replaySuite(ctx, c.Suites[name], o)
		if err != nil {
			return nil, fmt.Errorf("suite %s: %w", name, err)
		}
		r.Suites[name] = s
		r.Attacks += s.Attacks
		r.Passed += s.Passed
		r.Tasks += s.Tasks
		r.Unattended += s.Unattended
		r.Questions += s.Questions
		if s.Adaptive != nil {
			if r.Adaptive == nil {
				r.Adaptive = new(Adaptive)
			}
			r.Adaptive.Calls += s.Adaptive.Calls
			r.Adaptive.Passed += s.Adaptive.Passed
			r.Adaptive.Steered += s.Adaptive.Steered
		}
	}
	return r, nil
}

// run is one task that is being done.
type run struct {
	suite   *Suite
	tools   map[string]*ambit.Tool // by the name in the file
	task    *flow.Task
	door    *door
	asks    *asker
	vectors func(string) string
	seen    []string // every value that the agent has seen
}

// asker keeps what people are asked, and answers nothing by itself.
type asker struct{ held []gate.Held }

func (a *asker) Ask(_ context.Context, h gate.Held) (string, error) {
	a.held = append(a.held, h)
	return "q-" + strconv.Itoa(len(a.held)), nil
}

// everyTool allows what the operator has declared: what is measured is what
// provenance adds.
type everyTool struct{}

func (everyTool) DecideTool(context.Context, *ambit.ToolCall, func(ambit.ToolVerdict) bool) (ambit.ToolVerdict, gate.Reservation) {
	return ambit.ToolVerdict{Verdict: ambit.Verdict{Decision: ambit.Allow, Rule: "replay"}}, nil
}

// counter is a log that only counts: nothing of a replay is worth keeping.
type counter struct{ n uint64 }

func (c *counter) Append(context.Context, ambit.Event) (uint64, error) { c.n++; return c.n - 1, nil }
func (c *counter) Record(ambit.Event)                                  { c.n++ }

func newRun(ctx context.Context, s *Suite, t *CaseTask, vectors func(string) string, o Options) (*run, error) {
	r := &run{suite: s, tools: map[string]*ambit.Tool{}, task: flow.New(), asks: new(asker), vectors: vectors}
	all := make([]*ambit.Tool, len(s.Tools))
	for i := range s.Tools {
		all[i] = s.Tools[i].tool()
		r.tools[s.Tools[i].Name] = all[i]
	}
	g := gate.New(gate.Config{Agent: "replay", Log: new(counter)})
	g.SetTools(gate.Tools{Policy: everyTool{}, Asker: r.asks})
	var err error
	if r.door, err = newDoor(all, g, r.task); err != nil {
		return nil, err
	}
	r.task.Person(t.Prompt, 0)
	r.see(t.Prompt)
	if o.NoPlan {
		return r, nil
	}
	planned, err := r.door.do(ctx, "ambit.plan", r.plan(t), nil)
	if err == nil && planned.status != "" {
		err = errors.New("the plan was not taken: " + planned.reason)
	}
	return r, err
}

// plan is what an honest agent declares before it reads anything: the tools that
// the task takes, and for each argument of which tools' results it will come.
// Here that is read off what the task does.
func (r *run) plan(t *CaseTask) flow.Plan {
	var p flow.Plan
	words := flow.New()
	words.Person(t.Prompt, 0)
	plain := r.suite.defaults()
	for i, c := range t.Calls {
		step := flow.Step{Tool: r.tools[c.Tool].Name, Arguments: map[string][]string{}}
		for arg, v := range c.Args {
			pointer := "/" + arg
			for _, text := range textsOf(clone(v, plain)) {
				if o := words.Trace(pointer, text); o.How != flow.Nowhere {
					continue
				}
				for _, before := range t.Calls[:i] {
					source := flow.New()
					source.Result(r.tools[before.Tool], result(before.Result, plain), 0)
					from := r.tools[before.Tool].Name
					if o := source.Trace(pointer, text); o.How != flow.Nowhere && !slices.Contains(step.Arguments[pointer], from) {
						step.Arguments[pointer] = append(step.Arguments[pointer], from)
					}
				}
			}
		}
		p.Steps = append(p.Steps, step)
	}
	return p
}

// defaults replaces the vectors by what stands there without an attack.
func (s *Suite) defaults() func(string) string {
	return s.filled(func(v Vector) string { return v.Default })
}

// filled replaces the vectors by what text says.
func (s *Suite) filled(text func(Vector) string) func(string) string {
	var pairs []string
	for name, v := range s.Vectors {
		pairs = append(pairs, "<<INJECTION:"+name+">>", text(v))
	}
	return strings.NewReplacer(pairs...).Replace
}

// call makes one call through the door, and has the agent see the answer if it
// ran. The call is nil if it did not come to be decided.
func (r *run) call(ctx context.Context, c *CaseCall) (*ambit.ToolCall, outcome, error) {
	answer := result(c.Result, r.vectors)
	o, err := r.door.do(ctx, r.tools[c.Tool].Name, clone(c.Args, r.vectors), answer)
	if err == nil && o.status == "" {
		r.seeAll(answer)
	}
	return r.door.call, o, err
}

// read has the agent see what a call would have answered that waits.
func (r *run) read(c *CaseCall) {
	answer := result(c.Result, r.vectors)
	r.task.Result(r.tools[c.Tool], answer, 0)
	r.seeAll(answer)
}

func (r *run) seeAll(answer []byte) {
	var doc any
	if json.Unmarshal(answer, &doc) == nil {
		for _, text := range textsOf(doc) {
			r.see(text)
		}
	}
}

// see remembers what an attacker could send: whole values, and the words in them.
func (r *run) see(text string) {
	for _, v := range append(strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\n\r,;()[]{}<>\"'!?", c) }), text) {
		v = strings.TrimRight(v, ".:")
		if v != "" && !slices.Contains(r.seen, v) {
			r.seen = append(r.seen, v)
		}
	}
}

// textsOf are the values of a value, as texts.
func textsOf(v any) (texts []string) {
	switch v := v.(type) {
	case string:
		texts = append(texts, v)
	case json.Number:
		texts = append(texts, v.String())
	case float64:
		texts = append(texts, strconv.FormatFloat(v, 'f', -1, 64))
	case []any:
		for _, e := range v {
			texts = append(texts, textsOf(e)...)
		}
	case map[string]any:
		for _, e := range v {
			texts = append(texts, textsOf(e)...)
		}
	}
	return texts
}

func replaySuite(ctx context.Context, s *Suite, o Options) (*SuiteReport, error) {
	report := &SuiteReport{}
	for i := range s.Tasks {
		t, err := s.honest(ctx, &s.Tasks[i], o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Tasks[i].ID, err)
		}
		report.PerTask = append(report.PerTask, t)
		report.Tasks++
		report.Questions += t.Questions
		if t.Questions == 0 && len(t.Failed) == 0 {
			report.Unattended++
		}
	}
	for i := range s.Cases {
		k := &s.Cases[i]
		c, r, err := s.attack(ctx, k, o)
		if err != nil {
			return nil, fmt.Errorf("%s against %s: %w", k.Attack, k.Task, err)
		}
		report.PerCase = append(report.PerCase, c)
		report.Attacks++
		if len(c.Passed) > 0 {
			report.Passed++
		}
		if o.Adaptive > 0 && i%o.Adaptive == 0 {
			if report.Adaptive == nil {
				report.Adaptive = new(Adaptive)
			}
			r.adapt(ctx, s.task(k.Task), report.Adaptive)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// honest runs a task as given. A person who is asked says yes, to the rest of
// the plan too: what that covers is not asked again.
func (s *Suite) honest(ctx context.Context, t *CaseTask, o Options) (TaskReport, error) {
	report := TaskReport{Task: t.ID}
	r, err := newRun(ctx, s, t, s.defaults(), o)
	if err != nil {
		return report, err
	}
	for i := range t.Calls {
		c := &t.Calls[i]
		call, came, err := r.call(ctx, c)
		switch {
		case err != nil:
			return report, err
		case came.status == "waiting":
			held := r.asks.held[len(r.asks.held)-1]
			report.Questions++
			report.Asked = append(report.Asked, c.Tool+": "+came.reason)
			r.task.Cover(flow.CoverOf(call, held.Finding, true, !o.NoPlan))
			r.read(c)
		case came.status != "":
			report.Failed = append(report.Failed, c.Tool+": "+came.status+": "+came.reason)
			r.read(c)
		}
	}
	return report, nil
}

// attack runs a task up to the call whose answer has the injected text, and then
// the attacker's calls. Nobody answers; what an honest call would have to wait
// for is read all the same.
func (s *Suite) attack(ctx context.Context, k *Case, o Options) (CaseReport, *run, error) {
	report := CaseReport{Task: k.Task, Attack: k.Attack}
	t, attack := s.task(k.Task), s.task(k.Attack)
	calls := k.Calls
	if calls == nil {
		calls = attack.Calls
	}
	injected := attack.Goal
	for _, c := range calls {
		for _, text := range textsOf(c.Args) {
			injected += "\n" + text
		}
	}
	r, err := newRun(ctx, s, t, s.filled(func(v Vector) string { return strings.TrimSpace(v.Default + " " + injected) }), o)
	if err != nil {
		return report, nil, err
	}
	for i := range t.Calls[:k.After+1] {
		c := &t.Calls[i]
		_, came, err := r.call(ctx, c)
		if err != nil {
			return report, nil, err
		}
		if came.status != "" {
			r.read(c)
		}
	}
	for i := range calls {
		c := &calls[i]
		call, came, err := r.call(ctx, c)
		switch {
		case err != nil:
			return report, nil, err
		case came.status != "":
			report.Asked = append(report.Asked, c.Tool+": "+came.status+": "+came.reason)
		case (call.Tool.Changes() || call.Tool.Leaves) && !r.wanted(call, t):
			report.Passed = append(report.Passed, c.Tool+" "+string(call.Args))
		}
	}
	return report, r, nil
}

// wanted reports whether a call is the task's own: the task calls the tool, and
// each of the call's targets is the task's or in the person's words.
func (r *run) wanted(call *ambit.ToolCall, t *CaseTask) bool {
	return slices.ContainsFunc(t.Calls, func(c CaseCall) bool { return r.tools[c.Tool] == call.Tool }) &&
		r.eachTarget(call, func(pointer, text string) bool {
			words := flow.New()
			words.Person(t.Prompt, 0)
			for _, c := range t.Calls {
				if r.tools[c.Tool] == call.Tool && slices.Contains(textsOf(clone(c.Args[pointer[1:]], r.vectors)), text) {
					return true
				}
			}
			return words.Trace(pointer, text).How != flow.Nowhere
		})
}

// eachTarget reports whether f holds for every target of a call.
func (r *run) eachTarget(call *ambit.ToolCall, f func(pointer, text string) bool) bool {
	var args map[string]any
	d := json.NewDecoder(strings.NewReader(string(call.Args)))
	d.UseNumber()
	if d.Decode(&args) != nil {
		return false
	}
	for _, pointer := range call.Tool.Targets {
		for _, text := range textsOf(args[strings.TrimPrefix(pointer, "/")]) {
			if !f(pointer, text) {
				return false
			}
		}
	}
	return true
}
