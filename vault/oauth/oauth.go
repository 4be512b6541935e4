// Package oauth gets and keeps OAuth 2 tokens: authorization code with PKCE
// (RFC 6749, 7636, 9207), device flow (RFC 8628), client credentials, JWT
// bearer (RFC 7523), the installation tokens of a GitHub App, refresh with
// rotation, and revocation (RFC 7009).
//
// A [Client] talks to one provider over a transport that its caller vetted. It
// follows no redirect (ATTACKS S3), waits [Timeout] at most, reads [MaxAnswer]
// at most, and speaks https only. What an answer says in words is never
// repeated: a provider that echoes a secret in error_description, in HTML or in
// a Location header does not get it into an error, and so into no log. A
// [Refresher] keeps one connection's token fresh.
//
// Known hole: net/http and encoding/json keep copies of what they send and
// read, which cannot be wiped.
//
// Trust: the provider is trusted with the tokens that it issues, and with
// nothing else: who controls it (or its name, past TLS) can issue bad tokens
// and refuse good ones. The transport is trusted to dial only what was vetted.
// The browser that comes back with a code is hostile until its state matches.
package oauth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// Bounds of every exchange with a provider.
const (
	Timeout   = 30 * time.Second // from the request to the last byte of the answer
	MaxAnswer = 1 << 20          // bytes
)

// Method is how a client proves who it is (RFC 6749 section 2.3). The zero
// value is refused by New: what a provider wants must be said.
type Method string

// The methods.
const (
	Basic         Method = "client_secret_basic"
	Post          Method = "client_secret_post"
	None          Method = "none" // a public client: PKCE only
	PrivateKeyJWT Method = "private_key_jwt"
)

// Config is one client at one provider. The endpoints are the operator's, from
// a connector file; they are trusted to be the provider's.
type Config struct {
	Transport http.RoundTripper // required: dials what was vetted, and nothing else
	Now       func() time.Time  // default time.Now
	// Sleep waits for d or until ctx ends; the default does just that.
	Sleep func(ctx context.Context, d time.Duration) error

	ClientID     string            // required, but not for Installation
	ClientSecret secretbytes.Bytes // required for Basic and Post, refused otherwise
	Method       Method            // required
	// Assertion makes a client assertion for an audience, the token endpoint.
	// Required for PrivateKeyJWT.
	Assertion func(audience string, now time.Time) (secretbytes.Bytes, error)

	AuthURL     string // of the authorization endpoint; for Begin
	TokenURL    string // required
	DeviceURL   string // of the device authorization endpoint; for Device
	RevokeURL   string // of the revocation endpoint; for Revoke
	RedirectURL string // where the browser comes back to: loopback, or https; for Begin
	Issuer      string // what iss must be when the provider sends it (RFC 9207)
	Scopes      []string
	ScopeSep    string // between scopes; default " ", which the RFC wants
	ScopeParam  string // the parameter with the scopes; default "scope"
	NoPKCE      bool   // the provider refuses the parameters of PKCE: nothing binds the code to this flow then but the state
	JSON        bool   // the provider wants JSON instead of forms
	// AuthParams are added to the authorization request, such as Google's
	// access_type=offline. They cannot replace a parameter of the protocol.
	AuthParams map[string]string
	// TokenTypes are accepted besides Bearer, for providers that say something
	// else and mean it; "" is an answer that says none.
	TokenTypes []string
	// DefaultExpiry is how long an access token is taken to be good that comes
	// with a refresh token and without a usable expires_in. Default one hour.
	DefaultExpiry time.Duration
	// AllowLoopback permits http, and any scheme, to 127.0.0.0/8, ::1 and
	// localhost. For tests and for providers on the same machine.
	AllowLoopback bool
}

// Client talks to one provider. It is safe for concurrent use.
type Client struct{ c Config }

