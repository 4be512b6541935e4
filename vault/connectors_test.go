package vault_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambit/connector"
	"ambit/internal/standin"
	"ambit/vault"
)

// elsewhere are the connectors that have tests of their own.
func elsewhere() map[string]string {
	return map[string]string{"login": "vault/session_test.go", "mtls": "vault/identity_test.go"}
}

// TestConnectors is every connector that is shipped against a stand-in that is as
// strict about the credential as the service is: each way to connect an account,
// and each client of the service with the references that such an account has.
func TestConnectors(t *testing.T) {
	catalog, err := connector.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	services := standin.All()
	for _, c := range catalog.List() {
		i := slices.IndexFunc(services, func(s standin.Service) bool { return s.Name == c.Name })
		if i < 0 {
			t.Errorf("nothing plays the service of connector %s: add it to package standin", c.Name)
			continue
		}
		if at := elsewhere()[c.Name]; at != "" {
			t.Logf("%s: see %s", c.Name, at)
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { tryAll(play(t, services[i]), account(t, c.Name, key)) })
		})
	}
}

// tryAll tries all ways to connect the account, one after the other.
func tryAll(p *played, all standin.Credentials) {
	used := map[string]bool{}
	for _, in := range connections(p.binding, all) {
		in.try(p, all, used)
		if p.t.Failed() {
			return
		}
	}
	for _, q := range p.service.Requests {
		if !used[q.Client] {
			p.t.Errorf("no way to connect is enough for %s, which uses %v", q.Client, q.Uses)
		}
	}
}

// connection is one way to connect an account.
type connection struct {
	title  string
	way    connector.Way
	flow   connector.Flow
	fields standin.Credentials
	least  bool // without what is optional, although there is something
}

// connections are all ways to connect an account: with all fields and, where
// some are optional, without those.
func connections(b *connector.Binding, all standin.Credentials) (list []connection) {
	optional := func(field string) bool {
		return slices.ContainsFunc(b.Secrets, func(s connector.Secret) bool { return s.Name == field && s.Optional })
	}
	for _, way := range b.Ways {
		whole, required := standin.Credentials{}, standin.Credentials{}
		for _, field := range way.Fields {
			if whole[field] = all[field]; !optional(field) {
				required[field] = all[field]
			}
		}
		flows := []connector.Flow{""}
		if way.OAuth != nil {
			flows = way.OAuth.Flows
		}
		for _, flow := range flows {
			title := strings.TrimSpace(way.Name + " " + string(flow))
			list = append(list, connection{title, way, flow, whole, false})
			if len(required) < len(whole) {
				list = append(list, connection{title + " at the least", way, flow, required, true})
			}
		}
	}
	return list
}

// uses says whether a connection has all that a client needs.
func (in connection) uses(q standin.Request) bool {
	return !slices.ContainsFunc(q.Uses, func(secret string) bool { return in.fields[secret] == "" && secret != in.way.Yields })
}

// try connects the account, has all clients use it, and revokes it. The clients
// are noted in used.
func (in connection) try(p *played, all standin.Credentials, used map[string]bool) {
	in.connect(p)
	for _, q := range p.service.Requests {
		if in.uses(q) && !p.t.Failed() {
			used[q.Client] = true
			q.Client = in.title + ": " + q.Client
			if p.isAccepted(q); in.least {
				continue // the rest is as with all
			}
			p.isRefused(q, somebody(all))
			p.isSilent(q)
			p.saysWhatItSays(q)
		}
	}
	if in.way.Yields != "" && !in.least {
		in.staysFresh(p)
	}
	in.revoke(p)
}

// isAccepted: with the references, the request is as good as with the real
// credential. Without them it is as good as one without, and nothing else
// happens: git asks like that first.
func (p *played) isAccepted(q standin.Request) {
	p.t.Helper()
	if r := p.answered(q.Client, p.call(q, p.refs), true); r.denied == nil && r.resp.StatusCode != http.StatusOK {
		p.t.Errorf("%s: %d %s", q.Client, r.resp.StatusCode, r.body)
	}
	c, tokens := p.call(q, p.refs), p.tokens()
	if c.header.Get("Authorization") == "" {
		return
	}
	c.header.Del("Authorization")
	p.answered(q.Client+" without a credential", c, false)
	p.answered(q.Client+" after one without", p.call(q, p.refs), true)
	if p.tokens() != tokens {
		p.t.Errorf("%s: another token was asked for, because a request without one was refused", q.Client)
	}
}

