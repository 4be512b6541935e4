//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"ambit/manifest"
)

// roomForOne is the memory that must be free for each idle agent, and
// roomForRest what is left to everything else, in bytes.
const (
	roomForOne  = 60 << 20
	roomForRest = 2 << 30
)

// standing is how the first agent fares.
type standing struct{ rate, exec float64 }

// crowd measures the first agent alone, beside some, beside many, and alone
// again.
func crowd(ctx context.Context, l *lab) ([]row, error) {
	many := pick(l, 100, 10)
	room := int((meminfo("MemAvailable") - roomForRest) / roomForOne)
	if room < 2 {
		return nil, errors.New("there is not enough free memory for more than one agent")
	}
	note := ""
	if many > room {
		many, note = room, fmt.Sprintf("there is memory for %d only", room)
	}
	u, _, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	h, err := l.newHome(ctx, "agents")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	if err := h.deploy(ctx, agentManifest("bench", idleProgram, shopRule(u))); err != nil {
		return nil, err
	}
	counts := []int{1, max(many/10, 2), many, 1}
	var found []standing
	existing := 1
	for _, n := range counts {
		l.say("agents: %d", n)
		if n > existing {
			err = h.deployIdle(ctx, existing, n)
		} else if n < existing {
			err = h.wipeIdle(ctx, n, existing)
		}
		if err != nil {
			return nil, err
		}
		existing = n
		s, err := h.standing(ctx, u)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	alone := standing{mean(found[0].rate, found[3].rate), mean(found[0].exec, found[3].exec)}
	var rows []row
	for i, n := range counts[1:3] {
		s := found[i+1]
		rows = append(rows,
			compare(fmt.Sprintf("first of %d agents: 16 at a time", n), "req/s", s.rate, alone.rate).ratioAtLeast(0.9).noted("%s", note),
			compare(fmt.Sprintf("first of %d agents: exec", n), "ms", s.exec, alone.exec).ratioAtMost(1.1).noted("%s", note))
	}
	return rows, nil
}

// standing measures agent bench.
func (h *home) standing(ctx context.Context, u *helper) (standing, error) {
	if err := pause(ctx, settle(h.lab)); err != nil {
		return standing{}, err
	}
	d, err := h.gate(ctx, u)
	if err != nil {
		return standing{}, err
	}
	rate, err := h.lab.rateAt16(ctx, d)
	if err != nil {
		return standing{}, err
	}
	exec, _, err := h.execTimes(ctx, pick(h.lab, 20, 5))
	return standing{rate: rate, exec: exec}, err
}

// rateAt16 is the median of some rounds at 16 at a time, in requests per second.
func (l *lab) rateAt16(ctx context.Context, d *door) (float64, error) {
	var rates []float64
	for round := range pick(l, 5, 2) + 1 {
		s, err := d.keptAlive(ctx, 16, pick(l, 3*time.Second, 500*time.Millisecond))
		if err != nil {
			return 0, err
		}
		if round > 0 { // the first one warms up
			rates = append(rates, s.rate)
		}
	}
	return median(rates), nil
}

// wipeIdle wipes agents n to m-1.
func (h *home) wipeIdle(ctx context.Context, n, m int) error {
	var wg sync.WaitGroup
	errs := make([]error, m)
	for i := n; i < m; i++ {
		wg.Go(func() { _, errs[i] = h.client.Wipe(ctx, idleName(i)) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rules measures the gate with few rules, more, as many as a manifest holds,
// and few again.
func rules(ctx context.Context, l *lab) ([]row, error) {
	u, _, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	h, err := l.newHome(ctx, "rules")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	var found, memory []float64
	var deploy []time.Duration
	counts := []int{10, 1000, 1 << 30, 10}
	for i := range counts {
		var text string
		text, counts[i] = manyRules(u, counts[i])
		l.say("rules: %d", counts[i])
		began := time.Now()
		if err := h.deploy(ctx, text); err != nil {
			return nil, err
		}
		deploy = append(deploy, time.Since(began))
		d, err := h.gate(ctx, u)
		if err != nil {
			return nil, err
		}
		rate, err := l.rateAt16(ctx, d)
		if err != nil {
			return nil, err
		}
		bytes, err := pss([]int{d.pid})
		if err != nil {
			l.say("%v", err)
		}
		found, memory = append(found, rate), append(memory, float64(bytes)/1e6)
	}
	few := mean(found[0], found[3])
	var rows []row
	for i := range 2 {
		n := counts[i+1]
		r := compare(fmt.Sprintf("16 at a time with %d rules", n), "req/s", found[i+1], few).ratioAtLeast(0.9).noted("the reference is 10 rules")
		if memory[i+1] > 0 {
			r.Note += fmt.Sprintf("; the worker has %.0f MB, with 10 rules %.0f MB", memory[i+1], memory[0])
		}
		rows = append(rows, r)
	}
	return append(rows, row{Figure: fmt.Sprintf("deploy of %d rules", counts[2]), Unit: "s", Ours: deploy[2].Seconds()}), nil
}

// manyRules is a manifest with n rules, or as many as fit; the one that the
// requests need is the last.
func manyRules(u *helper, n int) (text string, count int) {
	last := fmt.Sprintf("{host: %s, ports: [%d], methods: [GET], paths: [/v1/**], private: true, resolve: [127.0.0.1], ca: %q}]}\n", shop, u.Port, u.CA)
	var b strings.Builder
	b.WriteString("ambit: v1\nname: bench\negress: {allow: [\n")
	for count = 1; count < n; count++ {
		host := "a" + strconv.FormatInt(int64(count), 36) + ".io"
		if count%10 == 0 {
			host = `"*.` + host + `"`
		}
		line := "{host: " + host + "},\n"
		if b.Len()+len(line)+len(last) > manifest.MaxSize {
			break
		}
		b.WriteString(line)
	}
	b.WriteString(last)
	return b.String(), count
}
