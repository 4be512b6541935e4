package egress

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"ambit/internal/inert"
)

// Answers up to this size go out in one piece with their head.
const smallBody = 16 << 10

var errBadAnswer = errors.New("the answer's header fields have control characters")

// oneLine is an error for the log.
func oneLine(err error) string { return inert.Text(err.Error()) }

// appendStatus writes the status line.
func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	return append(b, '\r', '\n')
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ':', ' ')
	b = append(b, value...)
	return append(b, '\r', '\n')
}

func appendNumber(b []byte, name string, n int64) []byte {
	b = append(b, name...)
	b = append(b, ':', ' ')
	return append(strconv.AppendInt(b, n, 10), '\r', '\n')
}

// appendHead writes the status line and the upstream's fields that may pass.
func appendHead(b []byte, status int, h http.Header) ([]byte, error) {
	b = appendStatus(b, status)
	for name, values := range h {
		if responseFate(name) != pass {
			continue
		}
		for _, v := range values {
			if !cleanField(name) || !cleanField(v) {
				return b, errBadAnswer
			}
			b = appendField(b, name, v)
		}
	}
	return b, nil
}

// cleanField says that nothing in s ends a line or acts on one.
func cleanField(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// answer passes the upstream's answer on. again is true if the agent's
// connection is in good order after it.
func (x *exchange) answer(resp *http.Response) (again bool, err error) {
	if resp.StatusCode < 200 {
		return false, errors.New("the host switched to a protocol that was not asked for")
	}
	dropNamed(resp.Header)
	f, err := x.begin(resp)
	if err != nil {
		return false, err
	}
	if f.bodyless || resp.ContentLength == 0 {
		return f.again, x.l.write(x.l.out)
	}
	err = x.stream(resp, f.chunked)
	if cap(x.l.out) > 4*smallBody {
		x.l.out = nil
	}
	return f.again && err == nil, err
}

// form is how an answer is written.
type form struct {
	again    bool // the agent's connection is in good order after it
	bodyless bool
	chunked  bool
}

// begin writes an answer's head to x.l.out.
func (x *exchange) begin(resp *http.Response) (form, error) {
	if x.body != nil {
		x.body.answered()
	}
	out, err := appendHead(x.l.out[:0], resp.StatusCode, resp.Header)
	x.l.out = out
	if err != nil {
		return form{}, err
	}
	again := x.head.Minor == 1 && !x.head.Close && (x.body == nil || x.body.whole())
	length := resp.ContentLength
	bodyless := x.head.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	chunked := !bodyless && length < 0 && x.head.Minor == 1
	switch {
	case bodyless:
		if v := resp.Header["Content-Length"]; len(v) == 1 && cleanField(v[0]) && resp.StatusCode != http.StatusNoContent {
			out = appendField(out, "Content-Length", v[0])
		}
	case chunked:
		out = append(out, "Transfer-Encoding: chunked\r\n"...)
	case length >= 0:
		out = appendNumber(out, "Content-Length", length)
	default:
		again = false // the end of the connection is the end of the body
	}
	if !again {
		out = append(out, "Connection: close\r\n"...)
	}
	x.l.out, x.sent = append(out, '\r', '\n'), true
	return form{again, bodyless, chunked}, nil
}

func (l *link) write(b []byte) error {
	l.writeBy(l.p.limits.StreamTime)
	_, err := l.conn.Write(b)
	return err
}

// stream sends the head that is in x.l.out and the body behind it, each piece
// as it comes. A body that breaks off breaks off for the agent, too.
func (x *exchange) stream(resp *http.Response, chunked bool) error {
	body, length := resp.Body, resp.ContentLength
	idle := &x.l.idle
	idle.start(x.l.p.patience(resp.Header), x.l.cancel)
	defer idle.stop()
	if !chunked && length > 0 && length <= smallBody {
		return x.small(body, int(length), idle)
	}
	if err := x.l.write(x.l.out); err != nil {
		return err
	}
	buffer := x.l.p.buffers.get()
	defer x.l.p.buffers.put(buffer)
	const before, after = 8, 2 // the frame of a chunk: hexadecimal size and CRLF, CRLF
	space := (*buffer)[before : len(*buffer)-after]
	for {
		n, err := body.Read(space)
		idle.moved()
		if n > 0 {
			x.in += int64(n)
			piece := space[:n]
			if chunked {
				piece = frame(*buffer, before, n)
			}
			if err := x.l.write(piece); err != nil {
				return err
			}
		}
		if err == io.EOF {
			if chunked {
				return x.l.write([]byte("0\r\n\r\n"))
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// small sends head and body together, as far as the body is there.
func (x *exchange) small(body io.Reader, length int, idle *idleTimer) error {
	out := x.l.out
	for sent := 0; sent < length; {
		start := len(out)
		out = append(out, make([]byte, length-sent)...)
		n, err := body.Read(out[start:])
		idle.moved()
		sent += n
		x.in += int64(n)
		x.l.out = out
		if err := x.l.write(out[:start+n]); err != nil {
			return err
		}
		out = out[:0]
		if err != nil && !(err == io.EOF && sent == length) {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
	}
	return nil
}

// frame writes a chunk's frame around the n bytes at start in b.
func frame(b []byte, start, n int) []byte {
	b[start+n], b[start+n+1] = '\r', '\n'
	i := start - 2
	b[i], b[i+1] = '\r', '\n'
	for v := n; v > 0; v >>= 4 {
		i--
		b[i] = "0123456789abcdef"[v&15]
	}
	return b[i : start+n+2]
}

// answerRefusal sends a refusal and says whether it was sent whole. head says
// that the request was a HEAD.
func (l *link) answerRefusal(f *refusal, again, head, grpc bool) bool {
	body := f.body()
	if grpc {
		body = nil
	}
	out := appendStatus(l.out[:0], f.status)
	for name, values := range f.header(grpc) {
		out = appendField(out, name, values[0])
	}
	out = appendNumber(out, "Content-Length", int64(len(body)))
	if !again {
		out = append(out, "Connection: close\r\n"...)
	}
	out = append(out, '\r', '\n')
	if !head {
		out = append(out, body...)
	}
	l.out = out
	l.refused = !again
	return l.write(out) == nil
}

// linger lets a program that is still sending read why it was refused: closed
// at once, it would see nothing but a reset.
func (l *link) linger() {
	c, ok := l.conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	l.readBy(time.Second)
	_, _ = io.CopyN(io.Discard, l.br, 1<<20) // whatever it is, it is not wanted
}