// isRefused: what is not exactly the reference does not leave (N10, K4).
func (p *played) isRefused(q standin.Request, other standin.Credentials) {
	p.t.Helper()
	refused := func(what string, have standin.Credentials) {
		p.t.Helper()
		before, _ := p.reached()
		r := p.do(p.call(q, have))
		if !slices.Contains([]string{"foreign-credential", "reference-misplaced", "signature-refused"}, r.code()) {
			p.t.Errorf("%s with %s: %v", q.Client, what, r.denied)
		}
		if after, _ := p.reached(); after != before {
			p.t.Errorf("%s with %s: left", q.Client, what)
		}
	}
	foreign := standin.Credentials{}
	for _, name := range q.Uses {
		almost := standin.Credentials{}
		for _, n := range q.Uses {
			almost[n] = p.refs[n]
		}
		last := len(almost[name]) - 1
		almost[name] = almost[name][:last] + string(almost[name][last]^1)
		refused("almost its reference", almost)
		if foreign[name] = other[name]; other[name] == "" {
			p.t.Fatalf("there is no %s of another account", name)
		}
	}
	refused("another account's credential", foreign)
}

// isSilent: a service that hands the credential back, in whatever form, gives
// nothing away (K3).
func (p *played) isSilent(q standin.Request) {
	p.t.Helper()
	r := p.do(p.call(q, p.refs, "X-Echo", "1"))
	if r.denied != nil || !strings.Contains(r.body, `"received"`) {
		p.t.Errorf("%s: there is no echo: %v %s", q.Client, r.denied, r.body)
		return
	}
	for _, secret := range p.secrets() {
		leaks(p.t, q.Client, fmt.Sprint(r.resp.Header)+r.body, secret)
	}
}

// saysWhatItSays: what the service says of too many requests, and of a credential
// that is over, is what the agent is told.
func (p *played) saysWhatItSays(q standin.Request) {
	p.t.Helper()
	p.server.Set(standin.Limited)
	p.answered(q.Client+" too often", p.call(q, p.refs), true)
	if len(p.got) == 0 { // a token would be replaced: see staysFresh
		p.server.Set(standin.Expired)
		p.answered(q.Client+" when it expired", p.call(q, p.refs), true)
	}
	p.server.Set(standin.Working)
}

// byPerson says whether the person agrees at the service.
func (in connection) byPerson() bool {
	return in.flow == connector.FlowCode || in.flow == connector.FlowDevice
}

// connect has a person connect the account.
func (in connection) connect(p *played) {
	p.t.Helper()
	q := p.given(&in.way, in.flow, in.fields)
	if !in.byPerson() {
		if _, err := p.vault.Connect(p.t.Context(), q, "uid:1000"); err != nil {
			p.t.Fatal(err)
		}
		return
	}
	if in.flow == connector.FlowCode {
		q.RedirectURL = "http://127.0.0.1:4711/callback"
	}
	started, err := p.vault.StartOAuth(p.t.Context(), q, "uid:1000")
	if err != nil {
		p.t.Fatal(err)
	}
	if in.flow == connector.FlowCode {
		if _, err := p.vault.FinishOAuth(p.t.Context(), p.name, p.browse(started.URL), "uid:1000"); err != nil {
			p.t.Fatal(err)
		}
		return
	}
	time.Sleep(6 * time.Second) // the vault has asked once
	if l := p.vault.Login(p.name); l.State != vault.LoginWaiting || !p.server.Approve(started.UserCode) {
		p.t.Fatalf("the person cannot agree: %+v, %+v", l, started)
	}
	time.Sleep(6 * time.Second)
	if l := p.vault.Login(p.name); l.State != vault.LoginDone {
		p.t.Fatalf("%+v", l)
	}
}

