package sink

import (
	"bufio"
	"bytes"
	"context"
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
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ambit"
	"ambit/audit/sink/outputs"
	"ambit/internal/standin"
)

// certificates makes an authority, and a certificate of it for localhost and
// 127.0.0.1; files of PEM in a new folder.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, own
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := make(root, root, nil)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafDER, leafKey := make(leaf, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", keyDER)
}

// collector is a receiver of syslog that is strict about every byte.
type collector struct {
	got
	t      *testing.T
	listen net.Listener
	secure *tls.Config

	mu       sync.Mutex
	messages []*standin.SyslogMessage
	hangUp   int // after so many messages a connection is dropped; 0 never
	dropped  int
	done     sync.WaitGroup
}

func newCollector(t *testing.T, secure *tls.Config, address string) *collector {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{t: t, listen: l, secure: secure}
	c.done.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.done.Wait()
	})
	return c
}

func (c *collector) accept() {
	for {
		conn, err := c.listen.Accept()
		if err != nil {
			return
		}
		c.done.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(c.t.Context(), func() { _ = conn.Close() }) // it ends before the clean-ups
			defer stop()
			c.serve(conn)
		})
	}
}

func (c *collector) serve(conn net.Conn) {
	if c.secure != nil {
		conn = tls.Server(conn, c.secure)
	}
	r := bufio.NewReaderSize(conn, 512)
	for n := 1; ; n++ {
		m, err := standin.ReadSyslog(r)
		if err != nil {
			var closed *net.OpError
			if !strings.Contains(err.Error(), "EOF") && !errors.As(err, &closed) && !strings.Contains(err.Error(), "tls") {
				c.t.Error(err)
			}
			return
		}
		c.mu.Lock()
		if c.hangUp > 0 && n > c.hangUp { // the last message is lost too
			c.dropped++
			c.hangUp *= 2
			c.mu.Unlock()
			return
		}
		c.messages = append(c.messages, m)
		c.mu.Unlock()
		seq, err := strconv.ParseUint(m.Data["ambit@"+enterprise]["seq"], 10, 64)
		if err != nil {
			c.t.Error(err)
		}
		c.add(m.Data["ambit@"+enterprise]["log"], seq)
	}
}

func serverTLS(t *testing.T, cert, key string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func syslogTo(t *testing.T, transport, address, ca string) *outputs.Sink {
	t.Helper()
	return &outputs.Sink{Kind: outputs.Syslog, Transport: transport, Address: address, TLS: outputs.TLS{CA: ca}, Facility: 13, MessageSize: 8192, Hostname: "control.example.com"}
}

// A receiver that drops its connections again and again, each time with messages
// that its system had and it had not read, gets everything, in order.
func TestSyslogDroppedConnections(t *testing.T) {
	ca, cert, key := certificates(t)
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			var secure *tls.Config
			if transport == "tls" {
				secure = serverTLS(t, cert, key)
			}
			c := newCollector(t, secure, "127.0.0.1:0")
			c.hangUp = 5
			s := open(t, syslogTo(t, transport, c.listen.Addr().String(), ca))
			s.Limits.Events = 20
			r, _ := start(t, quick(newCursors(), s))
			m := newMemory()
			m.write(200)
			add(t, r, support, m)
			until(t, func() error {
				if c.count(support.Name) < 200 {
					m.write(1) // what was sent before is found lost with the next
				}
				end, _ := m.End(t.Context())
				return c.whole(support.Name, int(end))
			})
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.dropped == 0 {
				t.Error("no connection was dropped")
			}
			first := c.messages[0]
			if first.Facility != 13 || first.Severity != 6 || first.Host != "control.example.com" || first.App != "ambit" || first.Kind != "egress.request" || !json.Valid([]byte(first.Message)) {
				t.Errorf("%+v", first)
			}
		})
	}
}

