package policy_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/gate"
	"ambit/policy"
)

var _ gate.Decider = (*policy.Set)(nil)

func compile(t *testing.T, rules ...policy.Rule) *policy.Set {
	t.Helper()
	s, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get is a plain request; what is not in the URL is filled in by the test.
func get(host string, port uint16, path string) *ambit.Request {
	return &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: host, Port: port, Path: path}
}

// wantCode fails unless the verdict has the code; "" is allowed.
func wantCode(t *testing.T, s *policy.Set, r *ambit.Request, code string) ambit.Verdict {
	t.Helper()
	v := s.Decide(r)
	if v.Reason.Code != code || (v.Decision == ambit.Allow) != (code == "") {
		t.Errorf("%s %s %s: %s %+v, want code %q", r.Action, r.Method, r.URL(), v.Decision, v.Reason, code)
	}
	checkInert(t, v)
	return v
}

// Row N5: no policy, an empty one and the zero one deny everything.
func TestN5EmptyDeniesEverything(t *testing.T) {
	for name, s := range map[string]*policy.Set{"nil": nil, "zero": {}, "empty": compile(t)} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, s, get("api.example", 443, "/"), "host-not-allowed")
			wantCode(t, s, &ambit.Request{Action: ambit.ActionName, Host: "api.example"}, "host-not-allowed")
			wantCode(t, s, &ambit.Request{Action: ambit.ActionPassthrough, Scheme: "tls", Host: "api.example", Port: 443}, "host-not-allowed")
			wantCode(t, s, &ambit.Request{}, "bad-request")
			if v := s.Decide(nil); v.Decision != ambit.Deny {
				t.Error("a nil request is allowed")
			}
			if e, v := s.Endpoint("api.example", 443); v.Decision != ambit.Deny || e.TLS != "" {
				t.Errorf("Endpoint = %+v, %+v", e, v)
			}
			if p := s.Ports("api.example"); len(p) != 0 {
				t.Errorf("Ports = %v", p)
			}
		})
	}
}

// Row N3: a host that is not canonical is refused, an address under a wildcard
// too.
func TestN3Hosts(t *testing.T) {
	s := compile(t, policy.Rule{Host: "api.example"}, policy.Rule{Host: "*.example"}, policy.Rule{Host: "8.8.8.8"}, policy.Rule{Host: "2001:4860::8"})
	for _, host := range []string{"API.example", "api.example.", "[api.example]", "api%2eexample", "api.example\x00", "u@api.example", "äpi.example", "0x08.8.8.8", "8.8.2056", "[2001:4860::8]", "2001:4860:0::8", "", "api.example:443", "*.example"} {
		wantCode(t, s, get(host, 443, "/"), "bad-request")
		if _, v := s.Endpoint(host, 443); v.Decision == ambit.Allow || v.Reason.Code != "bad-request" {
			t.Errorf("Endpoint(%q) = %+v", host, v)
		}
		if ports := s.Ports(host); len(ports) > 0 {
			t.Errorf("Ports(%q) = %v", host, ports)
		}
	}
	wantCode(t, s, get("api.example", 443, "/"), "")
	wantCode(t, s, get("8.8.8.8", 443, "/"), "")
	wantCode(t, s, get("2001:4860::8", 443, "/"), "")
	wantCode(t, s, get("1.2.3.4", 443, "/"), "host-not-allowed")
}

