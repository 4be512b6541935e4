package egress

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; nothing is kept secret by it
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"ambit"
	"ambit/internal/wsframe"
	"ambit/vault"
)

// isWebSocket says whether a call is a well-formed opening handshake and
// nothing else (RFC 6455 section 4.2.1).
func isWebSocket(c *call) bool {
	upgrade, version, key := c.header["Upgrade"], c.header["Sec-Websocket-Version"], c.header["Sec-Websocket-Key"]
	if c.method != http.MethodGet || len(upgrade) != 1 || len(version) != 1 || len(key) != 1 {
		return false
	}
	nonce, err := base64.StdEncoding.DecodeString(key[0])
	return err == nil && len(nonce) == 16 && version[0] == "13" &&
		strings.EqualFold(upgrade[0], "websocket") && hasToken(c.header["Connection"], "upgrade")
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // the same
	return base64.StdEncoding.EncodeToString(sum[:])
}

// websocket finishes the handshake with the agent and copies the frames. They
// are not compressed: no extension was offered, so none may be answered. What the
// vault refuses in them is logged, and the program is told with a close frame
// where one can stand.
func (x *exchange) websocket(resp *http.Response, lease *vault.Lease, o *ambit.Outcome) error {
	up, ok := resp.Body.(io.ReadWriteCloser)
	h := resp.Header
	switch {
	case !ok, !strings.EqualFold(h.Get("Upgrade"), "websocket"), !hasToken(h["Connection"], "upgrade"),
		h.Get("Sec-Websocket-Accept") != acceptKey(x.head.Header.Get("Sec-Websocket-Key")):
		return errors.New("the host answered the WebSocket handshake wrongly")
	case len(h["Sec-Websocket-Extensions"]) > 0:
		return errors.New("the host answered the WebSocket handshake with an extension that was not offered")
	}
	out, err := appendHead(x.l.out[:0], resp.StatusCode, h)
	if err != nil {
		return err
	}
	x.l.out = append(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	x.sent = true
	if err := x.l.write(x.l.out); err != nil {
		return err
	}
	o.BytesOut, x.in, err = x.l.tunnel(x.seen.frames(x.l.br, wsframe.Client), watchedStream{x.seen.frames(up, wsframe.Server), up})
	if d := lease.Refusal(err); d != nil {
		x.withdrawn = true
		x.l.p.withdraw(x.l.ctx, x.a, d)
		if b := lease.Goodbye(d); b != nil && x.l.write(b) == nil {
			x.l.refused = true // it lingers, so that the program reads it
		}
		return errWithdrawn
	}
	return err
}
