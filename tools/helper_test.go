package tools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"ambit"
	"ambit/tools"
)

// grant is one of a Checker that logs nothing.
type grant struct {
	event    uint64
	used     int
	outcomes []ambit.Outcome
}

func (g *grant) Use() error {
	if g.used++; g.used > 1 {
		return errors.New("used already")
	}
	return nil
}
func (g *grant) Event() uint64          { return g.event }
func (g *grant) Finish(o ambit.Outcome) { g.outcomes = append(g.outcomes, o) }

// checker grants everything, or what decide says, and keeps what it was asked.
type checker struct {
	decide func(*ambit.ToolCall) error

	mu     sync.Mutex
	calls  []*ambit.ToolCall
	grants []*grant
}

func (c *checker) CheckTool(_ context.Context, call *ambit.ToolCall) (tools.Grant, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
	if c.decide != nil {
		if err := c.decide(call); err != nil {
			return nil, err
		}
	}
	g := &grant{event: uint64(len(c.calls))}
	c.grants = append(c.grants, g)
	return g, nil
}

type runner func(context.Context, *ambit.ToolCall) (tools.Result, error)

func (f runner) Run(ctx context.Context, g tools.Grant, call *ambit.ToolCall) (tools.Result, error) {
	if err := g.Use(); err != nil {
		return tools.Result{}, err
	}
	return f(ctx, call)
}

// echo returns its arguments.
func echo(_ context.Context, call *ambit.ToolCall) (tools.Result, error) {
	return tools.Result{JSON: call.Args}, nil
}

const orderSchema = `{"type":"object","required":["order"],"properties":{"order":{"type":"string"},"amount":{"type":"number"},"lines":{"type":"array","items":{"type":"object","properties":{"sku":{"type":"string"}}}}}}`

func refund() *ambit.Tool {
	return &ambit.Tool{Name: "shop.refunds.create", Description: "Refunds an order.", Input: json.RawMessage(orderSchema), Effects: []ambit.Effect{ambit.EffectSpend}}
}

// served is a gateway on loopback.
type served struct {
	*httptest.Server
	t       *testing.T
	gateway *tools.Gateway
	checker *checker
}

func serve(t *testing.T, config tools.Config, entries ...tools.Entry) *served {
	t.Helper()
	s := &served{t: t, checker: &checker{}}
	config.Agent, config.Tools = "support", &tools.Registry{}
	if config.Checker == nil {
		config.Checker = s.checker
	}
	if len(entries) == 0 {
		entries = []tools.Entry{{Tool: refund(), Runner: runner(echo)}}
	}
	if err := config.Tools.Set(entries); err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(nil)
	config.Hosts = []string{s.Listener.Addr().String()}
	g, err := tools.New(config)
	if err != nil {
		t.Fatal(err)
	}
	s.gateway, s.Config.Handler = g, g
	s.Start()
	t.Cleanup(func() { s.Close(); g.Close() })
	return s
}

// connect returns a session of the real SDK's client.
func (s *served) connect(revision string) *mcp.ClientSession {
	s.t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	session, err := client.Connect(s.t.Context(), &mcp.StreamableClientTransport{Endpoint: s.URL}, &mcp.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { session.Close() })
	return session
}

// post sends bytes, with the header fields of the stateless revision unless head
// says otherwise; a value of "" takes a field out.
func (s *served) post(body string, head map[string]string) (int, map[string]any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.URL, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Mcp-Protocol-Version", "2026-07-28")
	req.Header.Set("Mcp-Method", "tools/call")
	for name, value := range head {
		if req.Header.Del(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	if host := head["Host"]; host != "" {
		req.Host = host
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var m map[string]any
	if len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &m); err != nil {
			s.t.Fatalf("answer %q: %v", b, err)
		}
	}
	return res.StatusCode, m
}

// callOf is the body of a call in the stateless revision.
func callOf(name, args string) string {
	n, _ := json.Marshal(name)
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":` + string(n) + `,"arguments":` + args + `}}`
}

func textOf(t *testing.T, r *mcp.CallToolResult) string {
	t.Helper()
	if len(r.Content) != 1 {
		t.Fatalf("%d blocks of content", len(r.Content))
	}
	text, ok := r.Content[0].(*mcp.TextContent)
	if !ok {
		t.Fatalf("content is %T", r.Content[0])
	}
	return text.Text
}
