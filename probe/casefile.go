// Package probe tries attacks on Ambit itself.
//
// [Replay] runs a case file of a published benchmark through the gate: tasks as
// an honest agent does them, and attacks in which the agent, from the moment it
// has read the injected text, does exactly what the attacker wants. It measures
// what passes without a person, and what the honest agent has to ask.
//
// Trust: a case file is data; its labels are what an operator would declare.
// Nothing that it says is run. What it measures is as good as its cases: rules
// that hold here can still be too weak for what it does not have.
package probe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/goccy/go-yaml"

	"ambit"
)

// maxCaseFile is how large a case file may be, in bytes.
const maxCaseFile = 64 << 20

// CaseFile is a benchmark: suites of tools, tasks and attacks.
type CaseFile struct {
	Suites map[string]*Suite `json:"suites"`
}

// Suite is one set of tools with the tasks that use them.
type Suite struct {
	Tools   []CaseTool        `json:"tools"`
	Vectors map[string]Vector `json:"injection_vectors"`
	Tasks   []CaseTask        `json:"user_tasks"`
	Attacks []CaseTask        `json:"injection_tasks"`
	Cases   []Case            `json:"cases"`
}

// CaseTool is a tool with the labels that an operator declares.
type CaseTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`
	Target      []string        `json:"target"`
	Limit       []string        `json:"limit"`
	Egress      bool            `json:"egress"`
	Effect      string          `json:"effect"`
	Kind        string          `json:"kind"`
	Trust       string          `json:"result_trust"`
}

// Vector is a place into which an attacker can write.
type Vector struct {
	Default string `json:"default"`
}

// CaseTask is a task of a person, or what an attacker wants.
type CaseTask struct {
	ID     string     `json:"id"`
	Prompt string     `json:"prompt"`
	Goal   string     `json:"goal"`
	Calls  []CaseCall `json:"calls"`
}

// CaseCall is one call of a tool, and what it answers.
type CaseCall struct {
	Tool   string         `json:"function"`
	Args   map[string]any `json:"args"`
	Result string         `json:"result_text"`
}

// Case is an attack on a task.
type Case struct {
	Task   string     `json:"user_task"`
	Attack string     `json:"injection_task"`
	After  int        `json:"after_call"`
	Calls  []CaseCall `json:"attacker_calls"` // where they are not those of the attack
}

// ReadCaseFile reads a case file and checks that it fits together.
func ReadCaseFile(path string) (*CaseFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the case file: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxCaseFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the case file: %w", err)
	}
	if len(b) > maxCaseFile {
		return nil, fmt.Errorf("reading the case file: it is larger than %d MiB", maxCaseFile>>20)
	}
	c, err := ParseCaseFile(b)
	if err != nil {
		return nil, fmt.Errorf("reading the case file %s: %w", path, err)
	}
	return c, nil
}

// ParseCaseFile reads a case file from memory.
func ParseCaseFile(b []byte) (*CaseFile, error) {
	var c CaseFile
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("it is no JSON of this form: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the end of the JSON")
	}
	if len(c.Suites) == 0 {
		return nil, errors.New("it has no suites")
	}
	for name, s := range c.Suites {
		if s == nil {
			return nil, fmt.Errorf("suite %s is empty", name)
		}
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("suite %s: %w", name, err)
		}
	}
	return &c, nil
}

func (c *CaseFile) names() []string {
	names := make([]string, 0, len(c.Suites))
	for n := range c.Suites {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func (s *Suite) check() error {
	tools := map[string]bool{}
	for _, t := range s.Tools {
		if t.Name == "" || tools[t.Name] {
			return fmt.Errorf("tool %q has no name of its own", t.Name)
		}
		tools[t.Name] = true
	}
	ids := map[string]*CaseTask{}
	for _, list := range [][]CaseTask{s.Tasks, s.Attacks} {
		for i := range list {
			t := &list[i]
			if t.ID == "" || ids[t.ID] != nil {
				return fmt.Errorf("task %q has no name of its own", t.ID)
			}
			ids[t.ID] = t
			if err := known(tools, t.ID, t.Calls); err != nil {
				return err
			}
		}
	}
	for i, k := range s.Cases {
		t := ids[k.Task]
		if t == nil || ids[k.Attack] == nil {
			return fmt.Errorf("cases[%d] is about %q and %q, and there are no such tasks", i, k.Task, k.Attack)
		}
		if k.After < 0 || k.After >= len(t.Calls) {
			return fmt.Errorf("cases[%d] comes after call %d of %s, which has %d", i, k.After, k.Task, len(t.Calls))
		}
		if err := known(tools, fmt.Sprintf("cases[%d]", i), k.Calls); err != nil {
			return err
		}
	}
	return nil
}

func known(tools map[string]bool, where string, calls []CaseCall) error {
	for _, c := range calls {
		if !tools[c.Tool] {
			return fmt.Errorf("%s calls %q, which is no tool of the suite", where, c.Tool)
		}
	}
	return nil
}

func (s *Suite) task(id string) *CaseTask {
	for _, list := range [][]CaseTask{s.Tasks, s.Attacks} {
		if i := slices.IndexFunc(list, func(t CaseTask) bool { return t.ID == id }); i >= 0 {
			return &list[i]
		}
	}
	return nil
}

// tool is the tool as the gate knows it.
func (t *CaseTool) tool() *ambit.Tool {
	tool := &ambit.Tool{Name: "case." + t.Name, Description: t.Description, Input: t.Schema, Leaves: t.Egress}
	switch {
	case t.Effect == "read":
		tool.Effects = []ambit.Effect{ambit.EffectRead}
	case t.Kind == "message":
		tool.Effects = []ambit.Effect{ambit.EffectSend}
	case t.Kind == "access":
		tool.Effects = []ambit.Effect{ambit.EffectAccess}
	case t.Kind == "publish":
		tool.Effects = []ambit.Effect{ambit.EffectPublish}
	case t.Kind == "money":
		tool.Effects = []ambit.Effect{ambit.EffectWrite, ambit.EffectSpend}
	case t.Kind == "delete":
		tool.Effects = []ambit.Effect{ambit.EffectDelete}
	default:
		tool.Effects = []ambit.Effect{ambit.EffectWrite}
	}
	for _, a := range t.Target {
		tool.Targets = append(tool.Targets, "/"+a)
	}
	for _, a := range t.Limit {
		tool.Limits = append(tool.Limits, "/"+a)
	}
	if t.Trust == "trusted" {
		tool.Records = []string{""}
	}
	return tool
}

// result is what a tool answers as JSON: the text of a case file is what a
// program printed of it, in YAML or as Python writes values.
func result(text string, vectors func(string) string) []byte {
	var doc any = vectors(text)
	if s := strings.TrimSpace(text); strings.HasPrefix(s, "- ") || strings.HasPrefix(s, "{") || strings.HasPrefix(s, "[") || isMapping(s) {
		var v any
		if yaml.Unmarshal([]byte(text), &v) == nil {
			switch v.(type) {
			case []any, map[string]any:
				doc = fill(v, vectors)
			}
		}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		b, _ = json.Marshal(vectors(text)) // a text can always be written
	}
	return b
}

// isMapping reports whether each line is one of a YAML mapping with names as
// programs write them.
func isMapping(s string) bool {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, " ") {
			continue
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return false
		}
	}
	return true
}

// fill replaces the vectors in every text of a value.
func fill(v any, vectors func(string) string) any {
	switch v := v.(type) {
	case string:
		return vectors(v)
	case []any:
		for i := range v {
			v[i] = fill(v[i], vectors)
		}
		return v
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[vectors(k)] = fill(e, vectors)
		}
		return m
	}
	return v
}

// clone copies a value, with the vectors replaced.
func clone(v any, vectors func(string) string) any {
	switch v := v.(type) {
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = clone(v[i], vectors)
		}
		return c
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = clone(e, vectors)
		}
		return c
	}
	return fill(v, vectors)
}
