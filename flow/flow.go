// Package flow knows where text came from. Whatever reaches an agent in a task
// is a source with a label: the words of the person it works for, records of a
// declared system, and everything else, which is untrusted. Each argument of a
// later tool call is traced to the sources that it could have come from. An
// argument that decides who or what gets something must stand in the person's
// words or in a record; otherwise the call waits for a person, who is told which
// value came from where. The agent knows nothing of it and cannot say otherwise:
// only what was seen and what is sent is compared.
//
// The rules read no prose. They are four, and [Task.Check] applies them in this
// order:
//
//  1. Once untrusted text has been read and there is a sealed plan ([Plan]), a
//     call that does more than read and is not in the plan asks.
//  2. A target must be trusted, or be picked from a list that the plan named and
//     carry nothing else with it.
//  3. A quantity must not stand in untrusted prose, and one that stands nowhere
//     (the agent computed it) must be of the size of those that do.
//  4. A link or an account number in what is sent must be trusted.
//
// What cannot be traced is untrusted: it was forgotten, came through a file, or
// the model made it up.
//
// Trust: the caller says whose words are whose, and which fields of a result are
// records; whoever can put text into a field that is declared a record, or into
// the person's words, can steer the agent past these rules. What the agent, its
// model or a tool's result says about itself is not believed.
package flow

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"ambit"
)

// maxSeen is how many bytes of sources a task remembers. Of more the oldest
// untrusted ones are forgotten first, so that forgetting never makes anything
// trusted.
const maxSeen = 8 << 20

// sourceCost is what a source counts for beside its text.
const sourceCost = 1 << 10

// Task is one piece of work of an agent: what was seen in it, and what it is
// allowed. It is safe for concurrent use.
type Task struct {
	seed maphash.Seed // of the hashes of words

	mu      sync.Mutex
	sources []*source // in the order in which they came
	shelves []*shelf  // the same sources, in the same order
	byID    map[[32]byte]*source
	seen    uint64 // counts what was seen
	size    int
	tainted bool // something untrusted has been seen
	plan    *Plan
	covers  []Cover
}

// New returns a task in which nothing has been seen.
func New() *Task { return &Task{seed: maphash.MakeSeed(), byID: map[[32]byte]*source{}} }

// Person notes what the person said for whom the agent works.
func (t *Task) Person(text string, event uint64) {
	t.add(newSource(t.seed, ambit.Person, "what you wrote", "", event, []leaf{{text: text, sentences: true}}))
}

// Text notes an untrusted text, and how it came: "the file notes.txt", "the web
// page …".
func (t *Task) Text(text, from string, event uint64) {
	t.add(newSource(t.seed, ambit.Untrusted, from, "", event, []leaf{{text: text}}))
}

// Tainted notes that something untrusted has been read whose text is not known:
// the answer to a request of the agent's own, for instance.
func (t *Task) Tainted() {
	t.mu.Lock()
	t.tainted = true
	t.mu.Unlock()
}

// Result notes what a tool answered: JSON, or text if it is none. Fields that
// the tool declares to be records are so; everything else is untrusted. event is
// that of the call.
func (t *Task) Result(tool *ambit.Tool, result []byte, event uint64) {
	from := "the result of " + tool.Name
	var records, text []leaf
	var doc any
	if err := json.Unmarshal(result, &doc); err != nil {
		doc = string(result)
	}
	eachLeaf(doc, "", func(pointer string, v any) {
		l := leaf{whole: true, key: lastOf(pointer)}
		switch v := v.(type) {
		case string:
			l.text = v
		case float64:
			l.text, l.number = strconv.FormatFloat(v, 'f', -1, 64), true
		default:
			return // true, false and null say nothing
		}
		if matchesAny(tool.Records, pointer) {
			records = append(records, l)
		} else {
			text = append(text, l)
		}
	})
	if _, structured := doc.(string); structured { // one text, not a list of values
		for i := range text {
			text[i].whole = false
		}
	}
	t.result(ambit.Record, from, tool.Name, event, records)
	t.result(ambit.Untrusted, from, tool.Name, event, text)
}

// result notes the leaves of a result with one label. What the same tool has
// answered before adds nothing: it stays where it is, and is remembered as if it
// had come now.
func (t *Task) result(label ambit.Label, from, tool string, event uint64, leaves []leaf) {
	if len(leaves) == 0 {
		return
	}
	id := identify(label, tool, leaves)
	t.mu.Lock()
	same := t.byID[id]
	if same != nil {
		t.seen++
		same.last = t.seen
		t.tainted = t.tainted || label == ambit.Untrusted
	}
	t.mu.Unlock()
	if same != nil {
		return
	}
	s := newSource(t.seed, label, from, tool, event, leaves)
	s.id = id
	t.add(s)
}

// identify makes the same of two results only if they say the same.
func identify(label ambit.Label, tool string, leaves []leaf) (id [32]byte) {
	h := sha256.New()
	say := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		_, _ = h.Write(n[:])
		_, _ = io.WriteString(h, s)
	}
	say(string(label))
	say(tool)
	for _, l := range leaves {
		say(l.text)
		say(l.key)
		say(strconv.FormatBool(l.whole) + strconv.FormatBool(l.number))
	}
	h.Sum(id[:0])
	return id
}

