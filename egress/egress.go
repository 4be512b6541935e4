// Package egress is the forward proxy of one agent: the only door through
// which its programs reach a network. It opens TLS with the agent's own
// certificate authority, reads HTTP/1.1 and HTTP/2, asks the gate about every
// single request, and sends on what is granted; gRPC, WebSocket and
// server-sent events are streamed both ways. A host with "tls: passthrough" is
// judged on the name in its ClientHello alone.
//
// One name holds for a whole connection: what the program asked DNS or CONNECT
// for, the SNI, and the Host or :authority of each request must be the same,
// and the address dialled is one that was resolved for that name and vetted.
//
// The way of a request: conn (sniffing, TLS) to http1 or http2 (framing) to
// judge (names, path, headers, address, gate) to upstream (dialling) and back.
//
// Trust: everything that comes from the agent's side is hostile, and so is
// what an upstream answers. The gate decides; the policy view says how a host
// is reached; the resolver is believed only as far as the address guard lets
// it. Whoever holds the CA's key can impersonate any host to this one agent's
// programs, and to nobody else.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/gate"
	"ambit/policy"
	"ambit/scan"
	"ambit/vault"
)

// Endpoints says how a host is reached, and whether any rule names it at all.
// *policy.Set is one. Its dynamic type must be comparable, and a changed
// policy must be a different value: that is how the proxy notices.
type Endpoints interface {
	// Endpoint is asked with a canonical host (see internal/hostname). A
	// verdict other than Allow means that no rule names host and port.
	Endpoint(host string, port uint16) (policy.Endpoint, ambit.Verdict)
}

// Resolver looks names up. *net.Resolver is one. The host is a canonical name
// with a trailing dot, so that no search list is applied to it.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config is what a Proxy needs.
type Config struct {
	// Gate decides. Required.
	Gate *gate.Gate
	// Errands judges what Ambit itself asks on behalf of a tool call: see
	// [Proxy.Do]. Default: nothing is asked so.
	Errands Judge
	// Vault has the agent's credentials. Default: there are none.
	Vault *vault.Vault
	// Endpoints returns the policy in force. It is called for each request and
	// must be cheap. Required; a nil answer means no endpoint at all.
	Endpoints func() Endpoints
	// Subjects returns what finds whom a call is about, for the log; called for
	// each request. Default: nothing is looked for.
	Subjects func() *scan.Matcher
	// Internal answers requests to http://ambit.internal: whoever comes over a
	// connection of the agent's, so that its programs need no token. It gets what
	// was read as strictly as everything else, with the path in canonical form and
	// the stated intent in the field Ambit-Intent; the door logs refusals only. It
	// returns when the request's context ends, which it does when the program hangs
	// up. Default: there is no such host.
	Internal http.Handler
	// CA signs the certificates the agent's programs see. Required.
	CA *CA
	// Resolver finds addresses. Default: net.DefaultResolver.
	Resolver Resolver
	// Roots verify upstream servers. Default: the system's.
	Roots *x509.CertPool
	// Never is dialled for no rule, whatever it says: our own listeners.
	Never []netip.AddrPort
	// Limits bounds what one agent can take. Zero fields take the defaults.
	Limits Limits
	// Log gets what operators of Ambit itself may want to know; never what
	// the agent sent. Default: nowhere.
	Log *slog.Logger
}

// Judge is who decides requests, and the policy that says how their hosts are
// reached: the two are one policy, in two rooms.
type Judge struct {
	Gate      *gate.Gate
	Endpoints func() Endpoints // as Config.Endpoints
}

// Limits bounds what one agent can take. Zero fields take the defaults.
type Limits struct {
	Conns        int           // connections at a time; default 512
	Requests     int           // requests in flight over all connections; default 1024
	Errands      int           // requests of Ambit's own for it at a time, beside those; default 64
	Internal     int           // requests to ambit.internal at a time, beside those; default 64
	InternalBody int64         // bytes of the body of one; default 4 MiB
	Streams      uint32        // HTTP/2 streams at a time per connection; default 100
	HeadBytes    int           // of a request head; default 64 KiB
	HeadTime     time.Duration // from a head's first byte, or a handshake's, to its end; default 20 s
	IdleTime     time.Duration // between requests of one connection; default 3 min
	StreamTime   time.Duration // between two bytes of a body, or until a blocked reader reads on; default 10 min
	AnswerTime   time.Duration // until the upstream's response head; default 10 min
	TunnelTime   time.Duration // the same of WebSocket, passthrough, gRPC and server-sent events; default 1 h
	DialTime     time.Duration // for each of: resolving, connecting, the upstream's handshake; default 10 s
	AnswerHead   int64         // bytes of an upstream's response head; default 256 KiB
	Names        int           // resolved names kept; default 1024
	Certificates int           // leaf certificates kept; default 1024
	Unpacked     int64         // of a compressed body, as far as it is looked through for subjects: bytes of what it becomes; default 64 MiB
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Conns, 512)
	setDefault(&l.Requests, 1024)
	setDefault(&l.Errands, 64)
	setDefault(&l.Internal, 64)
	setDefault(&l.InternalBody, 4<<20)
	setDefault(&l.Streams, 100)
	setDefault(&l.HeadBytes, 64<<10)
	setDefault(&l.HeadTime, 20*time.Second)
	setDefault(&l.IdleTime, 3*time.Minute)
	setDefault(&l.StreamTime, 10*time.Minute)
	setDefault(&l.AnswerTime, 10*time.Minute)
	setDefault(&l.TunnelTime, time.Hour)
	setDefault(&l.DialTime, 10*time.Second)
	setDefault(&l.AnswerHead, 256<<10)
	setDefault(&l.Names, 1024)
	setDefault(&l.Certificates, 1024)
	setDefault(&l.Unpacked, 64<<20)
	return l
}

