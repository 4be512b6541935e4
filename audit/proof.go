package audit

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrNoEvent says that the log has no event at that position, or did not have
// that many.
var ErrNoEvent = errors.New("the log has no such event")

// Inclusion proves that the event at a position is in the log at a head.
type Inclusion struct {
	Seq    uint64           `json:"seq"`
	Leaf   []byte           `json:"leaf"`           // the bytes that were hashed; see [ParseLeaf]
	Salt   []byte           `json:"salt,omitempty"` // with Body, opens the leaf's commitment; nil once erased
	Body   []byte           `json:"body,omitempty"` // the event's JSON
	Hashes tlog.RecordProof `json:"hashes"`         // RFC 6962, section 2.1.1
	Head   Head             `json:"head"`
}

// ProveInclusion makes the proof for one event, against a head that is signed
// now. It returns [ErrNoEvent] if there is none at that position.
func (l *Log) ProveInclusion(ctx context.Context, seq uint64) (Inclusion, error) {
	head, err := l.Head(ctx)
	if err != nil {
		return Inclusion{}, err
	}
	p := Inclusion{Seq: seq, Head: head}
	if seq >= head.Size {
		return p, fmt.Errorf("proving event %d: %w: it has %d", seq, ErrNoEvent, head.Size)
	}
	if _, err := l.settle(ctx); err != nil {
		return p, fmt.Errorf("proving event %d: %w", seq, err)
	}
	_, _, err = readRows(ctx, l.db, seq, true, 1, func(r *row) error {
		if r.seq != seq {
			return fmt.Errorf("%w: event %d is missing", ErrTampered, seq)
		}
		leaf := r.leaf(l.keys.origin)
		p.Leaf = leaf.AppendTo(nil)
		if r.sealed == nil {
			return nil
		}
		p.Salt, p.Body, err = l.keys.unseal(seq, r.sealed, r.commitment)
		return err
	})
	if err == nil {
		p.Hashes, err = tlog.ProveRecord(int64(head.Size), int64(seq), l.hashes(ctx, head))
	}
	if err != nil {
		return p, fmt.Errorf("proving event %d: %w", seq, err)
	}
	return p, nil
}

// Consistency is a head with the proof that what the log had at an older size
// is still its beginning.
type Consistency struct {
	Old    uint64         `json:"old"`
	Hashes tlog.TreeProof `json:"hashes"` // RFC 6962, section 2.1.2; empty if Old is 0 or the head's size
	Head   Head           `json:"head"`
}

// ProveConsistency makes the proof from an older size to a head that is signed
// now. It returns [ErrNoEvent] if the log never had that many events.
func (l *Log) ProveConsistency(ctx context.Context, old uint64) (Consistency, error) {
	head, err := l.Head(ctx)
	if err != nil {
		return Consistency{}, err
	}
	return l.consistency(ctx, old, head)
}

// ProveBetween makes the proof from an older size to a head that this log has
// signed before, which is held against the tree while it is made.
func (l *Log) ProveBetween(ctx context.Context, old uint64, signed []byte) (Consistency, error) {
	head, err := parseHead(signed, l.keys.verifier)
	if err != nil {
		return Consistency{}, fmt.Errorf("proving consistency: %w", err)
	}
	if size := l.Size(); head.Size > size {
		return Consistency{Old: old, Head: head}, fmt.Errorf("proving consistency with %d events: %w: it has %d", head.Size, ErrNoEvent, size)
	}
	return l.consistency(ctx, old, head)
}

func (l *Log) consistency(ctx context.Context, old uint64, head Head) (Consistency, error) {
	c := Consistency{Old: old, Head: head, Hashes: tlog.TreeProof{}}
	switch {
	case old > head.Size:
		return c, fmt.Errorf("proving consistency from %d events: %w: it has %d", old, ErrNoEvent, head.Size)
	case old == 0 || old == head.Size:
		return c, nil
	}
	if _, err := l.settle(ctx); err != nil {
		return c, fmt.Errorf("proving consistency: %w", err)
	}
	var err error
	if c.Hashes, err = tlog.ProveTree(int64(head.Size), int64(old), l.hashes(ctx, head)); err != nil {
		return c, fmt.Errorf("proving consistency: %w", err)
	}
	return c, nil
}

// Check reports whether the head, at its size, has the older head's tree as its
// beginning. Whose heads they are is the caller's to know.
func (c *Consistency) Check(older Head) error {
	switch {
	case c.Old != older.Size || c.Head.Size < older.Size:
		return fmt.Errorf("the proof is from %d events to %d, not from %d", c.Old, c.Head.Size, older.Size)
	case older.Size == 0:
		return nil
	case older.Size == c.Head.Size:
		if older.Root != c.Head.Root {
			return errors.New("two heads of the same size differ")
		}
		return nil
	}
	return tlog.CheckTree(c.Hashes, int64(c.Head.Size), c.Head.Root, int64(older.Size), older.Root)
}

// hashes reads the tree's hashes out of tiles, and checks each against the head.
func (l *Log) hashes(ctx context.Context, head Head) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: int64(head.Size), Hash: head.Root}, tileReader{ctx, l})
}

// tileReader makes a log's tiles readable for package tlog.
type tileReader struct {
	ctx context.Context //nolint:containedctx // the interface has none
	log *Log
}

func (t tileReader) Height() int { return tileHeight }

func (t tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, want := range tiles {
		var err error
		if data[i], err = t.log.Tile(t.ctx, want); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// Tile is a hash tile of the log (C2SP tlog-tiles, height 8), full or partial.
// It returns [ErrNoEvent] if the log is not that large.
func (l *Log) Tile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if t.H != tileHeight || t.L < 0 || t.N < 0 || t.W < 1 || t.W > tileWidth {
		return nil, fmt.Errorf("reading tile %s: it is not of height %d", t.Path(), tileHeight)
	}
	if _, err := l.settle(ctx); err != nil {
		return nil, fmt.Errorf("reading tile %s: %w", t.Path(), err)
	}
	hashes, err := readTile(ctx, l.db, l.keys.origin, t.L, uint64(t.N), t.W)
	if err != nil {
		return nil, fmt.Errorf("reading tile %s: %w", t.Path(), err)
	}
	return tile{hashes: hashes}.bytes(), nil
}

// readTile is the first width hashes of a tile: as it is stored, or if it is
// not full, made of rows or of the tiles below.
func readTile(ctx context.Context, q querier, origin string, level int, n uint64, width int) ([]tlog.Hash, error) {
	var stored []byte
	err := q.QueryRow(ctx, "SELECT hashes FROM audit_tile WHERE level = ? AND n = ?", []any{level, int64(n)}, &stored)
	if err == nil {
		t, err := parseTile(level, n, stored)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTampered, err)
		}
		return t.hashes[:width], nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	hashes := make([]tlog.Hash, 0, width)
	if level > 0 {
		for below := n * tileWidth; len(hashes) < width; below++ {
			h, err := readTile(ctx, q, origin, level-1, below, tileWidth)
			if err != nil {
				return nil, err
			}
			hashes = append(hashes, subtreeHash(h))
		}
		return hashes, nil
	}
	_, _, err = readRows(ctx, q, n*tileWidth, false, width, func(r *row) error {
		if r.seq != n*tileWidth+uint64(len(hashes)) {
			return fmt.Errorf("%w: event %d is missing", ErrTampered, n*tileWidth+uint64(len(hashes)))
		}
		hashes = append(hashes, r.leafHash(origin))
		return nil
	})
	if err == nil && len(hashes) < width {
		err = ErrNoEvent
	}
	return hashes, err
}
