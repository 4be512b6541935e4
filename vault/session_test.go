package vault_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/internal/sqldb"
	"ambit/internal/standin"
	"ambit/vault"
)

const totpKey = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

// site is a web site with a login, as the agent's browser sees it.
type site struct {
	*world
	server *standin.Server
	jar    *cookiejar.Jar

	mu   sync.Mutex
	real []string // session values that the site made
	got  []string // all that came back to the agent
}

func newSite(t testing.TB) *site {
	t.Helper()
	w := newWorld(t, "{name: login, hosts: [login.example.com, app.example.com]}", "{name: github}")
	w.connect("login", "", "username", "ops@acme.example", "password", "real-password-&?=+", "totp", totpKey)
	s := &site{world: w}
	s.jar, _ = cookiejar.New(nil)
	for _, service := range standin.All() {
		if service.Name == "login" {
			s.server = service.New(standin.Credentials{"username": "ops@acme.example", "password": "real-password-&?=+", "totp": totpKey}, func() time.Time { return w.now() })
		}
	}
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		s.server.ServeHTTP(rw, r)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, field := range rw.Header()["Set-Cookie"] {
			if _, value, _ := strings.Cut(field, "="); strings.HasPrefix(value, "session-") {
				s.real = append(s.real, value[:strings.IndexByte(value, ';')])
			}
		}
	}
	t.Cleanup(func() {
		for _, real := range s.real {
			if len(real) < 40 {
				t.Errorf("the site made %q: the test looks for the wrong thing", real)
			}
			for _, got := range s.got {
				leaks(t, "the real session", got, real)
			}
		}
	})
	return s
}

// browse does what a browser does: it sends the cookies that it has for the
// address, keeps those that it gets, and follows where it is sent.
func (s *site) browse(c call) result {
	s.t.Helper()
	for range 5 {
		u, err := url.Parse(c.url)
		if err != nil {
			s.t.Fatal(err)
		}
		q := &http.Request{Header: c.header}
		q.Header.Del("Cookie")
		for _, k := range s.jar.Cookies(u) {
			q.AddCookie(k)
		}
		r := s.do(c)
		if r.denied != nil {
			return r
		}
		s.jar.SetCookies(u, r.resp.Cookies())
		s.got = append(s.got, fmt.Sprint(r.resp.Header), r.body)
		to := r.resp.Header.Get("Location")
		if to == "" {
			return r
		}
		next, err := u.Parse(to)
		if err != nil {
			s.t.Fatal(err)
		}
		c = get(next.String())
	}
	s.t.Fatal("the site sends the browser round in circles")
	return result{}
}

func (s *site) cookies(at string) []string {
	u, _ := url.Parse(at)
	var all []string
	for _, k := range s.jar.Cookies(u) {
		all = append(all, k.Name+"="+k.Value)
	}
	slices.Sort(all)
	return all
}

func (s *site) logIn() result {
	s.t.Helper()
	form := url.Values{"username": {s.env("LOGIN_USERNAME")}, "password": {s.env("LOGIN_PASSWORD")}, "code": {s.env("LOGIN_CODE")}}
	r := s.browse(post("https://login.example.com/login", "application/x-www-form-urlencoded", form.Encode()))
	if r.denied != nil || r.resp.StatusCode != http.StatusOK || !strings.Contains(r.body, "Orders") {
		s.t.Fatalf("logging in: %v %s", r.denied, r.body)
	}
	return r
}

