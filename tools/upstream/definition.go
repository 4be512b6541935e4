package upstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ambit"
	"ambit/internal/inert"
	"ambit/internal/jcs"
	"ambit/tools"
)

// definition is what a server says of a tool, as it says it.
type definition struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Input       json.RawMessage `json:"input"`
	Output      json.RawMessage `json:"output,omitempty"`
}

// readDefinition takes what is used out of an element of tools/list. What a server
// says of a tool besides, such as annotations, decides and shows nothing.
func readDefinition(v any) (*definition, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a tool is not an object")
	}
	d := &definition{}
	if d.Name, ok = m["name"].(string); !ok || d.Name == "" || len(d.Name) > 256 {
		return nil, errors.New("a tool has no name, or one of more than 256 bytes")
	}
	if d.Description, ok = m["description"].(string); !ok && m["description"] != nil {
		return nil, fmt.Errorf("the description of %q is not a string", inert.Text(d.Name))
	}
	input, ok := m["inputSchema"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%q has no schema of its arguments", inert.Text(d.Name))
	}
	var err error
	if d.Input, err = jcs.Append(nil, input); err != nil {
		return nil, err
	}
	if output, ok := m["outputSchema"]; ok && output != nil {
		if d.Output, err = jcs.Append(nil, output); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// canonical is what is hashed and stored.
func (d *definition) canonical() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return jcs.Canonical(b)
}

func hashOf(canonical []byte) string {
	h := sha256.Sum256(canonical)
	return hex.EncodeToString(h[:])
}

// describe fills in what a person sees of a definition, and what the agent would
// get. A definition that cannot be taken says why in Problem.
func (i *Item) describe(d *definition) {
	fail := func(what string, err error) {
		if i.Problem == "" {
			i.Problem = what + err.Error()
		}
	}
	var err error
	if i.Name, err = qualify(i.Upstream, d.Name); err != nil {
		fail("", err)
	}
	flag := func(where, text string) string {
		clean, flags := Clean(text)
		for _, f := range flags {
			if f = where + " had " + f; !slices.Contains(i.Flags, f) {
				i.Flags = append(i.Flags, f)
			}
		}
		return clean
	}
	i.Description = flag("its description", d.Description)
	text := func(s string) string { return flag("a description of its schema", s) }
	if input, err := tools.ReadSchema(d.Input, tools.SchemaOptions{Closed: true, Text: text}); err != nil {
		fail("its arguments: ", err)
	} else {
		i.Input = input.JSON()
	}
	if d.Output != nil {
		if output, err := tools.ReadSchema(d.Output, tools.SchemaOptions{Text: text}); err != nil {
			fail("its result: ", err)
		} else {
			i.Output = output.JSON()
		}
	}
	if i.Problem == "" {
		if err := tools.Check(&ambit.Tool{Name: i.Name, Input: i.Input, Output: i.Output}); err != nil {
			fail("", err)
		}
	}
	for _, schema := range []json.RawMessage{i.Input, i.Output} { // values that it names: they stay as they are
		flag("a value in its schema", values(schema))
	}
}

// values is every string of a schema.
func values(schema []byte) string {
	var b strings.Builder
	dec := json.NewDecoder(bytes.NewReader(schema))
	for {
		t, err := dec.Token()
		if err != nil {
			return b.String()
		}
		if s, ok := t.(string); ok {
			b.WriteString(s + "\n")
		}
	}
}

// qualify makes the name of a tool here of the server's own: createIssue and
// CreateIssue become create_issue, repos/get becomes repos.get.
func qualify(upstream, name string) (string, error) {
	var b strings.Builder
	for i, r := range name {
		switch {
		case 'A' <= r && r <= 'Z':
			if i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z' {
				b.WriteByte('_')
			}
			b.WriteRune(r - 'A' + 'a')
		case r == '/':
			b.WriteByte('.')
		default:
			b.WriteRune(r)
		}
	}
	full := upstream + "." + b.String()
	if !tools.ValidName(full) {
		return "", fmt.Errorf("its name cannot be used here: it has other characters than letters, digits, _, -, . and /, or too many (%s)", inert.Text(name))
	}
	return full, nil
}

