package notify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"ambit"
	"ambit/alert"
	"ambit/audit/sink/outputs"
)

const password = "correct horse battery"

// mailServer is a real SMTP server that keeps what it takes.
type mailServer struct {
	*smtp.Server
	address string
	ca      string // file
	mechs   []string

	mu     sync.Mutex
	mails  []taken
	refuse map[string]bool // addresses
	down   bool
	hello  int // sessions
}

type taken struct {
	from string
	to   []string
	data []byte
	user string
	tls  bool
	at   time.Time
}

type session struct {
	s    *mailServer
	conn *smtp.Conn
	mail taken
}

func (s *session) AuthMechanisms() []string { return s.s.mechs }

func (s *session) Auth(mech string) (sasl.Server, error) {
	check := func(user, pass string) error {
		if user != "ambit" || pass != password {
			return &smtp.SMTPError{Code: 535, Message: "no: " + pass} // a server that repeats what it got
		}
		s.mail.user = user
		return nil
	}
	if mech == "PLAIN" {
		return sasl.NewPlainServer(func(_, user, pass string) error { return check(user, pass) }), nil
	}
	return &loginServer{check: check}, nil
}

// loginServer is the other side of LOGIN.
type loginServer struct {
	check func(user, pass string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) ([]byte, bool, error) {
	switch l.step++; l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.down {
		return &smtp.SMTPError{Code: 451, Message: "try again later"}
	}
	s.mail.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	if s.s.refuse[to] {
		return &smtp.SMTPError{Code: 550, Message: "nobody \x1b[2J here"}
	}
	s.mail.to = append(s.mail.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	_, s.mail.tls = s.conn.TLSConnectionState()
	s.mail.data, s.mail.at = data, time.Now()
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	s.s.mails = append(s.s.mails, s.mail)
	return err
}

func (*session) Reset()        {}
func (*session) Logout() error { return nil }

func (s *mailServer) got() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]taken(nil), s.mails...)
}

// newMailServer serves STARTTLS, or TLS from the beginning, or neither.
func newMailServer(t *testing.T, mode string) *mailServer {
	t.Helper()
	s := &mailServer{mechs: []string{"PLAIN", "LOGIN"}, refuse: map[string]bool{}}
	s.Server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hello++
		return &session{s: s, conn: c}, nil
	}))
	s.Domain, s.ErrorLog = "mail.example", log.New(io.Discard, "", 0)
	cert, ca := certificate(t)
	s.ca = ca
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	switch mode {
	case StartTLS:
		s.TLSConfig = conf
	case ImplicitTLS:
		l = tls.NewListener(l, conf)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _, _ = s.Close(), l.Close(); <-done }) // Close alone misses a Serve that has not begun
	return s
}

func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"mail.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func mailTo(t *testing.T, s *mailServer, mode string) Config {
	c := Config{
		Name: "security", Kind: Email, Address: s.address, From: "Ambit <ambit@example.com>", To: []string{"ops@example.com", "Ünï <sec@example.org>"},
		SMTP: mode, TLS: outputs.TLS{CA: s.ca},
	}
	if mode != NoTLS {
		c.User, c.SecretFile = "ambit", secretFile(t, password)
	}
	return c
}

// parse reads a mail as a mail program does.
func parse(t *testing.T, data []byte) (*mail.Message, string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return m, strings.ReplaceAll(string(text), "\r\n", "\n")
}

