package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"ambit/internal/inert"
)

// Gateway is the MCP server of one agent. It is an http.Handler for one path, safe
// for concurrent use.
type Gateway struct {
	cfg      Config
	own      []*tool // built in
	sessions sessions
	kept     keeper
	running  chan struct{} // holds a token for each call
	waiting  chan struct{} // and for each program that waits for an answer

	// Calls that a person agreed to go on when the program that asked is gone.
	later  context.Context
	cancel context.CancelFunc
	calls  sync.WaitGroup
}

// New returns a Gateway.
func New(c Config) (*Gateway, error) {
	if c.Tools == nil || c.Checker == nil || c.Agent == "" {
		return nil, errors.New("making the tools' gateway: the agent, its tools or what decides is missing")
	}
	if c.Hosts == nil {
		c.Hosts = []string{"ambit.internal"}
	}
	if c.CallTime == 0 {
		c.CallTime = 5 * time.Minute
	}
	if c.MaxResult == 0 {
		c.MaxResult = 1 << 20
	}
	if c.Version == "" {
		c.Version = "0"
	}
	g := &Gateway{cfg: c, running: make(chan struct{}, maxCalls), waiting: make(chan struct{}, maxCalls)}
	g.later, g.cancel = context.WithCancel(context.Background())
	var err error
	if g.own, err = g.builtins(); err != nil {
		return nil, fmt.Errorf("making the tools' gateway: %w", err)
	}
	return g, nil
}

// Close ends the calls that run without anybody waiting for them, and returns when
// they have ended. It is called after the last request.
func (g *Gateway) Close() {
	g.cancel()
	g.calls.Wait()
}

// ServeHTTP implements http.Handler. Whoever serves it bounds how long a request
// may take to come; an answer may take as long as a call.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p := g.comesFrom(r); p != nil {
		writeProblem(w, nil, p)
		return
	}
	switch r.Method {
	case http.MethodPost:
		g.post(w, r)
	case http.MethodDelete:
		g.end(w, r)
	default: // also GET: there is no stream of our own
		h.Set("Allow", "POST, DELETE")
		writeProblem(w, nil, &problem{http.StatusMethodNotAllowed, codeRequest, "messages are sent with POST; there is no stream to GET", nil})
	}
}

// comesFrom refuses pages and names that are not ours (DNS rebinding), and header
// fields that stand there twice.
func (g *Gateway) comesFrom(r *http.Request) *problem {
	for _, name := range []string{"Content-Type", "Content-Encoding", "Origin", headerVersion, headerSession, headerMethod, headerName} {
		if len(r.Header.Values(name)) > 1 {
			return bad(codeRequest, "the header field "+name+" stands there twice")
		}
	}
	if !slices.Contains(g.cfg.Hosts, r.Host) {
		return &problem{http.StatusForbidden, codeRequest, "this is served under another name", nil}
	}
	if origin := r.Header["Origin"]; len(origin) > 0 && !slices.Contains(g.cfg.Origins, origin[0]) {
		return &problem{http.StatusForbidden, codeRequest, "pages of this origin may not call tools", nil}
	}
	return nil
}

func (g *Gateway) end(w http.ResponseWriter, r *http.Request) {
	if !g.sessions.end(r.Header.Get(headerSession)) {
		writeProblem(w, nil, noSession())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func noSession() *problem {
	return &problem{http.StatusNotFound, codeRequest, "there is no such session; initialize a new one", nil}
}

func (g *Gateway) post(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Content-Encoding") != "" {
		writeProblem(w, nil, &problem{http.StatusUnsupportedMediaType, codeRequest, "a message is application/json, as it is", nil})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxMessage))
	if err != nil {
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			writeProblem(w, nil, &problem{http.StatusRequestEntityTooLarge, codeRequest, fmt.Sprintf("a message has at most %d bytes", MaxMessage), nil})
			return
		}
		writeProblem(w, nil, bad(codeRequest, "the body did not come whole"))
		return
	}
	m, p := readMessage(body)
	if p == nil {
		g.serve(w, r, m)
		return
	}
	var id json.RawMessage
	if m != nil {
		id = m.id
	}
	writeProblem(w, id, p)
}

