package audit_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"ambit"
	"ambit/audit"
)

// packed is a file of a bundle.
type packed struct {
	name string
	data []byte
}

func unpack(t testing.TB, b []byte) (files []packed) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, packed{h.Name, data})
	}
}

func pack(t testing.TB, files []packed) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// change returns the bundle with one file changed.
func change(t testing.TB, b []byte, name string, f func(string) string) []byte {
	t.Helper()
	files := unpack(t, b)
	for i := range files {
		if files[i].name == name {
			files[i].data = []byte(f(string(files[i].data)))
			return pack(t, files)
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}

func export(t testing.TB, l *audit.Log, o audit.ExportOptions) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := l.Export(t.Context(), &buf, o); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func verifyBundle(b []byte, key string, heads ...[]byte) (audit.Report, error) {
	return audit.VerifyBundle(bytes.NewReader(b), int64(len(b)), audit.BundleOptions{Key: key, Heads: heads})
}

// exported is a log of 600 events, of which two ranges are erased, as a bundle.
func exported(t testing.TB, h *home) (bundle []byte, key string, head audit.Head) {
	t.Helper()
	h.fill(600)
	l, closeLog := h.open()
	defer closeLog()
	if _, err := l.Erase(t.Context(), person, "subject", [][2]uint64{{10, 12}, {300, 303}}, nil); err != nil {
		t.Fatal(err)
	}
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return export(t, l, audit.ExportOptions{}), l.VerifierKey(), head
}

func TestExportAndVerify(t *testing.T) {
	h := newHome(t)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	h.clock = func() time.Time { now = now.Add(time.Second); return now }
	old := h.fill(100)
	b, key, head := exported(t, h)
	r, err := verifyBundle(b, key, old.Note, head.Note)
	if err != nil || !r.OK || r.Size != 701 || r.Events != 701 || r.Erased != 5 || r.Withheld != 0 || r.Heads != 2 || r.Root != head.Root || r.Origin != head.Origin {
		t.Fatalf("%+v, %v", r, err)
	}
	if len(r.Erasures) != 1 || r.Erasures[0].Bodies != 5 || r.Erasures[0].Rule != "subject" || r.Erasures[0].Seq != 700 {
		t.Errorf("%+v", r.Erasures)
	}
	var names []string
	for _, f := range unpack(t, b) {
		names = append(names, f.name)
	}
	if want := "README.txt log.vkey checkpoint tile/entries/000 tile/0/000 tile/entries/001 tile/0/001 tile/entries/002.p/189 tile/0/002.p/189 tile/1/000.p/2 events.jsonl"; strings.Join(names, " ") != want {
		t.Errorf("files %v", names)
	}
	l, closeLog := h.open()
	defer closeLog()
	if again := export(t, l, audit.ExportOptions{Checkpoint: head.Note}); !bytes.Equal(again, b) {
		t.Error("a bundle of the same is another")
	}

	// A part of the bodies, an older head, and the same in another form.
	extra := audit.Extra{Name: "events.txt", Write: func(w io.Writer, events iter.Seq[ambit.Event]) error {
		for e := range events {
			if _, err := fmt.Fprintln(w, e.Seq, e.Kind); err != nil {
				return err
			}
		}
		return nil
	}}
	b = export(t, l, audit.ExportOptions{Select: func(e ambit.Event) bool { return e.Seq == 7 }, Extra: []audit.Extra{extra}})
	r, err = verifyBundle(b, key)
	if err != nil || !r.OK || r.Withheld != 694 || r.Erased != 5 || !slices.Equal(r.Unchecked, []string{"README.txt", "events.txt"}) {
		t.Errorf("%+v, %v", r, err)
	}
	files := unpack(t, b)
	if got := string(files[len(files)-1].data); got != "7 egress.request\n700 audit.erase\n" {
		t.Errorf("%q", got)
	}
	// What was erased after a head has no explanation in a bundle for that head.
	if err := l.Export(t.Context(), io.Discard, audit.ExportOptions{Checkpoint: old.Note}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("with a head from before an erasure: %v", err)
	}
	for i := range 5 {
		l.Record(request(i))
	}
	b = export(t, l, audit.ExportOptions{Checkpoint: head.Note})
	if r, err = verifyBundle(b, key, head.Note); err != nil || !r.OK || r.Size != 701 || r.Heads != 1 {
		t.Errorf("%+v, %v", r, err)
	}

	// What remains of a wiped agent.
	if _, err := l.Erase(t.Context(), person, "wipe", [][2]uint64{{0, 1 << 40}}, nil); err != nil {
		t.Fatal(err)
	}
	b = export(t, l, audit.ExportOptions{})
	if r, err = verifyBundle(b, key, head.Note); err != nil || !r.OK || r.Erased != 705 || r.Events != 707 || len(r.Erasures) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Sizes around those of tiles, from nothing on.
func TestExportOfAllSizes(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	size := 0
	for _, n := range []int{0, 1, 2, 255, 256, 257, 512} {
		for ; size < n; size++ {
			l.Record(request(size))
		}
		if r, err := verifyBundle(export(t, l, audit.ExportOptions{}), l.VerifierKey()); err != nil || !r.OK || r.Size != uint64(n) {
			t.Errorf("%d: %+v, %v", n, r, err)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	h := newHome(t)
	head := h.fill(10)
	h.exec("UPDATE audit_event SET sealed = (SELECT sealed FROM audit_event WHERE seq = 4) WHERE seq = 3")
	l, closeLog := h.open()
	defer closeLog()
	if err := l.Export(t.Context(), io.Discard, audit.ExportOptions{}); !errors.Is(err, audit.ErrTampered) || !strings.Contains(err.Error(), "event 3") {
		t.Errorf("a changed log: %v", err)
	}
	for _, name := range []string{"../x", "checkpoint", "events.jsonl", "", "tile/0/000", "/x", "X"} {
		if err := l.Export(t.Context(), io.Discard, audit.ExportOptions{Extra: []audit.Extra{{Name: name}}}); err == nil {
			t.Errorf("a file %q", name)
		}
	}
	for _, c := range []struct{ old, new string }{{"\n10\n", "\n11\n"}, {head.Origin, head.Origin + "x"}} {
		if err := l.Export(t.Context(), io.Discard, audit.ExportOptions{Checkpoint: []byte(strings.ReplaceAll(string(head.Note), c.old, c.new))}); !errors.Is(err, audit.ErrBadSignature) {
			t.Errorf("another head: %v", err)
		}
	}
}

// L1: whatever is changed in a bundle is found, and said of the right event.
func TestL1TamperedBundle(t *testing.T) {
	h := newHome(t)
	b, key, _ := exported(t, h)
	line := func(n int, f func(string) string) func(string) string {
		return func(s string) string {
			lines := strings.SplitAfter(s, "\n")
			lines[n] = f(lines[n])
			return strings.Join(lines, "")
		}
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	flip := func(at int) func(string) string {
		return func(s string) string { x := []byte(s); x[at] ^= 1; return string(x) }
	}
	for name, c := range map[string]struct {
		file string
		f    func(string) string
		want string
	}{
		"body":                    {"events.jsonl", line(20, replace("orders", "ordert")), "edited 20"},
		"salt":                    {"events.jsonl", line(20, replace(`"salt":"`, `"salt":"AAAA`)), "error"},
		"erased without an event": {"events.jsonl", line(20, func(string) string { return "{\"seq\":20}\n" }), "erased-unannounced 20"},
		"erasure erased":          {"events.jsonl", line(600, func(string) string { return "{\"seq\":600}\n" }), "erased-unannounced 600"},
		"erasure withheld":        {"events.jsonl", line(600, func(string) string { return "" }), "missing 600"},
		"erasure says more":       {"events.jsonl", line(600, replace("[300,303]", "[300,304]")), "edited 600"},
		"hidden by leaving out":   {"events.jsonl", line(20, func(string) string { return "" }), ""}, // may be left out
		"twice":                   {"events.jsonl", line(20, func(s string) string { return s + s }), "error"},
		"not in order":            {"events.jsonl", line(20, func(s string) string { return strings.Replace(s, `{"seq":20`, `{"seq":19`, 1) }), "error"},
		"after the end":           {"events.jsonl", line(601, func(string) string { return "{\"seq\":601}\n" }), "error"},
		"half a line":             {"events.jsonl", func(s string) string { return s[:len(s)-9] }, "error"},
		"a name twice":            {"events.jsonl", line(20, replace(`{"seq":20,`, `{"seq":3,"seq":20,`)), "error"},
		"no line at all":          {"events.jsonl", line(20, func(string) string { return "\n" }), "error"},
		"leaf":                    {"tile/entries/001", replace("egress.request", "egress.outcome"), "edited 256"},
		"leaf's position":         {"tile/entries/001", replace("\n256\n", "\n257\n"), "edited 256"},
		"leaf of another log":     {"tile/entries/001", replace("ambit/agent/support", "ambit/agent/finance"), "edited 256"},
		"leaves in another order": {"tile/entries/000", swapEntries, "edited 0"},
		"entries cut":             {"tile/entries/000", func(s string) string { return s[:len(s)-1] }, "error"},
		"entries too long":        {"tile/entries/000", func(s string) string { return s + strings.Repeat("x", 1<<20) }, "error"},
		"tile":                    {"tile/0/000", flip(32 * 9), "edited 9"},
		"partial tile":            {"tile/0/002.p/89", flip(32), "edited 513"},
		"upper tile":              {"tile/1/000.p/2", flip(32), "edited 256"},
		"half a tile":             {"tile/0/001", func(s string) string { return s[:4096] }, "error"},
		"key":                     {"log.vkey", flip(3), "error"},
		"checkpoint's size":       {"checkpoint", replace("\n601\n", "\n600\n"), "signature"},
		"checkpoint's root":       {"checkpoint", flip(60), "signature"},
		"empty checkpoint":        {"checkpoint", func(string) string { return "" }, "signature"},
	} {
		changed := change(t, b, c.file, c.f)
		r, err := verifyBundle(changed, key)
		switch c.want {
		case "error":
			if !errors.Is(err, audit.ErrBundle) {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		case "signature":
			if !errors.Is(err, audit.ErrBadSignature) {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		case "":
			if err != nil || !r.OK {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		default:
			if err != nil || r.OK || !slices.Contains(kinds(r), c.want) {
				t.Errorf("%s: want %s: %+v, %v", name, c.want, r, err)
			}
		}
	}
}

func swapEntries(s string) string {
	first, second := entry(s), entry(s[len(entry(s)):])
	return second + first + s[len(first)+len(second):]
}

func entry(s string) string { return s[:2+int(binary.BigEndian.Uint16([]byte(s)))] }

// L1: a leaf, its hashes in all tiles and its body are changed together, by
// somebody who lacks the log's key: the signed root tells.
func TestL1BundleMadeAnew(t *testing.T) {
	h, other := newHome(t), newHome(t)
	other.keys.Body = key(9)
	b, key, head := exported(t, h)
	forged, _, _ := exported(t, other) // the same signing key: what its thief can make
	if r, err := verifyBundle(forged, key); err != nil || !r.OK {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := verifyBundle(forged, key, head.Note); err != nil || r.OK || !slices.Equal(kinds(r), []string{"forked 601"}) {
		t.Errorf("a fork beside the head that was kept: %+v, %v", r, err)
	}
	files := unpack(t, forged)
	files[2] = unpack(t, b)[2]
	if r, err := verifyBundle(pack(t, files), key); err != nil || r.OK || !slices.Equal(kinds(r), []string{"edited 601"}) {
		t.Errorf("with the right checkpoint: %+v, %v", r, err)
	}
	longer := h.fill(5)
	if r, err := verifyBundle(b, key, longer.Note); err != nil || r.OK || !slices.Equal(kinds(r), []string{"truncated 601"}) {
		t.Errorf("cut off: %+v, %v", r, err)
	}
}

// L3: files that are no bundles.
func TestL3HostileBundles(t *testing.T) {
	h, other := newHome(t), newHome(t)
	other.keys.Sign = key(8)
	b, key, _ := exported(t, h)
	foreign, otherKey, _ := exported(t, other)
	if _, err := verifyBundle(b, otherKey); !errors.Is(err, audit.ErrBadSignature) {
		t.Errorf("another log's key: %v", err)
	}
	if _, err := verifyBundle(b, "nonsense"); err == nil {
		t.Error("no key")
	}
	files := unpack(t, b)
	with := func(i int, f packed) []byte {
		changed := slices.Clone(files)
		changed[i] = f
		return pack(t, changed)
	}
	var packedAgain bytes.Buffer
	z := gzip.NewWriter(&packedAgain)
	_, _ = z.Write(b)
	_ = z.Close()
	sparse := bytes.Clone(b)
	sparse[156] = 'S'
	for name, bad := range map[string][]byte{
		"nothing":            nil,
		"text":               bytes.Repeat([]byte("text"), 1000),
		"zeros":              make([]byte, 1<<16),
		"compressed":         packedAgain.Bytes(),
		"path":               with(0, packed{"../README.txt", nil}),
		"absolute path":      with(3, packed{"/tile/entries/000", files[3].data}),
		"tile missing":       pack(t, slices.Delete(slices.Clone(files), 4, 5)),
		"tile twice":         pack(t, slices.Insert(slices.Clone(files), 4, files[4])),
		"events twice":       pack(t, append(slices.Clone(files), files[len(files)-1])),
		"no events":          pack(t, files[:len(files)-1]),
		"too many files":     pack(t, append(slices.Clone(files), manyFiles(40)...)),
		"a file behind":      pack(t, append(slices.Clone(files), packed{"../../etc/passwd", nil})),
		"another log's key":  with(1, unpack(t, foreign)[1]),
		"another checkpoint": with(2, unpack(t, foreign)[2]),
		"odd header":         sparse,
	} {
		_, err := verifyBundle(bad, key)
		if want := map[bool]error{true: audit.ErrBadSignature, false: audit.ErrBundle}[name == "another checkpoint"]; !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for cut := 0; cut < len(b)-1024; cut += 1 + len(b)/150 {
		if r, err := verifyBundle(b[:cut], key); err == nil {
			t.Errorf("cut at %d: %+v", cut, r)
		}
	}
}

func manyFiles(n int) (files []packed) {
	for i := range n {
		files = append(files, packed{fmt.Sprintf("file%d", i), nil})
	}
	return files
}

// A checkpoint with the signature of a witness, as https://c2sp.org/tlog-cosignature
// says, made here by hand.
func TestBundleWithCosignature(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	l.Record(request(0))
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	material := append([]byte{4}, private.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte("witness.example/w1\n"), material...))
	witness := "witness.example/w1+" + hex.EncodeToString(id[:4]) + "+" + base64.StdEncoding.EncodeToString(material)
	text, _, _ := strings.Cut(string(head.Note), "\n\n")
	sig := append(bytes.Clone(id[:4]), binary.BigEndian.AppendUint64(nil, 1790000000)...)
	sig = append(sig, ed25519.Sign(private, []byte("cosignature/v1\ntime 1790000000\n"+text+"\n"))...)
	cosigned := string(head.Note) + "— witness.example/w1 " + base64.StdEncoding.EncodeToString(sig) + "\n"
	check := func(checkpoint string, want ...string) {
		t.Helper()
		b := export(t, l, audit.ExportOptions{Checkpoint: []byte(checkpoint)})
		r, err := audit.VerifyBundle(bytes.NewReader(b), int64(len(b)), audit.BundleOptions{Key: l.VerifierKey(), Witnesses: []string{witness}})
		if err != nil || !slices.Equal(kinds(r), want) || len(want) == 0 && !slices.Equal(r.Witnesses, []string{"witness.example/w1"}) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	check(cosigned)
	check(string(head.Note), "bad-signature 1")
	sig[10]++
	check(string(head.Note)+"— witness.example/w1 "+base64.StdEncoding.EncodeToString(sig)+"\n", "bad-signature 1")
	for _, bad := range []string{"", "x", witness[:len(witness)-4], strings.Replace(witness, "w1", "w2", 1)} {
		if _, err := audit.ParseWitness(bad); err == nil {
			t.Errorf("%q is taken for a key", bad)
		}
	}
}

// Whatever a file has in it, the verification ends, and finds nothing whole but
// what the log signed.
func FuzzVerifyBundle(f *testing.F) {
	h := newHome(f)
	h.fill(3)
	l, closeLog := h.open()
	if _, err := l.Erase(f.Context(), person, "x", [][2]uint64{{1, 2}}, nil); err != nil {
		f.Fatal(err)
	}
	b, key := export(f, l, audit.ExportOptions{}), l.VerifierKey()
	closeLog()
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	for _, name := range []string{"events.jsonl", "tile/entries/000.p/4", "tile/0/000.p/4"} {
		f.Add(change(f, b, name, func(s string) string { return s[1:] + "x" }))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := verifyBundle(b, key)
		if err != nil || !r.OK {
			return
		}
		head, err := audit.ParseHead(unpack(t, b)[2].data, key)
		if err != nil || r.Size != head.Size || r.Root != head.Root {
			t.Errorf("another log is taken for this one: %+v, %v", r, err)
		}
	})
}
