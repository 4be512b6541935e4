package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit"
	"ambit/internal/cedartext"
	"ambit/internal/hostname"
	"ambit/internal/money"
	"ambit/internal/strictyaml"
)

// Tool is an entry of tools: what the agent may call, or may not.
type Tool struct {
	Index int    // position in tools, from 0
	Line  int    // line in the file, from 1
	Tool  string // a fully qualified name, or "source.*"; unique in the list
	Deny  bool
	// Scope has arguments by JSON pointer, each with the values that it may have.
	Scope  map[string][]Value
	Limits Bounds
	Widen  []ambit.Effect // what the role does not judge for this tool
}

// Label names the entry so that an operator finds it: "tools[2] (line 14)".
func (t *Tool) Label() string { return fmt.Sprintf("tools[%d] (line %d)", t.Index, t.Line) }

// Value is a text, or a whole number or truth value as it is written.
type Value struct {
	Text   string
	IsText bool
}

// Bounds are limits; nil and 0 are none.
type Bounds struct {
	PerCall, PerHour, PerDay  *money.Price
	CallsPerHour, CallsPerDay int
}

// Limit is an entry of limits.
type Limit struct {
	Index  int
	Line   int
	Tool   string       // or Effect
	Effect ambit.Effect //
	Bounds
	AskAbove *money.Price // only with the effect spend
}

// Label names the entry so that an operator finds it: "limits[0] (line 20)".
func (l *Limit) Label() string { return fmt.Sprintf("limits[%d] (line %d)", l.Index, l.Line) }

// Approval is an entry of approvals: when people are asked.
type Approval struct {
	Index   int
	Line    int
	Tool    string       // or Effect
	Effect  ambit.Effect //
	Above   *money.Price // asks for more than this
	Count   int          // asks for more things than this; 0 is no condition
	Nobody  bool         // nobody is asked
	Ask     []string     // who; empty is whoever may deploy the agent
	People  int          // how many of them, 1 or 2
	Expires time.Duration
}

// Label names the entry so that an operator finds it: "approvals[0] (line 20)".
func (a *Approval) Label() string { return fmt.Sprintf("approvals[%d] (line %d)", a.Index, a.Line) }

// Cedar is the operator's own policy.
type Cedar struct {
	Text string
	Line int // of the file, before the first line of Text
}

const (
	maxTools        = 2000
	maxScopeValues  = 256
	maxScopeValue   = 256
	maxInside       = 256
	maxAsked        = 16
	maxExpires      = 7 * 24 * time.Hour
	toolExample     = "write for example tool: shop.orders.get"
	whenExample     = "write amount > 50 EUR, count > 10, or always"
	priceExample    = "write for example 50 EUR"
	inHand          = "put both into one entry, or remove one of them"
	oneOfToolEffect = "write one of them, and a second entry for the other"
)

var (
	toolKeys     = []string{"tool", "deny", "scope", "limits", "widen"}
	boundKeys    = []string{"perCall", "perHour", "perDay", "callsPerHour", "callsPerDay"}
	limitKeys    = []string{"tool", "effect", "perCall", "perHour", "perDay", "callsPerHour", "callsPerDay", "askAbove"}
	approvalKeys = []string{"tool", "effect", "when", "ask", "people", "expires"}
	roles        = []string{"finance", "operations", "research", "sales", "support"}

	amountWhen = pattern(`^amount > ([0-9.]+ [A-Z]{3})$`)
	countWhen  = pattern(`^count > ([1-9][0-9]{0,5})$`)
	expiresIn  = pattern(`^([1-9][0-9]{0,3})([mhd])$`)
	askPattern = pattern(`^[a-z][a-z0-9:_-]{0,63}$`)
)

// Roles are the roles that a manifest can name.
func Roles() []string { return slices.Clone(roles) }

func (d *decoder) role(n node) string {
	if !n.Given() {
		return ""
	}
	return d.Checked(n, "", func(s string) (text, hint string) {
		if slices.Contains(roles, s) {
			return "", ""
		}
		if near, ok := strictyaml.Nearest(s, roles); ok {
			return quote(s) + " is no role", "did you mean " + quote(near) + "?"
		}
		return quote(s) + " is no role", "the roles are: " + strings.Join(roles, ", ")
	})
}

func (d *decoder) tools(n node) []Tool {
	var all []Tool
	first := map[string]*Tool{}
	d.List(n, func(i int, item node) {
		if i == maxTools {
			d.Refuse(item, fmt.Sprintf("there are more than %d entries", maxTools), "use source.* for all tools of a source")
		}
		if i < maxTools {
			all = append(all, d.tool(i, item))
		}
	})
	for i := range all {
		t := &all[i]
		switch other := first[t.Tool]; {
		case t.Tool == "":
		case other == nil:
			first[t.Tool] = t
		default:
			d.Refuse(n.Item(i), "is for the same tool as "+other.Label(), inHand)
		}
	}
	return all
}

