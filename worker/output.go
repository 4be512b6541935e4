package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// maxOutput is how much of a program's output one of the two files holds, in
// bytes: at least this much of the newest output is kept, at most twice as much.
const maxOutput = 4 << 20

// output keeps what the agent's program writes, in two files that take turns.
// It is not part of the log: it is for people who look at the program.
type output struct {
	dir string

	mu      sync.Mutex
	file    *os.File
	size    int64         // of file
	total   int64         // bytes ever written in this worker's life, plus what was there
	changed chan struct{} // closed and replaced at each write
}

func openOutput(dir string) (*output, error) {
	o := &output{dir: dir, changed: make(chan struct{})}
	return o, o.reopen()
}

func (o *output) current() string  { return filepath.Join(o.dir, "output.log") }
func (o *output) previous() string { return filepath.Join(o.dir, "output.1.log") }

func (o *output) reopen() error {
	f, err := os.OpenFile(o.current(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the program's output: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("opening the program's output: %w", err)
	}
	o.file, o.size = f, st.Size()
	return nil
}

// Close ends the file.
func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file.Close()
}

// stream is where one of the program's streams is written to. The two are kept
// in the order in which they came.
func (o *output) stream(string) io.Writer { return writerFunc(o.write) }

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (o *output) write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.size >= maxOutput {
		if err := errors.Join(o.file.Close(), os.Rename(o.current(), o.previous())); err != nil {
			return 0, err
		}
		if err := o.reopen(); err != nil {
			return 0, err
		}
	}
	n, err := o.file.Write(p)
	o.size += int64(n)
	o.total += int64(n)
	close(o.changed)
	o.changed = make(chan struct{})
	return n, err
}

// tail returns the last n bytes kept, all if n is 0, with what to wait for and
// where the end is.
func (o *output) tail(n int) (b []byte, end int64, changed <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range []string{o.previous(), o.current()} {
		part, rerr := os.ReadFile(p)
		if rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			return nil, 0, nil, rerr
		}
		b = append(b, part...)
	}
	if n > 0 && len(b) > n {
		b = b[len(b)-n:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 && i+1 < len(b) {
			b = b[i+1:] // whole lines
		}
	}
	return b, o.total, o.changed, nil
}

// copyTo writes the last n bytes to w, and with follow what comes until ctx
// ends.
func (o *output) copyTo(ctx context.Context, w io.Writer, n int, follow bool) error {
	b, end, changed, err := o.tail(n)
	if err != nil {
		return err
	}
	for {
		if _, err := w.Write(b); err != nil {
			return err
		}
		if f, ok := w.(interface{ Flush() }); ok {
			f.Flush()
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		var all []byte
		var newEnd int64
		if all, newEnd, changed, err = o.tail(0); err != nil {
			return err
		}
		fresh := min(newEnd-end, int64(len(all)))
		b, end = all[int64(len(all))-fresh:], newEnd
	}
}
