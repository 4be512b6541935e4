package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ambit"
	"ambit/internal/sqldb"
)

// Rekey seals all credentials with the last of the keys, which is by a person's
// wish a new one. The vault owns and wipes the keys. When it returns nil, no row
// needs an older key, durably, and the vault has none any more. A connection
// whose row does not open stays as it is.
//
// Crash points: it is one transaction. Before its commit all rows open with the
// keys before, after it all open with the last one; who starts the vault has
// both until Rekey has returned.
func (v *Vault) Rekey(ctx context.Context, keys []Key, by ambit.Principal) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	seals, err := newSeals(keys, v.store.memory)
	if err != nil {
		return fmt.Errorf("sealing the credentials with another key: %w", err)
	}
	last := newest(seals)
	seq, err := v.config.Log.Append(ctx, ambit.Event{Kind: ambit.KindVaultRekey, Agent: v.config.Agent, Principal: by,
		Detail: fmt.Sprintf("all credentials are sealed with version %d of the agent's key", last.version)})
	if err != nil {
		return fmt.Errorf("sealing the credentials with another key: nothing was changed, because the log could not be written: %w", err)
	}
	err = v.store.rekey(ctx, last)
	outcome := ambit.Event{Kind: ambit.KindVaultRekey, Agent: v.config.Agent, Principal: by, Of: &seq, Detail: "done"}
	if err != nil {
		outcome.Detail = "not done: " + err.Error()
	}
	v.config.Log.Record(outcome)
	if err != nil {
		return fmt.Errorf("sealing the credentials with another key: nothing was changed: %w", err)
	}
	return nil
}

// rekey seals all rows with another seal, in one transaction.
func (s *store) rekey(ctx context.Context, with *seal) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	rows, over, sessions, now := maps.Clone(s.rows), maps.Clone(s.over), maps.Clone(s.sessions), s.seal
	s.mu.RUnlock()
	switch {
	case now == nil:
		return errClosed
	case with.version < now.version:
		return fmt.Errorf("version %d of the key is older than %d, which is in use", with.version, now.version)
	case with.version == now.version:
		with = now
	}
	next := make(map[string]*connection, len(rows))
	for name, c := range rows {
		again, err := s.reseal(c, with)
		if err != nil {
			return fmt.Errorf("connection %s: %w", name, err)
		}
		next[name] = again
		if sessions[name], err = s.resealed(name, sessions[name], with); err != nil {
			return fmt.Errorf("connection %s: a session of it: %w", name, err)
		}
	}
	err := s.db.Write(ctx, func(tx *sqldb.Tx) error {
		for _, name := range slices.Sorted(maps.Keys(next)) {
			if c := next[name]; c.damage == nil {
				if err := put(ctx, tx, c); err != nil {
					return err
				}
			}
			if err := dropSessions(ctx, tx, name); err != nil {
				return err
			}
			for _, of := range sessions[name] {
				if err := putSession(ctx, tx, name, of); err != nil {
					return err
				}
			}
		}
		for name := range over { // their rows open with no key any more
			if err := errors.Join(drop(ctx, tx, name), dropSessions(ctx, tx, name)); err != nil {
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
	s.seal = with
	for name, c := range rows {
		if s.rows[name] == c { // not revoked meanwhile
			s.rows[name] = next[name]
			if len(sessions[name]) > 0 {
				s.sessions[name] = sessions[name]
			}
		}
	}
	return nil
}

// reseal makes the connection that is c with another seal. Versions stay.
func (s *store) reseal(c *connection, with *seal) (*connection, error) {
	if c.damage != nil {
		return c, nil
	}
	again := &connection{name: c.name, description: c.description, fields: make(map[string]sealed, len(c.fields))}
	for field := range c.Fields {
		value, err := s.open(c, field)
		if err != nil {
			return nil, err
		}
		again.fields[field] = with.close(s.place(&c.description, c.name, field), value.Reveal())
		value.Wipe()
	}
	return again, s.sealRow(again, with)
}

// errClosed is a vault that was closed.
var errClosed = errors.New("the vault is closed")
