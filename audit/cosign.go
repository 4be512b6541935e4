package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const (
	algorithmEd25519     = 1
	algorithmCosignature = 4
)

// ParseWitness reads the public key of a witness, in the form of signed notes:
// an Ed25519 key of type 4, which signs checkpoints with a time
// (https://c2sp.org/tlog-cosignature), or of type 1, which signs the note.
func ParseWitness(vkey string) (note.Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, key64, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(key64)
	if err != nil || len(key) == 0 || key[0] != algorithmCosignature {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, fmt.Errorf("reading the key of a witness: %w", err)
		}
		return v, nil
	}
	hash := sha256.Sum256(append([]byte(name+"\n"), key...))
	if len(key) != 1+ed25519.PublicKeySize || id != hex.EncodeToString(hash[:4]) || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return nil, errors.New("reading the key of a witness: it is not a verifier key")
	}
	return &cosigner{name, binary.BigEndian.Uint32(hash[:]), key[1:]}, nil
}

// cosigner checks cosignature/v1.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

// Verify checks 8 bytes of time in seconds and the signature of that with msg.
func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	return seconds < 1<<63 && ed25519.Verify(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, msg), sig[8:])
}

// signedBy says whether a witness signed a checkpoint.
func signedBy(checkpoint []byte, witness note.Verifier) bool {
	n, err := note.Open(checkpoint, note.VerifierList(witness))
	return err == nil && len(n.Sigs) > 0
}
