package alert

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit"
	"ambit/policy"
)

// Field is a field of an event by which a rule tells one thing from another.
// The zero value is none: everything is the same thing.
type Field string

// The fields.
const (
	ByHost       Field = "host"
	ByTool       Field = "tool"
	ByConnection Field = "connection"
	ByPrincipal  Field = "principal"
	ByAgent      Field = "agent" // of a book that has events of several
	ByResource   Field = "resource"
)

// of is the field's value in an event.
func (f Field) of(e *ambit.Event) string {
	switch f {
	case ByHost:
		return e.Host
	case ByTool:
		return e.Tool
	case ByConnection:
		return e.Connection
	case ByPrincipal:
		return string(e.Principal)
	case ByAgent:
		return string(e.Agent)
	case ByResource:
		return e.Resource
	}
	return ""
}

// MaxCount is the largest Count of a rule.
const MaxCount = 1000

// Rule makes alerts of events. All of its conditions must hold.
type Rule struct {
	// Name is the code of its alerts: 1 to 40 of a-z, 0-9 and -.
	Name     string
	Severity ambit.Severity
	Kinds    []ambit.Kind // of events that it looks at; never empty
	When     Condition
	// Count is how many events within Within it takes, 1 to MaxCount; 0 is 1.
	// Each of them beyond the first Count is counted in the same alert.
	Count  int
	Within time.Duration
	// Per says what is counted by itself, and has an alert of its own.
	Per Field
	// First makes it a rule about values of this field that the agent never had
	// before. It takes no Count.
	First Field
}

// Condition is what an event must have. What is nil or zero is no condition.
type Condition struct {
	Decision    string // "allow" or "deny"
	Hosts       []string
	Methods     []string
	Paths       []string // patterns as in a rule of egress
	Tools       []string // names; a star at the end stands for any text
	Effects     []ambit.Effect
	Connections []string
	Codes       []string // of the reason
	Principals  []ambit.Principal
	// StatusFrom to StatusTo is a range of an outcome's status.
	StatusFrom, StatusTo int
	IntentMissing        bool // no intent is stated
}

// Tuning changes what the catalogue of alerts says about one of them.
type Tuning struct {
	Code     string // of ambit.AlertCatalogue
	Off      bool
	Severity *ambit.Severity // nil leaves it
	Count    int             // 0 leaves it; only where the catalogue has one
	Within   time.Duration   // 0 leaves it
}

// compiled is a rule that is ready to be asked. It does not change.
type compiled struct {
	Rule
	own   bool // of the operator, not of the catalogue
	off   bool // what it remembers is remembered; nobody is told
	paths []policy.Path
}

func compile(r Rule) (*compiled, error) {
	c := &compiled{Rule: r, own: true}
	c.Count = max(c.Count, 1)
	switch {
	case r.Name == "" || strings.ContainsAny(r.Name, " \t\n"):
		return nil, errors.New("a rule needs a name of one word")
	case len(r.Kinds) == 0:
		return nil, fmt.Errorf("the rule %s looks at no kind of event", r.Name)
	case slices.ContainsFunc(r.Kinds, ofAlerts):
		return nil, fmt.Errorf("the rule %s looks at alerts, and would feed on itself", r.Name)
	case c.Count > MaxCount || c.Count > 1 && r.Within <= 0:
		return nil, fmt.Errorf("the rule %s has no count that can be kept", r.Name)
	case r.First != "" && c.Count > 1:
		return nil, fmt.Errorf("the rule %s counts what is there only once", r.Name)
	}
	for _, text := range r.When.Paths {
		p, err := policy.CompilePath(text)
		if err != nil {
			return nil, fmt.Errorf("the rule %s: %w", r.Name, err)
		}
		c.paths = append(c.paths, p)
	}
	return c, nil
}

func ofAlerts(k ambit.Kind) bool {
	return k == ambit.KindAlert || k == ambit.KindAlertAck || k == ambit.KindAlertMute
}

// matches judges one event, without memory. It keeps nothing of e.
func (c *compiled) matches(e *ambit.Event) bool {
	w := &c.When
	switch {
	case w.Decision != "" && w.Decision != e.Decision.String(),
		w.Hosts != nil && !slices.ContainsFunc(w.Hosts, func(h string) bool { return hostMatches(h, e.Host) }),
		w.Methods != nil && !slices.Contains(w.Methods, e.Method),
		w.Tools != nil && !slices.ContainsFunc(w.Tools, func(t string) bool { return toolMatches(t, e.Tool) }),
		w.Connections != nil && !slices.Contains(w.Connections, e.Connection),
		w.Principals != nil && !slices.Contains(w.Principals, e.Principal),
		w.Effects != nil && !slices.ContainsFunc(w.Effects, func(x ambit.Effect) bool { return slices.Contains(e.Effects, x) }),
		w.Codes != nil && (e.Reason == nil || !slices.Contains(w.Codes, e.Reason.Code)),
		w.StatusTo != 0 && (e.Status < w.StatusFrom || e.Status > w.StatusTo),
		w.IntentMissing && e.Intent != "":
		return false
	}
	if c.paths == nil {
		return true
	}
	path := pathOf(e.URL)
	for i := range c.paths {
		if c.paths[i].Match(path) {
			return true
		}
	}
	return false
}

// hostMatches is for "name" and "*.name".
func hostMatches(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

func toolMatches(pattern, tool string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return tool != "" && strings.HasPrefix(tool, prefix)
	}
	return pattern == tool
}

// pathOf is the path of a URL as ambit.Request.URL writes it.
func pathOf(url string) string {
	_, rest, found := strings.Cut(url, "://")
	if !found {
		return ""
	}
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		rest = rest[:i]
	}
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return ""
	}
	return rest[i:]
}
