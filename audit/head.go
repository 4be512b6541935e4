package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Head is the state of a log at one size. Kept elsewhere, it is what a later
// state is held against.
type Head struct {
	Origin string    `json:"origin"`
	Size   uint64    `json:"size"` // number of events
	Root   tlog.Hash `json:"root"` // RFC 6962 tree hash; base64 in JSON
	// Time is that of the last event; zero in an empty log and in a head that
	// was read from a note. It is not signed.
	Time time.Time `json:"time,omitzero"`
	// Note is the checkpoint (https://c2sp.org/tlog-checkpoint) as a signed
	// note: all that need be kept.
	Note []byte `json:"note"`
}

// sign makes the checkpoint of a tree.
func (r *keyring) sign(size uint64, root tlog.Hash) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", r.origin, size, root)
	return note.Sign(&note.Note{Text: text}, r)
}

// ErrBadSignature says that a head is not signed by the log's key.
var ErrBadSignature = errors.New("the head is not signed by this log's key")

// ParseHead checks the signature of a checkpoint and reads it. verifierKey is
// what [Log.VerifierKey] returned. Lines after the root hash are allowed and
// ignored, as are further signatures, for instance of witnesses.
func ParseHead(signed []byte, verifierKey string) (Head, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return Head{}, fmt.Errorf("reading the verifier key: %w", err)
	}
	return parseHead(signed, v)
}

func parseHead(signed []byte, v note.Verifier) (Head, error) {
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return Head{}, fmt.Errorf("%w (%s): %w", ErrBadSignature, v.Name(), err)
	}
	f := strings.SplitN(n.Text, "\n", 4)
	if len(f) != 4 || f[0] != v.Name() {
		return Head{}, fmt.Errorf("reading a head: it is not a checkpoint of %s", v.Name())
	}
	size, err := strconv.ParseUint(f[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != f[1] {
		return Head{}, fmt.Errorf("reading a head: size %q", f[1])
	}
	root, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(root) != tlog.HashSize {
		return Head{}, fmt.Errorf("reading a head: root hash %q", f[2])
	}
	return Head{Origin: f[0], Size: size, Root: tlog.Hash(root), Note: signed}, nil
}
