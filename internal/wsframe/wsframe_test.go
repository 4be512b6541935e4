package wsframe_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"ambit/internal/wsframe"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame is a whole frame, as either parser sees it.
type frame struct {
	head    wsframe.Header
	payload []byte // unmasked
}

// read takes a stream apart that comes in pieces of the given sizes, over and
// over.
func read(side wsframe.Side, b []byte, sizes []byte) (all []frame, rest bool, err error) {
	r := wsframe.New(side)
	var now *frame
	begun := false
	for i := 0; len(b) > 0; i++ {
		size := len(b)
		if len(sizes) > 0 {
			size = min(size, 1+int(sizes[i%len(sizes)]))
		}
		piece := bytes.Clone(b[:size])
		b = b[size:]
		for len(piece) > 0 {
			p, n, err := r.Next(piece)
			if err != nil {
				_, _, again := r.Next([]byte{0x81})
				if again == nil {
					return nil, false, fmt.Errorf("goes on after %w", err)
				}
				return all, false, err
			}
			piece, begun = piece[n:], true
			if p.Head {
				now = &frame{head: *p.Header}
			}
			if len(p.Payload) > 0 {
				if p.Offset != int64(len(now.payload)) {
					return nil, false, fmt.Errorf("offset %d behind %d bytes", p.Offset, len(now.payload))
				}
				if p.Header.Masked {
					wsframe.Xor(p.Payload, p.Header.Mask, p.Offset)
				}
				now.payload = append(now.payload, p.Payload...)
			}
			if p.End {
				all, now, begun = append(all, *now), nil, false
			}
		}
	}
	return all, begun, nil
}

// naive is the second implementation: section 5.2 line by line, on bytes that are
// all there.
func naive(client bool, b []byte) (all []frame, rest, ok bool) {
	inMessage, closed := false, false
	for len(b) > 0 {
		if len(b) < 2 {
			return all, true, true
		}
		var f frame
		f.head.Fin = b[0] >= 128
		rsv := b[0] / 16 % 8
		op := b[0] % 16
		f.head.Op = wsframe.Opcode(op)
		f.head.Masked = b[1] >= 128
		length := uint64(b[1] % 128)
		if rsv != 0 || f.head.Masked != client {
			return all, false, false
		}
		switch op {
		case 0:
			if !inMessage || closed {
				return all, false, false
			}
		case 1, 2:
			if inMessage || closed {
				return all, false, false
			}
		case 8, 9, 10:
			if !f.head.Fin || length > 125 || op == 8 && length == 1 {
				return all, false, false
			}
		default:
			return all, false, false
		}
		// A head that is not whole is neither good nor bad yet.
		at, more := 2, 0
		if length == 126 {
			more = 2
		} else if length == 127 {
			more = 8
		}
		key := 0
		if client {
			key = 4
		}
		if len(b) < at+more+key {
			return all, true, true
		}
		if more > 0 {
			least := map[int]uint64{2: 126, 8: 65536}[more]
			length = 0
			for range more {
				length = length*256 + uint64(b[at])
				at++
			}
			if length < least || length >= 1<<63 {
				return all, false, false
			}
		}
		f.head.Length = int64(length)
		for i := range key {
			f.head.Mask[i] = b[at]
			at++
		}
		if uint64(len(b)-at) < length {
			return all, true, true
		}
		for i := range int(length) {
			c := b[at+i]
			if client {
				c ^= f.head.Mask[i%4]
			}
			f.payload = append(f.payload, c)
		}
		b = b[at+int(length):]
		if op < 8 {
			inMessage = !f.head.Fin
		}
		closed = closed || op == 8
		all = append(all, f)
	}
	return all, false, true
}

func agree(t *testing.T, client bool, b, sizes []byte) {
	t.Helper()
	side := wsframe.Server
	if client {
		side = wsframe.Client
	}
	got, gotRest, err := read(side, b, sizes)
	want, wantRest, ok := naive(client, b)
	if (err == nil) != ok || err != nil && !wsframe.IsError(err) {
		t.Fatalf("%x: %v, and the other parser says %v", b, err, ok)
	}
	if len(got) != len(want) || gotRest != wantRest {
		t.Fatalf("%x: %d frames (rest %v), want %d (rest %v)", b, len(got), gotRest, len(want), wantRest)
	}
	for i := range got {
		if got[i].head != want[i].head || !bytes.Equal(got[i].payload, want[i].payload) {
			t.Fatalf("%x: frame %d is %+v %q, want %+v %q", b, i, got[i].head, got[i].payload, want[i].head, want[i].payload)
		}
	}
}

