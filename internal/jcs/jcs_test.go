package jcs

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCanonical has the examples of RFC 8785, sections 3.2.2 to 3.2.4 and
// appendix B, besides ours.
func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`:                                        `{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`: "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}",
		" [ ] ":                                 "[]",
		"{\t\r\n}":                              "{}",
		`-0`:                                    `0`,
		`-0.0e5`:                                `0`,
		`1.0`:                                   `1`,
		`9007199254740992`:                      `9007199254740992`,
		`18014398509481984`:                     `18014398509481984`,
		`1e21`:                                  `1e+21`,
		`100000000000000000000`:                 `100000000000000000000`,
		`0.000001`:                              `0.000001`,
		`0.0000001`:                             `1e-7`,
		`-1.5e-10`:                              `-1.5e-10`,
		`1.7976931348623157e308`:                `1.7976931348623157e+308`,
		`5e-324`:                                `5e-324`,
		`0.1`:                                   `0.1`,
		`49.99`:                                 `49.99`,
		`"\b\t\n\f\r\u001b\u007f\/"`:            "\"\\b\\t\\n\\f\\r\\u001b\x7f/\"",
		`"<&>\u2028"`:                           "\"<&>\u2028\"",
		`{"b":1,"a":{"d":[2,{}],"c":"x"},"":0}`: `{"":0,"a":{"c":"x","d":[2,{}]},"b":1}`,
	} {
		got, err := Canonical([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("Canonical(%s)\n got %s, %v\nwant %s", in, got, err, want)
		}
	}
}

// TestNumbers has the samples of RFC 8785, appendix B.
func TestNumbers(t *testing.T) {
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0", 0x8000000000000000: "0",
		0x0000000000000001: "5e-324", 0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308", 0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992", 0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22", 0x44b52d02c7e14af6: "1e+23", 0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000", 0x444b1ae4d6e2ef4f: "999999999999999900000", 0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7", 0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332", 0x41b3de4355555554: "333333333.33333325", 0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334", 0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333", 0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		got, err := Append(nil, math.Float64frombits(bits))
		if err != nil || string(got) != want {
			t.Errorf("%x: got %s, %v, want %s", bits, got, err, want)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got, err := Append(nil, f); err == nil {
			t.Errorf("%v was written as %s", f, got)
		}
	}
}

// TestM1Refused is the part of row M1 that is about bytes: whatever two readers
// could understand differently is refused.
func TestM1Refused(t *testing.T) {
	for _, in := range []string{
		"", " ", "{", "[", `"`, `"\`, `"\u12`, "tru", "nul", "nan", "NaN", "Infinity", "-", "+1", "01", "-01", ".5", "1.", "1e", "1e+", "0x1",
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[{"x":{"a":1,"a":1}}]`,
		`{"a":1,}`, `[1,]`, `{a:1}`, `{'a':1}`, `[1 2]`, `{"a" 1}`, `{"a":1 "b":2}`,
		`1 2`, `{}{}`, "{}\x00", "\xef\xbb\xbf{}", "\u00a0{}",
		"\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", `"\ud800"`, `"\ud800x"`, `"\ud800\u0041"`, `"\udc00\ud800"`, `"\ude00"`,
		"\"a\nb\"", "\"\x1b\"", "\"\\n\x00\"", `"\x41"`, `"\U0001"`, `"\u00g0"`,
		`1e400`, `-1e400`, `1e-400`, `1e99999999999999999999`, `9007199254740993`, `12345678901234567890`, `0.12345678901234567890`, `3.141592653589793238462643383279`,
		"1" + strings.Repeat("0", 200),
		strings.Repeat("[", 65) + strings.Repeat("]", 65),
		"/*x*/1", "// x\n1",
	} {
		if got, err := Canonical([]byte(in)); err == nil {
			t.Errorf("%q was read as %s", in, got)
		}
	}
	if _, err := Canonical([]byte(strings.Repeat("[", 64) + strings.Repeat("]", 64))); err != nil {
		t.Errorf("64 deep: %v", err)
	}
	if _, err := Canonical(bytes.Repeat([]byte("["), 1<<20)); err == nil {
		t.Error("a million brackets were read")
	}
}

func TestAppendRefuses(t *testing.T) {
	for _, v := range []any{1, "\xff", map[string]any{"\xff": nil}, []any{struct{}{}}, map[string]any{"x": 1}} {
		if got, err := Append(nil, v); err == nil {
			t.Errorf("%v was written as %s", v, got)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-7,"\ud83d\ude00\n"],"b":null}`, `1e21`, `-0`, `{"a":1,"a":2}`, `"\ud800"`, `[[[]]]`, `0.1e1`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		one, err := Canonical(in)
		if err != nil {
			return
		}
		two, err := Canonical(one)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%q: canonical %q, again %q, %v", in, one, two, err)
		}
		var theirs, ours any // encoding/json reads more, and must understand the same
		if err := json.Unmarshal(in, &theirs); err != nil {
			t.Fatalf("%q was read, and encoding/json says %v", in, err)
		}
		if err := json.Unmarshal(one, &ours); err != nil {
			t.Fatalf("%q: %v", one, err)
		}
		if d := cmp.Diff(theirs, ours); d != "" {
			t.Fatalf("%q: %s", in, d)
		}
	})
}
