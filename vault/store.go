package vault

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// refreshField is the field of a refresh token: no Secret has such a name.
const refreshField = "!refresh"

// description is what is known about a connection beside its credential. It is
// sealed, because it says which version of each field is the one in force.
type description struct {
	Life      string            `json:"life"`    // see place
	Version   uint64            `json:"version"` // from 1
	Connector string            `json:"connector"`
	Account   string            `json:"account,omitempty"`
	Hosts     []string          `json:"hosts,omitempty"` // those that the manifest named when it was connected
	Way       string            `json:"way"`
	Flow      connector.Flow    `json:"flow,omitempty"`
	Yields    string            `json:"yields,omitempty"` // the field with the access token
	Since     time.Time         `json:"since"`
	By        ambit.Principal   `json:"by"`
	Expires   time.Time         `json:"expires,omitzero"`    // of the access token
	Missing   []string          `json:"missing,omitempty"`   // scopes that were not granted
	Reconnect string            `json:"reconnect,omitempty"` // why the person must connect again
	Fields    map[string]uint64 `json:"fields"`              // the version of each, which is when it was last changed
}

// connection is a connected account as it is stored: sealed. It does not
// change; whatever changes makes another one.
type connection struct {
	name string
	description
	row    sealed
	fields map[string]sealed
	// damage says why it cannot be used; nothing but the name is known then.
	damage error
}

// has says whether the connection has a value for a Secret.
func (c *connection) has(secret string) bool {
	_, ok := c.Fields[secret]
	return ok
}

// store keeps the connections of one agent: in the database, and a copy of the
// rows in memory, sealed like them. It is safe for concurrent use.
type store struct {
	db     *sqldb.DB
	agent  ambit.AgentID
	memory *memory

	writing sync.Mutex // held while rows change, also in the database; taken before mu

	mu   sync.RWMutex // held for moments
	rows map[string]*connection
	over map[string]*connection // revoked, and not deleted yet
	seal *seal                  // the newest; nil after close
	// What hosts handed back, by connection and reference. The maps inside do not
	// change; a connection's number in changes goes up with each that takes the
	// place of another.
	sessions map[string]map[string]*session
	changes  map[string]uint64
}

func openStore(ctx context.Context, c Config, m *memory) (*store, error) {
	s := &store{
		db: c.DB, agent: c.Agent, memory: m, rows: make(map[string]*connection), over: make(map[string]*connection),
		sessions: make(map[string]map[string]*session), changes: make(map[string]uint64),
	}
	seals, err := newSeals(c.Keys, m)
	if err != nil {
		return nil, err
	}
	s.seal = newest(seals)
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	if err := c.DB.Migrate(ctx, "vault_version", migrations); err != nil {
		return nil, err
	}
	if err := s.load(ctx, seals); err != nil {
		return nil, err
	}
	return s, s.loadSessions(ctx, seals)
}

// newSeals makes a seal of each key, and wipes all keys.
func newSeals(keys []Key, m *memory) (map[int]*seal, error) {
	defer func() {
		for _, k := range keys {
			k.Bytes.Wipe()
		}
	}()
	if len(keys) == 0 {
		return nil, errors.New("there is no key to seal credentials with")
	}
	seals := make(map[int]*seal, len(keys))
	for _, k := range keys {
		if seals[k.Version] != nil {
			return nil, fmt.Errorf("version %d of the vault's key is there twice", k.Version)
		}
		s, err := newSeal(k, m)
		if err != nil {
			return nil, err
		}
		seals[k.Version] = s
	}
	return seals, nil
}

func newest(seals map[int]*seal) *seal {
	return seals[slices.Max(slices.Collect(maps.Keys(seals)))]
}

// load reads all rows. One that does not open makes its connection unusable and
// leaves the others alone; if none opens, the keys are the wrong ones.
func (s *store) load(ctx context.Context, seals map[int]*seal) error {
	fields, err := s.loadSecrets(ctx, seals)
	if err != nil {
		return err
	}
	rows, err := s.db.Query(ctx, "SELECT name, version, key, sealed FROM vault_connection ORDER BY name")
	if err != nil {
		return err
	}
	defer rows.Close()
	opened := 0
	for rows.Next() {
		var name string
		var version uint64
		var key int
		var text []byte
		if err := rows.Scan(&name, &version, &key, &text); err != nil {
			return err
		}
		c := &connection{name: name, row: sealed{seals[key], text}, fields: fields[name]}
		if c.damage = s.describe(c, version); c.damage == nil {
			opened++
		}
		s.rows[name] = c
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if opened == 0 && len(s.rows) > 0 {
		return errors.New("none of the stored credentials opens with the agent's keys; nothing was changed: " +
			"see that this is the agent's own database, and that its keys are of the same backup")
	}
	return nil
}

// reportDamage makes an alert of each connection that does not open.
func (v *Vault) reportDamage() {
	for _, name := range v.store.names() {
		if c := v.store.connection(name); c.damage != nil {
			v.config.Alerts.Raise(ambit.Critical, "credential-damaged "+name, name+": "+c.damage.Error()+"; the connection is not used until it is connected again", 0)
		}
	}
}

func (s *store) loadSecrets(ctx context.Context, seals map[int]*seal) (map[string]map[string]sealed, error) {
	rows, err := s.db.Query(ctx, "SELECT connection, field, key, sealed FROM vault_secret")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]map[string]sealed)
	for rows.Next() {
		var name, field string
		var key int
		var text []byte
		if err := rows.Scan(&name, &field, &key, &text); err != nil {
			return nil, err
		}
		if all[name] == nil {
			all[name] = make(map[string]sealed)
		}
		all[name][field] = sealed{seals[key], text}
	}
	return all, rows.Err()
}

