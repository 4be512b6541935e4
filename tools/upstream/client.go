package upstream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"ambit/internal/inert"
	"ambit/internal/jcs"
)

// Limits of what a server can make us hold or read.
const (
	maxAnswer  = 4 << 20 // bytes of one answer, with the events before it
	maxEvents  = 1000    // before an answer
	maxPages   = 20
	maxOffered = 256     // tools
	maxOffer   = 4 << 20 // bytes of all their definitions
	maxDepth   = 64
	maxText    = 1 << 10 // bytes of what a server says that goes into an error
)

// The revisions that are spoken to servers.
const stateless = "2026-07-28"

func withSessions() []string { return []string{"2025-11-25", "2025-06-18", "2025-03-26"} }

const (
	metaVersion      = "io.modelcontextprotocol/protocolVersion"
	metaInfo         = "io.modelcontextprotocol/clientInfo"
	metaCapabilities = "io.modelcontextprotocol/clientCapabilities"
)

// client speaks to one server. It declares no capability, so that a server has
// nothing to ask; one that asks all the same ends the request. Every exchange is one
// POST, and what comes is bound to it.
type client struct {
	http    *http.Client
	url     string
	version string // of this program

	mu   sync.Mutex
	peer peer
	last int64 // the id of the last request
}

// peer is what was agreed with the server; the zero value is nothing yet.
type peer struct{ revision, session string }

func newClient(c Config) *client {
	h := *c.Client
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h.Jar = nil
	return &client{http: &h, url: c.URL, version: c.Version}
}

// remote is an error that the server answered with.
type remote struct {
	code int
	text string
}

func (e *remote) Error() string {
	return fmt.Sprintf("the server refused it: %s (%d)", e.text, e.code)
}

// status is an answer of HTTP that is none of MCP.
type status int

func (s status) Error() string {
	return fmt.Sprintf("the server answered with HTTP status %d", int(s))
}

// errSession says that the server does not know the session any more: nothing was
// done.
var errSession = errors.New("the server ended the session")

// request sends a request and returns its result. A session that has ended is begun
// anew once.
func (c *client) request(ctx context.Context, method string, params map[string]any) (map[string]any, error) {
	for again := false; ; again = true {
		p, err := c.agree(ctx)
		if err != nil {
			return nil, err
		}
		result, _, err := c.exchange(ctx, p, method, params)
		if !errors.Is(err, errSession) || again {
			return result, err
		}
		c.mu.Lock()
		if c.peer == p {
			c.peer = peer{}
		}
		c.mu.Unlock()
	}
}

// agree finds out which revision the server speaks: the newest first.
func (c *client) agree(ctx context.Context) (peer, error) {
	c.mu.Lock()
	p := c.peer
	c.mu.Unlock()
	if p != (peer{}) {
		return p, nil
	}
	p = peer{revision: stateless}
	result, _, err := c.exchange(ctx, p, "server/discover", nil)
	var said *remote
	var code status
	switch {
	case err == nil:
		versions, _ := result["supportedVersions"].([]any)
		if !slices.Contains(versions, any(stateless)) {
			p, err = c.initialize(ctx)
		}
	case errors.As(err, &said), errors.As(err, &code) && code >= 400 && code < 500 && code != 401 && code != 403 && code != 429:
		p, err = c.initialize(ctx)
	}
	if err != nil {
		return peer{}, err
	}
	c.mu.Lock()
	c.peer = p
	c.mu.Unlock()
	return p, nil
}

func (c *client) initialize(ctx context.Context) (peer, error) {
	params := map[string]any{"protocolVersion": withSessions()[0], "capabilities": map[string]any{}, "clientInfo": c.info()}
	result, header, err := c.exchange(ctx, peer{}, "initialize", params)
	if err != nil {
		return peer{}, err
	}
	p := peer{session: header.Get("Mcp-Session-Id")}
	p.revision, _ = result["protocolVersion"].(string)
	if !slices.Contains(withSessions(), p.revision) {
		return peer{}, fmt.Errorf("the server speaks %s of MCP, which is not spoken here", said(p.revision))
	}
	if len(p.session) > 1024 {
		return peer{}, errors.New("the server's session has too long a name")
	}
	return p, c.notify(ctx, p, "notifications/initialized")
}

func (c *client) info() map[string]any {
	version := c.version
	if version == "" {
		version = "0"
	}
	return map[string]any{"name": "ambit", "version": version}
}

// exchange sends one request and reads its answer.
func (c *client) exchange(ctx context.Context, p peer, method string, params map[string]any) (map[string]any, http.Header, error) {
	c.mu.Lock()
	c.last++
	id := c.last
	c.mu.Unlock()
	if params == nil {
		params = map[string]any{}
	}
	if p.revision == stateless {
		params["_meta"] = map[string]any{metaVersion: stateless, metaInfo: c.info(), metaCapabilities: map[string]any{}}
	}
	res, err := c.post(ctx, p, method, params, map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	result, err := readAnswer(res, id)
	switch {
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("the server did not answer in time: %w", ctx.Err())
	case res.StatusCode == http.StatusNotFound && p.session != "":
		return nil, nil, errSession
	}
	return result, res.Header, err
}

func (c *client) notify(ctx context.Context, p peer, method string) error {
	res, err := c.post(ctx, p, method, nil, map[string]any{"jsonrpc": "2.0", "method": method})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return status(res.StatusCode)
	}
	return nil
}

