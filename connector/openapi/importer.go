package openapi

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/internal/hostname"
)

// importer works on one document.
type importer struct {
	doc     map[string]any
	options Options
	out     *Imported
	names   map[string]bool // of tools
	base    string          // path before every operation's
	budget  int             // parts of schemas that the operation may still have
	w       writer
}

func (im *importer) run() error {
	info, _ := im.doc["info"].(map[string]any)
	title, _ := info["title"].(string)
	if title = clean(title, 100); title == "" {
		title = "Imported API"
	}
	name := im.options.Name
	if name == "" {
		name = slug(title, "-", 40)
	}
	if name == "" {
		return errors.New("the document's title makes no name for a connector: say --name acme")
	}
	im.out.Name = name
	host, err := im.server()
	if err != nil {
		return err
	}
	w := &im.w
	w.line(0, "# Imported from OpenAPI. Every tool is to be reviewed by a person: its effects,")
	w.line(0, "# leaves, targets, amount and records are guesses or missing. Remove")
	w.line(0, "# \"reviewed: false\" from those that are right.")
	w.line(0, "connector: v1")
	w.line(0, "name: "+name)
	w.line(0, "title: "+quote(title))
	w.line(0, "docs: "+quote(im.docs(host)))
	w.line(0, "hosts: ["+quote(host)+"]")
	im.credential()
	w.line(0, "tools:")
	tools := im.operations()
	switch {
	case tools == 0:
		return fmt.Errorf("no operation of the document makes a tool%s", im.firstReason())
	case tools > connector.MaxTools:
		return fmt.Errorf("the document makes %d tools, more than the %d of a connector: choose with --only", tools, connector.MaxTools)
	case w.b.Len() > connector.MaxSize:
		return fmt.Errorf("the document makes a connector file of %d bytes, more than %d: choose with --only", w.b.Len(), connector.MaxSize)
	}
	im.out.File = []byte(w.b.String())
	return nil
}

func (im *importer) firstReason() string {
	if len(im.out.Left) == 0 {
		return ": none was chosen"
	}
	return ": the first, " + im.out.Left[0].Operation + ", because " + im.out.Left[0].Reason
}

// server finds the host and the path before every operation's.
func (im *importer) server() (string, error) {
	servers, _ := im.doc["servers"].([]any)
	for _, s := range servers {
		m, _ := s.(map[string]any)
		text, _ := m["url"].(string)
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		if im.options.Host == "" && (u.Scheme != "https" || u.User != nil || u.Port() != "" && u.Port() != "443" || !isHost(u.Hostname())) {
			continue
		}
		im.base = strings.TrimSuffix(u.Path, "/")
		host := im.options.Host
		if host == "" {
			host = u.Hostname()
		}
		if len(servers) > 1 {
			im.remark("the document has %d servers: the connector is for %s", len(servers), host)
		}
		return host, nil
	}
	switch {
	case im.options.Host == "":
		return "", errors.New("the document has no server with a fixed https address: say --host api.acme.example")
	case !isHost(im.options.Host):
		return "", fmt.Errorf("%q is not the name of a host: write for example --host api.acme.example", clean(im.options.Host, 60))
	}
	return im.options.Host, nil
}

func isHost(s string) bool {
	canonical, err := hostname.Canonical(s)
	return err == nil && canonical == s && strings.Contains(s, ".") && !hostname.IsIP(s)
}

func (im *importer) docs(host string) string {
	external, _ := im.doc["externalDocs"].(map[string]any)
	if text, _ := external["url"].(string); strings.HasPrefix(text, "https://") && len(text) < 400 && clean(text, 400) == text && !strings.ContainsAny(text, "{}") {
		if u, err := url.Parse(text); err == nil && u.User == nil && u.Fragment == "" && isHost(u.Hostname()) {
			return text
		}
	}
	return "https://" + host + "/"
}

func (im *importer) remark(format string, args ...any) {
	im.out.Remarks = append(im.out.Remarks, clean(fmt.Sprintf(format, args...), 300))
}

