package openapi

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit/connector"
	"ambit/manifest"
)

var update = flag.Bool("update", false, "write what is imported to testdata")

func shop(t testing.TB) []byte {
	t.Helper()
	src, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// The file that is made of a document, as a person reviews it.
func TestImport(t *testing.T) {
	im, err := Import(shop(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/acme-shop-api.yaml", im.File, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/acme-shop-api.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(im.File)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, tool := range im.Tools {
		if tool.Reviewed {
			t.Errorf("%s counts as reviewed", tool.Name)
		}
	}
	var left []string
	for _, l := range im.Left {
		left = append(left, l.Operation+": "+l.Reason)
	}
	if diff := cmp.Diff([]string{
		"POST /files: its body is multipart/form-data, which tools do not send",
		"GET /outside: its parameter q has no schema that can be read",
		"POST /trees: its field child has a field child that has a field child that has a field child that has a field child that has a field child that is nested too deeply",
	}, left); diff != "" {
		t.Error(diff)
	}
	if got := strings.Join(im.Remarks, "\n"); !strings.Contains(got, "the document has 2 servers: the connector is for api.acme.example") || !strings.Contains(got, "which argument is how much money") {
		t.Errorf("remarks are %s", got)
	}
}

// Nothing that was imported can be used before a person has looked at it.
func TestImportedToolsAreRefused(t *testing.T) {
	im, err := Import(shop(t), Options{Name: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	use := func(file []byte) error {
		catalog, err := connector.Builtin()
		if err != nil {
			t.Fatal(err)
		}
		if catalog, err = catalog.WithSources([]connector.Source{{Name: "acme.yaml", Text: file}}); err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse("m.yaml", []byte("ambit: v1\nname: a\nconnectors:\n  - {name: acme, tools: [orders.refunds.create]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = catalog.Bind(m)
		return err
	}
	if err := use(im.File); err == nil || !strings.Contains(err.Error(), "nobody has reviewed it") {
		t.Errorf("an imported tool is refused with %v", err)
	}
	if err := use([]byte(strings.ReplaceAll(string(im.File), "    reviewed: false\n", ""))); err != nil {
		t.Errorf("a reviewed tool is refused with %v", err)
	}
}

// Names are different, and never too long.
func TestNames(t *testing.T) {
	im := &importer{names: map[string]bool{}}
	long := strings.Repeat("listForAuthenticatedUser", 3)
	for _, id := range []string{"issues/list-for-repo", "issues/list-for-repo", "a.b.c.d.e", long + "/" + long + "/" + long, long + "/" + long + "/" + long, "", "", "Ü"} {
		im.name("GET", "/v1/things/{id}", id, nil)
	}
	for _, want := range []string{"issues.list-for-repo", "issues.list-for-repo--2", "c.d.e", "v1.things.get", "v1.things.get--2", "v1.things.get--3"} {
		if !im.names[want] {
			t.Errorf("%s is not among %v", want, im.names)
		}
	}
	for name := range im.names {
		if len(name) > 80 {
			t.Errorf("%s has %d characters", name, len(name))
		}
	}
	if len(im.names) != 8 {
		t.Errorf("names are %v", im.names)
	}
}

func TestImportOnly(t *testing.T) {
	im, err := Import(shop(t), Options{Name: "x", Only: []string{"Orders"}, Host: "eu.acme.example"})
	if err != nil || len(im.Tools) != 3 || !strings.Contains(string(im.File), `hosts: ["eu.acme.example"]`) {
		t.Errorf("imported %+v, %v", im, err)
	}
}

func TestGuess(t *testing.T) {
	for _, c := range []struct{ method, path, name, want string }{
		{"GET", "/refunds", "listRefunds", "read"},
		{"POST", "/refunds", "createRefund", "spend customer write"},
		{"POST", "/charges/{id}/capture", "", "spend write"},
		{"DELETE", "/things/{id}", "", "delete"},
		{"POST", "/things/{id}/delete", "", "delete"},
		{"PUT", "/repos/{o}/collaborators/{u}", "", "access write"},
		{"POST", "/x", "setRolePermissions", "access write"},
		{"POST", "/posts/{id}/publish", "", "publish send write"},
		{"POST", "/messages", "sendMessage", "send write"},
		{"PATCH", "/settings", "", "write"},
		{"POST", "/things/bulk", "", "bulk write"},
	} {
		if got := strings.Trim(fmt.Sprint(guess(c.method, c.path, c.name)), "[]"); got != c.want {
			t.Errorf("%s %s %s is %q, want %q", c.method, c.path, c.name, got, c.want)
		}
	}
}

func TestImportRefuses(t *testing.T) {
	const start = `{"openapi":"3.1.0","info":{"title":"A"},"servers":[{"url":"https://a.example"}],"paths":`
	for _, c := range []struct{ src, want string }{
		{``, "reading the document"},
		{`{"swagger":"2.0"}`, "not OpenAPI 3.0 or 3.1"},
		{"openapi: 3.1.0\ninfo: &a {title: x}\nx: *a\n", "line 2 of the document has an anchor"},
		{`{"openapi":"3.1.0","info":{"title":"A"},"servers":[{"url":"http://a.example"},{"url":"https://10.0.0.1"},{"url":"/v1"},{"url":"https://{tenant}.a.example"}],"paths":{}}`, "say --host"},
		{start + `{}}`, "no operation of the document makes a tool"},
		{start + `{"/a/../b":{"get":{}}}}`, "its path is none that a tool can have"},
		{start + `{"/a/{x}":{"get":{}}}}`, "a placeholder that no parameter declares"},
		{start + `{}} {}`, "something follows"},
		{start + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested more than 64 deep"},
		{strings.Repeat(" ", MaxSize+1), "more than 8388608 bytes"},
	} {
		im, err := Import([]byte(c.src), Options{})
		if err == nil || im != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.200s: got %v, want %s", c.src, err, c.want)
		}
	}
}

// References that refer to each other again and again take no time and no space.
func TestImportBomb(t *testing.T) {
	schemas := `"S0":{"type":"string"}`
	for i := 1; i < 30; i++ {
		fields := ""
		for j := range 50 {
			fields += fmt.Sprintf(`,"f%d":{"$ref":"#/components/schemas/S%d"}`, j, i-1)
		}
		schemas += fmt.Sprintf(`,"S%d":{"type":"object","properties":{%s}}`, i, fields[1:])
	}
	src := `{"openapi":"3.1.0","info":{"title":"A"},"servers":[{"url":"https://a.example"}],"components":{"schemas":{` + schemas + `,"L":{"$ref":"#/components/schemas/L"}}},"paths":{"/x":{"post":{"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/S29"}}}}}},"/y":{"get":{"parameters":[{"name":"q","in":"query","required":true,"schema":{"$ref":"#/components/schemas/L"}}]}},"/z":{"get":{}}}}`
	im, err := Import([]byte(src), Options{})
	if err != nil || len(im.File) > 1<<16 {
		t.Fatalf("imported %v, %v", im, err)
	}
}

// FuzzImport holds: no panic; what comes out can be read as a connector file,
// and has no tool that counts as reviewed.
func FuzzImport(f *testing.F) {
	f.Add(shop(f))
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":"A {token}"},"servers":[{"url":"https://a.example/v1/"}],"paths":{"/a/{x}.json":{"post":{"operationId":"a.b.c.d","summary":"{x}","parameters":[{"name":"x","in":"path","schema":{"type":["string","null"],"enum":["a","{b}"]}},{"name":"host","in":"query","schema":{"type":"number","minimum":-1,"maximum":1e30}}],"requestBody":{"content":{"application/json":{"schema":{"properties":{"$mail":{"type":"string"},"a b":{"type":"string","pattern":"^(?=x)$"},"o":{"properties":{"x-y":{"type":"boolean"}}}}}}}}}}}}`))
	f.Fuzz(func(t *testing.T, src []byte) {
		im, err := Import(src, Options{Name: "x", Host: "a.example"})
		if err != nil {
			if strings.Contains(err.Error(), "no connector file") {
				t.Error(err)
			}
			return
		}
		for _, tool := range im.Tools {
			if tool.Reviewed || len(tool.Effects) == 0 {
				t.Errorf("a tool is %+v", tool)
			}
		}
	})
}
