package vault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit/internal/secretbytes"
)

const totpSeed = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"

// pemKey makes a private key, and a certificate for it.
func pemKey(t testing.TB) (key, certificate string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}))
}

func googleKey(t testing.TB) (file string, public *rsa.PublicKey) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": "k1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b), &private.PublicKey
}

// TestConnectRefuses is what the issue calls bad input. The message says what
// would be right, and never the value.
func TestConnectRefuses(t *testing.T) {
	key, certificate := pemKey(t)
	otherKey, _ := pemKey(t)
	for name, c := range map[string]struct {
		connector, way string
		fields         []string
		want           string
	}{
		"empty":               {"{name: bearer, hosts: [a.example]}", "", []string{"token", ""}, "Token (token) is empty; enter it"},
		"only a line break":   {"{name: bearer, hosts: [a.example]}", "", []string{"token", "\r\n"}, "is empty"},
		"missing":             {"{name: bearer, hosts: [a.example]}", "", nil, "is empty"},
		"huge":                {"{name: bearer, hosts: [a.example]}", "", []string{"token", strings.Repeat("CANARY", 20_000)}, "64 KiB is the most"},
		"binary":              {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANARY\xff\xfe12345"}, "is binary"},
		"zero byte":           {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANARY\x0012345"}, "control characters"},
		"arrow key":           {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANARY\x1b[D12345"}, "control characters"},
		"header injection":    {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANARY12345\r\nX-Evil: 1"}, "several lines"},
		"short":               {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANAR-7"}, "fewer than 8 bytes"},
		"short but for space": {"{name: bearer, hosts: [a.example]}", "", []string{"token", "CANAR-7    "}, "fewer than 8 bytes"},
		"unknown field":       {"{name: bearer, hosts: [a.example]}", "", []string{"tokn", "CANARY12345"}, "its fields are: token"},
		"unknown way":         {"github", "passwrd", nil, "it has: token, app, oauth"},
		"wrong shape":         {"github", "token", []string{"token", "CANARY-this-is-no-token"}, "does not look like one"},
		"two tokens":          {"github", "token", []string{"token", "ghp_CANARYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ghp_CANARYb"}, "does not look like one"},
		"seed":                {"{name: login, hosts: [a.example]}", "", []string{"username", "me", "password", "CANARY-password", "totp", "CANARY-0189"}, "(totp) cannot be used"},
		"key sealed":          {"{name: mtls, hosts: [a.example]}", "", []string{"certificate", certificate, "private_key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQ0FOQVJZ\n-----END ENCRYPTED PRIVATE KEY-----\n"}, "sealed with a passphrase"},
		"key is none":         {"{name: mtls, hosts: [a.example]}", "", []string{"certificate", certificate, "private_key", "CANARY-key"}, "not one private key"},
		"key of another":      {"{name: mtls, hosts: [a.example]}", "", []string{"certificate", certificate, "private_key", otherKey}, "does not belong to the certificate"},
		"certificate is key":  {"{name: mtls, hosts: [a.example]}", "", []string{"certificate", key, "private_key", key}, "a key is a field of its own"},
		"certificate and dot": {"{name: mtls, hosts: [a.example]}", "", []string{"certificate", certificate + ".", "private_key", key}, "nothing else"},
		"key file":            {"gmail", "service-account", []string{"key", `{"type":"authorized_user","refresh_token":"CANARY-token"}`}, "(key) cannot be used"},
		"needs a browser":     {"notion", "oauth", []string{"client_id", "id", "client_secret", "CANARY-secret"}, "needs a login"},
		"unknown flow":        {"linear", "oauth", []string{"client_id", "id", "client_secret", "CANARY-secret"}, "has no flow"},
		"unknown connection":  {"slack", "", nil, "its manifest has: slack"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, c.connector)
			q := d.request(d.bound[0].Name, c.way, c.fields...)
			d.canary = nil // some are the certificate, and some too long to be looked for
			switch name {
			case "unknown flow":
				q.Flow = "device"
			case "unknown connection":
				q.Name = "gitlab"
			}
			_, err := d.v.Connect(t.Context(), q, person)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "CANAR") {
				t.Errorf("the value is in the error: %v", err)
			}
			for field, value := range q.Fields {
				if value.Len() != 0 {
					t.Errorf("%s was not wiped", field)
				}
			}
			if len(d.log.all()) != 0 || d.status(d.bound[0].Name).Status != StatusNotConnected {
				t.Errorf("something was stored: %q", d.log.all())
			}
		})
	}
}

func TestConnectGiven(t *testing.T) {
	d := newDesk(t, "github", "{name: login, hosts: [a.example]}", "{name: mtls, hosts: [b.example]}", "slack")
	clock := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	d.now = func() time.Time { return clock }
	before := d.v.Placement()
	first, second := "ghp_CANARYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ghp_CANARYbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	got := d.connect("github", "token", "token", first+"\r\n")
	want := Connection{
		Name: "github", Connector: "github", Title: "GitHub", Status: StatusConnected, Way: "token", Since: clock, By: person,
		Hosts: got.Hosts, Notes: []string{"Access token: the line break at its end was left out"},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(got.Hosts) == 0 {
		t.Error(diff, got.Hosts)
	}
	d.want("github", "token", first)
	d.want("github", "private_key", "error: the connection has no such value: private_key")
	d.connect("github", "", "token", second)
	d.want("github", "token", second)
	if diff := cmp.Diff(before, d.v.Placement()); diff != "" {
		t.Errorf("the references changed: %s", diff)
	}
	d.connect("login", "", "username", "me@acme.example", "password", "hunter2-CANARY", "totp", totpSeed)
	key, certificate := pemKey(t)
	q := d.request("mtls", "", "private_key", key)
	q.Fields["certificate"] = secretbytes.New([]byte(certificate))
	if _, err := d.v.Connect(t.Context(), q, person); err != nil {
		t.Fatal(err)
	}
	d.connect("slack", "", "token", "xoxb-CANARYaaaaaaaaaaaaaaaaaa", "app_token", "")

	d.reopen()
	d.want("github", "token", second)
	d.want("login", "password", "hunter2-CANARY")
	d.want("login", "username", "me@acme.example")
	code := d.value("login", "totp")
	if clock = clock.Add(30 * time.Second); len(code) != 6 || code == d.value("login", "totp") {
		t.Errorf("the one-time code is %q, also half a minute later", code)
	}
	if v := d.value("mtls", "private_key"); v != strings.TrimRight(key, "\n") {
		t.Errorf("the key is %q", v)
	}
	d.want("slack", "app_token", "error: the connection has no such value: app_token")
	wantLog := []string{
		"vault.connect github connected: connector github, way token", "  vault.connect github stored",
		"vault.connect github its credential is replaced: connector github, way token", "  vault.connect github stored",
		"vault.connect login connected: connector login, way given", "  vault.connect login stored",
		"vault.connect mtls connected: connector mtls, way given", "  vault.connect mtls stored",
		"vault.connect slack connected: connector slack, way token", "  vault.connect slack stored",
	}
	if diff := cmp.Diff(wantLog, d.log.all()); diff != "" {
		t.Error(diff)
	}
}

// TestConnectIsLoggedBefore: without the log nothing is stored.
func TestConnectIsLoggedBefore(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	d.log.fail(errors.New("no space left"))
	if _, err := d.v.Connect(t.Context(), d.request("one", "", "token", tokenB), person); err == nil || !strings.Contains(err.Error(), "nothing was stored, because the log could not be written: no space left") {
		t.Error(err)
	}
	d.log.fail(nil)
	d.want("one", "token", tokenA)
	d.breakDisk(true)
	if _, err := d.v.Connect(t.Context(), d.request("one", "", "token", tokenB), person); err == nil || !strings.Contains(err.Error(), "nothing was stored: ") {
		t.Error(err)
	}
	d.breakDisk(false)
	if all := d.log.all(); !strings.Contains(all[len(all)-1], "vault.connect one not stored: ") {
		t.Errorf("the log says %q", all)
	}
	d.reopen()
	d.want("one", "token", tokenA)
}

// TestK6NothingOnDisk (ATTACKS K6): after a credential was stored, replaced and
// revoked, no file of the database has it. The desk looks for it in every
// encoding when the test ends; this shows that it would find it.
func TestK6NothingOnDisk(t *testing.T) {
	d := twoBearers(t)
	d.connect("one", "", "token", tokenA)
	d.connect("one", "", "token", tokenB)
	if _, err := d.v.Revoke(t.Context(), "one", person); err != nil {
		t.Fatal(err)
	}
	d.sql("CREATE TABLE planted (b BLOB)")
	d.sql("INSERT INTO planted VALUES (?)", []byte("planted-value"))
	var files []byte
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(d.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b...)
	}
	if !bytes.Contains(files, []byte("planted-value")) {
		t.Error("what is written to the database is not in its files")
	}
}

func TestWays(t *testing.T) {
	d := newDesk(t, "gmail")
	ways, err := d.v.Ways("gmail")
	if err != nil {
		t.Fatal(err)
	}
	want := []Way{
		{Name: "oauth", Title: "OAuth client of type Desktop app, in the browser", Kind: "oauth", Flows: ways[0].Flows, Fields: []Field{
			{Name: "client_id", Title: "Client ID", Check: `^(?:[a-z0-9-]{10,100}\.apps\.googleusercontent\.com)$`},
			{Name: "client_secret", Title: "Client secret", Secret: true},
		}},
		{Name: "service-account", Title: "Service account", Kind: "google-sa", Fields: []Field{
			{Name: "key", Title: "Key file of the service account (JSON)", Secret: true, Multiline: true},
			{Name: "subject", Title: "User to act for", Hint: "only with domain-wide delegation", Optional: true},
		}},
	}
	if diff := cmp.Diff(want, ways); diff != "" || len(ways[0].Flows) != 1 {
		t.Error(diff, ways[0].Flows)
	}
	if _, err := d.v.Ways("slack"); !errors.Is(err, ErrUnknown) {
		t.Errorf("of a connection that is not there: %v", err)
	}
}
