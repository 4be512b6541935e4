package connector

import (
	"strings"
	"testing"

	"ambit/manifest"
)

// A connection whose account a server of tools is used with is closed to the agent's
// own requests, and opens what the server needs or is refused.
func TestUpstreams(t *testing.T) {
	catalog, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	try := func(connection, upstream, rest string) ([]*Binding, error) {
		m, err := manifest.Parse("m.yaml", []byte("ambit: v1\nname: a\nconnectors:\n  - {name: bearer, as: crm, hosts: [mcp.example.com, \"*.tools.example\"]"+connection+"}\nmcp:\n  - {name: crm, "+upstream+"}\n"+rest))
		if err != nil {
			t.Fatal(err)
		}
		return catalog.Bind(m)
	}
	const with = "url: https://mcp.example.com/mcp, connection: crm"
	for _, c := range []struct{ connection, upstream, rest, want string }{
		{"", with, "", ""},
		{"", "url: https://eu.tools.example, connection: crm", "", ""},
		{"", "url: https://open.example/mcp", "", ""},
		{"", "url: https://open.example/mcp", "egress: {allow: [{host: open.example, paths: [/docs/**]}]}\n", ""},
		{", paths: [/mcp], methods: [POST]", with, "", ""},
		{", paths: [/v1/**]", with, "", "m.yaml:6:22: mcp[0].url: the connection crm does not open it"},
		{", methods: [GET]", with, "", "does not open it"},
		{", ports: [8443]", with, "", "is not a host of the connection crm on this port"},
		{"", "url: https://other.example/mcp, connection: crm", "", `"other.example" is not a host of the connection crm`},
		{"", "url: https://mcp.example.com/other", "", "write connection: crm"},
		{"", "url: https://open.example/mcp", "egress: {allow: [{host: \"*.open.example\"}, {host: open.example}]}\n", "egress.allow[1] (line 7) opens it"},
		{"", with, "egress: {allow: [{host: mcp.example.com, paths: [/x]}]}\n", "is for tools only"},
	} {
		all, err := try(c.connection, c.upstream, c.rest)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)), c.want == "" && err != nil:
			t.Errorf("%s %s: %v, want %q", c.connection, c.upstream, err, c.want)
		case c.want != "" || !strings.Contains(c.upstream, "connection"):
		case len(all[0].Rules) != 0 || len(all[0].ToolRules) == 0 || len(all[0].Env) != 0 || len(all[0].Tools()) != 0:
			t.Errorf("%s: %+v", c.connection, all[0])
		}
	}
	if all, err := try(", direct: true", with, ""); err != nil || len(all[0].Rules) == 0 || len(all[0].Env) == 0 {
		t.Errorf("%v, %v", all, err)
	}
}
