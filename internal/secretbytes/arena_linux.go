package secretbytes

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewArena maps an arena of at least so many bytes, rounded up to pages. A page
// that was never used takes no memory.
func NewArena(size int) (*Arena, error) {
	// mmap(PROT_NONE), mprotect, madvise(MADV_DONTDUMP), mlock2(MLOCK_ONFAULT)
	page := os.Getpagesize()
	size = max((size+page-1)/page, 1) * page
	all, err := unix.Mmap(-1, 0, page+size+page, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("making room for secrets: %w", err)
	}
	mem := all[page : page+size : page+size]
	if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		_ = unix.Munmap(all)
		return nil, fmt.Errorf("making room for secrets: %w", err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTDUMP); err != nil {
		_ = unix.Munmap(all)
		return nil, fmt.Errorf("keeping secrets out of core dumps: %w", err)
	}
	n := size / granule
	return &Arena{mem: mem, used: make([]bool, n), room: n, locked: lock(mem), unmap: func() error { return unix.Munmap(all) }}, nil
}

// lock keeps b out of swap, from when each page of it is used first.
func lock(b []byte) bool {
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MLOCK_ONFAULT) //nolint:gosec // the system is told where b is; package unix has no such call
	return errno == 0
}
