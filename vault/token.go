package vault

import (
	"context"
	"errors"
	"fmt"

	"ambit/connector"
	"ambit/internal/secretbytes"
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

// connected returns the connection of a binding as it is now; nil if there is
// none, or if it was given for another account.
func (v *Vault) connected(b *bound) *connection {
	c := v.store.connection(b.Name)
	if c == nil || !c.isFor(b.Binding) {
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
	case !c.has(secret):
		return secretbytes.Bytes{}, fmt.Errorf("%w: %s", errNotGiven, secret)
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

func kindOf(b *connector.Binding, secret string) connector.SecretKind {
	for i := range b.Secrets {
		if b.Secrets[i].Name == secret {
			return b.Secrets[i].Kind
		}
	}
	return connector.Text
}

// isFor says whether the connection was made for what the binding is now: the
// same account of the same service and, if the manifest names the hosts, these.
func (c *connection) isFor(b *connector.Binding) bool {
	return c.damage != nil || c.Connector == b.Connector.Name && c.Account == b.Account && equalHosts(c.Hosts, ownHosts(b))
}
