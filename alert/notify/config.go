package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"ambit"
	"ambit/alert"
	"ambit/audit/sink/outputs"
)

// Kind is the way in which a destination is told.
type Kind string

// The kinds.
const (
	Webhook Kind = "webhook"
	Email   Kind = "email"
)

// The values of Config.SMTP.
const (
	StartTLS    = "starttls" // TLS on the connection, before anything is said; the default
	ImplicitTLS = "tls"      // a TLS connection
	NoTLS       = "none"     // only to this machine
)

// Config is one destination. Which fields belong to which kind is said at each;
// the others are zero.
type Config struct {
	Name     string          // unique: 1 to 40 of a-z, 0-9 and -, the first a letter
	Kind     Kind            //
	Severity ambit.Severity  // the least severity of alerts that it is told
	Codes    []string        // the codes of alerts that it is told; nil for all
	Agents   []ambit.AgentID // whose alerts it is told; nil for all, and the control plane's

	// URL of a webhook: https, or http to this machine. It may have a secret in it,
	// and is in no error.
	URL string
	// SecretFile has, of a webhook, one to four keys, a line each, in the form
	// whsec_ and base64 of 24 to 64 bytes: a message has a signature of each. Of
	// e-mail it has the password of User. It is read each time.
	SecretFile string
	Insecure   bool // http or SMTP without TLS to another machine; only for URL

	Address string // of the mail server: host:port
	From    string // of e-mail: an address
	To      []string
	SMTP    string // StartTLS ("" too), ImplicitTLS or NoTLS
	User    string // of e-mail; "" for no login
	TLS     outputs.TLS
}

const maxTo = 50

// wants says whether the destination is told of an alert.
func (c *Config) wants(agent ambit.AgentID, a *alert.Alert) bool {
	return a.Severity >= c.Severity && (c.Codes == nil || slices.Contains(c.Codes, a.Code())) && (c.Agents == nil || slices.Contains(c.Agents, agent))
}

// Validate judges a configuration, without looking at files or the network.
func (c *Config) Validate() error {
	if ok, _ := regexp.MatchString(`^[a-z][a-z0-9-]{0,39}$`, c.Name); !ok {
		return fmt.Errorf("%q is not the name of a notification: 1 to 40 of a-z, 0-9 and -, the first a letter", c.Name)
	}
	var err error
	switch c.Kind {
	case Webhook:
		err = c.validateWebhook()
	case Email:
		err = c.validateEmail()
	default:
		err = fmt.Errorf("the kind %q is neither webhook nor email", c.Kind)
	}
	if err == nil && (c.TLS.Cert == "") != (c.TLS.Key == "") {
		err = errors.New("a certificate of ours needs its key, and the key the certificate")
	}
	if err == nil && c.Severity > ambit.Critical {
		err = errors.New("there is no such severity")
	}
	if err != nil {
		return fmt.Errorf("the notification %s: %w", c.Name, err)
	}
	return nil
}

func (c *Config) validateWebhook() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("the URL is none: write for example https://example.com/hook") // not the URL: it may have a secret in it
	case u.User != nil:
		return errors.New("the URL has a user name or password: the signature says who sends it")
	case u.Fragment != "":
		return errors.New("the URL has a fragment, which is never sent")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the URL is neither https nor http")
	case u.Scheme == "http" && !c.Insecure && !loopback(u.Hostname()):
		return errors.New("the URL is http to another machine, and everybody in between could read it: write https")
	case c.SecretFile == "":
		return errors.New("a webhook needs a file with the secret that signs its messages")
	case c.Address != "" || c.From != "" || c.To != nil || c.User != "" || c.SMTP != "":
		return errors.New("it is a webhook, and has what only e-mail has")
	}
	return nil
}

func (c *Config) validateEmail() error {
	host, port, err := net.SplitHostPort(c.Address)
	switch {
	case err != nil || host == "" || port == "" || strings.ContainsAny(c.Address, "\r\n "):
		return fmt.Errorf("%q is not the address of a mail server: write for example mail.example.com:587", c.Address)
	case c.URL != "":
		return errors.New("it is e-mail, and has what only a webhook has")
	case c.SMTP != "" && c.SMTP != StartTLS && c.SMTP != ImplicitTLS && c.SMTP != NoTLS:
		return fmt.Errorf("%q is none of starttls, tls and none", c.SMTP)
	case c.SMTP == NoTLS && !loopback(host):
		return errors.New("mail would go to another machine in the clear: write starttls or tls")
	case c.SMTP == NoTLS && c.User != "":
		return errors.New("a password is sent over TLS only: write starttls or tls, or no user")
	case (c.User == "") != (c.SecretFile == ""):
		return errors.New("a user needs a file with the password, and the password a user")
	case strings.ContainsAny(c.User, "\x00\r\n"):
		return errors.New("the user has a control character in it")
	case len(c.To) == 0 || len(c.To) > maxTo:
		return fmt.Errorf("there must be 1 to %d addresses that it goes to", maxTo)
	}
	for _, a := range append([]string{c.From}, c.To...) {
		if _, err := address(a); err != nil {
			return err
		}
	}
	return nil
}

// address reads an e-mail address. Only its plain form of ASCII is taken.
func address(s string) (*mail.Address, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsFunc(a.Address, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"<>(),;:\`, r) }) ||
		strings.ContainsFunc(a.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("%q is not an e-mail address: write for example security@example.com", s)
	}
	return a, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// open makes what delivers to the destination, and sees that its files can be
// read.
func (c *Config) open(version string) (func(context.Context, *message) error, error) {
	conf, err := c.TLS.Config()
	if err != nil {
		return nil, err
	}
	if c.Kind == Email {
		m := &mailer{config: *c, tls: conf}
		if _, err := m.password(); err != nil {
			return nil, err
		}
		return m.deliver, nil
	}
	w := newHook(c, conf, version)
	_, err = w.keys()
	return w.deliver, err
}
