package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"ambit"
)

// leafMagic is the first line of every leaf and carries the format's version.
const leafMagic = "ambit-leaf/v1"

// Leaf is what the tree commits to for one event. Its bytes are six lines of
// text, each ended by a newline:
//
//	ambit-leaf/v1
//	<origin>
//	<seq, decimal>
//	<time, microseconds since 1970 UTC, decimal>
//	<kind>
//	<commitment, base64>
//
// The commitment is HMAC-SHA256 with the event's salt as the key and the
// event's body as the message. Who has the leaf alone learns nothing about the
// body, and can still check it when salt and body are shown.
type Leaf struct {
	Origin     string
	Seq        uint64
	Micros     int64
	Kind       ambit.Kind
	Commitment [sha256.Size]byte
}

// AppendTo appends the leaf's bytes to b.
func (l *Leaf) AppendTo(b []byte) []byte {
	b = append(append(append(b, leafMagic+"\n"...), l.Origin...), '\n')
	b = append(strconv.AppendUint(b, l.Seq, 10), '\n')
	b = append(strconv.AppendInt(b, l.Micros, 10), '\n')
	b = append(append(b, l.Kind...), '\n')
	return append(base64.StdEncoding.AppendEncode(b, l.Commitment[:]), '\n')
}

// ParseLeaf reads the bytes of a leaf. Exactly the bytes that AppendTo writes
// are accepted, so a leaf has one encoding.
func ParseLeaf(b []byte) (Leaf, error) {
	f := strings.Split(string(b), "\n")
	if len(f) != 7 || f[0] != leafMagic {
		return Leaf{}, errors.New("reading a leaf: it is not six lines that begin with " + leafMagic)
	}
	l := Leaf{Origin: f[1], Kind: ambit.Kind(f[4])}
	var err error
	if l.Seq, err = strconv.ParseUint(f[2], 10, 63); err != nil {
		return Leaf{}, fmt.Errorf("reading a leaf: position: %w", err)
	}
	if l.Micros, err = strconv.ParseInt(f[3], 10, 64); err != nil {
		return Leaf{}, fmt.Errorf("reading a leaf: time: %w", err)
	}
	if !validKind(l.Kind) {
		return Leaf{}, fmt.Errorf("reading a leaf: kind %q", l.Kind)
	}
	c, err := base64.StdEncoding.DecodeString(f[5])
	if err != nil || len(c) != sha256.Size {
		return Leaf{}, errors.New("reading a leaf: the commitment is not 32 bytes of base64")
	}
	l.Commitment = [sha256.Size]byte(c)
	if !bytes.Equal(l.AppendTo(nil), b) {
		return Leaf{}, errors.New("reading a leaf: it is not in canonical form")
	}
	return l, nil
}

// open is the event whose body is opened with its salt, and compared with the
// leaf. Without a body there is only what the leaf says.
func (l *Leaf) open(salt, body []byte) (ambit.Event, error) {
	if body == nil {
		return ambit.Event{Seq: l.Seq, Time: time.UnixMicro(l.Micros).UTC(), Kind: l.Kind, Detail: "(erased)"}, nil
	}
	if len(salt) != saltSize || commit(salt, body) != l.Commitment {
		return ambit.Event{}, errors.New("its body is not the one that the log committed to")
	}
	e, err := decodeBody(body)
	if err == nil && (e.Seq != l.Seq || e.Time.UnixMicro() != l.Micros || e.Kind != l.Kind) {
		err = errors.New("its body has another position, time or kind than its leaf")
	}
	return e, err
}

// commit computes the commitment of a body.
func commit(salt, body []byte) (c [sha256.Size]byte) {
	m := hmac.New(sha256.New, salt)
	m.Write(body)
	m.Sum(c[:0])
	return c
}

// validKind reports whether k is 1 to 64 characters of a-z, 0-9, dot and
// hyphen that begin with a letter.
func validKind(k ambit.Kind) bool {
	for i := range len(k) {
		c := k[i]
		letter := 'a' <= c && c <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '.' && c != '-') {
			return false
		}
	}
	return 0 < len(k) && len(k) <= 64
}
