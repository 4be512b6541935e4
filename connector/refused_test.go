package connector

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

const head = "connector: v1\nname: acme\ntitle: Acme\ndocs: https://acme.example/keys\n"

const body = "secrets: {token: {title: Token}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{token}\"}]\n"

type refusedFile struct{ name, src, want string }

func refusedFiles() []refusedFile {
	return []refusedFile{
		{"empty", "", `f.yaml:1:1: the file is empty; a connector file starts with "connector: v1"`},
		{"too large", head + strings.Repeat("#", MaxSize), `more than the 262144 (256 KiB) that a connector file may have; keep the tools that agents need`},
		{"unknown key", head + body + "hots: [a]\n", `f.yaml:8:1: hots: unknown key "hots"; did you mean "hosts"?`},
		{"duplicate key", head + body + "hosts: [a.example]\nhosts: [b.example]\n", `f.yaml:9:1: hosts: the key "hosts" is here twice; the first is on line 8; keep one of them`},
		{"alias", head + body + "hosts: *x\n", `aliases (*name) are not allowed`},
		{"nothing", "connector: v1\n", `f.yaml:1:1: auth: the key "auth" is missing; write for example auth: [{bearer: "{token}"}]`},
		{"IPv4", head + body + "hosts: [93.184.216.34]\n", `f.yaml:8:9: hosts[0]: "93.184.216.34" is an address: a connector names its hosts; write the host's name`},
		{"IPv6", head + body + "hosts: [{host: \"2606:4700::1111\"}]\n", `is an address: a connector names its hosts`},
		{"IP in other forms", head + body + "hosts: [0x7f.1]\n", `f.yaml:8:9: hosts[0]: not a host`},
		{"URL as host", head + body + "hosts: [\"https://acme.example/v1\"]\n", `"https://acme.example/v1" is a URL, not a host; write host: acme.example, paths: [/v1]`},
		{"all hosts", head + body + "hosts: [\"*.com\"]\n", `"*.com" opens too much`},
		{"metadata", head + body + "hosts: [metadata.google.internal]\n", `is a cloud's metadata service`},
		{"host twice", head + body + "hosts: [a.example, a.example]\n", `f.yaml:8:20: hosts[1]: the host is here twice; keep one of them`},
		{"host of a secret", head + body + "hosts: [\"{token}.example\"]\n", `nothing fills the placeholder {token}`},
		{"OAuth at an address", head + body + "ways: {o: {title: O, fields: [token], oauth: {flows: [device], token: \"https://10.0.0.1/t\", clientID: token}}}\n", `"https://10.0.0.1/t" has an address for a host`},
		{"OAuth in plain", head + body + "ways: {o: {title: O, fields: [token], oauth: {flows: [device], token: \"http://a.example/t\", clientID: token}}}\n", `"http://a.example/t" is not an https URL`},
		{"OAuth without endpoint", head + body + "ways: {o: {title: O, fields: [token], oauth: {flows: [device], token: \"https://a.example/t\", clientID: token}}}\n", `the key "device" is missing; the flow device needs it`},
		{"no reference", head + "secrets: {token: {title: T}}\nauth: [{bearer: \"{token}\"}]\n", `f.yaml:6:8: auth[0]: the agent has nothing to send in place of "token"; give it a shape under references`},
		{"typo in a placeholder", head + "secrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{tokn}\"}]\n", `auth[0].bearer: nothing fills the placeholder {tokn}; did you mean {token}?`},
		{"no placeholder", head + "secrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: abc}]\n", `auth[0].bearer: has no placeholder for a secret; write for example "{token}"`},
		{"two schemes", head + "secrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{token}\", query: {key: \"{token}\"}}]\n", `auth[0]: an entry has exactly one way in which a credential travels`},
		{"auth of another host", head + "hosts: [a.example]\nsecrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{token}\", hosts: [b.example]}]\n", `auth[0].hosts[0]: "b.example" is none of the hosts`},
		{"header the gate sets", head + "secrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{header: {Host: \"{token}\"}}]\n", `"Host" is judged by the key host`},
		{"path before", head + "secrets: {token: {title: T}}\nreferences: {token: \"{base62:30}\"}\nauth: [{path: \"/**/{token}\"}]\n", `has ** before the placeholder`},
		{"weak shape", head + "secrets: {token: {title: T}}\nreferences: {token: \"abc\"}\nauth: [{bearer: \"{token}\"}]\n", `references.token: is no shape: `},
		{"weak shape of a token", head + "secrets: {token: {title: T}}\nreferences: {token: \"weak:{digits:6}\"}\nauth: [{bearer: \"{token}\"}]\n", `references.token: a weak shape is for one-time codes (kind: totp) only`},
		{"pattern that is loose", head + "secrets: {token: {title: T, check: \"abc\"}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{token}\"}]\n", `secrets.token.check: is not a pattern of the whole text`},
		{"variable of Ambit's", head + body + "env: {HTTPS_PROXY: \"{token}\"}\n", `"HTTPS_PROXY" is set by Ambit`},
		{"file outside", head + body + "files: {../x: a}\n", `"../x" is not a path below the agent's home folder`},
		{"pin of no host", head + body + "pins: {p: {title: P, check: \"^a$\", narrows: {x.example: [{paths: [/a]}]}}}\n", `"x.example" is none of the hosts`},
		{"pin of nothing", head + "hosts: [a.example]\n" + body + "pins: {p: {title: P, check: \"^a$\", narrows: {a.example: [{methods: [GET]}]}}}\n", `narrows nothing; write host, paths, query, headers, json or form`},
		{"pin of another", head + "hosts: [a.example]\n" + body + "pins: {p: {title: P, check: \"^a$\", narrows: {a.example: [{paths: [\"/{q}\"]}]}}}\n", `nothing fills the placeholder {q}`},
		{"subject that is known", head + body + "subjects: [{kind: email, value: \"{digits:1-9}\", fields: [order]}]\n", `f.yaml:8:19: subjects[0].kind: its kind is recognised without a pattern`},
		{"subject without value", head + body + "subjects:\n  - {kind: order, fields: [order_id]}\n", `the key "value" is missing`},
		{"subject's value", head + body + "subjects: [{kind: order, value: \"[0-9]+\", fields: [order]}]\n", `f.yaml:8:33: subjects[0].value: its value "[0-9]+" is not a text and one field in braces`},
		{"subject's field", head + body + "subjects: [{kind: order, value: \"{digits:1-9}\", fields: [order_id, id]}]\n", `f.yaml:8:68: subjects[0].fields[1]: the field "id" has 2 bytes`},
		{"subject's text", head + body + "subjects: [{kind: order, value: \"{digits:1-9}\", after: [/orders]}]\n", `subjects[0].after[0]: the text "/orders" ends with a letter`},
		{"subject anywhere", head + body + "subjects: [{kind: order, value: \"{digits:1-9}\"}]\n", `subjects[0].value: what it begins with, "", has 0 bytes`},
		{"subjects without end", head + body + "subjects:\n" + strings.Repeat("  - {kind: order, value: \"a__{digits:1-9}\"}\n", 65), `subjects[64]: is one more than the 64 subjects`},
		{"tool twice", toolFile(strings.Repeat("  x: {}\n", 2)), `f.yaml:11:3: tools.x: the key "x" is here twice`},
		{"tool's name", toolFile("  Refund: {title: T, effects: [read], request: {method: GET, path: /x}}\n"), `f.yaml:10:3: tools.Refund: "Refund" is not the name of a tool`},
		{"tool's long name", toolFile("  " + strings.Repeat("a", 40) + "." + strings.Repeat("b", 40) + ": {title: T, effects: [read], request: {method: GET, path: /x}}\n"), `with dots between them, 80 characters`},
		{"tool without effects", toolFile("  x: {title: T, request: {method: GET, path: /x}}\n"), `tools.x.effects: the key "effects" is missing`},
		{"tool's effect", toolFile("  x: {title: T, effects: [spends], request: {method: GET, path: /x}}\n"), `tools.x.effects[0]: "spends" is no effect; did you mean "spend"?`},
		{"tool that reads with DELETE", toolFile("  x: {title: T, effects: [read], request: {method: DELETE, path: /x}}\n"), `say that the tool only reads, and its method is DELETE`},
		{"tool's host", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x, host: evil.example}}\n"), `tools.x.request.host: "evil.example" is none of the hosts`},
		{"tool's path", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /a/../x}}\n"), `tools.x.request.path: `},
		{"tool's path with a star", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /a/*}}\n"), `"/a/*" has more than names in braces`},
		{"tool outside of what is open", head + "hosts: [{host: api.acme.example, paths: [/api/**], methods: [GET]}]\n" + body + "tools: {x: {title: T, effects: [read], request: {method: GET, path: /x}}}\n", `is none of the paths of api.acme.example`},
		{"tool with a method that is closed", head + "hosts: [{host: api.acme.example, methods: [GET]}]\n" + body + "tools: {x: {title: T, effects: [write], request: {method: POST, path: /x}}}\n", `the method POST is not open at api.acme.example`},
		{"tool's placeholder", toolFile("  x: {title: T, effects: [read], arguments: {order: {type: string}}, request: {method: GET, path: \"/x/{ordr}\"}}\n"), `nothing fills the placeholder {ordr}; did you mean {order}?`},
		{"tool with a secret", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x, query: {q: \"{token}\"}}}\n"), `nothing fills the placeholder {token}`},
		{"tool's credential", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x, headers: {authorization: Bearer x}}}\n"), `is where a credential stands`},
		{"tool's header from an argument", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: string}}, request: {method: GET, path: /x, headers: {X-A: \"{a}\"}}}\n"), `a header field has no arguments in it`},
		{"argument that is not used", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: string}}, request: {method: GET, path: /x}}\n"), `nothing uses the argument "a"`},
		{"argument that is an account", toolFile("  x: {title: T, effects: [read], arguments: {host: {type: string}}, request: {method: GET, path: \"/{host}\"}}\n"), `{host} is something else in a connector`},
		{"argument's type", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: text}}, request: {method: GET, path: \"/{a}\"}}\n"), `"text" is no value of this key`},
		{"argument's other keys", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: integer, maxLength: 3}}, request: {method: GET, path: \"/{a}\"}}\n"), `says nothing about type: integer`},
		{"optional argument of a path", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: string, optional: true}}, request: {method: GET, path: \"/{a}\"}}\n"), `may be left out, and a path may not`},
		{"object in a query", toolFile("  x: {title: T, effects: [read], arguments: {a: {type: object, fields: {b: {type: string}}}}, request: {method: GET, path: /x, query: {a: \"{a}\"}}}\n"), `is not a single value`},
		{"list inside of text", toolFile("  x: {title: T, effects: [write], arguments: {a: {type: array, items: {type: string}}}, request: {method: POST, path: /x, json: {a: \"x {a}\"}}}\n"), `is not a single value`},
		{"body of a GET", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x, json: {a: true}}}\n"), `a GET has no body`},
		{"two bodies", toolFile("  x: {title: T, effects: [write], request: {method: POST, path: /x, json: {a: true}, form: {b: c}}}\n"), `there is a JSON body already`},
		{"mail to anybody", toolFile("  x: {title: T, effects: [send], arguments: {a: {type: string}}, request: {method: POST, path: /x, json: {raw: {$mail: {to: \"{a}\", subject: s, text: t}}}}}\n"), `is not an argument with format: email`},
		{"target of nothing", toolFile("  x: {title: T, effects: [read], targets: [/b], arguments: {a: {type: string}}, request: {method: GET, path: \"/{a}\"}}\n"), `no argument is at "/b"`},
		{"amount that may be left out", toolFile("  x: {title: T, effects: [spend], amount: {value: /a, currency: EUR}, arguments: {a: {type: number, optional: true}}, request: {method: POST, path: /x, json: {a: \"{a}\"}}}\n"), `without it nobody knows how much it is`},
		{"currency of the moon", toolFile("  x: {title: T, effects: [spend], amount: {value: /a, currency: XXX}, arguments: {a: {type: number}}, request: {method: POST, path: /x, json: {a: \"{a}\"}}}\n"), `"XXX" is not a currency whose decimals are known here`},
		{"record that is not kept", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x}, result: {keep: [/a], records: [/b]}}\n"), `"/b" is not kept`},
		{"success that is none", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x}, result: {status: [404]}}\n"), `is not the status of a success`},
		{"decoded record", toolFile("  x: {title: T, effects: [read], request: {method: GET, path: /x}, result: {records: [/a], decode: [/a/b]}}\n"), `is decoded, and so is not a record`},
		{"asking first without knowing what", toolFile("  x: {title: T, effects: [write], arguments: {a: {type: string, optional: true}}, request: {method: POST, path: /x, json: {a: \"{a}\"}, before: {path: /y, same: {/b: \"{a}\"}}}}\n"), `may be left out, and then nothing could be compared`},
		{"asking first elsewhere", head + "hosts: [{host: api.acme.example, paths: [/api/**]}]\n" + body + "tools: {x: {title: T, effects: [write], request: {method: POST, path: /api/x, before: {path: /y, same: {/b: c}}}}}\n", `f.yaml:9:94: tools.x.request.before.path: is not open at api.acme.example`},
		{"tool of a login", head + "hosts: [a.example]\nsecrets: {token: {title: Token}}\nreferences: {token: \"{base62:30}\"}\nauth: [{login: {form: {p: \"{token}\"}}}]\ntools: {x: {title: T, effects: [read], request: {method: GET, path: /x}}}\n", `the credential for a.example cannot travel with a tool's request`},
		{"secret nobody gives", head + "secrets: {token: {title: T}, other: {title: O}}\nreferences: {token: \"{base62:30}\"}\nauth: [{bearer: \"{token}\"}]\nways: {t: {title: T, fields: [token]}}\n", `nobody gives the secret "other"`},
	}
}

func TestRefused(t *testing.T) {
	for _, c := range refusedFiles() {
		t.Run(c.name, func(t *testing.T) {
			got, err := parse("f.yaml", []byte(c.src))
			var problems Errors
			if !errors.As(err, &problems) || got != nil {
				t.Fatalf("parse = %v, %v", got, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

// C5: what a file says is inert in messages.
func TestC5MessagesAreInert(t *testing.T) {
	const evil = `"\x1b]0;x\x07\u202e{token}"`
	_, err := parse("f.yaml", []byte(head+"hosts: ["+evil+"]\n"+evil+": 1\nsecrets: {"+evil+": {title: "+evil+"}}\nauth: [{bearer: "+evil+"}, {json: {"+evil+": "+evil+"}}]\nenv: {"+evil+": "+evil+"}\nreferences: {"+evil+": "+evil+"}\nsubjects: [{kind: "+evil+", value: "+evil+", fields: ["+evil+"], after: ["+evil+"]}]\n"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, r := range strings.ReplaceAll(err.Error(), "\n", "") {
		if !unicode.IsPrint(r) {
			t.Fatalf("%U in %q", r, err)
		}
	}
}

func TestWith(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	more, err := builtin(t).With(fstest.MapFS{
		"acme.yaml":     file(head + body),
		"bearer.yaml":   file(strings.ReplaceAll(head, "acme\n", "bearer\n") + "replaces: true\n" + body),
		"notes.txt":     file("not read"),
		".hidden.yaml":  file("not read"),
		"sub/none.yaml": file("not read"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := more.Get("acme"); c == nil || c.Builtin {
		t.Errorf("acme is %v", c)
	}
	if c := more.Get("bearer"); c.Builtin || c.Title != "Acme" {
		t.Errorf("bearer is %v", c)
	}
	if builtin(t).Get("bearer").Builtin == false || len(builtin(t).Sources()) != 0 {
		t.Error("the catalogue itself has changed")
	}
	again, err := builtin(t).WithSources(more.Sources())
	if err != nil || again.Get("acme") == nil || again.Get("bearer").Title != "Acme" {
		t.Errorf("from its sources: %v", err)
	}
	for want, fsys := range map[string]fstest.MapFS{
		`Ambit ships a connector "bearer": write "replaces: true"`: {"bearer.yaml": file(strings.ReplaceAll(head, "acme\n", "bearer\n") + body)},
		`replaces nothing: Ambit ships no connector "acme"`:        {"acme.yaml": file(head + "replaces: true\n" + body)},
		`rename the file to acme.yaml, or the connector`:           {"other.yaml": file(head + body)},
		`a.yaml:1:1: the file is empty`:                            {"a.yaml": file(""), "b.yaml": file("")},
		`b.yaml:1:1: the file is empty`:                            {"a.yaml": file(""), "b.yaml": file("")},
		`the file has 262145 bytes, more than the 262144`:          {"acme.yaml": file(strings.Repeat("#", 10*MaxSize))},
	} {
		if _, err := builtin(t).With(fsys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
