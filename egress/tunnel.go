package egress

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ambit"
)

// idleTimer calls a function when nothing moved for a while. It may be started
// again after stop.
type idleTimer struct {
	mu    sync.Mutex
	timer *time.Timer
	after time.Duration
	fire  func() // nil when stopped; called with mu held, so that it never runs after stop
}

func (t *idleTimer) start(after time.Duration, fire func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.after, t.fire = after, fire
	if t.timer == nil {
		t.timer = time.AfterFunc(after, t.run)
	} else {
		t.timer.Reset(after)
	}
}

func (t *idleTimer) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fire != nil {
		t.fire()
	}
}

func (t *idleTimer) moved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fire != nil {
		t.timer.Reset(t.after)
	}
}

func (t *idleTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fire = nil
	t.timer.Stop()
}

// patience is how long a body may be silent.
func (p *Proxy) patience(h http.Header) time.Duration {
	if isGRPC(h) || strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		return p.limits.TunnelTime
	}
	return p.limits.StreamTime
}

// tunnel copies both ways until both ends are done, or one breaks off, or
// nothing moved for TunnelTime. from is the agent's side of l.conn. After a refusal
// (a *ambit.DenyError, by up) only up is closed, so that the agent can be told.
func (l *link) tunnel(from io.Reader, up io.ReadWriteCloser) (out, in int64, err error) {
	_ = l.conn.SetDeadline(time.Time{})
	cut := func() { up.Close(); l.conn.Close() }
	var idle idleTimer
	idle.start(l.p.limits.TunnelTime, cut)
	defer idle.stop()
	var upErr error
	var refused atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, upErr = l.pump(up, from, &idle)
		var d *ambit.DenyError
		switch {
		case errors.As(upErr, &d):
			refused.Store(true)
			l.writeBy(l.p.limits.HeadTime)
			up.Close()
		case !halfClose(up, upErr):
			cut()
		}
	}()
	in, err = l.pump(l.conn, up, &idle)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // the agent left without waiting for the host's goodbye
	}
	if !refused.Load() && !halfClose(l.conn, err) {
		cut()
	}
	<-done
	if refused.Load() {
		return out, in, upErr
	}
	if errors.Is(err, net.ErrClosed) || err == nil {
		err = upErr // the one that came first
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return out, in, err
}

// halfClose tells w that nothing more comes, if it can hear that.
func halfClose(w any, err error) bool {
	c, ok := w.(interface{ CloseWrite() error })
	return err == nil && ok && c.CloseWrite() == nil
}

func (l *link) pump(to io.Writer, from io.Reader, idle *idleTimer) (n int64, err error) {
	buffer := l.p.buffers.get()
	defer l.p.buffers.put(buffer)
	for {
		m, err := from.Read(*buffer)
		if m > 0 {
			idle.moved()
			n += int64(m)
			if _, err := to.Write((*buffer)[:m]); err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
