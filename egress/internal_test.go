package egress_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"ambit/egress"
	"ambit/policy"
)

// inside is a handler of Ambit's own, as the tests see it.
func inside(t testing.TB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %q", r.Method, r.URL.RequestURI(), r.Header.Get("Ambit-Intent"))
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Host", r.Host+" "+r.RequestURI)
		_, _ = w.Write(b)
	})
	mux.HandleFunc("/deaf", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/fail", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	mux.HandleFunc("/declared", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "less")
	})
	return mux
}

// internalDoor refuses to look anything up.
func internalDoor(t testing.TB, c egress.Config, rules ...policy.Rule) *door {
	if c.Internal == nil {
		c.Internal = inside(t)
	}
	c.Resolver = never{t}
	return newDoor(t, c, rules...)
}

type never struct{ testing.TB }

func (n never) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.Errorf("%s was looked up", host)
	return nil, io.EOF
}

// A request to Ambit itself is answered by the handler, over the transparent
// way, in absolute form and through CONNECT, on a connection that is kept; the
// door logs none of them.
func TestInternal(t *testing.T) {
	d := internalDoor(t, egress.Config{})
	d.intent = "look what is there"
	through := func(proxy bool) *http.Client {
		c := d.client(false)
		if proxy {
			tr := c.Transport.(*http.Transport)
			tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128", User: url.UserPassword("intent", d.intent)})
			tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return d.dialProxy(), nil }
		}
		return c
	}
	for _, proxy := range []bool{false, true} {
		c, conns := through(proxy), 0
		tr := c.Transport.(*http.Transport)
		dial := tr.DialContext
		tr.DialContext = func(ctx context.Context, n, a string) (net.Conn, error) { conns++; return dial(ctx, n, a) }
		for _, at := range []string{"http://ambit.internal/?a=b", "http://AMBIT.internal:80/?a=b", "http://ambit.internal./?a=b"} {
			resp, err := c.Get(at)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := `GET /?a=b for "look what is there"`; resp.StatusCode != 200 || string(b) != want || resp.ContentLength != int64(len(want)) {
				t.Errorf("proxy %v, %s: %d %q", proxy, at, resp.StatusCode, b)
			}
		}
		for _, body := range []io.Reader{strings.NewReader("short"), bytes.NewReader(bytes.Repeat([]byte("long"), 100<<10)), io.MultiReader(strings.NewReader("chunked"))} {
			resp, err := c.Post("http://ambit.internal/echo", "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.Header.Get("X-Host") != "ambit.internal /echo" || len(b) != 5 && len(b) != 7 && len(b) != 400<<10 {
				t.Errorf("proxy %v: %d bytes, %v, %v", proxy, len(b), resp.Header, err)
			}
		}
		if resp, err := c.Head("http://ambit.internal/"); err != nil || resp.StatusCode != 200 || resp.ContentLength == 0 {
			t.Errorf("HEAD: %+v, %v", resp, err)
		}
		if conns > 3 { // one for each spelling of the name
			t.Errorf("proxy %v: %d connections", proxy, conns)
		}
	}
	c := d.dialProxy()
	br := bufio.NewReader(c)
	_, _ = io.WriteString(c, "CONNECT ambit.internal:80 HTTP/1.1\r\nHost: ambit.internal:80\r\n\r\n")
	if resp, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
		t.Fatalf("CONNECT: %+v, %v", resp, err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ambit.internal\r\n\r\n")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("through CONNECT: %+v, %v", resp, err)
	}
	c.Close()
	if resp := parse(t, raw(t, d.dial("ambit.internal", 80), "GET / HTTP/1.0\r\n\r\n")); resp.StatusCode != 200 {
		t.Errorf("HTTP/1.0: %+v", resp)
	}
	if s := d.log.String(); s != "" {
		t.Errorf("the door logged\n%s", s)
	}
}

