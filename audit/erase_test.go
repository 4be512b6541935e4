package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/audit"
	"ambit/internal/sqldb"
)

const person = ambit.Principal("uid:1000")

// sealed are the stored bodies at positions, by position.
func (h *home) sealed() map[uint64][]byte {
	h.t.Helper()
	db := h.db()
	defer db.Close()
	rows, err := db.Query(h.t.Context(), "SELECT seq, sealed FROM audit_event WHERE sealed IS NOT NULL")
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	all := map[uint64][]byte{}
	for rows.Next() {
		var seq uint64
		var b []byte
		if err := rows.Scan(&seq, &b); err != nil {
			h.t.Fatal(err)
		}
		all[seq] = b
	}
	return all
}

// searchFiles fails if a body that is not stored any more is in a file all the same.
func (h *home) searchFiles(before map[uint64][]byte) {
	h.t.Helper()
	after := h.sealed()
	for _, suffix := range []string{".db", ".db-wal", ".journal"} {
		b, err := os.ReadFile(strings.TrimSuffix(h.path, ".db") + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			h.t.Fatal(err)
		}
		looked := 0
		for seq, body := range before {
			if looked++; looked > 600 { // in a random order
				break
			}
			if after[seq] == nil && (bytes.Contains(b, body[:29]) || bytes.Contains(b, body[len(body)-24:])) {
				h.t.Errorf("the body of event %d is in the file %s", seq, suffix)
			}
		}
	}
}

func kinds(r audit.Report) (all []string) {
	for _, p := range r.Problems {
		all = append(all, fmt.Sprint(p.Kind, " ", p.Seq))
	}
	return all
}

// Erased bodies are gone from every file, the tree and every earlier proof stay
// as they were, and the report says what was erased, when, by whom and why.
func TestErase(t *testing.T) {
	h := newHome(t)
	head := h.fill(600)
	before := h.sealed()
	l, closeLog := h.open()
	defer closeLog()
	proof, err := l.ProveInclusion(t.Context(), 300)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 { // in the journal only
		if _, err := l.Append(t.Context(), request(600+i)); err != nil {
			t.Fatal(err)
		}
	}
	whom := ambit.Subject{Kind: "email", Value: "jane@shop.example"}
	r, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{300, 301}, {3, 5}, {4, 6}, {610, 5000}, {7, 7}}, &whom)
	if err != nil {
		t.Fatal(err)
	}
	for seq, b := range h.sealed() {
		before[seq] = b
	}
	if r.Bodies != 14 || r.Already != 0 || !slices.Equal(r.Events, []uint64{620}) || r.Head.Size != 621 || !r.Scrubbed || len(r.Subject) != 16 {
		t.Errorf("%+v", r)
	}
	if text := r.String(); !strings.Contains(text, `"subject": 14 bodies`) || !strings.Contains(text, "position 620") || !strings.Contains(text, string(r.Head.Note)) {
		t.Errorf("%s", text)
	}
	h.searchFiles(before)
	again, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{0, 7}}, &whom)
	if err != nil || again.Bodies != 4 || again.Already != 3 {
		t.Errorf("%+v, %v", again, err)
	}
	if nothing, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{0, 7}, {620, 622}}, nil); err != nil || nothing.Bodies != 0 || nothing.Already != 7 || len(nothing.Events) != 0 || nothing.Head.Size != 622 {
		t.Errorf("%+v, %v", nothing, err)
	}
	h.searchFiles(before)

	report, err := l.Verify(t.Context(), head.Note, r.Head.Note)
	if err != nil || !report.OK || report.Erased != 18 || report.Heads != 2 || report.Unfinished != 0 || len(report.Erasures) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	if e := report.Erasures[0]; e.Seq != 620 || e.By != person || e.Rule != "subject" || e.Bodies != 14 || e.Subject != r.Subject || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	if err := tlog.CheckRecord(proof.Hashes, int64(proof.Head.Size), proof.Head.Root, 300, tlog.RecordHash(proof.Leaf)); err != nil {
		t.Error(err)
	}
	now, err := l.ProveInclusion(t.Context(), 300)
	if err != nil || now.Body != nil || now.Salt != nil || !bytes.Equal(now.Leaf, proof.Leaf) {
		t.Errorf("%+v, %v", now, err)
	}
	after := uint64(2)
	events, err := l.Search(t.Context(), audit.Query{After: &after, Limit: 1})
	if err != nil || len(events) != 1 || events[0].Detail != "(erased)" || events[0].URL != "" || events[0].Seq != 3 {
		t.Errorf("%+v, %v", events, err)
	}
	closeLog()
	h.searchFiles(before)
	if r := h.verify(r.Head.Note); !r.OK || r.Erased != 18 {
		t.Errorf("offline: %+v", r)
	}
}

