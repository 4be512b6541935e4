package connector

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ambit/internal/strictyaml"
	"ambit/internal/urlpath"
)

// Request is what a tool sends. It holds no credential: [Request.Refer] puts in
// what stands for one, as the agent's own requests have it, so that it takes the
// same way out.
type Request struct {
	Method string
	URL    string // https, with host, port if it is not 443, path and query; canonical
	Header http.Header
	Body   []byte // nil for none

	// Before is a request that must be made first, and whose answer
	// [BoundTool.Agrees] must accept; nil for most. Where there is one, a call whose
	// facts decided something is not to be made without it.
	Before *Request

	// Auth are the ways in which a credential may travel with it; none if the host
	// takes none. The first whose Secrets the account has is the one to use. The
	// only scheme without Places is MTLS, which needs nothing put in.
	Auth []*Auth
}

// Refer puts references into the places of one of Auth. reference returns what
// stands for a secret, and false if there is none.
func (r *Request) Refer(a *Auth, reference func(secret string) (string, bool)) error {
	if !slices.Contains(r.Auth, a) {
		return errors.New("the credential does not travel with this request")
	}
	for i := range a.Places {
		if err := r.place(&a.Places[i], reference); err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) place(p *Place, reference func(string) (string, bool)) error {
	user, err := referTo(p.User, reference)
	if err != nil {
		return err
	}
	text, err := referTo(p.Value, reference)
	if err != nil {
		return err
	}
	switch p.In {
	case InHeader:
		r.Header.Set(p.Name, text)
	case InBasic:
		r.Header.Set(p.Name, "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+text)))
	case InQuery:
		u, err := url.Parse(r.URL)
		if err != nil {
			return fmt.Errorf("reading the request's address: %w", err)
		}
		u.RawQuery = appendPair(u.RawQuery, p.Name, text)
		r.URL = u.String()
	case InForm:
		r.Body = []byte(appendPair(string(r.Body), p.Name, text))
	case InJSON:
		return r.placeJSON(p.Name, text)
	default:
		return errors.New("a tool cannot put a credential into the " + string(p.In))
	}
	return nil
}

// placeJSON sets a field of the body.
func (r *Request) placeJSON(pointer, text string) error {
	var root map[string]any
	d := json.NewDecoder(bytes.NewReader(r.Body))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		return fmt.Errorf("putting a credential into the body: %w", err)
	}
	tokens := pointerTokens(pointer)
	at := root
	for _, t := range tokens[:len(tokens)-1] {
		next, ok := at[t].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[t] = next
		}
		at = next
	}
	at[tokens[len(tokens)-1]] = text
	body, err := marshal(root)
	r.Body = body
	return err
}

func referTo(t Template, reference func(string) (string, bool)) (string, error) {
	for _, name := range t.Names() {
		if _, ok := reference(name); !ok {
			return "", errors.New("there is no reference to " + name)
		}
	}
	return t.Fill(reference), nil
}

// filler fills in templates with the arguments of a call.
type filler struct {
	args map[string]any    // checked, and as the service counts
	vars map[string]string // the account and pins
}

// lookup returns the value of a placeholder; false if it was left out.
func (f *filler) lookup(name string) (any, bool) {
	if v, ok := f.args[name]; ok {
		return v, true
	}
	if v, ok := f.vars[name]; ok {
		return v, true
	}
	return nil, false
}

// whole returns the name of the placeholder that the template is.
func whole(t Template) (string, bool) {
	before, name, after, ok := t.Split()
	return name, ok && before == "" && after == ""
}

// text fills in text. It returns false if something in it was left out.
func (f *filler) text(t Template) (string, bool, error) {
	all, complete, failure := "", true, error(nil)
	all = t.Fill(func(name string) (string, bool) {
		v, ok := f.lookup(name)
		if !ok {
			complete = false
			return "", true
		}
		s, err := scalar(v)
		if err != nil {
			failure = &ArgumentError{"/" + name, err.Error()}
		}
		return s, true
	})
	if !complete {
		return "", false, failure
	}
	return all, true, failure
}

