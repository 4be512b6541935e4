// Package scrub takes real secrets out of what goes to an agent: bodies,
// streams, headers, texts.
//
// It looks for each secret in the forms that programs write it in:
//
//   - as it is, without white space around it;
//   - in hexadecimal, lower or upper case;
//   - in base64 (RFC 4648), both alphabets, with and without padding, at each
//     of the three alignments it can have inside something longer;
//   - percent-encoded (RFC 3986, and forms with "+" for a space): as the common
//     libraries do it, twice over, and everything encoded;
//   - escaped in a JSON string (RFC 8259): as the common libraries do it, and
//     everything as \uXXXX, both also twice over;
//   - escaped in HTML;
//   - and base64 inside one of the last three.
//
// Of a secret of several lines, such as a private key in PEM, each line of 16
// bytes or more is looked for by itself too, except the lines that say BEGIN
// and END.
//
// Every byte that belongs to a form is replaced by [Filler], also where forms
// overlap. The length stays, so that Content-Length, ranges and framing stay
// true; a checksum over the content does not.
//
// What it cannot do: a base64 digit at either end can carry bits of the secret
// and of its neighbour at once, and stays, which gives away four bits at each
// end at most. A part of a form is not looked for (but see the lines above; and
// a form of more than 512 bytes is looked for in parts of 256 or more), nor is
// what was compressed, encrypted, reversed or broken into lines. So a program
// that can make an upstream transform what it echoes at will can get a secret
// past; scrubbing is the net below the rule that secrets go only to their own
// host.
//
// Trust: the text is hostile and can neither stop a form from being found nor
// make the search take more than a time in proportion to its length. Who can
// send guesses and see the answers learns from the filler when a guess was
// right; that is why short secrets are not looked for, see [MinLen]. A
// Scrubber's memory holds the secrets in its forms until Wipe.
package scrub

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"

	"ambit/internal/multimatch"
	"ambit/internal/secretbytes"
)

// Filler takes the place of each byte of a secret. It is a letter, so that
// what was valid JSON, base64, HTML, a URL or a header still is, and one that
// people read as crossed out; '*' would break base64.
const Filler = 'X'

// MinLen is the length in bytes, white space around it not counted, from
// which on a secret is looked for. A shorter one, say a password of six
// letters or a PIN, stays where an upstream echoes it: it would also be found
// by chance, in prices and in the middle of words, and an agent that has a
// million guesses echoed would see it crossed out. Whoever stores a credential
// must refuse one that short, or accept that it is not scrubbed.
const MinLen = 8

// MaxLen is the longest secret in bytes.
const MaxLen = 64 << 10

// Scrubber looks for a set of secrets. It is safe for concurrent use, except
// for Wipe. The zero Scrubber, and one that was wiped, lets nothing through.
type Scrubber struct {
	m     *multimatch.Matcher
	bytes secretbytes.Bytes // of all forms, which m uses
}

// New returns a Scrubber for the secrets, which it does not keep. Those
// shorter than [MinLen] are not looked for; one longer than [MaxLen] is an
// error. Without secrets everything passes as it is.
func New(secrets []secretbytes.Bytes) (*Scrubber, error) {
	return NewIn(secrets, func(n int) secretbytes.Bytes { return secretbytes.New(make([]byte, n)) })
}

// NewIn is New with the bytes of all forms in the secret of n zeros that room
// returns; Wipe wipes it. What else is kept are numbers and hashes.
func NewIn(secrets []secretbytes.Bytes, room func(n int) secretbytes.Bytes) (*Scrubber, error) {
	var patterns [][]byte
	defer func() {
		for _, p := range patterns {
			clear(p)
		}
	}()
	for i, s := range secrets {
		if s.Len() > MaxLen {
			return nil, fmt.Errorf("making a scrubber: secret %d has %d bytes, and at most %d can be looked for", i, s.Len(), MaxLen)
		}
		for _, part := range parts(s.Reveal()) {
			patterns = append(patterns, forms(part)...)
		}
	}
	s := &Scrubber{}
	var err error
	s.m, err = multimatch.NewIn(patterns, func(n int) []byte {
		s.bytes = room(n)
		return s.bytes.Reveal()
	})
	if err != nil {
		s.bytes.Wipe()
		return nil, fmt.Errorf("making a scrubber: %w", err)
	}
	return s, nil
}

// minLine is the length from which on a line of a longer secret is a secret.
const minLine = 16

// parts are what is looked for of one secret, without copying it.
func parts(secret []byte) [][]byte {
	secret = bytes.TrimSpace(secret)
	if len(secret) < MinLen {
		return nil
	}
	found := [][]byte{secret}
	if bytes.IndexByte(secret, '\n') < 0 {
		return found
	}
	for line := range bytes.Lines(secret) {
		line = bytes.TrimSpace(line)
		if len(line) >= minLine && !bytes.HasPrefix(line, []byte("-----")) {
			found = append(found, line)
		}
	}
	return found
}

// Bytes scrubs a whole message in place and returns how many forms it
// replaced; one that overlaps or touches the one before is not counted again.
func (s *Scrubber) Bytes(b []byte) int {
	if s.m == nil {
		for i := range b {
			b[i] = Filler
		}
		return min(len(b), 1)
	}
	mk := mask{scan: s.m.Scan(), end: -1}
	return mk.next(b, 0)
}

// String is Bytes for a text: an error message, a line of a log.
func (s *Scrubber) String(text string) string {
	b := []byte(text)
	if s.Bytes(b) == 0 {
		return text
	}
	return string(b)
}

// Header scrubs the values of h (a header or a trailer) in place and returns
// how many forms it replaced. Names are left alone: two that became the
// same would merge.
func (s *Scrubber) Header(h http.Header) int {
	found := 0
	for _, values := range h {
		for i, v := range values {
			if s.m != nil && len(v) < s.m.MinLen() { // most: there is no room for a form
				continue
			}
			b := []byte(v)
			if n := s.Bytes(b); n > 0 {
				values[i] = string(b)
				found += n
			}
		}
	}
	return found
}

// Wipe clears what is known of the secrets. It must not run at the same time
// as another method or as a Reader; a Reader that is used later returns
// [ErrWiped].
func (s *Scrubber) Wipe() {
	if s.m != nil {
		s.m.Wipe()
	}
	s.m = nil
	s.bytes.Wipe()
}

// ErrWiped is what a Reader returns whose Scrubber has no secrets any more, so
// that nothing can be let through.
var ErrWiped = errors.New("scrubbing a stream: the secrets to look for were wiped, so nothing of it passes")

// mask overwrites the forms in one body, which comes piece by piece.
type mask struct {
	scan multimatch.Scan
	end  int // of the form before, counted from the present b[0]; negative if it cannot be touched any more
}

// next overwrites the forms that end in b[i:] and counts them. b[:i] is what
// was pending after the piece before.
func (mk *mask) next(b []byte, i int) (found int) {
	for {
		hit, ok := mk.scan.Next(b, i)
		if !ok {
			return found
		}
		if hit.Start > mk.end {
			found++
		}
		for j := hit.Start; j < hit.End; j++ {
			b[j] = Filler
		}
		mk.end, i = hit.End, hit.End
	}
}
