package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"ambit"
	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/vault/oauth"
	"ambit/vault/sign"
)

// account is whose token is asked for: what was given for it, stored already or
// not yet.
type account struct {
	*connector.Binding
	way      *connector.Way
	flow     connector.Flow                          // of WayOAuth
	by       ambit.Principal                         //
	redirect string                                  // of FlowCode
	value    func(string) (secretbytes.Bytes, error) // a copy; errNotGiven
	logged   func(seq uint64)                        // told where the log has a request; may be nil
}

// optional is value, where what was not given is empty.
func (a *account) optional(secret string) (secretbytes.Bytes, error) {
	if secret == "" {
		return secretbytes.Bytes{}, nil
	}
	v, err := a.value(secret)
	if errors.Is(err, errNotGiven) {
		return secretbytes.Bytes{}, nil
	}
	return v, err
}

// fetch gets a token without a person: with a refresh token, if there is one, or
// with what the account is.
func (v *Vault) fetch(ctx context.Context, a *account, refresh secretbytes.Bytes) (token *oauth.Token, err error) {
	var ask func(context.Context) (*oauth.Token, error)
	var endpoint string
	switch a.way.Kind {
	case connector.WayGoogle:
		endpoint = a.way.Google.Token
		ask = func(ctx context.Context) (*oauth.Token, error) { return v.google(ctx, a) }
	case connector.WayGitHubApp:
		endpoint = a.way.GitHub.API
		ask = func(ctx context.Context) (*oauth.Token, error) { return v.github(ctx, a) }
	case connector.WayOAuth:
		endpoint = a.way.OAuth.Token
		client, secret, err := v.client(a)
		if err != nil {
			return nil, err
		}
		defer secret.Wipe()
		ask = client.ClientCredentials
		if a.flow != connector.FlowClient {
			ask = func(ctx context.Context) (*oauth.Token, error) { return client.Refresh(ctx, refresh) }
		}
	default:
		return nil, fmt.Errorf("connection %s has no token to ask for", a.Name)
	}
	err = v.send(ctx, a, endpoint, func(ctx context.Context) error {
		token, err = ask(ctx)
		return err
	})
	return token, err
}

// send lets one exchange with a service happen: logged durably before it leaves,
// and its outcome after it.
func (v *Vault) send(ctx context.Context, a *account, endpoint string, exchange func(context.Context) error) error {
	started := v.now()
	seq, err := v.config.Log.Append(ctx, v.event(ambit.KindVaultRefresh, a.Name, a.by, http.MethodPost, endpoint, "a token is asked for"))
	if err != nil {
		return fmt.Errorf("logging the request for a token before it leaves: %w", err)
	}
	if a.logged != nil {
		a.logged(seq)
	}
	err = exchange(ctx)
	e := ambit.Event{Kind: ambit.KindVaultRefresh, Agent: v.config.Agent, Principal: a.by, Of: &seq, Connection: a.Name,
		Status: http.StatusOK, Duration: v.now().Sub(started), Detail: "the token came"}
	if err != nil {
		e.Status, e.Detail = statusOf(err), err.Error()
	}
	v.config.Log.Record(e)
	return err
}

// event is a request that is about to leave.
func (v *Vault) event(kind ambit.Kind, name string, by ambit.Principal, method, endpoint, detail string) ambit.Event {
	e := ambit.Event{Kind: kind, Agent: v.config.Agent, Principal: by, Connection: name, Method: method, URL: endpoint, Detail: detail}
	if u, err := url.Parse(endpoint); err == nil {
		e.Host = u.Hostname()
	}
	return e
}

func statusOf(err error) int {
	var e *oauth.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// client makes the OAuth client of an account. The caller wipes the secret when
// the client is not used any more.
func (v *Vault) client(a *account) (*oauth.Client, secretbytes.Bytes, error) {
	o := a.way.OAuth
	id, err := a.value(o.ClientID)
	if err != nil {
		return nil, secretbytes.Bytes{}, fmt.Errorf("the client's id: %w", err)
	}
	defer id.Wipe()
	secret, err := a.optional(o.ClientSecret)
	if err != nil {
		return nil, secretbytes.Bytes{}, fmt.Errorf("the client's secret: %w", err)
	}
	method := oauth.None
	if secret.Len() > 0 {
		method = map[connector.ClientAuth]oauth.Method{connector.ClientBasic: oauth.Basic, connector.ClientBody: oauth.Post}[o.ClientAuth]
	}
	client, err := oauth.New(oauth.Config{
		Transport: v.config.Transport, Now: v.now,
		ClientID: string(id.Reveal()), ClientSecret: secret, Method: method,
		AuthURL: o.Authorize, TokenURL: o.Token, DeviceURL: o.Device, RedirectURL: a.redirect,
		Scopes: o.Scopes, ScopeSep: o.ScopeSep, ScopeParam: o.ScopeParam, AuthParams: o.Params, NoPKCE: !o.PKCE, JSON: o.JSON,
		TokenTypes: []string{""}, // Shopify says none; how the token travels is the connector's to say
	})
	if err != nil {
		secret.Wipe()
		return nil, secretbytes.Bytes{}, err
	}
	return client, secret, nil
}

// assertionClient is for who is known by an assertion alone.
func (v *Vault) assertionClient(endpoint string) (*oauth.Client, error) {
	return oauth.New(oauth.Config{Transport: v.config.Transport, Now: v.now, Method: oauth.None, TokenURL: endpoint, TokenTypes: []string{""}})
}

func (v *Vault) google(ctx context.Context, a *account) (*oauth.Token, error) {
	g := a.way.Google
	file, err := a.value(g.Key)
	if err != nil {
		return nil, err
	}
	defer file.Wipe()
	subject, err := a.optional(g.Subject)
	if err != nil {
		return nil, err
	}
	defer subject.Wipe()
	key, err := sign.ParseGoogleKey(file)
	if err != nil {
		return nil, err
	}
	defer key.Key.Wipe()
	assertion := key.Assertion(g.Scopes, string(subject.Reveal()))
	assertion.Audience = g.Token
	signed, err := assertion.Sign(key.Key, v.now())
	if err != nil {
		return nil, err
	}
	defer signed.Wipe()
	client, err := v.assertionClient(g.Token)
	if err != nil {
		return nil, err
	}
	return client.JWTBearer(ctx, signed)
}

func (v *Vault) github(ctx context.Context, a *account) (*oauth.Token, error) {
	g := a.way.GitHub
	app, err := a.value(g.App)
	if err != nil {
		return nil, err
	}
	defer app.Wipe()
	installation, err := a.value(g.Installation)
	if err != nil {
		return nil, err
	}
	defer installation.Wipe()
	key, err := a.value(g.Key)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	signed, err := sign.GitHubApp(string(app.Reveal())).Sign(key, v.now())
	if err != nil {
		return nil, err
	}
	defer signed.Wipe()
	client, err := v.assertionClient(g.API + "/app/installations/" + url.PathEscape(string(installation.Reveal())) + "/access_tokens")
	if err != nil {
		return nil, err
	}
	return client.Installation(ctx, signed, nil)
}
