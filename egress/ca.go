package egress

import (
	"container/list"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// CA is one agent's own certificate authority. Only that agent's computer
// trusts it, so that it is worth nothing anywhere else.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	skew     = time.Hour // how far the computer's clock may be behind
	renew    = 24 * time.Hour
)

// NewCA makes a certificate authority (ECDSA P-256) named for the agent, valid
// for ten years.
func NewCA(agent string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the agent's certificate authority: %w", err)
	}
	now := time.Now()
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Ambit gate of " + agent, Organization: []string{"Ambit"}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the agent's certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the agent's certificate authority: %w", err)
	}
	return &CA{cert: cert, key: key}, nil
}

// CertificatePEM is the certificate alone, for the computer's trust store.
func (ca *CA) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Marshal returns certificate and private key in PEM, for LoadCA. Whoever reads
// it can impersonate any host to this agent.
func (ca *CA) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of the agent's certificate authority: %w", err)
	}
	return append(ca.CertificatePEM(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// LoadCA reads what Marshal returned, and refuses what is expired, no
// authority, or whose key does not fit.
func LoadCA(b []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("loading the agent's certificate authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("loading the agent's certificate authority: it is not an ECDSA authority; delete it and it is made anew")
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("loading the agent's certificate authority: it expired on %s; delete it and it is made anew", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &CA{cert: pair.Leaf, key: key}, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n, nil
}

// sign makes a certificate for a canonical host.
func (ca *CA) sign(host string, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	if len(host) <= 64 { // the longest CommonName X.520 allows; some programs show it
		template.Subject.CommonName = host
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate for %s: %w", host, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// leaves keeps the certificates made so far, the least used going first. One
// key serves them all: it never leaves this process, and they are all ours.
type leaves struct {
	ca     *CA
	key    *ecdsa.PrivateKey
	limit  int
	flight singleflight.Group

	mu     sync.Mutex // held for a few instructions
	byHost map[string]*list.Element
	recent *list.List // of *leaf; front is the latest
}

type leaf struct {
	host string
	cert *tls.Certificate
}

func newLeaves(ca *CA, limit int) (*leaves, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key for certificates: %w", err)
	}
	return &leaves{ca: ca, key: key, limit: limit, byHost: make(map[string]*list.Element), recent: list.New()}, nil
}

// forHello is tls.Config.GetCertificate. The name comes from the connection,
// which was compared with the SNI before the handshake began.
func (l *leaves) forHello(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	w, ok := h.Conn.(*wire)
	if !ok {
		return nil, errors.New("not a connection of this proxy")
	}
	return l.get(h.Context(), w.host)
}

func (l *leaves) get(ctx context.Context, host string) (*tls.Certificate, error) {
	if c := l.cached(host); c != nil {
		return c, nil
	}
	made := l.flight.DoChan(host, func() (any, error) {
		if c := l.cached(host); c != nil {
			return c, nil
		}
		c, err := l.ca.sign(host, l.key)
		if err == nil {
			l.keep(host, c)
		}
		return c, err
	})
	select {
	case r := <-made:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*tls.Certificate), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *leaves) cached(host string) *tls.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.byHost[host]
	if !ok {
		return nil
	}
	c := e.Value.(*leaf).cert
	if time.Until(c.Leaf.NotAfter) < renew && c.Leaf.NotAfter.Before(l.ca.cert.NotAfter) {
		return nil
	}
	l.recent.MoveToFront(e)
	return c
}

func (l *leaves) keep(host string, c *tls.Certificate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byHost[host]; ok {
		e.Value.(*leaf).cert = c
		l.recent.MoveToFront(e)
		return
	}
	l.byHost[host] = l.recent.PushFront(&leaf{host: host, cert: c})
	for l.recent.Len() > l.limit {
		oldest := l.recent.Back()
		l.recent.Remove(oldest)
		delete(l.byHost, oldest.Value.(*leaf).host)
	}
}
