package vault

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
)

// MaxLogins is how many logins of an agent wait for a person at the most.
const MaxLogins = 10

// Why a login does not begin or end.
var (
	ErrTooManyLogins = errors.New("ten logins of this agent are waiting for a person already; finish them, or wait ten minutes")
	ErrNoLogin       = errors.New("no login is waiting for this connection: it ended, or the worker was restarted; start it again")
)

// StartedOAuth is a login that waits for a person.
type StartedOAuth struct {
	Flow    connector.Flow `json:"flow"`
	Expires time.Time      `json:"expires"`
	// URL is where the person's browser goes, of FlowCode. It is for that
	// person alone.
	URL string `json:"url,omitempty"`
	// UserCode is what the person types at VerificationURL, of FlowDevice;
	// CompleteURL has it in it, and may be "".
	UserCode        string `json:"userCode,omitempty"`
	VerificationURL string `json:"verificationURL,omitempty"`
	CompleteURL     string `json:"completeURL,omitempty"`
}

// LoginState is how far a login is. The zero value is none that is known.
type LoginState string

// The states of a login.
const (
	LoginWaiting LoginState = "waiting"
	LoginDone    LoginState = "connected"
	LoginFailed  LoginState = "failed"
)

// Login is the last login of a connection.
type Login struct {
	State  LoginState `json:"state"`
	Reason string     `json:"reason,omitempty"` // of LoginFailed
}

// logins are the logins that wait for a person, and how the last of each
// connection ended. They are in memory only. The zero logins is ready.
type logins struct {
	mu      sync.Mutex // held for moments
	waiting map[string]*login
	ended   map[string]Login
	closed  bool
	wg      sync.WaitGroup
}

// login is one that waits. A goroutine ends it when it is over, answered or not.
type login struct {
	*gift
	ctx    context.Context
	cancel func(why error)

	mu     sync.Mutex        // held while it is answered
	code   *oauth.Flow       // of FlowCode
	secret secretbytes.Bytes // of the client
}

// errExpired ends a login that nobody answered.
var errExpired = errors.New("nobody answered in ten minutes; start it again")

// StartOAuth starts a login at the service. A second one for the same connection
// takes the place of the first. It is over after ten minutes. With FlowDevice
// the vault asks the service by itself whether the person has answered; see
// [Vault.Login]. The error is ErrUnknown, ErrTooManyLogins, a *FieldError, or
// says what failed.
func (v *Vault) StartOAuth(ctx context.Context, q ConnectRequest, by ambit.Principal) (*StartedOAuth, error) {
	defer wipe(q.Fields)
	g, err := v.gather(q, by)
	if err != nil {
		return nil, err
	}
	if !g.byPerson() {
		g.wipe()
		return nil, fmt.Errorf("way %s of connector %s needs no login: connect it with what it asks for", g.way.Name, g.Connector.Name)
	}
	if err := checkRedirect(g); err != nil {
		g.wipe()
		return nil, err
	}
	client, secret, err := v.client(&g.account)
	if err != nil {
		g.wipe()
		return nil, fmt.Errorf("connecting %s: %w", g.Name, err)
	}
	l := &login{gift: g, secret: secret}
	expires := v.now().Add(oauth.CodeLife)
	if err := v.logins.add(l); err != nil {
		l.wipe()
		return nil, err
	}
	if g.flow == connector.FlowDevice {
		return v.startDevice(ctx, l, client)
	}
	flow, err := client.Begin()
	if err != nil {
		v.logins.end(l, err)
		l.wipe()
		return nil, fmt.Errorf("connecting %s: %w", g.Name, err)
	}
	l.code = flow
	v.logins.wg.Go(func() {
		<-l.ctx.Done()
		v.logins.end(l, context.Cause(l.ctx))
		l.mu.Lock() // until an answer that came at the same time is dealt with
		defer l.mu.Unlock()
		flow.Cancel()
		l.wipe()
	})
	return &StartedOAuth{Flow: g.flow, Expires: expires, URL: flow.URL()}, nil
}

// checkRedirect says whether the browser can come back to where it is told to.
func checkRedirect(g *gift) error {
	if g.flow != connector.FlowCode {
		return nil
	}
	u, err := url.Parse(g.redirect)
	if err != nil || g.redirect == "" {
		return errors.New("a login in the browser needs the address to which it comes back")
	}
	if port := g.way.OAuth.RedirectPort; port != 0 && u.Port() != fmt.Sprint(port) {
		return fmt.Errorf("the service knows port %d only as the one to which the browser comes back", port)
	}
	return nil
}

