package sink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ambit/audit/sink/outputs"
)

// file appends batches as JSON Lines to a file of mode 0600, and acknowledges when
// they are flushed to the disk. It is never truncated: when it is large or old
// enough it gets another name (name.20261103T040506.000000Z.jsonl for name.jsonl,
// by rename, which is atomic), and a new one begins. A file whose last line was
// torn by a crash gets a newline before the next event; the torn one comes again.
//
// One process at a time writes a file: it is locked (flock).
type file struct {
	encoder
	path    string
	maxSize int64
	maxAge  time.Duration
	keep    int
	now     func() time.Time

	f     *os.File // nil: to be opened
	size  int64
	since time.Time // when the file began
	torn  bool      // its end is, or may be, half a line
}

// rotated is the form of the time in the name of a rotated file.
const rotated = "20060102T150405.000000Z"

func newFile(c *outputs.Sink, version string) *file {
	return &file{encoder: encoder{c.OCSF, version}, path: c.Path, maxSize: c.MaxSize, maxAge: c.MaxAge, keep: c.Keep, now: time.Now}
}

// Deliver implements Receiver.
func (s *file) Deliver(_ context.Context, b Batch) ([]Rejection, error) {
	lines, err := s.lines(b)
	if err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	if s.size > 0 && (s.size+int64(len(lines)) > s.maxSize || s.now().Sub(s.since) >= s.maxAge) {
		if err := s.rotate(); err != nil {
			return nil, err
		}
	}
	if s.torn {
		lines = append([]byte("\n"), lines...)
	}
	n, err := s.f.Write(lines)
	s.size += int64(n)
	s.torn = err != nil
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		_ = s.Close() // what the disk has is found out when it is opened again
		return nil, fmt.Errorf("writing %s: %w", s.path, err)
	}
	return nil, nil
}

// open opens the file if it is not, and makes sure that it is still the one of
// that name: another program may rotate or remove it.
func (s *file) open() error {
	if s.f != nil {
		there, err := os.Lstat(s.path)
		if own, bad := s.f.Stat(); err == nil && bad == nil && os.SameFile(there, own) {
			return nil
		}
		_ = s.Close()
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("opening the file of the sink: %w", err)
	}
	if err := s.take(f); err != nil {
		_ = f.Close()
		return err
	}
	s.f = f
	return nil
}

// take looks at a file that was opened.
func (s *file) take(f *os.File) error {
	fi, err := f.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("opening the file of the sink: %w", err)
	case !fi.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", s.path)
	case fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s can be read or written by other users (mode %04o): run: chmod 600 %s", s.path, fi.Mode().Perm(), s.path)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("%s is written by another process: %w", s.path, err)
	}
	s.size, s.since, s.torn = fi.Size(), began(f, fi), false
	if s.size == 0 {
		s.since = s.now()
		return syncFolder(s.path) // so that the name is durable too
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, s.size-1); err != nil {
		return fmt.Errorf("reading the end of %s: %w", s.path, err)
	}
	s.torn = last[0] != '\n'
	return nil
}

// rotate gives the file another name and begins a new one.
func (s *file) rotate() error {
	folder, name := filepath.Split(s.path)
	stem, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	to := ""
	for at := s.now().UTC(); ; at = at.Add(time.Microsecond) {
		to = filepath.Join(folder, stem+"."+at.Format(rotated)+ext)
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			break // and nobody else makes one: we hold the lock
		} else if err != nil {
			return fmt.Errorf("rotating %s: %w", s.path, err)
		}
	}
	if err := os.Rename(s.path, to); err != nil {
		return fmt.Errorf("rotating %s: %w", s.path, err)
	}
	_ = s.Close()
	if err := s.open(); err != nil {
		return err
	}
	return s.thin(folder, stem, ext)
}

// thin removes the oldest rotated files above the number to keep.
func (s *file) thin(folder, stem, ext string) error {
	if s.keep == 0 {
		return nil
	}
	entries, err := os.ReadDir(filepath.Clean(folder))
	if err != nil {
		return fmt.Errorf("looking for rotated files: %w", err)
	}
	var old []string
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), stem+".")
		at, too := strings.CutSuffix(rest, ext)
		if _, err := time.Parse(rotated, at); ours && too && err == nil && e.Type().IsRegular() {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for len(old) > s.keep {
		if err := os.Remove(filepath.Join(folder, old[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing a rotated file: %w", err)
		}
		old = old[1:]
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("flushing the folder of %s: %w", path, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flushing the folder of %s: %w", path, err)
	}
	return nil
}

// Close implements Receiver.
func (s *file) Close() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	return f.Close()
}
