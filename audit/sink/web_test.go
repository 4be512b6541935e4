package sink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"ambit"
	"ambit/audit/sink/format"
	"ambit/audit/sink/outputs"
	"ambit/internal/standin"
)

// secret writes a file with a secret and returns its path.
func secret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// authority writes the certificate of a test server to a file and returns its path.
func authority(t *testing.T, s *httptest.Server) outputs.TLS {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return outputs.TLS{CA: path, ServerName: "example.com"}
}

func open(t *testing.T, c *outputs.Sink) Sink {
	t.Helper()
	c.Name = "siem"
	c.Control = true
	s, err := Open(c, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func batch(n int) Batch {
	m := newMemory()
	m.write(n)
	return Batch{support, m.events}
}

var webhookKey = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hooks is a receiver that verifies with the library of Standard Webhooks.
type hooks struct {
	got
	t     *testing.T
	mu    sync.Mutex
	ids   []string
	fails atomic.Int32 // how many more requests are answered with 500 after they were taken
}

func (h *hooks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	for _, key := range []string{"whsec_" + webhookKey, "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))} {
		v, err := standardwebhooks.NewWebhook(key)
		if err != nil {
			h.t.Error(err)
			return
		}
		if err := v.Verify(body, r.Header); err != nil {
			h.t.Errorf("the signature is not right: %v", err)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	var message struct {
		Type      string
		Timestamp time.Time
		Data      struct {
			Log    string
			Events []ambit.Event
		}
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Type != "ambit.audit.events" || message.Timestamp.IsZero() {
		h.t.Errorf("%v: %s", err, body)
	}
	h.mu.Lock()
	h.ids = append(h.ids, r.Header.Get("Webhook-Id"))
	h.mu.Unlock()
	for _, e := range message.Data.Events {
		h.add(message.Data.Log, e.Seq)
	}
	if h.fails.Add(-1) >= 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// A message that comes again has the same name, so that it can be told.
func TestWebhook(t *testing.T) {
	h := &hooks{t: t}
	h.fails.Store(2)
	server := httptest.NewTLSServer(h)
	defer server.Close()
	keys := "whsec_" + webhookKey + "\nwhsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	m := newMemory()
	r, _ := start(t, quick(newCursors(), open(t, &outputs.Sink{Kind: outputs.Webhook, URL: server.URL + "/hook", SecretFile: secret(t, keys), TLS: authority(t, server)})))
	m.write(100)
	add(t, r, support, m)
	until(t, func() error { return h.whole(support.Name, 100) })
	until(t, func() error {
		if s := r.Status()[0]; s.State != Idle {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if len(h.ids) != 3 || h.ids[0] != h.ids[1] || h.ids[1] != h.ids[2] || !strings.HasPrefix(h.ids[0], "msg_") {
		t.Errorf("the names are %q", h.ids)
	}
	if h.ids[0] == messageID("siem", Batch{support, m.events[:99]}) {
		t.Error("another batch has the same name")
	}
}

func TestWebhookSecrets(t *testing.T) {
	for text, want := range map[string]string{
		webhookKey:                      "does not begin with whsec_",
		"whsec_!":                       "is not base64",
		"whsec_c2hvcnQ=":                "5 bytes",
		"whsec_" + webhookKey + "\nabc": "line 2",
	} {
		_, err := Open(&outputs.Sink{Name: "a", Kind: outputs.Webhook, URL: "https://example.com", SecretFile: secret(t, text)}, "")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), webhookKey) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// Answers of all kinds: none is an acknowledgement, none brings a secret, an
// escape or more than a few bytes into the status, and none holds anything up.
func TestHostileAnswers(t *testing.T) {
	const token = "11111111-2222-3333-4444-555555555555"
	key := "whsec_" + webhookKey
	answers := map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"garbage": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("\x1b[2J\u202e<html>\x00\xff"))
		},
		"empty":       func(http.ResponseWriter, *http.Request) {},
		"endless":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); endless(w, r) },
		"endless 200": endless,
		"echo": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(401)
			fmt.Fprintf(w, "%s %s \x1b[31m", r.Header.Get("Authorization"), base64.StdEncoding.EncodeToString([]byte(r.Header.Get("Authorization"))))
			fmt.Fprintf(w, " %s", key)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"long header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 1<<20))
			w.WriteHeader(503)
		},
		"json":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"code":"0"}`) },
		"code 9": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"code":9,"text":"busy"}`) },
		"code 0 of 500": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			fmt.Fprint(w, `{"code":0,"text":"Success"}`)
		},
		"invalid number": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"code":6,"text":"Invalid data format","invalid-event-number":99999999}`)
		},
		"always invalid": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"code":6,"text":"Invalid data format","invalid-event-number":0}`)
		},
	}
	acknowledges := map[string][]outputs.Kind{ // an answer of 200 is one, for some
		"garbage": {outputs.Webhook, outputs.S3}, "empty": {outputs.Webhook, outputs.S3, outputs.OTLP}, "endless 200": {outputs.Webhook, outputs.S3},
		"json": {outputs.Webhook, outputs.S3}, "code 9": {outputs.Webhook, outputs.S3},
	}
	for name, handler := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var elsewhere atomic.Int32
			mux := http.NewServeMux()
			mux.HandleFunc("/", handler)
			mux.HandleFunc("/elsewhere", func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
			server := httptest.NewServer(mux)
			defer server.Close()
			for _, c := range []*outputs.Sink{
				{Kind: outputs.Webhook, URL: server.URL, SecretFile: secret(t, key)},
				{Kind: outputs.Splunk, URL: server.URL, SecretFile: secret(t, token)},
				{Kind: outputs.Splunk, URL: server.URL, SecretFile: secret(t, token), Acknowledge: true},
				{Kind: outputs.OTLP, URL: server.URL + "/v1/logs", SecretFile: secret(t, "Bearer "+token), Header: "Authorization"},
				{Kind: outputs.S3, URL: server.URL, SecretFile: secret(t, token), Bucket: "b", Region: "r", AccessKeyID: "AKIA"},
			} {
				s := open(t, c)
				rejected, err := s.Receiver.Deliver(t.Context(), batch(3))
				_ = s.Receiver.Close()
				if acknowledged := err == nil; acknowledged != contains(acknowledges[name], c.Kind) {
					t.Errorf("%s: acknowledged %v, %v", c.Kind, acknowledged, err)
				}
				if err == nil {
					continue
				}
				text := err.Error()
				if len(rejected) > 0 || len(text) > 600 || strings.ContainsAny(text, "\x1b\x00\n\u202e") {
					t.Errorf("%s: %q", c.Kind, text)
				}
				own := token
				if c.Kind == outputs.Webhook {
					own = webhookKey
				}
				for _, form := range standin.Forms(own) {
					if strings.Contains(text, form) {
						t.Errorf("%s: a secret is in %q", c.Kind, text)
					}
				}
			}
			if elsewhere.Load() > 0 {
				t.Error("a redirect was followed")
			}
		})
	}
}

