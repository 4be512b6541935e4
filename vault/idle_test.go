package vault

import (
	"testing"
	"testing/synctest"
	"time"

	"ambit/connector"
)

// An Identity that nobody uses ends after a while, so that no key stays in memory
// for a request of last week; one that is used does not.
func TestIdentityThatNobodyUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l leases
		key, version := identityKey{"bank", "certificate", "key"}, identityVersion{"life", 1, 1}
		i := l.keepIdentity(&Identity{key: key, version: version, ended: make(chan struct{})})
		time.Sleep(10 * keptFor)
		l.releaseIdentity(i)
		time.Sleep(keptFor - time.Second)
		if l.identity(key, version) != i {
			t.Fatal("it ended early")
		}
		time.Sleep(10 * keptFor)
		if i.isOver() {
			t.Fatal("it ended while it was used")
		}
		l.releaseIdentity(i)
		time.Sleep(keptFor + time.Second)
		synctest.Wait()
		if !i.isOver() || l.identity(key, version) != nil || len(l.identities) > 0 {
			t.Error("it goes on")
		}
	})
}

// A token that is refreshed beside it does not end an Identity: its connections
// would be closed for nothing.
func TestIdentityOutlivesARefresh(t *testing.T) {
	d := newDesk(t, "{name: mtls, as: bank, hosts: [bank.example]}")
	key, certificate := pemKey(t)
	d.connect("bank", "", "certificate", certificate, "private_key", key)
	d.canary = d.canary[1:] // the certificate is none
	b := d.v.state.Load().named("bank")
	identify := func() *Identity {
		u := &use{v: d.v, ctx: t.Context(), st: d.v.state.Load(), plan: &Plan{site: b.sites[0], identity: &b.sites[0].ways[0]}, lease: &Lease{vault: d.v}}
		defer u.wipe()
		if err := u.identify(); err != nil {
			t.Fatal(err)
		}
		u.lease.Done()
		return u.lease.Identity()
	}
	if b.sites[0].ways[0].Scheme != connector.MTLS {
		t.Fatal("another way")
	}
	first := identify()
	err := d.v.store.change(t.Context(), "bank", func(old *connection) (*connection, error) {
		next := old.description
		next.Expires = time.Now()
		return d.v.store.sealed("bank", old, next, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if identify() != first || first.isOver() {
		t.Error("it ended")
	}
}
