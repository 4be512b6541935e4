package audit

import (
	"crypto/sha256"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// The tree is RFC 6962's (section 2.1), kept as tiles of height 8
// (https://c2sp.org/tlog-tiles): 256 hashes each.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// edge is the right edge of a tree: at each level the hashes that do not fill
// a tile yet. levels[i] has the roots of complete subtrees of 256^i leaves,
// left to right, always fewer than 256. The zero value is the empty tree.
type edge struct{ levels [][]tlog.Hash }

// tile is a full tile; the hashes are those of subtrees of 256^level leaves,
// from number n*256 on.
type tile struct {
	level  int
	n      uint64
	hashes []tlog.Hash
}

// add appends the leaf number seq, which must be the size, and returns the
// tiles that became full.
func (e *edge) add(seq uint64, leaf tlog.Hash) (full []tile) {
	h := leaf
	for level := 0; ; level++ {
		if level == len(e.levels) {
			e.levels = append(e.levels, make([]tlog.Hash, 0, tileWidth))
		}
		e.levels[level] = append(e.levels[level], h)
		if len(e.levels[level]) < tileWidth {
			return full
		}
		t := tile{level, seq >> (tileHeight * (level + 1)), e.levels[level]}
		full = append(full, t)
		e.levels[level] = make([]tlog.Hash, 0, tileWidth)
		h = subtreeHash(t.hashes)
	}
}

// root is the hash of the whole tree.
func (e *edge) root() tlog.Hash {
	var below []tlog.Hash // the incomplete subtree to the right, if any
	for _, level := range e.levels {
		if len(level)+len(below) > 0 {
			row := append(level[:len(level):len(level)], below...)
			below = []tlog.Hash{subtreeHash(row)}
		}
	}
	if len(below) == 0 {
		return sha256.Sum256(nil)
	}
	return below[0]
}

// subtreeHash combines the hashes of subtrees, of which all but the last have
// the same, full size; there is at least one. RFC 6962 splits at the largest
// power of two below the number of leaves, which here is the largest power of
// two below the number of subtrees.
func subtreeHash(row []tlog.Hash) tlog.Hash {
	if len(row) == 1 {
		return row[0]
	}
	k := 1 << (bits.Len(uint(len(row)-1)) - 1)
	return tlog.NodeHash(subtreeHash(row[:k]), subtreeHash(row[k:]))
}

// bytes is the tile as it is stored and as tlog-tiles serves it.
func (t tile) bytes() []byte {
	b := make([]byte, 0, len(t.hashes)*tlog.HashSize)
	for _, h := range t.hashes {
		b = append(b, h[:]...)
	}
	return b
}

// parseTile reads a stored tile.
func parseTile(level int, n uint64, b []byte) (tile, error) {
	if len(b) != tileWidth*tlog.HashSize {
		return tile{}, fmt.Errorf("hash tile %d/%d has %d bytes instead of %d", level, n, len(b), tileWidth*tlog.HashSize)
	}
	t := tile{level, n, make([]tlog.Hash, tileWidth)}
	for i := range t.hashes {
		t.hashes[i] = tlog.Hash(b[i*tlog.HashSize:])
	}
	return t, nil
}
