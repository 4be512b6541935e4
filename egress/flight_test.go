package egress_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ambit/egress"
	"ambit/policy"
)

// A WebSocket is cut when its host is taken out of the policy, and is not when
// something else changes.
func TestPolicyChangeCutsStreams(t *testing.T) {
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow() //nolint:errcheck // it is over either way
		for err == nil {
			var b []byte
			if _, b, err = c.Read(r.Context()); err == nil {
				err = c.Write(r.Context(), websocket.MessageText, b)
			}
		}
	})
	r := s.rule()
	r.WebSocket = true
	d := newDoor(t, egress.Config{}, r)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "wss://"+s.host()+"/", &websocket.DialOptions{HTTPClient: d.client(false)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow() //nolint:errcheck // it is over either way
	d.use(r, policy.Rule{Host: "another.example"})
	d.proxy.Refresh()
	if err := c.Write(ctx, websocket.MessageText, []byte("still here")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(ctx); err != nil || string(b) != "still here" {
		t.Fatalf("%q, %v", b, err)
	}
	d.use(policy.Rule{Host: "another.example"})
	d.proxy.Refresh()
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("not cut: %v", err)
	}
	d.log.outcome()
}

// The same for a request that waits for its answer: it fails, and does not come
// back as an empty success.
func TestPolicyChangeCutsRequests(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		waiting := make(chan struct{})
		s := newShop(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice who leaves
			close(waiting)
			<-r.Context().Done()
		})
		d := newDoor(t, egress.Config{}, s.rule())
		go func() {
			<-waiting
			d.use()
			d.proxy.Refresh()
		}()
		// POST, so that nobody tries again.
		resp, err := d.client(h2).Post(s.url("/"), "text/plain", strings.NewReader("x"))
		if err == nil {
			resp.Body.Close()
			t.Errorf("h2 %v: status %d", h2, resp.StatusCode)
		}
		if o := d.log.outcome(); o.Detail == "" {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestPolicyChangeDropsConnections(t *testing.T) {
	remotes := make(chan string, 1)
	s := newShop(t, func(_ http.ResponseWriter, r *http.Request) { remotes <- r.RemoteAddr })
	d := newDoor(t, egress.Config{}, s.rule())
	c := d.client(false)
	get := func() (string, int) {
		resp, err := c.Get(s.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			return "", resp.StatusCode
		}
		return <-remotes, 200
	}
	first, _ := get()
	if again, _ := get(); again != first {
		t.Errorf("the connection upstream was not kept alive")
	}
	use := func(rules ...policy.Rule) {
		t.Helper()
		d.use(rules...)
	}
	use(s.rule())
	if again, _ := get(); again == first {
		t.Errorf("a connection of the old policy was used again")
	}
	changed := s.rule()
	changed.Roots = nil
	use(changed)
	if _, status := get(); status != 502 {
		t.Errorf("status %d after the roots were taken away", status)
	}
	use()
	if _, status := get(); status != 403 {
		t.Errorf("status %d after the rule was taken away", status)
	}
}
