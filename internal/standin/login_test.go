package standin_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"ambit/internal/standin"
)

const totp = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

// A person logs in with the code of now, once; the session is a cookie or a
// token, and ends when they log out. Five failures are enough.
func TestLogin(t *testing.T) {
	have := account()
	have["totp"] = totp
	server, c := start(t, "login", have)
	form, fetch := server.Requests[0], server.Requests[1]
	typed := account()
	typed["totp"] = standin.Code(totp, time.Now())
	page := func(session *http.Cookie) int {
		r, err := http.NewRequest("GET", "https://login.example.com/orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		if session != nil {
			r.AddCookie(session)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := page(nil); status != http.StatusSeeOther {
		t.Errorf("without a session: %d", status)
	}
	resp, body := do(t, c, form, typed, nil)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		t.Fatalf("%s %s", resp.Status, body)
	}
	session := resp.Cookies()[0]
	if !session.HttpOnly || !session.Secure || page(session) != http.StatusOK {
		t.Errorf("the session is %v", session)
	}
	if resp, body := do(t, c, fetch, typed, nil); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "wrong") {
		t.Errorf("the code works twice: %s %s", resp.Status, body)
	}
	resp, err := c.Post("https://login.example.com/logout", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	typed["password"] = "guess"
	for range 5 {
		_, _ = do(t, c, form, typed, nil)
	}
	if resp, _ = do(t, c, form, typed, nil); resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a sixth guess: %s", resp.Status)
	}
}

// Mutual TLS: no certificate, another one, and the account's.
func TestClientCertificate(t *testing.T) {
	pair := func() (tls.Certificate, string) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agent"}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	mine, text := pair()
	other, _ := pair()
	for _, test := range []struct {
		certificates []tls.Certificate
		status       int
		body         string
	}{{nil, 400, "No required SSL certificate was sent"}, {[]tls.Certificate{other}, 400, "The SSL certificate error"}, {[]tls.Certificate{mine}, 200, "{}"}} {
		server, c := start(t, "mtls", standin.Credentials{"certificate": text})
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = test.certificates
		resp, body := do(t, c, server.Requests[0], account(), nil)
		if resp.StatusCode != test.status || !strings.Contains(body, test.body) {
			t.Errorf("%d certificates: %s %s", len(test.certificates), resp.Status, body)
		}
	}
}