// A receiver that is not there at first, and then dies and comes back.
func TestSyslogRestart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	r, _ := start(t, quick(newCursors(), open(t, syslogTo(t, "tcp", address, ""))))
	m := newMemory()
	m.write(50)
	add(t, r, support, m)
	until(t, func() error {
		if s := r.Status()[0]; s.State != Failing {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	c := newCollector(t, nil, address)
	until(t, func() error { return c.whole(support.Name, 50) })
}

func TestSyslogWrongAuthority(t *testing.T) {
	_, cert, key := certificates(t)
	other, _, _ := certificates(t)
	c := newCollector(t, serverTLS(t, cert, key), "127.0.0.1:0")
	for _, ca := range []string{other, ""} {
		s := open(t, syslogTo(t, "tls", c.listen.Addr().String(), ca))
		if _, err := s.Receiver.Deliver(t.Context(), batch(1)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%v", err)
		}
		_ = s.Receiver.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.messages) > 0 {
		t.Error("something was sent")
	}
}

// A receiver that takes nothing more is given up on in time.
func TestSyslogStuckReceiver(t *testing.T) {
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	l, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, syslogTo(t, "tcp", l.Addr().String(), "")).Receiver
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	big := batch(1)
	big.Events[0].Detail = strings.Repeat("x", 8000)
	for range 50 {
		big.Events = append(big.Events, big.Events[0])
	}
	if _, err := s.Deliver(ctx, big); err == nil {
		t.Error("400 kB were taken by nobody")
	}
}

// Whatever an event says is one message, and its structured data is what it says.
func TestSyslogMessage(t *testing.T) {
	s := open(t, syslogTo(t, "tcp", "127.0.0.1:1", "")).Receiver.(*syslog)
	for _, hostile := range []string{`"]`, `\`, "a\nb", "\x00\x1b]0;x\a", "ü\u202e", `x" y="z`, strings.Repeat("long", 5000), "\xff"} {
		e := ambit.Event{Kind: ambit.Kind(hostile), Agent: ambit.AgentID(hostile), Principal: ambit.Principal(hostile), Detail: hostile, URL: hostile, Seq: 7, Time: time.Now()}
		for _, ocsf := range []bool{false, true} {
			s.ocsf = ocsf
			e.Agent, e.Principal = ambit.AgentID(hostile[:min(len(hostile), 40)]), ambit.Principal(hostile[:min(len(hostile), 40)])
			text, err := s.message(support, &e)
			if err != nil {
				t.Fatal(err)
			}
			m, err := standin.ReadSyslog(bufio.NewReader(bytes.NewReader(fmt.Appendf(nil, "%d %s", len(text), text))))
			if err != nil {
				t.Fatalf("%q: %v\n%s", hostile, err, text)
			}
			d := m.Data["ambit@"+enterprise]
			if !json.Valid([]byte(m.Message)) || d["seq"] != "7" || d["log"] != support.Name || d["decision"] != "deny" || len(d) > 6 {
				t.Errorf("%q: %+v", hostile, m)
			}
			if len(text) > 8192 != (len(hostile) > 1000 && len(text) > 8192) || len(hostile) > 1000 && d["cut"] != "true" {
				t.Errorf("%.20q: %d bytes, %v", hostile, len(text), d)
			}
		}
	}
	if s.hostname = header("ho st\n", 3); s.hostname != "ho?" {
		t.Error(s.hostname)
	}
}

// rsyslogd runs a real receiver with TLS on a port of loopback, which writes what it
// gets into a file, one message a line.
type rsyslogd struct {
	dir, config string
	port        int
	cmd         *exec.Cmd
	log         bytes.Buffer
}

func newRsyslogd(t *testing.T, cert, key, ca string) *rsyslogd {
	t.Helper()
	program := "/usr/sbin/rsyslogd"
	gtls, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_gtls.so")
	if _, err := os.Stat(program); err != nil || len(gtls) == 0 {
		t.Skip("needs rsyslogd with its gtls driver (packages rsyslog and rsyslog-gnutls)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rsyslogd{dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	_ = l.Close()
	r.config = filepath.Join(r.dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="64k" defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="lines" type="list") {
  property(name="pri") constant(value=" ") property(name="timereported" dateFormat="rfc3339") constant(value=" ") property(name="hostname") constant(value=" ")
  property(name="app-name") constant(value=" ") property(name="msgid") constant(value=" ") property(name="structured-data") constant(value=" ") property(name="msg" spifno1stsp="off") constant(value="\n")
}
ruleset(name="all") { action(type="omfile" file=%q template="lines" flushOnTXEnd="on" asyncWriting="off") }
input(type="imtcp" port="%d" address="127.0.0.1" ruleset="all")
`, r.dir, ca, cert, key, r.out(), r.port)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *rsyslogd) out() string { return filepath.Join(r.dir, "out.log") }

func (r *rsyslogd) start(t *testing.T) {
	t.Helper()
	r.cmd = exec.Command("/usr/sbin/rsyslogd", "-n", "-f", r.config, "-i", filepath.Join(r.dir, "pid"), "-C")
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

func (r *rsyslogd) stop(t *testing.T) {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait()
	r.cmd = nil
	if t.Failed() {
		t.Logf("rsyslogd said:\n%s", r.log.String())
	}
}

// has says what of n events is missing in the file.
func (r *rsyslogd) has(n int) error {
	text, err := os.ReadFile(r.out())
	if err != nil {
		return err
	}
	var g got
	for line := range strings.Lines(string(text)) {
		_, message, ok := strings.Cut(line, "] ")
		var e ambit.Event
		if !ok || json.Unmarshal([]byte(message), &e) != nil {
			return fmt.Errorf("a line is %q", line)
		}
		g.add(support.Name, e.Seq)
	}
	return g.whole(support.Name, n)
}

// rsyslog over TLS, with certificates on both sides, stopped and started again in
// the middle.
func TestRsyslog(t *testing.T) {
	ca, cert, key := certificates(t)
	receiver := newRsyslogd(t, cert, key, ca)
	c := syslogTo(t, "tls", fmt.Sprintf("127.0.0.1:%d", receiver.port), ca)
	c.TLS.Cert, c.TLS.Key = cert, key
	r, _ := start(t, quick(newCursors(), open(t, c)))
	m := newMemory()
	m.put(ambit.Event{Kind: ambit.KindAlert, Agent: "support", Severity: ambit.Critical, Detail: "hostile \r\n\x1b[31m\u202e\x00 \"] text"})
	add(t, r, support, m)
	until(t, func() error {
		if s := r.Status()[0]; s.State != Failing {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	receiver.start(t)
	m.write(499)
	until(t, func() error { return receiver.has(500) })
	text, err := os.ReadFile(receiver.out())
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if want := `106 ` + m.events[0].Time.Format("2006-01-02T15:04:05.000000Z"); !strings.HasPrefix(first, want) ||
		!strings.Contains(first, ` control.example.com ambit alert [ambit@32473 log="ambit/agent/support/00112233" seq="0" agent="support" decision="deny"] {`) {
		t.Errorf("the first line is %s, not %s", first, want)
	}
	var e ambit.Event
	if _, message, _ := strings.Cut(first, "] {"); json.Unmarshal([]byte("{"+message), &e) != nil || e.Detail != m.events[0].Detail {
		t.Errorf("the detail is %q", e.Detail)
	}
	receiver.stop(t)
	m.write(250)
	time.Sleep(20 * time.Millisecond) // whether it fails meanwhile or not: everything must arrive
	receiver.start(t)
	m.write(250)
	until(t, func() error { return receiver.has(1000) })
}
