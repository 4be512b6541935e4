package worker

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ambit"
	"ambit/egress"
)

// openCA reads the agent's certificate authority, or makes it the first time.
// Its private key is on disk only sealed with a key derived from the agent's
// data key (AES-256-GCM, associated data names the agent), and lives as long as
// that: the computer's trust store stays valid over restarts.
func openCA(path string, agent ambit.AgentID, data []byte) (*egress.CA, error) {
	key, err := hkdf.Key(sha256.New, data, nil, "ambit/egress-ca/v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the certificate authority: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("sealing the certificate authority: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("sealing the certificate authority: %w", err)
	}
	ad := []byte("ambit/egress-ca/v1 " + string(agent))
	sealed, err := os.ReadFile(path)
	if err == nil {
		plain, err := aead.Open(nil, nil, sealed, ad)
		if err != nil {
			return nil, fmt.Errorf("opening the agent's certificate authority %s: it was not sealed with this agent's key; restore it from a backup, or remove it and restart the computer to get a new one", path)
		}
		defer clear(plain)
		return egress.LoadCA(plain)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading the agent's certificate authority: %w", err)
	}
	ca, err := egress.NewCA(string(agent))
	if err != nil {
		return nil, fmt.Errorf("making the agent's certificate authority: %w", err)
	}
	plain, err := ca.Marshal()
	if err != nil {
		return nil, fmt.Errorf("making the agent's certificate authority: %w", err)
	}
	defer clear(plain)
	return ca, writeDurably(path, aead.Seal(nil, nil, plain, ad))
}

// writeDurably writes a file that is complete or not there after a power cut.
func writeDurably(path string, b []byte) error {
	tmp := path + "." + rand.Text()
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		var dir *os.File
		if dir, err = os.Open(filepath.Dir(path)); err == nil {
			err = errors.Join(dir.Sync(), dir.Close())
		}
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
