package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"ambit"
	"ambit/internal/clienthello"
	"ambit/internal/hostname"
	"ambit/policy"
)

// link is one connection of the agent's.
type link struct {
	p      *side              // the agent's
	ctx    context.Context    // ends with the connection
	cancel context.CancelFunc // cuts it and what is under way for it
	conn   net.Conn           // what is spoken on now: the raw connection, or the TLS in it
	br     *bufio.Reader      // of conn
	to     origin
	proxy  bool // HTTP/1 requests name their host in the request line

	// Of the HTTP/1 loop, reused from request to request.
	scratch []byte
	out     []byte
	refused bool // the last answer was a refusal that ends the connection
	abort   watcher
	idle    idleTimer
}

func (p *Proxy) newLink(ctx context.Context, c net.Conn, to origin) *link {
	l := &link{p: &p.agent, conn: c, br: bufio.NewReader(c), to: to}
	l.ctx, l.cancel = context.WithCancel(ctx)
	context.AfterFunc(l.ctx, func() { c.Close() })
	return l
}

// ServeTCP serves a connection that a program opened to what it believes is
// host, which is the name it asked DNS for or an IP address; intent is what was
// stated for the program, or "". It returns when the connection has ended, and
// closes it.
func (p *Proxy) ServeTCP(ctx context.Context, c net.Conn, host string, port uint16, intent string) {
	ctx, leave, ok := p.enter(ctx, c)
	if !ok {
		return
	}
	defer leave()
	l := p.newLink(ctx, c, origin{scheme: "tls", host: host, port: port, intent: cleanIntent(intent)})
	defer l.cancel()
	name, err := hostname.Canonical(host)
	if err == nil && port == 0 {
		err = errors.New("the port is 0")
	}
	if err != nil {
		l.to.host = short(host)
		l.refuse(badRequest(err.Error()))
		return
	}
	l.to.name(name, port)
	l.sniff()
}

// ServeProxy serves a connection of a program that knows that it talks to a
// proxy: CONNECT, and plain HTTP requests in absolute form. It returns when the
// connection has ended, and closes it.
func (p *Proxy) ServeProxy(ctx context.Context, c net.Conn) {
	ctx, leave, ok := p.enter(ctx, c)
	if !ok {
		return
	}
	defer leave()
	l := p.newLink(ctx, c, origin{scheme: "http"})
	defer l.cancel()
	l.proxy = true
	l.serveHTTP1()
}

// refuse logs that the connection never became a request. What can be answered
// to it depends on what was spoken.
func (l *link) refuse(reason ambit.Reason) *refusal {
	return l.p.deny(l.ctx, l.to.request(ambit.ActionConnect), statusOf(reason.Code), reason)
}

// readBy and writeBy set the time by which the other side must have moved.
func (l *link) readBy(d time.Duration)  { _ = l.conn.SetReadDeadline(time.Now().Add(d)) }
func (l *link) writeBy(d time.Duration) { _ = l.conn.SetWriteDeadline(time.Now().Add(d)) }

// preface is how HTTP/2 begins without TLS (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// sniff finds out what is spoken: TLS, HTTP/2 or HTTP/1.
func (l *link) sniff() {
	l.readBy(l.p.limits.IdleTime)
	first, err := l.br.Peek(1)
	if err != nil {
		return
	}
	l.readBy(l.p.limits.HeadTime)
	if first[0] == 22 { // a TLS handshake record; no HTTP method starts so
		l.serveTLS()
		return
	}
	l.to.scheme = "http"
	if first[0] == preface[0] {
		if three, err := l.br.Peek(3); err == nil && string(three) == preface[:3] {
			if all, err := l.br.Peek(len(preface)); err == nil && string(all) == preface {
				l.serveHTTP2(l.replay(nil))
				return
			}
		}
	}
	l.serveHTTP1()
}

// wire is the raw connection with what was read from it put back in front.
type wire struct {
	net.Conn
	head []byte
	host string // for the certificate
}

func (w *wire) Read(b []byte) (int, error) {
	if len(w.head) > 0 {
		n := copy(b, w.head)
		if w.head = w.head[n:]; len(w.head) == 0 {
			w.head = nil
		}
		return n, nil
	}
	return w.Conn.Read(b)
}

// replay puts read, and what is buffered behind it, back.
func (l *link) replay(read []byte) *wire {
	rest, _ := l.br.Peek(l.br.Buffered()) // cannot fail: it is there
	return &wire{Conn: l.conn, head: append(bytes.Clone(read), rest...), host: l.to.host}
}

// The alerts of RFC 8446 section 6.2 that are sent before there is any TLS.
const (
	alertDecodeError      = 50
	alertAccessDenied     = 49
	alertInternalError    = 80
	alertUnrecognizedName = 112
)

// refuseTLS logs the refusal and answers with a fatal alert.
func (l *link) refuseTLS(alert byte, reason ambit.Reason) {
	l.refuse(reason)
	l.writeBy(l.p.limits.HeadTime)
	_, _ = l.conn.Write(fatal(alert)) // best effort: it is closed either way
}

