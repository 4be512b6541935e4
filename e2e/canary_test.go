//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambit/internal/standin"
)

// traces are the forms in which a secret could be found, whatever stands around
// it.
func traces(secret string) []string {
	all := append(standin.Forms(secret), hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))))
	for _, form := range standin.Forms(secret) { // in JSON in a string of JSON
		if twice := strings.ReplaceAll(form, `\`, `\\`); twice != form {
			all = append(all, twice)
		}
	}
	for pad := range 3 { // the digits that do not depend on the neighbours
		b := append(make([]byte, pad), secret...)
		b = b[:len(b)/3*3]
		from := (pad*8 + 5) / 6
		all = append(all, base64.StdEncoding.EncodeToString(b)[from:], base64.URLEncoding.EncodeToString(b)[from:])
	}
	return append(all, secret[:len(secret)/2], secret[len(secret)/2:], utf16(secret))
}

func utf16(s string) string {
	var b []byte
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return string(b[:len(b)-1])
}

// finder looks for many texts in one pass. It shares no code with what takes
// secrets out of answers.
type finder struct {
	first [1 << 21]uint64 // of each three bytes with which a text begins, a bit
	texts map[[8]byte][]found
}

// found is a secret in one of its forms.
type found struct{ name, form string }

func newFinder(secrets map[string]string) *finder {
	f := &finder{texts: map[[8]byte][]found{}}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		for _, form := range traces(secrets[name]) {
			b := [8]byte([]byte(form)) // none is shorter
			f.texts[b] = append(f.texts[b], found{name, form})
			n := three(b[:])
			f.first[n>>6] |= 1 << (n & 63)
		}
	}
	return f
}

func three(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

// in returns what is in b.
func (f *finder) in(b []byte) (all []found) {
	for i := 0; i+8 <= len(b); i++ {
		if n := three(b[i:]); f.first[n>>6]&(1<<(n&63)) == 0 {
			continue
		}
		for _, t := range f.texts[[8]byte(b[i:])] {
			if len(b)-i >= len(t.form) && string(b[i:i+len(t.form)]) == t.form {
				all = append(all, t)
			}
		}
	}
	return all
}

// search is a search of everything, with what was looked at.
type search struct {
	*finder
	t      *testing.T
	places int
	bytes  int64
	// sign is no secret and is in the computer's memory; found says that it was
	// seen there.
	sign  []byte
	found bool
}

func (s *search) look(where string, b []byte) {
	s.t.Helper()
	s.places++
	s.bytes += int64(len(b))
	for _, f := range s.in(b) {
		s.t.Errorf("%s has the secret %s as %q", where, f.name, f.form)
		return // one says enough
	}
}

// files looks at the names and the contents of a folder's files. The program
// itself, which Ambit keeps there, must be the one that was built.
func (s *search) files(dir, program string) {
	s.t.Helper()
	built, err := os.ReadFile(program)
	if err != nil {
		s.t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil {
			return err
		}
		s.look("the name of "+path, []byte(path))
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			s.look("the link "+path, []byte(to))
			return err
		case !e.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !bytes.Equal(b, built) {
			s.look(path, b)
		}
		return err
	})
	if err != nil {
		s.t.Errorf("looking at %s: %v", dir, err)
	}
}

// process looks at what the kernel shows of a process to whoever may ask: its
// arguments, its environment, and the files that are in memory alone.
func (s *search) process(what string, pid int) {
	s.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, name := range []string{"cmdline", "environ", "comm"} {
		b, err := os.ReadFile(proc + name)
		if err != nil && !(os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission)) {
			s.t.Errorf("%s: %v", what, err)
		}
		s.look(what+"'s "+name, b)
	}
	list, err := os.ReadDir(proc + "fd")
	if err != nil && os.Geteuid() == 0 {
		s.t.Errorf("%s: %v", what, err)
	}
	for _, e := range list {
		to, _ := os.Readlink(proc + "fd/" + e.Name())
		s.look(what+"'s descriptors", []byte(to))
		if !strings.HasPrefix(to, "/memfd:") {
			continue
		}
		f, err := os.Open(proc + "fd/" + e.Name())
		if err != nil {
			s.t.Errorf("%s of %s: %v", to, what, err)
			continue
		}
		s.memory(to+" of "+what, f)
		_ = f.Close()
	}
}

// memory looks at a file in which most is a hole.
func (s *search) memory(what string, f *os.File) {
	s.t.Helper()
	for at := int64(0); ; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			return // there is no more
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			s.t.Errorf("%s: %v", what, err)
			return
		}
		b := make([]byte, to-from)
		n, _ := f.ReadAt(b, from)
		s.look(what, b[:n])
		s.found = s.found || bytes.Contains(b[:n], s.sign)
		at = to
	}
}

// api asks the control plane as any program of the user's can.
func (h *home) api(method, path string) []byte {
	h.t.Helper()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.dir, "run", "ambit.sock"))
	}}
	r, err := http.NewRequest(method, "http://ambit"+path, strings.NewReader("{}"))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: t, Timeout: time.Minute}).Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		h.t.Errorf("%s %s: %s %v\n%s", method, path, res.Status, err, b)
	}
	var header bytes.Buffer
	_ = res.Header.Write(&header) // to memory
	return append(header.Bytes(), b...)
}

// TestK6Canary (row K6): known secrets are given to an agent, used, echoed,
// refused, refreshed, revoked, sealed anew, and in a worker that dies. Then all
// is searched that Ambit wrote and said. They are nowhere but at the services.
func TestK6Canary(t *testing.T) { both(t, canaries) }

func canaries(t *testing.T, h *home) {
	h.heard = &lockedBuffer{}
	s := newServices(t)
	s.tokensConnector(h)
	h.deploy(manifest("a", "", "computer:\n  restart: always\n  command: [sh, -c, 'while :; do curl -sSi -H \"Authorization: Bearer $BEARER_TOKEN\" \""+s.at("bearer.example.com", "/v1/things?X-Echo=1")+"\"; sleep 0.3; done']\n",
		"connectors:\n", s.connection("anthropic", ""), s.connection("bearer", "    hosts: [bearer.example.com]\n"), s.connection("github", "    pin: {owner: acme}\n"),
		s.connection("s3", "    pin: {region: eu-central-1, bucket: acme-data}\n"), s.tokens()))

	secrets := map[string]string{"another client's": "wrongWrongClientSecret0123456789wrong", "a token that GitHub has not": "ghp_notTheRightShapeRealReal0123456789/realReal"}
	for name, have := range s.values {
		for field, value := range have {
			if field != "access_key_id" && field != "client_id" {
				secrets[name+" "+field] = value
			}
		}
	}
	for n := range 30 { // that the authorization server gives out, by number
		secrets[fmt.Sprint("access token ", n)], secrets[fmt.Sprint("refresh token ", n)] = fmt.Sprintf("at-%048d", n), fmt.Sprintf("refresh-%040d", n)
	}
	f := newFinder(secrets)
	theFinderFinds(t, f, secrets)

	liveWithSecrets(t, h, s, secrets)

	look := &search{finder: f, t: t, sign: []byte(strings.TrimSpace(h.sh("a", "printenv BEARER_TOKEN").stdout))}
	for name, pid := range map[string]int{"serve": h.cmd.Process.Pid, "the worker": h.reported("a")} {
		h.closed(pid)
		look.process(name, pid)
	}
	for _, pid := range agentProcesses(h.dir, "a") {
		look.process(fmt.Sprint("process ", pid, " of the agent"), pid)
	}
	if !look.found && os.Geteuid() == 0 {
		t.Error("the memory of the computer, in which the program's reference is, was not looked at")
	}
	for _, args := range [][]string{
		{"egress", "a", "--json"}, {"egress", "a"}, {"alerts", "--json"}, {"alerts"}, {"connections", "a", "--json"}, {"connections", "a"}, {"audit", "head", "a"}, {"audit", "verify", "a", "--json"},
		{"output", "a"}, {"status", "a", "--json"}, {"agents", "--json"}, {"versions", "a", "--json"}, {"versions", "a", "1"}, {"keys", "status", "--json"},
		{"audit", "search", "a"}, {"audit", "search", "a", "--json"}, {"audit", "search", "--control", "--json"}, {"audit", "trace", "--subject", "x@example.com", "--json"},
		{"audit", "prove", "a", "0"}, {"audit", "export", "a", "--out", "-", "--format", "csv", "--format", "ocsf"}, {"audit", "sinks", "--json"}, {"alerts", "destinations", "--json"},
	} {
		out := h.run(args...)
		look.look("ambit "+strings.Join(args, " "), []byte(out))
		if args[0] == "output" && !strings.Contains(out, "received") {
			t.Errorf("the agent's program printed no echo:\n%.2000s", out)
		}
	}
	for _, path := range []string{
		"/openapi.json", "/v1/version", "/v1/agents", "/v1/agents/a", "/v1/agents/a/versions", "/v1/agents/a/versions/1", "/v1/agents/a/egress", "/v1/agents/a/output", "/v1/alerts", "/v1/keys",
		"/v1/agents/a/connections", "/v1/agents/a/connections/bearer", "/v1/agents/a/connections/tokens", "/v1/agents/a/connections/github", "/v1/agents/a/audit/head",
	} {
		look.look(path, h.api(http.MethodGet, path))
	}
	look.look("/v1/agents/a/audit/verify", h.api(http.MethodPost, "/v1/agents/a/audit/verify"))
	look.look("what is in the computer", []byte(h.sh("a", "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; tar cf - /home/agent /workspace /tmp /run /var /etc /ambit /dev/shm 2>/dev/null").stdout))
	look.files(h.dir, h.bin) // with the databases' journals
	h.stop()
	look.files(h.dir, h.bin)
	look.look("what the commands said", []byte(h.heard.String()))
	look.look("what serve said", []byte(h.logs.String()))
	if look.places < 200 || look.bytes < 1<<20 {
		t.Errorf("only %d places with %d bytes were looked at", look.places, look.bytes)
	}
	t.Logf("%d places with %d bytes were looked at", look.places, look.bytes)

	arrived := s.came.take()
	for name, have := range s.values {
		for field, value := range have {
			seen := false
			for _, a := range arrived {
				host, _, _ := strings.Cut(strings.Fields(a)[1], "/")
				host, _, _ = strings.Cut(host, ":")
				if !strings.Contains(a, value) {
					continue
				}
				seen = true
				if !slices.Contains(s.servers[name].Hosts, host) {
					t.Errorf("the %s of %s arrived at %s", field, name, host)
				}
			}
			if want := name == "bearer" || name == "github"; want && !seen {
				t.Errorf("the %s of %s did not arrive at its service", field, name)
			}
		}
	}
}

// theFinderFinds plants every form of a secret in files, and expects each to be
// found.
func theFinderFinds(t *testing.T, f *finder, secrets map[string]string) {
	t.Helper()
	dir := t.TempDir()
	if got := f.in([]byte("nothing of a secret, nor its beginning: real")); len(got) > 0 {
		t.Fatalf("found in nothing: %v", got)
	}
	for name, secret := range secrets {
		forms := traces(secret)
		for pad := range 3 { // inside something longer, as in a header field
			forms = append(forms, base64.StdEncoding.EncodeToString([]byte("user:x"[:3+pad]+secret+"\nmore")))
		}
		for _, form := range forms {
			decoy := filepath.Join(dir, "decoy")
			if err := os.WriteFile(decoy, []byte("a decoy: \xff"+form+"\x00"), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(decoy)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(f.in(b), func(got found) bool { return got.name == name }) {
				t.Errorf("a file with %s as %q is not found", name, form)
			}
		}
	}
}

// liveWithSecrets does with the accounts what is ever done.
func liveWithSecrets(t *testing.T, h *home, s *services, secrets map[string]string) {
	t.Helper()
	says := func(want, line string) {
		t.Helper()
		if r := h.sh("a", line); !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("%s\nsaid %+v, and not %q", line, r, want)
		}
	}
	bearer := `curl -sS -H "Authorization: Bearer $BEARER_TOKEN" "` + s.at("bearer.example.com", "/v1/things") + `"`
	tokens := `curl -sS -H "Authorization: Bearer $TOKENS_ACCESS_TOKEN" "` + s.at("oauth.example.com", "/v1/things?X-Echo=1") + `"`

	// Given in every way that there is, and in wrong ones.
	file := filepath.Join(t.TempDir(), "given")
	from := func(value []byte, args ...string) []string {
		t.Helper()
		if err := errors.Join(os.WriteFile(file, value, 0o600), os.Chmod(filepath.Dir(file), 0o755), os.Chmod(filepath.Dir(filepath.Dir(file)), 0o755)); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(file, h.uid, h.uid); err != nil {
				t.Fatal(err)
			}
		}
		return append([]string{"connect", "a"}, args...)
	}
	says("urn:ambit:problem:not-connected", bearer)
	h.refused(from([]byte(secrets["a token that GitHub has not"]), "github", "--from", file)...)
	h.refused(from(append(s.given("s3"), '}'), "s3", "--from", file)...)
	h.refused(from([]byte("secret_access_key "+secrets["s3 secret_access_key"]), "s3", "--from", file)...)
	h.refused(from([]byte(`{"`+secrets["s3 secret_access_key"]+`":"x"}`), "s3", "--from", file)...)
	h.refused(append(from(nil, "anthropic"), "--field", secrets["anthropic key"])...) // who does that shows it to the machine, and Ambit repeats it not
	for _, name := range []string{"bearer", "s3"} {
		s.connect(h, "a", name)
	}
	h.run(from(s.given("github"), "github", "--from", file)...)
	h.run(from(s.given("anthropic"), "anthropic", "--field", "key="+file)...)

	// A service that quotes what it is asked with.
	quotes := func(status int, code string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			body, _ := io.ReadAll(r.Body)
			id, secret, _ := r.BasicAuth()
			all := fmt.Sprintf("%s %s %s %s %s", id, secret, r.Header.Get("Authorization"), body, hex.EncodeToString([]byte(secret)))
			w.Header().Set("Www-Authenticate", `Basic realm="`+strings.ReplaceAll(secret, `"`, "")+`"`)
			w.Header().Set("Location", "https://oauth.example.com/"+secret)
			say(w, status, `{"error":%s,"error_description":%s,"error_uri":%s}`, quoted(code), quoted(all), quoted("https://oauth.example.com/"+secret))
		}
	}
	s.desk.feels(quotes(http.StatusUnauthorized, "invalid_client"))
	h.refused(from(s.given("oauth2"), "tokens", "--from", file)...)
	s.desk.feels(quotes(http.StatusBadRequest, secrets["oauth2 client_secret"]))
	h.refused(from(s.given("oauth2"), "tokens", "--from", file)...)
	s.desk.feels(nil)
	h.refused(from([]byte(`{"client_id":"ambit-at-oauth","client_secret":"`+secrets["another client's"]+`"}`), "tokens", "--from", file)...)
	if out, err := s.login(h, "a"); err != nil {
		t.Fatalf("login: %v\n%s", err, out)
	}

	// Used, echoed, refused.
	says("received", tokens)
	says("hello", bearer)
	says("acme/shop", `curl -sS -H "Authorization: Bearer $GITHUB_TOKEN" "`+s.at("api.github.com", "/repos/acme/shop")+`"`)
	says("received", `curl -sS -H "Authorization: Bearer $GITHUB_TOKEN" "`+s.at("api.github.com", "/repos/acme/shop?X-Echo=1")+`"`)
	says("packed", `curl -sS -H "Authorization: Bearer $BEARER_TOKEN" "`+s.at("bearer.example.com", "/packed")+`"`)
	says("urn:ambit:problem:reference-misplaced", `curl -sS -H "X-Any: $BEARER_TOKEN" "`+s.at("api.github.com", "/repos/acme/shop")+`"`)
	says("urn:ambit:problem:signature-refused", `curl -sS -H "X-Amz-Date: 20200101T000000Z" -H "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD" -H "Authorization: AWS4-HMAC-SHA256 Credential=$AWS_ACCESS_KEY_ID/20200101/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=`+strings.Repeat("5e", 32)+`" "`+s.at("acme-data.s3.eu-central-1.amazonaws.com", "/x")+`"`)
	s.servers["github"].Set(standin.Limited)
	says("API rate limit exceeded", `curl -sS -H "Authorization: Bearer $GITHUB_TOKEN" "`+s.at("api.github.com", "/repos/acme/shop")+`"`)

	// A token that is over, a refresh that fails, one that is refused for good.
	s.desk.feels(quotes(http.StatusInternalServerError, "server_error"))
	s.servers["oauth2"].Set(standin.Expired)
	says("401", tokens)
	says("urn:ambit:problem:credential-failed", tokens)
	s.desk.feels(quotes(http.StatusBadRequest, "invalid_grant"))
	h.await(func() bool { return strings.Contains(h.sh("a", tokens).stdout, "urn:ambit:problem:reconnect-needed") }, 20*time.Second, "the refusal for good")
	if out := h.run("connections", "a"); !strings.Contains(out, "reconnect-needed") {
		t.Errorf("connections: %s", out)
	}
	s.desk.feels(nil)
	if out, err := s.login(h, "a"); err != nil {
		t.Fatalf("login again: %v\n%s", err, out)
	}
	says("received", tokens)

	// Sealed with another key, and the worker dies with a trace of all it does.
	h.run("keys", "rotate", "a")
	h.run("keys", "rotate", "root")
	worker := h.reported("a")
	if err := syscall.Kill(worker, syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	h.await(func() bool { return !alive(worker) }, 20*time.Second, "the worker to die")
	h.await(func() bool { return strings.Contains(h.sh("a", tokens).stdout, "received") }, 30*time.Second, "the next worker")
	s.servers["oauth2"].Set(standin.Expired)
	says("401", tokens)
	says("received", tokens) // refreshed

	// Over: the service is told, cannot be told, has no way to be told.
	s.desk.feels(quotes(http.StatusInternalServerError, "server_error"))
	if out := h.run("revoke", "a", "tokens"); !strings.Contains(out, "was not told") {
		t.Errorf("revoke, and the service refuses: %s", out)
	}
	s.desk.feels(nil)
	if out, err := s.login(h, "a"); err != nil {
		t.Fatalf("login once more: %v\n%s", err, out)
	}
	if out := h.run("revoke", "a", "tokens"); !strings.Contains(out, "the service was told") {
		t.Errorf("revoke: %s", out)
	}
	says("urn:ambit:problem:not-connected", tokens)
	h.run("revoke", "a", "github")
	_ = os.Remove(file)
}
