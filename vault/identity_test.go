package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/vault"
)

// clientPair is a certificate for a name, and its key.
func clientPair(t testing.TB, name string) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// identity makes a request and returns what it must be sent with; the lease is
// done.
func (w *world) identity(url string) *vault.Identity {
	w.t.Helper()
	r := w.open(get(url))
	if r.denied != nil {
		w.t.Fatal(r.denied)
	}
	r.resp.Body.Close()
	defer r.lease.Done()
	return r.lease.Identity()
}

func ended(i *vault.Identity) bool {
	select {
	case <-i.Ended():
		return true
	default:
		return false
	}
}

// A certificate is one Identity as long as it is the same, for all its hosts, and
// ends when it is replaced or revoked.
func TestIdentity(t *testing.T) {
	w := newWorld(t, "{name: mtls, as: bank, hosts: [bank.example, pay.example]}", "{name: mtls, as: club, hosts: [club.example]}", "{name: bearer, as: other, hosts: [api.example]}")
	const at = "https://bank.example/"
	w.wantDenied(get(at), "not-connected")
	join := func(name, cn string) {
		certificate, key := clientPair(t, cn)
		w.connect(name, "", "certificate", certificate, "private_key", key)
	}
	join("bank", "one")
	join("club", "one")
	w.connect("other", "", "token", "REALrealREALreal")
	one := w.identity(at)
	if one == nil || one.Certificate().Leaf.Subject.CommonName != "one" {
		t.Fatalf("%v", one)
	}
	if w.identity("https://pay.example/v1?x=y") != one || w.identity(at) != one {
		t.Error("the same certificate is another Identity")
	}
	if w.identity("https://club.example/") == one {
		t.Error("two connections are one Identity")
	}
	if r := w.do(get("https://api.example/", "Authorization", "Bearer "+w.env("OTHER_TOKEN"))); r.denied != nil || r.lease.Identity() != nil {
		t.Errorf("a request without a certificate has an Identity: %+v", r)
	}
	join("bank", "two")
	if !ended(one) {
		t.Error("replaced, and goes on")
	}
	two := w.identity(at)
	if two == one || ended(two) || two.Certificate().Leaf.Subject.CommonName != "two" {
		t.Errorf("%v", two)
	}
	club := w.identity("https://club.example/")
	if _, err := w.vault.Revoke(t.Context(), "bank", "uid:1"); err != nil {
		t.Fatal(err)
	}
	if !ended(two) || ended(club) {
		t.Errorf("after the revocation: ended %v, that of another connection %v", ended(two), ended(club))
	}
	w.wantDenied(get(at), "not-connected")
	join("bank", "two")
	if three := w.identity(at); three == two || ended(three) {
		t.Error("connected again, and nothing has begun")
	}
	if err := w.vault.Bind(nil); err != nil {
		t.Fatal(err)
	}
	if !ended(club) {
		t.Error("the manifest has it no more, and it goes on")
	}
}

// The private key is in nothing that is printed by mistake.
func TestIdentityIsSilent(t *testing.T) {
	w := newWorld(t, "{name: mtls, as: bank, hosts: [bank.example]}")
	certificate, key := clientPair(t, "one")
	w.connect("bank", "", "certificate", certificate, "private_key", key)
	i := w.identity("https://bank.example/")
	k, ok := i.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("%T", i.Certificate().PrivateKey)
	}
	d, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", slog.Any("identity", i))
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", slog.Any("identity", i))
	fmt.Fprintf(&b, "%v %+v %#v %s %q", i, i, i, i, i)
	_ = json.NewEncoder(&b).Encode(map[string]any{"identity": i})
	number := new(big.Int).SetBytes(d)
	for _, form := range []string{number.String(), fmt.Sprintf("%x", d), fmt.Sprint(number.Bits())[1:20], strings.Split(key, "\n")[1]} {
		if strings.Contains(strings.ToLower(b.String()), strings.ToLower(form)) {
			t.Errorf("the key is in %s", b.String())
		}
	}
	if !strings.Contains(b.String(), "client certificate of the connection bank") {
		t.Errorf("nobody can tell what it is: %s", b.String())
	}
}

// Whatever is connected and revoked beside it: a request has the Identity of what
// is stored, or is refused.
func TestIdentityUnderLoad(t *testing.T) {
	w := newWorld(t, "{name: mtls, as: bank, hosts: [bank.example]}")
	certificate, key := clientPair(t, "0")
	w.connect("bank", "", "certificate", certificate, "private_key", key)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.lendOne(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 30 {
		name := fmt.Sprint(n + 1)
		certificate, key := clientPair(t, name)
		if n%3 == 2 {
			if _, err := w.vault.Revoke(t.Context(), "bank", "uid:1"); err != nil {
				t.Error(err)
			}
			w.wantCode(get("https://bank.example/"), "not-connected")
		}
		w.connect("bank", "", "certificate", certificate, "private_key", key)
		if i := w.identity("https://bank.example/"); i.Certificate().Leaf.Subject.CommonName != name || ended(i) {
			t.Errorf("%s, want %s; ended %v", i.Certificate().Leaf.Subject.CommonName, name, ended(i))
		}
	}
	close(stop)
	wg.Wait()
}

// lendOne is a request up to where it would be sent, which it is not.
func (w *world) lendOne() error {
	request, q := w.request(get("https://bank.example/"))
	plan, verdict := w.vault.Examine(request)
	grant, err := w.gate.CheckWith(w.t.Context(), request, verdict)
	if err == nil {
		err = grant.Use()
	}
	var lease *vault.Lease
	if err == nil {
		defer grant.Finish(ambit.Outcome{})
		lease, err = w.vault.Use(w.t.Context(), grant, plan, q, func() {})
		defer lease.Done()
	}
	var denied *ambit.DenyError
	switch {
	case err == nil && lease.Identity() == nil:
		return errors.New("it would be sent without a certificate")
	case errors.As(err, &denied) && (denied.Verdict.Reason.Code == "not-connected" || denied.Verdict.Reason.Code == "policy-changed"):
		return nil
	}
	return err
}

// wantCode is wantDenied while other requests leave.
func (w *world) wantCode(c call, code string) {
	w.t.Helper()
	if r := w.do(c); r.code() != code {
		w.t.Errorf("%q, want %q", r.code(), code)
	}
}
