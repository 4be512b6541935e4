package egress_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ambit"
	"ambit/egress"
	"ambit/policy"
)

func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	_, _ = io.WriteString(w, "hello from "+r.Host+r.RequestURI)
}

func TestGet(t *testing.T) {
	s := newShop(t, hello)
	d := newDoor(t, egress.Config{}, s.rule())
	for _, h2 := range []bool{false, true} {
		c := d.client(h2)
		for range 3 { // kept alive
			resp, err := c.Get(s.url("/v1/orders?id=1%202"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := "hello from " + s.host() + "/v1/orders?id=1%202"
			if err != nil || resp.StatusCode != 200 || string(b) != want {
				t.Fatalf("%d %q %v, want %q", resp.StatusCode, b, err, want)
			}
			proto := "HTTP/1.1"
			if h2 {
				proto = "HTTP/2.0"
			}
			if resp.Proto != proto || resp.Header.Get("X-Proto") != proto {
				t.Errorf("%s here, %s upstream, want %s", resp.Proto, resp.Header.Get("X-Proto"), proto)
			}
		}
	}
	o := d.log.outcome()
	if o.Status != 200 || o.BytesIn == 0 || o.Detail != "" {
		t.Errorf("outcome %+v", o)
	}
	if n := d.log.allowed(); n != 6 {
		t.Errorf("%d requests logged, want 6", n)
	}
}

func TestRefusalIsReadable(t *testing.T) {
	s := newShop(t, hello)
	r := s.rule()
	r.Paths = []string{"/v1/**"}
	d := newDoor(t, egress.Config{}, r)
	for _, h2 := range []bool{false, true} {
		resp, err := d.client(h2).Get(s.url("/admin"))
		if err != nil {
			t.Fatal(err)
		}
		p := d.wantProblem(resp, 403, "path-not-allowed")
		if p.Detail == "" || p.Rule != "egress.allow[0]" || p.Remedy == "" {
			t.Errorf("%+v", p)
		}
		// A name without any rule gets a certificate and a refusal, too.
		resp, err = d.client(h2).Get("https://paste.example/")
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, "host-not-allowed")
	}
	if n := d.log.allowed(); n != 0 {
		t.Errorf("%d were allowed", n)
	}
}

func TestRefusedConnectionGoesOn(t *testing.T) {
	s := newShop(t, hello)
	r := s.rule()
	r.Methods = []string{"GET"}
	d := newDoor(t, egress.Config{}, r)
	c := d.client(false)
	conns := 0
	dial := c.Transport.(*http.Transport).DialContext
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, n, a string) (net.Conn, error) {
		conns++
		return dial(ctx, n, a)
	}
	for range 2 {
		resp, err := c.Post(s.url("/"), "text/plain", strings.NewReader("a body that nobody wants"))
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, "method-not-allowed")
		if resp, err = c.Get(s.url("/")); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if conns != 1 {
		t.Errorf("%d connections, want 1", conns)
	}
}

// A program that sends a long body reads why it was refused.
func TestRefusedLongBody(t *testing.T) {
	s := newShop(t, hello)
	r := s.rule()
	r.Methods = []string{"GET"}
	d := newDoor(t, egress.Config{}, r)
	for _, body := range []io.Reader{bytes.NewReader(make([]byte, 1<<20)), io.LimitReader(rand.Reader, 1<<20)} {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		q, _ := http.NewRequest("PUT", s.url("/"), body)
		if err := q.Write(c); err != nil { // all of it, before the answer is looked at
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), q)
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, "method-not-allowed")
		c.Close()
	}
}

