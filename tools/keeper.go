package tools

import (
	"bytes"
	"sync"

	"ambit"
	"ambit/internal/jcs"
)

// How many answers of calls that waited for a person are kept for the agent to
// fetch, and of how many bytes. The oldest go first.
const (
	maxKept      = 256
	maxKeptBytes = 16 << 20
)

// keeper keeps answers by question, in memory: after a restart of the worker the log
// says that a call ran, and what it returned is gone. The zero value is ready.
type keeper struct {
	mu    sync.Mutex
	all   map[string]*kept
	order []*kept // that have ended, the oldest first
	bytes int
}

// kept is the answer of one question; answer is there when done is closed.
type kept struct {
	question string
	done     chan struct{}
	answer   answer
}

func (k *keeper) get(question string) *kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[question]
}

// begin reports whether nobody has begun before.
func (k *keeper) begin(question string) (one *kept, first bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if one = k.all[question]; one != nil {
		return one, false
	}
	if k.all == nil {
		k.all = map[string]*kept{}
	}
	one = &kept{question: question, done: make(chan struct{})}
	k.all[question] = one
	return one, true
}

func (k *keeper) finish(one *kept, a answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	one.answer = a
	close(one.done)
	k.order = append(k.order, one)
	k.bytes += a.size()
	for len(k.order) > 1 && (len(k.order) > maxKept || k.bytes > maxKeptBytes) {
		oldest := k.order[0]
		k.order = k.order[1:]
		k.bytes -= oldest.answer.size()
		delete(k.all, oldest.question)
	}
}

// takes reports whether the tool, as it is now, takes the arguments of a call that
// was decided before.
func (t *tool) takes(call *ambit.ToolCall) bool {
	v, err := jcs.Parse(call.Args, MaxDepth)
	if err != nil || t.input.Check(v) != nil {
		return false
	}
	again, err := jcs.Append(nil, v)
	return err == nil && bytes.Equal(again, call.Args)
}
