package connector

import (
	"ambit/internal/strictyaml"
	"ambit/scan"
)

func subjectKeys() []string { return []string{"kind", "value", "fields", "after"} }

// maxSubjects is how many subjects a connector may have.
const maxSubjects = 64

// subjects reads how people and customers are recognised. What is wrong with a
// text is said where it stands: each is tried in a pattern that is right
// otherwise.
func (r *reader) subjects(n node) (all []scan.Pattern) {
	r.List(n, func(_ int, item node) {
		f := r.Fields(item, subjectKeys())
		r.need(item, f, "kind", "value")
		const value, name = "{digits:1-20}", "name"
		p := scan.Pattern{Kind: "kind", Value: value}
		p.Kind = scan.Kind(r.Checked(f["kind"], "", wrong(func(s string) error {
			return scan.Pattern{Kind: scan.Kind(s), Value: value, Fields: []string{name}}.Check()
		})))
		p.Value = r.Checked(f["value"], "", wrong(func(s string) error {
			try := scan.Pattern{Kind: "kind", Value: s, Fields: []string{name}}
			if !f["fields"].Given() && !f["after"].Given() {
				try.Fields = nil
			}
			return try.Check()
		}))
		p.Fields = r.Texts(f["fields"], wrong(func(s string) error {
			return scan.Pattern{Kind: "kind", Value: value, Fields: []string{s}}.Check()
		}))
		p.After = r.Texts(f["after"], wrong(func(s string) error {
			return scan.Pattern{Kind: "kind", Value: value, After: []string{s}}.Check()
		}))
		r.NotEmpty(f["fields"])
		r.NotEmpty(f["after"])
		if len(all) == maxSubjects {
			r.Refuse(item, "is one more than the 64 subjects that a connector may have", "keep those that identify a person or a customer")
		}
		all = append(all, p)
	})
	r.NotEmpty(n)
	return all
}

// wrong makes a check of strictyaml's of one that returns an error.
func wrong(check func(string) error) strictyaml.Check {
	return func(s string) (text, hint string) {
		if err := check(s); err != nil {
			return err.Error(), "write for example {kind: order, value: \"{digits:1-20}\", fields: [order_id], after: [/orders/]}"
		}
		return "", ""
	}
}
