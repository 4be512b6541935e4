package policy

import (
	"net/netip"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/dialguard"
)

// Everything that these sentences echo is printable ASCII: hosts, paths and
// methods were found canonical, labels and names come from the operator and
// were checked by Compile, values of the agent's are not repeated.

func badRequest(text string) ambit.Verdict {
	return ambit.Verdict{Reason: ambit.Reason{
		Code:   "bad-request",
		Text:   text,
		Remedy: "nothing in the manifest can allow this; the program must write the request in one clear way",
	}}
}

func (m *miss) refuseUnstated() ambit.Verdict {
	return ambit.Verdict{Rule: m.rule.label, Reason: ambit.Reason{
		Code:   "intent-required",
		Text:   "the request states no intent, and this agent must state one for every call",
		Remedy: "state it in the Ambit-Intent header or around the command with ambit intent, or set egress.intent: optional and deploy again",
	}}
}

// refuse says in words why the request did not come further than m.
func (m *miss) refuse(r *ambit.Request) ambit.Verdict {
	v := ambit.Verdict{}
	if m.rule != nil {
		v.Rule = m.rule.label
	}
	switch m.stage {
	case atHost:
		v.Reason = m.noHost(r)
	case atPort:
		v.Reason = ambit.Reason{
			Code:   "port-not-allowed",
			Text:   "no rule allows port " + portText(r.Port) + " of " + r.Host,
			Remedy: add(entry(r, doorKeys(r)...)),
		}
	case atScheme:
		v.Reason = m.wrongScheme(r)
	case atPath:
		v.Reason = ambit.Reason{
			Code:   "path-not-allowed",
			Text:   "no rule allows the path " + r.Path + " on " + r.Host,
			Remedy: m.addExactly(r),
		}
	case atMethod:
		v.Reason = m.wrongMethod(r)
	case atQuery:
		name, problem := checkQuery(m.rule.query, r.RawQuery)
		v.Reason = m.wrongValue("query-not-allowed", "query parameter ", "query", name, problem)
	case atHeader:
		name, problem := m.rule.checkHeaders(findOverrides(r.Header), r)
		v.Reason = m.wrongValue("header-not-allowed", "header field ", "headers", name, problem)
	case atWebSocket:
		v.Reason = ambit.Reason{
			Code:   "websocket-not-allowed",
			Text:   "no rule allows a WebSocket to " + r.Host + r.Path,
			Remedy: "add websocket: true to " + m.rule.label + " and deploy again",
		}
	}
	return v
}

func (m *miss) noHost(r *ambit.Request) ambit.Reason {
	reason := ambit.Reason{Code: "host-not-allowed", Text: "no rule allows " + r.Host}
	var keys []string
	if r.Action != ambit.ActionName {
		keys = doorKeys(r)
	}
	if a, err := netip.ParseAddr(r.Host); err == nil && dialguard.Check(a, false) != nil {
		if err := dialguard.Check(a, true); err != nil {
			reason.Text += ", and none can: it is " + dialguard.Classify(a).String()
			if dialguard.Classify(a) == dialguard.Metadata {
				reason.Code = "metadata-address"
			}
			return reason
		}
		keys = append(keys, "private: true")
	}
	reason.Remedy = add(entry(r, keys...))
	return reason
}

// doorKeys returns the keys for r's port and scheme where they are not the
// default.
func doorKeys(r *ambit.Request) []string {
	port, mode := uint16(443), []string(nil)
	switch {
	case r.Scheme == "http", r.Scheme == "" && r.Port == 80:
		port, mode = 80, []string{"tls: none"}
	case r.Scheme == "tls":
		mode = []string{"tls: passthrough"}
	}
	if r.Port != port {
		return append([]string{"ports: [" + portText(r.Port) + "]"}, mode...)
	}
	return mode
}

func (m *miss) wrongScheme(r *ambit.Request) ambit.Reason {
	reason := ambit.Reason{Code: "scheme-not-allowed", Remedy: "use what the rule allows, or change tls of " + m.rule.label + " and deploy again"}
	where := r.Host + " port " + portText(r.Port)
	switch {
	case r.Action == ambit.ActionConnect:
		reason.Text = "the connection to " + where + " did not become a request that could be judged"
		reason.Remedy = ""
	case m.reach.TLS == Terminate:
		reason.Text = where + " is allowed over HTTPS only"
	case m.reach.TLS == None:
		reason.Text = where + " is allowed over plain HTTP only"
	default:
		reason.Text = where + " is allowed as a TLS connection that is passed through only"
	}
	return reason
}

func (m *miss) wrongMethod(r *ambit.Request) ambit.Reason {
	reason := ambit.Reason{
		Code:   "method-not-allowed",
		Text:   "no rule allows " + r.Method + " " + r.Path + " on " + r.Host,
		Remedy: m.addExactly(r),
	}
	if r.Method == "CONNECT" {
		reason.Remedy = "nothing in the manifest can allow this; the program must not open a tunnel through an allowed host"
	}
	return reason
}

func (m *miss) wrongValue(code, kind, key, name, problem string) ambit.Reason {
	reason := ambit.Reason{
		Code:   code,
		Text:   "the " + kind + strconv.QuoteToASCII(name) + " " + problem,
		Remedy: "if the value is right, add it under " + key + " of " + m.rule.label + " and deploy again",
	}
	switch problem {
	case isUnclear, isRepeated:
		reason.Remedy = "the program must send it once and in one clear way"
	case isMissing:
		reason.Remedy = "the program must send it, or remove it from " + key + " of " + m.rule.label + " and deploy again"
	case isOverride:
		reason.Remedy = "the program must send the method and path themselves, or name the field under headers of " + m.rule.label + " and deploy again"
	}
	return reason
}

// add is the remedy of one more entry in the manifest.
func add(entry string) string {
	return "add " + entry + " under egress.allow and deploy again"
}

// entry writes an entry of egress.allow for r's host.
func entry(r *ambit.Request, keys ...string) string {
	return "{" + strings.Join(append([]string{"host: " + scalar(r.Host)}, keys...), ", ") + "}"
}

// addExactly is the remedy of an entry for no more than r. What it says about
// the connection is as before, else Compile would refuse the two together.
func (m *miss) addExactly(r *ambit.Request) string {
	keys := doorKeys(r)
	if r.Action == ambit.ActionWebSocket {
		keys = append(keys, "methods: [GET]", "paths: ["+scalar(r.Path)+"]", "websocket: true")
	} else {
		keys = append(keys, "methods: ["+scalar(r.Method)+"]", "paths: ["+scalar(r.Path)+"]")
	}
	if m.reach.Private {
		keys = append(keys, "private: true")
	}
	if len(m.reach.Resolve) > 0 {
		var addrs []string
		for _, a := range m.reach.Resolve {
			addrs = append(addrs, scalar(a.String()))
		}
		keys = append(keys, "resolve: ["+strings.Join(addrs, ", ")+"]")
	}
	if m.reach.Roots != nil {
		return "add " + entry(r, keys...) + ", with the ca of " + m.rule.label + ", under egress.allow and deploy again"
	}
	return add(entry(r, keys...))
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// scalar writes a string of printable ASCII for a flow sequence or mapping of
// YAML, quoted unless it is certain to be read as the same string.
func scalar(s string) string {
	switch s {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n", "NULL", "TRUE", "FALSE", "YES", "NO", "ON", "OFF", "Y", "N":
		return strconv.Quote(s)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && c != '/' && (i == 0 || !('0' <= c && c <= '9') && strings.IndexByte("._-%~", c) < 0) {
			return strconv.Quote(s)
		}
	}
	return s
}
