package agent

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// keySize is the size of every key, in bytes.
const keySize = 32

// keyVersion is the version of an agent's keys until they can be rotated.
const keyVersion = 1

// The purposes of an agent's keys. They are part of the associated data.
const (
	purposeData = "data"
	purposeSign = "sign"
)

// Keys are an agent's own. The caller wipes them.
type Keys struct {
	Data secretbytes.Bytes // encrypts what is its own; 32 bytes
	Sign secretbytes.Bytes // the Ed25519 seed (RFC 8032) that signs its log; 32 bytes
}

// Wipe overwrites both.
func (k Keys) Wipe() {
	k.Data.Wipe()
	k.Sign.Wipe()
}

// Keys unwraps an agent's keys. It fails if a row was changed, or belongs to
// another agent.
func (s *Store) Keys(ctx context.Context, id ambit.AgentID) (Keys, error) {
	data, err := s.key(ctx, id, purposeData)
	if err != nil {
		return Keys{}, err
	}
	sign, err := s.key(ctx, id, purposeSign)
	if err != nil {
		data.Wipe()
		return Keys{}, err
	}
	return Keys{Data: data, Sign: sign}, nil
}

func (s *Store) key(ctx context.Context, id ambit.AgentID, purpose string) (secretbytes.Bytes, error) {
	var wrapped []byte
	err := s.db.QueryRow(ctx, "SELECT wrapped FROM agent_keys WHERE agent = ? AND purpose = ? AND version = ?", []any{string(id), purpose, keyVersion}, &wrapped)
	if errors.Is(err, sql.ErrNoRows) {
		return secretbytes.Bytes{}, fmt.Errorf("the %s key of %s: %w", purpose, id, ErrNotFound)
	}
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	aead, err := s.aead()
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	if len(wrapped) < aead.NonceSize() {
		return secretbytes.Bytes{}, errKey(id, purpose)
	}
	nonce, box := wrapped[:aead.NonceSize()], wrapped[aead.NonceSize():]
	key, err := aead.Open(nil, nonce, box, associated(id, purpose, keyVersion))
	if err != nil || len(key) != keySize {
		return secretbytes.Bytes{}, errKey(id, purpose)
	}
	return secretbytes.New(key), nil
}

func errKey(id ambit.AgentID, purpose string) error {
	return fmt.Errorf("the %s key of %s does not open: its row in control.db was changed, or belongs to another agent; restore control.db from a backup", purpose, id)
}

// createKeys makes and wraps new keys for an agent.
func (s *Store) createKeys(ctx context.Context, tx *sqldb.Tx, id ambit.AgentID) error {
	aead, err := s.aead()
	if err != nil {
		return err
	}
	for _, purpose := range []string{purposeData, purposeSign} {
		random := make([]byte, aead.NonceSize()+keySize)
		_, _ = rand.Read(random) // never fails (crypto/rand)
		nonce, key := random[:aead.NonceSize():aead.NonceSize()], random[aead.NonceSize():]
		wrapped := aead.Seal(nonce, nonce, key, associated(id, purpose, keyVersion))
		clear(key)
		_, err := tx.Exec(ctx, "INSERT INTO agent_keys (agent, purpose, version, wrapped) VALUES (?, ?, ?, ?)", string(id), purpose, keyVersion, wrapped)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(s.root.Reveal())
	if err != nil {
		return nil, fmt.Errorf("using the root key: %w", err)
	}
	return cipher.NewGCM(block)
}

// associated names what a wrapped key is for. No part can hold a zero byte.
func associated(id ambit.AgentID, purpose string, version int) []byte {
	return []byte("ambit key v1\x00" + string(id) + "\x00" + purpose + "\x00" + strconv.Itoa(version))
}

// WorkerToken is what a caller shows to an agent's worker. It is derived, so
// that a control plane that was restarted knows the workers it finds.
func (s *Store) WorkerToken(id ambit.AgentID) string {
	return hex.EncodeToString(s.mac("ambit worker token v1\x00" + string(id)))
}

func (s *Store) mac(label string) []byte { return mac(s.root, label) }

func mac(root secretbytes.Bytes, label string) []byte {
	h := hmac.New(sha256.New, root.Reveal())
	_, _ = h.Write([]byte(label)) // never fails (hash.Hash)
	return h.Sum(nil)
}

func rootCheck(root secretbytes.Bytes) []byte { return mac(root, "ambit root check v1\x00") }

func checkRoot(root secretbytes.Bytes, check []byte, home string) error {
	if !hmac.Equal(rootCheck(root), check) {
		return fmt.Errorf("%s is not the key that control.db beside it was made with: restore the right one from a backup", filepath.Join(home, "root.key"))
	}
	return nil
}

// rootKey reads the root key. If there is none it makes one, which only a home
// without agents may do.
func rootKey(path string, mayCreate bool) (secretbytes.Bytes, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !mayCreate {
			return secretbytes.Bytes{}, fmt.Errorf("%s is missing, and control.db beside it needs it: restore it from a backup; without it the agents' data cannot be opened", path)
		}
		if err := createRootKey(path); err != nil {
			return secretbytes.Bytes{}, fmt.Errorf("making the root key: %w", err)
		}
		fi, err = os.Lstat(path)
	}
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("looking at the root key: %w", err)
	}
	switch {
	case !fi.Mode().IsRegular():
		return secretbytes.Bytes{}, fmt.Errorf("%s is not a regular file: restore the root key from a backup", path)
	case fi.Mode().Perm()&0o077 != 0:
		return secretbytes.Bytes{}, fmt.Errorf("%s can be read or written by other users (mode %04o): if nobody had it, run: chmod 600 %s", path, fi.Mode().Perm(), path)
	case fi.Size() != keySize:
		return secretbytes.Bytes{}, fmt.Errorf("%s has %d bytes and a root key has %d: restore it from a backup", path, fi.Size(), keySize)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("reading the root key: %w", err)
	}
	if len(b) != keySize {
		return secretbytes.Bytes{}, fmt.Errorf("%s changed while it was read: try again", path)
	}
	return secretbytes.New(b), nil
}

// createRootKey makes the file appear whole or not at all, and never replaces
// one: open(O_CREAT|O_EXCL), write, fsync, link (fails if it exists), unlink,
// fsync of the directory. A crash leaves at most a temporary file of which
// nothing depends.
func createRootKey(path string) (err error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	defer clear(key)
	tmp, err := os.CreateTemp(filepath.Dir(path), ".root.key-*") // 0600, O_EXCL
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name()), syncDir(filepath.Dir(path))) }()
	_, err = tmp.Write(key)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Link(tmp.Name(), path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
