package gvisor

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"ambit/sandbox"

	"golang.org/x/sys/unix"
)

// maxPlaced bounds a file that is placed in the home folder, in bytes.
const maxPlaced = 1 << 20

// place puts the files of s into the home folder of its computer, which does
// not run. The folder is the agent's own and hostile (ATTACKS B2): nothing is
// reached outside of it, no link is written through, and no file is touched
// that is not as place left it. What is placed is remembered in s.Dir, so that
// it is replaced and taken away again; if that is lost, the files are the
// agent's.
//
// The problems are about single files, which are left out: an agent that makes
// a mess of its home does not keep its computer from starting.
func place(s *sandbox.Spec) (problems []error) {
	placed := layout(s.Dir).readPlaced()
	if len(s.Files) == 0 && len(placed) == 0 {
		return nil
	}
	home, err := os.OpenRoot(s.Home)
	if err != nil {
		return []error{fmt.Errorf("opening the agent's home: %w", err)}
	}
	defer func() { _ = home.Close() }()
	now := make(map[string]string, len(s.Files))
	for _, f := range s.Files {
		if err := placeOne(home, f, placed[f.Path]); err != nil {
			problems = append(problems, fmt.Errorf("placing %q in the agent's home: %w", f.Path, err))
			continue
		}
		now[f.Path] = hash([]byte(f.Text))
	}
	for _, old := range slices.Sorted(maps.Keys(placed)) {
		if _, kept := now[old]; kept || slices.ContainsFunc(s.Files, func(f sandbox.File) bool { return f.Path == old }) {
			continue
		}
		if b, err := readRegular(home, old); err == nil && hash(b) == placed[old] {
			err = home.Remove(old)
			if err != nil {
				problems = append(problems, fmt.Errorf("taking %q out of the agent's home: %w", old, err))
			}
		}
	}
	if err := layout(s.Dir).writePlaced(now); err != nil {
		problems = append(problems, fmt.Errorf("remembering the files in the agent's home: %w", err))
	}
	return problems
}

// errOthers is a file that the agent made, or changed.
var errOthers = errors.New("there is one of the agent's own, which is left as it is")

// placeOne writes one file if there is none, or the one that was placed before.
func placeOne(home *os.Root, f sandbox.File, before string) error {
	if !filepath.IsLocal(f.Path) || path.Clean(f.Path) != f.Path || len(f.Text) > maxPlaced {
		return errors.New("it is no file below the home, or too large")
	}
	b, err := readRegular(home, f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case string(b) == f.Text:
		return nil
	case hash(b) != before:
		return errOthers
	}
	if dir := path.Dir(f.Path); dir != "." {
		if err := home.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	tmp := path.Join(path.Dir(f.Path), ".ambit-"+rand.Text())
	w, err := home.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = w.WriteString(f.Text)
	if err = errors.Join(err, w.Close()); err == nil {
		err = home.Rename(tmp, f.Path) // in place of the name, whatever it was a link to
	}
	if err != nil {
		_ = home.Remove(tmp)
	}
	return err
}

// readRegular reads a regular file: it does not wait for a pipe, and follows no
// link of the file's own name.
func readRegular(home *os.Root, name string) ([]byte, error) {
	st, err := home.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxPlaced {
		return nil, errOthers
	}
	f, err := home.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if opened, err := f.Stat(); err != nil || !os.SameFile(st, opened) {
		return nil, errOthers
	}
	return io.ReadAll(io.LimitReader(f, maxPlaced+1))
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// readPlaced returns the hashes of what was placed, by path; none if that is
// not known.
func (l layout) readPlaced() map[string]string {
	dir, err := os.OpenRoot(string(l))
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	b, err := readRegular(dir, placedFile)
	if err != nil {
		return nil
	}
	var placed map[string]string
	if json.Unmarshal(b, &placed) != nil {
		return nil
	}
	return placed
}

// placedFile is in the driver's folder and has the hashes of what was placed.
const placedFile = "placed.json"

func (l layout) writePlaced(placed map[string]string) error {
	b, err := json.Marshal(placed)
	if err != nil {
		return err
	}
	name := filepath.Join(string(l), placedFile)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