// Row N4: a path that is not canonical is refused, and one with an encoded
// slash must be allowed in both readings.
func TestN4Paths(t *testing.T) {
	s := compile(t, policy.Rule{Host: "api.example", Paths: []string{"/public/*", "/open/**", "/*.json", "/projects/mine%2Fone/**"}})
	for _, path := range []string{"", "*", "/public/../admin", "/public/%2e%2e/admin", "/public//x", "/admin;.json", "/admin%00.json", `/public\..\admin`, "/public/..;/admin", "/open/..%2fadmin", "/%70ublic/x", "/public/a%2fb"} {
		wantCode(t, s, get("api.example", 443, path), "bad-request")
	}
	for path, code := range map[string]string{
		"/public/x":                     "",
		"/public/x/y":                   "path-not-allowed",
		"/public/x%2Fy":                 "path-not-allowed",
		"/public/":                      "path-not-allowed",
		"/public":                       "path-not-allowed",
		"/open":                         "path-not-allowed",
		"/open/":                        "",
		"/open/x%2Fy":                   "",
		"/openx/y":                      "path-not-allowed",
		"/a.json":                       "",
		"/admin%2F.json":                "path-not-allowed",
		"/projects/mine%2Fone/issues":   "",
		"/projects/mine/one/issues":     "path-not-allowed",
		"/projects/mine%2Fone%2Fissues": "path-not-allowed",
		"/projects/mine%2Ftwo/issues":   "path-not-allowed",
		"/Public/x":                     "path-not-allowed",
	} {
		wantCode(t, s, get("api.example", 443, path), code)
	}
}

// Row N4: header fields by which some frameworks take another path or method.
func TestN4OverrideFields(t *testing.T) {
	s := compile(t,
		policy.Rule{Host: "api.example", Methods: []string{"GET"}, Paths: []string{"/open"}},
		policy.Rule{Host: "free.example"},
		policy.Rule{Host: "named.example", Methods: []string{"POST"}, Headers: map[string][]string{"X-HTTP-Method-Override": {"PATCH"}}},
	)
	for _, name := range []string{"X-Http-Method-Override", "x-http-method-override", "X_HTTP_METHOD_OVERRIDE", "X-Method-Override", "X-Http-Method", "X-Original-Url", "X-Rewrite-Url", "x-original-url"} {
		r := get("api.example", 443, "/open")
		r.Header = http.Header{name: {"/admin"}}
		wantCode(t, s, r, "header-not-allowed")
		r.Host = "free.example"
		wantCode(t, s, r, "")
	}
	for value, code := range map[string]string{"PATCH": "", "DELETE": "header-not-allowed"} {
		r := get("named.example", 443, "/")
		r.Method, r.Header = "POST", http.Header{"X-Http-Method-Override": {value}}
		wantCode(t, s, r, code)
	}
}

// Row N6: a rule for one port is for no other.
func TestN6Ports(t *testing.T) {
	s := compile(t, policy.Rule{Host: "api.example"}, policy.Rule{Host: "*.example", Ports: []uint16{8443, 9443}}, policy.Rule{Host: "plain.example", TLS: policy.None})
	wantCode(t, s, get("api.example", 443, "/"), "")
	wantCode(t, s, get("api.example", 8443, "/"), "")
	wantCode(t, s, get("x.example", 443, "/"), "port-not-allowed")
	for _, port := range []uint16{1, 80, 442, 444, 8444, 65535} {
		wantCode(t, s, get("api.example", port, "/"), "port-not-allowed")
		if _, v := s.Endpoint("api.example", port); v.Reason.Code != "port-not-allowed" {
			t.Errorf("Endpoint with port %d = %+v", port, v)
		}
	}
	wantCode(t, s, get("api.example", 0, "/"), "bad-request")
	if got := s.Ports("api.example"); !slices.Equal(got, []uint16{443, 8443, 9443}) {
		t.Errorf("Ports = %v", got)
	}
	if got := s.Ports("plain.example"); !slices.Equal(got, []uint16{80, 8443, 9443}) {
		t.Errorf("Ports = %v", got)
	}
	if got := s.Ports("example"); len(got) != 0 {
		t.Errorf("Ports = %v", got)
	}
}

