package vault

import (
	"errors"
	"io"
	"net/http"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/coding"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
)

// scrubber takes the secrets of one connection, as they were at one time, out of
// answers. It is wiped when nobody uses it any more, or a minute later.
type scrubber struct {
	*scrub.Scrubber
	name     string
	conn     *connection
	sessions uint64 // which of them, see store.sessionsOf

	// Of leases.mu:
	users int
	idle  *time.Timer // runs while it has no users
	gone  bool        // not to be used again
}

// keptFor is how long a scrubber is kept that nobody uses.
const keptFor = time.Minute

// scrubberOf returns the scrubber of a connection, which the caller releases.
func (v *Vault) scrubberOf(b *bound, conn *connection) (*scrubber, error) {
	if s := v.leases.kept(conn, v.store.changesOf(conn.name)); s != nil {
		return s, nil
	}
	sessions, change := v.store.sessionsOf(conn.name)
	secrets, err := v.secrets(b, conn, sessions)
	defer func() {
		for _, s := range secrets {
			s.Wipe()
		}
	}()
	if err != nil {
		return nil, err
	}
	made, err := scrub.NewIn(secrets, v.store.memory.room)
	if err != nil {
		return nil, err
	}
	return v.leases.keep(&scrubber{Scrubber: made, name: conn.name, conn: conn, sessions: change, users: 1}), nil
}

// secrets returns all of a connection that an agent must not see. One-time codes
// are over before anybody can use what an answer says of them.
func (v *Vault) secrets(b *bound, conn *connection, sessions []*session) ([]secretbytes.Bytes, error) {
	open := make(map[string]bool)
	for i := range b.Secrets {
		if s := &b.Secrets[i]; s.Public {
			open[s.Name] = true
		}
	}
	var all []secretbytes.Bytes
	for field := range conn.Fields {
		if open[field] || kindOf(b.Binding, field) == connector.Certificate {
			continue
		}
		s, err := v.store.open(conn, field)
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	for _, of := range sessions {
		s, err := v.store.openSession(conn.name, of)
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	return all, nil
}

// kept returns the scrubber that there is, with one user more; nil if there is
// none.
func (l *leases) kept(conn *connection, sessions uint64) *scrubber {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.scrubbers[conn.name]
	if s == nil || s.conn != conn || s.sessions != sessions {
		return nil
	}
	s.users++
	if s.idle != nil {
		s.idle.Stop()
	}
	return s
}

// keep keeps a new scrubber in place of the one that there is.
func (l *leases) keep(s *scrubber) *scrubber {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(s.name)
	if l.scrubbers == nil {
		l.scrubbers = make(map[string]*scrubber)
	}
	l.scrubbers[s.name] = s
	return s
}

// release counts a user out.
func (l *leases) release(s *scrubber) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if s.gone {
		s.Wipe()
		return
	}
	if s.idle != nil {
		s.idle.Reset(keptFor)
		return
	}
	s.idle = time.AfterFunc(keptFor, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.users == 0 && l.scrubbers[s.name] == s {
			l.forget(s.name)
		}
	})
}

// forget wipes a connection's scrubber, at once or when its last user is done.
// The caller holds mu.
func (l *leases) forget(name string) {
	s := l.scrubbers[name]
	if s == nil {
		return
	}
	delete(l.scrubbers, name)
	s.gone = true
	if s.idle != nil {
		s.idle.Stop()
	}
	if s.users == 0 {
		s.Wipe()
	}
}

// watchAnswer sees to it that the answer can be scrubbed. It is called after the
// values were opened, so that a token that came meanwhile is looked for too.
func (u *use) watchAnswer() error {
	b := u.plan.site.bound
	conn := u.v.connected(b)
	if conn == nil {
		if len(u.values) > 0 {
			return u.deny(u.v.notConnected(b))
		}
		return nil // nothing is known that could come back
	}
	if conn.damage != nil && len(u.values) == 0 {
		return nil
	}
	s, err := u.v.scrubberOf(b, conn)
	if err != nil {
		return u.deny(ambit.Reason{
			Code: "credential-failed", Text: "what the connection " + quote(b.Name) + " must keep out of answers could not be opened: " + err.Error(),
			Remedy: "run: ambit connect " + string(u.v.config.Agent) + " " + b.Name,
		})
	}
	u.lease.scrub, u.lease.carries = s, len(u.values) > 0
	return nil
}

