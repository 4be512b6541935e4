package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What is found in a journal agrees with a naive model: of the rounds that
// were written over each other, the events that follow those of the database.
func TestReplayAgainstNaive(t *testing.T) {
	p := newPlace(t)
	keys := mustKeyring(t, p)
	rapid.Check(t, func(rt *rapid.T) {
		b := append(header(keys), make([]byte, 16<<10)...)
		end, next, settled := journalHeader, uint64(0), uint64(0)
		var durable []string // bodies
		for range rapid.IntRange(0, 40).Draw(rt, "steps") {
			if rapid.IntRange(0, 4).Draw(rt, "what") == 0 {
				settled = next
				if rapid.Bool().Draw(rt, "restart") {
					end = journalHeader
				}
				continue
			}
			f := new(frame)
			f.reset()
			count := rapid.IntRange(1, 3).Draw(rt, "events")
			for range count {
				addText(keys, f, next+uint64(len(f.rows)), rapid.StringN(0, 40, -1).Draw(rt, "text"))
			}
			buf := f.finish()
			if end+len(buf) > len(b) {
				settled, end = next, journalHeader
			}
			if rapid.IntRange(0, 5).Draw(rt, "torn") == 0 { // a power cut: the process goes on from what it finds
				copy(b[end:], buf[:rapid.IntRange(0, len(buf)-5).Draw(rt, "cut")])
				todo, err := pending(b, settled, keys)
				if err != nil {
					rt.Fatal(err)
				}
				for _, f := range todo {
					settled = f.next()
				}
				if settled != next {
					rt.Fatalf("found %d events, acknowledged are %d", settled, next)
				}
				end = journalHeader
				continue
			}
			copy(b[end:], buf)
			end += aligned(len(buf))
			for i := range f.rows {
				durable = append(durable, string(f.rows[i].sealed))
			}
			next += uint64(count)
		}
		for range 2 { // looking changes nothing
			todo, err := pending(b, settled, keys)
			if err != nil {
				rt.Fatal(err)
			}
			got := []string{}
			for _, f := range todo {
				for i := range f.rows {
					if f.rows[i].seq != settled+uint64(len(got)) {
						rt.Fatalf("position %d", f.rows[i].seq)
					}
					got = append(got, string(f.rows[i].sealed))
				}
			}
			if !slices.Equal(got, durable[settled:]) {
				rt.Fatalf("%d events, want %d", len(got), len(durable[settled:]))
			}
		}
	})
}

func addText(keys *keyring, f *frame, seq uint64, s string) {
	r := row{seq: seq, micros: 1795348800000001, kind: "alert"}
	body := fmt.Appendf(nil, `{"seq":%d,"time":"2026-11-22T12:00:00.000001Z","kind":"alert","agent":"support","principal":"ambit","decision":"deny","detail":%q}`, seq, fmt.Sprintf("%x", s))
	f.add(r, func(dst []byte) ([]byte, [commitmentSize]byte) { return keys.seal(dst, seq, body, new([]byte)) })
}

// Whatever bytes are there, a frame is read or not; what is read has one
// encoding and consecutive positions.
func FuzzFrame(f *testing.F) {
	keys, err := newKeyring("support", testKeys(1))
	if err != nil {
		f.Fatal(err)
	}
	fr := new(frame)
	fr.reset()
	addText(keys, fr, 7, "a")
	addText(keys, fr, 8, "b")
	whole := bytes.Clone(fr.finish())
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append([]byte("12345678"), whole...))
	f.Add(append(bytes.Clone(whole), whole...))
	f.Add([]byte(frameMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameHeader { // let the rest be reached
			b = bytes.Clone(b)
			copy(b, frameMagic)
			binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
			binary.LittleEndian.PutUint32(b[4:], checksum(b[8:]))
		}
		for _, got := range frames(b) {
			again := new(frame)
			again.reset()
			for i, r := range got.rows {
				if r.seq != got.first()+uint64(i) || !validKind(r.kind) {
					t.Fatalf("row %+v", r)
				}
				again.add(r, func(dst []byte) ([]byte, [commitmentSize]byte) { return append(dst, r.sealed...), r.commitment })
			}
			if !bytes.Equal(again.finish(), got.buf) {
				t.Errorf("%x has a second encoding", got.buf)
			}
		}
	})
}
