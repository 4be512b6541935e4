//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// asked keeps what arrived at an upstream.
type asked struct {
	mu   sync.Mutex
	list []string
}

// ServeHTTP implements http.Handler.
func (a *asked) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.list = append(a.list, r.Method+" "+r.Host+r.URL.Path)
	a.mu.Unlock()
	_, _ = fmt.Fprint(w, "hello")
}

func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list = nil
	return list
}

// field is an agent that may reach a.example and b.example, and nothing below
// or beside them, at one upstream.
func field(t *testing.T, h *home) (*asked, *upstream) {
	seen := &asked{}
	u := newUpstream(t, seen, "a.example", "b.example", "*.wild.example", "evila.example", "a.example.evil.test")
	h.deploy(manifest("a", u.rule("a.example", "      paths: [/, /ok]")+u.rule("b.example")+u.rule("*.wild.example")))
	h.plant("a")
	return seen, u
}

// refused expects that the attacker gets no answer from upstream to any of the
// questions, and that nothing arrives there.
func refused(t *testing.T, h *home, seen *asked, questions map[string][]string) {
	t.Helper()
	for _, got := range h.attackEach("a", questions) {
		if got.Worked {
			t.Errorf("%s: %s", got.Try, got.Detail)
		}
	}
	if list := seen.take(); len(list) > 0 {
		t.Errorf("arrived: %v", list)
	}
}

// TestNamesFromInside (rows N1, N2, N3, N7, N8, inside).
func TestNamesFromInside(t *testing.T) {
	h := newHome(t)
	seen, u := field(t, h)
	port := fmt.Sprint(u.port)
	a, b := "a.example:"+port, "b.example:"+port
	address := func(name string) string {
		return strings.Fields(h.sh("a", "getent hosts "+name).stdout + " -")[0]
	}
	t.Run("the attacker's tools work", func(t *testing.T) {
		for _, way := range [][]string{{"-connect", a}, {"-dial", a}, {"-dial", address("a.example") + ":" + port}, {"-gate", "a.example " + port}} {
			got := h.attack("a", append([]string{"ask", "-sni", "a.example", "-header", a}, way...)...)
			if len(got) != 1 || !got[0].Worked || len(seen.take()) != 1 {
				t.Errorf("%v: %+v", way, got)
			}
		}
	})
	t.Run("N1 one name in CONNECT, another in the hello or the header", func(t *testing.T) {
		refused(t, h, seen, map[string][]string{
			"SNI":                     {"-connect", a, "-sni", "b.example", "-header", b},
			"SNI not allowed":         {"-connect", a, "-sni", "evil.example", "-header", a},
			"Host":                    {"-connect", a, "-sni", "a.example", "-header", b},
			"Host not allowed":        {"-connect", a, "-sni", "a.example", "-header", "evil.example"},
			"Host of another port":    {"-connect", a, "-sni", "a.example", "-header", "a.example:1"},
			"target of another host":  {"-connect", a, "-sni", "a.example", "-header", a, "-path", "https://" + b + "/"},
			"no SNI, Host of another": {"-connect", a, "-header", b},
		})
		got := h.attack("a", "ask", "-connect", a, "-sni", "a.example", "-header", a, "-then", b)
		if len(got) != 2 || !got[0].Worked || got[1].Worked {
			t.Errorf("Host changed on the second request: %+v", got)
		}
		if list := seen.take(); len(list) != 1 {
			t.Errorf("Host changed on the second request: arrived %v", list)
		}
	})
	t.Run("N2 an allowed SNI at an address of another name", func(t *testing.T) {
		questions := map[string][]string{
			"address of a":               {"-dial", address("a.example") + ":" + port},
			"an address that nobody has": {"-dial", "127.64.200.200:" + port},
			"a named to the gate":        {"-gate", "a.example " + port},
			"an address to the gate":     {"-gate", "127.0.0.1 " + port},
			"a public one to the gate":   {"-gate", "93.184.216.34 " + port},
		}
		for what := range questions {
			questions[what] = append(questions[what], "-sni", "b.example", "-header", b)
		}
		refused(t, h, seen, questions)
	})
	t.Run("N3 names written in other ways", func(t *testing.T) {
		for _, same := range []string{"A.EXAMPLE:" + port, "a.example.:" + port} {
			if got := h.attack("a", "ask", "-connect", same, "-sni", "a.example", "-header", a); len(got) != 1 || !got[0].Worked {
				t.Errorf("CONNECT %s: %+v", same, got)
			}
			seen.take()
			refused(t, h, seen, map[string][]string{same + ", a path that is not allowed": {"-connect", same, "-sni", "a.example", "-header", a, "-path", "/no"}})
		}
		others := map[string][]string{}
		for _, other := range []string{
			"[a.example]", "a%2eexample", "a.example%00.evil.test", "user@a.example", "ａ.example", "a。example", "a.example..", ".a.example",
			"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f000001", "a_.example", "-a.example", "1.wild.example.127.0.0.1",
		} {
			others["CONNECT "+other] = []string{"-connect", other + ":" + port, "-sni", "a.example", "-header", a}
		}
		refused(t, h, seen, others)
	})
	t.Run("N7 suffixes and prefixes", func(t *testing.T) {
		questions := map[string][]string{}
		for _, name := range []string{"a.example.evil.test", "evila.example", "x.a.example", "example", "wild.example", "evilwild.example"} {
			host := name + ":" + port
			questions["CONNECT "+name] = []string{"-connect", host, "-sni", name, "-header", host}
			questions["dial "+name] = []string{"-dial", host, "-sni", name, "-header", host}
		}
		refused(t, h, seen, questions)
	})
	t.Run("N8 upgrades and tunnels", func(t *testing.T) {
		for what, args := range map[string][]string{
			"websocket": {"-upgrade", "websocket"}, "h2c": {"-upgrade", "h2c"}, "another protocol": {"-upgrade", "foo/1"},
			"CONNECT inside": {"-method", "CONNECT", "-path", b},
		} {
			got := h.attack("a", append([]string{"ask", "-connect", a, "-sni", "a.example", "-header", a}, args...)...)
			if len(got) != 1 || strings.HasPrefix(got[0].Detail, "101") || what == "CONNECT inside" && got[0].Worked {
				t.Errorf("%s: %+v", what, got)
			}
			seen.take()
		}
	})
	codes := map[string]int{}
	for _, c := range h.calls("a", "--denied") {
		codes[c.Reason.Code]++
	}
	for _, code := range []string{"name-mismatch", "host-not-allowed", "bad-request", "path-not-allowed"} {
		if codes[code] == 0 {
			t.Errorf("the log has no refusal %s; it has %v", code, codes)
		}
	}
	if !strings.Contains(h.run("alerts", "--agent", "a", "--min", "high"), "a.example") {
		t.Errorf("no alert of severity high: %s", h.run("alerts", "--agent", "a"))
	}
}

