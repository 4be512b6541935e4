package kek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ambit/internal/secretbytes"
)

const passphrase = "correct horse battery staple"

func secret(s string) secretbytes.Bytes { return secretbytes.New([]byte(s)) }

func given(s string) Unlock {
	return Unlock{Passphrase: func(context.Context) (secretbytes.Bytes, error) { return secret(s), nil }}
}

func sealed(t *testing.T, key secretbytes.Bytes, p Protection) (*File, string) {
	t.Helper()
	f, err := Seal(t.Context(), key, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	return f, path
}

func TestKeyFile(t *testing.T) {
	key := NewKey()
	_, path := sealed(t, key, Protection{Kind: KeyFile})
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(raw, key.Reveal()) {
		t.Fatalf("the file has %d bytes, %v", len(raw), err)
	}
	f, err := Read(path)
	if err != nil || f.Info() != (Info{Kind: KeyFile}) || !f.Matches(Check(key)) || f.Matches(Check(NewKey())) || f.Matches(nil) {
		t.Fatalf("read: %+v, %v", f.Info(), err)
	}
	if got, err := f.Open(t.Context(), Unlock{}); err != nil || !got.Equal(key) {
		t.Errorf("opened: %v", err)
	}
	if err := f.Write(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file was written over: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	key := NewKey()
	_, path := sealed(t, key, Protection{Kind: Passphrase, Passphrase: secret(passphrase)})
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, key.Reveal()) || bytes.Contains(raw, []byte(passphrase)) || !bytes.HasPrefix(raw, []byte(magic+"protection: passphrase\n")) {
		t.Fatalf("the file is %q, %v", raw, err)
	}
	f, err := Read(path)
	if err != nil || f.Info() != (Info{Kind: Passphrase, KDF: "argon2id m=65536 t=3 p=4"}) || !f.Matches(Check(key)) {
		t.Fatalf("read: %+v, %v", f.Info(), err)
	}
	if got, err := f.Open(t.Context(), given(passphrase)); err != nil || !got.Equal(key) {
		t.Errorf("opened: %v", err)
	}
	if _, err := f.Open(t.Context(), given(passphrase+" ")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := f.Open(t.Context(), Unlock{}); err == nil || !strings.Contains(err.Error(), "--passphrase-file") {
		t.Errorf("no passphrase: %v", err)
	}
	away := errors.New("nobody at the terminal")
	if _, err := f.Open(t.Context(), Unlock{Passphrase: func(context.Context) (secretbytes.Bytes, error) { return secretbytes.Bytes{}, away }}); !errors.Is(err, away) {
		t.Errorf("no terminal: %v", err)
	}
	for _, text := range []string{fmt.Sprint(f), fmt.Sprintf("%+v %#v", f, *f)} {
		if strings.Contains(text, passphrase) {
			t.Errorf("the passphrase is printed: %s", text)
		}
	}
}

// Whatever is changed in a sealed file, it gives no key.
func TestAnEditedFileDoesNotOpen(t *testing.T) {
	key := NewKey()
	f, _ := sealed(t, key, Protection{Kind: Passphrase, Passphrase: secret(passphrase)})
	other, _ := sealed(t, NewKey(), Protection{Kind: Passphrase, Passphrase: secret(passphrase)})
	line := func(f *File, name string) string {
		for l := range strings.Lines(string(f.text)) {
			if strings.HasPrefix(l, name) {
				return l
			}
		}
		t.Fatalf("no line %s", name)
		return ""
	}
	for name, edit := range map[string]func(string) string{
		"truncated":        func(s string) string { return s[:len(s)-5] },
		"no seal":          func(s string) string { return strings.Replace(s, line(f, "sealed"), "", 1) },
		"another seal":     func(s string) string { return strings.Replace(s, line(f, "sealed"), line(other, "sealed"), 1) },
		"another check":    func(s string) string { return strings.Replace(s, line(f, "check"), line(other, "check"), 1) },
		"another salt":     func(s string) string { return strings.Replace(s, line(f, "salt"), line(other, "salt"), 1) },
		"more memory":      func(s string) string { return strings.Replace(s, "m=65536", "m=65537", 1) },
		"weaker":           func(s string) string { return strings.Replace(s, "m=65536", "m=8", 1) },
		"an absurd memory": func(s string) string { return strings.Replace(s, "m=65536", "m=4294967295", 1) },
		"twice a line":     func(s string) string { return strings.Replace(s, line(f, "salt"), line(f, "salt")+line(f, "salt"), 1) },
		"another order": func(s string) string {
			return strings.Replace(s, line(f, "kdf")+line(f, "salt"), line(f, "salt")+line(f, "kdf"), 1)
		},
		"another kind":      func(s string) string { return strings.Replace(s, ": passphrase", ": file", 1) },
		"a KMS without URL": func(s string) string { return strings.Replace(s, ": passphrase", ": kms", 1) },
		"carriage returns":  func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"a newer release":   func(s string) string { return strings.Replace(s, "key v1", "key v2", 1) },
		"more":              func(s string) string { return s + "more: yes\n" },
		"huge":              func(s string) string { return s + strings.Repeat("x", maxFile) },
		"32 bytes of it":    func(s string) string { return s[:Size] },
	} {
		t.Run(name, func(t *testing.T) {
			text := edit(string(f.text))
			if text == string(f.text) {
				t.Fatal("the edit changed nothing")
			}
			got, err := Parse([]byte(text))
			if err == nil {
				if got.Matches(Check(key)) && name == "32 bytes of it" {
					t.Fatal("a part of a text is taken for the key")
				}
				if name == "32 bytes of it" {
					return // is a key file, of another home
				}
				_, err = got.Open(t.Context(), given(passphrase))
			}
			if err == nil {
				t.Errorf("it opened:\n%s", text)
			}
		})
	}
}

func TestRefusedPassphrases(t *testing.T) {
	for name, p := range map[string]string{"empty": "", "short": "eleven char", "huge": strings.Repeat("x", MaxPassphrase+1)} {
		if _, err := Seal(t.Context(), NewKey(), Protection{Kind: Passphrase, Passphrase: secret(p)}, nil); err == nil || !strings.Contains(err.Error(), "the passphrase") {
			t.Errorf("%s: %v", name, err)
		}
	}
	binary := secretbytes.New([]byte("\x00\xff\n binary \x80 passphrase"))
	key := NewKey()
	f, err := Seal(t.Context(), key, Protection{Kind: Passphrase, Passphrase: binary}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Open(t.Context(), given(string(binary.Reveal()))); err != nil || !got.Equal(key) {
		t.Errorf("a binary passphrase: %v", err)
	}
}

func TestNothingIsSealedByDefault(t *testing.T) {
	for _, p := range []Protection{{}, {Kind: "FILE"}, {Kind: KMS, URL: "hashivault://ambit"}} {
		if f, err := Seal(t.Context(), NewKey(), p, nil); err == nil {
			t.Errorf("%+v gave %+v", p, f.Info())
		}
	}
	if _, err := Seal(t.Context(), secret("short"), Protection{Kind: KeyFile}, nil); err == nil {
		t.Error("a short key was sealed")
	}
	if _, err := (&File{}).Open(t.Context(), Unlock{}); err == nil {
		t.Error("the zero file opened")
	}
}

func TestRefusedFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"missing":     {os.Remove, "no such file"},
		"short":       {func(p string) error { return os.WriteFile(p, []byte("short"), 0o600) }, "has 5 bytes"},
		"empty":       {func(p string) error { return os.WriteFile(p, nil, 0o600) }, "has 0 bytes"},
		"huge":        {func(p string) error { return os.WriteFile(p, make([]byte, maxFile+1), 0o600) }, "bytes, and a root key has 32"},
		"open to all": {func(p string) error { return os.Chmod(p, 0o604) }, "chmod 600"},
		"to a group":  {func(p string) error { return os.Chmod(p, 0o640) }, "chmod 600"},
		"a symlink":   {func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) }, "not a regular file"},
		"a directory": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, path := sealed(t, NewKey(), Protection{Kind: KeyFile})
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Read: %v, want %q", err, c.want)
			}
		})
	}
}

