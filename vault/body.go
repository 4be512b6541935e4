package vault

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/internal/coding"
	"ambit/internal/secretbytes"
)

// maxHeld is the longest body in bytes that is read before it leaves, and
// maxPlain how long it may be when its compression is undone.
const (
	maxHeld  = 1 << 20
	maxPlain = 16 << 20
)

// bodyKind is how a body is read.
type bodyKind uint8

const (
	opaqueBody bodyKind = iota
	formBody
	multipartBody
	jsonBody
)

// media is what the Content-Type field says.
type media struct {
	kind     bodyKind
	boundary string // of multipartBody
	stated   bool
}

var errMedia = errors.New("its Content-Type can be read in more than one way")

// mediaOf reads the Content-Type. The error is errMedia.
func mediaOf(h http.Header) (media, error) {
	values := h["Content-Type"]
	if len(values) == 0 {
		return media{}, nil
	}
	if len(values) > 1 {
		return media{}, errMedia
	}
	name, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return media{}, errMedia
	}
	m := media{stated: true}
	switch {
	case name == "application/x-www-form-urlencoded":
		m.kind = formBody
	case name == "multipart/form-data":
		m.kind, m.boundary = multipartBody, params["boundary"]
		if m.boundary == "" || len(m.boundary) > 70 { // RFC 2046 section 5.1.1
			return media{}, errMedia
		}
	case name == "application/json" || name == "text/json" || strings.HasSuffix(name, "+json"):
		m.kind = jsonBody
	default:
		return m, nil
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252": // the same bytes for ASCII
		return m, nil
	}
	return media{}, errMedia
}

// bodySpots are the places in bodies of a kind.
func (s *site) bodySpots(method, path string, kind bodyKind) []*spot {
	var want connector.In
	switch kind {
	case formBody, multipartBody:
		want = connector.InForm
	case jsonBody:
		want = connector.InJSON
	default:
		return nil
	}
	var all []*spot
	for i := range s.ways {
		w := &s.ways[i]
		if w.Scheme != connector.Form && w.Scheme != connector.JSON && w.Scheme != connector.Login || !w.scope.has(method, path) {
			continue
		}
		for _, at := range w.spots {
			if at.In == want {
				all = append(all, at)
			}
		}
	}
	return all
}

// body has the body looked at: now, if it must be known whole, and otherwise on
// its way.
func (u *use) body() error {
	q := u.q
	var pins []bodyPin
	if u.plan != nil {
		pins = u.pins()
	}
	if q.Body == nil || q.Body == http.NoBody {
		if len(pins) > 0 {
			return u.deny(pins[0].notMet(u.plan.site.bound, "it has no body"))
		}
		return nil
	}
	m, err := mediaOf(q.Header)
	if err != nil && u.plan != nil && (u.plan.site.bound.Require || len(pins) > 0) {
		return u.deny(unreadable(err.Error()))
	}
	c := coding.Of(q.Header)
	if c == coding.Unknown || hasText(q.Header["Grpc-Encoding"]) && q.Header["Grpc-Encoding"][0] != "identity" {
		return u.deny(ambit.Reason{
			Code: "body-opaque", Text: "the body is compressed in a way that the gate cannot look into, so that a credential's reference could be in it",
			Remedy: "let the program send it without compression, or with gzip",
		})
	}
	var spots []*spot
	if u.plan != nil {
		spots = u.plan.site.bodySpots(q.Method, q.URL.Opaque, m.kind)
	}
	if c == "" && len(pins) == 0 && len(spots) == 0 {
		q.Body, q.GetBody = u.watched(m, q.Body), nil
		return nil
	}
	return u.hold(m, c, pins, spots)
}

func unreadable(text string) ambit.Reason {
	return ambit.Reason{Code: "body-unreadable", Text: "the body cannot be looked at: " + text, Remedy: "this is for the program that sent it to mend"}
}

func tooLong() ambit.Reason {
	return ambit.Reason{
		Code: "body-too-long", Text: "the body is longer than 1 MiB, and it would have to be read before it leaves: it is compressed, or the host takes a credential or has a pin in it",
		Remedy: "send it in smaller parts, or without compression",
	}
}

// hold reads the body, looks at it and fills it.
func (u *use) hold(m media, zipped string, pins []bodyPin, spots []*spot) error {
	q := u.q
	passes := zipped == "" && len(pins) == 0 && m.kind == multipartBody // an upload: no login is that long
	if q.ContentLength > maxHeld {
		if passes {
			u.pass(m, q.Body, spots)
			return nil
		}
		return u.deny(tooLong())
	}
	sent, err := io.ReadAll(io.LimitReader(q.Body, maxHeld+1))
	switch {
	case err != nil:
		return u.deny(unreadable("it broke off: " + err.Error()))
	case len(sent) > maxHeld && passes:
		u.pass(m, heldBody{io.MultiReader(bytes.NewReader(sent), q.Body), q.Body}, spots)
		return nil
	case len(sent) > maxHeld:
		return u.deny(tooLong())
	}
	edits, err := u.unpack(sent, m, zipped, pins, spots)
	if err != nil {
		return err
	}
	if len(edits) > 0 {
		if zipped != "" {
			return u.deny(ambit.Reason{
				Code: "body-opaque", Text: "the body is compressed, and a credential is to be put into it",
				Remedy: "let the program send it without compression",
			})
		}
		if sent, err = u.fillBody(sent, m, edits); err != nil {
			return err
		}
	}
	q.Body = heldBody{bytes.NewReader(sent), q.Body}
	q.GetBody, q.ContentLength = nil, int64(len(sent))
	return nil
}

