package toolset_test

import (
	"slices"
	"testing"

	"ambit"
	"ambit/gate/toolset"
	"ambit/manifest"
	"ambit/policy/tool"
)

const support = `ambit: v1
name: support
role: support
tools:
  - {tool: "shop.*", scope: {shop: [berlin, "7", 7]}}
  - tool: shop.refunds.create
    widen: [spend]
    limits: {perCall: 200 EUR, callsPerDay: 2}
  - {tool: shop.orders.delete, deny: true}
limits:
  - {effect: spend, perDay: 500 EUR, askAbove: 20 EUR}
approvals:
  - {tool: shop.refunds.create, when: amount > 50 EUR, ask: [owner], people: 2, expires: 1h}
inside: [acme.example]
cedar: |
  @id("no-gifts")
  forbid (principal, action, resource in Source::"shop")
    when { context.args has reason && context.args.reason == "gift" };
`

func parse(t *testing.T, src string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse("support.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCompile(t *testing.T) {
	s, err := toolset.Compile(parse(t, support))
	if err != nil {
		t.Fatal(err)
	}
	refund := &ambit.Tool{Name: "shop.refunds.create", Effects: []ambit.Effect{"write", "spend"}, Amount: "/amount", Currency: "EUR"}
	for _, c := range []struct {
		tool *ambit.Tool
		args string
		rule string // of the verdict
		code string // "" is allowed
	}{
		{refund, `{"amount":50,"shop":"berlin"}`, "tools[1] (line 6)", ""},
		{refund, `{"amount":50,"shop":7}`, "tools[1] (line 6)", ""},
		{refund, `{"amount":50,"shop":8}`, "tools[0] (line 5)", tool.CodeScope},
		{refund, `{"amount":50.01,"shop":"7"}`, "approvals[0] (line 13)", tool.CodeApproval},
		{refund, `{"amount":200.01,"shop":"7"}`, "tools[1].perCall (line 6)", tool.CodeLimit},
		{refund, `{"amount":1,"shop":"7","reason":"gift"}`, "cedar no-gifts (line 16)", tool.CodeCedar},
		{&ambit.Tool{Name: "shop.orders.delete", Effects: []ambit.Effect{"delete"}}, `{"shop":"7"}`, "tools[2] (line 9)", tool.CodeDenied},
		{&ambit.Tool{Name: "shop.drafts.delete", Effects: []ambit.Effect{"delete"}}, `{"shop":"7"}`, "role support: no delete", tool.CodeRole},
	} {
		call := &ambit.ToolCall{Agent: "support", Tool: c.tool, Args: []byte(c.args)}
		v := s.Decide(call, s.NothingYet(call))
		if (v.Decision == ambit.Allow) != (c.code == "") || v.Reason.Code != c.code || v.Rule != c.rule {
			t.Errorf("%s %s: %+v", c.tool.Name, c.args, v)
		}
	}
}

// A manifest that says nothing about tools allows none.
func TestEmptyManifestAllowsNothing(t *testing.T) {
	s, err := toolset.Compile(parse(t, "ambit: v1\nname: a\n"))
	if err != nil {
		t.Fatal(err)
	}
	v := s.Decide(&ambit.ToolCall{Tool: &ambit.Tool{Name: "shop.orders.get", Effects: []ambit.Effect{"read"}}, Args: []byte(`{}`)}, tool.Facts{})
	if v.Decision == ambit.Allow || v.Reason.Code != tool.CodeNotAllowed {
		t.Errorf("%+v", v)
	}
}

// What a manifest may name as a role is what there is.
func TestRolesAreTheSame(t *testing.T) {
	if !slices.Equal(manifest.Roles(), tool.Roles()) {
		t.Errorf("%v and %v", manifest.Roles(), tool.Roles())
	}
}

func TestUnknown(t *testing.T) {
	got := toolset.Unknown(parse(t, support), map[string]*ambit.Tool{"shop.refunds.create": {}})
	if len(got) != 1 || got[0] != "tools[2] (line 9) names shop.orders.delete, which is no tool of this agent" {
		t.Errorf("%q", got)
	}
}
