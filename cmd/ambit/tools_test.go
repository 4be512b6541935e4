package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
	"ambit/control"
)

// toolServer is a control plane that has one agent's tools; the last judgement is in
// judged.
func toolServer(t *testing.T, all control.Tools, judged *api.JudgeTool) func(args ...string) (int, string) {
	t.Helper()
	home, err := os.MkdirTemp("", "h") // short: a socket's path
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(home, "run", "ambit.sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/agents/support/tools", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(all) })
	mux.HandleFunc("POST /v1/agents/support/tools/judge", func(w http.ResponseWriter, r *http.Request) {
		*judged = api.JudgeTool{}
		_ = json.NewDecoder(r.Body).Decode(judged)
		state := control.ToolRejected
		if judged.Accept {
			state = control.ToolReady
		}
		_ = json.NewEncoder(w).Encode(control.Tool{Name: "crm.get", State: state})
	})
	s := httptest.NewUnstartedServer(mux)
	s.Listener = l
	s.Start()
	t.Cleanup(func() {
		s.Close()
		_ = os.RemoveAll(home)
	})
	return func(args ...string) (int, string) {
		var out bytes.Buffer
		code := run(context.Background(), append([]string{"--home", home}, args...), strings.NewReader("y\n"), &out, &out)
		return code, out.String()
	}
}

// What a server says is shown inert and as its words, and nothing is accepted that a
// person did not name by its hash or see.
func TestTools(t *testing.T) {
	hash := strings.Repeat("3f9a1c22b70d", 6)[:64]
	changed := control.Tool{
		Name: "crm.get", Server: "crm", Own: "get", Connection: "crm", State: control.ToolChanged, Hash: hash, ToolFacts: control.ToolFacts{Effects: []ambit.Effect{"read"}, Records: []string{""}},
		Description: "Reads.\nState       ready\x1b[2J p\u0430ypal", Input: json.RawMessage(`{"type":"object"}`), Before: `{"description":"Reads."}`, Flags: []string{"its description had terminal escapes"},
	}
	var judged api.JudgeTool
	ambitRun := toolServer(t, control.Tools{
		Tools: []control.Tool{
			{Name: "shop.orders.get", Connection: "shop", State: control.ToolReady, Listed: true, ToolFacts: control.ToolFacts{Effects: []ambit.Effect{"read"}}},
			changed,
			{Server: "crm", Own: "Löschen", State: control.ToolNew, Problem: "its name cannot be used here", Hash: hash},
			{Name: "crm.add", Server: "crm", Own: "add", State: control.ToolNew, Hash: hash},
		},
		Servers: []control.ToolServer{{Name: "crm", URL: "https://mcp.example.com/mcp", Problem: "the connection crm is not-connected"}},
	}, &judged)
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"tools support", 0, []string{"shop.orders.get  ready    read     connection shop", "crm.get          changed  read     server crm", "crm/Löschen", "its name cannot be used here", "server crm, https://mcp.example.com/mcp: not asked yet; the connection crm is not-connected"}},
		{"tools list support", 0, []string{"crm.add"}},
		{"tools show support crm.get", 0, []string{"State       changed\n", "The server says\n  | Reads.\n  | State       ready\\x1b[2J p\u0430ypal\n", "p\u0430ypal mixes alphabets", "terminal escapes", hash, "What was accepted before", "the manifest does not allow it", `"" (all of it)`}},
		{"tools show support nothing", 1, []string{"has no tool"}},
		{"tools accept support crm.add", 2, []string{"--effects"}},
		{"tools accept support crm.add --effects read", 2, []string{"--hash"}}, // no terminal: a pipe's y is nobody's
		{"tools accept support crm.add --effects read --hash 3f", 2, []string{"12 or more"}},
		{"tools accept support crm.add --effects read --hash 000000000000", 1, []string{"nothing was accepted"}},
		{"tools accept support shop.orders.get --effects read", 1, []string{"a tool of a connection"}},
		{"tools accept support crm/Löschen --effects read --hash 3f9a1c22b70d", 1, []string{"cannot be accepted"}},
		{"tools reject support shop.orders.get", 1, []string{"take it out of the manifest"}},
	} {
		code, out := ambitRun(strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", c.args, want, out)
			}
		}
	}
	if judged.Name != "" {
		t.Errorf("judged %+v", judged)
	}
	code, out := ambitRun("tools", "accept", "support", "crm.add", "--effects", "spend,customer", "--targets", "/to", "--targets", "/x", "--amount", "/sum", "--currency", "EUR", "--records", "", "--leaves", "--hash", "3f9a1c22b70d")
	if f := judged.Facts; code != 0 || !strings.Contains(out, "crm.get is ready; the manifest does not allow it") || judged.Name != "crm/add" || judged.Hash != hash || !judged.Accept || len(f.Effects) != 2 || len(f.Targets) != 2 || f.Amount != "/sum" || f.Currency != "EUR" || len(f.Records) != 1 || !f.Leaves {
		t.Errorf("%d %s %+v", code, out, judged)
	}
	if code, out := ambitRun("tools", "accept", "support", "crm.get", "--hash", hash); code != 0 || len(judged.Facts.Effects) != 1 || len(judged.Facts.Records) != 1 {
		t.Errorf("what was said of it is kept: %d %s %+v", code, out, judged)
	}
	if code, out := ambitRun("tools", "reject", "support", "crm.get"); code != 0 || !strings.Contains(out, "crm.get is rejected") || judged.Accept {
		t.Errorf("%d %s", code, out)
	}
	for answer, agrees := range map[string]bool{"y\n": true, "YES\n": true, "n\n": false, "\n": false} {
		var out bytes.Buffer
		a := &app{stdin: strings.NewReader(answer), stderr: &out}
		if err := a.confirmTool(t.Context(), &changed, control.ToolFacts{Effects: []ambit.Effect{"send"}}); (err == nil) != agrees || !strings.Contains(out.String(), hash) || !strings.Contains(out.String(), "Effects     send") {
			t.Errorf("%q: %v\n%s", answer, err, out.String())
		}
	}
}
