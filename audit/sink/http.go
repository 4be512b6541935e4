package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"ambit/audit/sink/outputs"
	"ambit/internal/inert"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
)

const (
	maxAnswer = 64 << 10         // bytes of an answer that are read
	maxQuoted = 300              // bytes of an answer that an error quotes
	dialTime  = 10 * time.Second // for a connection, and again for TLS
)

// web sends requests to one receiver.
type web struct {
	client *http.Client
	scrub  *scrub.Scrubber
}

// answer is what a receiver said, as far as that is read.
type answer struct {
	status int
	header http.Header
	body   []byte
	whole  bool // the body is not longer than what was read
}

func (a *answer) good() bool { return a.status >= 200 && a.status < 300 }

// newWeb returns one that does not follow redirects, and takes the secrets out of
// whatever the receiver says. The proxies of the environment are not used: where
// events go is in the file and nowhere else.
func newWeb(t outputs.TLS, secrets ...secretbytes.Bytes) (*web, error) {
	config, err := t.Config()
	if err != nil {
		return nil, err
	}
	s, err := scrub.New(secrets)
	if err != nil {
		return nil, err
	}
	return &web{scrub: s, client: &http.Client{
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSClientConfig: config, TLSHandshakeTimeout: dialTime, ForceAttemptHTTP2: true,
			MaxIdleConns: 4, MaxResponseHeaderBytes: maxAnswer, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// send makes one request. An error says nothing of the URL's path, and quotes
// nothing that is not escaped.
func (w *web) send(ctx context.Context, method, to string, header http.Header, body []byte) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, w.quiet(err)
	}
	req.Header = header
	return w.do(req)
}

func (w *web) do(req *http.Request) (*answer, error) {
	req.Header.Set("User-Agent", "ambit")
	resp, err := w.client.Do(req) //nolint:gosec // G704: the operator says where events go
	if err != nil {
		return nil, w.quiet(err)
	}
	defer resp.Body.Close() // what is left of an endless body ends with the connection
	a := &answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", w.quiet(err))
	}
	if a.whole = len(a.body) <= maxAnswer; !a.whole {
		a.body = a.body[:maxAnswer]
	}
	return a, nil
}

// quiet makes an error of net/http fit to be shown.
func (w *web) quiet(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return errors.New(w.clean(err.Error()))
}

// clean takes secrets out of hostile text, and makes it one short line.
func (w *web) clean(s string) string {
	if len(s) > maxAnswer {
		s = s[:maxAnswer]
	}
	s = inert.Text(w.scrub.String(s))
	if len(s) > maxQuoted {
		s = inert.Text(s[:maxQuoted]) + "…"
	}
	return s
}

// refused is the error of an answer that is no acknowledgement. The receiver's
// wish when to be asked again is in it.
func (w *web) refused(a *answer) error {
	text := fmt.Sprintf("the receiver answered %d", a.status)
	if said := w.clean(string(bytes.TrimSpace(a.body))); said != "" {
		text += ": " + said
	}
	err := errors.New(text)
	switch a.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if seconds, bad := strconv.Atoi(a.header.Get("Retry-After")); bad == nil && seconds > 0 {
			return &laterError{err, time.Duration(min(seconds, 3600)) * time.Second}
		}
	}
	return err
}

func (w *web) close() error {
	w.client.CloseIdleConnections()
	return nil
}

// halves delivers a batch that is too large for the receiver in two parts, as
// small as they must be. one is called for an event that is too large by itself.
func halves(b Batch, deliver func(Batch) ([]Rejection, error), one func(Batch) ([]Rejection, error)) ([]Rejection, error) {
	if len(b.Events) == 1 {
		return one(b)
	}
	middle := len(b.Events) / 2
	first, err := deliver(Batch{b.Log, b.Events[:middle]})
	if err != nil {
		return nil, err
	}
	second, err := deliver(Batch{b.Log, b.Events[middle:]})
	return append(first, second...), err
}