// Row N7: suffix tricks.
func TestN7Suffixes(t *testing.T) {
	s := compile(t, policy.Rule{Host: "allowed.example"}, policy.Rule{Host: "*.wild.example"})
	for _, host := range []string{"allowed.example.evil.test", "evilallowed.example", "x.allowed.example", "example", "wild.example", "evilwild.example", "x.wild.example.evil.test", "wild.example.test", "allowed-example", "x-wild.example"} {
		wantCode(t, s, get(host, 443, "/"), "host-not-allowed")
		if len(s.Ports(host)) > 0 {
			t.Errorf("Ports(%q) is not empty", host)
		}
	}
	for _, host := range []string{"allowed.example", "x.wild.example", "y.x.wild.example"} {
		wantCode(t, s, get(host, 443, "/"), "")
	}
}

// Rows N8 and N9: WebSocket and CONNECT need more than a rule for the host, and
// plain HTTP is judged like HTTPS, by a rule of its own.
func TestN8N9SchemesAndUpgrades(t *testing.T) {
	s := compile(t,
		policy.Rule{Host: "api.example", Paths: []string{"/a"}},
		policy.Rule{Host: "plain.example", TLS: policy.None, Paths: []string{"/a"}},
		policy.Rule{Host: "ws.example", WebSocket: true, Methods: []string{"GET"}},
		policy.Rule{Host: "pinned.example", TLS: policy.Passthrough},
	)
	request := func(action ambit.Action, scheme, method, host string, port uint16, path string) *ambit.Request {
		return &ambit.Request{Action: action, Scheme: scheme, Method: method, Host: host, Port: port, Path: path}
	}
	for _, c := range []struct {
		r    *ambit.Request
		code string
	}{
		{request("http", "https", "GET", "api.example", 443, "/a"), ""},
		{request("http", "http", "GET", "api.example", 443, "/a"), "scheme-not-allowed"},
		{request("http", "http", "GET", "api.example", 80, "/a"), "port-not-allowed"},
		{request("http", "http", "GET", "plain.example", 80, "/a"), ""},
		{request("http", "http", "GET", "plain.example", 80, "/b"), "path-not-allowed"},
		{request("http", "https", "GET", "plain.example", 80, "/a"), "scheme-not-allowed"},
		{request("http", "https", "GET", "plain.example", 443, "/a"), "port-not-allowed"},
		{request("http", "ftp", "GET", "api.example", 443, "/a"), "bad-request"},
		{request("http", "https", "CONNECT", "api.example", 443, "/a"), "method-not-allowed"},
		{request("http", "https", "CONNECT", "ws.example", 443, "/a"), "method-not-allowed"},
		{request("websocket", "https", "GET", "ws.example", 443, "/a"), ""},
		{request("websocket", "https", "CONNECT", "ws.example", 443, "/a"), ""},
		{request("websocket", "https", "POST", "ws.example", 443, "/a"), "method-not-allowed"},
		{request("websocket", "https", "GET", "api.example", 443, "/a"), "websocket-not-allowed"},
		{request("websocket", "http", "GET", "plain.example", 80, "/a"), "websocket-not-allowed"},
		{request("http", "https", "GET", "pinned.example", 443, "/"), "scheme-not-allowed"},
		{request("passthrough", "tls", "", "pinned.example", 443, ""), ""},
		{request("passthrough", "https", "", "pinned.example", 443, ""), "scheme-not-allowed"},
		{request("passthrough", "tls", "", "api.example", 443, ""), "scheme-not-allowed"},
		{request("connect", "", "", "api.example", 443, ""), "scheme-not-allowed"},
		{request("connect", "", "", "evil.example", 443, ""), "host-not-allowed"},
		{request("name", "", "", "api.example", 0, ""), ""},
		{request("name", "", "", "evil.example", 0, ""), "host-not-allowed"},
		{request("", "https", "GET", "api.example", 443, "/a"), "bad-request"},
		{request("smtp", "https", "GET", "api.example", 443, "/a"), "bad-request"},
		{request("http", "https", "", "api.example", 443, "/a"), "bad-request"},
		{request("http", "https", "GET /x", "api.example", 443, "/a"), "bad-request"},
		{request("http", "https", strings.Repeat("A", 33), "api.example", 443, "/a"), "bad-request"},
		{request("http", "https", "get", "ws.example", 443, "/a"), "method-not-allowed"},
	} {
		wantCode(t, s, c.r, c.code)
	}
}

