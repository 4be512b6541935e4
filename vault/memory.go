package vault

import (
	"log/slog"
	"sync"

	"ambit/internal/secretbytes"
)

// arenaSize is the room for values that are open, in bytes: that of thousands of
// requests at once, and of the searches for what is to be scrubbed (which take some
// 40 bytes for each of a token, and 100 for each of a private key). Only what was
// used takes memory. RLIMIT_MEMLOCK is 8 MiB by default (since Linux 5.16).
const arenaSize = 4 << 20

// memory is where values are while they are open: an arena, which is locked
// against swap and left out of core dumps. Where there is no room in it they are on
// the heap, which it says in the log, once. It is safe for concurrent use.
type memory struct {
	arena  *secretbytes.Arena // nil: there is none, and all is on the heap
	logger *slog.Logger
	full   sync.Once
}

func newMemory(size int, logger *slog.Logger) *memory {
	m := &memory{logger: logger}
	arena, err := secretbytes.NewArena(size)
	switch {
	case err != nil:
		logger.Warn("credentials are kept in ordinary memory, which may be written to swap, because there is no room for them elsewhere", slog.Any("err", err))
	case !arena.Locked():
		logger.Warn("credentials cannot be kept out of swap, because RLIMIT_MEMLOCK is too small; raise it, or encrypt swap", slog.Int("needed", size))
	}
	m.arena = arena
	return m
}

// room is a secret of n zeros, to be filled.
func (m *memory) room(n int) secretbytes.Bytes {
	s, inside := m.arena.New(n)
	if !inside && n > 0 && m.arena != nil {
		m.full.Do(func() {
			m.logger.Warn("there is no room for a credential in the memory that is kept out of swap, so that it is in ordinary memory for as long as it is open; this is said once", slog.Int("bytes", n))
		})
	}
	return s
}

// take makes b a secret, and wipes b.
func (m *memory) take(b []byte) secretbytes.Bytes {
	s := m.room(len(b))
	copy(s.Reveal(), b)
	clear(b)
	return s
}
