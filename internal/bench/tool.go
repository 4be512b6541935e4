//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"ambit"
	"ambit/api"
	"ambit/internal/forward"
)

// orderTool is the tool that is called, under the same name on both sides.
const orderTool = account + ".orders.get"

// benchShop is a connector of the operator's own, with that tool.
const benchShop = `connector: v1
name: benchshop
title: The bench's shop
docs: https://example.com/tokens
hosts: [` + shop + `]
secrets:
  token: {title: Token}
references:
  token: "bshp_{base62:24}"
auth:
  - bearer: "{token}"
ways:
  token: {title: A token, fields: [token]}
tools:
  orders.get:
    title: Read an order
    effects: [read]
    arguments:
      order: {type: integer, min: 1}
    request: {method: GET, path: "/v1/orders/{order}"}
    result:
      keep: [/id, /state, /total, /currency]
      records: [/id, /state, /total]
`

// toolManifest is an agent with the shop's tools.
func toolManifest(u *helper) string {
	indented := strings.ReplaceAll(strings.TrimSpace(u.CA), "\n", "\n      ")
	return fmt.Sprintf("ambit: v1\nname: bench\nconnectors:\n  - name: benchshop\n    as: %s\n    tools: [\"*\"]\n    ports: [%d]\n    private: true\n    resolve: [127.0.0.1]\n    ca: |\n      %s\n",
		account, u.Port, indented)
}

// toolDoor is where tools are called: an agent's gate, or the bare MCP server.
type toolDoor struct {
	socket  string
	preface string // what a connection starts with
	host    string
	pid     int
}

// callSession is one connection with an MCP session in it.
type callSession struct {
	conn net.Conn
	r    *bufio.Reader
	head string
	call []byte // a whole request
}

// open connects and begins a session of MCP.
func (d *toolDoor) open(ctx context.Context) (*callSession, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	s := &callSession{conn: c, r: bufio.NewReaderSize(c, 8<<10)}
	s.head = "POST /mcp HTTP/1.1\r\nHost: " + d.host + "\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nMcp-Protocol-Version: 2025-11-25\r\n"
	if err := s.begin(d.preface); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("beginning a session of MCP at %s: %w", d.socket, err)
	}
	return s, nil
}

func (s *callSession) begin(preface string) error {
	if _, err := io.WriteString(s.conn, preface); err != nil {
		return err
	}
	const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`
	if _, err := s.conn.Write(s.request(hello)); err != nil {
		return err
	}
	header, body, err := s.answer(http.StatusOK)
	if err != nil {
		return err
	}
	id := header.Get("Mcp-Session-Id")
	if id == "" {
		return fmt.Errorf("there is no session in the answer: %s", body)
	}
	s.head += "Mcp-Session-Id: " + id + "\r\n"
	if _, err := s.conn.Write(s.request(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)); err != nil {
		return err
	}
	_, _, err = s.answer(http.StatusAccepted)
	s.call = s.request(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"` + orderTool + `","arguments":{"order":1042,"intent":"look up the order"}}}`)
	return err
}

func (s *callSession) request(body string) []byte {
	return []byte(s.head + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

func (s *callSession) answer(want int) (http.Header, []byte, error) {
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("the answer is %s: %s", resp.Status, body)
	}
	return resp.Header, body, err
}

// once calls the tool, and makes sure that the service was asked.
func (s *callSession) once() error {
	if _, err := s.conn.Write(s.call); err != nil {
		return err
	}
	_, body, err := s.answer(http.StatusOK)
	if err == nil && !bytes.Contains(body, []byte("49.90")) {
		err = fmt.Errorf("the tool answers %s", body)
	}
	return err
}

// calls keeps at sessions busy for a while.
func (d *toolDoor) calls(ctx context.Context, at int, long time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, long+30*time.Second)
	defer cancel()
	sessions := make([]*callSession, at)
	for i := range sessions {
		s, err := d.open(ctx)
		if err != nil {
			return sample{}, err
		}
		defer func() { _ = s.conn.Close() }()
		if err := s.once(); err != nil {
			return sample{}, err
		}
		sessions[i] = s
	}
	return (&door{pid: d.pid}).during(ctx, at, long, func(i int) error { return sessions[i].once() })
}

// mcpRole is the least that the Go SDK makes of an MCP server with the same tool:
// it makes the same request, with the credential in its memory. It judges nothing
// and writes nothing down.
func mcpRole(s setup) (announcement, io.Closer, error) {
	roots, err := poolOf(s.CA)
	if err != nil {
		return announcement{}, nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Upstream)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 1024, ForceAttemptHTTP2: true,
	}}
	type input struct {
		Order  int    `json:"order"`
		Intent string `json:"intent,omitempty"`
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "bare", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: orderTool, Description: "Read an order"}, func(ctx context.Context, _ *mcp.CallToolRequest, in input) (*mcp.CallToolResult, map[string]any, error) {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+shop+"/v1/orders/"+strconv.Itoa(in.Order), http.NoBody)
		if err != nil {
			return nil, nil, err
		}
		q.Header.Set("Authorization", "Bearer "+realToken)
		resp, err := client.Do(q)
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		var out map[string]any
		err = json.NewDecoder(resp.Body).Decode(&out)
		return nil, out, err
	})
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{JSONResponse: true})
	l, err := listenUnix(s.Socket)
	if err != nil {
		return announcement{}, nil, err
	}
	h := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go func() { _ = h.Serve(l) }() // ends with Close
	return announcement{}, h, nil
}

