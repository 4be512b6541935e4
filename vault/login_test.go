package vault

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ambit/connector"
	"ambit/vault/oauth"
)

// TestLoginIsForOnePerson: a callback that does not belong to the login changes
// nothing, neither does one that somebody else brings; and one is enough.
func TestLoginIsForOnePerson(t *testing.T) {
	d := newDesk(t, "gmail")
	newGoogle(d)
	callback := func(state string) url.Values { return url.Values{"state": {state}, "code": {"the code"}} }
	if _, err := d.v.FinishOAuth(t.Context(), "gmail", callback("x"), person); !errors.Is(err, ErrNoLogin) {
		t.Errorf("without a login: %v", err)
	}
	state := d.startLogin()
	if l := d.v.Login("gmail"); l.State != LoginWaiting {
		t.Errorf("%+v", l)
	}
	if _, err := d.v.FinishOAuth(t.Context(), "gmail", callback("x"+state[1:]), person); !errors.Is(err, oauth.ErrState) {
		t.Errorf("another state: %v", err)
	}
	if _, err := d.v.FinishOAuth(t.Context(), "gmail", callback(state), "uid:1001"); !errors.Is(err, ErrNoLogin) {
		t.Errorf("another person: %v", err)
	}
	if d.service.times(googleToken) != 0 {
		t.Error("one of them reached the service")
	}
	if _, err := d.v.FinishOAuth(t.Context(), "gmail", callback(state), person); err != nil {
		t.Error(err)
	}
	if l := d.v.Login("gmail"); l.State != LoginDone {
		t.Errorf("%+v", l)
	}
	if _, err := d.v.FinishOAuth(t.Context(), "gmail", callback(state), person); !errors.Is(err, ErrNoLogin) {
		t.Errorf("the second time: %v", err)
	}
	d.want("gmail", "access_token", "ya29.CANARY-access-1")
}