// serve answers a message by its revision.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, m *message) {
	version, id := r.Header.Get(headerVersion), r.Header.Get(headerSession)
	if version != "" && !slices.Contains(revisions(), version) {
		writeProblem(w, m.id, unsupported(version))
		return
	}
	c := &caller{gateway: g, version: version, task: defaultTask}
	switch {
	case version == stateless:
		if id != "" {
			writeProblem(w, m.id, bad(codeRequest, "revision "+stateless+" has no sessions; leave Mcp-Session-Id out"))
			return
		}
	case m.method == "initialize":
		if id != "" {
			writeProblem(w, m.id, bad(codeRequest, "a session is initialized once"))
			return
		}
	case id == "" && version == "" && m.meta[metaVersion] != nil:
		writeProblem(w, m.id, bad(codeHeaderMismatch, "header mismatch: MCP-Protocol-Version is missing"))
		return
	case id == "":
		writeProblem(w, m.id, bad(codeRequest, "Mcp-Session-Id is missing; initialize a session, or send MCP-Protocol-Version: "+stateless))
		return
	default:
		s, ok := g.sessions.get(id)
		if !ok {
			writeProblem(w, m.id, noSession())
			return
		}
		if version != "" && version != s.version {
			writeProblem(w, m.id, bad(codeHeaderMismatch, "header mismatch: this session speaks "+s.version))
			return
		}
		c.version, c.task = s.version, s.task
	}
	if p := m.agree(r.Header, c.version); p != nil {
		writeProblem(w, m.id, p)
		return
	}
	if p := c.nameTask(m); p != nil {
		writeProblem(w, m.id, p)
		return
	}
	if m.id == nil { // there is nothing that a client could tell us
		w.WriteHeader(http.StatusAccepted)
		return
	}
	result, p := c.answer(r.Context(), w.Header(), m)
	if p != nil {
		writeProblem(w, m.id, p)
		return
	}
	c.write(w, m.id, result)
}

func unsupported(version string) *problem {
	return &problem{http.StatusBadRequest, codeVersion, "this revision of the protocol is not spoken here",
		map[string]any{"supported": revisions(), "requested": shorten(inert.Text(version), 64)}}
}

// caller is who sent a message, as far as that matters.
type caller struct {
	gateway *Gateway
	version string
	task    string
}

// defaultTask is what a call belongs to that says nothing of it.
const defaultTask = "default"

// nameTask takes the task from _meta. A task that the agent names is never one that
// we have made.
func (c *caller) nameTask(m *message) *problem {
	v, ok := m.meta["ambit/task"]
	if !ok {
		return nil
	}
	name, ok := v.(string)
	if !ok || !validTask(name) {
		return bad(codeParams, "_meta: ambit/task has 1 to 64 letters, digits, dots, _ and -")
	}
	c.task = "named:" + name
	return nil
}