func TestReplaceLeavesNothingOfTheOldKey(t *testing.T) {
	old, next := NewKey(), NewKey()
	_, path := sealed(t, old, Protection{Kind: KeyFile})
	f, err := Seal(t.Context(), next, Protection{Kind: KeyFile}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(path + ".new"); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(path) // what a disk would still have
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	if err := Replace(path+".new", path); err != nil {
		t.Fatal(err)
	}
	was := make([]byte, Size)
	if _, err := open.ReadAt(was, 0); err != nil || !bytes.Equal(was, make([]byte, Size)) {
		t.Errorf("the old file still has %x, %v", was, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, next.Reveal()) {
		t.Errorf("the new file: %v", err)
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other name: %v", err)
	}
}

// A backup of hard links shares the file: its copy is not overwritten.
func TestReplaceSparesABackup(t *testing.T) {
	old := NewKey()
	f, path := sealed(t, old, Protection{Kind: KeyFile})
	if err := errors.Join(os.Link(path, path+".backup"), f.Write(path+".new"), Replace(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path + ".backup"); err != nil || !bytes.Equal(got, old.Reveal()) {
		t.Errorf("the backup was overwritten: %v", err)
	}
}

func TestCheckURL(t *testing.T) {
	for _, good := range []string{
		"hashivault://ambit", "hashivault://team/ambit?engine=kms", "awskms://alias/ambit?region=eu-central-1",
		"awskms:///arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab?region=us-east-1",
		"gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k", "azurekeyvault://v.vault.azure.net/keys/k",
	} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "begins with", "ambit": "begins with", "base64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4=": "begins with",
		"https://kms": "begins with", "hashivault://": "names no key", "hashivault://u:p@ambit": "no user", "hashivault://a\nb": "printable",
		"awskms://arn:aws:kms:us-east-1:1:key/1": "three slashes", "hashivault://" + strings.Repeat("a", 2048): "at most 2048", "hashivault://a#b": "names no key",
	} {
		if err := CheckURL(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}

// A build without the program says so, and what to do.
func TestNoKMSProgram(t *testing.T) {
	_, err := Seal(t.Context(), NewKey(), Protection{Kind: KMS, URL: "hashivault://ambit"}, Program{})
	var kms *KMSError
	if !errors.As(err, &kms) || !errors.Is(err, ErrNoKeeper) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("Seal: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	key := NewKey()
	for _, p := range []Protection{{Kind: KeyFile}, {Kind: Passphrase, Passphrase: secret(passphrase)}} {
		file, err := Seal(f.Context(), key, p, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(slices.Concat(file.text, file.plain.Reveal()))
	}
	f.Add([]byte(magic + "protection: kms\ncheck: " + strings.Repeat("0", 64) + "\nurl: hashivault://ambit\nsealed: dmF1bHQ6djE6\n"))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(bytes.Clone(b))
		if err != nil {
			return
		}
		// What is read is written again the same way, whatever it was.
		path := filepath.Join(t.TempDir(), "root.key")
		if err := file.Write(path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%q was written as %q, %v", b, got, err)
		}
	})
}
