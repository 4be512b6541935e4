package alert

import (
	"ambit"
)

// actions are the kinds of events that say what an agent may do.
func actions() []ambit.Kind {
	return []ambit.Kind{ambit.KindEgressRequest, ambit.KindEgressName, ambit.KindToolCall, ambit.KindModelCall, ambit.KindMessageOut}
}

// builtin are the rules of the catalogue, with the severities and thresholds
// that it has. Alerts of the catalogue that are not here are raised by the part
// that notices them: refusals by the gate, those of credentials by the vault.
func builtin() []Rule {
	const deny, allow = "deny", "allow"
	rules := []Rule{
		{Name: ambit.AlertRepeated, Kinds: actions(), When: Condition{Decision: deny}},
		{Name: ambit.AlertFirstHost, Kinds: []ambit.Kind{ambit.KindEgressRequest, ambit.KindModelCall}, When: Condition{Decision: allow}, First: ByHost},
		{Name: ambit.AlertFirstTool, Kinds: []ambit.Kind{ambit.KindToolCall}, When: Condition{Decision: allow}, First: ByTool},
		{Name: ambit.AlertErased, Kinds: []ambit.Kind{ambit.KindAuditErase}},
		{Name: ambit.AlertHeld, Kinds: []ambit.Kind{ambit.KindAuditHold}},
		{Name: ambit.AlertWiped, Kinds: []ambit.Kind{ambit.KindAgentWipe}, Per: ByAgent},
		{Name: ambit.AlertSignInRefused, Kinds: []ambit.Kind{ambit.KindLogin}, When: Condition{Decision: deny}, Per: ByPrincipal},
		{Name: ambit.AlertSignInFailures, Kinds: []ambit.Kind{ambit.KindLogin}, When: Condition{Decision: deny}},
		{Name: ambit.AlertLogBroken, Kinds: []ambit.Kind{ambit.KindAuditVerify}, When: Condition{Decision: deny}, Per: ByAgent},
		{Name: ambit.AlertSinkBehind, Kinds: []ambit.Kind{ambit.KindAuditSink}, When: Condition{Decision: deny}, Per: ByResource},
	}
	specs := catalogue()
	for i := range rules {
		s := specs[rules[i].Name]
		rules[i].Severity, rules[i].Count, rules[i].Within = s.Severity, s.Count, s.Within
	}
	return rules
}

// catalogue is ambit.AlertCatalogue by code.
func catalogue() map[string]ambit.AlertSpec {
	specs := map[string]ambit.AlertSpec{}
	for _, s := range ambit.AlertCatalogue() {
		specs[s.Code] = s
	}
	return specs
}

// twin is another code under which a rule raises alerts: hosts that a rule
// names, and what is beyond the memory of what was there before.
type twin struct{ named, many string }

func twins(name string) twin {
	switch name {
	case ambit.AlertFirstHost:
		return twin{ambit.AlertFirstNamedHost, ambit.AlertManyHosts}
	case ambit.AlertFirstTool:
		return twin{many: ambit.AlertManyTools}
	}
	return twin{}
}