func TestEmail(t *testing.T) {
	for _, mode := range []string{StartTLS, ImplicitTLS, NoTLS} {
		t.Run(mode, func(t *testing.T) {
			s := newMailServer(t, mode)
			book := bookOf(t, "support")
			n, lines, _ := run(t, filepath.Join(t.TempDir(), "n"), books{"support": book}, mailTo(t, s, mode))
			book.Raise(ambit.High, "foreign-credential a.example", "refused: POST a.example: no", 7)
			await(t, "a mail", func() bool { return len(s.got()) == 1 })
			got := s.got()[0]
			if got.from != "ambit@example.com" || strings.Join(got.to, " ") != "ops@example.com sec@example.org" || got.tls != (mode != NoTLS) || (got.user == "ambit") != (mode != NoTLS) {
				t.Errorf("%+v", got)
			}
			m, text := parse(t, got.data)
			want := "HIGH  support  foreign-credential\n  refused: POST a.example: no\n  alert 1, counted 1, the last at " + time.Now().UTC().Format("2006-")
			if !strings.HasPrefix(text, want) || !strings.Contains(text, "ambit alerts mute --agent support 1\n") {
				t.Errorf("%s", text)
			}
			for name, want := range map[string]string{
				"Subject": "[Ambit] high: support: refused: POST a.example: no", "From": `"Ambit" <ambit@example.com>`, "Auto-Submitted": "auto-generated",
				"To": `<ops@example.com>, =?utf-8?q?=C3=9Cn=C3=AF?= <sec@example.org>`, "Content-Type": "text/plain; charset=utf-8",
			} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if _, err := m.Header.Date(); err != nil || !strings.HasSuffix(m.Header.Get("Message-Id"), "@example.com>") {
				t.Errorf("%v", m.Header)
			}
			if err := n.Test(t.Context(), "security"); err != nil {
				t.Error(err)
			}
			if all := s.got(); len(all) != 2 || !strings.Contains(string(all[1].data), "This is a test") {
				t.Errorf("%d mails", len(all))
			}
			if strings.Contains(lines.String(), password) {
				t.Error(lines)
			}
		})
	}
}

func TestEmailWithLoginOnly(t *testing.T) {
	s := newMailServer(t, StartTLS)
	s.mechs = []string{"LOGIN"}
	n, _, _ := run(t, filepath.Join(t.TempDir(), "n"), books{}, mailTo(t, s, StartTLS))
	if err := n.Test(t.Context(), "security"); err != nil || s.got()[0].user != "ambit" {
		t.Error(err)
	}
}

// Nothing is sent to a server that is not the one that was meant, or in the
// clear, and nothing of the password comes back in an error.
func TestEmailRefused(t *testing.T) {
	other, ca := certificate(t)
	_ = other
	for name, c := range map[string]struct {
		serve  string
		change func(*Config, *mailServer)
		want   string
	}{
		"no STARTTLS":       {"clear", func(c *Config, _ *mailServer) { c.SMTP = "" }, "does not offer STARTTLS"},
		"another authority": {StartTLS, func(c *Config, _ *mailServer) { c.TLS.CA = ca }, "STARTTLS"},
		"another name":      {StartTLS, func(c *Config, _ *mailServer) { c.TLS.ServerName = "other.example" }, "other.example"},
		"TLS, another name": {ImplicitTLS, func(c *Config, _ *mailServer) { c.SMTP, c.TLS.ServerName = ImplicitTLS, "other.example" }, "other.example"},
		"wrong password":    {StartTLS, func(c *Config, _ *mailServer) { c.SecretFile = secretFile(t, "hunter2") }, "refused the login of ambit (535)"},
		"no way to log in":  {StartTLS, func(_ *Config, s *mailServer) { s.mechs = []string{"CRAM-MD5"} }, "neither AUTH PLAIN nor AUTH LOGIN"},
		"nobody there":      {StartTLS, func(_ *Config, s *mailServer) { s.refuse["ops@example.com"], s.refuse["sec@example.org"] = true, true }, `nobody \x1b[2J here`},
		"later":             {StartTLS, func(_ *Config, s *mailServer) { s.down = true }, "451 \"4.0.0 try again later\""},
		"not there":         {StartTLS, func(c *Config, _ *mailServer) { c.Address = "127.0.0.1:1" }, "calling the mail server"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newMailServer(t, c.serve)
			config := mailTo(t, s, StartTLS)
			c.change(&config, s)
			n, _, _ := run(t, filepath.Join(t.TempDir(), "n"), books{}, config)
			err := n.Test(t.Context(), "security")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), password) || strings.ContainsAny(err.Error(), "\x1b\r") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if len(s.got()) != 0 {
				t.Error("a mail was sent")
			}
		})
	}
	// One address of several that is refused keeps nothing from the others.
	s := newMailServer(t, StartTLS)
	s.refuse["ops@example.com"] = true
	n, _, _ := run(t, filepath.Join(t.TempDir(), "n"), books{}, mailTo(t, s, StartTLS))
	if err := n.Test(t.Context(), "security"); err != nil || len(s.got()) != 1 || len(s.got()[0].to) != 1 {
		t.Errorf("%v, %+v", err, s.got())
	}
}

