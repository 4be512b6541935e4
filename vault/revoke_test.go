package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit"
)

// underWay begins a request that uses a connection, and returns what ends it.
func (d *desk) underWay(name string, cut func()) (end func()) {
	r := &running{cut: cut}
	d.v.leases.add(name, r)
	return func() { d.v.leases.remove(r) }
}

// TestRevoke: the connection is over, its rows are gone, and the service was
// told, all of it in the log before it happened.
func TestRevoke(t *testing.T) {
	d := newDesk(t, "gmail", "{name: bearer, as: one, hosts: [one.example]}")
	newGoogle(d)
	d.login()
	d.connect("one", "", "token", tokenA)
	cut := false
	defer d.underWay("gmail", func() { cut = true })()
	d.service.on(googleRevoke, func(w http.ResponseWriter, _ *http.Request, body string) {
		if body != "token=1%2F%2FCANARY-refresh-1" {
			t.Errorf("sent %s", body)
		}
		if !cut || !strings.HasPrefix(d.value("gmail", "access_token"), "error: ") {
			t.Error("the service was told before the connection was over here")
		}
		w.WriteHeader(200)
	})
	already := len(d.log.all())
	got, err := d.v.Revoke(t.Context(), "gmail", person)
	if diff := cmp.Diff([]Revoked{{Name: "gmail", Told: true}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	want := []string{
		"vault.revoke gmail revoked: its credential is deleted",
		"vault.revoke gmail POST https://oauth2.googleapis.com/revoke the service is told", "  vault.revoke gmail the service confirmed",
	}
	if diff := cmp.Diff(want, d.log.all()[already:]); diff != "" {
		t.Error(diff)
	}
	if d.log.events[already].Principal != person {
		t.Errorf("the log says that it was %s", d.log.events[already].Principal)
	}
	d.reopen()
	d.want("gmail", "access_token", "error: the account is not connected")
	d.want("one", "token", tokenA)
	if n := d.blob("SELECT count(*) FROM vault_secret WHERE connection = 'gmail'"); string(n) != "0" {
		t.Errorf("%s rows are left", n)
	}
	if _, err := d.v.Revoke(t.Context(), "gmail", person); !errors.Is(err, ErrNotConnected) {
		t.Errorf("the second time: %v", err)
	}
}

// TestRevokeTellsAsTheServiceWants is each form of request that a connector can
// say.
func TestRevokeTellsAsTheServiceWants(t *testing.T) {
	d := newDesk(t, "slack", "notion", "hubspot", "github")
	d.connect("slack", "", "token", "xoxb-CANARYaaaaaaaaaaaaaaaaaa")
	d.service.on("POST slack.com/api/auth.revoke", func(w http.ResponseWriter, r *http.Request, _ string) {
		if r.Header.Get("Authorization") != "Bearer xoxb-CANARYaaaaaaaaaaaaaaaaaa" {
			t.Errorf("Slack was sent %v", r.Header)
		}
		say(w, 200, `{"ok":true,"revoked":true}`)
	})
	token := func(route, answer string) {
		d.service.on(route, func(w http.ResponseWriter, _ *http.Request, _ string) { say(w, 200, answer) })
	}
	token("POST api.notion.com/v1/oauth/token", `{"access_token":"`+d.service.issue("ntn_CANARY-access")+`","token_type":"bearer"}`)
	token("POST api.hubapi.com/oauth/v1/token", `{"access_token":"`+d.service.issue("hub-CANARY-access")+`","refresh_token":"`+d.service.issue("hub-CANARY-refresh%%2F")+`","token_type":"bearer","expires_in":1800}`)
	for _, name := range []string{"notion", "hubspot"} {
		q := d.request(name, "oauth", "client_id", "client one", "client_secret", "CANARY secret")
		q.RedirectURL = redirect
		started, err := d.v.StartOAuth(t.Context(), q, person)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(started.URL)
		if err != nil || u.Query().Has("code_challenge") {
			t.Fatal(u, err)
		}
		if _, err := d.v.FinishOAuth(t.Context(), name, url.Values{"state": u.Query()["state"], "code": {"c"}}, person); err != nil {
			t.Fatal(err)
		}
	}
	d.service.on("POST api.notion.com/v1/oauth/revoke", func(w http.ResponseWriter, r *http.Request, body string) {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("client+one:CANARY+secret"))
		if r.Header.Get("Authorization") != basic || r.Header.Get("Notion-Version") == "" || r.Header.Get("Content-Type") != "application/json" || body != `{"token":"ntn_CANARY-access"}` {
			t.Errorf("Notion was sent %v %s", r.Header, body)
		}
		say(w, 200, `{}`)
	})
	d.service.on("DELETE api.hubapi.com/oauth/v1/refresh-tokens/hub-CANARY-refresh%252F", func(w http.ResponseWriter, _ *http.Request, _ string) { w.WriteHeader(204) })
	d.connect("github", "token", "token", "ghp_CANARYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	got, err := d.v.Revoke(t.Context(), "", person)
	want := []Revoked{
		{Name: "github", Reason: "the service cannot be told by a program; delete the credential there: " + d.bound[3].Connector.Docs},
		{Name: "hubspot", Told: true}, {Name: "notion", Told: true}, {Name: "slack", Told: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, c := range d.v.Connections() {
		if c.Status != StatusNotConnected {
			t.Errorf("%+v", c)
		}
	}
	for _, e := range d.log.events { // the log has the address without what fills it
		if strings.Contains(e.URL, "refresh-tokens") && e.URL != "https://api.hubapi.com/oauth/v1/refresh-tokens/{refresh_token}" {
			t.Errorf("the log has %s", e.URL)
		}
	}
}

// TestRevokeNotTold: the connection is over, whatever the service says; that it
// does not know it is in the answer, in the log and an alert.
func TestRevokeNotTold(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"refused": {func(w http.ResponseWriter) { say(w, 200, `{"ok":false,"error":"xoxb-CANARYaaaaaaaaaaaaaaaaaa"}`) }, "it refused"},
		"fault":   {func(w http.ResponseWriter) { say(w, 500, `xoxb-CANARYaaaaaaaaaaaaaaaaaa`) }, "HTTP status 500"},
		"redirect": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://evil.example/?xoxb-CANARYaaaaaaaaaaaaaaaaaa")
			w.WriteHeader(307)
		}, "HTTP status 307"},
		"hangs up": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "it cannot be reached"},
		"cut off": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			say(w, 200, "{}")
			_ = http.NewResponseController(w).Flush() // so that the head arrives
			panic(http.ErrAbortHandler)
		}, "its answer was cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, "slack")
			d.connect("slack", "", "token", "xoxb-CANARYaaaaaaaaaaaaaaaaaa")
			d.service.on("POST slack.com/api/auth.revoke", func(w http.ResponseWriter, _ *http.Request, _ string) { c.answer(w) })
			got, err := d.v.Revoke(t.Context(), "slack", person)
			if err != nil || len(got) != 1 || got[0].Told || !strings.Contains(got[0].Reason, c.want) || !strings.Contains(got[0].Reason, d.bound[0].Connector.Docs) {
				t.Errorf("%+v, %v", got, err)
			}
			d.silent(got)
			if raised := d.alerts.all(); len(raised) != 1 || !strings.Contains(raised[0], "revoke-not-told slack") || d.alerts.events[0].Severity != ambit.Medium {
				t.Errorf("alerts: %q", raised)
			}
			if all := d.log.all(); !strings.Contains(all[len(all)-1], c.want) {
				t.Errorf("the log: %q", all)
			}
			d.reopen()
			d.want("slack", "token", "error: the account is not connected")
		})
	}
}

