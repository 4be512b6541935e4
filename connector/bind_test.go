package connector

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/manifest"
	"ambit/policy"
)

func load(t testing.TB, connectors string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse("m.yaml", []byte("ambit: v1\nname: a\nconnectors:\n"+connectors))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func bind(t testing.TB, connectors string) []*Binding {
	t.Helper()
	all, err := builtin(t).Bind(load(t, connectors))
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	return all
}

// opened is the policy that the bindings make.
func opened(t testing.TB, all []*Binding) *policy.Set {
	t.Helper()
	var e policy.Egress
	for _, b := range all {
		e.Rules = append(e.Rules, b.Rules...)
	}
	set, err := policy.Compile(e)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// decide judges "METHOD URL" and, after it, header fields as "Name=value".
func decide(t testing.TB, set *policy.Set, request string) bool {
	t.Helper()
	fields := strings.Fields(request)
	u, err := url.Parse(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	r := &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: fields[0], Host: u.Hostname(), Port: 443, Path: u.EscapedPath(), RawQuery: u.RawQuery}
	if u.Scheme == "wss" {
		r.Action = ambit.ActionWebSocket
	}
	for _, f := range fields[2:] {
		name, value, _ := strings.Cut(f, "=")
		if r.Header == nil {
			r.Header = map[string][]string{}
		}
		r.Header.Set(name, value)
	}
	return set.Decide(r).Decision == ambit.Allow
}

// N10: inside an allowed host, somebody else's repository, bucket, account or
// channel is out of reach once it is pinned; and no host of the connector is
// left open because a pin says nothing about it.
func TestN10Pins(t *testing.T) {
	for _, c := range pinned() {
		t.Run(c.name, func(t *testing.T) {
			set := opened(t, bind(t, "  - "+c.connection+"\n"))
			for _, r := range c.allowed {
				if !decide(t, set, r) {
					t.Errorf("%s is refused", r)
				}
			}
			for _, r := range c.refused {
				if decide(t, set, r) {
					t.Errorf("%s is allowed", r)
				}
			}
		})
	}
}

type pinnedCase struct {
	name, connection string
	allowed, refused []string
}

func pinned() []pinnedCase {
	const page = "0123456789abcdef0123456789abcdef"
	return []pinnedCase{
		{"github owner", "{name: github, pin: {owner: acme}}", []string{
			"GET https://api.github.com/repos/acme/shop", "POST https://api.github.com/repos/acme/shop/issues", "GET https://api.github.com/orgs/acme/repos",
			"GET https://api.github.com/user", "GET https://github.com/acme/shop.git/info/refs?service=git-upload-pack",
			"POST https://github.com/acme/shop/git-receive-pack", "GET https://raw.githubusercontent.com/acme/shop/main/README.md",
			"POST https://github.com/acme/shop.git/info/lfs/objects/batch",
		}, []string{
			"GET https://api.github.com/repos/evil/shop", "POST https://api.github.com/gists", "POST https://api.github.com/graphql", "POST https://api.github.com/user/repos",
			"GET https://api.github.com/repositories/1", "GET https://api.github.com/search/code?q=x", "PUT https://api.github.com/user/starred/evil/x",
			"POST https://github.com/evil/shop.git/git-receive-pack", "POST https://github.com/acmeevil/shop.git/git-receive-pack",
			"POST https://github.com/evil/acme/git-receive-pack", "GET https://github.com/login", "GET https://github.com/acme/shop/settings",
			"GET https://objects.githubusercontent.com/x", "POST https://uploads.github.com/repos/evil/x/releases/1/assets",
			"GET https://api.github.com/repos/evil%2F..%2Facme/shop", "GET https://api.github.com/repos/acme%2F..%2Fevil/shop",
		}},
		{"github repositories", "{name: github, pin: {owner: acme, repo: [shop, docs]}}", []string{
			"GET https://api.github.com/repos/acme/shop", "GET https://api.github.com/repos/acme/docs/pulls", "POST https://github.com/acme/shop.git/git-receive-pack",
			"POST https://github.com/acme/docs/git-upload-pack",
		}, []string{
			"GET https://api.github.com/repos/acme/secret", "GET https://api.github.com/repos/acme/shop2", "GET https://api.github.com/orgs/acme/repos",
			"POST https://github.com/acme/secret.git/git-upload-pack", "POST https://github.com/acme/shop.git.git/git-upload-pack",
		}},
		{"gitlab project", "{name: gitlab, pin: {group: acme/web, project: shop}}", []string{
			"GET https://gitlab.com/api/v4/projects/acme%2Fweb%2Fshop", "POST https://gitlab.com/api/v4/projects/acme%2Fweb%2Fshop/issues",
			"POST https://gitlab.com/acme/web/shop.git/git-receive-pack", "GET https://gitlab.com/acme/web/shop/info/refs?service=git-upload-pack",
		}, []string{
			"GET https://gitlab.com/api/v4/projects/evil%2Fshop", "GET https://gitlab.com/api/v4/projects/acme%2Fweb%2Fshop2/issues", "GET https://gitlab.com/api/v4/projects/acme%2Fshop",
			"GET https://gitlab.com/api/v4/user", "POST https://gitlab.com/api/graphql", "POST https://gitlab.com/evil/shop.git/git-receive-pack", "GET https://gitlab.com/acme/web/shop/-/settings",
		}},
		{"gitlab group", "{name: gitlab, pin: {group: acme}}", []string{
			"GET https://gitlab.com/api/v4/projects/acme%2Fshop/issues", "POST https://gitlab.com/acme/shop.git/git-receive-pack",
		}, []string{"GET https://gitlab.com/api/v4/projects/evil%2Fshop/issues", "POST https://gitlab.com/evil/shop.git/git-receive-pack", "POST https://gitlab.com/api/v4/projects"}},
		{"gitlab of one's own", "{name: gitlab, hosts: [git.corp.example], pin: {group: acme}}", []string{
			"GET https://git.corp.example/api/v4/projects/acme%2Fshop", "POST https://git.corp.example/acme/shop.git/git-receive-pack",
		}, []string{"GET https://gitlab.com/api/v4/projects/acme%2Fshop", "GET https://git.corp.example/api/v4/projects/evil%2Fshop"}},
		{"stripe connected account", "{name: stripe, pin: {connected: acct_1234567890}}", []string{
			"GET https://api.stripe.com/v1/charges Stripe-Account=acct_1234567890", "POST https://files.stripe.com/v1/files Stripe-Account=acct_1234567890",
		}, []string{
			"GET https://api.stripe.com/v1/charges", "GET https://api.stripe.com/v1/charges Stripe-Account=acct_evil567890", "GET https://api.stripe.com/v1/charges Stripe_Account=acct_1234567890",
		}},
		{"shopify resource", "{name: shopify, account: demo, pin: {resource: [orders, products]}}", []string{
			"GET https://demo.myshopify.com/admin/api/2025-01/orders.json", "GET https://demo.myshopify.com/admin/api/2025-01/products/1.json",
		}, []string{
			"GET https://demo.myshopify.com/admin/api/2025-01/customers.json", "POST https://demo.myshopify.com/admin/api/2025-01/graphql.json", "GET https://evil.myshopify.com/admin/api/2025-01/orders.json",
		}},
		{"slack channel", "{name: slack, pin: {channel: C0123456789}}", []string{
			"POST https://slack.com/api/chat.postMessage", "GET https://slack.com/api/conversations.history?channel=C0123456789", "POST https://slack.com/api/auth.test",
		}, []string{
			"GET https://slack.com/api/conversations.history?channel=C9999999999", "GET https://slack.com/api/conversations.history?channel=C0123456789&channel=C9999999999",
			"GET https://slack.com/api/chat.postMessage?channel=C0123456789", "POST https://slack.com/api/users.list", "POST https://slack.com/api/files.upload",
			"GET https://files.slack.com/files-pri/x", "GET wss://wss-primary.slack.com/link/",
		}},
		{"zendesk resource", "{name: zendesk, account: acme, pin: {resource: tickets}}", []string{
			"GET https://acme.zendesk.com/api/v2/tickets.json", "PUT https://acme.zendesk.com/api/v2/tickets/1.json",
		}, []string{"GET https://acme.zendesk.com/api/v2/users.json", "GET https://acme.zendesk.com/agent/tickets", "GET https://evil.zendesk.com/api/v2/tickets.json"}},
		{"gmail part", "{name: gmail, pin: {part: labels}}", []string{"GET https://gmail.googleapis.com/gmail/v1/users/me/labels"},
			[]string{"POST https://gmail.googleapis.com/gmail/v1/users/me/messages/send", "POST https://gmail.googleapis.com/gmail/v1/users/me/settings/forwardingAddresses"}},
		{"drive file", "{name: google-drive, pin: {file: 1AbCdEfGhIj}}", []string{"GET https://www.googleapis.com/drive/v3/files/1AbCdEfGhIj?alt=media", "PATCH https://www.googleapis.com/upload/drive/v3/files/1AbCdEfGhIj"},
			[]string{"GET https://www.googleapis.com/drive/v3/files", "POST https://www.googleapis.com/drive/v3/files/1AbCdEfGhIj/permissions", "POST https://www.googleapis.com/drive/v3/files/1AbCdEfGhIj/copy", "POST https://www.googleapis.com/upload/drive/v3/files"}},
		{"notion page", "{name: notion, pin: {page: " + page + "}}", []string{"GET https://api.notion.com/v1/pages/" + page, "PATCH https://api.notion.com/v1/blocks/" + page + "/children"},
			[]string{"POST https://api.notion.com/v1/search", "GET https://api.notion.com/v1/pages/1" + page[1:], "POST https://api.notion.com/v1/pages", "POST https://api.notion.com/v1/oauth/token"}},
		{"notion database", "{name: notion, pin: {database: " + page + "}}", []string{"POST https://api.notion.com/v1/databases/" + page + "/query", "POST https://api.notion.com/v1/data_sources/" + page + "/query"},
			[]string{"GET https://api.notion.com/v1/pages/" + page, "POST https://api.notion.com/v1/databases"}},
		{"sigv4", "{name: sigv4, hosts: [x.execute-api.eu-central-1.amazonaws.com], pin: {region: eu-central-1, service: execute-api}}", []string{"GET https://x.execute-api.eu-central-1.amazonaws.com/a"},
			[]string{"GET https://y.execute-api.eu-central-1.amazonaws.com/a"}},
		{"hubspot object", "{name: hubspot, pin: {object: contacts}}", []string{"GET https://api.hubapi.com/crm/v3/objects/contacts/1"},
			[]string{"GET https://api.hubapi.com/crm/v3/objects/deals", "POST https://api.hubapi.com/files/v3/files"}},
		{"s3 bucket", "{name: s3, pin: {region: eu-central-1, bucket: [acme-data, acme-logs]}}", []string{
			"PUT https://acme-data.s3.eu-central-1.amazonaws.com/a/b", "GET https://acme-logs.s3.eu-central-1.amazonaws.com/", "PUT https://s3.eu-central-1.amazonaws.com/acme-data/a/b",
		}, []string{
			"PUT https://evil.s3.eu-central-1.amazonaws.com/a", "PUT https://s3.eu-central-1.amazonaws.com/evil/a", "GET https://s3.eu-central-1.amazonaws.com/",
			"PUT https://acme-data.s3.us-east-1.amazonaws.com/a", "PUT https://s3.eu-central-1.amazonaws.com/acme-data2/a", "PUT https://acme-data.evil.s3.eu-central-1.amazonaws.com/a",
		}},
		{"s3 of one's own", "{name: s3, hosts: [minio.corp.example], pin: {region: us-east-1, bucket: acme-data}}", []string{"PUT https://minio.corp.example/acme-data/a"}, []string{"PUT https://minio.corp.example/evil/a"}},
		{"openai project", "{name: openai, pin: {organization: org-abcdef, project: proj_abcdef}}", []string{"POST https://api.openai.com/v1/responses OpenAI-Organization=org-abcdef OpenAI-Project=proj_abcdef"},
			[]string{"POST https://api.openai.com/v1/responses", "POST https://api.openai.com/v1/responses OpenAI-Organization=org-abcdef", "POST https://api.openai.com/v1/files OpenAI-Organization=org-abcdef OpenAI-Project=proj_evil"}},
		{"paths below a pin", "{name: github, pin: {owner: acme}, paths: [/repos/acme/shop/issues, /repos/acme/shop/issues/**, /repos/evil/x], methods: [GET]}", []string{"GET https://api.github.com/repos/acme/shop/issues/1"},
			[]string{"POST https://api.github.com/repos/acme/shop/issues", "GET https://api.github.com/repos/acme/shop/pulls", "GET https://api.github.com/repos/evil/x", "GET https://raw.githubusercontent.com/acme/shop/x"}},
	}
}

// Every pin that is shipped has a test above.
func TestN10EveryPinIsTested(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range pinned() {
		m := load(t, "  - "+c.connection+"\n")
		for pin := range m.Connectors[0].Pins {
			tested[m.Connectors[0].Name+"."+pin] = true
		}
	}
	for _, c := range builtin(t).List() {
		for _, p := range c.pins {
			if !tested[c.Name+"."+p.name] {
				t.Errorf("%s.%s is in no case of pinned", c.Name, p.name)
			}
		}
	}
}

func TestBindRefuses(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"unknown", "  - name: githob\n", `m.yaml:4:11: connectors[0].name: there is no connector "githob"; did you mean "github"?`},
		{"account missing", "  - name: shopify\n", `m.yaml:4:5: connectors[0]: needs an account: the shop's name, as in NAME.myshopify.com; write account: NAME`},
		{"account not wanted", "  - {name: github, account: acme}\n", `m.yaml:4:29: connectors[0].account: the connector github takes no account; remove it`},
		{"account is a host", "  - {name: zendesk, account: acme.evil.example}\n", `connectors[0].account: "acme.evil.example" is not the subdomain, as in NAME.zendesk.com`},
		{"unknown pin", "  - {name: github, pin: {ower: acme}}\n", `m.yaml:4:26: connectors[0].pin.ower: the connector github has no pin "ower"; did you mean "owner"?`},
		{"no pins at all", "  - {name: linear, pin: {team: x}}\n", `the connector linear has no pin "team"; it has none`},
		{"pin without its other", "  - {name: github, pin: {repo: shop}}\n", `connectors[0].pin.repo: goes with the pin owner: an account or organisation of GitHub; write owner too`},
		{"pin that is a pattern", "  - {name: github, pin: {owner: \"*\"}}\n", `connectors[0].pin.owner: "*" is not an account or organisation of GitHub`},
		{"pin with a slash", "  - {name: github, pin: {owner: a, repo: ../b}}\n", `connectors[0].pin.repo: "../b" is not the name of a repository`},
		{"required pin", "  - {name: s3, pin: {region: eu-central-1}}\n", `connectors[0].pin: the connector s3 needs the pin bucket: the name of a bucket`},
		{"required pin, no pin", "  - {name: s3}\n", `connectors[0]: the connector s3 needs the pin region`},
		{"two regions", "  - {name: s3, pin: {region: [eu-central-1, us-east-1], bucket: acme}}\n", `connectors[0].pin.region: takes one value; write a connection for each, with as`},
		{"hosts not wanted", "  - {name: github, hosts: [github.corp.example]}\n", `connectors[0].hosts: the connector github is for the service's own hosts only`},
		{"hosts missing", "  - name: bearer\n", `connectors[0]: the connector bearer needs the hosts of the service; write for example hosts: [api.acme.example]`},
		{"same host", "  - {name: bearer, hosts: [api.a.example]}\n  - {name: query, hosts: [api.a.example]}\n", `m.yaml:5:5: connectors[1]: is for the host api.a.example, as is connectors[0] "bearer" (line 4): nothing in a request tells which credential is meant`},
		{"a wildcard where names say whose it is", "  - {name: s3, hosts: [\"*.minio.example\"], pin: {region: eu-central-1, bucket: files}}\n", `is for one installation, and "*.minio.example" is many names`},
		{"host under a wildcard", "  - {name: bearer, hosts: [\"*.a.example\"]}\n  - {name: query, hosts: [x.y.a.example]}\n", `connectors[1]: is for the host x.y.a.example`},
		{"wildcard under a wildcard", "  - {name: bearer, hosts: [\"*.b.a.example\"]}\n  - {name: query, hosts: [\"*.a.example\"]}\n", `connectors[1]: is for the host *.a.example`},
		{"paths outside of the pin", "  - {name: github, pin: {owner: acme}, paths: [/repos/evil/**]}\n", `connectors[0].paths: none of them is within what the connector and the pins leave open`},
		{"methods outside", "  - {name: linear, methods: [DELETE]}\n", `connectors[0].methods: none of them is within`},
		{"a rule that undoes the pin", "  - {name: github, pin: {owner: acme}}\negress: {allow: [{host: api.github.com}]}\n", `connectors[0]: narrows the host api.github.com, and egress.allow[0] (line 5) opens all of it again`},
		{"a wide rule that undoes the pin", "  - {name: github, pin: {owner: acme}}\negress: {allow: [{host: \"*.github.com\"}]}\n", `narrows the host api.github.com`},
		{"a host that is passed through", "  - {name: github}\negress: {allow: [{host: api.github.com, tls: passthrough}]}\n", `egress.allow[0] (line 5) has tls: passthrough for it`},
		{"variable of the computer", "  - {name: github}\ncomputer: {env: {GH_TOKEN: x}}\n", `connectors[0]: sets the variable GH_TOKEN, as does computer.env; remove it there`},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, err := builtin(t).Bind(load(t, c.src))
			var problems manifest.Errors
			if !errors.As(err, &problems) || all != nil {
				t.Fatalf("Bind = %v, %v", all, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
			if problems[0].Excerpt() == "" {
				t.Error("the line is not shown")
			}
		})
	}
}

