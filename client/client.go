// Package client talks to the control plane of Ambit: over the Unix socket in
// its home, or over its loopback port with a token.
//
// Trust: the control plane is trusted; what it passes on from agents is not.
// Strings in answers are as an agent wrote them: make them inert before they
// are shown.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"ambit"
	"ambit/api"
	"ambit/audit"
)

// maxAnswer bounds one answer that is not a stream, in bytes.
const maxAnswer = 128 << 20

// Config says where the control plane is.
type Config struct {
	Socket  string // path of the Unix socket
	Address string // "http://127.0.0.1:7400": used instead of Socket if it is not ""
	Token   string // of the port; not sent over the socket
}

// Client is a client of one control plane. It is safe for concurrent use.
type Client struct {
	where string // for people
	base  string
	token string
	http  *http.Client
	dial  func(context.Context) (net.Conn, error)
	host  string
}

// DownError is returned when nobody answers where the control plane should be.
type DownError struct {
	Where string // the socket's path or the address
	Err   error
}

// Error implements error.
func (e *DownError) Error() string {
	return "cannot reach ambit serve at " + e.Where + ": start it with `ambit serve` (" + e.Err.Error() + ")"
}

// Unwrap returns the cause.
func (e *DownError) Unwrap() error { return e.Err }

// New returns a client. It does not connect yet.
func New(c Config) (*Client, error) {
	var d net.Dialer
	out := &Client{where: c.Socket, base: "http://ambit", host: "ambit", dial: func(ctx context.Context) (net.Conn, error) {
		return d.DialContext(ctx, "unix", c.Socket)
	}}
	if c.Address != "" {
		u, err := url.Parse(c.Address)
		if err != nil || u.Scheme != "http" || u.Host == "" || u.Port() == "" {
			return nil, fmt.Errorf("the address %q is not of the form http://127.0.0.1:7400", c.Address)
		}
		out.where, out.base, out.host, out.token = c.Address, "http://"+u.Host, u.Host, c.Token
		out.dial = func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", u.Host) }
	}
	out.http = &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return out.dial(ctx) },
			DisableCompression: true,
			IdleConnTimeout:    time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return out, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// open makes a request and returns a good answer. A refusal is a *api.Problem.
func (c *Client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(ctx, err)
	}
	if res.StatusCode/100 != 2 {
		defer func() { _ = res.Body.Close() }()
		return nil, readProblem(res)
	}
	return res, nil
}

// failure tells a control plane that is not there from one that went away.
func (c *Client) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &DownError{Where: c.where, Err: op.Err}
	}
	return fmt.Errorf("talking to ambit serve at %s: %w", c.where, err)
}

func readProblem(res *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	p := &api.Problem{}
	if err != nil || json.Unmarshal(b, p) != nil || p.Status == 0 {
		return &api.Problem{Title: res.Status, Status: res.StatusCode, Detail: "ambit serve answered " + res.Status}
	}
	return p
}

// call makes a request and decodes the answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	res, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the answer of ambit serve: %w", err)
	}
	return nil
}

func agentPath(id ambit.AgentID, rest string) string {
	return "/v1/agents/" + url.PathEscape(string(id)) + rest
}

// Version asks for the control plane's version.
func (c *Client) Version(ctx context.Context) (v api.Version, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/version", nil, &v)
	return v, err
}

// Deploy creates or updates an agent. It returns when the computer runs or has
// failed to; the end of ctx does not stop a deploy that has begun.
func (c *Client) Deploy(ctx context.Context, d api.Deploy) (out api.Deployed, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/agents", d, &out)
	return out, err
}

// Agents lists all agents by name.
func (c *Client) Agents(ctx context.Context) ([]api.Agent, error) {
	var out struct{ Agents []api.Agent }
	err := c.call(ctx, http.MethodGet, "/v1/agents", nil, &out)
	return out.Agents, err
}

// Status asks how an agent is.
func (c *Client) Status(ctx context.Context, id ambit.AgentID) (s api.Status, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, ""), nil, &s)
	return s, err
}

// Wipe destroys an agent and everything of it, but for its log without what it
// said. A legal hold forbids it.
func (c *Client) Wipe(ctx context.Context, id ambit.AgentID) (out api.Wiped, err error) {
	err = c.call(ctx, http.MethodDelete, agentPath(id, ""), nil, &out)
	return out, err
}

// Start makes an agent's computer run.
func (c *Client) Start(ctx context.Context, id ambit.AgentID) (a api.Agent, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/start"), nil, &a)
	return a, err
}

// Stop stops it.
func (c *Client) Stop(ctx context.Context, id ambit.AgentID) (a api.Agent, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/stop"), nil, &a)
	return a, err
}

// Versions lists the versions of an agent's manifest, newest first.
func (c *Client) Versions(ctx context.Context, id ambit.AgentID) ([]api.ManifestVersion, error) {
	var out struct{ Versions []api.ManifestVersion }
	err := c.call(ctx, http.MethodGet, agentPath(id, "/versions"), nil, &out)
	return out.Versions, err
}

