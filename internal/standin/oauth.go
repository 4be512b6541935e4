package standin

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	deviceGrant    = "urn:ietf:params:oauth:grant-type:device_code"
	assertionGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
)

// clientAuth is where an authorization server wants to have the client's
// credentials, and the only place.
type clientAuth int

const (
	inBody clientAuth = iota
	inBasic
)

// pkce is what an authorization server makes of RFC 7636.
type pkce int

const (
	pkceRequired pkce = iota
	pkceAccepted      // checked if the client begins with it
	pkceRefused       // the server does not know it, and refuses what it does not know
)

// grants is an authorization server: RFC 6749, 7009, 7636, 8628. Addresses are
// host and path. The client has the account's client_id and client_secret.
type grants struct {
	authorize, device, token, revoke string // "" is none
	client                           clientAuth
	pkce                             pkce
	json                             bool   // the token request is JSON
	github                           bool   // GitHub's ways: form answers unless JSON is asked for, errors with status 200
	rotates                          bool   // every refresh gives a new refresh token, and ends the old one
	flows                            string // grant types; "" is authorization_code and refresh_token
	scopes                           string // that it knows, with spaces between; "" is that it does not look
	scopeSep                         string // between them in a request; " " unless it differs
	needsScope                       bool   // a request must name some
	asks                             string // what else a request must say that sends a person here, as a query
	expires                          int    // seconds; 0 is never
	access                           string // a format of access tokens, with a number
	yields                           string // the account's name for the access token; "" is access_token
	// also are endpoints of its own; nil is none. A nil answer is for another request.
	also func(*Server, *http.Request, []byte) *answer
}

// issued is what an authorization server has given out.
type issued struct {
	count   int
	codes   map[string]promise
	devices map[string]*device
	refresh map[string]bool // whether it is good still
}

type promise struct{ redirect, challenge string }

type device struct {
	user     string
	approved bool
}

// Approve is what a person does who types a user code of the device flow. It
// says whether there is such a code.
func (s *Server) Approve(userCode string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.issued.devices {
		if d.user == userCode {
			d.approved = true
			return true
		}
	}
	return false
}

// revoke ends a credential.
func (s *Server) revoke(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[name] = ""
	s.issued.refresh = nil
}

// serve answers what is for the authorization server; nil is for another.
func (g *grants) serve(s *Server, r *http.Request, body []byte) *answer {
	if g.also != nil {
		if a := g.also(s, r, body); a != nil {
			return a
		}
	}
	switch hostOf(r) + r.URL.Path {
	case g.authorize:
		return g.serveAuthorize(s, r)
	case g.device:
		return g.serveDevice(s, r, body)
	case g.token:
		return g.serveToken(s, r, body)
	case g.revoke:
		return g.serveRevoke(s, r, body)
	}
	return nil
}

