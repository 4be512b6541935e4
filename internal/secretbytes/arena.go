package secretbytes

import "sync"

// granule is what an arena hands out in multiples of, in bytes.
const granule = 64

// Arena is memory for secrets that is not the Go heap's: the collector neither
// moves nor copies it, it is left out of core dumps (madvise MADV_DONTDUMP),
// there is a page on either side that nobody can read or write, and it is kept
// out of swap (mlock) where that is permitted, see [Arena.Locked]. It is safe
// for concurrent use.
//
// A secret in an arena must be wiped, which gives its place back: unlike one on
// the heap, a slice that Reveal gave must not be used after that. The race
// detector does not see this memory.
type Arena struct {
	mu     sync.Mutex // held for moments
	mem    []byte
	used   []bool // by granule
	low    int    // all granules below it are used: the search begins there
	room   int    // granules that are not used
	live   int    // secrets in it
	closed bool
	locked bool
	unmap  func() error
}

// Locked says whether the system keeps this memory out of swap. It does not
// where RLIMIT_MEMLOCK is too small, nor is there any of it in a nil Arena.
func (a *Arena) Locked() bool { return a != nil && a.locked }

// Live is how many secrets are in the arena.
func (a *Arena) Live() int {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live
}

// New returns a secret of n zeros in the arena, to be filled through Reveal.
// Where the arena has no room, is closed or nil, inside is false and the secret is
// on the heap, with all else the same.
func (a *Arena) New(n int) (s Bytes, inside bool) {
	h := &held{arena: a}
	if !a.reserve(h, n) {
		h.arena, h.b = nil, make([]byte, n)
	}
	return Bytes{box: func() *held { return h }}, h.arena != nil
}

// Take makes b a secret in the arena and wipes b. Where New would put it on the
// heap, it stays there, and the secret owns b.
func (a *Arena) Take(b []byte) Bytes {
	h := &held{arena: a}
	if !a.reserve(h, len(b)) {
		return New(b)
	}
	copy(h.b, b)
	clear(b)
	return Bytes{box: func() *held { return h }}
}

func granules(n int) int { return (n + granule - 1) / granule }

// reserve gives h a place of n bytes, which are zero. It is the lowest one, so
// that as few pages as possible are ever touched.
func (a *Arena) reserve(h *held, n int) bool {
	if a == nil || n <= 0 {
		return false
	}
	want := granules(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || want > a.room {
		return false
	}
	for a.used[a.low] { // there is room, so this ends
		a.low++
	}
	found := 0 // granules in a row that end at i
	for i := a.low; i < len(a.used); i++ {
		if a.used[i] {
			found = 0
			continue
		}
		if found++; found < want {
			continue
		}
		at := i + 1 - want
		for j := range want {
			a.used[at+j] = true
		}
		a.room -= want
		a.live++
		h.at, h.b = at, a.mem[at*granule:at*granule+n:at*granule+n]
		return true
	}
	return false
}

// free wipes h and gives its place back. It does nothing the second time, so
// that two who wipe the same secret never wipe what came to its place.
func (a *Arena) free(h *held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.b == nil {
		return
	}
	clear(h.b)
	n := granules(len(h.b))
	for i := range n {
		a.used[h.at+i] = false
	}
	h.b = nil
	a.low = min(a.low, h.at)
	a.room += n
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
	a.mem = nil
	return a.unmap()
}
