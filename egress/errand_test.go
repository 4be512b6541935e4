package egress_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ambit"
	"ambit/egress"
	"ambit/internal/secretbytes"
	"ambit/policy"
	"ambit/vault"
)

// call is a tool call in the log, for errands to be caused by.
func (d *door) call() uint64 {
	d.t.Helper()
	seq, err := d.log.Append(context.Background(), ambit.Event{Kind: ambit.KindToolCall, Decision: ambit.Allow})
	if err != nil {
		d.t.Fatal(err)
	}
	return seq
}

func request(t testing.TB, method, url, body string) *http.Request {
	t.Helper()
	q, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		q.Body, q.ContentLength = http.NoBody, 0
	}
	return q
}

// wantRefused runs an errand that must be refused, and checks it in the log: by
// Ambit, because of the call.
func (d *door) wantRefused(e egress.Errand, code string) ambit.Event {
	d.t.Helper()
	resp, err := d.proxy.Do(d.t.Context(), e)
	if err == nil {
		resp.Body.Close()
		d.t.Fatalf("%s was done", e.Request.URL)
	}
	var deny *ambit.DenyError
	if !errors.As(err, &deny) || deny.Verdict.Reason.Code != code || deny.Event == nil {
		d.t.Fatalf("got %v, want %s", err, code)
	}
	logged := d.log.await(func(l ambit.Event) bool { return l.Seq == *deny.Event })
	if logged.Principal != ambit.PrincipalAmbit || logged.Decision != ambit.Deny || len(logged.Links) != 1 || logged.Links[0] != (ambit.Link{Rel: "cause", Seq: e.Cause}) {
		d.t.Errorf("the log has %+v", logged)
	}
	if !d.alerts.raised(code) {
		d.t.Errorf("%s raised no alert", code)
	}
	return logged
}

func (d *door) ended(of uint64) ambit.Event {
	d.t.Helper()
	return d.log.await(func(e ambit.Event) bool {
		return e.Kind == ambit.KindEgressOutcome && e.Of != nil && *e.Of == of
	})
}

func (d *door) granted() ambit.Event {
	d.t.Helper()
	return d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressRequest && e.Decision == ambit.Allow })
}

