package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

func testKeys(b byte) Keys {
	return Keys{Body: secretbytes.New(bytes.Repeat([]byte{b}, 32)), Sign: secretbytes.New(bytes.Repeat([]byte{b + 1}, 32))}
}

// place is a log's folder.
type place struct {
	t     testing.TB
	path  string
	keys  Keys
	agent ambit.AgentID
}

func newPlace(t testing.TB) *place {
	return &place{t, filepath.Join(t.TempDir(), "agent.db"), testKeys(1), "support"}
}

func (p *place) journal() string { return journalPath(p.path) }

// open returns the log and how to end it.
func (p *place) open() (l *Log, end func(), err error) {
	p.t.Helper()
	db, err := sqldb.Open(p.t.Context(), p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	l, err = Open(p.t.Context(), Config{DB: db, Agent: p.agent, Keys: p.keys, Create: true})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return l, func() {
		p.t.Helper()
		if err := errors.Join(l.Close(context.Background()), db.Close()); err != nil {
			p.t.Error(err)
		}
	}, nil
}

func (p *place) mustOpen() (*Log, func()) {
	p.t.Helper()
	l, end, err := p.open()
	if err != nil {
		p.t.Fatal(err)
	}
	return l, end
}

// crashed is a copy of the folder as it is now: what a power cut would leave.
func (p *place) crashed() *place {
	p.t.Helper()
	c := newPlace(p.t)
	for _, suffix := range []string{".db", ".db-wal", ".journal"} {
		b, err := os.ReadFile(strings.TrimSuffix(p.path, ".db") + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			p.t.Fatal(err)
		}
		if err == nil {
			c.write(suffix, b)
		}
	}
	return c
}

func (p *place) write(suffix string, b []byte) {
	p.t.Helper()
	if err := os.WriteFile(strings.TrimSuffix(p.path, ".db")+suffix, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) read(suffix string) []byte {
	p.t.Helper()
	b, err := os.ReadFile(strings.TrimSuffix(p.path, ".db") + suffix)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// verify is the offline verification.
func (p *place) verify(heads ...[]byte) Report {
	p.t.Helper()
	db, err := sqldb.Open(p.t.Context(), p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	r, err := Verify(p.t.Context(), Config{DB: db, Agent: p.agent, Keys: p.keys}, heads...)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func text(i int) ambit.Event {
	return ambit.Event{Kind: ambit.KindAlert, Principal: ambit.PrincipalAmbit, Detail: fmt.Sprint("event ", i)}
}

// appendAll appends events number from to to, each in a frame of its own.
func appendAll(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if seq, err := l.Append(t.Context(), text(i)); err != nil || seq != uint64(i) {
			t.Fatalf("Append = %d, %v, want %d", seq, err, i)
		}
	}
}

// details are the texts of all events, in order.
func details(t testing.TB, l *Log) (all []string) {
	t.Helper()
	events, err := l.Search(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if e.Seq != uint64(i) {
			t.Fatalf("event %d has position %d", i, e.Seq)
		}
		all = append(all, e.Detail)
	}
	return all
}

func texts(n int) (all []string) {
	for i := range n {
		all = append(all, text(i).Detail)
	}
	return all
}

// Crash points: after the journal's write, before the database has the events;
// and after the database has them, with their frames still in the journal.
func TestL2CrashBetweenJournalAndDatabase(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 300)
	if _, err := l.Search(t.Context(), Query{}); err != nil { // settles
		t.Fatal(err)
	}
	settled := p.crashed()
	appendAll(t, l, 300, 305)
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	journaled := p.crashed()
	end()
	for name, c := range map[string]struct {
		*place
		n     int
		heads [][]byte
	}{"settled": {settled, 300, nil}, "journaled": {journaled, 305, [][]byte{head.Note}}} {
		for round := range 2 { // the second opening finds what the first left
			if r := c.verify(c.heads...); !r.OK || r.Size != uint64(c.n) || r.Heads != len(c.heads) {
				t.Errorf("%s: before opening, round %d: %+v", name, round, r)
			}
			l, end := c.mustOpen()
			if got := details(t, l); !slices.Equal(got, texts(c.n)) {
				t.Errorf("%s: %d events, want %d: %v", name, len(got), c.n, got)
			}
			if round == 0 {
				again := c.crashed()
				end()
				c.place = again
				continue
			}
			appendAll(t, l, c.n, c.n+3)
			end()
			if r := c.verify(c.heads...); !r.OK || r.Size != uint64(c.n)+3 {
				t.Errorf("%s: at the end: %+v", name, r)
			}
		}
	}
}

// The last frame is cut off at every byte, or what is behind a byte is zero:
// a batch that a power cut tore and nobody was told about. All before is there.
func TestL2TornTail(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 3)
	c := p.crashed()
	end()
	found := frames(c.read(".journal")[journalHeader:])
	if len(found) != 3 {
		t.Fatalf("%d frames", len(found))
	}
	start := journalHeader + blocks(len(found[0].buf)) + blocks(len(found[1].buf))
	whole := c.read(".journal")
	keys, err := newKeyring(c.agent, c.keys)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(found[2].buf) {
		zeros, short := bytes.Clone(whole), whole[:start+cut]
		clear(zeros[start+cut:])
		for name, b := range map[string][]byte{"zeros": zeros, "short": short} {
			if zeros := bytes.Trim(whole[start+cut:start+len(found[2].buf)], "\x00"); name == "zeros" && len(zeros) == 0 {
				continue // nothing is missing
			}
			todo, err := pending(b, 0, keys)
			if err != nil || len(todo) != 2 || todo[1].next() != 2 {
				t.Fatalf("cut at %d, %s: %d frames, %v", cut, name, len(todo), err)
			}
		}
	}
	for _, cut := range []int{0, 1, frameHeader, len(found[2].buf) - 1} {
		torn := c.crashed()
		torn.write(".journal", whole[:start+cut])
		l, end := torn.mustOpen()
		if got := details(t, l); !slices.Equal(got, texts(2)) {
			t.Errorf("cut at %d: %v", cut, got)
		}
		appendAll(t, l, 2, 4) // the position is given anew
		end()
		if r := torn.verify(); !r.OK || r.Size != 4 {
			t.Errorf("cut at %d: %+v", cut, r)
		}
	}
}

// L1: whatever byte is changed of what was acknowledged, with something behind
// it, the log does not open in silence, and the verification says so.
func TestL1DamagedMiddle(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 3)
	c := p.crashed()
	end()
	whole := c.read(".journal")
	found := frames(whole[journalHeader:])
	start := journalHeader + blocks(len(found[0].buf))
	keys, err := newKeyring(c.agent, c.keys)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(found[1].buf) {
		b := bytes.Clone(whole)
		b[start+i] ^= 0x40
		if todo, err := pending(b, 0, keys); !errors.Is(err, sqldb.ErrDamaged) || len(todo) != 1 {
			t.Fatalf("byte %d: %d frames, %v", i, len(todo), err)
		}
		if todo, err := pending(b, 2, keys); err != nil || len(todo) != 1 { // the database has it already
			t.Fatalf("byte %d, settled: %d frames, %v", i, len(todo), err)
		}
	}
	for name, at := range map[string]int{"first frame": journalHeader + 9, "second frame": start + 40, "header": 20, "magic": 1} {
		b := bytes.Clone(whole)
		b[at] ^= 1
		c.write(".journal", b)
		if _, _, err := c.open(); !errors.Is(err, sqldb.ErrDamaged) || !strings.Contains(err.Error(), "restore") {
			t.Errorf("%s: %v", name, err)
		}
		if r := c.verify(); r.OK || !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Kind == ProblemDamaged }) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	b := bytes.Clone(whole)
	clear(b[:journalHeader])
	c.write(".journal", b)
	if _, _, err := c.open(); !errors.Is(err, sqldb.ErrDamaged) {
		t.Errorf("header of zeros: %v", err)
	}
}