// toolHome is a control plane with the agent whose tool is called.
func (l *lab) toolHome(ctx context.Context, u *helper, folder func(string, os.FileMode) (string, error)) (*home, *toolDoor, error) {
	dir, err := folder("tools", 0o700)
	if err != nil || dir == "" {
		return nil, nil, err
	}
	own, err := l.own(filepath.Join(dir, "connectors"), 0o700)
	if err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(own, "benchshop.yaml"), []byte(benchShop), 0o644); err != nil {
		return nil, nil, err
	}
	h, err := l.homeIn(ctx, "tools", dir)
	if err != nil {
		return nil, nil, err
	}
	d, err := h.tools(ctx, u)
	if err != nil {
		h.stop()
		return nil, nil, err
	}
	return h, d, nil
}

// tools deploys the agent, connects its account and says where it calls tools.
func (h *home) tools(ctx context.Context, u *helper) (*toolDoor, error) {
	if err := h.deploy(ctx, toolManifest(u)); err != nil {
		return nil, err
	}
	if _, err := h.client.Connect(ctx, withAccount, account, api.Connect{Fields: map[string][]byte{"token": []byte(realToken)}}); err != nil {
		return nil, err
	}
	pid, err := h.worker(ctx, withAccount)
	preface := forward.Header{Kind: forward.TCP, Host: ambit.InternalHost, Port: 80}.String()
	return &toolDoor{socket: h.layout(withAccount).GateSock(), preface: preface, host: ambit.InternalHost, pid: pid}, err
}

// toolFigures measures calls of tools, and what they go through.
func toolFigures(ctx context.Context, l *lab) ([]row, error) {
	rows, err := toolParts(ctx, l)
	if err != nil {
		return rows, err
	}
	more, err := toolCalls(ctx, l)
	return append(rows, more...), err
}

// toolCalls measures a tool call through the gate against one of a bare MCP
// server, which makes the same request.
func toolCalls(ctx context.Context, l *lab) ([]row, error) {
	u, _, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	bare := &toolDoor{socket: filepath.Join(l.dir, "mcp.sock"), host: "localhost"}
	r, err := startRole(ctx, "role-mcp", setup{Socket: bare.socket, Upstream: "127.0.0.1:" + strconv.Itoa(u.Port), CA: u.CA})
	if err != nil {
		return nil, err
	}
	defer r.stop()
	bare.pid = r.cmd.Process.Pid
	var rows []row
	for _, where := range []struct {
		name, note string
		folder     func(string, os.FileMode) (string, error)
		at         []int
	}{
		{"", "ours makes two durable entries, one after the other", l.folder, []int{1, 16}},
		{", without a disk", "the home is in memory: what the gate itself costs", l.inMemory, []int{1}},
	} {
		more, err := l.toolDuels(ctx, u, bare, where.name, where.note, where.folder, where.at)
		if rows = append(rows, more...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (l *lab) toolDuels(ctx context.Context, u *helper, bare *toolDoor, name, note string, folder func(string, os.FileMode) (string, error), at []int) (rows []row, err error) {
	h, ours, err := l.toolHome(ctx, u, folder)
	if err != nil || h == nil {
		return nil, err
	}
	defer h.stop()
	disk := 0.0
	if name == "" {
		if disk, err = fdatasync(ctx, h.dir); err != nil {
			return nil, err
		}
		rows = append(rows, row{Figure: "disk: fdatasync of 4 KiB", Unit: "µs", Ours: disk, Note: "median; in every durable append"})
	}
	for _, n := range at {
		l.say("tools: calls, %d at a time%s", n, name)
		d, err := duelIn(ctx, pick(l, 5, 2), pick(l, 4*time.Second, 500*time.Millisecond),
			func(d *toolDoor, long time.Duration) (sample, error) { return d.calls(ctx, n, long) }, ours, bare)
		if err != nil {
			return rows, err
		}
		title := fmt.Sprintf("tool call, %d at a time%s", n, name)
		if n == 1 {
			rows = append(rows, d.row(title+": latency", "µs", latency).moreByAtMost(400).noted("medians; the reference is a bare MCP server; %s", note))
			if disk > 0 {
				rows[len(rows)-1].Note += fmt.Sprintf(": without these %.0f µs", d.row("", "", latency).Ours-2*disk)
			}
		} else {
			rows = append(rows, d.row(title, "calls/s", rate).noted("the reference is a bare MCP server"))
		}
		rows = append(rows, d.row(title+": processor", "µs", cpu).noted("of the worker, and of the bare server"))
	}
	return rows, nil
}
