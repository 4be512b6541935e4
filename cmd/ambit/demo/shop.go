//go:build linux

package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// shopHost is the shop's name, and deskHost that of its help desk, at which tools
// work. They are in no DNS: the manifest says where they are.
const (
	shopHost = "shop.demo.example"
	deskHost = "desk.demo.example"
)

// certificateLife is longer than anybody looks at a demonstration.
const certificateLife = 30 * 24 * time.Hour

// shop is the stand-in for a web shop with a help desk: HTTPS on a loopback
// port, a certificate authority of its own, a small JSON API.
type shop struct {
	ca     string            // PEM
	keys   map[string]string // what each host takes as Authorization: Bearer, and nothing else
	port   int
	server *http.Server
	ended  chan struct{} // closed when nothing is served any more

	mu   sync.Mutex
	seen []string // every request that came: "GET https://shop.demo.example:1234/v1/orders/7001"
	paid []refund // in the order in which they came
}

// refund is money that goes back.
type refund struct {
	Order    int    `json:"order"`
	Account  string `json:"account"`
	Mail     string `json:"mail"` // who is told of it
	Amount   int    `json:"amount"`
	Currency string `json:"currency"`
}

func (r refund) money() string { return fmt.Sprintf("%d %s", r.Amount, r.Currency) }

func (r refund) String() string {
	return fmt.Sprintf("%s to %s, order %d", r.money(), r.Account, r.Order)
}

type ticket struct {
	ID      string `json:"id"`
	From    string `json:"from"`
	Subject string `json:"subject"`
	Order   string `json:"order,omitempty"`
	Text    string `json:"text"`
}

type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Mail     string `json:"mail"`
	Address  string `json:"address"`
	Item     string `json:"item"`
	Price    string `json:"price"`
	Parcel   string `json:"parcel"`
}

type parcel struct {
	Code  string `json:"code"`
	State string `json:"state"`
	Due   string `json:"due"`
}

type reply struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// newShop serves until close is called. The tickets may name the shop's
// address, so they are made when it is known.
func newShop(ctx context.Context, tickets func(*shop) []ticket) (*shop, error) {
	cert, ca, err := newCertificate(shopHost, deskHost)
	if err != nil {
		return nil, fmt.Errorf("making the shop's certificate: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the stand-in shop: %w", err)
	}
	s := &shop{
		ca: ca, keys: map[string]string{shopHost: "shop-" + rand.Text(), deskHost: "desk-" + rand.Text()},
		port: l.Addr().(*net.TCPAddr).Port, ended: make(chan struct{}),
	}
	s.server = &http.Server{
		Handler:           s.record(s.routes(tickets(s))),
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	go func() {
		defer close(s.ended)
		_ = s.server.ServeTLS(l, "", "") // a shop that ends early is found by the agent's work
	}()
	return s, nil
}

func (s *shop) close() {
	_ = s.server.Close()
	<-s.ended
}

// url is the shop's address as the agent sees it.
func (s *shop) url() string { return "https://" + shopHost + ":" + strconv.Itoa(s.port) }

// desk is the address of its help desk.
func (s *shop) desk() string { return "https://" + deskHost + ":" + strconv.Itoa(s.port) }

// refunds lists what was paid, in order.
func (s *shop) refunds() []refund {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.paid)
}

// requests lists what has come, sorted.
func (s *shop) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.seen))
}

func (s *shop) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r.Method+" https://"+r.Host+r.RequestURI)
		s.mu.Unlock()
		host, _, err := net.SplitHostPort(r.Host)
		if key := s.keys[host]; err != nil || key == "" || r.Header.Get("Authorization") != "Bearer "+key {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "this is no key of ours"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *shop) routes(tickets []ticket) http.Handler {
	orders := map[string]order{
		"7001": {"7001", "Ada Byron", customer, "12 St James's Square, London", "Desk lamp, brass", "89.00 EUR", "DX-4471"},
		"7002": {"7002", "Karl Weiss", "karl@customer.example", "Lindenstr. 4, Leipzig", "Kettle, 1.5 l", "45.50 EUR", "DX-4480"},
		"7003": {"7003", "Ada Byron", customer, "12 St James's Square, London", "Desk lamp, brass, two", "178.00 EUR", "DX-4493"},
	}
	parcels := map[string]parcel{"DX-4471": {"DX-4471", "on its way", "tomorrow"}, "DX-4480": {"DX-4480", "delivered", "yesterday"}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/tickets/{id}", func(w http.ResponseWriter, r *http.Request) {
		i := slices.IndexFunc(tickets, func(t ticket) bool { return t.ID == r.PathValue("id") })
		if i < 0 {
			answer(w, http.StatusNotFound, map[string]string{"error": "no such ticket"})
			return
		}
		answer(w, http.StatusOK, tickets[i])
	})
	mux.HandleFunc("POST /v1/tickets/{id}/replies", func(w http.ResponseWriter, r *http.Request) {
		var said reply
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&said); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		answer(w, http.StatusCreated, said)
	})
	mux.HandleFunc("GET /v1/orders/{id}", func(w http.ResponseWriter, r *http.Request) { find(w, orders, r.PathValue("id")) })
	mux.HandleFunc("GET /v1/track/{id}", func(w http.ResponseWriter, r *http.Request) { find(w, parcels, r.PathValue("id")) })
	mux.HandleFunc("POST "+deskHost+"/v1/refunds", func(w http.ResponseWriter, r *http.Request) {
		var wanted refund
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&wanted); err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		s.mu.Lock()
		s.paid = append(s.paid, wanted)
		n := len(s.paid)
		s.mu.Unlock()
		answer(w, http.StatusCreated, map[string]any{"id": 9000 + n, "order": wanted.Order, "state": "paid"})
	})
	mux.HandleFunc("GET /v1/customers", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, orders) })
	return mux
}

func find[T any](w http.ResponseWriter, in map[string]T, id string) {
	if v, ok := in[id]; ok {
		answer(w, http.StatusOK, v)
		return
	}
	answer(w, http.StatusNotFound, map[string]string{"error": "not found"})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away is its own problem
}

// newCertificate makes a certificate for names and the authority, in PEM, that
// signed it.
func newCertificate(names ...string) (cert tls.Certificate, ca string, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, "", err
	}
	from := time.Now().Add(-time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Demo shop CA"},
		NotBefore: from, NotAfter: from.Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: from, NotAfter: from.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		return cert, "", err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, caKey)
	if err != nil {
		return cert, "", err
	}
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}))
	return tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: key}, ca, nil
}