func contains(kinds []outputs.Kind, k outputs.Kind) bool {
	for _, x := range kinds {
		if x == k {
			return true
		}
	}
	return false
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			return
		}
	}
}

// A receiver that shows a certificate of another authority gets nothing.
func TestWrongAuthority(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	server.Config.ErrorLog = discard()
	token := secret(t, "11111111-2222-3333-4444-555555555555")
	other := authority(t, server)
	other.ServerName = "other.example.net"
	for _, c := range []outputs.Sink{
		{Kind: outputs.Webhook, SecretFile: secret(t, "whsec_"+webhookKey)}, {Kind: outputs.Splunk, SecretFile: token}, {Kind: outputs.OTLP},
		{Kind: outputs.S3, SecretFile: token, Bucket: "b", Region: "r", AccessKeyID: "a"},
	} {
		for _, tls := range []outputs.TLS{{}, other} {
			c.URL, c.TLS = server.URL, tls
			s := open(t, &c)
			_, err := s.Receiver.Deliver(t.Context(), batch(1))
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s: %v", c.Kind, err)
			}
			_ = s.Receiver.Close()
		}
	}
	if asked.Load() > 0 {
		t.Error("something was sent")
	}
}

func TestSplunk(t *testing.T) {
	for _, ack := range []bool{false, true} {
		t.Run(fmt.Sprint("acknowledge ", ack), func(t *testing.T) {
			hec := &standin.HEC{Token: "11111111-2222-3333-4444-555555555555", Ack: ack, AckAfter: 2, Indexes: []string{"main", "audit"}}
			hec.Busy(3)
			server := httptest.NewTLSServer(hec)
			defer server.Close()
			s := open(t, &outputs.Sink{Kind: outputs.Splunk, URL: server.URL + "/", SecretFile: secret(t, hec.Token), Acknowledge: ack, Index: "audit", TLS: authority(t, server), OCSF: ack})
			s.Receiver.(*splunk).poll = time.Millisecond
			r, _ := start(t, quick(newCursors(), s))
			m := newMemory()
			m.write(700)
			add(t, r, support, m)
			until(t, func() error { return hecHas(hec, 700) })
			e := hec.Events()[0]
			if e.Source != support.Name || e.Index != "audit" || e.Fields["ambit_uid"] != support.Name+"/0" || e.Time.String() != fmt.Sprintf("%d.%06d", m.events[0].Time.Unix(), m.events[0].Time.Nanosecond()/1000) {
				t.Errorf("%+v", e)
			}
			if ack != strings.Contains(string(e.Event), `"class_uid":4002`) {
				t.Errorf("the format is another: %s", e.Event)
			}
			if f := hec.Faults(); len(f) > 0 {
				t.Error(f)
			}
		})
	}
}

// hecHas says what is missing of n events of the log support.
func hecHas(hec *standin.HEC, n int) error {
	var g got
	for _, e := range hec.Events() {
		var seq uint64
		if _, err := fmt.Sscanf(strings.TrimPrefix(e.Fields["ambit_uid"], support.Name+"/"), "%d", &seq); err != nil {
			return err
		}
		g.add(support.Name, seq)
	}
	return g.whole(support.Name, n)
}

// What the indexer loses before it acknowledges comes again.
func TestSplunkLosesBeforeAcknowledgement(t *testing.T) {
	hec := &standin.HEC{Token: "11111111-2222-3333-4444-555555555555", Ack: true, AckAfter: 1 << 30}
	server := httptest.NewServer(hec)
	defer server.Close()
	s := open(t, &outputs.Sink{Kind: outputs.Splunk, URL: server.URL, SecretFile: secret(t, hec.Token), Acknowledge: true})
	s.Receiver.(*splunk).poll = time.Millisecond
	o := quick(newCursors(), s)
	o.Timeout = 50 * time.Millisecond
	r, _ := start(t, o)
	m := newMemory()
	m.write(10)
	add(t, r, support, m)
	until(t, func() error {
		if s := r.Status()[0]; !strings.Contains(s.LastError, "did not acknowledge in time") && !strings.Contains(s.LastError, "deadline") {
			return errors.New(s.LastError)
		}
		return nil
	})
	if n := len(hec.Events()); n > 0 {
		t.Fatalf("the indexer has %d events: the test makes no loss", n)
	}
	hec.Crash()
	until(t, func() error { return hecHas(hec, 10) })
}

