package audit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"strconv"
	"strings"

	"ambit"
)

// indexKeys are the keys of the index, derived from the body key.
type indexKeys struct {
	origin string
	aead   cipher.AEAD
	terms  []byte
}

func newIndexKeys(origin string, k Keys) (*indexKeys, error) {
	key, err := hkdf.Key(sha256.New, k.Body.Reveal(), nil, "ambit audit index v1\n"+origin, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &indexKeys{origin: origin}
	if x.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	x.terms, err = hkdf.Key(sha256.New, k.Body.Reveal(), nil, "ambit audit index terms v1\n"+origin, 32)
	return x, err
}

const (
	// indexSealedV1 is the first byte of what the index encrypts: AES-256-GCM
	// with a random nonce.
	indexSealedV1 = 1
	// indexSealing is how much longer it is than what is in it.
	indexSealing = 1 + nonceSize + tagSize
	// theDirectory stands for the number of a page.
	theDirectory = ^uint64(0)
)

// associated ties what is encrypted to its log, segment and page.
func (k *indexKeys) associated(id, first, last, page uint64) []byte {
	b := append([]byte("index\n"), k.origin...)
	b = append(b, '\n')
	for _, v := range [...]uint64{id, first, last, page} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func (k *indexKeys) seal(id, first, last, page uint64, plain []byte) []byte {
	b := make([]byte, 1+nonceSize, len(plain)+indexSealing)
	b[0] = indexSealedV1
	_, _ = rand.Read(b[1:]) // never fails (crypto/rand)
	return k.aead.Seal(b, b[1:], plain, k.associated(id, first, last, page))
}

func (k *indexKeys) open(id, first, last, page uint64, sealed []byte) ([]byte, error) {
	if len(sealed) < indexSealing || sealed[0] != indexSealedV1 {
		return nil, errors.New("it is not in a form that this version knows")
	}
	b, err := k.aead.Open(nil, sealed[1:1+nonceSize], sealed[1+nonceSize:], k.associated(id, first, last, page))
	if err != nil {
		return nil, errors.New("it does not decrypt")
	}
	return b, nil
}

// What a term says. The byte is part of what is hashed.
const (
	termKind       = 'k'
	termAction     = 'a'
	termMethod     = 'm'
	termHost       = 'h' // of the host itself and each domain above it
	termTool       = 't'
	termDecision   = 'd'
	termPrincipal  = 'p'
	termRule       = 'r'
	termStatus     = 's'
	termConnection = 'c'
	termTask       = 'j'
	termEffect     = 'e'
	termSubject    = 'S'
	termWord       = 'w'
	termMark       = '!' // a flag of a directory
)

const (
	// maxWords is how many words of one event are in the index, and maxLabels
	// how many domains of its host. An event with more is looked at by every
	// search for a word or host, so that nothing hides behind many others.
	maxWords  = 256
	maxLabels = 16

	cachedTerms = 16 << 10
	cachedTerm  = 80 // bytes; longer ones seldom come again
)

// hasher makes terms: the first 8 bytes of HMAC-SHA256. It remembers those that
// come again and again. Not for concurrent use.
type hasher struct {
	mac      hash.Hash
	now, old map[string]uint64 // old is what now was before it was full
	buf      []byte
	sum      [sha256.Size]byte
}

func (k *indexKeys) hasher() *hasher {
	return &hasher{mac: hmac.New(sha256.New, k.terms), now: map[string]uint64{}}
}

func (h *hasher) term(field byte, value string) uint64 {
	h.buf = append(append(h.buf[:0], field), value...)
	return h.hash()
}

func (h *hasher) word(w []byte) uint64 {
	h.buf = append(append(h.buf[:0], termWord), w...)
	return h.hash()
}

// hash is the term of what is in buf.
func (h *hasher) hash() uint64 {
	if t, ok := h.now[string(h.buf)]; ok {
		return t
	}
	t, ok := h.old[string(h.buf)]
	if !ok {
		h.mac.Reset()
		h.mac.Write(h.buf)
		t = binary.BigEndian.Uint64(h.mac.Sum(h.sum[:0]))
	}
	if len(h.buf) <= cachedTerm {
		if len(h.now) >= cachedTerms {
			h.now, h.old = map[string]uint64{}, h.now
		}
		h.now[string(h.buf)] = t
	}
	return t
}

// event appends the terms of an event, and says whether they are all. Events
// that belong to it are found by them too.
func (h *hasher) event(dst []uint64, e *ambit.Event) (terms []uint64, whole bool) {
	add := func(field byte, value string) {
		if value != "" {
			dst = append(dst, h.term(field, value))
		}
	}
	add(termKind, string(e.Kind))
	add(termDecision, e.Decision.String())
	add(termAction, string(e.Action))
	add(termMethod, e.Method)
	add(termTool, e.Tool)
	add(termPrincipal, string(e.Principal))
	add(termRule, e.Rule)
	add(termConnection, e.Connection)
	add(termTask, e.Task)
	if e.Status != 0 {
		add(termStatus, strconv.Itoa(e.Status))
	}
	for _, f := range e.Effects {
		add(termEffect, string(f))
	}
	for _, s := range e.Subjects {
		add(termSubject, s)
	}
	whole = true
	for host, labels := strings.ToLower(e.Host), 0; host != ""; labels++ {
		if labels == maxLabels {
			whole = false
			break
		}
		add(termHost, host)
		_, host, _ = strings.Cut(host, ".")
	}
	words := 0
	eachText(e, func(s string) bool {
		return eachWord(s, func(w []byte) bool {
			if words++; words > maxWords {
				whole = false
				return false
			}
			dst = append(dst, h.word(w))
			return true
		})
	})
	return dst, whole
}

// columns appends the terms of what is known of an event without its body.
func (h *hasher) columns(dst []uint64, r *row) []uint64 {
	d := ambit.Deny
	if r.decision == int64(ambit.Allow) {
		d = ambit.Allow
	}
	return append(dst, h.term(termKind, string(r.kind)), h.term(termDecision, d.String()))
}
