package egress_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/egress"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
	"ambit/policy"
	"ambit/vault"
)

const realToken = "canary-0123456789-real-token"

// wallet is a door with a vault in which the shop is connected.
type wallet struct {
	*door
	vault     *vault.Vault
	reference string
	rules     []policy.Rule
}

// newWallet connects the shop with the connector bearer; other is a host
// without a connection.
func newWallet(t *testing.T, s *shop, other policy.Rule) *wallet {
	t.Helper()
	w := openWallet(t, nil, s.roots, fmt.Sprintf("{name: bearer, as: shop, hosts: [shop.example], ports: [%d], private: true, resolve: [127.0.0.1]}", s.port), other)
	w.reference = w.vault.Placement().Env["SHOP_TOKEN"]
	if w.reference == "" {
		t.Fatalf("no reference in %v", w.vault.Placement().Env)
	}
	return w
}

// openWallet has one connection of the manifest; more are connectors of the
// operator's, and others what else is allowed.
func openWallet(t *testing.T, more []connector.Source, roots *x509.CertPool, line string, others ...policy.Rule) *wallet {
	t.Helper()
	catalog, err := connector.Builtin()
	if err == nil {
		catalog, err = catalog.WithSources(more)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse("m.yaml", fmt.Appendf(nil, "ambit: v1\nname: tester\nconnectors:\n  - %s\n", line))
	if err != nil {
		t.Fatal(err)
	}
	bindings, err := catalog.Bind(m)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wallet{}
	lateLog, lateAlerts := newRecord(t), &alerts{}
	w.vault, err = vault.Open(t.Context(), vault.Config{
		DB: db, Agent: "tester", Keys: []vault.Key{{Version: 1, Bytes: secretbytes.New(make([]byte, 32))}},
		Ref: secretbytes.New(make([]byte, 32)), Log: lateLog, Alerts: lateAlerts, Transport: http.DefaultTransport,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.vault.Bind(bindings); err != nil {
		t.Fatal(err)
	}
	w.rules = append(bindings[0].Rules, others...)
	w.door = newDoor(t, egress.Config{Vault: w.vault, Roots: roots}, w.rules...)
	t.Cleanup(func() { w.vault.Close(); db.Close() })
	return w
}

func (w *wallet) connect() {
	w.t.Helper()
	_, err := w.vault.Connect(context.Background(), vault.ConnectRequest{Name: "shop", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(realToken))}}, "uid:1")
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *wallet) get(h2 bool, url, authorization string) *http.Response {
	w.t.Helper()
	q, err := http.NewRequest("GET", url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if authorization != "" {
		q.Header.Set("Authorization", authorization)
	}
	resp, err := w.client(h2).Do(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// echo answers with the credential it got, plain and in base64.
func echo(w http.ResponseWriter, r *http.Request) {
	got := r.Header.Get("Authorization")
	if got != "Bearer "+realToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Echo", got)
	fmt.Fprintf(w, "%s %s", got, base64.StdEncoding.EncodeToString([]byte("x"+got)))
}

// The host gets the credential, the agent gets neither it nor its echo (K3), in
// both protocols.
func TestCredentialIsLent(t *testing.T) {
	s := newShop(t, echo)
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	for _, h2 := range []bool{false, true} {
		if !h2 {
			w.wantProblem(w.get(h2, s.url("/"), "Bearer "+w.reference), 403, "not-connected")
			w.connect()
		}
		resp := w.get(h2, s.url("/"), "Bearer "+w.reference)
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("h2 %v: %d %v", h2, resp.StatusCode, err)
		}
		for _, text := range []string{string(b), fmt.Sprint(resp.Header)} {
			if strings.Contains(text, "canary") || strings.Contains(text, base64.RawStdEncoding.EncodeToString([]byte(realToken))[4:20]) {
				t.Errorf("h2 %v: the agent reads %q", h2, text)
			}
		}
		if int64(len(b)) != resp.ContentLength {
			t.Errorf("h2 %v: %d bytes, said were %d", h2, len(b), resp.ContentLength)
		}
	}
	if e := w.log.await(func(e ambit.Event) bool { return e.Connection == "shop" && e.Kind == "egress.request" }); strings.Contains(fmt.Sprint(e), "canary") {
		t.Errorf("the log has it: %+v", e)
	}
}

// K1: a reference sent elsewhere, N10: an account that is not ours, both
// refused, logged and alerted.
func TestK1CredentialRefused(t *testing.T) {
	s := newShop(t, echo)
	var w *wallet
	other := newShop(t, func(_ http.ResponseWriter, r *http.Request) { // on a port that the connection is not for
		b, _ := io.ReadAll(r.Body)
		if all := r.URL.String() + fmt.Sprint(r.Header) + string(b); strings.Contains(all, w.reference) {
			t.Errorf("the reference reached the other host: %q", all)
		}
	})
	w = newWallet(t, s, other.rule())
	w.connect()
	elsewhere := other.url("/")
	for _, h2 := range []bool{false, true} {
		w.wantProblem(w.get(h2, elsewhere, "Bearer "+w.reference), 403, "reference-misplaced")
		w.wantProblem(w.get(h2, elsewhere+"?x="+w.reference, ""), 403, "reference-misplaced")
		w.wantProblem(w.get(h2, s.url("/"), "Bearer attackers-own-token"), 403, "foreign-credential")
		w.wantProblem(w.get(h2, s.url("/"), "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+w.reference))), 403, "reference-misplaced")
		// In a body, which is only seen on its way: the request is broken off.
		resp, err := w.client(h2).Post(elsewhere, "text/plain", strings.NewReader("here it is: "+w.reference))
		if err != nil {
			t.Fatal(err)
		}
		w.wantProblem(resp, 403, "reference-misplaced")
	}
	for _, code := range []string{"reference-misplaced", "foreign-credential"} {
		if !w.alerts.raised(code) {
			t.Errorf("no alert for %s", code)
		}
	}
}

// K5: revoked in the middle of a stream: not one more event comes, and the next
// request is refused.
func TestK5RevokedInAStream(t *testing.T) {
	going := make(chan struct{})
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := io.WriteString(w, "data: tick\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case going <- struct{}{}:
			case <-r.Context().Done():
				return
			}
		}
	})
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	for _, h2 := range []bool{false, true} {
		w.connect()
		resp := w.get(h2, s.url("/"), "Bearer "+w.reference)
		tick := make([]byte, len("data: tick\n\n"))
		if _, err := io.ReadFull(resp.Body, tick); err != nil {
			t.Fatal(err)
		}
		<-going
		if _, err := w.vault.Revoke(t.Context(), "shop", "uid:1"); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(10*time.Second, func() { t.Error("the stream was not cut"); resp.Body.Close() })
		rest, err := io.ReadAll(resp.Body)
		late.Stop()
		if err == nil || len(rest) > 2*len(tick) { // what was on its way already
			t.Errorf("h2 %v: after the revocation %q, %v", h2, rest, err)
		}
		resp.Body.Close()
		w.wantProblem(w.get(h2, s.url("/"), "Bearer "+w.reference), 403, "not-connected")
	}
}
