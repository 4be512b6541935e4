package tool

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"ambit"
	"ambit/internal/cedartext"
	"ambit/internal/hostname"
	"ambit/internal/money"
)

//go:embed roles/*.cedar gates.cedar
var files embed.FS

const (
	typeAgent  = types.EntityType("Agent")
	typeAction = types.EntityType("Action")
	typeTool   = types.EntityType("Tool")
	typeSource = types.EntityType("Source")
	typeEffect = types.EntityType("Effect")

	maxRules = 10_000
)

// Roles are the roles that there are.
func Roles() []string { return []string{"finance", "operations", "research", "sales", "support"} }

// RoleText is the role as it is documented and compiled.
func RoleText(role string) (string, bool) {
	if !slices.Contains(Roles(), role) {
		return "", false
	}
	b, err := files.ReadFile("roles/" + role + ".cedar")
	return string(b), err == nil
}

// Set is a compiled policy. It is safe for concurrent use.
type Set struct {
	principal, action types.EntityUID

	byTool, bySource map[string][]*rule
	byEffect         map[ambit.Effect][]*rule
	always           []*rule
	rules            map[cedar.PolicyID]*rule

	replaced    map[string]bool           // tools whose default gates an approval replaces
	widened     map[string][]ambit.Effect // by tool
	askAbove    map[string]money.Amount
	inside      map[string]bool
	insideBelow map[string]bool // what follows "*."
}

// rule is one Cedar policy and what it means to Ambit.
type rule struct {
	id     cedar.PolicyID
	policy *cedar.Policy
	order  int
	source string // the policy's text
	label  string
	kind   ruleKind
	own    bool // the operator's Cedar
	exact  bool // for one tool only
	reads  reads

	ask    *ambit.Ask // of what asks; its Reason without what depends on the call
	why    string     // of a gate, a role, own Cedar: the reason, or ""
	effect string     // of a role: what widen takes
	scopes []scope
	limit  *Limit
	meter  Meter        // of a limit with a window
	key    types.String // of the meter
	above  *money.Price
	count  int
}

type ruleKind uint8

const (
	permits ruleKind = iota + 1
	denies           // an entry of tools with deny
	scopes           // an argument out of scope
	limits
	role
	asks   // gates and approvals
	forbid // own Cedar
)

type scope struct {
	name    string
	key     types.String // of what is there
	pointer pointer
}

