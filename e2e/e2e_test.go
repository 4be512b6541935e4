//go:build linux

// Package e2e runs the built binary for real: real gVisor, real TLS, real
// SQLite, agents in their computers. Nothing of ours is replaced here.
package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ordinaryUser is who runs serve in most tests when the tests themselves run
// as root: somebody without any privilege.
const ordinaryUser = 61234

// binary builds ambit once, or takes the one that AMBIT_BINARY names.
var binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("AMBIT_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "ambit-e2e-bin-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ambit")
	out, err := exec.Command("../scripts/build", path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building ambit: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil && os.Getenv("AMBIT_BINARY") == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// home is a control plane of a test's own.
type home struct {
	t    *testing.T
	bin  string
	dir  string
	uid  int      // who runs it
	env  []string // more variables for serve
	args []string // more arguments for serve
	wrap []string // what starts serve, "" for itself
	cmd  *exec.Cmd
	logs *lockedBuffer
	// heard has all that commands said, if it is not nil.
	heard *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newHome makes a home and starts serve in it, as an ordinary user.
func newHome(t *testing.T) *home {
	return newHomeOf(t, ordinary())
}

// ordinary is a user without any privilege: who runs the tests, unless that is
// root.
func ordinary() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return ordinaryUser
}

// newRootHome does it as root, with a user id for each agent.
func newRootHome(t *testing.T) *home {
	if os.Geteuid() != 0 {
		t.Skip("this test starts ambit serve as root, and the tests do not run as root")
	}
	return newHomeOf(t, 0)
}

func newHomeOf(t *testing.T, uid int) *home {
	t.Helper()
	h := makeHome(t, uid)
	h.serve()
	return h
}

// makeHome makes the folder without starting anything.
func makeHome(t *testing.T, uid int) *home {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// Short, since a Unix socket's path may have 107 bytes.
	parent, err := os.MkdirTemp("", "ambit-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "h")
	if err := errors.Join(os.Chmod(parent, 0o755), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	h := &home{t: t, bin: bin, dir: dir, uid: uid, logs: &lockedBuffer{}}
	t.Cleanup(func() {
		h.stop()
		if t.Failed() {
			t.Logf("serve said:\n%s", h.logs)
			h.showWorkerLogs()
		}
		_ = os.RemoveAll(parent)
	})
	return h
}

func (h *home) showWorkerLogs() {
	list, _ := filepath.Glob(filepath.Join(h.dir, "log", "*"))
	for _, p := range list {
		if b, err := os.ReadFile(p); err == nil && len(b) > 0 {
			h.t.Logf("%s:\n%s", filepath.Base(p), b)
		}
	}
}

func (h *home) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.bin, args...)
	cmd.Env = []string{"AMBIT_HOME=" + h.dir, "PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TERM=dumb"}
	cmd.Dir = "/"
	if os.Geteuid() == 0 && h.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.uid)}}
	}
	return cmd
}

// inOwnMounts makes serve start in a mount namespace of its own in which the
// shell line was run first. It needs root, and serve drops it if it is an
// ordinary user's.
func (h *home) inOwnMounts(line string) {
	h.wrap = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", line + ` && exec "$@"`, "sh"}
	if h.uid != 0 {
		id := strconv.Itoa(h.uid)
		h.wrap = append(h.wrap, "setpriv", "--reuid="+id, "--regid="+id, "--clear-groups")
	}
}

func (h *home) serveCommand() *exec.Cmd {
	cmd := h.command(append([]string{"serve"}, h.args...)...)
	cmd.Env = append(cmd.Env, h.env...)
	if len(h.wrap) == 0 {
		return cmd
	}
	wrapped := exec.Command(h.wrap[0], append(h.wrap[1:], cmd.Args...)...)
	wrapped.Args[len(h.wrap)] = h.bin
	wrapped.Env, wrapped.Dir = cmd.Env, cmd.Dir
	return wrapped
}

// serve starts the control plane and waits until it answers.
func (h *home) serve() {
	h.t.Helper()
	h.cmd = h.serveCommand()
	h.cmd.Stdout, h.cmd.Stderr = h.logs, h.logs
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	died := make(chan struct{})
	cmd := h.cmd
	go func() { _ = cmd.Wait(); close(died) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(h.dir, "run", "ambit.sock"))
		if err == nil {
			_ = c.Close()
			if _, err := h.try("agents", "--json"); err == nil {
				return
			}
		}
		select {
		case <-died:
			h.t.Fatalf("serve ended at once:\n%s", h.logs)
		default:
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("serve does not answer:\n%s", h.logs)
		}
	}
}