// Many alerts at once are one mail, with room for the gravest, and the next mail
// waits.
func TestDigest(t *testing.T) {
	s := newMailServer(t, NoTLS)
	book := bookOf(t, "support")
	n, err := Open(Options{Destinations: []Config{mailTo(t, s, NoTLS)}, State: filepath.Join(t.TempDir(), "n"), Sources: books{"support": book}.sources, Log: nothing()})
	if err != nil {
		t.Fatal(err)
	}
	const every = 1500 * time.Millisecond
	n.pace.poll, n.pace.gather, n.pace.every = 20*time.Millisecond, 20*time.Millisecond, func(Kind) time.Duration { return every }
	for i := range 140 {
		book.Raise(ambit.Low, fmt.Sprintf("many %d", i), "t", 0)
	}
	book.Raise(ambit.Critical, "grave x", "the gravest", 0)
	await(t, "the book to write", func() bool {
		news, err := book.News(t.Context(), alert.NewsQuery{})
		return err == nil && len(news.Items) == 141
	})
	done := make(chan struct{})
	ctx, cancel := contextOf(t)
	go func() { defer close(done); n.Run(ctx) }()
	defer func() { cancel(); <-done }()
	await(t, "a mail", func() bool { return len(s.got()) == 1 })
	m, text := parse(t, s.got()[0].data)
	if got := m.Header.Get("Subject"); got != "[Ambit] 141 alerts, the highest critical" {
		t.Error(got)
	}
	if !strings.HasPrefix(text, "CRITICAL  support  grave\n  the gravest\n") || !strings.Contains(text, "There are 41 more.") || strings.Count(text, "\nLOW ") != 99 {
		t.Errorf("%s", text)
	}
	for i := range 3 {
		book.Raise(ambit.Low, fmt.Sprintf("later %d", i), "t", 0)
	}
	await(t, "another mail", func() bool { return len(s.got()) == 2 })
	all := s.got()
	if gap := all[1].at.Sub(all[0].at); gap < every-100*time.Millisecond {
		t.Errorf("the next came after %v", gap)
	}
	if n.Status()[0].Waiting != 0 {
		t.Errorf("%+v", n.Status())
	}
}

// FuzzCompose: whatever an alert says, the mail has the headers that it should
// have and no other, and lines of text that do nothing.
func FuzzCompose(f *testing.F) {
	for _, s := range []string{"plain", "a\r\nBcc: victim@example.com", "\n\n.\r\nMAIL FROM:<x>", "\x1b[2J\u202e\xff", "=?utf-8?q?=0D=0ABcc:_x?=", "<script>alert(1)</script>", strings.Repeat("é", 3000)} {
		f.Add(s, s, uint8(4))
	}
	m := &mailer{config: Config{From: "ambit@example.com", To: []string{"ops@example.com", "b@example.com"}}}
	f.Fuzz(func(t *testing.T, title, agent string, severity uint8) {
		b := batch{items: []item{{source: Source{Name: agent, Agent: ambit.AgentID(agent)}, book: title, NewsAlert: alert.NewsAlert{Position: 1, Alert: alert.Alert{Key: title, Title: title, Severity: ambit.Severity(severity)}}}}}
		msg := b.message()
		data := m.compose(msg, "<ambit@example.com>", "ambit@example.com")
		parsed, err := mail.ReadMessage(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if len(parsed.Header) != 9 {
			t.Errorf("headers: %v", parsed.Header)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range subject + strings.ReplaceAll(string(text), "\r\n", "") {
			if !unicode.IsGraphic(r) {
				t.Errorf("%U in %q", r, text)
			}
		}
		for l := range strings.SplitSeq(string(data), "\r\n") {
			if strings.ContainsAny(l, "\r\n") || len(l) > 998 {
				t.Errorf("a line %q", l)
			}
		}
		if body, err := msg.body(); err != nil || bytes.ContainsAny(body, "<>\x1b\r\n") {
			t.Errorf("%s, %v", body, err)
		}
	})
}

func TestAddress(t *testing.T) {
	for _, s := range []string{"", "a", "a@b\r\nX: y", "a@b, c@d", "a b@c", "a@b;c", "<a@b> x", "\"\x00\" <a@b>"} {
		if a, err := address(s); err == nil {
			t.Errorf("%q is read as %v", s, a)
		}
	}
}

func TestBackoff(t *testing.T) {
	for failures, most := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 8: 640 * time.Second, 9: 15 * time.Minute, 1000: 15 * time.Minute} {
		if d := backoff(5*time.Second, 15*time.Minute, failures); d > most || d < most*4/5 {
			t.Errorf("after %d: %v, want about %v", failures, d, most)
		}
	}
}
