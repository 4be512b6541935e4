package egress

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"ambit"
	"ambit/vault"
)

// serveHTTP2 serves the streams of one connection. c is l.conn, or what puts
// the bytes that were sniffed back in front of it.
//
//nolint:staticcheck // http.Server, which is to take its place, takes listeners and no single connection that was read from already
func (l *link) serveHTTP2(c net.Conn) {
	_ = l.conn.SetDeadline(time.Time{})
	limits := &l.p.limits
	server := &http2.Server{
		MaxConcurrentStreams: limits.Streams,
		MaxReadFrameSize:     64 << 10,
		IdleTimeout:          limits.IdleTime,
		ReadIdleTimeout:      limits.IdleTime,
		PingTimeout:          limits.HeadTime,
		WriteByteTimeout:     limits.StreamTime,
		CountError:           l.countError,
	}
	server.ServeConn(c, &http2.ServeConnOpts{
		Context: l.ctx,
		BaseConfig: &http.Server{
			MaxHeaderBytes:    limits.HeadBytes,
			ReadHeaderTimeout: limits.HeadTime,
			ErrorLog:          log.New(io.Discard, "", 0),
		},
		Handler: http.HandlerFunc(l.serveStream),
	})
}

// countError hears of streams that the HTTP/2 server refuses before there is a
// request: the first sign of each kind of a forged name is logged (N1, H1).
func (l *link) countError(kind string) {
	for _, k := range []string{"authority_host_mismatch", "multiple_host_headers", "userinfo_in_authority", "invalid_authority", "bad_connect", "bad_path", "bad_path_method", "too_many_early_resets"} {
		if !strings.HasSuffix(kind, k) {
			continue
		}
		reason := badRequest("a stream was refused: " + strings.ReplaceAll(k, "_", " "))
		if k == "authority_host_mismatch" {
			reason = mismatch("Host field", "something else than :authority", l.to.authority())
		}
		if l.p.begin() {
			go func() { // the server must not wait for the log
				defer l.p.wg.Done()
				l.refuse(reason)
			}()
		}
		return
	}
}

// serveStream is the http.Handler of one HTTP/2 request.
func (l *link) serveStream(w http.ResponseWriter, r *http.Request) {
	if !l.p.begin() {
		panic(http.ErrAbortHandler) // how a handler resets its stream
	}
	defer l.p.wg.Done()
	grpc := isGRPC(r.Header)
	c := call{method: r.Method, target: r.RequestURI, authority: r.Host, hasHost: true, header: r.Header}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	a, f := l.p.admitOne(ctx, cancel, &l.to, &c)
	if f != nil {
		writeRefusal(w, f, grpc)
		return
	}
	defer l.p.ended(a)
	s := stream{l: l, a: a, w: w, r: r, grpc: grpc}
	if !s.run(ctx, cancel) {
		panic(http.ErrAbortHandler)
	}
}

