package audit

import (
	"os"
	"syscall"
)

// datasync makes what was written durable. The journal never changes its
// length meanwhile, so the file's metadata need not be written (fdatasync(2)).
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR { //nolint:errorlint // the system call's own number
			return err
		}
	}
}
