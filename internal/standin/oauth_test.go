package standin_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"ambit/internal/standin"
)

func post(t *testing.T, c *http.Client, to string, form url.Values, header ...string) (int, map[string]any) {
	t.Helper()
	return send(t, c, "POST", to, form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "application/json"}, header...)...)
}

func send(t *testing.T, c *http.Client, method, to, body string, header ...string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if json.Unmarshal(text, &fields) != nil {
		fields["text"] = string(text)
	}
	return resp.StatusCode, fields
}

// agree goes to the authorization page and comes back with a code.
func agree(t *testing.T, c *http.Client, to string, change func(url.Values)) string {
	t.Helper()
	q := url.Values{"response_type": {"code"}, "client_id": {"client-1"}, "redirect_uri": {"http://127.0.0.1:4711/callback"}, "state": {"s"}}
	if change != nil {
		change(q)
	}
	resp, err := c.Get(to + "?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	back, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return back.Query().Get("code")
}

// The code is good once, for the verifier that its challenge was made of, and
// for the same redirect; the refresh token is good once, and using an old one
// ends them all.
func TestOAuthCode(t *testing.T) {
	_, c := start(t, "gitlab", account())
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	challenge := func(q url.Values) {
		q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
		q.Set("code_challenge_method", "S256")
	}
	const token = "https://gitlab.com/oauth/token"
	form := func(code string) url.Values {
		return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {"http://127.0.0.1:4711/callback"}, "code_verifier": {verifier}, "client_id": {"client-1"}, "client_secret": {account()["client_secret"]}}
	}
	for _, wrong := range [][2]string{{"code_verifier", strings.Repeat("w", 43)}, {"redirect_uri", "http://127.0.0.1:4712/callback"}, {"client_secret", "x"}, {"code", "x"}, {"grant_type", "password"}, {"client_id", "x"}} {
		f := form(agree(t, c, "https://gitlab.com/oauth/authorize", challenge))
		f.Set(wrong[0], wrong[1])
		if status, got := post(t, c, token, f); status < 400 || got["access_token"] != nil {
			t.Errorf("another %s: %d %v", wrong[0], status, got)
		}
	}
	f := form(agree(t, c, "https://gitlab.com/oauth/authorize", challenge))
	status, got := post(t, c, token, f)
	if status != 200 || got["expires_in"] != 7200.0 {
		t.Fatalf("%d %v", status, got)
	}
	if status, got := post(t, c, token, f); status != 400 || got["error"] != "invalid_grant" {
		t.Errorf("the code works twice: %d %v", status, got)
	}
	api := func(token any) int {
		status, _ := send(t, c, "GET", "https://gitlab.com/api/v4/user", "", "Authorization", fmt.Sprint("Bearer ", token))
		return status
	}
	if api(got["access_token"]) != 200 || api(account()["token"]) != 401 {
		t.Error("the API does not take the new token, or takes the old one")
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got["refresh_token"].(string)}, "client_id": {"client-1"}, "client_secret": {account()["client_secret"]}}
	status, next := post(t, c, token, refresh)
	if status != 200 || next["refresh_token"] == got["refresh_token"] || api(next["access_token"]) != 200 || api(got["access_token"]) != 401 {
		t.Fatalf("%d %v", status, next)
	}
	if status, got := post(t, c, token, refresh); status != 400 || got["error"] != "invalid_grant" || api(next["access_token"]) != 401 {
		t.Errorf("an old refresh token: %d %v", status, got)
	}
}

