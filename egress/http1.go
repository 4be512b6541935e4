package egress

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"ambit"
	"ambit/internal/httpstrict"
	"ambit/vault"
)

// serveHTTP1 is the loop over the requests of one connection.
func (l *link) serveHTTP1() {
	limits := httpstrict.Limits{Head: l.p.limits.HeadBytes}
	var head *httpstrict.Head
	var err error
	defer func() {
		if l.refused {
			l.linger()
		}
	}()
	for {
		l.readBy(l.p.limits.IdleTime)
		if _, err = l.br.Peek(1); err != nil {
			return
		}
		l.readBy(l.p.limits.HeadTime)
		if head, l.scratch, err = httpstrict.ReadHead(l.br, l.scratch, limits); err != nil {
			l.refuseHead(err)
			return
		}
		if !l.serveRequest(head) {
			return
		}
		if cap(l.scratch) > 16<<10 { // one long head must not stay for hours
			l.scratch = nil
		}
	}
}

// refuseHead answers what could not be read as a request (H1, H4).
func (l *link) refuseHead(err error) {
	e, is := httpstrict.IsError(err)
	if !is {
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() || l.ctx.Err() != nil {
			return
		}
		e = &httpstrict.Error{Status: http.StatusRequestTimeout, Text: "the request's head did not come in time"}
	}
	f := l.refuse(badRequest(e.Text))
	if f.verdict.Reason.Code == "bad-request" {
		f.status = e.Status
	}
	l.answerRefusal(f, false, false, false)
}

// serveRequest serves one request, and says whether another may follow.
func (l *link) serveRequest(head *httpstrict.Head) (again bool) {
	target := head.Target
	if l.proxy {
		if intent := proxyIntent(head.Header); intent != "" {
			l.to.intent = intent
		}
		if head.Method == http.MethodConnect {
			host := head.Host
			if !head.HasHost { // HTTP/1.0, which Python's http.client speaks to proxies, has none
				host = target
			}
			l.connect(target, host)
			return false
		}
		var err error
		if target, err = l.absolute(target); err != nil {
			l.to.host, l.to.port = "", 0
			l.answerRefusal(l.refuse(badRequest(err.Error())), false, false, false)
			return false
		}
	}
	if head.Length >= 0 && int64(l.br.Buffered()) > head.Length {
		l.answerRefusal(l.refuse(badRequest(surplus)), false, false, false)
		return false
	}
	if l.p.answers(&l.to) {
		return l.serveInternal(head, target)
	}
	c := call{method: head.Method, target: target, authority: head.Host, hasHost: head.HasHost, header: head.Header}
	_, c.upgrade = head.Header["Upgrade"]
	if c.upgrade && (head.Length != 0 || head.Minor == 0) {
		l.answerRefusal(l.refuse(badRequest("an upgrade has no body and is asked for in HTTP/1.1")), false, false, false)
		return false
	}
	grpc := isGRPC(head.Header)
	a, f := l.p.admitOne(l.ctx, l.cancel, &l.to, &c)
	if f != nil {
		again = !head.Close && f.status != http.StatusBadRequest && f.status != http.StatusMisdirectedRequest && l.discard(head)
		return l.answerRefusal(f, again, head.Method == http.MethodHead, grpc) && again
	}
	defer l.p.ended(a)
	x := exchange{l: l, a: a, head: head, start: time.Now()}
	return x.run()
}

// surplus is what a pipelining client, or a smuggled request, looks like.
const surplus = "bytes follow the request before it was answered (pipelining is not spoken here)"

// discard reads the rest of a refused request, if it is short and coming.
func (l *link) discard(head *httpstrict.Head) bool {
	if head.Length == 0 {
		return true
	}
	const most = 256 << 10
	if head.Expect || head.Length > most {
		return false
	}
	l.readBy(l.p.limits.HeadTime)
	n, err := io.CopyN(io.Discard, httpstrict.NewBody(l.br, head.Length), most+1)
	return errors.Is(err, io.EOF) && n <= most
}

// exchange is one granted request and its answer.
type exchange struct {
	l     *link
	a     *admitted
	head  *httpstrict.Head
	start time.Time
	body  *requestBody // nil if there is none
	in    int64        // body bytes received
	sent  bool         // the answer's head went out

	seen sighting

	withdrawn bool // a refusal after the grant is in the log
}

