//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// usage is what idle processes take, for each of n agents.
type usage struct {
	memory  float64 // MB, proportional set size
	percent float64 // of a core
}

// usageOf watches processes for a while.
func usageOf(ctx context.Context, n int, long time.Duration, pids func() []int) (usage, error) {
	before, began := cpuTimes(pids()), time.Now()
	if err := pause(ctx, long); err != nil {
		return usage{}, err
	}
	after := pids()
	now, took := cpuTimes(after), time.Since(began)
	for pid := range now {
		if _, ok := before[pid]; !ok {
			return usage{}, fmt.Errorf("process %d began while idle agents were watched: something restarts", pid)
		}
	}
	used := spent(before, now)
	memory, err := pss(after)
	return usage{memory: float64(memory) / 1e6 / float64(n), percent: 100 * used.Seconds() / took.Seconds() / float64(n)}, err
}

// idle measures agents that sleep, and bare gVisors whose program sleeps.
func idle(ctx context.Context, l *lab) ([]row, error) {
	n, long := pick(l, 20, 3), pick(l, 30*time.Second, 5*time.Second)
	h, err := l.newHome(ctx, "idle")
	if err != nil {
		return nil, err
	}
	all, workers, serve, err := h.idleAgents(ctx, n, long)
	h.stop()
	if err != nil {
		return nil, err
	}
	l.say("idle: %d bare gVisors", n)
	reference, err := l.idleBare(ctx, h, n, long)
	if err != nil {
		return nil, err
	}
	note := fmt.Sprintf("for each of %d agents; of it the worker %.1f MB; serve has %.0f MB besides", n, workers.memory, serve.memory)
	return []row{
		compare("idle memory", "MB", all.memory, reference.memory).atMost(50).noted("%s", note),
		compare("idle processor", "% of a core", all.percent+serve.percent/float64(n), reference.percent).atMost(0.2).
			noted("of it the worker %.2f %%, serve %.2f %%", workers.percent, serve.percent/float64(n)),
	}, nil
}

// idleAgents starts n agents and watches them: worker and computer together,
// the workers alone, and the control plane (for all).
func (h *home) idleAgents(ctx context.Context, n int, long time.Duration) (all, workers, serve usage, err error) {
	h.lab.say("idle: starting %d agents", n)
	if err = h.deployIdle(ctx, 0, n); err != nil {
		return
	}
	var workerPIDs []int
	for i := range n {
		pid, err := h.worker(ctx, idleName(i))
		if err != nil {
			return all, workers, serve, err
		}
		workerPIDs = append(workerPIDs, pid)
	}
	if err = pause(ctx, settle(h.lab)); err != nil {
		return
	}
	h.lab.say("idle: watching %d agents for %v", n, long)
	groups := []func() []int{
		func() []int {
			pids := append([]int(nil), workerPIDs...)
			for i := range n {
				pids = append(pids, h.computer(idleName(i))...)
			}
			return pids
		},
		func() []int { return workerPIDs },
		func() []int { return []int{h.cmd.Process.Pid} },
	}
	results, errs := make([]usage, 3), make([]error, 3)
	done := make(chan struct{})
	for i, pids := range groups {
		go func() {
			results[i], errs[i] = usageOf(ctx, []int{n, n, 1}[i], long, pids)
			done <- struct{}{}
		}()
	}
	for range groups {
		<-done
	}
	for _, e := range errs {
		if e != nil {
			err = e
		}
	}
	return results[0], results[1], results[2], err
}

// settle is how long agents are left alone before they count as idle: longer
// than Ambit waits to put one to sleep.
func settle(l *lab) time.Duration { return pick(l, 30*time.Second, 5*time.Second) }

// idleBare starts n bare gVisors with the bundle of h's first agent.
func (l *lab) idleBare(ctx context.Context, h *home, n int, long time.Duration) (usage, error) {
	dirs := make([]string, 0, n)
	for i := range n {
		like := h.layout(idleName(0))
		b, err := l.newBare(ctx, fmt.Sprintf("idle-bare-%d", i), like, idleProgram, like.Gate())
		if err != nil {
			return usage{}, err
		}
		defer func() { _ = b.end() }()
		if err := b.start(ctx); err != nil {
			return usage{}, err
		}
		dirs = append(dirs, b.layout.Computer())
	}
	if err := pause(ctx, settle(l)); err != nil {
		return usage{}, err
	}
	return usageOf(ctx, n, long, func() (pids []int) {
		for _, dir := range dirs {
			pids = append(pids, computerAt(dir)...)
		}
		return pids
	})
}
