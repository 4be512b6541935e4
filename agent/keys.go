package agent

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// keySize is the size of every key, in bytes.
const keySize = 32

// The purposes of an agent's keys. They are part of the associated data.
const (
	purposeData  = "data"
	purposeSign  = "sign"
	purposeVault = "vault"
	purposeToken = "token"
)

// Keys are an agent's own. The caller wipes them.
type Keys struct {
	Data  secretbytes.Bytes // encrypts its log, alerts and certificate authority, for its whole life; 32 bytes
	Sign  secretbytes.Bytes // the Ed25519 seed (RFC 8032) that signs its log, for its whole life; 32 bytes
	Vault []VaultKey        // encrypt its credentials; by version, the newest last, at least one
}

// VaultKey is one version of the key that encrypts an agent's credentials.
type VaultKey struct {
	Version int // from 1
	Created time.Time
	Key     secretbytes.Bytes // 32 bytes
}

// Wipe overwrites all of them.
func (k Keys) Wipe() {
	k.Data.Wipe()
	k.Sign.Wipe()
	for _, v := range k.Vault {
		v.Key.Wipe()
	}
}

// Keys unwraps an agent's keys. It fails if a row was changed, or belongs to
// another agent.
func (s *Store) Keys(ctx context.Context, id ambit.AgentID) (_ Keys, err error) {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	var keys Keys
	defer func() {
		if err != nil {
			keys.Wipe()
		}
	}()
	rows, err := s.wrapped(ctx, s.db.Query, id)
	if err != nil {
		return Keys{}, err
	}
	for _, w := range rows {
		if w.purpose == purposeToken {
			continue
		}
		key, err := s.unwrap(w)
		if err != nil {
			return Keys{}, err
		}
		switch w.purpose {
		case purposeData:
			keys.Data = key
		case purposeSign:
			keys.Sign = key
		case purposeVault:
			keys.Vault = append(keys.Vault, VaultKey{w.version, w.created, key})
		}
	}
	switch {
	case len(rows) == 0:
		return Keys{}, fmt.Errorf("the keys of %s: %w", id, ErrNotFound)
	case keys.Data.Len() == 0 || keys.Sign.Len() == 0 || len(keys.Vault) == 0:
		return Keys{}, fmt.Errorf("keys of %s are missing in control.db: restore it from a backup", id)
	}
	return keys, nil
}

// WorkerToken is what a caller shows to an agent's worker. It lives as long as
// the agent, so that a control plane that was restarted knows the workers it
// finds, also when the root key was rotated meanwhile.
func (s *Store) WorkerToken(ctx context.Context, id ambit.AgentID) (string, error) {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	rows, err := s.wrapped(ctx, s.db.Query, id)
	if err != nil {
		return "", err
	}
	for _, w := range rows {
		if w.purpose != purposeToken {
			continue
		}
		key, err := s.unwrap(w)
		if err != nil {
			return "", err
		}
		defer key.Wipe()
		return hex.EncodeToString(key.Reveal()), nil
	}
	return "", fmt.Errorf("the token of %s: %w", id, ErrNotFound)
}

// wrapped is a row of agent_keys.
type wrapped struct {
	agent   ambit.AgentID
	purpose string
	version int
	box     []byte // nonce, ciphertext, tag
	created time.Time
}

// query is the same method of a database and of a transaction.
type query func(ctx context.Context, query string, args ...any) (*sqldb.Rows, error)

// wrapped returns the rows of one agent, or of all if id is "", each purpose's
// by version.
func (s *Store) wrapped(ctx context.Context, query query, id ambit.AgentID) (out []wrapped, err error) {
	text, args := "SELECT agent, purpose, version, wrapped, created FROM agent_keys", []any(nil)
	if id != "" {
		text, args = text+" WHERE agent = ?", []any{string(id)}
	}
	rows, err := query(ctx, text+" ORDER BY agent, purpose, version", args...)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var w wrapped
		var created int64
		if err := rows.Scan(&w.agent, &w.purpose, &w.version, &w.box, &created); err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		if created != 0 {
			w.created = time.UnixMicro(created).UTC()
		}
		out = append(out, w)
	}
	return out, rows.Err()
}

// unwrap opens a row with the root key in force. s.rooted is held.
func (s *Store) unwrap(w wrapped) (secretbytes.Bytes, error) {
	aead, err := s.aead()
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	return unseal(aead, w)
}

