package reference

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"ambit/internal/secretbytes"
)

// MinKeyLen is the length in bytes of the shortest key that references are
// derived from.
const MinKeyLen = 16

// domain keeps what is derived here apart from everything else that is made
// with the same key.
const domain = "ambit reference v1"

// Derive returns the reference for a label, which is a list of names such as
// connection and field. The same key, label and shape give the same reference,
// in all releases; if one of them differs, it is independent. Without a key of
// at least [MinKeyLen] bytes, and by the zero Shape, it is "".
//
// The characters come from HMAC-SHA256 in counter mode (NIST SP 800-108r1,
// section 4.1), a block being HMAC(key, counter || domain || label || shape):
// the counter has four bytes, big-endian, from 1 on, and each of the others its
// length in front, in the same way. A character takes the next byte b of these
// blocks with b < 256 - 256 mod n, and is number b mod n of the n in its
// alphabet; bytes that are not below are dropped, so that no character is more
// likely than another.
func (s Shape) Derive(key secretbytes.Bytes, label ...string) string {
	if s.len == 0 || key.Len() < MinKeyLen {
		return ""
	}
	from := newStream(key, append(append([]string{domain}, label...), s.text))
	var derived []byte
	out := make([]byte, 0, s.len)
	for _, p := range s.parts {
		switch {
		case p.literal != "":
			out = append(out, p.literal...)
		case p.isChecksum():
			out = append(out, checksum(derived)...)
		default:
			for range p.n {
				c := p.from[from.below(len(p.from))]
				out, derived = append(out, c), append(derived, c)
			}
		}
	}
	return string(out)
}

// stream is a source of bytes that look random without the key.
type stream struct {
	mac     hash.Hash
	input   []byte // the counter, then what does not change
	counter uint32
	block   []byte // what is left of the present one
}

func newStream(key secretbytes.Bytes, names []string) *stream {
	input := make([]byte, 4)
	for _, n := range names {
		input = binary.BigEndian.AppendUint32(input, uint32(len(n)))
		input = append(input, n...)
	}
	return &stream{mac: hmac.New(sha256.New, key.Reveal()), input: input}
}

// below returns a number from 0 to n-1, each as likely as the others. n is at
// most 256.
func (s *stream) below(n int) int {
	for {
		if len(s.block) == 0 {
			s.counter++
			binary.BigEndian.PutUint32(s.input, s.counter)
			s.mac.Reset()
			s.mac.Write(s.input)
			s.block = s.mac.Sum(nil)
		}
		b := int(s.block[0])
		s.block = s.block[1:]
		if b < 256-256%n {
			return b % n
		}
	}
}
