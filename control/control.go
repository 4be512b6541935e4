// Package control is the wire between the control plane and one worker: plain
// HTTP with JSON over the worker's control socket. The control plane is always
// the client; a worker never calls it, so whoever breaks a worker has no way up.
//
// A worker accepts a caller that shows the token which only the control plane
// can derive, and whose peer credentials are the control plane's user or root.
//
// Trust: the client does not trust the worker's answers beyond their size and
// shape: a worker under an attacker's control can lie about its own agent and
// about nothing else. The server side trusts a caller with the token.
package control

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
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"ambit"
	"ambit/audit"
	"ambit/connector"
)

// Paths of the worker's control API.
const (
	PathStatus      = "/status"
	PathApply       = "/apply"
	PathRecord      = "/record"
	PathCalls       = "/calls"
	PathHead        = "/head"
	PathConsistency = "/consistency"
	PathVerify      = "/verify"
	PathOutput      = "/output"
	PathKeys        = "/keys"
	PathStop        = "/stop"
)

// maxAnswer bounds one answer of a worker, in bytes. Streams are not bounded.
const maxAnswer = 64 << 20

// Status is what a worker says of itself.
type Status struct {
	Agent    ambit.AgentID    `json:"agent"`
	PID      int              `json:"pid"`
	Version  string           `json:"version"`  // of the binary
	Manifest int              `json:"manifest"` // the version that it enforces
	Started  time.Time        `json:"started"`
	Never    []netip.AddrPort `json:"never,omitempty"`   // see Start.Never
	Events   uint64           `json:"events"`            // size of the log
	CA       string           `json:"ca"`                // the agent's certificate authority, PEM
	Exit     *Exit            `json:"exit,omitempty"`    // how the agent's program last ended, as init told it
	Program  string           `json:"program,omitempty"` // "running" or "", as init told it
}

// Exit is how the agent's program ended.
type Exit struct {
	Code int       `json:"code"` // the exit code; 128+signal when killed by a signal
	Text string    `json:"text"` // "command not found: foo", "" when nothing to add
	Time time.Time `json:"time"`
}

// Policy is a manifest version for a worker to enforce.
type Policy struct {
	Version int    `json:"version"`
	Source  string `json:"source"` // the manifest's YAML, parsed again by the worker
	// Connectors are the operator's connector files that the manifest needs, as
	// they were when it was deployed; parsed again by the worker.
	Connectors []connector.Source `json:"connectors,omitempty"`
}

// OutputQuery asks for what the agent's program wrote.
type OutputQuery struct {
	Tail   int  // at most so many last bytes; 0 is all that is kept
	Follow bool // go on until the context ends
}

// Client talks to one worker. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	token string
}

// NewClient returns a client for the worker that listens on socket.
func NewClient(socket, token string) *Client {
	return &Client{token: token, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is a refusal or failure that the worker reported.
type Error struct {
	Status int    // HTTP status
	Text   string // for people
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

func (c *Client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encoding the question to the worker: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://worker"+path, body)
	if err != nil {
		return nil, fmt.Errorf("asking the worker: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the worker: %w", err)
	}
	if res.StatusCode/100 != 2 {
		defer func() { _ = res.Body.Close() }()
		b, _ := io.ReadAll(io.LimitReader(res.Body, 8<<10))
		return nil, &Error{Status: res.StatusCode, Text: string(bytes.TrimSpace(b))}
	}
	return res, nil
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	res, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the worker's answer: %w", err)
	}
	return nil
}

// Status asks how the worker is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, PathStatus, nil, &s)
	return s, err
}

// Apply makes the worker enforce another manifest version from now on.
func (c *Client) Apply(ctx context.Context, p Policy) error {
	return c.call(ctx, http.MethodPost, PathApply, p, nil)
}

// Record appends an event of the control plane's to the agent's log, durably,
// and returns its position.
func (c *Client) Record(ctx context.Context, e ambit.Event) (uint64, error) {
	var seq uint64
	err := c.call(ctx, http.MethodPost, PathRecord, e, &seq)
	return seq, err
}

// Calls lists egress calls, oldest first.
func (c *Client) Calls(ctx context.Context, q audit.CallQuery) ([]audit.Call, error) {
	var out []audit.Call
	err := c.call(ctx, http.MethodPost, PathCalls, q, &out)
	return out, err
}

// FollowCalls hands each call that matches q to emit, the stored ones first,
// until ctx ends or emit returns an error. A call is given when it was decided
// and again when it has ended.
func (c *Client) FollowCalls(ctx context.Context, q audit.CallQuery, emit func(audit.Call) error) error {
	res, err := c.open(ctx, http.MethodPost, PathCalls+"?follow=1", q)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 16<<10), 1<<20)
	for lines.Scan() {
		var call audit.Call
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			return fmt.Errorf("reading the worker's answer: %w", err)
		}
		if err := emit(call); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("following the worker: %w", err)
	}
	return ctx.Err()
}

