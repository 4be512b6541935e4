package egress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"testing"
)

// SignFor makes a certificate for an upstream of the tests.
func SignFor(t testing.TB, ca *CA, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.sign(host, key)
	if err != nil {
		t.Fatal(err)
	}
	return *c
}
