package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"ambit"
	"ambit/gate"
	"ambit/internal/hostname"
	"ambit/internal/urlpath"
	"ambit/vault"
)

// Errand is one HTTP request that Ambit makes itself, on behalf of a tool call
// of the agent that was decided and logged, or to see which tools there are. It goes the way of the agent's own
// requests, but for who judges it: see Config.Errands.
type Errand struct {
	// Request is what is asked: method, URL (http or https), header and body. It is
	// not changed. Its body is closed in every case, perhaps after Do returned.
	Request *http.Request
	// Cause is the tool call's event in the agent's log.
	Cause uint64
	// Uncaused says that there is no tool call, and so no Cause: Ambit asks for its
	// own sake.
	Uncaused bool
	// Task and Intent are those of the tool call; both may be "".
	Task, Intent string
	// Connection names the connection whose credential is used: its references are
	// put where the host takes them, but for a body, where the caller has put them
	// ([vault.Vault.Reference]). The host must be one of the connection's. With ""
	// the request may use none.
	Connection string
	// Rules is what this tool may ask, if that is less than what Config.Errands
	// allows: both must allow. Default: nothing less.
	Rules gate.Decider
	// MaxAnswer is the most bytes of the answer's body. Default: 8 MiB.
	MaxAnswer int64
	// Timeout bounds all of it, up to the end of the answer's body. Default: 60 s.
	Timeout time.Duration

	refused *ambit.Verdict // by the vault, before there was anything to judge
}

const (
	errandAnswer = 8 << 20
	errandTime   = time.Minute
)

// How an errand that was granted can end, beside a host that fails.
var (
	// ErrTooLong is an answer that is longer than Errand.MaxAnswer.
	ErrTooLong = errors.New("the answer is longer than was asked for")
	// ErrCut ends what is under way when its connection is revoked or replaced, or
	// its host is no longer allowed.
	ErrCut = errors.New("the connection was revoked or replaced, or the host is no longer allowed")
	// ErrClosed is returned once the door is closed.
	ErrClosed = errors.New("the egress door is closed")

	errLate = fmt.Errorf("the answer did not come in time: %w", context.DeadlineExceeded)
	errRead = errors.New("the answer was closed")
)

// judge is what the errand itself has against a request that it became.
func (e *Errand) judge(r *ambit.Request) (door *ambit.Verdict) {
	if e.refused != nil {
		return e.refused
	}
	if r.Connection != "" && r.Connection != e.Connection {
		return &ambit.Verdict{Reason: ambit.Reason{
			Code: "other-connection", Text: "the tool asks with the connection " + short(r.Connection) + ", which is not the one that it is declared with",
			Remedy: "declare the tool with the connection whose account it is to use",
		}}
	}
	if e.Rules == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			door = &ambit.Verdict{Reason: ambit.Reason{Code: "policy-failed", Text: fmt.Sprintf("the rules of the tool failed: %v", p), Remedy: "report this; nothing was let through"}}
		}
	}()
	v := e.Rules.Decide(r)
	if v.Decision == ambit.Allow {
		return nil
	}
	if v.Reason.Code == "" {
		v.Reason = ambit.Reason{Code: "denied", Text: "no rule of the tool allows this"}
	}
	return &v
}

// Do sends an errand and returns the answer, whose body the caller closes. A
// redirect is an answer like any other and is not followed. The decision is
// logged durably before anything leaves, with the tool call as its cause, and the
// outcome when the answer has ended.
//
// The error is a *ambit.DenyError if the errand was refused. What was granted
// and failed is ErrTooLong, ErrCut, ErrClosed, the cause of ctx, an error that is
// context.DeadlineExceeded after Errand.Timeout, or says what the host did;
// reading the body returns the same.
func (p *Proxy) Do(ctx context.Context, e Errand) (*http.Response, error) {
	if e.Request == nil || e.Request.URL == nil {
		return nil, errors.New("an errand needs a request")
	}
	body := e.Request.Body
	if body == nil {
		body = http.NoBody
	}
	if p.own.gate == nil {
		_ = body.Close()
		return nil, errors.New("this door runs no errands: it was opened without who judges them")
	}
	if !p.begin() {
		_ = body.Close()
		return nil, ErrClosed
	}
	setDefault(&e.MaxAnswer, errandAnswer)
	setDefault(&e.Timeout, errandTime)
	x := &errand{p: p, e: &e, asked: e.Request, start: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, stop := context.WithTimeoutCause(ctx, e.Timeout, errLate)
	closed := context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })
	x.ctx, x.cut = ctx, func() { cancel(ErrCut) }
	x.leave = func() {
		closed()
		stop()
		cancel(errRead)
		p.wg.Done()
	}
	resp, err := x.run()
	if err != nil {
		_ = body.Close()
		x.mu.Lock()
		defer x.mu.Unlock()
		x.end(err)
	}
	return resp, err
}

