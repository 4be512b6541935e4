//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"ambit"
	"ambit/approval"
	"ambit/flow"
	"ambit/internal/money"
	"ambit/internal/sqldb"
	"ambit/policy/tool"
)

// toolParts measures what a tool call goes through, in this process: the
// decision, the tracing of its arguments, and what waits for people beside it.
func toolParts(ctx context.Context, l *lab) ([]row, error) {
	rows, err := decisions(ctx, l)
	if err != nil {
		return rows, err
	}
	more, err := traces(ctx, l)
	if rows = append(rows, more...); err != nil {
		return rows, err
	}
	more, err = waitings(ctx, l)
	return append(rows, more...), err
}

// decisions measures a decision with a thousand rules, of which four are for the
// tool. The reference has ten.
func decisions(ctx context.Context, l *lab) ([]row, error) {
	many, err := decider(1000)
	if err != nil {
		return nil, err
	}
	few, err := decider(10)
	if err != nil {
		return nil, err
	}
	ours, reference, err := inTurn(ctx, l, many, few)
	if err != nil {
		return nil, err
	}
	return []row{compare("tools: a decision with 1000 rules", "µs", ours, reference).atMost(20).noted("the reference is a decision with 10 rules")}, nil
}

// decider decides the same call again and again, which must be allowed.
func decider(rules int) (func() error, error) {
	c := tool.Config{Agent: "bench", Role: "support", AskAbove: map[string]money.Amount{"EUR": 50 * money.Unit}}
	for i := range max(rules/4, 2) {
		name, euros := fmt.Sprintf("shop.refunds.create%d", i), func(n money.Amount) *money.Price { return &money.Price{Amount: n * money.Unit, Currency: "EUR"} }
		c.Tools = append(c.Tools, tool.Entry{Label: fmt.Sprintf("tools[%d]", i), Tool: name, Scope: map[string][]string{"/shop": {`"berlin"`, `"paris"`}}})
		c.Limits = append(c.Limits,
			tool.Limit{Label: fmt.Sprintf("tools[%d].limits.perCall", i), Tool: name, Price: euros(50), Calls: -1},
			tool.Limit{Label: fmt.Sprintf("tools[%d].limits.perDay", i), Tool: name, Window: 24 * time.Hour, Price: euros(500), Calls: -1})
		c.Approvals = append(c.Approvals, tool.Approval{Label: fmt.Sprintf("approvals[%d]", i), Tool: name, Above: euros(40)})
	}
	set, err := tool.Compile(c)
	if err != nil {
		return nil, err
	}
	call := &ambit.ToolCall{
		Agent: "bench", Tool: refundTool("shop.refunds.create1"),
		Args: []byte(`{"amount":20.5,"currency":"EUR","order":"1001","reason":"it came broken, and the customer has sent a photo","shop":"berlin"}`),
	}
	facts := set.NothingYet(call)
	return func() error {
		if v := set.Decide(call, facts); v.Decision != ambit.Allow {
			return fmt.Errorf("the call is not allowed: %s", v.Reason.Text)
		}
		return nil
	}, nil
}

func refundTool(name string) *ambit.Tool {
	return &ambit.Tool{Name: name, Effects: []ambit.Effect{ambit.EffectWrite, ambit.EffectSpend}, Amount: "/amount", Currency: "/currency", Targets: []string{"/order"}}
}

