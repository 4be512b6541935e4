//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// attacker builds the hostile program that the tests run inside, once.
var attacker = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "ambit-e2e-attacker-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "attacker")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./attacker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the attacker: %w\n%s", err, out)
	}
	return os.ReadFile(path)
})

// attempt is one line of the attacker's output.
type attempt struct {
	Try    string `json:"try"`
	Worked bool   `json:"worked"`
	Detail string `json:"detail"`
}

// plant puts the attacker's program into an agent's workspace.
func (h *home) plant(agent string) {
	h.t.Helper()
	program, err := attacker()
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := h.tryWith(program, "exec", agent, "--", "sh", "-c", "cat >/workspace/attacker && chmod +x /workspace/attacker")
	if err != nil {
		h.t.Fatalf("planting the attacker: %v\n%s%s", err, r.stdout, r.stderr)
	}
}

// attack runs the attacker inside and returns what it says it did.
func (h *home) attack(agent string, args ...string) []attempt {
	h.t.Helper()
	r, err := h.try(append([]string{"exec", agent, "--", "/workspace/attacker"}, args...)...)
	if err != nil {
		h.t.Fatalf("attacker %s: %v\n%s%s", strings.Join(args, " "), err, r.stdout, r.stderr)
	}
	return attempts(h.t, r.stdout)
}

// attackEach lets the attacker ask several questions, by name, each with its
// own arguments of "ask".
func (h *home) attackEach(agent string, questions map[string][]string) []attempt {
	h.t.Helper()
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, name := range slices.Sorted(maps.Keys(questions)) {
		if err := enc.Encode(append(slices.Clone(questions[name]), name)); err != nil {
			h.t.Fatal(err)
		}
	}
	r, err := h.tryWith(in.Bytes(), "exec", agent, "--", "/workspace/attacker", "each")
	if err != nil {
		h.t.Fatalf("attacker each: %v\n%s%s", err, r.stdout, r.stderr)
	}
	list := attempts(h.t, r.stdout)
	if len(list) != len(questions) {
		h.t.Fatalf("%d questions, but %d answers: %s", len(questions), len(list), r.stdout)
	}
	return list
}

// attackRaw sends bytes to an address inside and returns what came back.
func (h *home) attackRaw(agent, addr, bytes string) string {
	h.t.Helper()
	r, _ := h.tryWith([]byte(bytes), "exec", agent, "--", "/workspace/attacker", "raw", addr)
	return r.stdout
}

func attempts(t *testing.T, out string) []attempt {
	t.Helper()
	var list []attempt
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var a attempt
		if err := dec.Decode(&a); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatalf("the attacker said %q: %v", out, err)
		}
		list = append(list, a)
	}
}

// canary listens on the host, for TCP and UDP at one address, and keeps what
// arrives. Nothing may.
type canary struct {
	addr netip.AddrPort
	mu   sync.Mutex
	got  []string
}

// newCanary listens at an address that other machines of the network could
// reach, or at a loopback one if this machine has no other.
func newCanary(t *testing.T) *canary {
	t.Helper()
	ip := netip.MustParseAddr("127.0.0.1")
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
				ip = p.Addr()
			}
		}
	}
	return newCanaryAt(t, ip)
}

func newCanaryAt(t *testing.T, ip netip.Addr) *canary {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	c := &canary{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	p, err := net.ListenPacket("udp", c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_, _ = l.Close(), p.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.note("tcp from " + conn.RemoteAddr().String())
			_ = conn.Close()
		}
	})
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			c.note(fmt.Sprintf("udp from %s: %q", from, b[:n]))
		}
	})
	return c
}

func (c *canary) note(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, s)
}

func (c *canary) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = nil
}

// arrived is what came so far. A connection of the test's own, made now, shows
// that the canary listens and that all that came before it was noted.
func (c *canary) arrived(t *testing.T) []string {
	t.Helper()
	conn, err := net.Dial("tcp", c.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	own := "tcp from " + conn.LocalAddr().String()
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	var others []string
	seen := false
	for _, s := range c.got {
		if s == own {
			seen = true
			continue
		}
		others = append(others, s)
	}
	if !seen {
		t.Fatal("the canary did not notice the test's own connection")
	}
	return others
}

// alert is one of `ambit alerts --json`.
type alert struct {
	Agent, Severity, Key, Title string
	Count                       uint64
}

func (h *home) alerts(agent string) []alert {
	h.t.Helper()
	out := h.run("alerts", "--agent", agent, "--json")
	var list struct{ Alerts []alert }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		h.t.Fatalf("alerts --json: %v\n%s", err, out)
	}
	return list.Alerts
}

// both runs a test in a home of an ordinary user and in one of root.
func both(t *testing.T, test func(t *testing.T, h *home)) {
	t.Run("ordinary user", func(t *testing.T) { test(t, newHome(t)) })
	t.Run("root", func(t *testing.T) { test(t, newRootHome(t)) })
}
