package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"ambit"
	"ambit/egress"
	"ambit/policy"
)

// N1, N2: an SNI other than the connection's name, or none, gets no handshake.
func TestN1SNI(t *testing.T) {
	s := newShop(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	other := s.rule()
	other.Host = "other.example"
	d := newDoor(t, egress.Config{}, s.rule(), other)
	for _, sni := range []string{"other.example", "shop.example.evil.test", "192.0.2.7"} { // the last sends no SNI
		c, err := d.tls("shop.example", s.port, sni)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("SNI %s: %v", sni, err)
		}
		c.Close()
	}
	d.log.denied("name-mismatch")
	if !d.alerts.raised("name-mismatch shop.example") {
		t.Error("no alert")
	}
	// The same through CONNECT.
	c := d.dialProxy()
	defer c.Close()
	_, _ = io.WriteString(c, "CONNECT "+s.host()+" HTTP/1.1\r\nHost: "+s.host()+"\r\n\r\n")
	answer := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	if err := tls.Client(c, &tls.Config{ServerName: "other.example", RootCAs: d.roots}).Handshake(); err == nil {
		t.Error("CONNECT one name, SNI another")
	}
}

// N1: Host is another, on the first request and on the second.
func TestN1Host(t *testing.T) {
	s := newShop(t, hello)
	other := s.rule()
	other.Host = "other.example"
	d := newDoor(t, egress.Config{}, s.rule(), other)
	for _, host := range []string{"other.example:" + fmt.Sprint(s.port), "shop.example", "shop.example:1", "127.0.0.1"} {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		all := raw(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		d.wantProblem(parse(t, all), 421, "name-mismatch")
	}
	c, err := d.tls("shop.example", s.port, "shop.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /first HTTP/1.1\r\nHost: "+s.host()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 4096)
	n, err := c.Read(first)
	if err != nil || !strings.Contains(string(first[:n]), "200 OK") {
		t.Fatalf("%q %v", first[:n], err)
	}
	second := raw(t, c, "GET /second HTTP/1.1\r\nHost: other.example:"+fmt.Sprint(s.port)+"\r\n\r\n")
	d.wantProblem(parse(t, second), 421, "name-mismatch")
	if n := d.log.allowed(); n != 1 {
		t.Errorf("%d allowed, want 1", n)
	}
}

// frames speaks HTTP/2 by hand on one connection.
type frames struct {
	t   *testing.T
	c   net.Conn
	f   *http2.Framer
	buf strings.Builder
	enc *hpack.Encoder
}

func newFrames(t *testing.T, c net.Conn) *frames {
	t.Helper()
	h := &frames{t: t, c: c, f: http2.NewFramer(c, c)}
	h.enc = hpack.NewEncoder(&h.buf)
	h.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := h.f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

// get opens a stream; fields are name, value pairs.
func (h *frames) get(stream uint32, fields ...string) {
	h.t.Helper()
	h.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	if err := h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(h.buf.String()), EndStream: true, EndHeaders: true}); err != nil {
		h.t.Fatal(err)
	}
}

// status waits for the answer of a stream: its status, or "reset".
func (h *frames) status(stream uint32) string {
	h.t.Helper()
	for {
		f, err := h.f.ReadFrame()
		if err != nil {
			h.t.Fatal(err)
		}
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset"
		}
	}
}

