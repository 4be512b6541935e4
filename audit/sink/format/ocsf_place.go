package format

import (
	"slices"

	"ambit"
)

// place is where an event belongs in OCSF.
type place struct {
	class        class
	activity     int
	activityName string
	decided      bool // a policy or a person decided: the profile security_control
	fill         func(*mapping)
}

// Severity grades any event for a receiver that wants a grade: an alert has its
// own, a log that is not what it was is critical, a refusal low, all else info.
func Severity(e *ambit.Event) ambit.Severity {
	switch {
	case e.Kind == ambit.KindAlert:
		return min(e.Severity, ambit.Critical)
	case e.Kind == ambit.KindAuditWitness, e.Kind == ambit.KindAuditVerify && e.Decision != ambit.Allow:
		return ambit.Critical
	case e.Decision != ambit.Allow && e.Kind != ambit.KindApprovalAsk && placeOf(e).decided:
		return ambit.Low
	}
	return ambit.Info
}

// placeOf is the table of docs/outputs.md. A kind that it does not know, of a
// newer release, is a Base Event.
func placeOf(e *ambit.Event) place {
	switch e.Kind {
	case ambit.KindEgressRequest, ambit.KindEgressOutcome:
		return egressPlace(e)
	case ambit.KindEgressName:
		return place{dns, 1, "Query", true, (*mapping).name}
	case ambit.KindToolCall:
		id, name := effectActivity(e.Effects)
		return place{api, id, name, true, (*mapping).call}
	case ambit.KindToolOutcome, ambit.KindModelOutcome:
		return place{api, other, "Outcome", false, (*mapping).outcomeOfCall}
	case ambit.KindModelCall:
		return place{api, other, "Call", true, (*mapping).call}
	case ambit.KindMessageIn:
		return place{api, other, "Receive", false, (*mapping).call}
	case ambit.KindMessageOut:
		return place{api, other, "Send", true, (*mapping).call}
	case ambit.KindMemoryWrite:
		return place{datastore, 5, "Write", false, (*mapping).memory}
	case ambit.KindMemoryDelete:
		return place{datastore, 7, "Delete", false, (*mapping).memory}
	case ambit.KindApprovalAsk:
		return place{api, other, "Ask", true, (*mapping).call}
	case ambit.KindApprovalAnswer:
		return place{api, other, "Answer", true, (*mapping).call}
	case ambit.KindVaultConnect:
		return place{entityMgmt, 1, "Create", false, (*mapping).connection}
	case ambit.KindVaultRevoke:
		return place{entityMgmt, 4, "Delete", false, (*mapping).connection}
	case ambit.KindVaultRefresh, ambit.KindVaultSession:
		return place{entityMgmt, 3, "Update", false, (*mapping).connection}
	case ambit.KindVaultRekey, ambit.KindAgentKey, ambit.KindControlKey:
		return place{entityMgmt, 3, "Update", false, (*mapping).key}
	case ambit.KindPolicyChange:
		return place{entityMgmt, 3, "Update", false, (*mapping).policyChange}
	case ambit.KindAgentExec:
		return place{process, 1, "Launch", false, (*mapping).exec}
	case ambit.KindAgentExecEnd:
		return place{process, 2, "Terminate", false, (*mapping).execEnd}
	case ambit.KindLogin:
		return place{authentic, 1, "Logon", true, (*mapping).login}
	}
	return watchPlace(e)
}

// watchPlace has the kinds that are about the product itself and its logs.
func watchPlace(e *ambit.Event) place {
	switch e.Kind {
	case ambit.KindAgentDeploy:
		return place{lifecycle, 8, "Update", false, (*mapping).application}
	case ambit.KindAgentWipe:
		return place{lifecycle, 2, "Remove", false, (*mapping).application}
	case ambit.KindAgentStart, ambit.KindWorkerStart, ambit.KindControlStart:
		return place{lifecycle, 3, "Start", false, (*mapping).application}
	case ambit.KindAgentStop, ambit.KindWorkerStop, ambit.KindControlStop:
		return place{lifecycle, 4, "Stop", false, (*mapping).application}
	case ambit.KindAuditRead:
		return place{eventLog, 3, "Export", false, (*mapping).ofLog}
	case ambit.KindAuditVerify:
		return place{eventLog, other, "Verify", false, (*mapping).verified}
	case ambit.KindAuditErase:
		return place{eventLog, other, "Erase", false, (*mapping).ofLog}
	case ambit.KindAuditHold:
		return place{eventLog, other, "Hold", false, (*mapping).ofLog}
	case ambit.KindAuditSink:
		return place{eventLog, other, "Forward", false, (*mapping).ofLog}
	case ambit.KindAlert, ambit.KindAuditWitness:
		return place{detection, 1, "Create", false, (*mapping).finding}
	}
	return place{baseEvent, other, string(e.Kind), false, func(*mapping) {}}
}

