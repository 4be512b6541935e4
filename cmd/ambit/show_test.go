package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/alert"
	"ambit/api"
	"ambit/approval"
	"ambit/audit"
	"ambit/control"
)

// hostile has a terminal escape, a title change, a newline that would forge a
// row, text that runs the other way, HTML and a formula.
const hostile = "\x1b[2J\x1b]0;owned\x07\nallow GET https://ok.example\r\u202egpj\u200b<script>=cmd()\u009b31m\xff"

// TestC5 is row C5: whatever text an agent, or somebody it talks to, chose, the
// command line shows it inert, in every form of output.
func TestC5(t *testing.T) {
	at := time.Unix(1700000000, 0)
	call := audit.Call{
		Time: at, Action: hostile, Method: hostile, Host: hostile, URL: hostile, Intent: hostile, Rule: hostile, Detail: hostile, Done: true,
		Reason: &ambit.Reason{Code: hostile, Text: hostile, Remedy: hostile},
	}
	question := approval.Question{
		ID: hostile, Agent: hostile, Task: hostile, Tool: hostile, Args: hostile, Words: hostile, Effects: []ambit.Effect{hostile}, Error: hostile, State: hostile, Digest: hostile,
		Provenance: []approval.Origin{{Pointer: hostile, Value: hostile, Label: hostile, Text: hostile}},
		Asks:       []ambit.Ask{{Rule: hostile, Reason: ambit.Reason{Text: hostile}, From: []string{hostile}}},
		Answers:    []approval.Answer{{By: hostile, Note: hostile}},
	}
	agent := api.Agent{Name: hostile, Desired: hostile, Computer: hostile, Worker: hostile, Error: hostile}
	for name, show := range map[string]func(a *app) error{
		"egress": func(a *app) error {
			tab := table{head: egressHead(), rows: []row{a.egressRow(call)}}
			return tab.write(a.stdout, false)
		},
		"alerts": func(a *app) error {
			return a.printAlerts(api.Alerts{Alerts: []api.Alert{{Agent: hostile, Alert: alert.Alert{Key: hostile, Title: hostile}}}})
		},
		"approvals": func(a *app) error { return a.printApprovals(api.Approvals{Approvals: []approval.Question{question}}) },
		"approval": func(a *app) error {
			if a.json {
				return a.printJSON(question)
			}
			return writeQuestion(a.stdout, &question, false)
		},
		"approval stats": func(a *app) error {
			return a.printApprovalStats(api.ApprovalStats{Stats: []api.AgentApprovalStats{{Agent: hostile, Stats: approval.Stats{Tool: hostile, Asked: 1}}}})
		},
		"status": func(a *app) error {
			return a.printStatus(api.Status{Agent: agent, Missing: hostile, Reach: []string{hostile}, Reported: &control.Status{Program: hostile, Exit: &control.Exit{Text: hostile}}})
		},
		"deployed": func(a *app) error {
			return a.printDeployed(api.Deployed{Agent: agent, Created: true, Reach: []string{hostile}, Warnings: []string{hostile}})
		},
		"error": func(a *app) error {
			a.report(&api.Problem{Detail: hostile, Errors: []api.ProblemError{{Message: hostile, Excerpt: hostile}}}, 1)
			return nil
		},
		"verified": func(a *app) error {
			a.report(a.printVerified(hostile, api.Verified{Witness: hostile, Report: audit.Report{Problems: []audit.Problem{{Text: hostile, Kind: hostile}}}}), 1)
			return nil
		},
		"program output": func(a *app) error { return a.print("%s", hostile) },
	} {
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			a := &app{stdout: &out, stderr: &out, json: asJSON}
			if err := show(a); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), "owned") {
				t.Errorf("%s: the text is not shown", name)
			}
			for _, r := range out.String() {
				if r != '\n' && !unicode.IsGraphic(r) {
					t.Errorf("%s (JSON %v): %U reaches the terminal: %q", name, asJSON, r, out.String())
					break
				}
			}
		}
	}
}

// In a table no text can make a row of its own.
func TestC5RowsCannotBeForged(t *testing.T) {
	var out bytes.Buffer
	tab := table{head: []string{"A", "B"}}
	tab.add(hostile, hostile)
	if err := tab.write(&out, false); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want 2: %q", n, out.String())
	}
}

func TestJSONStaysTheSame(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	const text = "\u202e\U000e0041\x1b\u009b日本 \U0001f600 \\u0041"
	if err := a.printJSON(text); err != nil {
		t.Fatal(err)
	}
	var back string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back != text {
		t.Errorf("%s reads back as %q, %v", out.String(), back, err)
	}
}

func TestTableAligns(t *testing.T) {
	var out bytes.Buffer
	tab := table{head: []string{"NAME", "SIZE"}}
	tab.add("漢字", "1")
	tab.rows = append(tab.rows, row{cells: []string{"a", "2"}, note: "because"})
	if err := tab.write(&out, false); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("NAME  SIZE\n漢字  1\na     2\n    because\n", out.String()); d != "" {
		t.Error(d)
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abcdef", 4, "abc…"}, {"abc", 4, "abc"}, {"abcdef", 0, "abcdef"}, {"漢字漢字", 5, "漢字…"}, {"a\x1bb", 3, `a\…`}} {
		if got := shorten(c.in, c.n); got != c.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseSince(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"x", "-1h", "-1d", "1", "99999999d"} {
		if got, err := parseSince(in, now); err == nil {
			t.Errorf("parseSince(%q) = %v", in, got)
		}
	}
}
