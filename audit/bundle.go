package audit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// A bundle is a log for others: a tar archive, not compressed, of files in this
// order, and no others:
//
//	README.txt
//	log.vkey
//	checkpoint
//	tile/...      treeFiles
//	events.jsonl
//	...           files in other formats, which nothing vouches for
//
// It is described in docs/audit-format.md.
const (
	bundleReadme     = "README.txt"
	bundleKey        = "log.vkey"
	bundleCheckpoint = "checkpoint"
	bundleEvents     = "events.jsonl"

	// maxCheckpoint, maxLeaf and maxLine bound what a bundle is read with, in bytes.
	maxCheckpoint = 64 << 10
	maxLeaf       = 1 << 10
	maxLine       = 8 << 20
	// maxExtra is how many files in other formats there can be.
	maxExtra = 16
)

// extraName is what such a file may be called.
func extraName(name string) bool {
	return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`).MatchString(name) && name != bundleKey && name != bundleCheckpoint && name != bundleEvents
}

// treeFile is one file of a bundle's tree: hashes of a level, or entries.
type treeFile struct {
	level int // -1: entries
	n     uint64
	width int // how many hashes or entries; 256 if it is full
}

// name is the path as in https://c2sp.org/tlog-tiles.
func (f treeFile) name() string {
	path := "entries"
	if f.level >= 0 {
		path = strconv.Itoa(f.level)
	}
	number := fmt.Sprintf("%03d", f.n%1000)
	for n := f.n / 1000; n > 0; n /= 1000 {
		number = fmt.Sprintf("x%03d/", n%1000) + number
	}
	path = "tile/" + path + "/" + number
	if f.width < tileWidth {
		path += ".p/" + strconv.Itoa(f.width)
	}
	return path
}

// treeFiles are those of a tree, in order: after each 256 entries the tiles
// that they fill, and at the end what is not full. So whoever reads them one
// after another can compute each tile before it comes.
func treeFiles(size uint64) iter.Seq[treeFile] {
	return func(yield func(treeFile) bool) {
		for n := range size / tileWidth {
			if !yield(treeFile{-1, n, tileWidth}) {
				return
			}
			for level, m := 0, n+1; ; level++ {
				if !yield(treeFile{level, m - 1, tileWidth}) {
					return
				}
				if m%tileWidth != 0 {
					break
				}
				m /= tileWidth
			}
		}
		if rest := int(size % tileWidth); rest > 0 && !yield(treeFile{-1, size / tileWidth, rest}) {
			return
		}
		for level := 0; level < 8 && size>>(tileHeight*level) > 0; level++ {
			below := size >> (tileHeight * level)
			if w := int(below % tileWidth); w > 0 && !yield(treeFile{level, below / tileWidth, w}) {
				return
			}
		}
	}
}

// eventLine is one line of events.jsonl. Without salt and body the event's body
// was erased.
type eventLine struct {
	Seq  uint64  `json:"seq"`
	Salt string  `json:"salt,omitempty"` // base64
	Body *string `json:"body,omitempty"` // the exact bytes
}

// append appends the line's bytes.
func (e *eventLine) append(b []byte) ([]byte, error) {
	b = strconv.AppendUint(append(b, `{"seq":`...), e.Seq, 10)
	var err error
	if e.Body != nil {
		b = append(append(append(b, `,"salt":"`...), e.Salt...), `","body":`...)
		b, err = appendString(b, *e.Body)
	}
	return append(b, "}\n"...), err
}

// parseEventLine reads a line without its end. Exactly the bytes that append
// writes are accepted.
func parseEventLine(b []byte) (e eventLine, salt []byte, err error) {
	if err := json.Unmarshal(b, &e); err != nil {
		return e, nil, err
	}
	again, err := e.append(nil)
	if err != nil || string(again) != string(b)+"\n" {
		return e, nil, errors.New("it is not in the form that it should have")
	}
	if e.Body == nil {
		return e, nil, nil
	}
	salt, err = base64.StdEncoding.Strict().DecodeString(e.Salt)
	if err == nil && len(salt) != saltSize {
		err = fmt.Errorf("a salt has %d bytes", saltSize)
	}
	return e, salt, err
}

// appendLeaf appends a leaf as it is in a file of entries.
func appendLeaf(b, leaf []byte) []byte {
	return append(append(b, byte(len(leaf)>>8), byte(len(leaf))), leaf...)
}

// parseEntries splits a file of entries.
func parseEntries(b []byte, n int) ([][]byte, error) {
	entries := make([][]byte, 0, n)
	for len(b) >= 2 {
		length := int(b[0])<<8 | int(b[1])
		if length > len(b)-2 {
			break
		}
		entries = append(entries, b[2:2+length])
		b = b[2+length:]
	}
	if len(b) > 0 || len(entries) != n {
		return nil, fmt.Errorf("it does not have %d whole entries", n)
	}
	return entries, nil
}

// readmeText is what a person who opens a bundle finds.
func readmeText(h Head) string {
	return fmt.Sprintf(`This is a copy of a transparency log, made by Ambit.

  log     %s
  events  %d
  root    %s

  checkpoint      the log's signed statement of size and root (C2SP tlog-checkpoint)
  log.vkey        the key that it is signed with; trust it only if you had it before
  tile/           the hashes and leaves of all events (C2SP tlog-tiles)
  events.jsonl    salts and bodies of the events that were chosen; without a body: erased
  anything else   the same events in other forms, for convenience: nothing vouches for it

To check it with Ambit, without a network:

  ambit audit verify --bundle THIS-FILE.tar --key KEY

To check it by hand: the leaf of event n is entry n mod 256 of tile/entries/<n/256>
(each entry has its length before it, two bytes, big endian). Its six lines are a
name, the log, n, the time in microseconds, the kind, and the commitment. The
commitment is base64(HMAC-SHA256(key = salt, message = body)) with the salt and the
body of events.jsonl. SHA-256(0x00 || leaf) is the event's hash, found in tile/0;
the hashes of all events give the root of the checkpoint as RFC 6962 says, section
2.1. The checkpoint is a signed note: Ed25519 over its text. A body that is missing
without a word was left out; one that was erased is named by an event of the kind
audit.erase. docs/audit-format.md of Ambit has all of it, with test vectors.
`, h.Origin, h.Size, h.Root)
}

// hashBytes is a tile as a bundle has it.
func hashBytes(hashes []tlog.Hash) []byte { return tile{hashes: hashes}.bytes() }
