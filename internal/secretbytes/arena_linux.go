package secretbytes

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewArena maps an arena of at least so many bytes, rounded up to pages.
func NewArena(size int) (*Arena, error) {
	// mmap, madvise(MADV_DONTDUMP), mlock
	page := os.Getpagesize()
	mem, err := unix.Mmap(-1, 0, max((size+page-1)/page, 1)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("making room for secrets: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("keeping secrets out of core dumps: %w", err)
	}
	return &Arena{mem: mem, used: make([]bool, len(mem)/granule), locked: unix.Mlock(mem) == nil, unmap: unix.Munmap}, nil
}
