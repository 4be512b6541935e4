package vault_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit"
	"ambit/gate"
	"ambit/vault"
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

// A cookie that a site sets to whatever it is asked to is no way to bring a
// credential of one's own: what it holds does not go where credentials do.
func TestN10LaunderedThroughACookie(t *testing.T) {
	const attackers = "attackers-own-credential"
	var got string
	w, _ := hostile(t, func(rw http.ResponseWriter, r *http.Request) {
		if v := r.URL.Query().Get("lang"); v != "" {
			rw.Header().Set("Set-Cookie", "lang="+v)
			return
		}
		body, _ := io.ReadAll(r.Body)
		got += fmt.Sprint(r.Header, r.URL, string(body))
	})
	r := w.do(get("https://login.example.com/?lang=" + attackers))
	ref := r.resp.Cookies()[0].Value
	const form, json = "application/x-www-form-urlencoded", "application/json"
	for _, c := range []call{
		get("https://login.example.com/", "Authorization", "Bearer "+ref),
		get("https://login.example.com/", "X-Api-Key", ref),
		get("https://login.example.com/", "x_auth_token", ref),
		get("https://login.example.com/?access_token=" + ref),
		get("https://login.example.com/?Access.Token%5B%5D=" + ref),
		post("https://login.example.com/login", form, "username=evil&password="+ref),
		post("https://login.example.com/login", form, "access_token="+ref),
		post("https://login.example.com/login", json, `{"username":"evil","password":"`+ref+`"}`),
		post("https://login.example.com/login", json, `{"a":{"api_key":"`+ref+`"}}`),
		post("https://login.example.com/login", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n"+ref+"\r\n--b--\r\n"),
	} {
		w.wantDenied(c, "foreign-credential")
	}
	if strings.Contains(got, attackers) {
		t.Errorf("the attacker's credential was used: %s", got)
	}
	got = ""
	for _, c := range []call{get("https://login.example.com/?_csrf="+ref, "X-Csrf-Token", ref), post("https://login.example.com/login", form, "_csrf="+ref)} {
		if r := w.do(c); r.denied != nil {
			t.Errorf("a cookie that a script sends on: %v", r.denied)
		}
	}
	if strings.Count(got, attackers) != 3 {
		t.Errorf("a cookie that a script sends on: %s", got)
	}
}

// What a request carried is taken out of its answer, also if that answer makes the
// vault forget it.
func TestK3SessionForgottenByItsOwnAnswer(t *testing.T) {
	w, ref := hostile(t, func(rw http.ResponseWriter, r *http.Request) {
		for i := range 70 {
			rw.Header().Add("Set-Cookie", fmt.Sprintf("odd%d=odd-value-%d", i, i))
		}
		rw.Header().Add("Set-Cookie", "sid=; Max-Age=0")
		rw.Header().Set("X-Echo", r.Header.Get("Cookie"))
		fmt.Fprint(rw, r.Header)
	})
	r := w.do(get("https://login.example.com/", "Cookie", "sid="+ref))
	leaks(t, "the real session", r.body+fmt.Sprint(r.resp.Header), realSession)
}

// A token is kept however the answer in JSON is asked for or labelled.
func TestK3TokenOfOddAnswers(t *testing.T) {
	const body = `{"token":"0123456789-real-token-0123456789"}`
	media := "application/json"
	before := ""
	w, _ := hostile(t, func(rw http.ResponseWriter, r *http.Request) {
		if media != "" {
			rw.Header()["Content-Type"] = strings.Split(media, "|")
		}
		http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(before+body))
	})
	for _, c := range []struct{ media, before, ranges string }{
		{"application/json", "", ""},
		{"application/json", "", "bytes=0-"},
		{"application/json", "", "bytes=1-20,21-"},
		{"application/json; charset=utf-8; charset=utf-8", "", ""},
		{"application/json; charset=x-user-defined", "", ""},
		{"application/json|application/json", "", ""},
		{"application/json", "\xef\xbb\xbf", ""},
	} {
		media, before = c.media, c.before
		q := get("https://login.example.com/token")
		if c.ranges != "" {
			q.header.Set("Range", c.ranges)
		}
		r := w.do(q)
		if strings.Contains(r.body, "real-token") {
			t.Errorf("%+v: the agent has %q", c, r.body)
		}
		if r.denied == nil && !strings.Contains(r.body, `{"token":"`) {
			t.Errorf("%+v: the agent has %q", c, r.body)
		}
		if _, err := w.vault.Revoke(t.Context(), "login", "uid:1000"); err != nil { // or it would be known
			t.Fatal(err)
		}
		w.connect("login", "", "username", "ops@acme.example", "password", "real-password", "totp", totpKey)
	}
}

// What is too long to be kept does not stand in the way of everything after it.
func TestH4SessionTooLongToKeep(t *testing.T) {
	n := 70 << 10
	w, _ := hostile(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/long" {
			fmt.Fprintf(rw, `{"token":%q}`, strings.Repeat("x", n))
		}
	})
	if r := w.do(get("https://login.example.com/long")); r.code() != "session-not-kept" {
		t.Errorf("%v", r.denied)
	}
	if r := w.do(get("https://login.example.com/")); r.denied != nil {
		t.Errorf("afterwards: %v", r.denied)
	}
	w.reopen()
	if r := w.do(get("https://login.example.com/")); r.denied != nil {
		t.Errorf("after a restart: %v", r.denied)
	}
}

// Bodies of a great many fields take no more memory than their length is worth.
func TestH4ManyFields(t *testing.T) {
	w := newWorld(t, "{name: github}")
	for _, c := range []struct{ media, text string }{
		{"application/json", "[" + strings.Repeat("1,", 8<<20-2) + "1]"},
		{"application/x-www-form-urlencoded", strings.Repeat("a=&", 5<<20)},
	} {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, _ = io.WriteString(z, c.text)
		z.Close()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := w.do(post("https://other.example/", c.media, packed.String(), "Content-Encoding", "gzip"))
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 200 {
			t.Errorf("%s: %d KiB made the gate allocate %d MiB (%v)", c.media, packed.Len()>>10, used, r.denied)
		}
	}
}

// Somebody's session is none of ours in small pieces, either.
func TestN10CookieInPieces(t *testing.T) {
	var got string
	w, _ := hostile(t, func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Get("Cookie") })
	text := "lang=de; theme=dark"
	for i := range 40 {
		text += fmt.Sprintf("; next-auth.session-token.%d=abcdefg", i)
	}
	if r := w.do(get("https://login.example.com/", "Cookie", text)); r.denied != nil {
		t.Fatal(r.denied)
	}
	if n := strings.Count(got, "abcdefg"); n > 20 || !strings.HasPrefix(got, "lang=de; theme=dark") {
		t.Errorf("%d pieces left: %s", n, got)
	}
}

