package scan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// shop is patterns as connectors have them.
func shop() []Pattern {
	return []Pattern{
		{Kind: "order", Value: "{digits:1-20}", Fields: []string{"order_id", "order_number"}, After: []string{"/orders/", "gid://shopify/Order/"}},
		{Kind: "customer", Value: "cus_{base62:8-40}"},
		{Kind: "charge", Value: "ch_{base62:8-40}"},
		{Kind: "user", Value: "U{BASE36:8-12}", Fields: []string{"user"}, After: []string{"<@"}},
		{Kind: "page", Value: "{uuid}", Fields: []string{"page_id"}},
	}
}

func matcher(t testing.TB, p []Pattern) *Matcher {
	t.Helper()
	m, err := NewMatcher(p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// in returns what is found in a text that is written whole.
func in(m *Matcher, text string) []string { return pieces(m, text, len(text)) }

// pieces returns what is found in a text that is written n bytes at a time.
func pieces(m *Matcher, text string, n int) (all []string) {
	s := m.Stream()
	for c := range slices.Chunk([]byte(text), max(n, 1)) {
		_, _ = s.Write(c)
	}
	s.Close()
	for _, found := range s.Subjects() {
		all = append(all, found.String())
	}
	return all
}

type example struct {
	text string
	want []string
}

func examples() []example {
	one := func(text, want string) example { return example{text, []string{want}} }
	none := func(text string) example { return example{text, nil} }
	const alice = "email:alice@example.com"
	return []example{
		// E-mail.
		one("alice@example.com", alice),
		one("Write to <Alice@Example.COM>, please.", alice),
		one("mailto:alice@example.com?subject=x", alice),
		one(`{"email":"alice@example.com"}`, alice),
		one(`{"email":"alice\u0040example.com"}`, alice),
		one(`{"email":"\u0061lice\u0040example\u002ecom"}`, alice),
		one(`{"body":"{\"email\":\"alice\\u0040example.com\"}"}`, alice),
		one(`{"body":"Dear\nalice@example.com\n"}`, alice),
		one("email=alice%40example.com&x=1", alice),
		one("email=alice%2540example.com", alice),
		one("u=%7B%22e%22%3A%22alice%5Cu0040example.com%22%7D", alice),
		one("<p>alice&#64;example.com</p>", alice),
		one("<p>alice&#x40;example&period;com</p>", alice),
		one("<p>alice&commat;example.com</p>", alice),
		one("&lt;alice@example.com&gt;", alice),
		one("&amp;lt;alice&amp;#64;example.com&amp;gt;", alice),
		one("see alice@example.com.", alice),
		one("“alice@example.com”", alice),
		one("请联系alice@example.com谢谢", alice),
		one("'alice@example.com'", alice),
		one("x='a'+'alice@example.com'", alice),
		one("...alice@example.com...", alice),
		one("https://alice@example.com/", alice),
		one("text=contact+alice%40example.com", alice),
		one("email=alice%2Bwork%40example.com", "email:alice+work@example.com"),
		one("alice+work@example.com", "email:alice+work@example.com"),
		one("O'Brien@example.com", "email:o'brien@example.com"),
		one("first.last_1-2@mail.sub-domain.example.co.uk", "email:first.last_1-2@mail.sub-domain.example.co.uk"),
		one("Jürgen@Example.com", "email:jürgen@example.com"),
		one("j%C3%BCrgen%40b%C3%BCcher.example", "email:jürgen@xn--bcher-kva.example"),
		one(`"info@B\u00fccher.example"`, "email:info@xn--bcher-kva.example"),
		one("info@bu\u0308cher.example", "email:info@xn--bcher-kva.example"),
		one("info@xn--bcher-kva.example", "email:info@xn--bcher-kva.example"),
		one("почта@example.com", "email:почта@example.com"),
		{"a1@x.example,b2@x.example;a1@x.example", []string{"email:a1@x.example", "email:b2@x.example"}},
		one(strings.Repeat("a", 64)+"@example.com", "email:"+strings.Repeat("a", 64)+"@example.com"),
		none(strings.Repeat("a", 65) + "@example.com"),
		none(strings.Repeat("a", 10_000) + "@example.com"),
		none("a@" + strings.Repeat("a", 64) + ".com"),
		none("a@" + strings.Repeat("a.", 5_000) + "com"),
		none("a@b"), none("a@b.c"), none("a@.com"), none("@example.com"), none("a.@example.com"), none("a@-b.com"),
		none("react@18.2.0"), none("logo@2x.png"), none("a@10.0.0.1"), none("@media (min-width: 1px)"),
		none("postgres://app:hunter2@db.example.com/x"), // a password is no person

		// Phone numbers.
		one("+49 170 1234567", "phone:+491701234567"),
		one("Tel.: +49 (0)170 / 123 45 67.", "phone:+491701234567"),
		one("+49-170-1234567", "phone:+491701234567"),
		one("tel=%2B49%20170%201234567", "phone:+491701234567"),
		one("tel=%2B49+170+1234567", "phone:+491701234567"),
		one(`"phone":"\u002b491701234567"`, "phone:+491701234567"),
		one("<a href=\"tel:+491701234567\">", "phone:+491701234567"),
		one("+49&nbsp;170&nbsp;1234567", "phone:+491701234567"),
		one("0049 170 1234567", "phone:+491701234567"),
		one("+1 (415) 555-2671", "phone:+14155552671"),
		one("+1 415 555 2671 22 pieces", "phone:+14155552671"),
		one("+49 170 1234567 2nd floor", "phone:+491701234567"),
		one("call (030) 123-456 today", "phone:030123456"),
		one("(415) 555-2671", "phone:4155552671"),
		one(`{"phone":"0170 1234567"}`, "phone:01701234567"),
		one(`{"billing_phone": 4155552671}`, "phone:4155552671"),
		one("phone=0170-1234567&x=2", "phone:01701234567"),
		one("<mobile>0170 1234567</mobile>", "phone:01701234567"),
		none("0170 1234567"), none("tel 030/123456"), none("2024-01-02 10:30:00+0200"), none("2024-01-02T10:30:00.000+00:00"),
		none("f(030, 123456)"), none("f(415) 555-2671"), none("+99912345678"), none("+1234567 -1234567"), none("a+4917012345678"),
		none("+491701234567890123"), none("1.0049170123456"), none("12:0049170123456"), none(`{"id":"0000491701234567"}`),
		none("+1 115 555 2671"), none("10.0.0.1 192.168.100.200"), none("(c) 2024 10 20 30 40"),
		none(`{"phone":"2024-01-02T10:00:00Z"}`),

		// IBANs.
		one("DE89370400440532013000", "iban:DE89370400440532013000"),
		one("IBAN: de89 3704 0044 0532 0130 00.", "iban:DE89370400440532013000"),
		one("iban=DE89+3704+0044+0532+0130+00", "iban:DE89370400440532013000"),
		one("GB29 NWBK 6016 1331 9268 19", "iban:GB29NWBK60161331926819"),
		one("pay MT84MALT011000012345MTLCAST001S now", "iban:MT84MALT011000012345MTLCAST001S"),
		one("NO9386011117947", "iban:NO9386011117947"),
		one("BR1800360305000010009795493C1", "iban:BR1800360305000010009795493C1"),
		one("FR14 2004 1010 0505 0001 3M02 606", "iban:FR1420041010050500013M02606"),
		one("KZ86125KZT5004100100", "iban:KZ86125KZT5004100100"),
		none("KZ86125KZT50KZ86125K"), // by chance
		none("DE89370400440532013001"), none("DE8937040044053201300"), none("DE893704004405320130000"), none("xDE89370400440532013000"), none("ZZ89370400440532013000"),

		// Cards. These numbers are published for tests.
		one("4111111111111111", "card:4111111111111111"),
		one("4111 1111 1111 1111 123", "card:4111111111111111"),
		one("card=4111+1111+1111+1111&cvc=123", "card:4111111111111111"),
		one("card%3D4111-1111-1111-1111", "card:4111111111111111"),
		one("3782 822463 10005", "card:378282246310005"),
		one(`"number":5555555555554444,`, "card:5555555555554444"),
		one("6011111111111117", "card:6011111111111117"),
		one("30569309025904", "card:30569309025904"),
		one("3530111333300000", "card:3530111333300000"),
		one("2223003122003222", "card:2223003122003222"),
		none("4111111111111112"), none("4111-1111 1111-1111"), none("0.4111111111111111"), none("x4111111111111111"), none("41111111111111110"),
		none("1700000000000000"), none("4222222222222"), none("411 1111 1111 11111"), none("550e8400-4111-1111-1111-111111111111"),
		none(strings.Repeat("4111111111111111", 100)),

		// Patterns.
		one("GET /admin/api/2024-01/orders/1001.json", "order:1001"),
		one("/Orders/1001?x", "order:1001"),
		one("%2Forders%2F1001", "order:1001"),
		one(`"\/orders\/1001"`, "order:1001"),
		one(`"gid:\/\/shopify\/Order\/450789469"`, "order:450789469"),
		one(`{"order_id": 1001}`, "order:1001"),
		one(`{"order_id" : "1001"}`, "order:1001"),
		one(`{"body":"{\"order_id\":\"1001\"}"}`, "order:1001"),
		one("{'order_id': 1001}", "order:1001"),
		one("x=1&order_id=1001", "order:1001"),
		one("order[order_id]=1001", "order:1001"),
		one("<order_id>1001</order_id>", "order:1001"),
		one(`{"order_number":[1001, 1002]}`, "order:1001"),
		one("%22order_id%22%3A1001", "order:1001"),
		none(`{"reorder_id":1001}`), none(`{"order_ids":1001}`), none(`{"order_id":null}`), none(`{"order_id":1001.5}`), none(`{"order_id":"1001a"}`),
		none("/orders/"), none("/orders/count.json"), none("/orders/123456789012345678901"), none("/preorders/1001"), none("/orders/1001-a"),
		one(`{"id":"cus_NffrFeUfNV2Hib"}`, "customer:cus_NffrFeUfNV2Hib"),
		one("/v1/customers/cus_NffrFeUfNV2Hib/sources", "customer:cus_NffrFeUfNV2Hib"),
		one("customer=cus_NffrFeUfNV2Hib", "customer:cus_NffrFeUfNV2Hib"),
		one("ch_3MmlLrLkdIwHu7ix0snN0B15", "charge:ch_3MmlLrLkdIwHu7ix0snN0B15"),
		none("abacus_NffrFeUfNV2Hib"), none("CUS_NffrFeUfNV2Hib"), none("cus_short"), none("x_ch_3MmlLrLkdIwHu7ix0snN0B15"),
		one(`{"user":"U012AB3CD"}`, "user:U012AB3CD"),
		one(`{"text":"hi <@U012AB3CD>"}`, "user:U012AB3CD"),
		one(`{"text":"hi \u003c@U012AB3CD\u003e"}`, "user:U012AB3CD"),
		none(`{"user":"alice123456"}`),
		one(`{"page_id":"59833787-2CF9-4fdf-8782-e53db20768a5"}`, "page:598337872cf94fdf8782e53db20768a5"),
		one(`page_id=598337872cf94fdf8782e53db20768a5`, "page:598337872cf94fdf8782e53db20768a5"),
		none(`page_id=598337872cf94fdf8782e53db20768a`),
		{`/orders/7 bob@example.com {"order_id":8} +491701234567 /orders/7`,
			[]string{"order:7", "email:bob@example.com", "order:8", "phone:+491701234567"}},
	}
}

func TestFinds(t *testing.T) {
	m := matcher(t, shop())
	for _, c := range examples() {
		for _, around := range []string{"%s", " %s ", "\"%s\"", "\xff%s\xff", strings.Repeat("x ", size/2-20) + "%s" + strings.Repeat(" x", 400)} {
			text := fmt.Sprintf(around, c.text)
			if diff := cmp.Diff(c.want, in(m, text)); diff != "" {
				if len(text) > 200 {
					text = "long: " + c.text[:min(len(c.text), 100)]
				}
				t.Errorf("%q: (-want +got)\n%s", text, diff)
			}
		}
	}
}

// Whatever stands around it, and wherever the buffer ends: nothing is lost.
func TestFindsEverywhere(t *testing.T) {
	m := matcher(t, shop())
	for _, c := range examples() {
		if len(c.text) > 100 {
			continue
		}
		for shift := 0; shift < 120; shift += 5 {
			n := size - behind - 100 + shift + len(c.text)%5
			text := strings.Repeat("\n", n) + c.text + "\n" + strings.Repeat("\n", shift)
			if diff := cmp.Diff(c.want, in(m, text)); diff != "" {
				t.Fatalf("%q after %d bytes: (-want +got)\n%s", c.text, n, diff)
			}
		}
	}
}

// The result does not depend on how the text is divided, nor on what is
// skipped.
func TestAnyDivision(t *testing.T) {
	m := matcher(t, shop())
	for _, c := range examples() {
		for _, n := range []int{1, 2, 3, 5, 7, 11} {
			if diff := cmp.Diff(c.want, pieces(m, c.text, n)); diff != "" {
				t.Fatalf("%q, %d bytes at a time: (-want +got)\n%s", c.text, n, diff)
			}
		}
	}
	var parts []string
	for _, c := range examples() {
		parts = append(parts, c.text)
	}
	parts = append(parts, "%", "\\", "&", "%4", "\\u00", "&#6", "%25", "&amp;", "\\\\", "@", "+49", " ", "\n", "\xc0", "\xc1", "ü", strings.Repeat("1", 30))
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 60).Draw(t, "parts"), rapid.SampledFrom([]string{"", " ", "\n"}).Draw(t, "between")))
		whole := m.Stream()
		_, _ = whole.Write(text)
		whole.Close()
		divided := m.Stream()
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 40)).Draw(t, "n")
			_, _ = divided.Write(rest[:n])
			rest = rest[n:]
		}
		divided.Close()
		if diff := cmp.Diff(whole.Subjects(), divided.Subjects()); diff != "" || whole.More() != divided.More() {
			t.Fatalf("%q: whole (-) and divided (+):\n%s", text, diff)
		}
		got := in(m, string(text))
		slices.Sort(got)
		if diff := cmp.Diff(naive(shop(), text), got); diff != "" {
			t.Fatalf("%q: a search that tries every byte (-) and this one (+):\n%s", text, diff)
		}
	})
}

