//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/internal/standin"
)

// credited notes with which credential requests came.
type credited struct {
	counted
	mu    sync.Mutex
	last  string
	wrong []string // none that was ever given
}

// ServeHTTP implements http.Handler.
func (c *credited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	c.mu.Lock()
	c.last = token
	if !strings.HasPrefix(token, "realTokenOfRound") && len(c.wrong) < 10 {
		c.wrong = append(c.wrong, token)
	}
	c.mu.Unlock()
	c.counted.ServeHTTP(w, r)
}

func (c *credited) now() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// TestB5CredentialsThroughKills (row B5): worker and control plane are killed
// while an account is connected, used and refreshed. What was acknowledged is
// there afterwards; a token that was refreshed is good, or a person is asked to
// log in again; and nothing ever leaves with another credential, or none.
func TestB5CredentialsThroughKills(t *testing.T) {
	h := newHome(t)
	s := newServices(t)
	s.tokensConnector(h)
	seen := &credited{}
	shop := &services{upstream: newUpstream(t, seen, "shop.example"), addr: net.IPv4(127, 0, 0, 1)}
	c := &crashed{h, &seen.counted}
	connectors := "connectors:\n" + shop.connection("bearer", "    hosts: [shop.example]\n") + s.tokens()
	h.deploy(manifest("a", "", connectors))
	h.plant("a")
	h.deploy(manifest("a", "", "computer:\n  restart: always\n  command: [sh, -c, 'exec /workspace/attacker get 0 "+shop.url("shop.example", "/load")+" BEARER_TOKEN >>/workspace/answers']\n", connectors))
	connectThroughKills(c, seen)
	refreshThroughKills(c, s)
	c.more(5)
	h.run("stop", "a")
	if len(seen.wrong) > 0 {
		t.Errorf("requests left with %q for a credential", seen.wrong)
	}
	checkLogged(c)
}

// connectThroughKills replaces the credential of a connection that is in use.
func connectThroughKills(c *crashed, seen *credited) {
	c.t.Helper()
	before := ""
	for round, killed := range []string{"worker after it", "worker", "control plane", "control plane after it", "worker", "control plane"} {
		value := fmt.Sprintf("realTokenOfRound%d/0123456789+realReal", round)
		connect := c.command("connect", "a", "bearer")
		connect.Stdin = strings.NewReader(value)
		if err := connect.Start(); err != nil {
			c.t.Fatal(err)
		}
		var acknowledged bool
		if strings.HasSuffix(killed, "after it") {
			acknowledged = connect.Wait() == nil
		} else {
			time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond) // any moment will do
		}
		if strings.HasPrefix(killed, "worker") {
			c.kill9("worker", c.worker())
		} else {
			c.kill()
		}
		if !acknowledged && connect.ProcessState == nil {
			acknowledged = connect.Wait() == nil
		}
		if c.cmd == nil {
			c.serve()
		}
		if before == "" && !acknowledged {
			c.t.Fatal("the first connect failed")
		}
		c.more(3)
		switch now := seen.now(); {
		case now == value, now == before && !acknowledged:
			before = now
		default:
			c.t.Errorf("round %d, killed: %s, acknowledged: %v: requests leave with %q", round, killed, acknowledged, now)
		}
	}
}

// refreshThroughKills kills what asks for a token, at each point of it.
func refreshThroughKills(c *crashed, s *services) {
	c.t.Helper()
	curl := `curl -sS -m 20 -o /workspace/answer -w '%{http_code} ' -H "Authorization: Bearer $TOKENS_ACCESS_TOKEN" ` + s.at("oauth.example.com", "/v1/things") + "; cat /workspace/answer"
	works := func(r result) bool { return r.stdout == "200 {}" }
	over := func(r result) bool { return strings.Contains(r.stdout, "urn:ambit:problem:reconnect-needed") }
	connect := func() {
		if out, err := s.login(c.home, "a"); err != nil {
			c.t.Fatalf("login: %v\n%s", err, out)
		}
		if r := c.sh("a", curl); !works(r) {
			c.t.Fatalf("after a login: %+v", r)
		}
	}
	connect()
	for _, round := range []struct {
		kill, when string
		must       func(result) bool // nil is one or the other
	}{
		{"control plane", "before the service has decided", works},
		{"worker", "before the service has decided", works},
		{"worker", "when the service has changed the token", over}, // the new one is nowhere
		{"worker", "when the new token has come", nil},
		{"worker", "when the new token has come", nil},
	} {
		asked, killed := make(chan struct{}), make(chan struct{})
		var once sync.Once
		s.desk.feels(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			first := false
			once.Do(func() { first = true })
			if !first {
				next.ServeHTTP(w, r)
				return
			}
			said := httptest.NewRecorder()
			issue := func() { next.ServeHTTP(said, r) }
			if round.when != "before the service has decided" {
				issue()
			}
			close(asked)
			if round.when != "when the new token has come" {
				<-killed
			}
			if round.kill == "control plane" {
				issue() // the worker still waits for it
			}
			for name, values := range said.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(said.Code)
			_, _ = w.Write(said.Body.Bytes())
		})
		s.servers["oauth2"].Set(standin.Expired)
		if r := c.sh("a", curl); !strings.HasPrefix(r.stdout, "401") {
			c.t.Errorf("with a token that is over: %+v", r)
		}
		waits := c.command("exec", "a", "--", "sh", "-c", curl)
		if err := waits.Start(); err != nil {
			c.t.Fatal(err)
		}
		select {
		case <-asked:
		case <-time.After(20 * time.Second):
			c.t.Fatal("no new token was asked for")
		}
		if round.kill == "control plane" {
			c.kill()
		} else {
			time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // any moment will do
			c.kill9("worker", c.worker())
		}
		close(killed)
		if c.cmd == nil {
			c.serve()
		}
		_ = waits.Wait() // it was cut, or answered after all
		var r result
		c.await(func() bool { r = c.sh("a", curl); return works(r) || over(r) }, 30*time.Second, "an answer after the "+round.kill+" was killed "+round.when)
		if round.must != nil && !round.must(r) {
			c.t.Errorf("the %s was killed %s: %+v", round.kill, round.when, r)
		}
		want := "connected"
		if over(r) {
			want = "reconnect-needed"
		}
		if out := c.run("connections", "a", "--json"); !strings.Contains(out, `"status":"`+want+`"`) || strings.Contains(out, `"status":"not-connected"`) {
			c.t.Errorf("the %s was killed %s: %s", round.kill, round.when, out)
		}
		s.desk.feels(nil)
		connect()
	}
}
