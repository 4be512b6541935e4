package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit"
	"ambit/internal/strictyaml"
)

// Alert is an entry of alerts: a rule of the operator's own about events, or a
// change to an alert that Ambit raises by itself. All conditions of a rule must
// hold; nil or zero is no condition.
type Alert struct {
	Index int    // position in alerts, from 0
	Line  int    // line in the file, from 1
	Name  string // 1 to 40 of a-z, 0-9 and -, the first a letter; unique in the file
	// Builtin: Name is a code of ambit.AlertCatalogue, and only Off, Severity,
	// Count and Within are given.
	Builtin  bool
	Off      bool
	Severity *ambit.Severity // nil if it is not given: as it was, or medium

	Kinds       []ambit.Kind // never empty in a rule
	Decision    string       // "allow", "deny"
	Hosts       []string     // in the form of Rule.Host
	Methods     []string
	Paths       []string
	Tools       []string // a star at the end stands for any text
	Effects     []ambit.Effect
	Connections []string
	Codes       []string // of the reason of a refusal
	Principals  []ambit.Principal
	// StatusFrom to StatusTo is a range; zero is no condition.
	StatusFrom, StatusTo int
	IntentMissing        bool

	// Count events within Within are an alert; 0 is not given: each is one.
	Count  int
	Within time.Duration
	Per    string // what is counted by itself: "host", "tool", "connection", "principal" or "agent"; default "host"
	First  string // only values that were never there before: "host" or "tool"
}

// Label names the entry so that an operator finds it: `alerts[0] "deletes" (line 7)`.
func (a *Alert) Label() string {
	return fmt.Sprintf("alerts[%d] %q (line %d)", a.Index, a.Name, a.Line)
}

const (
	maxAlerts     = 64
	maxAlertItems = 64
	maxAlertCount = 1000
	maxAlertText  = 200
)

var (
	alertKeys = []string{"name", "severity", "kinds", "decision", "hosts", "methods", "paths", "tools", "effects", "connections", "codes", "principals", "status", "intent", "count", "within", "per", "first"}
	// tuningKeys are those that an entry for an alert of Ambit's own may have.
	tuningKeys = []string{"name", "severity", "count", "within"}
	severities = []string{"off", "info", "low", "medium", "high", "critical"}
	effects    = []string{"read", "write", "delete", "spend", "send", "publish", "access", "bulk", "customer"}

	codePattern   = pattern(`^[a-z][a-z0-9-]{0,59}$`)
	statusPattern = pattern(`^([1-9][0-9]{2})-([1-9][0-9]{2})$`)
	withinPattern = pattern(`^([1-9][0-9]{0,4})([smh])$`)
)

// eventFields are the fields of an event that keys of a rule look at.
func eventFields() map[string]string {
	return map[string]string{
		"hosts": "host", "methods": "method", "paths": "url", "tools": "tool", "effects": "effects", "connections": "connection",
		"codes": "reason", "status": "status", "intent": "intent",
	}
}

func (d *decoder) alerts(n node) []Alert {
	var all []Alert
	first := map[string]*Alert{}
	d.List(n, func(i int, item node) {
		if i == maxAlerts {
			d.Refuse(item, fmt.Sprintf("there are more than %d entries", maxAlerts), "write fewer rules that say more")
		}
		if i < maxAlerts {
			all = append(all, d.alert(i, item))
		}
	})
	for i := range all {
		a := &all[i]
		switch other := first[a.Name]; {
		case a.Name == "":
		case other == nil:
			first[a.Name] = a
		default:
			d.Refuse(n.Item(i), "is called "+quote(a.Name)+", as is "+other.Label(), "put both into one entry, or give one of them another name")
		}
	}
	return all
}

func (d *decoder) alert(i int, n node) Alert {
	if !n.IsMapping() {
		d.WrongKind(n, "a rule", `write for example "name: deletes" and "methods: [DELETE]"`)
		return Alert{}
	}
	f := d.Fields(n, alertKeys)
	line, _ := n.Place()
	a := Alert{Index: i, Line: line, Name: d.Checked(f["name"], "", checkAlertName)}
	if !f["name"].Given() {
		d.Missing(n, "name", "write for example name: deletes")
	}
	if f["severity"].Given() {
		s := d.Choice(f["severity"], severities...)
		var severity ambit.Severity
		if a.Off = s == "off"; !a.Off && severity.UnmarshalText([]byte(s)) == nil {
			a.Severity = &severity
		}
	}
	a.Count = d.Integer(f["count"], 2, maxAlertCount, 0)
	a.Within = d.within(f["within"])
	if spec, ok := builtinAlert(a.Name); ok {
		a.Builtin = true
		d.tuning(n, f, spec)
		return a
	}
	d.conditionsOf(f, &a)
	d.counted(n, f, &a)
	a.Kinds = d.kinds(n, f, &a)
	return a
}

func builtinAlert(name string) (ambit.AlertSpec, bool) {
	specs := ambit.AlertCatalogue()
	i := slices.IndexFunc(specs, func(s ambit.AlertSpec) bool { return s.Code == name })
	if i < 0 {
		return ambit.AlertSpec{}, false
	}
	return specs[i], true
}

