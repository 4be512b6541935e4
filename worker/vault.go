package worker

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ambit"
	"ambit/connector"
	"ambit/control"
	"ambit/egress"
	"ambit/internal/secretbytes"
	"ambit/vault"
	"ambit/vault/oauth"
)

// openVault opens the agent's vault with the connections of the manifest.
// References are derived from the data key, which is the same for the agent's
// life; the vault owns the vault keys from now on.
func (w *Worker) openVault(ctx context.Context, roots *x509.CertPool, bindings []*connector.Binding) error {
	ref, err := hkdf.Key(sha256.New, w.config.Data, nil, "ambit references v1", 32)
	if err != nil {
		return fmt.Errorf("deriving the key of references: %w", err)
	}
	w.vault, err = vault.Open(ctx, vault.Config{
		DB: w.db, Agent: w.config.Agent, Keys: vaultKeys(w.config.Vault), Ref: secretbytes.New(ref), Log: w.events, Alerts: w.rules, Logger: w.log,
		Transport: egress.HelperTransport(ctx, egress.HelperConfig{
			Endpoints: func() egress.Endpoints { return w.policy.Load() },
			Resolver:  &net.Resolver{PreferGo: true}, Roots: roots, Never: w.config.Never,
		}),
	})
	if err != nil {
		return err
	}
	return w.vault.Bind(bindings)
}

// vaultKeys share the bytes of keys.
func vaultKeys(keys []control.VaultKey) []vault.Key {
	out := make([]vault.Key, len(keys))
	for i, k := range keys {
		out[i] = vault.Key{Version: k.Version, Bytes: secretbytes.New(k.Key)}
	}
	return out
}

// rekey takes every version of the agent's vault key. All credentials are sealed
// with the newest when it returns.
func (w *Worker) rekey(ctx context.Context, keys []control.VaultKey) (control.Rekeyed, error) {
	defer func() {
		for _, k := range keys {
			clear(k.Key)
		}
	}()
	if err := control.CheckVaultKeys(keys); err != nil {
		return control.Rekeyed{}, err
	}
	done := control.Rekeyed{Version: keys[len(keys)-1].Version}
	if err := w.vault.Rekey(ctx, vaultKeys(keys), ambit.PrincipalAmbit); err != nil {
		return control.Rekeyed{}, err
	}
	for _, c := range w.vault.Connections() {
		if c.Status != vault.StatusNotConnected {
			done.Credentials++
		}
	}
	return done, nil
}

func (w *Worker) connections(context.Context, struct{}) ([]vault.Connection, error) {
	return w.vault.Connections(), nil
}

func (w *Worker) connection(_ context.Context, name string) (control.Connection, error) {
	ways, err := w.vault.Ways(name)
	if err != nil {
		return control.Connection{}, statusOf(err)
	}
	out := control.Connection{Ways: ways}
	if l := w.vault.Login(name); l.State != "" {
		out.Login = &l
	}
	for _, c := range w.vault.Connections() {
		if c.Name == name {
			out.Connection = c
		}
	}
	return out, nil
}

func (w *Worker) connect(ctx context.Context, q control.Connect) (vault.Connection, error) {
	defer q.Wipe()
	request, err := w.request(q)
	if err != nil {
		return vault.Connection{}, err
	}
	c, err := w.vault.Connect(ctx, request, q.By)
	if err == nil {
		w.connected(q.Name)
	}
	return c, statusOf(err)
}

func (w *Worker) startOAuth(ctx context.Context, q control.Connect) (vault.StartedOAuth, error) {
	defer q.Wipe()
	request, err := w.request(q)
	if err != nil {
		return vault.StartedOAuth{}, err
	}
	started, err := w.vault.StartOAuth(ctx, request, q.By)
	if err != nil {
		return vault.StartedOAuth{}, statusOf(err)
	}
	return *started, nil
}

// request is q for the vault, which owns the values from now on. A name that no
// field has is not repeated: it may be a part of a secret.
func (w *Worker) request(q control.Connect) (vault.ConnectRequest, error) {
	r := vault.ConnectRequest{Name: q.Name, Way: q.Way, Flow: q.Flow, RedirectURL: q.RedirectURL, Fields: make(map[string]secretbytes.Bytes, len(q.Fields))}
	ways, err := w.vault.Ways(q.Name)
	if err != nil {
		return r, statusOf(err)
	}
	i := slices.IndexFunc(ways, func(way vault.Way) bool { return q.Way == "" || way.Name == q.Way })
	for name, value := range q.Fields {
		if i >= 0 && !slices.ContainsFunc(ways[i].Fields, func(f vault.Field) bool { return f.Name == name }) {
			return r, fmt.Errorf("a field is given that the way %s does not have; its fields are: %s", ways[i].Name, fieldNames(ways[i]))
		}
		r.Fields[name] = secretbytes.New(value)
	}
	return r, nil
}

func fieldNames(w vault.Way) string {
	names := make([]string, len(w.Fields))
	for i, f := range w.Fields {
		names[i] = f.Name
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (w *Worker) finishOAuth(ctx context.Context, q control.FinishOAuth) (vault.Connection, error) {
	callback, err := url.ParseQuery(q.Query)
	if err != nil {
		return vault.Connection{}, errors.New("what the browser came back with cannot be read") // the error would quote it
	}
	c, err := w.vault.FinishOAuth(ctx, q.Name, callback, q.By)
	if err == nil {
		w.connected(q.Name)
	}
	return c, statusOf(err)
}

func (w *Worker) revoke(ctx context.Context, q control.Revoke) ([]vault.Revoked, error) {
	ended, err := w.vault.Revoke(ctx, q.Name, q.By)
	if ended == nil {
		ended = []vault.Revoked{}
	}
	return ended, statusOf(err)
}

func (w *Worker) placement(context.Context, struct{}) (vault.Placement, error) {
	return w.vault.Placement(), nil
}

// statusError is an error with an HTTP status of its own.
type statusError struct {
	status int
	error
}

func statusOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vault.ErrUnknown), errors.Is(err, vault.ErrNotConnected), errors.Is(err, vault.ErrNoLogin):
		return statusError{http.StatusNotFound, err}
	case errors.Is(err, vault.ErrTooManyLogins):
		return statusError{http.StatusTooManyRequests, err}
	case errors.Is(err, oauth.ErrState):
		return statusError{http.StatusForbidden, err}
	}
	return err
}
