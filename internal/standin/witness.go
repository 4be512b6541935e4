package standin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Witness plays a witness of transparency logs (https://c2sp.org/tlog-witness),
// written from the specification and as strict as it. It is safe for concurrent
// use.
type Witness struct {
	// Answer, if it is set, is asked first; it returns true if it has answered.
	Answer func(http.ResponseWriter, *http.Request) bool

	name    string
	private ed25519.PrivateKey
	id      uint32

	mu    sync.Mutex
	logs  map[string]note.Verifier // by origin
	sizes map[string]int64
	roots map[string]tlog.Hash
	asked int
}

// NewWitness makes a witness with a key of its own.
func NewWitness(name string) *Witness {
	_, private, _ := ed25519.GenerateKey(nil) // never fails (crypto/rand)
	sum := sha256.Sum256(append([]byte(name+"\n\x04"), private[32:]...))
	return &Witness{
		name: name, private: private, id: binary.BigEndian.Uint32(sum[:]),
		logs: map[string]note.Verifier{}, sizes: map[string]int64{}, roots: map[string]tlog.Hash{},
	}
}

// Key is its verifier key.
func (w *Witness) Key() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.id, base64.StdEncoding.EncodeToString(append([]byte{4}, w.private[32:]...)))
}

// Know makes it cosign a log, by that log's verifier key.
func (w *Witness) Know(key string) error {
	v, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs[v.Name()] = v
	return nil
}

// Size is what it cosigned last of a log, and how often it was asked at all.
func (w *Witness) Size(origin string) (size int64, asked int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sizes[origin], w.asked
}

// ServeHTTP implements http.Handler.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.asked++
	w.mu.Unlock()
	if w.Answer != nil && w.Answer(rw, r) {
		return
	}
	if r.URL.Path != "/add-checkpoint" {
		http.Error(rw, "no such path", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(rw, "only POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 1<<16))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	old, proof, checkpoint, err := parseAddCheckpoint(body)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.add(rw, old, proof, checkpoint)
}

func parseAddCheckpoint(body []byte) (old int64, proof tlog.TreeProof, checkpoint []byte, err error) {
	head, checkpoint, ok := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	size, isOld := strings.CutPrefix(lines[0], "old ")
	if old, err = strconv.ParseInt(size, 10, 64); !ok || !isOld || err != nil || strconv.FormatInt(old, 10) != size || old < 0 {
		return 0, nil, nil, fmt.Errorf("the old size line is %q", lines[0])
	}
	if len(lines)-1 > 63 {
		return 0, nil, nil, fmt.Errorf("%d proof lines", len(lines)-1)
	}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			return 0, nil, nil, fmt.Errorf("the proof line %q", l)
		}
		proof = append(proof, tlog.Hash(h))
	}
	return old, proof, checkpoint, nil
}

func (w *Witness) add(rw http.ResponseWriter, old int64, proof tlog.TreeProof, checkpoint []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	origin, _, _ := strings.Cut(string(checkpoint), "\n")
	v, known := w.logs[origin]
	if !known {
		http.Error(rw, "unknown log", http.StatusNotFound)
		return
	}
	n, err := note.Open(checkpoint, note.VerifierList(v))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusForbidden)
		return
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree" + strings.TrimPrefix(n.Text, origin)))
	switch {
	case err != nil || old > tree.N:
		http.Error(rw, "a bad checkpoint or old size", http.StatusBadRequest)
	case old != w.sizes[origin]:
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(rw, "%d\n", w.sizes[origin])
	case old == 0 && len(proof) > 0,
		old > 0 && old == tree.N && (tree.Hash != w.roots[origin] || len(proof) > 0),
		old > 0 && old < tree.N && tlog.CheckTree(proof, tree.N, tree.Hash, old, w.roots[origin]) != nil:
		http.Error(rw, "the proof does not verify", http.StatusUnprocessableEntity)
	default:
		w.sizes[origin], w.roots[origin] = tree.N, tree.Hash
		_, _ = io.WriteString(rw, "— other.example/w 5ZZJpwAAAAA=\n"+w.line(n.Text, time.Now()))
	}
}

// line is a cosignature as a signature line.
func (w *Witness) line(text string, at time.Time) string {
	sig := binary.BigEndian.AppendUint32(nil, w.id)
	sig = binary.BigEndian.AppendUint64(sig, uint64(at.Unix()))
	sig = append(sig, ed25519.Sign(w.private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at.Unix(), text))...)
	return "— " + w.name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}