func TestLoginFails(t *testing.T) {
	for name, c := range map[string]struct {
		callback url.Values
		want     string
	}{
		"person says no": {url.Values{"error": {"access_denied"}}, "the person said no"},
		"wrong code":     {url.Values{"code": {"CANARY-code"}}, "invalid_grant"},
		"other issuer":   {url.Values{"code": {"the code"}, "iss": {"https://evil.example"}}, "another provider"},
		"no issuer's":    {url.Values{"code": {"the code"}, "iss": {"http://accounts.google.com"}}, "another provider"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, "gmail")
			newGoogle(d)
			c.callback.Set("state", d.startLogin())
			_, err := d.v.FinishOAuth(t.Context(), "gmail", c.callback, person)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if l := d.v.Login("gmail"); l.State != LoginFailed || !strings.Contains(l.Reason, c.want) {
				t.Errorf("%+v", l)
			}
			if s := d.status("gmail"); s.Status != StatusNotConnected {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestLoginIsRefused(t *testing.T) {
	d := newDesk(t, "gmail", "linear")
	q := d.request("gmail", "oauth", "client_id", googleClient, "client_secret", googleSecret)
	if _, err := d.v.StartOAuth(t.Context(), q, person); err == nil || !strings.Contains(err.Error(), "needs the address to which it comes back") {
		t.Errorf("without a redirect: %v", err)
	}
	q = d.request("gmail", "oauth", "client_id", googleClient, "client_secret", googleSecret)
	q.RedirectURL = "http://evil.example/callback"
	if _, err := d.v.StartOAuth(t.Context(), q, person); err == nil || !strings.Contains(err.Error(), "does not use https") {
		t.Errorf("a redirect to somebody else: %v", err)
	}
	q = d.request("linear", "oauth", "client_id", "some client", "client_secret", "CANARY-secret")
	q.Flow = connector.FlowClient
	if _, err := d.v.StartOAuth(t.Context(), q, person); err == nil || !strings.Contains(err.Error(), "needs no login") {
		t.Errorf("where no login is needed: %v", err)
	}
	for field, value := range q.Fields {
		if value.Len() > 0 {
			t.Errorf("%s was not wiped", field)
		}
	}
}

// TestLoginsAreFew: ten wait at the most, for ten minutes; a new one for the same
// connection takes the place of the old one.
func TestLoginsAreFew(t *testing.T) {
	service := newService(t)
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		for i := range MaxLogins + 1 {
			lines = append(lines, fmt.Sprintf("{name: oauth2, as: c%d, hosts: [c%d.example]}", i, i))
		}
		d := newDeskAt(t, service, http.NewFileTransport(nil), lines...)
		start := func(i int) error {
			q := d.request(fmt.Sprintf("c%d", i), "", "client_id", "some client", "client_secret", "CANARY-secret")
			q.Flow, q.RedirectURL = connector.FlowCode, redirect
			_, err := d.v.StartOAuth(t.Context(), q, person)
			return err
		}
		for i := range MaxLogins {
			if err := start(i); err != nil {
				t.Fatal(err)
			}
		}
		first := d.v.logins.of("c0")
		if err := start(MaxLogins); !errors.Is(err, ErrTooManyLogins) {
			t.Errorf("the eleventh: %v", err)
		}
		if err := start(0); err != nil {
			t.Errorf("the first once more: %v", err)
		}
		synctest.Wait()
		if first.values["client_secret"].Len() != 0 || first.ctx.Err() == nil {
			t.Error("the login that was replaced is still there")
		}
		time.Sleep(oauth.CodeLife - time.Second)
		synctest.Wait()
		if l := d.v.Login("c1"); l.State != LoginWaiting {
			t.Errorf("after almost ten minutes: %+v", l)
		}
		last := d.v.logins.of("c1")
		time.Sleep(time.Second)
		synctest.Wait()
		if l := d.v.Login("c1"); l.State != LoginFailed || !strings.Contains(l.Reason, "ten minutes") {
			t.Errorf("after ten minutes: %+v", l)
		}
		if last.values["client_secret"].Len() != 0 || last.secret.Len() != 0 {
			t.Error("what was given for it is not wiped")
		}
		if err := start(MaxLogins); err != nil {
			t.Errorf("after ten minutes: %v", err)
		}
	})
}

// device stands in for a service with a device flow, in which the person answers
// the third question.
type device struct {
	asked  atomic.Int32
	answer func(n int32) (int, string)
}

func (s *device) RoundTrip(r *http.Request) (*http.Response, error) {
	status, text := 200, `{"device_code":"CANARY-device-code","user_code":"WDJB-MJHT","verification_uri":"https://c.example/device","expires_in":900,"interval":5}`
	if r.URL.Path == "/oauth/token" {
		status, text = s.answer(s.asked.Add(1))
	}
	w := &recorder{header: http.Header{}}
	say(w, status, text)
	return w.response(r), nil
}

func TestDeviceLogin(t *testing.T) {
	service := newService(t)
	const pending = `{"error":"authorization_pending"}`
	for name, c := range map[string]struct {
		answer func(n int32) (int, string)
		after  time.Duration
		revoke bool
		want   Login
		value  string
	}{
		"yes": {
			answer: func(n int32) (int, string) {
				if n < 3 {
					return 400, pending
				}
				return 200, `{"access_token":"CANARY-device-token","token_type":"bearer"}`
			},
			after: 15 * time.Second, want: Login{State: LoginDone}, value: "CANARY-device-token",
		},
		"no": {
			answer: func(int32) (int, string) { return 400, `{"error":"access_denied","error_description":"CANARY"}` },
			after:  5 * time.Second, want: Login{LoginFailed, "oauth: the provider did not give what was asked for: the person said no (access_denied), HTTP status 400"},
			value: "error: the account is not connected",
		},
		"never": {
			answer: func(int32) (int, string) { return 400, pending },
			after:  10 * time.Minute, want: Login{LoginFailed, errExpired.Error()}, value: "error: the account is not connected",
		},
		"revoked meanwhile": {
			answer: func(int32) (int, string) { return 400, pending },
			revoke: true, want: Login{LoginFailed, "the connection was revoked"}, value: "error: the account is not connected",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeskAt(t, service, &device{answer: c.answer}, "{name: oauth2, as: c, hosts: [c.example]}")
				q := d.request("c", "", "client_id", "some client", "client_secret", "CANARY-secret")
				q.Flow = connector.FlowDevice
				started, err := d.v.StartOAuth(t.Context(), q, person)
				if err != nil {
					t.Fatal(err)
				}
				d.silent(started)
				if started.UserCode != "WDJB-MJHT" || started.VerificationURL != "https://c.example/device" || started.URL != "" {
					t.Errorf("%+v", started)
				}
				if l := d.v.Login("c"); l.State != LoginWaiting {
					t.Errorf("%+v", l)
				}
				if c.revoke {
					if _, err := d.v.Revoke(t.Context(), "c", person); !errors.Is(err, ErrNotConnected) {
						t.Errorf("revoke: %v", err)
					}
				}
				time.Sleep(c.after)
				synctest.Wait()
				if l := d.v.Login("c"); l != c.want {
					t.Errorf("%+v, want %+v", l, c.want)
				}
				d.want("c", "access_token", c.value)
			})
		})
	}
}
