package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
)

// ErrUnknown is a connection that the agent's manifest does not have.
var ErrUnknown = errors.New("the agent has no such connection")

// ErrPerson is a way to connect that needs the person at the service: see
// [Vault.StartOAuth].
var ErrPerson = errors.New("this way to connect needs a login at the service")

// ConnectRequest is what a person gives to connect an account.
type ConnectRequest struct {
	Name string // of the connection
	Way  string // of the connector's ways; "" is the first
	// Flow is how an OAuth token is asked for; "" is the way's first.
	Flow connector.Flow
	// Fields are by name of the Secret. The vault owns and wipes them.
	Fields map[string]secretbytes.Bytes
	// RedirectURL is where the person's browser comes back to, of FlowCode.
	RedirectURL string
}

// Connect stores what a person gave, or replaces it, durably when it returns.
// References stay the same, and what is under way with the credential before
// goes on with it: whoever wants that cut revokes first. Nothing is told to the
// service about a credential that is replaced.
//
// Where the way gets a token without a person, one is asked for now, and nothing
// is stored if it does not come. The error is ErrUnknown, ErrPerson, a
// *FieldError, or says what failed.
func (v *Vault) Connect(ctx context.Context, q ConnectRequest, by ambit.Principal) (Connection, error) {
	defer wipe(q.Fields)
	g, err := v.gather(q, by)
	if err != nil {
		return Connection{}, err
	}
	defer g.wipe()
	if g.byPerson() {
		return Connection{}, fmt.Errorf("%w: %s", ErrPerson, g.way.Title)
	}
	if g.way.Kind == connector.WayGiven {
		return v.commit(ctx, g, nil)
	}
	token, err := v.fetch(ctx, &g.account, secretbytes.Bytes{})
	if err != nil {
		return Connection{}, fmt.Errorf("connecting %s: %w", g.Name, err)
	}
	defer token.Wipe()
	return v.commit(ctx, g, token)
}

// gift is what a person gave, checked and not stored yet.
type gift struct {
	account
	values map[string]secretbytes.Bytes
	notes  []string
	still  func() error // why it may not be stored any more: its login ended meanwhile; may be nil
}

func (g *gift) wipe() { wipe(g.values) }

// byPerson says whether the token needs a login.
func (g *gift) byPerson() bool {
	return g.way.Kind == connector.WayOAuth && g.flow != connector.FlowClient
}

// gather checks a request. The caller wipes what it returns.
func (v *Vault) gather(q ConnectRequest, by ambit.Principal) (*gift, error) {
	st := v.state.Load()
	b := st.named(q.Name)
	if b == nil {
		return nil, fmt.Errorf("%w: %.60q; its manifest has: %s", ErrUnknown, q.Name, st.list())
	}
	way := wayNamed(b.Binding, q.Way)
	if way == nil {
		return nil, fmt.Errorf("connector %s has no way %.60q; it has: %s", b.Connector.Name, q.Way, listWays(b.Binding))
	}
	g := &gift{account: account{Binding: b.Binding, way: way, flow: q.Flow, by: by, redirect: q.RedirectURL}}
	switch {
	case way.Kind != connector.WayOAuth:
		if q.Flow != "" {
			return nil, fmt.Errorf("way %s has no flows", way.Name)
		}
	case q.Flow == "":
		g.flow = way.OAuth.Flows[0]
	case !slices.Contains(way.OAuth.Flows, q.Flow):
		return nil, fmt.Errorf("way %s has no flow %.60q; it has: %v", way.Name, string(q.Flow), way.OAuth.Flows)
	}
	var err error
	if g.values, g.notes, err = given(b.Binding, way, q.Fields); err != nil {
		return nil, err
	}
	g.value = func(name string) (secretbytes.Bytes, error) {
		value, ok := g.values[name]
		if !ok {
			return secretbytes.Bytes{}, errNotGiven
		}
		return secretbytes.New(slices.Clone(value.Reveal())), nil
	}
	return g, nil
}

