package alert

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ambit"
)

const (
	// maxRules is how many rules an operator may write.
	maxRules = 64
	// maxCounted is how many values of Per a rule counts by themselves; others
	// are counted together, so that an agent cannot make it forget.
	maxCounted = 64
	// maxBuiltinSeen and maxOwnSeen are how many values a rule with First
	// remembers.
	maxBuiltinSeen, maxOwnSeen = 10_000, 1000
	// burst is how many first values a rule tells one by one within an hour. The
	// others are counted in one alert.
	burst = 20
)

// RulesConfig is what rules need.
type RulesConfig struct {
	Book *Book // required; gets the alerts
	// Named says whether a rule of the policy names a host, rather than a suffix.
	// It is called with hosts that were allowed; nil is never.
	Named func(host string) bool
	// Own are the operator's rules, and Tunings their changes to the catalogue, to
	// begin with; see [Rules.Set].
	Own     []Rule
	Tunings []Tuning
	// Clock tells the time; time.Now when nil.
	Clock func() time.Time
}

// Rules make alerts of events: those of the catalogue, and those that an
// operator wrote. They are safe for concurrent use.
//
// What is counted is forgotten when the process ends, and what was seen for the
// first time is not. An agent cannot end its worker, and a worker that ended is
// in the log.
type Rules struct {
	book  *Book
	named func(string) bool
	clock func() time.Time
	set   atomic.Pointer[ruleSet] // never nil

	mu       sync.Mutex // held for moments, never during I/O
	counters map[string]*counter
}

// ruleSet is what is in force. It does not change.
type ruleSet struct {
	byKind map[ambit.Kind][]*compiled
	tuned  map[string]Tuning
	specs  map[string]ambit.AlertSpec
}

// NewRules returns rules that are in force.
func NewRules(c RulesConfig) (*Rules, error) {
	if c.Book == nil {
		return nil, errors.New("making the rules of alerts: there is no book")
	}
	r := &Rules{book: c.Book, named: c.Named, clock: c.Clock, counters: map[string]*counter{}}
	if r.named == nil {
		r.named = func(string) bool { return false }
	}
	if r.clock == nil {
		r.clock = time.Now
	}
	if err := r.Set(c.Own, c.Tunings); err != nil {
		return nil, err
	}
	return r, nil
}

