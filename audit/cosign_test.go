package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"ambit/audit"
	"ambit/internal/secretbytes"
)

func cosigner(t *testing.T, name string, seed byte, at time.Time) *audit.Cosigner {
	t.Helper()
	c, err := audit.NewCosigner(name, secretbytes.New(bytes.Repeat([]byte{seed}, ed25519.SeedSize)), func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Vectors: what two others made of the specification. The specification itself
// has one without its key.
func TestCosignatureVectors(t *testing.T) {
	const text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
	// filippo.io/torchwood v0.6.1, NewCosignatureSigner with a seed of 32 bytes 7.
	const key = "witness.example/w1+aa4a09d1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"
	const line = "— witness.example/w1 qkoJ0QAAAABrCQkINPN1ELvrXQZEYhloTTZnLBxyrOkYLsT+3kBT09YK3AhaNOYz/wtxp95d+46aA6AeFadVcpC5Bhts5rNGDk3nBA==\n"
	at := time.Unix(0x6b090908, 0)
	c := cosigner(t, "witness.example/w1", 7, at)
	if c.VerifierKey() != key {
		t.Errorf("the key is %s, want %s", c.VerifierKey(), key)
	}
	if got, err := note.Sign(&note.Note{Text: text}, c); err != nil || string(got) != text+"\n"+line {
		t.Errorf("signed: %v\n%s", err, got)
	}
	// litewitness of the same, as an outside witness of a log of ours.
	for _, v := range []struct{ key, note string }{{key, text + "\n" + line}, {
		"witness.example/lw+c13a0745+BDERB7kmYtypQaj2VedXI+fDYx23ppAB2Oh8Hwyd73J+",
		"ambit/agent/support/40d88ae4\n1311\noTBzEHpl7Tb7/tcYTm+/vWI2fWMwvCAjCo9ZzzMupgc=\n\n— witness.example/lw wToHRQAAAABrCQlKi/wzOI+OHQrusX8uzNmDlaiNAVU2L2VqFtMJCc8XAzJNyHeHqvDgSsydnSQAqsWhyvdrHAZGFpk1jtLyZiJKDg==\n",
	}} {
		if got, err := audit.Cosigned([]byte(v.note), v.key); err != nil || got.IsZero() {
			t.Errorf("%s: %v, %v", v.key, got, err)
		}
	}
	for _, bad := range []string{
		"", "x", "x+y", key + "=", strings.ToUpper(key), strings.Replace(key, "aa4a", "aa4b", 1), strings.Replace(key, "witness.example", "witness example", 1), strings.TrimPrefix(key, "witness.example/w1"),
		"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", // of signed-note: type 1
	} {
		if _, err := audit.NewCosignatureVerifier(bad); err == nil {
			t.Errorf("the key %q is accepted", bad)
		}
	}
}

func TestCosign(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	l.Record(request(1))
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	a, b := cosigner(t, "witness.example/a", 1, at), cosigner(t, "witness.example/b", 2, at)
	va, err := audit.NewCosignatureVerifier(a.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}

	first, err := audit.Cosign(head.Note, l.VerifierKey(), nil, a)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := audit.Cosigned(first, a.VerifierKey()); err != nil || !got.Equal(at) {
		t.Errorf("cosigned at %v, %v", got, err)
	}
	if got, err := audit.Cosigned(first, b.VerifierKey()); err != nil || !got.IsZero() {
		t.Errorf("by who did not cosign: %v, %v", got, err)
	}
	if same, err := audit.ParseHead(first, l.VerifierKey()); err != nil || same.Root != head.Root || same.Size != 1 {
		t.Errorf("the head beneath: %+v, %v", same, err)
	}

	// A second one joins it where it is known, and is dropped where it is not; a
	// newer one of the same takes its place.
	noise := []byte("— witness.example/c AAAAAAAA\n")
	second, err := audit.Cosign(append(bytes.Clone(first), noise...), l.VerifierKey(), []note.Verifier{va}, b)
	if err != nil || strings.Count(string(second), "— ") != 3 || strings.Contains(string(second), "witness.example/c") {
		t.Errorf("with another: %v\n%s", err, second)
	}
	if alone, err := audit.Cosign(first, l.VerifierKey(), nil, b); err != nil || strings.Contains(string(alone), "witness.example/a") {
		t.Errorf("without the first: %v\n%s", err, alone)
	}
	later := cosigner(t, "witness.example/a", 1, at.Add(time.Hour))
	third, err := audit.Cosign(second, l.VerifierKey(), []note.Verifier{va}, later)
	if err != nil || strings.Count(string(third), "witness.example/a ") != 1 {
		t.Fatalf("again: %v\n%s", err, third)
	}
	if got, err := audit.Cosigned(third, a.VerifierKey()); err != nil || !got.Equal(at.Add(time.Hour)) {
		t.Errorf("again: %v, %v", got, err)
	}

	// Neither the text nor the time can be changed.
	for _, c := range [][2]string{{"\n1\n", "\n2\n"}, {"ambit/agent", "ambit/agend"}} {
		if _, err := audit.Cosigned([]byte(strings.Replace(string(first), c[0], c[1], 1)), a.VerifierKey()); err == nil {
			t.Errorf("with %q for %q it is still cosigned", c[1], c[0])
		}
	}
	if _, err := audit.Cosign([]byte(strings.Replace(string(first), "\n1\n", "\n2\n", 1)), l.VerifierKey(), nil, a); err == nil {
		t.Error("a head that the log did not sign is cosigned")
	}
	extended := extendedHead(t, l, h, head)
	if _, err := audit.Cosign(extended, l.VerifierKey(), nil, a); err == nil || !strings.Contains(err.Error(), "says more") {
		t.Errorf("a head with more text: %v", err)
	}
}

// extendedHead is a head with a line more, under the log's own key.
func extendedHead(t *testing.T, l *audit.Log, h *home, head audit.Head) []byte {
	t.Helper()
	text, _, _ := bytes.Cut(head.Note, []byte("\n\n"))
	signed, err := note.Sign(&note.Note{Text: string(text) + "\nextension\n"}, newLogSigner(t, l, h))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// logSigner signs as a log does, whatever it is given.
type logSigner struct {
	note.Verifier
	private ed25519.PrivateKey
}

func newLogSigner(t *testing.T, l *audit.Log, h *home) logSigner {
	t.Helper()
	v, err := note.NewVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	return logSigner{v, ed25519.NewKeyFromSeed(h.keys.Sign.Reveal())}
}

func (s logSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.private, msg), nil }

// Whose log it is, is known from the seed without the log.
func TestVerifierKey(t *testing.T) {
	h := newHome(t)
	l, closeLog := h.open()
	defer closeLog()
	key, err := audit.VerifierKey(h.agent, h.keys.Sign)
	if err != nil || key != l.VerifierKey() {
		t.Errorf("%q, %v, the log says %q", key, err, l.VerifierKey())
	}
	if key, err := audit.VerifierKey("", h.keys.Sign); err != nil || !strings.HasPrefix(key, "ambit/control/") {
		t.Errorf("of the control plane: %q, %v", key, err)
	}
}