func (x *exchange) run() (again bool) {
	var o ambit.Outcome
	var lease *vault.Lease
	defer func() {
		if x.body != nil {
			again = x.body.finish() && again
			o.BytesOut = x.body.read()
		}
		if d := lease.Refusal(errWithdrawn); d != nil && !x.withdrawn { // after the host had answered
			x.l.p.withdraw(x.l.ctx, x.a, d)
			o.Error, again = errWithdrawn.Error(), false
		}
		o.BytesIn, o.Duration = x.in, time.Since(x.start)
		x.seen.report(&o)
		x.a.grant.Finish(o)
	}()
	x.seen = x.l.p.sighting()
	q := x.request()
	var f *refusal
	if lease, f = x.l.p.lend(x.l.ctx, x.l.cancel, x.a, q); f != nil {
		o.Error = errWithdrawn.Error()
		x.l.answerRefusal(f, false, x.head.Method == http.MethodHead, isGRPC(x.head.Header))
		return false
	}
	defer lease.Done()
	x.l.abort.start(x)
	defer x.l.abort.stop()
	h1, _, done := x.a.up.route(lease)
	defer done()
	resp, err := h1.RoundTrip(q)
	if err != nil {
		o.Error = oneLine(err)
		x.fail(err, lease)
		return false
	}
	defer resp.Body.Close()
	o.Status = resp.StatusCode
	if err := lease.Answer(resp); err != nil {
		o.Error = oneLine(err)
		x.fail(err, lease)
		return false
	}
	if x.a.grant.Request().Action == ambit.ActionWebSocket && resp.StatusCode == http.StatusSwitchingProtocols {
		x.l.abort.stop()
		err = x.websocket(resp, lease, &o)
	} else {
		resp.Body = x.seen.response(resp.Body, resp.Header)
		again, err = x.answer(resp)
	}
	if err != nil {
		o.Error = oneLine(err)
		if !x.sent {
			x.l.answerRefusal(failed(err, x.a.grant.Event()), false, false, false)
		}
		return false
	}
	return again && !x.head.Close
}

// request is what the upstream is sent.
func (x *exchange) request() *http.Request {
	granted := x.a.grant.Request()
	q := outgoing(granted, &x.l.to)
	q.Header = x.head.Header
	if x.head.Length != 0 {
		x.body = &requestBody{l: x.l, src: httpstrict.NewBody(x.l.br, x.head.Length), expect: x.head.Expect, done: make(chan struct{})}
		q.Body = x.seen.request(x.body, x.head.Header)
		q.ContentLength = x.head.Length
		if x.head.Expect {
			q.Header["Expect"] = []string{"100-continue"}
		}
	}
	if granted.Action == ambit.ActionWebSocket {
		q.Header["Connection"], q.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	return q.WithContext(x.l.ctx)
}

// outgoing is a request for exactly what was granted.
func outgoing(granted *ambit.Request, to *origin) *http.Request {
	return &http.Request{
		Method: granted.Method,
		// Opaque is written as it is; Path would be encoded once more.
		URL:  &url.URL{Scheme: to.scheme, Host: to.authority(), Opaque: granted.Path, RawQuery: granted.RawQuery},
		Host: to.field(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// fail answers for a granted request that came to nothing.
func (x *exchange) fail(err error, lease *vault.Lease) {
	if d := lease.Refusal(err); d != nil { // an agent that has hung up is refused, logged and alerted, too
		x.withdrawn = true
		x.l.answerRefusal(x.l.p.withdraw(x.l.ctx, x.a, d), false, x.head.Method == http.MethodHead, isGRPC(x.head.Header))
		return
	}
	if x.l.ctx.Err() != nil {
		return
	}
	if x.body != nil {
		if e := x.body.refused(); e != nil {
			x.l.answerRefusal(x.l.refuse(badRequest(e.Text)), false, false, false)
			return
		}
	}
	x.l.answerRefusal(failed(err, x.a.grant.Event()), false, x.head.Method == http.MethodHead, isGRPC(x.head.Header))
}

// requestBody is the agent's body on its way up. The transport reads it from
// a goroutine of its own, perhaps until after the answer came.
type requestBody struct {
	l    *link
	src  io.Reader
	done chan struct{} // closed by Close
	once sync.Once

	mu     sync.Mutex
	expect bool // 100 Continue is still to be sent
	n      int64
	err    error
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	expect := b.expect
	b.expect = false
	if expect {
		b.l.writeBy(b.l.p.limits.StreamTime)
		if _, err := io.WriteString(b.l.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			b.mu.Unlock()
			return 0, err
		}
	}
	if b.err != nil {
		defer b.mu.Unlock()
		return 0, b.err
	}
	b.l.readBy(b.l.p.limits.StreamTime)
	b.mu.Unlock()
	n, err := b.src.Read(p)
	if err == io.EOF && b.l.br.Buffered() > 0 {
		err = &httpstrict.Error{Status: http.StatusBadRequest, Text: surplus}
	}
	b.mu.Lock()
	b.n += int64(n)
	b.err = err
	b.mu.Unlock()
	return n, err
}

// Close implements io.Closer. No Read follows it.
func (b *requestBody) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// answered makes sure that no 100 Continue is sent into the answer.
func (b *requestBody) answered() {
	b.mu.Lock()
	b.expect = false
	b.mu.Unlock()
}

// finish waits until the transport has let go of the body, and says whether
// all of it was read.
func (b *requestBody) finish() bool {
	whole := b.stop()
	<-b.done
	return whole
}

// stop ends the reading of the body, and says whether all of it was read.
func (b *requestBody) stop() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	whole := errors.Is(b.err, io.EOF)
	if !whole {
		b.err = errors.New("the request was answered before it was whole")
		_ = b.l.conn.SetReadDeadline(time.Unix(1, 0)) // wakes a Read that waits
	}
	return whole
}

func (b *requestBody) read() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// whole says whether all of it was read.
func (b *requestBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Is(b.err, io.EOF)
}

// refused returns what was wrong with the body's framing, if that was it.
func (b *requestBody) refused() *httpstrict.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, _ := httpstrict.IsError(b.err)
	return e
}
