package notify

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"ambit"
	"ambit/alert"
	"ambit/audit"
	"ambit/audit/sink/outputs"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// bookOf is a real book beside a real log.
func bookOf(t *testing.T, agent ambit.AgentID) *alert.Book {
	t.Helper()
	db, err := sqldb.Open(t.Context(), filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	key := func() secretbytes.Bytes { return secretbytes.New(bytes.Repeat([]byte{7}, 32)) }
	log, err := audit.Open(t.Context(), audit.Config{DB: db, Agent: agent, Keys: audit.Keys{Body: key(), Sign: key()}, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := alert.Open(t.Context(), alert.Config{DB: db, Log: log, Agent: agent, Key: key()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(b.Close(ctx), log.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// books are the sources of a test.
type books map[ambit.AgentID]Book

func (b books) sources(context.Context) ([]Source, error) {
	var all []Source
	for id, book := range b {
		all = append(all, Source{"agent/" + string(id), id, book})
	}
	return all, nil
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// lines collects what the notifier logs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *lines) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// run runs a notifier until the function that it returns is called.
func run(t *testing.T, state string, b books, configs ...Config) (*Notifier, *lines, func()) {
	t.Helper()
	log := &lines{}
	n, err := Open(Options{Destinations: configs, State: state, Sources: b.sources, Version: "v0", Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	n.pace.poll, n.pace.gather, n.pace.retry, n.pace.longest = 20*time.Millisecond, 20*time.Millisecond, 30*time.Millisecond, 100*time.Millisecond
	n.pace.every = func(Kind) time.Duration { return 10 * time.Millisecond }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	end := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(end)
	return n, log, end
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// receiver is a webhook's other end, which believes nothing that is not signed.
type receiver struct {
	*httptest.Server
	t      *testing.T
	secret string

	mu     sync.Mutex
	status int // what it answers; 0 is 204
	ids    []string
	alerts []told
	tests  int
	tries  int
}

func newReceiver(t *testing.T, secret string) *receiver {
	r := &receiver{t: t, secret: secret}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	wh, secretErr := standardwebhooks.NewWebhook(r.secret)
	if err := errors.Join(err, secretErr); err != nil {
		r.t.Error(err)
		return
	}
	if err := wh.Verify(body, q.Header); err != nil {
		r.t.Errorf("the signature: %v", err)
	}
	var m struct {
		Type string
		Data struct {
			Alerts []told
			Text   string
		}
	}
	if err := json.Unmarshal(body, &m); err != nil || q.Header.Get("Content-Type") != "application/json" || q.Method != http.MethodPost {
		r.t.Errorf("%s %s: %v", q.Method, body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	r.ids = append(r.ids, q.Header.Get("webhook-id"))
	if r.status != 0 {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(r.status)
		_, _ = io.WriteString(w, "\x1b[2J no")
		return
	}
	if m.Type == "ambit.test" && m.Data.Text == testText {
		r.tests++
	}
	r.alerts = append(r.alerts, m.Data.Alerts...)
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) got() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.alerts)
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

func hookTo(t *testing.T, r *receiver) Config {
	return Config{Name: "ops", Kind: Webhook, URL: r.URL + "/hook?token=hidden-token", SecretFile: secretFile(t, r.secret)}
}

func TestWebhook(t *testing.T) {
	r := newReceiver(t, newSecret())
	support, sales := bookOf(t, "support"), bookOf(t, "sales")
	state := filepath.Join(t.TempDir(), "notify.json")
	b := books{"support": support, "sales": sales}
	c := hookTo(t, r)
	c.Severity, c.Codes = ambit.Medium, []string{"first-host", "foreign-credential"}
	n, log, end := run(t, state, b, c)
	support.Raise(ambit.High, "foreign-credential a.example", "refused: <b>\r\nBcc: x\u202e", 7)
	support.Raise(ambit.Low, "first-host b.example", "not grave enough", 8)
	support.Raise(ambit.High, "other c.example", "another code", 9)
	sales.Raise(ambit.Medium, "first-host d.example", "t", 3)
	await(t, "two alerts", func() bool { return len(r.got()) == 2 })
	got := r.got()
	slices.SortFunc(got, func(x, y told) int { return strings.Compare(string(y.Agent), string(x.Agent)) })
	if a := got[0]; a.Agent != "support" || a.Code != "foreign-credential" || a.Severity != ambit.High || a.Count != 1 || a.Event != 7 || a.Number != 1 ||
		a.Title != `refused: <b>\x0d\x0aBcc: x\u202e` || !strings.HasSuffix(a.ID, fmt.Sprintf("/%d", 1)) && !strings.Contains(a.ID, "/") {
		t.Errorf("%+v", a)
	}
	if got[1].Agent != "sales" || got[1].Event != 3 {
		t.Errorf("%+v", got[1])
	}
	if err := n.Test(t.Context(), "ops"); err != nil || r.tests != 1 {
		t.Errorf("a test: %v, %d came", err, r.tests)
	}
	if err := n.Test(t.Context(), "nobody"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	end()
	// After a restart: nothing is told again, and what came meanwhile is told.
	support.Raise(ambit.High, "foreign-credential e.example", "meanwhile", 10)
	_, _, end = run(t, state, b, c)
	await(t, "the third alert", func() bool { return len(r.got()) == 3 })
	time.Sleep(100 * time.Millisecond)
	if all := r.got(); len(all) != 3 || all[2].Title != "meanwhile" {
		t.Errorf("%+v", all)
	}
	end()
	for _, text := range []string{log.String(), read(t, state)} {
		if strings.Contains(text, "hidden-token") || strings.Contains(text, strings.TrimPrefix(r.secret, "whsec_")) {
			t.Errorf("a secret is in: %s", text)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A destination that is away gets what it missed when it is back, an alert that
// came up again meanwhile once, and the same message under the same id.
func TestDestinationAway(t *testing.T) {
	r := newReceiver(t, newSecret())
	book := bookOf(t, "support")
	r.answer(http.StatusServiceUnavailable)
	n, log, _ := run(t, filepath.Join(t.TempDir(), "notify.json"), books{"support": book}, hookTo(t, r))
	book.Raise(ambit.High, "k one", "t", 1)
	await(t, "attempts", func() bool { return r.attempts() >= 3 })
	if s := n.Status(); len(s) != 1 || s[0].Waiting != 1 || s[0].Failed == nil || s[0].Error != "the webhook answered 503 Service Unavailable" {
		t.Errorf("%+v", s)
	}
	r.mu.Lock()
	if r.ids[0] != r.ids[1] || !strings.HasPrefix(r.ids[0], "msg_") {
		t.Errorf("ids: %v", r.ids)
	}
	r.mu.Unlock()
	r.answer(http.StatusFound) // a redirect is no delivery, and is not followed
	was := r.attempts()
	await(t, "another attempt", func() bool { return r.attempts() > was })
	book.Raise(ambit.High, "k two", "t", 2)
	if err := book.Ack(t.Context(), 1, "uid:1"); err != nil {
		t.Fatal(err)
	}
	book.Raise(ambit.High, "k one", "again", 3)
	await(t, "it waits", func() bool { return n.Status()[0].Waiting == 2 })
	time.Sleep(1200 * time.Millisecond) // the book writes once a second
	r.answer(0)
	await(t, "both", func() bool { return len(r.got()) >= 2 })
	await(t, "nothing waits", func() bool { return n.Status()[0].Waiting == 0 })
	keys := map[string]int{}
	for _, a := range r.got() {
		keys[a.Key]++
	}
	if keys["k one"] < 1 || keys["k two"] != 1 {
		t.Errorf("%v", keys)
	}
	if strings.Contains(log.String(), "hidden-token") || strings.Contains(log.String(), "127.0.0.1:"+"hook") {
		t.Errorf("the log: %s", log)
	}
}

// A new destination is not told of old things, and a book that begins anew is
// told from its beginning.
func TestNewDestinationAndNewBook(t *testing.T) {
	r := newReceiver(t, newSecret())
	old := bookOf(t, "support")
	old.Raise(ambit.High, "old k", "t", 1)
	await(t, "the book to write", func() bool {
		n, err := old.News(t.Context(), alert.NewsQuery{})
		return err == nil && len(n.Items) == 1
	})
	time.Sleep(10 * time.Millisecond)
	b := books{"support": old}
	state := filepath.Join(t.TempDir(), "notify.json")
	_, _, end := run(t, state, b, hookTo(t, r))
	old.Raise(ambit.High, "new k", "t", 1)
	await(t, "the new one", func() bool { return len(r.got()) == 1 })
	if r.got()[0].Key != "new k" {
		t.Errorf("%+v", r.got())
	}
	end()
	again := bookOf(t, "support") // wiped, and deployed anew
	again.Raise(ambit.High, "first k", "t", 1)
	_, _, end = run(t, state, books{"support": again}, hookTo(t, r))
	await(t, "that of the new book", func() bool { return len(r.got()) == 2 })
	end()
	if r.got()[1].Key != "first k" {
		t.Errorf("%+v", r.got())
	}
	// Sources that are no more leave nothing behind.
	n, _, end := run(t, state, books{}, hookTo(t, r))
	await(t, "it to forget", func() bool { return len(n.dests[0].state().Told) == 0 })
	end()
	if text := read(t, state); strings.Contains(text, "agent/support") {
		t.Error(text)
	}
}

// liar is the book of a worker in an attacker's hands.
type liar func(alert.NewsQuery) (alert.News, error)

func (l liar) News(_ context.Context, q alert.NewsQuery) (alert.News, error) { return l(q) }

// A worker in an attacker's hands says nonsense: the others are told all the
// same, and memory and messages are bounded.
func TestHostileWorker(t *testing.T) {
	r := newReceiver(t, newSecret())
	honest := bookOf(t, "honest")
	hostile := "\r\nBcc: victim@example.com\x1b[2J\u202e<script>" + strings.Repeat("é", 100_000)
	position := uint64(0)
	b := books{
		"honest": honest,
		"huge": liar(func(alert.NewsQuery) (alert.News, error) {
			return alert.News{Book: "b", Items: make([]alert.NewsAlert, 100_000)}, nil
		}),
		"noid":   liar(func(alert.NewsQuery) (alert.News, error) { return alert.News{}, nil }),
		"longid": liar(func(alert.NewsQuery) (alert.News, error) { return alert.News{Book: hostile}, nil }),
		"more":   liar(func(alert.NewsQuery) (alert.News, error) { return alert.News{Book: "b", More: true}, nil }),
		"broken": liar(func(alert.NewsQuery) (alert.News, error) { return alert.News{}, errors.New("no") }),
		"text": liar(func(q alert.NewsQuery) (alert.News, error) {
			position++
			a := alert.Alert{ID: -1, Severity: 200, Key: hostile, Title: hostile, Last: time.Now().Add(time.Hour)}
			return alert.News{Book: "b", After: position, Items: []alert.NewsAlert{{Position: 0, Alert: a}}}, nil
		}),
	}
	n, _, end := run(t, filepath.Join(t.TempDir(), "notify.json"), b, hookTo(t, r))
	honest.Raise(ambit.High, "k", "honest", 1)
	await(t, "the honest one and the hostile one", func() bool {
		all := r.got()
		return slices.ContainsFunc(all, func(a told) bool { return a.Title == "honest" }) && slices.ContainsFunc(all, func(a told) bool { return a.Agent == "text" })
	})
	end()
	for _, a := range r.got() {
		if len(a.Title) > 600 || len(a.Key) > 600 || len(a.Code) > 64 || strings.ContainsAny(a.Title+a.Key+a.Code, "\r\n\x1b\u202e") || a.Severity > ambit.Critical {
			t.Errorf("%+v", a)
		}
	}
	if n.Status()[0].Waiting > 10 {
		t.Errorf("%+v", n.Status())
	}
}

// While a destination is away, what waits in memory is bounded, and what is
// beyond it waits in the book.
func TestPendingIsBounded(t *testing.T) {
	const all = maxPending + 300
	position := func(q alert.NewsQuery) uint64 {
		if q.Book != "b" {
			return 0
		}
		return q.After
	}
	book := liar(func(q alert.NewsQuery) (alert.News, error) {
		n := alert.News{Book: "b", After: position(q)}
		for n.After < all && len(n.Items) < alert.MaxNews {
			n.After++
			n.Items = append(n.Items, alert.NewsAlert{Position: n.After, Alert: alert.Alert{ID: int64(n.After), Key: "k", Last: time.Now().Add(time.Hour)}})
		}
		n.More = n.After < all
		return n, nil
	})
	r := newReceiver(t, newSecret())
	r.answer(http.StatusBadGateway)
	n, _, _ := run(t, filepath.Join(t.TempDir(), "notify.json"), books{"a": book}, hookTo(t, r))
	await(t, "a full queue", func() bool { return n.Status()[0].Waiting >= maxPending })
	time.Sleep(100 * time.Millisecond)
	if w := n.Status()[0].Waiting; w > maxPending+alert.MaxNews {
		t.Errorf("%d wait", w)
	}
	r.answer(0)
	await(t, "all of them", func() bool { return len(r.got()) >= all })
	if got := r.got(); len(got) != all {
		t.Errorf("%d came", len(got))
	}
}

func TestSecretsOfWebhooks(t *testing.T) {
	// While one secret replaces another there are signatures of both.
	before, after := newSecret(), newSecret()
	for _, secret := range []string{before, after} {
		r := newReceiver(t, secret)
		n, _, _ := run(t, filepath.Join(t.TempDir(), "n"), books{}, Config{Name: "ops", Kind: Webhook, URL: r.URL, SecretFile: secretFile(t, before+"\n"+after)})
		if err := n.Test(t.Context(), "ops"); err != nil || r.tests != 1 {
			t.Error(err)
		}
	}
	for name, path := range map[string]string{
		"no prefix": secretFile(t, "hunter2hunter2hunter2hunter2"), "no base64": secretFile(t, "whsec_hunter2!"), "short": secretFile(t, "whsec_aHVudGVyMg=="), "empty": secretFile(t, ""), "none": "/nonexistent/s",
		"many": secretFile(t, strings.Repeat(before+"\n", 5)),
	} {
		_, err := Open(Options{Destinations: []Config{{Name: "ops", Kind: Webhook, URL: "https://example.com", SecretFile: path}}, State: filepath.Join(t.TempDir(), "n"), Sources: books{}.sources, Log: slog.Default()})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %v", name, err)
		}
	}
	open := secretFile(t, before)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := outputs.ReadSecret(open); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
}

// What cannot be reached says so without the URL, which may have a secret in it.
func TestErrorsHaveNoURL(t *testing.T) {
	r := newReceiver(t, newSecret())
	c := hookTo(t, r)
	n, _, _ := run(t, filepath.Join(t.TempDir(), "n"), books{}, c)
	r.Close()
	if err := n.Test(t.Context(), "ops"); err == nil || strings.Contains(err.Error(), "hidden-token") || strings.Contains(err.Error(), "/hook") {
		t.Errorf("%v", err)
	}
}

func TestValidate(t *testing.T) {
	hook := Config{Name: "a", Kind: Webhook, URL: "https://example.com/h", SecretFile: "/s"}
	mail := Config{Name: "a", Kind: Email, Address: "mail.example.com:587", From: "Ambit <ambit@example.com>", To: []string{"ops@example.com"}}
	if err := errors.Join(hook.Validate(), mail.Validate()); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(h, m *Config){
		"name":        func(h, m *Config) { h.Name, m.Name = "A b", "" },
		"kind":        func(h, m *Config) { h.Kind, m.Kind = "", "pager" },
		"half a cert": func(h, m *Config) { h.TLS.Cert, m.TLS.Key = "/c", "/k" },
		"severity":    func(h, m *Config) { h.Severity, m.Severity = 9, 9 },
		"mixed":       func(h, m *Config) { h.Address, m.URL = "mail.example.com:25", "https://example.com" },
		"no TLS":      func(h, m *Config) { h.URL, m.SMTP = "http://example.com", NoTLS },
		"odd TLS":     func(h, m *Config) { h.URL, m.SMTP = "ftp://example.com", "ssl" },
		"no address":  func(h, m *Config) { h.URL, m.Address = "https://", "mail.example.com" },
		"login":       func(h, m *Config) { h.URL, m.User = "https://u:hunter2@example.com", "u" },
		"file":        func(h, m *Config) { h.SecretFile, m.SecretFile = "", "/s" },
		"injection": func(h, m *Config) {
			h.URL, m.To = "https://example.com/\r\nX: y", []string{"a@example.com\r\nBcc: b@example.com"}
		},
		"header":          func(h, m *Config) { h.URL, m.From = "hunter2", "\"x\r\nBcc: y\" <a@example.com>" },
		"nobody":          func(h, m *Config) { h.URL, m.To = "https://example.com/#f", nil },
		"quoted":          func(h, m *Config) { h.URL, m.To = "https:example.com", []string{`"a b"@example.com`} },
		"letters":         func(h, m *Config) { h.URL, m.To = "//example.com", []string{"ä@example.com"} },
		"newline in user": func(h, m *Config) { h.URL, m.User, m.SecretFile = "", "u\n", "/s" },
		"password in the clear": func(h, m *Config) {
			h.URL, m.Address, m.SMTP, m.User, m.SecretFile = "", "localhost:25", NoTLS, "u", "/s"
		},
	}
	for name, change := range bad {
		h, m := hook, mail
		change(&h, &m)
		for _, c := range []Config{h, m} {
			if err := c.Validate(); err == nil || strings.ContainsAny(err.Error(), "\r\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %s: %v", name, c.Kind, err)
			}
		}
	}
	for _, u := range []string{"http://127.0.0.1:8080", "http://[::1]/x", "http://localhost"} {
		c := hook
		if c.URL = u; c.Validate() != nil {
			t.Errorf("%s: %v", u, c.Validate())
		}
	}
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"damaged": "{", "newer": `{"version":2}`} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{State: path, Sources: books{}.sources, Log: slog.Default()}); err == nil || !strings.Contains(err.Error(), "move") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func nothing() *slog.Logger { return slog.New(slog.DiscardHandler) }

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(context.Background())
}
