package vault

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/multimatch"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
	"ambit/internal/wsframe"
)

// strange is what a reference looks like to these tests. It begins like itself
// further on, and "ab" begins it often.
const strange = "abcabd-abcabe-0123"

var errStrange = errors.New("a reference")

// strangeLook finds it.
type strangeLook struct{ scan multimatch.Scan }

func (l *strangeLook) next(b []byte, i int) (int, error) {
	if _, found := l.scan.Next(b, i); found {
		return 0, errStrange
	}
	return l.scan.Pending(), nil
}

// piecesLook scrubs it.
type piecesLook struct{ *scrub.Pieces }

func (l piecesLook) next(b []byte, i int) (int, error) { return l.Next(b, i) }

// wireOf is a stream of frames: of each message its text, and in which frames it
// came.
type wireOf struct {
	b        []byte
	texts    []string // of messages and control frames, in the order in which they end
	messages []string // without the control frames
	dirty    bool     // one of them has the reference in it
}

// drawWire makes a stream of whole messages.
func drawWire(t *rapid.T, side wsframe.Side) (w wireOf) {
	word := rapid.SampledFrom([]string{"a", "ab", "abc", "abcabd-", "abcabe", "-0123", "123", " ", "", strange[:len(strange)-1], strange, "something longer that is none of it at all"})
	put := func(op wsframe.Opcode, fin bool, text string) {
		f := wsframe.Append(nil, side, wsframe.Binary, []byte(text))
		f[0] = byte(op)
		if fin {
			f[0] |= 0x80
		}
		w.b = append(w.b, f...)
	}
	end := func(text string) {
		w.texts = append(w.texts, text)
		w.dirty = w.dirty || bytes.Contains([]byte(text), []byte(strange))
	}
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		op, text := wsframe.Text, ""
		frames := rapid.IntRange(1, 6).Draw(t, "frames")
		for i := range frames {
			if rapid.IntRange(0, 3).Draw(t, "ping") == 0 {
				ping := word.Draw(t, "ping's text")
				put(wsframe.Ping, true, ping)
				end(ping)
			}
			part := word.Draw(t, "part") + word.Draw(t, "part")
			put(op, i == frames-1, part)
			op, text = wsframe.Continuation, text+part
		}
		end(text)
		w.messages = append(w.messages, text)
	}
	return w
}

// drive passes a stream in pieces of any length, and returns what went on and
// what is held at the end.
func drive(t *rapid.T, f *flow, b []byte) (out, held []byte, err error) {
	for len(b) > 0 {
		n := rapid.IntRange(1, min(len(b), 40)).Draw(t, "piece")
		ready, err := f.pass(bytes.Clone(b[:n]))
		out = append(out, ready...)
		if err != nil {
			return out, f.held, err
		}
		b = b[n:]
	}
	return out, f.held, nil
}

// textsOf reads a stream with the other code. rest is what there is of the message
// under way, which is that number.
func textsOf(t *rapid.T, side wsframe.Side, b []byte) (texts []string, rest string, number int) {
	r := wsframe.New(side)
	var message, control []byte
	for len(b) > 0 {
		p, n, err := r.Next(b)
		if err != nil {
			t.Fatalf("what went on is no stream of frames: %v", err)
		}
		b = b[n:]
		if p.Header == nil {
			break
		}
		if p.Header.Masked {
			wsframe.Xor(p.Payload, p.Header.Mask, p.Offset)
		}
		to := &message
		if p.Header.Op.Control() {
			to = &control
		}
		*to = append(*to, p.Payload...)
		if p.End && (p.Header.Op.Control() || p.Header.Fin) {
			texts = append(texts, string(*to))
			*to = nil
			if !p.Header.Op.Control() {
				number++
			}
		}
	}
	return texts, string(message), number
}

