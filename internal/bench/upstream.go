//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	shop     = "shop.example" // the upstream's name
	order    = "/v1/orders/1042"
	blob     = "/v1/blob"
	blobSize = 100 << 20
	ticks    = "/v1/ticks"  // a stream that does not end
	orders   = "/v1/orders" // 10 KiB of JSON
	whoami   = "/v1/whoami" // says which credential came

	otherShop = "other.shop.example" // another name of the upstream
)

// answer is the small JSON that a request gets.
const answer = `{"id":1042,"state":"paid","total":"49.90","currency":"EUR","customer":{"id":77,"name":"A. Example"},"lines":[{"sku":"X-1","n":2}]}`

// manyOrders is JSON of 10 KiB.
func manyOrders() string { return "[" + strings.Repeat(answer+",\n", 10<<10/(len(answer)+2)) + "{}]" }

// upstreamRole serves HTTPS on loopback and on the Unix socket.
func upstreamRole(s setup) (announcement, io.Closer, error) {
	cert, ca, err := selfSigned(shop, otherShop)
	if err != nil {
		return announcement{}, nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+order, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	})
	many := manyOrders()
	mux.HandleFunc("GET "+orders, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(many)))
		_, _ = io.WriteString(w, many)
	})
	mux.HandleFunc("GET "+whoami, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%x %s", sha256.Sum256([]byte(r.Header.Get("Authorization"))), r.Header.Get("Authorization")) //nolint:gosec // no browser shows it
	})
	mux.HandleFunc("GET "+blob, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(blobSize))
		piece := make([]byte, 64<<10)
		for range blobSize / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("GET "+ticks, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flow, tick := http.NewResponseController(w), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, "data: tick\n\n"); err != nil || flow.Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	})
	server := &http.Server{
		Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return announcement{}, nil, err
	}
	unix, err := listenUnix(s.Socket)
	if err != nil {
		return announcement{}, nil, err
	}
	for _, l := range []net.Listener{tcp, unix} {
		go func() { _ = server.ServeTLS(l, "", "") }() // ends with Close
	}
	return announcement{Port: tcp.Addr().(*net.TCPAddr).Port, CA: ca}, server, nil
}

// listenUnix listens where the ordinary user may connect.
func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o666)
}

// selfSigned makes a certificate (ECDSA P-256, as the gate's) that is its own
// authority.
func selfSigned(names ...string) (tls.Certificate, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: names,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("making a certificate: %w", err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(ca), nil
}

func poolOf(ca string) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM([]byte(ca)) {
		return nil, errors.New("there is no certificate to trust")
	}
	return p, nil
}
