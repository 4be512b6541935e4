package scrub

import (
	"bytes"
	"errors"
	"testing"

	"ambit/internal/secretbytes"
)

// In whatever pieces a text comes, it is scrubbed like the whole, and what is not
// pending any more stays as it is.
func TestPieces(t *testing.T) {
	s := scrubber(t, "secret-value", "value-and-more")
	const text = "the secret-value-and-more, secret-val and secret-secret-valuesecret-value; c2VjcmV0LXZhbHVl"
	want := s.String(text)
	if want == text {
		t.Fatal("nothing is scrubbed")
	}
	for size := 1; size <= len(text); size++ {
		p := s.Pieces()
		var out, pending []byte
		for rest := []byte(text); len(rest) > 0; {
			n := min(size, len(rest))
			b := append(bytes.Clone(pending), rest[:n]...)
			left, err := p.Next(b, len(pending))
			if err != nil {
				t.Fatal(err)
			}
			out, pending, rest = append(out, b[:len(b)-left]...), b[len(b)-left:], rest[n:]
		}
		if got := string(out) + string(pending); got != want {
			t.Errorf("in pieces of %d: %q, want %q", size, got, want)
		}
	}
	gone, err := New([]secretbytes.Bytes{secretbytes.New([]byte("secret-value"))})
	if err != nil {
		t.Fatal(err)
	}
	p := gone.Pieces()
	gone.Wipe()
	if _, err := p.Next([]byte("text"), 0); !errors.Is(err, ErrWiped) {
		t.Errorf("wiped: %v", err)
	}
}
