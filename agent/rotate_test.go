package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/kek"
)

const passphrase = "correct horse battery staple"

func secret(s string) secretbytes.Bytes { return secretbytes.New([]byte(s)) }

// asked gives a passphrase; "" is nobody who could be asked.
func asked(s string) kek.Unlock {
	if s == "" {
		return kek.Unlock{}
	}
	return kek.Unlock{Passphrase: func(context.Context) (secretbytes.Bytes, error) { return secret(s), nil }}
}

// everything is all keys of all agents, in the clear.
func everything(t *testing.T, s *Store) map[string]string {
	t.Helper()
	agents, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, a := range agents {
		k, err := s.Keys(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		out[string(a.ID)+" data"] = fmt.Sprintf("%x", k.Data.Reveal())
		out[string(a.ID)+" sign"] = fmt.Sprintf("%x", k.Sign.Reveal())
		for _, v := range k.Vault {
			out[fmt.Sprintf("%s vault %d", a.ID, v.Version)] = fmt.Sprintf("%x", v.Key.Reveal())
		}
		out[string(a.ID)+" token"] = token(t, s, a.ID)
	}
	k, err := s.ControlKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out["control data"] = fmt.Sprintf("%x", k.Data.Reveal())
	out["control sign"] = fmt.Sprintf("%x", k.Sign.Reveal())
	out["control witness"] = fmt.Sprintf("%x", k.Witness.Reveal())
	return out
}

func same(t *testing.T, s *Store, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, everything(t, s)); d != "" {
		t.Errorf("keys (-before +after):\n%s", d)
	}
}

