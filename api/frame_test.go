package api

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	big := bytes.Repeat([]byte("x"), MaxFrame+1)
	if _, err := w.Stream(FrameStdout).Write(big); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(FrameStdinEOF, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(FrameExit, ExitPayload(-1)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		t FrameType
		n int
	}{{FrameStdout, MaxFrame}, {FrameStdout, 1}, {FrameStdinEOF, 0}, {FrameExit, 4}} {
		ft, p, err := ReadFrame(&b)
		if err != nil || ft != want.t || len(p) != want.n {
			t.Fatalf("got type %d, %d bytes, %v; want %v", ft, len(p), err, want)
		}
		if ft == FrameExit {
			if code, err := ParseExit(p); err != nil || code != -1 {
				t.Errorf("exit %d, %v", code, err)
			}
		}
	}
	if _, _, err := ReadFrame(&b); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestFramesRefused(t *testing.T) {
	for name, in := range map[string][]byte{
		"unknown type": {99, 0, 0, 0, 0},
		"too long":     {1, 0, 1, 0, 1},
		"huge":         {1, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, _, err := ReadFrame(bytes.NewReader(in)); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, in := range [][]byte{{1}, {1, 0, 0, 0, 2, 'x'}, {1, 0, 0, 0, 2}} {
		if _, _, err := ReadFrame(bytes.NewReader(in)); err != io.ErrUnexpectedEOF {
			t.Errorf("%v: %v", in, err)
		}
	}
	if _, _, err := ParseResize([]byte{1, 2, 3}); !errors.Is(err, ErrFrame) {
		t.Errorf("resize: %v", err)
	}
	if _, err := ParseExit(nil); !errors.Is(err, ErrFrame) {
		t.Errorf("exit: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 'x', 4, 0, 0, 0, 4, 0, 0, 0, 0})
	f.Add([]byte{3, 0, 0, 0, 4, 0, 24, 0, 80})
	f.Add([]byte{9, 9, 9})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var out bytes.Buffer
		w := NewFrameWriter(&out)
		for {
			ft, p, err := ReadFrame(r)
			if err != nil {
				break
			}
			if len(p) > MaxFrame {
				t.Fatal("longer than allowed")
			}
			if err := w.Write(ft, p); err != nil {
				t.Fatal(err)
			}
			_, _, _ = ParseResize(p)
			_, _ = ParseExit(p)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatalf("what was read is not what came: %x of %x", out.Bytes(), in)
		}
	})
}
