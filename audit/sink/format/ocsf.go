package format

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"ambit"
	"ambit/internal/inert"
)

// OCSFVersion is the version of the Open Cybersecurity Schema Framework that
// [OCSF] writes: https://schema.ocsf.io/1.8.0.
const OCSFVersion = "1.8.0"

// OCSF writes events as those of the Open Cybersecurity Schema Framework. What
// the schema has no attribute for is in unmapped, under the names of the log, so
// that nothing is lost.
type OCSF struct {
	// Version is that of the product, for metadata.product; "" leaves it out.
	Version string
}

// Append appends the event as one line of JSON without its newline. log is the
// name of the log that it is from.
func (o OCSF) Append(dst []byte, log string, e *ambit.Event) ([]byte, error) {
	m := mapping{e: e, log: log}
	m.base(o.Version)
	place := placeOf(e)
	m.out.Device = m.computer(true)
	place.fill(&m)
	m.out.SeverityID = int(Severity(e)) + 1
	m.classify(place)
	return appendValue(dst, &m.out, false)
}

// class is one of OCSF's.
type class struct {
	uid, category  int
	name, inWhich  string
	detectionClass bool
}

var (
	baseEvent  = class{0, 0, "Base Event", "Uncategorized", false}
	process    = class{1007, 1, "Process Activity", "System Activity", false}
	eventLog   = class{1008, 1, "Event Log Activity", "System Activity", false}
	detection  = class{2004, 2, "Detection Finding", "Findings", true}
	authentic  = class{3002, 3, "Authentication", "Identity & Access Management", false}
	entityMgmt = class{3004, 3, "Entity Management", "Identity & Access Management", false}
	network    = class{4001, 4, "Network Activity", "Network Activity", false}
	httpClass  = class{4002, 4, "HTTP Activity", "Network Activity", false}
	dns        = class{4003, 4, "DNS Activity", "Network Activity", false}
	lifecycle  = class{6002, 6, "Application Lifecycle", "Application Activity", false}
	api        = class{6003, 6, "API Activity", "Application Activity", false}
	datastore  = class{6005, 6, "Datastore Activity", "Application Activity", false}
)

// other is the activity that OCSF has no number for.
const other = 99

// mapping is the work on one event.
type mapping struct {
	e    *ambit.Event
	log  string
	out  ocsfEvent
	rest ocsfUnmapped
}

// base fills in what every class has. rest begins with everything that base has
// no attribute for; what a class has one for is taken out.
func (m *mapping) base(version string) {
	e := m.e
	m.out = ocsfEvent{
		Time: e.Time.UnixMilli(), StatusID: 1, Message: message(e),
		Metadata: ocsfMetadata{
			Version: OCSFVersion, Product: ocsfProduct{Name: "Ambit", VendorName: "Ambit", Version: version},
			UID: UID(m.log, e.Seq), Sequence: e.Seq, LogName: m.log, LogProvider: "ambit", EventCode: string(e.Kind), Profiles: []string{"host"},
			OriginalTime: e.Time.UTC().Format(time.RFC3339Nano), CorrelationUID: e.Task,
		},
		Actor: &ocsfActor{User: user(e)},
	}
	m.rest = ocsfUnmapped{
		V: e.V, Agent: e.Agent, Decision: e.Decision, Of: e.Of, Action: e.Action, Tool: e.Tool, Resource: e.Resource, Method: e.Method, Host: e.Host, URL: e.URL,
		Intent: e.Intent, Rule: e.Rule, Effects: e.Effects, Provenance: e.Provenance, Subjects: e.Subjects, More: e.More, Unseen: e.Unseen, Status: e.Status,
		BytesOut: e.BytesOut, BytesIn: e.BytesIn, Duration: int64(e.Duration), Connection: e.Connection, Links: e.Links, Erasure: e.Erasure, Detail: e.Detail,
	}
	if e.Reason != nil {
		m.out.StatusCode, m.out.StatusDetail = e.Reason.Code, e.Reason.Text
		if e.Reason.Remedy != "" {
			m.rest.Reason = e.Reason
		}
	}
	if e.Duration != 0 {
		ms := e.Duration.Milliseconds()
		m.out.Duration = &ms
	}
}

// classify writes the numbers that depend on the class, and the names beside all
// numbers.
func (m *mapping) classify(p place) {
	out := &m.out
	out.ClassUID, out.ClassName, out.CategoryUID, out.CategoryName = p.class.uid, p.class.name, p.class.category, p.class.inWhich
	out.ActivityID, out.ActivityName = p.activity, p.activityName
	out.TypeUID, out.TypeName = int64(p.class.uid)*100+int64(p.activity), p.class.name+": "+p.activityName
	out.Severity = [...]string{"Unknown", "Informational", "Low", "Medium", "High", "Critical"}[out.SeverityID]
	out.Status = [...]string{"Unknown", "Success", "Failure"}[out.StatusID]
	if p.class.detectionClass {
		out.StatusID, out.Status = 1, "New"
	}
	if p.decided {
		m.decided()
	}
	out.Unmapped = &m.rest
}

