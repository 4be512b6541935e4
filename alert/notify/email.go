package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"ambit/audit/sink/outputs"
	"ambit/internal/inert"
	"ambit/internal/secretbytes"
)

// mailer delivers by e-mail (RFC 5321). The server has a message when it takes
// it for one of the addresses at least.
type mailer struct {
	config Config
	tls    *tls.Config
}

// password is that of the user; none if there is no user.
func (m *mailer) password() (secretbytes.Bytes, error) {
	if m.config.User == "" {
		return secretbytes.Bytes{}, nil
	}
	p, err := outputs.ReadSecret(m.config.SecretFile)
	if err == nil && bytes.ContainsAny(p.Reveal(), "\x00\r\n") {
		return secretbytes.Bytes{}, fmt.Errorf("%s has more than one line", m.config.SecretFile)
	}
	return p, err
}

func (m *mailer) deliver(ctx context.Context, msg *message) error {
	from, err := address(m.config.From)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(m.config.Address)
	if err != nil {
		return fmt.Errorf("reading the server's address: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.config.Address)
	if err != nil {
		return fmt.Errorf("calling the mail server: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if t, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(t)
	}
	client, err := m.greet(ctx, conn, host)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := m.login(client); err != nil {
		return err
	}
	if err := client.Mail(from.Address); err != nil {
		return said("the mail server does not take mail from "+from.Address, err)
	}
	taken, refused := 0, []string{}
	for _, to := range m.config.To {
		a, err := address(to)
		if err != nil {
			return err
		}
		if err := client.Rcpt(a.Address); err != nil {
			refused = append(refused, said("the mail server does not take mail for "+a.Address, err).Error())
			continue
		}
		taken++
	}
	if taken == 0 {
		return errors.New(strings.Join(refused, "; "))
	}
	w, err := client.Data()
	if err != nil {
		return said("the mail server does not take the mail", err)
	}
	if _, err := w.Write(m.compose(msg, from.String(), from.Address)); err != nil {
		return said("sending the mail", err)
	}
	if err := w.Close(); err != nil {
		return said("the mail server does not take the mail", err)
	}
	_ = client.Quit() // it has the mail already
	return nil
}

// greet begins the conversation, with TLS unless the server is on this machine
// and the configuration says so. Nothing is said in the clear but that TLS is
// wanted.
func (m *mailer) greet(ctx context.Context, conn net.Conn, host string) (*smtp.Client, error) {
	conf := m.tls.Clone()
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	if m.config.SMTP == ImplicitTLS {
		secure := tls.Client(conn, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("a TLS connection to the mail server: %w", err)
		}
		conn = secure
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		return nil, said("greeting the mail server", err)
	}
	if m.config.SMTP == ImplicitTLS || m.config.SMTP == NoTLS {
		return client, nil
	}
	if ok, _ := client.Extension("STARTTLS"); !ok {
		return nil, errors.New("the mail server does not offer STARTTLS, and nothing is sent in the clear: see that it does, or write tls if the port is one for TLS")
	}
	if err := client.StartTLS(conf); err != nil {
		return nil, said("STARTTLS with the mail server", err)
	}
	return client, nil
}

// login shows the password, over TLS only.
func (m *mailer) login(client *smtp.Client) error {
	if m.config.User == "" {
		return nil
	}
	if _, secure := client.TLSConnectionState(); !secure {
		return errors.New("a password is sent over TLS only")
	}
	password, err := m.password()
	if err != nil {
		return err
	}
	defer password.Wipe()
	offered, methods := client.Extension("AUTH")
	words := strings.Fields(strings.ToUpper(methods))
	var auth smtp.Auth
	switch {
	case offered && slices.Contains(words, "PLAIN"):
		auth = plain{m.config.User, password}
	case offered && slices.Contains(words, "LOGIN"):
		auth = &login{user: m.config.User, password: password}
	default:
		return errors.New("the mail server offers neither AUTH PLAIN nor AUTH LOGIN")
	}
	if err := client.Auth(auth); err != nil {
		code := 0
		var p *textproto.Error
		if errors.As(err, &p) {
			code = p.Code
		}
		return fmt.Errorf("the mail server refused the login of %s (%d)", inert.Text(m.config.User), code) // not err: a server may repeat what it was sent
	}
	return nil
}

// plain is SASL PLAIN (RFC 4616).
type plain struct {
	user     string
	password secretbytes.Bytes
}

// Start implements smtp.Auth.
func (p plain) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", append([]byte("\x00"+p.user+"\x00"), p.password.Reveal()...), nil
}

// Next implements smtp.Auth.
func (p plain) Next(_ []byte, more bool) ([]byte, error) {
	if more {
		return nil, errors.New("the server asks for more")
	}
	return nil, nil
}

// login is LOGIN, which has no standard: the user's name, then the password.
type login struct {
	user     string
	password secretbytes.Bytes
	step     int
}

// Start implements smtp.Auth.
func (*login) Start(*smtp.ServerInfo) (string, []byte, error) { return "LOGIN", nil, nil }

// Next implements smtp.Auth.
func (l *login) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	switch l.step++; l.step {
	case 1:
		return []byte(l.user), nil
	case 2:
		return l.password.Reveal(), nil
	}
	return nil, errors.New("the server asks for more")
}

// said makes an error of what a server said one inert line.
func said(doing string, err error) error {
	return fmt.Errorf("%s: %s", doing, line(err.Error(), 300))
}

// compose writes the message (RFC 5322). Its headers have nothing of an agent
// but the subject, which is one line and encoded.
func (m *mailer) compose(msg *message, from, plainFrom string) []byte {
	var to []string
	for _, t := range m.config.To {
		if a, err := address(t); err == nil {
			to = append(to, a.String())
		}
	}
	_, domain, _ := strings.Cut(plainFrom, "@")
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("From", from)
	header("To", strings.Join(to, ",\r\n "))
	// What looks like an encoded word would be decoded by who reads it, line breaks
	// in it too (RFC 2047).
	header("Subject", mime.QEncoding.Encode("utf-8", strings.ReplaceAll(msg.subject(), "=?", "= ?")))
	header("Date", time.Now().UTC().Format(time.RFC1123Z))
	header("Message-ID", fmt.Sprintf("<%s@%s>", msg.id, domain))
	header("Auto-Submitted", "auto-generated") // RFC 3834: nobody answers
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(strings.ReplaceAll(msg.text(), "\n", "\r\n"))) // to memory
	_ = q.Close()
	return b.Bytes()
}
