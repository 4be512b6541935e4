//go:build linux

package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"ambit"
	"ambit/connector"
	"ambit/gate"
	"ambit/internal/scrub"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/manifest"
	"ambit/policy"
	"ambit/vault"
)

// desk is a vault in this process, with a log that costs nothing: what is
// measured is the vault's own work.
type desk struct {
	vault  *vault.Vault
	gate   *gate.Gate
	config vault.Config
	bound  []*connector.Binding
}

// nowhere is a log and an alerter that keep nothing.
type nowhere struct{ seq atomic.Uint64 }

// Append implements gate.Log.
func (n *nowhere) Append(context.Context, ambit.Event) (uint64, error) { return n.seq.Add(1), nil }

// Record implements gate.Log.
func (n *nowhere) Record(ambit.Event) { n.seq.Add(1) }

// Raise implements gate.Alerter.
func (n *nowhere) Raise(ambit.Severity, string, string, uint64) {}

// RoundTrip implements http.RoundTripper: nobody is asked for anything.
func (n *nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nothing leaves")
}

func key(b byte) secretbytes.Bytes {
	k := make([]byte, 32)
	for i := range k {
		k[i] = b
	}
	return secretbytes.New(k)
}

func keys() []vault.Key { return []vault.Key{{Version: 1, Bytes: key(1)}} }

// newDesk has n connections with a token, of as many hosts.
func newDesk(ctx context.Context, l *lab, name string, n int) (*desk, error) {
	bound, err := connections(n)
	if err != nil {
		return nil, err
	}
	db, err := sqldb.Open(ctx, filepath.Join(l.dir, name+".db"))
	if err != nil {
		return nil, err
	}
	none := &nowhere{}
	d := &desk{bound: bound, config: vault.Config{DB: db, Agent: "bench", Ref: key(2), Log: none, Alerts: none, Transport: none}}
	var rules []policy.Rule
	for _, b := range bound {
		rules = append(rules, b.Rules...)
	}
	set, err := policy.Compile(policy.Egress{Rules: rules})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d.gate = gate.New(gate.Config{Agent: "bench", Policy: set, Log: none, Alerts: none})
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for i, b := range bound {
		q := vault.ConnectRequest{Name: b.Name, Fields: map[string]secretbytes.Bytes{"token": secretbytes.New(fmt.Appendf(nil, "real-token-%030d", i))}}
		if _, err := d.vault.Connect(ctx, q, "uid:0"); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// connections are n of the connector bearer. A manifest has room for fewer, so
// that they are made of one.
func connections(n int) ([]*connector.Binding, error) {
	m, err := manifest.Parse("bench.yaml", []byte("ambit: v1\nname: bench\nconnectors:\n  - {name: bearer, as: c, hosts: [c.example]}\n"))
	if err != nil {
		return nil, err
	}
	catalog, err := connector.Builtin()
	if err != nil {
		return nil, err
	}
	one, err := catalog.Bind(m)
	if err != nil {
		return nil, err
	}
	all := make([]*connector.Binding, n)
	for i := range all {
		b := *one[0]
		b.Name = fmt.Sprintf("c%d", i)
		host := b.Name + ".example"
		b.Hosts = []connector.Host{{Name: host, Ports: []uint16{443}, Auth: b.Hosts[0].Auth}}
		b.Rules = []policy.Rule{{Host: host}}
		b.Env = []connector.Env{{Name: "TOKEN_" + b.Name, Value: b.Env[0].Value}}
		all[i] = &b
	}
	return all, nil
}

func (d *desk) open(ctx context.Context) (err error) {
	c := d.config
	c.Keys, c.Ref = keys(), key(2)
	if d.vault, err = vault.Open(ctx, c); err != nil {
		return err
	}
	return d.vault.Bind(d.bound)
}

func (d *desk) close() error { return errors.Join(d.vault.Close(), d.config.DB.Close()) }

// reference is what the agent holds for connection i.
func (d *desk) reference(i int) string {
	return d.vault.Placement().Env["TOKEN_"+d.bound[i].Name]
}

// lendable is a granted request of connection i, to be lent to again and again.
type lendable struct {
	request *ambit.Request
	out     *http.Request
	grant   *gate.Grant
}

func (d *desk) lendable(ctx context.Context, i int) (*lendable, error) {
	header := http.Header{
		"Accept": {"application/json"}, "Accept-Encoding": {"gzip, deflate"}, "User-Agent": {"python-requests/2.32.3"}, "Cache-Control": {"no-cache"},
		"X-Request-Id": {"0190f3a2-7e5e-7b7a-9d2b-0f6f6a9d2b0f"}, "Authorization": {"Bearer " + d.reference(i)},
	}
	host := d.bound[i].Hosts[0].Name
	r := &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: http.MethodGet, Host: host, Port: 443, Path: "/v1/things", RawQuery: "limit=100", Header: header}
	grant, err := d.gate.CheckWith(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	q := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: host + ":443", Opaque: r.Path, RawQuery: r.RawQuery}, Host: host, Header: header}
	return &lendable{r, q, grant}, grant.Use()
}

