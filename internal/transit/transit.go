// Package transit is a stand-in for the transit engine of OpenBao and Vault,
// for tests: keys that never leave it encrypt and decrypt with AES-256-GCM over
// the HTTP API of https://openbao.org/api-docs/secret/transit/. It is as strict
// as the real one in what its clients can notice: the token, the mount and the
// key in the path, base64, the "vault:v1:" of a ciphertext, the versions of a
// key, and the status and text of each refusal.
//
// Trust: it is for tests, and its keys are in the memory of the test.
package transit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Server is the stand-in. Its methods may be called while it serves.
type Server struct {
	*httptest.Server
	Token string // what callers show in X-Vault-Token

	mu     sync.Mutex
	keys   map[string][]cipher.AEAD // by name, the versions from 1
	sealed bool
	other  http.HandlerFunc
}

// New starts one with a mount named transit and no keys. The caller closes it.
func New() *Server {
	s := &Server{Token: "s." + rand.Text(), keys: map[string][]cipher.AEAD{}}
	s.Server = httptest.NewServer(s)
	return s
}

// Rotate adds a version to a key; the first makes it.
func (s *Server) Rotate(name string) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name] = append(s.keys[name], aead)
	return nil
}

// Delete removes a key.
func (s *Server) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, name)
}

// Seal makes it answer that it is sealed, or not any more.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// Instead answers every request with h; nil ends that.
func (s *Server) Instead(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.other = h
}

// refusal is an answer with errors in it.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	other := s.other
	s.mu.Unlock()
	if other != nil {
		other(w, r)
		return
	}
	data, err := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		w.WriteHeader(refused.status)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{refused.text}})
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{err.Error()}})
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{
			"request_id": rand.Text(), "lease_id": "", "renewable": false, "lease_duration": 0,
			"data": data, "wrap_info": nil, "warnings": nil, "auth": nil,
		})
	}
}

func (s *Server) answer(r *http.Request) (map[string]any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed {
		return nil, &refusal{http.StatusServiceUnavailable, "Vault is sealed"}
	}
	if r.Header.Get("X-Vault-Token") != s.Token {
		return nil, &refusal{http.StatusForbidden, "permission denied"}
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	parts := strings.Split(path, "/")
	if !ok || len(parts) != 3 || parts[0] != "transit" {
		return nil, &refusal{http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", path)}
	}
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return nil, &refusal{http.StatusMethodNotAllowed, "1 error occurred:\n\t* unsupported operation\n\n"}
	}
	var in struct{ Plaintext, Ciphertext *string }
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&in); err != nil {
		return nil, &refusal{http.StatusBadRequest, "error parsing JSON"}
	}
	versions := s.keys[parts[2]]
	if len(versions) == 0 {
		return nil, &refusal{http.StatusBadRequest, "encryption key not found"}
	}
	switch {
	case parts[1] == "encrypt" && in.Plaintext != nil:
		return encrypt(versions, *in.Plaintext)
	case parts[1] == "decrypt" && in.Ciphertext != nil:
		return decrypt(versions, *in.Ciphertext)
	}
	return nil, &refusal{http.StatusBadRequest, "missing plaintext or ciphertext"}
}

func encrypt(versions []cipher.AEAD, text string) (map[string]any, error) {
	plain, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "failed to base64-decode plaintext"}
	}
	n := len(versions)
	box := versions[n-1].Seal(nil, nil, plain, nil)
	return map[string]any{"ciphertext": fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(box)), "key_version": n}, nil
}

func decrypt(versions []cipher.AEAD, text string) (map[string]any, error) {
	rest, ok := strings.CutPrefix(text, "vault:v")
	if !ok {
		return nil, &refusal{http.StatusBadRequest, "invalid ciphertext: no prefix"}
	}
	number, rest, _ := strings.Cut(rest, ":")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > len(versions) {
		return nil, &refusal{http.StatusBadRequest, "invalid ciphertext: version is too new"}
	}
	box, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "invalid ciphertext: could not decode base64"}
	}
	plain, err := versions[n-1].Open(nil, nil, box, nil)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "cipher: message authentication failed"}
	}
	return map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}, nil
}

// BuildProgram builds ambit-kms, from the module's root, into a folder.
func BuildProgram(root, dir string) (string, error) {
	path := filepath.Join(dir, "ambit-kms")
	cmd := exec.Command("go", "build", "-C", filepath.Join(root, "cmd", "ambit-kms"), "-o", path, ".")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building ambit-kms: %w\n%s", err, out)
	}
	return path, nil
}