func TestQuery(t *testing.T) {
	s := compile(t, policy.Rule{Host: "api.example", Query: map[string][]string{"tenant": {"acme", "a b", "é"}, "v": {""}}})
	for query, code := range map[string]string{
		"tenant=acme&v=":                    "",
		"v&other=x%26tenant=y&tenant=acme":  "",
		"tenant=a+b&v":                      "",
		"tenant=a%20b&v":                    "",
		"%74enant=%61cme&v":                 "",
		"tenant=%C3%A9&v":                   "",
		"&&tenant=acme&v&":                  "",
		"":                                  "query-not-allowed",
		"tenant=acme":                       "query-not-allowed",
		"tenant=acme&v=1":                   "query-not-allowed",
		"tenant=evil&v":                     "query-not-allowed",
		"tenant=acmee&v":                    "query-not-allowed",
		"tenant=acm&v":                      "query-not-allowed",
		"tenant=&v":                         "query-not-allowed",
		"tenant=acme&tenant=evil&v":         "query-not-allowed",
		"tenant=acme&tenant=acme&v":         "query-not-allowed",
		"tenant=acme&Tenant=evil&v":         "query-not-allowed",
		"tenant=acme&tenant[]=evil&v":       "query-not-allowed",
		"tenant=acme&tenant%5B0%5D=evil&v":  "query-not-allowed",
		"tenant=acme&+tenant=evil&v":        "query-not-allowed",
		"tenant=acme&%20tenant=evil&v":      "query-not-allowed",
		"tenant=acme&tenant%00x=evil&v":     "query-not-allowed",
		"tenant=acme&%54enant=evil&v":       "query-not-allowed",
		"tenant=acme&v;tenant=evil":         "query-not-allowed",
		"tenant=acme&v&x=%":                 "query-not-allowed",
		"tenant=acme&v&x=%4":                "query-not-allowed",
		"tenant=acme&v&x=%zz":               "query-not-allowed",
		"tenant=acme&v&x=é":                 "query-not-allowed",
		"tenant=acme&v&x=\x00":              "query-not-allowed",
		"tenant=acme&v&x=a b":               "query-not-allowed",
		"tenant=acme&v#&tenant=evil":        "query-not-allowed",
		"tenant=acme&tenants=other&v":       "",
		"tenant=acme&x[tenant]=y&v":         "",
		"tenant=acme&v&vv=&tenan=&tenantx=": "",
	} {
		r := get("api.example", 443, "/")
		r.RawQuery = query
		wantCode(t, s, r, code)
	}
	r := get("api.example", 443, "/")
	r.RawQuery = "anything;goes&%zz"
	wantCode(t, compile(t, policy.Rule{Host: "api.example"}), r, "")
}

func TestHeaders(t *testing.T) {
	s := compile(t, policy.Rule{Host: "api.example", Headers: map[string][]string{"x-tenant": {"acme", "other"}}})
	for _, c := range []struct {
		h    http.Header
		code string
	}{
		{http.Header{"X-Tenant": {"acme"}}, ""},
		{http.Header{"x-tenant": {" other\t"}}, ""},
		{http.Header{"X-Tenant": {"acme"}, "X-Tenants": {"evil"}}, ""},
		{nil, "header-not-allowed"},
		{http.Header{"X-Tenant": {}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {""}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"evil"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"Acme"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"acme, evil"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"acme", "evil"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"acme", "acme"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"acme"}, "x-tenant": {"evil"}}, "header-not-allowed"},
		{http.Header{"X-Tenant": {"acme"}, "X_Tenant": {"evil"}}, "header-not-allowed"},
		{http.Header{"X_tenant": {"acme"}}, "header-not-allowed"},
	} {
		r := get("api.example", 443, "/")
		r.Header = c.h
		wantCode(t, s, r, c.code)
	}
}

