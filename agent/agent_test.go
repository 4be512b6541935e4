package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/internal/sqldb"
	"ambit/kek"
)

const person ambit.Principal = "uid:1000"

func open(t *testing.T, home string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func deploy(t *testing.T, s *Store, id ambit.AgentID, source string) Agent {
	t.Helper()
	a, _, _, _, err := s.Deploy(t.Context(), id, []byte(source), nil, person)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestVersions(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	type step struct {
		Version          int
		Created, Changed bool
	}
	var got []step
	for _, source := range []string{"one", "one", "two", "one"} {
		a, v, created, changed, err := s.Deploy(t.Context(), "a", []byte(source), nil, person)
		if err != nil {
			t.Fatal(err)
		}
		if string(v.Source) != source || v.N != a.Version || v.By != person {
			t.Errorf("deploying %q gave %+v", source, v)
		}
		got = append(got, step{v.N, created, changed})
	}
	want := []step{{1, true, true}, {1, false, false}, {2, false, true}, {3, false, true}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("deploys (-want +got):\n%s", d)
	}
	if _, v, err := s.Redeploy(t.Context(), "a", 2, "uid:0"); err != nil || v.N != 4 || string(v.Source) != "two" || v.Note != "version 2 again" {
		t.Errorf("Redeploy = %+v, %v", v, err)
	}
	if _, _, err := s.Redeploy(t.Context(), "a", 9, person); !errors.Is(err, ErrVersion) {
		t.Errorf("a version that is not there: %v", err)
	}

	_ = s.Close()
	s = open(t, home)
	versions, err := s.Versions(t.Context(), "a")
	if err != nil || len(versions) != 4 || versions[0].N != 4 || versions[0].Source != nil {
		t.Errorf("after reopening: %+v, %v", versions, err)
	}
	if v, err := s.VersionSource(t.Context(), "a", 1); err != nil || string(v.Source) != "one" {
		t.Errorf("version 1: %+v, %v", v, err)
	}
	if _, err := s.VersionSource(t.Context(), "b", 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such agent: %v", err)
	}
	if _, err := s.VersionSource(t.Context(), "a", 7); !errors.Is(err, ErrVersion) {
		t.Errorf("no such version: %v", err)
	}
}

// TestConnectorFilesAreOfTheVersion: a version keeps the connector files that it
// was deployed with, and other files make another version.
func TestConnectorFilesAreOfTheVersion(t *testing.T) {
	s := open(t, t.TempDir())
	for i, connectors := range []string{"one", "one", "two", ""} {
		_, v, _, changed, err := s.Deploy(t.Context(), "a", []byte("source"), []byte(connectors), person)
		if err != nil || changed != (i != 1) || string(v.Connectors) != connectors {
			t.Errorf("deploy %d: %+v, changed %v, %v", i, v, changed, err)
		}
	}
	if _, v, err := s.Redeploy(t.Context(), "a", 1, person); err != nil || v.N != 4 || string(v.Connectors) != "one" {
		t.Errorf("Redeploy = %+v, %v", v, err)
	}
	if v, err := s.VersionSource(t.Context(), "a", 4); err != nil || string(v.Connectors) != "one" {
		t.Errorf("version 4: %+v, %v", v, err)
	}
}

func TestLifecycle(t *testing.T) {
	s := open(t, t.TempDir())
	if a := deploy(t, s, "b", "x"); a.Desired != Stopped {
		t.Errorf("a new agent is %s; it runs only once its deploy is logged", a.Desired)
	}
	deploy(t, s, "a", "x")
	if err := s.SetDesired(t.Context(), "b", Running); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != "a" || list[1].Desired != Running {
		t.Errorf("List = %+v, %v", list, err)
	}
	if err := s.SetDesired(t.Context(), "c", Running); !errors.Is(err, ErrNotFound) {
		t.Errorf("SetDesired of nobody: %v", err)
	}
	if err := s.SetDesired(t.Context(), "b", "sideways"); err == nil {
		t.Error("an unknown state was stored")
	}
	if err := s.Delete(t.Context(), "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Delete of nobody: %v", err)
	}
}

func TestHeadMovesOnlyFromWhatWasSeen(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	if h, err := s.Head(t.Context(), "a"); err != nil || h != nil {
		t.Fatalf("Head = %q, %v", h, err)
	}
	for _, c := range []struct {
		old, new string
		set      bool
	}{{"", "one", true}, {"", "two", false}, {"one", "two", true}, {"one", "three", false}} {
		var old []byte
		if c.old != "" {
			old = []byte(c.old)
		}
		if set, err := s.SetHead(t.Context(), "a", old, []byte(c.new)); err != nil || set != c.set {
			t.Errorf("SetHead(%q, %q) = %v, %v", c.old, c.new, set, err)
		}
	}
	if h, _ := s.Head(t.Context(), "a"); string(h) != "two" {
		t.Errorf("Head = %q", h)
	}
}

func TestUserIDsAreNeverUsedAgain(t *testing.T) {
	s, err := Open(t.Context(), Config{Home: t.TempDir(), OwnUID: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	seen := map[int]bool{}
	for i := range 3 {
		for _, id := range []ambit.AgentID{"a", "b"} {
			a := deploy(t, s, id, fmt.Sprint(i))
			if a.UID < firstUID || seen[a.UID] {
				t.Errorf("%s got user id %d; before: %v", id, a.UID, seen)
			}
			seen[a.UID] = true
			if err := s.Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestC2 is row C2: a wrapped key that was copied to another agent, or to
// another purpose, does not open, and the tokens of two agents differ.
func TestC2(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	deploy(t, s, "b", "x")
	ka, err := s.Keys(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	kb, err := s.Keys(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if ka.Data.Len() != keySize || ka.Data.Equal(kb.Data) || ka.Data.Equal(ka.Sign) {
		t.Error("keys are not distinct")
	}
	if len(ka.Vault) != 1 || ka.Vault[0].Version != 1 || ka.Vault[0].Key.Len() != keySize || ka.Vault[0].Key.Equal(ka.Data) || ka.Vault[0].Key.Equal(kb.Vault[0].Key) {
		t.Error("vault keys are not distinct")
	}
	if ta, tb := token(t, s, "a"), token(t, s, "b"); ta == tb || len(ta) != 64 {
		t.Error("tokens are not distinct")
	}
	if _, err := s.WorkerToken(t.Context(), "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the token of nobody: %v", err)
	}
	for name, query := range map[string]string{
		"another agent":   "UPDATE agent_keys SET wrapped = (SELECT wrapped FROM agent_keys WHERE agent = 'a' AND purpose = 'data') WHERE agent = 'b' AND purpose = 'data'",
		"another purpose": "UPDATE agent_keys SET wrapped = (SELECT wrapped FROM agent_keys WHERE agent = 'b' AND purpose = 'sign') WHERE agent = 'b' AND purpose = 'data'",
		"another version": "UPDATE agent_keys SET version = 2 WHERE agent = 'b' AND purpose = 'vault'",
		"vault to vault":  "UPDATE agent_keys SET wrapped = (SELECT wrapped FROM agent_keys WHERE agent = 'a' AND purpose = 'vault') WHERE agent = 'b' AND purpose = 'vault'",
		"cut short":       "UPDATE agent_keys SET wrapped = x'00' WHERE agent = 'b'",
		"empty":           "UPDATE agent_keys SET wrapped = zeroblob(60) WHERE agent = 'b'",
	} {
		change(t, s.db, query)
		if _, err := s.Keys(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "does not open") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func token(t *testing.T, s *Store, id ambit.AgentID) string {
	t.Helper()
	out, err := s.WorkerToken(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func change(t *testing.T, db *sqldb.DB, query string) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(t.Context(), query)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDeleteOverwritesTheKeys(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	deploy(t, s, "a", "a canary in the manifest")
	var wrapped []byte
	if err := s.db.QueryRow(t.Context(), "SELECT wrapped FROM agent_keys WHERE purpose = 'data'", nil, &wrapped); err != nil {
		t.Fatal(err)
	}
	if !onDisk(t, home, wrapped) {
		t.Fatal("the test does not find the key where it is")
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if onDisk(t, home, wrapped) || onDisk(t, home, []byte("a canary in the manifest")) {
		t.Error("what was deleted is still on the disk")
	}
	if _, err := s.Keys(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Keys after Delete: %v", err)
	}
}

func onDisk(t *testing.T, home string, what []byte) bool {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(home, "control.db*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, what) {
			return true
		}
	}
	return false
}

func TestRootKeyRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"missing":      {os.Remove, "restore it from a backup"},
		"short":        {func(p string) error { return os.WriteFile(p, []byte("short"), 0o600) }, "has 5 bytes"},
		"open to all":  {func(p string) error { return os.Chmod(p, 0o644) }, "chmod 600"},
		"another":      {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte{7}, keySize), 0o600) }, "is not the key"},
		"a symlink":    {func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Symlink(p+"2", p)) }, "not a regular file"},
		"a crash left": {func(p string) error { return os.WriteFile(filepath.Join(filepath.Dir(p), ".root.key-1"), nil, 0o600) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			s := open(t, home)
			deploy(t, s, "a", "x")
			_ = s.Close()
			if err := c.spoil(filepath.Join(home, "root.key")); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), Config{Home: home})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open: %v, want %q", err, c.want)
			}
		})
	}
}

// A crash after the key was made and before the database knew it.
func TestRootKeyIsTakenUpAfterACrash(t *testing.T) {
	home := t.TempDir()
	path := filepath.Join(home, "root.key")
	key := kek.NewKey()
	f, err := kek.Seal(t.Context(), key, kek.Protection{Kind: kek.KeyFile}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+nextSuffix, []byte("a part"), 0o600); err != nil { // of a crash before that
		t.Fatal(err)
	}
	s := open(t, home)
	deploy(t, s, "a", "x")
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(key.Reveal(), after) {
		t.Errorf("the key was replaced: %v", err)
	}
	if _, err := os.Stat(path + nextSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the crash left is still there: %v", err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", s, s, s), string(after)) {
		t.Error("the key is printed")
	}
}

func TestNewerDatabase(t *testing.T) {
	home := t.TempDir()
	s := open(t, home)
	change(t, s.db, "INSERT INTO agent_migrations (version_id, is_applied) VALUES (99, 1)")
	_ = s.Close()
	if _, err := Open(context.Background(), Config{Home: home}); !errors.Is(err, sqldb.ErrNewer) {
		t.Errorf("Open: %v", err)
	}
}
