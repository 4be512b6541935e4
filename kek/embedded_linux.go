package kek

import (
	"bytes"
	"compress/gzip"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

//go:embed kmsbin
var kmsbin embed.FS

// embedded makes the program that this binary carries runnable without a file:
// memfd_create, write, exec of /proc/self/fd/3 in the child. release lets go
// of its memory.
func embedded(ctx context.Context) (cmd *exec.Cmd, release func(), err error) {
	packed, err := fs.ReadFile(kmsbin, "kmsbin/ambit-kms.gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: it was built without ambit-kms; take a release, or build it with `make build`", ErrNoKeeper)
	}
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.MemfdCreate("ambit-kms", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there is no such flag, and no need of it
		fd, err = unix.MemfdCreate("ambit-kms", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making room for ambit-kms: %w; sysctl vm.memfd_noexec must not be 2", err)
	}
	f := os.NewFile(uintptr(fd), "ambit-kms")
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err == nil {
		_, err = io.Copy(f, r) //nolint:gosec // what it unpacks is in this binary
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("unpacking ambit-kms: %w", err), f.Close())
	}
	cmd = exec.CommandContext(ctx, "/proc/self/fd/3")
	cmd.Args = []string{"ambit-kms"}
	cmd.ExtraFiles = []*os.File{f} // is descriptor 3 there
	return cmd, func() { _ = f.Close() }, nil
}
