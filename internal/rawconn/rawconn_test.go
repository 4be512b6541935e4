package rawconn_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"ambit/internal/rawconn"
)

// pair is a wrapped connection and the other end of it.
func pair(t *testing.T, network string) (ours, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return rawconn.New(a), b
}

func each(t *testing.T, f func(t *testing.T, ours, theirs net.Conn)) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			f(t, ours, theirs)
		})
	}
}

// Much more than the socket holds goes through in both directions at once, to
// a reader that is slow at first.
func TestBothWays(t *testing.T) {
	each(t, func(t *testing.T, ours, theirs net.Conn) {
		want := make([]byte, 4<<20)
		_, _ = rand.Read(want)
		var wg sync.WaitGroup
		send := func(c net.Conn) {
			if n, err := c.Write(want); n != len(want) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		}
		receive := func(c net.Conn) {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		}
		for _, f := range []func(){func() { send(ours) }, func() { receive(ours) }, func() { send(theirs) }, func() { receive(theirs) }} {
			wg.Go(f)
		}
		wg.Wait()
	})
}

func TestNothing(t *testing.T) {
	each(t, func(t *testing.T, ours, theirs net.Conn) {
		if n, err := ours.Read(nil); n != 0 || err != nil {
			t.Errorf("an empty read: %d, %v", n, err)
		}
		if n, err := ours.Write(nil); n != 0 || err != nil {
			t.Errorf("an empty write: %d, %v", n, err)
		}
		theirs.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
	})
}

// Deadlines wake who waits, also ones that are set meanwhile, and a write says
// how much went.
func TestDeadlines(t *testing.T) {
	each(t, func(t *testing.T, ours, theirs net.Conn) {
		done := make(chan error)
		go func() { _, err := ours.Read(make([]byte, 1)); done <- err }()
		if err := ours.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		var e net.Error
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &e) || !e.Timeout() {
			t.Errorf("read: %v", err)
		}
		written := make(chan int)
		much := make([]byte, 64<<20)
		go func() {
			n, err := ours.Write(much)
			written <- n
			done <- err
		}()
		if _, err := theirs.Read(make([]byte, 1)); err != nil { // it has begun, and nobody reads the rest
			t.Fatal(err)
		}
		if err := ours.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if n := <-written; n <= 0 || n >= len(much) {
			t.Errorf("wrote %d", n)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestClosed(t *testing.T) {
	each(t, func(t *testing.T, ours, theirs net.Conn) {
		done := make(chan error)
		go func() { _, err := ours.Read(make([]byte, 1)); done <- err }()
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		_ = theirs
	})
}

// The errors of the system are those of the net package.
func TestBrokenPipe(t *testing.T) {
	ours, theirs := pair(t, "unix")
	theirs.Close()
	_, err := ours.Write([]byte("x"))
	var op *net.OpError
	if !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("%v", err)
	}
}

// What has no file descriptor is left alone.
func TestOther(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if rawconn.New(a) != a {
		t.Error("a pipe was wrapped")
	}
}
