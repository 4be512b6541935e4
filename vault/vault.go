// Package vault keeps the credentials of one agent and uses them for it. The
// agent holds references: strings that look like credentials and mean nothing
// outside this agent's gate.
//
// The way of a request: [Vault.Examine] finds the references in it, and what
// must not be there, before the gate decides; [Vault.Use] puts the real values in
// or signs, after it has; [Lease.Answer] takes the real values out of what comes
// back, and looks at what goes over a WebSocket. Where a host knows its clients by
// certificate, [Lease.Identity] is what the request is sent with. Revoking a
// connection cuts what is under way with it ([Vault.Revoke]).
//
// A credential is sealed with the agent's vault key (AES-256-GCM) before it is
// stored, bound to agent, connection, field and version, so that a row that is
// copied, swapped or rolled back does not open. It can be written and replaced,
// and no call gives it back.
//
// Crash points: Connect, Revoke and Rekey are one transaction each; a refreshed
// token is stored before it is used. A connection that was revoked is over when
// Revoke returns, even if the service could not be told.
//
// Trust: what the agent sends and what a service answers is hostile. The
// bindings come from the operator's manifest and connector files, which decide
// where a credential goes. Whoever has the vault key and the database has every
// credential.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/gate"
	"ambit/internal/multimatch"
	"ambit/internal/reference"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// Key is one version of the key that seals credentials.
type Key struct {
	Version int               // from 1
	Bytes   secretbytes.Bytes // 32 bytes; the vault owns them
}

// Config is what a vault needs. All but Now and Logger is required.
type Config struct {
	DB     *sqldb.DB
	Agent  ambit.AgentID
	Keys   []Key             // by version; the last one seals
	Ref    secretbytes.Bytes // what references are derived from; at least reference.MinKeyLen bytes, the same for the agent's life
	Log    gate.Log
	Alerts gate.Alerter
	// Transport reaches token endpoints and revocation endpoints: through the
	// address guard, following no redirect.
	Transport http.RoundTripper
	Now       func() time.Time // default: time.Now
	Logger    *slog.Logger     // default: nowhere
}

// Vault is the vault of one agent. It is safe for concurrent use.
type Vault struct {
	config Config
	logger *slog.Logger
	now    func() time.Time

	store  *store
	leases leases
	tokens tokens
	logins logins

	unpacking sync.Mutex // held while the memory for one body is taken, never while anything is waited for

	mu    sync.Mutex            // held while bindings or connections change
	state atomic.Pointer[state] // never nil
}

// state is what requests are judged by. It does not change: whatever changes
// makes another one.
type state struct {
	bound []*bound
	// sites are by the name of their host; one that begins with "*." is by what
	// follows the "*".
	sites map[string][]*site
	// references finds every reference of this agent in bytes, also encoded; of
	// pattern i, owners[i] is whose it is.
	references *multimatch.Matcher
	owners     []owner
}

// owner is what a reference stands for.
type owner struct {
	bound  *bound
	secret string // name of the connector.Secret
}

// bound is a binding of the manifest in force with its references. Whether the
// account is connected changes by the moment: see connected.
type bound struct {
	*connector.Binding
	refs  map[string]string // reference by name of the Secret
	own   []string          // see ownHosts
	sites []*site           // its Hosts, made ready
	// sessions is how the references to what its hosts hand back begin; "" if
	// they hand back nothing.
	sessions string
}

// Open opens the vault of an agent, and its tables in the database. Until Bind
// no host has a credential.
func Open(ctx context.Context, c Config) (*Vault, error) {
	if c.DB == nil || c.Log == nil || c.Alerts == nil || c.Transport == nil || c.Agent == "" || c.Ref.Len() < reference.MinKeyLen {
		return nil, errors.New("opening the vault: its configuration is not complete")
	}
	v := &Vault{config: c, logger: c.Logger, now: c.Now}
	if v.logger == nil {
		v.logger = slog.New(slog.DiscardHandler)
	}
	if v.now == nil {
		v.now = time.Now
	}
	m := newMemory(arenaSize, v.logger)
	s, err := openStore(ctx, c, m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the vault: %w", err), m.arena.Close())
	}
	v.store = s
	v.reportDamage()
	return v, v.Bind(nil)
}

