package audit_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"ambit/audit"
)

// A proof in a file is one that can be read back and checked with the key
// alone; whatever line of it is changed, it fails.
func TestProofText(t *testing.T) {
	h, other := newHome(t), newHome(t)
	other.keys.Sign = key(8)
	other.fill(300)
	h.fill(300)
	l, closeLog := h.open()
	defer closeLog()
	o, closeOther := other.open()
	defer closeOther()
	if _, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{9, 10}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{7, 9, 0, 299, 300} {
		p, err := l.ProveInclusion(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.Text()
		if err != nil || !bytes.HasPrefix(text, []byte("c2sp.org/tlog-proof@v1\nextra ")) || !bytes.HasSuffix(text, p.Head.Note) {
			t.Fatalf("%s, %v", text, err)
		}
		q, err := audit.ParseInclusion(text)
		if err != nil {
			t.Fatal(err)
		}
		e, err := q.Check(l.VerifierKey())
		if err != nil || e.Seq != seq || (e.Detail == "(erased)") != (seq == 9) || q.Head.Size != 301 || q.Head.Root != p.Head.Root {
			t.Errorf("event %d: %+v, %v", seq, e, err)
		}
		if _, err := q.Check(o.VerifierKey()); !errors.Is(err, audit.ErrBadSignature) {
			t.Errorf("another log's key: %v", err)
		}
		lines := strings.SplitAfter(string(text), "\n")
		for i := range lines[:len(lines)-1] {
			changed := append([]string{}, lines...)
			for name, line := range map[string]string{
				"removed": "", "twice": lines[i] + lines[i],
				"changed": strings.Replace(lines[i], lines[i][len(lines[i])/2:len(lines[i])/2+1], "_", 1),
			} {
				changed[i] = line
				q, err := audit.ParseInclusion([]byte(strings.Join(changed, "")))
				if err == nil {
					_, err = q.Check(l.VerifierKey())
				}
				if err == nil && (name != "twice" || !strings.HasPrefix(line, "— ")) { // a signature twice is one
					t.Errorf("event %d: line %d, %q, %s: proved", seq, i, lines[i], name)
				}
			}
		}
	}
	p, err := l.ProveInclusion(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(p *audit.Inclusion){
		"body":     func(p *audit.Inclusion) { p.Body = bytes.Replace(p.Body, []byte("orders"), []byte("ordert"), 1) },
		"salt":     func(p *audit.Inclusion) { p.Salt = make([]byte, 32) },
		"no salt":  func(p *audit.Inclusion) { p.Salt = nil },
		"leaf":     func(p *audit.Inclusion) { p.Leaf = bytes.Replace(p.Leaf, []byte("\n7\n"), []byte("\n8\n"), 1) },
		"position": func(p *audit.Inclusion) { p.Seq = 8 },
		"far away": func(p *audit.Inclusion) { p.Seq = 1 << 62 },
	} {
		q := p
		f(&q)
		text, err := q.Text()
		if err != nil {
			t.Fatal(err)
		}
		if q, err = audit.ParseInclusion(text); err == nil {
			_, err = q.Check(l.VerifierKey())
		}
		if err == nil {
			t.Errorf("another %s: proved", name)
		}
	}
}

func FuzzParseInclusion(f *testing.F) {
	h := newHome(f)
	h.fill(5)
	l, closeLog := h.open()
	p, err := l.ProveInclusion(f.Context(), 3)
	if err != nil {
		f.Fatal(err)
	}
	text, err := p.Text()
	if err != nil {
		f.Fatal(err)
	}
	key := l.VerifierKey()
	closeLog()
	f.Add(text)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra " + base64.StdEncoding.EncodeToString([]byte(`{"leaf":"x"}`)) + "\nindex 0\n\nx"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := audit.ParseInclusion(text)
		if err != nil {
			return
		}
		if e, err := p.Check(key); err == nil && e.Seq != p.Seq {
			t.Errorf("%+v is taken for event %d", e, p.Seq)
		}
	})
}
