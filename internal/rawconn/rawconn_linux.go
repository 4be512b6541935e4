package rawconn

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Conn is a connection with cheap reads and writes. Everything else, deadlines
// included, is the connection's own.
type Conn struct {
	net.Conn
	raw         syscall.RawConn
	read, write direction
}

// direction is one call under way. The functions are made once, since each
// closure would cost an allocation.
type direction struct {
	mu    sync.Mutex
	call  func(fd uintptr) bool
	b     []byte
	n     int
	errno syscall.Errno
}

// New wraps a connection of the net package, and returns any other as it is.
func New(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c // it is closed already, and will say so
	}
	w := &Conn{Conn: c, raw: raw}
	w.read.call = w.read.receive
	w.write.call = w.write.send
	return w
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	d := &c.read
	d.mu.Lock()
	defer d.mu.Unlock()
	d.b, d.n, d.errno = b, 0, 0
	err := c.raw.Read(d.call)
	d.b = nil
	switch {
	case err != nil:
		return 0, err
	case d.errno != 0:
		return 0, c.failed("read", d.errno)
	case d.n == 0:
		return 0, io.EOF
	}
	return d.n, nil
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	d := &c.write
	d.mu.Lock()
	defer d.mu.Unlock()
	d.b, d.n, d.errno = b, 0, 0
	err := c.raw.Write(d.call)
	d.b = nil
	if err == nil && d.errno != 0 {
		err = c.failed("write", d.errno)
	}
	return d.n, err
}

// CloseWrite ends the sending side.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// failed is the error that the net package would return.
func (c *Conn) failed(op string, errno syscall.Errno) error {
	a := c.Conn.LocalAddr()
	return &net.OpError{Op: op, Net: a.Network(), Source: a, Addr: c.Conn.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// receive returns false to be called again when something has come.
func (d *direction) receive(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&d.b[0])), uintptr(len(d.b)))
		switch errno {
		case 0:
			d.n = int(n)
			return true
		case syscall.EAGAIN:
			return false
		case syscall.EINTR:
		default:
			d.errno = errno
			return true
		}
	}
}

// mostAtOnce bounds one write, in bytes: the scheduler waits for it.
const mostAtOnce = 256 << 10

// send returns false to be called again when there is room for the rest.
func (d *direction) send(fd uintptr) bool {
	for d.n < len(d.b) {
		b := d.b[d.n:min(len(d.b), d.n+mostAtOnce)]
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			d.n += int(n)
		case syscall.EAGAIN:
			return false
		case syscall.EINTR:
		default:
			d.errno = errno
			return true
		}
	}
	return true
}
