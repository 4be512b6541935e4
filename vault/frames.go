package vault

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"ambit"
	"ambit/internal/multimatch"
	"ambit/internal/scrub"
	"ambit/internal/wsframe"
)

// maxFirst is the longest first message in bytes that a credential is put into.
const maxFirst = 64 << 10

// socketSpots are the places in the first message of a WebSocket.
func (p *Plan) socketSpots() []*spot {
	if p == nil {
		return nil
	}
	return p.sockets
}

// upgrade has everything looked at that is sent over a WebSocket, both ways.
func (l *Lease) upgrade(resp *http.Response) error {
	if l.over.Load() {
		return revoked()
	}
	if l.scrub != nil {
		if _, err := l.takeOver(resp, nil); err != nil {
			return err
		}
		l.newest.Store(l.scrub)
		l.header(resp.Header)
	}
	wire, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return nil // it was not upgraded: the door refuses it
	}
	u := l.socket
	s := &sender{u: u, dst: wire, first: len(u.plan.socketSpots()) > 0}
	s.flow = newFlow(wsframe.Client, s.look)
	r := &receiver{l: l, src: wire}
	if l.scrub != nil {
		r.flow = newFlow(wsframe.Server, r.look)
	} else {
		r.flow = newFlow(wsframe.Server, nil)
	}
	l.received = r
	resp.Body = &watchedSocket{r, s, wire}
	return nil
}

// watchedSocket is a WebSocket that is looked at. One goroutine may read and
// another one write.
type watchedSocket struct {
	*receiver
	*sender
	wire io.ReadWriteCloser
}

// Close implements io.Closer.
func (s *watchedSocket) Close() error { return s.wire.Close() }

// CloseWrite ends the sending side, if the connection can do that.
func (s *watchedSocket) CloseWrite() error {
	c, ok := s.wire.(interface{ CloseWrite() error })
	if !ok {
		return http.ErrNotSupported
	}
	return c.CloseWrite()
}

// Goodbye returns the frame that tells the agent that its WebSocket ended because
// of a refusal, once nobody reads or writes it any more. It is nil if the agent
// could not read it: in the middle of another frame.
func (l *Lease) Goodbye(d *ambit.DenyError) []byte {
	if l == nil || l.received == nil || !l.received.flow.whole || len(l.received.ready) > 0 {
		return nil
	}
	const policyViolation = 1008 // RFC 6455 section 7.4.1
	return wsframe.AppendClose(nil, policyViolation, "ambit: "+d.Verdict.Reason.Code)
}

// sender is the way from the agent to the host.
type sender struct {
	u    *use
	dst  io.Writer
	flow flow
	err  error // it is over

	first   bool // the first message is still to come, or under way, and may be filled
	op      wsframe.Opcode
	message []byte // of it: unmasked
	out     []byte // frames that are ready
}

// Write takes what the agent sends. An error is over and done with: a
// *ambit.DenyError is a refusal, see [Lease.Refusal].
func (s *sender) Write(p []byte) (n int, err error) {
	for n < len(p) && s.err == nil {
		piece := p[n:min(len(p), n+32<<10)]
		var took int
		if took, s.err = s.take(piece); s.err == nil {
			n += took
		}
	}
	var refused *ambit.DenyError
	switch {
	case s.err == nil:
		return n, nil
	case errors.As(s.err, &refused):
	case wsframe.IsError(s.err), errors.Is(s.err, errBehind):
		refused = s.u.deny(ambit.Reason{
			Code: "bad-frame", Text: "the WebSocket was cut: " + s.err.Error(), Remedy: "this is for the program that sent it to mend; no rule can allow it",
		})
		s.err = refused
	}
	if refused != nil {
		s.u.lease.refused.CompareAndSwap(nil, refused)
	}
	return n, s.err
}

// take looks at a piece, and sends what may go on.
func (s *sender) take(p []byte) (n int, err error) {
	var ready []byte
	if s.first {
		defer func() { clear(s.out) }() // a mask hides nothing from who reads it, too
		if n, err = s.hold(p); err == nil {
			ready = s.out
		}
	} else {
		n = len(p)
		ready, err = s.flow.pass(p)
	}
	if s.u.lease.over.Load() {
		return 0, errRevoked
	}
	if err != nil || len(ready) == 0 {
		return n, err
	}
	_, err = s.dst.Write(ready)
	return n, err
}

// look begins a message, with the references of the manifest that is in force
// now.
func (s *sender) look() look {
	st := s.u.v.state.Load()
	return &refLook{s.u, st, st.references.Scan()}
}

// refLook looks for references.
type refLook struct {
	u    *use
	st   *state
	scan multimatch.Scan
}

func (l *refLook) next(b []byte, i int) (int, error) {
	if hit, found := l.scan.Next(b, i); found {
		return 0, l.u.deny(l.st.owners[hit.Pattern].misplaced(l.u.site(), l.u.part()))
	}
	return l.scan.Pending(), nil
}

