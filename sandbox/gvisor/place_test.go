//go:build linux

package gvisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ambit/sandbox"
)

// placing is a computer's folders with what is around them.
type placing struct {
	t *testing.T
	sandbox.Spec
}

func newPlacing(t *testing.T) *placing {
	top := t.TempDir()
	p := &placing{t: t, Spec: sandbox.Spec{Home: filepath.Join(top, "home"), Dir: filepath.Join(top, "computer")}}
	for _, dir := range []string{p.Home, p.Dir, filepath.Join(top, "victim")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.write("../victim/file", "theirs")
	return p
}

func (p *placing) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.Home, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *placing) do(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// place places files, given as path and text.
func (p *placing) place(files ...string) error {
	p.Files = nil
	for i := 0; i < len(files); i += 2 {
		p.Files = append(p.Files, sandbox.File{Path: files[i], Text: files[i+1]})
	}
	return errors.Join(place(&p.Spec)...)
}

func (p *placing) wants(name, want string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.Home, name))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = nil, nil
	}
	if err != nil || string(b) != want {
		p.t.Errorf("%s has %q, %v; want %q", name, b, err, want)
	}
}

func TestPlacedFilesAreReplacedAndTakenAway(t *testing.T) {
	p := newPlacing(t)
	p.do(p.place(".netrc", "one", ".config/gh/hosts.yml", "hosts"))
	p.wants(".netrc", "one")
	p.wants(".config/gh/hosts.yml", "hosts")
	if st, err := os.Stat(filepath.Join(p.Home, ".netrc")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("its mode: %v, %v", st.Mode(), err)
	}
	p.do(p.place(".netrc", "two")) // another version, and one file less
	p.wants(".netrc", "two")
	p.wants(".config/gh/hosts.yml", "")
	p.do(os.Remove(filepath.Join(p.Home, ".netrc")))
	p.do(p.place(".netrc", "two"))
	p.wants(".netrc", "two")

	p.write(".netrc", "the agent's") // it changed the file
	if err := p.place(".netrc", "three"); !errors.Is(err, errOthers) {
		t.Errorf("over the agent's own: %v", err)
	}
	p.wants(".netrc", "the agent's")
	p.do(p.place())
	p.wants(".netrc", "the agent's")
	list, err := filepath.Glob(filepath.Join(p.Home, ".ambit-*"))
	if err != nil || len(list) > 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}

func TestPlacedFilesAfterTheMemoryIsLost(t *testing.T) {
	p := newPlacing(t)
	p.do(p.place(".netrc", "one"))
	for _, text := range []string{"{", `{"../victim/file": "` + hash([]byte("theirs")) + `"}`} {
		p.do(os.WriteFile(filepath.Join(p.Dir, placedFile), []byte(text), 0o600))
		p.do(p.place(".netrc", "one"))
		p.wants(".netrc", "one")
		p.wants("../victim/file", "theirs")
	}
}

// TestB2PlacedFiles (row B2): whatever the agent makes of its home, nothing
// outside of it is read or written, nothing waits, and the other files are
// placed.
func TestB2PlacedFiles(t *testing.T) {
	for what, plant := range map[string]func(p *placing) error{
		"a link to a file":  func(p *placing) error { return os.Symlink("../victim/file", filepath.Join(p.Home, ".netrc")) },
		"a link to nothing": func(p *placing) error { return os.Symlink("../victim/new", filepath.Join(p.Home, ".netrc")) },
		"a link to a file of its own": func(p *placing) error {
			p.write("own", "own")
			return os.Symlink("own", filepath.Join(p.Home, ".netrc"))
		},
		"an absolute link": func(p *placing) error { return os.Symlink("/etc/passwd", filepath.Join(p.Home, ".netrc")) },
		"a pipe":           func(p *placing) error { return syscall.Mkfifo(filepath.Join(p.Home, ".netrc"), 0o600) },
		"a folder":         func(p *placing) error { return os.Mkdir(filepath.Join(p.Home, ".netrc"), 0o700) },
		"a huge file": func(p *placing) error {
			p.write(".netrc", "")
			return os.Truncate(filepath.Join(p.Home, ".netrc"), 1<<40)
		},
		"a link in the way": func(p *placing) error { return os.Symlink("../victim", filepath.Join(p.Home, ".config")) },
		"a file in the way": func(p *placing) error { p.write(".config", "x"); return nil },
		"a loop in the way": func(p *placing) error { return os.Symlink(".config", filepath.Join(p.Home, ".config")) },
	} {
		t.Run(what, func(t *testing.T) {
			p := newPlacing(t)
			p.do(plant(p))
			err := p.place(".netrc", "reference", ".config/file", "reference", ".other", "reference")
			if err == nil || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("the problem is %v", err)
			}
			p.wants(".other", "reference")
			p.wants("../victim/file", "theirs")
			if list, err := os.ReadDir(filepath.Join(p.Home, "../victim")); err != nil || len(list) != 1 {
				t.Errorf("outside there is %v, %v", list, err)
			}
			// Neither is anything taken away through it.
			_ = p.place()
			p.wants("../victim/file", "theirs")
		})
	}
	p := newPlacing(t)
	for _, name := range []string{"../victim/file", "/etc/x", "a/../../victim/file", ".", "", "a//b"} {
		if err := p.place(name, "reference"); err == nil {
			t.Errorf("%q is placed", name)
		}
	}
	p.wants("../victim/file", "theirs")
}
