package egress

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"ambit"
	"ambit/internal/coding"
	"ambit/internal/wsframe"
	"ambit/scan"
)

// touched finds whom a call is about by its target and its stated intent.
func touched(m *scan.Matcher, path, query, intent string) []ambit.Subject {
	s := m.Stream()
	_, _ = s.Write([]byte(path))
	if query != "" {
		_, _ = s.Write([]byte{'?'})
		_, _ = s.Write([]byte(query))
	}
	if intent != "" {
		_, _ = s.Write([]byte{'\n'})
		_, _ = s.Write([]byte(intent))
	}
	s.Close()
	return scan.Plain(s.Subjects())
}

// sighting is what the bodies of one call are about. The request's and the
// answer's pass at the same time.
type sighting struct {
	m            *scan.Matcher // nil: nothing is looked for
	unpacked     int64         // see Limits
	sent, answer watched
}

func (p *Proxy) sighting() sighting {
	return sighting{m: p.subjects(), unpacked: p.limits.Unpacked}
}

// report adds what was seen to an outcome. What passes afterwards is not looked
// at.
func (s *sighting) report(o *ambit.Outcome) {
	for _, w := range []*watched{&s.sent, &s.answer} {
		found, more, unseen := w.end()
		o.More += more
		o.Unseen = o.Unseen || unseen
		for _, f := range scan.Plain(found) {
			if !hasSubject(o.Touched, f) {
				o.Touched = append(o.Touched, f)
			}
		}
	}
}

func hasSubject(all []ambit.Subject, s ambit.Subject) bool {
	for _, have := range all {
		if have == s {
			return true
		}
	}
	return false
}

// request looks at the body of a request with the fields h as r reads it.
func (s *sighting) request(r io.ReadCloser, h http.Header) io.ReadCloser {
	return s.watch(&s.sent, r, h)
}

// response looks at an answer's body.
func (s *sighting) response(r io.ReadCloser, h http.Header) io.ReadCloser {
	return s.watch(&s.answer, r, h)
}

func (s *sighting) watch(w *watched, r io.ReadCloser, h http.Header) io.ReadCloser {
	if s.m == nil || r == nil || r == http.NoBody {
		return r
	}
	w.begin(s.m, s.unpacked, h)
	return struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r, w), r}
}

// watched is one body.
type watched struct {
	mu     sync.Mutex
	m      *scan.Matcher
	most   int64 // of a compressed body, in bytes of what it becomes
	coding string
	state  watching
	opaque bool         // a part was not looked through
	stream *scan.Stream // nil until something came to look through
	packed *unpacker    // feeds stream
}

type watching uint8

const (
	unwatched watching = iota // nothing passes
	undecided                 // what it is shows with the first bytes
	plain                     // it is looked through
	packed                    // it is unpacked and looked through
	over                      // what passes is not looked at
)

// begin says what comes: by its Content-Type text, something else, or what the
// first bytes show.
func (w *watched) begin(m *scan.Matcher, most int64, h http.Header) {
	w.m, w.most, w.coding, w.state = m, most, coding.Of(h), undecided
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if w.coding == coding.Unknown || grpcPacked(h) || err == nil && opaqueMedia(t) {
		w.coding = coding.Unknown
	}
}

// blind says that the rest cannot be looked through.
func (w *watched) blind() { w.state, w.opaque = over, true }

// grpcPacked says whether gRPC's messages are compressed one by one.
func grpcPacked(h http.Header) bool {
	v := h.Get("Grpc-Encoding")
	return v != "" && v != "identity"
}

// opaqueMedia are types in which no text can be found as it is.
func opaqueMedia(t string) bool {
	if t == "image/svg+xml" {
		return false
	}
	kind, rest, _ := strings.Cut(t, "/")
	switch kind {
	case "image", "audio", "video", "font":
		return true
	}
	return rest == "pdf" || rest == "zip" || rest == "gzip" || strings.HasPrefix(rest, "vnd.openxmlformats")
}

// Write looks at what passes. It never fails.
func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state == undecided && len(b) > 0 {
		w.decide(b)
	}
	switch w.state {
	case plain:
		_, _ = w.stream.Write(b)
	case packed:
		if !w.packed.write(b) {
			w.blind()
		}
	}
	return len(b), nil
}

func (w *watched) decide(first []byte) {
	if w.coding == coding.Unknown || w.coding == "" && binary(first) {
		w.blind()
		return
	}
	w.state, w.stream = plain, w.m.Stream()
	if w.coding != "" {
		w.state, w.packed = packed, startUnpacker(w.stream, w.coding, w.most)
	}
}

