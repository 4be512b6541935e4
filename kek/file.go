package kek

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ambit/internal/secretbytes"
)

// magic is the first line of every form but the plain one.
const magic = "ambit root key v1\n"

// maxFile bounds a root key file, in bytes. A KMS's wrapped key has some
// hundred.
const maxFile = 16 << 10

// Read reads a root key file. It refuses one that others can read or write, or
// that is not a regular file. The error is fs.ErrNotExist's if there is none.
// The caller wipes the file.
func Read(path string) (*File, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("looking at the root key: %w", err)
	}
	switch {
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file: restore the root key from a backup", path)
	case fi.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read or written by other users (mode %04o): if nobody had it, run: chmod 600 %s; if somebody may have, also run then: ambit keys rotate root", path, fi.Mode().Perm(), path)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the root key: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s %w: restore it from a backup", path, err)
	}
	return f, nil
}

// Parse reads the content of a root key file, which it then owns.
func Parse(b []byte) (*File, error) {
	if len(b) == Size {
		key := secretbytes.New(b)
		return &File{info: Info{Kind: KeyFile}, check: Check(key), plain: key}, nil
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		if bytes.HasPrefix(b, []byte("ambit root key v")) {
			return nil, errors.New("was written by a newer Ambit: use that release. Otherwise")
		}
		return nil, fmt.Errorf("has %d bytes, and a root key has %d, or is a text that begins with %q", len(b), Size, strings.TrimSpace(magic))
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("has more than %d bytes", maxFile)
	}
	f := &File{}
	if err := f.parse(string(b[len(magic):])); err != nil {
		return nil, fmt.Errorf("is damaged (%w)", err)
	}
	// There is one way to write each file: whatever else was read is refused.
	if f.write(); !bytes.Equal(f.text, b) {
		return nil, errors.New("is damaged (it is not written the way it was made)")
	}
	return f, nil
}

func (f *File) parse(text string) (err error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || value == "" {
			return fmt.Errorf("a line of it is not \"name: value\"")
		}
		fields[name] = value
	}
	f.info.Kind = Kind(fields["protection"])
	if f.check, err = hex.DecodeString(fields["check"]); err != nil || len(f.check) != Size {
		return errors.New("its check is not 64 hexadecimal digits")
	}
	if f.box, err = base64.StdEncoding.DecodeString(fields["sealed"]); err != nil || len(f.box) == 0 {
		return errors.New("its sealed key is not base64")
	}
	switch f.info.Kind {
	case Passphrase:
		f.info.KDF = fields["kdf"]
		if _, err := fmt.Sscanf(f.info.KDF, "argon2id m=%d t=%d p=%d", &f.kdf.memory, &f.kdf.passes, &f.kdf.threads); err != nil || !f.kdf.valid() {
			return fmt.Errorf("its kdf %q is not one that this release opens", f.info.KDF)
		}
		if f.salt, err = base64.StdEncoding.DecodeString(fields["salt"]); err != nil || len(f.salt) != saltSize {
			return errors.New("its salt is not 16 bytes in base64")
		}
	case KMS:
		f.info.URL = fields["url"]
		return CheckURL(f.info.URL)
	default:
		return fmt.Errorf("its protection is neither %s nor %s", Passphrase, KMS)
	}
	return nil
}

// write makes the text of a sealed file.
func (f *File) write() {
	var b strings.Builder
	fmt.Fprintf(&b, "%sprotection: %s\ncheck: %x\n", magic, f.info.Kind, f.check)
	if f.info.Kind == KMS {
		fmt.Fprintf(&b, "url: %s\n", f.info.URL)
	} else {
		fmt.Fprintf(&b, "kdf: %s\nsalt: %s\n", f.kdf, base64.StdEncoding.EncodeToString(f.salt))
	}
	f.head = b.Len()
	fmt.Fprintf(&b, "sealed: %s\n", base64.StdEncoding.EncodeToString(f.box))
	f.text = []byte(b.String())
}

// Write makes the file at path, which must not exist, with mode 0600. When it
// returns without an error the file survives a power cut; after a crash within
// it, a part of the file may be there.
func (f *File) Write(path string) (err error) {
	// open(O_CREAT|O_EXCL), write, fsync, close, fsync(directory)
	w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("writing the root key: %w", err)
	}
	content := f.text
	if f.info.Kind == KeyFile {
		content = f.plain.Reveal()
	}
	_, err = w.Write(content)
	if err = errors.Join(err, w.Sync(), w.Close()); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the root key: %w", err), os.Remove(path))
	}
	return nil
}

// Replace puts the file from in the place of to, durably and in one step, and
// then overwrites what was at to: that helps on file systems that write in
// place, and does not where they copy, as on most flash. A file that has a
// second name, such as one in a backup of hard links, is left as it is.
func Replace(from, to string) error {
	old, err := os.OpenFile(to, os.O_WRONLY|syscall.O_NOFOLLOW, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing the root key: %w", err)
	}
	if err == nil {
		defer func() { _ = old.Close() }()
	}
	// rename, fsync(directory)
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("replacing the root key: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return fmt.Errorf("replacing the root key: %w", err)
	}
	if old == nil {
		return nil
	}
	fi, err := old.Stat()
	if st, ok := fi.Sys().(*syscall.Stat_t); err == nil && ok && st.Nlink == 0 {
		_, _ = old.Write(make([]byte, fi.Size())) // what is lost if it fails is said above
		_ = old.Sync()
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