// lend is what the vault does for one request: before the decision, and after.
func (d *desk) lend(ctx context.Context, of *lendable) (*vault.Lease, error) {
	plan, verdict := d.vault.Examine(of.request)
	if verdict != nil {
		return nil, &ambit.DenyError{Verdict: *verdict}
	}
	out := *of.out
	return d.vault.Use(ctx, of.grant, plan, &out, func() {})
}

// exchange lends, and reads an answer through the buffer.
func (d *desk) exchange(ctx context.Context, of *lendable, body string, buffer []byte) error {
	lease, err := d.lend(ctx, of)
	if err != nil {
		return err
	}
	defer lease.Done()
	resp := newAnswer(body)
	if err := lease.Answer(resp); err != nil {
		return err
	}
	_, err = io.CopyBuffer(&sink{}, plain{resp.Body}, buffer)
	return err
}

func newAnswer(body string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}, "Etag": {`W/"0190f3a27e5e7b7a"`}},
		Body: io.NopCloser(plain{strings.NewReader(body)}), ContentLength: int64(len(body)),
	}
}

// plain hides what else a reader can do, so that both sides copy alike.
type plain struct{ io.Reader }

// sink takes everything, through a buffer like that of a connection.
type sink struct{ n int64 }

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) { s.n += int64(len(p)); return len(p), nil }

// credentials measures the vault in this process.
func credentials(ctx context.Context, l *lab) ([]row, error) {
	rows, err := exchanges(ctx, l)
	if err != nil {
		return rows, err
	}
	more, err := streams(ctx, l)
	if rows = append(rows, more...); err != nil {
		return rows, err
	}
	more, err = manyConnections(ctx, l)
	return append(rows, more...), err
}

