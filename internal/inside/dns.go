package inside

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// Bounds of the name table: how many names may have an address, and how long
// an answer about a name is kept before the worker is asked again.
const (
	maxNames  = 16384
	answerTTL = 20 * time.Second
)

// names gives every allowed name an address of its own.
type names struct {
	pool   netip.Prefix
	ask    func(context.Context, string) ([]uint16, error)
	listen func(netip.AddrPort, string) error

	asking *singleflight.Group // programs ask for A and AAAA at once

	mu     *sync.Mutex
	byName map[string]*entry
	next   netip.Addr
}

type entry struct {
	addr  netip.Addr // zero while the name was never allowed
	ports map[uint16]bool
	until time.Time // the last answer holds until then
	ok    bool      // the last answer
}

func newNames(pool netip.Prefix, ask func(context.Context, string) ([]uint16, error), listen func(netip.AddrPort, string) error) names {
	return names{pool: pool, ask: ask, listen: listen, asking: new(singleflight.Group), mu: new(sync.Mutex), byName: map[string]*entry{}, next: pool.Addr().Next()}
}

// resolve returns the address of an allowed name; !ok if the name is refused.
func (n *names) resolve(ctx context.Context, name string) (addr netip.Addr, ok bool, err error) {
	if a, known := n.known(name); known {
		return a.addr, a.ok, nil
	}
	answer, err, _ := n.asking.Do(name, func() (any, error) {
		if a, known := n.known(name); known { // since we looked
			return a, nil
		}
		return n.lookUp(ctx, name)
	})
	a, _ := answer.(found)
	return a.addr, a.ok, err
}

// found is the answer about one name.
type found struct {
	addr netip.Addr
	ok   bool
}

func (n *names) known(name string) (found, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.byName[name]
	if e == nil || time.Now().After(e.until) {
		return found{}, false
	}
	if !e.ok {
		return found{}, true
	}
	return found{e.addr, true}, true
}

// lookUp asks the worker, and gives an allowed name its address and listeners.
func (n *names) lookUp(ctx context.Context, name string) (found, error) {
	ports, err := n.ask(ctx, name)
	if err != nil {
		return found{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	e := n.byName[name]
	if e == nil {
		if len(n.byName) >= maxNames {
			n.forget()
		}
		e = &entry{ports: map[uint16]bool{}}
		n.byName[name] = e
	}
	e.until, e.ok = time.Now().Add(answerTTL), len(ports) > 0
	if !e.ok {
		return found{}, nil
	}
	if !e.addr.IsValid() {
		if !n.pool.Contains(n.next) {
			return found{}, fmt.Errorf("no synthetic address is left")
		}
		e.addr, n.next = n.next, n.next.Next()
	}
	for _, p := range ports {
		if e.ports[p] {
			continue
		}
		if err := n.listen(netip.AddrPortFrom(e.addr, p), name); err != nil {
			return found{}, err
		}
		e.ports[p] = true
	}
	return found{e.addr, true}, nil
}

// forget drops names that hold no address, so that refused ones cannot fill
// the table.
func (n *names) forget() {
	for name, e := range n.byName {
		if !e.addr.IsValid() {
			delete(n.byName, name)
		}
	}
}

func (g *gateway) serveDNS(ctx context.Context) error {
	udp, err := net.ListenPacket("udp4", dnsAddr)
	if err != nil {
		return fmt.Errorf("listening for DNS inside: %w", err)
	}
	tcp, err := net.Listen("tcp4", dnsAddr)
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("listening for DNS inside: %w", err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg(g.names.answer(ctx, q))
	})
	// The UDP server wakes at every read time-out, and an idle computer should
	// not; a TCP connection that says nothing is closed by the idle time-out.
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler, ReadTimeout: time.Hour}, {Listener: tcp, Handler: handler}} {
		g.wg.Go(func() { _ = s.ActivateAndServe() })
		context.AfterFunc(ctx, func() { _ = s.Shutdown() })
	}
	return nil
}

// answer answers one DNS message (RFC 1035): an A record for an allowed name,
// nothing else for it, and NXDOMAIN for every other name.
func (n *names) answer(ctx context.Context, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	question := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	addr, ok := netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		var err error
		if strings.ContainsAny(name, " \\\"") || name == "" {
			ok = false
		} else if addr, ok, err = n.resolve(ctx, name); err != nil {
			m.Rcode = dns.RcodeServerFailure
			return m
		}
	}
	if !ok {
		m.Rcode = dns.RcodeNameError
		return m
	}
	if question.Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: uint32(answerTTL.Seconds())},
			A:   addr.AsSlice(),
		}}
	}
	return m
}