// Nothing else is under the name, whatever the rules say, and the name is on no
// other connection (N1, N6, N8, N9).
func TestN1Internal(t *testing.T) {
	s := newShop(t, hello)
	greedy := s.rule()
	greedy.Host = "ambit.internal" // no manifest can say so
	plain := policy.Rule{Host: "ambit.internal", TLS: policy.None, Ports: []uint16{8080}, Private: true, Resolve: loopback}
	d := internalDoor(t, egress.Config{}, s.rule(), greedy, plain)
	t.Run("another Host on a connection to it", func(t *testing.T) {
		for _, host := range []string{"shop.example", "ambit.internal:81", "x.ambit.internal", "ambit.internal.evil.test"} {
			resp := ask(t, d.dial("ambit.internal", 80), "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			d.wantProblem(resp, 421, "name-mismatch")
			resp = ask(t, d.dialProxy(), "GET http://ambit.internal/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			d.wantProblem(resp, 421, "name-mismatch")
		}
		// Also on the second request of the connection.
		c := d.dial("ambit.internal", 80)
		br := bufio.NewReader(c)
		for _, host := range []string{"ambit.internal", "shop.example"} {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			resp, err := http.ReadResponse(br, nil)
			if err != nil || (resp.StatusCode == 200) != (host == "ambit.internal") {
				t.Fatalf("%s: %+v, %v", host, resp, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
		}
		c.Close()
	})
	t.Run("its Host on a connection to another name", func(t *testing.T) {
		c, err := d.tls("shop.example", s.port, "shop.example")
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(ask(t, c, "GET / HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 421, "name-mismatch")
		d.wantProblem(ask(t, d.dial("shop.example", 80), "GET / HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 421, "name-mismatch")
		d.wantProblem(ask(t, d.dialProxy(), "GET http://shop.example/ HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 421, "name-mismatch")
	})
	t.Run("its SNI on a connection to another name", func(t *testing.T) {
		if _, err := d.tls("shop.example", s.port, "ambit.internal"); err == nil {
			t.Error("the handshake succeeded")
		}
		d.log.denied("name-mismatch")
	})
	t.Run("TLS", func(t *testing.T) {
		for _, alpn := range []string{"http/1.1", "h2"} {
			for _, port := range []int{80, 443, s.port} {
				c := d.client(alpn == "h2")
				resp, err := c.Get(fmt.Sprintf("https://ambit.internal:%d/", port))
				if err != nil {
					t.Fatal(err)
				}
				d.wantProblem(resp, 403, "internal-only")
			}
		}
	})
	t.Run("ports", func(t *testing.T) {
		for _, port := range []int{443, 8080, 81, s.port} {
			d.wantProblem(ask(t, d.dialProxy(), fmt.Sprintf("CONNECT ambit.internal:%d HTTP/1.1\r\nHost: ambit.internal:%[1]d\r\n\r\n", port)), 403, "internal-only")
			d.wantProblem(ask(t, d.dialProxy(), fmt.Sprintf("GET http://ambit.internal:%d/ HTTP/1.1\r\nHost: ambit.internal:%[1]d\r\n\r\n", port)), 403, "internal-only")
			d.wantProblem(ask(t, d.dial("ambit.internal", port), fmt.Sprintf("GET / HTTP/1.1\r\nHost: ambit.internal:%d\r\n\r\n", port)), 403, "internal-only")
		}
		for _, authority := range []string{"ambit.internal:080", "ambit.internal:0", "ambit.internal:65616", "u@ambit.internal", "ambit.internal%00", "[ambit.internal]"} {
			resp := ask(t, d.dialProxy(), "GET http://"+authority+"/ HTTP/1.1\r\nHost: ambit.internal\r\n\r\n")
			d.wantProblem(resp, 400, "bad-request")
		}
	})
	t.Run("upgrades", func(t *testing.T) {
		for _, more := range []string{
			"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
			"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
		} {
			d.wantProblem(ask(t, d.dial("ambit.internal", 80), "GET / HTTP/1.1\r\nHost: ambit.internal\r\n"+more+"\r\n"), 400, "bad-request")
		}
		d.wantProblem(ask(t, d.dial("ambit.internal", 80), "CONNECT shop.example:443 HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 400, "bad-request")
	})
	t.Run("h2c from the start", func(t *testing.T) {
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		tr := &http.Transport{Protocols: &protocols, DialContext: d.dialAddr}
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("http://ambit.internal/")
		if err != nil {
			t.Fatal(err)
		}
		d.wantProblem(resp, 403, "internal-only")
	})
	t.Run("names beside it", func(t *testing.T) {
		for _, host := range []string{"x.ambit.internal", "internal", "ambit.internal.evil.test", "ambit-internal"} {
			resp := ask(t, d.dialProxy(), "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			d.wantProblem(resp, 403, "host-not-allowed")
		}
	})
	t.Run("forged fields", func(t *testing.T) {
		d.wantProblem(ask(t, d.dial("ambit.internal", 80), "GET / HTTP/1.1\r\nHost: ambit.internal\r\nAmbit-Agent: other\r\n\r\n"), 400, "forged-header")
	})
	if n := d.log.allowed(); n != 0 {
		t.Errorf("%d were allowed", n)
	}
}

// Without a handler the name is one like all others.
func TestNoInternal(t *testing.T) {
	d := newDoor(t, egress.Config{})
	d.wantProblem(ask(t, d.dial("ambit.internal", 80), "GET / HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 403, "host-not-allowed")
}

// H1: framing that two readers could read in two ways never reaches the
// handler, and H4: heads and bodies are bounded.
func TestH1Internal(t *testing.T) {
	d := internalDoor(t, egress.Config{Limits: egress.Limits{InternalBody: 1000, HeadBytes: 4 << 10}})
	const head = "POST /echo HTTP/1.1\r\nHost: ambit.internal\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"length and chunked": {head + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400},
		"pipelined":          {head + "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n", 400},
		"bare LF in a chunk": {head + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400},
		"long":               {head + "Content-Length: 1001\r\n\r\n" + strings.Repeat("a", 1001), 413},
		"long in chunks":     {head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("64\r\n"+strings.Repeat("a", 100)+"\r\n", 11) + "0\r\n\r\n", 413},
		"long head":          {head + "X: " + strings.Repeat("a", 5<<10) + "\r\n\r\n", 431},
		"two dots":           {"GET /%2e%2e/echo HTTP/1.1\r\nHost: ambit.internal\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			resp := ask(t, d.dial("ambit.internal", 80), c.request)
			if name == "two dots" && resp.StatusCode != 400 { // canonical, and then as any other path
				return
			}
			d.wantProblem(resp, c.status, "bad-request")
		})
	}
	if resp := ask(t, d.dial("ambit.internal", 80), head+"Content-Length: 1000\r\n\r\n"+strings.Repeat("a", 1000)); resp.StatusCode != 200 {
		t.Errorf("as long as may be: %d", resp.StatusCode)
	}
	// A handler that reads nothing, fails, or breaks off.
	resp := ask(t, d.dial("ambit.internal", 80), "POST /deaf HTTP/1.1\r\nHost: ambit.internal\r\nContent-Length: 1000\r\n\r\n"+strings.Repeat("a", 1000))
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("unread: %+v", resp)
	}
	if resp := ask(t, d.dial("ambit.internal", 80), "GET /fail HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"); resp.StatusCode != 500 {
		t.Errorf("failed: %d", resp.StatusCode)
	}
	short := parse(t, raw(t, d.dial("ambit.internal", 80), "GET /declared HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"))
	if b, err := io.ReadAll(short.Body); err == nil {
		t.Errorf("an answer that broke off looks whole: %q", b)
	}
}

// Long-lived answers go both ways as they come, and end with the program.
func TestInternalStream(t *testing.T) {
	next, ended := make(chan string), make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		w.Header().Set("Content-Type", "text/event-stream")
		flow := http.NewResponseController(w)
		_ = flow.Flush()
		for {
			select {
			case e := <-next:
				fmt.Fprintf(w, "data: %s\n\n", e)
				_ = flow.Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /talk", func(w http.ResponseWriter, r *http.Request) {
		flow := http.NewResponseController(w)
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "you said "+line)
			_ = flow.Flush()
		}
	})
	d := internalDoor(t, egress.Config{Internal: mux, Limits: egress.Limits{Internal: 1}})
	ctx, hangUp := context.WithCancel(t.Context())
	q, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://ambit.internal/events", http.NoBody)
	resp, err := d.client(false).Do(q)
	if err != nil {
		t.Fatal(err) // the head comes before the first event
	}
	br := bufio.NewReader(resp.Body)
	for _, e := range []string{"one", "two"} {
		next <- e
		if line, err := br.ReadString('\n'); err != nil || line != "data: "+e+"\n" {
			t.Fatalf("%q, %v", line, err)
		}
		_, _ = br.ReadString('\n')
	}
	// H4: as many at a time as the limit says.
	d.wantProblem(ask(t, d.dial("ambit.internal", 80), "GET /events HTTP/1.1\r\nHost: ambit.internal\r\n\r\n"), 503, "too-busy")
	hangUp()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler was not told that the program hung up")
	}

	r, w := io.Pipe()
	talk := make(chan *http.Response, 1)
	for ask(t, d.dial("ambit.internal", 80), "GET / HTTP/1.1\r\nHost: ambit.internal\r\n\r\n").StatusCode == 503 { // until the first one is counted out
		t.Log("still counted")
	}
	go func() {
		resp, err := d.client(false).Post("http://ambit.internal/talk", "text/plain", r)
		if err != nil {
			t.Error(err)
		}
		talk <- resp
	}()
	_, _ = io.WriteString(w, "hello\n")
	resp = <-talk
	br = bufio.NewReader(resp.Body)
	for _, line := range []string{"hello\n", "again\n"} {
		if line != "hello\n" {
			_, _ = io.WriteString(w, line)
		}
		if got, err := br.ReadString('\n'); err != nil || got != "you said "+line {
			t.Fatalf("%q, %v", got, err)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}

	// The computer stops: the handler ends before the door is closed.
	resp, err = d.client(false).Get("http://ambit.internal/events")
	if err != nil {
		t.Fatal(err)
	}
	d.proxy.Close()
	<-ended
	resp.Body.Close()
	if n := d.log.allowed(); n != 0 {
		t.Errorf("%d are in the log", n)
	}
}