// texts is text for a place that may have several: a list gives one for each
// element.
func (f *filler) texts(t Template) ([]string, error) {
	if name, ok := whole(t); ok {
		if list, ok := f.args[name].([]any); ok {
			var all []string
			for _, v := range list {
				s, err := scalar(v)
				if err != nil {
					return nil, &ArgumentError{"/" + name, err.Error()}
				}
				all = append(all, s)
			}
			return all, nil
		}
	}
	s, complete, err := f.text(t)
	if err != nil || !complete || t == "" {
		return nil, err
	}
	return []string{s}, nil
}

func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", errors.New("is not a single value, and cannot be written as text")
}

// path fills in a path. An argument is percent-encoded and stays one segment,
// or of format path, several; nothing makes a segment empty or of dots.
func (f *filler) path(t *tool, template Template) (string, error) {
	segments := strings.Split(string(template), "/")
	for i, s := range segments {
		var bad error
		segments[i] = Template(s).Fill(func(name string) (string, bool) {
			v, _ := f.lookup(name)
			text, err := scalar(v)
			a := t.argument(name)
			several := a != nil && a.format == "path"
			switch {
			case err != nil:
				bad = &ArgumentError{"/" + name, err.Error()}
			case text == "":
				bad = &ArgumentError{"/" + name, "is empty"}
			case strings.Trim(text, ".") == "":
				bad = &ArgumentError{"/" + name, "is nothing but dots"}
			case strings.ContainsAny(text, "\\%?#;") || !several && strings.Contains(text, "/"):
				bad = &ArgumentError{"/" + name, "is " + strictyaml.Quote(text) + `, and may have none of / \ % ? # ; in it`}
			}
			return escapePath(text, !several), true
		})
		if bad != nil {
			return "", bad
		}
	}
	path := strings.Join(segments, "/")
	canonical, err := urlpath.Canonical(path)
	switch {
	case err != nil:
		return "", &ArgumentError{"", "they make no path: " + err.Error()}
	case canonical != path || strings.Contains(path, "{"):
		return "", &ArgumentError{"", "they make a path that can be read in two ways"}
	}
	return path, nil
}

// query fills in a query or a form.
func (f *filler) query(fields []Field) (string, error) {
	encoded := ""
	for _, field := range fields {
		all, err := f.texts(field.Value)
		if err != nil {
			return "", err
		}
		for _, v := range all {
			encoded = appendPair(encoded, field.Name, v)
		}
	}
	return encoded, nil
}

func appendPair(encoded, name, v string) string {
	if encoded != "" {
		encoded += "&"
	}
	return encoded + url.QueryEscape(name) + "=" + url.QueryEscape(v)
}

// json fills in a part of a JSON body. It returns false if it was left out: a
// field with an argument that is not given, and an object or list of which
// nothing is left.
func (f *filler) json(v *value) (any, bool, error) {
	switch {
	case v.mail != nil:
		s, err := v.mail.fill(f)
		return s, true, err
	case v.raw != nil:
		return v.raw, true, nil
	case v.isList:
		list := []any{}
		for i := range v.list {
			x, ok, err := f.json(&v.list[i])
			if err != nil {
				return nil, false, err
			}
			if ok {
				list = append(list, x)
			}
		}
		return list, len(list) > 0 || len(v.list) == 0, nil
	case v.isMap:
		m := map[string]any{}
		for i, key := range v.keys {
			x, ok, err := f.json(&v.values[i])
			if err != nil {
				return nil, false, err
			}
			if ok {
				m[key] = x
			}
		}
		return m, len(m) > 0 || len(v.keys) == 0, nil
	}
	if name, ok := whole(v.text); ok {
		x, given := f.lookup(name)
		return x, given, nil
	}
	s, complete, err := f.text(v.text)
	return s, complete, err
}

// marshal is JSON that keeps "<" as it is.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

var idempotencyForm = regexp.MustCompile(`^[A-Za-z0-9_-]{8,128}$`)

// body fills in the body, and says what it is.
func (f *filler) body(t *requestTemplate) (body []byte, contentType string, err error) {
	switch {
	case t.json != nil:
		x, _, err := f.json(t.json)
		if err != nil {
			return nil, "", err
		}
		body, err = marshal(x)
		return body, "application/json", err
	case t.form != nil:
		s, err := f.query(t.form)
		return []byte(s), "application/x-www-form-urlencoded", err
	}
	return nil, "", nil
}
