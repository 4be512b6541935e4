package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"ambit"
)

const hostile = "\x1b[31m\u202egnp\r\n\"}]'=cmd|' /C calc'!A0\x00\u2028\u0085</script>\xff"

// full is an event of the kind with every field of the catalogue filled in with
// hostile text that can be told apart.
func full(spec ambit.KindSpec, decision ambit.Decision) ambit.Event {
	text := func(field string) string { return "mark-" + field + hostile }
	of := uint64(4)
	e := ambit.Event{V: 1, Seq: 1<<40 + 7, Time: time.Date(2026, 11, 3, 4, 5, 6, 789012000, time.UTC), Kind: spec.Kind, Agent: "support", Principal: ambit.PrincipalAgent, Decision: decision}
	for field := range strings.FieldsSeq(spec.Fields) {
		switch field {
		case "of":
			e.Of = &of
		case "task":
			e.Task = text(field)
		case "action":
			e.Action = ambit.ActionHTTP
		case "tool":
			e.Tool = text(field)
		case "resource":
			e.Resource = text(field)
		case "method":
			e.Method = text(field)
		case "host":
			e.Host = text(field)
		case "url":
			e.URL = text(field)
		case "intent":
			e.Intent = text(field)
		case "rule":
			e.Rule = text(field)
		case "reason":
			e.Reason = &ambit.Reason{Code: text("code"), Text: text("text"), Remedy: text("remedy")}
		case "effects":
			e.Effects = []ambit.Effect{ambit.Effect(text(field))}
		case "provenance":
			e.Provenance = []ambit.Provenance{{Value: text("value"), Source: text("source"), Event: 3}}
		case "subjects":
			e.Subjects = []string{text(field)}
		case "more":
			e.More = 31337
		case "unseen":
			e.Unseen = true
		case "status":
			e.Status = 418
		case "bytesOut":
			e.BytesOut = 111222333
		case "bytesIn":
			e.BytesIn = 444555666
		case "duration":
			e.Duration = 777888 * time.Millisecond
		case "severity":
			e.Severity = ambit.High
		case "connection":
			e.Connection = text(field)
		case "links":
			e.Links = []ambit.Link{{Rel: text("rel"), Log: "other", Seq: 8}, {Rel: "cause", Seq: 9}}
		case "erasure":
			e.Erasure = &ambit.Erasure{Rule: text("erule"), Ranges: [][2]uint64{{1, 5}}, Subject: text("esubject"), Bodies: 121212}
		case "detail":
			e.Detail = text(field)
		default:
			panic("the test does not know the field " + field)
		}
	}
	return e
}

// variants are the events of a kind that are mapped in different ways.
func variants(spec ambit.KindSpec) []ambit.Event {
	var all []ambit.Event
	for _, decision := range []ambit.Decision{ambit.Deny, ambit.Allow} {
		e := full(spec, decision)
		bare := ambit.Event{Seq: 0, Time: e.Time, Kind: e.Kind, Decision: decision}
		control := e
		control.Agent, control.Principal = "", "uid:1000"
		all = append(all, e, bare, control)
		actions := []ambit.Action{ambit.ActionHTTP, ambit.ActionWebSocket, ambit.ActionPassthrough, ambit.ActionConnect, ambit.ActionName, "new"}
		if e.Kind != ambit.KindEgressRequest && e.Kind != ambit.KindEgressOutcome {
			actions = nil
		}
		for _, action := range actions {
			tried := []string{"GET"}
			if action == ambit.ActionHTTP {
				tried = append(methods(), "PURGE", "")
			}
			for _, method := range tried {
				v := e
				v.Action, v.Method, v.URL, v.Host, v.Status = action, method, "https://api.example.com:8443/a/b?c=d", "api.example.com", 0
				all = append(all, v)
			}
		}
		for _, host := range []string{"192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1"} {
			v := e
			v.Host, v.Principal = host, "ambit"
			all = append(all, v)
		}
		for _, effect := range []ambit.Effect{ambit.EffectRead, ambit.EffectWrite, ambit.EffectDelete, ambit.EffectSpend} {
			v := e
			v.Effects = []ambit.Effect{effect}
			all = append(all, v)
		}
		for severity := ambit.Info; severity <= ambit.Critical+1; severity++ {
			v := e
			v.Severity = severity
			all = append(all, v)
		}
	}
	return all
}

const logName = "ambit/agent/support/00112233"