// serveAuthorize is the page on which a person agrees, which they do at once.
func (g *grants) serveAuthorize(s *Server, r *http.Request) *answer {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	loopback := err == nil && redirect.Scheme == "http" && slices.Contains([]string{"127.0.0.1", "localhost", "::1"}, redirect.Hostname())
	switch {
	case r.Method != "GET", q.Get("response_type") != "code", !same(s.value("client_id"), q.Get("client_id")), !loopback, q.Get("state") == "":
		return &answer{status: http.StatusBadRequest, header: []string{"Content-Type", "text/html"}, body: "<h1>Invalid authorization request</h1>"}
	case q.Has("code_challenge") && (g.pkce == pkceRefused || q.Get("code_challenge_method") != "S256"),
		g.pkce == pkceRequired && len(q.Get("code_challenge")) != 43:
		return &answer{status: http.StatusBadRequest, header: []string{"Content-Type", "text/html"}, body: "<h1>Invalid code challenge</h1>"}
	case !g.knows(q), g.asks != "" && !strings.Contains("&"+r.URL.RawQuery+"&", "&"+g.asks+"&"):
		return &answer{status: http.StatusBadRequest, header: []string{"Content-Type", "text/html"}, body: "<h1>Invalid scope, or a parameter is missing</h1>"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	code := s.next("code-%032d")
	if s.issued.codes == nil {
		s.issued.codes = map[string]promise{}
	}
	s.issued.codes[code] = promise{q.Get("redirect_uri"), q.Get("code_challenge")}
	back := redirect.Query()
	back.Set("code", code)
	back.Set("state", q.Get("state"))
	redirect.RawQuery = back.Encode()
	return &answer{status: http.StatusFound, header: []string{"Location", redirect.String()}}
}

// knows says whether a request asks for scopes (RFC 6749 section 3.3) as the
// server has them.
func (g *grants) knows(q url.Values) bool {
	if g.scopes == "" || !g.needsScope && !q.Has("scope") {
		return true
	}
	for scope := range strings.SplitSeq(q.Get("scope"), cmp.Or(g.scopeSep, " ")) {
		if !slices.Contains(strings.Fields(g.scopes), scope) {
			return false
		}
	}
	return true
}

// next makes another value. s.mu is held.
func (s *Server) next(format string) string {
	s.issued.count++
	return fmt.Sprintf(format, s.issued.count)
}

// fields are the parameters of a request to the server, in its format. A
// parameter may be there once, and not be empty (RFC 6749 section 3.2).
func (g *grants) fields(r *http.Request, body []byte) (url.Values, bool) {
	if g.json {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		var object map[string]string
		if err != nil || kind != "application/json" || json.Unmarshal(body, &object) != nil {
			return nil, false
		}
		form := url.Values{}
		for name, value := range object {
			form.Set(name, value)
		}
		return form, true
	}
	form, ok := formOf(r, body)
	for _, values := range form {
		ok = ok && len(values) == 1 && values[0] != ""
	}
	return form, ok && r.Method == "POST"
}

// isClient checks the client's credentials, which must be where the server wants
// them and nowhere else.
func (g *grants) isClient(s *Server, r *http.Request, form url.Values, secret bool) bool {
	user, password, hasBasic := r.BasicAuth()
	if g.client == inBasic {
		// RFC 6749 section 2.3.1: both halves are form-encoded first.
		u, err1 := url.QueryUnescape(user)
		p, err2 := url.QueryUnescape(password)
		return err1 == nil && err2 == nil && hasBasic && !form.Has("client_secret") && same(s.value("client_id"), u) && same(s.value("client_secret"), p)
	}
	return !hasBasic && same(s.value("client_id"), form.Get("client_id")) && (!secret || same(s.value("client_secret"), form.Get("client_secret")))
}

// fail is an error answer, RFC 6749 section 5.2.
func (g *grants) fail(r *http.Request, code, description string) *answer {
	status := http.StatusBadRequest
	header := []string{"Cache-Control", "no-store"}
	if code == "invalid_client" {
		status = http.StatusUnauthorized
		if g.client == inBasic {
			header = append(header, "Www-Authenticate", `Basic realm="oauth"`)
		}
	}
	if g.github {
		known := map[string]string{"invalid_client": "incorrect_client_credentials", "invalid_grant": "bad_verification_code"}
		if k := known[code]; k != "" {
			code = k
		}
	}
	a := g.says(r, map[string]any{"error": code, "error_description": description})
	if a.header = append(a.header, header...); !g.github {
		a.status = status
	}
	return a
}

// says writes an answer in the server's format.
func (g *grants) says(r *http.Request, fields map[string]any) *answer {
	if g.github && !strings.Contains(r.Header.Get("Accept"), "application/json") {
		form := url.Values{}
		for name, value := range fields {
			form.Set(name, fmt.Sprint(value))
		}
		return &answer{status: http.StatusOK, body: form.Encode(), header: []string{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return &answer{status: http.StatusInternalServerError}
	}
	return &answer{status: http.StatusOK, body: string(text)}
}

func (g *grants) serveDevice(s *Server, r *http.Request, body []byte) *answer {
	form, ok := g.fields(r, body)
	if !ok || !strings.Contains(g.flows, deviceGrant) {
		return g.fail(r, "invalid_request", "the request cannot be read")
	}
	if !g.isClient(s, r, form, g.client == inBasic) {
		return g.fail(r, "invalid_client", "the client is not known")
	}
	if !g.knows(form) {
		return g.fail(r, "invalid_scope", "the requested scope is invalid, unknown, or malformed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.issued.devices == nil {
		s.issued.devices = map[string]*device{}
	}
	code, user := s.next("device-%032d"), s.next("WDJB-%04d")
	s.issued.devices[code] = &device{user: user}
	return g.says(r, map[string]any{"device_code": code, "user_code": user, "verification_uri": "https://" + hostOf(r) + "/device", "expires_in": 899, "interval": 5})
}

func (g *grants) serveToken(s *Server, r *http.Request, body []byte) *answer {
	form, ok := g.fields(r, body)
	grant := form.Get("grant_type")
	if g.github && grant == "" {
		grant = "authorization_code"
	}
	flows := g.flows
	if flows == "" {
		flows = "authorization_code refresh_token"
	}
	switch {
	case !ok:
		return g.fail(r, "invalid_request", "the request cannot be read")
	case grant == "" || !slices.Contains(strings.Fields(flows), grant):
		return g.fail(r, "unsupported_grant_type", "this server does not know "+grant)
	case grant == assertionGrant:
		if err := verifyGoogleAssertion(s, form.Get("assertion")); err != nil {
			return g.fail(r, "invalid_grant", "Invalid JWT Signature. "+err.Error())
		}
		return g.issue(s, r, false)
	case !g.isClient(s, r, form, grant != deviceGrant || g.client == inBasic):
		return g.fail(r, "invalid_client", "Client authentication failed due to unknown client, no client authentication included, or unsupported authentication method.")
	case grant == "client_credentials" && !g.knows(form):
		return g.fail(r, "invalid_scope", "The requested scope is invalid, unknown, or malformed.")
	}
	if code := s.redeem(g, grant, form); code != "" {
		return g.fail(r, code, "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI, or was issued to another client.")
	}
	return g.issue(s, r, grant != "client_credentials")
}

// redeem takes what a token is given for. It returns the code of an error, or
// "".
func (s *Server) redeem(g *grants, grant string, form url.Values) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch grant {
	case "authorization_code":
		p, known := s.issued.codes[form.Get("code")]
		delete(s.issued.codes, form.Get("code")) // once, right or wrong
		sum := sha256.Sum256([]byte(form.Get("code_verifier")))
		challenge := base64.RawURLEncoding.EncodeToString(sum[:])
		switch {
		case !known, p.redirect != form.Get("redirect_uri"),
			p.challenge != "" && (challenge != p.challenge || len(form.Get("code_verifier")) < 43),
			p.challenge == "" && form.Has("code_verifier"):
			return "invalid_grant"
		}
	case "refresh_token":
		old := form.Get("refresh_token")
		good, known := s.issued.refresh[old]
		if known && !good { // RFC 9700 section 4.14.2: used twice, so that it was stolen
			s.issued.refresh, s.have[g.name()] = nil, ""
		}
		if !good {
			return "invalid_grant"
		}
		s.issued.refresh[old] = !g.rotates
	case deviceGrant:
		d := s.issued.devices[form.Get("device_code")]
		switch {
		case d == nil:
			return "expired_token"
		case !d.approved:
			return "authorization_pending"
		}
		delete(s.issued.devices, form.Get("device_code"))
	}
	return ""
}

func (g *grants) name() string {
	if g.yields == "" {
		return "access_token"
	}
	return g.yields
}

// issue gives out a token, which is the account's credential from now on.
func (g *grants) issue(s *Server, r *http.Request, refresh bool) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := s.next(g.access)
	s.have[g.name()] = token
	s.state = Working
	fields := map[string]any{"access_token": token, "token_type": "Bearer", "scope": "read"}
	if g.github {
		fields["token_type"] = "bearer"
	}
	if g.expires > 0 {
		fields["expires_in"] = g.expires
	}
	if refresh && !g.github { // tokens of its OAuth apps do not expire
		again := s.next("refresh-%040d")
		if s.issued.refresh == nil {
			s.issued.refresh = map[string]bool{}
		}
		s.issued.refresh[again] = true
		fields["refresh_token"] = again
	}
	a := g.says(r, fields)
	a.header = append(a.header, "Cache-Control", "no-store")
	return a
}

// serveRevoke is RFC 7009: an unknown token is no error.
func (g *grants) serveRevoke(s *Server, r *http.Request, body []byte) *answer {
	form, ok := g.fields(r, body)
	token := form.Get("token")
	if !ok || token == "" {
		return g.fail(r, "invalid_request", "the request cannot be read")
	}
	if g.client == inBasic && !g.isClient(s, r, form, true) {
		return g.fail(r, "invalid_client", "the client is not known")
	}
	s.mu.Lock()
	_, isRefresh := s.issued.refresh[token]
	isAccess := same(s.have[g.name()], token)
	s.mu.Unlock()
	if isRefresh || isAccess {
		s.revoke(g.name())
	}
	return g.says(r, map[string]any{})
}

// githubAlso is what GitHub has beside OAuth: tokens for installations of an
// app, and the end of tokens.
//
//	https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app
//	https://docs.github.com/en/rest/apps/installations#revoke-an-installation-access-token
//	https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-token
func githubAlso(s *Server, r *http.Request, body []byte) *answer {
	if hostOf(r) != "api.github.com" {
		return nil
	}
	wrong := githubError(http.StatusUnauthorized, "Bad credentials")
	switch {
	case r.Method == "POST" && strings.HasPrefix(r.URL.Path, "/app/installations/"):
		if err := verifyGitHubApp(s, r.Header.Get("Authorization")); err != nil {
			a := githubError(http.StatusUnauthorized, "A JSON web token could not be decoded: "+err.Error())
			return &a
		}
		if r.URL.Path != "/app/installations/"+s.value("installation_id")+"/access_tokens" {
			a := githubError(http.StatusNotFound, "Not Found")
			return &a
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.have["token"], s.state = s.next("ghs_%036d"), Working
		return &answer{status: http.StatusCreated, body: fmt.Sprintf(`{"token":%q,"expires_at":%q,"permissions":{"contents":"write"},"repository_selection":"selected"}`,
			s.have["token"], s.now().UTC().Add(installationLife).Format("2006-01-02T15:04:05Z"))}
	case r.Method == "DELETE" && r.URL.Path == "/installation/token":
		if !same("Bearer "+s.value("token"), r.Header.Get("Authorization")) || s.value("token") == "" {
			return &wrong
		}
		s.revoke("token")
		return &answer{status: http.StatusNoContent}
	case r.Method == "DELETE" && r.URL.Path == "/applications/"+s.value("client_id")+"/token":
		user, password, _ := r.BasicAuth()
		var given struct {
			Token string `json:"access_token"`
		}
		if !same(s.value("client_id"), user) || !same(s.value("client_secret"), password) || json.Unmarshal(body, &given) != nil || !same(s.value("token"), given.Token) {
			return &wrong
		}
		s.revoke("token")
		return &answer{status: http.StatusNoContent}
	}
	return nil
}

// notionAlso is https://developers.notion.com/reference/revoke-token.
func notionAlso(s *Server, r *http.Request, body []byte) *answer {
	if r.URL.Path != "/v1/oauth/revoke" {
		return nil
	}
	user, password, _ := r.BasicAuth()
	var given struct {
		Token string `json:"token"`
	}
	if !same(s.value("client_id"), user) || !same(s.value("client_secret"), password) || r.Header.Get("Notion-Version") == "" ||
		json.Unmarshal(body, &given) != nil || !same(s.value("token"), given.Token) {
		return &answer{status: http.StatusBadRequest, body: `{"error":"invalid_request"}`}
	}
	s.revoke("token")
	return &answer{status: http.StatusOK, body: `{"request_id":"00000000-0000-4000-8000-000000000000"}`}
}

// hubspotAlso is https://developers.hubspot.com/docs/api-reference/auth-oauth-v1/guide:
// the refresh token is all that is asked for.
func hubspotAlso(s *Server, r *http.Request, _ []byte) *answer {
	token, ok := strings.CutPrefix(hostOf(r)+r.URL.Path, "api.hubapi.com/oauth/v1/refresh-tokens/")
	if !ok || r.Method != "DELETE" {
		return nil
	}
	s.mu.Lock()
	good := s.issued.refresh[token]
	s.mu.Unlock()
	if !good {
		return &answer{status: http.StatusNotFound, body: `{"status":"error","message":"refresh token not found"}`}
	}
	s.revoke("token")
	return &answer{status: http.StatusNoContent}
}
