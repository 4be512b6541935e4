package egress

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"ambit"
	"ambit/internal/dialguard"
	"ambit/internal/hostname"
	"ambit/internal/rawconn"
	"ambit/policy"
)

// upstream is everything that hangs on one version of the policy: the answers
// that were vetted under it and the connections that were dialled under it.
// When the policy changes, a new one takes its place, so that no request ever
// uses a connection that another policy opened.
type upstream struct {
	p     *Proxy
	ends  Endpoints
	names *names
	// The protocol spoken upstream is the one the agent speaks: h1 for
	// HTTP/1.1, h2 for HTTP/2 over TLS (where the upstream may still choose
	// HTTP/1.1), h2c for HTTP/2 in the clear.
	h1, h2, h2c *http.Transport
	sessions    tls.ClientSessionCache

	badges badges             // what is sent with client certificates
	ctx    context.Context    // ends with the policy, and with the proxy
	cancel context.CancelFunc // by close
}

func (p *Proxy) newUpstream(ends Endpoints) *upstream {
	u := &upstream{p: p, ends: ends, names: newNames(p.ctx, p.resolver, p.limits), sessions: tls.NewLRUClientSessionCache(256)}
	u.ctx, u.cancel = context.WithCancel(p.ctx)
	u.h1, u.h2 = u.transports(u.dialTLS)
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	u.h2c = u.transport(&clear, u.dialTLS)
	return u
}

// dialer opens TLS.
type dialer func(ctx context.Context, addr string, alpn []string) (net.Conn, error)

// transports are those for TLS.
func (u *upstream) transports(dial dialer) (h1, h2 *http.Transport) {
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetHTTP1(true)
	two.SetHTTP2(true)
	return u.transport(&one, dial, "http/1.1"), u.transport(&two, dial, "h2", "http/1.1")
}

// transport follows no redirect (RoundTrip never does), uses no proxy of the
// environment and changes no body.
func (u *upstream) transport(protocols *http.Protocols, dial dialer, alpn ...string) *http.Transport {
	l := &u.p.limits
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            u.dialPlain,
		DialTLSContext:         func(ctx context.Context, _, addr string) (net.Conn, error) { return dial(ctx, addr, alpn) },
		DisableCompression:     true,
		MaxIdleConns:           l.Conns,
		MaxIdleConnsPerHost:    l.Conns,
		IdleConnTimeout:        90 * time.Second,
		ResponseHeaderTimeout:  l.AnswerTime,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: l.AnswerHead,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: l.StreamTime},
	}
}

// close closes what is idle. What is in use is closed when it ends.
func (u *upstream) close() {
	u.h1.CloseIdleConnections()
	u.h2.CloseIdleConnections()
	u.h2c.CloseIdleConnections()
	u.cancel()
}

func (u *upstream) dialPlain(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := hostname.SplitHostPort(addr, 0)
	if err != nil {
		return nil, err
	}
	ep, v := u.ends.Endpoint(host, port)
	if v.Decision != ambit.Allow {
		return nil, &ambit.DenyError{Verdict: v}
	}
	return u.dial(ctx, host, port, ep)
}

// dialTLS shows no certificate.
func (u *upstream) dialTLS(ctx context.Context, addr string, alpn []string) (net.Conn, error) {
	return u.dialAs(ctx, addr, alpn, nil)
}

// dialAs shows the certificate of a badge, if that is not nil.
func (u *upstream) dialAs(ctx context.Context, addr string, alpn []string, b *badge) (net.Conn, error) {
	host, port, err := hostname.SplitHostPort(addr, 0)
	if err != nil {
		return nil, err
	}
	ep, v := u.ends.Endpoint(host, port)
	if v.Decision != ambit.Allow {
		return nil, &ambit.DenyError{Verdict: v}
	}
	raw, err := u.dial(ctx, host, port, ep)
	if err != nil {
		return nil, err
	}
	config := u.clientTLS(host, ep, alpn)
	if b != nil {
		if raw, err = b.hold(raw); err != nil {
			return nil, err
		}
		config.ClientSessionCache = nil // a session is somebody's who was known by a certificate
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return b.id.Certificate(), nil }
	}
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("the TLS handshake with %s failed: %w", host, err)
	}
	return c, nil
}

func (u *upstream) clientTLS(host string, ep policy.Endpoint, alpn []string) *tls.Config {
	c := &tls.Config{
		ServerName: host, RootCAs: u.p.roots, MinVersion: tls.VersionTLS12, NextProtos: alpn,
		ClientSessionCache: u.sessions, DynamicRecordSizingDisabled: true,
	}
	if ep.Roots != nil {
		// The rule's instead of the system's; a session that was verified by
		// others must not be resumed.
		c.RootCAs, c.ClientSessionCache = ep.Roots, nil
	}
	return c
}

// bounded is ctx for one step of a dial: it ends with DialTime and with Close,
// because the transport detaches a dial from the request that asked for it.
func (u *upstream) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, u.p.limits.DialTime)
	stop := context.AfterFunc(u.p.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// addrs returns the vetted addresses of a canonical host. A refusal is a
// *dialguard.Error.
func (u *upstream) addrs(ctx context.Context, host string, ep policy.Endpoint) ([]netip.Addr, error) {
	if len(ep.Resolve) > 0 {
		return dialguard.Vet(ep.Resolve, ep.Private)
	}
	if hostname.IsIP(host) {
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, err
		}
		return dialguard.Vet([]netip.Addr{a}, ep.Private)
	}
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	return u.names.get(ctx, host, ep.Private)
}

// dial connects to one of the vetted addresses of host. The address guard
// looks once more at the one the socket connects to.
func (u *upstream) dial(ctx context.Context, host string, port uint16, ep policy.Endpoint) (net.Conn, error) {
	addrs, err := u.addrs(ctx, host, ep)
	if err != nil {
		return nil, err
	}
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	d := net.Dialer{KeepAlive: 30 * time.Second, Control: dialguard.Control(ep.Private)}
	var first error
	for i, a := range addrs {
		to := netip.AddrPortFrom(a, port)
		if err = u.p.reserved(to); err == nil {
			// Each of the addresses that are left gets its share of the time.
			deadline, _ := ctx.Deadline()
			d.Timeout = time.Until(deadline) / time.Duration(len(addrs)-i)
			var c net.Conn
			if c, err = d.DialContext(ctx, "tcp", to.String()); err == nil {
				return rawconn.New(c), nil
			}
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("connecting to %s: %w", host, first)
}

// errReserved refuses our own listeners.
type errReserved struct{ to netip.AddrPort }

func (e *errReserved) Error() string {
	return "the address " + e.to.String() + " belongs to Ambit itself"
}

func (p *Proxy) reserved(to netip.AddrPort) error {
	if len(p.never) > 0 && p.never[to] {
		return &errReserved{to}
	}
	return nil
}
