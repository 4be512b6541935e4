//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"ambit/api"
)

// The agents whose gates are compared: one with an account at the shop, and one
// with a rule for it.
const (
	withAccount = "bench"
	withRule    = "plain"
	account     = "shop"
)

// accountManifest is an agent with an account at the shop, and a rule for
// another name of it.
func accountManifest(u *helper) string {
	indented := strings.ReplaceAll(strings.TrimSpace(u.CA), "\n", "\n      ")
	return fmt.Sprintf("ambit: v1\nname: %s\nconnectors:\n  - name: bearer\n    as: %s\n    hosts: [%s]\n    ports: [%d]\n    methods: [GET]\n    paths: [/v1/**]\n    private: true\n    resolve: [127.0.0.1]\n    ca: |\n      %s\negress:\n  allow:\n%s",
		withAccount, account, shop, u.Port, indented, ruleFor(u, otherShop))
}

// connectShop connects the account, and returns the agent's reference to it.
func (h *home) connectShop(ctx context.Context) (string, error) {
	if _, err := h.client.Connect(ctx, withAccount, account, api.Connect{Fields: map[string][]byte{"token": []byte("real-token-0123456789-0123456789-01234567")}}); err != nil {
		return "", err
	}
	ref, err := h.exec(ctx, withAccount, "printenv", "SHOP_TOKEN")
	return strings.TrimSpace(ref), err
}

// accounts measures what an account costs at the gate: requests with injection
// and scrubbing against those without, and how soon revoking cuts.
func accounts(ctx context.Context, l *lab) ([]row, error) {
	u, _, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	h, err := l.newHome(ctx, "account")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	if err := errors.Join(h.deploy(ctx, accountManifest(u)), h.deploy(ctx, agentManifest(withRule, nil, shopRule(u)))); err != nil {
		return nil, err
	}
	ref, err := h.connectShop(ctx)
	if err != nil {
		return nil, err
	}
	on, err := h.gateOf(ctx, withAccount, u)
	if err != nil {
		return nil, err
	}
	off, err := h.gateOf(ctx, withRule, u)
	if err != nil {
		return nil, err
	}
	on.bearer = ref
	var rows []row
	for _, at := range []int{16, 64} {
		l.say("account: %d at a time", at)
		d, err := l.duel(ctx, func(d *door, long time.Duration) (sample, error) { return d.keptAlive(ctx, at, long) }, on, off)
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("request with an account, %d at a time", at)
		rows = append(rows, d.row(name, "req/s", rate).ratioAtLeast(0.95).noted("the reference is the gate without an account"),
			d.row(name+": processor", "µs", cpu))
	}
	l.say("account: revoke to cut")
	r, err := h.revokeToCut(ctx, on, u)
	return append(rows, r), err
}

// revokeToCut revokes again and again while streams with the account are under
// way, and other requests through the same gate. What is measured begins with
// the call and ends when the agent's side of the stream does.
func (h *home) revokeToCut(ctx context.Context, on *door, u *helper) (row, error) {
	const perRound = 8
	loaded := *on
	loaded.authority, loaded.bearer = strings.Replace(on.authority, shop, otherShop, 1), ""
	stop, done := context.WithCancel(ctx)
	defer done()
	var busy sync.WaitGroup
	busy.Go(func() {
		for stop.Err() == nil {
			_, _ = loaded.keptAlive(stop, 8, time.Second) // the samples are of no interest
		}
	})
	defer func() { done(); busy.Wait() }()
	var cuts, calls []float64
	for range pick(h.lab, 50, 3) {
		began, ends, err := h.revokeOnce(ctx, on, perRound)
		if err != nil {
			return row{}, err
		}
		for _, end := range ends {
			cuts = append(cuts, float64(end.Sub(began))/float64(time.Millisecond))
		}
		asked := time.Now()
		if _, err := h.client.Version(ctx); err != nil {
			return row{}, err
		}
		calls = append(calls, float64(time.Since(asked))/float64(time.Millisecond))
		if _, err := h.connectShop(ctx); err != nil {
			return row{}, err
		}
	}
	r := compare("revoke to cut, 99th percentile", "ms", percentile(cuts, 0.99), percentile(calls, 0.99)).atMost(50)
	return r.noted("of %d streams, with 8 requests at a time beside them; median %s ms; the reference is a call of the API that does nothing", len(cuts), number(median(cuts))), nil
}

// revokeOnce opens streams, revokes, and returns when it began to and when each
// stream ended.
func (h *home) revokeOnce(ctx context.Context, on *door, n int) (began time.Time, ends []time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ends = make([]time.Time, n)
	opened := make([]*session, n)
	for i := range opened {
		if opened[i], err = on.open(ctx); err != nil {
			return began, nil, err
		}
		defer func() { _ = opened[i].conn.Close() }()
		if err = opened[i].stream(on); err != nil {
			return began, nil, err
		}
	}
	var wg sync.WaitGroup
	for i, s := range opened {
		wg.Go(func() {
			_, _ = io.Copy(io.Discard, s.r) // until it is cut
			ends[i] = time.Now()
		})
	}
	began = time.Now()
	_, err = h.client.Revoke(ctx, withAccount, account)
	wg.Wait()
	return began, ends, errors.Join(err, context.Cause(ctx))
}

// stream asks for the stream, and waits for its first bytes.
func (c *session) stream(d *door) error {
	if _, err := io.WriteString(c.conn, d.head(ticks)); err != nil {
		return err
	}
	line, err := c.r.ReadSlice('\n')
	if err == nil && string(line) != "HTTP/1.1 200 OK\r\n" {
		err = fmt.Errorf("the stream is answered %q", line)
	}
	return err
}

// percentile returns the least value that at least that part of all is not
// above.
func percentile(all []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)]
}