// What is erased far and wide needs several events, none of which is large.
func TestEraseManyRanges(t *testing.T) {
	h := newHome(t)
	h.fill(2600)
	before := h.sealed()
	l, closeLog := h.open()
	defer closeLog()
	var ranges [][2]uint64
	for i := uint64(0); i < 2600; i += 2 {
		ranges = append(ranges, [2]uint64{i, i + 1})
	}
	r, err := l.Erase(t.Context(), person, "subject", ranges, nil)
	if err != nil || r.Bodies != 1300 || !slices.Equal(r.Events, []uint64{2600, 2601}) {
		t.Errorf("%+v, %v", r, err)
	}
	h.searchFiles(before)
	if r, err := l.Verify(t.Context()); err != nil || !r.OK || r.Erased != 1300 {
		t.Errorf("%+v, %v", r, err)
	}
	// Everything, as before an agent is wiped.
	r, err = l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, l.Size()}}, nil)
	if err != nil || r.Bodies != 1300 || r.Already != 1300 {
		t.Errorf("%+v, %v", r, err)
	}
	h.searchFiles(before)
	if r, err := l.Verify(t.Context()); err != nil || !r.OK || r.Erased != 2600 || len(r.Erasures) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRetain(t *testing.T) {
	h := newHome(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h.clock = func() time.Time { return now }
	l, closeLog := h.open()
	defer func() { closeLog() }()
	const day = 24 * time.Hour
	retain := func(keep time.Duration, bodies uint64, events ...uint64) {
		t.Helper()
		size := l.Size()
		r, err := l.Retain(t.Context(), keep)
		if err != nil || r.Bodies != bodies || !slices.Equal(r.Events, append([]uint64{}, events...)) || l.Size() != size+uint64(len(events)) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	retain(90*day, 0)
	for range 10 {
		if _, err := l.Append(t.Context(), request(0)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(day)
	}
	retain(0, 0)
	retain(90*day, 0)
	retain(5*day, 5, 10) // the sixth is as old as that, and not older
	retain(5*day, 0)
	now = now.Add(day)
	retain(5*day, 1, 11)
	closeLog()
	l, closeLog = h.open()
	retain(5*day, 0)
	now = now.Add(100 * day)
	retain(90*day, 4, 12)
	now = now.Add(100 * day)
	for range 3 { // the events that say so stay, and cause no others
		retain(90*day, 0)
	}
	if r, err := l.Verify(t.Context()); err != nil || !r.OK || r.Erased != 10 || len(r.Erasures) != 3 || r.Erasures[2].Rule != "retention 90d" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A legal hold forbids erasing, says who set it, and lasts over restarts.
func TestHold(t *testing.T) {
	h := newHome(t)
	h.fill(10)
	l, closeLog := h.open()
	defer func() { closeLog() }()
	if held, err := l.Held(t.Context()); held != nil || err != nil {
		t.Fatal(held, err)
	}
	if err := l.Hold(t.Context(), false, person, "never was"); err != nil || l.Size() != 10 {
		t.Errorf("releasing what is not held: %v, %d", err, l.Size())
	}
	if err := l.Hold(t.Context(), true, person, "case 4711"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, 10}}, nil)
		if !errors.Is(err, audit.ErrHeld) || !strings.Contains(err.Error(), string(person)) || !strings.Contains(err.Error(), "case 4711") || r.Bodies != 0 {
			t.Errorf("Erase: %+v, %v", r, err)
		}
		if _, err := l.Retain(t.Context(), time.Nanosecond); !errors.Is(err, audit.ErrHeld) {
			t.Errorf("Retain: %v", err)
		}
		closeLog()
		l, closeLog = h.open()
	}
	if l.Size() != 11 {
		t.Errorf("%d events", l.Size())
	}
	held, err := l.Held(t.Context())
	if err != nil || held == nil || held.By != person || held.Why != "case 4711" || held.Time.IsZero() {
		t.Errorf("%+v, %v", held, err)
	}
	if b, err := os.ReadFile(h.path); err != nil || bytes.Contains(b, []byte("4711")) {
		t.Errorf("the reason is in the file in the clear: %v", err)
	}
	if err := l.Hold(t.Context(), false, person, "settled"); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, 12}}, nil); err != nil || r.Bodies != 10 {
		t.Errorf("%+v, %v", r, err)
	}
	events, err := l.Search(t.Context(), audit.Query{Kinds: []ambit.Kind{ambit.KindAuditHold}})
	if err != nil || len(events) != 2 || events[0].Detail != "set: case 4711" || events[1].Detail != "released: settled" {
		t.Errorf("%+v, %v", events, err)
	}
}

