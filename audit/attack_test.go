package audit_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"ambit/audit"
	"ambit/internal/sqldb"
)

// copyFile saves a closed database, which is one file.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// L1: whatever is done to the file is found, and said of the right event.
func TestL1TamperingIsFound(t *testing.T) {
	type attack struct {
		name  string
		do    []string
		seq   uint64
		kind  audit.ProblemKind
		opens bool // an old event was changed: the log still opens, verification finds it
	}
	for _, a := range []attack{
		{"body", []string{"UPDATE audit_event SET sealed = (SELECT sealed FROM audit_event WHERE seq = 11) WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"body bit", []string{"UPDATE audit_event SET sealed = CAST(substr(sealed, 1, 40) || x'00ff' || substr(sealed, 43) AS BLOB) WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"body emptied", []string{"UPDATE audit_event SET sealed = x'01' WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"commitment", []string{"UPDATE audit_event SET commitment = zeroblob(32) WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"time", []string{"UPDATE audit_event SET time = time + 1 WHERE seq = 599"}, 599, audit.ProblemEdited, false},
		{"kind", []string{"UPDATE audit_event SET kind = 'alert' WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"decision", []string{"UPDATE audit_event SET decision = 0 WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"of", []string{"UPDATE audit_event SET of = 3 WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"leaf of an erased body", []string{"UPDATE audit_event SET sealed = NULL, commitment = zeroblob(32) WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"kind of an erased body", []string{"UPDATE audit_event SET sealed = NULL, kind = 'alert' WHERE seq = 10"}, 10, audit.ProblemEdited, true},
		{"leaf and its stored hash", []string{
			"UPDATE audit_event SET sealed = NULL, commitment = zeroblob(32) WHERE seq = 10",
			"UPDATE audit_tile SET hashes = zeroblob(8192) WHERE level = 0 AND n = 0"}, 0, audit.ProblemEdited, false},
		{"body taken away", []string{"UPDATE audit_event SET sealed = NULL WHERE seq = 10"}, 10, audit.ProblemErased, true},
		{"deleted row", []string{"DELETE FROM audit_event WHERE seq = 10"}, 10, audit.ProblemMissing, true},
		{"deleted first row", []string{"DELETE FROM audit_event WHERE seq = 0"}, 0, audit.ProblemMissing, true},
		{"deleted and closed up", []string{
			"DELETE FROM audit_event WHERE seq = 599", "UPDATE audit_event SET seq = -seq WHERE seq > 590",
			"UPDATE audit_event SET seq = -seq + 1 WHERE seq < 0"}, 591, audit.ProblemMissing, false},
		{"reordered", []string{
			"UPDATE audit_event SET seq = 100000 WHERE seq = 10", "UPDATE audit_event SET seq = 10 WHERE seq = 11",
			"UPDATE audit_event SET seq = 11 WHERE seq = 100000"}, 10, audit.ProblemEdited, true},
		{"truncated", []string{"DELETE FROM audit_event WHERE seq >= 590"}, 590, audit.ProblemTruncated, false},
		{"emptied", []string{"DELETE FROM audit_event", "DELETE FROM audit_tile"}, 0, audit.ProblemTruncated, false},
		{"row below zero", []string{"INSERT INTO audit_event SELECT -5, time, kind, decision, of, commitment, sealed FROM audit_event WHERE seq = 1"}, 0, audit.ProblemEdited, true},
		{"row far behind", []string{"INSERT INTO audit_event SELECT 9000000000000000000, time, kind, decision, of, commitment, sealed FROM audit_event WHERE seq = 1"}, 600, audit.ProblemMissing, false},
		{"stored hash", []string{"UPDATE audit_tile SET hashes = zeroblob(8192) WHERE n = 1"}, 256, audit.ProblemEdited, false},
		{"tile deleted", []string{"DELETE FROM audit_tile WHERE n = 1"}, 256, audit.ProblemMissing, false},
		{"checkpoint edited", []string{"UPDATE audit_log SET checkpoint = replace(checkpoint, '600', '599')"}, 0, audit.ProblemEdited, false},
		{"log row deleted", []string{"DELETE FROM audit_log"}, 0, audit.ProblemEdited, false},
	} {
		t.Run(a.name, func(t *testing.T) {
			h := newHome(t)
			h.fill(600)
			if r := h.verify(); !r.OK || r.Events != 600 {
				t.Fatalf("before: %+v", r)
			}
			for _, q := range a.do {
				h.exec(q)
			}
			r := h.verify()
			if r.OK || !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return p.Seq == a.seq && p.Kind == a.kind }) {
				t.Errorf("want %s at %d, got %+v", a.kind, a.seq, r)
			}
			db := h.db()
			defer db.Close()
			cfg := h.config(db)
			cfg.Create = true // also then
			l, err := audit.Open(t.Context(), cfg)
			if err == nil {
				defer l.Close(t.Context())
			}
			if a.opens != (err == nil) || err != nil && !errors.Is(err, audit.ErrTampered) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// L1: cut off with the stored checkpoint of that time, which the file alone
// cannot show; the head kept elsewhere does.
func TestL1RolledBackToAnOlderCopy(t *testing.T) {
	h := newHome(t)
	h.fill(300)
	copyFile(t, h.path, h.path+".old")
	head := h.fill(50)
	if r := h.verify(head.Note); !r.OK || r.Heads != 1 {
		t.Fatalf("before: %+v", r)
	}
	copyFile(t, h.path+".old", h.path)
	if r := h.verify(); !r.OK {
		t.Fatalf("the copy is not sound: %+v", r)
	}
	r := h.verify(head.Note)
	if r.OK || len(r.Problems) != 1 || r.Problems[0].Kind != audit.ProblemTruncated || r.Problems[0].Seq != 300 {
		t.Errorf("%+v", r)
	}
}

// L1: an older copy that went on differently.
func TestL1Fork(t *testing.T) {
	h := newHome(t)
	old := h.fill(300)
	copyFile(t, h.path, h.path+".old")
	head := h.fill(50)
	copyFile(t, h.path+".old", h.path)
	h.fill(80)
	r := h.verify(old.Note, head.Note)
	if r.OK || len(r.Problems) != 1 || r.Problems[0].Kind != audit.ProblemForked || r.Problems[0].Seq != 350 || r.Heads != 1 {
		t.Errorf("%+v", r)
	}
}

func TestHeadsThatAreNotOfThisLog(t *testing.T) {
	h, other := newHome(t), newHome(t)
	head := h.fill(10)
	other.keys.Sign = key(9)
	foreign := other.fill(10)
	for name, note := range map[string][]byte{
		"other key": foreign.Note,
		"changed":   []byte(strings.Replace(string(head.Note), "\n10\n", "\n11\n", 1)),
		"no note":   []byte("hello"),
		"empty":     nil,
	} {
		r := h.verify(note)
		if r.OK || len(r.Problems) != 1 || r.Problems[0].Kind != audit.ProblemBadSignature {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := h.verify(head.Note, head.Note); !r.OK || r.Heads != 2 {
		t.Errorf("%+v", r)
	}
}

func TestOpenRefuses(t *testing.T) {
	open := func(h *home, create bool) error {
		db, err := sqldb.Open(t.Context(), h.path)
		if err != nil {
			return err
		}
		defer db.Close()
		cfg := h.config(db)
		cfg.Create = create
		l, err := audit.Open(t.Context(), cfg)
		if err == nil {
			err = l.Close(t.Context())
		}
		return err
	}
	for name, c := range map[string]struct {
		break_ func(*home)
		want   error
	}{
		"another agent":       {func(h *home) { h.agent = "finance" }, audit.ErrForeign},
		"another signing key": {func(h *home) { h.keys.Sign = key(7) }, audit.ErrForeign},
		"another body key":    {func(h *home) { h.keys.Body = key(7) }, audit.ErrForeign},
		"newer tables":        {func(h *home) { h.exec("INSERT INTO audit_version (version_id, is_applied) VALUES (99, 1)") }, sqldb.ErrNewer},
		"newer format":        {func(h *home) { h.exec("UPDATE audit_log SET format = 2") }, sqldb.ErrNewer},
		"no database": {func(h *home) {
			if err := os.WriteFile(h.path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, sqldb.ErrDamaged},
	} {
		h := newHome(t)
		if err := open(h, false); !errors.Is(err, audit.ErrNoLog) {
			t.Errorf("%s: a log that is not there: %v", name, err)
		}
		h.fill(5)
		c.break_(h)
		for _, create := range []bool{false, true} {
			if err := open(h, create); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	}
}

// A page of the file is overwritten: the report says so, with what was found
// before it.
func TestL1DamagedPages(t *testing.T) {
	h := newHome(t)
	h.fill(2000)
	b, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 60; page < 64; page++ {
		copy(b[page*4096:], strings.Repeat("damage", 500))
	}
	if err := os.WriteFile(h.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.verify()
	if r.OK || r.Events == 0 || r.Events >= 2000 || !slices.ContainsFunc(r.Problems, func(p audit.Problem) bool { return p.Kind == audit.ProblemDamaged }) {
		t.Errorf("%+v", r)
	}
}
