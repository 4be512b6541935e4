package egress

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"

	"ambit"
	"ambit/internal/httpstrict"
)

// internalPort is the only one on which Ambit itself answers.
const internalPort = 80

// isInternal says whether a canonical host is the one that never leads out.
func (p *Proxy) isInternal(host string) bool { return host == ambit.InternalHost && p.internal != nil }

// answers says whether what comes over a connection is for Config.Internal.
func (p *Proxy) answers(o *origin) bool {
	return p.isInternal(o.host) && o.port == internalPort && o.scheme == "http"
}

// opens says whether there is anything behind a host and port.
func (s *side) opens(host string, port uint16) ambit.Verdict {
	if !s.isInternal(host) {
		_, v := s.upstream().ends.Endpoint(host, port)
		return v
	}
	if port == internalPort {
		return ambit.Verdict{Decision: ambit.Allow}
	}
	return *notHere()
}

// notHere refuses what is under the name of Ambit itself and is not plain
// HTTP/1.1 on its port. No rule can allow it, so that nothing under the name is
// ever looked up or dialled.
func notHere() *ambit.Verdict {
	return &ambit.Verdict{Reason: ambit.Reason{
		Code: "internal-only", Text: "under " + ambit.InternalHost + " Ambit itself answers, in plain HTTP/1.1 on port 80 and in no other way",
		Remedy: "use http://" + ambit.InternalHost + "/: it stays within the machine, so there is nothing for TLS to protect",
	}}
}

// serveInternal serves one request to Ambit itself, and says whether another may
// follow.
func (l *link) serveInternal(head *httpstrict.Head, target string) (again bool) {
	q, f := l.internalRequest(head, target)
	if f != nil {
		again = !head.Close && f.status != http.StatusBadRequest && f.status != http.StatusMisdirectedRequest && l.discard(head)
		return l.answerRefusal(f, again, head.Method == http.MethodHead, false) && again
	}
	defer l.p.insiders.Add(-1)
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	x := exchange{l: l, head: head}
	w := &internalWriter{x: &x, h: make(http.Header), left: -1, abort: cancel}
	var body *internalBody
	if head.Length != 0 {
		x.body = &requestBody{l: l, src: httpstrict.NewBody(l.br, head.Length), expect: head.Expect, done: make(chan struct{})}
		body = &internalBody{src: x.body, most: l.p.limits.InternalBody}
		q.Body = body
	}
	l.abort.start(&x)
	whole := l.answerInternal(w, q.WithContext(ctx), body)
	l.abort.stop()
	if body != nil && !body.end() {
		l.refused = true // it lingers, so that a program that still sends reads the answer
		return false
	}
	return whole && w.form.again && !head.Close
}

// internalRequest is what the handler gets. A refusal has been logged; otherwise
// the request is counted in.
func (l *link) internalRequest(head *httpstrict.Head, target string) (*http.Request, *refusal) {
	ctx, r := l.ctx, l.to.request(ambit.ActionHTTP)
	r.Method = head.Method
	c := call{method: head.Method, target: target, authority: head.Host, hasHost: head.HasHost, header: head.Header}
	if f := l.p.sameName(ctx, &l.to, &c, r); f != nil {
		return nil, f
	}
	if f := l.p.canonical(ctx, &c, r); f != nil {
		return nil, f
	}
	if _, upgrade := head.Header["Upgrade"]; upgrade {
		return nil, l.p.deny(ctx, r, http.StatusBadRequest, badRequest("Ambit itself speaks HTTP/1.1 here and upgrades to nothing"))
	}
	intent, ok := cleanRequest(head.Header)
	if intent != "" {
		r.Intent = intent
	}
	if !ok {
		return nil, l.p.deny(ctx, r, http.StatusBadRequest, forgedHeader())
	}
	if head.Length > l.p.limits.InternalBody {
		return nil, l.p.deny(ctx, r, http.StatusRequestEntityTooLarge, badRequest(tooLong(l.p.limits.InternalBody)))
	}
	uri := r.Path
	if r.RawQuery != "" {
		uri += "?" + r.RawQuery
	}
	u, err := url.ParseRequestURI(uri)
	if err != nil { // the path is canonical
		return nil, l.p.deny(ctx, r, http.StatusBadRequest, badRequest("the request target cannot be read: "+short(target)))
	}
	if l.p.insiders.Add(1) > int64(l.p.limits.Internal) {
		l.p.insiders.Add(-1)
		return nil, l.p.deny(ctx, r, http.StatusServiceUnavailable, ambit.Reason{
			Code: "too-busy", Text: "this agent has too many requests to Ambit itself in flight", Remedy: "let some of them end first",
		})
	}
	if r.Intent != "" {
		head.Header[intentHeader] = []string{r.Intent}
	}
	return &http.Request{
		Method: r.Method, URL: u, RequestURI: uri, Host: ambit.InternalHost, Proto: "HTTP/1." + strconv.Itoa(head.Minor), ProtoMajor: 1, ProtoMinor: head.Minor,
		Header: head.Header, Body: http.NoBody, ContentLength: head.Length, Close: head.Close,
	}, nil
}

func tooLong(most int64) string {
	return "the body is longer than the " + strconv.FormatInt(most, 10) + " bytes that Ambit itself takes"
}

