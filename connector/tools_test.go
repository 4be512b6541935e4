package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit"
	"ambit/manifest"
	"ambit/policy"
)

const callDigest = "sha256-0123456789abcdef0123456789abcdef"

// boundTools binds a connection with all tools of its connector.
func boundTools(t testing.TB, connection string) (*Binding, map[string]*BoundTool) {
	t.Helper()
	b := bind(t, "  - "+strings.TrimSuffix(connection, "}")+", tools: [\"*\"]}\n")[0]
	all := map[string]*BoundTool{}
	for _, tool := range b.Tools() {
		all[strings.TrimPrefix(tool.Tool.Name, b.Name+".")] = tool
	}
	return b, all
}

// standIn answers every host, and says what it was asked.
func standIn(t *testing.T, answer func(*http.Request, []byte) (int, string)) *http.Client {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		status, text := answer(r, body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	client := server.Client()
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig.InsecureSkipVerify = true // it stands in for every host
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	return client
}

// Every shipped tool makes the request that its sample has, with the reference
// where the credential goes, and nothing that outsiders write in the
// answer is a record.
func TestShippedTools(t *testing.T) {
	for name, samples := range allSamples() {
		t.Run(name, func(t *testing.T) {
			b, tools := boundTools(t, sampleConnections()[name])
			var tried []string
			for i := range samples {
				tried = append(tried, samples[i].tool)
				tool := tools[samples[i].tool]
				if tool == nil {
					t.Errorf("there is no tool %s", samples[i].tool)
					continue
				}
				t.Run(samples[i].tool, func(t *testing.T) { trySample(t, b, tool, &samples[i]) })
			}
			for tool := range tools {
				if !slices.Contains(tried, tool) {
					t.Errorf("%s has no sample", tool)
				}
			}
		})
	}
}

func trySample(t *testing.T, b *Binding, tool *BoundTool, s *sample) {
	r, err := tool.Request([]byte(s.args), callDigest)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Method + " " + r.URL; got != s.request {
		t.Errorf("the request is\n%s, want\n%s", got, s.request)
	}
	for _, f := range b.Foreign.Headers {
		if r.Header.Get(f) != "" {
			t.Errorf("without a reference it has the header %s", f)
		}
	}
	if err := r.Refer(r.Auth[0], func(secret string) (string, bool) { return "ref-" + secret, true }); err != nil {
		t.Fatal(err)
	}
	if !passes(t, b, r) {
		t.Error("the connection's own rules refuse it")
	}
	client := standIn(t, func(got *http.Request, body []byte) (int, string) {
		if line := got.Method + " https://" + got.Host + got.RequestURI; line != s.request {
			t.Errorf("the service got %s", line)
		}
		wantType := ""
		switch {
		case strings.HasPrefix(s.body, "{"):
			wantType = "application/json"
		case s.body != "":
			wantType = "application/x-www-form-urlencoded"
		}
		if c := got.Header.Get("Content-Type"); c != wantType {
			t.Errorf("the body is %q, want %q", c, wantType)
		}
		if wantType == "application/json" {
			if diff := cmp.Diff(anyJSON(t, []byte(s.body)), anyJSON(t, body)); diff != "" {
				t.Errorf("the body (-want +got):\n%s", diff)
			}
		} else if string(body) != s.body {
			t.Errorf("the body is %s, want %s", body, s.body)
		}
		if p := r.Auth[0].Places[0]; !strings.Contains(got.Header.Get(p.Name), "ref-") {
			t.Errorf("there is no reference in %s: %v", p.Name, got.Header)
		}
		if key := tool.spec.request.idempotency; key != "" && got.Header.Get(key) != callDigest {
			t.Errorf("%s is %q", key, got.Header.Get(key))
		}
		if got.UserAgent() != "ambit" || !strings.Contains(got.Header.Get("Accept"), "json") {
			t.Errorf("the header is %v", got.Header)
		}
		if s.status == 0 {
			return 200, s.text()
		}
		return s.status, s.text()
	})
	q, err := http.NewRequest(r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header = r.Header
	answer, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	result, err := tool.Result(answer.StatusCode, answer.Header, body)
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, tool, result)
}

// checkResult holds: all that is kept and all that is a record is there in a
// realistic answer, and no record has the words of an outsider.
func checkResult(t *testing.T, tool *BoundTool, result []byte) {
	t.Helper()
	v := anyJSON(t, result)
	for _, p := range tool.spec.result.keep {
		if len(under(v, pointerTokens(p))) == 0 {
			t.Errorf("the answer has nothing at %s", p)
		}
	}
	for _, p := range tool.Tool.Records {
		found := under(v, pointerTokens(p))
		if len(found) == 0 {
			t.Errorf("no record is at %s", p)
		}
		for _, x := range found {
			if text := fmt.Sprint(x); strings.Contains(text, "IGNORE ALL") || strings.Contains(text, "@") {
				t.Errorf("the record %s has what an outsider wrote: %s", p, text)
			}
		}
	}
}

// under is a second reading of pointers.
func under(v any, tokens []string) []any {
	if len(tokens) == 0 {
		return []any{v}
	}
	var all []any
	switch v := v.(type) {
	case map[string]any:
		if x, ok := v[tokens[0]]; ok {
			all = under(x, tokens[1:])
		}
	case []any:
		for _, x := range v {
			if tokens[0] == "*" {
				all = append(all, under(x, tokens[1:])...)
			}
		}
	}
	return all
}

func anyJSON(t testing.TB, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// passes says whether the rules of the tools let a request pass.
func passes(t testing.TB, b *Binding, r *Request) bool {
	t.Helper()
	set, err := policy.Compile(policy.Egress{Rules: b.ToolRules})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	return set.Decide(&ambit.Request{
		Action: ambit.ActionHTTP, Scheme: "https", Method: r.Method, Host: u.Hostname(), Port: 443, Path: u.EscapedPath(), RawQuery: u.RawQuery, Header: r.Header,
	}).Decision == ambit.Allow
}

// What a tool does, in the words that policy goes by.
func TestShippedFacts(t *testing.T) {
	type facts struct {
		effects, targets, amount, currency string
		leaves                             bool
	}
	want := map[string]facts{
		"github.issues.create":   {"write publish", "/owner /repo /assignees/*", "", "", true},
		"github.issues.comment":  {"write publish send", "/owner /repo /number", "", "", true},
		"github.issues.close":    {"write", "/owner /repo /number", "", "", false},
		"stripe.refunds.create":  {"spend customer", "/payment_intent", "/amount", "/currency", false},
		"shopify.refunds.create": {"spend customer", "/order_id /parent_id", "/amount", "/currency", false},
		"shopify.orders.cancel":  {"delete customer", "/order_id", "", "", false},
		"zendesk.tickets.reply":  {"send customer", "/ticket_id", "", "", true},
		"zendesk.tickets.note":   {"write", "/ticket_id", "", "", false},
		"zendesk.tickets.update": {"write customer", "/ticket_id", "", "", false},
		"slack.messages.send":    {"send", "/channel", "", "", true},
		"slack.channels.invite":  {"access send", "/channel /user", "", "", false},
		"gmail.drafts.create":    {"write", "/to/* /cc/* /bcc/*", "", "", false},
		"gmail.messages.send":    {"send", "/to/* /cc/* /bcc/*", "", "", true},
	}
	for name := range allSamples() {
		_, tools := boundTools(t, sampleConnections()[name])
		for _, tool := range tools {
			a := tool.Tool
			expected, ok := want[a.Name]
			if !ok {
				expected.effects = "read"
			}
			got := facts{strings.Trim(fmt.Sprint(a.Effects), "[]"), strings.Join(a.Targets, " "), a.Amount, a.Currency, a.Leaves}
			if got != expected {
				t.Errorf("%s has %+v, want %+v", a.Name, got, expected)
			}
			if a.Connection != name || a.Description == "" {
				t.Errorf("%+v", a)
			}
		}
	}
}

// Arguments that are wrong in kind, or try to be more than a value.
func TestArgumentsRefused(t *testing.T) {
	for _, c := range []struct{ tool, args, want string }{
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":"12.5","currency":"EUR"}`, `the argument /amount is the text "12.5", and needs to be a number`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":12.505,"currency":"EUR"}`, `the argument /amount is 12.505, and the currency has 2 decimals`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":0.5,"currency":"JPY"}`, `the currency has 0 decimals`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":12,"currency":"XXX"}`, `"XXX", which is not a currency`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":12,"currency":"UGX"}`, `"UGX", which is not a currency whose decimals are known here`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":12,"currency":"eur"}`, `does not have the form of: currency`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":-12,"currency":"EUR"}`, `is -12, not a number from`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":1e3,"currency":"EUR"}`, `is 1e3, not a number`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","currency":"EUR"}`, `the argument /amount is missing`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":1,"amount":2,"currency":"EUR"}`, `the key "amount" is there twice`},
		{"stripe.refunds.create", `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":1,"currency":"EUR","refund_application_fee":true}`, `has no field "refund_application_fee"`},
		{"stripe.customers.get", `{"customer":"cus_1234567890/../charges"}`, `does not have the form`},
		{"stripe.customers.get", `{"customer":"cus_1234567890\n"}`, `contains a control character`},
		{"stripe.customers.get", `{"customer":["cus_1234567890"]}`, `is a list, and needs to be text`},
		{"stripe.customers.get", `{"customer":"cus_1234567890"} {}`, `something follows them`},
		{"stripe.customers.get", `[]`, `not a JSON object`},
		{"stripe.customers.get", ``, `cannot be read`},
		{"github.repos.get", `{"owner":"acme","repo":".."}`, `the argument /repo is nothing but dots`},
		{"github.repos.get", `{"owner":"acme","repo":"..%2f..%2fuser"}`, `does not have the form`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":"a/../../../other/repo"}`, `does not have the form of: path`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":"a%2f..%2fb"}`, `does not have the form of: path`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":"a//b"}`, `does not have the form of: path`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":"/etc/passwd"}`, `does not have the form of: path`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":"a\\..\\b"}`, `does not have the form of: path`},
		{"github.contents.get", `{"owner":"acme","repo":"shop","path":". ./x"}`, `they make no path`},
		{"github.issues.get", `{"owner":"acme","repo":"shop","number":"7"}`, `is the text "7", and needs to be a whole number`},
		{"github.issues.get", `{"owner":"acme","repo":"shop","number":7.5}`, `needs to be a whole number`},
		{"github.issues.get", `{"owner":"acme","repo":"shop","number":0}`, `not a number from 1`},
		{"github.issues.get", `{"owner":"acme","repo":"shop","number":12345678901234567890}`, `not a number from 1`},
		{"github.issues.create", `{"owner":"acme","repo":"shop","title":"a\r\nX-Y: z"}`, `contains a control character`},
		{"github.issues.create", `{"owner":"acme","repo":"shop","title":""}`, `has 0 characters, fewer than 1`},
		{"github.issues.close", `{"owner":"acme","repo":"shop","number":7,"reason":"because"}`, `one of completed, not_planned`},
		{"gmail.messages.send", `{"to":["a@x.example\nBcc: b@evil.example"],"subject":"x","text":"y"}`, `contains a control character`},
		{"gmail.messages.send", `{"to":["a@x.example, b@evil.example"],"subject":"x","text":"y"}`, `does not have the form of: email`},
		{"gmail.messages.send", `{"to":["a@x.example"],"subject":"x\ny","text":"y"}`, `the argument /subject contains a control character`},
		{"gmail.messages.send", `{"to":["a@x.example"],"subject":"x","text":"y","in_reply_to":"<a> <b>"}`, `does not have the form`},
		{"shopify.orders.cancel", `{"order_id":1,"email":"false"}`, `needs to be true or false`},
	} {
		connector, name, _ := strings.Cut(c.tool, ".")
		_, tools := boundTools(t, sampleConnections()[connector])
		r, err := tools[name].Request([]byte(c.args), callDigest)
		var wrong *ArgumentError
		if !errors.As(err, &wrong) || r != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: got %v, want %s", c.tool, c.args, err, c.want)
		}
	}
	_, tools := boundTools(t, sampleConnections()["stripe"])
	for _, key := range []string{"", "short", "a key\r\nX-Y: z"} {
		if _, err := tools["refunds.create"].Request([]byte(`{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":1,"currency":"EUR"}`), key); err == nil {
			t.Errorf("a refund with the key %q is made", key)
		}
	}
}

