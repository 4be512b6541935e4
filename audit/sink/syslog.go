package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"ambit"
	"ambit/audit/sink/format"
	"ambit/audit/sink/outputs"
	"ambit/internal/inert"
)

// enterprise is the private enterprise number of our structured data: the one
// that RFC 5612 keeps for documentation, until there is one of our own.
const enterprise = "32473"

const (
	confirm      = 10 * time.Second // how long a batch is kept that the receiver's system has
	maxUncertain = 8 << 20          // and at most so many bytes of them
)

// syslog sends messages of RFC 5424 over TLS (RFC 5425) or TCP (RFC 6587), each
// with its length before it.
//
// Syslog has no acknowledgements. What can be known without them is used: a
// connection that the other side has closed is noticed before anything is written
// to it; a batch counts as delivered when the other side's system has confirmed
// every byte of it (Linux tells that of a socket); and what was sent in the last
// ten seconds before a connection broke is sent again over the next. What the
// receiver's program loses of what its system had confirmed earlier is lost: no
// sender can do better over TCP.
type syslog struct {
	encoder
	transport, address string
	tls                *tls.Config
	facility, size     int
	hostname           string
	dial               func(context.Context, string, string) (net.Conn, error)

	conn *connection
	sent []uncertain // over the connection, or over the last one; in order
}

// uncertain is a batch that the receiver's program may not have seen.
type uncertain struct {
	frames []byte
	at     time.Time
}

// connection is one to the receiver. Whatever comes back is read and thrown away:
// syslog has no answers, and the end is what is waited for.
type connection struct {
	net.Conn
	raw  net.Conn // below TLS
	over chan struct{}
	err  error // why; set before over is closed
}

func newSyslog(c *outputs.Sink, version string) (*syslog, error) {
	s := &syslog{encoder: encoder{c.OCSF, version}, transport: c.Transport, address: c.Address, facility: c.Facility, size: c.MessageSize, hostname: c.Hostname,
		dial: (&net.Dialer{Timeout: dialTime}).DialContext}
	if c.Transport == "tls" {
		config, err := c.TLS.Config()
		if err != nil {
			return nil, err
		}
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(c.Address)
		}
		s.tls = config
	}
	if s.hostname == "" {
		s.hostname, _ = os.Hostname()
	}
	s.hostname = header(s.hostname, 255)
	return s, nil
}

// Deliver implements Receiver.
func (s *syslog) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	var frames bytes.Buffer
	for i := range b.Events {
		message, err := s.message(b.Log, &b.Events[i])
		if err != nil {
			return nil, err
		}
		frames.WriteString(strconv.Itoa(len(message)) + " ")
		frames.Write(message)
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := s.write(ctx, frames.Bytes()); err != nil {
		s.hangUp()
		return nil, err
	}
	s.sent = append(s.sent, uncertain{frames.Bytes(), time.Now()})
	s.forget(time.Now())
	return nil, nil
}

// connect makes sure that there is a connection, and sends again what may have
// been lost with the one before.
func (s *syslog) connect(ctx context.Context) error {
	if s.conn != nil {
		select {
		case <-s.conn.over:
			s.hangUp()
		default:
			return nil
		}
	}
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	s.conn = c
	for _, u := range s.sent {
		if err := s.write(ctx, u.frames); err != nil {
			s.hangUp()
			return err
		}
	}
	for i := range s.sent {
		s.sent[i].at = time.Now()
	}
	return nil
}

func (s *syslog) open(ctx context.Context) (*connection, error) {
	raw, err := s.dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, errors.New(inert.Text(err.Error()))
	}
	c := &connection{Conn: raw, raw: raw, over: make(chan struct{})}
	if s.tls != nil {
		secure := tls.Client(raw, s.tls)
		shake, cancel := context.WithTimeout(ctx, dialTime)
		err := secure.HandshakeContext(shake)
		cancel()
		if err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS with %s: %s", s.address, inert.Text(err.Error()))
		}
		c.Conn = secure
	}
	go c.listen()
	return c, nil
}