// errand is an Errand under way, and then the body of its answer.
type errand struct {
	p     *Proxy
	e     *Errand
	asked *http.Request // as the caller made it
	ctx   context.Context
	cut   context.CancelFunc
	leave func()
	start time.Time

	to    origin
	a     *admitted // nil until it is granted
	lease *vault.Lease
	done  func() // of the transport; nil until there is one
	seen  sighting
	sent  *countedBody // nil if there is no body

	withdrawn bool // a refusal after the grant is in the log

	mu     sync.Mutex // held while the answer is read
	over   bool
	status int
	src    io.ReadCloser // of the answer; nil until there is one
	in     int64
	err    error // what ended it, for whoever reads on
	unhook func() bool
}

func (x *errand) run() (*http.Response, error) {
	c, err := x.prepare()
	if err != nil {
		return nil, err
	}
	a, f := x.p.own.admitOne(x.ctx, x.cut, &x.to, c)
	if f != nil {
		return nil, f.denial()
	}
	x.a, x.seen = a, x.p.sighting()
	q := outgoing(a.grant.Request(), &x.to)
	q.Header = c.header
	if b := x.asked.Body; b != nil && b != http.NoBody {
		x.sent = &countedBody{src: b, idle: &idleTimer{}}
		q.Body, q.ContentLength = x.seen.request(x.sent, q.Header), x.asked.ContentLength
		if q.ContentLength == 0 { // with a body: not known
			q.ContentLength = -1
		}
	}
	if x.lease, f = x.p.own.lend(x.ctx, x.cut, a, q); f != nil {
		x.withdrawn = true
		return nil, f.denial()
	}
	var transport http.RoundTripper
	_, transport, x.done = a.up.route(x.lease)
	resp, err := transport.RoundTrip(q.WithContext(x.ctx))
	if err != nil {
		return nil, x.failed(err)
	}
	x.src, x.status = resp.Body, resp.StatusCode
	resp.Request = x.asked // not q, which has real values
	if err := x.lease.Answer(resp); err != nil {
		return nil, x.failed(err)
	}
	if resp.StatusCode < 200 {
		return nil, x.failed(errors.New("the host switched to a protocol that was not asked for"))
	}
	if resp.ContentLength > x.e.MaxAnswer && q.Method != http.MethodHead {
		return nil, x.failed(ErrTooLong)
	}
	dropNamed(resp.Header)
	for name := range resp.Header {
		if responseFate(name) != pass && name != "Content-Length" {
			delete(resp.Header, name)
		}
	}
	x.src = x.seen.response(resp.Body, resp.Header)
	resp.Body = x
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unhook = context.AfterFunc(x.ctx, func() { // nobody may ever read or close it
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.over {
			x.end(x.failed(context.Canceled))
		}
	})
	return resp, nil
}

// prepare makes of the caller's request the call that is judged, with references
// in it. An unsound one is refused and logged like one of the agent's, since what
// it says may come from the arguments of a tool.
func (x *errand) prepare() (*call, error) {
	q := x.asked.Clone(x.ctx) // its header is another one
	x.to = origin{scheme: q.URL.Scheme, host: short(q.URL.Host), intent: cleanIntent(x.e.Intent), errand: x.e}
	host, port, err := x.target(q)
	if err != nil {
		return nil, x.p.own.deny(x.ctx, x.to.request(ambit.ActionConnect), http.StatusBadRequest, badRequest(err.Error())).denial()
	}
	x.to.name(host, port)
	said := q.Host
	q.Host = x.to.field() // as it leaves, which is what is signed
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	if path, err := urlpath.Canonical(q.URL.EscapedPath()); err == nil { // as it leaves, too
		if u, err := url.ParseRequestURI(path); err == nil {
			q.URL.Path, q.URL.RawPath = u.Path, u.RawPath
		}
	}
	if x.e.Connection != "" {
		x.refer(q)
	}
	x.asked = q
	h := q.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	delete(h, intentHeader) // stated by the caller of the tool
	if _, there := h["User-Agent"]; !there {
		h["User-Agent"] = []string{"ambit"} // some services want one
	}
	c := &call{method: q.Method, target: q.URL.EscapedPath(), authority: said, hasHost: said != "", header: h}
	if c.target == "" {
		c.target = "/"
	}
	if q.URL.RawQuery != "" {
		c.target += "?" + q.URL.RawQuery
	}
	return c, nil
}

