package connector

import (
	"slices"

	"ambit/internal/strictyaml"
	"ambit/manifest"
)

func (r *reader) pins(n node) {
	if !n.Given() {
		return
	}
	r.Pairs(n, func(name string, k, v node) {
		r.Complain(k, checkSecret, name)
		f := r.Fields(v, pinKeys())
		p := pin{
			name:     name,
			title:    r.Checked(f["title"], "", checkLine),
			check:    r.pattern(f["check"]),
			required: r.Boolean(f["required"]),
			with:     r.Checked(f["with"], "", checkSecret),
			narrows:  map[string][]narrow{},
		}
		r.need(v, f, "title", "check")
		if p.with != "" && r.def.pin(p.with) == nil {
			r.Refuse(f["with"], "there is no pin "+strictyaml.Quote(p.with)+" above", "write the pin that it refines before it")
		}
		if f["narrows"].Given() {
			r.Pairs(f["narrows"], func(host string, k, v node) { p.narrows[host] = r.narrows(k, host, v) })
			r.NotEmpty(f["narrows"])
		} else if !p.required {
			r.Missing(v, "narrows", `write for example narrows: {api.acme.example: [{paths: ["/repos/{repo}/**"]}]}`)
		}
		r.def.pins = append(r.def.pins, p)
		for i := range r.uses {
			if r.uses[i].known == fromPins && r.uses[i].chain == nil {
				chain := p
				r.uses[i].chain = &chain
			}
		}
	})
	r.NotEmpty(n)
}

func (r *reader) narrows(k node, host string, n node) []narrow {
	i := slices.IndexFunc(r.def.hosts, func(o hostEntry) bool { return string(o.host) == host })
	if i < 0 {
		r.Refuse(k, strictyaml.Quote(host)+" is none of the hosts", "write it as it is under hosts")
	}
	var all []narrow
	r.List(n, func(_ int, item node) {
		f := r.Fields(item, narrowKeys())
		w := narrow{
			methods: r.Texts(f["methods"], manifest.CheckMethod),
			query:   r.conditions(f["query"]),
			headers: r.conditions(f["headers"]),
			json:    r.Checked(f["json"], "", checkPointer),
			form:    r.Checked(f["form"], "", checkLine),
		}
		if f["host"].Given() {
			w.host = r.host(f["host"], fromPins)
		}
		r.List(f["paths"], func(_ int, p node) {
			s := r.Checked(p, "", func(s string) (text, hint string) {
				return manifest.CheckPath(Template(s).Fill(func(string) (string, bool) { return "x", true }))
			})
			w.paths = append(w.paths, r.template(p, s, fromPins))
		})
		for j := range w.headers {
			w.headers[j].Name = canonicalHeader(w.headers[j].Name)
		}
		for _, key := range []string{"methods", "paths"} {
			r.NotEmpty(f[key])
		}
		if len(w.paths)+len(w.query)+len(w.headers)+len(w.json)+len(w.form)+len(w.host) == 0 {
			r.Refuse(item, "narrows nothing", "write host, paths, query, headers, json or form")
		}
		if (w.json != "" || w.form != "") && w.paths == nil {
			r.Missing(item, "paths", "say of which requests the body is meant")
		}
		all = append(all, w)
	})
	r.NotEmpty(n)
	return all
}

func (r *reader) conditions(n node) []Field {
	if !n.Given() {
		return nil
	}
	var all []Field
	r.Pairs(n, func(name string, k, v node) {
		r.Complain(k, checkLine, name)
		all = append(all, Field{Name: name, Value: r.template(v, r.Checked(v, "", checkLine), fromPins)})
	})
	r.NotEmpty(n)
	return all
}
