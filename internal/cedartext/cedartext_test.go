package cedartext

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := Parse("@id(\"night\") @ask(\"owner, finance\") @people(\"2\") @expires(\"24h\") @reason(\"not now\")\nforbid (principal, action, resource in Source::\"shop\") when { context has amount && context.args.x == 1 };\n\npermit (principal, action, resource == Tool::\"shop.orders.get\");")
	if err != nil {
		t.Fatal(err)
	}
	p := got[0]
	if p.Name != "night" || p.Source != "shop" || !p.Asks || len(p.From) != 2 || p.People != 2 || p.Expires.Hours() != 24 || p.Reason != "not now" || p.Line != 1 {
		t.Errorf("%+v", p)
	}
	if got[1].Tool != "shop.orders.get" || got[1].Line != 4 {
		t.Errorf("%+v", got[1])
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("(", 5000)
	for src, want := range map[string]string{
		"":                                      "line 1, column 1: has no policy",
		"// nothing":                            "has no policy",
		"permit (principal, action":             "is not Cedar",
		"forbid \"":                             "is not Cedar",
		"\n\nfoo":                               "line 3, column",
		"permit (principal, action, resource);": "permits tools that it does not name",
		`permit (principal, action, resource in Effect::"read");`:                                                   "permits tools that it does not name",
		`forbid (principal, action, resource == Source::"shop");`:                                                   "write in instead",
		`forbid (principal, action, resource == Tool::"Shop.Orders");`:                                              "not the name of a tool",
		`forbid (principal, action, resource == Tool::"sh` + "о" + `p.orders");`:                                    "not the name of a tool",
		`forbid (principal, action, resource in Effect::"sepnd");`:                                                  "there is no effect",
		`forbid (principal, action, resource) when { resource in Effect::"sepnd" };`:                                "there is no effect",
		`forbid (principal, action, resource) when { context has amout };`:                                          `context."amout" is there in no call`,
		`forbid (principal, action, resource) when { context.amout > 3 };`:                                          "is there in no call",
		`forbid (principal is Agent, action, resource);`:                                                            "scope of principal that is not understood",
		`forbid (principal, action == Action::"run", resource);`:                                                    "there is no action",
		`@ask("x") permit (principal, action, resource == Tool::"a.b");`:                                            "@ask on a permit",
		`@foo("x") forbid (principal, action, resource);`:                                                           "no annotation @foo",
		`@people("3") @ask("x") forbid (principal, action, resource);`:                                              "@people is 1 or 2",
		`@people("2") forbid (principal, action, resource);`:                                                        "without @ask",
		"@id(\"a\") forbid (principal, action, resource);\n@id(\"a\") forbid (principal, action, resource);":        `the policy "a" is there twice, also on line 1`,
		"forbid (principal, action, resource) when { " + deep + "true" + strings.ReplaceAll(deep, "(", ")") + " };": "nested more than 64 deep",
		"forbid (principal, action, resource) when { " + strings.Repeat("!", 60000) + "true };":                     "nested more than 64 deep",
		strings.Repeat("//\n", 30000):                                                                               "more than 65536",
	} {
		got, err := Parse(src)
		if err == nil || !strings.Contains(err.Error(), want) {
			if len(src) > 200 {
				src = src[:200]
			}
			t.Errorf("%q: %v, %v; want %q", src, got, err, want)
		}
		if _, ok := AsError(err); !ok {
			t.Errorf("%T", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`permit (principal, action, resource == Tool::"a.b") when { context.args.x like "*" };`)
	f.Add(`@id("a") forbid (principal, action, resource) unless { [1].contains(2) };`)
	f.Fuzz(func(t *testing.T, src string) {
		got, err := Parse(src)
		if _, ok := AsError(err); err != nil && !ok {
			t.Errorf("%T", err)
		}
		if err == nil && len(got) == 0 {
			t.Error("no policy and no error")
		}
	})
}

func TestEffects(t *testing.T) {
	for _, e := range Effects() {
		if !IsEffect(e) || IsEffect(e+"s") {
			t.Error(e)
		}
	}
}
