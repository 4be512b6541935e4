package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
	"ambit/vault/sign"
)

// Why there is no value to use.
var (
	// ErrNotConnected is an account that nobody connected, or that was revoked.
	ErrNotConnected = errors.New("the account is not connected")
	// ErrReconnect is a connection that the service ended: the person must
	// connect the account again.
	ErrReconnect = errors.New("the account must be connected again")
	// errNotGiven is a value that the connection does not have: an optional one,
	// or one of another way to connect.
	errNotGiven = errors.New("the connection has no such value")
)

// failingLong is after how long a token that cannot be refreshed is an alert.
const failingLong = 10 * time.Minute

// connected returns the connection of a binding as it is now; nil if there is
// none, or if it was given for another account.
func (v *Vault) connected(b *bound) *connection {
	c := v.store.connection(b.Name)
	if c == nil || !c.isFor(b) {
		return nil
	}
	return c
}

// value returns a copy of a real value, which the caller wipes: of a one-time
// code, that of now; of a way's token, one that is good now. The error is
// ErrNotConnected, ErrReconnect or errNotGiven, or says what failed.
func (v *Vault) value(ctx context.Context, b *bound, secret string) (secretbytes.Bytes, error) {
	c := v.connected(b)
	switch {
	case c == nil:
		return secretbytes.Bytes{}, ErrNotConnected
	case c.damage != nil:
		return secretbytes.Bytes{}, fmt.Errorf("%w: %w", ErrNotConnected, c.damage)
	case c.Reconnect != "":
		return secretbytes.Bytes{}, fmt.Errorf("%w: %s", ErrReconnect, c.Reconnect)
	case !c.has(secret):
		return secretbytes.Bytes{}, fmt.Errorf("%w: %s", errNotGiven, secret)
	case secret == c.Yields:
		return v.token(ctx, c)
	}
	value, err := v.store.open(c, secret)
	if err != nil || kindOf(b.Binding, secret) != connector.TOTP {
		return value, err
	}
	defer value.Wipe()
	seed, err := sign.ParseTOTP(value)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	defer seed.Wipe()
	return seed.Code(v.now())
}

func (v *Vault) token(ctx context.Context, c *connection) (secretbytes.Bytes, error) {
	k, err := v.keep(c)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	token, err := k.refresher.Access(ctx)
	var refused *oauth.Error
	switch {
	case errors.Is(err, oauth.ErrClosed):
		return secretbytes.Bytes{}, ErrNotConnected
	case errors.As(err, &refused) && refused.Permanent:
		return secretbytes.Bytes{}, fmt.Errorf("%w: %w", ErrReconnect, err)
	}
	return token, err
}

// refused says that the host answered 401 to the token of a connection: the next
// request gets another. A credential that a person gave is not changed by it, nor
// is a token for which no other can be had without the person: a host says 401
// for other reasons, too, and must not be able to end a connection with it.
func (v *Vault) refused(b *bound) {
	c := v.connected(b)
	if c == nil || c.Yields == "" || c.Reconnect != "" {
		return
	}
	if alone := c.Flow != connector.FlowCode && c.Flow != connector.FlowDevice; alone || c.has(refreshField) {
		if k, err := v.keep(c); err == nil {
			k.refresher.Expire()
		}
	}
}

func kindOf(b *connector.Binding, secret string) connector.SecretKind {
	for i := range b.Secrets {
		if b.Secrets[i].Name == secret {
			return b.Secrets[i].Kind
		}
	}
	return connector.Text
}

// isFor says whether the connection was made for what the binding is now: the
// same account of the same service and, if the manifest names the hosts, none
// that the person did not see.
func (c *connection) isFor(b *bound) bool {
	return c.damage != nil || c.Connector == b.Connector.Name && c.Account == b.Account && within(b.own, c.Hosts)
}

// tokens are the tokens that are kept fresh. The zero tokens is ready.
type tokens struct {
	mu     sync.Mutex // held for moments
	kept   map[string]*keeper
	closed bool
	wg     sync.WaitGroup
}

// keeper keeps the token of one connection fresh, from Connect to Revoke.
type keeper struct {
	life      string // of the connection
	refresher *oauth.Refresher
	event     atomic.Uint64 // the last request for a token in the log
}

// keep returns the keeper of a connection, and starts it if there is none.
func (v *Vault) keep(c *connection) (*keeper, error) {
	t := &v.tokens
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.kept[c.name]; k != nil && k.life == c.Life {
		return k, nil
	}
	// Whoever ends a connection does so in the store first, and then here.
	if now := v.store.connection(c.name); t.closed || now == nil || now.Life != c.Life {
		return nil, ErrNotConnected
	}
	if old := t.kept[c.name]; old != nil { // of the connection that was replaced
		t.wg.Go(old.refresher.Close)
	}
	k := &keeper{life: c.Life}
	r, err := oauth.NewRefresher(oauth.RefresherConfig{
		Load:  func(context.Context) (*oauth.Token, error) { return v.loadToken(c.name, c.Life) },
		Fetch: func(ctx context.Context, r secretbytes.Bytes) (*oauth.Token, error) { return v.refresh(ctx, k, c, r) },
		Store: func(ctx context.Context, t *oauth.Token) error {
			return v.storeToken(context.WithoutCancel(ctx), c.name, c.Life, t) // a token that came must not be lost
		},
		Notify: func(s oauth.State) { v.watch(k, c.name, s) },
		Now:    v.now,
	})
	if err != nil {
		return nil, err
	}
	k.refresher = r
	if t.kept == nil {
		t.kept = make(map[string]*keeper)
	}
	t.kept[c.name] = k
	t.wg.Go(func() { _ = r.Run(context.Background()) }) // until it is closed, or the person is needed
	return k, nil
}