// answerInternal runs the handler, and says whether all of its answer was sent.
// What was wrong with the body is logged, whatever the handler made of it.
func (l *link) answerInternal(w *internalWriter, q *http.Request, body *internalBody) (whole bool) {
	defer func() {
		x := recover()
		if x == nil {
			return
		}
		whole = false
		if err, is := x.(error); is && errors.Is(err, http.ErrAbortHandler) {
			return
		}
		l.p.log.Error("the handler of ambit.internal failed", slog.Any("panic", x), slog.String("stack", string(debug.Stack())))
		if !w.begun {
			f := failed(errors.New("the handler failed"), 0)
			f.status, f.event = http.StatusInternalServerError, nil
			l.answerRefusal(f, false, q.Method == http.MethodHead, false)
		}
	}()
	l.p.internal.ServeHTTP(w, q)
	if e := body.refused(); e != nil {
		f := l.p.deny(l.ctx, l.to.request(ambit.ActionConnect), e.Status, badRequest(e.Text))
		if !w.begun {
			l.answerRefusal(f, false, q.Method == http.MethodHead, false)
		}
		return false
	}
	return w.finish() == nil
}

// internalBody is the body that the handler reads. Nothing of it is read after
// the handler has returned, also by what the handler left behind.
type internalBody struct {
	src *requestBody

	long atomic.Bool // more came than may

	mu   sync.Mutex // held while reading
	most int64      // that may still come
	over bool
}

// Read implements io.Reader.
func (b *internalBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.long.Load() {
		return 0, errLongBody
	}
	n, err := b.src.Read(p)
	if b.most -= int64(n); b.most < 0 {
		b.long.Store(true)
		return max(0, n+int(b.most)), errLongBody
	}
	return n, err
}

var errLongBody = errors.New("the body of the request is too long")

// refused returns what was wrong with the body, as far as it was read; nil if
// nothing was.
func (b *internalBody) refused() *httpstrict.Error {
	if b == nil {
		return nil
	}
	if b.long.Load() {
		return &httpstrict.Error{Status: http.StatusRequestEntityTooLarge, Text: tooLong(b.src.l.p.limits.InternalBody)}
	}
	return b.src.refused()
}

// Close implements io.Closer. It does not wait for a Read.
func (b *internalBody) Close() error { return nil }

// end says whether all of it was read.
func (b *internalBody) end() (whole bool) {
	whole = b.src.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	_ = b.src.Close()
	return whole
}

// internalWriter is the handler's http.ResponseWriter. A short answer goes out
// in one piece with its length; a longer one, or one that is flushed, as it
// comes. It may be flushed through http.ResponseController.
type internalWriter struct {
	x      *exchange
	h      http.Header
	abort  func() // ends the request's context
	status int    // 0 until it is known
	short  []byte // of the body, while the head waits
	begun  bool   // the head went out, or is about to
	form   form
	left   int64 // of the length that was declared; -1 if none was
	err    error // the first
}

// Header implements http.ResponseWriter.
func (w *internalWriter) Header() http.Header { return w.h }

// WriteHeader implements http.ResponseWriter. There are no informational answers.
func (w *internalWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 && status <= 999 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *internalWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.begun && len(w.short)+len(b) <= smallBody {
		w.short = append(w.short, b...)
		return len(b), w.err
	}
	w.begin(-1)
	w.send(b)
	if w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// FlushError is what http.ResponseController calls.
func (w *internalWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	w.begin(-1)
	w.send(nil)
	return w.err
}

// Flush implements http.Flusher.
func (w *internalWriter) Flush() { _ = w.FlushError() }

// EnableFullDuplex is for http.ResponseController: both ways always go at once.
func (w *internalWriter) EnableFullDuplex() error { return nil }

// begin makes the head, to which send adds. length is the body's, -1 if it is
// not known.
func (w *internalWriter) begin(length int64) {
	if w.begun {
		return
	}
	w.begun = true
	if v := w.h["Content-Length"]; len(v) == 1 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil && n >= 0 {
			length = n
		}
	} else if length > 0 && w.x.head.Method == http.MethodHead {
		w.h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	w.left = length
	w.form, w.err = w.x.begin(&http.Response{StatusCode: w.status, Header: w.h, ContentLength: length})
	if w.err != nil {
		w.abort()
	}
}

// send sends what waits, and b.
func (w *internalWriter) send(b []byte) {
	if w.err != nil {
		return
	}
	out, l := w.x.l.out, w.x.l
	w.x.l.out = out[:0]
	for _, piece := range [][]byte{w.short, b} {
		switch {
		case len(piece) == 0 || w.form.bodyless:
			continue
		case w.left >= 0 && int64(len(piece)) > w.left:
			w.err = http.ErrContentLength
			w.abort()
			return
		case w.left >= 0:
			w.left -= int64(len(piece))
		}
		if w.form.chunked {
			out = append(append(strconv.AppendInt(out, int64(len(piece)), 16), "\r\n"...), piece...)
			out = append(out, "\r\n"...)
		} else {
			out = append(out, piece...)
		}
	}
	w.short = nil
	if len(out) == 0 {
		return
	}
	if w.err = l.write(out); w.err != nil {
		w.abort()
	}
	if l.out = out[:0]; cap(out) > 4*smallBody {
		l.out = nil
	}
}

// finish ends the answer. An error says that it is not whole.
func (w *internalWriter) finish() error {
	w.WriteHeader(http.StatusOK)
	if w.x.l.ctx.Err() != nil {
		return w.x.l.ctx.Err()
	}
	w.begin(int64(len(w.short)))
	w.send(nil)
	switch {
	case w.err != nil:
		return w.err
	case w.form.bodyless:
	case w.form.chunked:
		w.err = w.x.l.write([]byte("0\r\n\r\n"))
	case w.left > 0:
		w.err = errors.New("the answer ended before the length that it declared")
	}
	return w.err
}