func reopen(t *testing.T, s *Store, p string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Home: s.home, Unlock: asked(p)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRootRotationKeepsEveryKey(t *testing.T) {
	s := open(t, t.TempDir())
	for _, id := range []ambit.AgentID{"a", "b", "c"} {
		deploy(t, s, id, "x")
	}
	if _, err := s.AddVaultKey(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	before := everything(t, s)
	old, _ := os.ReadFile(s.rootPath())
	var wrapped []byte
	if err := s.db.QueryRow(t.Context(), "SELECT wrapped FROM agent_keys WHERE agent = 'c' AND purpose = 'data'", nil, &wrapped); err != nil {
		t.Fatal(err)
	}
	was, err := s.Root(t.Context())
	if err != nil || was.Kind != kek.KeyFile || was.Created.IsZero() {
		t.Fatalf("Root: %+v, %v", was, err)
	}

	if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
		t.Fatal(err)
	}
	same(t, s, before)
	if now, err := os.ReadFile(s.rootPath()); err != nil || bytes.Equal(now, old) || len(now) != kek.Size {
		t.Errorf("the key file has %d bytes and is old: %t, %v", len(now), bytes.Equal(now, old), err)
	}
	if onDisk(t, s.home, wrapped) {
		t.Error("a key as the old root key wrapped it is still on the disk")
	}
	if r, err := s.Root(t.Context()); err != nil || !r.Created.After(was.Created) {
		t.Errorf("Root: %+v, %v", r, err)
	}
	deploy(t, s, "d", "x") // wrapped with the new one
	before = everything(t, s)
	s = reopen(t, s, "")
	same(t, s, before)
}

// Protecting in another way leaves no file that opens without it.
func TestProtectRoot(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	before := everything(t, s)
	if err := s.ProtectRoot(t.Context(), kek.Protection{Kind: kek.Passphrase, Passphrase: secret(passphrase)}); err != nil {
		t.Fatal(err)
	}
	same(t, s, before)
	if _, err := os.Stat(s.rootPath() + nextSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file beside it: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"": "--passphrase-file", "another passphrase": "the passphrase is not the one"} {
		if _, err := Open(t.Context(), Config{Home: s.home, Unlock: asked(p)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("passphrase %q: %v, want %q", p, err, want)
		}
	}
	s, err := Open(t.Context(), Config{Home: s.home, Unlock: asked(passphrase)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	same(t, s, before)
	if r, err := s.Root(t.Context()); err != nil || r.Kind != kek.Passphrase || !strings.HasPrefix(r.KDF, "argon2id") {
		t.Errorf("Root: %+v, %v", r, err)
	}

	// A rotation keeps the passphrase, and does not take another for it.
	if err := s.RotateRoot(t.Context(), secret("another passphrase")); !errors.Is(err, kek.ErrPassphrase) {
		t.Errorf("with another passphrase: %v", err)
	}
	if err := s.RotateRoot(t.Context(), secret(passphrase)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, passphrase)
	same(t, s, before)

	if err := s.ProtectRoot(t.Context(), kek.Protection{Kind: kek.KeyFile}); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, "")
	same(t, s, before)
	for _, p := range []kek.Protection{{}, {Kind: kek.Passphrase}, {Kind: kek.KMS, URL: "hashivault://ambit"}} {
		if err := s.ProtectRoot(t.Context(), p); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
			t.Errorf("%+v: %v", p, err)
		}
	}
	same(t, reopen(t, s, ""), before)
}

// TestCrashPoints ends a rotation after each of its steps, and in the middle
// of the ones that can be, and opens the home again: every key is there.
func TestCrashPoints(t *testing.T) {
	toPassphrase := kek.Protection{Kind: kek.Passphrase, Passphrase: secret(passphrase)}
	toFile := kek.Protection{Kind: kek.KeyFile}
	for _, way := range []struct{ from, to kek.Protection }{{toFile, toFile}, {toFile, toPassphrase}, {toPassphrase, toFile}, {toPassphrase, toPassphrase}} {
		for _, c := range []struct {
			name  string
			do    func(t *testing.T, s *Store) error
			after bool // the new key is in force
		}{
			{"a part of the new file is written", func(_ *testing.T, s *Store) error {
				return os.WriteFile(s.rootPath()+nextSuffix, []byte("ambit root key v1\nprot"), 0o600)
			}, false},
			{"the new file is written", func(t *testing.T, s *Store) error {
				_, _, err := s.writeNext(t.Context(), way.to)
				return err
			}, false},
			{"the transaction is not committed", func(t *testing.T, s *Store) error {
				key, _, err := s.writeNext(t.Context(), way.to)
				if err != nil {
					return err
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := s.rewrap(ctx, key); err == nil {
					t.Error("the transaction was to fail")
				}
				return nil
			}, false},
			{"the transaction is committed", func(t *testing.T, s *Store) error {
				key, f, err := s.writeNext(t.Context(), way.to)
				if err != nil {
					return err
				}
				return s.enforce(t.Context(), key, f.Info())
			}, true},
			{"the file is in its place", func(t *testing.T, s *Store) error {
				key, f, err := s.writeNext(t.Context(), way.to)
				if err != nil {
					return err
				}
				return errors.Join(s.enforce(t.Context(), key, f.Info()), kek.Replace(s.rootPath()+nextSuffix, s.rootPath()))
			}, true},
		} {
			t.Run(fmt.Sprintf("%s to %s/%s", way.from.Kind, way.to.Kind, c.name), func(t *testing.T) {
				s := open(t, t.TempDir())
				deploy(t, s, "a", "x")
				deploy(t, s, "b", "x")
				if way.from.Kind != kek.KeyFile {
					if err := s.ProtectRoot(t.Context(), way.from); err != nil {
						t.Fatal(err)
					}
				}
				before := everything(t, s)
				if err := c.do(t, s); err != nil {
					t.Fatal(err)
				}
				inForce := way.from.Kind
				if c.after {
					inForce = way.to.Kind
				}
				p := ""
				if inForce == kek.Passphrase {
					p = passphrase
				}
				s = reopen(t, s, p)
				same(t, s, before)
				if r, err := s.Root(t.Context()); err != nil || r.Kind != inForce {
					t.Errorf("Root: %+v, %v; want %s", r, err, inForce)
				}
				if _, err := os.Stat(s.rootPath() + nextSuffix); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file beside it: %v", err)
				}
				same(t, reopen(t, s, p), before)
			})
		}
	}
}

// A rotation that cannot be finished now is finished before the next one.
func TestRotationAfterOneThatWasNotFinished(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	before := everything(t, s)
	key, f, err := s.writeNext(t.Context(), kek.Protection{Kind: kek.KeyFile})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.enforce(t.Context(), key, f.Info()); err != nil {
		t.Fatal(err)
	}
	same(t, s, before)
	if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
		t.Fatal(err)
	}
	same(t, reopen(t, s, ""), before)
}

// One row that does not open stops a rotation, and nothing is lost by it.
func TestRotationWithADamagedRow(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	before := everything(t, s)
	deploy(t, s, "b", "x")
	change(t, s.db, "UPDATE agent_keys SET wrapped = zeroblob(60) WHERE agent = 'b' AND purpose = 'sign'")
	if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "the sign key of b") {
		t.Errorf("RotateRoot: %v", err)
	}
	if err := s.Delete(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	same(t, reopen(t, s, ""), before)
}

// Agents are made, and keys are read, while the root key changes.
func TestRotationMeanwhile(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil && i < 200; i++ {
			id := ambit.AgentID(fmt.Sprintf("n%d", i))
			if _, _, _, _, err := s.Deploy(t.Context(), id, []byte("x"), nil, person); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			if k, err := s.Keys(t.Context(), "a"); err != nil {
				t.Error(err)
			} else {
				k.Wipe()
			}
		}
	})
	for range 10 {
		if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
	everything(t, reopen(t, s, "")) // fails if one does not open
}

