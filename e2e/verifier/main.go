// Program verifier checks a bundle of a log, or the proof of one event, with
// the log's public key. It was written from docs/audit-format.md and shares no
// code with what makes them: golang.org/x/mod and the standard library only.
//
//	verifier bundle KEY FILE [HEAD...]
//	verifier proof KEY FILE
//
// It is made to be read: it holds a whole bundle in memory.
//
// Trust: the key, which comes from the command line.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "verifier:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: verifier bundle KEY FILE [HEAD...] | verifier proof KEY FILE")
	}
	key, err := note.NewVerifier(args[1])
	if err != nil {
		return err
	}
	file, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	switch args[0] {
	case "bundle":
		var heads [][]byte
		for _, path := range args[3:] {
			head, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			heads = append(heads, head)
		}
		return bundle(key, file, heads)
	case "proof":
		return proof(key, file)
	}
	return fmt.Errorf("what is %q?", args[0])
}

// checkpoint opens a signed checkpoint.
func checkpoint(key note.Verifier, signed []byte) (tree tlog.Tree, err error) {
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return tree, fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != key.Name() {
		return tree, errors.New("checkpoint: not of this log")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || tree.N < 0 {
		return tree, errors.New("checkpoint: size")
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// leaf is what a leaf says.
type leaf struct {
	time       int64
	kind       string
	commitment string // base64
}

func parseLeaf(text, origin string, position int64) (l leaf, err error) {
	f := strings.Split(text, "\n")
	if len(f) != 7 || f[0] != "ambit-leaf/v1" || f[6] != "" {
		return l, errors.New("not a leaf")
	}
	if f[1] != origin {
		return l, errors.New("of another log")
	}
	if f[2] != strconv.FormatInt(position, 10) {
		return l, errors.New("of another position")
	}
	if l.time, err = strconv.ParseInt(f[3], 10, 64); err != nil || f[3] != strconv.FormatInt(l.time, 10) {
		return l, errors.New("time")
	}
	l.kind, l.commitment = f[4], f[5]
	return l, nil
}

// event is what this program reads of a body.
type event struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`
	Erasure struct {
		Rule   string     `json:"rule"`
		Ranges [][2]int64 `json:"ranges"`
	} `json:"erasure"`
}

// open checks salt and body against their leaf.
func (l leaf) open(position int64, salt []byte, body string) (e event, err error) {
	mac := hmac.New(sha256.New, salt)
	mac.Write([]byte(body))
	if len(salt) != 32 || base64.StdEncoding.EncodeToString(mac.Sum(nil)) != l.commitment {
		return e, errors.New("the body is not the one that was committed to")
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return e, err
	}
	if e.Seq != position || e.Time.UnixMicro() != l.time || e.Kind != l.kind {
		return e, errors.New("the body differs from its leaf")
	}
	return e, nil
}

// files reads a tar of plain files.
func files(b []byte) (map[string][]byte, error) {
	all := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		if _, twice := all[h.Name]; twice || h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%q is there twice, or is no plain file", h.Name)
		}
		all[h.Name] = data
	}
}

// path is the name of a tile or of entries.
func path(what string, n, width int64) string {
	p := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		p = fmt.Sprintf("x%03d/%s", n%1000, p)
	}
	if p = "tile/" + what + "/" + p; width < 256 {
		p += fmt.Sprintf(".p/%d", width)
	}
	return p
}

// line is a line of events.jsonl.
type line struct {
	Seq  int64   `json:"seq"`
	Salt []byte  `json:"salt"`
	Body *string `json:"body"`
}

func bundle(key note.Verifier, b []byte, heads [][]byte) error {
	all, err := files(b)
	if err != nil {
		return err
	}
	tree, err := checkpoint(key, all["checkpoint"])
	if err != nil {
		return err
	}
	leaves, hashes, err := readLeaves(all, key.Name(), tree.N)
	if err != nil {
		return err
	}
	if got := root(hashes); got != tree.Hash {
		return fmt.Errorf("the leaves give the root %s, the checkpoint has %s", got, tree.Hash)
	}
	if err := tiles(all, hashes); err != nil {
		return err
	}
	for i, signed := range heads {
		head, err := checkpoint(key, signed)
		if err != nil {
			return err
		}
		if head.N > tree.N || root(hashes[:head.N]) != head.Hash {
			return fmt.Errorf("head %d, of %d events, is of another history", i+1, head.N)
		}
	}
	shown, erased, err := bodies(all["events.jsonl"], leaves)
	if err != nil {
		return err
	}
	fmt.Printf("ok %s: %d events, root %s, %d bodies shown, %d erased\n", key.Name(), tree.N, tree.Hash, shown, erased)
	return nil
}

func readLeaves(all map[string][]byte, origin string, size int64) (leaves []leaf, hashes []tlog.Hash, err error) {
	for n := int64(0); n*256 < size; n++ {
		name := path("entries", n, min(256, size-n*256))
		b, ok := all[name]
		if !ok {
			return nil, nil, fmt.Errorf("%s is missing", name)
		}
		for position := n * 256; position < min(size, (n+1)*256); position++ {
			if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
				return nil, nil, fmt.Errorf("%s is cut off", name)
			}
			text := b[2 : 2+binary.BigEndian.Uint16(b)]
			b = b[2+len(text):]
			l, err := parseLeaf(string(text), origin, position)
			if err != nil {
				return nil, nil, fmt.Errorf("leaf %d: %w", position, err)
			}
			if len(leaves) > 0 && l.time < leaves[len(leaves)-1].time {
				return nil, nil, fmt.Errorf("leaf %d is older than the one before", position)
			}
			leaves, hashes = append(leaves, l), append(hashes, tlog.RecordHash(text))
		}
		if len(b) > 0 {
			return nil, nil, fmt.Errorf("%s goes on", name)
		}
	}
	return leaves, hashes, nil
}

// root is RFC 6962, section 2.1.
func root(hashes []tlog.Hash) tlog.Hash {
	switch len(hashes) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return hashes[0]
	}
	k := 1
	for k*2 < len(hashes) {
		k *= 2
	}
	return tlog.NodeHash(root(hashes[:k]), root(hashes[k:]))
}

// tiles checks every level of tiles against the hashes of the leaves.
func tiles(all map[string][]byte, hashes []tlog.Hash) error {
	for level := 0; len(hashes) > 0; level++ {
		var above []tlog.Hash
		for n := 0; n*256 < len(hashes); n++ {
			part := hashes[n*256 : min(len(hashes), (n+1)*256)]
			name := path(strconv.Itoa(level), int64(n), int64(len(part)))
			var want []byte
			for _, h := range part {
				want = append(want, h[:]...)
			}
			if !bytes.Equal(all[name], want) {
				return fmt.Errorf("%s is not what the leaves give", name)
			}
			if len(part) == 256 {
				above = append(above, root(part))
			}
		}
		hashes = above
	}
	return nil
}

// bodies checks events.jsonl.
func bodies(text []byte, leaves []leaf) (shown, erased int, err error) {
	missing := map[int64]bool{}
	complete := map[int64]bool{}
	next := int64(0)
	for _, b := range bytes.SplitAfter(text, []byte("\n")) {
		if len(b) == 0 {
			break
		}
		var l line
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			return 0, 0, fmt.Errorf("events.jsonl: %w", err)
		}
		if l.Seq < next || l.Seq >= int64(len(leaves)) || b[len(b)-1] != '\n' {
			return 0, 0, fmt.Errorf("events.jsonl: event %d is not in its place", l.Seq)
		}
		next = l.Seq + 1
		if l.Body == nil {
			erased++
			missing[l.Seq] = true
			continue
		}
		shown++
		e, err := leaves[l.Seq].open(l.Seq, l.Salt, *l.Body)
		if err != nil {
			return 0, 0, fmt.Errorf("event %d: %w", l.Seq, err)
		}
		if e.Kind != "audit.erase" {
			continue
		}
		complete[l.Seq] = true
		after := int64(0)
		for _, r := range e.Erasure.Ranges {
			if r[0] < after || r[0] >= r[1] || r[1] > l.Seq {
				return 0, 0, fmt.Errorf("event %d: its ranges", l.Seq)
			}
			after = r[1]
			for seq := range missing {
				if r[0] <= seq && seq < r[1] && leaves[seq].kind != "audit.erase" && leaves[seq].kind != "audit.hold" {
					delete(missing, seq)
				}
			}
		}
	}
	for seq, l := range leaves {
		if l.kind == "audit.erase" && !complete[int64(seq)] {
			return 0, 0, fmt.Errorf("event %d says what was erased, and is not shown", seq)
		}
	}
	for seq := range missing {
		return 0, 0, fmt.Errorf("event %d has no body, and nothing says that it was erased", seq)
	}
	return shown, erased, nil
}

func proof(key note.Verifier, text []byte) error {
	top, signed, _ := strings.Cut(string(text), "\n\n")
	tree, err := checkpoint(key, []byte(signed))
	if err != nil {
		return err
	}
	lines := strings.Split(top, "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "extra ") || !strings.HasPrefix(lines[2], "index ") {
		return errors.New("not a proof")
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	var extra struct {
		Leaf string  `json:"leaf"`
		Salt []byte  `json:"salt"`
		Body *string `json:"body"`
	}
	if err := json.Unmarshal(b, &extra); err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var hashes tlog.RecordProof
	for _, text := range lines[3:] {
		h, err := tlog.ParseHash(text)
		if err != nil {
			return err
		}
		hashes = append(hashes, h)
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash([]byte(extra.Leaf))); err != nil {
		return err
	}
	l, err := parseLeaf(extra.Leaf, key.Name(), index)
	if err != nil {
		return err
	}
	if extra.Body == nil {
		fmt.Printf("ok %s: event %d, %s, erased\n", key.Name(), index, l.kind)
		return nil
	}
	if _, err := l.open(index, extra.Salt, *extra.Body); err != nil {
		return err
	}
	fmt.Printf("ok %s: event %d, %s\n", key.Name(), index, *extra.Body)
	return nil
}
