//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ambit/internal/standin"
)

// services are the hosts that the SDKs call. Whether a credential is right is
// for package standin to say; only then is the request answered, with what the
// SDK expects of it.
type services struct {
	*upstream
	addr    net.IP
	servers map[string]*standin.Server
	values  map[string]standin.Credentials // of the accounts, by connector
	objects *bucket
	came    *tape // every request that reached a service
	desk    *desk // that of oauth2
}

// accounts are real credentials: what nobody but the services may ever see.
func accounts() map[string]standin.Credentials {
	return map[string]standin.Credentials{
		"anthropic": {"key": "sk-ant-api03-realRealReal0123456789realRealReal"},
		"bearer":    {"token": "realRealRealBearer/0123456789+realRealReal="},
		"github":    {"token": "ghp_realRealReal0123456789realRealReal0z"},
		"oauth2":    {"client_id": "ambit-at-oauth", "client_secret": "realRealClientSecret/0123456789+realReal"},
		"openai":    {"key": "sk-proj-realRealReal0123456789realRealReal"},
		"s3":        {"access_key_id": "AKIAREALREALREAL0000", "secret_access_key": "real/Secret+Access/Key0123456789realReal"},
		"slack":     {"token": "xoxb-111111111111-2222222222222-realRealReal0123456789re"},
		"stripe":    {"key": "rk_live_realRealReal0123456789real"},
	}
}

// newServices serves them on a loopback address of their own, at port 443 if
// the tests may bind it, as root may.
func newServices(t *testing.T) *services {
	t.Helper()
	s := &services{addr: net.IPv4(127, 0, 0, 1), servers: map[string]*standin.Server{}, values: accounts(), objects: newBucket(), came: &tape{}}
	play := map[string]http.Handler{
		"anthropic": playAnthropic(), "bearer": playBearer(), "github": playGitHub(t), "openai": playOpenAI(), "s3": s.objects, "slack": playSlack(), "stripe": playStripe(),
	}
	routes := http.NewServeMux()
	var names []string
	for _, service := range standin.All() {
		if s.values[service.Name] == nil {
			continue
		}
		server := service.New(s.values[service.Name], time.Now)
		s.servers[service.Name] = server
		handler := guarded(server, play[service.Name])
		if service.Name == "oauth2" {
			s.desk = &desk{server: server}
			handler = s.desk
		}
		for _, host := range service.Hosts {
			routes.Handle(host+"/", s.came.notes(handler))
			names = append(names, host)
		}
	}
	s.upstream = newUpstream(t, routes, names...)
	s.bind443(t)
	return s
}

// bind443 serves at port 443 too, if that is permitted.
func (s *services) bind443(t *testing.T) {
	t.Helper()
	for last := byte(1); last < 250; last++ {
		addr := net.IPv4(127, 77, 0, last)
		l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "443"))
		if err != nil {
			continue
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Config.Serve(tls.NewListener(l, s.TLS)) // ends when l is closed
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
		s.addr, s.port = addr, 443
		return
	}
	t.Log("port 443 of a loopback address cannot be had: the SDKs are told another port")
}

// connection is an item of a manifest's connectors.
func (s *services) connection(name, more string) string {
	return fmt.Sprintf("  - name: %s\n    ports: [%d]\n    private: true\n    resolve: [%s]\n%s    ca: |\n      %s\n",
		name, s.port, s.addr, more, strings.ReplaceAll(strings.TrimSpace(s.ca), "\n", "\n      "))
}

// connect gives an agent's connection its account's credential, as a person
// does who has it in a file.
func (s *services) connect(h *home, agent, name string) {
	h.t.Helper()
	if r, err := h.tryWith(s.given(name), "connect", agent, name); err != nil || !strings.Contains(r.stdout, "is connected") {
		h.t.Fatalf("connecting %s: %v\n%s%s", name, err, r.stdout, r.stderr)
	}
}

// given is what a person gives to connect an account: one value, or several by
// name.
func (s *services) given(name string) []byte {
	have := s.values[name]
	if len(have) == 1 {
		for _, value := range have {
			return []byte(value + "\n")
		}
	}
	b, err := json.Marshal(have)
	if err != nil {
		panic(err) // texts by text
	}
	return b
}

// guarded passes on what the server accepts, with a body that is whole, unless
// an echo is asked for, which is the server's own.
func guarded(server *standin.Server, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		again := func() { r.Body = io.NopCloser(bytes.NewReader(body)) }
		again()
		said := httptest.NewRecorder()
		server.ServeHTTP(said, r)
		if said.Code != http.StatusOK || r.URL.Query().Has("X-Echo") || strings.Contains(said.Body.String(), `"ok":false`) {
			for name, values := range said.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(said.Code)
			_, _ = w.Write(said.Body.Bytes())
			return
		}
		again()
		r.ContentLength, r.TransferEncoding = int64(len(body)), nil
		next.ServeHTTP(w, r)
	})
}