func (d *decoder) tool(i int, n node) Tool {
	if !n.IsMapping() {
		d.WrongKind(n, "a tool", toolExample)
		return Tool{}
	}
	f := d.Fields(n, toolKeys)
	line, _ := n.Place()
	t := Tool{
		Index: i, Line: line, Tool: d.Checked(f["tool"], "", checkToolName), Deny: d.Boolean(f["deny"]),
		Scope: d.scope(f["scope"]), Limits: d.bounds(d.Fields(f["limits"], boundKeys)),
	}
	d.NotEmpty(f["limits"])
	for _, e := range d.Texts(f["widen"], checkEffect) {
		t.Widen = append(t.Widen, ambit.Effect(e))
	}
	d.NotEmpty(f["widen"])
	if !f["tool"].Given() {
		d.Missing(n, "tool", toolExample)
	}
	if t.Deny {
		for _, key := range []string{"scope", "limits", "widen"} {
			if f[key].Given() {
				d.Refuse(f[key], "has no use with deny: true", "remove it, or remove deny")
			}
		}
	}
	if f["widen"].Given() && strings.HasSuffix(t.Tool, "*") {
		d.Refuse(f["widen"], "needs one exact tool", "write an entry for each tool that may do more than the role")
	}
	return t
}

// scope reads a mapping from arguments to their values. The result is by JSON
// pointer.
func (d *decoder) scope(n node) map[string][]Value {
	if !n.Given() {
		return nil
	}
	all := map[string][]Value{}
	d.Pairs(n, func(key string, k, v node) {
		if !d.Complain(k, checkScopeKey, key) {
			return
		}
		if !strings.HasPrefix(key, "/") {
			key = "/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
		}
		if _, twice := all[key]; twice {
			d.Refuse(k, "is the same argument as a key above", "put all values into one list")
		}
		if !v.IsList() {
			all[key] = []Value{d.value(v)}
			return
		}
		d.List(v, func(_ int, item node) { all[key] = append(all[key], d.value(item)) })
		d.NotEmpty(v)
		if len(all[key]) > maxScopeValues {
			d.Refuse(v, fmt.Sprintf("has %d values, more than %d", len(all[key]), maxScopeValues), "write your own Cedar (cedar), or leave it out")
		}
	})
	d.NotEmpty(n)
	return all
}

func (d *decoder) value(n node) Value {
	if w := n.Whole(); w != "" {
		return Value{Text: w}
	}
	if b, ok := n.Truth(); ok {
		return Value{Text: strconv.FormatBool(b)}
	}
	return Value{Text: d.Checked(n, "", checkScopeValue), IsText: true}
}

func checkScopeKey(s string) (text, hint string) {
	switch {
	case s == "" || s == "/":
		return "names no argument", "write for example customer_id"
	case len(s) > maxScopeValue:
		return "is too long for the name of an argument", "use a shorter one"
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	}
	if strings.HasPrefix(s, "/") && strings.Contains(strings.ReplaceAll(strings.ReplaceAll(s, "~0", ""), "~1", ""), "~") {
		return quote(s) + " is no JSON pointer", "write ~ as ~0, and / within a name as ~1"
	}
	return "", ""
}

func checkScopeValue(s string) (text, hint string) {
	switch {
	case len(s) > maxScopeValue:
		return fmt.Sprintf("has more than %d bytes", maxScopeValue), "use a shorter one"
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	}
	return "", ""
}

func (d *decoder) bounds(f map[string]node) Bounds {
	return Bounds{
		PerCall: d.price(f["perCall"]), PerHour: d.price(f["perHour"]), PerDay: d.price(f["perDay"]),
		CallsPerHour: d.Integer(f["callsPerHour"], 1, 1_000_000, 0), CallsPerDay: d.Integer(f["callsPerDay"], 1, 1_000_000, 0),
	}
}

// price reads "50 EUR".
func (d *decoder) price(n node) *money.Price {
	if !n.Given() {
		return nil
	}
	if w := n.Decimal(); w != "" {
		d.Refuse(n, "an amount needs a currency, found "+n.Kind(), "write for example "+w+" EUR")
		return nil
	}
	s, ok := d.Text(n, "")
	if !ok {
		return nil
	}
	p, err := money.ParsePrice(s)
	if err != nil {
		d.Refuse(n, quote(s)+" is not an amount and a currency: "+err.Error(), priceExample)
		return nil
	}
	return &p
}