func (t *Task) add(s *source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen++
	s.last = t.seen
	if s.id != [32]byte{} {
		t.byID[s.id] = s
	}
	t.sources = append(t.sources, s)
	t.shelve(s)
	t.size += len(s.text) + sourceCost
	t.tainted = t.tainted || s.label == ambit.Untrusted
	for t.size > maxSeen {
		i := t.oldest()
		t.size -= len(t.sources[i].text) + sourceCost
		old := t.sources[i]
		if t.byID[old.id] == old {
			delete(t.byID, old.id)
		}
		t.unshelve(old)
		t.sources = slices.Delete(t.sources, i, i+1)
	}
}

// oldest is the untrusted source that was seen longest ago, or the first of all if
// none is untrusted.
func (t *Task) oldest() int {
	found := -1
	for i, s := range t.sources {
		if s.label == ambit.Untrusted && (found < 0 || s.last < t.sources[found].last) {
			found = i
		}
	}
	return max(found, 0)
}

// Origin is where one value of a call came from, as far as that was found.
type Origin struct {
	Argument string      // JSON pointer into the arguments
	Value    string      // as it is in the call
	Label    ambit.Label // the best of what was found
	From     string      // "what you wrote", "the result of shop.tickets.get"; "" if it was not found
	Tool     string      // whose result it is; ""
	Event    uint64      // that brought it
	How      How
}

// How says how a value stands in its source.
type How string

// The ways, from the closest.
const (
	Exact      How = "exact"      // the same characters
	Normalised How = "normalised" // but for case, width, spaces and invisible characters
	Decoded    How = "decoded"    // after base64, hexadecimal or percent-encoding
	Nowhere    How = ""           // not found
)

// Provenance is the origin as events have it.
func (o Origin) Provenance() ambit.Provenance {
	p := ambit.Provenance{Value: o.Argument, Event: o.Event}
	switch {
	case o.How == Nowhere:
		p.Source = "unknown"
	case o.Label == ambit.Person:
		p.Source = "person"
	case o.Label == ambit.Record:
		p.Source = "record"
	default:
		p.Source = "text"
	}
	return p
}

// rank orders labels from the best.
func rank(l ambit.Label) int {
	switch l {
	case ambit.Person:
		return 0
	case ambit.Record:
		return 1
	}
	return 2
}

// Trace finds the best origin of one value.
func (t *Task) Trace(argument, value string) Origin {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.trace(argument, value)
}

// trace is Trace for those who hold mu.
func (t *Task) trace(argument, value string) Origin {
	return t.traceFolded(argument, value, fold(value))
}

// traceFolded is trace for those who have folded the value.
func (t *Task) traceFolded(argument, value, folded string) Origin {
	return t.lookup(argument, value, folded, true)
}

// lookup is trace; the case of a path matters if exact. A trusted source must have
// the value itself: what a part of it decodes to is not what is sent.
func (t *Task) lookup(argument, value, folded string, exact bool) Origin {
	o := Origin{Argument: argument, Value: value}
	q := newQuery(t.seed, value, folded)
	itself, path := q.itself(), pathOf(value)
	for _, on := range t.shelves {
		if !on.filter.mayHaveAny(&q) {
			continue
		}
		for _, s := range on.sources {
			in := &q
			if s.label.Trusted() {
				in = &itself
			}
			how := s.find(*in)
			if how == Nowhere || exact && how == Normalised && s.label.Trusted() && !strings.Contains(s.raw, path) {
				continue
			}
			if o.How == Nowhere || rank(s.label) < rank(o.Label) {
				o.Label, o.From, o.Tool, o.Event, o.How = s.label, s.from, s.tool, s.event, how
			}
			if s.label == ambit.Person {
				return o
			}
		}
	}
	return o
}

// itself is the query for the value alone, and not for what it decodes to. A
// number that is written in another way ("007") is another name.
func (q query) itself() query {
	q.forms = q.forms[:1]
	if q.numeric != q.forms[0].text {
		q.numeric, q.number = "", 0
	}
	return q
}

// pathOf is what stands in an address behind its host, or all of a path: in it
// another case is another thing.
func pathOf(value string) string {
	value = strings.TrimSpace(value)
	if _, rest, ok := strings.Cut(value, "://"); ok {
		value = rest
	}
	i := strings.IndexByte(value, '/')
	if i < 0 {
		return ""
	}
	return strings.TrimSuffix(value[i:], "/")
}

// brief is a value that is shown.
func brief(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// eachLeaf calls f with each value that is no object and no list.
func eachLeaf(v any, pointer string, f func(pointer string, v any)) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			eachLeaf(v[k], pointer+"/"+escape(k), f)
		}
	case []any:
		for i, e := range v {
			eachLeaf(e, pointer+"/"+strconv.Itoa(i), f)
		}
	default:
		f(pointer, v)
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	return keys
}

// escape writes a name as a part of a JSON pointer (RFC 6901).
func escape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

func lastOf(pointer string) string {
	parts := strings.Split(pointer, "/")
	for i := len(parts) - 1; i > 0; i-- {
		if _, err := strconv.Atoi(parts[i]); err != nil {
			return parts[i]
		}
	}
	return ""
}

// matchesAny reports whether a pointer is at or below one of the patterns, in
// which "*" is any one part.
func matchesAny(patterns []string, pointer string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pointer) })
}

func matches(pattern, pointer string) bool {
	for pattern != "" {
		if pointer == "" {
			return false
		}
		var a, b string
		a, pattern = part(pattern)
		b, pointer = part(pointer)
		if a != "*" && a != b {
			return false
		}
	}
	return true
}

func part(pointer string) (first, rest string) {
	pointer = strings.TrimPrefix(pointer, "/")
	if i := strings.IndexByte(pointer, '/'); i >= 0 {
		return pointer[:i], pointer[i:]
	}
	return pointer, ""
}
