package policy_test

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ambit"
	"ambit/policy"
)

// naiveDecide is the second implementation: a straight loop over the rules,
// with regular expressions and net/url, from the same promises. It returns the
// code of the refusal ("" for allowed) and the label.
func naiveDecide(e policy.Egress, r *ambit.Request) (code, label string) {
	winner := -1
	for i, rule := range e.Rules {
		if naiveHost(rule.Host, r.Host) && slices.Contains(rule.Ports, r.Port) &&
			(winner < 0 || naiveSpecificity(rule.Host) > naiveSpecificity(e.Rules[winner].Host)) {
			winner = i
		}
	}
	codes := []string{"host", "port", "scheme", "path", "method", "query", "header", "websocket", "matched"}
	best := 0
	for _, rule := range e.Rules {
		stage := 0
		switch {
		case !naiveHost(rule.Host, r.Host):
			continue
		case !slices.Contains(rule.Ports, r.Port):
			stage = 1
		case rule.TLS != e.Rules[winner].TLS || rule.Private != e.Rules[winner].Private:
			continue
		default:
			stage = naiveStage(rule, r)
		}
		if stage > best {
			best, label = stage, rule.Label
		}
	}
	if codes[best] != "matched" {
		return codes[best] + "-not-allowed", label
	}
	if e.IntentRequired && r.Intent == "" {
		return "intent-required", label
	}
	return "", label
}

func naiveHost(rule, host string) bool {
	if suffix, ok := strings.CutPrefix(rule, "*"); ok {
		return regexp.MustCompile(`[a-z]$`).MatchString(host) && !strings.Contains(host, ":") && strings.HasSuffix(host, suffix) && host != suffix
	}
	return rule == host
}

func naiveSpecificity(host string) int {
	if strings.HasPrefix(host, "*") {
		return len(host)
	}
	return 1000
}

func naiveStage(rule policy.Rule, r *ambit.Request) int {
	want := map[policy.TLSMode]string{policy.Terminate: "https", policy.None: "http", policy.Passthrough: "tls"}[rule.TLS]
	if r.Scheme != want || (r.Action == ambit.ActionPassthrough) != (want == "tls") {
		return 2
	}
	if want == "tls" {
		return 8
	}
	path := len(rule.Paths) == 0
	for _, p := range rule.Paths {
		path = path || naiveGlob(p, r.Path) && naiveGlob(strings.ReplaceAll(p, "%2F", "/"), strings.ReplaceAll(r.Path, "%2F", "/"))
	}
	switch {
	case !path:
		return 3
	case r.Method == "CONNECT" || len(rule.Methods) > 0 && !slices.Contains(rule.Methods, r.Method):
		return 4
	case r.Action == ambit.ActionWebSocket && r.Method != "GET":
		return 4
	case !naiveQuery(rule.Query, r.RawQuery):
		return 5
	case !naiveHeaders(rule, r.Header):
		return 6
	case r.Action == ambit.ActionWebSocket && !rule.WebSocket:
		return 7
	}
	return 8
}

func naiveGlob(pattern, path string) bool {
	var re strings.Builder
	segments := strings.Split(pattern[1:], "/")
	for i, s := range segments {
		switch {
		case s == "**" && i == len(segments)-1:
			re.WriteString("/.*")
		case s == "**":
			re.WriteString("(/[^/]*)*")
		case s == "*":
			re.WriteString("/[^/]+")
		default:
			re.WriteString("/" + strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, "[^/]*"))
		}
	}
	return regexp.MustCompile("^" + re.String() + "$").MatchString(path)
}