func (d *decoder) limits(n node, tools []Tool) []Limit {
	var all []Limit
	first := map[string]string{} // what is bounded, to the label of the entry
	for i := range tools {
		of := Limit{Tool: tools[i].Tool, Bounds: tools[i].Limits}
		for _, key := range of.keys() {
			first[key] = tools[i].Label()
		}
	}
	d.List(n, func(i int, item node) {
		if i == maxTools {
			d.Refuse(item, fmt.Sprintf("there are more than %d entries", maxTools), "use source.* or an effect")
		}
		if i < maxTools {
			all = append(all, d.limit(i, item))
		}
	})
	for i := range all {
		l := &all[i]
		for _, key := range l.keys() {
			if other := first[key]; other != "" {
				d.Refuse(n.Item(i), "bounds the same as "+other, inHand)
				break
			}
			first[key] = l.Label()
		}
	}
	return all
}

// keys are what the limit bounds, so that nothing is bounded twice.
func (l *Limit) keys() []string {
	var all []string
	name := "tool " + l.Tool
	if l.Effect != "" {
		name = "effect " + string(l.Effect)
	}
	for key, p := range map[string]*money.Price{"perCall": l.PerCall, "perHour": l.PerHour, "perDay": l.PerDay, "askAbove": l.AskAbove} {
		if p != nil {
			all = append(all, name+" "+key+" "+p.Currency)
		}
	}
	for key, n := range map[string]int{"callsPerHour": l.CallsPerHour, "callsPerDay": l.CallsPerDay} {
		if n != 0 {
			all = append(all, name+" "+key)
		}
	}
	return all
}

func (d *decoder) limit(i int, n node) Limit {
	if !n.IsMapping() {
		d.WrongKind(n, "a limit", `write for example "effect: spend" and "perDay: 500 EUR"`)
		return Limit{}
	}
	f := d.Fields(n, limitKeys)
	line, _ := n.Place()
	l := Limit{Index: i, Line: line, Bounds: d.bounds(f), AskAbove: d.price(f["askAbove"])}
	l.Tool, l.Effect = d.toolOrEffect(n, f)
	given := slices.ContainsFunc(limitKeys[2:], func(key string) bool { return f[key].Given() })
	if !given {
		d.Refuse(n, "bounds nothing", "add for example perDay: 500 EUR; the keys are: "+strings.Join(limitKeys[2:], ", "))
	}
	for _, key := range []string{"perCall", "perHour", "perDay", "askAbove"} {
		switch {
		case !f[key].Given():
		case key == "askAbove" && l.Effect != ambit.EffectSpend:
			d.Refuse(f[key], "is only for effect: spend", "for one tool, write an entry of approvals with when: amount > ...")
		case l.Effect != "" && l.Effect != ambit.EffectSpend:
			d.Refuse(f[key], "has no use with effect: "+string(l.Effect)+", which moves no money", "write callsPerHour or callsPerDay, or effect: spend")
		}
	}
	return l
}

// toolOrEffect reads which of the two an entry is for.
func (d *decoder) toolOrEffect(n node, f map[string]node) (string, ambit.Effect) {
	switch {
	case f["tool"].Given() && f["effect"].Given():
		d.Refuse(f["effect"], "cannot be given together with tool", oneOfToolEffect)
	case !f["tool"].Given() && !f["effect"].Given():
		d.Missing(n, "tool", toolExample+", or effect: spend")
	}
	return d.Checked(f["tool"], "", checkToolName), ambit.Effect(d.Checked(f["effect"], "", checkEffect))
}

func (d *decoder) approvals(n node) []Approval {
	var all []Approval
	d.List(n, func(i int, item node) {
		if i == maxTools {
			d.Refuse(item, fmt.Sprintf("there are more than %d entries", maxTools), "use source.* or an effect")
		}
		if i < maxTools {
			all = append(all, d.approval(i, item))
		}
	})
	for i := range all {
		for j := range all[:i] {
			a, b := &all[i], &all[j]
			if a.Tool == "" && a.Effect == "" || a.Tool != b.Tool || a.Effect != b.Effect {
				continue
			}
			if a.Nobody || b.Nobody || samePrice(a.Above, b.Above) && a.Count == b.Count {
				d.Refuse(n.Item(i), "is about the same calls as "+b.Label(), inHand)
				break
			}
		}
	}
	return all
}

func samePrice(a, b *money.Price) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Currency == b.Currency)
}