// say answers with JSON.
func say(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, format, args...)
}

// quoted is a text as JSON.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}

func playGitHub(t *testing.T) http.Handler {
	_, git := newRepository(t)
	backend, ok := git.(*cgi.Handler)
	if !ok {
		t.Fatalf("the repository is served by a %T", git)
	}
	backend.Root = "/acme"
	backend.Env = append(backend.Env, "REMOTE_USER=agent") // so that git lets it push
	mux := http.NewServeMux()
	mux.Handle("github.com/acme/", backend)
	mux.HandleFunc("GET /repos/acme/shop", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, `{"id":1,"name":"shop","full_name":"acme/shop","private":true}`)
	})
	mux.HandleFunc("POST /repos/acme/shop/issues", func(w http.ResponseWriter, r *http.Request) {
		var issue struct{ Title string }
		if err := json.NewDecoder(r.Body).Decode(&issue); err != nil {
			say(w, http.StatusUnprocessableEntity, `{"message":%s}`, quoted(err.Error()))
			return
		}
		say(w, http.StatusCreated, `{"number":42,"title":%s,"state":"open"}`, quoted(issue.Title))
	})
	mux.HandleFunc("POST /repos/acme/shop/releases/7/assets", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		say(w, http.StatusCreated, `{"id":9,"name":%s,"size":%d}`, quoted(r.URL.Query().Get("name")), len(b))
	})
	return mux
}

func playStripe() http.Handler {
	customer := func(id, email, order string) string {
		return fmt.Sprintf(`{"id":%q,"object":"customer","email":%s,"metadata":{"order":%s}}`, id, quoted(email), quoted(order))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/customers", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") == "" {
			say(w, http.StatusBadRequest, `{"error":{"type":"invalid_request_error","message":"no Idempotency-Key"}}`)
			return
		}
		say(w, http.StatusOK, "%s", customer("cus_new", r.FormValue("email"), r.FormValue("metadata[order]")))
	})
	mux.HandleFunc("GET /v1/customers", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("starting_after") == "" {
			say(w, http.StatusOK, `{"object":"list","url":"/v1/customers","has_more":true,"data":[%s]}`, customer("cus_1", "a@customer.example", "1"))
			return
		}
		say(w, http.StatusOK, `{"object":"list","url":"/v1/customers","has_more":false,"data":[%s]}`, customer("cus_2", "b@customer.example", "2"))
	})
	mux.HandleFunc("GET /v1/customers/{id}", func(w http.ResponseWriter, r *http.Request) {
		say(w, http.StatusNotFound, `{"error":{"code":"resource_missing","message":"No such customer: %s","type":"invalid_request_error"}}`, r.PathValue("id"))
	})
	return mux
}

func playSlack() http.Handler {
	var mu sync.Mutex
	var texts []string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/auth.test", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, `{"ok":true,"user":"ambit","team":"Acme","user_id":"U1","team_id":"T1"}`)
	})
	mux.HandleFunc("POST /api/chat.postMessage", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		texts = append(texts, r.FormValue("text"))
		say(w, http.StatusOK, `{"ok":true,"channel":%q,"ts":"1700000000.000100"}`, r.FormValue("channel"))
	})
	mux.HandleFunc("POST /api/conversations.history", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var list []string
		for _, text := range texts {
			list = append(list, `{"type":"message","ts":"1700000000.000100","text":`+quoted(text)+`}`)
		}
		say(w, http.StatusOK, `{"ok":true,"messages":[%s]}`, strings.Join(list, ","))
	})
	return mux
}

// playBearer hands its caller's credential back where the stand-in's echo does
// not, and has an answer that does not end by itself.
func playBearer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /split", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range r.Header.Get("Authorization") {
			_, _ = io.WriteString(w, string(c))
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, " was split")
	})
	mux.HandleFunc("GET /packed", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip") // nobody asked for it
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, r.Header.Get("Authorization")+" was packed")
		_ = z.Close()
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		tick, limit := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, "more\n"); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-limit: // a test that failed must end, too
				return
			case <-tick.C:
			}
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, `{"hello":"you"}`) })
	return mux
}

// streams sends server-sent events, each as soon as it is there.
func streams(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	c := http.NewResponseController(w)
	for _, e := range events {
		_, _ = io.WriteString(w, e+"\n\n")
		_ = c.Flush()
	}
}

// wantsStream says whether a model's answer is to be a stream.
func wantsStream(r *http.Request) bool {
	var q struct{ Stream bool }
	return json.NewDecoder(r.Body).Decode(&q) == nil && q.Stream
}

