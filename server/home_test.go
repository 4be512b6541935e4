package server

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (f *fixture) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", SocketPath(f.home))
	}
}

func TestHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "home")
	h, err := OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o700)
	if os.Geteuid() == 0 {
		want = 0o711
	}
	if fi, _ := os.Stat(h.Dir); fi.Mode().Perm() != want {
		t.Errorf("mode %v, want %v", fi.Mode().Perm(), want)
	}
	if _, err := OpenHome(dir); err == nil || !strings.Contains(err.Error(), "is serving") || !strings.Contains(err.Error(), "process ") {
		t.Errorf("a second serve: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h, err = OpenHome(dir)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	_ = h.Close()
}

func TestHomeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"group can write": {func(d string) error { return os.Chmod(d, 0o770) }, "chmod go-w"},
		"all can write":   {func(d string) error { return os.Chmod(d, 0o777) }, "chmod go-w"},
		"not ours":        {func(d string) error { return os.WriteFile(filepath.Join(d, "thesis.txt"), nil, 0o600) }, "not a home of Ambit's"},
		"newer":           {func(d string) error { return os.WriteFile(filepath.Join(d, versionFile), []byte("2\n"), 0o600) }, "newer Ambit"},
		"garbled":         {func(d string) error { return os.WriteFile(filepath.Join(d, versionFile), []byte("x"), 0o600) }, "restore it"},
		"run is a file":   {func(d string) error { return writeAll(d, versionFile, "1\n", runDir, "") }, "not a directory"},
		"lock is a link": {func(d string) error {
			return os.Symlink(filepath.Join(d, "elsewhere"), filepath.Join(d, lockFile))
		}, "locking the home"},
		"file in its place": {func(d string) error {
			if err := os.Remove(d); err != nil {
				return err
			}
			return os.WriteFile(d, nil, 0o600)
		}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "h")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			h, err := OpenHome(dir)
			if err == nil {
				_ = h.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("OpenHome: %v, want %q", err, c.want)
			}
		})
	}
}

func writeAll(dir string, namesAndTexts ...string) error {
	for i := 0; i < len(namesAndTexts); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, namesAndTexts[i]), []byte(namesAndTexts[i+1]), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestListenRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for addr, want := range map[string]string{
		taken.Addr().String(): "is taken",
		"0.0.0.0:0":           "not a loopback",
		":7400":               "not a loopback",
		"192.0.2.1:1":         "not a loopback",
		"example.com:80":      "not a loopback",
		"7400":                "HOST:PORT",
		"127.0.0.1:99999":     "listening on",
	} {
		if _, err := listenPort(addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}

func TestSocketOfADeadServeIsReplaced(t *testing.T) {
	home := filepath.Join(shortDir(t), "h")
	if err := os.MkdirAll(filepath.Join(home, runDir), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenSocket(home)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close() // as a kill leaves it
	l, err = listenSocket(home)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := os.WriteFile(SocketPath(home), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(home); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := listenSocket(filepath.Join(home, strings.Repeat("long", 30))); err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("a long path: %v", err)
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