// L1: who can write the files but lacks the keys makes frames of their own.
func TestL1ForgedFrames(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 3)
	c := p.crashed()
	end()
	whole := c.read(".journal")
	forge := func(change func(r *row)) []byte {
		b := bytes.Clone(whole)
		f := frames(b[journalHeader:])[2]
		r := f.rows[0]
		change(&r)
		forged := new(frame)
		forged.reset()
		forged.add(r, func(dst []byte) ([]byte, [commitmentSize]byte) { return append(dst, r.sealed...), r.commitment })
		at := bytes.Index(b, f.buf)
		copy(b[at:], forged.finish())
		return b
	}
	for name, change := range map[string]func(r *row){
		"time":     func(r *row) { r.micros++ },
		"kind":     func(r *row) { r.kind = "alerx" },
		"decision": func(r *row) { r.decision = 1 },
		"of":       func(r *row) { r.of.Valid = true },
		"body":     func(r *row) { r.sealed = bytes.Repeat([]byte{1}, len(r.sealed)) },
		"leaf":     func(r *row) { r.commitment[0]++ },
	} {
		c.write(".journal", forge(change))
		if _, _, err := c.open(); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
		if r := c.verify(); r.OK {
			t.Errorf("%s: %+v", name, r)
		}
	}
	c.write(".journal", forge(func(*row) {}))
	l, end = c.mustOpen()
	defer end()
	if got := details(t, l); len(got) != 3 {
		t.Errorf("not forged: %v", got)
	}
}

