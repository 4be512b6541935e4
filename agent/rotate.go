package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambit"
	"ambit/internal/sqldb"
)

// KeyStatus says how the key that encrypts an agent's credentials is.
type KeyStatus struct {
	Agent   ambit.AgentID
	Version int       // the newest
	Created time.Time // of the newest; zero is unknown
	Old     []int     // versions of a rotation that is not finished
}

// KeyStatus lists the vault keys of one agent, or of all if id is "", by name.
func (s *Store) KeyStatus(ctx context.Context, id ambit.AgentID) ([]KeyStatus, error) {
	rows, err := s.wrapped(ctx, s.db.Query, id)
	if err != nil {
		return nil, err
	}
	out := []KeyStatus{}
	for _, w := range rows {
		if w.purpose != purposeVault {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Agent == w.agent { // a newer version of the same
			out[n-1] = KeyStatus{w.agent, w.version, w.created, append(out[n-1].Old, out[n-1].Version)}
			continue
		}
		out = append(out, KeyStatus{Agent: w.agent, Version: w.version, Created: w.created})
	}
	if len(out) == 0 && id != "" {
		return nil, ErrNotFound
	}
	return out, nil
}

// AddVaultKey begins the rotation of an agent's vault key: it makes a new
// version, which from then on encrypts, and keeps the old ones. If a rotation
// was begun already and not finished, nothing is added and the newest version
// is returned: that one is to be finished.
//
// The steps of a rotation, and what a crash after each leaves:
//
//  1. AddVaultKey: two versions in control.db. A worker that starts gets both.
//  2. The worker is given both and seals every credential with the newest, in
//     one transaction of its own database: now only the newest is needed.
//  3. RetireVaultKeys destroys the old ones.
//
// Steps 2 and 3 are done again, by whoever finds more than one version, until
// there is one: doing them twice changes nothing.
func (s *Store) AddVaultKey(ctx context.Context, id ambit.AgentID) (version int, err error) {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	err = s.db.Write(ctx, func(tx *sqldb.Tx) error {
		var n int
		err := tx.QueryRow(ctx, "SELECT count(*), coalesce(max(version), 0) FROM agent_keys WHERE agent = ? AND purpose = ?", []any{string(id), purposeVault}, &n, &version)
		switch {
		case err != nil:
			return err
		case n == 0:
			return ErrNotFound
		case n > 1:
			return nil
		}
		version++
		return s.addKey(ctx, tx, id, purposeVault, version, randomKey())
	})
	if err != nil {
		return 0, fmt.Errorf("making a new vault key for %s: %w", id, err)
	}
	return version, nil
}

// RetireVaultKeys destroys every version below keep, which must be the newest,
// in the database file and its journal: nothing may be encrypted with them any
// more.
func (s *Store) RetireVaultKeys(ctx context.Context, id ambit.AgentID, keep int) error {
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		var newest int
		if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM agent_keys WHERE agent = ? AND purpose = ?", []any{string(id), purposeVault}, &newest); err != nil {
			return err
		}
		if newest == 0 {
			return ErrNotFound
		}
		if newest != keep {
			return fmt.Errorf("version %d is not the newest, which is %d", keep, newest)
		}
		if _, err := tx.Exec(ctx, "PRAGMA secure_delete = on"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "DELETE FROM agent_keys WHERE agent = ? AND purpose = ? AND version < ?", string(id), purposeVault, keep)
		return err
	})
	if err != nil {
		return fmt.Errorf("destroying the old vault keys of %s: %w", id, err)
	}
	if err := s.overwrite(ctx); err != nil {
		return fmt.Errorf("overwriting the old vault keys of %s: %w", id, err)
	}
	return nil
}

// overwrite empties the journal, which still has rows as they were.
func (s *Store) overwrite(ctx context.Context) error {
	var busy, pages, done int
	if err := s.db.QueryRow(ctx, "PRAGMA wal_checkpoint(TRUNCATE)", nil, &busy, &pages, &done); err != nil {
		return err
	}
	if busy != 0 {
		return errors.New("the journal is in use; it is overwritten when ambit serve starts next")
	}
	return nil
}
