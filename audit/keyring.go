package audit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"golang.org/x/mod/sumdb/note"

	"ambit"
	"ambit/internal/secretbytes"
)

// Keys are the secrets of one log.
type Keys struct {
	// Body is the agent's data-encryption key, 32 bytes. Keys for this
	// package's own purposes are derived from it.
	Body secretbytes.Bytes
	// Sign is the seed of the Ed25519 key (RFC 8032) that signs checkpoints,
	// 32 bytes. Whoever has it can sign another history.
	Sign secretbytes.Bytes
}

const (
	saltSize       = 32
	nonceSize      = 12
	commitmentSize = sha256.Size
	tagSize        = 16

	// sealedV1 is the first byte of a sealed body: AES-256-GCM (NIST SP
	// 800-38D) with a random nonce, over salt and body.
	sealedV1 = 1
	// sealedMin is the length of a sealed empty body.
	sealedMin = 1 + nonceSize + saltSize + tagSize
)

// keyring has what is derived from the keys and the agent's name. It never
// changes.
type keyring struct {
	origin   string
	aead     cipher.AEAD
	keycheck []byte
	subjects []byte // keys the hashes of subjects
	private  ed25519.PrivateKey
	hash     uint32 // of the verifier key, as in signed notes
	vkey     string
	verifier note.Verifier
}

func newKeyring(agent ambit.AgentID, k Keys) (*keyring, error) {
	if len(agent) > 200 {
		return nil, errors.New("the agent's name is too long")
	}
	if k.Body.Len() != 32 || k.Sign.Len() != ed25519.SeedSize {
		return nil, errors.New("the log's keys must be 32 bytes each")
	}
	r := &keyring{private: ed25519.NewKeyFromSeed(k.Sign.Reveal())}
	public := r.private.Public().(ed25519.PublicKey)
	r.origin = origin(agent, public)
	var err error
	if r.vkey, err = note.NewEd25519VerifierKey(r.origin, public); err != nil {
		return nil, err
	}
	if r.verifier, err = note.NewVerifier(r.vkey); err != nil {
		return nil, err
	}
	r.hash = r.verifier.KeyHash()
	key, err := hkdf.Key(sha256.New, k.Body.Reveal(), nil, "ambit audit body v1\n"+r.origin, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if r.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if r.subjects, err = hkdf.Key(sha256.New, k.Body.Reveal(), nil, "ambit audit subject v1\n"+r.origin, 32); err != nil {
		return nil, err
	}
	r.keycheck, err = hkdf.Key(sha256.New, k.Body.Reveal(), nil, "ambit audit keycheck v1\n"+r.origin, 16)
	return r, err
}

// origin is the name of a log, which no other has; "" is the control plane's.
func origin(agent ambit.AgentID, public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	id := hex.EncodeToString(sum[:4])
	if agent == "" {
		return "ambit/control/" + id
	}
	return "ambit/agent/" + string(agent) + "/" + id
}

// subject is the keyed hash by which events name a subject: 96 bits of
// HMAC-SHA256, base64. Without the key it confirms no guess.
func (r *keyring) subject(s ambit.Subject) string {
	m := hmac.New(sha256.New, r.subjects)
	m.Write([]byte(s.Kind + "\n" + s.Value))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:12])
}

// Name, KeyHash and Sign make a keyring a note.Signer.

func (r *keyring) Name() string                    { return r.origin }
func (r *keyring) KeyHash() uint32                 { return r.hash }
func (r *keyring) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(r.private, msg), nil }

// associated is what ties a sealed body to its log and position.
func (r *keyring) associated(dst []byte, seq uint64) []byte {
	dst = append(append(dst, r.origin...), '\n')
	return binary.BigEndian.AppendUint64(dst, seq)
}

// seal appends the sealed form of body to dst and returns the commitment too:
// version byte, nonce, then salt and body encrypted together. The salt is
// encrypted because with it the commitment would confirm guesses of the body.
// scratch is overwritten.
//
// The nonce is random: a position can be used twice with different bodies (a
// commit that failed, a disk image that was rolled back), so it must not come
// from the position. Random 96-bit nonces are good for 2^32 events of one key.
func (r *keyring) seal(dst []byte, seq uint64, body []byte, scratch *[]byte) ([]byte, [sha256.Size]byte) {
	var random [nonceSize + saltSize]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	nonce, salt := random[:nonceSize], random[nonceSize:]
	plain := append(append((*scratch)[:0], salt...), body...)
	n := len(plain)
	plain = r.associated(plain, seq)
	*scratch = plain
	dst = append(append(dst, sealedV1), nonce...)
	return r.aead.Seal(dst, nonce, plain[:n], plain[n:]), commit(salt, body)
}

// unseal reverses seal and checks the commitment, which the salt opens. Any
// difference in body, salt, position, origin or commitment is an error.
func (r *keyring) unseal(seq uint64, sealed []byte, want [sha256.Size]byte) (salt, body []byte, err error) {
	if len(sealed) < sealedMin || sealed[0] != sealedV1 {
		return nil, nil, errors.New("it is not in a form that this version knows")
	}
	plain, err := r.aead.Open(nil, sealed[1:1+nonceSize], sealed[1+nonceSize:], r.associated(nil, seq))
	if err != nil {
		return nil, nil, errors.New("it does not decrypt")
	}
	salt, body = plain[:saltSize], plain[saltSize:]
	if commit(salt, body) != want {
		return nil, nil, errors.New("it is not the body that the log committed to")
	}
	return salt, body, nil
}
