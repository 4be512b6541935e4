// Package agent knows which agents exist: the versions of each one's manifest,
// whether it is meant to run, the user id it runs under, and its keys. It is
// the control plane's memory, in control.db and root.key of a home.
//
// Every version of a manifest is kept as long as the agent. What an agent has
// beyond that (its log, its files) is its worker's.
//
// Keys: root.key holds the root key, protected as package kek says. It wraps,
// with AES-256-GCM, for each agent a data key, a signing seed, the versions of
// the key that encrypts its credentials, and the token of its worker; the
// associated data names the agent, the purpose and the version, so a row that
// was moved to another agent does not open. Deleting an agent overwrites its
// wrapped keys, and with them goes whatever they encrypt. The root key and the
// vault keys can be rotated; what happens if the process dies within that is
// said at the steps, in root.go and rotate.go. The control plane has keys of its
// own beside them: of its log, and the one with which it cosigns the heads of
// others (control.go).
//
// Trust: whoever has the root key and control.db has every agent's keys. Whoever
// can only write control.db can make agents stop, run other manifests or lose
// their keys, but can not make one agent's worker open another's data.
package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/kek"
)

//go:embed migrations/*.sql
var migrations embed.FS

// firstUID is the lowest user id that is given to an agent. Debian gives
// people ids up to 59999 and leaves those above 65535 to nobody.
const firstUID = 200000

// What a caller branches on.
var (
	ErrNotFound = errors.New("there is no such agent")
	ErrVersion  = errors.New("there is no such version")
)

// Desired is what a person wants of an agent.
type Desired string

// The values of Desired.
const (
	Running Desired = "running"
	Stopped Desired = "stopped"
)

// Agent is one agent. An agent is made stopped: who deploys it sets what is
// wanted once the deploy is in its log.
type Agent struct {
	ID      ambit.AgentID
	Version int     // the manifest version in force, from 1
	Desired Desired //
	UID     int     // the host's user id of its processes; 0: the control plane's own
	Created time.Time
	Updated time.Time // of the newest version, or of Desired
}

// Version is one version of a manifest.
type Version struct {
	N      int
	Source []byte // the YAML; nil in lists
	// Connectors are the operator's connector files that the version needs, as
	// they were when it was deployed; opaque here; nil in lists and if there are none.
	Connectors []byte
	SHA256     string // of Source, hexadecimal
	Time       time.Time
	By         ambit.Principal
	Note       string // "version 2 again"; may be ""
}

// Config is what a store needs.
type Config struct {
	Home   string     // holds control.db and root.key; private to this user
	OwnUID bool       // give each new agent a user id of its own; for a control plane that runs as root
	Unlock kek.Unlock // what root.key may need; its Keeper is used later too, to rotate
}

// Store is the set of agents. It is safe for concurrent use; one process has
// it open at a time.
type Store struct {
	db     *sqldb.DB
	home   string
	unlock kek.Unlock
	ownUID bool
	arena  *secretbytes.Arena // of the root key
	close  func() error       // once

	rotating sync.Mutex // held for a rotation of the root key, from its beginning to its end

	// rooted is held for writing while the root key changes, and for reading
	// while keys are wrapped or unwrapped, transactions included. It is taken
	// before the database's lock.
	rooted sync.RWMutex
	root   secretbytes.Bytes
	info   kek.Info
	torn   bool // it is not known whether root is in force
}

// Open opens the store of a home and makes it if there is none. It refuses a
// root key that is missing, damaged, readable by others, not this home's, or that
// c.Unlock does not open. A rotation that was cut short is finished or undone.
func Open(ctx context.Context, c Config) (*Store, error) {
	db, err := sqldb.Open(ctx, filepath.Join(c.Home, "control.db"))
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, home: c.Home, unlock: c.Unlock, ownUID: c.OwnUID}
	s.close = sync.OnceValue(func() error {
		err := db.Close()
		s.root.Wipe()
		return errors.Join(err, s.arena.Close())
	})
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if err := s.db.Migrate(ctx, "agent_migrations", sub); err != nil {
		return err
	}
	if err := s.openRoot(ctx); err != nil {
		return err
	}
	if err := s.completeKeys(ctx); err != nil {
		return err
	}
	return s.createControlKeys(ctx)
}

// Close closes the store and forgets the root key. It may be called again.
func (s *Store) Close() error { return s.close() }

// Deploy makes source, with its connector files, the manifest in force of an
// agent, which is made if there is none. changed is false, and the version is
// the one in force, if that has the same source and files. Both must have been
// parsed: this package does not look into them.
func (s *Store) Deploy(ctx context.Context, id ambit.AgentID, source, connectors []byte, by ambit.Principal) (a Agent, v Version, created, changed bool, err error) {
	v = newVersion(source, connectors, by, "")
	s.rooted.RLock() // a new agent gets keys
	defer s.rooted.RUnlock()
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		a, err = getAgent(ctx, tx.QueryRow, id)
		switch {
		case errors.Is(err, ErrNotFound):
			created, changed = true, true
			if a, err = s.create(ctx, tx, id, v.Time); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			current, err := getVersion(ctx, tx.QueryRow, id, a.Version)
			if err != nil {
				return err
			}
			if current.SHA256 == v.SHA256 && bytes.Equal(current.Connectors, v.Connectors) {
				v = current
				return nil
			}
			changed = true
		}
		return addVersion(ctx, tx, &a, &v)
	})
	if err != nil {
		return Agent{}, Version{}, false, false, fmt.Errorf("storing the manifest of %s: %w", id, err)
	}
	return a, v, created, changed, nil
}

