//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"ambit/internal/inside"
)

// downloads fetches a large file with curl from inside a computer: through the
// gate, and from bare gVisor straight to the same upstream over a Unix socket.
func downloads(ctx context.Context, l *lab) ([]row, error) {
	u, upDir, err := l.upstream(ctx)
	if err != nil {
		return nil, err
	}
	defer u.stop()
	h, err := l.newHome(ctx, "download")
	if err != nil {
		return nil, err
	}
	defer h.stop()
	if err := h.deploy(ctx, agentManifest("bench", idleProgram, shopRule(u))); err != nil {
		return nil, err
	}
	b, err := l.newBare(ctx, "download-bare", h.layout("bench"), idleProgram, upDir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.layout.Workspace(), "up.pem"), []byte(u.CA), 0o644); err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	var rows []row
	for _, version := range []struct{ name, flag string }{{"HTTP/2", "--http2"}, {"HTTP/1.1", "--http1.1"}} {
		l.say("download: %s", version.name)
		more, err := l.download(ctx, h, b, version.name, []string{
			"curl", "-sS", "--fail", version.flag, "-o", "/dev/null", "-w", "%{size_download} %{time_total}", "https://" + authority(u) + blob,
		})
		if err != nil {
			return rows, fmt.Errorf("downloading with %s: %w", version.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, b.end()
}

// download runs curl in both computers, in turn.
func (l *lab) download(ctx context.Context, h *home, b *bare, version string, curl []string) ([]row, error) {
	straight := []string{"--unix-socket", inside.Dir + "/gate/up.sock", "--cacert", inside.Workspace + "/up.pem", "--noproxy", "*"}
	ways := []func() (string, error){
		func() (string, error) { return h.exec(ctx, "bench", curl...) },
		func() (string, error) {
			return h.exec(ctx, "bench", slices.Concat(curl, []string{"--noproxy", "*"})...)
		},
		func() (string, error) { return b.exec(ctx, slices.Concat(curl, straight)...) },
	}
	speeds := make([][]float64, len(ways))
	for round := range pick(l, 5, 2) + 1 {
		for i, way := range ways {
			said, err := way()
			if err != nil {
				return nil, err
			}
			speed, err := speedOf(said)
			if err != nil {
				return nil, err
			}
			if round > 0 { // the first one warms up
				speeds[i] = append(speeds[i], speed)
			}
		}
	}
	reference := median(speeds[2])
	return []row{
		compare("download, "+version+", proxy variable", "MiB/s", median(speeds[0]), reference).ratioAtLeast(0.9).noted("medians of %d", len(speeds[0])),
		compare("download, "+version+", transparent", "MiB/s", median(speeds[1]), reference).ratioAtLeast(0.9),
	}, nil
}

// speedOf reads curl's size and time, and returns MiB/s.
func speedOf(said string) (float64, error) {
	size, seconds, _ := strings.Cut(strings.TrimSpace(said), " ")
	took, err := strconv.ParseFloat(seconds, 64)
	if err != nil || size != strconv.Itoa(blobSize) || took <= 0 {
		return 0, fmt.Errorf("the download was not whole: curl says %q", said)
	}
	return blobSize / float64(1<<20) / took, nil
}