func validTask(s string) bool {
	for _, b := range []byte(s) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// answer is the result of a request. Header is that of the answer.
func (c *caller) answer(ctx context.Context, header http.Header, m *message) (map[string]any, *problem) {
	legacy := c.version != stateless
	switch {
	case m.method == "tools/list":
		return c.list(m)
	case m.method == "tools/call":
		return c.callTool(ctx, m)
	case m.method == "initialize" && legacy:
		return c.initialize(header, m)
	case m.method == "ping" && legacy:
		return map[string]any{}, m.only()
	case m.method == "server/discover" && !legacy:
		if p := m.only(); p != nil {
			return nil, p
		}
		return c.cacheable(map[string]any{
			"supportedVersions": revisions(), "capabilities": capabilities(), "instructions": instructions,
		}), nil
	}
	status := http.StatusOK
	if !legacy {
		status = http.StatusNotFound
	}
	return nil, &problem{status, codeMethod, "there is no method " + quoted(m.method), nil}
}

func capabilities() map[string]any { return map[string]any{"tools": map[string]any{}} }

const instructions = "These are the tools that this agent may use. Each call is decided by rules and logged; state your intent in the argument for it. A call may wait for a person: the answer then names a question; go on with other work and fetch the result with ambit.result."

func (c *caller) serverInfo() map[string]any {
	return map[string]any{"name": "ambit", "title": "Ambit", "version": c.gateway.cfg.Version}
}

func (c *caller) initialize(header http.Header, m *message) (map[string]any, *problem) {
	if p := m.only("protocolVersion", "capabilities", "clientInfo"); p != nil {
		return nil, p
	}
	version, _ := m.params["protocolVersion"].(string)
	if version == "" {
		return nil, bad(codeParams, "protocolVersion is missing")
	}
	if version != newest && version != oldest {
		version = newest // the client decides whether it speaks that
	}
	header.Set(headerSession, c.gateway.sessions.begin(version))
	return map[string]any{
		"protocolVersion": version, "capabilities": capabilities(), "serverInfo": c.serverInfo(), "instructions": instructions,
	}, nil
}

// cacheable adds what the stateless revision wants in results that could be kept.
func (c *caller) cacheable(result map[string]any) map[string]any {
	if c.version == stateless {
		result["ttlMs"], result["cacheScope"] = 0, "private"
	}
	return result
}

// A page of tools/list ends after so many tools, or so many bytes of them.
const (
	pageSize  = 100
	pageBytes = 1 << 20
)

// list answers tools/list: the tools that this agent may see, by name. A cursor is
// the name of the last tool of a page.
func (c *caller) list(m *message) (map[string]any, *problem) {
	if p := m.only("cursor"); p != nil {
		return nil, p
	}
	after := ""
	if v, ok := m.params["cursor"]; ok {
		if after, ok = v.(string); !ok || !ValidName(after) {
			return nil, bad(codeParams, "this is no cursor of ours")
		}
	}
	result := c.cacheable(map[string]any{})
	page := make([]json.RawMessage, 0, pageSize)
	last, size := "", 0
	for _, t := range c.gateway.visible() {
		if t.Tool.Name <= after {
			continue
		}
		if len(page) == pageSize || size > pageBytes {
			result["nextCursor"] = last
			break
		}
		b, err := t.publish(c.gateway.cfg.IntentRequired)
		if err != nil {
			return nil, &problem{http.StatusInternalServerError, codeInternal, "a tool cannot be described", nil}
		}
		page, last, size = append(page, b), t.Tool.Name, size+len(b)
	}
	result["tools"] = page
	return result, nil
}

// visible are the tools that this agent may see, by name; those that are built in
// come where their names do.
func (g *Gateway) visible() []*tool {
	all := slices.Clone(g.own)
	for _, t := range g.cfg.Tools.all() {
		if g.sees(t.Tool.Name) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *tool) int { return bytes.Compare([]byte(a.Tool.Name), []byte(b.Tool.Name)) })
	return all
}

func (g *Gateway) sees(name string) bool { return g.cfg.Visible == nil || g.cfg.Visible(name) }

// find returns the tool of exactly this name if the agent may see it, or nil.
func (g *Gateway) find(name string) *tool {
	for _, t := range g.own {
		if t.Tool.Name == name {
			return t
		}
	}
	if t := g.cfg.Tools.find(name); t != nil && g.sees(name) {
		return t
	}
	return nil
}

func (c *caller) write(w http.ResponseWriter, id json.RawMessage, result map[string]any) {
	if c.version == stateless {
		result["resultType"] = "complete"
		result["_meta"] = map[string]any{"io.modelcontextprotocol/serverInfo": c.serverInfo()}
	}
	writeJSON(w, http.StatusOK, map[string]any{"jsonrpc": "2.0", "id": id, "result": result})
}

func writeProblem(w http.ResponseWriter, id json.RawMessage, p *problem) {
	e := map[string]any{"code": p.code, "message": p.text}
	if p.data != nil {
		e["data"] = p.data
	}
	m := map[string]any{"jsonrpc": "2.0", "id": nil, "error": e}
	if id != nil {
		m["id"] = id
	}
	writeJSON(w, p.status, m)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString(`{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"the answer cannot be written"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client is gone, or it is not
}
