package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer writes to one file. It is used by one goroutine at a time.
type Writer struct {
	file *os.File
	fd   int
	ring *ring // nil: the file cannot be written asynchronously
}

// NewWriter returns a writer for a file that is open for writing with O_DSYNC.
// max is the longest write, in bytes, a multiple of BlockSize. From now on the
// file is neither read nor written in another way.
//
// first is a block that is written to the beginning of the file, to find out
// how writes are made here.
func NewWriter(f *os.File, max int, first []byte) (*Writer, error) {
	w := &Writer{file: f, fd: int(f.Fd())}
	if w.ring = newRing(max); w.ring != nil && setDirect(w.fd, true) == nil {
		if w.ring.write(w.fd, first, 0) == nil {
			return w, nil
		}
	}
	err := errors.Join(w.Close(), setDirect(w.fd, false))
	if err == nil {
		err = w.WriteAt(first, 0)
	}
	return w, err
}

// Direct says whether writes are made without a thread.
func (w *Writer) Direct() bool { return w.ring != nil }

// WriteAt returns when all of b is durable, at an offset that is a multiple of
// BlockSize. What follows it up to such a multiple is left as it was or zeroed.
// After an error any part of b may be durable.
func (w *Writer) WriteAt(b []byte, at int64) error {
	if at%BlockSize != 0 {
		return fmt.Errorf("writing at %d: it must be a multiple of %d", at, BlockSize)
	}
	if w.ring == nil {
		_, err := w.file.WriteAt(b, at)
		return err
	}
	return w.ring.write(w.fd, b, at)
}

// Close gives up what writes need. The file stays open.
func (w *Writer) Close() error {
	r := w.ring
	if r == nil {
		return nil
	}
	w.ring = nil
	return r.close()
}

// setDirect changes whether the file's reads and writes go past the page cache.
func setDirect(fd int, on bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if on {
		flags |= unix.O_DIRECT
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err
}

// ring is a kernel context for one write at a time (io_setup(2)).
type ring struct {
	context uintptr
	done    *os.File // an eventfd that counts what was completed
	doneFD  int      // of done, whose method Fd would make it block
	memory  []byte   // what is written; outside of the heap, for it begins a page
}

// The structures of linux/aio_abi.h on the little-endian machines that Ambit
// runs on.
type controlBlock struct {
	_         uint64 // data
	_         uint32 // key
	_         int32  // rwFlags
	opcode    uint16
	_         int16 // priority
	fd        uint32
	buffer    uint64
	length    uint64
	offset    int64
	_         uint64
	flags     uint32
	completed uint32 // the eventfd
}

type completion struct {
	data, block     uint64
	result, result2 int64
}

const (
	opWrite     = 1 // IOCB_CMD_PWRITE
	withEventFD = 1 // IOCB_FLAG_RESFD
)

// newRing returns nil where there are no asynchronous writes.
func newRing(max int) *ring {
	memory, err := unix.Mmap(-1, 0, max, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	r := &ring{memory: memory}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		r.done, r.doneFD = os.NewFile(uintptr(fd), "eventfd"), fd
		if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&r.context)), 0); errno == 0 {
			return r
		}
	}
	_ = r.close()
	return nil
}

func (r *ring) write(fd int, b []byte, at int64) error {
	length := (len(b) + BlockSize - 1) / BlockSize * BlockSize
	if length > len(r.memory) {
		return fmt.Errorf("writing %d bytes at once: %d are the most", len(b), len(r.memory))
	}
	clear(r.memory[copy(r.memory, b):length])
	block := &controlBlock{
		opcode: opWrite, fd: uint32(fd), buffer: uint64(uintptr(unsafe.Pointer(&r.memory[0]))),
		length: uint64(length), offset: at, flags: withEventFD, completed: uint32(r.doneFD),
	}
	// The runtime is not told of either call: neither waits for the disk.
	if _, _, errno := unix.RawSyscall(unix.SYS_IO_SUBMIT, r.context, 1, uintptr(unsafe.Pointer(&block))); errno != 0 {
		return os.NewSyscallError("io_submit", errno)
	}
	var count [8]byte
	_, err := r.done.Read(count[:])
	if err != nil {
		return fmt.Errorf("waiting for the disk: %w", err)
	}
	var c completion
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, r.context, 1, 1, uintptr(unsafe.Pointer(&c)), 0, 0)
	runtime.KeepAlive(block)
	switch {
	case errno != 0:
		return os.NewSyscallError("io_getevents", errno)
	case n != 1:
		return errors.New("the kernel counted a write that it does not have")
	case c.result < 0:
		return os.NewSyscallError("write", unix.Errno(-c.result))
	case c.result != int64(length):
		return io.ErrShortWrite
	}
	return nil
}

// close waits for what is on its way (io_destroy(2)).
func (r *ring) close() error {
	var err error
	if r.context != 0 {
		if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, r.context, 0, 0); errno != 0 {
			err = os.NewSyscallError("io_destroy", errno)
		}
	}
	if r.done != nil {
		err = errors.Join(err, r.done.Close())
	}
	return errors.Join(err, unix.Munmap(r.memory))
}
