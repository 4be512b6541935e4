package agent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// purposeWitness is the control plane's alone. Its keys have no agent's name in
// the associated data, which no agent can have.
const purposeWitness = "witness"

// ControlKeys are the control plane's own, for the life of the home. The caller
// wipes them.
type ControlKeys struct {
	Data    secretbytes.Bytes // encrypts its log and alerts; 32 bytes
	Sign    secretbytes.Bytes // the Ed25519 seed (RFC 8032) that signs its log; 32 bytes
	Witness secretbytes.Bytes // the Ed25519 seed that cosigns heads, which no worker has; 32 bytes
}

// Wipe overwrites all of them.
func (k ControlKeys) Wipe() {
	k.Data.Wipe()
	k.Sign.Wipe()
	k.Witness.Wipe()
}

// ControlKeys unwraps the control plane's own keys.
func (s *Store) ControlKeys(ctx context.Context) (_ ControlKeys, err error) {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	var keys ControlKeys
	defer func() {
		if err != nil {
			keys.Wipe()
		}
	}()
	rows, err := wrappedControl(ctx, s.db.Query)
	if err != nil {
		return ControlKeys{}, err
	}
	for _, w := range rows {
		key, err := s.unwrap(w)
		if err != nil {
			return ControlKeys{}, err
		}
		switch w.purpose {
		case purposeData:
			keys.Data = key
		case purposeSign:
			keys.Sign = key
		case purposeWitness:
			keys.Witness = key
		default:
			key.Wipe()
		}
	}
	if keys.Data.Len() == 0 || keys.Sign.Len() == 0 || keys.Witness.Len() == 0 {
		return ControlKeys{}, errors.New("keys of the control plane are missing in control.db: restore it from a backup")
	}
	return keys, nil
}

// wrappedControl returns the rows of control_keys.
func wrappedControl(ctx context.Context, query query) (out []wrapped, err error) {
	rows, err := query(ctx, "SELECT purpose, wrapped FROM control_keys ORDER BY purpose")
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		w := wrapped{version: 1}
		if err := rows.Scan(&w.purpose, &w.box); err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		out = append(out, w)
	}
	return out, rows.Err()
}

// createControlKeys makes the control plane's keys in a home that has none: a
// new one, or one of a release before there was a log of the control plane.
// Where its log was begun they are not made again: that log would be lost.
func (s *Store) createControlKeys(ctx context.Context) error {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		var keys, begun int
		if err := tx.QueryRow(ctx, "SELECT (SELECT count(*) FROM control_keys), (SELECT count(head) FROM control_log)", nil, &keys, &begun); err != nil {
			return err
		}
		if keys > 0 || begun > 0 {
			return nil
		}
		aead, err := s.aead()
		if err != nil {
			return err
		}
		for _, purpose := range []string{purposeData, purposeSign, purposeWitness} {
			key := randomKey()
			box := seal(aead, wrapped{purpose: purpose, version: 1}, key)
			key.Wipe()
			if _, err := tx.Exec(ctx, "INSERT INTO control_keys (purpose, wrapped, created) VALUES (?, ?, ?)", purpose, box, now().UnixMicro()); err != nil {
				return err
			}
		}
		return nil
	})
}

// ControlHead returns the newest cosigned checkpoint of the control plane's
// log, nil if that was never begun.
func (s *Store) ControlHead(ctx context.Context) (note []byte, err error) {
	err = s.db.QueryRow(ctx, "SELECT head FROM control_log", nil, &note)
	return note, err
}

// SetControlHead replaces it, if it still is old; see SetHead.
func (s *Store) SetControlHead(ctx context.Context, old, note []byte) (set bool, err error) {
	set, err = s.swapHead(ctx, "UPDATE control_log SET head = ? WHERE head IS ?", note, old)
	if err != nil {
		return false, fmt.Errorf("keeping the head of the control plane's log: %w", err)
	}
	return set, nil
}

// Refused returns why the witness refuses the log of an agent, "" if it does not.
func (s *Store) Refused(ctx context.Context, id ambit.AgentID) (why string, err error) {
	err = s.db.QueryRow(ctx, "SELECT coalesce(refused, '') FROM agents WHERE id = ?", []any{string(id)}, &why)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	return why, err
}

// SetRefused notes why the witness refuses the log of an agent; "" ends that.
func (s *Store) SetRefused(ctx context.Context, id ambit.AgentID, why string) error {
	return s.update(ctx, id, "UPDATE agents SET refused = nullif(?, '') WHERE id = ?", why, string(id))
}

// Held returns who set a legal hold on the log of an agent, and when, in words; ""
// if there is none.
func (s *Store) Held(ctx context.Context, id ambit.AgentID) (who string, err error) {
	err = s.db.QueryRow(ctx, "SELECT coalesce(held, '') FROM agents WHERE id = ?", []any{string(id)}, &who)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	return who, err
}

// SetHeld notes a legal hold on the log of an agent; "" ends that.
func (s *Store) SetHeld(ctx context.Context, id ambit.AgentID, who string) error {
	return s.update(ctx, id, "UPDATE agents SET held = nullif(?, '') WHERE id = ?", who, string(id))
}