// An agent's browser logs in with what it was given, and works on, with
// references that behave like the site's cookies.
func TestLogInLikeAPerson(t *testing.T) {
	s := newSite(t)
	if r := s.browse(get("https://login.example.com/orders")); r.denied != nil || !strings.Contains(r.body, "<form") {
		t.Fatalf("without a session the site shows its login: %v %s", r.denied, r.body)
	}
	s.logIn()
	have := s.cookies("https://login.example.com/")
	if len(have) != 2 || !strings.HasPrefix(have[0], "__Host-session=") || have[1] != "theme=dark" || strings.Contains(have[0], s.real[0]) {
		t.Errorf("the browser has %q", have)
	}
	if at := s.cookies("http://login.example.com/"); len(at) != 1 {
		t.Errorf("without TLS the browser sends %q", at)
	}
	s.reopen() // the worker restarts, and the browser's profile is as it was
	if r := s.browse(get("https://login.example.com/orders?page=2")); r.denied != nil || !strings.Contains(r.body, "Orders") {
		t.Errorf("after a restart: %v %s", r.denied, r.body)
	}
	s.keys = append(s.keys, 5)
	if err := s.vault.Rekey(t.Context(), s.ring(), "uid:1000"); err != nil {
		t.Fatal(err)
	}
	if r := s.browse(get("https://login.example.com/orders?page=3")); r.denied != nil || !strings.Contains(r.body, "Orders") {
		t.Errorf("after its key was rotated: %v %s", r.denied, r.body)
	}
	s.keys = s.keys[1:] // version 1 is gone
	if r := s.browse(post("https://login.example.com/logout", "", "")); r.denied != nil || !strings.Contains(r.body, "<form") {
		t.Errorf("logging out: %v %s", r.denied, r.body)
	}
	if have := s.cookies("https://login.example.com/"); len(have) != 1 {
		t.Errorf("after it logged out the browser has %q", have)
	}
	n := 0
	if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM vault_session", nil, &n); err != nil || n != 0 {
		t.Errorf("%d sessions are kept after logging out, %v", n, err)
	}
}