// Every kind of the catalogue, whatever is in it, is a valid event of OCSF.
func TestOCSFIsValid(t *testing.T) {
	root := "testdata/ocsf-" + OCSFVersion
	if full := os.Getenv("OCSF_SCHEMA"); full != "" {
		root = full
	}
	s, err := loadSchema(root)
	if err != nil {
		t.Fatal(err)
	}
	kinds := append(ambit.Catalogue(), ambit.KindSpec{Kind: "later.kind", Fields: "detail resource"})
	for _, spec := range kinds {
		seen := map[string]bool{}
		for _, e := range variants(spec) {
			line, err := OCSF{Version: "1.2.3"}.Append(nil, logName, &e)
			if err != nil {
				t.Fatal(err)
			}
			problems, recommended := s.validate(line)
			if len(problems) > 0 {
				t.Fatalf("%s:\n%s\n%s", spec.Kind, strings.Join(problems, "\n"), line)
			}
			var class struct {
				Name string `json:"type_name"`
			}
			if err := json.Unmarshal(line, &class); err != nil {
				t.Fatal(err)
			}
			if !seen[class.Name] {
				seen[class.Name] = true
				t.Logf("%s is %s, without the recommended %v", spec.Kind, class.Name, recommended)
			}
			inertLine(t, line)
		}
	}
	if name := os.Getenv("OCSF_USED"); name != "" { // to choose what is kept in testdata
		var list []string
		for f := range s.used {
			list = append(list, f)
		}
		slices.Sort(list)
		if err := os.WriteFile(name, []byte(strings.Join(list, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The validator refuses what the schema does not have.
func TestOCSFValidatorRefuses(t *testing.T) {
	s, err := loadSchema("testdata/ocsf-" + OCSFVersion)
	if err != nil {
		t.Fatal(err)
	}
	e := full(ambit.Catalogue()[0], ambit.Deny)
	e.Method, e.URL = "GET", "https://api.example.com/"
	line, err := OCSF{}.Append(nil, logName, &e)
	if err != nil {
		t.Fatal(err)
	}
	if problems, _ := s.validate(line); len(problems) > 0 {
		t.Fatal(problems)
	}
	for name, edit := range map[string]func(map[string]any){
		"attribute of no class":       func(m map[string]any) { m["colour"] = "red" },
		"attribute of another class":  func(m map[string]any) { m["entity"] = map[string]any{"name": "a"} },
		"without what is required":    func(m map[string]any) { delete(m, "severity_id") },
		"required in an object":       func(m map[string]any) { delete(m["metadata"].(map[string]any), "version") },
		"number of no enumeration":    func(m map[string]any) { m["action_id"] = 77 },
		"name that is not the number": func(m map[string]any) { m["severity"] = "High" },
		"profile that is not given":   func(m map[string]any) { m["metadata"].(map[string]any)["profiles"] = []any{"host"} },
		"wrong type":                  func(m map[string]any) { m["time"] = "yesterday" },
		"text that is no address":     func(m map[string]any) { m["dst_endpoint"] = map[string]any{"ip": "localhost"} },
		"port out of range":           func(m map[string]any) { m["dst_endpoint"].(map[string]any)["port"] = 70000 },
		"type_uid of another":         func(m map[string]any) { m["type_uid"] = 400201 },
		"constraint":                  func(m map[string]any) { delete(m, "http_request") },
		"deprecated":                  func(m map[string]any) { m["http_status"] = 200 },
		"empty text":                  func(m map[string]any) { m["message"] = "" },
		"method that OCSF lacks":      func(m map[string]any) { m["http_request"].(map[string]any)["http_method"] = "PURGE" },
	} {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		edit(m)
		text, _ := json.Marshal(m)
		if problems, _ := s.validate(text); len(problems) == 0 {
			t.Errorf("%s: not refused", name)
		}
	}
}

// Whatever an event says is somewhere in the OCSF event.
func TestOCSFLosesNothing(t *testing.T) {
	for _, spec := range ambit.Catalogue() {
		for _, e := range variants(spec) {
			line, err := OCSF{}.Append(nil, logName, &e)
			if err != nil {
				t.Fatal(err)
			}
			var have any
			if err := json.Unmarshal(line, &have); err != nil {
				t.Fatal(err)
			}
			values := map[string]bool{}
			leaves(have, values)
			var want any
			text, _ := json.Marshal(e)
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			wanted := map[string]bool{}
			leaves(want, wanted)
			for v := range wanted {
				switch {
				case values[v], v == e.Time.UTC().Format(time.RFC3339Nano), v == e.Severity.String():
				case v == fmt.Sprint(float64(e.Duration)) && values[fmt.Sprint(float64(e.Duration.Milliseconds()))]:
				case values[logName+"/"+v], values["ambit/agent/other/"+v]:
				default:
					t.Fatalf("%s: %q is not in\n%s", spec.Kind, v, line)
				}
			}
		}
	}
}

func leaves(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			leaves(x, into)
		}
	case []any:
		for _, x := range v {
			leaves(x, into)
		}
	default:
		if v != "" && !reflect.ValueOf(v).IsZero() {
			into[fmt.Sprint(v)] = true
		}
	}
}

// inertLine fails on a byte that could split a line or drive a terminal.
func inertLine(t *testing.T, line []byte) {
	t.Helper()
	for _, r := range string(line) {
		if !unicode.IsGraphic(r) {
			t.Fatalf("%U is in %q", r, line)
		}
	}
	if bytes.ContainsAny(line, "\r\n") {
		t.Fatalf("more than one line: %q", line)
	}
}