// silence is a service that never answers.
type silence struct{}

func (silence) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestRevokeWaitsTenSeconds for a service that does not answer, and not at all
// with the cut.
func TestRevokeWaitsTenSeconds(t *testing.T) {
	service := newService(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDeskAt(t, service, silence{}, "slack")
		d.connect("slack", "", "token", "xoxb-CANARYaaaaaaaaaaaaaaaaaa")
		start := time.Now()
		var cut time.Time
		defer d.underWay("slack", func() { cut = time.Now() })()
		got, err := d.v.Revoke(t.Context(), "slack", person)
		if err != nil || len(got) != 1 || !strings.Contains(got[0].Reason, "it did not answer in time") {
			t.Errorf("%+v, %v", got, err)
		}
		if !cut.Equal(start) || time.Since(start) != tellTimeout {
			t.Errorf("cut after %s, returned after %s", cut.Sub(start), time.Since(start))
		}
	})
}

// TestRevokeWithoutLogOrDisk: the connection is over at once, and comes back with
// a restart only if Revoke said so; it can be revoked again.
func TestRevokeWithoutLogOrDisk(t *testing.T) {
	for name, broken := range map[string]func(d *desk, broken bool){
		"log": func(d *desk, broken bool) {
			d.log.fail(nil)
			if broken {
				d.log.fail(errors.New("no space left"))
			}
		},
		"disk": func(d *desk, broken bool) {
			d.sql("DROP TRIGGER IF EXISTS broken")
			if broken {
				d.sql("CREATE TRIGGER broken BEFORE DELETE ON vault_connection BEGIN SELECT RAISE(ABORT, 'input/output error'); END")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := twoBearers(t)
			d.connect("one", "", "token", tokenA)
			broken(d, true)
			for range 2 {
				if _, err := d.v.Revoke(t.Context(), "one", person); err == nil || !strings.Contains(err.Error(), "revoke them again") {
					t.Errorf("revoke: %v", err)
				}
				d.want("one", "token", "error: the account is not connected")
			}
			broken(d, false)
			if _, err := d.v.Revoke(t.Context(), "one", person); err != nil {
				t.Error(err)
			}
			d.reopen()
			d.want("one", "token", "error: the account is not connected")
		})
	}
}

// TestRevokeUnbound: what no manifest names any more can be revoked.
func TestRevokeUnbound(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	if err := d.v.Bind(d.bound[1:]); err != nil {
		t.Fatal(err)
	}
	got, err := d.v.Revoke(t.Context(), "one", person)
	if err != nil || len(got) != 1 || got[0].Told || !strings.Contains(got[0].Reason, "end the credential there") {
		t.Errorf("%+v, %v", got, err)
	}
	d.reopen()
	d.want("one", "token", "error: the account is not connected")
}

// TestK5RevokeCutsFirst (ATTACKS K5): the cut does not wait for a log or a disk
// that hangs.
func TestK5RevokeCutsFirst(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	cut := make(chan struct{})
	defer d.underWay("one", func() { close(cut) })()
	d.log.mu.Lock() // the log hangs
	done := make(chan error)
	go func() {
		_, err := d.v.Revoke(context.Background(), "one", person)
		done <- err
	}()
	<-cut
	d.want("one", "token", "error: the account is not connected")
	d.log.mu.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
