//go:build !linux

package durable

import "os"

// Writer writes to one file. It is used by one goroutine at a time.
type Writer struct{ file *os.File }

// NewWriter returns a writer for a file that is open for writing with O_DSYNC.
func NewWriter(f *os.File, _ int, first []byte) (*Writer, error) {
	w := &Writer{f}
	return w, w.WriteAt(first, 0)
}

// Direct says whether writes are made without a thread.
func (*Writer) Direct() bool { return false }

// WriteAt returns when all of b is durable.
func (w *Writer) WriteAt(b []byte, at int64) error {
	_, err := w.file.WriteAt(b, at)
	return err
}

// Close does nothing. The file stays open.
func (*Writer) Close() error { return nil }
