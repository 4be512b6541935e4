package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"ambit"
	"ambit/control"
	"ambit/internal/forward"
	"ambit/internal/hostname"
	"ambit/internal/inert"
	"ambit/internal/rawconn"
)

// programState is what init last said about the agent's program.
type programState struct {
	running bool
	exit    *control.Exit
}

// headerTimeout bounds the wait for a connection's first line.
const headerTimeout = 10 * time.Second

// serveGate takes the computer's connections until ctx ends, and waits for
// them.
func (w *Worker) serveGate(ctx context.Context, l net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select { // out of descriptors: let some connections end
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
				continue
			}
		}
		select {
		case w.conns <- struct{}{}:
		case <-ctx.Done():
			_ = c.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-w.conns }()
			defer func() { _ = c.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			w.serveConn(ctx, rawconn.New(c))
		})
	}
}

func (w *Worker) serveConn(ctx context.Context, c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(headerTimeout))
	r := bufio.NewReaderSize(c, forward.MaxLine)
	h, err := forward.Read(r)
	if err != nil {
		if errors.Is(err, forward.ErrMalformed) {
			w.rules.Raise(ambit.High, "forged-forward", "something in the computer speaks to the gate's socket in a wrong way: "+inert.Text(err.Error()), 0)
		}
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	conn := newBulkConn(&peekedConn{Conn: c, r: r})
	defer func() { _ = conn.Close() }()
	switch h.Kind {
	case forward.TCP:
		w.proxy.ServeTCP(ctx, conn, h.Host, h.Port, h.Intent)
	case forward.Proxy:
		w.proxy.ServeProxy(ctx, conn)
	case forward.Name:
		w.answerName(ctx, c, h.Host)
	case forward.Output:
		_, _ = io.Copy(w.output.stream(h.Stream), r)
	case forward.Program:
		w.noteProgram(r)
	}
}

// answerName says on which ports a name may be reached. A name that no rule
// knows is refused, logged and alerted; nobody outside is asked about it.
func (w *Worker) answerName(ctx context.Context, c net.Conn, name string) {
	_ = c.SetWriteDeadline(time.Now().Add(headerTimeout))
	host, err := hostname.Canonical(name)
	var ports []uint16
	switch {
	case err != nil || hostname.IsIP(host):
	case host == ambit.InternalHost: // answered here; the door knows that nothing else is under it
		ports = []uint16{80}
	default:
		ports = w.policy.Load().Ports(host)
	}
	if len(ports) == 0 {
		r := &ambit.Request{Action: ambit.ActionName, Host: inert.Text(name)}
		verdict := ambit.Verdict{Reason: ambit.Reason{
			Code: "name-not-allowed", Text: "no rule names " + inert.Text(name) + ", so it is not resolved",
			Remedy: "add a rule for this host under egress.allow and deploy again",
		}}
		if _, err := w.gate.CheckWith(ctx, r, &verdict); err == nil {
			return // cannot be: a door's denial stands
		}
	}
	_, _ = io.WriteString(c, forward.FormatPorts(ports))
}

func (w *Worker) noteProgram(r io.Reader) {
	dec := json.NewDecoder(io.LimitReader(r, 64<<10))
	for {
		var e forward.ProgramEvent
		if dec.Decode(&e) != nil {
			return
		}
		switch e.Event {
		case "started":
			w.program.Store(&programState{running: true})
		case "exited":
			w.program.Store(&programState{exit: &control.Exit{Code: e.Code & 0xff, Text: inert.Text(e.Text), Time: time.Now().UTC()}})
		}
	}
}

// peekedConn is a connection of which r has read ahead.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

// Read reads what was read ahead first.
func (c *peekedConn) Read(p []byte) (int, error) {
	if c.r != nil {
		if c.r.Buffered() > 0 {
			return c.r.Read(p)
		}
		c.r = nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending side.
func (c *peekedConn) CloseWrite() error {
	if u, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return u.CloseWrite()
	}
	return nil
}
