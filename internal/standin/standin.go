// Package standin plays the services that Ambit ships connectors for, for tests
// without a network. A stand-in is as strict about the credential as the service
// is: the same fields and schemes, the companions that are required beside it
// (Notion-Version, anthropic-version), signatures verified, and the service's
// own answers to a credential that is missing, wrong or expired, and to too many
// requests. Of everything else it plays next to nothing.
//
// The checks are written from the services' documentation, and share no code
// with what they test: a mistake in package vault/sign is not repeated here.
//
//	server := service.New(standin.Credentials{"token": "ghp_..."}, time.Now)
//	httptest.NewTLSServer(server)
//
// A request that is accepted and has the query parameter or the header field
// X-Echo is answered with what came, and with the credential in every form in
// which a careless or hostile service could hand it back. A signature covers the
// parameter, and not the field.
//
// Trust: made for tests. It has no state worth protecting, and nothing of the
// product imports it.
package standin

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Credentials are values by the name that the connector has for them: those of
// the account, or the references in their place.
type Credentials map[string]string

// Service is one service.
type Service struct {
	Name    string            // of the connector
	Account string            // what the connector calls the account; "" if it takes none
	Pins    map[string]string // what the connector requires to be pinned
	Hosts   []string          // that it answers for; a generic connector's manifest names them
	// Own says that the manifest must name the hosts.
	Own bool
	// Requests are what clients of the service send.
	Requests []Request

	api api
}

// Request is a request as one client of a service makes it.
type Request struct {
	Client string   // "go-github"
	Uses   []string // names of what it carries or signs with
	// New makes it with values for the names in Uses. A client that signs does so
	// for the time now.
	New func(have Credentials, now time.Time) (*http.Request, error)
}

// api is how a service judges a request.
type api struct {
	// accept returns nil if the credential of the request is right.
	accept func(*Server, *http.Request, []byte) *answer
	// expired is the answer to a right credential that is over; limited the one
	// to too many requests.
	expired, limited answer
	grants           *grants // the authorization server; nil for none
	// play answers what is accepted; nil, or a nil answer, is an empty JSON object.
	play func(*Server, *http.Request, []byte) *answer
}

// answer is what is sent back.
type answer struct {
	status int
	body   string
	header []string // names and values; Content-Type is application/json if it is not in here
}

func (a *answer) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	for i := 0; i+1 < len(a.header); i += 2 {
		w.Header().Add(a.header[i], a.header[i+1])
		if a.header[i] == "Content-Type" {
			w.Header().Set(a.header[i], a.header[i+1])
		}
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// State is how a service feels.
type State int

// The states. A server starts with Working.
const (
	Working State = iota
	Expired       // the credential was right until a moment ago
	Limited       // there were too many requests
)

// Server plays a service for one account. It is safe for concurrent use.
type Server struct {
	Service
	now func() time.Time

	mu       sync.Mutex
	have     Credentials
	state    State
	accepted int             // how many requests had the right credential
	issued   issued          // by the authorization server
	sessions map[string]bool // of people who are logged in
	codes    map[string]bool // one-time codes that were used
	failures int             // of logins in a row
}

// New returns a server that knows the account. now is the server's clock.
func (s Service) New(have Credentials, now func() time.Time) *Server {
	return &Server{Service: s, now: now, have: maps.Clone(have), sessions: map[string]bool{}, codes: map[string]bool{}}
}

// Set changes the state.
func (s *Server) Set(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// Accepted counts the requests that had the right credential, also those that
// were too many.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// value is what the account has under a name; "" is nothing, which no request
// matches.
func (s *Server) value(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[name]
}

// maxBody is how much of a body a stand-in reads, in bytes.
const maxBody = 16 << 20

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody {
		(&answer{status: http.StatusBadRequest, body: `{"message":"the body could not be read"}`}).write(w)
		return
	}
	s.judge(r, body).write(w)
}

func (s *Server) judge(r *http.Request, body []byte) *answer {
	if !s.hasHost(hostOf(r)) {
		return &answer{status: http.StatusMisdirectedRequest, body: `{"message":"this is another host"}`}
	}
	if s.api.grants != nil {
		if a := s.api.grants.serve(s, r, body); a != nil {
			return a
		}
	}
	if a := s.api.accept(s, r, body); a != nil {
		return a
	}
	s.mu.Lock()
	s.accepted++
	state := s.state
	s.mu.Unlock()
	switch {
	case state == Expired:
		return &s.api.expired
	case state == Limited:
		return &s.api.limited
	case r.URL.Query().Has("X-Echo"), r.Header.Get("X-Echo") != "":
		return s.echo(r, body)
	}
	if s.api.play != nil {
		if a := s.api.play(s, r, body); a != nil {
			return a
		}
	}
	return &answer{status: http.StatusOK, body: "{}"}
}

func (s *Server) hasHost(host string) bool {
	return slices.ContainsFunc(s.Hosts, func(h string) bool {
		suffix, wild := strings.CutPrefix(h, "*")
		return h == host || wild && strings.HasSuffix(host, suffix)
	})
}

// hostOf is the host of a request without its port.
func hostOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	return strings.ToLower(host)
}

// echo hands everything back. The fields and the body are as they came; of
// every value there are the forms in which it could be hidden.
func (s *Server) echo(r *http.Request, body []byte) *answer {
	var received bytes.Buffer
	fmt.Fprintf(&received, "%s %s %s\r\nHost: %s\r\n", r.Method, r.RequestURI, r.Proto, r.Host)
	_ = r.Header.Write(&received) // to memory
	received.WriteString("\r\n")
	received.Write(body)
	forms := map[string][]string{}
	s.mu.Lock()
	have := maps.Clone(s.have)
	s.mu.Unlock()
	for name, value := range have {
		forms[name] = Forms(value)
	}
	text, err := json.Marshal(map[string]any{"received": received.String(), "forms": forms})
	if err != nil {
		return &answer{status: http.StatusInternalServerError, body: "{}"}
	}
	a := &answer{status: http.StatusOK, body: string(text), header: []string{"X-Received-Path", r.URL.EscapedPath(), "X-Received-Query", r.URL.RawQuery}}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		for _, value := range r.Header[name] {
			a.header = append(a.header, "X-Received-"+name, value)
		}
	}
	return a
}

// Forms are the ways of writing a value in which it is still there: as it is,
// in base64 at each of the three alignments, percent-encoded (also where that is
// not needed), and escaped as in JSON.
func Forms(value string) []string {
	var everything, unicode strings.Builder
	for i := range len(value) {
		fmt.Fprintf(&everything, "%%%02x", value[i])
	}
	for _, c := range value {
		fmt.Fprintf(&unicode, `\u%04x`, c)
	}
	forms := []string{value, url.QueryEscape(value), url.PathEscape(value), everything.String(), strings.ToUpper(everything.String()), unicode.String()}
	for pad := range 3 {
		b := []byte("::"[:pad] + value + "::")
		forms = append(forms, base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b))
	}
	return forms
}

// same compares without telling by time how much of it is right. Nothing is the
// same as an empty value.
func same(want, given string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(want), []byte(given)) == 1
}

// All returns the services, one for each connector that is shipped, by name.
func All() []Service {
	all := slices.Concat(platforms(), workplaces(), models(), storage(), generic())
	slices.SortFunc(all, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return all
}
