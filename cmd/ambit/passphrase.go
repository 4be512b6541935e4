package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"ambit/internal/secretbytes"
	"ambit/kek"
)

// passphraseFile is where a passphrase is read from: the flag's file, else the
// one that the environment names; "" is a terminal.
func passphraseFile(flag string) string {
	if flag != "" {
		return flag
	}
	return os.Getenv("AMBIT_PASSPHRASE_FILE")
}

const passphraseHelp = "file with the passphrase of the root key; default $AMBIT_PASSPHRASE_FILE, then a question on the terminal"

// passphrase reads a passphrase from a file, or asks for it on the terminal,
// where it is not shown: for one that is new, twice.
func (a *app) passphrase(ctx context.Context, file, question string, isNew bool) (secretbytes.Bytes, error) {
	if file != "" {
		return readPassphrase(file)
	}
	first, err := a.askSecret(ctx, question)
	if err != nil || !isNew {
		return first, err
	}
	if err := kek.CheckPassphrase(first); err != nil {
		first.Wipe()
		return secretbytes.Bytes{}, err
	}
	second, err := a.askSecret(ctx, "The same again: ")
	defer second.Wipe()
	if err == nil && !first.Equal(second) {
		err = errors.New("the two are not the same: nothing was changed")
	}
	if err != nil {
		first.Wipe()
		return secretbytes.Bytes{}, err
	}
	return first, nil
}

// readPassphrase reads a file without its last line's end. The file may be a
// pipe; one on the disk must not be readable by others. A group may read it:
// that is how systemd hands credentials to services.
func readPassphrase(path string) (secretbytes.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("reading the passphrase: %w", err)
	}
	if perm := fi.Mode().Perm(); fi.Mode().IsRegular() && perm&0o037 != 0 {
		return secretbytes.Bytes{}, fmt.Errorf("the passphrase in %s can be read or written by others (mode %04o): run: chmod 600 %s", path, perm, path)
	}
	b := make([]byte, kek.MaxPassphrase+3) // so that one that is too long is seen to be, with its line's end
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		return secretbytes.Bytes{}, fmt.Errorf("reading the passphrase: %w", err)
	}
	for _, end := range []byte{'\n', '\r'} {
		if n > 0 && b[n-1] == end {
			n--
		}
	}
	if n == 0 || n > kek.MaxPassphrase {
		clear(b)
		return secretbytes.Bytes{}, fmt.Errorf("the passphrase in %s is empty or has more than %d bytes", path, kek.MaxPassphrase)
	}
	clear(b[n:])
	return secretbytes.New(b[:n]), nil
}

// askSecret asks on the terminal, without echo. Ctrl-C ends the question.
func (a *app) askSecret(ctx context.Context, question string) (secretbytes.Bytes, error) {
	f, ok := terminal(a.stdin)
	if !ok {
		return secretbytes.Bytes{}, errors.New("there is no terminal to ask for the passphrase of the root key: give it with --passphrase-file or AMBIT_PASSPHRASE_FILE")
	}
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("asking for the passphrase: %w", err)
	}
	_, _ = fmt.Fprint(a.stderr, question)
	defer func() { _, _ = fmt.Fprintln(a.stderr) }()
	type answer struct {
		b   []byte
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the program if nothing is written
		b, err := term.ReadPassword(fd)
		answered <- answer{b, err}
	}()
	select {
	case <-ctx.Done():
		return secretbytes.Bytes{}, errors.Join(ctx.Err(), term.Restore(fd, before))
	case got := <-answered:
		if got.err != nil {
			return secretbytes.Bytes{}, fmt.Errorf("asking for the passphrase: %w", got.err)
		}
		return secretbytes.New(got.b), nil
	}
}