// stop ends the control plane in good order, and with it every agent.
func (h *home) stop() {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	h.await(func() bool { return !alive(h.cmd.Process.Pid) }, 40*time.Second, "serve to end")
	h.cmd = nil
}

// kill ends the control plane alone, as kill -9 does.
func (h *home) kill() {
	h.t.Helper()
	_ = h.cmd.Process.Kill()
	h.await(func() bool { return !alive(h.cmd.Process.Pid) }, 10*time.Second, "serve to die")
	h.cmd = nil
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// await polls a condition of another process.
func (h *home) await(ok func() bool, limit time.Duration, what string) {
	h.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// result is how a command of ours ended.
type result struct {
	code           int
	stdout, stderr string
}

func (h *home) try(args ...string) (result, error) { return h.tryWith(nil, args...) }

func (h *home) tryWith(stdin []byte, args ...string) (result, error) {
	cmd := h.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	if h.heard != nil {
		_, _ = fmt.Fprintf(h.heard, "%s%s", &out, &errOut)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}, err
}

// run runs a command that must succeed, and returns its standard output.
func (h *home) run(args ...string) string {
	h.t.Helper()
	r, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("ambit %s: %v\n%s%s", strings.Join(args, " "), err, r.stdout, r.stderr)
	}
	return r.stdout
}

// deploy deploys a manifest that must be good.
func (h *home) deploy(manifest string) {
	h.t.Helper()
	r, err := h.tryWith([]byte(manifest), "deploy", "-")
	if err != nil {
		h.t.Fatalf("deploy: %v\n%s%s\n%s", err, r.stdout, r.stderr, manifest)
	}
}

// sh runs a shell line in an agent's computer.
func (h *home) sh(agent, line string) result {
	h.t.Helper()
	r, _ := h.try("exec", agent, "--", "sh", "-c", line)
	return r
}

// call is what `ambit egress --json` says of one call.
type call struct {
	Seq      uint64 `json:"seq"`
	Action   string `json:"action"`
	Method   string `json:"method"`
	Host     string `json:"host"`
	URL      string `json:"url"`
	Intent   string `json:"intent"`
	Decision string `json:"decision"`
	Rule     string `json:"rule"`
	Reason   *struct{ Code, Text, Remedy string }
	Status   int   `json:"status"`
	BytesIn  int64 `json:"bytesIn"`
	Done     bool  `json:"done"`
}

func (h *home) calls(agent string, flags ...string) []call {
	h.t.Helper()
	out := h.run(append([]string{"egress", agent, "--json"}, flags...)...)
	var calls []call
	if err := json.Unmarshal([]byte(out), &calls); err != nil {
		h.t.Fatalf("egress --json: %v\n%s", err, out)
	}
	return calls
}

// upstream is a service with HTTPS on loopback.
type upstream struct {
	*httptest.Server
	ca   string // PEM
	port int
}

// newUpstream serves handler for the given names.
func newUpstream(t *testing.T, handler http.Handler, names ...string) *upstream {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "e2e upstream"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return &upstream{
		Server: s, port: s.Listener.Addr().(*net.TCPAddr).Port,
		ca: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
}

// rule is a manifest rule for name at this upstream, with more keys.
func (u *upstream) rule(name string, more ...string) string {
	indented := strings.ReplaceAll(strings.TrimSpace(u.ca), "\n", "\n        ")
	lines := append([]string{
		"    - host: " + strconv.Quote(name),
		"      ports: [" + strconv.Itoa(u.port) + "]",
		"      private: true",
		"      resolve: [127.0.0.1]",
		"      ca: |\n        " + indented,
	}, more...)
	return strings.Join(lines, "\n") + "\n"
}

func (u *upstream) url(name, path string) string {
	return fmt.Sprintf("https://%s:%d%s", name, u.port, path)
}

func manifest(name, rules string, more ...string) string {
	s := "ambit: v1\nname: " + name + "\n" + strings.Join(more, "")
	if rules != "" {
		s += "egress:\n  allow:\n" + rules
	}
	return s
}
