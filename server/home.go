package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// homeFormat is the layout of a home that this program writes. A home with a
// higher number was written by a newer program.
const homeFormat = 1

// Names within a home.
const (
	runDir      = "run"
	versionFile = "version"
	lockFile    = "serve.lock"
)

// Home is a locked home directory: nobody else serves it until Close, or the
// end of this process.
type Home struct {
	Dir  string // absolute, without symbolic links
	lock *os.File
}

// OpenHome makes dir ready to be served and locks it. It creates it if need
// be, private to this user; as root every agent has a user id of its own and
// must be able to pass through, so then it is 0711. It refuses a directory
// that others own or can write to, one that has other things in it, one that
// is served already, and one that a newer program wrote.
func OpenHome(dir string) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding the home: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the home: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("finding the home: %w", err)
	}
	if err := checkHome(dir); err != nil {
		return nil, err
	}
	h := &Home{Dir: dir}
	if h.lock, err = lockHome(filepath.Join(dir, lockFile)); err != nil {
		return nil, err
	}
	if err := h.prepare(); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close gives the home up.
func (h *Home) Close() error { return h.lock.Close() }

func checkHome(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the home: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("the home %s is not a directory: choose another with --home", dir)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the home %s belongs to user id %d and this is user id %d: run as its owner, or choose another with --home", dir, st.Uid, os.Geteuid())
	}
	if perm := fi.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("the home %s can be written to by other users (mode %04o): look at what is in it, then run: chmod go-w %s", dir, perm, dir)
	}
	_, err = os.Lstat(filepath.Join(dir, versionFile))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking at the home: %w", err)
	}
	for _, e := range entries {
		// A serve that died at once leaves the first two; the others an operator may
		// put there before the first start.
		if n := e.Name(); n != lockFile && !strings.HasPrefix(n, "."+versionFile) && n != OutputsFile && n != connectorsDir {
			return fmt.Errorf("the home %s is not empty and not a home of Ambit's (it has %q and no file named %q): choose another with --home", dir, e.Name(), versionFile)
		}
	}
	return nil
}

// How often and how long it is waited for a home that is locked: 2 seconds.
const (
	lockTries = 40
	lockPause = 50 * time.Millisecond
)

// OutputsFile is the operator's file in the home that says what leaves the logs; see
// package outputs. It need not be there.
const OutputsFile = "outputs.yaml"

// lockHome takes the lock, which the kernel gives back when this process ends.
func lockHome(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the home: %w", err)
	}
	// A process that was killed keeps it until the last of its threads is done
	// with the disk.
	for range lockTries {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(lockPause)
	}
	if err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking the home: %w", err)
		}
		b := make([]byte, 32)
		n, _ := f.Read(b)
		holder := "another ambit serve"
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
			holder += " (process " + strconv.Itoa(pid) + ")"
		}
		return nil, fmt.Errorf("%s is serving %s already: use that one, stop it, or choose another home with --home", holder, filepath.Dir(path))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the home: %w", err), f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// prepare checks the format and sets modes. The lock is held.
func (h *Home) prepare() error {
	if err := h.checkFormat(); err != nil {
		return err
	}
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711
	}
	if err := os.Chmod(h.Dir, mode); err != nil {
		return fmt.Errorf("protecting the home: %w", err)
	}
	run := filepath.Join(h.Dir, runDir)
	if err := os.Mkdir(run, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("preparing the home: %w", err)
	}
	fi, err := os.Lstat(run)
	if err != nil {
		return fmt.Errorf("preparing the home: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is not a directory: move it away", run)
	}
	if err := os.Chmod(run, 0o700); err != nil {
		return fmt.Errorf("protecting the home: %w", err)
	}
	return nil
}

func (h *Home) checkFormat() error {
	path := filepath.Join(h.Dir, versionFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeFile(path, []byte(strconv.Itoa(homeFormat)+"\n")); err != nil {
			return fmt.Errorf("writing the home's format: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the home's format: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("%s does not say a format number: restore it from a backup; this release writes %d", path, homeFormat)
	case n > homeFormat:
		return fmt.Errorf("the home %s was written by a newer Ambit (format %d, this one knows up to %d): use that release, or another home with --home", h.Dir, n, homeFormat)
	}
	return nil
}

// writeFile replaces path, readable by this user only, so that after a crash
// either the old or the new content is there, whole.
func writeFile(path string, b []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