// Redeploy makes version n, with the connector files that it had, the newest
// version.
func (s *Store) Redeploy(ctx context.Context, id ambit.AgentID, n int, by ambit.Principal) (a Agent, v Version, err error) {
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if a, err = getAgent(ctx, tx.QueryRow, id); err != nil {
			return err
		}
		old, err := getVersion(ctx, tx.QueryRow, id, n)
		if err != nil {
			return err
		}
		v = newVersion(old.Source, old.Connectors, by, fmt.Sprintf("version %d again", n))
		return addVersion(ctx, tx, &a, &v)
	})
	if err != nil {
		return Agent{}, Version{}, fmt.Errorf("deploying version %d of %s again: %w", n, id, err)
	}
	return a, v, nil
}

// List returns every agent, by name.
func (s *Store) List(ctx context.Context) (agents []Agent, err error) {
	rows, err := s.db.Query(ctx, selectAgent+" ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("listing the agents: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		a, err := scanAgent(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("listing the agents: %w", err)
		}
		agents = append(agents, a)
	}
	return agents, rows.Err()
}

// Get returns one agent, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id ambit.AgentID) (Agent, error) {
	return getAgent(ctx, s.db.QueryRow, id)
}

// Versions returns every version without its source, newest first, or
// ErrNotFound.
func (s *Store) Versions(ctx context.Context, id ambit.AgentID) (versions []Version, err error) {
	rows, err := s.db.Query(ctx, "SELECT n, NULL, NULL, sha256, time, by, note FROM agent_versions WHERE agent = ? ORDER BY n DESC", string(id))
	if err != nil {
		return nil, fmt.Errorf("listing the versions of %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scanVersion(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("listing the versions of %s: %w", id, err)
		}
		versions = append(versions, v)
	}
	if len(versions) == 0 && rows.Err() == nil {
		return nil, ErrNotFound
	}
	return versions, rows.Err()
}

// VersionSource returns one version with its source; ErrNotFound or ErrVersion
// if there is none.
func (s *Store) VersionSource(ctx context.Context, id ambit.AgentID, n int) (Version, error) {
	if _, err := s.Get(ctx, id); err != nil {
		return Version{}, err
	}
	return getVersion(ctx, s.db.QueryRow, id, n)
}

// SetDesired changes what is wanted of an agent.
func (s *Store) SetDesired(ctx context.Context, id ambit.AgentID, d Desired) error {
	return s.update(ctx, id, "UPDATE agents SET desired = ?, updated = ? WHERE id = ?", string(d), now().UnixMicro(), string(id))
}

// Head returns the newest checkpoint of an agent's log that the witness kept, nil
// if there is none yet.
func (s *Store) Head(ctx context.Context, id ambit.AgentID) (note []byte, err error) {
	err = s.db.QueryRow(ctx, "SELECT head FROM agents WHERE id = ?", []any{string(id)}, &note)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return note, err
}

// SetHead replaces it, if it still is old: otherwise somebody else moved it
// meanwhile, nothing is changed and set is false.
func (s *Store) SetHead(ctx context.Context, id ambit.AgentID, old, note []byte) (set bool, err error) {
	set, err = s.swapHead(ctx, "UPDATE agents SET head = ? WHERE id = ? AND head IS ?", note, string(id), old)
	if err != nil {
		return false, fmt.Errorf("keeping the log head of %s: %w", id, err)
	}
	return set, nil
}

func (s *Store) swapHead(ctx context.Context, query string, args ...any) (set bool, err error) {
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		r, err := tx.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		set = n == 1
		return err
	})
	return set, err
}

// Delete forgets an agent, its versions and its keys, and overwrites them in
// the database file and its journal. What the keys encrypted cannot be opened
// again by anyone.
func (s *Store) Delete(ctx context.Context, id ambit.AgentID) error {
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, "PRAGMA secure_delete = on"); err != nil {
			return err
		}
		r, err := tx.Exec(ctx, "DELETE FROM agents WHERE id = ?", string(id))
		return oneRow(r, err)
	})
	if err != nil {
		return fmt.Errorf("forgetting %s: %w", id, err)
	}
	if err := s.overwrite(ctx); err != nil {
		return fmt.Errorf("overwriting the keys of %s: %w", id, err)
	}
	return nil
}

func (s *Store) update(ctx context.Context, id ambit.AgentID, query string, args ...any) error {
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error { return oneRow(tx.Exec(ctx, query, args...)) })
	if err != nil {
		return fmt.Errorf("changing %s: %w", id, err)
	}
	return nil
}

// create makes an agent without a version. Its keys are made in the same
// transaction: there is no agent without keys.
func (s *Store) create(ctx context.Context, tx *sqldb.Tx, id ambit.AgentID, at time.Time) (Agent, error) {
	a := Agent{ID: id, Desired: Stopped, Created: at, Updated: at}
	if s.ownUID {
		if err := tx.QueryRow(ctx, "UPDATE agent_home SET next_uid = next_uid + 1 RETURNING next_uid - 1", nil, &a.UID); err != nil {
			return Agent{}, err
		}
	}
	_, err := tx.Exec(ctx, "INSERT INTO agents (id, version, desired, uid, created, updated) VALUES (?, 0, ?, ?, ?, ?)",
		string(id), string(a.Desired), a.UID, at.UnixMicro(), at.UnixMicro())
	if err != nil {
		return Agent{}, err
	}
	return a, s.createKeys(ctx, tx, id)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Sum is the checksum of a manifest's source: SHA-256, hexadecimal.
func Sum(source []byte) string {
	sum := sha256.Sum256(source)
	return hex.EncodeToString(sum[:])
}

func newVersion(source, connectors []byte, by ambit.Principal, note string) Version {
	return Version{Source: source, Connectors: connectors, SHA256: Sum(source), Time: now(), By: by, Note: note}
}
