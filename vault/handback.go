package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/scrub"
)

// maxHandback is how long an answer in JSON may be that could hand back a token,
// in bytes.
const maxHandback = 4 << 20

// maxValue is the longest value that is kept, in bytes: what is longer fits into
// no header field, and all forms of it are looked for in answers.
const maxValue = 16 << 10

var errValue = errors.New("it is longer than 16 KiB")

// handback is what one answer hands back.
type handback struct {
	l      *Lease
	c      *connection
	resp   *http.Response
	host   string
	kept   map[string]handed // by reference
	over   []setCookie
	tokens []field  // of the body, in order
	refs   []string // in the place of tokens
	body   []byte   // nil if it was not read
}

// takeOver keeps what an answer hands back as a credential, and puts references
// in its place. It returns the body to be read in place of src. The error is a
// *ambit.DenyError, or says how the answer broke off.
func (l *Lease) takeOver(resp *http.Response, src io.Reader) (io.Reader, error) {
	s := l.site
	if s.session == nil {
		if s.headers["Cookie"] == stays {
			delete(resp.Header, "Set-Cookie") // it is taken out of requests, too
		}
		return src, nil
	}
	c := l.vault.connected(s.bound)
	if c == nil {
		return nil, revoked()
	}
	h := &handback{l: l, c: c, resp: resp, host: l.host, kept: make(map[string]handed)}
	defer h.wipe()
	if err := h.cookies(); err != nil {
		return nil, err
	}
	src, err := h.read(src)
	if err != nil {
		return nil, err
	}
	if err := h.keep(); err != nil {
		return nil, err
	}
	if len(h.tokens) == 0 {
		return src, nil
	}
	return h.written(), nil
}

func (h *handback) wipe() {
	for _, k := range h.kept {
		clear(k.Value)
	}
}

// add takes a value over. It returns the reference.
func (h *handback) add(k handed) (string, error) {
	if len(k.Value) > maxValue {
		clear(k.Value)
		return "", errValue
	}
	k.Life, k.Host = h.c.Life, h.host
	ref, err := h.l.vault.refOf(h.l.bound, &k)
	if err != nil {
		clear(k.Value)
		return "", err
	}
	if old, twice := h.kept[ref]; twice {
		clear(old.Value)
	}
	h.kept[ref] = k
	return ref, nil
}

// cookies takes over the cookies of the answer. Values that are too short for a
// credential stay as they are.
func (h *handback) cookies() error {
	fields := h.resp.Header["Set-Cookie"]
	if len(fields) == 0 {
		return nil
	}
	fields = slices.Clone(fields)
	for i, text := range fields {
		c := h.l.vault.parseSetCookie(text)
		if !h.l.site.session.keepsCookie(c.name) {
			continue
		}
		if c.over {
			h.over = append(h.over, c)
		}
		if len(c.value) < scrub.MinLen {
			continue
		}
		if c.over { // whatever it says, it is not worth keeping
			fields[i] = c.write("")
			continue
		}
		ref, err := h.add(handed{Domain: c.domain, Cookie: c.name, Value: []byte(c.value)})
		if err != nil {
			return h.refuse(err)
		}
		fields[i] = c.write(ref)
	}
	h.resp.Header["Set-Cookie"] = fields
	return nil
}

// read reads a body in JSON, and finds the tokens in it.
func (h *handback) read(src io.Reader) (io.Reader, error) {
	pointers := h.l.site.session.answers
	m, odd := mediaOf(h.resp.Header)
	if odd != nil && strings.Contains(strings.ToLower(strings.Join(h.resp.Header["Content-Type"], " ")), "json") {
		m.kind = jsonBody
	}
	if src == nil || len(pointers) == 0 || m.kind != jsonBody || h.resp.StatusCode == http.StatusPartialContent {
		return src, nil
	}
	var err error
	if h.body, err = io.ReadAll(io.LimitReader(src, maxHandback+1)); err != nil {
		return nil, errors.Join(errors.New("the answer broke off"), err)
	}
	if len(h.body) > maxHandback {
		return nil, denied("answer-opaque", "the answer is longer than 4 MiB, and it would have to be looked at whole for tokens that the host hands back",
			"ask for it in smaller pages; or let the connector's answers name nothing, if no token comes back in JSON")
	}
	const mark = "\xef\xbb\xbf" // of UTF-8: no JSON, but clients read on behind it
	text := bytes.TrimPrefix(h.body, []byte(mark))
	var fields []field
	err = walkJSON(text, func(f field) error {
		if f.text && len(f.value) >= scrub.MinLen && slices.Contains(pointers, f.pointer) {
			fields = append(fields, f)
		}
		return nil
	})
	switch {
	case err != nil && odd != nil:
		return nil, denied("answer-opaque", "the answer is JSON of which "+odd.Error()+", so that nobody can look for tokens that the host hands back", "ask the host for UTF-8")
	case err != nil && json.Valid(text):
		return nil, denied("answer-opaque", "the answer is JSON that is too deep to be looked at for tokens that the host hands back", "ask the host for something simpler")
	case err != nil:
		fields = nil
	}
	for _, f := range fields {
		f.start, f.end = f.start+len(h.body)-len(text), f.end+len(h.body)-len(text)
		ref, err := h.add(handed{Value: []byte(f.value)})
		if err != nil {
			return nil, h.refuse(err)
		}
		h.tokens, h.refs = append(h.tokens, f), append(h.refs, ref)
	}
	return bytes.NewReader(h.body), nil
}