func (c *client) post(ctx context.Context, p peer, method string, params, message map[string]any) (*http.Response, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // the arguments leave as they were decided
	if err := enc.Encode(message); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if p.revision != "" {
		req.Header.Set("Mcp-Protocol-Version", p.revision)
	}
	if p.session != "" {
		req.Header.Set("Mcp-Session-Id", p.session)
	}
	if p.revision == stateless {
		req.Header.Set("Mcp-Method", method)
		if name, ok := params["name"].(string); ok {
			req.Header.Set("Mcp-Name", field(name))
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the server did not answer in time: %w", ctx.Err())
		}
		var with *url.Error // says the address, which can have a secret in it
		if errors.As(err, &with) {
			err = with.Err
		}
		return nil, fmt.Errorf("the server cannot be reached: %s", said(err.Error()))
	}
	return res, nil
}

// readAnswer reads the answer to the request id, and nothing after it.
func readAnswer(res *http.Response, id int64) (map[string]any, error) {
	limited := &io.LimitedReader{R: res.Body, N: maxAnswer + 1}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "text/event-stream" && res.StatusCode == http.StatusOK {
		return readEvents(limited, id)
	}
	if kind != "application/json" {
		if res.StatusCode != http.StatusOK {
			return nil, status(res.StatusCode)
		}
		return nil, fmt.Errorf("the server answered with %s, which is not JSON", said(kind))
	}
	body, err := io.ReadAll(limited)
	if limited.N == 0 {
		return nil, errLong
	}
	if err != nil {
		return nil, fmt.Errorf("the server's answer ended in the middle: %s", said(err.Error()))
	}
	result, done, err := readResponse(body, id, res.StatusCode == http.StatusOK)
	var refused *remote
	switch {
	case res.StatusCode != http.StatusOK && !errors.As(err, &refused):
		return nil, status(res.StatusCode)
	case err == nil && !done:
		return nil, errors.New("the server answered with a notification")
	}
	return result, err
}

var errLong = fmt.Errorf("the server's answer has more than %d bytes", maxAnswer)

// readEvents reads server-sent events up to the one that answers.
func readEvents(r *io.LimitedReader, id int64) (map[string]any, error) {
	lines := bufio.NewReader(r)
	var data []byte
	for events := 0; events < maxEvents; {
		line, err := lines.ReadBytes('\n')
		if r.N == 0 {
			return nil, errLong
		}
		if err != nil {
			return nil, errors.New("the server's answer ended in the middle")
		}
		line = bytes.TrimRight(line, "\r\n")
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(value, []byte(" "))...)
			continue
		}
		if len(line) > 0 {
			continue
		}
		if events++; len(bytes.TrimSpace(data)) > 0 {
			if result, done, err := readResponse(data, id, true); done || err != nil {
				return result, err
			}
		}
		data = nil
	}
	return nil, fmt.Errorf("the server sent %d events and no answer", maxEvents)
}

// readResponse reads one message of the server. done is false of a notification,
// which says nothing that we act upon.
func readResponse(b []byte, id int64, strict bool) (result map[string]any, done bool, err error) {
	v, err := jcs.Parse(b, maxDepth)
	if err != nil {
		return nil, false, fmt.Errorf("the server's answer is not acceptable JSON: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok || m["jsonrpc"] != "2.0" {
		return nil, false, errors.New("the server's answer is no JSON-RPC message")
	}
	if method, ok := m["method"].(string); ok {
		if _, asks := m["id"]; asks && method != "ping" {
			return nil, false, fmt.Errorf("the server asked for %s, which is refused: an upstream answers and does not ask", said(method))
		}
		return nil, false, nil
	}
	for name := range m {
		if !slices.Contains([]string{"jsonrpc", "id", "result", "error"}, name) {
			return nil, false, fmt.Errorf("the server's answer has a field %s", said(name))
		}
	}
	e, refused := m["error"].(map[string]any)
	if m["id"] != float64(id) && (!refused || m["id"] != nil || strict) {
		return nil, false, errors.New("the server answered something that it was not asked")
	}
	if refused {
		if m["result"] != nil {
			return nil, false, errors.New("the server's answer is a result and an error")
		}
		code, _ := e["code"].(float64)
		text, _ := e["message"].(string)
		return nil, true, &remote{int(code), said(text)}
	}
	if result, ok = m["result"].(map[string]any); !ok {
		return nil, false, errors.New("the server's answer has no result")
	}
	if kind, ok := result["resultType"]; ok && kind != "complete" {
		return nil, false, errors.New("the server asks for more input, which is refused: an upstream answers and does not ask")
	}
	return result, true, nil
}

// said makes what a server said one short line.
func said(s string) string {
	s = inert.Text(strings.TrimSpace(s))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
