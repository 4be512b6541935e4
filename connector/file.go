package connector

import (
	"regexp"

	"ambit/internal/strictyaml"
)

// definition is what a file says, before an account and pins are filled in.
type definition struct {
	replaces bool // takes the place of a connector that Ambit ships

	accountCheck *regexp.Regexp
	hosts        []hostEntry
	secrets      []Secret
	references   []Reference
	env          []Env
	files        []File
	auth         []authEntry
	pins         []pin
	ways         []Way
	foreign      Foreign
	tools        []*tool
}

// hostEntry is one of the hosts. Its methods and paths are the most that is
// opened of it.
type hostEntry struct {
	host      Template
	methods   []string
	paths     []string
	websocket bool
}

// authEntry is an Auth whose templates are not filled in yet.
type authEntry struct {
	Auth

	hosts []string // as they are written under hosts; nil for all
}

// pin is a named way to narrow a connection.
type pin struct {
	name     string
	title    string
	check    *regexp.Regexp
	required bool
	with     string // the pin that this one refines and that must be there too; "" for none
	// narrows has, by a host as it is written under hosts, what stays open: a
	// request must be one of these. A host that is not here is closed by the pin.
	narrows map[string][]narrow
}

// variable says whether the pin only fills in a placeholder, as a region does:
// it is always there and has one value.
func (p *pin) variable() bool { return p.required && len(p.narrows) == 0 }

// narrow is a kind of request that a pin leaves open.
type narrow struct {
	host    Template // takes the place of a wildcard host; "" leaves it
	methods []string
	paths   []Template
	query   []Field
	headers []Field
	json    string // a field of the body that must have the pin's value
	form    string
}

// secret finds a secret by name.
func (d *definition) secret(name string) *Secret {
	for i := range d.secrets {
		if d.secrets[i].Name == name {
			return &d.secrets[i]
		}
	}
	return nil
}

func (d *definition) pin(name string) *pin {
	for i := range d.pins {
		if d.pins[i].name == name {
			return &d.pins[i]
		}
	}
	return nil
}

func (d *definition) reference(secret string) bool {
	for _, r := range d.references {
		if r.Secret == secret {
			return true
		}
	}
	return false
}

// MaxSize is the largest connector file in bytes: 256 KiB.
const MaxSize = 256 << 10

const start = `a connector file starts with "connector: v1"`

func language() *strictyaml.Language {
	return &strictyaml.Language{
		Noun: "connector file", Start: start, MaxSize: MaxSize, TooLarge: "keep the tools that agents need",
		Second: "put each connector into a file of its own",
	}
}

// Errors is why a connector file is refused: every problem, with line and
// column.
type Errors = strictyaml.Errors

// Check reads one connector file by itself. file is its name, "NAME.yaml". An
// error is of type [Errors].
func Check(file string, src []byte) (*Connector, error) { return parse(file, src) }

// parse reads a connector file. file is its name in messages. An error is of
// type Errors.
func parse(file string, src []byte) (*Connector, error) {
	d, root := strictyaml.Decode(language(), file, src)
	r := &reader{Decoder: d}
	var c *Connector
	if root.Given() {
		c = r.connector(root)
		c.File = file
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	return c, nil
}