func (v *Vault) startDevice(ctx context.Context, l *login, client *oauth.Client) (*StartedOAuth, error) {
	var device *oauth.Device
	err := v.send(ctx, &l.account, l.way.OAuth.Device, func(ctx context.Context) (err error) {
		device, err = client.Device(ctx)
		return err
	})
	if err != nil {
		v.logins.end(l, err)
		l.wipe()
		return nil, fmt.Errorf("connecting %s: %w", l.Name, err)
	}
	v.logins.wg.Go(func() {
		defer l.wipe()
		v.logins.end(l, v.awaitDevice(l, device))
	})
	return &StartedOAuth{
		Flow: l.flow, Expires: device.Expires, UserCode: device.UserCode,
		VerificationURL: device.VerificationURL, CompleteURL: device.CompleteURL,
	}, nil
}

// awaitDevice asks the service until the person has answered, and stores the
// token. The many questions are one request in the log.
func (v *Vault) awaitDevice(l *login, device *oauth.Device) error {
	var token *oauth.Token
	err := v.send(l.ctx, &l.account, l.way.OAuth.Token, func(ctx context.Context) (err error) {
		token, err = device.Wait(ctx)
		return err
	})
	if err != nil {
		if cause := context.Cause(l.ctx); cause != nil {
			return cause
		}
		return err
	}
	defer token.Wipe()
	_, err = v.commit(l.ctx, l.gift, token)
	return err
}

// FinishOAuth takes the query with which the person's browser came back, and
// connects the account. by must be who started the login. A callback with
// another state changes nothing; every other one ends the login, whatever comes
// of it. The error is ErrNoLogin, oauth.ErrState, or says what failed.
func (v *Vault) FinishOAuth(ctx context.Context, name string, callback url.Values, by ambit.Principal) (Connection, error) {
	l := v.logins.of(name)
	if l == nil || l.code == nil || l.by != by {
		return Connection{}, ErrNoLogin
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return Connection{}, ErrNoLogin
	}
	var token *oauth.Token
	err := v.send(ctx, &l.account, l.way.OAuth.Token, func(ctx context.Context) (err error) {
		token, err = l.code.Exchange(ctx, l.answer(callback))
		return err
	})
	if errors.Is(err, oauth.ErrState) {
		return Connection{}, err
	}
	var c Connection
	if err == nil {
		defer token.Wipe()
		c, err = v.commit(ctx, l.gift, token)
	}
	v.logins.end(l, err)
	if err != nil {
		return Connection{}, fmt.Errorf("connecting %s: %w", name, err)
	}
	return c, nil
}

// answer leaves out an issuer (RFC 9207) of the host that was asked: connectors
// do not say which path it has. Any other stays, and is refused.
func (l *login) answer(callback url.Values) url.Values {
	iss := callback["iss"]
	asked, err := url.Parse(l.way.OAuth.Authorize)
	if err != nil || len(iss) != 1 {
		return callback
	}
	if is, err := url.Parse(iss[0]); err != nil || is.Scheme != "https" || is.Host != asked.Host {
		return callback
	}
	rest := make(url.Values, len(callback))
	for k, v := range callback {
		if k != "iss" {
			rest[k] = v
		}
	}
	return rest
}

// Login says how the last login of a connection fares; the zero Login if there
// was none since the worker started.
func (v *Vault) Login(name string) Login {
	t := &v.logins
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[name] != nil {
		return Login{State: LoginWaiting}
	}
	return t.ended[name]
}

func (l *login) wipe() {
	l.gift.wipe()
	l.secret.Wipe()
}

// add takes a login in, in place of one for the same connection.
func (t *logins) add(l *login) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.waiting[l.Name]
	if t.closed || old == nil && len(t.waiting) >= MaxLogins {
		return ErrTooManyLogins
	}
	if old != nil {
		old.cancel(errors.New("it was started again"))
	}
	if t.waiting == nil {
		t.waiting, t.ended = make(map[string]*login), make(map[string]Login)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ctx, stop := context.WithTimeoutCause(ctx, oauth.CodeLife, errExpired)
	l.ctx, l.cancel = ctx, func(why error) { cancel(why); stop() }
	l.still = func() error { return context.Cause(ctx) }
	t.waiting[l.Name] = l
	return nil
}

// of returns the login that waits for a connection, or nil.
func (t *logins) of(name string) *login {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting[name]
}

// end notes how a login ended: the first call counts.
func (t *logins) end(l *login, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[l.Name] == l {
		delete(t.waiting, l.Name)
		t.ended[l.Name] = Login{State: LoginDone}
		if err != nil {
			t.ended[l.Name] = Login{State: LoginFailed, Reason: err.Error()}
		}
	}
	l.cancel(err)
}

// drop ends the login of a connection, if one is waiting.
func (t *logins) drop(name string, why error) {
	if l := t.of(name); l != nil {
		t.end(l, why)
	}
}

func (t *logins) close() {
	t.mu.Lock()
	t.closed = true
	var all []*login
	for _, l := range t.waiting {
		all = append(all, l)
	}
	t.mu.Unlock()
	for _, l := range all {
		t.end(l, errors.New("the worker stopped; start it again"))
	}
	t.wg.Wait()
}