func naiveQuery(conditions map[string][]string, raw string) bool {
	if len(conditions) == 0 {
		return true
	}
	values, err := url.ParseQuery(raw)
	if err != nil || strings.ContainsAny(raw, ";# \t\x00é") {
		return false
	}
	php := strings.NewReplacer(".", "_", " ", "_")
	for name, allowed := range conditions {
		if len(values[name]) != 1 || !slices.Contains(allowed, values[name][0]) {
			return false
		}
		for key := range values {
			k := php.Replace(strings.ToLower(strings.TrimLeft(key, " ")))
			n := php.Replace(strings.ToLower(name))
			if key != name && (k == n || strings.HasPrefix(k, n+"[") || strings.HasPrefix(k, n+"\x00")) {
				return false
			}
		}
	}
	return true
}

func naiveHeaders(rule policy.Rule, h http.Header) bool {
	seen := map[string][]string{}
	for name, values := range h {
		key := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
		seen[key] = append(seen[key], values...)
		if strings.Contains(name, "_") && len(values) > 0 {
			seen[key] = append(seen[key], "ambiguous", "ambiguous")
		}
	}
	for name, allowed := range rule.Headers {
		got := seen[strings.ToLower(name)]
		if len(got) != 1 || !slices.Contains(allowed, strings.TrimSpace(got[0])) {
			return false
		}
	}
	for key := range seen {
		method := key == "x-http-method-override" || key == "x-http-method" || key == "x-method-override"
		path := key == "x-original-url" || key == "x-rewrite-url"
		if method && len(rule.Methods) > 0 || path && len(rule.Paths) > 0 {
			return false
		}
	}
	return true
}

