package audit

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit"
)

// Query says which events to find: those for which everything holds that is not
// zero. A list holds for an event that has any of its values. The zero value
// finds the first events.
type Query struct {
	Kinds    []ambit.Kind    `json:"kinds,omitempty"`
	Decision *ambit.Decision `json:"decision,omitempty"`
	Since    time.Time       `json:"since,omitzero"`    // not older than this
	Until    time.Time       `json:"until,omitzero"`    // older than this
	After    *uint64         `json:"after,omitempty"`   // position above this
	Before   *uint64         `json:"before,omitempty"`  // position below this
	Limit    int             `json:"limit,omitempty"`   // at most this many; 10,000 if 0 or more than that
	Newest   bool            `json:"newest,omitempty"`  // newest first; otherwise oldest first
	ReadAll  bool            `json:"readAll,omitempty"` // read every event instead of asking the index

	Actions     []ambit.Action    `json:"actions,omitempty"`
	Methods     []string          `json:"methods,omitempty"`
	Hosts       []string          `json:"hosts,omitempty"` // and those below them: example.com is also api.example.com
	Tools       []string          `json:"tools,omitempty"`
	Principals  []ambit.Principal `json:"principals,omitempty"`
	Rules       []string          `json:"rules,omitempty"`
	Statuses    []int             `json:"statuses,omitempty"`
	Connections []string          `json:"connections,omitempty"`
	Tasks       []string          `json:"tasks,omitempty"`
	Effects     []ambit.Effect    `json:"effects,omitempty"`
	Subjects    []ambit.Subject   `json:"subjects,omitempty"` // whom it touches, in the clear
	// Intent is words that the stated intent must all have; see Text.
	Intent string `json:"intent,omitempty"`
	// Text is words that URL, intent, tool, resource, reason and detail together
	// must all have: whole ones, of two bytes or more, whatever their case.
	// Words "in quotes" must follow each other in one of these.
	Text string `json:"text,omitempty"`
}

// test is one condition of a query.
type test struct {
	// holds says whether one event meets it.
	holds func(*ambit.Event) bool
	// terms: every event that meets it has one of them or is marked as unread.
	// nil if the index does not know.
	terms []uint64
	// columns: what is known without the body is enough.
	columns bool
}

// matcher is a query that was taken apart. Its tests are in the order in which
// the index is asked: what is rare comes first.
type matcher struct {
	tests    []test
	subjects []string // hashes of the query's subjects
	all      bool     // the index is not asked
	counts   bool     // parts say how many events are incomplete
}

// errNoWords: the query asks for text without a word that could be looked for.
var errNoWords = errors.New("there is no word of two bytes or more in what is to be found")

func (l *Log) matcher(q *Query) (*matcher, error) {
	h := l.index.keys.hasher()
	m := &matcher{all: q.ReadAll}
	for _, s := range q.Subjects {
		m.subjects = append(m.subjects, l.keys.subject(s))
	}
	list(m, h, termSubject, m.subjects, func(e *ambit.Event, v string) bool { return slices.Contains(e.Subjects, v) })
	if err := m.text(h, q.Text, false); err != nil {
		return nil, err
	}
	if err := m.text(h, q.Intent, true); err != nil {
		return nil, err
	}
	list(m, h, termTask, q.Tasks, func(e *ambit.Event, v string) bool { return e.Task == v })
	var hosts []string
	for _, host := range q.Hosts {
		hosts = append(hosts, strings.ToLower(strings.Trim(host, ".")))
	}
	list(m, h, termHost, hosts, hostIs)
	list(m, h, termTool, q.Tools, func(e *ambit.Event, v string) bool { return e.Tool == v })
	list(m, h, termConnection, q.Connections, func(e *ambit.Event, v string) bool { return e.Connection == v })
	list(m, h, termRule, q.Rules, func(e *ambit.Event, v string) bool { return e.Rule == v })
	var statuses []string
	for _, s := range q.Statuses {
		statuses = append(statuses, strconv.Itoa(s))
	}
	list(m, h, termStatus, statuses, func(e *ambit.Event, v string) bool { return e.Status != 0 && strconv.Itoa(e.Status) == v })
	list(m, h, termPrincipal, q.Principals, func(e *ambit.Event, v ambit.Principal) bool { return e.Principal == v })
	list(m, h, termMethod, q.Methods, func(e *ambit.Event, v string) bool { return e.Method == v })
	list(m, h, termEffect, q.Effects, func(e *ambit.Event, v ambit.Effect) bool { return slices.Contains(e.Effects, v) })
	list(m, h, termAction, q.Actions, func(e *ambit.Event, v ambit.Action) bool { return e.Action == v })
	columns := len(m.tests)
	list(m, h, termKind, q.Kinds, func(e *ambit.Event, v ambit.Kind) bool { return e.Kind == v })
	if q.Decision != nil {
		list(m, h, termDecision, []string{q.Decision.String()}, func(e *ambit.Event, v string) bool { return e.Decision.String() == v })
	}
	for i := columns; i < len(m.tests); i++ {
		m.tests[i].columns = true
	}
	return m, nil
}

