package standin

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// place is where a service looks for a credential.
type place struct {
	// find returns what stands there, by name; nil if there is nothing.
	find func(r *http.Request, body []byte) Credentials
	// wrong is the answer if it is not right; the service's own if it has no status.
	wrong answer
	// hosts are the ones that look there; nil is all.
	hosts []string
}

// places makes the check of a service that takes a credential as it is. Every
// credential that is there must be right. wrong has a mask of the credential for
// %s.
func places(missing, wrong answer, all ...place) func(*Server, *http.Request, []byte) *answer {
	return func(s *Server, r *http.Request, body []byte) *answer {
		found := false
		for _, p := range all {
			given := p.find(r, body)
			if given == nil || p.hosts != nil && !contains(p.hosts, hostOf(r)) {
				continue
			}
			found = true
			for name, value := range given {
				if same(s.value(name), value) {
					continue
				}
				a := wrong
				if p.wrong.status != 0 {
					a = p.wrong
				}
				a.body = strings.ReplaceAll(a.body, "%s", mask(value))
				return &a
			}
		}
		if !found {
			return &missing
		}
		return nil
	}
}

func contains(hosts []string, host string) bool {
	for _, h := range hosts {
		if h == host {
			return true
		}
	}
	return false
}

// mask is how services quote a credential that is wrong.
func mask(value string) string {
	if len(value) < 16 {
		return strings.Repeat("*", len(value))
	}
	return value[:8] + strings.Repeat("*", len(value)-12) + value[len(value)-4:]
}

// field looks into a header field that has a prefix, which is compared without
// regard to case (RFC 9110 section 11.1). A field that is there twice is wrong.
func field(name, prefix, secret string) place {
	return place{find: func(r *http.Request, _ []byte) Credentials {
		values := r.Header.Values(name)
		if len(values) == 0 {
			return nil
		}
		value := values[0]
		if len(value) < len(prefix) || !strings.EqualFold(value[:len(prefix)], prefix) {
			return nil
		}
		if len(values) > 1 {
			return Credentials{secret: ""}
		}
		return Credentials{secret: value[len(prefix):]}
	}}
}

func bearer(secret string) place { return field("Authorization", "Bearer ", secret) }

// basic looks into Authorization: Basic. A user that is "" is any user; one with
// a "=" before it is that text. So for the password.
func basic(user, password string) place {
	return place{find: func(r *http.Request, _ []byte) Credentials {
		scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Basic") {
			return nil
		}
		wrong := Credentials{user + password: ""}
		text, err := base64.StdEncoding.DecodeString(rest)
		u, p, colon := strings.Cut(string(text), ":")
		if err != nil || !colon {
			return wrong
		}
		given := Credentials{}
		for _, half := range [][2]string{{user, u}, {password, p}} {
			fixed, isFixed := strings.CutPrefix(half[0], "=")
			switch {
			case isFixed && fixed != half[1]:
				return wrong
			case !isFixed && half[0] != "":
				given[half[0]] = half[1]
			}
		}
		return given
	}}
}

// parameter looks into the query.
func parameter(name, secret string) place {
	return place{find: func(r *http.Request, _ []byte) Credentials {
		q, err := url.ParseQuery(r.URL.RawQuery)
		switch {
		case err != nil, len(q[name]) > 1:
			return Credentials{secret: ""}
		case !q.Has(name):
			return nil
		}
		return Credentials{secret: q.Get(name)}
	}}
}

// formField looks into an urlencoded body.
func formField(name, secret string) place {
	return place{find: func(r *http.Request, body []byte) Credentials {
		form, ok := formOf(r, body)
		if !ok || !form.Has(name) {
			return nil
		}
		return Credentials{secret: strings.Join(form[name], ",")}
	}}
}

// formOf parses an urlencoded body.
func formOf(r *http.Request, body []byte) (url.Values, bool) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, false
	}
	form, err := url.ParseQuery(string(body))
	return form, err == nil
}

// at limits a place to hosts.
func (p place) at(hosts ...string) place {
	p.hosts = hosts
	return p
}

// refused gives a place an answer of its own.
func (p place) refused(a answer) place {
	p.wrong = a
	return p
}

// sends describes a request. Its fields are lines of "Name: value", in which
// {name} is filled with a credential; so it is in the URL and in the body.
func sends(client, uses, method, target, fields, body string) Request {
	return Request{Client: client, Uses: strings.Fields(uses), New: func(have Credentials, _ time.Time) (*http.Request, error) {
		return compose(have, method, target, fields, body)
	}}
}

// compose makes a request from text with placeholders, which are encoded as
// where they stand wants it. {basic USER:PASSWORD basic} is base64 of it.
func compose(have Credentials, method, target, fields, body string) (*http.Request, error) {
	filler := func(encode func(string) string) *strings.Replacer {
		pairs := []string{}
		for name, value := range have {
			pairs = append(pairs, "{"+name+"}", encode(value))
		}
		return strings.NewReplacer(pairs...)
	}
	fill := filler(func(s string) string { return s })
	inBody := fill
	switch {
	case strings.Contains(fields, "application/x-www-form-urlencoded"):
		inBody = filler(url.QueryEscape)
	case strings.Contains(fields, "application/json"):
		inBody = filler(jsonText)
	}
	r, err := http.NewRequest(method, filler(url.QueryEscape).Replace(target), strings.NewReader(inBody.Replace(body)))
	if err != nil {
		return nil, err
	}
	if body == "" {
		r.Body, r.ContentLength, r.GetBody = nil, 0, nil
	}
	for line := range strings.Lines(fields) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if name == "" {
			continue
		}
		before, rest, found := strings.Cut(value, "{basic ")
		if found {
			inner, after, _ := strings.Cut(rest, " basic}")
			value = before + base64.StdEncoding.EncodeToString([]byte(fill.Replace(inner))) + after
		}
		r.Header.Set(name, fill.Replace(value))
	}
	return r, nil
}

// jsonText is what stands between the quotes of a JSON string.
func jsonText(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return s
	}
	return string(b[1 : len(b)-1])
}