// commit stores a connection: logged first, then durable, then used.
func (v *Vault) commit(ctx context.Context, g *gift, token *oauth.Token) (Connection, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.still != nil && g.still() != nil {
		return Connection{}, g.still()
	}
	doing := "connected"
	if v.store.connection(g.Name) != nil {
		doing = "its credential is replaced"
	}
	seq, err := v.config.Log.Append(ctx, ambit.Event{Kind: ambit.KindVaultConnect, Agent: v.config.Agent, Principal: g.by, Connection: g.Name,
		Detail: fmt.Sprintf("%s: connector %s, way %s", doing, g.Connector.Name, g.way.Name)})
	if err != nil {
		return Connection{}, fmt.Errorf("connecting %s: nothing was stored, because the log could not be written: %w", g.Name, err)
	}
	ctx = context.WithoutCancel(ctx) // a token that came, and what is logged, is not given up half-way
	err = v.store.change(ctx, g.Name, func(old *connection) (*connection, error) {
		d := description{
			Connector: g.Connector.Name, Account: g.Account, Hosts: ownHosts(g.Binding), Way: g.way.Name, Flow: g.flow,
			Yields: g.way.Yields, Since: v.now().UTC(), By: g.by,
		}
		values := g.values
		if token != nil {
			values = withToken(&d, g.values, token)
		}
		return v.store.sealed(g.Name, old, d, values)
	})
	outcome := ambit.Event{Kind: ambit.KindVaultConnect, Agent: v.config.Agent, Principal: g.by, Of: &seq, Connection: g.Name, Detail: "stored"}
	if err != nil {
		outcome.Detail = "not stored: " + err.Error()
	}
	v.config.Log.Record(outcome)
	if err != nil {
		return Connection{}, fmt.Errorf("connecting %s: nothing was stored: %w", g.Name, err)
	}
	v.leases.replaced(g.Name, v.store.connection(g.Name))
	b := v.state.Load().named(g.Name)
	if b == nil { // the manifest changed meanwhile
		b = &bound{Binding: g.Binding, own: ownHosts(g.Binding)}
	} else if !v.followOne(b) {
		v.tokens.end(g.Name)
	}
	c := v.status(b)
	c.Notes = g.notes
	return c, nil
}

func withToken(d *description, given map[string]secretbytes.Bytes, token *oauth.Token) map[string]secretbytes.Bytes {
	values := map[string]secretbytes.Bytes{d.Yields: token.Access}
	if token.Refresh.Len() > 0 {
		values[refreshField] = token.Refresh
	}
	for name, value := range given {
		values[name] = value
	}
	d.Expires, d.Missing = token.Expires, token.Missing
	return values
}

// Status is how a connection fares. The zero value is none of them.
type Status string

// The states of a connection.
const (
	StatusNotConnected Status = "not-connected"
	StatusConnected    Status = "connected"
	StatusFailing      Status = "failing"          // no new token at the moment; it is tried again
	StatusReconnect    Status = "reconnect-needed" // the person must connect again
)

// Connection is what is known about a connection. No part of a credential is in
// it.
type Connection struct {
	Name      string          `json:"name"`
	Connector string          `json:"connector"`
	Title     string          `json:"title"` // of the service
	Account   string          `json:"account,omitempty"`
	Status    Status          `json:"status"`
	Reason    string          `json:"reason,omitempty"` // why it is not just connected
	Way       string          `json:"way,omitempty"`
	Since     time.Time       `json:"since,omitzero"`
	By        ambit.Principal `json:"by,omitempty"`
	Expires   time.Time       `json:"expires,omitzero"`  // of the token, which is refreshed before
	Hosts     []string        `json:"hosts"`             // with the port, if it is not 443
	Missing   []string        `json:"missing,omitempty"` // scopes that the service did not grant
	Notes     []string        `json:"notes,omitempty"`   // of Connect: what was changed about what was given
}

// Connections returns the connections of the manifest in force, in its order.
func (v *Vault) Connections() []Connection {
	st := v.state.Load()
	all := make([]Connection, 0, len(st.bound))
	for _, b := range st.bound {
		all = append(all, v.status(b))
	}
	return all
}