// listen waits for the end of the connection. It ends with it.
func (c *connection) listen() {
	var waste [4096]byte
	for {
		if _, err := c.Read(waste[:]); err != nil {
			c.err = err
			close(c.over)
			return
		}
	}
}

// write returns when the receiver's system has everything.
func (s *syslog) write(ctx context.Context, frames []byte) error {
	deadline := time.Now().Add(time.Minute)
	if at, ok := ctx.Deadline(); ok {
		deadline = at
	}
	raw := s.conn.raw // the function may still run when the connection is no longer ours
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("writing to %s: %w", s.address, err)
	}
	if _, err := s.conn.Write(frames); err != nil {
		return fmt.Errorf("writing to %s: %s", s.address, inert.Text(err.Error()))
	}
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 50*time.Millisecond) {
		queued, known := unsent(raw)
		select {
		case <-s.conn.over:
			return fmt.Errorf("%s closed the connection: %s", s.address, inert.Text(s.conn.err.Error()))
		default:
		}
		if !known || queued == 0 {
			return nil
		}
		if !sleep(ctx, pause) {
			return fmt.Errorf("%s did not take everything in time: %w", s.address, ctx.Err())
		}
	}
}

// forget drops what was confirmed long enough ago, or is too much to keep.
func (s *syslog) forget(now time.Time) {
	total, keep := 0, len(s.sent)
	for keep > 0 {
		u := s.sent[keep-1]
		if total += len(u.frames); now.Sub(u.at) > confirm || total > maxUncertain && keep < len(s.sent) {
			break
		}
		keep--
	}
	s.sent = append([]uncertain(nil), s.sent[keep:]...)
}

func (s *syslog) hangUp() {
	if s.conn == nil {
		return
	}
	_ = s.conn.raw.Close()
	<-s.conn.over
	s.conn = nil
}

// Close implements Receiver.
func (s *syslog) Close() error {
	if s.conn != nil && s.tls != nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if c, ok := s.conn.Conn.(*tls.Conn); ok {
			_ = c.CloseWrite()
		}
	}
	s.hangUp()
	return nil
}

// message is one event: header, structured data, and the event as JSON of ASCII.
func (s *syslog) message(log Log, e *ambit.Event) ([]byte, error) {
	message, err := s.whole(log, e, false)
	for limit := s.size; err == nil && len(message) > s.size && limit >= 256; limit -= max(256, len(message)-s.size) {
		short, _ := format.Shorten(*e, limit)
		message, err = s.whole(log, &short, true)
	}
	return message, err
}

func (s *syslog) whole(log Log, e *ambit.Event, cut bool) ([]byte, error) {
	// RFC 5424, 6.2.1: facility and severity
	severity := [...]int{6, 5, 4, 3, 2}[format.Severity(e)]
	var b bytes.Buffer
	fmt.Fprintf(&b, "<%d>1 %s %s ambit - %s [ambit@%s", s.facility*8+severity, e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), s.hostname, header(string(e.Kind), 32), enterprise)
	parameter(&b, "log", log.Name)
	parameter(&b, "seq", strconv.FormatUint(e.Seq, 10))
	parameter(&b, "agent", string(e.Agent))
	parameter(&b, "principal", string(e.Principal))
	parameter(&b, "decision", e.Decision.String())
	if cut {
		parameter(&b, "cut", "true")
	}
	b.WriteString("] ")
	line, err := s.append(nil, log, e)
	if err != nil {
		return nil, err
	}
	b.Write(format.ASCII(line))
	return b.Bytes(), nil
}

// header is a field of the header: visible ASCII, "-" if there is none.
func header(s string, most int) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < most; i++ {
		if s[i] > ' ' && s[i] < 0x7f {
			b.WriteByte(s[i])
		} else {
			b.WriteByte('?')
		}
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}

// parameter writes one of the structured data. RFC 5424, 6.3.3: a quote, a backslash and
// a closing bracket are escaped.
func parameter(b *bytes.Buffer, name, value string) {
	if value == "" {
		return
	}
	value = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(inert.Text(value))
	fmt.Fprintf(b, ` %s="%s"`, name, value)
}
