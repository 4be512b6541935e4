package outputs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"ambit/internal/secretbytes"
)

// maxSecret is the largest file with a secret, in bytes.
const maxSecret = 64 << 10

// ReadSecret reads a file with a secret, without blanks and newlines at its ends. A file
// that other users could read or write, or that belongs to another user than us or
// root, is refused.
func ReadSecret(path string) (secretbytes.Bytes, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("opening the file with the secret: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("opening the file with the secret: %w", err)
	}
	owner, known := fi.Sys().(*syscall.Stat_t)
	switch mode := fi.Mode(); {
	case !mode.IsRegular():
		return secretbytes.Bytes{}, fmt.Errorf("%s is no regular file, and so not taken for a secret", path)
	case mode.Perm()&0o077 != 0:
		return secretbytes.Bytes{}, fmt.Errorf("%s can be read or written by other users (mode %04o): run: chmod 600 %s; and replace the secret if somebody may have read it", path, mode.Perm(), path)
	case known && owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return secretbytes.Bytes{}, fmt.Errorf("%s belongs to another user (%d), who can change it", path, owner.Uid)
	case fi.Size() > maxSecret:
		return secretbytes.Bytes{}, fmt.Errorf("%s has %d bytes, too many for a secret", path, fi.Size())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return secretbytes.Bytes{}, fmt.Errorf("reading the file with the secret: %w", err)
	}
	secret := bytes.TrimSpace(text)
	if len(secret) == 0 {
		return secretbytes.Bytes{}, fmt.Errorf("%s is empty: write the secret into it", path)
	}
	for _, c := range secret {
		if c < ' ' && c != '\n' || c == 0x7f {
			return secretbytes.Bytes{}, fmt.Errorf("%s has a control character in it, which no secret has", path)
		}
	}
	return secretbytes.New(secret), nil
}
