package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// ClientCredentials gets a token for the client itself (RFC 6749 section 4.4).
func (c *Client) ClientCredentials(ctx context.Context) (*Token, error) {
	if c.c.Method == None {
		return nil, errors.New("oauth: client credentials need a client that authenticates itself")
	}
	return c.grant(ctx, url.Values{"grant_type": {"client_credentials"}}, true)
}

// JWTBearer exchanges an assertion for a token (RFC 7523 section 2.1), as
// Google does for a service account. The client does not authenticate itself:
// the assertion says who asks, and with which scopes.
func (c *Client) JWTBearer(ctx context.Context, assertion secretbytes.Bytes) (*Token, error) {
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {string(assertion.Reveal())}}
	body := form.Encode()
	r, err := http.NewRequest(http.MethodPost, c.c.TokenURL, strings.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("oauth: making the request: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.token(a)
}

// Refresh gets a new access token (RFC 6749 section 6). If the answer has a new
// refresh token, that must be durable before the access token is used: the
// provider may have made the old one invalid already.
func (c *Client) Refresh(ctx context.Context, refresh secretbytes.Bytes) (*Token, error) {
	if refresh.Len() == 0 {
		return nil, &Error{Permanent: true, Reason: "there is no refresh token: connect again"}
	}
	t, err := c.grant(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {string(refresh.Reveal())}}, false)
	if err != nil {
		return nil, err
	}
	if t.Refresh.Equal(refresh) { // repeated, not rotated
		t.Refresh.Wipe()
		t.Refresh = secretbytes.Bytes{}
	}
	if t.Expires.IsZero() { // a token that is refreshed expires
		t.Expires = c.c.Now().Add(c.c.DefaultExpiry)
	}
	return t, nil
}

// Revoke tells the provider that a token, refresh or access, is over (RFC
// 7009). A provider that does not know the token counts as done.
func (c *Client) Revoke(ctx context.Context, token secretbytes.Bytes, isRefresh bool) error {
	if c.c.RevokeURL == "" {
		return errors.New("oauth: the provider has no revocation endpoint")
	}
	hint := "access_token"
	if isRefresh {
		hint = "refresh_token"
	}
	a, err := c.post(ctx, c.c.RevokeURL, url.Values{"token": {string(token.Reveal())}, "token_type_hint": {hint}})
	if err != nil {
		return err
	}
	defer clear(a.body)
	if a.status == http.StatusOK || a.status == http.StatusNoContent {
		return nil // section 2.2: the content does not matter
	}
	e := a.refused(c.c.Now())
	if e == nil {
		e = &Error{Status: a.status, Reason: "its answer has a status that means nothing here"}
	}
	if e.Code == "invalid_token" { // Google's word for a token that is over already
		return nil
	}
	return e
}

