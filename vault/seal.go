package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"ambit"
	"ambit/internal/secretbytes"
)

// errSealed is a row that does not open. What the cipher says would not help.
var errSealed = errors.New("its row in the database does not open: it was changed, or comes from another agent, connection or time")

// seal seals with one version of the agent's key. Known hole: the expanded key
// inside cannot be wiped, only forgotten.
type seal struct {
	version int
	memory  *memory     // where what it opens is put
	aead    cipher.AEAD // makes a random nonce for each call, and puts it first
}

// newSeal makes a seal of a key, which it wipes.
func newSeal(k Key, m *memory) (*seal, error) {
	defer k.Bytes.Wipe()
	if k.Version < 1 || k.Bytes.Len() != 32 {
		return nil, fmt.Errorf("version %d of the vault's key is not 32 bytes with a version from 1", k.Version)
	}
	key, err := hkdf.Key(sha256.New, k.Bytes.Reveal(), nil, "ambit vault v1", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &seal{k.Version, m, aead}, nil
}

// place is what a sealed row is bound to (ATTACKS K7). The row of a connection
// itself has no field and no life.
type place struct {
	agent      ambit.AgentID
	connection string
	life       string // random, of this connection: one of the same name that was revoked had another
	field      string
	version    uint64
}

// associated is the associated data: each part after its length, so that no two
// places have the same.
func (p place) associated() []byte {
	b := make([]byte, 0, 192) // most fit
	b = append(b, "ambit vault row v1\n"...)
	for _, part := range []string{string(p.agent), p.connection, p.life, p.field} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return binary.BigEndian.AppendUint64(b, p.version)
}

// sealed is a value as it is stored, with the seal that opens it. It does not
// change.
type sealed struct {
	seal *seal // nil: the key is not there any more
	text []byte
}

func (s *seal) close(at place, plain []byte) sealed {
	return sealed{s, s.aead.Seal(nil, nil, plain, at.associated())}
}

// open returns a copy that the caller wipes.
func (s sealed) open(at place) (secretbytes.Bytes, error) {
	if s.seal == nil {
		return secretbytes.Bytes{}, errSealed
	}
	n := len(s.text) - s.seal.aead.Overhead()
	if n < 0 {
		return secretbytes.Bytes{}, errSealed
	}
	plain := s.seal.memory.room(n)
	if _, err := s.seal.aead.Open(plain.Reveal()[:0], nil, s.text, at.associated()); err != nil { // in place: it has the room
		plain.Wipe()
		return secretbytes.Bytes{}, errSealed
	}
	return plain, nil
}
