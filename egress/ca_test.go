package egress

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestCARoundTrip(t *testing.T) {
	ca, err := NewCA("support")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(b)
	if err != nil {
		t.Fatal(err)
	}
	if string(again.CertificatePEM()) != string(ca.CertificatePEM()) || strings.Contains(string(ca.CertificatePEM()), "PRIVATE") {
		t.Error("the certificate changed, or is not alone")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertificatePEM())
	for _, host := range []string{"shop.example", "192.0.2.1", "2001:db8::1", strings.Repeat("a", 60) + "." + strings.Repeat("b", 60) + ".example"} {
		leaf := SignFor(t, again, host)
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: roots}); err == nil {
			t.Errorf("the certificate of %s is good for others", host)
		}
	}
	// A leaf is no authority.
	leaf := SignFor(t, ca, "shop.example")
	if leaf.Leaf.IsCA {
		t.Error("a leaf may sign")
	}
}

func TestLoadCARefuses(t *testing.T) {
	ca, err := NewCA("a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCA("b")
	if err != nil {
		t.Fatal(err)
	}
	good, err := ca.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(good), "-----END CERTIFICATE-----\n")
	for name, b := range map[string]string{
		"empty": "", "certificate alone": string(ca.CertificatePEM()), "key alone": key, "another's certificate": string(other.CertificatePEM()) + key,
	} {
		if _, err := LoadCA([]byte(b)); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

func TestLeavesAreBoundedAndShared(t *testing.T) {
	ca, err := NewCA("a")
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLeaves(ca, 4)
	if err != nil {
		t.Fatal(err)
	}
	get := func(host string) *x509.Certificate {
		c, err := l.get(context.Background(), host)
		if err != nil {
			t.Error(err)
			return nil
		}
		return c.Leaf
	}
	var wg sync.WaitGroup
	got := make([]*x509.Certificate, 16)
	for i := range got {
		wg.Go(func() { got[i] = get("kept.example") })
	}
	wg.Wait()
	for _, c := range got {
		if c != got[0] {
			t.Error("one name got two certificates")
		}
	}
	for i := range 10 {
		get(fmt.Sprintf("h%d.example", i))
		if get("kept.example") != got[0] {
			t.Error("the certificate in use was thrown away")
		}
	}
	if l.recent.Len() != 4 || len(l.byHost) != 4 {
		t.Errorf("%d and %d kept, want 4", l.recent.Len(), len(l.byHost))
	}
}
