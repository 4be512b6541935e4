package standin

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// loginPage is what a browser is shown. Everything is a plain form: it works
// without a script.
const loginPage = `<!doctype html>
<html lang="en"><head><title>Log in</title></head><body>
<form method="post" action="/login">
<label>User name <input name="username" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<label>Code <input name="code" inputmode="numeric" autocomplete="one-time-code"></label>
<button>Log in</button>
</form></body></html>
`

// tries is how many logins may fail in a row.
const tries = 5

// loginService is a web site with a login page, a login for programs that send
// JSON, and pages that want a session: a cookie, or the token as Bearer.
func loginService() Service {
	page := func(status int, text string, header ...string) answer {
		return answer{status: status, header: append([]string{"Content-Type", "text/html; charset=utf-8"}, header...), body: text}
	}
	away := page(http.StatusSeeOther, "", "Location", "/login")
	limited := page(http.StatusTooManyRequests, "<h1>Too many attempts</h1>", "Retry-After", "60")
	accept := func(s *Server, r *http.Request, body []byte) *answer {
		switch r.Method + " " + r.URL.Path {
		case "GET /login":
			a := page(http.StatusOK, loginPage)
			return &a
		case "POST /login", "POST /api/login":
			return s.login(r, body)
		case "POST /logout":
			s.mu.Lock()
			delete(s.sessions, session(r))
			s.mu.Unlock()
			return &answer{status: http.StatusSeeOther, header: []string{"Location", "/login",
				"Set-Cookie", "__Host-session=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"}}
		}
		s.mu.Lock()
		good := s.sessions[session(r)]
		s.mu.Unlock()
		if !good {
			return &away
		}
		return nil
	}
	s := own("login", "login.example.com", accept, away,
		sends("Chromium", "username password totp", "POST", "https://login.example.com/login",
			"Content-Type: application/x-www-form-urlencoded\nOrigin: https://login.example.com\nReferer: https://login.example.com/login\nSec-Fetch-Mode: navigate", "username={username}&password={password}&code={totp}"),
		sends("fetch", "username password totp", "POST", "https://login.example.com/api/login",
			"Content-Type: application/json\nOrigin: https://login.example.com\nSec-Fetch-Mode: cors", `{"username":"{username}","password":"{password}","totp":"{totp}"}`))
	s.api.limited = limited
	s.api.play = func(*Server, *http.Request, []byte) *answer {
		a := page(http.StatusOK, "<h1>Orders</h1>")
		return &a
	}
	return s
}

// session is what a request shows of one: the cookie or the token.
func session(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	c, err := r.Cookie("__Host-session")
	if err != nil {
		return ""
	}
	return c.Value
}

// login checks user name, password and code, and opens a session. With
// X-Echo the answer has what came, as an accepted request's does.
func (s *Server) login(r *http.Request, body []byte) *answer {
	isJSON := r.URL.Path == "/api/login"
	form, ok := formOf(r, body)
	if isJSON {
		var object map[string]string
		ok = json.Unmarshal(body, &object) == nil
		form = url.Values{}
		for name, value := range object {
			form.Set(name, value)
		}
		form.Set("code", form.Get("totp"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures >= tries {
		return &s.api.limited
	}
	code := form.Get("code")
	right := same(s.have["username"], form.Get("username")) && same(s.have["password"], form.Get("password"))
	if key := s.have["totp"]; key != "" {
		right = right && !s.codes[code] && isCode(key, code, s.now())
	}
	if !ok || !right {
		s.failures++
		if isJSON {
			return &answer{status: http.StatusUnauthorized, body: `{"error":"the user name, the password or the code is wrong"}`}
		}
		return &answer{status: http.StatusUnauthorized, header: []string{"Content-Type", "text/html; charset=utf-8"}, body: "<p>The user name, the password or the code is wrong.</p>" + loginPage}
	}
	s.failures, s.codes[code] = 0, true // RFC 6238 section 5.2: once
	s.accepted++
	token := s.next("session-%040d")
	s.sessions[token] = true
	cookie := []string{"Set-Cookie", "__Host-session=" + token + "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=3600", "Set-Cookie", "theme=dark; Path=/"}
	switch {
	case isJSON && r.URL.Query().Has("X-Echo"):
		text, err := json.Marshal(map[string]string{"token": token, "received": string(body)})
		if err != nil {
			return &answer{status: http.StatusInternalServerError}
		}
		return &answer{status: http.StatusOK, body: string(text), header: cookie}
	case isJSON:
		return &answer{status: http.StatusOK, body: fmt.Sprintf(`{"token":%q}`, token), header: cookie}
	}
	return &answer{status: http.StatusSeeOther, header: append(cookie, "Location", "/")}
}

// isCode says whether a one-time code is that of now, or of the step before or
// after, as RFC 6238 section 5.2 allows for slow clocks.
func isCode(key, code string, now time.Time) bool {
	for step := -1; step <= 1; step++ {
		if same(Code(key, now.Add(time.Duration(step)*30*time.Second)), code) {
			return true
		}
	}
	return false
}

// Code is the one-time code of a key in base32 at a time: RFC 6238 with SHA-1,
// steps of 30 seconds and six digits. It is "" if the key is no base32.
func Code(key string, at time.Time) string {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.TrimRight(strings.ReplaceAll(key, " ", ""), "=")))
	if err != nil || len(raw) == 0 {
		return ""
	}
	h := hmac.New(sha1.New, raw)
	if err := binary.Write(h, binary.BigEndian, at.Unix()/30); err != nil {
		return ""
	}
	sum := h.Sum(nil)
	at4 := sum[sum[len(sum)-1]&15:]
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(at4[:4])&0x7fffffff)%1000000)
}
