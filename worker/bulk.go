package worker

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// Bounds of bulkConn, in bytes.
const (
	bulkPiece  = 8 << 10   // smaller writes are no part of a long answer
	bulkAfter  = 256 << 10 // sent in larger ones before they are gathered
	bulkBuffer = 256 << 10 // gathered at the most
)

// bulkClose is how long a close waits for what was gathered.
const bulkClose = 5 * time.Second

// bulkConn gathers the writes of a long answer. TLS and HTTP/2 write a record
// of 16 KiB at a time, and in the computer each of them wakes init, the network
// stack and the program; gathered they go in a fraction of the system calls.
// Short answers are written through.
//
// A write error shows with the next write. Close and CloseWrite first send what
// was gathered, for bulkClose at most.
type bulkConn struct {
	net.Conn

	mu       sync.Mutex // held while writing through
	changed  *sync.Cond
	sent     int64  // in writes of at least bulkPiece, one after the other
	pending  []byte // for the sender
	spare    []byte // the sender's last buffer
	sending  bool   // a sender runs
	writeErr error
}

func newBulkConn(c net.Conn) *bulkConn {
	b := &bulkConn{Conn: c}
	b.changed = sync.NewCond(&b.mu)
	return b
}

// Write implements net.Conn.
func (b *bulkConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writeErr != nil {
		return 0, b.writeErr
	}
	if !b.sending {
		if b.sent += int64(len(p)); len(p) < bulkPiece {
			b.sent = 0 // an end, or a short answer
		}
		if b.sent < bulkAfter {
			return b.Conn.Write(p)
		}
	}
	for len(b.pending) > 0 && len(b.pending)+len(p) > bulkBuffer {
		if b.changed.Wait(); b.writeErr != nil {
			return 0, b.writeErr
		}
	}
	b.pending = append(b.pending, p...)
	if !b.sending {
		b.sending = true
		go b.send() // ends when nothing is pending; Close waits for it
	}
	return len(p), nil
}

func (b *bulkConn) send() {
	runtime.Gosched() // the writer may have more
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > 0 && b.writeErr == nil {
		out := b.pending
		b.pending = b.spare[:0]
		b.changed.Broadcast()
		b.mu.Unlock()
		_, err := b.Conn.Write(out)
		b.mu.Lock()
		b.spare, b.writeErr = out, err
	}
	b.sending = false
	b.changed.Broadcast()
}

// flush waits until what was gathered is sent.
func (b *bulkConn) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.sending {
		return
	}
	_ = b.SetWriteDeadline(time.Now().Add(bulkClose))
	for b.sending {
		b.changed.Wait()
	}
}

// Close implements net.Conn.
func (b *bulkConn) Close() error {
	b.flush()
	return b.Conn.Close()
}

// CloseWrite ends the sending side.
func (b *bulkConn) CloseWrite() error {
	b.flush()
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