// Bind puts the bindings of another manifest in force. Connections that no
// binding names any more stay stored and are used for nothing; what is under
// way with them is cut.
func (v *Vault) Bind(bindings []*connector.Binding) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bind(bindings)
}

func (v *Vault) bind(bindings []*connector.Binding) error {
	st := &state{sites: make(map[string][]*site)}
	var patterns [][]byte
	kept := make(map[string]bool)
	for _, binding := range bindings {
		b := &bound{Binding: binding, refs: make(map[string]string), own: ownHosts(binding)}
		for _, r := range binding.References {
			ref := r.Shape.Derive(v.config.Ref, "connection", binding.Name, r.Secret)
			if ref == "" {
				return fmt.Errorf("connection %s: no reference for %s could be made", binding.Name, r.Secret)
			}
			b.refs[r.Secret] = ref
			if r.Shape.Weak() {
				continue
			}
			for _, form := range encodings(ref) {
				patterns = append(patterns, form)
				st.owners = append(st.owners, owner{b, r.Secret})
			}
		}
		if err := b.prepare(); err != nil {
			return err
		}
		if b.handsBack() {
			var err error
			if b.sessions, err = sessionsPrefix(v.config.Ref, binding.Name); err != nil {
				return fmt.Errorf("connection %s: %w", binding.Name, err)
			}
			for _, form := range encodings(b.sessions) {
				patterns = append(patterns, form)
				st.owners = append(st.owners, owner{bound: b})
			}
		}
		kept[binding.Name] = true
		st.bound = append(st.bound, b)
		for _, s := range b.sites {
			name := strings.TrimPrefix(s.host.Name, "*")
			st.sites[name] = append(st.sites[name], s)
		}
	}
	m, err := multimatch.New(patterns)
	if err != nil {
		return fmt.Errorf("preparing the search for references: %w", err)
	}
	st.references = m
	old := v.state.Swap(st)
	if old != nil {
		for _, b := range old.bound {
			if !kept[b.Name] {
				v.leases.cut(b.Name)
			}
		}
	}
	v.follow(st)
	return nil
}

// named returns the binding with the name, or nil.
func (st *state) named(name string) *bound {
	for _, b := range st.bound {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// Placement is what the agent's computer gets of the connections: variables and
// files with references in them, never with real values.
type Placement struct {
	Env   map[string]string `json:"env"`
	Files []PlacedFile      `json:"files"`
}

// PlacedFile is a file of the computer.
type PlacedFile struct {
	Path string `json:"path"` // below the agent's home folder
	Text string `json:"text"`
}

// Placement returns what the computer gets. References exist before an account
// is connected and stay the same when its credential is replaced.
func (v *Vault) Placement() Placement {
	p := Placement{Env: map[string]string{}}
	at := make(map[string]int)
	for _, b := range v.state.Load().bound {
		fill := func(name string) (string, bool) { r, ok := b.refs[name]; return r, ok }
		for _, e := range b.Env {
			p.Env[e.Name] = e.Value.Fill(fill)
		}
		for _, f := range b.Files {
			text := f.Text.Fill(fill)
			if i, ok := at[f.Path]; ok {
				p.Files[i].Text += text
				continue
			}
			at[f.Path] = len(p.Files)
			p.Files = append(p.Files, PlacedFile{f.Path, text})
		}
	}
	return p
}

// Close ends the refreshing of tokens and wipes what is in memory.
func (v *Vault) Close() error {
	v.leases.cutAll()
	v.logins.close()
	v.tokens.close()
	return v.store.close()
}