// egressPlace tells HTTP, names and other connections apart. OCSF's HTTP Activity
// needs a request or a response.
func egressPlace(e *ambit.Event) place {
	outcome := e.Kind == ambit.KindEgressOutcome
	web := e.Action == ambit.ActionHTTP || e.Action == ambit.ActionWebSocket
	switch {
	case e.Action == ambit.ActionName:
		if outcome {
			return place{dns, 2, "Response", false, (*mapping).name}
		}
		return place{dns, 1, "Query", true, (*mapping).name}
	case web && outcome && e.Status != 0:
		return place{httpClass, other, "Outcome", false, (*mapping).response}
	case web && !outcome && e.URL != "":
		id, name := methodActivity(e.Method)
		return place{httpClass, id, name, true, (*mapping).request}
	case outcome && e.Status == 0 && web:
		return place{network, 4, "Fail", false, (*mapping).traffic}
	case outcome:
		return place{network, 2, "Close", false, (*mapping).traffic}
	case e.Decision == ambit.Allow:
		return place{network, 1, "Open", true, (*mapping).traffic}
	}
	return place{network, 5, "Refuse", true, (*mapping).traffic}
}

func methodActivity(method string) (int, string) {
	for i, m := range methods() {
		if m == method {
			return i + 1, [...]string{"Connect", "Delete", "Get", "Head", "Options", "Post", "Put", "Trace", "Patch"}[i]
		}
	}
	return other, "Request"
}

// methods are those that OCSF knows, in the order of their activities.
func methods() []string {
	return []string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH"}
}

func effectActivity(effects []ambit.Effect) (int, string) {
	switch {
	case slices.Contains(effects, ambit.EffectDelete):
		return 4, "Delete"
	case slices.Contains(effects, ambit.EffectWrite):
		return 3, "Update"
	case len(effects) == 1 && effects[0] == ambit.EffectRead:
		return 2, "Read"
	}
	return other, "Call"
}

func (m *mapping) ends() {
	m.out.SrcEndpoint, m.out.DstEndpoint = m.computer(false), m.target()
}

func (m *mapping) request() {
	m.ends()
	m.out.HTTPRequest = &ocsfHTTPRequest{URL: location(m.e.URL)}
	m.rest.URL = ""
	if slices.Contains(methods(), m.e.Method) {
		m.out.HTTPRequest.HTTPMethod, m.rest.Method = m.e.Method, ""
	}
}

func (m *mapping) response() {
	m.ends()
	m.out.HTTPResponse = &ocsfHTTPResponse{Code: m.e.Status, BodyLength: m.e.BytesIn}
	m.rest.Status = 0
	m.bytes()
	m.judge(m.e.Status < 400)
}

func (m *mapping) traffic() {
	m.ends()
	m.bytes()
	m.out.URL = location(m.e.URL)
	m.rest.URL = ""
	if m.e.Kind == ambit.KindEgressOutcome && m.e.Status == 0 {
		m.judge(m.e.Action != ambit.ActionHTTP && m.e.Action != ambit.ActionWebSocket)
	}
}

func (m *mapping) bytes() {
	if e := m.e; e.BytesIn != 0 || e.BytesOut != 0 {
		m.out.Traffic = &ocsfTraffic{Bytes: e.BytesIn + e.BytesOut, BytesIn: e.BytesIn, BytesOut: e.BytesOut}
		m.rest.BytesIn, m.rest.BytesOut = 0, 0
	}
}

func (m *mapping) judge(good bool) {
	m.out.StatusID = 2
	if good {
		m.out.StatusID = 1
	}
}

func (m *mapping) name() {
	m.out.SrcEndpoint = m.computer(false)
	if m.e.Host != "" {
		m.out.Query = &ocsfQuery{Hostname: m.e.Host}
		m.rest.Host = ""
	}
}