func TestBodies(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		fmt.Fprintf(w, "%d %x", n, h.Sum(nil))
	})
	d := newDoor(t, egress.Config{}, s.rule())
	body := make([]byte, 3<<20)
	_, _ = rand.Read(body)
	want := fmt.Sprintf("%d %x", len(body), sha256.Sum256(body))
	for _, h2 := range []bool{false, true} {
		for _, known := range []bool{false, true} {
			var r io.Reader = bytes.NewReader(body)
			length := fmt.Sprint(len(body))
			if !known {
				r, length = io.MultiReader(r), "-1"
			}
			resp, err := d.client(h2).Post(s.url("/"), "application/octet-stream", r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(b) != want || resp.Header.Get("X-Length") != length {
				t.Errorf("h2 %v, known %v: %s (length %s)", h2, known, b, resp.Header.Get("X-Length"))
			}
		}
	}
	o := d.log.outcome()
	if o.BytesOut != int64(len(body)) {
		t.Errorf("outcome %+v", o)
	}
}

func TestExpectContinue(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusConflict)
			return
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	d := newDoor(t, egress.Config{}, s.rule())
	c := d.client(false)
	c.Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
	for path, status := range map[string]int{"/": 200, "/no": 409} {
		r, _ := http.NewRequest("PUT", s.url(path), strings.NewReader("payload"))
		r.Header.Set("Expect", "100-continue")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != status || status == 200 && string(b) != "payload" {
			t.Errorf("%s: %d %q", path, resp.StatusCode, b)
		}
	}
}

func TestServerSentEvents(t *testing.T) {
	next := make(chan string)
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for e := range next {
			_, _ = io.WriteString(w, "data: "+e+"\n\n")
			_ = http.NewResponseController(w).Flush()
			if e == "end" {
				return
			}
		}
	})
	d := newDoor(t, egress.Config{}, s.rule())
	for _, h2 := range []bool{false, true} {
		resp, err := d.client(h2).Get(s.url("/events"))
		if err != nil {
			t.Fatal(err) // the head comes before the first event
		}
		for _, e := range []string{"one", "two", "end"} {
			next <- e
			want := "data: " + e + "\n\n"
			b := make([]byte, len(want))
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != want {
				t.Fatalf("%q, %v", b, err)
			}
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		resp.Body.Close()
	}
}

// A body that breaks off upstream must not look whole to the agent.
func TestTruncation(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	d := newDoor(t, egress.Config{}, s.rule())
	for _, h2 := range []bool{false, true} {
		for _, path := range []string{"/known", "/chunked"} {
			resp, err := d.client(h2).Get(s.url(path))
			if err != nil {
				continue // broken before the head arrived is broken, too
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				t.Errorf("h2 %v %s: %q looks whole", h2, path, b)
			}
		}
	}
	d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressOutcome && e.Detail != "" })
}

func TestUpstreamFailures(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(l)
	l.Close()
	s := newShop(t, hello)
	untrusted := s.rule()
	untrusted.Roots = nil
	d := newDoor(t, egress.Config{Resolver: resolver{}},
		policy.Rule{Host: "down.example", Ports: []uint16{uint16(port)}, Private: true, Resolve: loopback},
		policy.Rule{Host: "nowhere.example"}, untrusted)
	for _, u := range []string{fmt.Sprintf("https://down.example:%d/", port), "https://nowhere.example/", s.url("/")} {
		for _, h2 := range []bool{false, true} {
			resp, err := d.client(h2).Get(u)
			if err != nil {
				t.Fatal(err)
			}
			p := readProblem(t, resp)
			if resp.StatusCode != 502 || p.Type != "urn:ambit:problem:bad-gateway" || p.Event == nil {
				t.Errorf("%s: %d %+v", u, resp.StatusCode, p)
			}
		}
	}
	if o := d.log.outcome(); o.Detail == "" || o.Status != 0 {
		t.Errorf("outcome %+v", o)
	}
}