// follow starts the keepers of all connections that are bound, and ends those of
// the others. The caller holds mu.
func (v *Vault) follow(st *state) {
	wanted := make(map[string]bool)
	for _, b := range st.bound {
		if v.followOne(b) {
			wanted[b.Name] = true
		}
	}
	for name := range v.tokens.all() {
		if !wanted[name] {
			v.tokens.end(name)
		}
	}
}

// followOne says whether a connection has a token to keep fresh, and starts its
// keeper if there is none.
func (v *Vault) followOne(b *bound) bool {
	c := v.connected(b)
	if c == nil || c.damage != nil || c.Yields == "" || c.Reconnect != "" {
		return false
	}
	if _, err := v.keep(c); err != nil && !errors.Is(err, ErrNotConnected) {
		v.logger.Error("the token of a connection is not kept fresh", slog.String("connection", b.Name), slog.Any("err", err))
	}
	return true
}

func (t *tokens) all() map[string]*keeper {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.kept)
}

// state returns how the token of a connection fares.
func (t *tokens) state(name string) (oauth.State, bool) {
	t.mu.Lock()
	k := t.kept[name]
	t.mu.Unlock()
	if k == nil {
		return oauth.State{}, false
	}
	return k.refresher.State(), true
}

// end ends the refreshing of a connection, and waits for what is under way.
func (t *tokens) end(name string) {
	t.mu.Lock()
	k := t.kept[name]
	delete(t.kept, name)
	t.mu.Unlock()
	if k != nil {
		k.refresher.Close()
	}
}

func (t *tokens) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for name := range t.all() {
		t.end(name)
	}
	t.wg.Wait()
}

// alive returns the connection if it is still the one with that life.
func (v *Vault) alive(name, life string) (*connection, error) {
	c := v.store.connection(name)
	if c == nil || c.Life != life {
		return nil, ErrNotConnected
	}
	return c, nil
}

func (v *Vault) loadToken(name, life string) (*oauth.Token, error) {
	c, err := v.alive(name, life)
	if err != nil {
		return nil, err
	}
	t := &oauth.Token{Expires: c.Expires}
	if t.Access, err = v.store.open(c, c.Yields); err != nil {
		return nil, err
	}
	if c.has(refreshField) {
		if t.Refresh, err = v.store.open(c, refreshField); err != nil {
			t.Wipe()
			return nil, err
		}
	}
	return t, nil
}

func (v *Vault) storeToken(ctx context.Context, name, life string, t *oauth.Token) error {
	return v.store.change(ctx, name, func(old *connection) (*connection, error) {
		if old == nil || old.Life != life {
			return nil, ErrNotConnected
		}
		d := old.description
		d.Expires = t.Expires
		values := map[string]secretbytes.Bytes{d.Yields: t.Access}
		if t.Refresh.Len() > 0 {
			values[refreshField] = t.Refresh
		}
		return v.store.sealed(name, old, d, values)
	})
}

// refresh asks the service for the next token of a connection. A refusal for
// good is stored, so that it holds after a restart.
func (v *Vault) refresh(ctx context.Context, k *keeper, c *connection, refresh secretbytes.Bytes) (*oauth.Token, error) {
	b := v.state.Load().named(c.name)
	if b == nil || !c.isFor(b) {
		return nil, ErrNotConnected
	}
	way := wayNamed(b.Binding, c.Way)
	if way == nil {
		return nil, &oauth.Error{Permanent: true, Reason: "connector " + b.Connector.Name + " has no way " + c.Way + " any more"}
	}
	a := &account{Binding: b.Binding, way: way, flow: c.Flow, by: ambit.PrincipalAmbit, value: func(field string) (secretbytes.Bytes, error) {
		now, err := v.alive(c.name, c.Life)
		if err != nil {
			return secretbytes.Bytes{}, err
		}
		if !now.has(field) {
			return secretbytes.Bytes{}, errNotGiven
		}
		return v.store.open(now, field)
	}, logged: k.event.Store}
	t, err := v.fetch(ctx, a, refresh)
	var final *oauth.Error
	if errors.As(err, &final) && final.Permanent {
		if err := v.mustReconnect(context.WithoutCancel(ctx), c.name, c.Life, final.Reason); err != nil {
			v.logger.Error("that an account must be connected again was not stored", slog.String("connection", c.name), slog.Any("err", err))
		}
	}
	return t, err
}

func (v *Vault) mustReconnect(ctx context.Context, name, life, reason string) error {
	return v.store.change(ctx, name, func(old *connection) (*connection, error) {
		if old == nil || old.Life != life {
			return nil, ErrNotConnected
		}
		d := old.description
		d.Reconnect = reason
		return v.store.sealed(name, old, d, nil)
	})
}

// watch makes an alert of a connection that a person should look at.
func (v *Vault) watch(k *keeper, name string, s oauth.State) {
	switch {
	case s.Health == oauth.ReconnectNeeded:
		v.config.Alerts.Raise(ambit.High, "reconnect-needed "+name,
			fmt.Sprintf("%s: the service ended the connection, and the account must be connected again: %v", name, s.Err), k.event.Load())
	case s.Health == oauth.Failing && v.now().Sub(s.Since) >= failingLong:
		v.config.Alerts.Raise(ambit.Medium, "refresh-failing "+name,
			fmt.Sprintf("%s: no new token since %s: %v", name, s.Since.UTC().Format(time.DateTime), s.Err), k.event.Load())
	}
}