// Facts are what a person says that a tool means, when they accept it. What they
// are is said at the fields of the same names of ambit.Tool.
type Facts struct {
	Effects  []ambit.Effect `json:"effects"`
	Leaves   bool           `json:"leaves,omitempty"`
	Targets  []string       `json:"targets,omitempty"`
	Amount   string         `json:"amount,omitempty"`
	Currency string         `json:"currency,omitempty"`
	Limits   []string       `json:"limits,omitempty"`
	Records  []string       `json:"records,omitempty"`
}

func (f *Facts) apply(t *ambit.Tool) {
	t.Effects, t.Leaves, t.Targets, t.Amount, t.Currency, t.Limits, t.Records = f.Effects, f.Leaves, f.Targets, f.Amount, f.Currency, f.Limits, f.Records
}

// Check says what is wrong with them, for a tool with this schema of its arguments
// ([Item.Input]).
func (f *Facts) Check(input json.RawMessage) error {
	if err := f.sound(); err != nil {
		return err
	}
	return f.fit(input)
}

func (f *Facts) sound() error {
	if len(f.Effects) == 0 {
		return errors.New("say what effects the tool has; one that only reads has read")
	}
	known := []ambit.Effect{
		ambit.EffectRead, ambit.EffectWrite, ambit.EffectDelete, ambit.EffectSpend, ambit.EffectSend,
		ambit.EffectPublish, ambit.EffectAccess, ambit.EffectBulk, ambit.EffectCustomer,
	}
	for _, e := range f.Effects {
		if !slices.Contains(known, e) {
			return fmt.Errorf("there is no effect %q", e)
		}
	}
	pointers := slices.Concat(f.Targets, f.Limits, f.Records)
	if f.Amount != "" {
		pointers = append(pointers, f.Amount)
	}
	switch {
	case f.Amount == "" && f.Currency != "":
		return errors.New("there is a currency and no amount")
	case f.Amount != "" && f.Currency == "":
		return errors.New("an amount needs its currency")
	case strings.HasPrefix(f.Currency, "/"):
		pointers = append(pointers, f.Currency)
	case f.Currency != "" && (len(f.Currency) != 3 || strings.Trim(f.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != ""):
		return fmt.Errorf("the currency %q is neither a JSON pointer nor three capital letters", f.Currency)
	}
	for _, p := range pointers {
		if err := pointer(p); err != nil {
			return err
		}
	}
	if slices.Contains(f.Targets, "") || slices.Contains(f.Limits, "") {
		return errors.New("a target or limit is an argument, not all of them")
	}
	return nil
}

// pointer checks that p is a JSON pointer (RFC 6901).
func pointer(p string) error {
	if p != "" && p[0] != '/' || strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(p), "~") || inert.Text(p) != p {
		return fmt.Errorf("%q is no JSON pointer: it is empty or begins with /", inert.Text(p))
	}
	return nil
}

// fit says which of the arguments that are pointed to the tool cannot have: a
// mistake there would mean that nobody gets anything. Where schemas are put
// together it is not known, and passes.
func (f *Facts) fit(input json.RawMessage) error {
	v, err := jcs.Parse(input, jcs.MaxDepth)
	if err != nil {
		return fmt.Errorf("reading the schema of its arguments: %w", err)
	}
	all := slices.Concat(f.Targets, f.Limits)
	if f.Amount != "" {
		all = append(all, f.Amount)
	}
	if strings.HasPrefix(f.Currency, "/") {
		all = append(all, f.Currency)
	}
	for _, p := range all {
		if !leads(v, strings.Split(p, "/")[1:]) {
			return fmt.Errorf("%q points to no argument of the tool", p)
		}
	}
	return nil
}

// leads reports whether a value that fits the schema could have something there.
func leads(schema any, parts []string) bool {
	m, ok := schema.(map[string]any)
	if !ok || len(parts) == 0 {
		return true
	}
	for _, key := range []string{"$ref", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties", "prefixItems", "dependentSchemas"} {
		if _, there := m[key]; there {
			return true
		}
	}
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(parts[0])
	properties, _ := m["properties"].(map[string]any)
	if p, there := properties[name]; there {
		return leads(p, parts[1:])
	}
	if items, there := m["items"]; there && name == "*" {
		return leads(items, parts[1:])
	}
	closed := m["additionalProperties"] == false || m["unevaluatedProperties"] == false
	kind, typed := m["type"].(string)
	return !closed && (!typed || kind == "object" || kind == "array" && name == "*")
}