// list adds the condition that an event has one of some values.
func list[T ~string](m *matcher, h *hasher, field byte, values []T, has func(*ambit.Event, T) bool) {
	if len(values) == 0 {
		return
	}
	t := test{holds: func(e *ambit.Event) bool {
		return slices.ContainsFunc(values, func(v T) bool { return has(e, v) })
	}}
	for _, v := range values {
		if v == "" { // what is not there has no term
			t.terms = nil
			break
		}
		t.terms = append(t.terms, h.term(field, string(v)))
	}
	m.tests = append(m.tests, t)
}

func hostIs(e *ambit.Event, host string) bool {
	is := strings.ToLower(e.Host)
	return is == host || host != "" && strings.HasSuffix(is, host) && is[len(is)-len(host)-1] == '.'
}

// text adds the conditions of words and phrases.
func (m *matcher) text(h *hasher, s string, intent bool) error {
	if s == "" {
		return nil
	}
	found := false
	for i, part := range strings.Split(s, `"`) {
		words := wordsOf(part)
		phrase := i%2 == 1 && len(words) > 1
		for _, w := range words {
			found = true
			t := test{terms: []uint64{h.term(termWord, w)}}
			if !phrase {
				t.holds = func(e *ambit.Event) bool { return hasWords(e, intent, []string{w}) }
			} else {
				t.holds = func(*ambit.Event) bool { return true }
			}
			m.tests = append(m.tests, t)
		}
		if phrase {
			m.tests = append(m.tests, test{holds: func(e *ambit.Event) bool { return hasWords(e, intent, words) }})
		}
	}
	if !found {
		return errNoWords
	}
	return nil
}

// hasWords says whether one of the event's texts has these words one after the
// other.
func hasWords(e *ambit.Event, intent bool, want []string) (found bool) {
	in := func(s string) bool {
		var last []string // the words before, as many as are compared
		eachWord(s, func(w []byte) bool {
			if len(want) == 1 {
				found = string(w) == want[0]
				return !found
			}
			if len(last) == len(want) {
				copy(last, last[1:])
				last = last[:len(want)-1]
			}
			last = append(last, string(w))
			found = slices.Equal(last, want)
			return !found
		})
		return !found
	}
	if intent {
		in(e.Intent)
	} else {
		eachText(e, in)
	}
	return found
}

// matches says whether every condition holds for one of the events.
func (m *matcher) matches(chain ...*ambit.Event) bool {
	for i := range m.tests {
		if !slices.ContainsFunc(chain, m.tests[i].holds) {
			return false
		}
	}
	return true
}

// onlyColumns says whether the query is about nothing but columns.
func (m *matcher) onlyColumns() bool {
	return !slices.ContainsFunc(m.tests, func(t test) bool { return !t.columns })
}