func TestLogUnavailable(t *testing.T) {
	s := newShop(t, func(http.ResponseWriter, *http.Request) { t.Error("it left unlogged") })
	d := newDoor(t, egress.Config{}, s.rule())
	d.log.fail.Store(true)
	resp, err := d.client(false).Get(s.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	if p := readProblem(t, resp); resp.StatusCode != 503 || p.Type != "urn:ambit:problem:log-unavailable" {
		t.Errorf("%d %+v", resp.StatusCode, p)
	}
}

func TestIntent(t *testing.T) {
	seen := make(chan http.Header, 1)
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header })
	d := newDoor(t, egress.Config{}, s.rule())
	d.intent = "from the connection"
	for header, want := range map[string]string{
		"":                        "from the connection",
		"look up order 42":        "look up order 42",
		"r%C3%BCckgabe%0Aprinted": `rückgabe\nprinted`,
		"100% sure":               "100% sure",
		strings.Repeat("x", 600):  strings.Repeat("x", ambit.MaxIntent),
	} {
		r, _ := http.NewRequest("GET", s.url("/"), nil)
		if header != "" {
			r.Header.Set("Ambit-Intent", header)
		}
		resp, err := d.client(true).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if h := <-seen; h.Get("Ambit-Intent") != "" {
			t.Error("the intent left")
		}
		d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressRequest && e.Intent == want })
	}
}

func TestExplicitProxy(t *testing.T) {
	s := newShop(t, hello)
	plain, rule := plainShop(t, hello)
	d := newDoor(t, egress.Config{}, s.rule(), rule)
	c := d.client(false)
	tr := c.Transport.(*http.Transport)
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128", User: url.UserPassword("intent", "restock the shelf")})
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return d.dialProxy(), nil }
	for _, u := range []string{s.url("/a"), fmt.Sprintf("http://plain.example:%d/b?c", portOf(plain.Listener))} {
		resp, err := c.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "hello from " + strings.SplitN(u, "//", 2)[1]; string(b) != want {
			t.Errorf("%d %q, want %q", resp.StatusCode, b, want)
		}
		d.log.await(func(e ambit.Event) bool { return e.URL == u && e.Intent == "restock the shelf" })
	}
	// A refused CONNECT says why by itself.
	resp := parse(t, raw(t, d.dialProxy(), "CONNECT paste.example:443 HTTP/1.1\r\nHost: paste.example:443\r\n\r\n"))
	d.wantProblem(resp, 403, "host-not-allowed")
	if _, err := c.Get("http://paste.example/"); err != nil {
		t.Fatal(err)
	}
}

func TestWebSocket(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Websocket-Extensions") != "" {
			t.Error("an extension was offered upstream")
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			return
		}
		defer c.CloseNow() //nolint:errcheck // it is over either way
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), b...)); err != nil {
				return
			}
		}
	})
	r := s.rule()
	r.WebSocket, r.Paths = true, []string{"/ws"}
	d := newDoor(t, egress.Config{}, r)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "wss://"+s.host()+"/ws", &websocket.DialOptions{HTTPClient: d.client(false), CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Sec-Websocket-Extensions") != "" {
		t.Error("an extension was agreed on")
	}
	for i := range 3 {
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(ctx); err != nil || string(b) != fmt.Sprintf("echo %d", i) {
			t.Fatalf("%q, %v", b, err)
		}
	}
	c.Close(websocket.StatusNormalClosure, "")
	o := d.log.outcome()
	if o.Status != 101 || o.BytesIn == 0 || o.BytesOut == 0 || o.Action != ambit.ActionWebSocket {
		t.Errorf("outcome %+v", o)
	}
}

func TestClientAbort(t *testing.T) {
	gone := make(chan struct{})
	s := newShop(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	})
	d := newDoor(t, egress.Config{}, s.rule())
	ctx, cancel := context.WithCancel(context.Background())
	r, _ := http.NewRequestWithContext(ctx, "GET", s.url("/"), nil)
	go func() {
		d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressRequest })
		cancel()
	}()
	if _, err := d.client(false).Do(r); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-gone // the upstream is not kept waiting for an agent that left
	if o := d.log.outcome(); o.Detail == "" {
		t.Errorf("outcome %+v", o)
	}
}
