package inside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"ambit/internal/forward"
)

// maxConns bounds the connections that are carried at the same time; past it
// new ones wait in the listeners' backlogs.
const maxConns = 1024

// gateway carries connections over the one socket.
type gateway struct {
	socket string
	slots  chan struct{}
	names  names
	wg     sync.WaitGroup
}

// serve opens the listeners and returns; they end with ctx.
func (g *gateway) serve(ctx context.Context, pool netip.Prefix) error {
	g.slots = make(chan struct{}, maxConns)
	g.names = newNames(pool, g.ask, func(ap netip.AddrPort, name string) error {
		return g.listen(ctx, ap.String(), forward.Header{Kind: forward.TCP, Host: name, Port: ap.Port()})
	})
	if err := g.listen(ctx, ProxyAddr, forward.Header{Kind: forward.Proxy}); err != nil {
		return err
	}
	return g.serveDNS(ctx)
}

func (g *gateway) listen(ctx context.Context, addr string, h forward.Header) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return fmt.Errorf("listening inside: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				time.Sleep(10 * time.Millisecond) // out of descriptors: let some go
				continue
			}
			g.slots <- struct{}{}
			g.wg.Go(func() {
				defer func() { <-g.slots }()
				g.carry(ctx, c.(*net.TCPConn), h)
			})
		}
	})
	return nil
}

// dial opens a connection to the gate and says what it is for. The worker may
// be restarting, so a refusal is tried again for a short while.
func (g *gateway) dial(ctx context.Context, h forward.Header) (*net.UnixConn, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		c, err := d.DialContext(ctx, "unix", g.socket)
		if err == nil {
			if _, err = c.Write(header(h)); err == nil {
				return c.(*net.UnixConn), nil
			}
			_ = c.Close()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the gate does not answer: %w", err)
		case <-time.After(wait):
		}
	}
}

// dialPatiently is dial until it succeeds.
func (g *gateway) dialPatiently(h forward.Header) net.Conn {
	for {
		if c, err := g.dial(context.Background(), h); err == nil {
			return c
		}
	}
}

const gateAway = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\nAmbit-Decision: deny\r\n\r\n" +
	`{"type":"urn:ambit:problem:gate-away","title":"The gate does not answer","status":503,"detail":"Nothing can leave this computer while its gate is away. It is restarted by itself; try again in a moment."}` + "\n"

func (g *gateway) carry(ctx context.Context, c *net.TCPConn, h forward.Header) {
	defer func() { _ = c.Close() }()
	u, err := g.dial(ctx, h)
	if err != nil {
		if h.Kind == forward.Proxy {
			_, _ = io.WriteString(c, gateAway)
		}
		return
	}
	defer func() { _ = u.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = u.Close() })
	defer stop()
	var up sync.WaitGroup
	up.Go(func() {
		copyBuffered(u, c)
		_ = u.CloseWrite()
	})
	copyBuffered(c, u)
	_ = c.CloseWrite()
	// The gate ended its side; what the program still sends has nowhere to go
	// once the gate closes, so wait for either.
	up.Wait()
}

func copyBuffered(dst io.Writer, src io.Reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
			if n == len(buf) && n < 256<<10 {
				buf = make([]byte, 4*n) // a bulk transfer: fewer, larger system calls
			}
		}
		if err != nil {
			return
		}
	}
}

// ask asks the worker about a name.
func (g *gateway) ask(ctx context.Context, name string) ([]uint16, error) {
	c, err := g.dial(ctx, forward.Header{Kind: forward.Name, Host: name})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("reading the gate's answer: %w", err)
	}
	return forward.ParsePorts(line)
}