// written is the body with references in it.
func (h *handback) written() io.Reader {
	out := make([]byte, 0, len(h.body)+64*len(h.tokens))
	from := 0
	for i, f := range h.tokens {
		out = append(out, h.body[from:f.start]...)
		out, from = appendJSON(out, []byte(h.refs[i])), f.end
	}
	out = append(out, h.body[from:]...)
	clear(h.body)
	header := h.resp.Header
	for _, name := range []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Etag"} { // of other bytes
		delete(header, name)
	}
	if h.resp.ContentLength >= 0 {
		h.resp.ContentLength = int64(len(out))
		header["Content-Length"] = []string{strconv.Itoa(len(out))}
	}
	return bytes.NewReader(out)
}

// keep stores what is new, durably, before the agent has the references, and
// has it looked for in this answer and those that follow.
func (h *handback) keep() error {
	v, b := h.l.vault, h.l.bound
	ctx := context.WithoutCancel(h.resp.Request.Context())
	for _, c := range h.over {
		err := v.store.forgetSessions(ctx, h.c, func(k *handed) bool {
			return k.Cookie == c.name && c.name != "" && k.Host == h.host && k.Domain == c.domain
		})
		if err != nil {
			return h.refuse(err)
		}
	}
	if len(h.kept) == 0 {
		return nil
	}
	fresh, err := v.store.keepSessions(ctx, h.c, maps.Clone(h.kept), v.now())
	if err != nil {
		return h.refuse(err)
	}
	if len(fresh) == 0 {
		return nil
	}
	v.config.Log.Record(ambit.Event{Kind: ambit.KindVaultSession, Agent: v.config.Agent, Connection: b.Name, Host: h.host, Detail: "kept, and the agent has references: " + names(fresh)})
	s, err := v.scrubberOf(b, h.c)
	if err != nil {
		return h.refuse(err)
	}
	h.l.older = append(h.l.older, h.l.scrub) // what is forgotten now can be in this answer all the same
	h.l.scrub = s
	return nil
}

// names says for people what was handed back.
func names(all []*session) string {
	var words []string
	for _, s := range all {
		if s.Cookie == "" {
			words = append(words, "a token")
			continue
		}
		words = append(words, "the cookie "+quote(s.Cookie))
	}
	slices.Sort(words)
	return some(words)
}

// refuse is the refusal of an answer whose credentials cannot be kept.
func (h *handback) refuse(err error) error {
	if errors.Is(err, errSession) {
		return revoked()
	}
	return denied("session-not-kept", "the host handed back a credential, which could not be stored: "+err.Error(), "send it again; see that the disk is not full")
}

// handedAt returns what a field of a body stands for, if its value is the
// reference to something that a host handed back. One that is over is empty.
func (u *use) handedAt(f field) (*session, bool, *ambit.Reason) {
	if u.plan == nil || u.plan.site.session == nil || !f.text || !strings.HasPrefix(f.value, u.plan.site.bound.sessions) {
		return nil, false, nil
	}
	if u.v.connected(u.plan.site.bound) == nil {
		reason := u.v.notConnected(u.plan.site.bound)
		return nil, true, &reason
	}
	found, reason := u.v.lookUp(u.plan, u.host, f.value, "the field "+quote(f.name)+" of the body")
	return found, true, reason
}
