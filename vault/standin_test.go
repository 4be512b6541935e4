package vault_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"ambit/connector"
	"ambit/internal/secretbytes"
	"ambit/internal/standin"
	"ambit/vault"
)

// played is a world with one connection, whose service a stand-in plays.
type played struct {
	*world
	name    string
	service standin.Service
	server  *standin.Server
	binding *connector.Binding
	refs    standin.Credentials // what the agent has
	real    standin.Credentials // what a person gave

	mu   sync.Mutex
	said *httptest.ResponseRecorder // the last answer to the agent
	got  []string                   // tokens and refresh tokens that the vault was given
}

// play has the stand-in of a service, without an account. It can be used in a
// bubble of package synctest.
func play(t testing.TB, s standin.Service) *played {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	p := &played{world: newWorldAt(t, l, l.dial, line(s)), name: s.Name, service: s, refs: standin.Credentials{}}
	p.binding = p.bindings[0]
	for _, e := range p.binding.Env {
		for _, secret := range e.Value.Names() {
			if string(e.Value) == "{"+secret+"}" {
				p.refs[secret] = p.env(e.Name)
			}
		}
	}
	for _, r := range p.binding.References {
		if p.refs[r.Secret] == "" {
			t.Errorf("no variable has the reference for %s of %s", r.Secret, p.name)
		}
	}
	p.serve = func(rw http.ResponseWriter, r *http.Request) {
		said := httptest.NewRecorder()
		p.server.ServeHTTP(said, r)
		p.note(said)
		maps.Copy(rw.Header(), said.Header())
		rw.WriteHeader(said.Code)
		_, _ = rw.Write(said.Body.Bytes())
	}
	return p
}

// note keeps an answer: the tokens in it if the vault got some, or what it says
// if it is for the agent.
func (p *played) note(said *httptest.ResponseRecorder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var fields map[string]any
	_ = json.Unmarshal(said.Body.Bytes(), &fields) // there are none in what is no JSON
	before := len(p.got)
	for _, name := range []string{"access_token", "token", "refresh_token"} {
		if token, ok := fields[name].(string); ok {
			p.got = append(p.got, token)
		}
	}
	if len(p.got) == before {
		p.said = said
	}
}

// line is what connects a service in a manifest.
func line(s standin.Service) string {
	text := "{name: " + s.Name
	if s.Account != "" {
		text += ", account: " + s.Account
	}
	if s.Own {
		text += ", hosts: [" + strings.Join(s.Hosts, ", ") + "]"
	}
	if len(s.Pins) > 0 {
		var pins []string
		for _, name := range slices.Sorted(maps.Keys(s.Pins)) {
			pins = append(pins, name+": "+s.Pins[name])
		}
		text += ", pin: {" + strings.Join(pins, ", ") + "}"
	}
	return text + "}"
}

// given has the service know what a person gives, and asks the vault to connect
// with it.
func (p *played) given(way *connector.Way, flow connector.Flow, fields standin.Credentials) vault.ConnectRequest {
	p.real, p.got = fields, nil
	p.server = p.service.New(fields, p.now)
	q := vault.ConnectRequest{Name: p.name, Way: way.Name, Flow: flow, Fields: map[string]secretbytes.Bytes{}}
	for name, value := range fields {
		q.Fields[name] = secretbytes.New([]byte(value))
	}
	return q
}

// call is a request of a client of the service, which knows these credentials.
func (p *played) call(q standin.Request, have standin.Credentials, header ...string) call {
	p.t.Helper()
	r, err := q.New(have, p.now())
	if err != nil {
		p.t.Fatal(err)
	}
	c := with(r.Method, r.URL.String(), nil, header...)
	maps.Copy(c.header, r.Header)
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		c.body = bytes.NewReader(body)
	}
	return c
}

// answered sends a call and fails the test unless the agent gets the service's
// own answer, and the service found the credential right, or not.
func (p *played) answered(what string, c call, right bool) result {
	p.t.Helper()
	before := p.server.Accepted()
	r := p.do(c)
	if r.denied != nil {
		p.t.Errorf("%s: %v", what, r.denied)
		return r
	}
	p.mu.Lock()
	said := p.said
	p.mu.Unlock()
	if accepted := p.server.Accepted() - before; accepted == 1 != right {
		p.t.Errorf("%s: the service accepted it %d times: %d %s", what, accepted, said.Code, said.Body)
	}
	if r.resp.StatusCode != said.Code || r.body != said.Body.String() || r.err != nil {
		p.t.Errorf("%s: the service said %d %s, and the agent got %d %s, %v", what, said.Code, said.Body, r.resp.StatusCode, r.body, r.err)
	}
	for name, values := range said.Header() {
		if !slices.Equal(values, r.resp.Header[name]) {
			p.t.Errorf("%s: the service said %s: %q, and the agent got %q", what, name, values, r.resp.Header[name])
		}
	}
	return r
}