// Set puts an operator's rules, and their changes to those of the catalogue, in
// force in the place of those before. If one is wrong nothing is changed.
func (r *Rules) Set(own []Rule, tunings []Tuning) error {
	set, err := compileSet(own, tunings)
	if err != nil {
		return fmt.Errorf("reading the rules of alerts: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := map[string]*counter{}
	firsts := map[string]bool{}
	for _, list := range set.byKind {
		for _, c := range list {
			if old := r.counters[c.Name]; old != nil && old.limit == c.Count {
				kept[c.Name] = old
			}
			firsts[c.Name] = firsts[c.Name] || c.First != ""
		}
	}
	r.counters = kept
	r.set.Store(set)
	r.book.seen.keep(firsts)
	r.book.wake()
	return nil
}

func compileSet(own []Rule, tunings []Tuning) (*ruleSet, error) {
	if len(own) > maxRules {
		return nil, fmt.Errorf("there are %d, more than %d", len(own), maxRules)
	}
	set := &ruleSet{byKind: map[ambit.Kind][]*compiled{}, tuned: map[string]Tuning{}, specs: catalogue()}
	for _, t := range tunings {
		s, known := set.specs[t.Code]
		if !known || s.Count == 0 && (t.Count != 0 || t.Within != 0) {
			return nil, fmt.Errorf("%q cannot be tuned like this", t.Code)
		}
		set.tuned[t.Code] = t
	}
	add := func(c *compiled) {
		for _, k := range c.Kinds {
			set.byKind[k] = append(set.byKind[k], c)
		}
	}
	for _, rule := range builtin() {
		t := set.tuned[rule.Name]
		if t.Count != 0 {
			rule.Count = t.Count
		}
		if t.Within != 0 {
			rule.Within = t.Within
		}
		c, err := compile(rule)
		if err != nil {
			return nil, err
		}
		c.own, c.off = false, t.Off
		if !c.off || c.First != "" {
			add(c)
		}
	}
	names := map[string]bool{}
	for _, rule := range own {
		c, err := compile(rule)
		if err != nil {
			return nil, err
		}
		if _, taken := set.specs[rule.Name]; taken || names[rule.Name] {
			return nil, fmt.Errorf("the name %q is taken", rule.Name)
		}
		names[rule.Name] = true
		add(c)
	}
	return set, nil
}

// See looks at an event that is in the log, at position seq. It does no input
// or output, and for an event that is nothing to any rule it allocates nothing.
func (r *Rules) See(seq uint64, e *ambit.Event) {
	for _, c := range r.set.Load().byKind[e.Kind] {
		if c.matches(e) {
			r.hit(c, seq, e)
		}
	}
}

// hit is for an event whose conditions hold.
func (r *Rules) hit(c *compiled, seq uint64, e *ambit.Event) {
	if c.First != "" {
		if value := c.First.of(e); value != "" && r.book.seen.first(c.Name, value) {
			r.firstTime(c, value, seq, *e)
		}
		return
	}
	value := c.Per.of(e)
	if c.Count > 1 {
		var reached bool
		if value, reached = r.count(c.Name, value, c.Count, c.Within); !reached {
			return
		}
	}
	copied := *e // so that e itself stays where it is: nothing of this function keeps it
	r.raise(c, c.Name, value, title(c, &copied), seq)
}

// firstTime is for a value that was not there before.
func (r *Rules) firstTime(c *compiled, value string, seq uint64, e ambit.Event) {
	other, limit := twins(c.Name), maxBuiltinSeen
	if c.own {
		limit = maxOwnSeen
	}
	code := c.Name
	if !r.book.seen.remember(c.Name, value, limit) {
		if other.many != "" {
			code = other.many
		}
		r.raise(c, code, "", fmt.Sprintf("for the first time: %s; there were %d others before, and new ones are only counted from now on", subject(&e), limit), seq)
		return
	}
	if other.named != "" && r.named(value) {
		code = other.named
	}
	if !r.roomFor(code) {
		value = others
	}
	r.raise(c, code, value, firstTitle(c, &e), seq)
}

// roomFor says whether another first value may have an alert of its own.
func (r *Rules) roomFor(name string) bool {
	_, full := r.count("burst of "+name, "", burst+1, time.Hour)
	return !full
}

func (r *Rules) raise(c *compiled, code, value, title string, seq uint64) {
	key := strings.TrimSpace(code + " " + value)
	if c.own {
		r.book.Raise(c.Severity, key, title, seq)
		return
	}
	r.Raise(r.set.Load().specs[code].Severity, key, title, seq)
}

// Raise notes an alert that no rule made, as [Book.Raise] does, if the operator
// has not turned it off, and with the severity that they gave it.
func (r *Rules) Raise(severity ambit.Severity, key, title string, event uint64) {
	set := r.set.Load()
	code, _, _ := strings.Cut(key, " ")
	if _, known := set.specs[code]; !known {
		code = ambit.AlertRefused
	}
	if t, ok := set.tuned[code]; ok {
		if t.Off {
			return
		}
		if t.Severity != nil {
			severity = *t.Severity
		}
	}
	r.book.Raise(severity, key, title, event)
}

// counter keeps when the last events of a rule were, by value.
type counter struct {
	limit  int
	within time.Duration
	times  map[string]*ring
}

// ring holds the last times, at most the counter's limit.
type ring struct {
	at   []int64 // nanoseconds
	next int
}

// count notes an event and says whether there were as many as limit in the time
// before, this one among them; and under which value it was counted.
func (r *Rules) count(rule, value string, limit int, within time.Duration) (as string, reached bool) {
	now := r.clock().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counters[rule]
	if c == nil || c.limit != limit {
		c = &counter{limit: limit, times: map[string]*ring{}}
		r.counters[rule] = c
	}
	c.within = within
	t := c.times[value]
	if t == nil {
		if len(c.times) >= maxCounted {
			c.forget(now)
		}
		if len(c.times) >= maxCounted {
			value = others
		}
		if t = c.times[value]; t == nil {
			t = &ring{}
			c.times[strings.Clone(value)] = t
		}
	}
	if len(t.at) < limit {
		t.at = append(t.at, now)
		return value, len(t.at) == limit && now-t.at[0] <= int64(within)
	}
	t.at[t.next] = now
	t.next = (t.next + 1) % limit
	return value, now-t.at[t.next] <= int64(within)
}

// forget drops values whose time is over.
func (c *counter) forget(now int64) {
	for value, t := range c.times {
		newest := t.at[(t.next+len(t.at)-1)%len(t.at)]
		if now-newest > int64(c.within) {
			delete(c.times, value)
		}
	}
}