// TestN9PlainHTTPFromInside (row N9, inside): without TLS the same rules hold.
func TestN9PlainHTTPFromInside(t *testing.T) {
	seen := &asked{}
	s := httptest.NewServer(seen)
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	h := newHome(t)
	h.deploy(manifest("a", "    - host: plain.example\n      ports: ["+port+"]\n      tls: none\n      private: true\n      resolve: [127.0.0.1]\n      methods: [GET]\n      paths: [/ok]\n"))
	h.plant("a")
	host := "plain.example:" + port
	ask := func(args ...string) []attempt {
		return h.attack("a", append([]string{"ask", "-plain", "-header", host}, args...)...)
	}
	if got := ask("-dial", host, "-path", "/ok"); len(got) != 1 || !got[0].Worked || len(seen.take()) != 1 {
		t.Errorf("an allowed request: %+v", got)
	}
	if got := ask("-path", "http://"+host+"/ok"); len(got) != 1 || !got[0].Worked || len(seen.take()) != 1 {
		t.Errorf("an allowed request through the proxy: %+v", got)
	}
	questions := map[string][]string{
		"path":                {"-dial", host, "-path", "/no"},
		"path, by the proxy":  {"-path", "http://" + host + "/no"},
		"method":              {"-dial", host, "-path", "/ok", "-method", "POST"},
		"Host":                {"-dial", host, "-path", "/ok", "-header", "evil.example"},
		"dot segments":        {"-dial", host, "-path", "/ok/../no"},
		"another host":        {"-path", "http://evil.example:" + port + "/ok", "-header", "evil.example:" + port},
		"Host is not target":  {"-path", "http://" + host + "/ok", "-header", "evil.example"},
		"https on plain port": {"-path", "https://" + host + "/ok"},
	}
	for what, args := range questions {
		questions[what] = append([]string{"-plain", "-header", host}, args...)
	}
	refused(t, h, seen, questions)
}
