//go:build linux

package secretbytes_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"ambit/internal/secretbytes"
)

func arena(tb testing.TB, size int) *secretbytes.Arena {
	tb.Helper()
	a, err := secretbytes.NewArena(size)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// mapping is the entry of /proc/self/smaps that has b, "" if none has.
func mapping(tb testing.TB, b []byte) string {
	tb.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		tb.Fatal(err)
	}
	at := uintptr(unsafe.Pointer(&b[0]))
	var entry []string
	for line := range strings.Lines(string(smaps)) {
		first, rest, ok := strings.Cut(line, "-")
		if from, isHex := hexadecimal(first); ok && isHex {
			to, _ := hexadecimal(strings.Fields(rest)[0])
			if entry != nil {
				break
			}
			if at >= from && at < to {
				entry = []string{line}
			}
		} else if entry != nil {
			entry = append(entry, line)
		}
	}
	return strings.Join(entry, "")
}

func hexadecimal(s string) (v uintptr, ok bool) {
	for _, r := range s {
		d := strings.IndexRune("0123456789abcdef", r)
		if d < 0 {
			return 0, false
		}
		v = v<<4 | uintptr(d)
	}
	return v, s != ""
}

// The kernel says of the memory what the arena promises.
func TestArenaIsLockedAndNotDumped(t *testing.T) {
	a := arena(t, 1)
	raw := []byte(canary)
	s := a.Take(raw)
	if string(s.Reveal()) != canary || !bytes.Equal(raw, make([]byte, len(canary))) {
		t.Fatalf("taken: %q, left: %q", s.Reveal(), raw)
	}
	entry := mapping(t, s.Reveal())
	flags := strings.Fields(entry[strings.LastIndex(entry, "VmFlags:"):])
	if !slices.Contains(flags, "dd") {
		t.Errorf("it would be dumped:\n%s", entry)
	}
	if a.Locked() != slices.Contains(flags, "lo") {
		t.Errorf("Locked is %t:\n%s", a.Locked(), entry)
	}
	place := s.Reveal()
	s.Wipe()
	if !bytes.Equal(place, make([]byte, len(canary))) || s.Len() != 0 {
		t.Errorf("after Wipe: %q", place)
	}
	s.Wipe()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if mapping(t, place) != "" {
		t.Error("it is still mapped after Close")
	}
}

// What runs off an arena's end is stopped by the system.
func TestArenaHasGuards(t *testing.T) {
	a := arena(t, 1)
	defer func() { _ = a.Close() }()
	s := a.Take(make([]byte, os.Getpagesize()))
	defer s.Wipe()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	at := uintptr(unsafe.Pointer(&s.Reveal()[0]))
	var before, after string
	for line := range strings.Lines(string(maps)) {
		first, rest, _ := strings.Cut(line, "-")
		from, _ := hexadecimal(first)
		to, _ := hexadecimal(strings.Fields(rest)[0])
		if to == at {
			before = strings.Fields(rest)[1]
		}
		if from == at+uintptr(os.Getpagesize()) {
			after = strings.Fields(rest)[1]
		}
	}
	if before != "---p" || after != "---p" {
		t.Errorf("before it %q, and behind it %q", before, after)
	}
}

// Room that was another's is zeros, and whoever wipes once more does not wipe
// what came there.
func TestArenaRoomIsFresh(t *testing.T) {
	a := arena(t, 4096)
	defer func() { _ = a.Close() }()
	var old []secretbytes.Bytes
	for n := range 200 {
		s, inside := a.New(n)
		if inside != (n > 0) || s.Len() != n || !bytes.Equal(s.Reveal(), make([]byte, n)) {
			t.Fatalf("room of %d: %v, inside: %t", n, s.Reveal(), inside)
		}
		for i := range s.Reveal() {
			s.Reveal()[i] = 0xff
		}
		for _, o := range old {
			o.Wipe()
		}
		if bytes.IndexByte(s.Reveal(), 0) >= 0 {
			t.Fatal("another's Wipe reached it")
		}
		if live := a.Live(); live != min(n, 1) {
			t.Fatalf("%d are live", live)
		}
		s.Wipe()
		old = append(old, s)
	}
	if s, inside := a.New(4097); inside || s.Len() != 4097 {
		t.Error("more than there is")
	}
}

// Secrets never share a byte, are given back, and go to the heap when there is
// no room.
func TestArenaIsShared(t *testing.T) {
	a := arena(t, 4096)
	var wg sync.WaitGroup
	for g := range byte(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var mine []secretbytes.Bytes
			for range 2000 {
				if len(mine) > 4 {
					i := r.IntN(len(mine))
					mine[i].Wipe()
					mine = slices.Delete(mine, i, i+1)
				}
				mine = append(mine, a.Take(bytes.Repeat([]byte{g + 1}, 1+r.IntN(300))))
				for _, s := range mine {
					if b := s.Reveal(); !bytes.Equal(b, bytes.Repeat([]byte{g + 1}, len(b))) {
						t.Errorf("a secret of %d became %v", g, b)
						return
					}
				}
			}
			for _, s := range mine {
				s.Wipe()
			}
		})
	}
	wg.Wait()
	whole := a.Take(bytes.Repeat([]byte{9}, 4096)) // fits only if all was given back
	if !strings.Contains(mapping(t, whole.Reveal()), " dd") {
		t.Error("not all was given back")
	}
	more := a.Take([]byte("more"))
	if string(more.Reveal()) != "more" || strings.Contains(mapping(t, more.Reveal()), " dd") {
		t.Errorf("without room: %q", more.Reveal())
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if b := whole.Reveal(); b[4095] != 9 { // still there: it is in use
		t.Error("it went away in use")
	}
	whole.Wipe()
	if s := a.Take([]byte("late")); string(s.Reveal()) != "late" {
		t.Error("a closed arena loses secrets")
	}
	var none *secretbytes.Arena
	if s := none.Take([]byte("x")); string(s.Reveal()) != "x" || none.Close() != nil {
		t.Error("without an arena")
	}
}

func BenchmarkArena(b *testing.B) {
	a := arena(b, 1<<16)
	defer func() { _ = a.Close() }()
	raw := make([]byte, 40)
	b.ReportAllocs()
	for b.Loop() {
		s := a.Take(raw)
		s.Wipe()
	}
}
