// Package kek keeps a home's root key, the key-encryption key that wraps every
// agent's keys, in one file that is protected in one of three ways:
//
//   - [KeyFile]: 32 random bytes, which the file's mode protects and nothing
//     else does.
//   - [Passphrase]: sealed with AES-256-GCM under a key that argon2id
//     (RFC 9106) makes of a passphrase; the parameters are in the file.
//   - [KMS]: wrapped by a key that never leaves a key management service. A
//     program of its own talks to it, see [Program].
//
// A file of exactly 32 bytes is the first form. The others are text:
//
//	ambit root key v1
//	protection: passphrase
//	check: 64 hexadecimal digits
//	kdf: argon2id m=65536 t=3 p=4
//	salt: base64
//	sealed: base64 of nonce, ciphertext and tag
//
// and for a KMS a line "url: ..." in place of kdf and salt. The check is a MAC
// of the key that knows it again without telling it ([Check]): so a home can
// say which of two files is its own without opening either. All lines above
// "sealed" are the associated data of a passphrase's seal.
//
// Crash points: [File.Write] makes a file that is whole, or that is not yet
// anybody's; [Replace] puts it in the place of another in one step.
//
// Trust: whoever can read the file can try passphrases at the pace that
// argon2id lets them; with a key file they have the key. A KMS sees the root
// key when it wraps and unwraps it, and who controls that service or the
// credentials for it has every agent's keys if they also have the home.
package kek

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"ambit/internal/secretbytes"
)

// Size is the size of a root key, in bytes.
const Size = 32

// Kind is how a root key is protected. The zero Kind is none of them, and
// nothing is sealed with it.
type Kind string

// The kinds.
const (
	KeyFile    Kind = "file"
	Passphrase Kind = "passphrase"
	KMS        Kind = "kms"
)

// Lengths of a new passphrase, in bytes.
const (
	MinPassphrase = 12
	MaxPassphrase = 1024
)

// What a caller branches on.
var (
	ErrPassphrase = errors.New("the passphrase is not the one that the root key was sealed with, or the file was changed")
	ErrNoKeeper   = errors.New("this program cannot talk to a KMS")
)

// Protection says how a root key is to be kept.
type Protection struct {
	Kind       Kind
	Passphrase secretbytes.Bytes // for Passphrase: MinPassphrase to MaxPassphrase bytes
	URL        string            // for KMS: of the key, see CheckURL
}

// Unlock is what opening a file may need. What is missing is an error only for
// a file that needs it.
type Unlock struct {
	// Passphrase is asked when there is something sealed with one; the caller of
	// this function wipes what it returns.
	Passphrase func(context.Context) (secretbytes.Bytes, error)
	Keeper     Keeper
}

// Keeper wraps keys with one that never leaves a KMS. Errors are a *KMSError.
type Keeper interface {
	Wrap(ctx context.Context, url string, key secretbytes.Bytes) ([]byte, error)
	Unwrap(ctx context.Context, url string, wrapped []byte) (secretbytes.Bytes, error)
}

// KMSError is returned when a KMS could not be used.
type KMSError struct {
	URL string // of the key
	Err error
}

// Error implements error.
func (e *KMSError) Error() string {
	return fmt.Sprintf("using the KMS key %s: %v; see that the service can be reached from here, and that %s", e.URL, e.Err, credentials(e.URL))
}

// Unwrap returns the cause.
func (e *KMSError) Unwrap() error { return e.Err }

// schemes says for each kind of KMS where it takes its credentials from.
func schemes() map[string]string {
	return map[string]string{
		"awskms":        "AWS credentials with kms:Encrypt and kms:Decrypt on the key are in the environment or on the instance of `ambit serve`",
		"gcpkms":        "Google application default credentials with cloudkms.cryptoKeyVersions.useToEncrypt and useToDecrypt on the key are there for `ambit serve`",
		"azurekeyvault": "Azure credentials with the encrypt and decrypt operations on the key are in the environment or on the machine of `ambit serve`",
		"hashivault":    "VAULT_ADDR, and VAULT_TOKEN_FILE or VAULT_TOKEN, of `ambit serve` name a Vault or OpenBao that is unsealed and a token that may update encrypt and decrypt of the key",
	}
}

func credentials(u string) string {
	scheme, _, _ := strings.Cut(u, ":")
	return schemes()[scheme]
}

// CheckURL says what is wrong with the URL of a KMS key. Its schemes are those
// of gocloud.dev/secrets: awskms, gcpkms, azurekeyvault and hashivault, which
// is OpenBao's and Vault's transit engine. It may hold no secret.
func CheckURL(s string) error {
	if len(s) > 2048 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the URL of a KMS key is at most 2048 printable ASCII characters without spaces")
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%q is not a URL (an AWS ARN is written with three slashes: awskms:///arn:aws:kms:…): %w", s, err)
	}
	if _, ok := schemes()[u.Scheme]; !ok {
		return fmt.Errorf("%q is not the URL of a KMS key: it begins with awskms://, gcpkms://, azurekeyvault:// or hashivault://", s)
	}
	if u.User != nil {
		return errors.New("the URL of a KMS key holds no user and no password: the service's own environment variables and files do")
	}
	if strings.Trim(u.Host+u.Path, "/") == "" || u.Fragment != "" {
		return fmt.Errorf("%q names no key: write it like hashivault://ambit", s)
	}
	return nil
}

