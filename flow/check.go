package flow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit"
)

// Finding is what [Task.Check] found about a call.
type Finding struct {
	Origins []Origin // of each value that is not true, false or null
	// Ask is nil if the call may go on. Otherwise its Reason is made of the values
	// in Doubts, in words of ours.
	Ask    *ambit.Ask
	Doubts []Doubt
}

// Doubt is one value that a person has to look at, or a call outside the plan.
type Doubt struct {
	Code   string // "not-planned", "target", "picked", "quantity", "link"
	Origin Origin // the zero value of "not-planned"
	Text   string // one sentence
}

// Cover is how far the yes of a person reaches beyond one call.
type Cover struct {
	// Plan: everything that the sealed plan says, with values of the sources that
	// it names. Otherwise Values, wherever they are sent.
	Plan    bool
	Values  []string // as they were in the call
	Sources []string // tools whose results may be used, as the person has seen what came of one
	Effects []ambit.Effect
}

// Cover extends what a person agreed to, for the rest of the task.
func (t *Task) Cover(c Cover) {
	t.mu.Lock()
	t.covers = append(t.covers, c)
	t.mu.Unlock()
}

// CoverOf is what a yes to a finding covers if the person wants it to reach
// further than the one call: its values, or with sources everything that comes
// from where they came, or with plan all that was planned.
func CoverOf(call *ambit.ToolCall, f Finding, sources, plan bool) Cover {
	c := Cover{Plan: plan, Effects: slices.Clone(call.Tool.Effects)}
	for _, d := range f.Doubts {
		if d.Origin.Value != "" {
			c.Values = append(c.Values, d.Origin.Value)
		}
		if sources && d.Origin.Tool != "" {
			c.Sources = append(c.Sources, d.Origin.Tool)
		}
	}
	return c
}

// value is one argument of a call.
type value struct {
	pointer string
	text    string
	folded  string
	number  bool
}

// Check traces the arguments of a call and says whether a person must be asked.
// It changes nothing.
func (t *Task) Check(call *ambit.ToolCall) Finding {
	t.mu.Lock()
	defer t.mu.Unlock()
	values, err := argumentsOf(call.Args, call.Tool.Targets)
	if err != nil {
		return deny(Doubt{Code: "target", Text: "its arguments cannot be read: " + err.Error()})
	}
	f := Finding{}
	tool := call.Tool
	acts := tool.Changes() || tool.Leaves
	if acts && len(values) > maxTraced {
		return deny(Doubt{Code: "target", Text: fmt.Sprintf("it has %d values, of which no more than %d are traced", len(values), maxTraced)})
	}
	doubt := func(d Doubt) bool {
		if len(f.Doubts) < maxDoubts && !t.covered(call, d) {
			f.Doubts = append(f.Doubts, d)
		}
		return len(f.Doubts) < maxDoubts
	}
	if acts && t.tainted && t.plan != nil && !t.plan.has(tool.Name) {
		doubt(Doubt{Code: "not-planned", Text: tool.Name + " is not in the plan that was made for this task before it read anything from outside"})
	}
	for _, v := range values {
		if !acts && len(f.Origins) == maxShown {
			break
		}
		v.folded = fold(v.text)
		o := t.traceFolded(v.pointer, v.text, v.folded)
		f.Origins = append(f.Origins, o)
		if !acts {
			continue
		}
		switch {
		case matchesAny(tool.Targets, v.pointer):
			if d, ok := t.target(call, values, v, o); !ok {
				doubt(d)
			}
		case matchesAny(quantities(tool), v.pointer):
			if d, ok := t.quantity(v, o); !ok {
				doubt(d)
			}
		case !v.number && len(f.Doubts) < maxDoubts:
			t.links(v, doubt)
		}
	}
	if len(f.Doubts) > 0 {
		f.Ask = ask(f.Doubts)
	}
	return f
}

// What one call may cost, and what a person can read.
const (
	maxTraced = 5000 // values of a call that does more than read
	maxBeside = 32   // values of one with a target that is picked
	maxShown  = 256  // values of a call that only reads of which the origin is told
	maxDoubts = 64   // that are kept of one call; there may be more
	maxAsked  = 16   // that a question spells out
)

func deny(d Doubt) Finding {
	return Finding{Ask: ask([]Doubt{d}), Doubts: []Doubt{d}}
}