func unseal(aead cipher.AEAD, w wrapped) (secretbytes.Bytes, error) {
	if len(w.box) < aead.NonceSize() {
		return secretbytes.Bytes{}, errKey(w)
	}
	nonce, box := w.box[:aead.NonceSize()], w.box[aead.NonceSize():]
	key, err := aead.Open(nil, nonce, box, associated(w.agent, w.purpose, w.version))
	if err != nil || len(key) != keySize {
		return secretbytes.Bytes{}, errKey(w)
	}
	return secretbytes.New(key), nil
}

func errKey(w wrapped) error {
	if w.agent == "" {
		return fmt.Errorf("the %s key of the control plane does not open: its row in control.db was changed; restore control.db from a backup", w.purpose)
	}
	return fmt.Errorf("the %s key of %s does not open: its row in control.db was changed, or belongs to another agent; restore control.db from a backup", w.purpose, w.agent)
}

func seal(aead cipher.AEAD, w wrapped, key secretbytes.Bytes) []byte {
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+keySize+aead.Overhead())
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	return aead.Seal(nonce, nonce, key.Reveal(), associated(w.agent, w.purpose, w.version))
}

// createKeys makes and wraps the first keys of an agent. s.rooted is held.
func (s *Store) createKeys(ctx context.Context, tx *sqldb.Tx, id ambit.AgentID) error {
	for _, purpose := range []string{purposeData, purposeSign, purposeVault, purposeToken} {
		if err := s.addKey(ctx, tx, id, purpose, 1, randomKey()); err != nil {
			return err
		}
	}
	return nil
}

func randomKey() secretbytes.Bytes {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return secretbytes.New(b)
}

// addKey wraps and stores a key, and wipes it. s.rooted is held.
func (s *Store) addKey(ctx context.Context, tx *sqldb.Tx, id ambit.AgentID, purpose string, version int, key secretbytes.Bytes) error {
	defer key.Wipe()
	aead, err := s.aead()
	if err != nil {
		return err
	}
	box := seal(aead, wrapped{agent: id, purpose: purpose, version: version}, key)
	_, err = tx.Exec(ctx, "INSERT INTO agent_keys (agent, purpose, version, wrapped, created) VALUES (?, ?, ?, ?, ?)",
		string(id), purpose, version, box, now().UnixMicro())
	return err
}

// completeKeys gives agents of an earlier release the keys that it did not
// make. Their workers know the token that was derived from the root key of that
// time, so that one is kept. It is done before the root key can be rotated.
func (s *Store) completeKeys(ctx context.Context) error {
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		rows, err := s.wrapped(ctx, tx.Query, "")
		if err != nil {
			return err
		}
		has := map[ambit.AgentID]map[string]bool{}
		for _, w := range rows {
			if has[w.agent] == nil {
				has[w.agent] = map[string]bool{}
			}
			has[w.agent][w.purpose] = true
		}
		for id, purposes := range has {
			if !purposes[purposeVault] {
				if err := s.addKey(ctx, tx, id, purposeVault, 1, randomKey()); err != nil {
					return err
				}
			}
			if !purposes[purposeToken] {
				if err := s.addKey(ctx, tx, id, purposeToken, 1, s.derivedToken(id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// derivedToken is the token of an agent in the first format.
func (s *Store) derivedToken(id ambit.AgentID) secretbytes.Bytes {
	h := hmac.New(sha256.New, s.root.Reveal())
	_, _ = h.Write([]byte("ambit worker token v1\x00" + string(id))) // never fails (hash.Hash)
	return secretbytes.New(h.Sum(nil))
}

// aead is made of the root key in force. s.rooted is held.
func (s *Store) aead() (cipher.AEAD, error) {
	if s.torn {
		return nil, errTorn
	}
	return newAEAD(s.root)
}

func newAEAD(root secretbytes.Bytes) (cipher.AEAD, error) {
	block, err := aes.NewCipher(root.Reveal())
	if err != nil {
		return nil, fmt.Errorf("using the root key: %w", err)
	}
	return cipher.NewGCM(block)
}

// associated names what a wrapped key is for. No part can hold a zero byte.
func associated(id ambit.AgentID, purpose string, version int) []byte {
	return []byte("ambit key v1\x00" + string(id) + "\x00" + purpose + "\x00" + strconv.Itoa(version))
}