// The examples of RFC 6455 section 5.7, and what breaks each of the rules.
func vectors() map[string][2]string {
	return map[string][2]string{ // sides are told by the first letter of the name
		"s text":                     {"810548656c6c6f", ""},
		"c text":                     {"818537fa213d7f9f4d5158", ""},
		"s fragments":                {"010348656c 80026c6f", ""},
		"s ping between fragments":   {"010348656c 890548656c6c6f 80026c6f", ""},
		"c pong":                     {"8a8537fa213d7f9f4d5158", ""},
		"s 126 bytes":                {"827e007e" + strings.Repeat("aa", 126), ""},
		"s 65536 bytes":              {"827f0000000000010000" + strings.Repeat("aa", 65536), ""},
		"s empty":                    {"8100 0100 0000 8000 8800", ""},
		"s half a head":              {"81", ""},
		"s close":                    {"880203e8 8900", ""},
		"c no mask":                  {"810548656c6c6f", "mask"},
		"s mask":                     {"818537fa213d7f9f4d5158", "mask"},
		"s reserved bit":             {"c10548656c6c6f", "reserved bit"},
		"s reserved opcode":          {"8300", "opcode"},
		"s reserved control":         {"8b00", "opcode"},
		"s long ping":                {"897e007e" + strings.Repeat("aa", 126), "125"},
		"s fragmented ping":          {"0900", "control"},
		"s long form of 125":         {"817e007d" + strings.Repeat("aa", 125), "shortest"},
		"s longest form of 65535":    {"817f000000000000ffff", "shortest"},
		"s 2^63":                     {"817f8000000000000000", "2^63"},
		"s continues nothing":        {"8000", "not begun"},
		"s continues what has ended": {"8100 8000", "not begun"},
		"s begins twice":             {"0100 8100", "another"},
		"s half a status":            {"880103", "half"},
		"s data after close":         {"8800 8100", "follows"},
	}
}

func TestVectors(t *testing.T) {
	for name, v := range vectors() {
		client := name[0] == 'c'
		side := wsframe.Server
		if client {
			side = wsframe.Client
		}
		b := unhex(t, v[0])
		for _, sizes := range [][]byte{nil, {0}, {2, 0, 6}} {
			_, _, err := read(side, b, sizes)
			switch {
			case v[1] == "" && err != nil:
				t.Errorf("%s: %v", name, err)
			case v[1] != "" && (err == nil || !strings.Contains(err.Error(), v[1])):
				t.Errorf("%s: %v, want it to be about %q", name, err, v[1])
			}
			agree(t, client, b, sizes)
		}
	}
	var zero wsframe.Reader
	if _, _, err := zero.Next([]byte{0x81, 0}); err == nil {
		t.Error("a Reader of nobody reads")
	}
}

// What Append makes is read again, and its mask is another one each time.
func TestAppend(t *testing.T) {
	masks := make(map[[4]byte]bool)
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("payload"), n/7+1)[:n]
		for _, side := range []wsframe.Side{wsframe.Client, wsframe.Server} {
			kept := bytes.Clone(payload)
			all, rest, err := read(side, wsframe.Append(nil, side, wsframe.Binary, payload), []byte{200})
			if err != nil || rest || len(all) != 1 || all[0].head.Op != wsframe.Binary || !all[0].head.Fin || !bytes.Equal(all[0].payload, kept) || !bytes.Equal(payload, kept) {
				t.Fatalf("%d bytes of side %d: %d frames, %v", n, side, len(all), err)
			}
			if side == wsframe.Client {
				masks[all[0].head.Mask] = true
			}
		}
	}
	if len(masks) < 5 {
		t.Errorf("%d masks of 6 frames", len(masks))
	}
	all, _, err := read(wsframe.Server, wsframe.AppendClose(nil, 1008, strings.Repeat("x", 200)), nil)
	if err != nil || len(all) != 1 || string(all[0].payload) != "\x03\xf0"+strings.Repeat("x", 123) {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestXor(t *testing.T) {
	mask := [4]byte{1, 2, 3, 4}
	for n := range 80 {
		for offset := range int64(5) {
			got := make([]byte, n)
			wsframe.Xor(got, mask, offset)
			for i, c := range got {
				if c != mask[(offset+int64(i))%4] {
					t.Fatalf("%d bytes at %d: byte %d is %d", n, offset, i, c)
				}
			}
		}
	}
}

// FuzzReader holds the parser against a second one that is written for nothing
// but being plain.
func FuzzReader(f *testing.F) {
	for name, v := range vectors() {
		if len(v[0]) < 1000 {
			f.Add(name[0] == 'c', unhex(f, v[0]), []byte{0})
		}
	}
	f.Add(true, unhex(f, "018101020304 6061 8981000000000a 808100000000 62"), []byte{3, 0, 1})
	f.Fuzz(func(t *testing.T, client bool, b, sizes []byte) {
		if len(b) < 1<<16 {
			agree(t, client, b, sizes)
		}
	})
}

func BenchmarkXor(b *testing.B) {
	text := make([]byte, 16<<10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		wsframe.Xor(text, [4]byte{1, 2, 3, 4}, 1)
	}
}