func (d *decoder) approval(i int, n node) Approval {
	if !n.IsMapping() {
		d.WrongKind(n, "an approval", `write for example "tool: shop.refunds.create" and "when: amount > 50 EUR"`)
		return Approval{}
	}
	f := d.Fields(n, approvalKeys)
	line, _ := n.Place()
	a := Approval{Index: i, Line: line, People: d.Integer(f["people"], 1, 2, 1), Expires: d.expires(f["expires"])}
	a.Tool, a.Effect = d.toolOrEffect(n, f)
	d.when(f["when"], &a)
	d.ask(f["ask"], &a)
	if !a.Nobody {
		return a
	}
	for _, key := range []string{"people", "expires"} {
		if f[key].Given() {
			d.Refuse(f[key], "has no use with ask: nobody", "remove it")
		}
	}
	if a.Above != nil || a.Count != 0 {
		d.Refuse(f["when"], "has no use with ask: nobody", "remove it; above which nobody is asked is said by an entry that asks somebody")
	}
	if a.Effect != "" || strings.HasSuffix(a.Tool, "*") {
		d.Refuse(f["ask"], "nobody can be asked about one exact tool only", "write an entry for each tool that needs no person")
	}
	return a
}

func (d *decoder) when(n node, a *Approval) {
	s, ok := d.Text(n, "always")
	if !ok {
		return
	}
	if m := amountWhen().FindStringSubmatch(s); m != nil {
		if p, err := money.ParsePrice(m[1]); err == nil {
			a.Above = &p
			return
		}
	}
	if m := countWhen().FindStringSubmatch(s); m != nil {
		a.Count, _ = strconv.Atoi(m[1]) // six digits
		return
	}
	if s != "always" {
		d.Refuse(n, quote(s)+" is no condition", whenExample)
	}
}

// ask reads "nobody", or a list of who may answer.
func (d *decoder) ask(n node, a *Approval) {
	if s, ok := n.Scalar(); n.Given() && ok {
		if a.Nobody = s == "nobody"; !a.Nobody {
			d.WrongKind(n, "a list of who is asked, or nobody", "write ["+shorten(s)+"]")
		}
		return
	}
	a.Ask = d.Texts(n, func(s string) (text, hint string) {
		if s == "nobody" {
			return `"nobody" is not one of those who are asked`, "write ask: nobody, without the list"
		}
		if askPattern().MatchString(s) {
			return "", ""
		}
		return quote(s) + " is neither a person nor a role of people", `write for example owner, or "uid:1000"`
	})
	d.NotEmpty(n)
	if len(a.Ask) > maxAsked {
		d.Refuse(n, fmt.Sprintf("has %d items, more than %d", len(a.Ask), maxAsked), "name a role of people")
	}
}

func (d *decoder) expires(n node) time.Duration {
	if !n.Given() {
		return 0
	}
	s, ok := d.Text(n, "")
	if !ok {
		return 0
	}
	t := time.Duration(0)
	if m := expiresIn().FindStringSubmatch(s); m != nil {
		count, _ := strconv.Atoi(m[1]) // four digits
		t = time.Duration(count) * map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	}
	if t <= 0 || t > maxExpires {
		d.Refuse(n, quote(s)+" is not a time from 1m to 7d", "write for example expires: 24h")
		return 0
	}
	return t
}

func (d *decoder) inside(n node) []string {
	all := d.Texts(n, checkInside)
	d.NotEmpty(n)
	if len(all) > maxInside {
		d.Refuse(n, fmt.Sprintf("has %d domains, more than %d", len(all), maxInside), `use a wildcard, as "*.acme.example"`)
	}
	return all
}

func checkInside(s string) (text, hint string) {
	name := strings.TrimPrefix(s, "*.")
	canonical, err := hostname.Canonical(name)
	if err == nil && canonical == name && strings.Contains(name, ".") && !hostname.IsIP(name) {
		return "", ""
	}
	return quote(s) + " is not a domain in lower case", `write for example acme.example, or "*.acme.example" for all below it`
}

func checkToolName(s string) (text, hint string) {
	source, all := strings.CutSuffix(s, ".*")
	if all && cedartext.SourceName(source) || cedartext.ToolName(s) {
		return "", ""
	}
	if lower := strings.ToLower(s); lower != s && cedartext.ToolName(lower) {
		return quote(s) + " is not the name of a tool, which is in lower case", "write " + lower
	}
	return quote(s) + " is not the name of a tool", "write the source, a point and its own name, as shop.orders.get, or shop.* for all of a source"
}

func (d *decoder) cedar(n node) Cedar {
	s, ok := d.Text(n, "")
	if !ok || !n.Given() {
		return Cedar{}
	}
	_, err := cedartext.Parse(s)
	if e, ok := cedartext.AsError(err); ok {
		line, column := d.Within(n, e.Line, e.Column)
		d.RefuseAt(line, column, "cedar", e.Text, e.Hint)
	}
	first, _ := n.Place()
	if line, _ := d.Within(n, 1, 1); n.Block() {
		first = line
	}
	return Cedar{Text: s, Line: first - 1}
}
