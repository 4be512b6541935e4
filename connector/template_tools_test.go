package connector

import (
	"strings"
	"testing"
)

// How a body is built: values keep their kind, what is left out leaves its field
// out, and no text of an argument becomes structure.
func TestBodyTemplates(t *testing.T) {
	src := strings.Replace(toolFile(`  x.add:
    title: X
    effects: [write]
    arguments:
      n: {type: integer, optional: true}
      s: {type: string, optional: true, multiline: true}
      flag: {type: boolean, optional: true}
      list: {type: array, optional: true, items: {type: object, fields: {id: {type: integer}, note: {type: string, optional: true}}}}
    request:
      method: POST
      path: /x
      query: {n: "{n}", "a&b": "c {n}"}
      json:
        number: "{n}"
        text: "number {n}, {s}"
        whole: "{s}"
        flag: "{flag}"
        list: "{list}"
        nested: {deep: {s: "{s}"}}
        several: ["{n}", "{s}", fixed, 7, true]
        empty: {}
`), "hosts: [api.acme.example]\n", "", 1)
	catalog, err := builtin(t).WithSources([]Source{{Name: "acme.yaml", Text: []byte(src)}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := catalog.Bind(load(t, "  - {name: acme, hosts: [crm.corp.example], ports: [8443], tools: [x.add]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	tool := all[0].Tools()[0]
	for args, want := range map[string]string{
		`{}`:                                  `https://crm.corp.example:8443/x {"empty":{},"several":["fixed",7,true]}`,
		`{"n":0,"flag":false}`:                `https://crm.corp.example:8443/x?n=0&a%26b=c+0 {"empty":{},"flag":false,"number":0,"several":[0,"fixed",7,true]}`,
		`{"n":1,"s":"\",\"admin\":true<{n}"}`: `https://crm.corp.example:8443/x?n=1&a%26b=c+1 {"empty":{},"nested":{"deep":{"s":"\",\"admin\":true<{n}"}},"number":1,"several":[1,"\",\"admin\":true<{n}","fixed",7,true],"text":"number 1, \",\"admin\":true<{n}","whole":"\",\"admin\":true<{n}"}`,
		`{"list":[{"id":1},{"id":2,"note":"x"}]}`: `https://crm.corp.example:8443/x {"empty":{},"list":[{"id":1},{"id":2,"note":"x"}],"several":["fixed",7,true]}`,
	} {
		r, err := tool.Request([]byte(args), "")
		if err != nil {
			t.Error(err)
			continue
		}
		if got := r.URL + " " + string(r.Body); got != want {
			t.Errorf("%s is\n%s, want\n%s", args, got, want)
		}
	}
	for args, want := range map[string]string{
		`{"list":[{"id":1,"admin":true}]}`: `the argument /list/0 has no field "admin"`, `{"list":[{"note":"x"}]}`: `the argument /list/0/id is missing`,
		`{"list":[1]}`: `/list/0 is not an object`, `{"n":null}`: `is null`,
	} {
		if _, err := tool.Request([]byte(args), ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
