//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit"
)

// upstream starts the service that requests go to. Its Unix socket is in a
// folder of its own, which can be mounted into a bare computer.
func (l *lab) upstream(ctx context.Context) (*helper, string, error) {
	dir, err := os.MkdirTemp(l.dir, "up-")
	if err != nil {
		return nil, "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, "", err
	}
	u, err := startRole(ctx, "role-upstream", setup{Socket: filepath.Join(dir, "up.sock")})
	return u, dir, err
}

// shopRule is the rule that lets an agent reach the upstream.
func shopRule(u *helper) string { return ruleFor(u, shop) }

func ruleFor(u *helper, name string) string {
	indented := strings.ReplaceAll(strings.TrimSpace(u.CA), "\n", "\n        ")
	return fmt.Sprintf("    - host: %s\n      ports: [%d]\n      methods: [GET]\n      paths: [/v1/**]\n      private: true\n      resolve: [127.0.0.1]\n      ca: |\n        %s\n",
		name, u.Port, indented)
}

func authority(u *helper) string { return shop + ":" + strconv.Itoa(u.Port) }

// gate is the door of agent bench.
func (h *home) gate(ctx context.Context, u *helper) (*door, error) { return h.gateOf(ctx, "bench", u) }

func (h *home) gateOf(ctx context.Context, id ambit.AgentID, u *helper) (*door, error) {
	s, err := h.client.Status(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.Reported == nil {
		return nil, fmt.Errorf("the worker says nothing: %s", s.Missing)
	}
	roots, err := poolOf(s.Reported.CA)
	return &door{socket: h.layout(id).GateSock(), preface: "AMBIT/1 proxy\n", authority: authority(u), roots: roots, pid: s.Reported.PID}, err
}

// reference starts the minimal proxy.
func (l *lab) reference(ctx context.Context, u *helper) (*helper, *door, error) {
	socket := filepath.Join(l.dir, "reference.sock")
	r, err := startRole(ctx, "role-reference", setup{Socket: socket, Upstream: "127.0.0.1:" + strconv.Itoa(u.Port), CA: u.CA})
	if err != nil {
		return nil, nil, err
	}
	roots, err := poolOf(r.CA)
	if err != nil {
		r.stop()
		return nil, nil, err
	}
	return r, &door{socket: socket, authority: authority(u), roots: roots, pid: r.cmd.Process.Pid}, nil
}

// duel alternates load on two doors and collects the samples of each.
type duel struct {
	ours, reference []sample
}

func (l *lab) duel(ctx context.Context, load func(*door, time.Duration) (sample, error), ours, reference *door) (duel, error) {
	return duelIn(ctx, pick(l, 5, 2), pick(l, 4*time.Second, 500*time.Millisecond), load, ours, reference)
}

// duelIn is a duel of so many rounds, each so long for either side.
func duelIn[D any](ctx context.Context, rounds int, long time.Duration, load func(D, time.Duration) (sample, error), ours, reference D) (d duel, err error) {
	for round := range rounds + 1 {
		for i, side := range []D{ours, reference} {
			s, err := load(side, long)
			if err != nil {
				return d, fmt.Errorf("%s: %w", [...]string{"gate", "reference"}[i], err)
			}
			switch {
			case round == 0: // warms up
			case i == 0:
				d.ours = append(d.ours, s)
			default:
				d.reference = append(d.reference, s)
			}
		}
	}
	return d, ctx.Err()
}

// row compares one value of the samples: medians, and the median of the ratios
// of each round.
func (d duel) row(figure, unit string, value func(sample) float64) row {
	var ours, reference, ratios []float64
	for i := range d.ours {
		a, b := value(d.ours[i]), value(d.reference[i])
		ours, reference = append(ours, a), append(reference, b)
		ratios = append(ratios, a/max(b, 1e-9))
	}
	r := compare(figure, unit, median(ours), median(reference))
	r.Ratio = median(ratios)
	return r
}

func rate(s sample) float64    { return s.rate }
func latency(s sample) float64 { return s.median }
func cpu(s sample) float64     { return s.cpu }

// requests measures the gate against the minimal proxy.
func requests(ctx context.Context, l *lab) ([]row, error) {
	u, _, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	r, reference, err := l.reference(ctx, u)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	h, ours, err := l.benchHome(ctx, u, l.folder)
	if err != nil {
		return nil, err
	}
	defer func() {
		if h != nil {
			h.stop()
		}
	}()
	disk, err := fdatasync(ctx, h.dir)
	if err != nil {
		return nil, err
	}
	rows := []row{{Figure: "disk: fdatasync of 4 KiB", Unit: "µs", Ours: disk, Note: "median; in every durable append"}}
	for _, at := range []int{1, 16, 64} {
		l.say("request: %d at a time", at)
		d, err := l.duel(ctx, func(d *door, long time.Duration) (sample, error) { return d.keptAlive(ctx, at, long) }, ours, reference)
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("request, %d at a time", at)
		if at == 1 {
			rows = append(rows, d.row(name+": latency", "µs", latency).moreByAtMost(150).noted("medians; ours less the disk's fdatasync: %.0f µs", d.row("", "", latency).Ours-disk))
		} else {
			rows = append(rows, d.row(name, "req/s", rate).ratioAtLeast(0.9), d.row(name+": latency", "µs", latency))
		}
		rows = append(rows, d.row(name+": processor", "µs", cpu).noted("the proxy's processor time for each request"))
	}
	l.say("request: fresh connections, 8 at a time")
	d, err := l.duel(ctx, func(d *door, long time.Duration) (sample, error) { return d.fresh(ctx, 8, long) }, ours, reference)
	if err != nil {
		return rows, err
	}
	rows = append(rows, d.row("fresh connections, 8 at a time", "conn/s", rate), d.row("fresh connections: processor", "µs", cpu))
	h.stop()
	h, ours, err = l.benchHome(ctx, u, l.inMemory)
	if err != nil || h == nil {
		return rows, err
	}
	more, err := l.withoutDisk(ctx, ours, reference)
	return append(rows, more...), err
}

// withoutDisk measures again with the home, and so the log, in memory: what is
// then missed is the gate's own.
func (l *lab) withoutDisk(ctx context.Context, ours, reference *door) (rows []row, err error) {
	for _, at := range []int{1, 16, 64} {
		l.say("request: %d at a time, without a disk", at)
		d, err := l.duel(ctx, func(d *door, long time.Duration) (sample, error) { return d.keptAlive(ctx, at, long) }, ours, reference)
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("request, %d at a time, without a disk", at)
		if at == 1 {
			rows = append(rows, d.row(name+": latency", "µs", latency).moreByAtMost(150).noted("the home is in memory: what the gate itself costs"))
		} else {
			rows = append(rows, d.row(name, "req/s", rate).ratioAtLeast(0.9).noted("the home is in memory"))
		}
	}
	return rows, nil
}

// benchHome starts a control plane in a folder and deploys the agent whose gate
// is measured; nil if there is no such folder.
func (l *lab) benchHome(ctx context.Context, u *helper, folder func(string, os.FileMode) (string, error)) (*home, *door, error) {
	dir, err := folder("request", 0o700)
	if err != nil || dir == "" {
		return nil, nil, err
	}
	h, err := l.homeIn(ctx, "request", dir)
	if err != nil {
		return nil, nil, err
	}
	err = h.deploy(ctx, agentManifest("bench", nil, shopRule(u)))
	var ours *door
	if err == nil {
		ours, err = h.gate(ctx, u)
	}
	if err != nil {
		h.stop()
		return nil, nil, err
	}
	return h, ours, nil
}

// fdatasync is the median time, in µs, of making 4 KiB durable at the end of a
// file in dir.
func fdatasync(ctx context.Context, dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "fdatasync-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	piece := make([]byte, 4<<10)
	var times []float64
	for range 200 {
		began := time.Now()
		if _, err := f.Write(piece); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(began))/float64(time.Microsecond))
	}
	return median(times), ctx.Err()
}