func setDefault[T int | int64 | uint32 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Proxy is the egress door of one agent. It is safe for concurrent use.
type Proxy struct {
	agent    side         // for the agent's programs
	own      side         // for errands; without a gate if there are none
	internal http.Handler // nil: there is none
	insiders atomic.Int64 // requests to it in flight
	vault    *vault.Vault // nil: no credentials
	subjects func() *scan.Matcher
	leaves   *leaves
	resolver Resolver
	roots    *x509.CertPool
	never    map[netip.AddrPort]bool
	limits   Limits
	log      *slog.Logger
	tls      *tls.Config // of the agent's side
	buffers  buffers

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // held for a few instructions
	closed bool
	conns  map[net.Conn]struct{}
	wg     sync.WaitGroup // connections and HTTP/2 handlers; Add only under mu and while not closed
}

// New returns a proxy that serves whatever is handed to ServeTCP and
// ServeProxy. It starts nothing.
func New(c Config) (*Proxy, error) {
	if c.Gate == nil || c.Endpoints == nil || c.CA == nil {
		return nil, errors.New("the egress proxy needs a gate, endpoints and a certificate authority")
	}
	if (c.Errands.Gate == nil) != (c.Errands.Endpoints == nil) {
		return nil, errors.New("the egress proxy needs both a gate and endpoints for errands, or neither")
	}
	if c.Roots == nil {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("loading the system's certificate authorities, needed to verify upstream servers: %w", err)
		}
		c.Roots = roots
	}
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	if c.Subjects == nil {
		c.Subjects = func() *scan.Matcher { return nil }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{
		vault: c.Vault, internal: c.Internal, subjects: c.Subjects, resolver: c.Resolver, roots: c.Roots,
		limits: c.Limits.withDefaults(), log: c.Log,
		never: make(map[netip.AddrPort]bool, len(c.Never)),
		conns: make(map[net.Conn]struct{}),
	}
	p.agent = side{Proxy: p, gate: c.Gate, endpoints: c.Endpoints, most: int64(p.limits.Requests)}
	p.own = side{Proxy: p, gate: c.Errands.Gate, endpoints: c.Errands.Endpoints, most: int64(p.limits.Errands)}
	for _, a := range c.Never {
		p.never[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())] = true
	}
	var err error
	if p.leaves, err = newLeaves(c.CA, p.limits.Certificates); err != nil {
		return nil, err
	}
	p.tls = &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"h2", "http/1.1", "http/1.0"},
		GetCertificate:              p.leaves.forHello,
		DynamicRecordSizingDisabled: true,
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Close cuts every connection and waits until all that served them has ended.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	conns := make([]net.Conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	p.cancel()
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
	p.agent.close()
	p.own.close()
	return nil
}

// enter counts a connection in. The context ends with ctx, with leave or with
// Close; leave closes the connection.
func (p *Proxy) enter(ctx context.Context, c net.Conn) (_ context.Context, leave context.CancelFunc, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= p.limits.Conns {
		if !p.closed {
			p.log.Warn("refused a connection of the agent: too many at a time", slog.Int("limit", p.limits.Conns))
		}
		c.Close()
		return nil, nil, false
	}
	p.conns[c] = struct{}{}
	p.wg.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		p.wg.Done()
	}, true
}

// begin counts something in that may outlive its connection by a moment.
func (p *Proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Add(1)
	return true
}

// buffers lends out pieces of memory for bodies on their way.
type buffers struct{ pool sync.Pool }

// bodyBuffer is large enough for two TLS records.
const bodyBuffer = 32 << 10

func (b *buffers) get() *[]byte {
	if v, ok := b.pool.Get().(*[]byte); ok {
		return v
	}
	v := make([]byte, bodyBuffer)
	return &v
}

func (b *buffers) put(v *[]byte) { b.pool.Put(v) }