// Installation gets the token of an installation of a GitHub App. TokenURL is
// https://api.github.com/app/installations/ID/access_tokens; repositories are
// the names of those that the token is for, none means all that the
// installation has.
func (c *Client) Installation(ctx context.Context, assertion secretbytes.Bytes, repositories []string) (*Token, error) {
	body := []byte("{}")
	if len(repositories) > 0 {
		var err error
		if body, err = json.Marshal(map[string][]string{"repositories": repositories}); err != nil {
			return nil, fmt.Errorf("oauth: making the request: %w", err)
		}
	}
	r, err := http.NewRequest(http.MethodPost, c.c.TokenURL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("oauth: making the request: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+string(assertion.Reveal()))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	a, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer clear(a.body)
	if err := a.refused(c.c.Now()); err != nil {
		if a.header.Get("X-RateLimit-Remaining") == "0" { // GitHub says 403 for too often, too
			err.Permanent, err.Reason = false, "it was asked too often"
		}
		return nil, err
	}
	m, err := object(a.body)
	if err != nil {
		return nil, &Error{Status: a.status, Reason: "its answer is " + err.Error()}
	}
	token, _ := m.text("token")
	until, _ := m.text("expires_at")
	expires, err := time.Parse(time.RFC3339, until)
	if err != nil || !visible(token) {
		return nil, &Error{Status: a.status, Reason: "its answer has no token with an expires_at"}
	}
	return &Token{Access: secretbytes.New([]byte(token)), Expires: expires}, nil
}

// grant asks the token endpoint.
func (c *Client) grant(ctx context.Context, form url.Values, scopes bool) (*Token, error) {
	if scopes {
		c.addScopes(form)
	}
	a, err := c.post(ctx, c.c.TokenURL, form)
	if err != nil {
		return nil, err
	}
	return c.token(a)
}

// Device is a device flow that waits for the person (RFC 8628).
type Device struct {
	UserCode        string // what the person types: at most 64 letters, digits and hyphens
	VerificationURL string // where: https
	CompleteURL     string // the same with the code in it; "" if the provider has none
	Expires         time.Time

	client   *Client
	code     secretbytes.Bytes
	interval time.Duration
}

// Device starts a device flow: show the person UserCode and VerificationURL,
// then Wait.
func (c *Client) Device(ctx context.Context) (*Device, error) {
	if c.c.DeviceURL == "" {
		return nil, errors.New("oauth: the provider has no device endpoint")
	}
	form := url.Values{}
	c.addScopes(form)
	a, err := c.post(ctx, c.c.DeviceURL, form)
	if err != nil {
		return nil, err
	}
	defer clear(a.body)
	if err := a.refused(c.c.Now()); err != nil {
		return nil, err
	}
	m, err := object(a.body)
	if err != nil {
		return nil, &Error{Status: a.status, Reason: "its answer is " + err.Error()}
	}
	if code, has := m.text("error"); has {
		return nil, failed(code, a.status, a.header, c.c.Now())
	}
	d := &Device{client: c, interval: 5 * time.Second}
	code, _ := m.text("device_code")
	d.UserCode, _ = m.text("user_code")
	d.VerificationURL, _ = m.text("verification_uri")
	d.CompleteURL, _ = m.text("verification_uri_complete")
	seconds, limited := m.seconds("expires_in")
	if n, ok := m.seconds("interval"); ok {
		d.interval = time.Duration(min(n, 60)) * time.Second
	}
	readable := len(d.UserCode) <= 64 && visible(d.UserCode)
	if !visible(code) || !readable || !limited || !c.shown(d.VerificationURL) || d.CompleteURL != "" && !c.shown(d.CompleteURL) {
		return nil, &Error{Status: a.status, Reason: "its answer has no usable device_code, user_code, verification_uri or expires_in"}
	}
	d.code = secretbytes.New([]byte(code))
	d.Expires = c.c.Now().Add(time.Duration(min(seconds, 3600)) * time.Second)
	return d, nil
}

// shown says whether a person may be sent to this address.
func (c *Client) shown(u string) bool {
	return visible(u) && len(u) <= 2000 && checkURL(u, c.c.AllowLoopback) == nil
}

// Wait asks the provider until the person has answered, the code has expired or
// ctx ends. It waits the provider's interval between two questions, five
// seconds more each time the provider says slow_down, and twice as long each
// time it cannot be reached. A device flow is waited for once.
func (d *Device) Wait(ctx context.Context) (*Token, error) {
	c := d.client
	defer d.code.Wipe()
	wait := d.interval
	for {
		if !c.c.Now().Add(wait).Before(d.Expires) {
			return nil, failed("expired_token", 0, nil, c.c.Now())
		}
		if err := c.c.Sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("oauth: waiting for the person: %w", err)
		}
		t, err := c.grant(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {string(d.code.Reveal())}}, false)
		var e *Error
		switch {
		case err == nil:
			return t, nil
		case is(err, "authorization_pending"):
			wait = d.interval
		case is(err, "slow_down"):
			d.interval += 5 * time.Second
			wait = d.interval
		case errors.As(err, &e) && !e.Permanent && ctx.Err() == nil:
			wait = max(min(2*wait, 5*time.Minute), e.RetryAfter)
		default:
			return nil, err
		}
	}
}

// single returns the value of a parameter that is there once.
func single(q url.Values, name string) (string, bool) {
	if len(q[name]) != 1 || slices.Contains(q[name], "") {
		return "", false
	}
	return q[name][0], true
}