// credential writes secrets, references and auth of the first scheme that
// connectors know.
func (im *importer) credential() {
	components, _ := im.doc["components"].(map[string]any)
	schemes, _ := components["securitySchemes"].(map[string]any)
	order := slices.Sorted(maps.Keys(schemes))
	if wanted, _ := im.doc["security"].([]any); len(wanted) > 0 {
		if first, _ := wanted[0].(map[string]any); first != nil {
			order = append(slices.Sorted(maps.Keys(first)), order...)
		}
	}
	token := func(auth string) {
		im.w.line(0, "secrets:")
		im.w.line(1, "token: {title: Access token}")
		im.w.line(0, "references:")
		im.w.line(1, `token: "{base62:40}"`)
		im.w.line(0, "auth:")
		im.w.line(1, "- "+auth)
	}
	for _, name := range order {
		s := im.resolve(schemes[name])
		kind, _ := s["type"].(string)
		scheme, _ := s["scheme"].(string)
		in, _ := s["in"].(string)
		field, _ := s["name"].(string)
		switch {
		case kind == "http" && strings.EqualFold(scheme, "bearer"), kind == "oauth2", kind == "openIdConnect":
			if kind != "http" {
				im.remark("the credential is an OAuth token, which a person gives: write a way with oauth to have it refreshed")
			}
			token(`bearer: "{token}"`)
		case kind == "http" && strings.EqualFold(scheme, "basic"):
			im.w.line(0, "secrets:")
			im.w.line(1, "username: {title: User name, public: true}")
			im.w.line(1, "password: {title: Password}")
			im.w.line(0, "references:")
			im.w.line(1, `username: "user-{base62:20}"`)
			im.w.line(1, `password: "{base62:40}"`)
			im.w.line(0, "auth:")
			im.w.line(1, `- basic: {user: "{username}", password: "{password}"}`)
		case kind == "apiKey" && in == "header" && isField(field):
			token("header: {" + quote(field) + `: "{token}"}`)
		case kind == "apiKey" && in == "query" && isField(field):
			token("query: {" + quote(field) + `: "{token}"}`)
		default:
			continue
		}
		return
	}
	im.remark("the document does not say how a credential travels in a way that connectors know: bearer is a guess")
	token(`bearer: "{token}"`)
}

func isField(s string) bool {
	return s != "" && len(s) <= 60 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// operations writes all tools, and returns how many there are.
func (im *importer) operations() int {
	paths, _ := im.doc["paths"].(map[string]any)
	tools := 0
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := im.resolve(paths[path])
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			op, ok := item[method].(map[string]any)
			if !ok || !im.chosen(path, op) {
				continue
			}
			o := &operation{im: im, method: strings.ToUpper(method), said: path, op: op, args: map[string]bool{}}
			im.budget = maxParts
			if reason := o.read(item); reason != "" {
				im.out.Left = append(im.out.Left, Left{clean(o.method+" "+path, 200), reason})
				continue
			}
			o.write()
			tools++
		}
	}
	return tools
}

func (im *importer) chosen(path string, op map[string]any) bool {
	if len(im.options.Only) == 0 {
		return true
	}
	id, _ := op["operationId"].(string)
	text := strings.ToLower(path + " " + id)
	tags, _ := op["tags"].([]any)
	for _, t := range tags {
		if s, ok := t.(string); ok {
			text += " " + strings.ToLower(s)
		}
	}
	return slices.ContainsFunc(im.options.Only, func(word string) bool { return strings.Contains(text, strings.ToLower(word)) })
}

// maxName is the longest name of a tool, without what makes it different from
// others of the same name.
const maxName = 72

// name makes a tool's name of an operation, different from all others.
func (im *importer) name(method, path, id string, tags []any) string {
	var parts []string
	if id != "" {
		for _, p := range strings.FieldsFunc(id, func(r rune) bool { return r == '/' || r == '.' || r == ':' || r == '#' }) {
			if s := slug(p, "-", 36); s != "" {
				parts = append(parts, s)
			}
		}
	}
	if len(parts) == 0 {
		verb := map[string]string{"GET": "get", "POST": "create", "PUT": "replace", "PATCH": "update", "DELETE": "delete"}[method]
		for _, p := range strings.Split(path, "/") {
			if s := slug(p, "-", 36); s != "" && !strings.HasPrefix(p, "{") {
				parts = append(parts, s)
			}
		}
		parts = append(parts[max(0, len(parts)-2):], verb)
	}
	if len(parts) == 1 && len(tags) > 0 {
		if s, ok := tags[0].(string); ok {
			if group := slug(s, "-", 36); group != "" {
				parts = append([]string{group}, parts...)
			}
		}
	}
	name := strings.Join(parts[max(0, len(parts)-3):], ".")
	if len(name) > maxName {
		name = strings.TrimRight(name[:maxName], "-.")
	}
	for n := 2; im.names[name]; n++ {
		base, _, _ := strings.Cut(name, "--")
		name = fmt.Sprintf("%s--%d", base, n)
	}
	im.names[name] = true
	return name
}

// changes says whether an operation does more than read.
func changes(effects []ambit.Effect) bool {
	return !slices.Equal(effects, []ambit.Effect{ambit.EffectRead})
}