func (m *mapping) call() {
	m.ends()
	m.out.API = &ocsfAPI{Operation: m.e.Tool, Request: &ocsfEntity{UID: m.uid(m.e.Of)}}
	if m.e.Tool == "" {
		m.out.API.Operation = string(m.e.Kind)
	}
	m.rest.Tool = ""
	if m.e.Connection != "" {
		m.out.API.Service = &ocsfEntity{Name: m.e.Connection}
		m.rest.Connection = ""
	}
	if m.e.Resource != "" {
		m.out.Resources = []ocsfEntity{{Name: m.e.Resource}}
		m.rest.Resource = ""
	}
}

func (m *mapping) outcomeOfCall() {
	m.call()
	m.out.API.Response = &ocsfResponse{Code: m.e.Status}
	m.rest.Status = 0
	m.judge(m.e.Status > 0 && m.e.Status < 400)
}

func (m *mapping) memory() {
	m.out.SrcEndpoint = m.computer(false)
	m.out.Databucket = &ocsfTyped{Name: "memory", UID: m.log, TypeID: other, Type: "Agent memory"}
}

func (m *mapping) connection() {
	m.entity(m.e.Connection, "Connection")
	m.rest.Connection = ""
	if m.e.Kind == ambit.KindVaultRefresh {
		m.out.StatusID = 0
		if m.e.Status != 0 {
			m.judge(m.e.Status < 400)
		}
	}
}

func (m *mapping) key() { m.entity("", "Key") }

func (m *mapping) policyChange() {
	m.entity("", "Policy")
	m.out.Entity.TypeID = 5
	if m.e.Resource != "" {
		m.out.Entity.Policy = &ocsfEntity{Name: m.e.Resource}
		m.rest.Resource = ""
	}
}

func (m *mapping) entity(name, kind string) {
	if name == "" {
		name = string(m.e.Agent)
	}
	if name == "" {
		name = "control plane"
	}
	m.out.Entity = &ocsfTyped{Name: name, UID: m.log, TypeID: other, Type: kind}
}

func (m *mapping) exec() {
	m.out.Process = &ocsfProcess{UID: m.out.Metadata.UID, CmdLine: m.e.Detail}
	m.rest.Detail = ""
}

func (m *mapping) execEnd() {
	m.out.Process = &ocsfProcess{UID: m.uid(m.e.Of)}
	status := m.e.Status
	m.out.ExitCode, m.rest.Status = &status, 0
	m.judge(status == 0)
}

func (m *mapping) login() {
	m.out.User = user(m.e)
	m.out.Service = &ocsfEntity{Name: "Ambit control plane"}
}

func (m *mapping) application() {
	name := "Ambit control plane"
	if m.e.Agent != "" {
		name = "Ambit agent " + string(m.e.Agent)
	}
	m.out.App = &ocsfProduct{Name: name, UID: m.log, VendorName: "Ambit"}
}

func (m *mapping) ofLog() {
	id := 2
	m.out.LogName, m.out.LogTypeID, m.out.LogType = m.log, &id, "Application"
	if m.e.Agent != "" && m.e.Resource != "" {
		m.out.LogName, m.rest.Resource = m.e.Resource, ""
	}
}

func (m *mapping) verified() {
	m.ofLog()
	m.judge(m.e.Decision == ambit.Allow)
}

// finding is of an alert, or of a head that does not fit to what came before.
func (m *mapping) finding() {
	e := m.e
	f := &ocsfFindingInfo{UID: m.out.Metadata.UID, Title: m.out.Message, Desc: e.Detail, Types: []string{string(e.Kind)}, CreatedTime: m.out.Time}
	if e.Of != nil {
		f.RelatedEvents = append(f.RelatedEvents, ocsfRelated{UID: m.uid(e.Of), Type: "cause"})
	}
	for _, l := range e.Links {
		uid := UID(m.log, l.Seq)
		if l.Log != "" {
			uid = agentLog(l.Log, l.Seq)
		}
		f.RelatedEvents = append(f.RelatedEvents, ocsfRelated{UID: uid, Type: l.Rel})
	}
	yes := true
	m.out.FindingInfo, m.out.IsAlert, m.rest.Detail = f, &yes, ""
}
