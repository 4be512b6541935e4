package durable_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"ambit/internal/durable"
)

const size = 64 << 10

func open(t testing.TB) (string, *durable.Writer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DSYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := durable.NewWriter(f, size, bytes.Repeat([]byte{1}, durable.BlockSize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), w.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	return path, w
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFirstBlock(t *testing.T) {
	path, w := open(t)
	if b := read(t, path); b[0] != 1 || b[durable.BlockSize-1] != 1 || b[durable.BlockSize] != 0 {
		t.Error("the first block is not what was asked for")
	}
	t.Logf("without a thread: %v", w.Direct())
}

// What was written is there, whole, and nothing before it or beyond its block.
func TestWrites(t *testing.T) {
	path, w := open(t)
	rapid.Check(t, func(t *rapid.T) {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, size/durable.BlockSize-1).Draw(t, "block") * durable.BlockSize
		b := rapid.SliceOfN(rapid.Byte(), 1, size-at).Draw(t, "bytes")
		if err := w.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end := at + (len(b)+durable.BlockSize-1)/durable.BlockSize*durable.BlockSize
		switch {
		case len(after) != size:
			t.Fatalf("the file has %d bytes", len(after))
		case !bytes.Equal(after[at:at+len(b)], b):
			t.Fatal("what was written is not there")
		case !bytes.Equal(after[:at], before[:at]) || !bytes.Equal(after[end:], before[end:]):
			t.Fatal("something else changed")
		}
	})
}

func TestRefused(t *testing.T) {
	_, w := open(t)
	if err := w.WriteAt([]byte("x"), 1); err == nil {
		t.Error("an offset inside a block was accepted")
	}
	if err := w.WriteAt(make([]byte, size+1), 0); w.Direct() && err == nil {
		t.Error("a write longer than was said was accepted")
	}
}

// An error of the disk is reported, and the next write works.
func TestErrors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/dev/full is of Linux")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := durable.NewWriter(f, size, make([]byte, durable.BlockSize)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
}

// BenchmarkWrite compares with a blocking write of the same block.
func BenchmarkWrite(b *testing.B) {
	block := bytes.Repeat([]byte{2}, durable.BlockSize)
	b.Run("ours", func(b *testing.B) {
		_, w := open(b)
		for i := 0; b.Loop(); i++ {
			if err := w.WriteAt(block, int64(i%16)*durable.BlockSize); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("reference", func(b *testing.B) {
		f, err := os.OpenFile(filepath.Join(b.TempDir(), "file"), os.O_RDWR|os.O_CREATE|syscall.O_DSYNC, 0o600)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, size)); err != nil {
			b.Fatal(err)
		}
		for i := 0; b.Loop(); i++ {
			if _, err := f.WriteAt(block, int64(i%16)*durable.BlockSize); err != nil {
				b.Fatal(err)
			}
		}
	})
}