// unpack undoes the compression, and looks at what it is: of one body at a time,
// because it can take a hundred times the memory that the body does.
func (u *use) unpack(b []byte, m media, zipped string, pins []bodyPin, spots []*spot) ([]edit, error) {
	u.v.unpacking.Lock()
	defer u.v.unpacking.Unlock()
	if zipped != "" {
		r, err := coding.NewReader(bytes.NewReader(b), zipped)
		if err == nil {
			b, err = io.ReadAll(io.LimitReader(r, maxPlain+1))
		}
		if err != nil {
			return nil, u.deny(unreadable("its compression (" + zipped + ") is broken: " + err.Error()))
		}
		if len(b) > maxPlain {
			return nil, u.deny(tooLong())
		}
	}
	edits, reason := u.inspect(b, m, pins, spots)
	if reason != nil {
		return nil, u.deny(*reason)
	}
	return edits, nil
}

// heldBody is a body that was read, in front of the one that it was.
type heldBody struct {
	io.Reader
	io.Closer
}

// pass has a long body looked at on its way. No reference and no credential may
// be in it, also where a short one is filled.
func (u *use) pass(m media, body io.ReadCloser, spots []*spot) {
	w := u.watched(m, body)
	if parts, ok := w.watch.(*partWatch); ok {
		parts.names = maps.Clone(parts.names)
		for _, at := range spots {
			if !u.plan.site.isPublic(at) {
				parts.names[foldParam(at.Name)] = true
			}
		}
	}
	u.q.Body, u.q.GetBody = w, nil
}

// edit is where a body is filled.
type edit struct {
	field
	spot   *spot    // nil if it is what a host handed back
	handed *session // nil if that is over
}

// inspect returns what is filled in a whole body, or why it is refused.
func (u *use) inspect(b []byte, m media, pins []bodyPin, spots []*spot) ([]edit, *ambit.Reason) {
	fields, err := fieldsOf(b, m)
	if err != nil {
		if len(pins) > 0 || len(spots) > 0 {
			r := unreadable(err.Error())
			return nil, &r
		}
		fields = nil
	}
	var edits []edit
	from := 0
	for _, f := range fields {
		s := spotOf(spots, f, m.kind)
		back, is, reason := u.handedAt(f)
		if reason != nil {
			return nil, reason
		}
		if s == nil && !is {
			if reason := u.look([]byte(f.name + "\x00" + f.value)); reason != nil {
				return nil, reason
			}
			if u.plan != nil && u.plan.site.bound.Require && u.plan.site.isForeign(f, m.kind, spots) {
				return nil, u.plan.site.bound.foreignAt("the field " + quote(f.name) + " of " + u.part())
			}
			continue
		}
		if s == nil && u.plan.site.laundersAt(back, f, m.kind, spots) {
			return nil, u.plan.site.bound.foreignAt("the field " + quote(f.name) + " of " + u.part())
		}
		if reason := u.look(b[from:f.start]); reason != nil {
			return nil, reason
		}
		edits, from = append(edits, edit{f, s, back}), f.end
	}
	if reason := u.look(b[from:]); reason != nil {
		return nil, reason
	}
	if fields == nil { // what is no form and no JSON by its own account is looked at like a body on its way
		if w := u.watch(m); w != nil {
			if name := w.next(b); name != "" {
				return nil, u.plan.site.bound.foreignAt(name)
			}
		}
	}
	for _, p := range pins {
		if reason := p.check(u.plan.site.bound, fields, m.kind, u.q.URL.RawQuery); reason != nil {
			return nil, reason
		}
	}
	return edits, nil
}

// look returns why a part of the body is refused: it has a reference.
func (u *use) look(b []byte) *ambit.Reason {
	hit, ok := u.st.references.Find(b, 0)
	if !ok {
		return nil
	}
	r := u.st.owners[hit.Pattern].misplaced(u.site(), u.part())
	return &r
}

// part says for people what is looked at.
func (u *use) part() string {
	if u.lease.socket != nil {
		return "the message of the WebSocket"
	}
	return "the body"
}

func (u *use) site() *site {
	if u.plan == nil {
		return nil
	}
	return u.plan.site
}

