//go:build linux

package e2e

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// TestL1TheLogCannotBeChangedInSilence (row L1): with the control plane away and
// every right on the disk, an edit, a deletion, a reordering, a truncation and
// an older copy of an agent's log are found by `ambit audit verify`.
func TestL1TheLogCannotBeChangedInSilence(t *testing.T) {
	h := newHome(t)
	u := newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "hello") }), "a.example")
	h.deploy(manifest("a", u.rule("a.example")))
	requests := func(n int) {
		h.sh("a", fmt.Sprintf("for i in $(seq %d); do curl -sS '%s?i='$i; done", n, u.url("a.example", "/")))
	}
	state := filepath.Join(h.dir, "agents", "a", "state")
	requests(3)
	h.run("stop", "a")
	h.stop()
	older := readAll(t, state)
	h.serve()
	h.run("start", "a")
	requests(3)
	h.run("stop", "a")
	head := filepath.Join(filepath.Dir(h.dir), "head")
	if err := os.WriteFile(head, []byte(h.run("audit", "head", "a")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := h.run("audit", "verify", "a", "--head", head); !strings.Contains(out, "is whole") {
		t.Fatalf("the log as it is: %s", out)
	}
	h.stop()
	whole := readAll(t, state)
	// What the control plane remembers is put back with the log: otherwise the
	// first case would be the only one in which it has not seen the log go on.
	memory := filepath.Join(h.dir, "control.db")
	remembered, err := os.ReadFile(memory)
	if err != nil {
		t.Fatal(err)
	}
	putBack := func() {
		writeAll(t, state, whole)
		_, _ = os.Remove(memory+"-wal"), os.Remove(memory+"-shm")
		if err := os.WriteFile(memory, remembered, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, statement string
		older           bool
	}{
		{name: "a changed body", statement: "UPDATE audit_event SET sealed = zeroblob(length(sealed)) WHERE seq = 5"},
		{name: "a changed commitment", statement: "UPDATE audit_event SET commitment = zeroblob(32) WHERE seq = 5"},
		{name: "a changed decision", statement: "UPDATE audit_event SET decision = 1 - decision WHERE seq = 5"},
		{name: "a changed time", statement: "UPDATE audit_event SET time = time - 1000000 WHERE seq = 5"},
		{name: "a removed event", statement: "DELETE FROM audit_event WHERE seq = 5"},
		{name: "a removed event, the gap closed", statement: "DELETE FROM audit_event WHERE seq = 5; UPDATE audit_event SET seq = -seq WHERE seq > 5; UPDATE audit_event SET seq = -seq - 1 WHERE seq < 0"},
		{name: "two events in another order", statement: "UPDATE audit_event SET seq = -1 WHERE seq = 5; UPDATE audit_event SET seq = 5 WHERE seq = 6; UPDATE audit_event SET seq = 6 WHERE seq = -1"},
		{name: "the last events cut off", statement: "DELETE FROM audit_event WHERE seq > 8"},
		{name: "everything cut off", statement: "DELETE FROM audit_event"},
		{name: "an older copy", older: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			putBack()
			if c.older {
				writeAll(t, state, older)
			}
			tamper(t, filepath.Join(state, "agent.db"), c.statement)
			h.t = t
			h.serve()
			r, err := h.try("audit", "verify", "a", "--head", head)
			if err == nil || r.code != 1 || !strings.Contains(r.stderr, "is NOT what was written") && !strings.Contains(r.stderr, "was changed behind its back") {
				t.Errorf("verify with a head: %+v", r)
			}
			if r, err := h.try("start", "a"); err == nil && strings.Contains(h.run("status", "a"), "running") {
				// It may go on where it left off, but never with a log that looks whole.
				if r, err = h.try("audit", "verify", "a", "--head", head); err == nil || r.code != 1 {
					t.Errorf("after a start: %+v", r)
				}
			}
			h.stop()
		})
	}
	h.t = t
	putBack()
	h.serve()
	if out := h.run("audit", "verify", "a", "--head", head); !strings.Contains(out, "is whole") {
		t.Errorf("the log put back: %s", out)
	}
}

// tamper changes a database behind everybody's back.
func tamper(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if statement != "" {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		t.Fatal(err)
	}
}

// kept is a file of a folder that was read.
type kept struct {
	name string
	data []byte
	uid  uint32
}

func readAll(t *testing.T, dir string) (files []kept) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := ownerOf(t, path)
		files = append(files, kept{e.Name(), b, uid})
	}
	return files
}

// writeAll makes a folder hold these files and no other.
func writeAll(t *testing.T, dir string, files []kept) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(f.uid), -1); err != nil {
			t.Fatal(err)
		}
	}
}
