package tools

import (
	"fmt"
	"strings"
	"testing"

	"ambit/internal/jcs"
)

func TestClosed(t *testing.T) {
	for what, one := range map[string]struct {
		schema   string
		yes, not []string
	}{
		"nothing said": {`{}`, []string{`{}`}, []string{`{"a":1}`, `[]`, `null`}},
		"open in vain": {`{"type":"object","additionalProperties":true,"properties":{"a":{}}}`, []string{`{"a":{"b":1}}`}, []string{`{"b":1}`}},
		"nested": {`{"properties":{"a":{"type":"array","items":{"properties":{"b":{"type":"string"}}}}}}`,
			[]string{`{"a":[{"b":"x"},{}]}`}, []string{`{"a":[{"c":1}]}`}},
		"nested and open": {`{"properties":{"a":{"type":"object","additionalProperties":{"type":"string"}}}}`, []string{`{"a":{"x":"y"}}`}, []string{`{"a":{"x":1}}`}},
		"all of": {`{"properties":{"a":{}},"allOf":[{"properties":{"b":{"type":"string"}}},{"properties":{"c":{}},"required":["c"]}]}`,
			[]string{`{"a":1,"b":"x","c":2}`}, []string{`{"c":1,"d":1}`, `{"a":1}`}},
		"any of": {`{"properties":{"x":{"anyOf":[{"type":"string"},{"type":"object","properties":{"a":{}}}]}}}`,
			[]string{`{"x":"s"}`, `{"x":{"a":1}}`}, []string{`{"x":{"b":1}}`}},
		"references": {`{"properties":{"x":{"$ref":"#/$defs/a~1b%20c"},"y":{"$ref":"#/$defs/a~1b%20c"}},"$defs":{"a/b c":{"type":"object","properties":{"p":{"properties":{"q":{}}}}}}}`,
			[]string{`{"x":{"p":{"q":1}}}`}, []string{`{"x":{"z":1}}`, `{"x":{"p":{"z":1}}}`, `{"y":{"z":1}}`}},
		"as zod writes it": {`{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"x":{"$ref":"#/definitions/d"}},"definitions":{"d":{"type":"object","properties":{"e":{"type":"integer"}},"additionalProperties":false}},"required":["x"]}`,
			[]string{`{"x":{"e":1}}`}, []string{`{"x":{"f":1}}`, `{}`, `{"x":{"e":1.5}}`}},
		"within itself": {`{"properties":{"name":{"type":"string"},"children":{"type":"array","items":{"$ref":"#"}}}}`,
			[]string{`{"children":[{"name":"x","children":[]}]}`}, []string{`{"children":[{"other":1}]}`}},
		"a property called $ref": {`{"properties":{"$ref":{"type":"string"},"properties":{"type":"integer"},"not":{}}}`, []string{`{"$ref":"http://x","properties":1}`}, []string{`{"$ref":1}`}},
		"unknown words":          {`{"properties":{"a":{"type":"string","x-mcp-header":"A","nullable":true}}}`, []string{`{"a":"x"}`}, []string{`{"a":null}`}},
	} {
		s, err := ReadSchema([]byte(one.schema), SchemaOptions{Closed: true})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if strings.Contains(string(s.JSON()), "x-mcp") {
			t.Errorf("%s: unknown words stay: %s", what, s.JSON())
		}
		for i, in := range append(one.yes, one.not...) {
			v, err := jcs.Parse([]byte(in), 10)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(v); (err == nil) != (i < len(one.yes)) {
				t.Errorf("%s: %s: %v", what, in, err)
			}
		}
	}
}

