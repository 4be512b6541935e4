package audit_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"ambit"
	"ambit/audit"
)

// mth is RFC 6962, section 2.1, word for word: the second implementation.
func mth(d [][]byte) [32]byte {
	switch n := len(d); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, d[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		left, right := mth(d[:k]), mth(d[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

// naiveLeaves reads the leaves as docs/audit-format.md describes them, without
// the package's help.
func naiveLeaves(h *home, origin string) (leaves [][]byte) {
	db := h.db()
	defer db.Close()
	rows, err := db.Query(h.t.Context(), "SELECT seq, time, kind, commitment FROM audit_event ORDER BY seq")
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq, micros int64
		var kind string
		var commitment []byte
		if err := rows.Scan(&seq, &micros, &kind, &commitment); err != nil {
			h.t.Fatal(err)
		}
		leaves = append(leaves, fmt.Appendf(nil, "ambit-leaf/v1\n%s\n%d\n%d\n%s\n%s\n", origin, seq, micros, kind, base64.StdEncoding.EncodeToString(commitment)))
	}
	return leaves
}

// Whatever is written in whatever steps, the heads on the way are those of the
// naive tree, signed as Ed25519 signs, and the verification agrees with the
// naive one about an event that was changed.
func TestTreeAgainstNaive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHome(t)
		heads := map[int]audit.Head{}
		total := 0
		for range rapid.IntRange(1, 3).Draw(rt, "openings") {
			l, closeLog := h.open()
			for range rapid.IntRange(0, 3).Draw(rt, "steps") {
				n := rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(200, 600)).Draw(rt, "events")
				for i := range n {
					l.Record(request(i))
				}
				total += n
				head, err := l.Head(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				heads[total] = head
			}
			closeLog()
		}
		var notes [][]byte
		for size, head := range heads {
			leaves := naiveLeaves(h, head.Origin)
			if len(leaves) != total || int(head.Size) != size || head.Root != tlog.Hash(mth(leaves[:size])) {
				rt.Fatalf("head %d of %d: %+v", size, total, head)
			}
			checkNote(rt, head)
			notes = append(notes, head.Note)
		}
		if r := h.verify(notes...); !r.OK || r.Heads != len(heads) {
			rt.Fatalf("%+v", r)
		}
		if total == 0 {
			return
		}
		at := rapid.IntRange(0, total-1).Draw(rt, "changed")
		h.exec("UPDATE audit_event SET sealed = NULL, commitment = ? WHERE seq = ?", make([]byte, 32), at)
		for _, head := range heads {
			leaves := naiveLeaves(h, head.Origin)
			naive := head.Root == tlog.Hash(mth(leaves[:head.Size]))
			if r := h.verify(head.Note); (r.Heads == 1) != naive || r.OK && !naive {
				rt.Errorf("event %d changed, head of size %d: naive %v, %+v", at, head.Size, naive, r)
			}
		}
	})
}

// checkNote reads a signed note as https://c2sp.org/signed-note says.
func checkNote(t *rapid.T, head audit.Head) {
	text, sig, ok := strings.Cut(string(head.Note), "\n\n")
	text += "\n"
	if want := fmt.Sprintf("%s\n%d\n%s\n", head.Origin, head.Size, base64.StdEncoding.EncodeToString(head.Root[:])); !ok || text != want {
		t.Fatalf("note %q, want %q", head.Note, want)
	}
	public := ed25519.NewKeyFromSeed(key(2).Reveal()).Public().(ed25519.PublicKey)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(sig, "— "+head.Origin+" ")))
	if err != nil || len(raw) != 4+ed25519.SignatureSize || !ed25519.Verify(public, []byte(text), raw[4:]) {
		t.Fatalf("signature %q: %v", sig, err)
	}
}

func TestHeadsOfThirdParties(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := audit.ParseHead(head.Note, l.VerifierKey())
	if err != nil || got.Size != 0 || got.Root != tlog.Hash(sha256.Sum256(nil)) {
		t.Errorf("%+v, %v", got, err)
	}
	// A witness may add its signature, and a later version lines of text.
	skey, _, err := note.GenerateKey(zeros{}, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(head.Note, note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, witness)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := l.Verify(t.Context(), cosigned); err != nil || !r.OK || r.Heads != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func FuzzParseLeaf(f *testing.F) {
	l := audit.Leaf{Origin: "ambit/agent/support/00112233", Seq: 7, Micros: 1_795_000_000_000_000, Kind: ambit.KindAlert}
	f.Add(l.AppendTo(nil))
	f.Add([]byte("ambit-leaf/v1\n\n0\n-1\na\n" + strings.Repeat("A", 43) + "=\n"))
	f.Add([]byte("ambit-leaf/v1\nx\n007\n+1\na\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := audit.ParseLeaf(b)
		if err == nil && string(l.AppendTo(nil)) != string(b) {
			t.Errorf("%q has a second encoding", b)
		}
	})
}

// A vector of earlier releases: it must never change.
func TestLeafVector(t *testing.T) {
	m := hmac.New(sha256.New, make([]byte, 32))
	m.Write([]byte(`{"seq":7}`))
	l := audit.Leaf{Origin: "ambit/agent/support/00112233", Seq: 7, Micros: 1795342512000001, Kind: ambit.KindAlert, Commitment: [32]byte(m.Sum(nil))}
	const want = "ambit-leaf/v1\nambit/agent/support/00112233\n7\n1795342512000001\nalert\nusMNGrenrqVpMDH5S/xwEs0zb9EhGf7Z1iUgvOyERhY=\n"
	if got := string(l.AppendTo(nil)); got != want {
		t.Errorf("leaf %q", got)
	}
	const hash = "AC53PLtCbplfCeNvsTK4y7FkqsfZ/3p/TPEpaD6/e6c="
	if got := tlog.RecordHash(l.AppendTo(nil)).String(); got != hash {
		t.Errorf("hash %s", got)
	}
}