func ask(doubts []Doubt) *ambit.Ask {
	var texts []string
	for _, d := range doubts[:min(len(doubts), maxAsked)] {
		texts = append(texts, d.Text)
	}
	switch more := len(doubts) - maxAsked; {
	case len(doubts) == maxDoubts:
		texts = append(texts, fmt.Sprintf("and %d or more like it", more))
	case more > 0:
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return &ambit.Ask{Rule: "provenance", Reason: ambit.Reason{
		Code: "provenance-" + doubts[0].Code, Text: strings.Join(texts, "; "),
		Remedy: "look whether the values are what you want; a yes is for exactly this call unless you say more",
	}}
}

// quantities are the arguments that count something.
func quantities(tool *ambit.Tool) []string {
	if tool.Amount == "" {
		return tool.Limits
	}
	return append([]string{tool.Amount}, tool.Limits...)
}

// target judges a value that decides who or what gets something.
func (t *Task) target(call *ambit.ToolCall, all []value, v value, o Origin) (Doubt, bool) {
	if strings.TrimSpace(v.text) == "" || t.trusted(call, o) {
		return Doubt{}, true
	}
	if from, ok := t.picked(call, v); ok {
		if t.carriesNothing(call, all, v) {
			return Doubt{}, true
		}
		return Doubt{Code: "picked", Origin: o, Text: fmt.Sprintf("%s %q was picked from the result of %s, and what goes there is not your own words", name(v.pointer), brief(v.text), from)}, false
	}
	d := Doubt{Code: "target", Origin: o}
	switch {
	case o.How != Nowhere && o.Label.Trusted():
		d.Code = "not-planned"
		d.Text = fmt.Sprintf("%s %q comes from %s, and the plan of this task does not take it from there", name(v.pointer), brief(v.text), o.From)
	case o.How == Nowhere:
		d.Text = fmt.Sprintf("%s %q stands neither in what you wrote nor in any record", name(v.pointer), brief(v.text))
	default:
		d.Text = fmt.Sprintf("%s %q comes from %s, which others can write", name(v.pointer), brief(v.text), o.From)
	}
	return d, false
}

// trusted reports whether a target may come from where it was found. Once
// something untrusted has been read, a plan is held to: a record counts only if
// the plan takes the value from there.
func (t *Task) trusted(call *ambit.ToolCall, o Origin) bool {
	switch {
	case o.How == Nowhere || !o.Label.Trusted():
		return false
	case o.Label != ambit.Record || t.plan == nil || !t.tainted || !call.Tool.Changes():
		return true
	}
	return t.planned(call, o)
}

// picked reports whether the plan says that this argument is picked from a
// tool's results, and one of them has the value as the whole of a field.
func (t *Task) picked(call *ambit.ToolCall, v value) (tool string, ok bool) {
	if t.plan == nil {
		return "", false
	}
	want := strings.TrimSpace(v.folded)
	for _, s := range t.sources {
		if s.tool != "" && t.plan.takes(call.Tool.Name, v.pointer, s.tool) && s.fields[want] {
			return s.tool, true
		}
	}
	return "", false
}

// carriesNothing reports whether a call with a picked target can do no more than
// what a person left open: it moves no money, destroys nothing and publishes
// nothing, its other targets are trusted or picked too with at least one trusted
// if there is nothing else, and its texts are the person's.
func (t *Task) carriesNothing(call *ambit.ToolCall, all []value, picked value) bool {
	for _, e := range call.Tool.Effects {
		switch e {
		case ambit.EffectRead, ambit.EffectSend, ambit.EffectAccess:
		default:
			return false
		}
	}
	if len(call.Tool.Effects) == 0 || len(all) > maxBeside {
		return false
	}
	trusted, texts := 0, 0
	for _, v := range all {
		if v.pointer == picked.pointer || strings.TrimSpace(v.text) == "" {
			continue
		}
		if matchesAny(call.Tool.Targets, v.pointer) {
			if !t.trusted(call, t.trace(v.pointer, v.text)) {
				return false
			}
			trusted++
			continue
		}
		if v.number || !t.personsWords(v.text) {
			return false
		}
		texts++
	}
	return trusted+texts > 0
}

// quantity judges a number that a limit counts.
func (t *Task) quantity(v value, o Origin) (Doubt, bool) {
	n, ok := decimal(strings.TrimSpace(v.folded))
	if !ok {
		if o.How != Nowhere && o.Label.Trusted() || strings.TrimSpace(v.text) == "" {
			return Doubt{}, true
		}
		return Doubt{Code: "quantity", Origin: o, Text: fmt.Sprintf("%s %q is no plain number", name(v.pointer), brief(v.text))}, false
	}
	if strings.HasPrefix(n, "-") {
		return Doubt{Code: "quantity", Origin: o, Text: fmt.Sprintf("%s %s is negative", name(v.pointer), n)}, false
	}
	key, most := lastOf(v.pointer), "0"
	var prose *source
	for _, s := range t.sources {
		if _, there := slices.BinarySearch(s.amounts[key], n); there || s.label.Trusted() && s.hasNumber(n) {
			return Doubt{}, true
		}
		if f := s.most[key]; f != "" && less(most, f) {
			most = f
		}
		if f := s.largest; f != "" && s.label == ambit.Person && less(most, f) {
			most = f
		}
		if !s.label.Trusted() && prose == nil && s.numbers[n] {
			prose = s
		}
	}
	switch {
	case prose != nil:
		return Doubt{Code: "quantity", Origin: o, Text: fmt.Sprintf("%s %s comes from %s, which others can write", name(v.pointer), n, prose.from)}, false
	case less(double(most), n):
		return Doubt{Code: "quantity", Origin: o, Text: fmt.Sprintf("%s %s stands nowhere, and is more than twice what does", name(v.pointer), n)}, false
	}
	return Doubt{}, true
}

// links judges the links and account numbers in a text that is sent, and gives
// those in doubt to doubt until that wants no more.
func (t *Task) links(v value, doubt func(Doubt) bool) {
	seen := map[string]bool{}
	for _, link := range linksIn(v.folded) {
		if seen[link] {
			continue
		}
		seen[link] = true
		o := t.lookup(v.pointer, link, link, false) // in lower case already
		if account := compact(link); (o.How == Nowhere || !o.Label.Trusted()) && account != link && isIBAN(account) {
			if other := t.lookup(v.pointer, account, account, false); other.How != Nowhere && (o.How == Nowhere || other.Label.Trusted()) {
				o = other
			}
		}
		if o.How != Nowhere && o.Label.Trusted() {
			continue
		}
		from := "stands neither in what you wrote nor in any record"
		if o.How != Nowhere {
			from = "comes from " + o.From + ", which others can write"
		}
		if !doubt(Doubt{Code: "link", Origin: o, Text: fmt.Sprintf("%s has %q, which %s", name(v.pointer), brief(link), from)}) {
			return
		}
	}
}

// covered reports whether a person has said yes to this before.
func (t *Task) covered(call *ambit.ToolCall, d Doubt) bool {
	for _, c := range t.covers {
		if c.Plan && t.plan != nil {
			if d.Origin.Value != "" && t.planned(call, d.Origin) {
				return true
			}
		}
		if d.Origin.How == Nowhere && d.Origin.Value == "" || !subset(call.Tool.Effects, c.Effects) {
			continue
		}
		// What was found only by decoding a part of it is not itself what stands there.
		if slices.Contains(c.Values, d.Origin.Value) || d.Origin.Tool != "" && d.Origin.How != Decoded && slices.Contains(c.Sources, d.Origin.Tool) {
			return true
		}
	}
	return false
}

// planned reports whether a value stands in a result that the plan says it comes
// from.
func (t *Task) planned(call *ambit.ToolCall, o Origin) bool {
	q := newQuery(t.seed, o.Value, fold(o.Value)).itself()
	return slices.ContainsFunc(t.sources, func(s *source) bool {
		return s.tool != "" && t.plan.takes(call.Tool.Name, o.Argument, s.tool) && s.find(q) != Nowhere
	})
}

func subset(of, all []ambit.Effect) bool {
	for _, e := range of {
		if e != ambit.EffectRead && !slices.Contains(all, e) {
			return false
		}
	}
	return true
}

// name is an argument in words: its pointer without the slash.
func name(pointer string) string { return strings.TrimPrefix(pointer, "/") }

// argumentsOf are the values of the arguments of a call. Of an object that is a
// target itself the names are values too: they say who gets something.
func argumentsOf(args []byte, targets []string) (values []value, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(args))
	d.UseNumber()
	var doc any
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	eachLeaf(doc, "", func(pointer string, v any) {
		switch v := v.(type) {
		case string:
			values = append(values, value{pointer: pointer, text: v})
		case json.Number:
			values = append(values, value{pointer: pointer, text: v.String(), number: true})
		}
	})
	eachObject(doc, "", func(pointer string, names []string) {
		if !matchesAny(targets, pointer) {
			return
		}
		for _, n := range names {
			values = append(values, value{pointer: pointer, text: n})
		}
	})
	return values, nil
}

// eachObject calls f with the names in each object.
func eachObject(v any, pointer string, f func(pointer string, names []string)) {
	switch v := v.(type) {
	case map[string]any:
		names := sortedKeys(v)
		f(pointer, names)
		for _, k := range names {
			eachObject(v[k], pointer+"/"+escape(k), f)
		}
	case []any:
		for i, e := range v {
			eachObject(e, pointer+"/"+strconv.Itoa(i), f)
		}
	}
}
