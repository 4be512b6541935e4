//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ordinaryUser is who runs ambit when this program runs as root.
const ordinaryUser = 61234

// lab is where one run takes place: a folder, the binary in it, and a user.
type lab struct {
	quick   bool
	dir     string // everything is in here
	memory  string // but what is to cost no disk; "" if there is no such file system
	bin     string // ambit, in dir, so that its processes can be told by it
	version string
	uid     int             // who runs ambit
	hurry   <-chan struct{} // closed when the run is cut off
	say     func(format string, args ...any)
}

func newLab(ctx context.Context, quick bool, say func(string, ...any)) (_ *lab, err error) {
	if _, err := os.Stat("/usr/bin/curl"); err != nil {
		return nil, errors.New("the download needs curl in /usr/bin: install the package curl")
	}
	dir, err := os.MkdirTemp("", "ambit-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{quick: quick, dir: dir, bin: filepath.Join(dir, "bin", "ambit"), uid: os.Geteuid(), hurry: ctx.Done(), say: say}
	if l.uid == 0 {
		l.uid = ordinaryUser
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Dir(l.bin), 0o755)); err != nil {
		return nil, err
	}
	if err := l.install(ctx); err != nil {
		return nil, err
	}
	out, err := l.command(ctx, "ambit", "version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking the binary for its version: %w", err)
	}
	l.version = strings.TrimPrefix(strings.TrimSpace(string(out)), "ambit ")
	return l, nil
}

// install copies the binary that is measured into the folder, or builds it.
func (l *lab) install(ctx context.Context) error {
	from := os.Getenv("AMBIT_BINARY")
	if from == "" {
		l.say("building ambit")
		if out, err := exec.CommandContext(ctx, "scripts/build", l.bin).CombinedOutput(); err != nil {
			return fmt.Errorf("building ambit (run this from the module's root, or set AMBIT_BINARY): %w\n%s", err, out)
		}
		return nil
	}
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("opening AMBIT_BINARY: %w", err)
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(l.bin, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Chmod(0o755), dst.Close())
}

// close ends whatever of this run is left and removes the folder.
func (l *lab) close() {
	endBelow(l.dir)
	for _, dir := range []string{l.dir, l.memory} {
		l.remove(dir)
	}
}

func (l *lab) remove(dir string) {
	if dir == "" {
		return
	}
	// Folders that an image made read-only would stop an ordinary user.
	_ = filepath.WalkDir(dir, func(p string, e os.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // a folder that is being deleted
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		l.say("removing %s: %v", dir, err)
	}
}

// command is the binary under the name of argv0, as the ordinary user, with no
// terminal and no environment of ours.
func (l *lab) command(ctx context.Context, argv0 string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.bin, args...)
	cmd.Args[0] = argv0
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "TERM=dumb"}
	cmd.Dir = "/"
	// Ctrl-C in the terminal is for this program, which ends the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(l.uid), Gid: uint32(l.uid), Groups: []uint32{}}
	}
	return cmd
}

// folder makes a folder of the ordinary user's in the lab.
func (l *lab) folder(name string, mode os.FileMode) (string, error) {
	return l.own(filepath.Join(l.dir, name), mode)
}

// inMemory is folder on a file system without a disk; "" if there is none.
func (l *lab) inMemory(name string, mode os.FileMode) (string, error) {
	const shm = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(shm, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return "", nil
	}
	if l.memory == "" {
		dir, err := os.MkdirTemp(shm, "ambit-bench-")
		if err != nil {
			return "", err
		}
		l.memory = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", err
		}
	}
	return l.own(filepath.Join(l.memory, name), mode)
}

func (l *lab) own(dir string, mode os.FileMode) (string, error) {
	if err := os.MkdirAll(dir, mode); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, l.uid, l.gid())
}

func (l *lab) gid() int {
	if os.Geteuid() == 0 {
		return l.uid
	}
	return os.Getegid()
}

// pick is quick's value in a quick run.
func pick[T any](l *lab, full, quick T) T {
	if l.quick {
		return quick
	}
	return full
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// await polls a condition of another process.
func await(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s", limit, what)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