func playAnthropic() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, r *http.Request) {
		const message = `{"id":"msg_1","type":"message","role":"assistant","model":"claude-stand-in","content":[%s],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":3}}`
		if !wantsStream(r) {
			say(w, http.StatusOK, message, `{"type":"text","text":"very well"}`)
			return
		}
		streams(w,
			"event: message_start\ndata: {\"type\":\"message_start\",\"message\":"+fmt.Sprintf(message, "")+"}",
			"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}",
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"very \"}}",
			"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"well\"}}",
			"event: message_stop\ndata: {\"type\":\"message_stop\"}")
	})
	return mux
}

func playOpenAI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		if !wantsStream(r) {
			say(w, http.StatusOK, `{"id":"c1","object":"chat.completion","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"very well"}}]}`)
			return
		}
		delta := func(text string) string {
			return `data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":` + quoted(text) + `}}]}`
		}
		streams(w, delta("very "), delta("well"), "data: [DONE]")
	})
	return mux
}

// bucket plays S3's storage for one bucket, at its own host or below its name.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
	parts   map[int][]byte
	framed  int // bodies that came in chunks with a checksum in the trailer
	signed  int // bodies whose hash was signed
	urls    int // requests that were signed in their URL
}

func newBucket() *bucket { return &bucket{objects: map[string][]byte{}, parts: map[int][]byte{}} }

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := content(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch hash := r.Header.Get("X-Amz-Content-Sha256"); {
	case r.URL.Query().Has("X-Amz-Signature"):
		b.urls++
	case strings.HasPrefix(hash, "STREAMING-"):
		b.framed++
	case r.Method == http.MethodPut && len(hash) == 64:
		b.signed++
	}
	name, q := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		b.parts = map[int][]byte{}
		answerXML(w, `<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPost && q.Get("uploadId") == "u1":
		b.objects[name] = b.join()
		answerXML(w, `<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodPut && q.Get("uploadId") == "u1":
		n, err := strconv.Atoi(q.Get("partNumber"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.parts[n] = body
		w.Header().Set("Etag", fmt.Sprintf(`"part%d"`, n))
	case r.Method == http.MethodPut:
		b.objects[name] = body
	case r.Method == http.MethodDelete:
		delete(b.objects, name)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet && q.Get("list-type") == "2":
		b.list(w, q.Get("prefix"))
	case r.Method == http.MethodGet && b.objects[name] != nil:
		w.Header().Set("X-Amz-Checksum-Crc32", checksum(b.objects[name]))
		w.Header().Set("X-Amz-Checksum-Type", "FULL_OBJECT")
		_, _ = w.Write(b.objects[name])
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `<Error><Code>NoSuchKey</Code></Error>`)
	}
}

func (b *bucket) join() []byte {
	var all []byte
	for n := 1; b.parts[n] != nil; n++ {
		all = append(all, b.parts[n]...)
	}
	return all
}

func (b *bucket) list(w http.ResponseWriter, prefix string) {
	var list strings.Builder
	for name := range b.objects {
		if strings.HasPrefix(name, prefix) {
			list.WriteString("<Contents><Key>")
			_ = xml.EscapeText(&list, []byte(name)) // to memory
			list.WriteString("</Key></Contents>")
		}
	}
	answerXML(w, "<ListBucketResult>"+list.String()+"</ListBucketResult>")
}

func answerXML(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.Header+text)
}

func checksum(b []byte) string {
	sum := crc32.NewIEEE()
	_, _ = sum.Write(b)
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

// content is the body of a request without the chunks of
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html,
// compared with the checksum that came with it.
func content(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	sum := r.Header.Get("X-Amz-Checksum-Crc32")
	if strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		var whole []byte
		for {
			head, rest, ok := bytes.Cut(body, []byte("\r\n"))
			size, _, _ := strings.Cut(string(head), ";")
			n, err := strconv.ParseUint(size, 16, 31)
			if !ok || err != nil || n+2 > uint64(len(rest)) {
				return nil, fmt.Errorf("a chunk that starts with %q", head)
			}
			if n == 0 {
				_, sum, _ = strings.Cut(strings.TrimSpace(string(rest)), "x-amz-checksum-crc32:")
				break
			}
			whole, body = append(whole, rest[:n]...), rest[n+2:]
		}
		body = whole
	}
	if sum != "" && sum != checksum(body) {
		return nil, fmt.Errorf("the checksum is %s, and that of the body %s", sum, checksum(body))
	}
	return body, nil
}

// values that nobody but the services may see, for a search.
func (s *services) secrets() []string {
	var all []string
	for _, have := range s.values {
		for field, value := range have {
			if field != "access_key_id" && field != "client_id" { // which are no secrets
				all = append(all, standin.Forms(value)...)
				all = append(all, url.QueryEscape(value))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
