// Package secretbytes holds key material and other secrets in a type that
// cannot be printed, logged, encoded or compared by accident.
//
// [Bytes] redacts itself through fmt, log/slog and encoding/json, also when it
// is an unexported field of a struct that somebody prints (where fmt does not call
// methods): the bytes are behind a function, which fmt writes as an address
// with every verb. For the same reason the operator == does not compile.
//
// An [Arena] keeps secrets out of the Go heap, of core dumps and, where that is
// permitted, of swap; [HideProcess] keeps the whole process out of core dumps and
// from others of its user.
//
// Known hole: the Go runtime may have moved or copied the bytes before they
// came here, and what is computed from them (the round keys of a cipher) is on
// the heap; Wipe clears the one copy that this type knows.
//
// Trust: whoever can call [Bytes.Reveal] has the secret. This package guards
// against mistakes, not against code in the same process.
package secretbytes

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what every printed form of a secret looks like.
const Redacted = "[redacted]"

// Bytes is a secret. The zero value is the empty secret. Copies share the same
// bytes, so wiping one wipes all. Wipe must not run at the same time as
// another method.
type Bytes struct {
	box func() *held
}

// held is a secret where it is.
type held struct {
	b     []byte // nil when it is wiped
	arena *Arena // nil on the heap
	at    int    // its first granule in the arena
}

// New returns a secret that owns b; the caller must not keep using b.
func New(b []byte) Bytes {
	h := &held{b: b}
	return Bytes{box: func() *held { return h }}
}

// Reveal returns the secret itself, not a copy. The caller must not change it,
// and must not keep it longer than it needs.
func (s Bytes) Reveal() []byte {
	if s.box == nil {
		return nil
	}
	return s.box().b
}

// Len is the number of bytes.
func (s Bytes) Len() int { return len(s.Reveal()) }

// Equal reports whether both secrets have the same bytes, in a time that
// depends on their lengths only.
func (s Bytes) Equal(other Bytes) bool {
	return subtle.ConstantTimeCompare(s.Reveal(), other.Reveal()) == 1
}

// Wipe overwrites the bytes with zeros and makes this secret, and every copy
// of it, empty.
func (s Bytes) Wipe() {
	if s.box == nil {
		return
	}
	h := s.box()
	if h.arena != nil {
		h.arena.free(h)
		return
	}
	clear(h.b)
	h.b = nil
}

// String implements fmt.Stringer and returns Redacted.
func (s Bytes) String() string { return Redacted }

// GoString implements fmt.GoStringer and returns Redacted.
func (s Bytes) GoString() string { return Redacted }

// Format implements fmt.Formatter: every verb prints Redacted.
func (s Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements slog.LogValuer.
func (s Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements encoding.TextMarshaler and returns Redacted.
func (s Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON implements json.Marshaler and returns Redacted as a string.
func (s Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }
