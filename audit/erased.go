package audit

import (
	"fmt"
	"math/bits"
	"time"

	"ambit"
)

// Erased is one audit.erase event: what was erased, when, by whom and by which
// rule.
type Erased struct {
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	By      ambit.Principal `json:"by"`
	Rule    string          `json:"rule"`
	Subject string          `json:"subject,omitempty"` // the log's keyed hash
	Bodies  uint64          `json:"bodies"`
}

const (
	// maxErased is how many audit.erase events a report lists: the last ones.
	maxErased = 1000
	// maxGap is how far behind the last event a position may be to be looked
	// at, where events are missing.
	maxGap = 1 << 24
)

// positions is a set of positions, one bit for each up to the largest.
type positions []uint64

func (p *positions) add(seq uint64) {
	for seq/64 >= uint64(len(*p)) {
		*p = append(*p, 0)
	}
	(*p)[seq/64] |= 1 << (seq % 64)
}

// remove takes the positions from from to before to out, and returns how many
// there were.
func (p positions) remove(from, to uint64) (n uint64) {
	to = min(to, uint64(len(p))*64)
	for from < to {
		mask := ^uint64(0) << (from % 64)
		if end := from - from%64 + 64; end > to {
			mask &= 1<<(to%64) - 1
		}
		w := &p[from/64]
		n += uint64(bits.OnesCount64(*w & mask))
		*w &^= mask
		from = from - from%64 + 64
	}
	return n
}

// next is the first run of positions from from on; false if there is none.
func (p positions) next(from uint64) (first, end uint64, ok bool) {
	find := func(from uint64, flip uint64) uint64 {
		for ; from < uint64(len(p))*64; from = from - from%64 + 64 {
			if w := (p[from/64] ^ flip) >> (from % 64); w != 0 {
				return from + uint64(bits.TrailingZeros64(w))
			}
		}
		return uint64(len(p)) * 64
	}
	first = find(from, 0)
	return first, find(first, ^uint64(0)), first < uint64(len(p))*64
}

// erasures holds the bodies that are there, and those that are not, against
// what audit.erase events announced. An event announces only what came before
// it, so what is met in order of positions needs two bits for each event.
type erasures struct {
	gone, there positions // that no event was met for yet
	unfinished  uint64    // announced, and still there
}

// body takes note of an event that could be erased.
func (e *erasures) body(seq uint64, erased bool) {
	if erased {
		e.gone.add(seq)
	} else {
		e.there.add(seq)
	}
}

// announced takes note of an audit.erase event that is what was written.
func (e *erasures) announced(event *ambit.Event) error {
	if event.Erasure == nil {
		return fmt.Errorf("it does not say what was erased")
	}
	var after uint64
	for _, r := range event.Erasure.Ranges {
		if r[0] < after || r[0] >= r[1] || r[1] > event.Seq {
			return fmt.Errorf("the positions that it says were erased are not in order and before it")
		}
		after = r[1]
	}
	for _, r := range event.Erasure.Ranges {
		e.gone.remove(r[0], r[1])
		e.unfinished += e.there.remove(r[0], r[1])
	}
	return nil
}
