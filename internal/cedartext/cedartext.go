// Package cedartext reads the Cedar that an operator writes about tool calls,
// and refuses what could never do what it seems to say: a permit for more than
// named tools, an attribute or an entity that no call has, two policies of one
// name. docs/policy.md has the words that calls are described with.
//
// Trust: the author may forbid what the manifest allows and allow tools by
// name. The bytes are bounded in size and nesting before they are parsed.
package cedartext

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
)

// The bounds of a text. The parser recurses.
const (
	MaxSize     = 64 << 10
	maxNesting  = 64
	maxPolicies = 2000
)

// Policy is one policy of a text.
type Policy struct {
	*cedar.Policy
	Name string // the annotation @id; "" without one
	Line int    // within the text, from 1
	// Tool, Source or On (an effect) is what the policy is for alone, by its scope; all
	// are "" if that is everything.
	Tool, Source, On string
	Asks             bool          // @ask: a person is asked instead
	From             []string      // who
	People           int           // @people; 0 without it
	Expires          time.Duration // @expires; 0 without it
	Reason           string        // @reason: for people; "" without one
}

// Error is one problem.
type Error struct {
	Line, Column int // from 1
	Text, Hint   string
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Text)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// ContextNames are the attributes that the context of a call has.
func ContextNames() []string {
	return []string{"amount", "args", "count", "currency", "effects", "gated", "intent", "leaves", "outside", "principal", "roleEffects", "targets", "task", "withinThreshold"}
}

// Effects are those that a tool can have.
func Effects() []string {
	return []string{"read", "write", "delete", "spend", "send", "publish", "access", "bulk", "customer"}
}

// IsEffect reports whether s is one of Effects.
func IsEffect(s string) bool {
	switch s {
	case "read", "write", "delete", "spend", "send", "publish", "access", "bulk", "customer":
		return true
	}
	return false
}

var (
	placePattern = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)^(?:parser error: )?(?:parse error at )?<input>:([0-9]+):([0-9]+):? ?(.*)$`)
	})
	namePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`) })
)

// maxName is the longest name of a tool, in bytes.
const maxName = 128

// ToolName reports whether s is the fully qualified name of a tool: a source
// and its own name with points between, in lower-case ASCII.
func ToolName(s string) bool {
	if len(s) > maxName {
		return false
	}
	start, parts := 0, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if i == start {
				return false
			}
			start, parts = i+1, parts+1
		} else if !nameByte(s[i]) {
			return false
		}
	}
	return parts > 1
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// SourceName reports whether s can stand before the point of a tool's name.
func SourceName(s string) bool { return !strings.Contains(s, ".") && ToolName(s+".x") }

// Parse reads a text. Its error is always an *Error.
func Parse(src string) ([]Policy, error) {
	if err := bound(src); err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("", []byte(src))
	if err != nil {
		return nil, place(err)
	}
	if len(list) == 0 {
		return nil, &Error{1, 1, "has no policy", "write one, or leave it out"}
	}
	if len(list) > maxPolicies {
		return nil, &Error{1, 1, fmt.Sprintf("has %d policies, more than %d", len(list), maxPolicies), "write fewer that say more"}
	}
	names := map[string]int{}
	all := make([]Policy, len(list))
	for i, p := range list {
		at := p.Position()
		all[i] = Policy{Policy: p, Line: at.Line}
		if err := all[i].read(); err != nil {
			return nil, &Error{at.Line, at.Column, err.Text, err.Hint}
		}
		if name := all[i].Name; name != "" {
			if other, twice := names[name]; twice {
				return nil, &Error{at.Line, at.Column, fmt.Sprintf("the policy %q is there twice, also on line %d", name, other), "give one of them another @id"}
			}
			names[name] = at.Line
		}
	}
	return all, nil
}

// bound refuses what could make a parser that recurses run out of stack.
func bound(src string) error {
	if len(src) > MaxSize {
		return &Error{1, 1, fmt.Sprintf("has %d bytes, more than %d", len(src), MaxSize), "write fewer policies"}
	}
	depth, line, column := 0, 1, 0
	run := 0 // of ! and -, which nest without a bracket
	for _, r := range src {
		column++
		switch r {
		case '\n':
			line, column = line+1, 0
			continue
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '!', '-':
			run++
		case ' ', '\t', '\r':
			continue
		default:
			run = 0
		}
		if depth > maxNesting || run > maxNesting {
			return &Error{line, column, fmt.Sprintf("is nested more than %d deep", maxNesting), "write it flatter"}
		}
	}
	return nil
}

func place(err error) *Error {
	m := placePattern().FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{1, 1, "is not Cedar: " + err.Error(), ""}
	}
	line, _ := strconv.Atoi(m[1]) // digits
	column, _ := strconv.Atoi(m[2])
	return &Error{max(line, 1), max(column, 1), "is not Cedar: " + m[3], "https://docs.cedarpolicy.com/policies/syntax-policy.html"}
}

func (p *Policy) read() *Error {
	b, err := p.MarshalJSON()
	if err != nil {
		return &Error{Text: "cannot be read back: " + err.Error()}
	}
	var form struct {
		Effect                      string
		Principal, Action, Resource scope
		Conditions                  any
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return &Error{Text: "cannot be read back: " + err.Error()}
	}
	if err := p.annotations(); err != nil {
		return err
	}
	for _, s := range []struct {
		name  string
		scope scope
		types []string
	}{{"principal", form.Principal, []string{"Agent"}}, {"action", form.Action, []string{"Action"}}, {"resource", form.Resource, []string{"Tool", "Source", "Effect"}}} {
		if err := s.scope.check(s.name, s.types); err != nil {
			return err
		}
	}
	p.take(form.Resource)
	if form.Effect == "permit" {
		if p.Tool == "" && p.Source == "" {
			return &Error{Text: "permits tools that it does not name", Hint: `name them in the scope, as in permit (principal, action, resource == Tool::"shop.orders.get");`}
		}
		if p.Asks {
			return &Error{Text: "has @ask on a permit", Hint: "write a forbid with @ask beside it"}
		}
	}
	return words(form.Conditions)
}