// fatal is the record of a fatal alert.
func fatal(alert byte) []byte { return []byte{21, 3, 3, 0, 2, 2, alert} }

// serveTLS judges the hello's name and opens the connection or passes it
// through (N1, N2).
func (l *link) serveTLS() {
	hello, raw, err := clienthello.Read(l.br)
	switch {
	case errors.Is(err, clienthello.ErrMalformed), errors.Is(err, clienthello.ErrTooLarge):
		l.refuseTLS(alertDecodeError, badRequest(err.Error()))
		return
	case err != nil:
		return
	}
	if reason, ok := l.checkSNI(hello.ServerName); !ok {
		l.refuseTLS(alertUnrecognizedName, reason)
		return
	}
	ep, v := l.p.upstream().ends.Endpoint(l.to.host, l.to.port)
	if v.Decision == ambit.Allow && ep.TLS == policy.Passthrough {
		l.passthrough(hello, l.replay(raw))
		return
	}
	// An encrypted hello inside is never opened by our side of the handshake
	// and thereby rejected (RFC 9849 section 7.1); the name outside counts.
	l.to.scheme = "https"
	l.writeBy(l.p.limits.HeadTime)
	c := tls.Server(l.replay(raw), l.p.tls)
	if err := c.HandshakeContext(l.ctx); err != nil {
		var alert *net.OpError
		if errors.As(err, &alert) && alert.Op == "remote error" {
			l.refuse(ambit.Reason{
				Code: "tls-handshake", Text: "the program broke off the TLS handshake with the gate: " + alert.Err.Error(),
				Remedy: "if it brings its own list of authorities, let it use the system's; if it pins the host's certificate, write tls: passthrough in the rule",
			})
		}
		l.p.log.Debug("a TLS handshake with the agent failed", slog.Any("error", err))
		return
	}
	state := c.ConnectionState()
	if reason, ok := l.checkSNI(state.ServerName); !ok { // two parsers, one name
		l.refuse(reason)
		return
	}
	l.conn = c
	if state.NegotiatedProtocol == "h2" {
		l.serveHTTP2(c)
		return
	}
	l.br.Reset(c)
	l.serveHTTP1()
}

func (l *link) checkSNI(sni string) (ambit.Reason, bool) {
	if sni == "" {
		if hostname.IsIP(l.to.host) {
			return ambit.Reason{}, true
		}
		return ambit.Reason{
			Code: "name-mismatch", Text: "the TLS connection is for " + l.to.host + " but names no host (no SNI)",
			Remedy: "this is for the program that sent it to mend; a connection without a name is never let out",
		}, false
	}
	if name, err := hostname.Canonical(sni); err != nil || name != l.to.host {
		return mismatch("SNI", sni, l.to.host), false
	}
	return ambit.Reason{}, true
}

// connect answers a CONNECT and goes on with what is spoken inside (N3, N6).
func (l *link) connect(target, host string) {
	name, port, err := hostname.SplitHostPort(target, 0)
	if err != nil {
		l.answerRefusal(l.refuse(badRequest(err.Error())), false, false, false)
		return
	}
	l.to.scheme = "tls"
	l.to.name(name, port)
	if h, p, err := hostname.SplitHostPort(host, port); err != nil || h != name || p != port {
		l.answerRefusal(l.refuse(mismatch("Host", host, l.to.authority())), false, false, false)
		return
	}
	if l.br.Buffered() > 0 {
		l.answerRefusal(l.refuse(badRequest("bytes follow the CONNECT before it was answered")), false, false, false)
		return
	}
	if v := l.p.opens(name, port); v.Decision != ambit.Allow {
		if v.Reason.Code == "" {
			v.Reason = ambit.Reason{Code: "host-not-allowed", Text: "no rule allows " + l.to.authority()}
		}
		_, err := l.p.check(l.ctx, l.to.request(ambit.ActionConnect), &v)
		l.answerRefusal(refused(err), false, false, false)
		return
	}
	l.writeBy(l.p.limits.HeadTime)
	if _, err := io.WriteString(l.conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	l.proxy = false
	l.sniff()
}

// absolute takes the host out of a request target in absolute form.
func (l *link) absolute(target string) (rest string, err error) {
	after, ok := strings.CutPrefix(target, "http://")
	if !ok {
		return "", errors.New("a proxy is asked with http://host/path or CONNECT host:port, not with " + short(target))
	}
	end := strings.IndexAny(after, "/?")
	if end < 0 {
		end = len(after)
	}
	host, port, err := hostname.SplitHostPort(after[:end], 80)
	if err != nil {
		return "", err
	}
	if host != l.to.host || port != l.to.port {
		l.to.name(host, port)
	}
	rest = after[end:]
	if rest == "" || rest[0] == '?' {
		rest = "/" + rest
	}
	return rest, nil
}
