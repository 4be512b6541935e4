package sink

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/audit/sink/outputs"
)

// read puts together what is in the files of a sink, those that were rotated first.
// Lines that are not whole are left out, as a reader must.
func read(t *testing.T, path string) *got {
	t.Helper()
	old, err := filepath.Glob(strings.TrimSuffix(path, ".jsonl") + ".*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(old)
	g := &got{}
	for _, name := range append(old, path) {
		fi, err := os.Stat(name)
		if err != nil {
			continue
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var e ambit.Event
			if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &e) == nil {
				g.add(support.Name, e.Seq)
			}
		}
	}
	return g
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := open(t, &outputs.Sink{Kind: outputs.File, Path: path, MaxSize: 20 << 10, MaxAge: time.Hour, Keep: 3})
	s.Limits = Limits{Events: 20}
	f := s.Receiver.(*file)
	r, stop := start(t, quick(newCursors(), s))
	m := newMemory()
	m.write(1000)
	add(t, r, support, m)
	until(t, func() error {
		if s := r.Status()[0]; s.State != Idle {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	stop()
	names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(names) != 4 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		if fi, err := os.Stat(name); err != nil || fi.Size() > 20<<10 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	g := read(t, path)
	if last := g.seqs[support.Name]; len(last) < 40 || last[len(last)-1] != 999 || !slices.IsSorted(last) {
		t.Errorf("the last files have %v", last)
	}

	// by age
	f.keep, f.maxSize = 0, 1<<30
	if _, err := f.Deliver(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	f.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if _, err := f.Deliver(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	if now, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(now) != 5 {
		t.Errorf("not rotated by age: %v", now)
	}
	_ = f.Close()
}

// A line that a crash tore is ended, not cut off, and does not swallow the next.
func TestFileTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(`{"seq":0,"kind":"al`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := open(t, &outputs.Sink{Kind: outputs.File, Path: path, MaxSize: 1 << 20, MaxAge: time.Hour}).Receiver
	defer f.Close()
	if _, err := f.Deliver(t.Context(), batch(3)); err != nil {
		t.Fatal(err)
	}
	if err := read(t, path).whole(support.Name, 3); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile(path); !strings.HasPrefix(string(text), "{\"seq\":0,\"kind\":\"al\n") {
		t.Errorf("%.60q", text)
	}
}

func TestFileRefused(t *testing.T) {
	dir := t.TempDir()
	wide, link, folder := filepath.Join(dir, "wide.jsonl"), filepath.Join(dir, "link.jsonl"), filepath.Join(dir, "folder.jsonl")
	if err := os.WriteFile(wide, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(wide, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{wide, link, folder, filepath.Join(dir, "none", "events.jsonl")} {
		f := open(t, &outputs.Sink{Kind: outputs.File, Path: path, MaxSize: 1 << 20, MaxAge: time.Hour}).Receiver
		if _, err := f.Deliver(t.Context(), batch(1)); err == nil {
			t.Errorf("%s was taken", path)
		}
		_ = f.Close()
	}
	// two processes
	path := filepath.Join(dir, "events.jsonl")
	one, two := open(t, &outputs.Sink{Kind: outputs.File, Path: path, MaxSize: 1 << 20, MaxAge: time.Hour}).Receiver, open(t, &outputs.Sink{Kind: outputs.File, Path: path, MaxSize: 1 << 20, MaxAge: time.Hour}).Receiver
	defer one.Close()
	if _, err := one.Deliver(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Deliver(t.Context(), batch(1)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
	// somebody else rotates
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Deliver(t.Context(), batch(2)); err != nil {
		t.Fatal(err)
	}
	if err := read(t, path).whole(support.Name, 2); err != nil {
		t.Error(err)
	}
}

// TestFileKilled kills the process that writes, again and again, and wants what it
// said to have acknowledged.
func TestFileKilled(t *testing.T) {
	if path := os.Getenv("SINK_FILE"); path != "" {
		writeUntilKilled(path)
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFileKilled$")
		cmd.Env = append(os.Environ(), "SINK_FILE="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := 0
		for lines := bufio.NewScanner(out); acknowledged < 150 && lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if acknowledged < 150 {
			t.Fatalf("it ended by itself after %d", acknowledged)
		}
		g := read(t, path)
		g.mu.Lock()
		seqs := g.seqs[support.Name]
		g.mu.Unlock()
		for seq := range uint64(acknowledged) {
			if !slices.Contains(seqs, seq) {
				t.Fatalf("%d was acknowledged and is not there", seq)
			}
		}
	}
}

func writeUntilKilled(path string) {
	f := newFile(&outputs.Sink{Path: path, MaxSize: 5 << 10, MaxAge: time.Hour}, "")
	for first := 0; ; first += 10 {
		b := Batch{Log: support}
		for i := range 10 {
			b.Events = append(b.Events, ambit.Event{Seq: uint64(first + i), Kind: ambit.KindAlert, Detail: strings.Repeat("x", 100)})
		}
		if _, err := f.Deliver(context.Background(), b); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("acknowledged", first+10)
	}
}