// What a person types is what is found.
func TestParse(t *testing.T) {
	for text, want := range map[string][]string{
		" Alice@Example.com ":                       {"email:alice@example.com"},
		"email:alice@example.com":                   {"email:alice@example.com"},
		"info@Bücher.example":                       {"email:info@xn--bcher-kva.example"},
		"+49 (0)170 1234567":                        {"phone:+491701234567"},
		"0049 170 1234567":                          {"phone:+491701234567"},
		"0170 / 1234567":                            {"phone:01701234567"},
		"(030) 123-456":                             {"phone:030123456"},
		"415-555-2671":                              {"phone:4155552671"},
		"phone:+491701234567":                       {"phone:+491701234567"},
		"de89 3704 0044 0532 0130 00":               {"iban:DE89370400440532013000"},
		"4111-1111-1111-1111":                       {"card:4111111111111111"},
		"order:1001":                                {"order:1001"},
		"customer:cus_NffrFeUfNV2Hib":               {"customer:cus_NffrFeUfNV2Hib"},
		"page:59833787-2cf9-4fdf-8782-E53DB20768A5": {"page:598337872cf94fdf8782e53db20768a5"},
	} {
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		var all []string
		for _, s := range got {
			all = append(all, s.String())
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", text, diff)
		}
	}
	for _, text := range []string{"", "  ", "alice", "1001", "order:", "order:1 2", "Order:1", "alice@example", "alice@example.com bob@example.com", "email:alice", "4111111111111112", strings.Repeat("a", 600)} {
		if got, err := Parse(text); err == nil || got != nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	for _, c := range examples() {
		for _, want := range c.want {
			got, err := Parse(want)
			if err != nil || !slices.ContainsFunc(got, func(s Subject) bool { return s.String() == want }) {
				t.Errorf("%q is found, and read as %v, %v", want, got, err)
			}
		}
	}
}

// A text can have any number of subjects, and a Stream only so many.
func TestLimit(t *testing.T) {
	m := matcher(t, nil)
	s := m.Stream()
	for i := range 1000 {
		fmt.Fprintf(s, "user%d@example.com user%d@example.com\n", i, i/2)
	}
	s.Close()
	all := s.Subjects()
	if len(all) != MaxSubjects || all[0].Value != "user0@example.com" || all[255].Value != "user255@example.com" {
		t.Errorf("%d subjects, the first %v, the last %v", len(all), all[0], all[len(all)-1])
	}
	if more := s.More(); more > 1000-MaxSubjects || more < 650 {
		t.Errorf("%d more", more)
	}
	_, _ = s.Write([]byte("late@example.com"))
	s.Close()
	if len(s.Subjects()) != MaxSubjects {
		t.Error("something was found after Close")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := matcher(t, shop())
	for name, text := range hostile() {
		s := m.Stream()
		for range 8 {
			_, _ = s.Write(text)
		}
		if n := cap(s.buf); n > 2*size {
			t.Errorf("%s: the buffer has %d bytes", name, n)
		}
		if n := cap(s.hits); n > size {
			t.Errorf("%s: %d hits are kept", name, n)
		}
		if n := cap(s.chars); n > 64*size {
			t.Errorf("%s: %d bytes of values are kept", name, n)
		}
	}
}

func TestNothingIsAllocatedForText(t *testing.T) {
	m := matcher(t, shop())
	s := m.Stream()
	text := samples()["customers"]
	_, _ = s.Write(text)
	_, _ = s.Write(text)
	if n := testing.AllocsPerRun(20, func() { _, _ = s.Write(text) }); n > 0 {
		t.Errorf("%v allocations for %d bytes", n, len(text))
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	many := make([]Pattern, 600)
	for i := range many {
		many[i] = Pattern{Kind: "a", Value: "{digits:1-9}", Fields: []string{fmt.Sprintf("field%d", i)}}
	}
	for want, patterns := range map[string][]Pattern{
		"its kind is not 1 to 40":             {{Kind: "Order", Value: "{digits:1-9}", Fields: []string{"order"}}},
		"is recognised without a pattern":     {{Kind: Email, Value: "{digits:1-9}", Fields: []string{"order"}}},
		"is not a text and one field":         {{Kind: "a", Value: "abc", Fields: []string{"order"}}},
		"does not say how many":               {{Kind: "a", Value: "{digits:9-1}", Fields: []string{"order"}}},
		"no alphabet that is known":           {{Kind: "a", Value: "{letters:9}", Fields: []string{"order"}}},
		"is longer than 128":                  {{Kind: "a", Value: "{digits:1-200}", Fields: []string{"order"}}},
		`the field "id" has 2 bytes`:          {{Kind: "a", Value: "{digits:1-9}", Fields: []string{"id"}}},
		`the field "Größe" has a character`:   {{Kind: "a", Value: "{digits:1-9}", Fields: []string{"Größe"}}},
		`the text "/orders" ends with a`:      {{Kind: "a", Value: "{digits:1-9}", After: []string{"/orders"}}},
		`what it begins with, "", has 0`:      {{Kind: "a", Value: "{digits:1-9}"}},
		`what it begins with, "abc", ends`:    {{Kind: "a", Value: "abc{digits:1-9}"}},
		`what it begins with, "a_", has 2`:    {{Kind: "a", Value: "a_{digits:1-9}"}},
		"606 names, texts and prefixes":       many,
		"pattern 1, of kind \"b\": its value": {{Kind: "a", Value: "a__{digits:1-9}"}, {Kind: "b", Value: ""}},
	} {
		if m, err := NewMatcher(patterns); err == nil || m != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// naive is the same search with the whole text at hand and without any skipping:
// each byte is tried.
func naive(patterns []Pattern, text []byte) []string {
	m := &Matcher{}
	for _, name := range []string{"phone", "phone_number", "phonenumber", "mobile", "mobile_number", "msisdn"} {
		m.leads = append(m.leads, lead{text: name, how: byPhone, kind: Phone})
	}
	for _, p := range patterns {
		_ = m.add(p)
	}
	s := &Stream{m: m, buf: []byte("\n")}
	var d collector
	var u unescaper
	u.write(text, &d)
	u.end(&d)
	s.buf = append(append(s.buf, d...), '\n')
	for i, c := range s.buf {
		if c == '@' || c == markAt {
			if a, ok := findEmail(s.buf, i); ok {
				s.add(Email, appendEmail(nil, s.buf, a), a.international)
			}
		}
		for k := range m.leads {
			if l := &m.leads[k]; l.stands(s.buf, i) {
				s.hits, s.chars = nil, nil
				s.follow(l, i, i)
				for _, h := range s.hits {
					s.add(h.kind, s.chars[h.from:h.to], false)
				}
			}
		}
	}
	for i := 1; i < len(s.buf); i++ {
		if class[s.buf[i-1]]&isAlnum != 0 {
			continue
		}
		if kind, n, ok := findNumber(s.buf, i); ok {
			s.add(kind, n.text(), false)
			i = n.end - 1
		}
	}
	var all []string
	for _, found := range s.Subjects() {
		all = append(all, found.String())
	}
	slices.Sort(all)
	return all
}

type collector []byte

func (c *collector) put(p []byte)   { *c = append(*c, p...) }
func (c *collector) putByte(b byte) { *c = append(*c, b) }

// FuzzStream holds: no panic, the same result in one piece, byte by byte and
// with a search that skips nothing.
func FuzzStream(f *testing.F) {
	for _, c := range examples() {
		if len(c.text) < 1000 {
			f.Add([]byte(c.text))
		}
	}
	m := matcher(f, shop())
	f.Fuzz(func(t *testing.T, text []byte) {
		got := in(m, string(text))
		if diff := cmp.Diff(got, pieces(m, string(text), 1)); diff != "" {
			t.Errorf("in one piece (-) and in many (+):\n%s", diff)
		}
		if len(got) == MaxSubjects {
			return
		}
		slices.Sort(got)
		if diff := cmp.Diff(naive(shop(), text), got); diff != "" {
			t.Errorf("naive (-) and fast (+):\n%s", diff)
		}
	})
}

// FuzzParse holds: what is read is what a Stream finds in the same text alone,
// and reading what it says again is the same.
func FuzzParse(f *testing.F) {
	for _, c := range examples() {
		f.Add(c.text)
		for _, w := range c.want {
			f.Add(w)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Parse(text)
		if (err == nil) != (len(all) > 0) {
			t.Fatalf("%v, %v", all, err)
		}
		for _, s := range all {
			again, err := Parse(s.String())
			if err != nil || !slices.Contains(again, s) {
				t.Errorf("%q is read as %q, which is read as %v, %v", text, s, again, err)
			}
		}
	})
}
