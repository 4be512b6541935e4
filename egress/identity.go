package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"ambit/vault"
)

// badge is what is sent with one client certificate under one policy: its
// transports are for nothing else, and nothing else is for it. Once its identity
// or the policy is over, nothing that is idle stays open, and the rest is closed
// with the last request.
type badge struct {
	up     *upstream
	id     *vault.Identity
	h1, h2 *http.Transport

	mu    sync.Mutex // held for moments
	users int
	over  bool
	conns map[net.Conn]struct{}
}

// badges are those of one policy: at most one for each identity that is in force
// or in use.
type badges struct {
	mu  sync.Mutex // held for moments; taken before that of a badge
	all map[*vault.Identity]*badge
}

// badge returns that of an identity with one user more, who releases it.
func (u *upstream) badge(id *vault.Identity) *badge {
	u.badges.mu.Lock()
	defer u.badges.mu.Unlock()
	if b := u.badges.all[id]; b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.users++
		return b
	}
	b := &badge{up: u, id: id, users: 1, conns: make(map[net.Conn]struct{})}
	b.h1, b.h2 = u.transports(b.dial)
	b.h1.DialContext, b.h2.DialContext = noPlain, noPlain
	if !u.p.begin() { // the proxy is being closed
		b.over = true
		return b
	}
	if u.badges.all == nil {
		u.badges.all = make(map[*vault.Identity]*badge)
	}
	u.badges.all[id] = b
	go func() {
		defer u.p.wg.Done()
		select {
		case <-id.Ended():
		case <-u.ctx.Done():
		}
		b.end()
	}()
	return b
}

var errNoPlain = errors.New("a client certificate is shown over TLS only")

func noPlain(context.Context, string, string) (net.Conn, error) { return nil, errNoPlain }

// dial opens a connection on which the certificate is shown, whatever authorities
// the host says it takes.
func (b *badge) dial(ctx context.Context, addr string, alpn []string) (net.Conn, error) {
	return b.up.dialAs(ctx, addr, alpn, b)
}

// hold keeps a connection with the others, until it is closed.
func (b *badge) hold(c net.Conn) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over && b.users == 0 { // nobody waits for it any more
		c.Close()
		return nil, net.ErrClosed
	}
	h := &heldConn{Conn: c, b: b}
	b.conns[h] = struct{}{}
	return h, nil
}

type heldConn struct {
	net.Conn
	b *badge
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	c.b.mu.Lock()
	delete(c.b.conns, c)
	c.b.mu.Unlock()
	return c.Conn.Close()
}

// end closes what is idle, and keeps nothing from now on.
func (b *badge) end() {
	b.mu.Lock()
	b.over = true
	unused := b.users == 0
	b.mu.Unlock()
	if unused {
		b.close()
		return
	}
	b.h1.CloseIdleConnections()
	b.h2.CloseIdleConnections()
}

// release counts a user out. After the last one of a badge that is over, nothing
// is open.
func (b *badge) release() {
	b.mu.Lock()
	b.users--
	last := b.over && b.users == 0
	b.mu.Unlock()
	if last {
		b.close()
	}
}

func (b *badge) close() {
	b.up.badges.mu.Lock()
	b.mu.Lock()
	if b.users > 0 { // somebody came meanwhile, and closes it at the end
		b.mu.Unlock()
		b.up.badges.mu.Unlock()
		return
	}
	if b.up.badges.all[b.id] == b {
		delete(b.up.badges.all, b.id)
	}
	conns := make([]net.Conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	b.up.badges.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	b.h1.CloseIdleConnections()
	b.h2.CloseIdleConnections()
}

// route returns the transports for a request with this lease, and what is to be
// called when it has ended.
func (u *upstream) route(lease *vault.Lease) (h1, h2 *http.Transport, done func()) {
	id := lease.Identity()
	if id == nil {
		return u.h1, u.h2, func() {}
	}
	b := u.badge(id)
	return b.h1, b.h2, b.release
}
