package tools

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"ambit"
	"ambit/internal/jcs"
)

// Entry is a tool with what runs it.
type Entry struct {
	Tool   *ambit.Tool
	Runner Runner
}

// Registry holds the tools of an agent. The zero value has none. It is safe for
// concurrent use.
type Registry struct{ set atomic.Pointer[toolSet] }

type toolSet struct {
	byName map[string]*tool
	sorted []*tool
}

// tool is a tool ready to be listed and called.
type tool struct {
	Entry
	input  *Schema
	output *Schema // nil if nothing is known
	intent string  // the argument that states the intent
	own    builtin // nil for tools that are not built in
}

var toolName = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)+$`)

// ValidName reports whether a fully qualified name is one that a tool can have.
func ValidName(name string) bool { return len(name) <= 128 && toolName.MatchString(name) }

// own is the prefix of the names of built-in tools.
const own = "ambit."

// Set replaces all tools, for all calls from now on. Calls that run go on. If any
// cannot be taken nothing changes, and the error says why of each.
func (r *Registry) Set(entries []Entry) error {
	if len(entries) > maxTools {
		return fmt.Errorf("there are %d tools and may be %d", len(entries), maxTools)
	}
	set := &toolSet{byName: make(map[string]*tool, len(entries))}
	var errs []error
	for _, e := range entries {
		t, err := newTool(e)
		if err == nil && set.byName[e.Tool.Name] != nil {
			err = errors.New("there are two of this name")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tool %q: %w", e.Tool.Name, err))
			continue
		}
		set.byName[e.Tool.Name] = t
		set.sorted = append(set.sorted, t)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortFunc(set.sorted, func(a, b *tool) int { return strings.Compare(a.Tool.Name, b.Tool.Name) })
	r.set.Store(set)
	return nil
}

// find returns the tool of exactly this name, or nil.
func (r *Registry) find(name string) *tool {
	if set := r.set.Load(); set != nil {
		return set.byName[name]
	}
	return nil
}

func (r *Registry) all() []*tool {
	if set := r.set.Load(); set != nil {
		return set.sorted
	}
	return nil
}

// Check says why a Registry would not take a tool.
func Check(t *ambit.Tool) error {
	_, err := check(Entry{Tool: t})
	return err
}

func newTool(e Entry) (*tool, error) {
	if e.Runner == nil {
		return nil, errors.New("nothing runs it")
	}
	return check(e)
}

func check(e Entry) (*tool, error) {
	if !ValidName(e.Tool.Name) || strings.HasPrefix(e.Tool.Name, own) {
		return nil, errors.New("a name has lower-case letters, digits, _ and -, in two or more parts with a dot between, and does not begin with ambit")
	}
	return prepare(e)
}

func prepare(e Entry) (*tool, error) {
	t := &tool{Entry: e, intent: "intent"}
	var err error
	if t.input, err = ReadSchema(e.Tool.Input, SchemaOptions{Closed: true}); err != nil {
		return nil, fmt.Errorf("its arguments: %w", err)
	}
	if e.Tool.Output != nil {
		if t.output, err = ReadSchema(e.Tool.Output, SchemaOptions{}); err != nil {
			return nil, fmt.Errorf("its result: %w", err)
		}
	}
	if t.input.names[t.intent] {
		t.intent = "ambit_intent"
	}
	if t.input.names[t.intent] {
		return nil, errors.New("it has arguments called intent and ambit_intent; Ambit needs one of them")
	}
	return t, nil
}

// publish makes what tools/list says of a tool. The schema of the result is not
// said: the gateway checks it, and an answer that waits for a person has another.
func (t *tool) publish(required bool) (json.RawMessage, error) {
	v, err := jcs.Parse(t.input.JSON(), jcs.MaxDepth)
	if err != nil {
		return nil, err
	}
	schema, _ := v.(map[string]any)
	if t.own == nil {
		properties, _ := schema["properties"].(map[string]any)
		if properties == nil {
			properties = map[string]any{}
		}
		properties[t.intent] = map[string]any{
			"type": "string", "maxLength": float64(ambit.MaxIntent),
			"description": "Why you make this call, in one sentence. It is logged and does not reach the tool.",
		}
		schema["properties"] = properties
		if required {
			names, _ := schema["required"].([]any)
			schema["required"] = append(names, t.intent)
		}
	}
	return jcs.Append(nil, map[string]any{
		"name": t.Tool.Name, "description": strings.ToValidUTF8(t.Tool.Description, "\ufffd"), "inputSchema": schema,
		"annotations": map[string]any{"readOnlyHint": !t.Tool.Changes()},
	})
}
