package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/mod/sumdb/tlog"

	"ambit/internal/secretbytes"
)

// vectors are the blocks of text in docs/audit-format.md, made by this package
// from keys and salts that everybody can have.
func vectors(t *testing.T) map[string]string {
	t.Helper()
	keys, err := newKeyring("support", Keys{
		Body: secretbytes.New(make([]byte, 32)), Sign: secretbytes.New(bytes.Repeat([]byte{2}, 32)),
	})
	if err != nil {
		t.Fatal(err)
	}
	bodies := []string{
		`{"v":1,"seq":0,"time":"2026-11-22T12:00:00.000001Z","kind":"egress.request","agent":"support","principal":"agent","action":"http","method":"GET","host":"api.shop.example","url":"https://api.shop.example/v1/orders/7","decision":"allow","rule":"egress.allow[0] (line 14)"}`,
		`{"v":1,"seq":1,"time":"2026-11-22T12:00:01Z","kind":"audit.erase","agent":"support","principal":"uid:1000","decision":"allow","erasure":{"rule":"subject","ranges":[[0,1]],"bodies":1}}`,
		`{"v":1,"seq":2,"time":"2026-11-22T12:00:02Z","kind":"alert","agent":"support","principal":"ambit","decision":"deny","severity":"high","detail":"it says \"stop\""}`,
	}
	var leaves [][]byte
	var lines, hashes []byte
	var e edge
	for i, body := range bodies {
		event, err := decodeBody([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := appendBody(nil, &event); err != nil || string(again) != body {
			t.Fatalf("the body is not in our form: %s, %v", again, err)
		}
		salt := bytes.Repeat([]byte{byte(i)}, saltSize)
		l := Leaf{keys.origin, uint64(i), event.Time.UnixMicro(), event.Kind, commit(salt, []byte(body))}
		if _, err := l.open(salt, []byte(body)); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, l.AppendTo(nil))
		hash := tlog.RecordHash(leaves[i])
		e.add(uint64(i), hash)
		hashes = fmt.Appendf(hashes, "%s\n", hash)
		line := eventLine{Seq: uint64(i), Salt: base64.StdEncoding.EncodeToString(salt), Body: &body}
		if i == 0 {
			line = eventLine{Seq: 0}
		}
		if lines, err = line.append(lines); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint, err := keys.sign(3, e.root())
	if err != nil {
		t.Fatal(err)
	}
	witness, cosigned := cosignForTest(checkpoint)
	if w, err := ParseWitness(witness); err != nil || !signedBy([]byte(cosigned), w) {
		t.Fatal("the witness's signature does not check")
	}
	proof := Inclusion{
		Seq: 2, Leaf: leaves[2], Salt: bytes.Repeat([]byte{2}, saltSize), Body: []byte(bodies[2]),
		Hashes: tlog.RecordProof{tlog.NodeHash(tlog.RecordHash(leaves[0]), tlog.RecordHash(leaves[1]))}, Head: Head{Note: checkpoint},
	}
	if _, err := proof.Check(keys.vkey); err != nil {
		t.Fatal(err)
	}
	text, err := proof.Text()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"key": keys.vkey, "first body": bodies[0], "first leaf": string(leaves[0]), "third leaf": string(leaves[2]), "hashes": string(hashes),
		"checkpoint": cosigned, "witness": witness, "events.jsonl": string(lines), "proof": string(text),
		"entry": hex.EncodeToString(appendLeaf(nil, leaves[0])[:20]),
	}
}

// cosignForTest signs as https://c2sp.org/tlog-cosignature says.
func cosignForTest(checkpoint []byte) (witness, cosigned string) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, 32))
	material := append([]byte{algCosignature}, private.Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte("witness.example/w1\n"), material...))
	text, _, _ := strings.Cut(string(checkpoint), "\n\n")
	sig := binary.BigEndian.AppendUint64(bytes.Clone(id[:4]), 1795348803)
	sig = append(sig, ed25519.Sign(private, []byte("cosignature/v1\ntime 1795348803\n"+text+"\n"))...)
	return "witness.example/w1+" + hex.EncodeToString(id[:4]) + "+" + base64.StdEncoding.EncodeToString(material),
		string(checkpoint) + "— witness.example/w1 " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

// The vectors of docs/audit-format.md must never change.
func TestFormatVectors(t *testing.T) {
	doc, err := os.ReadFile("../docs/audit-format.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range vectors(t) {
		block := "    " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n"
		block = strings.ReplaceAll(block, "\n    \n", "\n\n")
		if !strings.Contains(string(doc), block) {
			t.Errorf("docs/audit-format.md does not have the vector %q:\n%s", name, block)
		}
	}
}