// New checks the configuration. Its errors say which setting is wrong.
func New(c Config) (*Client, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.DefaultExpiry <= 0 {
		c.DefaultExpiry = time.Hour
	}
	c.ScopeSep, c.ScopeParam = cmp.Or(c.ScopeSep, " "), cmp.Or(c.ScopeParam, "scope")
	if c.Transport == nil {
		return nil, errors.New("oauth: a transport is required, there is no default that is vetted")
	}
	if c.TokenURL == "" {
		return nil, errors.New("oauth: the token endpoint is missing")
	}
	secret := c.ClientSecret.Len() > 0
	switch c.Method {
	case Basic, Post:
		if !secret {
			return nil, fmt.Errorf("oauth: %s needs a client secret", c.Method)
		}
	case None, PrivateKeyJWT:
		if secret {
			return nil, fmt.Errorf("oauth: %s has no client secret, and one is set", c.Method)
		}
		if c.Method == PrivateKeyJWT && c.Assertion == nil {
			return nil, fmt.Errorf("oauth: %s needs an assertion", c.Method)
		}
	default:
		return nil, fmt.Errorf("oauth: client authentication %.40q is not client_secret_basic, client_secret_post, none or private_key_jwt", string(c.Method))
	}
	for name, u := range map[string]string{"authorization endpoint": c.AuthURL, "token endpoint": c.TokenURL,
		"device endpoint": c.DeviceURL, "revocation endpoint": c.RevokeURL} {
		if u == "" {
			continue
		}
		if err := checkURL(u, c.AllowLoopback); err != nil {
			return nil, fmt.Errorf("oauth: the %s %w", name, err)
		}
	}
	if c.RedirectURL != "" {
		if err := checkURL(c.RedirectURL, true); err != nil { // RFC 8252 section 7.3
			return nil, fmt.Errorf("oauth: the redirect address %w", err)
		}
	}
	return &Client{c}, nil
}

// checkURL accepts https addresses, and loopback ones with http if allowed.
func checkURL(s string, loopback bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("is not an address like https://host/path: %.100q", s)
	case isLoopback(u.Hostname()):
		if loopback && (u.Scheme == "https" || u.Scheme == "http") {
			return nil
		}
		return fmt.Errorf("is on this machine, which is not allowed: %.100q", s)
	case u.Scheme != "https":
		return fmt.Errorf("does not use https: %.100q", s)
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// answer is what a provider said, bounded.
type answer struct {
	status int
	header http.Header
	body   []byte // the caller clears it
}

// post sends a form with the client's authentication.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (*answer, error) {
	r, err := http.NewRequest(http.MethodPost, endpoint, nil)
	if err != nil {
		return nil, fmt.Errorf("oauth: making the request: %w", err)
	}
	if err := c.authenticate(r, form); err != nil {
		return nil, err
	}
	body, media := form.Encode(), "application/x-www-form-urlencoded"
	if c.c.JSON {
		if body, err = flatJSON(form); err != nil {
			return nil, fmt.Errorf("oauth: making the request: %w", err)
		}
		media = "application/json"
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	r.Header.Set("Content-Type", media)
	return c.do(ctx, r)
}

// flatJSON writes a form as an object of texts.
func flatJSON(form url.Values) (string, error) {
	members := make(map[string]string, len(form))
	for name := range form {
		members[name] = form.Get(name)
	}
	b, err := json.Marshal(members)
	return string(b), err
}

// addScopes adds the scopes to a request.
func (c *Client) addScopes(q url.Values) {
	if len(c.c.Scopes) > 0 {
		q.Set(c.c.ScopeParam, strings.Join(c.c.Scopes, c.c.ScopeSep))
	}
}

// authenticate adds what proves who the client is.
func (c *Client) authenticate(r *http.Request, form url.Values) error {
	if c.c.ClientID == "" {
		return errors.New("oauth: the client id is missing")
	}
	secret := string(c.c.ClientSecret.Reveal())
	switch c.c.Method {
	case Basic: // RFC 6749 section 2.3.1: encoded twice
		r.SetBasicAuth(url.QueryEscape(c.c.ClientID), url.QueryEscape(secret))
		return nil
	case Post:
		form.Set("client_secret", secret)
	case PrivateKeyJWT:
		assertion, err := c.c.Assertion(c.c.TokenURL, c.c.Now())
		if err != nil {
			return fmt.Errorf("oauth: making the client assertion: %w", err)
		}
		defer assertion.Wipe()
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", string(assertion.Reveal()))
	}
	form.Set("client_id", c.c.ClientID)
	return nil
}

// do sends r and reads the answer. It uses the transport itself, because an
// http.Client looks at redirects even when it does not follow them, and quotes
// the Location in its errors; it also keeps cookies. Errors are always *Error.
func (c *Client) do(ctx context.Context, r *http.Request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r = r.WithContext(ctx)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "ambit")
	resp, err := c.c.Transport.RoundTrip(r)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		clear(body)
		return nil, unreachable(ctx, err)
	}
	if len(body) > MaxAnswer {
		clear(body)
		return nil, &Error{Status: resp.StatusCode, Reason: "its answer is longer than 1 MiB"}
	}
	return &answer{resp.StatusCode, resp.Header, body}, nil
}
