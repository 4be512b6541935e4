package audit

import (
	"bytes"
	"database/sql"
	"testing"

	"ambit"
	"ambit/internal/secretbytes"
)

// A row with whatever in it is read or refused, and never read as something
// that it is not.
func FuzzRow(f *testing.F) {
	keys, err := newKeyring("support", Keys{
		Body: secretbytes.New(bytes.Repeat([]byte{1}, 32)), Sign: secretbytes.New(bytes.Repeat([]byte{2}, 32)),
	})
	if err != nil {
		f.Fatal(err)
	}
	body := []byte(`{"seq":7,"time":"2026-11-22T12:00:00.000001Z","kind":"alert","agent":"support","principal":"ambit","decision":"deny","of":3}`)
	sealed, commitment := keys.seal(nil, 7, body, new([]byte))
	f.Add(uint64(7), int64(1795348800000001), "alert", int64(0), int64(3), true, commitment[:], sealed, body)
	f.Add(uint64(8), int64(-1), "", int64(9), int64(0), false, []byte{}, []byte{1}, []byte(`{"time":"9999-12-31T23:59:59+23:59"}`))
	f.Add(uint64(1)<<63, int64(0), "a\nb", int64(-1), int64(-1), true, sealed, []byte{}, []byte("{"))
	f.Fuzz(func(t *testing.T, seq uint64, micros int64, kind string, decision, of int64, hasOf bool, commit, sealed, plain []byte) {
		r := row{seq: seq, micros: micros, kind: ambit.Kind(kind), decision: decision, of: sql.NullInt64{Int64: of, Valid: hasOf}, sealed: sealed}
		copy(r.commitment[:], commit)
		if e, err := r.event(keys); err == nil && (e.Seq != 7 || seq != 7) { // only the seed opens (fuzzing processes have other salts)
			t.Errorf("forged: %+v", e)
		}
		_ = r.leafHash(keys.origin)
		// As somebody with the key would seal it: it is read only if the columns agree.
		r.sealed, r.commitment = keys.seal(nil, seq, plain, new([]byte))
		e, err := r.event(keys)
		if err != nil {
			return
		}
		if e.Seq != seq || e.Time.UnixMicro() != micros || string(e.Kind) != kind || int64(e.Decision) != decision || (e.Of != nil) != hasOf {
			t.Errorf("row %+v was read as %+v", r, e)
		}
	})
}
