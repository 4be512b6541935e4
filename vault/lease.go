package vault

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"ambit"
)

// leases knows what is under way with which connection, and what is kept in
// memory for it. The zero leases is ready. It is safe for concurrent use.
type leases struct {
	mu         sync.Mutex                       // held for moments, but for what cut calls
	of         map[string]map[*running]struct{} // by connection
	scrubbers  map[string]*scrubber             // by connection
	identities map[identityKey]*Identity
}

// running is one request that uses a credential.
type running struct {
	over atomic.Bool           // the connection ended
	cut  func()                // called once when it does; nil for nobody
	set  map[*running]struct{} // that it is in
}

// add registers what ends when the connection does. r.cut is called at most once,
// and not after remove returned. It must not block, nor call remove or add.
func (l *leases) add(name string, r *running) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[string]map[*running]struct{})
	}
	set := l.of[name]
	if set == nil {
		set = make(map[*running]struct{})
		l.of[name] = set
	}
	r.set = set
	set[r] = struct{}{}
}

// remove takes r out. The set stays: there are as many as connections.
func (l *leases) remove(r *running) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(r.set, r)
}

// cut ends everything that runs on the connection, before it returns.
func (l *leases) cut(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutSet(name)
}

// cutAll ends everything.
func (l *leases) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.of {
		l.cutSet(name)
	}
	for name := range l.scrubbers {
		l.forget(name)
	}
	for _, i := range l.identities {
		l.endIdentity(i)
	}
}

func (l *leases) cutSet(name string) {
	l.forget(name)
	l.endIdentities(name, nil)
	set := l.of[name]
	delete(l.of, name)
	for r := range set {
		delete(set, r)
		r.over.Store(true)
		if r.cut != nil {
			r.cut()
		}
	}
}

// Lease is a request that uses a connection, or whose body is watched. All
// methods of a nil Lease do nothing.
type Lease struct {
	bound    *bound
	vault    *Vault
	site     *site  // of the request; nil on a host without a connection
	host     string // of the request
	event    uint64 // of the request in the log
	echoed   atomic.Int64
	running              // until Done
	watches  bool        // something may be refused later
	carries  bool        // the request has the credential in it
	scrub    *scrubber   // nil if there is nothing to take out of the answer
	older    []*scrubber // that were in place of scrub before
	identity *Identity   // nil if no certificate is shown

	// Of a WebSocket:
	socket   *use                     // nil if it is none
	received *receiver                // nil until it is open
	newest   atomic.Pointer[scrubber] // scrub, for the receiver

	refused atomic.Pointer[ambit.DenyError]
	once    sync.Once
}

// errRevoked is what whoever reads or sends finds when the connection ended.
var errRevoked = errors.New("the connection was revoked or replaced while this was under way")

// revoked refuses an answer whose connection ended.
func revoked() *ambit.DenyError {
	return denied("revoked", errRevoked.Error(), "ask a person whether the account is to be connected again")
}

// start registers the lease.
func (l *Lease) start(v *Vault, b *bound, cut func()) {
	l.vault, l.bound, l.cut = v, b, cut
	v.leases.add(b.Name, &l.running)
}

// Done ends the lease. Whatever is read from the answer afterwards is an error.
func (l *Lease) Done() {
	if l == nil {
		return
	}
	l.once.Do(func() {
		l.over.Store(true)
		if l.set != nil {
			l.vault.leases.remove(&l.running)
		}
		if l.scrub != nil {
			l.vault.leases.release(l.scrub)
		}
		if l.identity != nil {
			l.vault.leases.releaseIdentity(l.identity)
		}
		for _, s := range l.older {
			l.vault.leases.release(s)
		}
		if n := l.echoed.Load(); n > 0 {
			l.vault.config.Alerts.Raise(ambit.Low, "credential-echoed "+l.bound.Name,
				fmt.Sprintf("%s: %s sent back the credential, or one that it handed back before, in %d places of an answer; the agent got it crossed out", l.bound.Name, l.host, n), l.event)
		}
	})
}

// Refusal returns why the vault refused the request while it was being sent,
// where err is what the transport returned for it: something in the body that
// may not leave. It is nil if err is about something else.
func (l *Lease) Refusal(err error) *ambit.DenyError {
	if l == nil || err == nil {
		return nil
	}
	if d := l.refused.Load(); d != nil {
		return d
	}
	var d *ambit.DenyError
	if errors.As(err, &d) {
		return d
	}
	if l.bound != nil && isSigning(err) {
		return &ambit.DenyError{Verdict: ambit.Verdict{Rule: l.bound.rule(), Reason: signatureRefused(l.bound, err)}}
	}
	return nil
}

// refuse ends a body that may not go on.
func (w *watchedBody) refuse(d *ambit.DenyError) {
	w.u.lease.refused.CompareAndSwap(nil, d)
	w.ready, w.tail, w.err = nil, nil, d
}