func TestJournalOfAnotherLog(t *testing.T) {
	p, other := newPlace(t), newPlace(t)
	for name, change := range map[string]func(){
		"agent":    func() { other.agent = "finance" },
		"keys":     func() { other.keys = testKeys(7) },
		"data key": func() { other.keys = Keys{Body: testKeys(9).Body, Sign: testKeys(1).Sign} },
	} {
		*other = *newPlace(t)
		change()
		l, end := other.mustOpen()
		appendAll(t, l, 0, 2)
		foreign := other.read(".journal")
		end()
		_, end = p.mustOpen()
		end()
		p.write(".journal", foreign)
		if _, _, err := p.open(); !errors.Is(err, ErrForeign) {
			t.Errorf("another %s: %v", name, err)
		}
		if err := os.Remove(p.journal()); err != nil {
			t.Fatal(err)
		}
	}
	b := header(mustKeyring(t, p))
	b[len(journalMagic)-2] = '2'
	p.write(".journal", b)
	if _, _, err := p.open(); !errors.Is(err, sqldb.ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
}

func mustKeyring(t testing.TB, p *place) *keyring {
	t.Helper()
	keys, err := newKeyring(p.agent, p.keys)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The journal is lost. When nothing was pending nothing is missing; otherwise
// the log alone cannot show it, and a head kept elsewhere does.
func TestL1JournalDeleted(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 5)
	end()
	if info, err := os.Stat(p.journal()); err != nil || info.Size() != journalHeader || info.Mode().Perm() != 0o600 {
		t.Errorf("after closing: %v, %v", info, err)
	}
	if err := os.Remove(p.journal()); err != nil {
		t.Fatal(err)
	}
	l, end = p.mustOpen()
	defer end()
	appendAll(t, l, 5, 8)
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := p.crashed()
	if r := c.verify(head.Note); !r.OK || r.Size != 8 {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(c.journal()); err != nil {
		t.Fatal(err)
	}
	r := c.verify(head.Note)
	if r.OK || r.Problems[0].Kind != ProblemTruncated || r.Problems[0].Seq != 5 {
		t.Errorf("%+v", r)
	}
}

// L1: an older copy of the database beside a journal that goes on later.
func TestL1DatabaseOlderThanItsJournal(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	appendAll(t, l, 0, 3)
	end()
	old := p.crashed()
	l, end = p.mustOpen()
	defer end()
	appendAll(t, l, 3, 5)
	details(t, l) // settles
	appendAll(t, l, 5, 7)
	old.write(".journal", p.read(".journal"))
	if _, _, err := old.open(); !errors.Is(err, ErrTampered) {
		t.Errorf("Open: %v", err)
	}
	if r := old.verify(); r.OK {
		t.Errorf("%+v", r)
	}
}

// Two processes cannot fork a log: the second does not open it.
func TestOneLogAtATime(t *testing.T) {
	p := newPlace(t)
	_, end := p.mustOpen()
	if _, _, err := p.open(); !errors.Is(err, sqldb.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	end()
	_, end = p.mustOpen()
	end()
}

// The largest event that the log takes goes through the journal.
func TestL3LargestEventFits(t *testing.T) {
	p := newPlace(t)
	l, end := p.mustOpen()
	worst := strings.Repeat("\x01", MaxText+1) // six bytes each in JSON
	e := ambit.Event{
		Kind: ambit.KindAlert, Principal: ambit.Principal(worst), Action: ambit.Action(worst), Method: worst, Host: worst, URL: worst,
		Intent: worst, Rule: worst, Detail: worst, Reason: &ambit.Reason{Code: worst, Text: worst, Remedy: worst},
	}
	for range 5 {
		l.Record(e)
	}
	if seq, err := l.Append(t.Context(), e); err != nil || seq != 5 {
		t.Fatalf("%d, %v", seq, err)
	}
	end()
	if r := p.verify(); !r.OK || r.Size != 6 {
		t.Errorf("%+v", r)
	}
}