// A stream without a reference passes as it is, byte for byte, and nothing of it
// stays behind. Of one with a reference, all that goes on is what stands before it.
func TestFlowOfReferences(t *testing.T) {
	m, err := multimatch.New([][]byte{[]byte(strange)})
	if err != nil {
		t.Fatal(err)
	}
	clean, dirty := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWire(t, wsframe.Client)
		f := newFlow(wsframe.Client, func() look { return &strangeLook{m.Scan()} })
		out, held, err := drive(t, &f, w.b)
		if !w.dirty {
			clean++
			if err != nil || !bytes.Equal(out, w.b) || len(held) > 0 || !f.whole {
				t.Fatalf("%x: %x, %x held, whole %v, %v", w.b, out, held, f.whole, err)
			}
			return
		}
		dirty++
		if !errors.Is(err, errStrange) || !bytes.HasPrefix(w.b, out) {
			t.Fatalf("%q: %v", w.texts, err)
		}
		texts, rest, number := textsOf(t, wsframe.Client, bytes.Clone(out))
		for i, text := range texts {
			if text != w.texts[i] || bytes.Contains([]byte(text), []byte(strange)) {
				t.Fatalf("text %d that went on is %q, want %q", i, text, w.texts[i])
			}
		}
		if rest == "" {
			return
		}
		before, _, _ := strings.Cut(w.messages[number], strange)
		if !strings.HasPrefix(before, rest) {
			t.Fatalf("%q went on of %q", rest, w.messages[number])
		}
	})
	if clean == 0 || dirty == 0 {
		t.Errorf("%d clean and %d dirty streams", clean, dirty)
	}
}

// A host's stream keeps its frames, and each of its texts is scrubbed like a whole
// one.
func TestFlowOfSecrets(t *testing.T) {
	s, err := scrub.New([]secretbytes.Bytes{secretbytes.New([]byte(strange))})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWire(t, wsframe.Server)
		f := newFlow(wsframe.Server, func() look { return piecesLook{s.Pieces()} })
		out, held, err := drive(t, &f, w.b)
		if err != nil || len(held) > 0 || len(out) != len(w.b) || !f.whole {
			t.Fatalf("%q: %d of %d bytes, %d held, %v", w.texts, len(out), len(w.b), len(held), err)
		}
		texts, _, _ := textsOf(t, wsframe.Server, out)
		for i := range w.texts {
			want := s.String(w.texts[i])
			if want != w.texts[i] {
				found++
			}
			if texts[i] != want {
				t.Fatalf("%q became %q, want %q", w.texts[i], texts[i], want)
			}
		}
	})
	if found == 0 {
		t.Error("nothing was ever scrubbed")
	}
}

// What is decided is not kept waiting: after each write, only what could be the
// beginning of a reference, and what is behind it, is held.
func TestFlowHoldsBackNoMore(t *testing.T) {
	m, err := multimatch.New([][]byte{[]byte(strange)})
	if err != nil {
		t.Fatal(err)
	}
	fragment := func(first byte, text string) []byte {
		f := wsframe.Append(nil, wsframe.Client, wsframe.Text, []byte(text))
		f[0] = first
		return f
	}
	f := newFlow(wsframe.Client, func() look { return &strangeLook{m.Scan()} })
	for _, step := range []struct {
		first byte
		text  string
		held  int
	}{
		{0x81, "hello", 0}, {0x01, "hello", 0}, {0x00, " ab", 2}, {0x89, "ping", 2 + 10}, {0x00, "x", 0}, {0x00, "abcabd-abc", 10}, {0x00, "", 10 + 6}, {0x80, "abd", 0}, {0x81, "ab", 0},
	} {
		if _, err := f.pass(fragment(step.first, step.text)); err != nil || len(f.held) != step.held {
			t.Errorf("after %q: %d bytes are held, want %d; %v", step.text, len(f.held), step.held, err)
		}
	}
}

// Frames that carry next to nothing cannot fill the memory.
func TestFlowIsBounded(t *testing.T) {
	m, err := multimatch.New([][]byte{[]byte(strange)})
	if err != nil {
		t.Fatal(err)
	}
	ping := wsframe.Append(nil, wsframe.Client, wsframe.Ping, nil)
	begin := wsframe.Append(nil, wsframe.Client, wsframe.Text, []byte(strange[:5]))
	begin[0] = 1
	f := newFlow(wsframe.Client, func() look { return &strangeLook{m.Scan()} })
	_, err = f.pass(begin)
	for n := 0; err == nil; n++ {
		if n > maxBehind {
			t.Fatal("no end")
		}
		_, err = f.pass(ping)
	}
	if !errors.Is(err, errBehind) || cap(f.held) > 3*maxBehind {
		t.Errorf("%v, with room for %d bytes", err, cap(f.held))
	}
}

func BenchmarkFlow(b *testing.B) {
	m, err := multimatch.New([][]byte{[]byte("ghp_0123456789abcdef0123456789abcdef0123")})
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{64, 1 << 10, 32 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := newFlow(wsframe.Client, func() look { return &strangeLook{m.Scan()} })
			wire := wsframe.Append(nil, wsframe.Client, wsframe.Binary, bytes.Repeat([]byte("a message, "), size/11))
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.pass(wire); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