// Each server wants what its documentation says, and nothing else.
func TestOAuthDialects(t *testing.T) {
	client := url.Values{"client_id": {"client-1"}, "client_secret": {account()["client_secret"]}}
	with := func(pairs ...string) url.Values {
		f := url.Values{"client_id": client["client_id"], "client_secret": client["client_secret"]}
		for i := 0; i < len(pairs); i += 2 {
			f.Set(pairs[i], pairs[i+1])
		}
		return f
	}
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("client-1:"+account()["client_secret"]))
	redirect := "http://127.0.0.1:4711/callback"

	_, c := start(t, "github", account())
	status, got := post(t, c, "https://github.com/login/oauth/access_token", with("code", "x", "redirect_uri", redirect))
	if status != 200 || got["error"] != "bad_verification_code" {
		t.Errorf("github, wrong code: %d %v", status, got)
	}
	code := agree(t, c, "https://github.com/login/oauth/authorize", nil)
	status, got = send(t, c, "POST", "https://github.com/login/oauth/access_token", with("code", code, "redirect_uri", redirect).Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if text, _ := got["text"].(string); status != 200 || !strings.Contains(text, "access_token=gho_") {
		t.Errorf("github answers a form where JSON is not asked for: %d %v", status, got)
	}

	_, c = start(t, "notion", account())
	owner := func(q url.Values) { q.Set("owner", "user") }
	if agree(t, c, "https://api.notion.com/v1/oauth/authorize", func(q url.Values) { owner(q); q.Set("code_challenge", "x"); q.Set("code_challenge_method", "S256") }) != "" {
		t.Error("notion takes PKCE")
	}
	if agree(t, c, "https://api.notion.com/v1/oauth/authorize", nil) != "" {
		t.Error("notion does not want to know whose integration it is")
	}
	text := fmt.Sprintf(`{"grant_type":"authorization_code","redirect_uri":%q,"code":%q}`, redirect, agree(t, c, "https://api.notion.com/v1/oauth/authorize", owner))
	if status, _ = send(t, c, "POST", "https://api.notion.com/v1/oauth/token", text, "Content-Type", "application/json"); status != 401 {
		t.Errorf("notion without Basic: %d", status)
	}
	text = fmt.Sprintf(`{"grant_type":"authorization_code","redirect_uri":%q,"code":%q}`, redirect, agree(t, c, "https://api.notion.com/v1/oauth/authorize", owner))
	status, got = send(t, c, "POST", "https://api.notion.com/v1/oauth/token", text, "Content-Type", "application/json", "Authorization", basic)
	if status != 200 {
		t.Errorf("notion: %d %v", status, got)
	}
	if status, _ = send(t, c, "POST", "https://api.notion.com/v1/oauth/revoke", fmt.Sprintf(`{"token":%q}`, got["access_token"]), "Authorization", basic, "Notion-Version", "2025-09-03"); status != 200 {
		t.Errorf("notion, revoked: %d", status)
	}
	if status, _ = send(t, c, "GET", "https://api.notion.com/v1/users/me", "", "Authorization", fmt.Sprint("Bearer ", got["access_token"]), "Notion-Version", "2025-09-03"); status != 401 {
		t.Errorf("notion takes a token that was revoked: %d", status)
	}

	_, c = start(t, "linear", account())
	for scope, want := range map[string]int{"read,write": 200, "read write": 400, "read,all": 400, "read,": 400} {
		if status, got = post(t, c, "https://api.linear.app/oauth/token", with("grant_type", "client_credentials", "scope", scope)); status != want {
			t.Errorf("linear, scope %q: %d %v", scope, status, got)
		}
		if code := agree(t, c, "https://linear.app/oauth/authorize", func(q url.Values) { q.Set("scope", scope) }); (code != "") != (want == 200) {
			t.Errorf("linear, scope %q: the code is %q", scope, code)
		}
	}

	_, c = start(t, "shopify", account())
	if status, got = post(t, c, "https://acme.myshopify.com/admin/oauth/access_token", with("grant_type", "client_credentials")); status != 200 || got["refresh_token"] != nil {
		t.Errorf("shopify: %d %v", status, got)
	}

	_, c = start(t, "oauth2", account())
	f := url.Values{"grant_type": {"client_credentials"}}
	if status, got = post(t, c, "https://oauth.example.com/oauth/token", with("grant_type", "client_credentials")); status != 401 || got["error"] != "invalid_client" {
		t.Errorf("the client in the body: %d %v", status, got)
	}
	status, got = post(t, c, "https://oauth.example.com/oauth/token", f, "Authorization", basic)
	if status != 200 {
		t.Errorf("client credentials: %d %v", status, got)
	}
	if status, _ = post(t, c, "https://oauth.example.com/oauth/revoke", url.Values{"token": {got["access_token"].(string)}}, "Authorization", basic); status != 200 {
		t.Errorf("revoked: %d", status)
	}
	if status, _ = send(t, c, "GET", "https://oauth.example.com/v1/things", "", "Authorization", fmt.Sprint("Bearer ", got["access_token"])); status != 401 {
		t.Errorf("a revoked token: %d", status)
	}
}

