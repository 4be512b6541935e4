package connector_test

import (
	"fmt"

	"ambit/connector"
	"ambit/manifest"
)

// A call of a tool becomes a request, and the answer a result.
func ExampleBoundTool() {
	m, err := manifest.Parse("support.yaml", []byte("ambit: v1\nname: support\nconnectors:\n  - {name: zendesk, account: acme, tools: [tickets.reply]}\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	catalog, err := connector.Builtin()
	if err != nil {
		fmt.Println(err)
		return
	}
	bindings, err := catalog.Bind(m)
	if err != nil {
		fmt.Println(err)
		return
	}
	tool := bindings[0].Tools()[0]
	fmt.Println(tool.Tool.Name, tool.Tool.Effects, tool.Tool.Targets)
	r, err := tool.Request([]byte(`{"body":"We are on it.","ticket_id":7}`), "call-0123456789")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := r.Refer(r.Auth[0], func(string) (string, bool) { return "REFERENCE", true }); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Method, r.URL, r.Header.Get("Authorization"))
	fmt.Println(string(r.Body))
	result, err := tool.Result(200, nil, []byte(`{"ticket":{"id":7,"status":"open","subject":"Help!"}}`))
	fmt.Println(string(result), err)
	_, err = tool.Request([]byte(`{"body":"We are on it.","ticket_id":"7/../8"}`), "call-0123456789")
	fmt.Println(err)
	// Output:
	// zendesk.tickets.reply [send customer] [/ticket_id]
	// PUT https://acme.zendesk.com/api/v2/tickets/7.json Bearer REFERENCE
	// {"ticket":{"comment":{"body":"We are on it.","public":true}}}
	// {"id":7,"status":"open"} <nil>
	// the argument /ticket_id is the text "7/../8", and needs to be a whole number
}