func TestBindAllowsBeside(t *testing.T) {
	bind(t, "  - {name: github, pin: {owner: acme}}\n  - {name: bearer, hosts: [api.a.example]}\n  - {name: bearer, as: other, hosts: [api.a.example], ports: [8443]}\n"+
		"egress: {allow: [{host: api.github.com, paths: [/repos/golang/go/**], methods: [GET]}, {host: x.example, tls: passthrough}]}\n")
}

func TestBinding(t *testing.T) {
	all := bind(t, "  - {name: s3, pin: {region: eu-central-1, bucket: acme}}\n  - {name: zendesk, account: acme, require: false}\n  - {name: zendesk, as: zendesk-eu, account: acme-eu}\n  - {name: bearer, as: internal, hosts: [a.example], private: true}\n")
	s3, zendesk, eu, internal := all[0], all[1], all[2], all[3]
	if s := s3.Hosts[0].Auth[0].SigV4; s == nil || s.Region != "eu-central-1" || s.Service != "s3" || s.KeyID != "access_key_id" {
		t.Errorf("s3 signs with %+v", s)
	}
	if s := s3.Connector.auth[0].SigV4.Region; s != "{region}" {
		t.Errorf("binding has changed the connector: %s", s)
	}
	if !s3.Require || zendesk.Require || s3.Name != "s3" || eu.Name != "zendesk-eu" || s3.Line != 4 {
		t.Errorf("%+v", s3)
	}
	want := []Place{{In: InBasic, Name: "Authorization", User: "{email}/token", Value: "{api_token}"}}
	if diff := cmp.Diff(want, zendesk.Hosts[0].Auth[1].Places); diff != "" {
		t.Error(diff)
	}
	env := func(b *Binding) (all []string) {
		for _, e := range b.Env {
			all = append(all, e.Name+"="+string(e.Value))
		}
		return all
	}
	for _, c := range []struct {
		b    *Binding
		want []string
	}{
		{s3, []string{"AWS_ACCESS_KEY_ID={access_key_id}", "AWS_SECRET_ACCESS_KEY={secret_access_key}", "AWS_REGION=eu-central-1", "AWS_DEFAULT_REGION=eu-central-1"}},
		{zendesk, []string{"ZENDESK_SUBDOMAIN=acme", "ZENDESK_OAUTH_TOKEN={access_token}", "ZENDESK_EMAIL={email}", "ZENDESK_API_TOKEN={api_token}"}},
		{eu, []string{"ZENDESK_SUBDOMAIN_ZENDESK_EU=acme-eu", "ZENDESK_OAUTH_TOKEN_ZENDESK_EU={access_token}", "ZENDESK_EMAIL_ZENDESK_EU={email}", "ZENDESK_API_TOKEN_ZENDESK_EU={api_token}"}},
		{internal, []string{"INTERNAL_TOKEN={token}"}},
	} {
		if diff := cmp.Diff(c.want, env(c.b)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.b.Name, diff)
		}
	}
	if o := eu.Ways[0].OAuth; o.Token != "https://acme-eu.zendesk.com/oauth/tokens" || !o.PKCE || o.ScopeSep != " " || o.ScopeParam != "scope" {
		t.Errorf("the token comes from %+v", o)
	}
	if len(internal.Ways) != 1 || internal.Ways[0].Kind != WayGiven || internal.Ways[0].Fields[0] != "token" {
		t.Errorf("the ways of bearer are %+v", internal.Ways)
	}
	if r := internal.Rules[0]; !r.Private || r.Label != `connectors[3] "internal" (line 7)` || r.TLS != policy.Terminate {
		t.Errorf("the rule is %+v", r)
	}
	if !slices.Contains(internal.Foreign.Headers, "X-Api-Key") || !slices.Contains(internal.Foreign.Strip, "Cookie") {
		t.Errorf("foreign is %+v", internal.Foreign)
	}
	if login := bind(t, "  - {name: login, hosts: [a.example]}\n")[0]; !slices.Contains(login.Foreign.Headers, "Cookie") || login.Foreign.Strip != nil {
		t.Errorf("foreign of a login is %+v", login.Foreign)
	}
}

