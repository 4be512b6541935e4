package connector

import (
	"slices"
	"strings"

	"ambit/internal/strictyaml"
)

// judge checks what can be known only when the whole file was read.
func (r *reader) judge(root node, f map[string]node, c *Connector) {
	for i := range r.uses {
		r.judgeUse(&r.uses[i], c)
	}
	for i := range r.def.pins {
		if p := &r.def.pins[i]; r.def.secret(p.name) != nil {
			r.Refuse(f["pins"], "the pin "+strictyaml.Quote(p.name)+" is called like a secret, so that {"+p.name+"} could be either", "give one of them another name")
		}
	}
	for i := range r.def.auth {
		r.judgeAuth(r.auths[i], &r.def.auth[i])
	}
	for i := range r.def.secrets {
		name := r.def.secrets[i].Name
		if !slices.ContainsFunc(r.def.ways, func(w Way) bool { return w.Yields == name || slices.Contains(w.Fields, name) }) {
			r.Refuse(f["secrets"], "nobody gives the secret "+strictyaml.Quote(name), "add it to the fields of a way, or remove it")
		}
	}
	if c.Generic {
		for _, key := range []string{"account", "ownHosts"} {
			if f[key].Given() {
				r.Refuse(f[key], "has no use in a connector without hosts", "remove it, or add hosts")
			}
		}
	}
	if len(r.def.ways) == 0 && f["secrets"].Given() {
		r.Refuse(root, "has no way to connect", "add a way, or leave ways out")
	}
}

// judgeAuth wants a reference for everything that the agent sends.
func (r *reader) judgeAuth(n node, e *authEntry) {
	need := e.Auth.Secrets()
	switch {
	case e.MTLS != nil:
		need = nil // the gate alone has them
	case e.SigV4 != nil:
		need = []string{e.SigV4.KeyID, e.SigV4.Secret} // the gate adds the session's token
	}
	for _, name := range need {
		if name != "" && r.def.secret(name) != nil && !r.def.reference(name) {
			r.Refuse(n, "the agent has nothing to send in place of "+strictyaml.Quote(name), "give it a shape under references")
		}
	}
}

// judgeUse refuses placeholders that nothing fills.
func (r *reader) judgeUse(u *use, c *Connector) {
	allowed := r.allowed(u, c)
	for _, name := range u.text.Names() {
		if slices.Contains(allowed, name) {
			continue
		}
		hint := "there is none"
		if len(allowed) > 0 {
			hint = "those here are: {" + strings.Join(allowed, "}, {") + "}"
		}
		if near, ok := strictyaml.Nearest(name, allowed); ok {
			hint = "did you mean {" + near + "}?"
		}
		r.Refuse(u.node, "nothing fills the placeholder {"+name+"}", hint)
	}
}

func (r *reader) allowed(u *use, c *Connector) []string {
	var names []string
	if u.known&(fromBinding|fromAccount|fromPins) != 0 {
		if c.Account != "" {
			names = append(names, "account")
		}
		for i := range r.def.pins {
			if r.def.pins[i].variable() {
				names = append(names, r.def.pins[i].name)
			}
		}
	}
	if u.known&fromBinding != 0 {
		names = append(names, "host", "connection")
	}
	if u.known&fromRefresh != 0 {
		names = append(names, "refresh_token")
	}
	if u.known&fromRequest != 0 {
		names = append(names, signed()...)
	}
	if u.known&fromSignature != 0 {
		names = append(names, "signature", "timestamp")
	}
	for i := range r.def.secrets {
		s := &r.def.secrets[i]
		switch {
		case u.known&fromSecrets != 0, u.known&fromRefs != 0 && r.def.reference(s.Name):
			names = append(names, s.Name)
		}
	}
	if u.known&fromPins != 0 && u.chain != nil {
		names = append(names, r.def.chain(u.chain)...)
	}
	return unique(names)
}

// chain returns the name of a pin and of those that it refines.
func (d *definition) chain(p *pin) []string {
	names := []string{p.name}
	for p.with != "" && d.pin(p.with) != nil && !slices.Contains(names, p.with) {
		p = d.pin(p.with)
		names = append(names, p.name)
	}
	return names
}