// decided fills in the profile security_control.
func (m *mapping) decided() {
	out := &m.out
	action, disposition := 2, 2
	out.Action, out.Disposition = "Denied", "Blocked"
	allow := m.e.Decision == ambit.Allow
	switch {
	case m.e.Kind == ambit.KindApprovalAsk:
		action, disposition = other, 14
		out.Action, out.Disposition = "Asked", "Delayed"
	case m.e.Kind == ambit.KindApprovalAnswer && allow:
		action, disposition = 1, 8
		out.Action, out.Disposition = "Allowed", "Approved"
	case m.e.Kind == ambit.KindApprovalAnswer:
		disposition, out.Disposition = 25, "Rejected"
	case allow:
		action, disposition = 1, 1
		out.Action, out.Disposition = "Allowed", "Allowed"
	}
	out.ActionID, out.DispositionID = &action, &disposition
	out.Metadata.Profiles = append(out.Metadata.Profiles, "security_control")
	if action == 2 {
		out.StatusID, out.Status = 2, "Failure"
	}
	if m.e.Rule != "" {
		out.FirewallRule = &ocsfEntity{Name: m.e.Rule}
		m.rest.Rule = ""
	}
}

// message is one line for people.
func message(e *ambit.Event) string {
	for _, spec := range ambit.Catalogue() {
		if spec.Kind != e.Kind {
			continue
		}
		text := spec.Text
		for _, more := range []string{e.Method + " " + e.URL, e.Tool, e.Resource, e.Detail} {
			if more != "" && more != " " {
				text += " " + inert.Text(cut(more, 500))
			}
		}
		return text
	}
	return inert.Text(string(e.Kind) + " " + cut(e.Detail, 500))
}

func user(e *ambit.Event) *ocsfUser {
	u := &ocsfUser{Name: string(e.Principal), TypeID: 1, Type: "User"}
	switch e.Principal {
	case ambit.PrincipalAgent:
		u.UID, u.TypeID, u.Type = string(e.Agent), 4, "Service"
	case ambit.PrincipalAmbit:
		u.TypeID, u.Type = 3, "System"
	case "":
		u.Name, u.TypeID, u.Type = "unknown", 0, "Unknown"
	}
	return u
}

// computer is where an event happened: an agent's computer, or the control plane.
func (m *mapping) computer(full bool) *ocsfEndpoint {
	d := &ocsfEndpoint{Name: "ambit"}
	id, kind := 1, "Server"
	if m.e.Agent != "" {
		d.Name, d.UID = string(m.e.Agent), m.log
		id, kind = 6, "Virtual"
	}
	if full { // as a device; an endpoint of a network is not said to be of a type
		d.TypeID, d.Type = &id, kind
	}
	return d
}

// target is the endpoint that host and URL name; nil if they name none.
func (m *mapping) target() *ocsfEndpoint {
	e := m.e
	if e.Host == "" {
		return nil
	}
	d := &ocsfEndpoint{Hostname: e.Host}
	if ip, err := netip.ParseAddr(e.Host); err == nil && ip.Zone() == "" {
		d = &ocsfEndpoint{IP: ip.String()}
		if d.IP != e.Host {
			return &ocsfEndpoint{Hostname: e.Host}
		}
	}
	if u := location(e.URL); u != nil {
		d.Port = u.Port
	}
	m.rest.Host = ""
	return d
}

// location takes a URL apart; nil if there is none.
func location(raw string) *ocsfURL {
	if raw == "" {
		return nil
	}
	l := &ocsfURL{URLString: raw}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return l
	}
	l.Scheme, l.Hostname, l.Path, l.QueryString = u.Scheme, u.Hostname(), u.EscapedPath(), u.RawQuery
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		l.Port = int(port)
	} else if known := map[string]int{"https": 443, "wss": 443, "tls": 443, "http": 80, "ws": 80}[u.Scheme]; u.Port() == "" {
		l.Port = known
	}
	return l
}

func (m *mapping) uid(seq *uint64) string {
	if seq == nil {
		return m.out.Metadata.UID
	}
	return UID(m.log, *seq)
}

// agentLog names the log of another agent as far as an event does.
func agentLog(agent ambit.AgentID, seq uint64) string {
	return fmt.Sprintf("ambit/agent/%s/%d", agent, seq)
}
