package worker

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"
)

// pair is a connected pair of Unix sockets.
func pair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if here, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}

// TestBulkKeepsEveryByte: whatever is written in whatever pieces arrives whole
// and in order, also what is written just before the close.
func TestBulkKeepsEveryByte(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		want := make([]byte, r.IntN(4<<20))
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		here, there := pair(t)
		got := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(there)
			got <- b
		}()
		c := newBulkConn(here)
		for rest := want; len(rest) > 0; {
			n := min(1+r.IntN(40<<10), len(rest))
			if m, err := c.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if b := <-got; !bytes.Equal(b, want) {
			t.Fatalf("seed %d: %d bytes arrived of %d, or others", seed, len(b), len(want))
		}
	}
}

// TestBulkTellsOfErrors: a reader that is gone ends the writer.
func TestBulkTellsOfErrors(t *testing.T) {
	here, there := pair(t)
	c := newBulkConn(here)
	if err := there.Close(); err != nil {
		t.Fatal(err)
	}
	for range 10000 {
		if _, err := c.Write(make([]byte, 16<<10)); err != nil {
			_ = c.Close()
			return
		}
	}
	t.Error("it wrote to nobody without an error")
}