func writeRefusal(w http.ResponseWriter, f *refusal, grpc bool) {
	for name, values := range f.header(grpc) {
		w.Header()[name] = values
	}
	if grpc {
		w.WriteHeader(http.StatusOK)
		return
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(f.body()) // whoever hung up is not told
}

// stream is one granted HTTP/2 request and its answer.
type stream struct {
	l    *link
	a    *admitted
	w    http.ResponseWriter
	r    *http.Request
	grpc bool
	idle idleTimer
	in   int64
}

// run returns false if the stream must be reset, because what was sent is not
// whole.
func (s *stream) run(ctx context.Context, cancel context.CancelFunc) bool {
	start := time.Now()
	var o ambit.Outcome
	body := &countedBody{src: s.r.Body, idle: &s.idle}
	seen := s.l.p.sighting()
	var lease *vault.Lease
	withdrawn := false // a refusal after the grant is in the log
	defer func() {
		if d := lease.Refusal(errWithdrawn); d != nil && !withdrawn { // the agent hung up, or the host had answered
			s.l.p.withdraw(ctx, s.a, d)
			o.Error = errWithdrawn.Error()
		}
		o.BytesOut, o.BytesIn, o.Duration = body.n.Load(), s.in, time.Since(start)
		seen.report(&o)
		s.a.grant.Finish(o)
	}()
	// The transport answers for a host that is silent; this is for the rest.
	s.idle.start(s.l.p.limits.AnswerTime+s.l.p.limits.HeadTime, func() {
		cancel()
		// In the past: resets the stream, so that no Write waits any longer.
		_ = http.NewResponseController(s.w).SetWriteDeadline(time.Unix(1, 0))
	})
	defer s.idle.stop()
	q := outgoing(s.a.grant.Request(), &s.l.to)
	q.Header = s.r.Header
	if s.r.ContentLength != 0 {
		q.Body, q.ContentLength = seen.request(body, s.r.Header), s.r.ContentLength
	}
	var f *refusal
	if lease, f = s.l.p.lend(ctx, cancel, s.a, q); f != nil {
		o.Error = errWithdrawn.Error()
		writeRefusal(s.w, f, s.grpc)
		return true
	}
	defer lease.Done()
	_, transport, done := s.a.up.route(lease)
	defer done()
	if s.l.to.scheme == "http" && lease.Identity() == nil {
		transport = s.a.up.h2c
	}
	resp, err := transport.RoundTrip(q.WithContext(ctx))
	if err != nil {
		o.Error = oneLine(err)
		if ctx.Err() != nil { // cut, by whichever side
			return false
		}
		withdrawn = s.fail(ctx, err, lease)
		return true
	}
	defer resp.Body.Close()
	o.Status = resp.StatusCode
	if err := lease.Answer(resp); err != nil {
		o.Error = oneLine(err)
		withdrawn = s.fail(ctx, err, lease)
		return true
	}
	resp.Body = seen.response(resp.Body, resp.Header)
	s.idle.start(s.l.p.patience(resp.Header), s.idle.fire)
	if err := s.answer(resp); err != nil {
		o.Error = oneLine(err)
		return false
	}
	return true
}

// fail answers for a granted request that came to nothing. It returns true if that
// was a refusal, which is in the log then.
func (s *stream) fail(ctx context.Context, err error, lease *vault.Lease) (withdrawn bool) {
	f := failed(err, s.a.grant.Event())
	d := lease.Refusal(err)
	if d != nil {
		f = s.l.p.withdraw(ctx, s.a, d)
	}
	writeRefusal(s.w, f, s.grpc)
	return d != nil
}

// answer passes head, body and trailers on.
func (s *stream) answer(resp *http.Response) error {
	dropNamed(resp.Header)
	h := s.w.Header()
	for name, values := range resp.Header {
		if responseFate(name) == pass {
			h[name] = values
		}
	}
	if v := resp.Header["Content-Length"]; len(v) == 1 {
		h["Content-Length"] = v
	}
	if resp.StatusCode < 200 {
		return errBadAnswer
	}
	s.w.WriteHeader(resp.StatusCode)
	if resp.Body != http.NoBody && s.r.Method != http.MethodHead {
		if err := s.copy(resp); err != nil {
			return err
		}
	}
	for name, values := range resp.Trailer {
		if responseFate(name) == pass {
			h[http.TrailerPrefix+name] = values
		}
	}
	return nil
}

// copy passes a body on, each piece as it comes unless its end is in sight.
func (s *stream) copy(resp *http.Response) error {
	flow := http.NewResponseController(s.w)
	streaming := resp.ContentLength < 0
	if streaming {
		if err := flow.Flush(); err != nil {
			return err
		}
	}
	buffer := s.l.p.buffers.get()
	defer s.l.p.buffers.put(buffer)
	for {
		n, err := resp.Body.Read(*buffer)
		if n > 0 {
			s.idle.moved()
			s.in += int64(n)
			if _, err := s.w.Write((*buffer)[:n]); err != nil {
				return err
			}
			if streaming && err == nil {
				if err := flow.Flush(); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// countedBody is the agent's body on its way up.
type countedBody struct {
	src  io.ReadCloser
	idle *idleTimer
	n    atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.n.Add(int64(n))
	if n > 0 {
		b.idle.moved()
	}
	return n, err
}

func (b *countedBody) Close() error { return b.src.Close() }