// Check knows a key again without telling it: a MAC (HMAC-SHA256) under it.
func Check(key secretbytes.Bytes) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	_, _ = h.Write([]byte("ambit root check v1\x00")) // never fails (hash.Hash)
	return h.Sum(nil)
}

// NewKey makes a root key.
func NewKey() secretbytes.Bytes {
	b := make([]byte, Size)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return secretbytes.New(b)
}

// Info says how a root key is protected, for people.
type Info struct {
	Kind Kind
	URL  string // of the KMS key; "" for the others
	KDF  string // "argon2id m=65536 t=3 p=4"; "" for the others
}

// File is the content of a root key file.
type File struct {
	info  Info
	check []byte
	plain secretbytes.Bytes // of KeyFile
	text  []byte            // of the others: the whole file
	head  int               // how much of text is above the line "sealed"
	kdf   params
	salt  []byte
	box   []byte
}

// Info says how the key in the file is protected.
func (f *File) Info() Info { return f.info }

// Matches says whether the file holds the key that check was made of. It
// needs no passphrase and no KMS, and believes the file; Open does not.
func (f *File) Matches(check []byte) bool { return hmac.Equal(f.check, check) }

// Wipe forgets a key that the file held in the clear.
func (f *File) Wipe() { f.plain.Wipe() }

// Seal protects a key. A passphrase must be of the right length and a KMS must
// answer; for a KMS it is proved that it gives the key back.
func Seal(ctx context.Context, key secretbytes.Bytes, p Protection, keeper Keeper) (*File, error) {
	if key.Len() != Size {
		return nil, fmt.Errorf("a root key has %d bytes, not %d", Size, key.Len())
	}
	switch p.Kind {
	case KeyFile:
		return &File{info: Info{Kind: KeyFile}, check: Check(key), plain: secretbytes.New(slices.Clone(key.Reveal()))}, nil
	case Passphrase:
		return sealPassphrase(key, p.Passphrase)
	case KMS:
		return sealKMS(ctx, key, p.URL, keeper)
	}
	return nil, fmt.Errorf("there is no protection %q for a root key: it is %s, %s or %s", p.Kind, KeyFile, Passphrase, KMS)
}

// Open gives the key. It is proved to be the one that the file says it is.
func (f *File) Open(ctx context.Context, u Unlock) (secretbytes.Bytes, error) {
	key, err := f.open(ctx, u)
	if err != nil {
		return secretbytes.Bytes{}, err
	}
	if key.Len() != Size || !f.Matches(Check(key)) {
		key.Wipe()
		return secretbytes.Bytes{}, errors.New("what was opened is not the key that the file was made of: restore the file from a backup")
	}
	return key, nil
}

func (f *File) open(ctx context.Context, u Unlock) (secretbytes.Bytes, error) {
	switch f.info.Kind {
	case KeyFile:
		return secretbytes.New(slices.Clone(f.plain.Reveal())), nil
	case Passphrase:
		if u.Passphrase == nil {
			return secretbytes.Bytes{}, errors.New("the root key is sealed with a passphrase, and there is none: give it with --passphrase-file or AMBIT_PASSPHRASE_FILE, or start ambit serve on a terminal")
		}
		passphrase, err := u.Passphrase(ctx)
		if err != nil {
			return secretbytes.Bytes{}, err
		}
		defer passphrase.Wipe()
		return f.openPassphrase(passphrase)
	case KMS:
		if u.Keeper == nil {
			return secretbytes.Bytes{}, &KMSError{f.info.URL, ErrNoKeeper}
		}
		return u.Keeper.Unwrap(ctx, f.info.URL, f.box)
	}
	return secretbytes.Bytes{}, errors.New("the root key file is empty")
}

func sealKMS(ctx context.Context, key secretbytes.Bytes, u string, keeper Keeper) (*File, error) {
	if err := CheckURL(u); err != nil {
		return nil, err
	}
	if keeper == nil {
		return nil, &KMSError{u, ErrNoKeeper}
	}
	box, err := keeper.Wrap(ctx, u, key)
	if err != nil {
		return nil, err
	}
	f := &File{info: Info{Kind: KMS, URL: u}, check: Check(key), box: box}
	f.write()
	// A service may let us encrypt and not decrypt.
	again, err := f.Open(ctx, Unlock{Keeper: keeper})
	if err != nil {
		return nil, fmt.Errorf("the KMS wrapped the key and does not unwrap it: %w", err)
	}
	again.Wipe()
	return f, nil
}