// L1: a hold's row that was changed is a hold.
func TestL1HoldRowChanged(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	if err := l.Hold(t.Context(), true, person, "case"); err != nil {
		t.Fatal(err)
	}
	closeLog()
	h.exec("UPDATE audit_hold SET sealed = x'00'")
	l, closeLog = h.open()
	defer closeLog()
	if _, err := l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, 1}}, nil); !errors.Is(err, audit.ErrHeld) {
		t.Error(err)
	}
}

// L1: a body is taken away without an event that says so, or with one that
// does not speak of it, or with one that another log has.
func TestL1ErasedInSilence(t *testing.T) {
	h, other := newHome(t), newHome(t)
	for _, x := range []*home{h, other} {
		x.fill(20)
		l, closeLog := x.open()
		if _, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{3, 6}}, nil); err != nil {
			t.Fatal(err)
		}
		closeLog()
	}
	h.exec("UPDATE audit_event SET sealed = NULL WHERE seq IN (7, 8, 12)")
	if r := h.verify(); r.OK || !slices.Equal(kinds(r), []string{"erased-unannounced 7", "erased-unannounced 12"}) || !strings.Contains(r.Problems[0].Text, "events 7 to 8") {
		t.Errorf("%+v", r)
	}
	h.exec("UPDATE audit_event SET sealed = NULL WHERE seq = 20")
	if r := h.verify(); r.OK || !slices.Contains(kinds(r), "erased-unannounced 20") || !slices.Contains(kinds(r), "erased-unannounced 3") {
		t.Errorf("the erasure itself erased: %+v", r)
	}
	var sealed, commitment []byte
	db := other.db()
	if err := db.QueryRow(t.Context(), "SELECT sealed, commitment FROM audit_event WHERE seq = 20", nil, &sealed, &commitment); err != nil {
		t.Fatal(err)
	}
	db.Close()
	h.exec("UPDATE audit_event SET sealed = ?, commitment = ? WHERE seq = 20", sealed, commitment)
	if r := h.verify(); r.OK || !slices.Contains(kinds(r), "edited 20") {
		t.Errorf("an erasure of another log: %+v", r)
	}
}

// L1: an erasure announces only what came before it.
func TestL1ErasureOfTheFuture(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	l.Record(ambit.Event{Kind: ambit.KindAuditErase, Erasure: &ambit.Erasure{Rule: "x", Ranges: [][2]uint64{{0, 100}}}})
	if _, err := l.Append(t.Context(), request(1)); err != nil {
		t.Fatal(err)
	}
	closeLog()
	h.exec("UPDATE audit_event SET sealed = NULL WHERE seq = 1")
	if r := h.verify(); r.OK || !slices.Equal(kinds(r), []string{"edited 0", "erased-unannounced 1"}) {
		t.Errorf("%+v", r)
	}
}