func TestIntentRequired(t *testing.T) {
	s, err := policy.Compile(policy.Egress{IntentRequired: true, Rules: []policy.Rule{{Label: "the rule", Host: "api.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := get("api.example", 443, "/")
	if v := wantCode(t, s, r, "intent-required"); v.Rule != "the rule" {
		t.Errorf("rule %q", v.Rule)
	}
	r.Intent = " \t"
	wantCode(t, s, r, "intent-required")
	r.Intent = "look up an order"
	wantCode(t, s, r, "")
	wantCode(t, s, get("evil.example", 443, "/"), "host-not-allowed")
	wantCode(t, s, &ambit.Request{Action: ambit.ActionName, Host: "api.example"}, "")
}

// The refusal names the nearest rule and an entry that, added, lets exactly
// this request through.
func TestReasons(t *testing.T) {
	roots := x509.NewCertPool()
	rules := []policy.Rule{
		{Label: "L0", Host: "api.example", Methods: []string{"GET"}, Paths: []string{"/v1/**"}},
		{Label: "L1", Host: "api.example", Methods: []string{"POST"}, Paths: []string{"/v1/orders"}, Query: map[string][]string{"t": {"1"}}},
		{Label: "L2", Host: "inner.example", Ports: []uint16{8443}, Private: true, Resolve: []netip.Addr{netip.MustParseAddr("10.0.0.7")}, Paths: []string{"/"}, Roots: roots},
		{Label: "L3", Host: "plain.example", TLS: policy.None, Paths: []string{"/"}},
	}
	s := compile(t, rules...)
	for _, c := range []struct {
		r    ambit.Request
		want ambit.Verdict
	}{
		{*get("api.evil.example", 443, "/x"), ambit.Verdict{Reason: ambit.Reason{Code: "host-not-allowed", Text: "no rule allows api.evil.example",
			Remedy: "add {host: api.evil.example} under egress.allow and deploy again"}}},
		{ambit.Request{Action: "http", Scheme: "http", Method: "GET", Host: "null", Port: 8080, Path: "/"}, ambit.Verdict{Reason: ambit.Reason{Code: "host-not-allowed", Text: "no rule allows null",
			Remedy: `add {host: "null", ports: [8080], tls: none} under egress.allow and deploy again`}}},
		{*get("10.1.2.3", 443, "/"), ambit.Verdict{Reason: ambit.Reason{Code: "host-not-allowed", Text: "no rule allows 10.1.2.3",
			Remedy: `add {host: "10.1.2.3", private: true} under egress.allow and deploy again`}}},
		{*get("169.254.169.254", 80, "/"), ambit.Verdict{Reason: ambit.Reason{Code: "metadata-address", Text: "no rule allows 169.254.169.254, and none can: it is metadata"}}},
		{*get("api.example", 8443, "/v1/x"), ambit.Verdict{Rule: "L0", Reason: ambit.Reason{Code: "port-not-allowed", Text: "no rule allows port 8443 of api.example",
			Remedy: "add {host: api.example, ports: [8443]} under egress.allow and deploy again"}}},
		{*get("api.example", 443, "/v2/a,b"), ambit.Verdict{Rule: "L0", Reason: ambit.Reason{Code: "path-not-allowed", Text: "no rule allows the path /v2/a,b on api.example",
			Remedy: `add {host: api.example, methods: [GET], paths: ["/v2/a,b"]} under egress.allow and deploy again`}}},
		{ambit.Request{Action: "http", Scheme: "https", Method: "DELETE", Host: "api.example", Port: 443, Path: "/v1/orders"}, ambit.Verdict{Rule: "L0", Reason: ambit.Reason{Code: "method-not-allowed",
			Text: "no rule allows DELETE /v1/orders on api.example", Remedy: "add {host: api.example, methods: [DELETE], paths: [/v1/orders]} under egress.allow and deploy again"}}},
		{ambit.Request{Action: "http", Scheme: "https", Method: "POST", Host: "api.example", Port: 443, Path: "/v1/orders", RawQuery: "t=2"}, ambit.Verdict{Rule: "L1", Reason: ambit.Reason{Code: "query-not-allowed",
			Text: `the query parameter "t" has a value that is not allowed`, Remedy: "if the value is right, add it under query of L1 and deploy again"}}},
		{*get("inner.example", 8443, "/x"), ambit.Verdict{Rule: "L2", Reason: ambit.Reason{Code: "path-not-allowed", Text: "no rule allows the path /x on inner.example",
			Remedy: `add {host: inner.example, ports: [8443], methods: [GET], paths: [/x], private: true, resolve: ["10.0.0.7"]}, with the ca of L2, under egress.allow and deploy again`}}},
		{ambit.Request{Action: "websocket", Scheme: "http", Method: "GET", Host: "plain.example", Port: 80, Path: "/ws"}, ambit.Verdict{Rule: "L3", Reason: ambit.Reason{Code: "path-not-allowed", Text: "no rule allows the path /ws on plain.example",
			Remedy: "add {host: plain.example, tls: none, methods: [GET], paths: [/ws], websocket: true} under egress.allow and deploy again"}}},
	} {
		if diff := cmp.Diff(c.want, s.Decide(&c.r)); diff != "" {
			t.Errorf("%s %s:\n%s", c.r.Method, c.r.URL(), diff)
		}
	}
	// A request that looks like a pattern is not offered as one.
	v := s.Decide(get("api.example", 443, "/%2A%2A"))
	if strings.Contains(v.Reason.Remedy, "*") {
		t.Errorf("the remedy opens more than was asked for: %s", v.Reason.Remedy)
	}
	opened := compile(t, append(rules, policy.Rule{Host: "api.example", Methods: []string{"GET"}, Paths: []string{"/%2A%2A"}})...)
	wantCode(t, opened, get("api.example", 443, "/%2A%2A"), "")
	wantCode(t, opened, get("api.example", 443, "/other"), "path-not-allowed")
}

// The most specific host decides how the connection is made, and a rule that
// says otherwise does not count for that host and port.
func TestMostSpecificHostDecides(t *testing.T) {
	inner := netip.MustParseAddr("10.0.0.1")
	s := compile(t,
		policy.Rule{Label: "wide", Host: "*.corp.example", Private: true},
		policy.Rule{Label: "deep", Host: "*.dev.corp.example", Private: true, Resolve: []netip.Addr{inner}},
		policy.Rule{Label: "one", Host: "www.corp.example", Paths: []string{"/a"}},
		policy.Rule{Label: "same", Host: "api.corp.example", Private: true, Paths: []string{"/a"}},
		policy.Rule{Label: "pinned", Host: "bank.corp.example", TLS: policy.Passthrough},
	)
	for _, c := range []struct {
		host, rule string
		want       policy.Endpoint
	}{
		{"x.corp.example", "wide", policy.Endpoint{TLS: policy.Terminate, Private: true}},
		{"x.dev.corp.example", "deep", policy.Endpoint{TLS: policy.Terminate, Private: true, Resolve: []netip.Addr{inner}}},
		{"www.corp.example", "one", policy.Endpoint{TLS: policy.Terminate}},
		{"api.corp.example", "same", policy.Endpoint{TLS: policy.Terminate, Private: true}},
		{"bank.corp.example", "pinned", policy.Endpoint{TLS: policy.Passthrough}},
	} {
		got, v := s.Endpoint(c.host, 443)
		c.want.Rule = c.rule
		if diff := cmp.Diff(fmt.Sprint(c.want), fmt.Sprint(got)); diff != "" || v.Decision != ambit.Allow || v.Rule != c.rule {
			t.Errorf("Endpoint(%s): %+v\n%s", c.host, v, diff)
		}
	}
	wantCode(t, s, get("www.corp.example", 443, "/a"), "")
	wantCode(t, s, get("www.corp.example", 443, "/b"), "path-not-allowed") // "wide" says private
	wantCode(t, s, get("api.corp.example", 443, "/b"), "")                 // "wide" agrees
	wantCode(t, s, get("bank.corp.example", 443, "/"), "scheme-not-allowed")
	if v := wantCode(t, s, get("x.dev.corp.example", 443, "/"), ""); v.Rule != "deep" {
		t.Errorf("rule %q", v.Rule)
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	s := compile(t, policy.Rule{Host: "*.example", Methods: []string{"GET"}, Paths: []string{"/x", "/v1/*/items/**"},
		Query: map[string][]string{"t": {"a b"}}, Headers: map[string][]string{"X-Tenant": {"acme"}}})
	r := get("api.shop.example", 443, "/v1/orders/items/42")
	r.RawQuery, r.Header = "page=2&t=a%20b", http.Header{"X-Tenant": {"acme"}, "Accept": {"*/*"}}
	wantCode(t, s, r, "")
	if n := testing.AllocsPerRun(100, func() { s.Decide(r) }); n != 0 {
		t.Errorf("Decide allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { s.Endpoint("api.shop.example", 443) }); n != 0 {
		t.Errorf("Endpoint allocates %v times", n)
	}
}

// With enough rules for an index, paths without a star are still found, the
// longest among them too, and the first rule of the manifest is the one named.
func TestManyPathsOfOneHost(t *testing.T) {
	var rules []policy.Rule
	for i := range 50 {
		rules = append(rules, policy.Rule{Label: fmt.Sprint("rule ", i), Host: "api.example", Paths: []string{fmt.Sprintf("/p%02d", i%40), fmt.Sprintf("/p%02d", i%40)}})
	}
	s := compile(t, rules...)
	for i := range 40 {
		if v := wantCode(t, s, get("api.example", 443, fmt.Sprintf("/p%02d", i)), ""); v.Rule != fmt.Sprint("rule ", i) {
			t.Errorf("path %d is allowed by %s", i, v.Rule)
		}
	}
	wantCode(t, s, get("api.example", 443, "/p40"), "path-not-allowed")
	wantCode(t, s, get("api.example", 443, "/p00/"), "path-not-allowed")
	wantCode(t, s, get("api.example", 443, "/"+strings.Repeat("p00/", 2000)), "path-not-allowed")
}

// Whatever the agent sends, Decide answers without a panic and in characters
// that do nothing to a terminal, and never allows a host without a rule.
func FuzzDecide(f *testing.F) {
	f.Add("http", "https", "GET", "api.example", uint16(443), "/v1/a%2Fb", "t=1&t[]=2", "X_Tenant", "1")
	f.Add("websocket", "http", "CONNECT", "x.wild.example", uint16(80), "/", "", "", "")
	f.Add("passthrough", "tls", "", "1.2.3.4", uint16(443), "", "%", "X-Http-Method", "PUT")
	rules := []policy.Rule{
		{Host: "api.example", Paths: []string{"/v1/**", "/*/x*y/**/z"}, Query: map[string][]string{"t": {"1"}}, Headers: map[string][]string{"X-Tenant": {"1"}}},
		{Host: "*.wild.example", TLS: policy.None, WebSocket: true},
		{Host: "*.wild.example", Methods: []string{"GET"}},
	}
	s, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, action, scheme, method, host string, port uint16, path, query, field, value string) {
		r := &ambit.Request{Action: ambit.Action(action), Scheme: scheme, Method: method, Host: host, Port: port, Path: path, RawQuery: query, Header: http.Header{field: {value}}}
		v := s.Decide(r)
		checkInert(t, v)
		if v.Decision == ambit.Allow && host != "api.example" && !strings.HasSuffix(host, ".wild.example") {
			t.Fatalf("%+v is allowed by %s", r, v.Rule)
		}
		_, ev := s.Endpoint(host, port)
		checkInert(t, ev)
		s.Ports(host)
	})
}
