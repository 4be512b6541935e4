package kek

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/crypto/argon2"

	"ambit/internal/secretbytes"
)

// params are those of argon2id (RFC 9106).
type params struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// recommended is RFC 9106's second recommended option, for where not 2 GiB of
// memory can be had. A file with more is opened too, one with less is not.
func recommended() params { return params{memory: 64 << 10, passes: 3, threads: 4} }

// Bounds of what a file may ask of the machine that opens it.
const (
	maxMemory  = 4 << 20 // KiB
	maxPasses  = 64
	maxThreads = 64
)

const saltSize = 16

func (p params) String() string {
	return fmt.Sprintf("argon2id m=%d t=%d p=%d", p.memory, p.passes, p.threads)
}

func (p params) valid() bool {
	least := recommended()
	return p.memory >= least.memory && p.memory <= maxMemory && p.passes >= least.passes && p.passes <= maxPasses && p.threads >= 1 && p.threads <= maxThreads
}

// CheckPassphrase says what is wrong with a new passphrase.
func CheckPassphrase(p secretbytes.Bytes) error {
	switch n := p.Len(); {
	case n == 0:
		return errors.New("the passphrase is empty")
	case n < MinPassphrase:
		return fmt.Errorf("the passphrase has %d bytes and needs at least %d: take some words that do not belong together", n, MinPassphrase)
	case n > MaxPassphrase:
		return fmt.Errorf("the passphrase has %d bytes and may have %d", n, MaxPassphrase)
	}
	return nil
}

func sealPassphrase(key, passphrase secretbytes.Bytes) (*File, error) {
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	f := &File{info: Info{Kind: Passphrase}, check: Check(key), kdf: recommended(), salt: make([]byte, saltSize)}
	_, _ = rand.Read(f.salt) // never fails (crypto/rand)
	f.info.KDF = f.kdf.String()
	aead, err := f.passphraseAEAD(passphrase)
	if err != nil {
		return nil, err
	}
	f.write() // makes what is above the seal
	f.box = aead.Seal(nil, nil, key.Reveal(), f.text[:f.head])
	f.write()
	return f, nil
}

func (f *File) openPassphrase(passphrase secretbytes.Bytes) (secretbytes.Bytes, error) {
	aead, err := f.passphraseAEAD(passphrase)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	key, err := aead.Open(nil, nil, f.box, f.text[:f.head])
	if err != nil {
		return secretbytes.Bytes{}, ErrPassphrase
	}
	return secretbytes.New(key), nil
}

// passphraseAEAD is AES-256-GCM with a random nonce in front of the ciphertext.
func (f *File) passphraseAEAD(passphrase secretbytes.Bytes) (cipher.AEAD, error) {
	key := argon2.IDKey(passphrase.Reveal(), f.salt, f.kdf.passes, f.kdf.memory, f.kdf.threads, Size)
	defer clear(key)
	debug.FreeOSMemory() // argon2 does not wipe its memory; given back, it is zeroed before anybody has it
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("using the passphrase: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
