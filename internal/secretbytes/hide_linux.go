package secretbytes

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// HideProcess makes this process unreadable for others of its user: no core
// dump, no ptrace, no /proc/PID/mem, no /proc/PID/environ. What it starts
// inherits the limit on core dumps and nothing else.
func HideProcess() error {
	// prctl(PR_SET_DUMPABLE, 0), setrlimit(RLIMIT_CORE, 0)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hiding the memory of this process: %w", err)
	}
	none := unix.Rlimit{}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &none); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	return nil
}
