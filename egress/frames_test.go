package egress_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/internal/wsframe"
	"ambit/policy"
	"ambit/vault"
)

// oddToken has what must be escaped in JSON.
const oddToken = `canary"0123\456789-real token`

// chat is an upstream that speaks WebSocket frame by frame.
type chat struct {
	*shop
	got chan heard // of each WebSocket, when it ended
}

// heard is what arrived.
type heard struct {
	messages []string // whole ones
	payload  string   // of all frames, in the order of arrival, also of what broke off
	controls int
}

// newChat answers each message with what reply makes of it, byte for byte.
func newChat(t testing.TB, reply func(message string) []byte) *chat {
	c := &chat{got: make(chan heard, 10)}
	c.shop = newShop(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		c.got <- hear(rw, func(message string) {
			if b := reply(message); b != nil {
				_, _ = conn.Write(b) // whoever hung up does not hear it
			}
		})
	})
	return c
}

// hear reads frames until they end.
func hear(r io.Reader, each func(message string)) (h heard) {
	frames := wsframe.New(wsframe.Client)
	var message []byte
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Read(buffer)
		for b := buffer[:n]; len(b) > 0; {
			p, m, err := frames.Next(b)
			if err != nil {
				h.payload += "!" + err.Error()
				return h
			}
			b = b[m:]
			if p.Header == nil {
				continue
			}
			wsframe.Xor(p.Payload, p.Header.Mask, p.Offset)
			h.payload += string(p.Payload)
			if p.Header.Op.Control() {
				if p.End {
					h.controls++
				}
				continue
			}
			message = append(message, p.Payload...)
			if p.End && p.Header.Fin {
				h.messages = append(h.messages, string(message))
				each(string(message))
				message = nil
			}
		}
		if err != nil {
			return h
		}
	}
}

func (c *chat) heard(t testing.TB) heard {
	t.Helper()
	select {
	case h := <-c.got:
		return h
	case <-time.After(10 * time.Second):
		t.Fatal("the WebSocket did not end")
		return heard{}
	}
}

// frame makes one frame of a client.
func frame(first byte, payload string) []byte {
	f := wsframe.Append(nil, wsframe.Client, wsframe.Binary, []byte(payload))
	f[0] = first
	return f
}

// The first bytes of frames.
const (
	text, binary, middle, last = 0x81, 0x82, 0x00, 0x80
	textBegins, binaryBegins   = 0x01, 0x02
	ping, hangUp               = 0x89, 0x88
)

// talk opens a WebSocket, frame by frame.
func (d *door) talk(s *shop) (io.ReadWriteCloser, *bufio.Reader) {
	d.t.Helper()
	c, err := d.tls("shop.example", s.port, "shop.example")
	if err != nil {
		d.t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", s.host())
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		d.t.Fatalf("%+v, %v", resp, err)
	}
	return c, r
}

// goodbye reads up to the end, which must be a close frame with the status 1008.
func goodbye(t testing.TB, r io.Reader) (status, reason string) {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	frames := wsframe.New(wsframe.Server)
	var payload []byte
	for len(b) > 0 {
		p, n, err := frames.Next(b)
		if err != nil {
			t.Fatal(err)
		}
		b = b[n:]
		if p.Head {
			payload = payload[:0]
		}
		payload = append(payload, p.Payload...)
		if p.End && p.Header.Op == wsframe.Close {
			return fmt.Sprint(int(payload[0])<<8 | int(payload[1])), string(payload[2:])
		}
	}
	return "", ""
}

// newTalker has the connection "chat" to one host, which takes the token in its
// first message, and may open a WebSocket to another one.
func newTalker(t *testing.T, s *shop, others ...policy.Rule) *wallet {
	t.Helper()
	source := connector.Source{Name: "chat.yaml", Text: []byte(`connector: v1
name: chat
title: Chat
docs: https://chat.example/
hosts:
  - {host: chat.example, websocket: true}
ownHosts: true
secrets:
  token: {title: Token}
references:
  token: "chat-{base62:32}"
env:
  CHAT_TOKEN: "{token}"
auth:
  - websocket: {/auth/token: "{token}"}
`)}
	w := openWallet(t, []connector.Source{source}, s.roots, fmt.Sprintf("{name: chat, hosts: [shop.example], ports: [%d], private: true, resolve: [127.0.0.1]}", s.port), others...)
	if w.reference = w.vault.Placement().Env["CHAT_TOKEN"]; w.reference == "" {
		t.Fatal("no reference")
	}
	return w
}