// browse is the person's browser, on its way to the service and back.
func (p *played) browse(to string) url.Values {
	p.t.Helper()
	said := p.direct(httptest.NewRequest(http.MethodGet, to, nil))
	back, err := url.Parse(said.Header().Get("Location"))
	if said.Code != http.StatusFound || err != nil || back.Host != "127.0.0.1:4711" || back.Path != "/callback" {
		p.t.Fatalf("%s: %d %s %v", to, said.Code, said.Body, err)
	}
	return back.Query()
}

// direct is a request to the service from somewhere else.
func (p *played) direct(r *http.Request) *httptest.ResponseRecorder {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	said := httptest.NewRecorder()
	p.server.ServeHTTP(said, r)
	return said
}

// staysFresh: a token is replaced before it is over, also when nobody uses it, for
// as long as the account is connected; and when the service says that it is over.
func (in connection) staysFresh(p *played) {
	p.t.Helper()
	q := p.service.Requests[slices.IndexFunc(p.service.Requests, in.uses)]
	q.Client = in.title + ": " + q.Client
	times := 1
	if in.byPerson() {
		times = 2 // the second time with the refresh token that came with the first
	}
	for range times {
		expires, tokens := p.vault.Connections()[0].Expires, p.tokens()
		if expires.IsZero() {
			break // of this service, they never are
		}
		time.Sleep(time.Until(expires))
		synctest.Wait()
		if p.tokens() == tokens {
			p.t.Error("the token is over, and no other was asked for")
		}
		p.answered(q.Client+" with the next token", p.call(q, p.refs), true)
	}
	time.Sleep(2 * time.Minute) // until a refusal counts
	tokens := p.tokens()
	p.server.Set(standin.Expired)
	r := p.answered(q.Client+" when it expired", p.call(q, p.refs), true)
	if r.denied == nil && r.resp.StatusCode != http.StatusUnauthorized {
		p.t.Errorf("%s: the service says that a token is over with status %d", q.Client, r.resp.StatusCode)
	}
	final := p.name == "github" && in.byPerson() // its OAuth apps have no refresh tokens
	if final {
		p.server.Set(standin.Working)
	}
	r = p.answered(q.Client+" afterwards", p.call(q, p.refs), true)
	if another := p.tokens() != tokens; r.denied == nil && (r.resp.StatusCode != http.StatusOK || another == final) {
		p.t.Errorf("%s: %d %s; another token was asked for: %t", q.Client, r.resp.StatusCode, r.body, another)
	}
}

// revoke: the reference is worth nothing at once (K5) and, where the service can
// be told, so is the real credential.
func (in connection) revoke(p *played) {
	p.t.Helper()
	revoked, err := p.vault.Revoke(p.t.Context(), p.name, "uid:1000")
	if err != nil || len(revoked) != 1 || revoked[0].Told != (in.way.Revoke != nil) {
		p.t.Errorf("%+v, %v", revoked, err)
	}
	for _, q := range p.service.Requests {
		if !in.uses(q) {
			continue
		}
		p.wantDenied(p.call(q, p.refs), "not-connected")
		if in.way.Revoke != nil && slices.Contains(q.Uses, p.revoked(in)) {
			p.isOver(q)
		}
	}
}

// revoked is the secret that is over when the service was told.
func (p *played) revoked(in connection) string {
	if in.way.Yields != "" {
		return in.way.Yields
	}
	return "token"
}

// isOver: nothing that the vault had is taken by the service any more.
func (p *played) isOver(q standin.Request) {
	p.t.Helper()
	before := p.server.Accepted()
	for _, secret := range p.secrets() {
		have := standin.Credentials{}
		for _, name := range q.Uses {
			have[name] = secret
		}
		r, err := q.New(have, p.now())
		if err != nil {
			p.t.Fatal(err)
		}
		r.Host = r.URL.Host
		if said := p.direct(r); p.server.Accepted() != before {
			p.t.Fatalf("%s: what was revoked is still taken: %d %s", q.Client, said.Code, said.Body)
		}
	}
}