// Head asks for the log's signed checkpoint.
func (c *Client) Head(ctx context.Context) (audit.Head, error) {
	var h audit.Head
	err := c.call(ctx, http.MethodGet, PathHead, nil, &h)
	return h, err
}

// ConsistencyQuery asks for a proof that a log only grew.
type ConsistencyQuery struct {
	Old uint64 `json:"old"`          // from this size
	To  []byte `json:"to,omitempty"` // to this head, a signed note; to one that is signed now if nil
}

// maxProof bounds a proof of consistency with its head, in bytes: it has at
// most 63 hashes.
const maxProof = 32 << 10

// ErrGarbage says that a worker's answer is none: of another form than that of
// a worker, or larger than one can be. It is no accident of the connection.
var ErrGarbage = errors.New("the worker's answer is not one")

// Consistency asks for a head that is signed now, with the proof that the log
// had old events before. Nothing about it is checked here. A log that has
// fewer answers with its head and without a proof.
func (c *Client) Consistency(ctx context.Context, old uint64) (audit.Consistency, error) {
	return c.consistency(ctx, ConsistencyQuery{Old: old})
}

// ConsistencyTo asks for the proof to a head that the log signed before.
func (c *Client) ConsistencyTo(ctx context.Context, old uint64, head []byte) (audit.Consistency, error) {
	return c.consistency(ctx, ConsistencyQuery{Old: old, To: head})
}

func (c *Client) consistency(ctx context.Context, q ConsistencyQuery) (audit.Consistency, error) {
	res, err := c.open(ctx, http.MethodPost, PathConsistency, q)
	if err != nil {
		return audit.Consistency{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProof+1))
	if err != nil {
		return audit.Consistency{}, fmt.Errorf("reading the worker's answer: %w", err)
	}
	if len(b) > maxProof {
		return audit.Consistency{}, fmt.Errorf("%w: its proof has more than %d bytes", ErrGarbage, maxProof)
	}
	var out audit.Consistency
	if err := json.Unmarshal(b, &out); err != nil {
		return audit.Consistency{}, fmt.Errorf("%w: reading its proof: %w", ErrGarbage, err)
	}
	return out, nil
}

// Verify lets the worker prove its log, also against heads kept elsewhere.
func (c *Client) Verify(ctx context.Context, heads [][]byte) (audit.Report, error) {
	var r audit.Report
	err := c.call(ctx, http.MethodPost, PathVerify, heads, &r)
	return r, err
}

// Output copies what the agent's program wrote to w.
func (c *Client) Output(ctx context.Context, q OutputQuery, w io.Writer) error {
	v := url.Values{"tail": {strconv.Itoa(q.Tail)}}
	if q.Follow {
		v.Set("follow", "1")
	}
	res, err := c.open(ctx, http.MethodGet, PathOutput+"?"+v.Encode(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("reading the output: %w", err)
	}
	return nil
}

// Rekeyed is what a worker did with new keys.
type Rekeyed struct {
	Version     int `json:"version"`     // with which every credential is sealed now
	Credentials int `json:"credentials"` // how many were sealed again
}

// Rekey hands the worker every version of its vault key, the newest last. When
// it answers, every credential is sealed with the newest, durably, and nothing
// needs an older one any more. Doing it again changes nothing.
func (c *Client) Rekey(ctx context.Context, keys []VaultKey) (Rekeyed, error) {
	var r Rekeyed
	err := c.call(ctx, http.MethodPost, PathKeys, keys, &r)
	return r, err
}

// Stop asks the worker to close its log and end. It has ended when its process
// has.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, PathStop, nil, nil)
}