// VersionSource returns one version with its source.
func (c *Client) VersionSource(ctx context.Context, id ambit.AgentID, n int) (v api.ManifestVersion, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, "/versions/"+strconv.Itoa(n)), nil, &v)
	return v, err
}

// Redeploy puts an old version in force again, as a new one. widen says that calls
// that were refused before may pass then.
func (c *Client) Redeploy(ctx context.Context, id ambit.AgentID, n int, widen bool) (out api.Deployed, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/versions/"+strconv.Itoa(n)+"/deploy?widen="+strconv.FormatBool(widen)), nil, &out)
	return out, err
}

// Output copies what the agent's program wrote to w: the last tail bytes, all
// that is kept if that is 0, and with follow what comes until ctx ends.
func (c *Client) Output(ctx context.Context, id ambit.AgentID, tail int, follow bool, w io.Writer) error {
	q := url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}}
	res, err := c.open(ctx, http.MethodGet, agentPath(id, "/output?"+q.Encode()), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		return c.failure(ctx, err)
	}
	return ctx.Err()
}

func callsPath(id ambit.AgentID, q audit.CallQuery, follow bool) string {
	v := url.Values{"denied": {strconv.FormatBool(q.Denied)}, "limit": {strconv.Itoa(q.Limit)}, "follow": {strconv.FormatBool(follow)}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	return agentPath(id, "/egress?"+v.Encode())
}

// Calls lists egress calls, oldest first. q.After is not used.
func (c *Client) Calls(ctx context.Context, id ambit.AgentID, q audit.CallQuery) (calls []audit.Call, err error) {
	err = c.call(ctx, http.MethodGet, callsPath(id, q, false), nil, &calls)
	return calls, err
}

// FollowCalls hands each call to emit, first the stored ones, until ctx ends or
// emit returns an error. A call is given when it was decided and again when it
// has ended.
func (c *Client) FollowCalls(ctx context.Context, id ambit.AgentID, q audit.CallQuery, emit func(audit.Call) error) error {
	res, err := c.open(ctx, http.MethodGet, callsPath(id, q, true), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	dec := json.NewDecoder(bufio.NewReader(res.Body))
	for {
		var call audit.Call
		if err := dec.Decode(&call); errors.Is(err, io.EOF) && ctx.Err() == nil {
			return errors.New("ambit serve ended the stream: start the command again")
		} else if err != nil {
			return c.failure(ctx, err)
		}
		if err := emit(call); err != nil {
			return err
		}
	}
}

// Alerts lists the alerts of one agent, or of all if id is "", newest first.
func (c *Client) Alerts(ctx context.Context, id ambit.AgentID, least ambit.Severity) (a api.Alerts, err error) {
	q := url.Values{"min": {least.String()}}
	if id != "" {
		q.Set("agent", string(id))
	}
	err = c.call(ctx, http.MethodGet, "/v1/alerts?"+q.Encode(), nil, &a)
	return a, err
}

// ControlAlerts lists the alerts about the control plane and its witness alone.
func (c *Client) ControlAlerts(ctx context.Context, least ambit.Severity) (a api.Alerts, err error) {
	q := url.Values{"min": {least.String()}, "control": {"true"}}
	err = c.call(ctx, http.MethodGet, "/v1/alerts?"+q.Encode(), nil, &a)
	return a, err
}

// AckControl marks an alert of the control plane's as seen. If it is about a log
// that the witness refuses, the witness looks at that again.
func (c *Client) AckControl(ctx context.Context, alert int64) error {
	return c.call(ctx, http.MethodPost, "/v1/control/alerts/"+strconv.FormatInt(alert, 10)+"/ack", nil, nil)
}

// Head asks for the checkpoint of an agent's log, proved to continue the last
// one that the control plane kept, and cosigned by it.
func (c *Client) Head(ctx context.Context, id ambit.AgentID) (h api.Head, err error) {
	err = c.call(ctx, http.MethodGet, agentPath(id, "/audit/head"), nil, &h)
	return h, err
}

// Verify proves an agent's log, also against heads kept elsewhere.
func (c *Client) Verify(ctx context.Context, id ambit.AgentID, heads [][]byte) (v api.Verified, err error) {
	err = c.call(ctx, http.MethodPost, agentPath(id, "/audit/verify"), api.Verify{Heads: heads}, &v)
	return v, err
}

// ControlHead asks for the checkpoint of the control plane's own log.
func (c *Client) ControlHead(ctx context.Context) (h api.Head, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/control/audit/head", nil, &h)
	return h, err
}

// ControlVerify proves the control plane's own log, also against heads kept
// elsewhere.
func (c *Client) ControlVerify(ctx context.Context, heads [][]byte) (v api.Verified, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/control/audit/verify", api.Verify{Heads: heads}, &v)
	return v, err
}
