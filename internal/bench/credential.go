//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"ambit/api"
	"ambit/internal/scrub"
)

// The agents whose gates are compared: one with an account at the shop, and one
// with a rule for it.
const (
	withAccount = "bench"
	withRule    = "plain"
	account     = "shop"
)

// realToken is the account's credential.
const realToken = "real-token-0123456789-0123456789-01234567"

// accountManifest is an agent with an account at the shop, and a rule for
// another name of it.
func accountManifest(u *helper) string {
	indented := strings.ReplaceAll(strings.TrimSpace(u.CA), "\n", "\n      ")
	return fmt.Sprintf("ambit: v1\nname: %s\nconnectors:\n  - name: bearer\n    as: %s\n    hosts: [%s]\n    ports: [%d]\n    methods: [GET]\n    paths: [/v1/**]\n    private: true\n    resolve: [127.0.0.1]\n    ca: |\n      %s\negress:\n  allow:\n%s",
		withAccount, account, shop, u.Port, indented, ruleFor(u, otherShop))
}

// connectShop connects the account, and returns the agent's reference to it.
func (h *home) connectShop(ctx context.Context) (string, error) {
	if _, err := h.client.Connect(ctx, withAccount, account, api.Connect{Fields: map[string][]byte{"token": []byte(realToken)}}); err != nil {
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
	if err := on.lends(ctx); err != nil {
		return nil, err
	}
	rows, err := l.besideARule(ctx, on, off)
	if err != nil {
		return rows, err
	}
	l.say("account: revoke to cut")
	r, err := h.revokeToCut(ctx, on, u)
	return append(rows, r), err
}

// lends makes sure that the real credential leaves, and that it does not come
// back: what is measured is not the gate doing nothing.
func (d *door) lends(ctx context.Context) error {
	crossed := "Bearer " + strings.Repeat(string(rune(scrub.Filler)), len(realToken))
	want := fmt.Sprintf("%x %s", sha256.Sum256([]byte("Bearer "+realToken)), crossed)
	s, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.conn.Close() }()
	if _, err := io.WriteString(s.conn, d.head(whoami)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	said, err := io.ReadAll(resp.Body)
	if err == nil && string(said) != want {
		err = fmt.Errorf("the credential was not put in, or not crossed out: the answer is %q", said)
	}
	return err
}

// besideARule measures requests with an account against those of an agent with a
// rule, with short answers and with some of 10 KiB.
func (l *lab) besideARule(ctx context.Context, on, off *door) (rows []row, err error) {
	for _, body := range []struct {
		name, target string
		length       int
	}{{"", "", 0}, {" and 10 KiB", orders, len(manyOrders())}} {
		ours, reference := on.asking(body.target, body.length), off.asking(body.target, body.length)
		for _, at := range []int{16, 64} {
			l.say("account: %d at a time%s", at, body.name)
			// The sides differ little: many short rounds tell them apart.
			d, err := duelIn(ctx, pick(l, 15, 2), pick(l, 1500*time.Millisecond, 500*time.Millisecond),
				func(d *door, long time.Duration) (sample, error) { return d.keptAlive(ctx, at, long) }, ours, reference)
			if err != nil {
				return rows, err
			}
			name := fmt.Sprintf("request with an account%s, %d at a time", body.name, at)
			rows = append(rows, d.row(name, "req/s", rate).ratioAtLeast(0.95).noted("the reference is the gate without an account"),
				d.row(name+": processor", "µs", cpu))
		}
	}
	return rows, nil
}

// revokeToCut revokes again and again while streams with the account are under
// way, and other requests through the same gate. What is measured begins with
// the call and ends when the agent's side of the stream does.
func (h *home) revokeToCut(ctx context.Context, on *door, u *helper) (row, error) {
	const perRound = 8
	loaded := *on
	loaded.authority, loaded.bearer = strings.Replace(on.authority, shop, otherShop, 1), ""
	finish := loaded.keepBusy(ctx, 8)
	cuts, calls, err := h.revokeRounds(ctx, on, perRound)
	rate, failed := finish()
	if err := errors.Join(err, failed); err != nil {
		return row{}, err
	}
	r := compare("revoke to cut, 99th percentile", "ms", percentile(cuts, 0.99), percentile(calls, 0.99)).atMost(50)
	return r.noted("of %d streams, beside %s req/s at 8 at a time; median %s ms; the reference is a call of the API that does nothing", len(cuts), number(rate), number(median(cuts))), nil
}

// keepBusy sends requests, at at a time, until it is finished. It returns then how
// many there were in a second, and what went wrong: a gate that is not under
// load proves nothing.
func (d *door) keepBusy(ctx context.Context, at int) (finish func() (rate float64, err error)) {
	var rates []float64
	var err error
	enough, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for err == nil {
			var s sample
			s, err = d.keptAlive(ctx, at, 500*time.Millisecond)
			rates = append(rates, s.rate)
			select {
			case <-enough:
				return
			default:
			}
		}
	}()
	return func() (float64, error) {
		close(enough)
		<-over
		if err != nil {
			return 0, fmt.Errorf("the requests beside it: %w", err)
		}
		return median(rates), nil
	}
}

// revokeRounds returns how long cuts took, and calls of the API that do nothing,
// in ms.
func (h *home) revokeRounds(ctx context.Context, on *door, perRound int) (cuts, calls []float64, err error) {
	for range pick(h.lab, 50, 3) {
		began, ends, err := h.revokeOnce(ctx, on, perRound)
		if err != nil {
			return nil, nil, err
		}
		for _, end := range ends {
			if end.Before(began) {
				return nil, nil, errors.New("a stream ended before the account was revoked")
			}
			cuts = append(cuts, millis(end.Sub(began)))
		}
		asked := time.Now()
		if _, err := h.client.Version(ctx); err != nil {
			return nil, nil, err
		}
		calls = append(calls, millis(time.Since(asked)))
		if _, err := h.connectShop(ctx); err != nil {
			return nil, nil, err
		}
	}
	return cuts, calls, nil
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
	return sorted[max(int(math.Ceil(part*float64(len(sorted))))-1, 0)]
}
