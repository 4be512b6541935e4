package vault_test

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"ambit"
	"ambit/internal/wsframe"
)

// socket answers an upgrade and says something, and returns what then arrives byte
// for byte.
func (w *world) socket(welcome string) <-chan string {
	arrived := make(chan string, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = conn.Write(wsframe.Append(nil, wsframe.Server, wsframe.Text, []byte(welcome)))
		b, _ := io.ReadAll(bufio.NewReader(buffered)) // however it ends
		arrived <- string(b)
	}
	return arrived
}

// upgrade is a call that asks for a WebSocket.
func upgrade(url string, header ...string) call {
	c := get(url, append(header, "Connection", "Upgrade", "Upgrade", "websocket")...)
	c.socket = true
	return c
}

// K1: whoever writes a reference to a WebSocket, at a host without a connection,
// is refused for good, and nothing more of what it writes is sent.
func TestK1WebSocketIsRefusedForGood(t *testing.T) {
	w := newWorld(t, "{name: github}")
	w.connect("github", "token", "token", githubToken)
	arrived := w.socket("welcome")
	r := w.open(upgrade("https://other.example/"))
	if r.denied != nil {
		t.Fatal(r.denied)
	}
	defer r.lease.Done()
	wire, ok := r.resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("%T", r.resp.Body)
	}
	hello := wsframe.Append(nil, wsframe.Client, wsframe.Text, []byte("hello"))
	if n, err := wire.Write(hello); n != len(hello) || err != nil {
		t.Fatal(n, err)
	}
	_, err := wire.Write(wsframe.Append(nil, wsframe.Client, wsframe.Text, []byte(w.env("GITHUB_TOKEN"))))
	var d *ambit.DenyError
	if !errors.As(err, &d) || d.Verdict.Reason.Code != "reference-misplaced" || r.lease.Refusal(io.EOF) != d {
		t.Errorf("%v; %v", err, r.lease.Refusal(io.EOF))
	}
	if n, again := wire.Write(hello); n != 0 || again == nil {
		t.Errorf("after the refusal %d bytes went, %v", n, again)
	}
	if len(r.lease.Goodbye(d)) == 0 {
		t.Error("nothing to tell the agent")
	}
	wire.Close()
	if got := <-arrived; got != string(hello) {
		t.Errorf("arrived: %q", got)
	}
}

// K3: what a host says over a WebSocket is scrubbed like a body.
func TestK3WebSocketIsScrubbed(t *testing.T) {
	w := newWorld(t, "{name: openai}")
	const key = "sk-REALrealREALrealREALreal"
	w.connect("openai", "", "key", key)
	w.socket("welcome, " + key + "!")
	r := w.open(upgrade("https://api.openai.com/v1/realtime", "Authorization", "Bearer "+w.env("OPENAI_API_KEY")))
	if r.denied != nil {
		t.Fatal(r.denied)
	}
	defer r.lease.Done()
	defer r.resp.Body.Close()
	want := "welcome, " + strings.Repeat("X", len(key)) + "!"
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(r.resp.Body, got); err != nil || string(got[2:]) != want {
		t.Errorf("the agent reads %q, %v", got, err)
	}
}
