package vault

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"ambit/connector"
	"ambit/internal/hostname"
	"ambit/internal/secretbytes"
	"ambit/internal/urlpath"
	"ambit/vault/sign"
)

// Reference returns what stands for a Secret of a connection, and whether there
// is such a reference.
func (v *Vault) Reference(connection, secret string) (string, bool) {
	b := v.state.Load().named(connection)
	if b == nil {
		return "", false
	}
	ref, ok := b.refs[secret]
	return ref, ok
}

// Refer puts the references of a connection into a request that Ambit makes for
// the agent, as a program of the agent's would: where the host takes the
// credential that the account was connected with. It changes q's header and,
// where that is the place, its query, or the segment of its path in which
// anything stands. A signature is made with the reference; then the body may be
// read, at most [sign.MaxBody] of it, and q gets one that can be read again.
//
// It does nothing on a host that takes no credential, where a client certificate
// is shown, and where the credential is in the body or in a WebSocket: there the
// caller puts the [Vault.Reference].
//
// The error is a *ambit.DenyError, with the code other-connection, if the host is
// none of the connection's, or says what is wrong with the request.
func (v *Vault) Refer(connection string, q *http.Request) error {
	st := v.state.Load()
	b := st.named(connection)
	if b == nil {
		return denied("other-connection", "there is no connection "+quote(connection), "write it under connectors in the manifest and deploy again")
	}
	fallback := uint16(443)
	if q.URL.Scheme == "http" {
		fallback = 80
	}
	host, port, err := hostname.SplitHostPort(q.URL.Host, fallback)
	if err != nil {
		return err
	}
	s := st.site(host, port)
	if s == nil || s.bound != b {
		return denied("other-connection", host+" is not a host of the connection "+quote(connection), "a tool asks the hosts of its own connection only: "+some(hosts(b.Binding)))
	}
	path, err := urlpath.Canonical(q.URL.EscapedPath())
	if err != nil {
		return err
	}
	if q.Header == nil {
		q.Header = make(http.Header)
	}
	var last []*way // signatures cover the rest
	for _, w := range s.waysFor(q.Method, path, v.connected(b)) {
		if w.HMAC != nil || w.SigV4 != nil {
			last = append(last, w)
		}
		for _, at := range w.spots {
			if err := at.refer(q); err != nil {
				return err
			}
		}
	}
	for _, w := range last {
		if err := b.signAs(w, q, v.now()); err != nil {
			return err
		}
	}
	return nil
}

// waysFor returns the ways of the host that together are for the request and for
// what the account was connected with: the first one, and of the others those
// that take something else in another place, as a key's name goes with a
// signature.
func (s *site) waysFor(method, path string, conn *connection) (ways []*way) {
	used := make(map[string]bool)
	for i := range s.ways {
		w := &s.ways[i]
		if w.Scheme == connector.Login || w.Scheme == connector.WebSocket || !w.scope.has(method, path) || conn != nil && !w.given(conn) {
			continue
		}
		keys := w.Secrets()
		for _, at := range w.spots {
			keys = append(keys, string(at.In)+" "+at.Name)
			if at.In == connector.InBasic {
				keys = append(keys, string(connector.InHeader)+" "+at.Name)
			}
		}
		if slices.ContainsFunc(keys, func(k string) bool { return used[k] }) {
			continue
		}
		for _, k := range keys {
			used[k] = true
		}
		ways = append(ways, w)
	}
	return ways
}

// given says whether the account was connected with what the way needs.
func (w *way) given(conn *connection) bool {
	for _, name := range w.Secrets() {
		if !conn.has(name) && (w.SigV4 == nil || name != w.SigV4.Session) {
			return false
		}
	}
	return true
}

func (b *bound) reference(secret string) secretbytes.Bytes {
	return secretbytes.New([]byte(b.refs[secret]))
}

// signAs signs a request with the reference, as a program of the agent's would.
func (b *bound) signAs(w *way, q *http.Request, now time.Time) error {
	if a := w.SigV4; a != nil {
		scheme := sign.SigV4{Region: a.Region, Service: a.Service}
		return scheme.SignAs(q, sign.AWSKey{ID: b.refs[a.KeyID], Secret: b.reference(a.Secret)}, now)
	}
	scheme := hmacOf(w.HMAC)
	return scheme.Sign(q, b.reference(w.HMAC.Secret), now)
}

// refs is the template filled with references.
func (p pieces) refs() string {
	var b strings.Builder
	for i := range p {
		b.WriteString(p[i].text)
		b.WriteString(p[i].ref)
	}
	return b.String()
}

// refer puts the references at the spot.
func (s *spot) refer(q *http.Request) error {
	switch s.In {
	case connector.InHeader:
		q.Header[s.Name] = []string{s.value.refs()}
	case connector.InBasic:
		both := s.user.refs() + ":" + s.value.refs()
		q.Header[s.Name] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(both))}
	case connector.InQuery:
		to := *q.URL
		pair := url.QueryEscape(s.Name) + "=" + url.QueryEscape(s.value.refs())
		if to.RawQuery != "" {
			pair = "&" + pair
		}
		to.RawQuery += pair
		q.URL = &to
	case connector.InPath:
		segments := strings.Split(q.URL.EscapedPath(), "/")
		at := s.Segment() + 1
		if at >= len(segments) {
			return errors.New("the path has no segment for the credential: it is " + s.Name)
		}
		segments[at] = url.PathEscape(s.value.refs())
		to, err := url.ParseRequestURI(strings.Join(segments, "/"))
		if err != nil {
			return fmt.Errorf("the path: %w", err)
		}
		changed := *q.URL
		changed.Path, changed.RawPath = to.Path, to.RawPath
		q.URL = &changed
	case connector.InForm, connector.InJSON, connector.InWebSocket: // the caller's
	}
	return nil
}
