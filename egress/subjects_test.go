package egress_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ambit"
	"ambit/egress"
	"ambit/scan"
)

// watching is a configuration that looks for everybody.
func watching(t *testing.T) egress.Config {
	t.Helper()
	m, err := scan.NewMatcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	return egress.Config{Subjects: func() *scan.Matcher { return m }}
}

func emails(touched []ambit.Subject) (out []string) {
	for _, s := range touched {
		if s.Kind == "email" {
			out = append(out, s.Value)
		}
	}
	slices.Sort(out)
	return out
}

func squeezed(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Whom a call is about is found in its address, in what is sent and in the
// answer, compressed or not, in one piece or in many; and what could not be
// looked through is said.
func TestSubjectsOfACall(t *testing.T) {
	const customer = `{"customer":{"mail":"Bob@Shop.Example","note":"alice\u0040shop.example"}}`
	type answer struct {
		head   map[string]string
		body   string
		want   []string
		unseen bool
	}
	answers := map[string]answer{
		"json":       {map[string]string{"Content-Type": "application/json"}, customer, []string{"alice@shop.example", "bob@shop.example"}, false},
		"gzip":       {map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, squeezed(t, customer), []string{"alice@shop.example", "bob@shop.example"}, false},
		"large":      {nil, strings.Repeat("nobody is here, ", 40_000) + "<b>carol@shop.example</b>", []string{"carol@shop.example"}, false},
		"large gzip": {map[string]string{"Content-Encoding": "gzip"}, squeezed(t, strings.Repeat("nobody is here, ", 40_000)+" carol@shop.example "), []string{"carol@shop.example"}, false},
		"brotli":     {map[string]string{"Content-Encoding": "br"}, customer, nil, true},
		"broken":     {map[string]string{"Content-Encoding": "gzip"}, "not gzip at all", nil, true},
		"picture":    {map[string]string{"Content-Type": "image/png"}, "\x89PNG mallory@shop.example", nil, true},
		"archive":    {nil, "PK\x03\x04 mallory@shop.example", nil, true},
		"empty":      {map[string]string{"Content-Type": "image/png"}, "", nil, false},
		"nobody":     {map[string]string{"Content-Type": "text/html"}, "<p>nobody</p>", nil, false},
	}
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		if e := r.Header.Get("Accept-Encoding"); strings.Contains(e, "br") || strings.Contains(e, "zstd") {
			t.Errorf("the host was asked for %q, which cannot be looked through", e)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		a := answers[r.URL.Query().Get("answer")]
		for k, v := range a.head {
			w.Header().Set(k, v)
		}
		for len(a.body) > 0 { // in pieces
			n := min(len(a.body), 7+len(a.body)/3)
			_, _ = io.WriteString(w, a.body[:n])
			_ = http.NewResponseController(w).Flush()
			a.body = a.body[n:]
		}
	})
	for name, a := range answers {
		for _, h2 := range []bool{false, true} {
			d := newDoor(t, watching(t), s.rule())
			q, err := http.NewRequest(http.MethodPost, s.url("/customers/erin%40shop.example?answer="+url.QueryEscape(name)+"&cc=frank@shop.example"), strings.NewReader("to=dave%40shop.example&text=hello"))
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Ambit-Intent", "write to grace@shop.example")
			q.Header.Set("Accept-Encoding", "br, gzip;q=0.5, zstd")
			q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := d.client(h2).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != a.body {
				t.Errorf("%s: the answer is %q, %v", name, got, err)
			}
			e := d.log.await(func(e ambit.Event) bool { return e.Kind == ambit.KindEgressRequest })
			if got, want := emails(e.Touched), []string{"erin@shop.example", "frank@shop.example", "grace@shop.example"}; !slices.Equal(got, want) {
				t.Errorf("%s: the request is about %v, want %v", name, got, want)
			}
			want := append([]string{"dave@shop.example"}, a.want...)
			slices.Sort(want)
			o := d.log.outcome()
			if got := emails(o.Touched); !slices.Equal(got, want) || o.Unseen != a.unseen {
				t.Errorf("%s (HTTP/2 %v): the call is about %v (unseen %v), want %v (%v)", name, h2, got, o.Unseen, want, a.unseen)
			}
		}
	}
}

// The same in the messages of a WebSocket, both ways.
func TestSubjectsOfAWebSocket(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow() //nolint:errcheck // it is over either way
		if _, _, err := c.Read(r.Context()); err != nil {
			return
		}
		_ = c.Write(r.Context(), websocket.MessageText, []byte(`{"from":"bob@shop.example"}`))
		_, _, _ = c.Read(r.Context())
	})
	r := s.rule()
	r.WebSocket = true
	d := newDoor(t, watching(t), r)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "wss://"+s.host()+"/", &websocket.DialOptions{HTTPClient: d.client(false)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("write to alice@shop.example")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(ctx); err != nil {
		t.Fatal(err)
	}
	c.Close(websocket.StatusNormalClosure, "")
	o := d.log.outcome()
	if got, want := emails(o.Touched), []string{"alice@shop.example", "bob@shop.example"}; !slices.Equal(got, want) || o.Unseen {
		t.Errorf("the WebSocket was about %v (unseen %v), want %v", got, o.Unseen, want)
	}
}

// A few bytes that unpack to very much do not hold a call up for long, and what
// was not looked through is said.
func TestSubjectsOfABomb(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 9 {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	s := newShop(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	})
	c := watching(t)
	c.Limits.Unpacked = 1 << 20
	d := newDoor(t, c, s.rule())
	q, err := http.NewRequest(http.MethodGet, s.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept-Encoding", "gzip")
	resp, err := d.client(false).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil || n != int64(b.Len()) {
		t.Errorf("%d bytes of %d came, %v", n, b.Len(), err)
	}
	if o := d.log.outcome(); !o.Unseen {
		t.Errorf("outcome %+v", o)
	}
}
