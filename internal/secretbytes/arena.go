package secretbytes

import (
	"slices"
	"sync"
)

// granule is what an arena hands out in multiples of, in bytes.
const granule = 64

// Arena is memory for secrets that is not the Go heap's: the collector neither
// moves nor copies it, it is left out of core dumps (madvise MADV_DONTDUMP), and
// it is kept out of swap (mlock) where that is permitted, see [Arena.Locked]. It
// is safe for concurrent use.
//
// A secret in an arena must be wiped, which gives its place back: unlike one on
// the heap, a slice that Reveal gave must not be used after that.
type Arena struct {
	mu     sync.Mutex
	mem    []byte
	used   []bool // by granule
	live   int    // secrets in it
	closed bool
	locked bool
	unmap  func([]byte) error
}

// Locked says whether the system lets this memory be kept out of swap. It does
// not where RLIMIT_MEMLOCK is too small.
func (a *Arena) Locked() bool { return a.locked }

// Take makes b a secret in the arena and wipes b. Where the arena has no room,
// is closed or nil, the secret stays on the heap, and owns b.
func (a *Arena) Take(b []byte) Bytes {
	at, ok := a.reserve(len(b))
	if !ok {
		return New(b)
	}
	place := a.mem[at*granule : at*granule+len(b) : at*granule+len(b)]
	copy(place, b)
	clear(b)
	s := New(place)
	s.release = sync.OnceFunc(func() { a.free(at, granules(len(place))) })
	return s
}

func granules(n int) int { return (n + granule - 1) / granule }

func (a *Arena) reserve(n int) (at int, ok bool) {
	if a == nil || n == 0 {
		return 0, false
	}
	want := granules(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return 0, false
	}
	for at := 0; at+want <= len(a.used); at++ {
		if taken := slices.Index(a.used[at:at+want], true); taken >= 0 {
			at += taken
			continue
		}
		for i := range want {
			a.used[at+i] = true
		}
		a.live++
		return at, true
	}
	return 0, false
}

func (a *Arena) free(at, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range n {
		a.used[at+i] = false
	}
	a.live--
	_ = a.giveBack() // nobody is there to be told; the memory is the process's until it ends
}

// Close gives the memory back once the last secret in it is wiped. It may be
// called again, and on nil.
func (a *Arena) Close() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return a.giveBack()
}

// giveBack is called with a.mu held.
func (a *Arena) giveBack() error {
	if !a.closed || a.live > 0 || a.mem == nil {
		return nil
	}
	mem := a.mem
	a.mem = nil
	return a.unmap(mem)
}