// TestRefusedSchemas has schemas that reach out, that cost too much, or that two
// readers read differently.
func TestRefusedSchemas(t *testing.T) {
	laughs := `{"$defs":{"a0":{"type":"string"}`
	for i := 1; i < 40; i++ {
		laughs += fmt.Sprintf(`,"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]}`, i, i-1, i-1)
	}
	laughs += `},"properties":{"x":{"$ref":"#/$defs/a39"}}}`
	many := strings.Repeat(`{"type":"string"},`, 3000)
	for what, schema := range map[string]string{
		"a file":               `{"properties":{"x":{"$ref":"file:///etc/passwd"}}}`,
		"a host":               `{"properties":{"x":{"$ref":"https://evil.example/s.json"}}}`,
		"a relative one":       `{"properties":{"x":{"$ref":"other.json"}}}`,
		"nowhere":              `{"properties":{"x":{"$ref":"#/$defs/none"}}}`,
		"into a value":         `{"properties":{"x":{"$ref":"#/properties/y/default"},"y":{"default":{"type":"string"}}}}`,
		"a circle":             `{"properties":{"x":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"anyOf":[{"$ref":"#/$defs/a"}]}}}`,
		"itself":               `{"$ref":"#"}`,
		"not itself":           `{"properties":{"x":{"not":{"$ref":"#/properties/x"}}}}`,
		"a billion laughs":     laughs,
		"many":                 `{"properties":{"x":{"prefixItems":[` + strings.TrimSuffix(many, ",") + `]}}}`,
		"long":                 `{"description":"` + strings.Repeat("x", 200<<10) + `"}`,
		"deep":                 strings.Repeat(`{"items":`, 70) + "{}" + strings.Repeat("}", 70),
		"an anchor":            `{"properties":{"x":{"$anchor":"a"}}}`,
		"an id inside":         `{"properties":{"x":{"$id":"https://x/"}}}`,
		"dynamic":              `{"$dynamicRef":"#a"}`,
		"another dialect":      `{"$schema":"http://json-schema.org/draft-04/schema#"}`,
		"a list of items":      `{"properties":{"x":{"items":[{}]}}}`,
		"a word twice":         `{"type":"object","type":"object"}`,
		"no object":            `{"type":"string"}`,
		"no schema":            `[]`,
		"a bad pattern":        `{"properties":{"x":{"pattern":"("}}}`,
		"a bad type":           `{"properties":{"x":{"type":"strnig"}}}`,
		"a hidden name":        `{"properties":{"a\u200b":{}}}`,
		"a number for a title": `{"title":1}`,
	} {
		if s, err := ReadSchema([]byte(schema), SchemaOptions{Closed: true}); err == nil {
			t.Errorf("%s: was read as %.300s", what, s.JSON())
		}
	}
}

func FuzzJSONRPC(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a.b","arguments":{"x":1},"_meta":{"ambit/task":"t"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`, `[{}]`, `{"jsonrpc":"2.0","id":"x","method":"ping","params":[]}`,
		`{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}`, `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, p := readMessage(in)
		if p != nil {
			if p.status < 400 || p.text == "" {
				t.Fatalf("%q: %+v", in, p)
			}
			return
		}
		if m.method == "" || m.params == nil || m.params["_meta"] != nil {
			t.Fatalf("%q: %+v", in, m)
		}
		if (m.id == nil) != strings.HasPrefix(m.method, "notifications/") {
			t.Fatalf("%q: id %s of %s", in, m.id, m.method)
		}
		if _, err := jcs.Append(nil, m.params); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(orderLike), []byte(`{"order":"1"}`))
	f.Add([]byte(`{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"properties":{"x":{"pattern":"^a+$"}}}}}`), []byte(`{"x":"aa"}`))
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		s, err := ReadSchema(schema, SchemaOptions{Closed: true})
		if err != nil {
			return
		}
		if v, err := jcs.Parse(value, MaxDepth); err == nil {
			_ = s.Check(v)
		}
		if _, err := ReadSchema(s.JSON(), SchemaOptions{Closed: true}); err != nil {
			t.Fatalf("what was written of %q cannot be read: %v", schema, err)
		}
	})
}

const orderLike = `{"type":"object","required":["order"],"properties":{"order":{"type":"string"},"lines":{"type":"array","items":{"type":"object","properties":{"sku":{"enum":["a",1]}}}}}}`

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"shop.refunds.create": true, "a.b": true, "a-1.b_2": true,
		"": false, "a": false, "a.": false, ".a": false, "a..b": false, "A.b": false, "a.b c": false, "a.\u0430": false, "a.b\n": false,
		strings.Repeat("a", 127) + ".b": false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
}

// TestWorkIsBounded: many values that can each meet many schemas are not checked at
// all, and of much that does not fit only the first is said.
func TestWorkIsBounded(t *testing.T) {
	var each []string
	for i := range 180 {
		each = append(each, fmt.Sprintf(`{"type":"object","properties":{"k%d":{}},"required":["k%d"]}`, i, i))
	}
	s, err := ReadSchema([]byte(`{"properties":{"x":{"items":{"anyOf":[`+strings.Join(each, ",")+`]}}}}`), SchemaOptions{Closed: true})
	if err != nil {
		t.Fatal(err)
	}
	list := func(n int) any {
		v, err := jcs.Parse([]byte(`{"x":[{}`+strings.Repeat(",{}", n-1)+`]}`), MaxDepth)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := s.Check(list(40_000)); err == nil || !strings.Contains(err.Error(), "at most 1104 can be checked") {
		t.Error(err)
	}
	if err := s.Check(list(1000)); err == nil || strings.Count(err.Error(), ";") > 8 || len(err.Error()) > 1024 {
		t.Error(err)
	}
}
