package vault

import (
	"crypto/tls"
	"sync"
	"time"

	"ambit"
	"ambit/connector"
)

// Identity is a client certificate with its key, of one connection as it is
// stored. Two requests have the same Identity only if the certificate, the key and
// the connection are the same, so that whoever keeps network connections open
// keeps them by Identity. It ends when the connection is revoked or replaced, and
// a minute after the last lease with it is done. The key is then left to the
// garbage collector: crypto/tls needs it in a form that cannot be wiped.
type Identity struct {
	certificate *tls.Certificate
	key         identityKey
	version     identityVersion
	ended       chan struct{}
	end         sync.Once

	// Of leases.mu:
	users int
	idle  *time.Timer // nil while it has users
}

// identityKey says which certificate of which connection it is.
type identityKey struct{ connection, certificate, key string }

// identityVersion says as which it is stored. A token that is refreshed beside it
// changes neither.
type identityVersion struct {
	life             string
	certificate, key uint64
}

func (k identityKey) version(c *connection) identityVersion {
	return identityVersion{c.Life, c.Fields[k.certificate], c.Fields[k.key]}
}

// Certificate is what is shown to the host; it must not be changed.
func (i *Identity) Certificate() *tls.Certificate { return i.certificate }

// Ended is closed when the Identity ends: nothing new may be sent with it, and
// what is idle is to be closed. What is under way is cut by its lease, if it must
// be.
func (i *Identity) Ended() <-chan struct{} { return i.ended }

// String implements fmt.Stringer; no part of the key is in it.
func (i *Identity) String() string { return "client certificate of the connection " + i.key.connection }

// GoString implements fmt.GoStringer; no part of the key is in it.
func (i *Identity) GoString() string { return i.String() }

// Identity returns the client certificate that the request must be sent with, nil
// for none. A network connection that was opened without it, or with another one,
// must not be used.
func (l *Lease) Identity() *Identity {
	if l == nil {
		return nil
	}
	return l.identity
}

// identify gets the certificate that the plan says.
func (u *use) identify() error {
	w := u.plan.identity
	if w == nil {
		return nil
	}
	b := u.plan.site.bound
	// The values go unused; it is about the reason why there is none.
	if err := u.open([]string{w.MTLS.Certificate, w.MTLS.Key}); err != nil {
		return err
	}
	conn := u.v.connected(b)
	if conn == nil {
		return u.deny(u.v.notConnected(b))
	}
	key := identityKey{b.Name, w.MTLS.Certificate, w.MTLS.Key}
	id := u.v.leases.identity(key, key.version(conn))
	if id == nil {
		certificate, err := u.v.certificate(conn, w.MTLS)
		if err != nil { // which could have the key in it
			return u.unusable("is no certificate with its key")
		}
		id = u.v.leases.keepIdentity(&Identity{certificate: certificate, key: key, version: key.version(conn), ended: make(chan struct{})})
	}
	u.lease.identity = id
	// Whoever ends or replaces a connection does so in the store first, and ends
	// its identities then: either that is seen here, or this Identity is seen there.
	switch now := u.v.connected(b); {
	case now == nil:
		id.over()
		return u.deny(u.v.notConnected(b))
	case key.version(now) != id.version:
		id.over()
		return u.deny(ambit.Reason{Code: "policy-changed", Text: "the connection " + quote(b.Name) + " changed while this was decided", Remedy: "send it again"})
	}
	return nil
}

// certificate opens a pair.
func (v *Vault) certificate(conn *connection, a *connector.MTLSAuth) (*tls.Certificate, error) {
	chain, err := v.store.open(conn, a.Certificate)
	if err != nil {
		return nil, err
	}
	defer chain.Wipe()
	key, err := v.store.open(conn, a.Key)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	pair, err := tls.X509KeyPair(chain.Reveal(), key.Reveal())
	return &pair, err
}

// over ends the Identity.
func (i *Identity) over() { i.end.Do(func() { close(i.ended) }) }

func (i *Identity) isOver() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}

// identity returns the Identity that there is, with one user more; nil if there
// is none of that version.
func (l *leases) identity(k identityKey, v identityVersion) *Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.identities[k]
	if i == nil || i.version != v || i.isOver() {
		return nil
	}
	return l.useIdentity(i)
}

func (l *leases) useIdentity(i *Identity) *Identity {
	i.users++
	if i.idle != nil {
		i.idle.Stop()
		i.idle = nil
	}
	return i
}

// keepIdentity keeps a new Identity in place of the one that there is, unless
// somebody else has made the same meanwhile, and returns it with one user more.
func (l *leases) keepIdentity(i *Identity) *Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.identities[i.key]; old != nil {
		if old.version == i.version && !old.isOver() {
			return l.useIdentity(old)
		}
		old.over()
	}
	if l.identities == nil {
		l.identities = make(map[identityKey]*Identity)
	}
	l.identities[i.key] = i
	return l.useIdentity(i)
}

// releaseIdentity counts a user out.
func (l *leases) releaseIdentity(i *Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i.users--; i.users > 0 || i.isOver() {
		return
	}
	i.idle = time.AfterFunc(keptFor, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if i.users == 0 {
			l.endIdentity(i)
		}
	})
}

// endIdentity ends an Identity. The caller holds mu.
func (l *leases) endIdentity(i *Identity) {
	if l.identities[i.key] == i {
		delete(l.identities, i.key)
	}
	if i.idle != nil {
		i.idle.Stop()
	}
	i.over()
}

// endIdentities ends those of a connection that are not of what is stored now;
// all of them if nothing is. The caller holds mu.
func (l *leases) endIdentities(name string, now *connection) {
	for k, i := range l.identities {
		if k.connection == name && (now == nil || k.version(now) != i.version) {
			l.endIdentity(i)
		}
	}
}

// replaced is told when something else was stored for a connection.
func (l *leases) replaced(name string, now *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endIdentities(name, now)
}
