package sink

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// began is when a file was made; when it was last changed, where the file system
// does not keep that.
func began(f *os.File, fi os.FileInfo) time.Time {
	var x unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &x)
	if err != nil || x.Mask&unix.STATX_BTIME == 0 {
		return fi.ModTime()
	}
	return time.Unix(x.Btime.Sec, int64(x.Btime.Nsec))
}