// The amount that policy sees is the amount that the service is told.
func TestMinorUnits(t *testing.T) {
	_, tools := boundTools(t, "{name: stripe}")
	for args, want := range map[string]string{
		`"amount":12.5,"currency":"EUR"`: "1250", `"amount":0.01,"currency":"EUR"`: "1", `"amount":1234567.89,"currency":"USD"`: "123456789", `"amount":500,"currency":"JPY"`: "500",
		`"amount":5.12,"currency":"KWD"`: "5120", `"amount":5,"currency":"ISK"`: "500", `"amount":5,"currency":"MGA"`: "5", `"amount":0.29,"currency":"EUR"`: "29", `"amount":1.1,"currency":"EUR"`: "110",
	} {
		r, err := tools["refunds.create"].Request([]byte(`{"payment_intent":"pi_1GszsK2eZvKYlo2C",`+args+`}`), callDigest)
		if err != nil {
			t.Error(err)
			continue
		}
		if form, _ := url.ParseQuery(string(r.Body)); form.Get("amount") != want {
			t.Errorf("%s is sent as %s, want %s", args, r.Body, want)
		}
	}
}

// What an argument claims and the request does not say is asked first: a refund
// in another currency than the payment's would be another amount.
func TestBefore(t *testing.T) {
	const refund = `{"payment_intent":"pi_1GszsK2eZvKYlo2C","amount":9000,"currency":"JPY"}`
	b, tools := boundTools(t, "{name: stripe, pin: {connected: acct_1234567890}}")
	tool := tools["refunds.create"]
	r, err := tool.Request([]byte(refund), callDigest)
	if err != nil {
		t.Fatal(err)
	}
	first := r.Before
	if first.Method != "GET" || first.URL != "https://api.stripe.com/v1/payment_intents/pi_1GszsK2eZvKYlo2C" || first.Body != nil || first.Header.Get("Idempotency-Key") != "" || !passes(t, b, first) {
		t.Fatalf("what is asked first is %+v", first)
	}
	if err := first.Refer(first.Auth[0], func(string) (string, bool) { return "ref", true }); err != nil || first.Header.Get("Authorization") != "Bearer ref" {
		t.Errorf("%v, %v", first.Header, err)
	}
	for _, c := range []struct {
		status int
		body   string
		want   string
	}{
		{200, `{"currency":"jpy"}`, ""},
		{200, `{"currency":"eur"}`, `the arguments say "JPY" for /currency, which the service does not; the service says (untrusted): eur`},
		{200, `{}`, `which the service does not`},
		{200, `{"currency":["jpy"]}`, `which the service does not`},
		{200, `jpy`, `was asked first`},
		{404, `{"error":{"message":"No such payment"}}`, `answered with status 404; the service says (untrusted): No such payment`},
		{0, ``, `was asked first`},
	} {
		err := tool.Agrees([]byte(refund), c.status, []byte(c.body))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d %s: %v, want %s", c.status, c.body, err, c.want)
		}
	}
	_, tools = boundTools(t, "{name: shopify, account: demo}")
	args := []byte(`{"order_id":450789469,"parent_id":801038806,"gateway":"bogus","amount":41.94,"currency":"USD"}`)
	r, err = tools["refunds.create"].Request(args, callDigest)
	if err != nil || r.Before.URL != "https://demo.myshopify.com/admin/api/2026-01/orders/450789469/transactions/801038806.json" {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := tools["refunds.create"].Agrees(args, 200, []byte(`{"transaction":{"id":801038806,"order_id":450789469,"gateway":"bogus","currency":"USD"}}`)); err != nil {
		t.Error(err)
	}
	if err := tools["refunds.create"].Agrees(args, 200, []byte(`{"transaction":{"id":801038806,"order_id":1,"gateway":"bogus","currency":"USD"}}`)); err == nil {
		t.Error("the payment of another order is given back")
	}
	for name := range allSamples() {
		_, tools := boundTools(t, sampleConnections()[name])
		for _, tool := range tools {
			if spends := slices.Contains(tool.Tool.Effects, ambit.EffectSpend); spends != (tool.spec.request.before != nil) || spends != (tool.Tool.Amount != "") {
				t.Errorf("%s spends: %v, and what is asked first is %v", tool.Tool.Name, spends, tool.spec.request.before)
			}
		}
	}
}

