//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// door is a proxy behind a Unix socket: an agent's gate, or the reference.
type door struct {
	socket    string
	preface   string // what a connection starts with
	authority string // of the upstream, host:port
	roots     *x509.CertPool
	pid       int    // of the process behind it
	bearer    string // what requests carry

	target string // of requests; the order if it is ""
	length int    // of the answer
}

// asking is the door with requests for something else.
func (d *door) asking(target string, length int) *door {
	other := *d
	other.target, other.length = target, length
	return &other
}

// sample is what a while of load gave.
type sample struct {
	rate   float64 // requests per second
	median float64 // latency, µs
	cpu    float64 // processor time of the proxy for each request, µs
}

// session is one connection through a door.
type session struct {
	conn    *tls.Conn
	r       *bufio.Reader
	request []byte
	length  int // of the answer's body
}

// open connects, asks for a tunnel and does the handshake.
func (d *door) open(ctx context.Context) (*session, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	host, _, _ := strings.Cut(d.authority, ":")
	err = d.tunnel(c)
	t := tls.Client(c, &tls.Config{ServerName: host, RootCAs: d.roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	if err == nil {
		err = t.HandshakeContext(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("connecting through %s: %w", d.socket, err)
	}
	s := &session{conn: t, r: bufio.NewReaderSize(t, 8<<10), request: []byte(d.head(order + "?expand=lines")), length: len(answer)}
	if d.target != "" {
		s.request, s.length = []byte(d.head(d.target)), d.length
	}
	return s, nil
}

// head is a request.
func (d *door) head(target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + d.authority + "\r\nUser-Agent: bench/1\r\nAccept: application/json\r\nAuthorization: Bearer " + cmp.Or(d.bearer, "reference") + "\r\n\r\n"
}

// tunnel asks for a connection to the upstream.
func (d *door) tunnel(c net.Conn) error {
	if _, err := fmt.Fprintf(c, "%sCONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", d.preface, d.authority, d.authority); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		defer func() { _ = res.Body.Close() }()
		why, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return fmt.Errorf("CONNECT was answered %s: %s", res.Status, why)
	}
	return res.Body.Close()
}

// get makes one request, with as little work as possible.
func (c *session) get() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if string(line) != "HTTP/1.1 200 OK\r\n" {
		rest, _ := io.ReadAll(io.LimitReader(c.r, int64(c.r.Buffered())))
		return fmt.Errorf("the answer is %q %q", line, rest)
	}
	for len(line) > 2 {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	_, err = c.r.Discard(c.length)
	return err
}

// keptAlive keeps at connections busy for a while.
func (d *door) keptAlive(ctx context.Context, at int, long time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, long+30*time.Second)
	defer cancel()
	clients := make([]*session, at)
	for i := range clients {
		c, err := d.open(ctx)
		if err != nil {
			return sample{}, err
		}
		defer func() { _ = c.conn.Close() }()
		if err := c.get(); err != nil {
			return sample{}, err
		}
		clients[i] = c
	}
	return d.during(ctx, at, long, func(i int) error { return clients[i].get() })
}

// fresh makes a new connection for each request, at at a time.
func (d *door) fresh(ctx context.Context, at int, long time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, long+30*time.Second)
	defer cancel()
	return d.during(ctx, at, long, func(int) error {
		c, err := d.open(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = c.conn.Close() }()
		return c.get()
	})
}

// during repeats once at at a time for a while.
func (d *door) during(ctx context.Context, at int, long time.Duration, once func(i int) error) (sample, error) {
	latencies := make([][]float64, at)
	errs := make([]error, at)
	var wg sync.WaitGroup
	before, began := cpuTime(d.pid), time.Now()
	for i := range at {
		wg.Go(func() {
			for t := time.Now(); t.Sub(began) < long && ctx.Err() == nil; {
				if errs[i] = once(i); errs[i] != nil {
					return
				}
				now := time.Now()
				latencies[i] = append(latencies[i], float64(now.Sub(t))/float64(time.Microsecond))
				t = now
			}
		})
	}
	wg.Wait()
	took, used := time.Since(began), cpuTime(d.pid)-before
	if err := errors.Join(append(errs, context.Cause(ctx))...); err != nil {
		return sample{}, err
	}
	var all []float64
	for _, l := range latencies {
		all = append(all, l...)
	}
	n := float64(len(all))
	return sample{rate: n / took.Seconds(), median: median(all), cpu: float64(used.Microseconds()) / n}, nil
}