// N1: :authority is another on the second stream; Host beside it is another.
func TestN1Authority(t *testing.T) {
	s := newShop(t, hello)
	other := s.rule()
	other.Host = "other.example"
	d := newDoor(t, egress.Config{}, s.rule(), other)
	c, err := d.tls("shop.example", s.port, "shop.example", "h2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := newFrames(t, c)
	evil := "other.example:" + fmt.Sprint(s.port)
	h.get(1, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", s.host())
	if got := h.status(1); got != "200" {
		t.Errorf("first stream: %s", got)
	}
	h.get(3, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", evil)
	if got := h.status(3); got != "421" {
		t.Errorf("second stream: %s", got)
	}
	d.log.denied("name-mismatch")
	h.get(5, ":method", "GET", ":scheme", "https", ":path", "/", "host", evil)
	if got := h.status(5); got != "421" {
		t.Errorf("Host instead of :authority: %s", got)
	}
	h.get(7, ":method", "GET", ":scheme", "https", ":path", "/", ":authority", s.host(), "host", evil)
	if got := h.status(7); got != "reset" {
		t.Errorf("Host beside :authority: %s", got)
	}
	d.log.await(func(e ambit.Event) bool {
		return e.Reason != nil && e.Reason.Code == "name-mismatch" && strings.Contains(e.Reason.Text, "Host field")
	})
	h.get(9, ":method", "GET", ":scheme", "https", ":path", "/")
	if got := h.status(9); got != "400" {
		t.Errorf("no authority at all: %s", got)
	}
	h.get(11, ":method", "CONNECT", ":authority", s.host())
	if got := h.status(11); got != "400" {
		t.Errorf("CONNECT in a stream: %s", got)
	}
	h.get(13, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", s.host())
	if got := h.status(13); got != "reset" {
		t.Errorf("extended CONNECT: %s", got)
	}
	h.get(15, ":method", "GET", ":scheme", "https", ":path", "/a/../b", ":authority", s.host())
	if got := h.status(15); got != "400" {
		t.Errorf("dot segment: %s", got)
	}
	if n := d.log.allowed(); n != 1 {
		t.Errorf("%d allowed, want 1", n)
	}
}

// N3: every spelling of a host has the verdict of its canonical form, or 400.
func TestN3(t *testing.T) {
	s := newShop(t, hello)
	wild := s.rule()
	wild.Host = "*.shop.example"
	d := newDoor(t, egress.Config{}, s.rule(), wild)
	port := fmt.Sprint(s.port)
	for host, want := range map[string]int{
		"shop.example:" + port: 200, "SHOP.example:" + port: 200, "shop.example.:" + port: 200,
		"shop%2eexample:" + port: 400, "[shop.example]:" + port: 400, "user@shop.example:" + port: 400,
		"shop.example:" + port + "/": 400, "shop.example\\@x:" + port: 400, "shop。example:" + port: 400, "shöp.example:" + port: 400,
		"shop..example:" + port: 400, "shop.example:0" + port: 400, "shop.example:": 400, "shop.example,other:" + port: 400,
	} {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		if resp := parse(t, raw(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")); resp.StatusCode != want {
			t.Errorf("Host %q: %d, want %d", host, resp.StatusCode, want)
		}
	}
	for target, want := range map[string]int{
		"SHOP.EXAMPLE.:" + port: 200, "127.0.0.1:" + port: 403, "[127.0.0.1]:" + port: 400, "user@shop.example:" + port: 400,
		"shop%2eexample:" + port: 400, "shop.example": 400, "%00.shop.example:" + port: 400, "10.0.0.1:" + port: 403,
	} {
		c := d.dialProxy()
		_, _ = io.WriteString(c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
		line := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, line); err != nil {
			t.Fatal(err)
		}
		if got := string(line[9:]); got != fmt.Sprint(want) {
			t.Errorf("CONNECT %s: %s, want %d", target, got, want)
		}
		c.Close()
	}
	// What the computer claims the program asked for is not trusted either.
	for _, host := range []string{"shop.example\x00.evil", "", "shop example", "[::1", "1.2.3"} {
		if b := raw(t, d.dial(host, s.port), ""); b != "" {
			t.Errorf("%q: %q", host, b)
		}
	}
	if b := raw(t, d.dial("shop.example", 0), ""); b != "" {
		t.Errorf("port 0: %q", b)
	}
}

// N4: the path is judged as the upstream will see it, or refused.
func TestN4(t *testing.T) {
	s := newShop(t, hello)
	r := s.rule()
	r.Paths = []string{"/v1/**"}
	d := newDoor(t, egress.Config{}, r)
	for path, want := range map[string]string{
		"/v1/a%7Eb%2fc":           "/v1/a~b%2Fc",
		"/v1/x?q=%2e%2e/&r=;":     "/v1/x?q=%2e%2e/&r=;",
		"/v1/../admin":            "",
		"/v1/%2e%2e/admin":        "",
		"/v1/.%2e/admin":          "",
		"/v1/%252e%252e/admin":    "",
		"/v1/..%2fadmin":          "",
		"/v1//admin":              "",
		"//evil.example/v1/x":     "",
		"/v1/x;/../admin":         "",
		"/v1/..;/admin":           "",
		"/v1/..\\admin":           "",
		"/v1/%5c..%5cadmin":       "",
		"/v1/%00":                 "",
		"/v1/%zz":                 "",
		"/v1/x?q=%zz":             "",
		"*":                       "",
		"http://shop.example/v1/": "",
		"v1/x":                    "",
	} {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		resp := parse(t, raw(t, c, "GET "+path+" HTTP/1.1\r\nHost: "+s.host()+"\r\nConnection: close\r\n\r\n"))
		b, _ := io.ReadAll(resp.Body)
		if want == "" {
			if resp.StatusCode != 400 {
				t.Errorf("%s: %d %s", path, resp.StatusCode, b)
			}
			continue
		}
		if got := strings.TrimPrefix(string(b), "hello from "+s.host()); got != want {
			t.Errorf("%s: the upstream saw %q, want %q", path, got, want)
		}
		d.log.await(func(e ambit.Event) bool { return e.URL == s.url(want) && e.Decision == ambit.Allow })
	}
}

// N6, N7: another port, another suffix.
func TestN6AndN7(t *testing.T) {
	s := newShop(t, func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	wild := s.rule()
	wild.Host = "*.allowed.example"
	d := newDoor(t, egress.Config{}, s.rule(), wild)
	for url, code := range map[string]string{
		"https://shop.example/":                                       "port-not-allowed",
		"https://shop.example:1/":                                     "port-not-allowed",
		fmt.Sprintf("https://shop.example.evil.test:%d/", s.port):     "host-not-allowed",
		fmt.Sprintf("https://evilshop.example:%d/", s.port):           "host-not-allowed",
		fmt.Sprintf("https://evilallowed.example:%d/", s.port):        "host-not-allowed",
		fmt.Sprintf("https://allowed.example:%d/", s.port):            "host-not-allowed",
		fmt.Sprintf("https://a.allowed.example.evil.test:%d", s.port): "host-not-allowed",
	} {
		resp, err := d.client(false).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, code)
	}
	for _, port := range []string{"0", "65536", "99999999999", "-1", "443x", ""} {
		resp := parse(t, raw(t, d.dialProxy(), "CONNECT shop.example:"+port+" HTTP/1.1\r\nHost: shop.example\r\n\r\n"))
		d.wantProblem(resp, 400, "bad-request")
	}
}

// N8: no upgrade and no tunnel inside, but a WebSocket where the rule has one.
func TestN8(t *testing.T) {
	s, rule := plainShop(t, hello)
	port := portOf(s.Listener)
	d := newDoor(t, egress.Config{}, rule)
	host := fmt.Sprintf("plain.example:%d", port)
	const ws = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"websocket without a rule": {"GET / HTTP/1.1\r\nHost: " + host + "\r\n" + ws + "\r\n", 403, "websocket-not-allowed"},
		"h2c":                      {"GET / HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", 400, "bad-request"},
		"h2c beside websocket":     {"GET / HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: h2c\r\n" + ws + "\r\n", 400, "bad-request"},
		"a list":                   {"GET / HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Replace(ws, "websocket", "websocket, h2c", 1) + "\r\n", 400, "bad-request"},
		"unknown":                  {"GET / HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n", 400, "bad-request"},
		"POST":                     {"POST / HTTP/1.1\r\nHost: " + host + "\r\n" + ws + "\r\n", 400, "bad-request"},
		"with a body":              {"GET / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1\r\n" + ws + "\r\na", 400, "bad-request"},
		"short key":                {"GET / HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Replace(ws, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1) + "\r\n", 400, "bad-request"},
		"CONNECT":                  {"CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 400, "bad-request"},
		"CONNECT elsewhere":        {"CONNECT evil.example:443 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 400, "bad-request"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := ask(t, d.dial("plain.example", port), c.request)
			d.wantProblem(resp, c.status, c.code)
		})
	}
	if d.log.allowed() != 0 {
		t.Errorf("something was allowed:\n%s", d.log)
	}
}

// N9: plain HTTP is judged as strictly: names, paths, addresses, and nothing
// goes plain that the rule wants over TLS.
func TestN9(t *testing.T) {
	s, rule := plainShop(t, hello)
	secure := newShop(t, hello)
	rule.Paths, rule.Methods = []string{"/v1/*"}, []string{"GET"}
	d := newDoor(t, egress.Config{}, rule, secure.rule())
	port := portOf(s.Listener)
	host := fmt.Sprintf("plain.example:%d", port)
	for request, want := range map[string]int{
		"GET /v1/a HTTP/1.1\r\nHost: " + host + "\r\n":                    200,
		"GET /v1/a HTTP/1.0\r\n":                                          200,
		"GET /v2/a HTTP/1.1\r\nHost: " + host + "\r\n":                    403,
		"DELETE /v1/a HTTP/1.1\r\nHost: " + host + "\r\n":                 403,
		"GET /v1/../a HTTP/1.1\r\nHost: " + host + "\r\n":                 400,
		"GET /v1/a HTTP/1.1\r\nHost: evil.example\r\n":                    421,
		"GET http://evil.example/v1/a HTTP/1.1\r\nHost: " + host + "\r\n": 400,
		"GET /v1/a HTTP/1.1\r\nHost : " + host + "\r\n":                   400,
	} {
		resp := parse(t, raw(t, d.dial("plain.example", port), request+"Connection: close\r\n\r\n"))
		if resp.StatusCode != want {
			t.Errorf("%q: %d, want %d", request, resp.StatusCode, want)
		}
	}
	resp := parse(t, raw(t, d.dial("shop.example", secure.port), "GET / HTTP/1.1\r\nHost: "+secure.host()+"\r\nConnection: close\r\n\r\n"))
	d.wantProblem(resp, 403, "scheme-not-allowed")
	// And the other way round.
	resp, err := d.client(false).Get("https://" + host + "/v1/a")
	if err != nil {
		t.Fatal(err)
	}
	d.wantProblem(resp, 403, "scheme-not-allowed")
	// HTTP/2 in the clear is the same door.
	h := newFrames(t, d.dial("plain.example", port))
	h.get(1, ":method", "GET", ":scheme", "http", ":path", "/v2/a", ":authority", host)
	if got := h.status(1); got != "403" {
		t.Errorf("h2c: %s", got)
	}
	h.get(3, ":method", "GET", ":scheme", "http", ":path", "/v1/a", ":authority", "evil.example")
	if got := h.status(3); got != "421" {
		t.Errorf("h2c: %s", got)
	}
	h.c.Close()
	// Absolute form through the explicit proxy: Host must agree with it.
	resp = parse(t, raw(t, d.dialProxy(), "GET http://"+host+"/v1/a HTTP/1.1\r\nHost: evil.example\r\n\r\n"))
	d.wantProblem(resp, 421, "name-mismatch")
	for _, target := range []string{"/v1/a", "https://" + host + "/v1/a", "http:///v1/a", "ftp://" + host + "/", "http://u:p@" + host + "/v1/a"} {
		resp = parse(t, raw(t, d.dialProxy(), "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"))
		d.wantProblem(resp, 400, "bad-request")
	}
}

func TestPassthrough(t *testing.T) {
	s := newShop(t, hello)
	r := s.rule()
	r.TLS, r.Roots = policy.Passthrough, nil
	d := newDoor(t, egress.Config{}, r)
	tr := &http.Transport{DialContext: d.dialAddr, TLSClientConfig: &tls.Config{RootCAs: s.roots}} // the host's own certificate
	resp, err := (&http.Client{Transport: tr}).Get(s.url("/x"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	if !strings.HasPrefix(string(b), "hello") {
		t.Errorf("%q", b)
	}
	tr.CloseIdleConnections()
	o := d.log.outcome()
	if o.BytesIn == 0 || o.BytesOut == 0 || o.Action != ambit.ActionPassthrough || o.Detail != "" {
		t.Errorf("outcome %+v", o)
	}
	if e := d.log.await(func(e ambit.Event) bool { return e.Action == ambit.ActionPassthrough }); e.URL != "tls://"+s.host() {
		t.Errorf("event %+v", e)
	}
	for _, sni := range []string{"other.example", "192.0.2.1"} {
		if _, err := d.tls("shop.example", s.port, sni); err == nil {
			t.Errorf("SNI %s passed", sni)
		}
	}
	// Plain HTTP does not pass on such a port.
	resp = parse(t, raw(t, d.dial("shop.example", s.port), "GET / HTTP/1.1\r\nHost: "+s.host()+"\r\nConnection: close\r\n\r\n"))
	d.wantProblem(resp, 403, "scheme-not-allowed")
	// Encrypted Client Hello could hide another name.
	ech := echHello(t)
	if b := raw(t, d.dial("shop.example", s.port), string(ech)); !strings.HasPrefix(b, "\x15\x03\x03\x00\x02\x02") {
		t.Errorf("ECH got %q", b)
	}
	d.log.await(func(e ambit.Event) bool {
		return e.Reason != nil && strings.Contains(e.Reason.Text, "encrypted ClientHello")
	})
}

// echHello is the hello for shop.example with an encrypted_client_hello
// extension put in front of the others.
func echHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "shop.example"}).HandshakeContext(context.Background())
		theirs.Close()
	}()
	b := make([]byte, 4096)
	n, err := ours.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:n]
	at := 5 + 4 + 2 + 32
	at += 1 + int(b[at])
	at += 2 + int(b[at])<<8 + int(b[at+1])
	at += 1 + int(b[at])
	add := []byte{0xfe, 0x0d, 0, 1, 0}
	grow := func(i int) {
		v := int(b[i])<<8 + int(b[i+1]) + len(add)
		b[i], b[i+1] = byte(v>>8), byte(v)
	}
	grow(3) // record
	grow(7) // message, its lower two bytes
	grow(at)
	return append(append(append([]byte{}, b[:at+2]...), add...), b[at+2:]...)
}

// TestConnectWithoutHost: HTTP/1.0 has no Host, and Python's http.client asks a
// proxy with it. The target is the name then, and everything inside is held to it.
func TestConnectWithoutHost(t *testing.T) {
	s := newShop(t, hello)
	d := newDoor(t, egress.Config{}, s.rule())
	for request, status := range map[string]string{
		"CONNECT " + s.host() + " HTTP/1.0\r\n\r\n": "HTTP/1.1 200",
		"CONNECT evil.example:443 HTTP/1.0\r\n\r\n": "HTTP/1.1 403",
		"CONNECT " + s.host() + " HTTP/1.1\r\n\r\n": "HTTP/1.1 400",
	} {
		c := d.dialProxy()
		_, _ = io.WriteString(c, request)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, status) {
			t.Errorf("%q: %q, %v; want %s", request, line, err, status)
		}
		_ = c.Close()
	}
}