func (w *wallet) connectChat(token string) {
	w.t.Helper()
	if _, err := w.vault.Connect(context.Background(), vault.ConnectRequest{Name: "chat", Fields: map[string]secretbytes.Bytes{"token": secretbytes.New([]byte(token))}}, "uid:1"); err != nil {
		w.t.Fatal(err)
	}
}

// attacks are ways to send a reference behind "hello ": the writes.
func attacks(ref string) map[string][][]byte {
	all := map[string][][]byte{
		"text":          {frame(text, "hello "+ref+" and more")},
		"binary":        {frame(binary, "hello "+ref)},
		"later message": {frame(text, "hello"), frame(text, " "+ref)},
		"two fragments": {frame(textBegins, "hello "+ref[:10]), frame(last, ref[10:])},
		"binary fragments with a ping between": {
			frame(binaryBegins, "hello "+ref[:10]), frame(ping, ""), frame(middle, ref[10:12]), frame(middle, ""), frame(ping, ""), frame(last, ref[12:]+" and more"),
		},
		"ping":           {frame(ping, "hello "+ref)},
		"close":          {frame(hangUp, "\x03\xe8"), frame(ping, "hello "+ref)},
		"base64":         {frame(text, "hello "), frame(text, base64.StdEncoding.EncodeToString([]byte("user:"+ref)))},
		"in an extended": {frame(binary, "hello "), frame(binary, strings.Repeat("x", 70000)+ref)},
	}
	var split, each [][]byte
	for _, b := range frame(text, "hello "+ref) {
		split = append(split, []byte{b})
	}
	each = append(each, frame(textBegins, "hello "))
	for i := range ref {
		each = append(each, frame(middle, ref[i:i+1]))
	}
	all["split across writes"], all["a byte a frame"] = split, append(each, frame(last, ""))
	return all
}

// K1 and H3: a reference in a frame, whatever the frames look like, reaches
// neither a host without a connection nor its own host where it does not belong.
// Nothing of it leaves, and the program is told.
func TestK1ReferenceInAWebSocket(t *testing.T) {
	s := newChat(t, func(string) []byte { return nil })
	other := newChat(t, func(string) []byte { return nil })
	rule := other.rule()
	rule.WebSocket = true
	for _, own := range []bool{false, true} {
		w := newTalker(t, s.shop, rule)
		w.connectChat(realToken)
		for name, writes := range attacks(w.reference) {
			t.Run(fmt.Sprintf("%s, own host %v", name, own), func(t *testing.T) {
				to := other
				if own {
					to = s
				}
				c, r := w.talk(to.shop)
				defer c.Close()
				if own {
					_, _ = c.Write(frame(text, `{"no":"credential"}`))
				}
				for _, b := range writes {
					if _, err := c.Write(b); err != nil {
						break // it was cut before all was sent
					}
				}
				if status, reason := goodbye(t, r); status != "1008" || reason != "ambit: reference-misplaced" {
					t.Errorf("closed with %q %q", status, reason)
				}
				got := to.heard(t)
				want := "hello "
				if own {
					want = `{"no":"credential"}` + want
				}
				rest := strings.NewReplacer("x", "", "\x03\xe8", "").Replace(got.payload)
				if !strings.HasPrefix(want, rest) {
					t.Errorf("arrived: %q, want at most %q", got.payload, want)
				}
			})
		}
		w.log.denied("reference-misplaced")
		if !w.alerts.raised("reference-misplaced") {
			t.Error("no alert")
		}
		if e := w.log.denied("reference-misplaced"); e.Action != ambit.ActionWebSocket || !strings.Contains(e.Reason.Text, "the message of the WebSocket") || e.Reason.Remedy == "" {
			t.Errorf("%+v: %+v", e, e.Reason)
		}
	}
}