// RFC 8628: pending until a person approves, and good once.
func TestOAuthDevice(t *testing.T) {
	for name, at := range map[string][2]string{"github": {"https://github.com/login/device/code", "https://github.com/login/oauth/access_token"}, "gitlab": {"https://gitlab.com/oauth/authorize_device", "https://gitlab.com/oauth/token"}} {
		server, c := start(t, name, account())
		_, got := post(t, c, at[0], url.Values{"client_id": {"client-1"}, "scope": {map[string]string{"github": "repo", "gitlab": "api"}[name]}})
		code, _ := got["device_code"].(string)
		poll := url.Values{"client_id": {"client-1"}, "device_code": {code}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}}
		if _, got := post(t, c, at[1], poll); got["error"] != "authorization_pending" {
			t.Errorf("%s, before: %v", name, got)
		}
		if server.Approve("XXXX-0000") || !server.Approve(got["user_code"].(string)) {
			t.Errorf("%s: a person types a code: %v", name, got)
		}
		if status, got := post(t, c, at[1], poll); status != 200 || got["access_token"] == nil {
			t.Errorf("%s, after: %d %v", name, status, got)
		}
		if _, got := post(t, c, at[1], poll); got["access_token"] != nil {
			t.Errorf("%s: the device code works twice", name)
		}
	}
}

// The assertions of a service account and of a GitHub App, and each of the
// things that may be wrong in one.
func TestAssertions(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	file, err := json.Marshal(map[string]string{"client_email": "bot@acme.example", "private_key": private})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	jwt := func(change func(map[string]any), claims map[string]any) string {
		if change != nil {
			change(claims)
		}
		body, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}

	_, c := start(t, "gmail", standin.Credentials{"key": string(file)})
	for i, change := range []func(map[string]any){nil, set("iss", "x"), set("aud", "https://evil.example"), set("exp", now+7200), set("exp", now-1), set("sub", "boss@acme.example"), set("scope", "")} {
		assertion := jwt(change, map[string]any{"iss": "bot@acme.example", "aud": "https://oauth2.googleapis.com/token", "scope": "s", "iat": now, "exp": now + 3600})
		status, got := post(t, c, "https://oauth2.googleapis.com/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}})
		if (status == 200) != (i == 0) {
			t.Errorf("google, change %d: %d %v", i, status, got)
		}
	}
	_, c = start(t, "github", standin.Credentials{"app_id": "12", "installation_id": "34", "private_key": private})
	for i, change := range []func(map[string]any){nil, set("iss", "13"), set("exp", now+1200), set("iat", now+120)} {
		assertion := jwt(change, map[string]any{"iss": "12", "iat": now - 60, "exp": now + 540})
		status, got := send(t, c, "POST", "https://api.github.com/app/installations/34/access_tokens", "", "Authorization", "Bearer "+assertion)
		if (status == 201) != (i == 0) {
			t.Errorf("github, change %d: %d %v", i, status, got)
		}
	}
	good := jwt(nil, map[string]any{"iss": "12", "iat": now - 60, "exp": now + 540})
	if status, _ := send(t, c, "POST", "https://api.github.com/app/installations/34/access_tokens", "", "Authorization", "Bearer "+good[:len(good)-4]+"AAAA"); status != 401 {
		t.Errorf("github takes another signature: %d", status)
	}
}
