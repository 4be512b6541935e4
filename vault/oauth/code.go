package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"ambit/internal/secretbytes"
)

// CodeLife is how long a person has to come back with a code.
const CodeLife = 10 * time.Minute

// Why an answer of the browser is not taken. The flow goes on after ErrState
// alone: a stray request must not end somebody's login.
var (
	// ErrState is an answer that does not belong to this flow.
	ErrState = errors.New("oauth: the answer of the browser does not belong to this connection: its state is another")
	// ErrSpent is a flow that was answered before, or too late.
	ErrSpent = errors.New("oauth: this login was answered before, or took longer than ten minutes: start it again")
	// ErrIssuer is an answer of another provider (RFC 9207).
	ErrIssuer = errors.New("oauth: the answer is of another provider than the one that was asked")
)

// Flow is one authorization code flow that waits for the person's browser. It
// is kept in memory only: after a restart, the person starts again.
type Flow struct {
	client   *Client
	url      string
	started  time.Time
	mu       sync.Mutex // held for short
	state    secretbytes.Bytes
	verifier secretbytes.Bytes
	spent    bool
}

// Begin starts a flow with PKCE S256 (RFC 7636) unless the provider does not
// take it, also for clients that have a secret. Send the person's browser to the flow's URL.
func (c *Client) Begin() (*Flow, error) {
	u, err := url.Parse(c.c.AuthURL)
	if err != nil || c.c.AuthURL == "" || c.c.RedirectURL == "" || c.c.ClientID == "" {
		return nil, errors.New("oauth: the authorization endpoint, the redirect address or the client id is missing")
	}
	f := &Flow{client: c, started: c.c.Now(), state: random(), verifier: random()}
	challenge := sha256.Sum256(f.verifier.Reveal())
	q := u.Query()
	for name, value := range c.c.AuthParams {
		q.Set(name, value)
	}
	q.Set("response_type", "code")
	q.Set("client_id", c.c.ClientID)
	q.Set("redirect_uri", c.c.RedirectURL)
	q.Set("state", string(f.state.Reveal()))
	if !c.c.NoPKCE {
		q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
		q.Set("code_challenge_method", "S256")
	}
	c.addScopes(q)
	u.RawQuery = q.Encode()
	f.url = u.String()
	return f, nil
}

// random is 256 bits in 43 characters that need no encoding.
func random() secretbytes.Bytes {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	defer clear(b[:])
	return secretbytes.New(base64.RawURLEncoding.AppendEncode(nil, b[:]))
}

// URL is where the person's browser goes. It has the state in it, and so is for
// that browser alone.
func (f *Flow) URL() string { return f.url }

// Exchange takes the query with which the browser came back to the redirect
// address, and exchanges its code for a token. A flow is exchanged once,
// whatever comes of it, within [CodeLife]; an answer with another state is
// ErrState and does not count. A refusal by the person or the provider is an
// *Error with its code.
func (f *Flow) Exchange(ctx context.Context, callback url.Values) (*Token, error) {
	state, ok := single(callback, "state")
	verifier, err := f.spend(state, ok)
	if err != nil {
		return nil, err
	}
	defer verifier.Wipe()
	c := f.client
	if issuers, has := callback["iss"]; has && (len(issuers) != 1 || issuers[0] != c.c.Issuer) {
		return nil, fmt.Errorf("%w; if it is right, the connector's issuer is not", ErrIssuer)
	}
	if codes, has := callback["error"]; has {
		code := ""
		if len(codes) == 1 {
			code = codes[0]
		}
		return nil, failed(code, 0, nil, c.c.Now())
	}
	code, ok := single(callback, "code")
	if !ok || len(code) > maxToken {
		return nil, &Error{Permanent: true, Reason: "it sent the browser back without a code"}
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {c.c.RedirectURL}}
	if !c.c.NoPKCE {
		form.Set("code_verifier", string(verifier.Reveal()))
	}
	return c.grant(ctx, form, false)
}

// spend checks the state and hands out the verifier, once.
func (f *Flow) spend(state string, ok bool) (secretbytes.Bytes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spent || f.client.c.Now().Sub(f.started) >= CodeLife {
		f.cancel()
		return secretbytes.Bytes{}, ErrSpent
	}
	if !ok || subtle.ConstantTimeCompare([]byte(state), f.state.Reveal()) != 1 {
		return secretbytes.Bytes{}, ErrState
	}
	verifier := f.verifier
	f.verifier = secretbytes.Bytes{}
	f.cancel()
	return verifier, nil
}

// Cancel ends the flow: no answer is taken any more.
func (f *Flow) Cancel() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
}

func (f *Flow) cancel() {
	f.spent = true
	f.state.Wipe()
	f.verifier.Wipe()
}
