package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"ambit"
)

// hostile is a login whose host does what serve says; it returns the reference to
// the session cookie that it has.
func hostile(t *testing.T, serve http.HandlerFunc) (w *world, ref string) {
	t.Helper()
	w = newWorld(t, "{name: login, hosts: [login.example.com, app.example.com]}")
	w.connect("login", "", "username", "ops@acme.example", "password", "real-password", "totp", totpKey)
	w.serve = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Set-Cookie", "sid="+realSession+"; Path=/")
	}
	r := w.do(get("https://login.example.com/"))
	if r.denied != nil || len(r.resp.Cookies()) != 1 {
		t.Fatal(r.denied, r.resp)
	}
	w.serve = serve
	return w, r.resp.Cookies()[0].Value
}

const realSession = "0123456789-the-real-session-0123456789"

// A session that was found for a request is not used once it is revoked, also
// where nothing else of the request needs the credential.
func TestK5SessionRevokedBeforeUse(t *testing.T) {
	for _, again := range []bool{false, true} {
		for _, where := range []string{"Cookie", "X-Csrf"} {
			var got []string
			w, ref := hostile(t, func(_ http.ResponseWriter, r *http.Request) { got = append(got, fmt.Sprint(r.Header)) })
			c := get("https://login.example.com/", where, map[string]string{"Cookie": "sid="}[where]+ref)
			request, q := w.request(c)
			plan, verdict := w.vault.Examine(request)
			if verdict != nil {
				t.Fatal(verdict)
			}
			if _, err := w.vault.Revoke(t.Context(), "login", "uid:1000"); err != nil {
				t.Fatal(err)
			}
			if again {
				w.connect("login", "", "username", "ops@acme.example", "password", "real-password", "totp", totpKey)
			}
			grant, err := w.gate.CheckWith(t.Context(), request, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := grant.Use(); err != nil {
				t.Fatal(err)
			}
			lease, err := w.vault.Use(t.Context(), grant, plan, q, func() {})
			var denied *ambit.DenyError
			if err == nil {
				resp, err := w.send.RoundTrip(q.WithContext(context.Background()))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				lease.Done()
			} else if !errors.As(err, &denied) {
				t.Fatal(err)
			}
			if strings.Contains(strings.Join(got, ""), realSession) {
				t.Errorf("%s, again %v: the session was sent after it was revoked", where, again)
			}
			grant.Finish(ambit.Outcome{})
		}
	}
}