// Answer takes the secrets of the connection out of an answer: header, body and
// trailer. The body keeps its length. If it is compressed although that was not
// asked for, it is decompressed, and its length is unknown then. resp.Body is
// replaced. From when the connection ends, reading the body is an error.
//
// Of an answer that opens a WebSocket, resp.Body is the frames of both sides.
// What is written to it is looked at message by message, and must be all that the
// agent sends: a reference in it ends the WebSocket, and so does what breaks a
// rule of RFC 6455 (bad-frame). Into the first message the real values are put, where the host
// takes them there.
//
// What the host hands back as a credential is kept, and the agent has references
// in its place: for that, an answer in JSON of a host where one logs in is read
// whole.
//
// The error is a *ambit.DenyError if the answer cannot be looked into, or if the
// request was refused while it was being sent; or it says that the answer broke
// off. Then none of it may be passed on.
func (l *Lease) Answer(resp *http.Response) error {
	if l == nil {
		return nil
	}
	if d := l.refused.Load(); d != nil {
		return d
	}
	if l.socket != nil && resp.StatusCode == http.StatusSwitchingProtocols {
		return l.upgrade(resp)
	}
	if l.scrub == nil {
		return nil
	}
	if l.over.Load() {
		return revoked()
	}
	if resp.StatusCode == http.StatusUnauthorized && l.carries { // git asks without it first
		l.vault.refused(l.bound)
	}
	src, err := plainBody(resp)
	if err != nil {
		return err
	}
	if src, err = l.takeOver(resp, src); err != nil {
		return err
	}
	l.header(resp.Header)
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	if src == nil {
		src = resp.Body
	}
	body := &answerBody{l: l, resp: resp, src: resp.Body, r: src}
	body.streams = body.one[:0]
	for s := range l.scrubbers {
		stream := s.Stream()
		body.streams, body.r = append(body.streams, stream), stream.Reader(body.r)
	}
	resp.Body = body
	return nil
}

// scrubbers are all that an answer goes through.
func (l *Lease) scrubbers(yield func(*scrubber) bool) {
	for _, s := range l.older {
		if !yield(s) {
			return
		}
	}
	yield(l.scrub)
}

// header takes the secrets out of a header or trailer.
func (l *Lease) header(h http.Header) {
	for s := range l.scrubbers {
		if n := s.Header(h); n > 0 {
			l.echoed.Add(int64(n))
		}
	}
}

// plainBody returns the body of an answer without a compression that was not
// asked for, and says so in its header. It is nil if there is no body to read.
func plainBody(resp *http.Response) (io.Reader, error) {
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil, nil
	}
	bodyless := resp.Request != nil && resp.Request.Method == http.MethodHead || resp.StatusCode == http.StatusNotModified || resp.StatusCode == http.StatusNoContent
	if bodyless {
		return nil, nil
	}
	src := io.Reader(resp.Body)
	if c := coding.Of(resp.Header); c != "" {
		if c == coding.Unknown || resp.StatusCode == http.StatusPartialContent {
			return nil, denied("answer-opaque", "the host compressed its answer although it was asked not to, so that nobody can see whether a credential is in it",
				"tell the program to ask for it in another way; if the host cannot do otherwise, it cannot be used with a connection")
		}
		src = &decompressing{src: resp.Body, coding: c}
		delete(resp.Header, "Content-Encoding")
		delete(resp.Header, "Content-Length")
		resp.ContentLength = -1
		resp.Uncompressed = true
	}
	return src, nil
}

// decompressing undoes a compression. Nothing is read before it is asked for.
type decompressing struct {
	src    io.Reader
	coding string
	r      io.Reader
	err    error
}

func (d *decompressing) Read(p []byte) (int, error) {
	if d.r == nil && d.err == nil {
		d.r, d.err = coding.NewReader(d.src, d.coding)
	}
	if d.err != nil {
		return 0, d.err
	}
	return d.r.Read(p)
}

// answerBody is the body of an answer, scrubbed, until the connection ends.
type answerBody struct {
	l    *Lease
	resp *http.Response
	src  io.Closer
	r    io.Reader

	streams []*scrub.Stream
	one     [1]*scrub.Stream // room for streams, of nearly all answers
	echoed  int              // of what they found, what the lease knows
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.l.over.Load() {
		clear(p[:n])
		return 0, errRevoked
	}
	if errors.Is(err, io.EOF) {
		b.l.header(b.resp.Trailer)
	}
	found := 0
	for _, s := range b.streams {
		found += s.Found()
	}
	if found > b.echoed {
		b.l.echoed.Add(int64(found - b.echoed))
		b.echoed = found
	}
	return n, err
}

// Close implements io.Closer.
func (b *answerBody) Close() error { return b.src.Close() }