// tuning refuses what cannot be said about an alert of Ambit's own.
func (d *decoder) tuning(n node, f map[string]node, spec ambit.AlertSpec) {
	given := false
	for _, key := range alertKeys {
		switch {
		case !f[key].Given() || key == "name":
		case !slices.Contains(tuningKeys, key):
			d.Refuse(f[key], "cannot be given: "+quote(spec.Code)+" is an alert of Ambit's own", "give a rule of yours another name; here the keys are: "+strings.Join(tuningKeys, ", "))
			given = true
		case spec.Count == 0 && key != "severity":
			d.Refuse(f[key], "cannot be given: "+quote(spec.Code)+" does not count", "remove it")
			given = true
		default:
			given = true
		}
	}
	switch {
	case spec.Log == "control":
		d.Refuse(f["name"], quote(spec.Code)+" is an alert of the control plane, and no agent's", "remove the entry")
	case !given:
		d.Refuse(n, "says nothing about "+quote(spec.Code), "write for example severity: off")
	}
}

func (d *decoder) conditionsOf(f map[string]node, a *Alert) {
	list := func(key string, c check) []string {
		values := d.Texts(f[key], c)
		d.NotEmpty(f[key])
		if len(values) > maxAlertItems {
			d.Refuse(f[key], fmt.Sprintf("has %d items, more than %d", len(values), maxAlertItems), "use a wildcard, or write a second rule")
		}
		return values
	}
	a.Hosts, a.Methods, a.Paths = list("hosts", CheckHost), list("methods", CheckMethod), list("paths", CheckPath)
	a.Tools, a.Connections, a.Codes = list("tools", checkTool), list("connections", checkConnectionName), list("codes", checkCode)
	for _, e := range list("effects", checkEffect) {
		a.Effects = append(a.Effects, ambit.Effect(e))
	}
	for _, p := range list("principals", checkPrincipal) {
		a.Principals = append(a.Principals, ambit.Principal(p))
	}
	if f["decision"].Given() {
		a.Decision = d.Choice(f["decision"], "deny", "allow")
	}
	if f["intent"].Given() {
		a.IntentMissing = d.Choice(f["intent"], "missing") == "missing"
	}
	a.StatusFrom, a.StatusTo = d.status(f["status"])
}

// counted reads how often, and refuses what contradicts itself.
func (d *decoder) counted(n node, f map[string]node, a *Alert) {
	a.Per = d.Choice(f["per"], "host", "tool", "connection", "principal", "agent")
	if f["first"].Given() {
		a.First = d.Choice(f["first"], "host", "tool")
		for _, key := range []string{"count", "within", "per"} {
			if f[key].Given() {
				d.Refuse(f[key], "has no use with first: a value is there for the first time only once", "remove it")
			}
		}
		return
	}
	switch {
	case f["count"].Given() && !f["within"].Given():
		d.Missing(n, "within", "say in which time, as in within: 10m")
	case f["within"].Given() && !f["count"].Given():
		d.Missing(n, "count", "say how many there must be in that time, as in count: 5")
	}
}

// kinds reads which events a rule looks at. Without any those are the calls that
// can have what the rule asks for.
func (d *decoder) kinds(n node, f map[string]node, a *Alert) []ambit.Kind {
	needs := map[string]string{} // field of an event to key of the rule
	asks := f["kinds"].Given() || f["first"].Given() || f["decision"].Given() || f["principals"].Given()
	for key, field := range eventFields() {
		if f[key].Given() {
			needs[field], asks = key, true
		}
	}
	if a.First != "" {
		needs[a.First], asks = "first", true
	}
	if !asks {
		d.sayNothing(n, f)
		return nil
	}
	if !f["kinds"].Given() {
		return d.usualKinds(n, f, needs)
	}
	var kinds []ambit.Kind
	for i, s := range d.Texts(f["kinds"], checkKind) {
		kinds = append(kinds, ambit.Kind(s))
		if s == "" {
			continue // refused already
		}
		for _, field := range sortedKeys(needs) {
			if !hasField(ambit.Kind(s), field) {
				d.Refuse(f["kinds"].Item(i), "no event of the kind "+quote(s)+" has what "+needs[field]+" asks for", "remove the kind, or "+needs[field])
			}
		}
	}
	d.NotEmpty(f["kinds"])
	return kinds
}

// sayNothing refuses a rule without a condition, which may be meant for an alert
// of Ambit's own.
func (d *decoder) sayNothing(n node, f map[string]node) {
	hint := "write for example methods: [DELETE], or kinds: [agent.exec]"
	if name, ok := f["name"].Scalar(); f["name"].Given() && ok {
		var codes []string
		for _, s := range ambit.AlertCatalogue() {
			codes = append(codes, s.Code)
		}
		if near, ok := strictyaml.Nearest(name, codes); ok {
			hint = "did you mean the alert " + quote(near) + "?"
		}
	}
	d.Refuse(n, "has no condition, and is no alert of Ambit's own", hint)
}