// exchanges measures one request with a 10 KiB answer, with twenty connections
// in the vault.
func exchanges(ctx context.Context, l *lab) ([]row, error) {
	d, err := newDesk(ctx, l, "exchange", 20)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.close() }()
	of, err := d.lendable(ctx, 7)
	if err != nil {
		return nil, err
	}
	item := `{"id": 4711, "title": "a thing", "state": "open"},` + "\n"
	body := strings.Repeat(item, 10<<10/len(item))
	buffer := make([]byte, 32<<10) // kept, as the gate keeps its own
	ours, reference, err := inTurn(ctx, l, func() error { return d.exchange(ctx, of, body, buffer) }, func() error {
		_, err := io.CopyBuffer(&sink{}, plain{newAnswer(body).Body}, buffer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []row{compare("vault: credential put in, 10 KiB scrubbed", "µs", ours, reference).moreByAtMost(30).noted("the reference copies the answer")}, nil
}

// streams measures how fast a stream is scrubbed of twenty secrets: tokens as
// services give them in an answer as APIs give it, and, as the worst that is
// known, with a password of eight digits and an address among them, in an answer
// full of addresses and escapes.
func streams(ctx context.Context, l *lab) ([]row, error) {
	var tokens []string
	for i, prefix := range []string{"ghp_", "glpat-", "sk_live_", "shpat_", "xoxb-1234567890-", "sk-ant-api03-", "AKIA", "ya29.", "lin_api_", "SG.", "", "", "", "", "", "", "", "", "", ""} {
		sum := sha256.Sum256([]byte{byte(i)})
		tokens = append(tokens, prefix+base64.RawURLEncoding.EncodeToString(sum[:27]))
	}
	worst := append([]string{"12345678", "https://hooks.slack.com/services/T000/B000/" + tokens[10]}, tokens[:18]...)
	usual := `{"id":4711,"login":"octocat","url":"https://api.example.com/users/octocat","type":"User","site_admin":false,"at":"2026-11-26T12:00:00Z","note":"Refunds are sent within 14 days"},` + "\n"
	escaped := strings.ReplaceAll(usual, "Refunds", `\u003cb\u003eRefunds\u003c/b\u003e`)
	var rows []row
	for _, c := range []struct {
		name, item string
		secrets    []string
	}{{"vault: a stream, twenty tokens looked for", usual, tokens}, {"vault: the same at its worst", escaped, worst}} {
		r, err := stream(ctx, l, c.name, strings.Repeat(c.item, 16<<20/len(c.item)), c.secrets)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	rows[1].Note += "; with a password of eight digits, the address of a webhook, and HTML in the answer"
	return rows, nil
}

func stream(ctx context.Context, l *lab, name, text string, of []string) (row, error) {
	var secrets []secretbytes.Bytes
	for _, s := range of {
		secrets = append(secrets, secretbytes.New([]byte(s)))
	}
	s, err := scrub.New(secrets)
	if err != nil {
		return row{}, err
	}
	defer s.Wipe()
	copyOf := func(r io.Reader) error {
		_, err := io.CopyBuffer(&sink{}, plain{r}, make([]byte, 32<<10))
		return err
	}
	ours, reference, err := inTurn(ctx, l,
		func() error { return copyOf(s.Stream().Reader(strings.NewReader(text))) },
		func() error { return copyOf(strings.NewReader(text)) })
	if err != nil {
		return row{}, err
	}
	speed := func(µs float64) float64 { return float64(len(text)) / µs } // bytes a µs are MB a second
	r := compare(name, "MB/s", speed(ours), speed(reference)).noted("one core; the reference copies it")
	return r.judged("≥ 1000 MB/s", r.Ours >= 1000), nil
}

// manyConnections measures a vault with as many as one agent could have.
func manyConnections(ctx context.Context, l *lab) ([]row, error) {
	n := pick(l, 10_000, 500)
	l.say("vault: %d connections", n)
	d, err := newDesk(ctx, l, "many", n)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.close() }()
	if err := d.vault.Close(); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	opened := time.Since(began)
	some := make([]*lendable, 50)
	for i := range some {
		if some[i], err = d.lendable(ctx, i*(n/len(some))); err != nil {
			return nil, err
		}
	}
	unsealed, err := bareOpen()
	if err != nil {
		return nil, err
	}
	i := 0
	ours, reference, err := inTurn(ctx, l, func() error {
		i++
		lease, err := d.lend(ctx, some[i%len(some)])
		lease.Done()
		return err
	}, unsealed)
	if err != nil {
		return nil, err
	}
	return []row{
		compare(fmt.Sprintf("vault: decrypt and use, of %d connections", n), "µs", ours, reference).atMost(20).noted("the reference opens the same bytes with AES-256-GCM"),
		{Figure: fmt.Sprintf("vault: opened with %d connections", n), Unit: "ms", Ours: float64(opened.Milliseconds())},
	}, nil
}

// bareOpen opens what a token is sealed as.
func bareOpen() (func() error, error) {
	block, err := aes.NewCipher(key(3).Reveal())
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	associated := make([]byte, 80)
	sealed := aead.Seal(nil, nil, make([]byte, 41), associated)
	return func() error {
		_, err := aead.Open(nil, nil, sealed, associated)
		return err
	}, nil
}

// inTurn repeats two things for a while each, in turn, and returns the medians
// over the rounds of how long one takes, in µs.
func inTurn(ctx context.Context, l *lab, ours, reference func() error) (a, b float64, err error) {
	long := pick(l, 300*time.Millisecond, 30*time.Millisecond)
	var times [2][]float64
	for round := range pick(l, 9, 3) + 1 {
		for side, once := range []func() error{ours, reference} {
			n, began := 0, time.Now()
			for ; time.Since(began) < long; n++ {
				if err := once(); err != nil {
					return 0, 0, err
				}
			}
			if round > 0 {
				times[side] = append(times[side], float64(time.Since(began))/float64(time.Microsecond)/float64(n))
			}
		}
	}
	return median(times[0]), median(times[1]), ctx.Err()
}
