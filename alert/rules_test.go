package alert_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/alert"
	"ambit/internal/sqldb"
)

// watched is a book with rules that look at its log.
type watched struct {
	*book
	*alert.Watched
	rules *alert.Rules
	clock *clock
}

func watch(t *testing.T, path string, c *clock, cfg alert.RulesConfig) *watched {
	t.Helper()
	b := open(t, path, c)
	cfg.Book, cfg.Clock = b.Book, c.Now
	rules, err := alert.NewRules(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{b, alert.Watch(b.log, rules), rules, c}
	t.Cleanup(b.close)
	return w
}

func fresh(t *testing.T, cfg alert.RulesConfig) *watched {
	return watch(t, filepath.Join(t.TempDir(), "agent.db"), newClock(), cfg)
}

// happen appends an event.
func (w *watched) happen(t *testing.T, e ambit.Event) uint64 {
	t.Helper()
	seq, err := w.Append(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

// keys lists the alerts: "severity key xcount", sorted.
func (w *watched) keys(t *testing.T) []string {
	t.Helper()
	out := []string{}
	for _, a := range list(t, w.book, alert.Query{}) {
		out = append(out, fmt.Sprintf("%s %s x%d", a.Severity, a.Key, a.Count))
	}
	slices.Sort(out)
	return out
}

func (w *watched) want(t *testing.T, want ...string) {
	t.Helper()
	if got := w.keys(t); !slices.Equal(got, want) {
		t.Errorf("alerts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func call(method, host string) ambit.Event {
	return ambit.Event{Kind: ambit.KindEgressRequest, Principal: ambit.PrincipalAgent, Decision: ambit.Allow, Method: method, Host: host,
		URL: "https://" + host + "/v1/refunds?x=1", Rule: "egress.allow[0]", Intent: "work", Effects: []ambit.Effect{ambit.MethodEffect(method)}}
}

func refused(host, code string) ambit.Event {
	e := call("GET", host)
	e.Decision, e.Reason = ambit.Deny, &ambit.Reason{Code: code, Text: "no"}
	return e
}

func TestRepeatedDenials(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	for i := range 19 {
		w.happen(t, refused(fmt.Sprintf("h%d.example", i), "host-not-allowed"))
	}
	w.clock.add(5*time.Minute + time.Second) // too long ago by now
	w.happen(t, refused("late.example", "host-not-allowed"))
	w.want(t)
	for range 20 {
		w.clock.add(time.Second)
		w.happen(t, refused("late.example", "host-not-allowed"))
	}
	w.want(t, "high repeated-denials x2")
	if a := list(t, w.book, alert.Query{})[0]; a.Title != "refused 20 times within 5m0s; the last: GET late.example: no" || a.Event != 39 {
		t.Errorf("%+v", a)
	}
}

// A host that a rule names is worth a note, one that a wildcard lets through a
// look; each once in the life of the agent.
func TestFirstHost(t *testing.T) {
	path, c := filepath.Join(t.TempDir(), "agent.db"), newClock()
	cfg := alert.RulesConfig{Named: func(h string) bool { return h == "api.example" }}
	w := watch(t, path, c, cfg)
	for range 2 {
		w.happen(t, call("GET", "api.example"))
		w.happen(t, call("GET", "x.wild.example"))
		w.happen(t, refused("never.example", "host-not-allowed"))
	}
	want := []string{"info first-named-host api.example x1", "medium first-host x.wild.example x1"}
	w.want(t, want...)
	if a := list(t, w.book, alert.Query{MinSeverity: ambit.Medium})[0]; a.Title != "for the first time: GET x.wild.example, which egress.allow[0] allows" {
		t.Error(a.Title)
	}
	w.close()
	w = watch(t, path, c, cfg) // the memory survives
	w.happen(t, call("GET", "api.example"))
	w.happen(t, call("GET", "x.wild.example"))
	w.want(t, want...)
	// What the file says is no list of hosts.
	w.close()
	db, err := sqldb.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(t.Context(), "SELECT rule, hash FROM alert_seen")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var rule string
		var hash []byte
		if err := rows.Scan(&rule, &hash); err != nil {
			t.Fatal(err)
		}
		if n++; rule != "first-host" || len(hash) != 16 || strings.Contains(string(hash), "example") {
			t.Errorf("%q %q", rule, hash)
		}
	}
	if rows.Err() != nil || n != 2 {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
}

// L3: an agent with a wildcard calls host after host. What is told is bounded,
// and so is what is remembered.
func TestL3FirstHostsAreBounded(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	for i := range 12_000 {
		e := call("GET", fmt.Sprintf("h%d.wild.example", i))
		w.rules.See(uint64(i), &e)
	}
	got := w.keys(t)
	if len(got) != 22 || !slices.Contains(got, "medium first-host (others) x9980") || !slices.Contains(got, "medium many-hosts x2000") {
		t.Errorf("%d alerts: %v", len(got), got)
	}
}

func TestFirstTool(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	for range 2 {
		w.happen(t, ambit.Event{Kind: ambit.KindToolCall, Decision: ambit.Allow, Tool: "shop/refund\x1b[2J"})
	}
	w.want(t, `medium first-tool shop/refund\x1b[2J x1`)
}

// The rules serve the control plane's book too, whose events say whom they are
// about.
func TestControlPlane(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	for _, e := range []ambit.Event{
		{Kind: ambit.KindAuditVerify, Agent: "support", Decision: ambit.Deny, Detail: "event 3 is another one"},
		{Kind: ambit.KindAuditVerify, Agent: "support", Decision: ambit.Allow},
		{Kind: ambit.KindAuditSink, Resource: "siem", Detail: "3 hours"},
		{Kind: ambit.KindAuditSink, Resource: "siem", Decision: ambit.Allow},
		{Kind: ambit.KindAuditErase, Erasure: &ambit.Erasure{Rule: "retention 90d", Bodies: 7}},
		{Kind: ambit.KindAgentWipe, Agent: "support", Principal: "uid:1000"},
		{Kind: ambit.KindAuditHold, Principal: "uid:1000", Detail: "held"},
		{Kind: ambit.KindLogin, Decision: ambit.Allow, Principal: "uid:1000"},
	} {
		w.happen(t, e)
	}
	for i := range 5 {
		w.happen(t, ambit.Event{Kind: ambit.KindLogin, Principal: ambit.Principal(fmt.Sprintf("oidc:%d", i%2)), Reason: &ambit.Reason{Text: "who?"}})
	}
	got := w.keys(t)
	// The log of this test is an agent's, which writes its own name into no event before the rules see it.
	want := []string{"critical log-broken support x1", "high sign-in-failures x1", "info erased x1", "info held x1",
		"info wiped support x1", "low sign-in-refused oidc:0 x3", "low sign-in-refused oidc:1 x2", "medium sink-behind siem x1"}
	if !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestOwnRules(t *testing.T) {
	low := ambit.Low
	w := fresh(t, alert.RulesConfig{
		Named: func(string) bool { return true },
		Own: []alert.Rule{
			{Name: "deletes", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Methods: []string{"DELETE"}}, Severity: ambit.High, Per: alert.ByHost},
			{Name: "many-refunds", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Hosts: []string{"*.stripe.example"}, Paths: []string{"/v1/refunds"}},
				Count: 3, Within: 10 * time.Minute, Severity: ambit.Critical, Per: alert.ByHost},
			{Name: "silent", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{IntentMissing: true}, Severity: ambit.Medium},
			{Name: "errors", Kinds: []ambit.Kind{ambit.KindEgressOutcome}, When: alert.Condition{StatusFrom: 500, StatusTo: 599}, Severity: ambit.Low, Per: alert.ByHost},
			{Name: "new-spender", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Effects: []ambit.Effect{ambit.EffectDelete}}, First: alert.ByHost, Severity: ambit.Info},
			{Name: "tools", Kinds: []ambit.Kind{ambit.KindToolCall}, When: alert.Condition{Tools: []string{"shop/*"}, Principals: []ambit.Principal{"agent"}, Connections: []string{"shop"}}, Severity: ambit.Low, Per: alert.ByTool},
			{Name: "by-code", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Codes: []string{"pin-not-met"}, Decision: "deny"}, Severity: ambit.Low, Per: alert.ByConnection},
		},
		Tunings: []alert.Tuning{{Code: ambit.AlertFirstNamedHost, Off: true}, {Code: "host-not-allowed", Severity: &low}, {Code: "name-not-allowed", Off: true},
			{Code: ambit.AlertRefused, Off: true}, {Code: ambit.AlertRepeated, Count: 2, Within: time.Second}},
	})
	w.happen(t, call("DELETE", "api.example"))
	w.happen(t, call("GET", "api.example"))
	for range 4 {
		w.happen(t, call("POST", "api.stripe.example"))
	}
	w.happen(t, call("POST", "stripe.example")) // the wildcard is for what is below
	quiet := call("GET", "api.example")
	quiet.Intent = ""
	w.happen(t, quiet)
	seq := uint64(2)
	w.Record(ambit.Event{Kind: ambit.KindEgressOutcome, Of: &seq, Host: "api.example", Status: 503})
	w.Record(ambit.Event{Kind: ambit.KindEgressOutcome, Of: &seq, Host: "api.example", Status: 404})
	w.happen(t, ambit.Event{Kind: ambit.KindToolCall, Tool: "shop/refund", Principal: "agent", Connection: "shop"})
	w.happen(t, ambit.Event{Kind: ambit.KindToolCall, Tool: "mail/send", Principal: "agent", Connection: "shop"})
	pin := refused("api.example", "pin-not-met")
	pin.Connection = "github"
	w.happen(t, pin)
	w.rules.Raise(ambit.High, "host-not-allowed evil.example", "t", 1)
	w.rules.Raise(ambit.High, "name-not-allowed evil.example", "t", 1)
	w.rules.Raise(ambit.High, "a-code-of-tomorrow evil.example", "t", 1)
	w.rules.Raise(ambit.Critical, "credential-damaged x", "t", 1)
	w.want(t, "critical credential-damaged x x1", "critical many-refunds api.stripe.example x2", "high deletes api.example x1", "high repeated-denials x2", "info new-spender api.example x1",
		"low by-code github x1", "low errors api.example x1", "low host-not-allowed evil.example x1", "low tools shop/refund x1", "medium silent x1")
	for _, a := range list(t, w.book, alert.Query{}) {
		switch {
		case a.Code() == "errors" && (a.Event != 2 || a.Title != "rule errors: api.example: status 503"),
			a.Code() == "many-refunds" && a.Title != "rule many-refunds: 3 times within 10m0s, the last: POST api.stripe.example",
			a.Code() == "new-spender" && a.Title != "rule new-spender: for the first time: DELETE api.example",
			a.Code() == "by-code" && a.Title != "rule by-code: GET api.example: refused: no":
			t.Errorf("%+v", a)
		}
	}
	// What is put in force takes the place of what was.
	if err := w.rules.Set(nil, nil); err != nil {
		t.Fatal(err)
	}
	before := len(w.keys(t))
	w.happen(t, call("DELETE", "api.example"))
	w.rules.Raise(ambit.Medium, "name-not-allowed evil.example", "t", 1)
	if got := w.keys(t); len(got) != before+1 || !slices.Contains(got, "high deletes api.example x1") {
		t.Errorf("%v", got)
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	kinds := []ambit.Kind{ambit.KindEgressRequest}
	for name, r := range map[string]alert.Rule{
		"no name":       {Kinds: kinds},
		"no kind":       {Name: "a"},
		"feeds itself":  {Name: "a", Kinds: []ambit.Kind{ambit.KindAlert}},
		"taken":         {Name: "first-host", Kinds: kinds},
		"no time":       {Name: "a", Kinds: kinds, Count: 2},
		"counts beyond": {Name: "a", Kinds: kinds, Count: 2000, Within: time.Hour},
		"counts firsts": {Name: "a", Kinds: kinds, Count: 2, Within: time.Hour, First: alert.ByHost},
		"bad path":      {Name: "a", Kinds: kinds, When: alert.Condition{Paths: []string{"/a**"}}},
	} {
		if err := w.rules.Set([]alert.Rule{r}, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, tuning := range []alert.Tuning{{Code: "nothing"}, {Code: "first-host", Count: 3}} {
		if err := w.rules.Set(nil, []alert.Tuning{tuning}); err == nil {
			t.Errorf("%+v: taken", tuning)
		}
	}
	if _, err := alert.NewRules(alert.RulesConfig{}); err == nil {
		t.Error("rules without a book")
	}
}

// L3: values that the agent makes up do not make a rule forget, nor fill memory.
func TestL3CountedValuesAreBounded(t *testing.T) {
	w := fresh(t, alert.RulesConfig{Own: []alert.Rule{{Name: "r", Kinds: []ambit.Kind{ambit.KindEgressName}, Count: 5, Within: time.Hour, Per: alert.ByHost, Severity: ambit.Low}}})
	see := func(host string) {
		e := ambit.Event{Kind: ambit.KindEgressName, Decision: ambit.Allow, Host: host}
		w.rules.See(0, &e)
	}
	for range 4 {
		see("early.example")
	}
	for i := range 500 {
		see(fmt.Sprintf("h%d.example", i))
	}
	see("early.example")
	if got := w.keys(t); len(got) != 2 || !slices.Contains(got, "low r early.example x1") || !slices.Contains(got, "low r (others) x433") {
		t.Errorf("%d: %v", len(got), got)
	}
	w.clock.add(2 * time.Hour) // their time is over: a new value is counted by itself again
	for range 5 {
		see("later.example")
	}
	if got := w.keys(t); !slices.Contains(got, "low r later.example x1") {
		t.Errorf("%v", got)
	}
}

// What the log refuses makes no alert: it did not happen.
func TestRefusedEventsAreNotSeen(t *testing.T) {
	w := fresh(t, alert.RulesConfig{})
	log := alert.Watch(full{}, w.rules)
	if _, err := log.Append(t.Context(), ambit.Event{Kind: ambit.KindToolCall, Decision: ambit.Allow, Tool: "t"}); err == nil {
		t.Error("no error")
	}
	w.want(t)
}

type full struct{}

func (full) Append(context.Context, ambit.Event) (uint64, error) { return 0, errors.New("full") }
func (full) Record(ambit.Event)                                  {}

// An event that is nothing to any rule costs no memory.
func TestSeeAllocatesNothing(t *testing.T) {
	w := fresh(t, alert.RulesConfig{Own: []alert.Rule{{Name: "deletes", Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Methods: []string{"DELETE"}, Paths: []string{"/v1/**"}}}}})
	e := call("GET", "api.example")
	w.happen(t, e) // the host is known from now on
	if n := testing.AllocsPerRun(1000, func() { w.rules.See(1, &e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSee(b *testing.B) {
	path := filepath.Join(b.TempDir(), "agent.db")
	db, err := sqldb.Open(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	book, err := alert.Open(b.Context(), alert.Config{DB: db, Log: &failing{}, Agent: "support", Key: key(1)})
	if err != nil {
		b.Fatal(err)
	}
	defer book.Close(context.Background())
	own := make([]alert.Rule, 10)
	for i := range own {
		own[i] = alert.Rule{Name: fmt.Sprintf("r%d", i), Kinds: []ambit.Kind{ambit.KindEgressRequest}, When: alert.Condition{Hosts: []string{"*.other.example"}, Paths: []string{"/v1/**"}}}
	}
	rules, err := alert.NewRules(alert.RulesConfig{Book: book, Own: own})
	if err != nil {
		b.Fatal(err)
	}
	e := call("GET", "api.example")
	b.ReportAllocs()
	for b.Loop() {
		rules.See(1, &e)
	}
}