// L2: the process is killed at some moment of an erasure. The next one finds
// what was announced, verifies, and finishes it.
func TestL2KilledWhileErasing(t *testing.T) {
	unfinished := 0
	for round := range 4 {
		h := newHome(t)
		head := h.fill(6000)
		before := h.sealed()
		cmd := child(t, "erase", h.path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = out.Read(make([]byte, 1))
		time.Sleep(time.Duration(round*round) * 12 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r := h.verify(head.Note)
		if !r.OK {
			t.Fatalf("after a kill: %+v", r)
		}
		announced := r.Size > 6000
		if announced && r.Erased+r.Unfinished != 6000 {
			t.Errorf("%d erased, %d to come", r.Erased, r.Unfinished)
		}
		if r.Unfinished > 0 {
			unfinished++
		}
		l, closeLog := h.open()
		n, err := l.Finish(t.Context())
		if err != nil || n != r.Unfinished {
			t.Errorf("%d finished of %d: %v", n, r.Unfinished, err)
		}
		if n, err := l.Finish(t.Context()); n != 0 || err != nil {
			t.Errorf("nothing was left: %d, %v", n, err)
		}
		h.searchFiles(before)
		closeLog()
		if r := h.verify(head.Note); !r.OK || r.Unfinished != 0 || announced && r.Erased != 6000 {
			t.Errorf("at the end: %+v", r)
		}
	}
	t.Logf("%d of 4 were interrupted in the middle", unfinished)
}

// eraseUntilKilled erases everything and says when it begins.
func eraseUntilKilled(path string) error {
	db, l, err := openAt(path)
	if err != nil {
		return err
	}
	fmt.Println("x")
	if _, err := l.Erase(context.Background(), person, "wipe", [][2]uint64{{0, 1 << 40}}, nil); err != nil {
		return err
	}
	return errors.Join(l.Close(context.Background()), db.Close())
}

// A hold that is set while bodies are going stops that, and its release lets
// the rest go.
func TestHoldStopsAnErasure(t *testing.T) {
	h := newHome(t)
	h.fill(9000)
	l, closeLog := h.open()
	defer closeLog()
	erased := make(chan error)
	go func() {
		_, err := l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, 9000}}, nil)
		erased <- err
	}()
	if err := l.Wait(t.Context(), 8999); err != nil { // it is announced
		t.Fatal(err)
	}
	if err := l.Hold(t.Context(), true, person, "case"); err != nil {
		t.Fatal(err)
	}
	if err := <-erased; err != nil && !errors.Is(err, audit.ErrHeld) {
		t.Fatal(err)
	}
	r, err := l.Verify(t.Context())
	if err != nil || !r.OK || r.Erased+r.Unfinished != 9000 {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Logf("%d were left", r.Unfinished)
	if _, err := l.Finish(t.Context()); r.Unfinished > 0 && !errors.Is(err, audit.ErrHeld) {
		t.Errorf("held: %v", err)
	}
	if err := l.Hold(t.Context(), false, person, "over"); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Finish(t.Context()); err != nil || n != r.Unfinished {
		t.Errorf("%d, %v", n, err)
	}
}

// Somebody who reads the database keeps copies in it: the receipt says so, and
// Finish takes them away later.
func TestCopiesWhileSomebodyReads(t *testing.T) {
	h := newHome(t)
	h.fill(100)
	before := h.sealed()
	l, closeLog := h.open()
	defer closeLog()
	reader, err := sqldb.Open(t.Context(), h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	rows, err := reader.Query(t.Context(), "SELECT seq FROM audit_event")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	r, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{10, 20}}, nil)
	if err != nil || r.Scrubbed || r.Bodies != 10 || !strings.Contains(r.String(), "copies") {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := l.Finish(t.Context()); !errors.Is(err, audit.ErrCopies) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Finish(t.Context()); err != nil {
		t.Error(err)
	}
	h.searchFiles(before)
}