// H3: what breaks a rule of RFC 6455 (a compressed frame, no mask) ends the
// WebSocket before it is passed on.
func TestH3MalformedFrames(t *testing.T) {
	s := newChat(t, func(string) []byte { return nil })
	w := newTalker(t, s.shop)
	w.connectChat(realToken)
	for name, b := range map[string][]byte{
		"compressed":             frame(0xc1, "text"),
		"reserved bit":           frame(0x91, "text"),
		"no mask":                {0x81, 4, 't', 'e', 'x', 't'},
		"reserved opcode":        frame(0x83, "text"),
		"long ping":              frame(ping, strings.Repeat("p", 126)),
		"fragmented ping":        frame(0x09, "text"),
		"goes on with nothing":   frame(last, "text"),
		"begins twice":           append(frame(textBegins, "hello"), frame(text, "text")...),
		"not the shortest":       {0x81, 0xfe, 0, 4, 0, 0, 0, 0, 't', 'e', 'x', 't'},
		"data after a close":     append(frame(hangUp, ""), frame(text, "text")...),
		"half a status":          frame(hangUp, "t"),
		"frames without content": append(frame(textBegins, "hello "+w.reference[:5]), bytes.Repeat(frame(middle, ""), 20000)...),
	} {
		for _, first := range []bool{true, false} { // is looked at in another way
			if first && name == "frames without content" {
				continue // the first message is kept without its frames, so that there is nothing to refuse
			}
			t.Run(fmt.Sprintf("%s, first %v", name, first), func(t *testing.T) {
				c, r := w.talk(s.shop)
				defer c.Close()
				if !first {
					_, _ = c.Write(frame(text, "hello"))
				}
				_, _ = c.Write(b)
				if status, reason := goodbye(t, r); status != "1008" || reason != "ambit: bad-frame" {
					t.Errorf("closed with %q %q", status, reason)
				}
				if got := s.heard(t); strings.Contains(got.payload, "t") || strings.Contains(got.payload, "p") || strings.Contains(got.payload, "!") {
					t.Errorf("arrived: %q", got.payload)
				}
			})
		}
	}
	if e := w.log.denied("bad-frame"); e.Reason.Text == "" || e.Reason.Remedy == "" || !w.alerts.raised("bad-frame") {
		t.Errorf("%+v", e.Reason)
	}
}

