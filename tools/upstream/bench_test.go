package upstream_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"ambit"
	"ambit/tools"
)

// trivial grants everything.
type trivial struct{}

func (trivial) CheckTool(context.Context, *ambit.ToolCall) (tools.Grant, error) {
	return &grant{}, nil
}

// BenchmarkCall compares a call through a gateway, with a Checker that does nothing,
// with one straight to the same server. Both use the SDK's client.
func BenchmarkCall(b *testing.B) {
	_, url := server(b, true, define("get", "Gets an order."))
	call := func(b *testing.B, url, name string) {
		client := mcp.NewClient(&mcp.Implementation{Name: "bench", Version: "1"}, nil)
		session, err := client.Connect(b.Context(), &mcp.StreamableClientTransport{Endpoint: url}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer session.Close()
		b.ReportAllocs()
		for b.Loop() {
			r, err := session.CallTool(b.Context(), &mcp.CallToolParams{Name: name, Arguments: json.RawMessage(`{"order":"1001"}`)})
			if err != nil || r.IsError {
				b.Fatal(r, err)
			}
		}
	}
	b.Run("straight", func(b *testing.B) { call(b, url, "get") })
	b.Run("gateway", func(b *testing.B) {
		k := book(b)
		u := newUpstream(b, k, url, nil)
		if err := u.Refresh(b.Context()); err != nil {
			b.Fatal(err)
		}
		items, err := k.List(b.Context(), "shop")
		if err != nil {
			b.Fatal(err)
		}
		if err := k.Accept(b.Context(), "shop", "get", items[0].Hash, "uid:1000", reads()); err != nil {
			b.Fatal(err)
		}
		entries, err := u.Entries(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		registry := &tools.Registry{}
		if err := registry.Set(entries); err != nil {
			b.Fatal(err)
		}
		s := httptest.NewUnstartedServer(nil)
		g, err := tools.New(tools.Config{Agent: "a", Tools: registry, Checker: trivial{}, Hosts: []string{s.Listener.Addr().String()}})
		if err != nil {
			b.Fatal(err)
		}
		s.Config.Handler = g
		s.Start()
		b.Cleanup(func() { s.Close(); g.Close() })
		call(b, s.URL, "shop.get")
	})
	// The gateway alone: its own tool, nothing upstream.
	b.Run("alone", func(b *testing.B) {
		registry := &tools.Registry{}
		tool := &ambit.Tool{Name: "shop.get", Input: json.RawMessage(input)}
		if err := registry.Set([]tools.Entry{{Tool: tool, Runner: itself{}}}); err != nil {
			b.Fatal(err)
		}
		g, err := tools.New(tools.Config{Agent: "a", Tools: registry, Checker: trivial{}, Hosts: []string{"ambit.internal"}})
		if err != nil {
			b.Fatal(err)
		}
		defer g.Close()
		const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"shop.get","arguments":{"order":"1001"}}}`
		b.ReportAllocs()
		for b.Loop() {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://ambit.internal/mcp", strings.NewReader(body))
			r.Header = http.Header{"Content-Type": {"application/json"}, "Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"shop.get"}}
			w := httptest.NewRecorder()
			if g.ServeHTTP(w, r); w.Code != http.StatusOK {
				b.Fatal(w.Body)
			}
		}
	})
}

type itself struct{}

func (itself) Run(_ context.Context, _ tools.Grant, call *ambit.ToolCall) (tools.Result, error) {
	return tools.Result{JSON: call.Args}, nil
}