// An event that the collector takes in no form is replaced by a marker, and the
// others arrive.
func TestSplunkInvalidEvent(t *testing.T) {
	hec := &standin.HEC{Token: "11111111-2222-3333-4444-555555555555", Refuse: func(e json.RawMessage) bool { return strings.Contains(string(e), "poison") }}
	server := httptest.NewServer(hec)
	defer server.Close()
	s := open(t, &outputs.Sink{Kind: outputs.Splunk, URL: server.URL, SecretFile: secret(t, hec.Token)})
	var mu sync.Mutex
	var rejected []Rejection
	o := quick(newCursors(), s)
	o.Rejected = func(sink string, r Rejection) {
		mu.Lock()
		defer mu.Unlock()
		rejected = append(rejected, r)
	}
	r, _ := start(t, o)
	m := newMemory()
	for i := range 50 {
		e := ambit.Event{Kind: ambit.KindAgentStop, Agent: "support", Detail: "fine"}
		if i%20 == 7 {
			e.Detail = "poison"
		}
		m.put(e)
	}
	add(t, r, support, m)
	until(t, func() error { return hecHas(hec, 50) })
	until(t, func() error {
		if s := r.Status()[0]; s.Rejected != 3 || s.State != Idle {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if len(rejected) != 3 || rejected[0].Seq != 7 || !strings.Contains(rejected[0].Text, "Invalid data format") {
		t.Errorf("%+v", rejected)
	}
	markers := 0
	for _, e := range hec.Events() {
		if strings.Contains(string(e.Event), "refused by the receiver") {
			markers++
		}
	}
	if markers < 3 {
		t.Errorf("%d markers arrived", markers)
	}
}

// A batch that is too large is cut, down to single events.
func TestSplunkTooLarge(t *testing.T) {
	hec := &standin.HEC{Token: "11111111-2222-3333-4444-555555555555", MaxBody: 4000}
	server := httptest.NewServer(hec)
	defer server.Close()
	r, _ := start(t, quick(newCursors(), open(t, &outputs.Sink{Kind: outputs.Splunk, URL: server.URL, SecretFile: secret(t, hec.Token)})))
	m := newMemory()
	m.write(50)
	m.put(ambit.Event{Kind: ambit.KindAlert, Detail: strings.Repeat("x", 8000)})
	m.write(50)
	add(t, r, support, m)
	until(t, func() error { return hecHas(hec, 101) })
	until(t, func() error {
		if n := r.Status()[0].Rejected; n != 1 {
			return fmt.Errorf("%d rejected", n)
		}
		return nil
	})
}

// The object of a batch is named after it, signed as AWS wants it, and the same
// again when it comes again.
func TestBucket(t *testing.T) {
	var service standin.Service
	for _, s := range standin.All() {
		if s.Name == "s3" {
			service = s
		}
	}
	const key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	aws := service.New(standin.Credentials{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": key}, time.Now)
	var mu sync.Mutex
	objects := map[string][]byte{}
	puts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		r.Host = "s3.eu-central-1.amazonaws.com"
		record := httptest.NewRecorder()
		aws.ServeHTTP(record, r)
		mu.Lock()
		defer mu.Unlock()
		puts++
		if record.Code == 200 && r.Method == http.MethodPut {
			if old, again := objects[r.URL.Path]; again && string(old) != string(body) {
				t.Errorf("%s was overwritten with something else", r.URL.Path)
			}
			objects[r.URL.Path] = body
		}
		if puts == 1 { // the object is there, and the answer gets lost
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(record.Code)
		_, _ = w.Write(record.Body.Bytes())
	}))
	defer server.Close()
	server.Config.ErrorLog = discard()
	c := &outputs.Sink{Kind: outputs.S3, URL: "http://s3.eu-central-1.amazonaws.com", SecretFile: secret(t, key), Bucket: "acme-data", Prefix: "audit/prod", Region: "eu-central-1", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Every: time.Millisecond}
	s := open(t, c)
	s.Limits.Events = 100
	dialTo(s.Receiver.(*bucket).web, server.Listener.Addr().String())
	r, _ := start(t, quick(newCursors(), s))
	m := newMemory()
	m.write(1050)
	add(t, r, support, m)
	until(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		var g got
		for _, name := range sortedKeys(objects) {
			for _, line := range strings.Split(strings.TrimSpace(gunzip(t, objects[name])), "\n") {
				var e ambit.Event
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					return err
				}
				g.add(support.Name, e.Seq)
			}
		}
		if err := g.whole(support.Name, 1050); err != nil {
			return fmt.Errorf("%w: %+v", err, r.Status())
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if want := "/acme-data/audit/prod/" + support.Name + "/00000000000000000000-00000000000000000099.jsonl.gz"; objects[want] == nil {
		t.Errorf("there is no %s in %v", want, sortedKeys(objects))
	}
	if aws.Accepted() != puts || puts != len(objects)+1 {
		t.Errorf("%d puts, %d accepted, %d objects", puts, aws.Accepted(), len(objects))
	}
}

func TestFormatOfWeb(t *testing.T) {
	body, err := (&webhook{encoder: encoder{ocsf: true, version: "1"}}).body(batch(2))
	if err != nil || !json.Valid(body) || !strings.Contains(string(body), format.OCSFVersion) {
		t.Errorf("%v: %s", err, body)
	}
}