func (v *Vault) status(b *bound) Connection {
	s := Connection{Name: b.Name, Connector: b.Connector.Name, Title: b.Connector.Title, Account: b.Account, Hosts: hosts(b.Binding), Status: StatusNotConnected}
	c := v.store.connection(b.Name)
	switch {
	case c == nil:
		return s
	case c.damage != nil:
		s.Reason = c.damage.Error() + "; connect it again"
		return s
	case !c.isFor(b):
		s.Reason = "what is stored under this name was given for another account, connector or host; connect it again"
		return s
	}
	s.Status, s.Way, s.Since, s.By, s.Expires, s.Missing = StatusConnected, c.Way, c.Since, c.By, c.Expires, c.Missing
	fares, _ := v.tokens.state(b.Name)
	switch {
	case c.Reconnect != "":
		s.Status, s.Reason = StatusReconnect, c.Reconnect
	case fares.Failures > 0 && fares.Err != nil:
		s.Status, s.Reason = StatusFailing, fares.Err.Error()
	}
	return s
}

// Way is one way to connect an account, as a person is asked for it.
type Way struct {
	Name   string            `json:"name"`
	Title  string            `json:"title"`
	Kind   connector.WayKind `json:"kind"`
	Flows  []connector.Flow  `json:"flows,omitempty"` // of WayOAuth; the first is the default
	Fields []Field           `json:"fields"`
	// RedirectPort is the port of 127.0.0.1 to which the browser must come back;
	// 0 is any.
	RedirectPort uint16 `json:"redirectPort,omitempty"`
}

// Field is one thing to ask a person for.
type Field struct {
	Name      string `json:"name"`
	Title     string `json:"title"`
	Hint      string `json:"hint,omitempty"`
	Secret    bool   `json:"secret"` // not to be shown while it is entered
	Multiline bool   `json:"multiline,omitempty"`
	Optional  bool   `json:"optional,omitempty"`
	Check     string `json:"check,omitempty"` // regular expression (RE2) that it matches
}

// Ways returns the ways to connect an account; ErrUnknown if the manifest has no
// such connection.
func (v *Vault) Ways(name string) ([]Way, error) {
	st := v.state.Load()
	b := st.named(name)
	if b == nil {
		return nil, fmt.Errorf("%w: %.60q; its manifest has: %s", ErrUnknown, name, st.list())
	}
	var ways []Way
	for i := range b.Ways {
		w := &b.Ways[i]
		way := Way{Name: w.Name, Title: w.Title, Kind: w.Kind, Fields: []Field{}}
		if w.OAuth != nil {
			way.Flows, way.RedirectPort = w.OAuth.Flows, w.OAuth.RedirectPort
		}
		for _, field := range w.Fields {
			if s := secretNamed(b.Binding, field); s != nil {
				way.Fields = append(way.Fields, fieldOf(s))
			}
		}
		ways = append(ways, way)
	}
	return ways, nil
}

func fieldOf(s *connector.Secret) Field {
	f := Field{Name: s.Name, Title: s.Title, Hint: s.Hint, Secret: !s.Public, Optional: s.Optional, Multiline: severalLines(s)}
	if s.Check != nil {
		f.Check = s.Check.String()
	}
	return f
}

// wayNamed returns the way with the name, the first if that is ""; or nil.
func wayNamed(b *connector.Binding, name string) *connector.Way {
	for i := range b.Ways {
		if name == "" || b.Ways[i].Name == name {
			return &b.Ways[i]
		}
	}
	return nil
}

func listWays(b *connector.Binding) string {
	var names []string
	for i := range b.Ways {
		names = append(names, b.Ways[i].Name)
	}
	return strings.Join(names, ", ")
}

// list names the connections of the manifest, for people.
func (st *state) list() string {
	var names []string
	for _, b := range st.bound {
		if names = append(names, b.Name); len(names) == 20 {
			names = append(names, "...")
			break
		}
	}
	if len(names) == 0 {
		return "none (write connectors: into it)"
	}
	return strings.Join(names, ", ")
}

// ownHosts are the hosts of a binding if the manifest names them: a credential
// that was given for one of them is not for another.
func ownHosts(b *connector.Binding) []string {
	if !b.Connector.OwnHosts {
		return nil
	}
	return hosts(b)
}

// hosts lists the hosts of a binding, with the ports that are not usual.
func hosts(b *connector.Binding) []string {
	all := []string{}
	for _, h := range b.Hosts {
		for _, port := range h.Ports {
			name := h.Name
			if port != 443 {
				name += ":" + strconv.Itoa(int(port))
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// within says whether all of these are among those.
func within(these, those []string) bool {
	return !slices.ContainsFunc(these, func(s string) bool { return !slices.Contains(those, s) })
}