// The credential is put into the first message, once, and comes back to the agent
// in no form (K3), also across the frames of an echo.
func TestCredentialInAWebSocket(t *testing.T) {
	for name, echo := range map[string]func(string) []byte{
		"whole": func(m string) []byte { return wsframe.Append(nil, wsframe.Server, wsframe.Text, []byte(m)) },
		"fragments": func(m string) []byte {
			b := []byte{0x01, 0}
			for i := range m {
				b = append(b, 0x00, 1, m[i])
			}
			return append(b, 0x80, 0)
		},
		"fragments with pings between": func(m string) []byte {
			b := append([]byte{0x01, byte(len(m) / 2)}, m[:len(m)/2]...)
			b = append(b, 0x89, 2, 'h', 'i')
			return append(append(b, 0x80, byte(len(m)-len(m)/2)), m[len(m)/2:]...)
		},
		"base64": func(m string) []byte {
			return wsframe.Append(nil, wsframe.Server, wsframe.Binary, []byte(base64.StdEncoding.EncodeToString([]byte(m))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newChat(t, echo)
			w := newTalker(t, s.shop)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, resp, err := websocket.Dial(ctx, "wss://"+s.host()+"/ws", &websocket.DialOptions{HTTPClient: w.client(false)})
			if err == nil || resp == nil {
				t.Fatalf("not connected, and goes: %v", err)
			}
			w.wantProblem(resp, 403, "not-connected")
			token := oddToken
			if name == "base64" { // of what is escaped in JSON it is not looked for
				token = realToken
			}
			w.connectChat(token)
			c, _, err := websocket.Dial(ctx, "wss://"+s.host()+"/ws", &websocket.DialOptions{HTTPClient: w.client(false)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow() //nolint:errcheck // it is over either way
			if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"auth": {"token":%q, "v":1}, "hello":"there"}`, w.reference)); err != nil {
				t.Fatal(err)
			}
			escaped, _ := json.Marshal(token)
			want := fmt.Sprintf(`{"auth": {"token":%s, "v":1}, "hello":"there"}`, escaped)
			_, b, err := c.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			length := len(want)
			if name == "base64" {
				length = base64.StdEncoding.EncodedLen(length)
			}
			if plain, _ := base64.StdEncoding.DecodeString(string(b)); len(b) != length || strings.Contains(string(b)+string(plain), "canary") || strings.Contains(string(b)+string(plain), "456789") || !strings.Contains(string(b)+string(plain), "there") {
				t.Errorf("the agent reads %q (%q)", b, plain)
			}
			_ = c.CloseNow()
			if got := s.heard(t); len(got.messages) != 1 || got.messages[0] != want {
				t.Errorf("arrived: %q, want %q", got.messages, want)
			}
			if e := w.log.await(func(e ambit.Event) bool { return e.Decision == ambit.Allow }); e.Connection != "chat" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// The first message may come in fragments and pieces, with pings between, which
// are not kept waiting.
func TestFirstMessageInFragments(t *testing.T) {
	pinged := make(chan struct{})
	s := newShop(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OnPingReceived: func(context.Context, []byte) bool { close(pinged); return true }})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow() //nolint:errcheck // it is over either way
		kind, b, err := c.Read(r.Context())
		if want := `{"auth":{"token":"` + realToken + `"}}`; err != nil || kind != websocket.MessageText || string(b) != want {
			t.Errorf("arrived: %s %q, %v", kind, b, err)
		}
		_ = c.Write(r.Context(), kind, []byte("welcome"))
	})
	w := newTalker(t, s)
	w.connectChat(realToken)
	c, r := w.talk(s)
	defer c.Close()
	message := `{"auth":{"token":"` + w.reference + `"}}`
	for _, b := range frame(textBegins, message[:30]) {
		_, _ = c.Write([]byte{b})
	}
	_, _ = c.Write(frame(middle, ""))
	_, _ = c.Write(frame(ping, "are you there"))
	<-pinged // before the message is whole
	_, _ = c.Write(append(frame(middle, message[30:40]), frame(last, message[40:])...))
	b, err := io.ReadAll(r)
	if err != nil || !bytes.Contains(b, []byte("welcome")) || !bytes.Contains(b, []byte("are you there")) {
		t.Errorf("%q, %v", b, err)
	}
}

// What a first message may not be, and what it may be besides.
func TestFirstMessage(t *testing.T) {
	s := newChat(t, func(string) []byte { return nil })
	w := newTalker(t, s.shop)
	w.connectChat(realToken)
	ref := w.reference
	for name, c := range map[string]struct{ message, code, arrives string }{
		"no JSON":               {"hello", "", "hello"},
		"lacks the field":       {`{"auth":{}}`, "", `{"auth":{}}`},
		"empty field":           {`{"auth":{"token":""}}`, "", `{"auth":{"token":""}}`},
		"empty":                 {"", "", ""},
		"foreign":               {`{"auth":{"token":"somebody-elses"}}`, "foreign-credential", ""},
		"foreign, case":         {`{"Auth":{"TOKEN":"somebody-elses"}}`, "foreign-credential", ""},
		"foreign and ours":      {`{"auth":{"token":"` + ref + `","token":"other"}}`, "foreign-credential", ""},
		"foreign, sloppy JSON":  {`{"auth":{"token":"somebody-elses",}}`, "foreign-credential", ""},
		"foreign, byte order":   {"\xef\xbb\xbf" + `{"auth":{"token":"somebody-elses"}}`, "foreign-credential", ""},
		"elsewhere":             {`{"auth":{"token":"` + ref + `"},"x":"` + ref + `"}`, "reference-misplaced", ""},
		"elsewhere, escaped":    {`{"x":"\u00` + fmt.Sprintf("%x", ref[0]) + ref[1:] + `"}`, "reference-misplaced", ""},
		"with more around":      {`{"auth":{"token":"x` + ref + `"}}`, "reference-misplaced", ""},
		"sloppy JSON":           {`{"auth":{"token":"` + ref + `"},}`, "reference-misplaced", ""},
		"no JSON, a reference":  {"hello " + ref, "reference-misplaced", ""},
		"too long":              {`{"auth":{"token":"` + ref + `","x":"` + strings.Repeat("x", 64<<10) + `"}}`, "body-too-long", ""},
		"ours, escaped":         {`{"auth":{"token":"\u00` + fmt.Sprintf("%x", ref[0]) + ref[1:] + `"}}`, "", `{"auth":{"token":"` + realToken + `"}}`},
		"ours, and the longest": {`{"auth":{"token":"` + ref + `"},"x":"` + strings.Repeat("x", 64<<10-100) + `"}`, "", `{"auth":{"token":"` + realToken + `"},"x":"` + strings.Repeat("x", 64<<10-100) + `"}`},
	} {
		for _, kind := range []byte{text, binary} {
			t.Run(fmt.Sprintf("%s, %x", name, kind), func(t *testing.T) {
				conn, r := w.talk(s.shop)
				defer conn.Close()
				if _, err := conn.Write(append(frame(kind, c.message), frame(hangUp, "\x03\xe8")...)); err != nil {
					t.Fatal(err)
				}
				if c.code != "" {
					if status, reason := goodbye(t, r); status != "1008" || reason != "ambit: "+c.code {
						t.Errorf("closed with %q %q", status, reason)
					}
					w.log.denied(c.code)
				}
				conn.Close()
				got := s.heard(t)
				if c.code != "" && got.payload != "" || c.code == "" && (len(got.messages) != 1 || got.messages[0] != c.arrives || got.controls != 1) {
					t.Errorf("arrived: %.200q (%d control frames)", got.payload, got.controls)
				}
			})
		}
	}
}

// The frame that says why stands between two frames and never in one.
func TestNoGoodbyeInAFrame(t *testing.T) {
	half := []byte{0x81, 10, 'h', 'a', 'l', 'f'}
	s := newChat(t, func(string) []byte { return half })
	w := newTalker(t, s.shop)
	w.connectChat(realToken)
	c, r := w.talk(s.shop)
	defer c.Close()
	_, _ = c.Write(frame(text, "hello"))
	if _, err := io.ReadFull(r, make([]byte, len(half))); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(frame(text, w.reference))
	if rest, err := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("in the middle of a frame comes %q, %v", rest, err)
	}
	w.log.denied("reference-misplaced")
}

// K5: revoked while a WebSocket is open: it is cut, and another is refused.
func TestK5RevokedInAWebSocket(t *testing.T) {
	s := newChat(t, func(m string) []byte { return wsframe.Append(nil, wsframe.Server, wsframe.Text, []byte("welcome")) })
	w := newTalker(t, s.shop)
	w.connectChat(realToken)
	for _, before := range []bool{false, true} { // the first message
		if before {
			w.connectChat(realToken)
		}
		c, r := w.talk(s.shop)
		if !before {
			_, _ = c.Write(frame(text, `{"auth":{"token":"`+w.reference+`"}}`))
			if _, err := io.ReadFull(r, make([]byte, 2+len("welcome"))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.vault.Revoke(t.Context(), "chat", "uid:1"); err != nil {
			t.Fatal(err)
		}
		if before {
			_, _ = c.Write(frame(text, `{"auth":{"token":"`+w.reference+`"}}`))
		}
		if b, _ := io.ReadAll(r); len(b) > 0 {
			t.Errorf("after the revocation: %q", b)
		}
		if got := s.heard(t); before && got.payload != "" {
			t.Errorf("arrived after the revocation: %q", got.payload)
		}
		c.Close()
		_, resp, err := websocket.Dial(t.Context(), "wss://"+s.host()+"/ws", &websocket.DialOptions{HTTPClient: w.client(false)})
		if err == nil {
			t.Fatal("another WebSocket was opened")
		}
		w.wantProblem(resp, 403, "not-connected")
	}
}

// K3: a credential that was replaced after the WebSocket was opened and before the
// first message is the one that is sent, and does not come back either.
func TestK3CredentialReplacedBeforeTheFirstMessage(t *testing.T) {
	s := newChat(t, func(m string) []byte { return wsframe.Append(nil, wsframe.Server, wsframe.Text, []byte(m)) })
	w := newTalker(t, s.shop)
	w.connectChat("canary-of-the-old-token")
	c, r := w.talk(s.shop)
	defer c.Close()
	w.connectChat(realToken)
	_, _ = c.Write(frame(text, `{"auth":{"token":"`+w.reference+`"}}`))
	want := `{"auth":{"token":"` + strings.Repeat("X", len(realToken)) + `"}}`
	got := make([]byte, 2+len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got[2:]) != want {
		t.Errorf("the agent reads %q, %v", got, err)
	}
	c.Close()
	if h := s.heard(t); len(h.messages) != 1 || !strings.Contains(h.messages[0], realToken) {
		t.Errorf("arrived: %q", h.messages)
	}
}

// What a host sends that breaks a rule ends the WebSocket, and is not passed on.
func TestMalformedFramesOfAHost(t *testing.T) {
	for name, b := range map[string][]byte{
		"mask":       frame(text, "malformed"),
		"compressed": {0xc1, 9, 'm', 'a', 'l', 'f', 'o', 'r', 'm', 'e', 'd'},
	} {
		s := newChat(t, func(string) []byte { return b })
		w := newTalker(t, s.shop)
		w.connectChat(realToken)
		c, r := w.talk(s.shop)
		_, _ = c.Write(frame(text, "hello"))
		if b, _ := io.ReadAll(r); len(b) > 0 {
			t.Errorf("%s: the agent reads %q", name, b)
		}
		c.Close()
		s.heard(t)
		if o := w.log.outcome(); !strings.Contains(o.Detail, "a WebSocket frame") {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// Honest programs notice nothing: long messages both ways, in fragments, with
// pings between, and close codes.
func TestWatchedWebSocketIsTransparent(t *testing.T) {
	closed := make(chan websocket.StatusCode, 2)
	h := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow() //nolint:errcheck // it is over either way
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				closed <- websocket.CloseStatus(err)
				return
			}
			out, err := c.Writer(r.Context(), kind)
			for part := range bytes.SplitAfterSeq(b, []byte{0}) { // in fragments of any length
				if err == nil {
					_, err = out.Write(part)
				}
			}
			if err = errors.Join(err, out.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	own, other := newShop(t, h), newShop(t, h)
	rule := other.rule()
	rule.WebSocket = true
	w := newTalker(t, own, rule)
	w.connectChat(realToken)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	message := make([]byte, 3<<20)
	_, _ = rand.Read(message)
	copy(message[100000:], w.reference[:20]+" is no reference, nor is "+url.QueryEscape(w.reference[3:]))
	for _, s := range []*shop{own, other} {
		c, _, err := websocket.Dial(ctx, "wss://"+s.host()+"/ws", &websocket.DialOptions{HTTPClient: w.client(false)})
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(-1)
		for _, message := range [][]byte{[]byte("hello"), message} {
			out, err := c.Writer(ctx, websocket.MessageBinary)
			for b := range bytes.SplitAfterSeq(message, []byte{7, 7}) {
				if err == nil {
					_, err = out.Write(b)
				}
			}
			if err = errors.Join(err, out.Close()); err != nil {
				t.Fatal(err)
			}
			kind, b, err := c.Read(ctx)
			if err != nil || kind != websocket.MessageBinary || !bytes.Equal(b, message) {
				t.Fatalf("%d bytes, %s, %v", len(b), kind, err)
			}
		}
		c.CloseRead(ctx)
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
		c.Close(websocket.StatusCode(4001), "bye")
		if status := <-closed; status != 4001 {
			t.Errorf("the host was left with %d", status)
		}
	}
}