// spotOf returns the place that a field is filled with a reference at.
func spotOf(spots []*spot, f field, kind bodyKind) *spot {
	for _, s := range spots {
		at := f.name
		if kind == jsonBody {
			at = f.pointer
		}
		if f.text && at == s.Name && s.value.match(f.value, false) {
			return s
		}
	}
	return nil
}

// isForeign says whether a field that is not filled holds a credential.
func (s *site) isForeign(f field, kind bodyKind, spots []*spot) bool {
	if !f.holds() {
		return false
	}
	if hasField(s.fields, f.name) {
		return true
	}
	for _, at := range spots {
		if s.isPublic(at) {
			continue // somebody else's name alone opens nothing
		}
		if kind == jsonBody && strings.EqualFold(f.pointer, at.Name) || kind != jsonBody && foldParam(f.name) == foldParam(at.Name) {
			return true
		}
	}
	return false
}

// laundersAt is launders for a field of a body. No session is a password.
func (s *site) laundersAt(of *session, f field, kind bodyKind, spots []*spot) bool {
	if !s.bound.Require || of == nil || !s.isForeign(f, kind, spots) {
		return false
	}
	return !hasField(s.fields, f.name) || s.launders(of)
}

// fillBody puts the real values in.
func (u *use) fillBody(b []byte, m media, edits []edit) ([]byte, error) {
	for _, e := range edits {
		if e.spot == nil {
			continue
		}
		if err := u.open(e.spot.Value.Names()); err != nil {
			return nil, err
		}
	}
	out := make([]byte, 0, len(b)+1024)
	from := 0
	for _, e := range edits {
		out = append(out, b[from:e.start]...)
		from = e.end
		value, err := u.valueOf(e)
		if err != nil {
			return nil, err
		}
		switch m.kind {
		case jsonBody:
			out = appendJSON(out, value.Reveal())
		case formBody:
			out = appendEscaped(out, value.Reveal(), "")
		default:
			if bytes.Contains(value.Reveal(), []byte(m.boundary)) {
				value.Wipe()
				return nil, u.unusable("cannot be a part of this multipart body")
			}
			out = append(out, value.Reveal()...)
		}
		value.Wipe()
	}
	return append(out, b[from:]...), nil
}

// valueOf returns what an edit puts in, which the caller wipes.
func (u *use) valueOf(e edit) (secretbytes.Bytes, error) {
	if e.spot != nil {
		return u.v.store.memory.take(e.spot.value.appendReal(nil, u.values)), nil
	}
	return u.openHanded(e.handed)
}

// isPublic says that nothing secret is at a spot: an account's name.
func (s *site) isPublic(at *spot) bool {
	for _, name := range at.Value.Names() {
		if secret := secretNamed(s.bound.Binding, name); secret == nil || !secret.Public {
			return false
		}
	}
	return true
}

// pins are the conditions that the body must meet.
func (u *use) pins() []bodyPin {
	var all []bodyPin
	for _, p := range u.plan.site.pins {
		if p.scope.has(u.q.Method, u.q.URL.Opaque) {
			all = append(all, p)
		}
	}
	return all
}

// check returns why a body does not meet the condition.
func (p *bodyPin) check(b *bound, fields []field, kind bodyKind, query string) *ambit.Reason {
	fail := func(text string) *ambit.Reason { r := p.notMet(b, text); return &r }
	want := p.Form
	if kind == jsonBody {
		want = p.JSON
	}
	if want == "" || kind == opaqueBody {
		return fail("its body is of another kind")
	}
	found := 0
	for _, f := range fields {
		at, same := f.name, foldParam(f.name) == foldParam(want)
		if kind == jsonBody {
			at, same = f.pointer, strings.EqualFold(f.pointer, want)
		}
		if !same {
			continue
		}
		found++
		if at != want || !f.scalar || !contains(p.Values, f.value) {
			return fail("it has another value")
		}
	}
	if found != 1 {
		return fail("the field is not there exactly once")
	}
	names := []string{p.Form, p.JSON[strings.LastIndexByte(p.JSON, '/')+1:]}
	for pair := range strings.SplitSeq(query, "&") {
		for part := range strings.SplitSeq(pair, ";") {
			name, _, _ := strings.Cut(part, "=")
			for _, n := range names {
				if n != "" && foldParam(unescape(name)) == foldParam(n) {
					return fail("the field is in the query, too")
				}
			}
		}
	}
	return nil
}

func contains(all []string, s string) bool {
	for _, v := range all {
		if v == s {
			return true
		}
	}
	return false
}

func (p *bodyPin) notMet(b *bound, text string) ambit.Reason {
	name := p.Form
	if p.JSON != "" {
		name = p.JSON
	}
	return ambit.Reason{
		Code: "pin-not-met", Text: "the connection " + quote(b.Name) + " is pinned: the field " + quote(name) + " of the body must be " + some(p.Values) + ", and of this request " + text,
		Remedy: "send it for what the connection is pinned to, or change the pin",
	}
}