func (d *decoder) usualKinds(n node, f map[string]node, needs map[string]string) []ambit.Kind {
	usual := []ambit.Kind{ambit.KindEgressRequest, ambit.KindToolCall, ambit.KindModelCall, ambit.KindMessageOut}
	if f["status"].Given() {
		usual = []ambit.Kind{ambit.KindEgressOutcome, ambit.KindToolOutcome, ambit.KindModelOutcome}
	}
	var kinds []ambit.Kind
	for _, k := range usual {
		if !slices.ContainsFunc(sortedKeys(needs), func(field string) bool { return !hasField(k, field) }) {
			kinds = append(kinds, k)
		}
	}
	if len(kinds) == 0 {
		var keys []string
		for _, field := range sortedKeys(needs) {
			keys = append(keys, needs[field])
		}
		d.Refuse(n, "no event has all that is asked for by "+strings.Join(keys, ", "), "write two rules; docs/events.md says what events have")
	}
	return kinds
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func hasField(k ambit.Kind, field string) bool {
	for _, spec := range ambit.Catalogue() {
		if spec.Kind == k {
			return slices.Contains(strings.Fields(spec.Fields), field)
		}
	}
	return false
}

func (d *decoder) within(n node) time.Duration {
	if !n.Given() {
		return 0
	}
	if w := n.Whole(); w != "" {
		d.Refuse(n, "a time needs a unit, found "+n.Kind(), "write "+w+"m for minutes; the units are s, m and h")
		return 0
	}
	s, ok := d.Text(n, "")
	if !ok {
		return 0
	}
	var t time.Duration
	if m := withinPattern().FindStringSubmatch(s); m != nil {
		t, _ = time.ParseDuration(s)
	}
	if t <= 0 || t > 24*time.Hour {
		d.Refuse(n, quote(s)+" is not a time from 1s to 24h", "write for example within: 10m")
		return 0
	}
	return t
}

// status reads 404, or "500-599".
func (d *decoder) status(n node) (from, to int) {
	if !n.Given() {
		return 0, 0
	}
	const hint = "write for example status: 404, or status: 500-599"
	if w := n.Whole(); w != "" {
		i := d.Integer(n, 100, 999, 0)
		return i, i
	}
	s, ok := n.Scalar()
	m := statusPattern().FindStringSubmatch(s)
	if !ok || m == nil {
		d.WrongKind(n, "an HTTP status or a range of them", hint)
		return 0, 0
	}
	from, _ = strconv.Atoi(m[1]) // three digits
	to, _ = strconv.Atoi(m[2])
	if from > to {
		d.Refuse(n, quote(s)+" is a range without anything in it", hint)
	}
	return from, to
}

func checkAlertName(s string) (text, hint string) {
	if namePattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not the name of an alert: 1 to 40 characters of a-z, 0-9 and -, the first a letter", "write for example name: deletes"
}

func checkKind(s string) (text, hint string) {
	var known []string
	for _, spec := range ambit.Catalogue() {
		switch {
		case strings.HasPrefix(s, string(ambit.KindAlert)) && s == string(spec.Kind):
			return quote(s) + " is about alerts, and a rule about them would feed on itself", "remove it"
		case s == string(spec.Kind) && spec.Log == "control":
			return quote(s) + " is in the log of the control plane, and in no agent's", "remove it"
		case s == string(spec.Kind):
			return "", ""
		case spec.Log != "control":
			known = append(known, string(spec.Kind))
		}
	}
	if near, ok := strictyaml.Nearest(s, known); ok {
		return quote(s) + " is no kind of event", "did you mean " + quote(near) + "?"
	}
	return quote(s) + " is no kind of event", "docs/events.md lists them; write for example egress.request"
}

func checkEffect(s string) (text, hint string) {
	if slices.Contains(effects, s) {
		return "", ""
	}
	return quote(s) + " is no effect", "the effects are: " + strings.Join(effects, ", ")
}

func checkTool(s string) (text, hint string) {
	if i := strings.IndexByte(s, '*'); i >= 0 && i != len(s)-1 {
		return quote(s) + " has a star that is not at its end", "write for example " + quote("shop/*")
	}
	return checkWord(s, "a tool", "tools: [shop/refund]")
}

func checkPrincipal(s string) (text, hint string) {
	return checkWord(s, "a principal", `principals: ["uid:1000"]`)
}

func checkWord(s, what, example string) (text, hint string) {
	switch {
	case s == "":
		return "is empty, and names nothing", "write for example " + example
	case len(s) > maxAlertText:
		return fmt.Sprintf("has more than %d bytes, which %s never has", maxAlertText, what), "use a shorter one"
	case strings.IndexFunc(s, invisible) >= 0:
		return quote(s) + " contains a control character", "remove it"
	}
	return "", ""
}

func checkCode(s string) (text, hint string) {
	if codePattern().MatchString(s) {
		return "", ""
	}
	return quote(s) + " is not the code of a reason", "write for example host-not-allowed"
}
