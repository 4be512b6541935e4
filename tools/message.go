package tools

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"

	"ambit/internal/inert"
	"ambit/internal/jcs"
)

// The revisions of the protocol, the newest first. The first has no sessions: each
// request says everything, and its header fields repeat what its body says.
const (
	stateless = "2026-07-28"
	newest    = "2025-11-25" // of those with sessions
	oldest    = "2025-06-18"
)

func revisions() []string { return []string{stateless, newest, oldest} }

// Codes of errors: JSON-RPC 2.0, and those that MCP adds.
const (
	codeParse          = -32700
	codeRequest        = -32600
	codeMethod         = -32601
	codeParams         = -32602
	codeInternal       = -32603
	codeHeaderMismatch = -32020
	codeVersion        = -32022
)

// The header fields of the protocol.
const (
	headerVersion = "Mcp-Protocol-Version"
	headerSession = "Mcp-Session-Id"
	headerMethod  = "Mcp-Method"
	headerName    = "Mcp-Name"
)

const metaVersion = "io.modelcontextprotocol/protocolVersion"

// message is a request or a notification, read strictly.
type message struct {
	id     json.RawMessage // a string or a whole number; nil of a notification
	method string
	params map[string]any // never nil
	meta   map[string]any // params._meta, taken out of params
}

// problem is why a message is refused.
type problem struct {
	status int // of HTTP
	code   int
	text   string
	data   any
}

func bad(code int, text string) *problem { return &problem{http.StatusBadRequest, code, text, nil} }

// readMessage reads one JSON-RPC 2.0 request or notification. The message is
// returned with a problem too, as soon as its id is known.
func readMessage(body []byte) (*message, *problem) {
	v, err := jcs.Parse(body, MaxDepth)
	if err != nil {
		return nil, bad(codeParse, "the body is not acceptable JSON: "+err.Error())
	}
	top, ok := v.(map[string]any)
	if !ok {
		return nil, bad(codeRequest, "the body is not one JSON-RPC message; batches are not taken")
	}
	m := &message{}
	if id, ok := top["id"]; ok {
		if m.id = readID(id); m.id == nil {
			return nil, bad(codeRequest, "id is neither a whole number nor a string of at most 256 bytes")
		}
	}
	for name := range top {
		if !slices.Contains([]string{"jsonrpc", "id", "method", "params"}, name) {
			return m, bad(codeRequest, "a message has jsonrpc, id, method and params, and nothing else")
		}
	}
	if top["jsonrpc"] != "2.0" {
		return m, bad(codeRequest, `jsonrpc is not "2.0"`)
	}
	if m.method, ok = top["method"].(string); !ok || m.method == "" {
		return m, bad(codeRequest, "method is missing")
	}
	if (m.id == nil) != strings.HasPrefix(m.method, "notifications/") {
		return m, bad(codeRequest, "a request has an id, and a notification has none")
	}
	m.params = map[string]any{}
	if p, ok := top["params"]; ok {
		if m.params, ok = p.(map[string]any); !ok {
			return m, bad(codeParams, "params is not an object")
		}
	}
	if meta, ok := m.params["_meta"]; ok {
		if m.meta, ok = meta.(map[string]any); !ok {
			return m, bad(codeParams, "_meta is not an object")
		}
		delete(m.params, "_meta")
	}
	return m, nil
}

func readID(v any) json.RawMessage {
	switch id := v.(type) {
	case string:
		if len(id) > 256 {
			return nil
		}
	case float64:
		if id != math.Trunc(id) || math.Abs(id) > 1<<53-1 {
			return nil
		}
	default:
		return nil
	}
	b, err := jcs.Append(nil, v)
	if err != nil {
		return nil
	}
	return b
}

// only says which parameter a method does not have, if there is one.
func (m *message) only(names ...string) *problem {
	for name := range m.params {
		if !slices.Contains(names, name) {
			return bad(codeParams, m.method+" has no parameter "+quoted(name))
		}
	}
	return nil
}

// agree checks that the header fields that repeat the body say the same. Where the
// revision demands them they must be there.
func (m *message) agree(h http.Header, version string) *problem {
	demanded := version == stateless
	if got := h.Get(headerMethod); got != m.method && (demanded || got != "") {
		return bad(codeHeaderMismatch, "header mismatch: Mcp-Method is not the method of the body")
	}
	name, has := m.params["name"].(string)
	got, ok := decodeField(h.Get(headerName))
	switch {
	case !ok:
		return bad(codeHeaderMismatch, "header mismatch: Mcp-Name cannot be decoded")
	case got != "" && (!has || got != name), demanded && m.method == "tools/call" && got == "":
		return bad(codeHeaderMismatch, "header mismatch: Mcp-Name is not the name of the body")
	}
	inside, _ := m.meta[metaVersion].(string)
	if m.id == nil && inside == "" { // a notification need not say it
		return nil
	}
	if demanded && inside == "" {
		return bad(codeParams, "_meta has no "+metaVersion)
	}
	if inside != "" && inside != version {
		return bad(codeHeaderMismatch, "header mismatch: MCP-Protocol-Version is not what _meta says")
	}
	return nil
}

// decodeField undoes how MCP writes what a header field cannot hold.
func decodeField(s string) (string, bool) {
	inner, ok := strings.CutPrefix(s, "=?base64?")
	if !ok {
		return s, true
	}
	if inner, ok = strings.CutSuffix(inner, "?="); !ok {
		return s, true
	}
	b, err := base64.StdEncoding.Strict().DecodeString(inner)
	return string(b), err == nil
}

// quoted makes what an agent wrote one short line.
func quoted(s string) string { return `"` + shorten(inert.Text(s), 128) + `"` }