// Nor do all that are kept together, however they are to be looked for.
func TestH4SessionsTooLongTogether(t *testing.T) {
	w, _ := hostile(t, func(rw http.ResponseWriter, r *http.Request) {
		for i := range 40 {
			rw.Header().Add("Set-Cookie", fmt.Sprintf("odd%d=%d%sx", i, i, strings.Repeat("a/+=&%'<>b", 500)))
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := w.do(get("https://login.example.com/"))
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 600 || r.denied != nil {
		t.Errorf("200 KiB of cookies made the gate allocate %d MiB: %v", used, r.denied)
	}
	if r := w.do(get("https://login.example.com/")); r.denied != nil {
		t.Errorf("afterwards: %v", r.denied)
	}
}

// N10: services take more than tokens for a credential.
func TestN10OtherPeoplesTickets(t *testing.T) {
	w := newWorld(t, "{name: google-drive}", "{name: gmail}", "{name: gitlab}", "{name: slack}")
	const form = "application/x-www-form-urlencoded"
	for _, c := range []call{
		with("PUT", "https://www.googleapis.com/upload/drive/v3/files?uploadType=resumable&upload_id=attackers", strings.NewReader("loot")),
		with("PUT", "https://gmail.googleapis.com/resumable/upload/gmail/v1/users/me/drafts?upload_id=attackers", strings.NewReader("loot")),
		post("https://gitlab.com/api/v4/projects/1/trigger/pipeline", form, "token=attackers&ref=main&variables[X]=loot"),
		post("https://gitlab.com/api/v4/projects/1/ref/main/trigger/pipeline?token=attackers", form, "variables[X]=loot"),
		with("PUT", "https://gitlab.com/api/v4/jobs/1", strings.NewReader(`{"token":"attackers","trace":"loot"}`), "Content-Type", "application/json"),
		post("https://gitlab.com/api/v4/error_tracking/collector/api/1/store", "application/json", "{}", "X-Sentry-Auth", "Sentry sentry_key=attackers"),
	} {
		w.wantDenied(c, "foreign-credential")
	}
	w.wantDenied(post("https://files.slack.com/upload/v1/attackers-ticket", "", "loot"), "method-not-allowed")
}

// N10: the bucket's pin holds for what is read on the other side, too.
func TestN10CopyFromAnotherBucket(t *testing.T) {
	w := newWorld(t, "{name: s3, pin: {region: eu-central-1, bucket: files}}")
	w.connect("s3", "", "access_key_id", "AKIAREALREALREALREAL", "secret_access_key", "REALrealREALrealREALrealREALrealREALreal")
	for _, to := range []string{"https://s3.eu-central-1.amazonaws.com/files/a", "https://files.s3.eu-central-1.amazonaws.com/others/a"} {
		for source, want := range map[string]string{
			"/others/secret": "pin-not-met", "others/secret": "pin-not-met", "others%2Fsecret?versionId=1": "pin-not-met", "files/../others/secret": "pin-not-met",
			"arn:aws:s3:eu-central-1:1:accesspoint/others/object/secret": "pin-not-met", "//others/secret": "pin-not-met",
			"/files/b": "signature-refused", "files/b%20c?versionId=1": "signature-refused", // as it was not signed
		} {
			c := signed(t, w, "PUT", to, "eu-central-1", "")
			c.header.Set("X-Amz-Copy-Source", source)
			w.wantDenied(c, want)
		}
	}
	w.wantDenied(with("PUT", "https://s3.eu-central-1.amazonaws.com/files/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+w.env("AWS_ACCESS_KEY_ID")+
		"%2F20260101%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature="+strings.Repeat("0", 64)+
		"&x-amz-copy-source=others%2Fsecret", nil), "pin-not-met")
}

// N10: a session in the address is nobody's, whoever's it is: where a person's
// account is logged in with it, it would be known outside.
func TestN10SessionInTheAddress(t *testing.T) {
	w, _ := hostile(t, nil)
	const form = "application/x-www-form-urlencoded"
	for _, c := range []call{
		get("https://login.example.com/?PHPSESSID=attackers-session"),
		get("https://login.example.com/?jsessionid=attackers-session"),
		post("https://login.example.com/", form, "PHPSESSID=attackers-session"),
		post("https://login.example.com/", form, "++++a=b&"+strings.Repeat("+", 300)+"access_token=attackers"),
	} {
		w.wantDenied(c, "foreign-credential")
	}
	w = newWorld(t, "{name: bearer, as: shop, hosts: [shop.example]}")
	w.wantDenied(post("https://shop.example/", form, "++++a=b&"+strings.Repeat("+", 300)+"access_token=attackers"), "foreign-credential")
	w.wantDenied(post("https://shop.example/", form, strings.Repeat("%20", 300)+"access_token=attackers"), "foreign-credential")
}

// Nor do many at once take more than one does.
func TestH4ManyPackedBodies(t *testing.T) {
	w := newWorld(t, "{name: github}")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, "["+strings.Repeat("1,", 7<<20)+"1]")
	z.Close()
	const n = 40
	type ready struct {
		grant *gate.Grant
		plan  *vault.Plan
		q     *http.Request
	}
	var all []ready
	for range n {
		request, q := w.request(post("https://other.example/", "application/json", packed.String(), "Content-Encoding", "gzip"))
		plan, _ := w.vault.Examine(request)
		grant, err := w.gate.CheckWith(t.Context(), request, nil)
		if err == nil {
			err = grant.Use()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer grant.Finish(ambit.Outcome{})
		all = append(all, ready{grant, plan, q})
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		for _, r := range all {
			wg.Go(func() {
				lease, err := w.vault.Use(t.Context(), r.grant, r.plan, r.q, func() {})
				if err != nil {
					t.Error(err)
				}
				lease.Done()
			})
		}
		wg.Wait()
	}()
	most := uint64(0)
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
	}
	if most >>= 20; most > 300 {
		t.Errorf("%d bodies took %d MiB at once", n, most)
	}
}
