package vault

import (
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/connector"
)

// foreign returns why the request is refused if it brings a credential that is
// none of ours.
func (p *Plan) foreign(r *ambit.Request) *ambit.Reason {
	for name, values := range r.Header {
		kind := p.site.headers[foldField(name)]
		if kind == passes {
			continue
		}
		p.strips = p.strips || kind == stays
		switch {
		case !hasText(values) || p.allowed(name) || p.signs(name):
		case kind == stays:
		default:
			return p.site.bound.foreignAt("the header field " + name)
		}
	}
	i := 0
	for pair := range strings.SplitSeq(r.RawQuery, "&") {
		if !p.fillsPair(i) {
			if name := p.site.foreignPair(pair, p.sigV4()); name != "" {
				return p.site.bound.foreignAt("the query parameter " + quote(name))
			}
		}
		i++
	}
	return p.foreignPath(r)
}

// hasText says that a field is not empty.
func hasText(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return strings.TrimSpace(v) != "" })
}

// signs says that a header field is a signature that Use checks.
func (p *Plan) signs(name string) bool {
	return slices.ContainsFunc(p.signed, func(w *way) bool { return w.HMAC != nil && w.HMAC.Header == name })
}

// foreignPair returns the name of a parameter that holds a credential, "" if
// none does. Some servers separate parameters with ";" too. The parameters of a
// presigned URL are Use's to check.
func (s *site) foreignPair(pair string, presigned bool) string {
	for part := range strings.SplitSeq(pair, ";") {
		name, value, _ := strings.Cut(part, "=")
		if value == "" {
			continue
		}
		name = unescape(name)
		if presigned && strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if hasField(s.query, name) {
			return name
		}
	}
	return ""
}

// foreignPath finds somebody else's credential in the path.
func (p *Plan) foreignPath(r *ambit.Request) *ambit.Reason {
	if p.path != nil {
		return nil
	}
	for i := range p.site.ways {
		for _, s := range p.site.ways[i].spots {
			if s.In != connector.InPath || !s.scope.has(r.Method, r.Path) {
				continue
			}
			if _, there := nthSegment(r.Path, s.Segment()); there {
				return p.site.bound.foreignAt("the path")
			}
		}
	}
	return nil
}

// foreignAt is the reason for a credential that is none of ours.
func (b *bound) foreignAt(where string) *ambit.Reason {
	remedy := "let the program use the reference"
	if names := b.variables(); len(names) > 0 {
		remedy += ", which is in " + strings.Join(names, " and ")
	}
	return &ambit.Reason{
		Code:   "foreign-credential",
		Text:   where + " has a credential that is not the one of the connection " + quote(b.Name),
		Remedy: remedy + `; or write "require: false" for the connection, if others may be used on its hosts`,
	}
}

// variables are the names of the variables with references, at most three.
func (b *bound) variables() []string {
	var names []string
	for _, e := range b.Env {
		if len(e.Value.Names()) > 0 && len(names) < 3 {
			names = append(names, e.Name)
		}
	}
	return names
}

// misplaced is the reason for a reference where none may stand. s is the site
// of the request's host, or nil.
func (o owner) misplaced(s *site, where string) ambit.Reason {
	r := ambit.Reason{Code: "reference-misplaced"}
	if s == nil || s.bound != o.bound {
		r.Text = where + " has the reference to the credential of the connection " + quote(o.bound.Name) + ", which is for " + some(hosts(o.bound.Binding)) + " only"
		r.Remedy = "a reference means nothing anywhere else; find out why the agent sends it there"
		return r
	}
	r.Text = where + " has the reference to the credential of the connection " + quote(o.bound.Name) + ", and it does not belong there"
	var takes []string
	for i := range s.ways {
		for _, at := range s.ways[i].spots {
			takes = append(takes, at.takes())
		}
		switch {
		case s.ways[i].SigV4 != nil:
			takes = append(takes, "a signature (AWS Signature Version 4)")
		case s.ways[i].HMAC != nil:
			takes = append(takes, "a signature in the header field "+s.ways[i].HMAC.Header)
		}
	}
	r.Remedy = "this host takes no credential; send it without"
	if len(takes) > 0 {
		r.Remedy = "this host takes it in " + some(takes)
	}
	return r
}

// notConnected is the reason for an account that nobody connected.
func (v *Vault) notConnected(b *bound) ambit.Reason {
	return ambit.Reason{
		Code: "not-connected", Text: "the account of the connection " + quote(b.Name) + " is not connected",
		Remedy: "run: ambit connect " + string(v.config.Agent) + " " + b.Name,
	}
}

// some lists the first few of many.
func some(all []string) string {
	const most = 4
	if len(all) > most {
		return strings.Join(all[:most], ", ") + " and " + strconv.Itoa(len(all)-most) + " more"
	}
	return strings.Join(all, ", ")
}

// quote shows a text that an agent may have written.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return strconv.QuoteToASCII(s)
}
