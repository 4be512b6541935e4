package audit_test

import (
	"errors"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/audit"
)

// Every event of a log of several tiles is proved, and so is every older size,
// with the functions of the Go checksum database.
func TestProofs(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	var heads []audit.Head
	for i := range 1100 {
		if i < 5 || i%97 == 0 || i == 256 || i == 512 {
			head, err := l.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, head)
		}
		l.Record(request(i))
	}
	for _, seq := range []uint64{0, 1, 255, 256, 511, 767, 1024, 1099} {
		p, err := l.ProveInclusion(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(p.Hashes, int64(p.Head.Size), p.Head.Root, int64(seq), tlog.RecordHash(p.Leaf)); err != nil {
			t.Errorf("event %d: %v", seq, err)
		}
		if leaf, err := audit.ParseLeaf(p.Leaf); err != nil || leaf.Seq != seq || leaf.Kind != ambit.KindEgressRequest || len(p.Salt) != 32 || len(p.Body) == 0 {
			t.Errorf("event %d: %+v, %v", seq, p, err)
		}
		p.Leaf[len(p.Leaf)-3] ^= 1
		if tlog.CheckRecord(p.Hashes, int64(p.Head.Size), p.Head.Root, int64(seq), tlog.RecordHash(p.Leaf)) == nil {
			t.Errorf("a changed event %d is proved", seq)
		}
	}
	for _, old := range heads {
		c, err := l.ProveConsistency(t.Context(), old.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(old); err != nil {
			t.Errorf("from %d: %v", old.Size, err)
		}
		if old.Size == 0 {
			continue
		}
		old.Root[7] ^= 1
		if c.Check(old) == nil {
			t.Errorf("from another log of %d events: proved", old.Size)
		}
		old.Root[7] ^= 1
		old.Size--
		if c.Check(old) == nil {
			t.Error("from another size: proved")
		}
	}
	if _, err := l.ProveInclusion(t.Context(), 1100); !errors.Is(err, audit.ErrNoEvent) {
		t.Errorf("an event that is not there: %v", err)
	}
	if _, err := l.ProveConsistency(t.Context(), 1101); !errors.Is(err, audit.ErrNoEvent) {
		t.Errorf("a size that never was: %v", err)
	}
}
