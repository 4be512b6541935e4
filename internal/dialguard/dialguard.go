// Package dialguard decides which addresses may be dialled, from the address
// alone. A name that is allowed says nothing about the address it resolves to;
// this is the second check, made on the answers ([Vet]) and once more by the
// dialler on the very address it connects to ([Control]).
//
// Allowed are public unicast addresses. Private and loopback ones are allowed
// for a rule that says private: true. Never allowed, whatever a rule says, are
// the metadata services of clouds, link-local, unspecified, multicast and
// reserved addresses, and every form that carries an IPv4 address through a
// translator or tunnel (NAT64, 6to4, Teredo, ...), because where that ends is
// decided by somebody else. A host whose only way out is NAT64 is therefore not
// supported.
//
// The classes follow the IANA special-purpose address registries
// (https://www.iana.org/assignments/iana-ipv4-special-registry and
// .../iana-ipv6-special-registry), and refuse more than they must: everything
// in the registries, and all of IPv6 outside 2000::/3.
//
// Trust: addresses come from DNS answers and from the agent, both hostile. The
// operator's private: true is trusted to mean what it says. A private network
// that uses public addresses, or a NAT64 prefix of its own, is not known here.
package dialguard

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"ambit"
)

// Class is what kind of destination an address is. The zero Class is Invalid,
// which is never dialled.
type Class uint8

// The classes. Only Public is open to every rule.
const (
	Invalid      Class = iota // no address, or one with a zone
	Public                    // global unicast
	Private                   // RFC 1918, and RFC 4193 (ULA)
	Loopback                  // 127.0.0.0/8, ::1
	CarrierGrade              // 100.64.0.0/10 (RFC 6598)
	LinkLocal                 // 169.254.0.0/16, fe80::/10
	Metadata                  // a cloud's metadata or control service, in whatever range and encoding
	Unspecified               // 0.0.0.0/8, ::
	Multicast                 // 224.0.0.0/4, ff00::/8, and broadcast
	Reserved                  // documentation, benchmarks, protocol assignments, not yet given out
	Translated                // an IPv4 address inside an IPv6 one
)

var classNames = [...]string{
	"invalid", "public", "private", "loopback", "carrier-grade", "link-local",
	"metadata", "unspecified", "multicast", "reserved", "translated",
}

// String returns the class in lower case.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return classNames[Invalid]
}

// Error says which address was refused and why. It is inert: an address has no
// character that a terminal would act on, and a zone is not shown.
type Error struct {
	Addr  netip.Addr
	Class Class
}

// Error implements error.
func (e *Error) Error() string { return e.Reason().Text }

// Reason is the refusal as agents and people see it. Its code is
// "metadata-address" for Metadata and "private-address" for all others.
func (e *Error) Reason() ambit.Reason {
	r := ambit.Reason{
		Code: "private-address",
		Text: fmt.Sprintf("the address %s may not be dialled: it is %s", e.Addr.WithZone(""), e.Class),
	}
	switch e.Class {
	case Private, Loopback, CarrierGrade:
		r.Remedy = "if this host is meant to be inside your own network, add private: true to its rule under egress.allow and deploy again"
	case Metadata:
		r.Code = "metadata-address"
		r.Text = fmt.Sprintf("the address %s may not be dialled: it is a cloud's metadata service", e.Addr.WithZone(""))
	case Invalid:
		r.Text = "the address may not be dialled: it is not one, or has an IPv6 zone"
	}
	return r
}

// ErrNoAddress is returned by Vet when there is nothing to dial.
var ErrNoAddress = errors.New("the name has no address")

// Check returns nil if addr may be dialled and an [*Error] if not. allowPrivate
// opens Private, Loopback and CarrierGrade, and nothing else.
func Check(addr netip.Addr, allowPrivate bool) error {
	switch c := Classify(addr); c {
	case Public:
		return nil
	case Private, Loopback, CarrierGrade:
		if allowPrivate {
			return nil
		}
		return &Error{Addr: addr, Class: c}
	default:
		return &Error{Addr: addr, Class: c}
	}
}

// Vet checks all the answers for a name. If one is refused all are, because a
// name that answers with a public and a private address is an attack or a
// mistake and never a choice to make. It returns the addresses in their order,
// IPv4-mapped ones as IPv4.
func Vet(addrs []netip.Addr, allowPrivate bool) ([]netip.Addr, error) {
	if len(addrs) == 0 {
		return nil, ErrNoAddress
	}
	vetted := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		if err := Check(a, allowPrivate); err != nil {
			return nil, err
		}
		vetted[i] = a.Unmap()
	}
	return vetted, nil
}

// Control is for the Control field of a [net.Dialer]: it runs after the socket
// was made and before it connects, on the address that is really dialled, so
// that nothing between the check and the connection can change it. It refuses
// every network but TCP.
func Control(allowPrivate bool) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, _ syscall.RawConn) error {
		if network != "tcp4" && network != "tcp6" {
			return fmt.Errorf("dialling over %q is refused: only TCP is allowed", network)
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return &Error{Class: Invalid}
		}
		return Check(ap.Addr(), allowPrivate)
	}
}
