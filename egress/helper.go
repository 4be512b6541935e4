package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"ambit"
	"ambit/internal/hostname"
	"ambit/policy"
)

// HelperConfig is what a transport for Ambit's own requests needs. The fields
// are those of Config.
type HelperConfig struct {
	Endpoints func() Endpoints // required
	Resolver  Resolver         // default: net.DefaultResolver
	Roots     *x509.CertPool   // default: the system's
	Never     []netip.AddrPort
}

// helperTime bounds the wait for an answer to one of Ambit's own requests.
const helperTime = 30 * time.Second

// HelperTransport returns a transport for requests that Ambit makes for an
// agent, such as those to token endpoints: over HTTPS only, past the same address
// guard as the agent's. A host that the policy knows is reached the way it
// says; any other at its public addresses, with the system's authorities. No
// connection is used again, so that each request is judged by the policy of its
// time. It follows no redirect. The end of ctx ends every dial.
func HelperTransport(ctx context.Context, c HelperConfig) *http.Transport {
	if c.Resolver == nil {
		c.Resolver = net.DefaultResolver
	}
	p := &Proxy{resolver: c.Resolver, roots: c.Roots, limits: Limits{}.withDefaults(), never: make(map[netip.AddrPort]bool, len(c.Never)), ctx: ctx}
	for _, a := range c.Never {
		p.never[netip.AddrPortFrom(a.Addr().Unmap(), a.Port())] = true
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	u := p.newUpstream(helperEndpoints{c.Endpoints})
	t := u.transport(&protocols, u.dialTLS, "h2", "http/1.1")
	t.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("a request of Ambit's own goes over https only")
	}
	t.DisableKeepAlives = true
	t.ResponseHeaderTimeout = helperTime
	return t
}

// helperEndpoints is the policy in force, and behind it every public host.
type helperEndpoints struct{ policy func() Endpoints }

// Endpoint implements Endpoints.
func (h helperEndpoints) Endpoint(host string, port uint16) (policy.Endpoint, ambit.Verdict) {
	if ends := h.policy(); ends != nil {
		if ep, v := ends.Endpoint(host, port); v.Decision == ambit.Allow && ep.TLS == policy.Terminate {
			return ep, v
		}
	}
	if canonical, err := hostname.Canonical(host); err != nil || canonical != host || hostname.IsIP(host) {
		return policy.Endpoint{}, ambit.Verdict{Reason: ambit.Reason{Code: "bad-host", Text: "the host of a token endpoint must be a name"}}
	}
	return policy.Endpoint{TLS: policy.Terminate}, ambit.Verdict{Decision: ambit.Allow}
}