// describe opens the row of a connection, and tries whether its fields open.
func (s *store) describe(c *connection, version uint64) error {
	plain, err := c.row.open(place{agent: s.agent, connection: c.name, version: version})
	if err != nil {
		return err
	}
	defer plain.Wipe()
	var d description
	if err := json.Unmarshal(plain.Reveal(), &d); err != nil {
		return fmt.Errorf("reading its description: %w", err)
	}
	c.description = d
	for field := range d.Fields {
		value, err := s.open(c, field)
		if err != nil {
			return err
		}
		value.Wipe()
	}
	return nil
}

// connection returns what is stored under a name; nil if it is not connected.
func (s *store) connection(name string) *connection {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rows[name]
}

// names returns the names of all connections, sorted.
func (s *store) names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.rows))
}

// open returns a copy of a field's value, which the caller wipes.
func (s *store) open(c *connection, field string) (secretbytes.Bytes, error) {
	if c.damage != nil {
		return secretbytes.Bytes{}, c.damage
	}
	return c.fields[field].open(s.place(&c.description, c.name, field))
}

func (s *store) place(d *description, name, field string) place {
	return place{agent: s.agent, connection: name, life: d.Life, field: field, version: d.Fields[field]}
}

// sealed makes the connection that follows old (nil if there is none): d says
// what is known about it, without a Life if it is a new one; values are the
// fields that change. Those that d.Fields names and values does not stay as they
// are.
func (s *store) sealed(name string, old *connection, d description, values map[string]secretbytes.Bytes) (*connection, error) {
	s.mu.RLock()
	seal := s.seal
	s.mu.RUnlock()
	if seal == nil {
		return nil, errClosed
	}
	if d.Life == "" {
		d.Life = rand.Text()
	}
	d.Version = 1
	if old != nil {
		d.Version = old.Version + 1
	}
	c := &connection{name: name, fields: make(map[string]sealed)}
	kept := d.Fields
	d.Fields = make(map[string]uint64)
	for field, version := range kept {
		d.Fields[field], c.fields[field] = version, old.fields[field]
	}
	for field, value := range values {
		d.Fields[field] = d.Version
		c.fields[field] = seal.close(s.place(&d, name, field), value.Reveal())
	}
	c.description = d
	return c, s.sealRow(c, seal)
}

func (s *store) sealRow(c *connection, seal *seal) error {
	text, err := json.Marshal(c.description)
	if err != nil {
		return err
	}
	c.row = seal.close(place{agent: s.agent, connection: c.name, version: c.Version}, text)
	return nil
}

// change replaces a connection, durably when it returns nil: next makes the new
// one of the one that is there (nil: not connected). After an error the old one
// is in force; if the disk reports errors late, the new one may be after the
// next start.
func (s *store) change(ctx context.Context, name string, next func(old *connection) (*connection, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	old := s.connection(name)
	c, err := next(old)
	if err != nil {
		return err
	}
	another := old == nil || old.Life != c.Life
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if another { // what was handed back was for the one before
			if err := dropSessions(ctx, tx, name); err != nil {
				return err
			}
		}
		return put(ctx, tx, c)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows[name] != old { // revoked meanwhile: the row goes with delete, which waits for writing
		return ErrNotConnected
	}
	s.rows[name] = c
	if another {
		s.forget(name)
	}
	delete(s.over, name)
	return nil
}

// put writes a connection and all its fields in place of what was there.
func put(ctx context.Context, tx *sqldb.Tx, c *connection) error {
	if err := drop(ctx, tx, c.name); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO vault_connection (name, version, key, sealed) VALUES (?, ?, ?, ?)",
		c.name, int64(c.Version), c.row.seal.version, c.row.text); err != nil {
		return err
	}
	for field, v := range c.fields {
		if _, err := tx.Exec(ctx, "INSERT INTO vault_secret (connection, field, key, sealed) VALUES (?, ?, ?, ?)",
			c.name, field, v.seal.version, v.text); err != nil {
			return err
		}
	}
	return nil
}

func drop(ctx context.Context, tx *sqldb.Tx, name string) error {
	if _, err := tx.Exec(ctx, "DELETE FROM vault_secret WHERE connection = ?", name); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "DELETE FROM vault_connection WHERE name = ?", name)
	return err
}

// end makes a connection unusable at once, and returns it; nil if there is none.
// The row stays until delete.
func (s *store) end(name string) *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.rows[name]
	if c == nil {
		return s.over[name] // it could not be deleted the last time
	}
	delete(s.rows, name)
	s.over[name] = c
	s.forget(name)
	return c
}

// forget lets go of what hosts handed back. The caller holds mu.
func (s *store) forget(name string) {
	if s.sessions[name] != nil {
		delete(s.sessions, name)
		s.changes[name]++
	}
}

// delete deletes, durably and in one transaction, the rows of connections that
// have ended.
func (s *store) delete(ctx context.Context, ended []*connection) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	gone := slices.DeleteFunc(slices.Clone(ended), func(c *connection) bool { return s.isReplaced(c) })
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, c := range gone {
			if err := errors.Join(drop(ctx, tx, c.name), dropSessions(ctx, tx, c.name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range gone {
		delete(s.over, c.name)
	}
	return nil
}

// isReplaced says that somebody connected again after c ended: its rows are gone.
func (s *store) isReplaced(c *connection) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.over[c.name] != c
}

// close forgets all keys and rows.
func (s *store) close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seal = nil
	clear(s.rows)
	clear(s.over)
	clear(s.sessions)
	return s.memory.arena.Close()
}