// hold reads on up to the end of the first message, and puts into s.out what may
// go on: control frames, and then the message in one frame.
func (s *sender) hold(p []byte) (n int, err error) {
	s.out = s.out[:0]
	for n < len(p) && s.first {
		f, m, err := s.flow.frames.Next(p[n:])
		if err != nil {
			return n, err
		}
		n += m
		if f.Header == nil {
			break
		}
		if f.Header.Op.Control() {
			err = s.holdControl(f)
		} else {
			err = s.holdData(f)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *sender) holdControl(f wsframe.Piece) error {
	c := s.flow.control
	if f.Head {
		c = c[:0]
	}
	c = append(c, f.Payload...)
	s.flow.control = c
	if !f.End {
		return nil
	}
	wsframe.Xor(c, f.Header.Mask, 0)
	if len(c) > 0 {
		if _, err := s.look().next(c, 0); err != nil {
			return err
		}
	}
	s.out = wsframe.Append(s.out, wsframe.Client, f.Header.Op, c)
	return nil
}

func (s *sender) holdData(f wsframe.Piece) error {
	if f.Head {
		if f.Header.Op != wsframe.Continuation {
			s.op = f.Header.Op
		}
		if f.Header.Length > maxFirst-int64(len(s.message)) {
			return s.u.deny(ambit.Reason{
				Code: "body-too-long", Text: "the first message of the WebSocket is longer than 64 KiB, and it would have to be read before it leaves: the host takes a credential in it",
				Remedy: "send the credential's reference in a first message of its own",
			})
		}
	}
	from := len(s.message)
	s.message = append(s.message, f.Payload...)
	wsframe.Xor(s.message[from:], f.Header.Mask, f.Offset)
	if !f.End || !f.Header.Fin {
		return nil
	}
	s.first = false
	text, err := s.fill()
	if err != nil {
		return err
	}
	s.out = wsframe.Append(s.out, wsframe.Client, s.op, text)
	clear(text)
	s.message = nil
	return nil
}

// fill looks at the first message and puts the real values in.
func (s *sender) fill() ([]byte, error) {
	u, spots := s.u, s.u.plan.socketSpots()
	m := media{kind: jsonBody, stated: true}
	if _, err := jsonFields(s.message); err != nil {
		m.kind = opaqueBody
	}
	edits, reason := u.inspect(s.message, m, nil, spots)
	if reason == nil && m.kind == opaqueBody {
		reason = u.foreignText(s.message, spots)
	}
	if reason != nil {
		return nil, u.deny(*reason)
	}
	if len(edits) == 0 {
		return s.message, nil
	}
	defer u.wipe() // those of Use were wiped already
	text, err := u.fillBody(s.message, m, edits)
	if err != nil {
		return nil, err
	}
	if err := u.renew(); err != nil {
		clear(text)
		return nil, err
	}
	return text, nil
}

// foreignText looks for a credential of somebody else's in what is not quite
// JSON: a server may be less strict.
func (u *use) foreignText(b []byte, spots []*spot) *ambit.Reason {
	if !u.plan.site.bound.Require {
		return nil
	}
	names := make(map[string]bool)
	for _, s := range spots {
		names[foldParam(s.Name[strings.LastIndexByte(s.Name, '/')+1:])] = true
	}
	if name := (&jsonWatch{names: names}).next(b); name != "" {
		return u.plan.site.bound.foreignAt(name)
	}
	return nil
}

// renew has answers scrubbed of the values as they are now, which may have been
// refreshed since the WebSocket was opened.
func (u *use) renew() error {
	conn := u.v.connected(u.plan.site.bound)
	if conn == nil {
		return u.deny(u.v.notConnected(u.plan.site.bound))
	}
	if u.lease.scrub != nil && u.lease.scrub.conn == conn {
		return nil
	}
	before := u.lease.scrub
	if err := u.watchAnswer(); err != nil {
		return err
	}
	if before != nil {
		u.lease.older = append(u.lease.older, before)
	}
	u.lease.newest.Store(u.lease.scrub)
	return nil
}

// receiver is the way from the host to the agent.
type receiver struct {
	l     *Lease
	src   io.Reader
	flow  flow
	ready []byte // what may go on, and did not fit
	err   error
}

// Read implements io.Reader.
func (r *receiver) Read(p []byte) (n int, err error) {
	for len(r.ready) == 0 && r.err == nil && len(p) > 0 {
		n, r.err = r.src.Read(p)
		ready, bad := r.flow.pass(p[:n])
		if bad != nil {
			r.err = bad
			break
		}
		r.ready = ready
	}
	if r.l.over.Load() {
		clear(p)
		return 0, errRevoked
	}
	if len(r.ready) > 0 {
		n = copy(p, r.ready)
		r.ready = r.ready[n:]
		return n, nil
	}
	return 0, r.err
}

// look begins a message.
func (r *receiver) look() look { return &secretLook{l: r.l} }

// secretLook takes real values out.
type secretLook struct {
	l     *Lease
	of    *scrubber
	piece *scrub.Pieces
}

func (l *secretLook) next(b []byte, i int) (int, error) {
	if now := l.l.newest.Load(); now != l.of {
		l.of, l.piece, i = now, now.Pieces(), 0
	}
	return l.piece.Next(b, i)
}