type scope struct {
	Op     string  `json:"op"`
	Entity *entity `json:"entity"`
}

type entity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

func (s scope) check(name string, types []string) *Error {
	switch {
	case s.Op == "All":
		return nil
	case s.Entity == nil || s.Op != "==" && s.Op != "in":
		return &Error{Text: "has a scope of " + name + " that is not understood", Hint: "write == or in with one entity, and the rest under when"}
	case !slices.Contains(types, s.Entity.Type):
		return &Error{Text: fmt.Sprintf("%s is never a %s", name, s.Entity.Type), Hint: "it can be: " + strings.Join(types, ", ")}
	case s.Op == "==" && (s.Entity.Type == "Source" || s.Entity.Type == "Effect"):
		return &Error{Text: fmt.Sprintf("%s is never equal to a %s", name, s.Entity.Type), Hint: "write in instead of =="}
	}
	return s.Entity.check()
}

func (e *entity) check() *Error {
	switch e.Type {
	case "Agent":
		return nil
	case "Action":
		if e.ID != "call" {
			return &Error{Text: fmt.Sprintf("there is no action %q", e.ID), Hint: `the only one is Action::"call"`}
		}
	case "Tool":
		if !ToolName(e.ID) {
			return &Error{Text: fmt.Sprintf("%s is not the name of a tool", strconv.QuoteToASCII(e.ID)), Hint: `write it fully qualified in lower case, as in Tool::"shop.orders.get"`}
		}
	case "Source":
		if !SourceName(e.ID) {
			return &Error{Text: fmt.Sprintf("%s is not what stands before the point of a tool's name", strconv.QuoteToASCII(e.ID)), Hint: `write for example Source::"shop"`}
		}
	case "Effect":
		if !slices.Contains(Effects(), e.ID) {
			return &Error{Text: fmt.Sprintf("there is no effect %s", strconv.QuoteToASCII(e.ID)), Hint: "the effects are: " + strings.Join(Effects(), ", ")}
		}
	default:
		return &Error{Text: fmt.Sprintf("there is no entity type %s", e.Type), Hint: "the types are: Agent, Action, Tool, Source, Effect"}
	}
	return nil
}

func (p *Policy) take(s scope) {
	if s.Entity == nil {
		return
	}
	switch s.Entity.Type {
	case "Tool":
		p.Tool = s.Entity.ID
	case "Source":
		p.Source = s.Entity.ID
	case "Effect":
		p.On = s.Entity.ID
	}
}

func (p *Policy) annotations() *Error {
	for k, v := range p.Policy.Annotations() {
		text := string(v)
		switch k {
		case "id":
			if !namePattern().MatchString(text) {
				return &Error{Text: fmt.Sprintf("@id is %s", strconv.QuoteToASCII(text)), Hint: "write 1 to 40 characters of a-z, 0-9 and -, the first a letter"}
			}
			p.Name = text
		case "reason":
			if len(text) > 200 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				return &Error{Text: "@reason has more than 200 bytes, or characters that are not printable ASCII", Hint: "write one short sentence"}
			}
			p.Reason = text
		case "ask":
			p.Asks = true
			p.From = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
		case "people":
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > 2 {
				return &Error{Text: "@people is 1 or 2", Hint: `write for example @people("2")`}
			}
			p.People = n
		case "expires":
			d, err := time.ParseDuration(text)
			if err != nil || d < time.Minute || d > 7*24*time.Hour {
				return &Error{Text: "@expires is a time from 1m to 168h", Hint: `write for example @expires("24h")`}
			}
			p.Expires = d
		default:
			return &Error{Text: fmt.Sprintf("there is no annotation @%s", k), Hint: "the annotations are: @id, @reason, @ask, @people, @expires"}
		}
	}
	if !p.Asks && (p.People != 0 || p.Expires != 0) {
		return &Error{Text: "has @people or @expires without @ask", Hint: `write for example @ask("owner")`}
	}
	return nil
}

// words walks an expression in Cedar's JSON form and refuses an attribute of
// the context, or an entity, that no call has: "has" would be false for ever.
func words(v any) *Error {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := words(x); err != nil {
				return err
			}
		}
	case map[string]any:
		if err := attribute(v); err != nil {
			return err
		}
		for _, x := range v {
			if err := words(x); err != nil {
				return err
			}
		}
	}
	return nil
}

func attribute(v map[string]any) *Error {
	if e, ok := v["__entity"].(map[string]any); ok {
		t, _ := e["type"].(string)
		id, _ := e["id"].(string)
		return (&entity{t, id}).check()
	}
	for _, op := range []string{".", "has"} {
		x, ok := v[op].(map[string]any)
		if !ok {
			continue
		}
		left, _ := x["left"].(map[string]any)
		name, _ := x["attr"].(string)
		if left["Var"] == "context" && !slices.Contains(ContextNames(), name) {
			return &Error{Text: "context." + strconv.QuoteToASCII(name) + " is there in no call", Hint: "the context has: " + strings.Join(ContextNames(), ", ")}
		}
	}
	return nil
}

// AsError is err as what Parse returned.
func AsError(err error) (*Error, bool) {
	var e *Error
	return e, errors.As(err, &e)
}
