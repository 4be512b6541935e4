package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"{\"a\":1}"}]}}`,
		`{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no"}}`,
		"event: message\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{}}\n\n",
		"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\r\n\r\n: x\n\ndata:\n\n",
		`{"jsonrpc":"2.0","id":7,"result":{"structuredContent":[1],"isError":true}}`,
		`{"jsonrpc":"2.0","id":7,"result":{"tools":[{"name":"x","inputSchema":{}}]}}`,
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, events bool) {
		kind := "application/json"
		if events {
			kind = "text/event-stream"
		}
		res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(s))}
		m, err := readAnswer(res, 7)
		if err != nil {
			if m != nil || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Fatalf("%q: %v %q", s, m, err)
			}
			return
		}
		if m == nil {
			t.Fatalf("%q: neither a result nor an error", s)
		}
		if _, err := readResult(m); err != nil {
			return
		}
		list, _ := m["tools"].([]any)
		for _, v := range list {
			if d, err := readDefinition(v); err == nil {
				i := Item{Upstream: "shop"}
				i.describe(d)
			}
		}
	})
}
