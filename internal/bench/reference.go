//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// referenceRole is the least that Go's own packages make of a proxy with TLS on
// both sides: CONNECT, one http.Server, one httputil.ReverseProxy that keeps
// its connections. It judges nothing and writes nothing down.
func referenceRole(s setup) (announcement, io.Closer, error) {
	cert, ca, err := selfSigned(shop)
	if err != nil {
		return announcement{}, nil, err
	}
	roots, err := poolOf(s.CA)
	if err != nil {
		return announcement{}, nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Upstream)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxIdleConns:    1024, MaxIdleConnsPerHost: 1024, DisableCompression: true,
	}
	_, port, err := net.SplitHostPort(s.Upstream)
	if err != nil {
		return announcement{}, nil, err
	}
	target := &url.URL{Scheme: "https", Host: net.JoinHostPort(shop, port)}
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{
		Handler: &httputil.ReverseProxy{
			Transport: transport, BufferPool: &buffers{}, ErrorLog: quiet,
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12},
		ErrorLog:  quiet, ReadHeaderTimeout: time.Minute,
	}
	l, err := listenUnix(s.Socket)
	if err != nil {
		return announcement{}, nil, err
	}
	go func() { _ = server.ServeTLS(tunnels(l), "", "") }() // ends with Close
	return announcement{CA: ca}, server, nil
}

// tunnelListener accepts what is inside CONNECT.
type tunnelListener struct {
	net.Listener
	inner chan net.Conn
}

func tunnels(l net.Listener) net.Listener {
	t := &tunnelListener{l, make(chan net.Conn)}
	go func() { // ends when l is closed
		defer close(t.inner)
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { t.connect(c) })
		}
	}()
	return t
}

// connect answers CONNECT. The client sends nothing more until it is answered.
func (t *tunnelListener) connect(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil && r.Method == http.MethodConnect {
		if _, err = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
			t.inner <- c
			return
		}
	}
	_ = c.Close()
}

// Accept implements net.Listener.
func (t *tunnelListener) Accept() (net.Conn, error) {
	c, ok := <-t.inner
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// buffers is a httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