// refer puts references into the request. What is against that is judged with
// the request, so that it is logged.
func (x *errand) refer(q *http.Request) {
	err := errors.New("there is no vault")
	if x.p.vault != nil {
		err = x.p.vault.Refer(x.e.Connection, q)
	}
	var d *ambit.DenyError
	switch {
	case errors.As(err, &d):
		x.e.refused = &d.Verdict
	case err != nil:
		x.e.refused = &ambit.Verdict{Reason: badRequest("the references of the connection " + short(x.e.Connection) + " cannot be put into the request: " + err.Error())}
	}
}

func (x *errand) target(q *http.Request) (host string, port uint16, err error) {
	fallback := uint16(443)
	switch {
	case q.URL.Scheme == "http":
		fallback = 80
	case q.URL.Scheme != "https":
		return "", 0, errors.New("the URL's scheme is neither https nor http: " + short(q.URL.Scheme))
	}
	if q.URL.User != nil || q.URL.Opaque != "" {
		return "", 0, errors.New("the URL is not https://host/path")
	}
	return hostname.SplitHostPort(q.URL.Host, fallback)
}

// denial is a refusal for a caller that is no program of the agent's.
func (r *refusal) denial() *ambit.DenyError {
	return &ambit.DenyError{Verdict: r.verdict, Event: r.event}
}

// failed is what became of what was granted.
func (x *errand) failed(err error) error {
	if d := x.lease.Refusal(err); d != nil {
		x.withdrawn = true
		return x.p.own.withdraw(x.ctx, x.a, d).denial()
	}
	if x.ctx.Err() != nil {
		err = context.Cause(x.ctx)
	}
	if errors.Is(err, ErrTooLong) {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLong, x.e.MaxAnswer)
	}
	return fmt.Errorf("asking %s: %w", x.to.authority(), err)
}

// Read implements io.Reader.
func (x *errand) Read(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return 0, x.err
	}
	left := x.e.MaxAnswer - x.in
	if int64(len(b)) > left+1 {
		b = b[:left+1]
	}
	n, err := x.src.Read(b)
	if int64(n) > left {
		n, err = int(left), ErrTooLong
	}
	x.in += int64(n)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = x.failed(err)
		}
		x.end(err)
	}
	return n, err
}

// Close implements io.Closer.
func (x *errand) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.end(errRead)
	return nil
}

// end ends everything, once; whoever calls it holds mu. err is io.EOF or errRead
// if nothing went wrong.
func (x *errand) end(err error) {
	if x.over {
		return
	}
	x.over, x.err = true, err
	if x.unhook != nil {
		x.unhook()
	}
	if x.src != nil {
		_ = x.src.Close()
	}
	defer x.leave()
	if x.a == nil {
		return
	}
	var o ambit.Outcome
	if d := x.lease.Refusal(errWithdrawn); d != nil && !x.withdrawn { // after the host had answered
		x.p.own.withdraw(x.ctx, x.a, d)
		x.withdrawn = true
	}
	var denied *ambit.DenyError
	switch {
	case x.withdrawn || errors.As(err, &denied):
		o.Error = errWithdrawn.Error()
	case !errors.Is(err, io.EOF) && !errors.Is(err, errRead):
		o.Error = oneLine(err)
	}
	if x.sent != nil {
		o.BytesOut = x.sent.n.Load()
	}
	o.Status, o.BytesIn, o.Duration = x.status, x.in, time.Since(x.start)
	x.seen.report(&o)
	x.a.grant.Finish(o)
	x.lease.Done()
	if x.done != nil {
		x.done()
	}
	x.p.own.ended(x.a)
}
