package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"ambit"
)

// tlogProof is the first line of a proof.
const tlogProof = "c2sp.org/tlog-proof@v1"

// maxProof bounds a proof that is read, in bytes.
const maxProof = 16 << 20

// proofExtra is what else a proof carries: the leaf, and what opens it. A
// verifier hashes it; nothing else vouches for it.
type proofExtra struct {
	Leaf string  `json:"leaf"`
	Salt []byte  `json:"salt,omitempty"`
	Body *string `json:"body,omitempty"` // the exact bytes; missing if it was erased
}

// Text is the proof as https://c2sp.org/tlog-proof says, to be kept in a file
// *.tlog-proof. Its extra line has the leaf, salt and body as JSON. (It is no
// MarshalText, which would change the JSON of a proof.)
func (p *Inclusion) Text() ([]byte, error) {
	x := proofExtra{Leaf: string(p.Leaf), Salt: p.Salt}
	if p.Body != nil {
		body := string(p.Body)
		x.Body = &body
	}
	extra, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("writing a proof: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", tlogProof, base64.StdEncoding.EncodeToString(extra), p.Seq)
	for _, h := range p.Hashes {
		fmt.Fprintf(&b, "%s\n", h)
	}
	b.WriteByte('\n')
	b.Write(p.Head.Note)
	return b.Bytes(), nil
}

// ParseInclusion reads a proof's text. Nothing of it is checked but its form:
// [Inclusion.Check] does the rest.
func ParseInclusion(text []byte) (Inclusion, error) {
	p, err := parseInclusion(text)
	if err != nil {
		return Inclusion{}, fmt.Errorf("reading a proof: %w", err)
	}
	return p, nil
}

func parseInclusion(text []byte) (p Inclusion, err error) {
	if len(text) > maxProof {
		return p, errors.New("it is too long")
	}
	top, checkpoint, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(top, "\n")
	if !ok || lines[0] != tlogProof || len(lines) < 3 {
		return p, errors.New("it does not begin with " + tlogProof + ", or is cut off")
	}
	extra, ok := strings.CutPrefix(lines[1], "extra ")
	if !ok {
		return p, errors.New("it has no extra line, which carries the leaf")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(extra)
	var x proofExtra
	if err == nil {
		err = json.Unmarshal(b, &x)
	}
	if err != nil {
		return p, fmt.Errorf("its extra line: %w", err)
	}
	index, ok := strings.CutPrefix(lines[2], "index ")
	if p.Seq, err = strconv.ParseUint(index, 10, 63); !ok || err != nil || strconv.FormatUint(p.Seq, 10) != index {
		return p, fmt.Errorf("its line %.40q is not the index", lines[2])
	}
	p.Hashes = tlog.RecordProof{}
	for _, line := range lines[3:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize || len(p.Hashes) == 64 {
			return p, fmt.Errorf("its line %.60q is not a hash of a proof", line)
		}
		p.Hashes = append(p.Hashes, tlog.Hash(h))
	}
	p.Leaf, p.Salt, p.Head.Note = []byte(x.Leaf), x.Salt, []byte(checkpoint)
	if x.Body != nil {
		p.Body = []byte(*x.Body)
	}
	return p, nil
}

// Check checks a proof with public keys alone: that the log with that verifier
// key signed the head, that each of the witnesses did ([ParseWitness]), that the
// event is in the tree, and that salt and body, if it has them, are what the
// log committed to. It returns the event; of one without a body there is only
// what its leaf says. Head is then what was signed.
func (p *Inclusion) Check(verifierKey string, witnesses ...string) (ambit.Event, error) {
	e, err := p.check(verifierKey, witnesses)
	if err != nil {
		return ambit.Event{}, fmt.Errorf("checking the proof of event %d: %w", p.Seq, err)
	}
	return e, nil
}

func (p *Inclusion) check(verifierKey string, witnesses []string) (e ambit.Event, err error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(verifierKey))
	if err != nil {
		return e, fmt.Errorf("reading the log's key: %w", err)
	}
	head, err := parseHead(p.Head.Note, verifier)
	if err != nil {
		return e, err
	}
	for _, key := range witnesses {
		w, err := ParseWitness(strings.TrimSpace(key))
		if err != nil {
			return e, err
		}
		if !signedBy(head.Note, w) {
			return e, fmt.Errorf("%w, nor by the witness %s", ErrBadSignature, w.Name())
		}
	}
	if p.Seq >= head.Size {
		return e, fmt.Errorf("%w: the head is of %d events", ErrNoEvent, head.Size)
	}
	if err := tlog.CheckRecord(p.Hashes, int64(head.Size), head.Root, int64(p.Seq), tlog.RecordHash(p.Leaf)); err != nil {
		return e, fmt.Errorf("the event is not in the log: %w", err)
	}
	l, err := ParseLeaf(p.Leaf)
	if err != nil {
		return e, err
	}
	if l.Seq != p.Seq || l.Origin != head.Origin {
		return e, fmt.Errorf("its leaf is that of event %d of %s", l.Seq, l.Origin)
	}
	if e, err = l.open(p.Salt, p.Body); err != nil {
		return e, err
	}
	head.Time, p.Head = p.Head.Time, head
	return e, nil
}