// An errand gets the credential, and its answer is scrubbed; it is logged with
// its cause, by a policy that the agent's own requests do not have.
func TestErrand(t *testing.T) {
	s := newShop(t, echo)
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	w.use() // nothing for the agent
	w.allowErrands(w.rules...)
	w.connect()
	cause := w.call()
	q := request(t, "GET", s.url("/orders/1?x=1"), "")
	q.Header.Set("Ambit-Intent", "not what was stated")
	resp, err := w.proxy.Do(t.Context(), egress.Errand{Request: q, Cause: cause, Task: "task-1", Intent: "look up the order", Connection: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || len(b) == 0 {
		t.Fatalf("%d %q %v", resp.StatusCode, b, err)
	}
	for _, text := range []string{string(b), fmt.Sprint(resp.Header), fmt.Sprint(resp.Request.Header)} {
		if strings.Contains(text, "canary") {
			t.Errorf("whoever asked reads %q", text)
		}
	}
	if q.Header.Get("Authorization") != "" {
		t.Error("the caller's request was changed")
	}
	e := w.granted()
	if e.Principal != ambit.PrincipalAmbit || e.Connection != "shop" || e.Task != "task-1" || e.Intent != "look up the order" ||
		len(e.Links) != 1 || e.Links[0] != (ambit.Link{Rel: "cause", Seq: cause}) || e.URL != s.url("/orders/1?x=1") {
		t.Errorf("the log has %+v", e)
	}
	if o := w.ended(e.Seq); o.Status != 200 || o.BytesIn != int64(len(b)) || o.Detail != "" {
		t.Errorf("the outcome is %+v", o)
	}
	// The agent may still not: neither the host nor a connection is shared.
	w.wantProblem(w.get(false, s.url("/orders/1"), "Bearer "+w.reference), 403, "host-not-allowed")
}

func TestErrandRefused(t *testing.T) {
	s := newShop(t, func(http.ResponseWriter, *http.Request) { t.Error("something arrived") })
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	rule := w.rules[0]
	rule.Paths = []string{"/v1/**"}
	w.allowErrands(rule, policy.Rule{Host: "metadata.example", Private: true}, policy.Rule{Host: "local.example"})
	cause := w.call()
	ask := func(url string) egress.Errand {
		return egress.Errand{Request: request(t, "GET", url, ""), Cause: cause}
	}
	as := func(e egress.Errand) egress.Errand { e.Connection = "shop"; return e }

	w.wantRefused(as(ask(s.url("/v1/x"))), "not-connected")
	w.connect()
	w.wantRefused(as(ask(s.url("/admin"))), "path-not-allowed")
	w.wantRefused(ask("https://evil.example/"), "host-not-allowed")
	w.wantRefused(as(ask("https://local.example/")), "other-connection")
	narrow := as(ask(s.url("/v1/x")))
	narrow.Rules = policyOf(t, policy.Rule{Host: "shop.example", Ports: rule.Ports, Paths: []string{"/v1/y"}})
	w.wantRefused(narrow, "path-not-allowed")

	// What its arguments could make of a URL.
	w.wantRefused(as(ask(s.url("/v1/../admin"))), "bad-request") // N4
	w.wantRefused(ask("ftp://shop.example/"), "bad-request")
	w.wantRefused(ask("https://u:p@"+s.host()+"/v1/x"), "bad-request")
	w.wantRefused(ask("http://ambit.internal/"), "host-not-allowed")
	other := as(ask(s.url("/v1/x")))
	other.Request.Host = "evil.example"
	w.wantRefused(other, "name-mismatch")
	// A credential of somebody else's, and ours where it was not asked for.
	foreign := ask(s.url("/v1/x"))
	foreign.Request.Header.Set("Authorization", "Bearer attackers-own-token")
	w.wantRefused(foreign, "foreign-credential")
	undeclared := ask(s.url("/v1/x"))
	undeclared.Request.Header.Set("Authorization", "Bearer "+w.reference)
	w.wantRefused(undeclared, "other-connection")
	misplaced := as(ask(s.url("/v1/x?q=" + w.reference)))
	w.wantRefused(misplaced, "reference-misplaced")
	forged := as(ask(s.url("/v1/x")))
	forged.Request.Header.Set("Ambit-Agent", "other")
	w.wantRefused(forged, "forged-header")

	if _, err := w.vault.Revoke(t.Context(), "shop", "uid:1"); err != nil {
		t.Fatal(err)
	}
	w.wantRefused(as(ask(s.url("/v1/x"))), "not-connected")
	if n := w.log.allowed(); n != 0 {
		t.Errorf("%d were allowed", n)
	}
	w.log.fail.Store(true)
	var deny *ambit.DenyError
	if _, err := w.proxy.Do(t.Context(), ask(s.url("/v1/x"))); !errors.As(err, &deny) || deny.Verdict.Reason.Code != "log-unavailable" {
		t.Errorf("without a log: %v", err)
	}
}

// S1: addresses are vetted for errands as for the agent's requests.
func TestS1Errand(t *testing.T) {
	names := resolver{"local.example": {"127.0.0.1"}, "metadata.example": {"169.254.169.254"}, "mapped.example": {"::ffff:10.0.0.1"}}
	d := newDoor(t, egress.Config{Resolver: names})
	d.allowErrands(policy.Rule{Host: "local.example"}, policy.Rule{Host: "metadata.example", Private: true}, policy.Rule{Host: "mapped.example"})
	for host, code := range map[string]string{"local.example": "private-address", "metadata.example": "metadata-address", "mapped.example": "private-address"} {
		d.wantRefused(egress.Errand{Request: request(t, "GET", "https://"+host+"/", ""), Cause: d.call()}, code)
	}
}

func policyOf(t testing.TB, rules ...policy.Rule) *policy.Set {
	t.Helper()
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// N10: a condition on the body because of a pin holds for errands.
func TestN10ErrandPin(t *testing.T) {
	var got atomic.Int64
	ca, err := egress.NewCA("upstreams")
	if err != nil {
		t.Fatal(err)
	}
	s := newShopWith(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer xoxb-canary-0123456789-real-token" {
			t.Errorf("Authorization: %s", r.Header.Get("Authorization"))
		}
		got.Add(1)
	}, func(s *httptest.Server) {
		s.TLS.Certificates = []tls.Certificate{egress.SignFor(t, ca, "slack.com")}
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertificatePEM())
	w := openWallet(t, nil, roots, fmt.Sprintf("{name: slack, ports: [%d], private: true, resolve: [127.0.0.1], pin: {channel: C0123456789}}", s.port))
	w.allowErrands(w.rules...)
	if _, err := w.vault.Connect(t.Context(), vault.ConnectRequest{Name: "slack", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte("xoxb-canary-0123456789-real-token"))}}, "uid:1"); err != nil {
		t.Fatal(err)
	}
	post := func(body string) egress.Errand {
		q := request(t, "POST", fmt.Sprintf("https://slack.com:%d/api/chat.postMessage", s.port), body)
		q.Header.Set("Content-Type", "application/json")
		return egress.Errand{Request: q, Cause: w.call(), Connection: "slack"}
	}
	w.wantRefused(post(`{"channel":"C9999999999","text":"x"}`), "pin-not-met")
	w.wantRefused(post(`{"channel":"C0123456789","channel":"C9999999999"}`), "pin-not-met")
	w.wantRefused(post(`{"text":"x"}`), "pin-not-met")
	w.wantRefused(post(`channel=`), "body-unreadable")
	resp, err := w.proxy.Do(t.Context(), post(`{"channel":"C0123456789","text":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || got.Load() != 1 {
		t.Errorf("%d, %d arrived", resp.StatusCode, got.Load())
	}
}

// What the vault finds in a body is refused before the host has all of it.
func TestErrandBody(t *testing.T) {
	var got atomic.Int64
	s := newShop(t, func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			got.Add(1)
		}
	})
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	w.connect()
	w.allowErrands(w.rules...)
	cause := w.call()
	resp, err := w.proxy.Do(t.Context(), egress.Errand{Request: request(t, "POST", s.url("/"), `{"a":1}`), Cause: cause, Connection: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if o := w.ended(w.granted().Seq); o.BytesOut != 7 || o.Status != 200 {
		t.Errorf("%+v", o)
	}
	before := got.Load()
	w.wantRefused(egress.Errand{Request: request(t, "POST", s.url("/"), "here it is: "+w.reference), Cause: cause, Connection: "shop"}, "reference-misplaced")
	if n := got.Load() - before; n != 0 {
		t.Errorf("%d bodies arrived whole", n)
	}
}

// Answers are bounded in size and time, and go with whoever asked.
func TestErrandEnds(t *testing.T) {
	waiting, gone := make(chan struct{}, 10), make(chan struct{}, 10)
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/declared":
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 1000))
		case "/long":
			for range 100 {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		case "/moved":
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		case "/slow":
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			fallthrough
		default:
			waiting <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
		}
	})
	w := newWallet(t, s, policy.Rule{Host: "other.example"})
	w.connect()
	w.allowErrands(w.rules...)
	// do returns what an errand ended with, and its outcome.
	do := func(ctx context.Context, e egress.Errand, path string) (string, ambit.Event, error) {
		t.Helper()
		e.Request, e.Cause, e.Connection = request(t, "GET", s.url(path), ""), w.call(), "shop"
		resp, err := w.proxy.Do(ctx, e)
		text := ""
		if err == nil {
			var b []byte
			b, err = io.ReadAll(resp.Body)
			text = fmt.Sprintf("%d %d", resp.StatusCode, len(b))
			resp.Body.Close()
		}
		granted := w.log.await(func(l ambit.Event) bool {
			return l.Kind == ambit.KindEgressRequest && l.Decision == ambit.Allow && len(l.Links) == 1 && l.Links[0].Seq == e.Cause
		})
		return text, w.ended(granted.Seq), err
	}
	for _, path := range []string{"/declared", "/long"} {
		text, o, err := do(t.Context(), egress.Errand{MaxAnswer: 999}, path)
		if !errors.Is(err, egress.ErrTooLong) || o.Detail == "" || strings.HasSuffix(text, " 1000") {
			t.Errorf("%s: %q %v %+v", path, text, err, o)
		}
	}
	if text, _, err := do(t.Context(), egress.Errand{MaxAnswer: 1000}, "/declared"); err != nil || text != "200 1000" {
		t.Errorf("as long as may be: %q, %v", text, err)
	}
	if text, _, err := do(t.Context(), egress.Errand{}, "/moved"); err != nil || !strings.HasPrefix(text, "302") {
		t.Errorf("redirect: %q, %v", text, err)
	}
	for _, path := range []string{"/silent", "/slow"} {
		_, o, err := do(t.Context(), egress.Errand{Timeout: 300 * time.Millisecond}, path)
		if !errors.Is(err, context.DeadlineExceeded) || o.Detail == "" {
			t.Errorf("%s: %v %+v", path, err, o)
		}
		<-waiting
		<-gone
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-waiting; cancel() }()
		if _, o, err = do(ctx, egress.Errand{}, path); !errors.Is(err, context.Canceled) || o.Detail == "" {
			t.Errorf("%s, cancelled: %v %+v", path, err, o)
		}
		<-gone
		// K5: the connection is revoked while it is under way.
		go func() {
			<-waiting
			if _, err := w.vault.Revoke(context.Background(), "shop", "uid:1"); err != nil {
				t.Error(err)
			}
		}()
		if _, o, err = do(t.Context(), egress.Errand{}, path); !errors.Is(err, egress.ErrCut) && !strings.Contains(fmt.Sprint(err), "revoked") || o.Detail == "" {
			t.Errorf("%s, revoked: %v %+v", path, err, o)
		}
		<-gone
		w.connect()
		// Its host is no longer allowed.
		go func() { <-waiting; w.allowErrands() }()
		if _, o, err = do(t.Context(), egress.Errand{}, path); !errors.Is(err, egress.ErrCut) || o.Detail == "" {
			t.Errorf("%s, no longer allowed: %v %+v", path, err, o)
		}
		<-gone
		w.allowErrands(w.rules...)
	}
	// Nobody reads the answer: the door closes all the same.
	resp, err := w.proxy.Do(t.Context(), egress.Errand{Request: request(t, "GET", s.url("/slow"), ""), Cause: w.call(), Connection: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	w.proxy.Close()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, egress.ErrClosed) {
		t.Errorf("after the door was closed: %v", err)
	}
	if _, err := w.proxy.Do(t.Context(), egress.Errand{Request: request(t, "GET", s.url("/"), "")}); !errors.Is(err, egress.ErrClosed) {
		t.Errorf("once the door is closed: %v", err)
	}
}

// H4: as many at a time as the limit says, beside those of the agent.
func TestErrandsAreBounded(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	d := newDoor(t, egress.Config{Limits: egress.Limits{Errands: 1}}, s.rule())
	d.allowErrands(s.rule())
	ask := func() egress.Errand {
		return egress.Errand{Request: request(t, "GET", s.url("/"), ""), Cause: d.call()}
	}
	resp, err := d.proxy.Do(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	d.wantRefused(ask(), "too-busy")
	if r, err := d.client(false).Get(s.url("/")); err != nil || r.StatusCode != 200 {
		t.Errorf("the agent: %v, %v", r, err)
	}
	resp.Body.Close()
	if resp, err = d.proxy.Do(t.Context(), ask()); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
