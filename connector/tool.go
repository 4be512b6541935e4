package connector

import (
	"encoding/json"
	"regexp"
	"slices"

	"ambit"
)

// MaxAnswer is how many bytes of a service's answer [BoundTool.Result] reads.
const MaxAnswer = 4 << 20

// ToolSpec says of one tool of a connector what people choose by.
type ToolSpec struct {
	Name        string         `json:"name"` // "refunds.create"
	Title       string         `json:"title"`
	Description string         `json:"description,omitempty"`
	Effects     []ambit.Effect `json:"effects"`
	// Reviewed is false for a tool that was imported and that no person has
	// looked at yet: it cannot be used.
	Reviewed bool `json:"reviewed"`
}

// Tools returns the connector's tools, in the order of its file.
func (c *Connector) Tools() []ToolSpec {
	all := make([]ToolSpec, 0, len(c.tools))
	for _, t := range c.tools {
		all = append(all, ToolSpec{Name: t.name, Title: t.title, Description: t.description, Effects: slices.Clone(t.effects), Reviewed: t.reviewed})
	}
	return all
}

func (d *definition) tool(name string) *tool {
	for _, t := range d.tools {
		if t.name == name {
			return t
		}
	}
	return nil
}

func (d *definition) toolNames() []string {
	var names []string
	for _, t := range d.tools {
		names = append(names, t.name)
	}
	return names
}

// tool is what a file says of one of its tools.
type tool struct {
	name        string
	title       string
	description string
	effects     []ambit.Effect
	leaves      bool
	reviewed    bool

	arguments []*argument
	targets   []string
	limits    []string
	money     *money
	request   requestTemplate
	result    resultTemplate
}

func (t *tool) argument(name string) *argument { return find(t.arguments, name) }

// kind is what an argument's value is.
type kind string

const (
	kindString  kind = "string"
	kindInteger kind = "integer"
	kindNumber  kind = "number"
	kindBoolean kind = "boolean"
	kindEnum    kind = "enum"
	kindArray   kind = "array"
	kindObject  kind = "object"
)

// argument is what an argument, an element of a list or a field of an object
// must be. [argument.schema] and [argument.check] say the same.
type argument struct {
	name        string // "" of an element
	description string
	kind        kind
	optional    bool

	// Of text. Lengths are in characters.
	format               string // one of formatNames; "" for none
	pattern              *regexp.Regexp
	multiline            bool // may have line breaks and tabs
	minLength, maxLength int

	min, max float64     // of numbers
	values   []string    // of an enum
	items    *argument   // of a list
	maxItems int         // of a list
	fields   []*argument // of an object
}

func find(all []*argument, name string) *argument {
	for _, a := range all {
		if a.name == name {
			return a
		}
	}
	return nil
}

// money says which argument is an amount.
type money struct {
	amount   string // a pointer to the argument
	currency string // a pointer, or three capital letters
	// minor says that the service counts in the smallest unit: the argument is in
	// whole units with decimals, and is converted where it is filled in.
	minor    bool
	decimals map[string]int // where the service differs from ISO 4217
}

// requestTemplate is the request of a tool.
type requestTemplate struct {
	method      string
	host        string // as it is written under hosts; "" is the first
	path        Template
	query       []Field
	headers     []Field // their values have no arguments
	json        *value  // the body; nil if there is none
	form        []Field
	idempotency string // the header field with the caller's key; "" if the service has none
	before      *precondition
}

// precondition is what must be so at the service before a call is made: what
// the arguments claim, and the request itself does not say.
type precondition struct {
	path Template // of a GET at the same host
	same []Field  // by pointer into the answer, what stands there; case does not matter
}

// value is a part of a JSON body.
type value struct {
	text   Template        // text, with placeholders
	raw    json.RawMessage // a number or a truth value; nil if it is none
	isList bool
	list   []value
	isMap  bool
	keys   []string
	values []value
	mail   *mailTemplate // a message (RFC 5322), in base64url
}

// resultTemplate says what of an answer is the result.
type resultTemplate struct {
	status  []int  // what is a success; nil is 200 to 299
	ok      string // a pointer to what must be true; "" for none
	failure string // a pointer to the service's own message; "" for the usual places
	from    string // where the result is; "" is the whole answer
	keep    []string
	kept    *kept // keep as a tree
	records []string
	decode  []string // what is text in base64
	max     int      // bytes of the result
	maxText int      // bytes of each text in it; what is longer is cut
}