// Compile makes a Set. It refuses a rule that could not do what it says; the
// error starts with the rule's label. Own Cedar is refused with its line.
func Compile(c Config) (*Set, error) {
	s := &Set{
		principal: types.NewEntityUID(typeAgent, types.String(c.Agent)),
		action:    types.NewEntityUID(typeAction, "call"),
		byTool:    map[string][]*rule{}, bySource: map[string][]*rule{}, byEffect: map[ambit.Effect][]*rule{}, rules: map[cedar.PolicyID]*rule{},
		replaced: map[string]bool{}, widened: map[string][]ambit.Effect{}, askAbove: maps.Clone(c.AskAbove),
		inside: map[string]bool{}, insideBelow: map[string]bool{},
	}
	if len(c.Tools)+len(c.Limits)+len(c.Approvals) > maxRules {
		return nil, fmt.Errorf("there are more than %d rules about tools", maxRules)
	}
	for _, d := range c.Inside {
		if err := s.addInside(d); err != nil {
			return nil, err
		}
	}
	if err := s.addEntries(c.Tools); err != nil {
		return nil, err
	}
	if err := s.addRole(c.Role); err != nil {
		return nil, err
	}
	if err := s.addLimits(c.Limits); err != nil {
		return nil, err
	}
	if err := s.addApprovals(c.Approvals); err != nil {
		return nil, err
	}
	if err := s.addGates(); err != nil {
		return nil, err
	}
	if c.Cedar != "" {
		if err := s.addOwn(&c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Cedar is all policies as one text, for people: what is decided is exactly
// this, with a context that has what is at the pointers ("at /customer_id") and
// the running totals with this call ("total effect spend EUR 24h0m0s").
func (s *Set) Cedar() string {
	if s == nil {
		return ""
	}
	all := slices.SortedFunc(maps.Values(s.rules), func(a, b *rule) int { return a.order - b.order })
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "// %s\n%s\n\n", r.label, strings.TrimSpace(r.source))
	}
	return b.String()
}

func (s *Set) addInside(d string) error {
	name, below := strings.CutPrefix(d, "*.")
	canonical, err := hostname.Canonical(name)
	if err != nil || canonical != name || hostname.IsIP(name) || !strings.Contains(name, ".") {
		return fmt.Errorf("inside: %s is not a domain in lower case, as acme.example or *.acme.example", strconv.QuoteToASCII(d))
	}
	if below {
		s.insideBelow[name] = true
	} else {
		s.inside[name] = true
	}
	return nil
}

// add compiles the rule's text and files it by its place.
func (s *Set) add(r *rule, p place) error {
	if r.policy == nil {
		r.policy = &cedar.Policy{}
		if err := r.policy.UnmarshalCedar([]byte(r.source)); err != nil {
			return fmt.Errorf("%s: making its policy: %w", r.label, err)
		}
	}
	r.order, r.reads = len(s.rules), readsOf(r.source)
	r.id = cedar.PolicyID("policy" + strconv.Itoa(r.order))
	s.rules[r.id] = r
	switch {
	case p.tool != "":
		r.exact = true
		s.byTool[p.tool] = append(s.byTool[p.tool], r)
	case p.source != "":
		s.bySource[p.source] = append(s.bySource[p.source], r)
	case p.effect != "":
		s.byEffect[p.effect] = append(s.byEffect[p.effect], r)
	default:
		s.always = append(s.always, r)
	}
	return nil
}

// place is what a rule is for; one of the three, or everything.
type place struct {
	tool, source string
	effect       ambit.Effect
}

func parsePlace(tool string, effect ambit.Effect) (place, error) {
	switch source, below := strings.CutSuffix(tool, ".*"); {
	case tool == "" && effect == "":
		return place{}, errors.New("names neither a tool nor an effect")
	case tool != "" && effect != "":
		return place{}, errors.New("names a tool and an effect; write two rules")
	case effect != "" && !slices.Contains(cedartext.Effects(), string(effect)):
		return place{}, fmt.Errorf("there is no effect %s", strconv.QuoteToASCII(string(effect)))
	case effect != "":
		return place{effect: effect}, nil
	case below && cedartext.SourceName(source):
		return place{source: source}, nil
	case cedartext.ToolName(tool):
		return place{tool: tool}, nil
	}
	return place{}, fmt.Errorf("%s is not the name of a tool; write it fully qualified in lower case, as shop.orders.get, or shop.* for all of a source", strconv.QuoteToASCII(tool))
}

// cedar is the place as the scope of a policy.
func (p place) cedar() string {
	switch {
	case p.tool != "":
		return `(principal, action, resource == Tool::"` + p.tool + `")`
	case p.source != "":
		return `(principal, action, resource in Source::"` + p.source + `")`
	}
	return `(principal, action, resource in Effect::"` + string(p.effect) + `")`
}

func (p place) String() string {
	switch {
	case p.tool != "":
		return "tool " + p.tool
	case p.source != "":
		return "source " + p.source
	}
	return "effect " + string(p.effect)
}

func (s *Set) addEntries(entries []Entry) error {
	seen := map[place]string{}
	for i := range entries {
		e := &entries[i]
		p, err := parsePlace(e.Tool, "")
		if err != nil {
			return fmt.Errorf("%s: %w", e.Label, err)
		}
		if other, twice := seen[p]; twice {
			return fmt.Errorf("%s: is for the same tool as %s; put both into one entry", e.Label, other)
		}
		seen[p] = e.Label
		if err := s.addEntry(e, p); err != nil {
			return fmt.Errorf("%s: %w", e.Label, err)
		}
	}
	return nil
}

func (s *Set) addEntry(e *Entry, p place) error {
	if e.Deny {
		if len(e.Scope)+len(e.Widen) > 0 {
			return errors.New("denies the tool, so that scope and widen have no use")
		}
		return s.add(&rule{label: e.Label, kind: denies, source: "forbid " + p.cedar() + ";"}, p)
	}
	if err := s.add(&rule{label: e.Label, kind: permits, source: "permit " + p.cedar() + ";"}, p); err != nil {
		return err
	}
	if len(e.Widen) > 0 {
		if p.tool == "" {
			return errors.New("widen needs one exact tool")
		}
		s.widened[p.tool] = slices.Clone(e.Widen)
	}
	for _, path := range slices.Sorted(maps.Keys(e.Scope)) {
		at, err := parsePointer(path)
		if err != nil || len(at) == 0 {
			return fmt.Errorf("scope: %s is not a JSON pointer to an argument", strconv.QuoteToASCII(path))
		}
		values := make([]string, len(e.Scope[path]))
		for i, v := range e.Scope[path] {
			values[i] = cedarString(v)
		}
		key := "context[" + cedarString(atKey(path)) + "]"
		r := &rule{
			label: e.Label, kind: scopes, scopes: []scope{{path, types.String(atKey(path)), at}},
			source: "forbid " + p.cedar() + " unless { !" + key + ".isEmpty() && [" + strings.Join(values, ", ") + "].containsAll(" + key + ") };",
		}
		if err := s.add(r, p); err != nil {
			return err
		}
	}
	return nil
}

// cedarString quotes s for Cedar, which knows \u{...} where Go writes \u....
func cedarString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r > '~':
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func cedarDecimal(a money.Amount) string {
	return fmt.Sprintf(`decimal("%d.%04d")`, a/money.Unit, a%money.Unit)
}

func (s *Set) addRole(name string) error {
	if name == "" {
		return nil
	}
	src, ok := RoleText(name)
	if !ok {
		return fmt.Errorf("there is no role %s; the roles are: %s", strconv.QuoteToASCII(name), strings.Join(Roles(), ", "))
	}
	return s.addFile(src, func(r *rule) place {
		r.label, r.kind = "role "+name+": "+r.label, role
		return place{}
	})
}

func (s *Set) addGates() error {
	src, err := files.ReadFile("gates.cedar")
	if err != nil {
		return fmt.Errorf("reading the gates: %w", err)
	}
	return s.addFile(string(src), func(r *rule) place {
		r.kind = asks
		r.ask = &ambit.Ask{Rule: r.label}
		return place{effect: ambit.Effect(strings.TrimPrefix(r.label, "gate."))}
	})
}

// addFile adds the policies of a file of ours.
func (s *Set) addFile(src string, finish func(*rule) place) error {
	list, err := cedar.NewPolicyListFromBytes("", []byte(src))
	if err != nil {
		return fmt.Errorf("reading a policy of Ambit's own: %w", err)
	}
	for _, p := range list {
		a := p.Annotations()
		r := &rule{policy: p, label: string(a["rule"]), effect: string(a["effect"]), why: string(a["reason"]), source: string(p.MarshalCedar())}
		if err := s.add(r, finish(r)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) addLimits(all []Limit) error {
	type bound struct {
		place
		currency string
		window   time.Duration
	}
	seen := map[bound]string{}
	for i := range all {
		l := all[i]
		p, err := parsePlace(l.Tool, l.Effect)
		if err == nil {
			err = checkLimit(&l)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.Label, err)
		}
		r := &rule{label: l.Label, kind: limits, limit: &l}
		b := bound{place: p, window: l.Window}
		r.meter = Meter{Series: Series{Of: p.String()}, Window: l.Window}
		condition := "true"
		if l.Price != nil {
			b.currency = l.Price.Currency
			r.meter.Currency = l.Price.Currency
			condition = `context has amount && context.currency == "` + l.Price.Currency + `"`
			if l.Window == 0 {
				condition += " && context.amount.lessThanOrEqual(" + cedarDecimal(l.Price.Amount) + ")"
			}
		}
		r.key = types.String(r.meter.key())
		if l.Window > 0 {
			most := money.Amount(l.Calls) * money.Unit
			if l.Price != nil {
				most = l.Price.Amount
			}
			condition += " && context[" + cedarString(r.meter.key()) + "].lessThanOrEqual(" + cedarDecimal(most) + ")"
		}
		if other, twice := seen[b]; twice {
			return fmt.Errorf("%s: bounds the same as %s; keep one", l.Label, other)
		}
		seen[b] = l.Label
		r.source = "forbid " + p.cedar() + " unless { " + condition + " };"
		if err := s.add(r, p); err != nil {
			return err
		}
	}
	return nil
}

func checkLimit(l *Limit) error {
	switch {
	case l.Window < 0 || l.Window > 24*time.Hour:
		return errors.New("the window is not within 24 hours")
	case l.Price == nil && (l.Window == 0 || l.Calls < 0 || l.Calls > 1_000_000):
		return errors.New("bounds neither an amount nor a number of calls over a time")
	case l.Price != nil && (!money.Currency(l.Price.Currency) || l.Price.Amount < 0):
		return errors.New("the amount has no currency of three capital letters")
	}
	return nil
}

// key names the meter within a context.
func (m Meter) key() string { return "total " + m.Of + " " + m.Currency + " " + m.Window.String() }

func (s *Set) addApprovals(all []Approval) error {
	for i := range all {
		a := &all[i]
		p, err := parsePlace(a.Tool, a.Effect)
		if err == nil {
			err = checkApproval(a, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.Label, err)
		}
		if p.tool != "" {
			s.replaced[p.tool] = true
		}
		if a.Nobody {
			continue
		}
		r := &rule{label: a.Label, kind: asks, above: a.Above, count: a.Count, ask: &ambit.Ask{
			Rule: a.Label, From: slices.Clone(a.From), People: a.People, Expires: a.Expires,
		}}
		condition := ""
		switch {
		case a.Above != nil:
			condition = ` unless { context has amount && context.currency == "` + a.Above.Currency + `" && context.amount.lessThanOrEqual(` + cedarDecimal(a.Above.Amount) + ") }"
		case a.Count > 0:
			condition = " unless { context has count && context.count <= " + strconv.Itoa(a.Count) + " }"
		}
		r.source = "forbid " + p.cedar() + condition + ";"
		if err := s.add(r, p); err != nil {
			return err
		}
	}
	return nil
}

func checkApproval(a *Approval, p place) error {
	switch {
	case a.Above != nil && a.Count != 0:
		return errors.New("has two conditions; write two entries")
	case a.Above != nil && (!money.Currency(a.Above.Currency) || a.Above.Amount < 0) || a.Count < 0:
		return errors.New("has a condition that cannot be read")
	case a.Nobody && p.tool == "":
		return errors.New("asks nobody for more than one exact tool; name each tool by itself")
	case a.Nobody && (a.Above != nil || a.Count != 0 || len(a.From) > 0 || a.People != 0 || a.Expires != 0):
		return errors.New("asks nobody, so that nothing else has a use")
	case a.People < 0 || a.Expires < 0:
		return errors.New("has a number below zero")
	}
	return nil
}

func (s *Set) addOwn(c *Config) error {
	list, err := cedartext.Parse(c.Cedar)
	if e, ok := cedartext.AsError(err); ok {
		return fmt.Errorf("cedar (%s): %w", c.where(e.Line), err)
	}
	if err != nil {
		return fmt.Errorf("cedar: %w", err)
	}
	for i := range list {
		p := &list[i]
		name := p.Name
		if name == "" {
			name = "policy " + strconv.Itoa(i)
		}
		r := &rule{
			label: "cedar " + name + " (" + c.where(p.Line) + ")", kind: forbid, own: true,
			policy: p.Policy, source: string(p.MarshalCedar()), why: p.Reason,
		}
		if p.Effect() == cedar.Permit {
			r.kind = permits
		} else if p.Asks {
			r.kind = asks
			r.ask = &ambit.Ask{Rule: r.label, From: p.From, People: p.People, Expires: p.Expires}
		}
		if err := s.add(r, place{p.Tool, p.Source, ambit.Effect(p.On)}); err != nil {
			return err
		}
	}
	return nil
}

// where is a line of the operator's Cedar as they find it.
func (c *Config) where(line int) string {
	line += c.CedarLine
	if c.CedarFile == "" {
		return "line " + strconv.Itoa(line)
	}
	return c.CedarFile + ":" + strconv.Itoa(line)
}