func pick[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

func some[T any](t *rapid.T, what string, from ...T) []T {
	return rapid.SliceOfN(rapid.SampledFrom(from), 0, 2).Draw(t, what)
}

func drawRule(t *rapid.T) policy.Rule {
	rule := policy.Rule{
		Host:  pick(t, "host", "a.example", "b.a.example", "*.a.example", "*.example", "*.b.a.example", "8.8.8.8", "example"),
		Ports: pick(t, "ports", []uint16{443}, []uint16{80}, []uint16{443, 8443}, []uint16{80, 443}),
		TLS:   pick(t, "tls", policy.Terminate, policy.Terminate, policy.Terminate, policy.None, policy.Passthrough),
	}
	rule.Private = pick(t, "private", false, false, false, true)
	if rule.TLS == policy.Passthrough {
		return rule
	}
	rule.Methods = some(t, "methods", "GET", "POST", "get")
	rule.Paths = some(t, "paths", "/", "/a", "/a/", "/a/*", "/a/**", "/**", "/**/b", "/a/**/b/*", "/*/b", "/a*b/c", "/x*/**/b*", "/a/b%2Fc", "/a/**/%2A", "/**/a/**")
	if pick(t, "hasQuery", true, false, false) {
		rule.Query = map[string][]string{pick(t, "key", "t", "a.b"): {"1", "x y"}}
	}
	if pick(t, "hasHeaders", true, false, false) {
		rule.Headers = map[string][]string{"X-Tenant": {"1", "two"}}
	}
	rule.WebSocket = len(rule.Methods) == 0 && pick(t, "websocket", true, false)
	return rule
}

func drawRequest(t *rapid.T) *ambit.Request {
	r := &ambit.Request{
		Action: pick(t, "action", ambit.ActionHTTP, ambit.ActionHTTP, ambit.ActionHTTP, ambit.ActionWebSocket, ambit.ActionPassthrough),
		Scheme: pick(t, "scheme", "https", "https", "https", "http"),
		Method: pick(t, "method", "GET", "GET", "POST", "DELETE", "get", "CONNECT"),
		Host:   pick(t, "host", "a.example", "b.a.example", "c.b.a.example", "xa.example", "example", "a.example.test", "8.8.8.8", "z.8.8.8.8.example"),
		Port:   pick(t, "port", uint16(443), 443, 80, 8443),
		Path:   "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "axb", "xa", "b1", "c", "b%2Fc", "%2A"}), 0, 5).Draw(t, "path"), "/"),
		Intent: pick(t, "intent", "", "to test"),
	}
	if r.Path != "/" && pick(t, "slash", false, false, true) {
		r.Path += "/"
	}
	if r.Action == ambit.ActionPassthrough {
		r.Scheme, r.Method, r.Path = "tls", "", ""
	}
	if r.Action == ambit.ActionWebSocket && r.Method == "CONNECT" {
		r.Method = "GET" // RFC 8441 has a test of its own
	}
	r.RawQuery = strings.Join(some(t, "query", "t=1", "t=1", "t=x+y", "t=x%20y", "%74=1", "t=2", "T=1", "t[]=1", "t%5Bx%5D=1", "a.b=1", "a_b=1", "a+b=1", "+t=1", "t%00=1", "tt=1", "t", "=1", "u=;", "u=%zz", ""), "&")
	r.Header = http.Header{}
	for _, h := range some(t, "headers", "X-Tenant", "x-tenant", "X_Tenant", "X-Http-Method-Override", "x-rewrite-url", "X-Other") {
		r.Header[h] = append(r.Header[h], pick(t, "value", "1", " two ", "3"))
	}
	return r
}

// The fast implementation says what the naive one says, over many rules and
// few, so that hosts, wildcards, ports and paths overlap.
func TestSameAsNaive(t *testing.T) {
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		e := policy.Egress{IntentRequired: rapid.Bool().Draw(t, "intent required")}
		narrow := rapid.Bool().Draw(t, "one door") // so that it has enough rules for an index
		for range rapid.IntRange(0, 40).Draw(t, "rules") {
			rule := drawRule(t)
			if narrow && rule.TLS == policy.Terminate {
				rule.Host, rule.Ports, rule.Private = "a.example", []uint16{443}, false
			}
			rule.Label = "rule " + string(rune('A'+len(e.Rules)%26)) + strings.Repeat("'", len(e.Rules)/26)
			if rule.Host == "8.8.8.8" && rule.TLS == policy.Passthrough {
				continue
			}
			with := policy.Egress{Rules: append(slices.Clone(e.Rules), rule), IntentRequired: e.IntentRequired}
			if _, err := policy.Compile(with); err == nil { // leaves out rules that contradict another
				e = with
			}
		}
		set, err := policy.Compile(e)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			r := drawRequest(t)
			if narrow {
				r.Host, r.Port = "a.example", 443
			}
			v := set.Decide(r)
			code, label := naiveDecide(e, r)
			if diff := cmp.Diff([]string{code, label}, []string{v.Reason.Code, v.Rule}); diff != "" {
				t.Fatalf("%+v\n%+v\nnaive and fast differ:\n%s", e, r, diff)
			}
			if (v.Decision == ambit.Allow) != (code == "") {
				t.Fatalf("decision %v with code %q", v.Decision, code)
			}
			if v.Decision == ambit.Allow {
				allowed++
				endpoint, ev := set.Endpoint(r.Host, r.Port)
				if ev.Decision != ambit.Allow || endpoint.TLS == policy.None != (r.Scheme == "http") || !slices.Contains(set.Ports(r.Host), r.Port) {
					t.Fatalf("allowed %+v, but its endpoint is %+v, %+v", r, endpoint, ev)
				}
			}
			checkInert(t, v)
		}
	})
	if allowed == 0 {
		t.Error("no request was allowed, so the comparison says nothing")
	}
}

func checkInert(t interface{ Fatalf(string, ...any) }, v ambit.Verdict) {
	for _, s := range []string{v.Rule, v.Reason.Code, v.Reason.Text, v.Reason.Remedy} {
		for i := 0; i < len(s); i++ {
			if s[i] < 0x20 || s[i] > 0x7e {
				t.Fatalf("%q is not inert", s)
			}
		}
	}
	if v.Decision != ambit.Allow && (v.Reason.Code == "" || v.Reason.Text == "") {
		t.Fatalf("a refusal without a reason: %+v", v)
	}
}
