package audit

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit"
)

// Bodies of usual events are read the short way, and as encoding/json does.
func TestReadBody(t *testing.T) {
	w := &world{Rand: rand.New(rand.NewPCG(1, 1))}
	short := 0
	const n = 2000
	for range n {
		e := w.event()
		e.V, e.Seq, e.Time = w.IntN(3), w.Uint64N(1<<40), time.UnixMicro(w.Int64N(1<<52)).UTC()
		e.BytesIn, e.BytesOut, e.Duration = w.Int64N(1<<40)-5, w.Int64N(3), time.Duration(w.Int64N(1<<40))
		e.Subjects = [][]string{nil, {"abc"}, {"abc", "déf"}}[w.IntN(3)]
		body, err := appendBody(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		if sameBody(t, body) {
			short++
		}
	}
	if short < n/2 {
		t.Errorf("%d of %d", short, n)
	}
}

// sameBody says whether readBody takes a body; then it agrees with encoding/json.
func sameBody(t *testing.T, body []byte) bool {
	var got, want ambit.Event
	if !readBody(string(body), &got) {
		return false
	}
	if err := json.Unmarshal(body, &want); err != nil {
		t.Errorf("%q was read, and is wrong: %v", body, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q: %s", body, diff)
	}
	return true
}

func FuzzReadBody(f *testing.F) {
	w := &world{Rand: rand.New(rand.NewPCG(2, 2))}
	for range 30 {
		e := w.event()
		e.Time = time.UnixMicro(1795342512000001).UTC()
		body, err := appendBody(nil, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { sameBody(t, body) })
}