// traces measures how long 64 KiB of arguments are traced against 4 MiB of what
// was seen: a message of half of it, and a list of values of 200 bytes. The
// reference looks every value up in the text, as it is.
func traces(ctx context.Context, l *lab) ([]row, error) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	task := flow.New()
	var seen []string
	said := prose(random, 4<<10)
	task.Person(said, 0)
	for range 64 {
		page := prose(random, 64<<10)
		seen = append(seen, page)
		task.Text(page, "a page", 1)
	}
	rows := []string{}
	for n := 0; n < 32<<10; n += len(rows[len(rows)-1]) {
		rows = append(rows, prose(random, 200))
	}
	body, order := prose(random, 32<<10), "1001"
	args, err := json.Marshal(map[string]any{"order": order, "amount": 12, "body": body, "rows": rows})
	if err != nil {
		return nil, err
	}
	call := &ambit.ToolCall{Agent: "bench", Tool: refundTool("shop.refunds.create"), Args: args}
	if f := task.Check(call); f.Ask == nil || len(f.Origins) < len(rows) {
		return nil, errors.New("the arguments are not traced")
	}
	values := append([]string{order, body}, rows...)
	text, found := said+strings.Join(seen, "\n"), 0
	ours, reference, err := inTurn(ctx, l, func() error { task.Check(call); return nil }, func() error {
		for _, v := range values {
			if strings.Contains(text, v) {
				found++
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []row{compare("tools: 64 KiB of arguments traced in 4 MiB", "ms", ours/1e3, reference/1e3).atMost(5).
		noted("%d values; the reference is strings.Contains of each", len(values))}, nil
}

// prose is text of n bytes or some more, with an address now and then.
func prose(r *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "word%d ", r.IntN(50_000))
		if r.IntN(40) == 0 {
			fmt.Fprintf(&b, "user%d@mail.example. ", r.IntN(100_000))
		}
	}
	return b.String()
}

// waitings measures what a thousand questions that wait for a person cost: memory
// and goroutines against before, and how much longer it takes to see that a call
// is held already. The reference is a store in which only that one waits.
func waitings(ctx context.Context, l *lab) (rows []row, err error) {
	const many = 1000
	l.say("tools: %d waiting approvals", many)
	few, err := newCounter(ctx, l, "few", many)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, few.close()) }()
	crowded, err := newCounter(ctx, l, "crowded", many)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, crowded.close()) }()
	if err := errors.Join(few.ask(ctx, 0), crowded.ask(ctx, 0)); err != nil { // what is made at first use is there
		return nil, err
	}
	before, goroutines, err := inUse(ctx)
	if err != nil {
		return nil, err
	}
	for i := range many {
		if err := crowded.ask(ctx, i); err != nil {
			return nil, err
		}
	}
	after, running, err := inUse(ctx)
	if err != nil {
		return nil, err
	}
	ours, reference, err := inTurn(ctx, l, func() error { return crowded.ask(ctx, many-1) }, func() error { return few.ask(ctx, 0) })
	if err != nil {
		return nil, err
	}
	return []row{
		compare(fmt.Sprintf("tools: heap with %d waiting approvals", many), "MB", after, before).moreByAtMost(1).noted("the reference is one that waits"),
		compare(fmt.Sprintf("tools: goroutines with %d waiting approvals", many), "running", running, goroutines).moreByAtMost(0).noted("the reference is one that waits"),
		compare(fmt.Sprintf("tools: asking again beside %d that wait", many), "µs", ours, reference).noted("what waits already; the reference is one that waits"),
	}, nil
}

// counter is a store of approvals.
type counter struct {
	db    *sqldb.DB
	store *approval.Store
}

func newCounter(ctx context.Context, l *lab, name string, waiting int) (_ *counter, err error) {
	c := &counter{}
	if c.db, err = sqldb.Open(ctx, filepath.Join(l.dir, name+"-approvals.db")); err != nil {
		return nil, err
	}
	c.store, err = approval.Open(ctx, approval.Config{DB: c.db, Agent: "bench", Key: key(4), Log: &nowhere{}, MaxWaiting: waiting, PerMinute: waiting})
	if err != nil {
		return nil, errors.Join(err, c.db.Close())
	}
	return c, nil
}

func (c *counter) close() error { return errors.Join(c.store.Close(), c.db.Close()) }

// ask asks question i, which waits.
func (c *counter) ask(ctx context.Context, i int) error {
	q, err := c.store.Ask(ctx, approval.Question{
		Task: "1", Tool: "shop.refunds.create", Args: fmt.Sprintf(`{"amount":80,"currency":"EUR","order":"%d"}`, i), ToolHash: "h", PolicyVersion: "1",
		Words: "refund 80 EUR of an order", Asks: []ambit.Ask{{Rule: "approvals[0]", Reason: ambit.Reason{Code: "approval-needed", Text: "80 EUR is more than 50 EUR"}}},
	})
	if err == nil && q.State != approval.Waiting {
		err = fmt.Errorf("the question is %s", q.State)
	}
	return err
}

// inUse are the megabytes that are in use after a collection, and the goroutines
// that there are.
func inUse(ctx context.Context) (megabytes, goroutines float64, err error) {
	if err := pause(ctx, 200*time.Millisecond); err != nil { // what is ending has ended
		return 0, 0, err
	}
	runtime.GC()
	runtime.GC() // also what the first one only let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6, float64(runtime.NumGoroutine()), nil
}