// What a pin asks of a body is handed on for each kind of request.
func TestBodyConditions(t *testing.T) {
	b := bind(t, "  - {name: slack, pin: {channel: [C0123456789, C9876543210]}}\n")[0]
	if len(b.Hosts) != 1 || len(b.Hosts[0].Body) != 1 {
		t.Fatalf("hosts are %+v", b.Hosts)
	}
	c := b.Hosts[0].Body[0]
	if c.JSON != "/channel" || c.Form != "channel" || len(c.Values) != 2 || !slices.Contains(c.Paths, "/api/chat.postMessage") || !slices.Equal(c.Methods, []string{"POST"}) {
		t.Errorf("the condition is %+v", c)
	}
}

func TestHostMatch(t *testing.T) {
	wide, exact := Host{Name: "*.a.example", Ports: []uint16{443}}, Host{Name: "a.example", Ports: []uint16{443, 8443}}
	for _, c := range []struct {
		h    Host
		name string
		port uint16
		want bool
	}{
		{wide, "x.a.example", 443, true}, {wide, "x.y.a.example", 443, true}, {wide, "a.example", 443, false}, {wide, "xa.example", 443, false},
		{wide, "x.a.example", 80, false}, {exact, "a.example", 8443, true}, {exact, "x.a.example", 443, false}, {Host{}, "", 0, false},
	} {
		if got := c.h.Match(c.name, c.port); got != c.want {
			t.Errorf("%s matches %s:%d: %v", c.h.Name, c.name, c.port, got)
		}
	}
}

func TestTemplate(t *testing.T) {
	value := func(string) []byte { return []byte("V") }
	for in, want := range map[Template]string{
		"": "", "abc": "abc", "{a}": "V", "x{a}y{b_1}z": "xVyVz", "{A}{1}{}{ a}{a": "{A}{1}{}{ a}{a", "{{a}}": "{V}", `{"k": "{a}"}`: `{"k": "V"}`,
	} {
		if got := string(in.Append(nil, value)); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	if p, n, s, ok := Template("Bearer {token}!").Split(); p != "Bearer " || n != "token" || s != "!" || !ok {
		t.Errorf("Split = %q %q %q %v", p, n, s, ok)
	}
	for _, in := range []Template{"", "x", "{a}{b}", "{a}x{b}y"} {
		if _, _, _, ok := in.Split(); ok {
			t.Errorf("%q has one placeholder", in)
		}
	}
	p := Place{In: InPath, Name: "/v1/bot{token}/**"}
	if got := p.Segment(); got != 1 {
		t.Errorf("the segment is %d", got)
	}
}