// A program that logs in with JSON gets the reference to a token, and uses it
// as it would the token: as Bearer, in a body and in the query.
func TestLogInWithJSON(t *testing.T) {
	s := newSite(t)
	body := fmt.Sprintf(`{"username":%q, "password":%q,"totp":%q}`, s.env("LOGIN_USERNAME"), s.env("LOGIN_PASSWORD"), s.env("LOGIN_CODE"))
	r := s.do(post("https://login.example.com/api/login?X-Echo", "application/json", body))
	if r.denied != nil || r.resp.StatusCode != http.StatusOK {
		t.Fatal(r.denied, r.body)
	}
	if fmt.Sprint(len(r.body)) != r.resp.Header.Get("Content-Length") {
		t.Errorf("%d bytes, and Content-Length %s", len(r.body), r.resp.Header.Get("Content-Length"))
	}
	var said struct{ Token, Received string }
	if err := json.Unmarshal([]byte(r.body), &said); err != nil || said.Token == "" || said.Token == s.real[0] || strings.Contains(said.Received, "real-password") {
		t.Fatalf("%v %s", err, r.body)
	}
	s.got = append(s.got, r.body, fmt.Sprint(r.resp.Header))
	if r := s.do(get("https://login.example.com/orders", "Authorization", "Bearer "+said.Token)); r.denied != nil || !strings.Contains(r.body, "Orders") {
		t.Errorf("the token's reference as Bearer: %v %s", r.denied, r.body)
	}
	arrived := s.arrived()
	for name, c := range map[string]struct {
		call call
		want string // in what arrives
	}{
		"another host": {get("https://app.example.com/", "X-Token", said.Token), "X-Token: " + s.real[0]},
		"query":        {get("https://login.example.com/orders?a=b&t=" + said.Token + "&c="), "?a=b&t=" + s.real[0] + "&c="},
		"form":         {post("https://login.example.com/x", "application/x-www-form-urlencoded", "a=b&refresh_token="+said.Token), "a=b&refresh_token=" + s.real[0]},
		"json":         {post("https://login.example.com/x", "application/json", `{"a":["`+said.Token+`"], "b":1}`), `{"a":["` + s.real[0] + `"], "b":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			if r := s.do(c.call); r.denied != nil {
				t.Fatal(r.denied)
			}
			r, body := arrived()
			var head strings.Builder
			_ = r.Header.Write(&head)
			if text := r.RequestURI + "\r\n" + head.String() + body; !strings.Contains(text, c.want) {
				t.Errorf("%s\ndoes not have %s", text, c.want)
			}
		})
	}
}

// K1: what was handed back is for the host and the cookie that it was handed
// back for, and for nothing else.
func TestK1SessionReference(t *testing.T) {
	s := newSite(t)
	s.logIn()
	_, ref, _ := strings.Cut(s.cookies("https://login.example.com/")[0], "=")
	for name, c := range map[string]call{
		"unbound host":             get("https://other.example/?s=" + ref),
		"unbound host, cookie":     get("https://other.example/", "Cookie", "__Host-session="+ref),
		"unbound host, body":       post("https://other.example/", "text/plain", "my session: "+ref),
		"other connection":         get("https://api.github.com/user", "X-Session", ref),
		"other host of the site":   get("https://app.example.com/", "Cookie", "__Host-session="+ref),
		"other host, header":       get("https://app.example.com/", "X-Session", ref),
		"other host, body":         post("https://app.example.com/", "application/json", `{"a":"`+ref+`"}`),
		"another cookie's name":    get("https://login.example.com/", "Cookie", "theme="+ref),
		"beside something":         get("https://login.example.com/", "X-A", "a, "+ref),
		"inside Basic":             get("https://login.example.com/", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("a:"+ref))),
		"path":                     get("https://login.example.com/orders/" + ref),
		"query, encoded":           get("https://login.example.com/?a=%" + fmt.Sprintf("%02x", ref[0]) + ref[1:]),
		"in a text of JSON":        post("https://login.example.com/", "application/json", `{"a":"see `+ref+`"}`),
		"body that is not a form":  post("https://login.example.com/", "text/plain", ref),
		"a reference in a cookie":  get("https://login.example.com/", "Cookie", "a="+s.env("GITHUB_TOKEN")),
		"one in one that is known": get("https://login.example.com/", "Cookie", "__Host-session="+ref+"; b=c"+ref),
	} {
		t.Run(name, func(t *testing.T) {
			s.wantDenied(c, "reference-misplaced")
		})
	}
}

// N10: a cookie that is none of ours does not leave, so that an attacker's
// session is no way out. What is too short for a credential passes.
func TestN10ForeignCookie(t *testing.T) {
	s := newSite(t)
	s.logIn()
	own := s.cookies("https://login.example.com/")[0]
	arrived := s.arrived()
	for sent, want := range map[string]string{
		own + "; evil=evilEVILevil; lang=de":             "__Host-session=" + s.real[0] + "; lang=de",
		"__Host-session=evilEVILevil":                    "",
		"evilEVILevilEVIL":                               "",
		"lang=de;;a=; " + own + ";":                      "lang=de; a=; __Host-session=" + s.real[0],
		strings.Replace(own, "=", "=", 1) + "x; lang=de": "lang=de", // over, or guessed
	} {
		if r := s.do(get("https://login.example.com/", "Cookie", sent)); r.denied != nil {
			t.Fatal(r.denied)
		}
		if r, _ := arrived(); r.Header.Get("Cookie") != want || len(r.Header["Cookie"]) > 1 {
			t.Errorf("of %q arrived %q, want %q", sent, r.Header["Cookie"], want)
		}
	}
}

// K3: a site that writes its session into a page, in whatever form, in the
// answer that sets it or in a later one, does not give it away.
func TestK3SessionEcho(t *testing.T) {
	s := newSite(t)
	const real = "r3al/Session+Value=0123456789abcdefghij"
	echo := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Session", real)
		w.Header().Set("Location", "/?s="+url.QueryEscape(real))
		for _, form := range standin.Forms(real) {
			_, _ = io.WriteString(w, form+"\n")
		}
	}
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "sid="+real+"; Path=/; Secure")
		w.Header().Add("Set-Cookie", "theme=dark")
		echo(w, r)
	}
	first := s.do(get("https://login.example.com/"))
	s.serve = echo
	later := s.do(get("https://login.example.com/"))
	for _, r := range []result{first, later} {
		if r.denied != nil {
			t.Fatal(r.denied)
		}
		leaks(t, "the session", fmt.Sprint(r.resp.Header)+r.body, real)
	}
	if c := first.resp.Cookies(); len(c) != 2 || c[0].Name != "sid" || !c[0].Secure || c[0].Path != "/" || c[0].Value == real || c[1].Value != "dark" {
		t.Errorf("cookies %v", c)
	}
	s.serve = func(w http.ResponseWriter, _ *http.Request) { // the same again is the same reference
		w.Header().Add("Set-Cookie", "sid="+real+"; Path=/; Secure; Max-Age=60")
	}
	if again := s.do(get("https://login.example.com/")); again.resp.Cookies()[0].Value != first.resp.Cookies()[0].Value {
		t.Error("what did not change looks changed")
	}
}

// K5: when the account is revoked, its sessions are over, in the middle of a
// stream too, and nothing of them is left.
func TestK5SessionRevoked(t *testing.T) {
	s := newSite(t)
	s.logIn()
	own := s.cookies("https://login.example.com/")[0]
	more := make(chan bool)
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		for ok := range more {
			if !ok {
				return
			}
			_, _ = io.WriteString(w, "data\n")
			_ = http.NewResponseController(w).Flush()
		}
	}
	defer close(more)
	go func() { more <- true }()
	r := s.open(get("https://login.example.com/stream", "Cookie", own))
	if r.denied != nil {
		t.Fatal(r.denied)
	}
	defer r.resp.Body.Close()
	if _, err := io.ReadFull(r.resp.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.vault.Revoke(context.Background(), "login", "uid:1000"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.resp.Body.Read(make([]byte, 5)); err == nil {
		t.Error("the stream goes on")
	}
	r.lease.Done()
	s.wantDenied(get("https://login.example.com/", "Cookie", own), "not-connected")
	n := 0
	if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM vault_session", nil, &n); err != nil || n != 0 {
		t.Errorf("%d sessions are left, %v", n, err)
	}
	s.connect("login", "", "username", "ops@acme.example", "password", "real-password-&?=+")
	arrived := s.arrived()
	if r := s.do(get("https://login.example.com/", "Cookie", own)); r.denied != nil {
		t.Fatal(r.denied)
	}
	if q, _ := arrived(); q.Header.Get("Cookie") != "" {
		t.Errorf("a session of before is sent: %q", q.Header.Get("Cookie"))
	}
}

// K7: a row that was copied or swapped is no session.
func TestK7SessionRows(t *testing.T) {
	s := newSite(t)
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "a=session-one-0123456789")
		w.Header().Add("Set-Cookie", "b=session-two-0123456789")
	}
	set := s.do(get("https://login.example.com/")).resp.Cookies()
	err := s.db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), "UPDATE vault_session SET sealed = (SELECT sealed FROM vault_session WHERE ref = ?) WHERE ref = ?", set[0].Value, set[1].Value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.reopen()
	arrived := s.arrived()
	s.do(get("https://login.example.com/", "Cookie", "a="+set[0].Value+"; b="+set[1].Value))
	if r, _ := arrived(); r.Header.Get("Cookie") != "a=session-one-0123456789" {
		t.Errorf("sent: %q", r.Header.Get("Cookie"))
	}
}

// A site that makes a session of every answer fills neither disk nor memory.
func TestSessionsAreFew(t *testing.T) {
	s := newSite(t)
	n := 0
	s.serve = func(w http.ResponseWriter, r *http.Request) {
		n++
		w.Header().Add("Set-Cookie", fmt.Sprintf("a=session-%030d", n))
	}
	first := s.do(get("https://login.example.com/")).resp.Cookies()[0].Value
	used := s.do(get("https://login.example.com/")).resp.Cookies()[0].Value
	for range vault.MaxSessions + 5 {
		now := s.now().Add(time.Second)
		s.now = func() time.Time { return now }
		if r := s.do(get("https://login.example.com/", "Cookie", "a="+used)); r.denied != nil {
			t.Fatal(r.denied)
		}
	}
	var rows int
	if err := s.db.QueryRow(t.Context(), "SELECT count(*) FROM vault_session", nil, &rows); err != nil || rows != vault.MaxSessions {
		t.Errorf("%d rows, %v", rows, err)
	}
	arrived := s.arrived()
	s.do(get("https://login.example.com/", "Cookie", "a="+used))
	if r, _ := arrived(); r.Header.Get("Cookie") != fmt.Sprintf("a=session-%030d", 2) {
		t.Errorf("what is used was given up: %q", r.Header.Get("Cookie"))
	}
	s.do(get("https://login.example.com/", "Cookie", "a="+first))
	if r, _ := arrived(); r.Header.Get("Cookie") != "" {
		t.Errorf("what nobody uses is kept: %q", r.Header.Get("Cookie"))
	}
}

// Cookies as sites write them: what is a credential becomes a reference, and
// all else stays as it is.
func TestSetCookie(t *testing.T) {
	s := newSite(t)
	for field, want := range map[string]string{ // # stands for a reference
		"a=longSessionValue":                                                   "a=#",
		" a = longSessionValue ; Path=/x;HttpOnly":                             "a=#; Path=/x;HttpOnly",
		`a="longSessionValue"; Path=/`:                                         "a=#; Path=/",
		"a=long=Session=Value;":                                                "a=#;",
		"longSessionValue; Path=/":                                             "#; Path=/",
		"=longSessionValue":                                                    "#",
		"a=short; Path=/":                                                      "a=short; Path=/",
		"a=; Max-Age=0":                                                        "a=; Max-Age=0",
		"a=longSessionValue; max-AGE=0; Path=/":                                "a=; max-AGE=0; Path=/",
		"a=longSessionValue; Max-Age=-1":                                       "a=; Max-Age=-1",
		"a=longSessionValue; Expires=Thu, 01 Jan 1970 00:00:00 GMT":            "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
		"a=longSessionValue; Expires=Thu, 01-Jan-1970 00:00:00 GMT":            "a=; Expires=Thu, 01-Jan-1970 00:00:00 GMT",
		"a=longSessionValue; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5": "a=#; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5",
		"a=longSessionValue; Domain=.Example.com; SameSite=None;;x":            "a=#; Domain=.Example.com; SameSite=None;;x",
	} {
		s.serve = func(w http.ResponseWriter, _ *http.Request) { w.Header()["Set-Cookie"] = []string{field} }
		r := s.do(get("https://login.example.com/"))
		if r.denied != nil {
			t.Fatal(r.denied)
		}
		before, after, isRef := strings.Cut(want, "#")
		got := r.resp.Header.Get("Set-Cookie")
		if !isRef && got != want || isRef && (!strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) || len(got) != len(want)-1+42) {
			t.Errorf("%q became %q", field, got)
		}
	}
}

// A cookie for a domain goes to the hosts of the connection below it.
func TestCookieOfADomain(t *testing.T) {
	s := newSite(t)
	s.serve = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "a=longSessionValue; Domain=example.com")
	}
	ref := s.do(get("https://login.example.com/")).resp.Cookies()[0].Value
	arrived := s.arrived()
	if r := s.do(get("https://app.example.com/", "Cookie", "a="+ref)); r.denied != nil {
		t.Fatal(r.denied)
	}
	if r, _ := arrived(); r.Header.Get("Cookie") != "a=longSessionValue" {
		t.Errorf("sent: %q", r.Header.Get("Cookie"))
	}
	s.wantDenied(get("https://other.example/", "Cookie", "a="+ref), "reference-misplaced")
}

// Answers that cannot be looked at for tokens, or that break off, are not passed
// on; what is no JSON and what is no token stays as it is.
func TestTokensInAnswers(t *testing.T) {
	answer := func(media, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		code  string
		body  string // # stands for a reference
	}{
		"token":       {answer("application/json", `{"token" : "longSessionValue","a":{"token":"longOtherValue"}}`), "", `{"token" : "#","a":{"token":"longOtherValue"}}`},
		"twice":       {answer("application/vnd.x+json", `{"token":"longSessionValue","token":"longOtherValue","b":"longSessionValue"}`), "", `{"token":"#","token":"#","b":"XXXXXXXXXXXXXXXX"}`},
		"number":      {answer("application/json", `{"token":1234567890123}`), "", `{"token":1234567890123}`},
		"no JSON":     {answer("application/json", `{"token":"longSessionValue"`), "", `{"token":"longSessionValue"`},
		"other media": {answer("text/html", `{"token":"longSessionValue"}`), "", `{"token":"longSessionValue"}`},
		"too deep":    {answer("application/json", strings.Repeat("[", 200)+strings.Repeat("]", 200)), "answer-opaque", ""},
		"too long":    {answer("application/json", `{"a":"`+strings.Repeat("a", 4<<20)+`"}`), "answer-opaque", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.serve = c.serve
			r := s.do(get("https://login.example.com/"))
			if r.code() != c.code {
				t.Fatal(r.denied)
			}
			parts := strings.Split(c.body, "#")
			rest := r.body
			for i, part := range parts {
				if !strings.HasPrefix(rest, part) {
					t.Fatalf("%s, want %s", r.body, c.body)
				}
				if rest = rest[len(part):]; i < len(parts)-1 {
					rest = rest[42:]
				}
			}
			if rest != "" {
				t.Errorf("%s, want %s", r.body, c.body)
			}
		})
	}
}