// The schema that the agent gets and what is checked are the same.
func TestSchemaAndCheckAgree(t *testing.T) {
	for name, samples := range allSamples() {
		_, tools := boundTools(t, sampleConnections()[name])
		for _, s := range samples {
			schema := inputSchema(t, tools[s.tool].Tool.Input)
			for _, args := range mutations(t, s.args) {
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(args))
				if err != nil {
					t.Fatal(err)
				}
				_, checked := tools[s.tool].spec.read([]byte(args))
				if valid := schema.Validate(v); (valid == nil) != (checked == nil) {
					t.Errorf("%s.%s %s: the schema says %v, the check %v", name, s.tool, args, valid, checked)
				}
			}
		}
	}
}

func inputSchema(t testing.TB, src []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(src))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("input.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("input.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mutations are the arguments as they are, with each left out, with one that
// is not known, and with each replaced by values of every kind.
func mutations(t *testing.T, args string) []string {
	t.Helper()
	all := []string{args, `{"unknown_argument":1}`}
	m := anyJSON(t, []byte(args)).(map[string]any)
	for key, was := range m {
		for _, v := range []any{nil, "", "x", "a\nb", 1, 0.5, true, []any{}, []any{"x"}, []any{1}, map[string]any{}, strings.Repeat("x", 200_000), "a@b.example", "2026-01-01T00:00:00Z"} {
			m[key] = v
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
		delete(m, key)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
		m[key] = was
	}
	return slices.DeleteFunc(all, func(s string) bool { return len(s) > maxArguments })
}

// N10: a pin holds for tools, because their requests are judged by the same
// rules as the agent's own would be.
func TestN10PinsHoldForTools(t *testing.T) {
	for _, c := range []struct {
		connection, tool, args string
		want                   bool
	}{
		{"{name: github, pin: {owner: acme, repo: shop}}", "issues.get", `{"owner":"acme","repo":"shop","number":1}`, true},
		{"{name: github, pin: {owner: acme, repo: shop}}", "issues.get", `{"owner":"acme","repo":"secret","number":1}`, false},
		{"{name: github, pin: {owner: acme, repo: shop}}", "issues.create", `{"owner":"evil","repo":"shop","title":"x"}`, false},
		{"{name: github, pin: {owner: acme}}", "contents.get", `{"owner":"acme","repo":"any","path":"a/b"}`, true},
		{"{name: github, pin: {owner: acme}}", "contents.get", `{"owner":"evil","repo":"any","path":"a/b"}`, false},
		{"{name: shopify, account: demo, pin: {resource: orders}}", "orders.get", `{"order_id":1}`, true},
		{"{name: slack, pin: {channel: C0123456789}}", "messages.read", `{"channel":"C0123456789"}`, true},
		{"{name: slack, pin: {channel: C0123456789}}", "messages.read", `{"channel":"C9999999999"}`, false},
		{"{name: stripe, pin: {connected: acct_1234567890}}", "customers.get", `{"customer":"cus_1234567890"}`, true},
		{"{name: github, methods: [GET]}", "issues.get", `{"owner":"acme","repo":"shop","number":1}`, true},
	} {
		b, tools := boundTools(t, c.connection)
		if tools[c.tool] == nil {
			t.Errorf("%s has no %s", c.connection, c.tool)
			continue
		}
		r, err := tools[c.tool].Request([]byte(c.args), callDigest)
		if err != nil {
			t.Fatal(err)
		}
		if got := passes(t, b, r); got != c.want {
			t.Errorf("%s %s: %s %s passes: %v", c.connection, c.args, r.Method, r.URL, got)
		}
	}
	// What can never pass is not given to the agent.
	_, tools := boundTools(t, "{name: github, pin: {owner: acme}}")
	if tools["search.issues"] != nil || tools["issues.get"] == nil {
		t.Errorf("tools are %v", tools)
	}
	b, tools := boundTools(t, "{name: stripe, pin: {connected: acct_1234567890}}")
	r, err := tools["customers.get"].Request([]byte(`{"customer":"cus_1234567890"}`), callDigest)
	if err != nil || r.Header.Get("Stripe-Account") != "acct_1234567890" {
		t.Errorf("the header of a tool of %s is %v, %v", b.Name, r, err)
	}
	// A pin of the body is a condition of the host, for whoever sees the body.
	b, _ = boundTools(t, "{name: slack, pin: {channel: C0123456789}}")
	if c := b.Hosts[0].Body[0]; c.JSON != "/channel" || !slices.Equal(c.Values, []string{"C0123456789"}) {
		t.Errorf("the condition is %+v", c)
	}
}

// With tools and without direct: true the agent's own requests have no way to
// the account.
func TestToolsOnly(t *testing.T) {
	b := bind(t, "  - {name: github, tools: [issues.get, issues.list]}\n")[0]
	if !b.ToolsOnly || len(b.Rules) != 0 || len(b.ToolRules) == 0 || len(b.Env) != 0 || len(b.Files) != 0 || len(b.References) == 0 || len(b.Hosts) == 0 {
		t.Errorf("%+v", b)
	}
	if decide(t, opened(t, []*Binding{b}), "GET https://api.github.com/repos/acme/shop") {
		t.Error("the agent goes round the tools")
	}
	if names := toolNames(b); !slices.Equal(names, []string{"github.issues.list", "github.issues.get"}) {
		t.Errorf("tools are %v", names)
	}
	b = bind(t, "  - {name: github, as: code, tools: [issues.get], direct: true}\n")[0]
	if b.ToolsOnly || len(b.Rules) == 0 || len(b.ToolRules) == 0 || len(b.Env) == 0 || b.Tools()[0].Tool.Name != "code.issues.get" {
		t.Errorf("%+v", b)
	}
	b = bind(t, "  - {name: github}\n")[0]
	if b.ToolsOnly || len(b.Rules) == 0 || b.ToolRules != nil || b.Tools() != nil {
		t.Errorf("%+v", b)
	}
	if len(b.Opened()) == 0 {
		t.Error("nothing is opened")
	}
}

func toolNames(b *Binding) (names []string) {
	for _, t := range b.Tools() {
		names = append(names, t.Tool.Name)
	}
	return names
}

func TestBindRefusesTools(t *testing.T) {
	imported := toolFile("  x.get:\n    title: X\n    effects: [read]\n    reviewed: false\n    request: {method: GET, path: /x}\n")
	catalog, err := builtin(t).WithSources([]Source{{Name: "acme.yaml", Text: []byte(imported)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ src, want string }{
		{"  - {name: shopify, account: demo, tools: [refunds.creat]}\n", `m.yaml:4:43: connectors[0].tools: the connector shopify has no tool "refunds.creat"; did you mean "refunds.create"? there are: orders.get, orders.search`},
		{"  - {name: linear, tools: [x]}\n", `the connector linear has no tool "x"; it has none: leave tools out`},
		{"  - {name: github, pin: {owner: acme}, tools: [search.issues]}\n", `the tool search.issues cannot be used: pins, methods or paths of the connection leave nothing of it open`},
		{"  - {name: github, methods: [GET], tools: [issues.create]}\n", `the tool issues.create cannot be used`},
		{"  - {name: gmail, pin: {part: labels}, tools: [messages.send]}\n", `the tool messages.send cannot be used`},
		{"  - {name: acme, tools: [x.get]}\n", `the tool x.get of acme.yaml was imported and nobody has reviewed it; check its effects, arguments and result, then remove reviewed: false there`},
		{"  - {name: acme, tools: [\"*\"]}\n", `no tool of the connector acme can be used here`},
		{"  - {name: github, tools: [issues.get]}\negress: {allow: [{host: api.github.com, paths: [/repos/acme/**]}]}\n", `connectors[0]: is for tools only, and egress.allow[0] (line 5) opens its host api.github.com to the agent's own requests; remove that rule, or write direct: true`},
	} {
		all, err := catalog.Bind(load(t, c.src))
		var problems manifest.Errors
		if !errors.As(err, &problems) || all != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got\n%v\nwant\n%s", c.src, err, c.want)
		}
	}
}

// What goes wrong at the service is said in words, and what it says is short,
// inert and marked.
func TestResultFails(t *testing.T) {
	_, gh := boundTools(t, "{name: github}")
	_, slack := boundTools(t, "{name: slack}")
	_, stripe := boundTools(t, "{name: stripe}")
	html := http.Header{"Content-Type": {"text/html"}}
	for _, c := range []struct {
		tool   *BoundTool
		status int
		header http.Header
		body   string
		want   string
	}{
		{gh["issues.get"], 404, nil, `{"message":"Not Found","documentation_url":"https://docs.github.com"}`, "the service answered with status 404 (Not Found); the service says (untrusted): Not Found"},
		{gh["issues.create"], 200, nil, ghIssue, "the service answered with status 200 (OK)"},
		{gh["issues.get"], 500, html, "<html>\x1b[31m</html>", "the service answered with status 500 (Internal Server Error)"},
		{gh["issues.get"], 422, nil, `{"message":"a\u001b[31mb\u202e` + strings.Repeat("x", 1000) + `"}`, `(untrusted): a\x1b[31mb\u202e` + strings.Repeat("x", 280)},
		{gh["issues.get"], 200, html, "<html>", "the answer is not JSON, but text/html"},
		{gh["issues.get"], 302, nil, "", "the service answered with status 302 (Found)"},
		{slack["messages.send"], 200, nil, `{"ok":false,"error":"channel_not_found"}`, "the service refused the call; the service says (untrusted): channel_not_found"},
		{slack["messages.send"], 200, nil, `{"ok":"true","ts":"1"}`, "the service refused the call"},
		{slack["messages.send"], 200, nil, ``, "the answer is empty"},
		{stripe["refunds.create"], 402, nil, `{"error":{"code":"x","message":"Charge has already been refunded."}}`, "(untrusted): Charge has already been refunded."},
		{gh["issues.list"], 200, nil, "[" + strings.Repeat(ghIssue+",", 500) + ghIssue + "]", "more than the 65536 that the tool may return: ask for less"},
	} {
		got, err := c.tool.Result(c.status, c.header, []byte(c.body))
		var failed *ResultError
		if !errors.As(err, &failed) || got != nil || !strings.Contains(err.Error(), c.want) || failed.Status != c.status || len(err.Error()) > 2000 {
			t.Errorf("%s %d: got %s, %v, want %s", c.tool.Tool.Name, c.status, got, err, c.want)
		}
	}
	got, err := gh["issues.get"].Result(200, nil, []byte(`{"number":12345678901234567890,"body":"`+strings.Repeat("ü", 10_000)+`"}`))
	if err != nil || !strings.Contains(string(got), `"number":12345678901234567890`) || !strings.Contains(string(got), "[3616 more bytes were cut]") {
		t.Errorf("got %.200s … %v", got, err)
	}
}

// A tool of an account with several ways is told which fits.
func TestRefer(t *testing.T) {
	src := strings.Replace(toolFile("  x.add:\n    title: X\n    effects: [write]\n    request: {method: POST, path: /x, json: {a: {b: true}}}\n"), "auth: [{bearer: \"{token}\"}]",
		`auth: [{bearer: "{token}"}, {basic: {user: u, password: "{token}"}}, {query: {key: "{token}"}}, {json: {/auth/token: "{token}"}}, {form: {token: "{token}"}}, {header: {X-Key: "k {token}"}, paths: [/other]}]`, 1)
	catalog, err := builtin(t).WithSources([]Source{{Name: "acme.yaml", Text: []byte(src)}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := catalog.Bind(load(t, "  - {name: acme, tools: [x.add]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	tool := all[0].Tools()[0]
	show := func(i int) (string, error) {
		r, err := tool.Request([]byte("{}"), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Auth) != 4 {
			t.Fatalf("the ways are %d, want those but form and another path", len(r.Auth))
		}
		err = r.Refer(r.Auth[i], func(name string) (string, bool) { return "REF&" + name, name == "token" })
		return r.URL + " " + r.Header.Get("Authorization") + " " + string(r.Body), err
	}
	for i, want := range []string{
		`https://api.acme.example/x Bearer REF&token {"a":{"b":true}}`, `https://api.acme.example/x Basic dTpSRUYmdG9rZW4= {"a":{"b":true}}`,
		`https://api.acme.example/x?key=REF%26token  {"a":{"b":true}}`, `https://api.acme.example/x  {"a":{"b":true},"auth":{"token":"REF&token"}}`,
	} {
		if got, err := show(i); err != nil || got != want {
			t.Errorf("%d: got %s, %v, want %s", i, got, err, want)
		}
	}
	r, err := tool.Request([]byte("{}"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Refer(all[0].Hosts[0].Auth[4], nil); err == nil {
		t.Error("a credential is put where it does not travel")
	}
	if err := r.Refer(r.Auth[0], func(string) (string, bool) { return "", false }); err == nil || r.Header.Get("Authorization") != "" {
		t.Errorf("an empty credential is put in: %v", err)
	}
}

// toolFile is a connector file with tools.
func toolFile(tools string) string {
	return head + "hosts: [api.acme.example]\n" + body + "tools:\n" + tools
}
