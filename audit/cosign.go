package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"ambit"
	"ambit/internal/secretbytes"
)

// algCosignature is the signature type of timestamped Ed25519 cosignatures in
// signed notes (https://c2sp.org/signed-note, "Signature types").
const algCosignature = 4

// cosignatureSize is a timestamp and an Ed25519 signature, in bytes.
const cosignatureSize = 8 + ed25519.SignatureSize

// Cosigner makes cosignatures (https://c2sp.org/tlog-cosignature, Ed25519,
// cosignature/v1): each says that the head is, at that time, the largest of its
// log that the cosigner has seen, and consistent with all that it saw before.
// Checking that is the caller's. It is safe for concurrent use.
type Cosigner struct {
	name    string
	hash    uint32
	private ed25519.PrivateKey
	vkey    string
	clock   func() time.Time
}

// NewCosigner returns the cosigner of that name, which has no spaces and no
// plus, with the Ed25519 key of seed (RFC 8032, 32 bytes), which signs nothing
// else. clock is time.Now when nil.
func NewCosigner(name string, seed secretbytes.Bytes, clock func() time.Time) (*Cosigner, error) {
	if seed.Len() != ed25519.SeedSize {
		return nil, errors.New("making a cosigner: its key must be 32 bytes")
	}
	if clock == nil {
		clock = time.Now
	}
	c := &Cosigner{name: name, private: ed25519.NewKeyFromSeed(seed.Reveal()), clock: clock}
	public := append([]byte{algCosignature}, c.private[ed25519.SeedSize:]...)
	c.hash = keyID(name, public)
	c.vkey = fmt.Sprintf("%s+%08x+%s", name, c.hash, base64.StdEncoding.EncodeToString(public))
	if _, err := NewCosignatureVerifier(c.vkey); err != nil {
		return nil, fmt.Errorf("making a cosigner: %w", err)
	}
	return c, nil
}

// keyID is that of signed notes: public begins with the signature type.
func keyID(name string, public []byte) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"), public...))
	return binary.BigEndian.Uint32(sum[:])
}

// VerifierKey is the cosigner's public key in the form of signed notes; see
// [NewCosignatureVerifier].
func (c *Cosigner) VerifierKey() string { return c.vkey }

// Name, KeyHash and Sign make a cosigner a note.Signer.

// Name is the name in the signature line.
func (c *Cosigner) Name() string { return c.name }

// KeyHash is the key's id in the signature line.
func (c *Cosigner) KeyHash() uint32 { return c.hash }

// Sign cosigns a note's text for the time now.
func (c *Cosigner) Sign(text []byte) ([]byte, error) {
	at := c.clock().Unix()
	if at < 0 {
		return nil, errors.New("cosigning: the clock is before 1970")
	}
	sig := binary.BigEndian.AppendUint64(make([]byte, 0, cosignatureSize), uint64(at))
	return append(sig, ed25519.Sign(c.private, cosigned(uint64(at), text))...), nil
}

// cosigned is what a cosignature signs.
func cosigned(at uint64, text []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), text...)
}

// cosignatureVerifier is a note.Verifier.
type cosignatureVerifier struct {
	name   string
	hash   uint32
	public ed25519.PublicKey
}

// NewCosignatureVerifier reads the public key of a witness (a verifier key of
// signed notes with the signature type 0x04), for note.Open.
func NewCosignatureVerifier(vkey string) (note.Verifier, error) {
	bad := func(why string) (note.Verifier, error) {
		return nil, fmt.Errorf("reading the key of a witness: %s; it has the form name+12345678+BASE64", why)
	}
	name, rest, ok := strings.Cut(vkey, "+")
	id, key, ok2 := strings.Cut(rest, "+")
	if !ok || !ok2 || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\u0085\u00a0\u2028\u2029", r) }) {
		return bad("it has not three parts, or the name has a space")
	}
	public, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(public) != 1+ed25519.PublicKeySize || public[0] != algCosignature {
		return bad("it is not the Ed25519 key of a cosigner (signature type 4)")
	}
	hash := keyID(name, public)
	if id != fmt.Sprintf("%08x", hash) {
		return bad("its id is not that of the key")
	}
	return &cosignatureVerifier{name, hash, public[1:]}, nil
}