// secrets are the values that the agent must not see.
func (p *played) secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.got)
	for _, s := range p.binding.Secrets {
		if value := p.real[s.Name]; value != "" && !s.Public && s.Kind != connector.ServiceAccount {
			all = append(all, value)
		}
	}
	return all
}

// tokens counts what the vault was given.
func (p *played) tokens() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

// leaks fails the test if a text has a secret in it, in any form, but for the
// edges of the form, which depend on what stands beside it.
func leaks(t testing.TB, what, text, secret string) {
	t.Helper()
	for _, form := range standin.Forms(secret) {
		if strings.Contains(text, form[2:len(form)-3]) {
			t.Errorf("%s: the agent got %q: %s", what, form, text)
		}
	}
}

// pipes is a network in memory: time in a bubble of package synctest passes
// while somebody waits for it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// account is all that there is to know about an account of a service, by the
// connector's names. Values look like the service's; the key is for those that
// sign assertions. What the vault gets by itself is there, too: as another
// account would have it.
func account(t testing.TB, service string, key *rsa.PrivateKey) standin.Credentials {
	t.Helper()
	const odd = `REAL p&s= w/o"rd%\é1` // where anything can be a credential
	google := standin.Credentials{
		"client_id": "1234567890-abc.apps.googleusercontent.com", "client_secret": "GOCSPX-REALrealREALrealREAL", "access_token": "ya29.a0REALrealREALrealREALreal",
		"key": serviceAccount(t, key), "subject": "boss@acme.example",
	}
	aws := standin.Credentials{
		"access_key_id": "AKIAREALREALREALREAL", "secret_access_key": "REAL/real+REALrealREALrealREALrealREALreal",
		"session_token": "IQoJb3JpZ2luX2VjREAL/real+REALrealREAL==",
	}
	all := map[string]standin.Credentials{
		"anthropic": {"key": "sk-ant-api03-REALrealREALrealREALrealAA"},
		"basic":     {"user": "REAL user", "password": odd},
		"bearer":    {"token": "REALrealREALrealREALrealREALreal"},
		"github": {
			"token": "ghp_REALrealREALrealREALrealREAL00aaaa", "app_id": "Iv1.REALreal", "installation_id": "4711", "private_key": pkcs1(key),
			"client_id": "Ov23liREALreal", "client_secret": "REALghsecretREALghsecret",
		},
		"gitlab":       {"token": "glpat-REALrealREALrealREAL", "client_id": "REALapplication", "client_secret": "gloas-REALrealREALreal"},
		"gmail":        google,
		"google-drive": google,
		"header":       {"key": "REALrealREALrealREALrealREALreal="},
		"hmac":         {"key": "REALkeyREALkey", "secret": odd},
		"hubspot":      {"token": "pat-na1-REALreal-1234-1234-1234-REALrealREAL", "client_id": "REALclient", "client_secret": "REALreal-1234-1234-REALreal"},
		"linear": {
			"api_key": "lin_api_REALrealREALrealREALrealREALreal", "client_id": "REALclient", "client_secret": "REALrealREALrealREAL",
			"access_token": "lin_oauth_REALrealREALrealREALreal",
		},
		"notion":     {"token": "ntn_REALrealREALrealREALreal", "client_id": "REALclient", "client_secret": "secret_REALrealREALreal"},
		"oauth2":     {"client_id": "REAL client", "client_secret": odd, "access_token": "REALrealREALrealREALreal"},
		"openai":     {"key": "sk-proj-REALrealREALrealREALreal"},
		"openrouter": {"key": "sk-or-v1-REALrealREALrealREALreal"},
		"query":      {"key": odd},
		"s3":         aws,
		"shopify":    {"token": "shpat_0123456789abcdef0123456789abcdef", "client_id": "REALclient", "client_secret": "shpss_REALrealREALreal"},
		"sigv4":      aws,
		"slack":      {"token": "xoxb-1111111111-REALrealREALreal", "app_token": "xapp-1-A1111111111-REALrealREALreal"},
		"stripe":     {"key": "rk_live_REALrealREALrealREALreal"},
		"zendesk": {
			"client_id": "REALclient", "client_secret": "REALrealREALrealREALreal", "access_token": "REALrealREALrealREALreal",
			"email": "REAL@acme.example", "api_token": "REALrealREALrealREALreal00",
		},
	}[service]
	if all == nil {
		t.Fatalf("there is no account of %s", service)
	}
	return maps.Clone(all)
}

// somebody's account is another one than the account.
func somebody(account standin.Credentials) standin.Credentials {
	other := standin.Credentials{}
	for name, value := range account {
		other[name] = strings.NewReplacer("REAL", "EVIL", "0123456789abcdef", "fedcba9876543210").Replace(value)
	}
	return other
}

func pkcs1(key *rsa.PrivateKey) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// serviceAccount is the key file of one, as Google writes it.
func serviceAccount(t testing.TB, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": fmt.Sprintf("%x", der[:20]),
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