// binary tells archives and pictures without a type from text. Messages of gRPC
// and the like have zeros and are looked through: only known beginnings count.
func binary(b []byte) bool {
	t := http.DetectContentType(b)
	return t != "application/octet-stream" && !strings.HasPrefix(t, "text/") && opaqueMedia(strings.TrimPrefix(t, "application/x-")) || bytes.HasPrefix(b, []byte("\x1f\x8b"))
}

// end returns whom the body was about, how many more there were at least, and
// whether a part of it was not looked through.
func (w *watched) end() (found []scan.Subject, more int, opaque bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = over
	if w.packed != nil && !w.packed.end() {
		w.opaque = true
	}
	if w.stream != nil {
		w.stream.Close()
		found, more = w.stream.Subjects(), w.stream.More()
	}
	return found, more, w.opaque
}

// unpacker looks through a compressed body in a goroutine of its own, which is
// never further behind than what it was last given.
type unpacker struct {
	pipe  *io.PipeWriter
	done  chan struct{}
	whole bool // everything was looked through; read after done
}

func startUnpacker(s *scan.Stream, zipped string, most int64) *unpacker {
	r, w := io.Pipe()
	u := &unpacker{pipe: w, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		u.whole = unpack(s, r, zipped, most) == nil
		_ = r.Close() // a writer is never kept waiting
	}()
	return u
}

// errLong is a body that unpacks to more than is looked through.
const errLong = watchError("it unpacks to too much")

type watchError string

func (e watchError) Error() string { return string(e) }

func unpack(s *scan.Stream, r io.Reader, zipped string, most int64) error {
	from, err := coding.NewReader(r, zipped)
	if err != nil {
		return err
	}
	n, err := io.Copy(s, io.LimitReader(from, most+1))
	if err == nil && n > most {
		err = errLong
	}
	return err
}

func (u *unpacker) write(b []byte) bool {
	_, err := u.pipe.Write(b)
	return err == nil
}

// end waits for what is still looked at, and says whether it was everything.
func (u *unpacker) end() bool {
	_ = u.pipe.Close()
	<-u.done
	return u.whole
}

// frames looks at the payload of WebSocket frames that pass r.
func (s *sighting) frames(r io.Reader, side wsframe.Side) io.Reader {
	if s.m == nil {
		return r
	}
	w := &s.answer
	if side == wsframe.Client {
		w = &s.sent
	}
	w.m, w.state, w.stream = s.m, plain, s.m.Stream()
	return io.TeeReader(r, &frameWatch{watched: w, reader: wsframe.New(side)})
}

type frameWatch struct {
	watched *watched
	reader  wsframe.Reader
	payload []byte // unmasked
	broken  bool
}

// Write looks at frames. It never fails: what is wrong with them is for those
// who speak WebSocket to find.
func (f *frameWatch) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0 && !f.broken; {
		p, n, err := f.reader.Next(rest)
		if err != nil {
			f.broken = true
			f.watched.lose()
			break
		}
		rest = rest[n:]
		if p.Header == nil || len(p.Payload) == 0 || p.Header.Op.Control() {
			continue
		}
		payload := p.Payload
		if p.Header.Masked {
			f.payload = append(f.payload[:0], payload...)
			wsframe.Xor(f.payload, p.Header.Mask, p.Offset)
			payload = f.payload
		}
		_, _ = f.watched.Write(payload)
		if p.End && p.Header.Fin {
			_, _ = f.watched.Write([]byte{'\n'}) // two messages are not one text
		}
	}
	return len(b), nil
}

// lose is blind for who does not hold mu.
func (w *watched) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != over {
		w.blind()
	}
}

// watchedStream is a connection whose reads are looked at.
type watchedStream struct {
	io.Reader
	io.WriteCloser
}

// CloseWrite tells the other side that nothing more comes, if it can hear that.
func (w watchedStream) CloseWrite() error {
	if c, ok := w.WriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// readable takes out of Accept-Encoding what could not be looked through.
func readable(h http.Header) {
	asked, ok := h["Accept-Encoding"]
	if !ok {
		return
	}
	var kept []string
	for _, v := range asked {
		for c := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(c)), ";")
			switch strings.TrimSpace(name) {
			case "gzip", "x-gzip", "deflate", "identity":
				kept = append(kept, strings.TrimSpace(c))
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}