func (v *cosignatureVerifier) Name() string    { return v.name }
func (v *cosignatureVerifier) KeyHash() uint32 { return v.hash }

func (v *cosignatureVerifier) Verify(text, sig []byte) bool {
	if len(sig) != cosignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at>>63 == 0 && ed25519.Verify(v.public, cosigned(at, text), sig[8:])
}

// VerifierKey is the public key of a log in the form of signed notes, made of
// the seed in its keys (see [Keys]): who has that asks nobody whose log it is.
func VerifierKey(agent ambit.AgentID, seed secretbytes.Bytes) (string, error) {
	if seed.Len() != ed25519.SeedSize {
		return "", errors.New("making a verifier key: the seed must be 32 bytes")
	}
	private := ed25519.NewKeyFromSeed(seed.Reveal())
	defer clear(private)
	public := ed25519.PublicKey(private[ed25519.SeedSize:])
	return note.NewEd25519VerifierKey(origin(agent, public), public)
}

// Cosign adds the signatures of cosigners to a head of the log with that
// verifier key. Of the signatures that are there it keeps the log's own and
// those of others that are valid, but for the cosigners' earlier ones. A head
// with more text than the three lines that a log of ours signs is refused.
func Cosign(signed []byte, verifierKey string, others []note.Verifier, cosigners ...*Cosigner) ([]byte, error) {
	h, err := ParseHead(signed, verifierKey)
	if err != nil {
		return nil, err
	}
	if want := fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, h.Root); !strings.HasPrefix(string(signed), want+"\n") {
		return nil, errors.New("cosigning: the head says more than a head of this log says")
	}
	own, err := note.NewVerifier(verifierKey)
	if err != nil {
		return nil, err
	}
	n := &note.Note{}
	for _, v := range append([]note.Verifier{own}, others...) {
		// One by one: a bad signature of one of them is dropped and does not spoil the rest.
		if opened, err := note.Open(signed, note.VerifierList(v)); err == nil {
			n.Text, n.Sigs = opened.Text, append(n.Sigs, opened.Sigs...)
		}
	}
	signers := make([]note.Signer, len(cosigners))
	for i, c := range cosigners {
		signers[i] = c
	}
	return note.Sign(n, signers...)
}

// Cosigned returns when the witness with that verifier key cosigned a head,
// which it checks; the zero time if it did not.
func Cosigned(signed []byte, vkey string) (time.Time, error) {
	v, err := NewCosignatureVerifier(vkey)
	if err != nil {
		return time.Time{}, err
	}
	n, err := note.Open(signed, note.VerifierList(v))
	var none *note.UnverifiedNoteError
	if errors.As(err, &none) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading a cosignature: %w", err)
	}
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(sig) != 4+cosignatureSize { // note.Open has looked at it
		return time.Time{}, errors.New("reading a cosignature: it is not one")
	}
	return time.Unix(int64(binary.BigEndian.Uint64(sig[4:])), 0).UTC(), nil
}

// ParseWitness reads the public key of a witness, in the form of signed notes:
// that of a cosigner, or an Ed25519 key of type 1, which signs the note itself.
func ParseWitness(vkey string) (note.Verifier, error) {
	if v, err := NewCosignatureVerifier(vkey); err == nil {
		return v, nil
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("reading the key of a witness: %w", err)
	}
	return v, nil
}

// signedBy says whether a witness signed a checkpoint.
func signedBy(checkpoint []byte, witness note.Verifier) bool {
	n, err := note.Open(checkpoint, note.VerifierList(witness))
	return err == nil && len(n.Sigs) > 0
}