// TestKilled kills a process that rotates as fast as it can, at moments that
// nobody chose, and opens the home each time.
func TestKilled(t *testing.T) {
	if home := os.Getenv("AMBIT_TEST_ROTATE"); home != "" {
		rotateForever(t, home)
		return
	}
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	deploy(t, s, "b", "x")
	before := everything(t, s)
	var cut int
	for i := range 12 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "AMBIT_TEST_ROTATE="+s.home)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has begun
			t.Fatalf("the process that rotates: %v", err)
		}
		time.Sleep(time.Duration(i*3) * time.Millisecond) // any moment will do
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(s.rootPath() + nextSuffix); err == nil {
			cut++
		}
		if s, err = Open(t.Context(), Config{Home: s.home}); err != nil {
			t.Fatalf("after kill %d: %v", i, err)
		}
		t.Cleanup(func() { _ = s.Close() })
		same(t, s, before)
	}
	t.Logf("%d of 12 were cut in the middle", cut)
}

func rotateForever(t *testing.T, home string) {
	s, err := Open(t.Context(), Config{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print(".")
	for { // until killed
		if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestVaultKeyRotation(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	deploy(t, s, "b", "x")
	if v, err := s.AddVaultKey(t.Context(), "a"); err != nil || v != 2 {
		t.Fatalf("AddVaultKey = %d, %v", v, err)
	}
	if v, err := s.AddVaultKey(t.Context(), "a"); err != nil || v != 2 {
		t.Errorf("a rotation that is not finished: %d, %v; want 2 again", v, err)
	}
	s = reopen(t, s, "")
	both, err := s.Keys(t.Context(), "a")
	if err != nil || len(both.Vault) != 2 || both.Vault[0].Version != 1 || both.Vault[1].Version != 2 || both.Vault[0].Key.Equal(both.Vault[1].Key) {
		t.Fatalf("Keys: %+v, %v", both, err)
	}
	status, err := s.KeyStatus(t.Context(), "")
	if err != nil || len(status) != 2 || status[0].Version != 2 || len(status[0].Old) != 1 || status[1].Version != 1 || len(status[1].Old) != 0 || status[1].Created.IsZero() {
		t.Errorf("KeyStatus = %+v, %v", status, err)
	}
	var wrapped []byte
	if err := s.db.QueryRow(t.Context(), "SELECT wrapped FROM agent_keys WHERE agent = 'a' AND purpose = 'vault' AND version = 1", nil, &wrapped); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []int{0, 1, 3} {
		if err := s.RetireVaultKeys(t.Context(), "a", keep); err == nil {
			t.Errorf("keeping version %d destroyed the newest", keep)
		}
	}
	for range 2 { // the second changes nothing
		if err := s.RetireVaultKeys(t.Context(), "a", 2); err != nil {
			t.Fatal(err)
		}
	}
	if onDisk(t, s.home, wrapped) {
		t.Error("the old version is still on the disk")
	}
	one, err := s.Keys(t.Context(), "a")
	if err != nil || len(one.Vault) != 1 || one.Vault[0].Version != 2 || !one.Vault[0].Key.Equal(both.Vault[1].Key) || !one.Data.Equal(both.Data) {
		t.Errorf("Keys: %+v, %v", one, err)
	}
	if _, err := s.AddVaultKey(t.Context(), "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("AddVaultKey of nobody: %v", err)
	}
	if _, err := s.KeyStatus(t.Context(), "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("KeyStatus of nobody: %v", err)
	}
}

// A home of the first format has no vault keys, and tokens that are derived
// from its root key: workers that run know those.
func TestHomeOfTheFirstFormat(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	data := everything(t, s)["a data"]
	known := s.derivedToken("a")
	change(t, s.db, "DELETE FROM agent_keys WHERE purpose IN ('vault', 'token')")
	change(t, s.db, "ALTER TABLE agent_keys DROP COLUMN created")
	change(t, s.db, "ALTER TABLE agent_home DROP COLUMN root_created")
	change(t, s.db, "ALTER TABLE agent_versions DROP COLUMN connectors")
	change(t, s.db, "ALTER TABLE agents DROP COLUMN refused")
	change(t, s.db, "ALTER TABLE agents DROP COLUMN held")
	change(t, s.db, "DROP TABLE control_keys")
	change(t, s.db, "DROP TABLE control_log")
	change(t, s.db, "DELETE FROM agent_migrations WHERE version_id >= 2")

	s = reopen(t, s, "")
	after := everything(t, s)
	if got := after["a token"]; got != fmt.Sprintf("%x", known.Reveal()) {
		t.Error("a worker that runs would not be known")
	}
	if after["a data"] != data || after["a vault 1"] == "" {
		t.Errorf("keys: %v", after)
	}
	if r, err := s.Root(t.Context()); err != nil || !r.Created.IsZero() {
		t.Errorf("Root: %+v, %v", r, err)
	}
	if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
		t.Fatal(err)
	}
	same(t, reopen(t, s, ""), after)
}

// What cannot be known is not guessed.
func TestATornRotationRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	before := everything(t, s)
	s.torn = true
	_, keys := s.Keys(t.Context(), "a")
	_, _, _, _, dep := s.Deploy(t.Context(), "b", []byte("x"), nil, person)
	for name, err := range map[string]error{"Keys": keys, "Deploy": dep, "RotateRoot": s.RotateRoot(t.Context(), secretbytes.Bytes{})} {
		if !errors.Is(err, errTorn) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same(t, reopen(t, s, ""), before)
}

// A backup of control.db that is older than root.key, or the other way round,
// is refused in words.
func TestHalvesOfTwoBackups(t *testing.T) {
	s := open(t, t.TempDir())
	deploy(t, s, "a", "x")
	old, err := os.ReadFile(s.rootPath())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RotateRoot(t.Context(), secretbytes.Bytes{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), os.WriteFile(filepath.Join(s.home, "root.key"), old, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Home: s.home}); err == nil || !strings.Contains(err.Error(), "restore the right one") {
		t.Errorf("Open: %v", err)
	}
}
