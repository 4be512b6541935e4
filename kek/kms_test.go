//go:build linux

package kek

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambit/internal/transit"
)

const transitURL = "hashivault://ambit"

// service is a stand-in with a key, to which the program is pointed.
func service(t *testing.T) (*transit.Server, Program) {
	t.Helper()
	s := transit.New()
	t.Cleanup(s.Close)
	if err := s.Rotate("ambit"); err != nil {
		t.Fatal(err)
	}
	path, err := transit.BuildProgram("..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_ADDR", s.URL)
	t.Setenv("VAULT_TOKEN", s.Token)
	t.Setenv("VAULT_MAX_RETRIES", "0") // the refusals are not waited for twice
	return s, Program{Path: path}
}

func TestKMS(t *testing.T) {
	s, program := service(t)
	key := NewKey()
	f, err := Seal(t.Context(), key, Protection{Kind: KMS, URL: transitURL}, program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(path); err != nil || strings.Contains(string(raw), string(key.Reveal())) || strings.Contains(string(raw), s.Token) {
		t.Errorf("the file: %q, %v", raw, err)
	}
	if f, err = Read(path); err != nil || f.Info() != (Info{Kind: KMS, URL: transitURL}) {
		t.Fatalf("read: %+v, %v", f.Info(), err)
	}
	if err := s.Rotate("ambit"); err != nil { // the service's own key has a newer version meanwhile
		t.Fatal(err)
	}
	if got, err := f.Open(t.Context(), Unlock{Keeper: program}); err != nil || !got.Equal(key) {
		t.Errorf("opened: %v", err)
	}
	if _, err := f.Open(t.Context(), Unlock{}); !errors.Is(err, ErrNoKeeper) {
		t.Errorf("without a keeper: %v", err)
	}

	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(s.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_TOKEN", "another")
	t.Setenv("VAULT_TOKEN_FILE", token)
	if got, err := f.Open(t.Context(), Unlock{Keeper: program}); err != nil || !got.Equal(key) {
		t.Errorf("with the token in a file: %v", err)
	}
}

// Whatever is wrong with the service is said, with where to look, and gives no
// key.
func TestKMSRefusals(t *testing.T) {
	s, program := service(t)
	key := NewKey()
	f, err := Seal(t.Context(), key, Protection{Kind: KMS, URL: transitURL}, program)
	if err != nil {
		t.Fatal(err)
	}
	open := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := f.Open(ctx, Unlock{Keeper: program})
		return err
	}
	page := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, text) }
	}
	for _, c := range []struct {
		name     string
		do, undo func()
		want     string
	}{
		{"another token", func() { t.Setenv("VAULT_TOKEN", "s.wrong") }, func() { t.Setenv("VAULT_TOKEN", s.Token) }, "permission denied"},
		{"sealed", func() { s.Seal(true) }, func() { s.Seal(false) }, "Vault is sealed"},
		{"away", func() { t.Setenv("VAULT_ADDR", "http://127.0.0.1:1") }, func() { t.Setenv("VAULT_ADDR", s.URL) }, "connection refused"},
		{"no address", func() { t.Setenv("VAULT_ADDR", "") }, func() { t.Setenv("VAULT_ADDR", s.URL) }, "VAULT_ADDR"},
		{"never answers", func() { s.Instead(silence) }, func() { s.Instead(nil) }, "did not answer"},
		{"a web page", func() { s.Instead(page("<html>log in</html>")) }, func() { s.Instead(nil) }, "ambit"},
		{"no data", func() { s.Instead(page(`{"data":null}`)) }, func() { s.Instead(nil) }, "another language"},
		{"another key", func() { s.Instead(page(`{"data":{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}`)) }, func() { s.Instead(nil) }, "not the key"},
		{"an endless answer", func() { s.Instead(page(`{"data":{"plaintext":"` + strings.Repeat("A", 1<<20) + `"}}`)) }, func() { s.Instead(nil) }, "ambit-kms"},
		{"key gone", func() { s.Delete("ambit") }, nil, "encryption key not found"},
	} {
		c.do()
		err := open()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), s.Token) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		var kms *KMSError
		if c.name != "another key" && (!errors.As(err, &kms) || !strings.Contains(err.Error(), "VAULT_TOKEN_FILE")) {
			t.Errorf("%s: nothing says what to do: %v", c.name, err)
		}
		if c.undo == nil {
			continue
		}
		c.undo()
		if err := open(); err != nil {
			t.Fatalf("after %s: %v", c.name, err)
		}
	}
}

// silence answers nothing as long as somebody waits.
func silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // before that, the caller's end is not seen
	<-r.Context().Done()
}

// A service that encrypts and does not decrypt is found out before anything
// depends on it.
func TestKMSThatOnlyWraps(t *testing.T) {
	s, program := service(t)
	s.Instead(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/decrypt/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		_, _ = fmt.Fprint(w, `{"data":{"ciphertext":"vault:v1:AAAA"}}`)
	})
	if _, err := Seal(t.Context(), NewKey(), Protection{Kind: KMS, URL: transitURL}, program); err == nil || !strings.Contains(err.Error(), "does not unwrap") {
		t.Errorf("Seal: %v", err)
	}
}

// The program is not somebody else's, and says nothing of its own accord.
func TestAnotherProgram(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"silent": {"cat >/dev/null", "its own language"},
		"fails":  {"cat >/dev/null; echo no >&2; exit 3", "exit status 3: no"},
		"chatty": {"cat >/dev/null; echo hello", "its own language"},
		"liar":   {"cat >/dev/null; echo ok; exit 1", "exit status 1"},
	} {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := (Program{Path: path}).Unwrap(t.Context(), transitURL, []byte("x")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
